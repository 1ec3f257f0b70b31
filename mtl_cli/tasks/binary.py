"""Yes or no."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_cli.errors import ConfigError, DataError, Problem
from mtl_cli.registry import KINDS
from mtl_cli.tasks._classes import ClassKind, fit_classes, label_texts
from mtl_cli.tasks._scores import binary_scores
from mtl_cli.types import ClassNames, Column, NonNegative, Positive, ProperFraction


@KINDS.register("binary")
class Binary(ClassKind):
    """One of two classes, with a logistic loss on one output.

    Args:
        classes: The two labels, the positive one last; taken from the training rows if null (0/1, no/yes,
            False/True: the natural order puts the positive one last).
        loss: ``cross_entropy``, or ``focal``: cross-entropy times (1 - p) ** focal_gamma, p the probability of the true
            class, so that rows that are easy count less (Lin et al. 2017).
        focal_gamma: The exponent of focal; 0 is cross-entropy.
        label_smoothing: In [0, 1): the loss aims at 1 - label_smoothing / 2 instead of certainty; not with focal.
        class_weight: ``{label: weight}``, ``balanced`` (both classes count the same, by the labelled training rows), or
            null. It weights rows in the mean that the loss is, not in metrics.

    Shape:
        C = 1, the log-odds of the positive class.

    Raises:
        ConfigError: ``classes`` does not hold two different labels, or focal comes with label_smoothing.

    Example:
        >>> kind = Binary(classes=["no", "yes"])
        >>> kind.loss(torch.tensor([[[0.0]]]), torch.tensor([[1.0]]))
        tensor([[0.6931]])
    """

    formula: ClassVar[str] = "sigmoid(output): the chance of the second class"
    metrics: ClassVar[Mapping[str, bool | None]] = {
        "auroc": True,
        "average_precision": True,
        "accuracy": True,
        "f1": True,
        "log_loss": False,
    }

    def __init__(
        self,
        *,
        classes: ClassNames | None = None,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        focal_gamma: NonNegative = 2.0,
        label_smoothing: ProperFraction = 0.0,
        class_weight: dict[str, Positive] | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__(classes, class_weight)
        if classes is not None and len(set(self.classes)) != 2:
            raise ConfigError(Problem("kind.binary.classes", f"must be two different labels, got {classes}"))
        if loss == "focal" and label_smoothing > 0:
            raise ConfigError(Problem("kind.binary.label_smoothing", "must be 0 with loss: focal"))
        self._loss, self._gamma, self._smoothing = loss, focal_gamma, label_smoothing

    @property
    def num_outputs(self) -> int:
        return 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = outputs.squeeze(-2)
        if self._loss == "cross_entropy":
            return torch.addcmul(functional.softplus(logits), logits, self._aim(targets), value=-1.0)
        margin = logits * (2 * targets - 1)  # log-odds of the true class
        return torch.sigmoid(-margin).pow(self._gamma) * functional.softplus(-margin)

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.loss(outputs, targets)
        if self._loss == "cross_entropy":
            return rows, torch.sigmoid(outputs).sub_(self._aim(targets).unsqueeze(-2))
        sign = (2 * targets - 1).unsqueeze(-2)
        margin = outputs * sign
        right, wrong = torch.sigmoid(margin), torch.sigmoid(-margin)
        slope = self._gamma * right * functional.logsigmoid(margin) - wrong
        return rows, slope.mul_(wrong.pow(self._gamma)).mul_(sign)

    def affirms(self, targets: np.ndarray) -> np.ndarray:
        affirmed: np.ndarray = targets == 1
        return affirmed

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        positive = torch.sigmoid(outputs.squeeze(1).double()).cpu().numpy()
        return {
            "pred": np.asarray(self.classes, dtype=object)[(positive > 0.5).astype(np.int64)],
            "prob": np.stack([1 - positive, positive], 1),
        }

    def columns(self, outputs: Tensor) -> dict[str, np.ndarray]:
        decoded = self.decode(outputs)
        return {"pred": decoded["pred"], f"prob_{self.classes[1]}": decoded["prob"][:, 1]}

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return binary_scores(targets.cpu().numpy(), torch.sigmoid(outputs.squeeze(1).double()).cpu().numpy())

    def meaning(self) -> Hashable:
        return (type(self), *self.classes)

    def group_key(self) -> Hashable:
        gamma = self._gamma if self._loss == "focal" else None
        return (self._loss, gamma, self._smoothing)

    def _classes_of(self, column: Column, train: np.ndarray) -> list[str]:
        classes = fit_classes(column, train, self._declared)
        if len(classes) == 2:
            return classes
        where, shown = f"column '{column.name}'", ", ".join(classes[:10]) or "none"
        need = f"a binary task needs two classes in the training rows, got {len(classes)} ({shown})"
        if len(classes) < 2:
            raise DataError(Problem(where, need, "Declare the task's `classes`."))
        # The rarest of them is the one that is likely not meant as a class.
        texts = label_texts(column.values).gather(train)
        rarest = min(classes, key=lambda label: int((texts == label).sum()))
        place = column.where(int(train[(texts == rarest).arg_true()[0]]))
        hint = "Use kind: multiclass or regression, or name the value that means 'no label' in `missing_label`."
        raise DataError(Problem(where, f"{need}; {place} holds {rarest!r}", hint))

    def _aim(self, targets: Tensor) -> Tensor:
        if self._smoothing == 0:
            return targets
        return targets * (1 - self._smoothing) + 0.5 * self._smoothing
