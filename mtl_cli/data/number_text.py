"""Numbers written as text: what counts as one, and other people's decimal signs."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import polars as pl

from mtl_cli.data.table import Table
from mtl_cli.errors import DataError, Problem

# Digits with signs between groups or as a decimal comma: a number to its writer, text to a parser.
FOREIGN_NUMBER = r"^\s*[+-]?\d+([.,' \u00a0]\d+)+\s*$"
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
    stripped = text.str.strip_chars()
    values = stripped.cast(pl.Float64, strict=False)
    words = values.is_not_null() & ~values.is_finite() & ~stripped.str.contains(r"\d")
    values = pl.select(pl.when(~words.fill_null(False)).then(values)).to_series()
    return values, text.is_not_null() & values.is_null()


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
    number = re.compile(_foreign(decimal, thousands))
    changed, problems = [], []
    for name, dtype in table.frame.schema.items():
        text = table.frame[name]
        if dtype != pl.String or text.null_count() == len(text) or (decided is not None and name not in decided):
            continue
        match = text.str.contains(number.pattern).fill_null(False)
        point = text.str.contains(_PLAIN).fill_null(False) & ~match
        if decided is None and 2 * (int(match.sum()) + int(point.sum())) < len(text) - text.null_count():
            continue
        if point.any():
            row = int(np.flatnonzero(point.to_numpy())[0])
            what = f"has a decimal point although data.decimal is '{decimal}', got '{text[row]}'"
            hint = "Set data.thousands if it separates thousands, or write all numbers of the table in one way."
            problems.append(Problem(table.where(name, row), what, hint))
            continue
        plain = text.str.replace_all(thousands, "", literal=True) if thousands else text
        plain = plain.str.replace(decimal, ".", literal=True)
        changed.append(pl.select(pl.when(match).then(plain).otherwise(text).alias(name)).to_series())
    if problems:
        raise DataError(problems)
    return table.frame.with_columns(changed), tuple(series.name for series in changed)


def _foreign(decimal: str, thousands: str | None) -> str:
    whole = rf"\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+" if thousands else r"\d+"
    sign = re.escape(decimal)
    return rf"^\s*[+-]?(?:(?:{whole})(?:{sign}\d*)?|{sign}\d+)(?:[eE][+-]?\d+)?\s*$"
