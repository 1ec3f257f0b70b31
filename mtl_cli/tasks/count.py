"""How many."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.registry import KINDS
from mtl_cli.tasks._numbers import NO_LABEL, read_numbers, refuse, scaled
from mtl_cli.tasks._scores import count_scores
from mtl_cli.tasks.base import Kind, percent
from mtl_cli.types import Column

_STEEP = 30.0  # e ** 30: a diverging output has a finite loss, which goes on linearly from there


@KINDS.register("count")
class Count(Kind):
    """A whole number from 0: visits, claims, goals. Poisson likelihood with a logarithmic link.

    The output is the logarithm of the expected count, in multiples of the mean over the labelled training rows, so that
    tasks with few and with many events weigh the same. The loss is half the unit deviance, y log(y / m) - y + m: the
    Poisson negative log-likelihood less its least value. Predictions (expected counts) and metrics are counts.

    Shape:
        C = 1, the logarithm of the expected count over the mean.

    Example:
        >>> kind = Count()
        >>> kind.loss(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[1.0, 0.0]]))
        tensor([[0., 1.]])
    """

    formula: ClassVar[str] = "mean * exp(output): the expected count"
    scored_by: ClassVar[str] = "sklearn.metrics"
    metrics: ClassVar[Mapping[str, bool | None]] = {
        "d2": True,
        "deviance": False,
        "r2": True,
        "mae": False,
    }

    def __init__(self) -> None:
        self._mean = 1.0

    @property
    def num_outputs(self) -> int:
        return 1

    def fit(self, column: Column, train: np.ndarray) -> None:
        counts = self._read(column)[train]
        counts = counts[~np.isnan(counts)]
        if counts.any():
            self._mean = float(counts.mean())

    def encode(self, column: Column) -> np.ndarray:
        return scaled(column, self._read(column), self._mean)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logarithm = outputs.squeeze(-2)
        steep = (logarithm - _STEEP).clamp(min=0)
        rate = (logarithm - steep).exp() * (1 + steep)
        # The difference of two equal numbers may round below 0.
        return (torch.xlogy(targets, targets) - targets * logarithm - targets + rate).clamp(min=0)

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(outputs, targets), outputs.clamp(max=_STEEP).exp().sub_(targets.unsqueeze(-2))

    def affirms(self, targets: np.ndarray) -> np.ndarray:
        affirmed: np.ndarray = targets > 0
        return affirmed

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        with np.errstate(over="ignore"):  # infinity says it
            return {"pred": self._mean * np.exp(outputs.squeeze(1).double().cpu().numpy())}

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return count_scores(self._to_counts(targets.cpu().numpy()), self.decode(outputs)["pred"])

    def truth(self, targets: np.ndarray) -> np.ndarray | None:
        return self._to_counts(targets)

    def describe(self, targets: np.ndarray) -> str:
        counts = self._to_counts(targets)
        return f"mean {counts.mean():.4g}, {percent(np.mean(counts == 0))} zeros, most {counts.max():.0f}"

    def state(self) -> dict[str, Any]:
        return {"mean": self._mean}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._mean = float(state["mean"])

    def meaning(self) -> Hashable:
        return type(self)

    def group_key(self) -> Hashable:
        return ()

    def from_scale_of(self, there: Kind) -> tuple[float, float] | None:
        return (1.0, math.log(there._mean / self._mean)) if isinstance(there, Count) else None

    def _to_counts(self, targets: np.ndarray) -> np.ndarray:
        counts: np.ndarray = np.rint(targets.astype(np.float64) * self._mean)  # float32 is not exact, counts are
        return counts

    @staticmethod
    def _read(column: Column) -> np.ndarray:
        counts = read_numbers(column)
        bad = (counts < 0) | (counts != np.rint(counts)) & ~np.isnan(counts)
        hint = f"A count is a whole number from 0; for others use kind: regression, or {NO_LABEL}."
        refuse(column, bad, "is no count", hint)
        return counts
