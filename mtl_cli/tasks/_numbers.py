"""Labels that are numbers: from the user's units to a scale that networks like, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from mtl_cli.errors import DataError, Problem, first_few, shown_cell
from mtl_cli.notation import notation
from mtl_cli.types import Column

_LARGEST = 1e150  # sums of squares of millions of these are still numbers
_ROUNDING = 8 * float(np.finfo(np.float64).eps)  # of millions of equal numbers, the deviation over the mean is below

#: The way out of a number that means no label, for hints.
NO_LABEL = "name the value in the task's `missing_label`"

Transform = Literal["none", "log1p", "log", "sqrt", "asinh"]


class _Pair(NamedTuple):
    """A function, its inverse, the least value that it takes, and whether that value itself is one."""

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    low: float = -np.inf
    closed: bool = True


_TRANSFORMS: dict[str, _Pair] = {
    "none": _Pair(lambda y: y, lambda z: z),
    "log1p": _Pair(np.log1p, np.expm1, -1.0, False),
    "log": _Pair(np.log, np.exp, 0.0, False),
    "sqrt": _Pair(np.sqrt, lambda z: np.maximum(z, 0.0) ** 2, 0.0),
    "asinh": _Pair(np.arcsinh, np.sinh),
}

#: What ``back`` means in the formulas of kinds.
BACK = "back undoes `transform` (of sqrt: squares what is above 0, all else is 0)"


class Units:
    """The way from numbers in the user's units to a standardised scale, and back.

    A number is transformed, then shifted and scaled to mean 0 and deviation 1 over the labelled training rows. A
    constant is only shifted. Both steps are monotone: they keep quantiles.

    Args:
        transform: ``none``, ``log1p``, ``log``, ``sqrt`` or ``asinh``.

    Example:
        >>> from mtl_cli.types import Column
        >>> units, column = Units("log1p"), Column("y", pl.Series([0.0, 10.0, None]), str)
        >>> units.fit(column, np.array([0, 1, 2]))
        >>> units.encode(column).tolist(), units.decode(np.array([1.0])).round(6).tolist()
        ([-1.0, 1.0, nan], [10.0])
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform
        self._mean, self._std = 0.0, 1.0

    def fit(self, column: Column, train: np.ndarray) -> None:
        """Takes mean and deviation of the training rows."""
        values = self._read(column)[train]
        values = values[~np.isnan(values)]
        if len(values):
            self._mean, deviation = float(values.mean()), float(values.std())
            # A deviation at the level of rounding error is a constant, not a scale to divide by.
            self._std = deviation if deviation > _ROUNDING * abs(self._mean) else 1.0

    def encode(self, column: Column) -> np.ndarray:
        """(N,) float32, NaN where missing."""
        return scaled(column, self._read(column) - self._mean, self._std)

    def decode(self, standardised: np.ndarray) -> np.ndarray:
        """float64 in the user's units."""
        with np.errstate(over="ignore"):  # infinity says it
            return _TRANSFORMS[self.transform].back(standardised.astype(np.float64) * self._std + self._mean)

    def restore(self, targets: np.ndarray) -> np.ndarray:
        """Encoded labels (float32) in the user's units, to the digits that float32 has kept: 0 is 0, not -3.7e-07."""
        values = self.decode(targets)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = 10.0 ** np.ceil(np.log10(np.abs(self.decode(np.nextafter(targets, np.float32(np.inf))) - values)))
            rounded = np.rint(values / step) * step
        kept: np.ndarray = np.where(np.isfinite(rounded), rounded, values) + 0.0  # no -0.0
        return kept

    def state(self) -> dict[str, Any]:
        """What ``fit`` learned."""
        return {"mean": self._mean, "std": self._std}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""
        self._mean, self._std = float(state["mean"]), float(state["std"])

    def from_scale_of(self, there: Units) -> tuple[float, float]:
        """Factor and offset that make a number of another standardised scale one of this scale.

        Example:
            >>> here, there = Units("none"), Units("none")
            >>> here.load_state({"mean": 10.0, "std": 2.0}), there.load_state({"mean": 20.0, "std": 4.0})
            (None, None)
            >>> here.from_scale_of(there)
            (2.0, 5.0)
        """
        return there._std / self._std, (there._mean - self._mean) / self._std

    def _read(self, column: Column) -> np.ndarray:
        values = read_numbers(column)
        pair = _TRANSFORMS[self.transform]
        outside = (values < pair.low) if pair.closed else (values <= pair.low)
        refuse(column, outside, f"has no {self.transform}", f"Use transform: none, or {NO_LABEL}.", values)
        return pair.there(values)


def read_numbers(column: Column) -> np.ndarray:
    """The numbers of a label column (N,) in float64, NaN where missing: of text too, which is what a CSV file gives.

    Raises:
        DataError: Cells that are no finite numbers, or too large to be squared.

    Example:
        >>> from mtl_cli.types import Column
        >>> read_numbers(Column("y", pl.Series(["1.5", None, "2"]), str)).tolist()
        [1.5, nan, 2.0]
    """
    values = column.values
    if values.dtype.is_nested():
        raise DataError(Problem(f"column '{column.name}'", f"must hold numbers, got type {values.dtype}"))
    if values.dtype.is_temporal():
        what = f"must hold numbers, got type {values.dtype}"
        raise DataError(Problem(f"column '{column.name}'", what, "Write it as a number of days."))
    numbers = values.cast(pl.Float64, strict=False)
    bad = values.is_not_null() & (numbers.is_null() | numbers.is_infinite().fill_null(False))
    if bad.any():
        others = values.filter(bad).unique().to_list() if values.dtype == pl.String else []
        raise DataError(first_few(bad.arg_true().to_list(), lambda row: _no_number(column, row, others), column.head))
    read: np.ndarray = numbers.fill_null(float("nan")).to_numpy().astype(np.float64)
    refuse(column, np.abs(read) > _LARGEST, f"is beyond {_LARGEST:g}", "Correct the cell, or take a larger unit.")
    return read


def scaled(column: Column, values: np.ndarray, unit: float) -> np.ndarray:
    """Labels in multiples of a unit that the training rows have given, float32.

    Raises:
        DataError: Cells that are too far from these rows' labels.
    """
    with np.errstate(over="ignore"):
        targets: np.ndarray = (values / unit).astype(np.float32)
    refuse(column, np.isinf(targets), "is too far from the training rows' labels for 32 bits", "Correct the cell.")
    return targets


def _no_number(column: Column, row: int, others: Sequence[str]) -> Problem:
    value = column.values[row]
    looks = notation(value, others) if isinstance(value, str) else None
    if looks is None:
        return Problem(column.where(row), f"{shown_cell(value)} is not a number", f"Correct the cell, or {NO_LABEL}.")
    hint = f"Set {looks.settings}, or correct the cell." if looks.settings else f"Write it as {looks.instead}."
    return Problem(column.where(row), f"{value!r} looks like {looks.like}", hint)


def refuse(column: Column, bad: np.ndarray, what: str, hint: str, values: np.ndarray | None = None) -> None:
    """Raises a DataError that names the first bad rows and counts the others, if there are any.

    Args:
        column: The labels.
        bad: (N,) bool.
        what: What is wrong, after the value.
        hint: The way out.
        values: What to show instead of the cells.
    """
    shown = column.values if values is None else values.tolist()
    rows = np.flatnonzero(bad).tolist()
    if rows:
        raise DataError(
            first_few(rows, lambda r: Problem(column.where(r), f"{shown_cell(shown[r])} {what}", hint), column.head)
        )
