"""What every kind of task is: how labels are read, what a head puts out, how good an output is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.overriding import restore_general
from mtl_cli.registry import expect_shape
from mtl_cli.tasks._curves import class_curves, number_curves
from mtl_cli.types import Column


@dataclass(frozen=True)
class LabelCounts:
    """Labels of one task in one split: how many, and how they are spread.

    Args:
        labelled: Rows with a label.
        missing: Rows without one.
        balance: What the kind says of the labels, for people (``0: 76%, 1: 24%`` or ``mean 40.4, std 12.3``).
    """

    labelled: int
    missing: int
    balance: str


class Kind(ABC):
    """One kind of task: reads labels, owns the loss per row, the metrics and the decoding.

    A kind is stateless but for what ``fit`` learns from the training labels (classes, mean and deviation);
    ``state`` gives that as plain JSON, so that a run can be used later without its training data. Labels are
    held as float32 numbers with NaN where a row has no label.

    A subclass of a kind that overrides its loss inherits neither the derivative of that nor the ``group_key``; one that
    overrides how labels are read or outputs decoded, no ``meaning``.

    Attributes:
        metrics: Name of each metric and whether higher is better (None: neither). The first is the primary one,
            which ``mean`` averages over tasks: it is better when higher, and at most 1.
        per_token: Whether there is a label for each token: the label column holds lists, and ``fit``, ``encode`` and
            all others are given tokens for rows.
        classes: Names of the classes in the order of their probabilities; empty for kinds without.
        several_columns: Whether a label may stand in several columns.
        formula: How the outputs (C,) of a row become what ``decode`` gives, with the numbers of ``state``; for people
            who use an exported model.
        scored_by: The module that ``score`` imports, if that takes long.
        chosen: The metrics that this task reports, the primary one first; if empty, those of ``defined``.
        made_with: The options that it was made with.
    """

    metrics: ClassVar[Mapping[str, bool | None]]
    per_token: ClassVar[bool] = False
    classes: Sequence[str] = ()
    several_columns: ClassVar[bool] = False
    formula: ClassVar[str] = ""
    scored_by: ClassVar[str] = ""
    chosen: tuple[str, ...] = ()
    made_with: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        losses = {"loss_and_gradient": "loss_and_gradient", "group_key": "group_key"}
        restore_general(cls, Kind, losses, of=("loss", "loss_and_gradient"))
        outputs = {"meaning": "meaning", "from_scale_of": "from_scale_of"}
        restore_general(cls, Kind, outputs, of=("loss", "fit", "encode", "decode", "state"))

    @classmethod
    def mistake(cls) -> str | None:
        """Why the class is no kind of task; None: it is one."""
        metrics = getattr(cls, "metrics", {})
        if not isinstance(metrics, Mapping):
            return f"its metrics must be a mapping, such as {{'r2': True}}, got a {type(metrics).__name__}"
        if "loss" in metrics:
            return "names a metric 'loss', which is what its loss is logged as. Give it another."
        primary = next(iter(metrics), None)
        if primary is None:
            return "names no metrics, such as metrics = {'r2': True}"
        if metrics[primary] is True:
            return None
        better = next((f"Put '{metric}' first." for metric in metrics if metrics[metric] is True), "Add one that is.")
        what = "the first of its metrics is the primary one, which `mean` averages: it must be better when higher"
        return f"{what}, got '{primary}'. {better}"

    @property
    def defined(self) -> Sequence[str]:
        """The metrics that there are with its options, the primary one first."""
        return tuple(self.metrics)

    def find_classes(self, column: Column, rows: np.ndarray) -> None:  # noqa: B027
        """Learns which classes there are from the labels of some rows (int64 indices); nothing for kinds without.

        It is called before ``fit`` with all training rows, of which ``fit`` may get a share
        (``data.split.train_fraction``): then there are fewer rows, and the classes are the same.

        Raises:
            DataError: As ``fit``.
        """

    @abstractmethod
    def fit(self, column: Column, train: np.ndarray) -> None:
        """Learns from the labels of the rows ``train`` (int64 indices): the scale; classes, unless they were found.

        Labels of text files are text.

        Raises:
            DataError: The column cannot serve as labels of this kind; names the place of the value.
        """

    @abstractmethod
    def encode(self, column: Column) -> np.ndarray:
        """Labels as the loss reads them: (N,) float32, or (N, T) if T > 1; NaN (in all T numbers) where missing.

        Raises:
            DataError: A value is no label of this kind (an unknown class, text in a number column).
        """

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """C, the outputs of a head. Known after ``fit``."""

    @property
    def num_targets(self) -> int:
        """T, the numbers that one label takes; 1 unless the kind says otherwise. Known after ``fit``."""
        return 1

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each row.

        Shape:
            outputs (k, C, B) of k tasks that are alike (see ``group_key``), targets (k, B), or (k, T, B) if T > 1,
            without NaN -> (k, B), non-negative.
        """

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row (k, B) and its derivative by the outputs (k, C, B).

        Found by autograd here; a kind with a closed form overrides it to save the training loop the cost.
        """
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            rows = self.loss(leaf, targets)
            expect_shape(self, "loss of each row", rows, (len(targets), targets.shape[-1]))
            (gradient,) = torch.autograd.grad(rows.sum(), leaf)
        return rows.detach(), gradient

    def row_weights(self, targets: np.ndarray) -> np.ndarray | None:  # noqa: ARG002
        """What each row counts in the loss by its label (N,) or (N, T): positive numbers (N,), or None for 1 each.

        The loss of a batch is the mean by these weights, so that only their ratios matter.
        """
        return None

    def affirms(self, targets: np.ndarray) -> np.ndarray:
        """Which of the labels (N,) or (N, T) say that something took place, (N,) bool; NaN says nothing.

        Every label does (a rating says that something was rated), unless the kind has one that says no.
        """
        affirmed: np.ndarray = ~np.isnan(targets if targets.ndim == 1 else targets[:, 0])
        return affirmed

    def unseen(self, targets: np.ndarray) -> list[str]:  # noqa: ARG002
        """Classes that none of the labels (N,) or (N, T), NaN where missing, is of."""
        return []

    @abstractmethod
    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Outputs (B, C) of one task to what the user reads, in the user's units and class names.

        Returns:
            ``pred`` (B,), and for kinds with classes ``prob`` (B, number of classes).
        """

    def columns(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """The same as columns of a table, by what follows the task's name: ``pred``, then ``prob_CLASS`` of each class.

        A kind that decodes to more than a prediction and class probabilities overrides it.

        Returns:
            (B,) each; the columns are the same for any B, 0 included. Text is of type ``object``.
        """
        decoded = self.decode(outputs)
        columns = {"pred": decoded["pred"]}
        for position, label in enumerate(self.classes if "prob" in decoded else ()):
            columns[f"prob_{label}"] = decoded["prob"][:, position]
        return columns

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        """Every metric of ``metrics`` over all labelled rows of a split, in the user's units.

        Shape:
            outputs (n, C), targets (n,) or (n, T) without NaN, n at least 1. A metric that is not defined for these
            labels (AUC of one class) is None, whatever the outputs: means leave it out. One that these outputs alone
            spoil is None or not finite: there is no mean with it.
        """

    def truth(self, targets: np.ndarray) -> np.ndarray | None:  # noqa: ARG002
        """Labels (n,) without NaN as numbers in the user's units; None for kinds whose labels are no numbers."""
        return None

    def curves(self, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
        """What a report draws of outputs (n, C) for labels (n,), as plain JSON; empty if there is nothing to draw."""
        decoded, labels = self.decode(outputs), targets.cpu().numpy()
        if labels.ndim > 1 or not bool(outputs.isfinite().all()):
            return {}
        if "prob" in decoded:
            places = {label: place for place, label in enumerate(self.classes)}
            predicted = np.array([places[label] for label in decoded["pred"]], np.int64)
            return class_curves(decoded["prob"], labels, self.classes, predicted)
        true = self.truth(labels)
        return {} if true is None else number_curves(decoded["pred"], true)

    @abstractmethod
    def describe(self, targets: np.ndarray) -> str:
        """How labels (n,) or (n, T) without NaN are spread, in one short line."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What ``fit`` learned, as plain JSON types."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""

    def meaning(self) -> Hashable:
        """What the outputs stand for: a trained head serves another data set if this is the same there.

        All that a kind is made with may matter, unless the kind says what does.
        """
        return (type(self), self.num_outputs, *self.classes, repr(sorted(self.made_with.items())))

    def from_scale_of(self, there: Kind) -> tuple[float, float] | None:
        """Factor and offset that make of an output of a task with the same ``meaning`` one that says the same here.

        They differ from 1 and 0 where outputs are on a scale of the training rows; None if no two numbers do it.
        """
        return (1.0, 0.0) if self.classes or self.state() == there.state() else None

    def group_key(self) -> Hashable | None:
        """Tasks of one class with equal keys are computed together; the loss may depend on nothing else.

        None: each is computed by itself, as it is where a kind does not say what its loss depends on.
        """
        return None

    def counts(self, targets: np.ndarray) -> LabelCounts:
        """Counts encoded labels (N,) or (N, T) with NaN where missing."""
        targets = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets
        known = targets[~np.isnan(targets if targets.ndim == 1 else targets[:, 0])]
        return LabelCounts(len(known), len(targets) - len(known), self.describe(known) if len(known) else "no labels")


@dataclass(frozen=True)
class Task:
    """A task as training sees it.

    Args:
        name: Its name.
        kind: Its kind.
        weight: Factor on its loss.
        auxiliary: It is trained for what it teaches the others; no mean over tasks counts it.
    """

    name: str
    kind: Kind
    weight: float = 1.0
    auxiliary: bool = False


def percent(share: float) -> str:
    """A share of rows in whole per cent; a few rows are not told as none, nor all but a few as all.

    Example:
        >>> [percent(share) for share in (0.0, 0.001, 0.246, 0.999, 1.0)]
        ['0%', '<1%', '25%', '>99%', '100%']
    """
    rounded = f"{share:.0%}"
    if rounded == "0%" and share > 0:
        return "<1%"
    return ">99%" if rounded == "100%" and share < 1 else rounded


def likeness(kind: Kind) -> Hashable | None:
    """Equal for kinds whose losses are computed together, by any of them; None for one that is computed by itself.

    Example:
        >>> from mtl_cli.tasks.regression import Regression
        >>> likeness(Regression()) == likeness(Regression()), likeness(Regression()) == likeness(Regression(loss="mae"))
        (True, False)
    """
    key = kind.group_key()
    return None if key is None else (type(kind), kind.num_outputs, kind.num_targets, key)


def target_columns(kinds: Sequence[Kind]) -> list[slice]:
    """Where the targets (N, T) of each task stand, in task order."""
    stops = np.cumsum([kind.num_targets for kind in kinds]).tolist()
    return [slice(stop - kind.num_targets, stop) for kind, stop in zip(kinds, stops, strict=True)]


def first_columns(kinds: Sequence[Kind]) -> list[int]:
    """The first column of each task's targets (N, T), in task order: NaN there says that the task has no label."""
    return [columns.start for columns in target_columns(kinds)]
