"""Numbers to a range that networks like, with statistics of the training rows only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Scale = Literal["standard", "quantile", "none"]

_QUANTILES = 1000
_CLIP = 5.0  # of the standard normal: what quantile scaling gives to values at or beyond the extremes
_KEEP, _CONSTANT, _STANDARD, _QUANTILE = range(4)


@dataclass(frozen=True, eq=False)
class Scaler:
    """How each of W numbers is scaled.

    Args:
        mode: (W,) kept, constant, standard or quantile.
        mean: (W,) mean over the training rows (0 where not standard).
        std: (W,) standard deviation (1 where not standard).
        fill: (W,) what a missing value becomes, after scaling.
        quantiles: (W, at most 1000) quantiles of the training rows; (W, 0) if the method is another.
    """

    mode: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    fill: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def fit(cls, pieces: Callable[[], Iterable[np.ndarray]], method: Scale, *, fill_mean: bool) -> Scaler:
        """Takes the statistics of the training rows.

        Numbers that are only 0 and 1 are kept as they are. A number with one value, or none, becomes 0 everywhere
        (with ``none`` it is kept).

        Args:
            pieces: Gives the training rows, (N, W) float64 and NaN where missing, in one or more parts; for
                ``quantile`` in one. It is gone through twice.
            method: ``standard``: (x - mean) / std; ``quantile``: to a standard normal by rank, clipped to 5; ``none``.
            fill_mean: Whether missing values of numbers that are kept become their mean, instead of 0. Scaled numbers
                have mean (or median) 0 already.

        Example:
            >>> scaler = Scaler.fit(lambda: [np.array([[1.0], [3.0]])], "standard", fill_mean=False)
            >>> scaler.transform(np.array([[3.0], [np.nan]])).tolist()
            [[1.0], [0.0]]
        """
        known: Any = 0
        total: Any = 0.0
        squares: Any = 0.0
        low: Any = np.inf
        high: Any = -np.inf
        binary: Any = True
        for values in pieces():
            absent = np.isnan(values)
            known = known + (~absent).sum(axis=0)
            total = total + np.where(absent, 0.0, values).sum(axis=0)
            low = np.minimum(low, np.where(absent, np.inf, values).min(axis=0, initial=np.inf))
            high = np.maximum(high, np.where(absent, -np.inf, values).max(axis=0, initial=-np.inf))
            binary = binary & (absent | (values == 0) | (values == 1)).all(axis=0)
        count = np.maximum(known, 1)
        mean = total / count
        for values in pieces():
            centred = np.where(np.isnan(values), 0.0, values - mean)
            squares = squares + (centred * centred).sum(axis=0)
        std = np.sqrt(squares / count)
        scaled = {"standard": _STANDARD, "quantile": _QUANTILE, "none": _KEEP}[method]
        mode = np.where(binary, _KEEP, scaled)
        if method != "none":
            # std can round to 0 for different values that differ in the last digits only
            mode = np.where((low >= high) | (std == 0), _CONSTANT, mode)
        standard = mode == _STANDARD
        fill = np.where((mode == _KEEP) & fill_mean, mean, 0.0)
        quantiles = _quantiles(next(iter(pieces())), mode) if method == "quantile" else np.zeros((len(mode), 0))
        return cls(mode, np.where(standard, mean, 0.0), np.where(standard, std, 1.0), fill, quantiles)

    @property
    def constant(self) -> np.ndarray:
        """(W,) whether each number had one value or none in the training rows."""
        flags: np.ndarray = self.mode == _CONSTANT
        return flags

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Scales (N, W) float64 numbers, NaN where missing, to (N, W) finite float32."""
        scaled = (values - self.mean) / self.std
        for column in np.flatnonzero(self.mode == _QUANTILE):
            scaled[:, column] = _to_normal(values[:, column], self.quantiles[column])
        scaled[:, self.constant] = 0.0
        scaled = np.where(np.isnan(values), self.fill, scaled)
        limit = np.finfo(np.float32).max  # a tiny std can carry an outlier beyond 32 bits
        finite: np.ndarray = np.clip(scaled, -limit, limit).astype(np.float32)
        return finite

    def to_json(self) -> dict[str, Any]:
        """Plain lists; floats survive JSON exactly."""
        return {name: getattr(self, name).tolist() for name in ("mode", "mean", "std", "fill", "quantiles")}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Scaler:
        """The scaler that ``to_json`` described."""
        mode = np.array(saved["mode"], np.int64)
        floats = {name: np.array(saved[name], np.float64) for name in ("mean", "std", "fill")}
        quantiles = np.array(saved["quantiles"], np.float64).reshape(len(mode), -1)
        return cls(mode, **floats, quantiles=quantiles)


def _quantiles(values: np.ndarray, mode: np.ndarray) -> np.ndarray:
    columns = np.flatnonzero(mode == _QUANTILE)
    if len(columns) == 0:
        return np.zeros((len(mode), 0))
    points = np.linspace(0, 1, max(2, min(_QUANTILES, len(values))))
    quantiles = np.zeros((len(mode), len(points)))
    for column in columns:
        quantiles[column] = np.nanquantile(values[:, column], points)
    return np.maximum.accumulate(quantiles, axis=1)  # interpolation can round below its neighbour


def _to_normal(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    import torch  # here, so that splitting and reading need no PyTorch

    ranks = np.linspace(0, 1, len(quantiles))
    # From the left and from the right: equal training values span several ranks, and get the middle one.
    upper = np.interp(values, quantiles, ranks)
    lower = -np.interp(-values, -quantiles[::-1], -ranks[::-1])
    normal = torch.special.ndtri(torch.from_numpy((upper + lower) / 2)).numpy()
    clipped: np.ndarray = np.clip(normal, -_CLIP, _CLIP)
    return clipped
