"""Markers: what means "no value" in a cell, however the cell is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property

import numpy as np
import polars as pl

from mtl_cli.data.column_types import EXACT
from mtl_cli.data.date_text import parse_dates
from mtl_cli.data.number_text import plain_spelling, spells_one_of
from mtl_cli.spelling import shortest


@dataclass(frozen=True)
class Markers:
    """Texts that mean "no value", and the numbers and moments that they are in columns that hold such.

    A text that is a number stands for it however it is spelt: of ``-200`` a cell ``-200.0`` is another spelling. Codes
    such as ``007`` are no numbers. Whole cells are meant: an element of a list is none.

    Args:
        texts: The markers.
        decimal: The decimal sign of numbers in text.
        thousands: Their sign between groups of three digits, or None.

    Example:
        >>> markers = Markers(("NA", "-200"))
        >>> markers.in_text(pl.DataFrame({"x": ["-200.0", "NA", "-20", "-2e2", None]}))["x"].to_list()
        [True, True, False, True, False]
        >>> [(marker, found.to_list()) for marker, found in markers.in_values(pl.Series([-200.0, 7.5]))]
        [('-200', [True, False])]
    """

    texts: Sequence[str] = ()
    decimal: str = "."
    thousands: str | None = None

    def mark(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, dict[str, int]]]:
        """Makes marked cells null and counts them per column: text by the cell, other values by the marker.

        Example:
            >>> Markers(("NA", "")).mark(pl.DataFrame({"a": ["1", "NA", ""], "b": [1.0, float("nan"), None]}))[1]
            {'a': {'empty': 1, 'NA': 1}, 'b': {'null': 1, 'NaN': 1}}
        """
        counts: dict[str, dict[str, int]] = {}
        changed = []
        marked = self.in_text(frame.select(pl.col(pl.String)))
        for series in frame.iter_columns():
            kept = series
            found = {"null": series.null_count()}
            if series.dtype == pl.String:
                flags = marked[series.name]
                if flags.any():
                    for value, count in sorted(series.filter(flags).value_counts().rows()):
                        found[value or "empty"] = count
                    kept = _without(series, flags)
            else:
                if series.dtype.is_float() and series.is_nan().any():
                    found["NaN"] = int(series.is_nan().sum())
                    kept = series.fill_nan(None)
                for marker, flags in self.in_values(kept):
                    found[marker] = int(flags.sum())
                    kept = _without(kept, flags) if flags.any() else kept
            if kept is not series:
                changed.append(kept)
            found = {marker: count for marker, count in found.items() if count}
            if found:
                counts[series.name] = found
        return frame.with_columns(changed), counts

    def in_text(self, cells: pl.DataFrame) -> pl.DataFrame:
        """Which cells of columns of text are a marker, as many columns of bool: all columns at once."""
        found = cells.lazy().select(pl.all().is_in(list(self.texts)).fill_null(False)).collect()
        exact = [float(number) for number in self._numbers.values() if abs(number) < EXACT]  # long ids stay apart
        if not exact or not cells.width:
            return found
        spelt = spells_one_of(exact, cells, self.decimal, self.thousands)
        return found.with_columns(found[name] | spelt[name] for name in spelt.columns)

    def in_values(self, cells: pl.Series) -> Iterator[tuple[str, pl.Series]]:
        """Which cells (N,) of a column of numbers or dates are a marker, (N,) bool, marker by marker."""
        if cells.dtype.is_integer() and self._numbers:
            low, high = pl.select(low=cells.dtype.min(), high=cells.dtype.max()).row(0)  # type: ignore[attr-defined]
            whole = {marker: int(number) for marker, number in self._numbers.items() if number == int(number)}
            for marker, value in whole.items():
                if low <= value <= high:
                    yield marker, (cells == value).fill_null(False)
        elif cells.dtype.is_decimal() and self._numbers:  # by their digits: float64 keeps fewer, and ids would be alike
            spelt = shortest(cells.cast(pl.String))
            numbers = shortest(pl.Series([f"{number:f}" for number in self._numbers.values()]))
            for marker, number in zip(self._numbers, numbers, strict=True):
                yield marker, (spelt == number).fill_null(False)
        elif cells.dtype.is_numeric() and self._numbers:
            numbers = cells.cast(pl.Float64)
            for marker, number in self._numbers.items():
                yield marker, numbers.is_in(_in_either_precision(float(number))).fill_null(False)
        elif cells.dtype in (pl.Date, pl.Datetime) and self._moments:
            moments = cells.cast(pl.Datetime("us"))
            for marker, moment in self._moments.items():
                yield marker, (moments == moment).fill_null(False)

    @cached_property
    def _numbers(self) -> dict[str, Decimal]:
        """The markers that are numbers: spelt as the cells are, or as in a configuration."""
        texts = pl.Series(self.texts, dtype=pl.String)
        plain = plain_spelling(texts, self.decimal, self.thousands).fill_null(plain_spelling(texts))
        return {marker: Decimal(number) for marker, number in zip(self.texts, plain, strict=True) if number is not None}

    @cached_property
    def _moments(self) -> dict[str, datetime]:
        """The markers that are days or moments."""
        moments, _ = parse_dates(pl.Series(self.texts, dtype=pl.String))
        return {marker: moment for marker, moment in zip(self.texts, moments, strict=True) if moment is not None}


def _without(series: pl.Series, flags: pl.Series) -> pl.Series:
    """The cells with the flagged ones null."""
    return pl.select(pl.when(~flags).then(series).alias(series.name)).to_series()


def _in_either_precision(number: float) -> list[float]:
    """A number in 64 bits, and as a column of 32 bits holds it."""
    with np.errstate(over="ignore"):
        short = float(np.float32(number))
    return [number, short] if np.isfinite(short) else [number]
