"""Labels of tokens: from lists in a column to one label after the other, and back to the tokens they belong to."""

from __future__ import annotations

import numpy as np
import polars as pl

from mtl_cli.data.texts import token_counts
from mtl_cli.errors import DataError, Problem
from mtl_cli.types import Column


def label_tokens(column: Column) -> tuple[Column, np.ndarray]:
    """A column of lists as a column of their elements.

    Returns:
        The elements, row after row, each with its place in the file; and the row of each, int64.

    Raises:
        DataError: The column does not hold lists.

    Example:
        >>> tags, rows = label_tokens(Column("tag", pl.Series([["A", "B"], None, ["A"]]), lambda row: f"row {row + 1}"))
        >>> tags.values.to_list(), rows.tolist(), tags.where(1)
        (['A', 'B', 'A'], [0, 0, 2], 'row 1, token 2')
    """
    values = column.values.cast(pl.List(pl.String)) if column.values.dtype == pl.Null else column.values
    if not isinstance(values.dtype, pl.List | pl.Array):
        what = f"must hold a list of labels in each row, got type {values.dtype}"
        raise DataError(Problem(column.head, what, "A task that labels whole rows is of kind multiclass."))
    counts = token_counts(values)
    rows = np.repeat(np.arange(len(values)), counts)
    firsts = np.cumsum(counts) - counts
    filled = values.filter(pl.Series(counts > 0))

    def where(token: int) -> str:
        row = int(rows[token])
        return f"{column.where(row)}, token {token - int(firsts[row]) + 1}"

    return Column(column.name, filled.explode(), where), rows


def spread_targets(targets: np.ndarray, column: Column, tokens: Column) -> np.ndarray:
    """Targets of the elements of a column, as targets of all tokens.

    Args:
        targets: (number of elements,) float32.
        column: N lists of labels; the tokens of a row whose list is missing have no label.
        tokens: N lists of tokens.

    Returns:
        (M,) float32, NaN where there is no label.

    Raises:
        DataError: A row has another number of labels than of tokens; names the first ones.
    """
    given, wanted = token_counts(column.values), token_counts(tokens.values)
    absent = column.values.is_null().to_numpy()
    wrong = np.flatnonzero((given != wanted) & ~absent)
    if len(wrong):
        problems = [
            Problem(
                column.where(int(row)),
                f"has {_count(given[row], 'label')}, but {_count(wanted[row], 'token')} in '{tokens.name}'",
            )
            for row in wrong[:3]
        ]
        if len(wrong) > 3:
            problems.append(Problem(f"column '{column.name}'", f"{len(wrong) - 3} more rows have such lists"))
        raise DataError(problems)
    spread = np.full(int(wanted.sum()), np.nan, np.float32)
    spread[np.repeat(~absent, wanted)] = targets
    return spread


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
