"""A number."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mtl_cli.errors import DataError, Problem
from mtl_cli.registry import KINDS
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
        transform: ``log1p`` learns log(1 + y), for amounts and counts; ``none`` the value itself.

    Shape:
        C = 1.

    Example:
        >>> kind = Regression(loss="mse")
        >>> kind.loss(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[1.0, 1.0]]))
        tensor([[0., 4.]])
    """

    metrics: ClassVar[Mapping[str, bool]] = {"r2": True, "rmse": False, "mae": False}

    def __init__(
        self,
        *,
        loss: Literal["mse", "mae", "huber"] = "mse",
        huber_delta: Positive = 1.0,
        transform: Literal["none", "log1p"] = "none",
    ) -> None:
        self._loss, self._delta, self._transform = loss, huber_delta, transform
        self._mean, self._std = 0.0, 1.0

    @property
    def num_outputs(self) -> int:
        return 1

    def fit(self, column: Column, train: np.ndarray) -> None:
        values = self._read(column)[train]
        values = values[~np.isnan(values)]
        if len(values):
            self._mean, deviation = float(values.mean()), float(values.std())
            # A deviation at the level of rounding error is a constant, not a scale to divide by.
            self._std = deviation if deviation > 1e-12 * abs(self._mean) else 1.0

    def encode(self, column: Column) -> np.ndarray:
        return ((self._read(column) - self._mean) / self._std).astype(np.float32)

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
        return {"pred": self._to_units(outputs.squeeze(1).double().cpu().numpy())}

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return regression_scores(self._to_units(targets.double().cpu().numpy()), self.decode(outputs)["pred"])

    def describe(self, targets: np.ndarray) -> str:
        values = self._to_units(targets.astype(np.float64))
        return f"mean {values.mean():.4g}, std {values.std():.4g}"

    def state(self) -> dict[str, Any]:
        return {"mean": self._mean, "std": self._std}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._mean, self._std = float(state["mean"]), float(state["std"])

    def group_key(self) -> Hashable:
        return (type(self).__name__, self.num_outputs, self._loss, self._delta if self._loss == "huber" else None)

    def _to_units(self, standardised: np.ndarray) -> np.ndarray:
        values = standardised * self._std + self._mean
        if self._transform == "none":
            return values
        with np.errstate(over="ignore"):  # infinity says it
            return np.expm1(values)

    def _read(self, column: Column) -> np.ndarray:
        numbers = column.values.cast(pl.Float64, strict=False)
        bad = column.values.is_not_null() & (numbers.is_null() | numbers.is_infinite().fill_null(False))
        self._refuse(
            column, bad, "is not a number", "Correct the cell, or name the value in the task's `missing_label`."
        )
        if self._transform == "log1p":
            self._refuse(column, (numbers <= -1).fill_null(False), "has no log1p", "Use transform: none.")
        values = numbers.fill_null(float("nan")).to_numpy().astype(np.float64)
        return np.log1p(values) if self._transform == "log1p" else values

    @staticmethod
    def _refuse(column: Column, bad: pl.Series, what: str, hint: str) -> None:
        rows = bad.arg_true().to_list()[:5]
        if rows:
            raise DataError([Problem(column.where(r), f"{column.values[r]!r} {what}", hint) for r in rows])
