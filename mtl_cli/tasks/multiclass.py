"""One of several classes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mtl_cli.errors import ConfigError, DataError, Problem
from mtl_cli.registry import KINDS
from mtl_cli.tasks._classes import FOUND, ClassKind, class_codes, fit_classes
from mtl_cli.tasks._scores import multiclass_scores
from mtl_cli.types import ClassNames, Column, NonNegative, Positive, ProperFraction, Range


@KINDS.register("multiclass")
class Multiclass(ClassKind):
    """One of C classes without an order, with the cross-entropy of a softmax.

    Args:
        classes: The labels, in the order to show them; taken from the training rows if null.
        num_classes: How many classes there must be, as a check; null takes what is found. Numbers counted from 0 are
            classes even where the training rows lack some of them.
        loss: ``cross_entropy``, or ``focal``: cross-entropy times (1 - p) ** focal_gamma, p the probability of the true
            class, so that rows that are easy count less (Lin et al. 2017).
        focal_gamma: The exponent of focal; 0 is cross-entropy.
        label_smoothing: In [0, 1): this much of the aim is spread evenly over all classes (Szegedy et al. 2016); not
            with focal.
        class_weight: ``{label: weight}`` (1 for those not named), ``balanced`` (all classes count the same, by the
            labelled training rows), or null. It weights rows in the mean that the loss is, not in metrics.

    Shape:
        C = number of classes, unnormalised log-probabilities.

    Raises:
        ConfigError: ``classes`` repeats a label or contradicts ``num_classes``, or focal comes with label_smoothing.

    Example:
        >>> kind = Multiclass(classes=["a", "b", "c"])
        >>> kind.loss(torch.zeros(1, 3, 2), torch.tensor([[0.0, 2.0]]))
        tensor([[1.0986, 1.0986]])
    """

    formula: ClassVar[str] = "softmax(outputs): the chance of each class"
    metrics: ClassVar[Mapping[str, bool | None]] = {"accuracy": True, "f1_macro": True, "log_loss": False}
    _other_number: ClassVar[str] = "Correct num_classes, or list the task's `classes`."  # the way out of it

    def __init__(
        self,
        *,
        classes: ClassNames | None = None,
        num_classes: Annotated[int, Range(2)] | None = None,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        focal_gamma: NonNegative = 2.0,
        label_smoothing: ProperFraction = 0.0,
        class_weight: dict[str, Positive] | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__(classes, class_weight)
        if classes is not None:
            if len(set(self.classes)) != len(classes) or len(classes) < 2:
                where = f"kind.{self._name}.classes"
                raise ConfigError(Problem(where, f"must be two or more different labels, got {classes}"))
            if num_classes not in (None, len(classes)):
                raise ConfigError(
                    Problem("kind.multiclass.num_classes", f"is {num_classes}, but classes lists {len(classes)}")
                )
        if loss == "focal" and label_smoothing > 0:
            raise ConfigError(Problem("kind.multiclass.label_smoothing", "must be 0 with loss: focal"))
        self._num_classes = num_classes
        self._loss, self._gamma, self._smoothing = loss, focal_gamma, label_smoothing

    @property
    def num_outputs(self) -> int:
        return len(self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # Classes are the second last axis, so that softmax runs over long contiguous rows: 14 times faster on a CPU.
        log_probability = torch.log_softmax(outputs, -2)
        return self._row_loss(log_probability, targets.long().unsqueeze(-2))

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_probability = torch.log_softmax(outputs, -2)
        index = targets.long().unsqueeze(-2)
        rows = self._row_loss(log_probability, index)
        if self._loss == "focal":
            chosen = log_probability.gather(-2, index)
            wrong = torch.expm1(chosen).neg_()
            # The exponent may be below 0 and its base 0: chosen is 0 there too, and so is the product.
            first = self._gamma * chosen.exp() * chosen * wrong.clamp_min(1e-30).pow(self._gamma - 1)
            slope = wrong.pow(self._gamma) - first
            minus = slope.neg()
            return rows, log_probability.exp_().mul_(slope).scatter_add_(-2, index, minus)
        if self._smoothing == 0:
            return rows, log_probability.exp_().scatter_(-2, index, -1.0, reduce="add")
        slope = log_probability.exp_().sub_(self._smoothing / outputs.shape[-2])
        return rows, slope.scatter_(-2, index, self._smoothing - 1, reduce="add")

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        probability = torch.softmax(outputs.double(), 1).cpu().numpy()
        return {"pred": np.asarray(self.classes, dtype=object)[probability.argmax(1)], "prob": probability}

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return multiclass_scores(targets.cpu().numpy(), torch.softmax(outputs.double(), 1).cpu().numpy())

    def meaning(self) -> Hashable:
        return (type(self), *self.classes)

    def group_key(self) -> Hashable:
        gamma = self._gamma if self._loss == "focal" else None
        return (self._loss, gamma, self._smoothing)

    def _row_loss(self, log_probability: Tensor, index: Tensor) -> Tensor:
        chosen = log_probability.gather(-2, index).squeeze(-2)
        if self._loss == "focal":
            return torch.expm1(chosen).neg().pow(self._gamma) * -chosen
        if self._smoothing == 0:
            return chosen.neg()
        return -(1 - self._smoothing) * chosen - self._smoothing * log_probability.mean(-2)

    @property
    def _name(self) -> str:
        return KINDS.name_of(type(self)) or "multiclass"

    def _origin(self) -> str:
        counted = self._num_classes is not None and self.classes == [str(i) for i in range(self._num_classes)]
        origin = super()._origin()
        return f"as num_classes is {self._num_classes}" if counted and origin == FOUND else origin

    def _classes_of(self, column: Column, train: np.ndarray) -> list[str]:
        classes = fit_classes(column, train, self._declared)
        found, wanted = len(classes), self._num_classes
        by_convention = [str(i) for i in range(wanted or 0)]
        if wanted is not None and found != wanted and set(classes) & set(by_convention):
            # 0..C-1 by convention: a class may be absent from training; any other label is refused with its row.
            class_codes(column, by_convention, f"as num_classes is {wanted}")
            return by_convention
        if wanted not in (None, found) or found < 2:
            need = (
                f"num_classes is {wanted}" if wanted is not None else f"a {self._name} task needs at least two classes"
            )
            raise DataError(
                Problem(
                    f"column '{column.name}'",
                    f"{need}, but the training rows hold {found} ({', '.join(classes[:20])})",
                    self._other_number,
                )
            )
        return classes
