"""A number."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mtl_cli.registry import KINDS
from mtl_cli.tasks._numbers import BACK, Units
from mtl_cli.tasks._scores import regression_scores
from mtl_cli.tasks.base import Kind
from mtl_cli.types import Column, Positive


@KINDS.register("regression")
class Regression(Kind):
    """A number, learnt on a standardised scale; predictions and metrics are in the user's units.

    The target is transformed, then shifted and scaled to mean 0 and deviation 1 over the labelled training rows,
    so that tasks in euros and in percent weigh the same. A constant target is only shifted.

    Args:
        loss: ``mse``, ``mae``, or ``huber`` (squared up to ``huber_delta``, then linear).
        huber_delta: Where huber turns linear, in standard deviations of the target.
        transform: ``log1p`` learns log(1 + y), for amounts and counts; ``log`` log y, for ratios, y > 0; ``sqrt`` the
            root, y >= 0; ``asinh`` a logarithm on both sides of 0, for amounts of any sign; ``none`` the value itself.

    Shape:
        C = 1.

    Example:
        >>> kind = Regression(loss="mse")
        >>> kind.loss(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[1.0, 1.0]]))
        tensor([[0., 4.]])
    """

    formula: ClassVar[str] = f"back(output * std + mean): the number in the user's units; {BACK}"
    metrics: ClassVar[Mapping[str, bool | None]] = {"r2": True, "rmse": False, "mae": False, "pearson": True}

    def __init__(
        self,
        *,
        loss: Literal["mse", "mae", "huber"] = "mse",
        huber_delta: Positive = 1.0,
        transform: Literal["none", "log1p", "log", "sqrt", "asinh"] = "none",
    ) -> None:
        self._loss, self._delta = loss, huber_delta
        self._units = Units(transform)

    @property
    def num_outputs(self) -> int:
        return 1

    def fit(self, column: Column, train: np.ndarray) -> None:
        self._units.fit(column, train)

    def encode(self, column: Column) -> np.ndarray:
        return self._units.encode(column)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        error = outputs.squeeze(-2) - targets
        if self._loss == "mse":
            return error.square()
        size = error.abs()
        if self._loss == "mae":
            return size
        return torch.where(size <= self._delta, 0.5 * error.square(), self._delta * (size - 0.5 * self._delta))

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        error = outputs.squeeze(-2) - targets
        if self._loss == "mse":
            return error.square(), error.mul_(2.0).unsqueeze(-2)
        rows = self.loss(outputs, targets)
        slope = error.sign() if self._loss == "mae" else error.clamp(-self._delta, self._delta)
        return rows, slope.unsqueeze(-2)

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        return {"pred": self._units.decode(outputs.squeeze(1).double().cpu().numpy())}

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return regression_scores(self._units.decode(targets.cpu().numpy()), self.decode(outputs)["pred"])

    def truth(self, targets: np.ndarray) -> np.ndarray | None:
        return self._units.decode(targets)

    def describe(self, targets: np.ndarray) -> str:
        values = self._units.restore(targets)
        return f"mean {values.mean():.4g}, std {values.std():.4g}"

    def state(self) -> dict[str, Any]:
        return self._units.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._units.load_state(state)

    def from_scale_of(self, there: Kind) -> tuple[float, float] | None:
        return self._units.from_scale_of(there._units) if isinstance(there, Regression) else None

    def meaning(self) -> Hashable:
        return (type(self), self._units.transform)

    def group_key(self) -> Hashable:
        return (self._loss, self._delta if self._loss == "huber" else None)
