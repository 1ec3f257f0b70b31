"""Yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_cli.errors import ConfigError, DataError, Problem
from mtl_cli.registry import KINDS
from mtl_cli.tasks._classes import class_codes, describe_classes, fit_classes
from mtl_cli.tasks._scores import binary_scores
from mtl_cli.tasks.base import Kind
from mtl_cli.types import Column


@KINDS.register("binary")
class Binary(Kind):
    """One of two classes, with a logistic loss on one output.

    Args:
        classes: The two labels, the positive one last; taken from the training rows if null (0/1, no/yes,
            False/True: the natural order puts the positive one last).

    Shape:
        C = 1, the log-odds of the positive class.

    Raises:
        ConfigError: ``classes`` does not hold two different labels.

    Example:
        >>> kind = Binary(classes=["no", "yes"])
        >>> kind.loss(torch.tensor([[[0.0]]]), torch.tensor([[1.0]]))
        tensor([[0.6931]])
    """

    metrics: ClassVar[Mapping[str, bool]] = {
        "auroc": True,
        "average_precision": True,
        "accuracy": True,
        "f1": True,
        "log_loss": False,
    }

    def __init__(self, *, classes: list[str] | None = None) -> None:
        if classes is not None and len(set(classes)) != 2:
            raise ConfigError(Problem("kind.binary.classes", f"must be two different labels, got {classes}"))
        self._declared = classes
        self.classes: list[str] = list(classes or [])

    @property
    def num_outputs(self) -> int:
        return 1

    def fit(self, column: Column, train: np.ndarray) -> None:
        self.classes = fit_classes(column, train, self._declared)
        if len(self.classes) != 2:
            shown = ", ".join(self.classes[:10]) or "none"
            hint = "Declare the task's `classes`." if len(self.classes) < 2 else "Use kind: multiclass or regression."
            raise DataError(
                Problem(
                    f"column '{column.name}'",
                    f"a binary task needs two classes in the training rows, got {len(self.classes)} ({shown})",
                    hint,
                )
            )

    def encode(self, column: Column) -> np.ndarray:
        return class_codes(column, self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        log_odds = outputs.squeeze(-2)
        return torch.addcmul(functional.softplus(log_odds), log_odds, targets, value=-1.0)

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(outputs, targets), torch.sigmoid(outputs).sub_(targets.unsqueeze(-2))

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

    def describe(self, targets: np.ndarray) -> str:
        return describe_classes(targets, self.classes)

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.classes = list(state["classes"])
