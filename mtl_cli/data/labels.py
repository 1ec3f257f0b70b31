"""LABELS: which rows carry a label for a task, and how much each of them counts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np
import polars as pl

from mtl_cli.data.column_types import EXACT
from mtl_cli.data.markers import Markers
from mtl_cli.data.number_text import parse_numbers
from mtl_cli.data.table import AnyTable
from mtl_cli.errors import DataError, Problem, did_you_mean, first_few, shown_cell
from mtl_cli.schema import TaskOptions
from mtl_cli.spelling import composed, shortest
from mtl_cli.types import Column, Plain

_LEAST, _MOST = 1e-30, 1e30  # of weights: with others 32 bits hold no loss of a row, or no mean of a batch


def label_column(table: AnyTable, targets: Sequence[str], options: TaskOptions, *, some: bool = True) -> Column:
    """The labels of a task, null in every row that has none for it.

    A row has no label where its cell is missing or holds one of ``missing_label``, where ``mask_by`` does not hold,
    where ``sample_weight`` is 0, and where its cell is that of a row of what was taken, while it is of what was not.

    Args:
        table: All rows.
        targets: One column, or several that make up the label together; those are given as one struct column.
        options: The options of the task.
        some: Whether some row must hold what ``mask_by`` wants; a part of a table need not.

    Raises:
        DataError: A column is absent, or holds what is no label, weight or mask, such as bytes; or it holds none of
            the values that ``mask_by`` wants although some row must.

    Example:
        >>> from mtl_cli.data.table import Part, Table
        >>> frame = pl.DataFrame({"clicked": ["1", "0", "1"], "bought": ["0", "0", "?"]})
        >>> table = Table(frame, (Part("a.csv", 0, 3, lines=True),))
        >>> options = TaskOptions(kind="binary", missing_label="?", mask_by={"clicked": 1})
        >>> label_column(table, ["bought"], options).values.to_list()
        ['0', None, None]
    """
    columns = [_without(_own_cells(table, name), _as_list(options.missing_label)) for name in targets]
    name = ", ".join(targets)
    values = columns[0].values
    if len(columns) > 1:
        values = pl.DataFrame([column.values for column in columns]).to_struct(name)
    masked = np.zeros(len(values), dtype=bool)
    for other, wanted in (options.mask_by or {}).items():
        holds = _holds(_single(table, other).values, _as_list(wanted))
        if some and not holds.any():
            found = table.values(other).drop_nulls().cast(pl.String, strict=False).unique().head(1000).to_list()
            hint = did_you_mean(", ".join(map(str, _as_list(wanted))), map(str, found))
            raise DataError(Problem(f"mask_by.{other}", f"no row of {table.files} holds {wanted!r}", hint))
        masked |= ~holds
    if options.sample_weight is not None:
        masked |= _numbers(_weighing(table, options.sample_weight).values) == 0
    if masked.any():
        values = pl.select(pl.when(pl.Series(~masked)).then(values)).to_series().alias(name)
    return Column(name, values, functools.partial(table.where, name), columns[0].in_source)


def row_weights(table: AnyTable, name: str, labelled: np.ndarray) -> np.ndarray:
    """What each row counts: the numbers of a column, (N,) float64; 1 in rows without a label.

    Args:
        table: All rows.
        name: The column.
        labelled: (N,) bool. A row without a label needs no weight, but none may be negative.

    Raises:
        DataError: Lists the first cells that are missing, no finite numbers, negative, or beyond what 32 bits hold.
    """
    column = _weighing(table, name)
    numbers = _numbers(column.values)
    beyond = np.isfinite(numbers) & (numbers > 0) & ((numbers < _LEAST) | (numbers > _MOST))
    good = np.isfinite(numbers) & (numbers >= 0) & ~beyond
    bad = np.flatnonzero(~good & (labelled | (numbers < 0))).tolist()
    if bad:
        hint = "Correct the cell; 0 takes the row out of the task."
        scale = " Only ratios matter: all weights may be multiplied by one number."

        def problem(row: int) -> Problem:
            must = f"0, or from {_LEAST:g} to {_MOST:g}" if beyond[row] else "a number of at least 0"
            what = f"a weight must be {must}, got {shown_cell(column.values[row])}"
            return Problem(column.where(row), what, hint + scale * bool(beyond[row]))

        raise DataError(first_few(bad, problem, column.head))
    weights: np.ndarray = np.where(labelled, numbers, 1.0)
    return weights


def _own_cells(table: AnyTable, name: str) -> Column:
    """A column of labels without what rows of things that were not taken have copied from those that were."""
    column = _readable(table, name)
    copied = copied_labels(table, name)
    if not copied.any():
        return column
    return replace(column, values=pl.select(pl.when(pl.Series(~copied)).then(column.values).alias(name)).to_series())


def copied_labels(table: AnyTable, name: str) -> np.ndarray:
    """(N,) bool: cells of a column of labels that are of what was taken, in rows of what was not.

    Example:
        >>> from mtl_cli.data.table import Feedback, Part, Table
        >>> frame = pl.DataFrame({"took": [1, 1, 0, 0], "stars": [5, None, 5, None]})
        >>> table = Table(frame, (Part("a.csv", 0, 4, lines=True),), feedback=(Feedback(0, 4, "user", "item", "took"),))
        >>> copied_labels(table, "stars").tolist(), copied_labels(table, "took").tolist()
        ([False, False, True, False], [False, False, False, False])
    """
    copied = np.zeros(table.height, bool)
    for own, others in zip(table.feedback, table.not_taken, strict=True):
        if name != own.label:
            copied |= others
    return copied & table.values(name).is_not_null().to_numpy() if copied.any() else copied


def _readable(table: AnyTable, name: str) -> Column:
    column = table.column(name)
    inner = column.values.dtype
    while isinstance(inner, pl.List | pl.Array):
        inner = inner.inner  # type: ignore[assignment]
    if inner in (pl.Binary, pl.Object, pl.Duration, pl.Time):
        hint = "Write it as text or as numbers."
        raise _of_wrong_type(table, column, "must hold numbers, text or lists", hint)
    return column


def _single(table: AnyTable, name: str) -> Column:
    """A column that holds no lists."""
    column = _readable(table, name)
    if column.values.dtype.is_nested():
        raise _of_wrong_type(table, column, "must hold one value in each row")
    return column


def _weighing(table: AnyTable, name: str) -> Column:
    """A column of what rows count: days and moments are no such numbers, though they could be read as some."""
    column = _single(table, name)
    if column.values.dtype.is_temporal():
        raise _of_wrong_type(table, column, "a weight must be a number of at least 0")
    return column


def _of_wrong_type(table: AnyTable, column: Column, wanted: str, hint: str = "") -> DataError:
    what = f"{wanted}, got type {column.values.dtype}"
    return DataError(Problem(f"{table.files}, column '{column.name}'", what, hint))


def _without(column: Column, markers: Sequence[Plain]) -> Column:
    """The column with every cell that holds a marker for 'no label' made missing."""
    if not markers:
        return column
    values = column.values.arr.to_list() if isinstance(column.values.dtype, pl.Array) else column.values
    if isinstance(values.dtype, pl.List):  # a label for each token, or several of the row
        marked = pl.element().map_batches(lambda cells: pl.Series(_holds(cells, markers)), pl.Boolean)
        return replace(column, values=values.list.eval(pl.when(~marked).then(pl.element())))
    keep = pl.Series(~_holds(values, markers))
    return replace(column, values=pl.select(pl.when(keep).then(values)).to_series().alias(column.name))


def _holds(values: pl.Series, wanted: Sequence[Plain]) -> np.ndarray:
    """(N,) bool: whether a cell is one of the wanted values, as text or as a number. A missing cell is none."""
    if values.dtype.is_nested():
        return np.zeros(len(values), dtype=bool)
    text = values.cast(pl.String)
    truth = [str(value).lower() for value in wanted if isinstance(value, bool)]
    others = [value for value in wanted if not isinstance(value, bool)]
    found = composed(text).is_in(composed(pl.Series([*map(str, others)], dtype=pl.String)).to_list())
    found |= text.str.to_lowercase().is_in(truth)
    if values.dtype == pl.String:  # the text 7 is not the text 007
        found |= _spells(text, [value for value in others if not isinstance(value, str)])
    else:
        numbers = values.cast(pl.Int8) if values.dtype == pl.Boolean else values
        for _, flags in Markers([*map(str, others)]).in_values(numbers):
            found |= flags
    held: np.ndarray = found.fill_null(False).to_numpy()
    return held


def _spells(text: pl.Series, numbers: Sequence[float]) -> pl.Series:
    """Whether a text is one of some numbers, however it is spelt; long ids, which float64 cuts, digit for digit."""
    short = [float(number) for number in numbers if abs(number) < EXACT]
    found = pl.Series(_numbers(text)).is_in(short)
    long = pl.Series([f"{Decimal(str(number)):f}" for number in numbers if abs(number) >= EXACT], dtype=pl.String)
    return found | shortest(text.str.strip_chars()).is_in(shortest(long).to_list()) if len(long) else found


def _numbers(values: pl.Series) -> np.ndarray:
    """(N,) float64, NaN where a cell is missing or no number."""
    if values.dtype == pl.String:
        values = parse_numbers(values)[0]
    numbers: np.ndarray = values.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    return numbers


def _as_list(value: Plain | Sequence[Plain] | None) -> list[Plain]:
    if value is None:
        return []
    return [value] if isinstance(value, str | bool | int | float) else list(value)


def label_roles(tasks: Mapping[str, tuple[Sequence[str], TaskOptions]]) -> dict[str, str]:
    """Columns that tasks take for labels, weights and masks, and the words for it; they are no inputs.

    Args:
        tasks: Target columns and options of each task.

    Example:
        >>> label_roles({"buys": (["bought"], TaskOptions(kind="binary", sample_weight="w"))})
        {'bought': "target of task 'buys'", 'w': "sample_weight of task 'buys'"}
    """
    roles: dict[str, str] = {}
    for name, (targets, _) in tasks.items():
        for column in targets:
            roles.setdefault(column, f"target of task '{name}'")
    for name, (_, options) in tasks.items():
        for column in options.mask_by or {}:
            roles.setdefault(column, f"mask_by of task '{name}'")
        if options.sample_weight is not None:
            roles.setdefault(options.sample_weight, f"sample_weight of task '{name}'")
    return roles
