"""One of several classes in an order."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_cli.errors import ConfigError, DataError, Problem
from mtl_cli.registry import KINDS
from mtl_cli.tasks._classes import ClassKind, fit_classes, is_number
from mtl_cli.tasks._scores import ordinal_scores
from mtl_cli.types import ClassNames, Column, Positive


@KINDS.register("ordinal")
class Ordinal(ClassKind):
    """A class on a scale (grades, stars, years of school), learnt as 'is it above step j?' for every step.

    The loss is the mean of the logistic losses of the steps (Frank and Hall 2001; Niu et al. 2016); the predicted
    class is the expected position, the sum of the probabilities of the steps, rounded.

    Args:
        classes: The labels from low to high; if null, the training rows' labels, which must be numbers.
        class_weight: ``{label: weight}`` (1 for those not named), ``balanced`` (all classes count the same, by the
            labelled training rows), or null. It weights rows in the mean that the loss is, not in metrics.

    Shape:
        C = number of classes - 1: the log-odds of being above each step.

    Raises:
        ConfigError: ``classes`` repeats a label or holds fewer than two.

    Example:
        >>> kind = Ordinal(classes=["low", "mid", "high"])
        >>> kind.decode(torch.tensor([[9.0, -9.0]]))["pred"].tolist()
        ['mid']
    """

    formula: ClassVar[str] = (
        "sigmoid(outputs), none above the one before: the chances to be above each step; their rounded sum is the class"
    )
    scored_by: ClassVar[str] = "sklearn.metrics"
    metrics: ClassVar[Mapping[str, bool | None]] = {"qwk": True, "mae": False, "accuracy": True}

    def __init__(
        self,
        *,
        classes: ClassNames | None = None,
        class_weight: dict[str, Positive] | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__(classes, class_weight)
        if classes is not None and (len(set(self.classes)) != len(classes) or len(classes) < 2):
            raise ConfigError(Problem("kind.ordinal.classes", f"must be two or more different labels, got {classes}"))

    @property
    def num_outputs(self) -> int:
        return len(self.classes) - 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(
            outputs, self._above(outputs, targets), reduction="none"
        ).mean(-2)

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.sigmoid(outputs).sub_(self._above(outputs, targets))
        return self.loss(outputs, targets), slope.div_(self.num_outputs)

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        above = _chances_above(outputs)
        edges = np.concatenate([np.ones((len(above), 1)), above, np.zeros((len(above), 1))], 1)
        return {
            "pred": np.asarray(self.classes, dtype=object)[_positions(above)],
            "prob": edges[:, :-1] - edges[:, 1:],
        }

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return ordinal_scores(targets.cpu().numpy(), _positions(_chances_above(outputs)), len(self.classes))

    def meaning(self) -> Hashable:
        return (type(self), *self.classes)

    def group_key(self) -> Hashable:
        return ()  # the classes are in the number of outputs

    def _classes_of(self, column: Column, train: np.ndarray) -> list[str]:
        classes = fit_classes(column, train, self._declared)
        where = f"column '{column.name}'"
        if len(classes) < 2:
            raise DataError(
                Problem(where, f"an ordinal task needs two or more classes in the training rows, got {classes}")
            )
        if self._declared is None and not all(map(is_number, classes)):
            shown = ", ".join(classes[:10])
            raise DataError(
                Problem(
                    where,
                    f"the order of the classes {shown} is not known",
                    "List the task's `classes` from low to high, or name what is no label in its `missing_label`.",
                )
            )
        return classes

    def _above(self, outputs: Tensor, targets: Tensor) -> Tensor:
        steps = torch.arange(outputs.shape[-2], device=outputs.device, dtype=targets.dtype)
        return (targets.unsqueeze(-2) > steps.unsqueeze(-1)).to(outputs.dtype)


def _chances_above(outputs: Tensor) -> np.ndarray:
    """(B, C - 1): how likely each row is above each class but the last."""
    above = torch.sigmoid(outputs.double()).cpu().numpy()
    falling: np.ndarray = np.minimum.accumulate(above, axis=1)  # being above a higher step cannot be more likely
    return falling


def _positions(above: np.ndarray) -> np.ndarray:
    """(B,) the class nearest to the expected one; the first where nothing is known (not a number)."""
    positions: np.ndarray = np.rint(np.nan_to_num(above.sum(1))).astype(np.int64)
    return positions
