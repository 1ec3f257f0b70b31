"""Numbers written as text: what counts as one, and other people's decimal signs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import polars as pl

from mtl_cli.data.table import Table
from mtl_cli.errors import DataError, Problem
from mtl_cli.notation import number_pattern

_PROBE = 100  # rows that are looked at before a whole column is
_DIGITS = 16  # float64 keeps all whole numbers with fewer
_LARGEST = 3.4e38  # within float32
Text = TypeVar("Text", pl.Series, pl.Expr)
_PADDED = r"^\s*[+-]?0\d"
_PLAIN = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def parse_numbers(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Reads plain numbers (``5``, ``-0.5``, ``1e3``), with or without blanks around them.

    Args:
        text: N texts; null where missing.

    Returns:
        N float64 values, null where missing or bad; and whether each text is bad: no number, or a word
        such as ``nan`` and ``inf``. A number beyond float64 is read as infinite, not as bad.

    Example:
        >>> values, bad = parse_numbers(pl.Series([" 0.5", "nan", None, "1,5"]))
        >>> values.to_list(), bad.to_list()
        ([0.5, None, None, None], [False, True, False, True])
    """
    if text.dtype == pl.String:  # most often all cells are plain numbers
        values = text.cast(pl.Float64, strict=False)
        if values.null_count() == text.null_count() and values.is_finite().all():
            return values, pl.Series(np.zeros(len(text), bool))
    stripped = text.str.strip_chars()
    values = stripped.cast(pl.Float64, strict=False)
    words = values.is_not_null() & ~values.is_finite() & ~stripped.str.contains(r"\d")
    values = pl.select(pl.when(~words.fill_null(False)).then(values)).to_series()
    return values, text.is_not_null() & values.is_null()


def plain_spelling(text: pl.Series, decimal: str = ".", thousands: str | None = None) -> pl.Series:
    """The plain spelling of numbers with some decimal sign and sign between groups of three digits.

    Args:
        text: N texts; null where missing.
        decimal: The decimal sign.
        thousands: The sign between groups, or None.

    Returns:
        N texts, null for what is no such number, and for codes with leading zeros.

    Example:
        >>> plain_spelling(pl.Series(["-1.200,5", " 7", "007", "1.2", "x", None]), ",", ".").to_list()
        ['-1200.5', '7', None, None, None, None]
    """
    number = text.str.contains(number_pattern(decimal, thousands)) & ~text.str.contains(_PADDED)
    return pl.select(pl.when(number).then(_respelt(text.str.strip_chars(), decimal, thousands))).to_series()


def spells_one_of(numbers: Sequence[float], cells: pl.DataFrame, decimal: str, thousands: str | None) -> pl.DataFrame:
    """Which cells of columns of text are one of some numbers, in a spelling that ``plain_spelling`` knows.

    Example:
        >>> cells = pl.DataFrame({"x": ["7", "7.0", "07", "7,5", None]})
        >>> spells_one_of([7.0], cells, ".", None)["x"].to_list()
        [True, True, False, False, False]
    """
    values = _respelt(pl.all().str.strip_chars(), decimal, thousands).cast(pl.Float64, strict=False)
    found = cells.lazy().select(values.is_in(list(numbers)).fill_null(False)).collect()
    known = []
    for flags in found.iter_columns():
        if flags.any():  # few cells are, and patterns are slow
            plain = plain_spelling(cells[flags.name].filter(flags), decimal, thousands).is_not_null()
            known.append(flags.scatter(flags.arg_true(), plain))
    return found.with_columns(known)


def _respelt(text: Text, decimal: str, thousands: str | None) -> Text:
    """Numbers with other signs, with a decimal point and no sign between groups."""
    ungrouped = text.str.replace_all(thousands, "", literal=True) if thousands else text
    return ungrouped.str.replace(decimal, ".", literal=True) if decimal != "." else ungrouped


def with_numbers_read(table: Table, columns: Collection[str], *, decided: bool = False) -> Table:
    """The table with text that is nothing but plain numbers read as such, all columns at once.

    Only where every filled cell is a number that 32 bits hold, without blanks around it; and, unless it was decided
    before that the columns hold numbers, without leading zeros, or whole ones of more digits than float64 keeps. Other
    columns stay text, for a closer look.

    Args:
        table: N rows.
        columns: The columns that may be numbers.
        decided: Whether they are.

    Example:
        >>> from mtl_cli.data.table import Part
        >>> frame = pl.DataFrame({"x": ["1", None, "0.1234567890123456"], "z": ["007", "1", "2"], "c": ["1", "a", ""]})
        >>> with_numbers_read(Table(frame, (Part("x.csv", 0, 3, lines=True),)), ["x", "z", "c"]).frame.dtypes
        [Float64, String, String]
    """
    texts = [name for name in columns if table.schema.get(name) == pl.String]
    head = table.frame.select(texts).head(_PROBE)
    texts = [name for name in texts if not parse_numbers(head[name])[1].any()]
    if not texts:
        return table
    lazy = table.frame.lazy().select(texts)
    numbers = lazy.select(pl.all().cast(pl.Float64, strict=False)).collect()
    small = numbers.select((pl.all().is_nan() | (pl.all().abs() > _LARGEST)).any().not_())
    codes = None if decided else lazy.select(_doubtful(name).any() for name in texts).collect()
    found = [
        numbers[name]
        for name in texts
        if small[name][0]
        and (codes is None or not codes[name][0])
        and 0 < numbers[name].count() == table.frame[name].count()
    ]
    return replace(table, frame=table.frame.with_columns(found)) if found else table


def _doubtful(name: str) -> pl.Expr:
    """Numbers that may be codes: with leading zeros, or whole numbers with more digits than float64 keeps."""
    return pl.col(name).str.contains(rf"^[+-]?(0\d|\d{{{_DIGITS}}})").fill_null(False)


def convert_numbers(
    table: Table, decimal: str, thousands: str | None, decided: Collection[str] | None = None
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Rewrites numbers with other decimal and group signs the plain way, in the text columns that hold numbers.

    A column holds numbers if at least half of its cells do; its other cells, and other columns, stay as they are.

    Args:
        table: The table as read.
        decimal: Its decimal sign, ``.`` or ``,``.
        thousands: The sign between groups of three digits, or None.
        decided: The columns that hold numbers, if that was decided before, on another table.

    Returns:
        The frame with the numbers rewritten, and the names of the columns that hold them.

    Raises:
        DataError: A column of numbers holds some with a decimal point although ``decimal`` is a comma: whether
            ``1.299`` is one or a thousand cannot be told.
    """
    number = number_pattern(decimal, thousands)
    changed, problems = [], []
    for name, dtype in table.frame.schema.items():
        text = table.frame[name]
        if dtype != pl.String or text.null_count() == len(text) or (decided is not None and name not in decided):
            continue
        match = text.str.contains(number).fill_null(False)
        point = text.str.contains(_PLAIN).fill_null(False) & ~match
        if decided is None and 2 * (int(match.sum()) + int(point.sum())) < len(text) - text.null_count():
            continue
        if point.any():
            row = int(np.flatnonzero(point.to_numpy())[0])
            what = f"has a decimal point although data.decimal is '{decimal}', got '{text[row]}'"
            groups = re.match(number_pattern(decimal, "."), text[row])
            either = "Set data.thousands if it separates thousands, or write" if groups else "Write"
            hint = f"{either} all numbers of the table in one way."
            problems.append(Problem(table.where(name, row), what, hint))
            continue
        plain = _respelt(text, decimal, thousands)
        changed.append(pl.select(pl.when(match).then(plain).otherwise(text).alias(name)).to_series())
    if problems:
        raise DataError(problems)
    return table.frame.with_columns(changed), tuple(series.name for series in changed)
