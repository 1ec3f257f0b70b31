"""What a column is (number, date, block of numbers, category), and its values as numbers or text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from mtl_cli.data.date_text import parse_dates, spelt_as_date, with_and_without_offset
from mtl_cli.data.images import is_image
from mtl_cli.data.number_text import parse_numbers
from mtl_cli.errors import DataError, Problem, shown_cell
from mtl_cli.notation import DATE, FOREIGN_NUMBER, PERCENTAGE, notation
from mtl_cli.spelling import shortest
from mtl_cli.types import Column

ColumnType = Literal["numeric", "date", "block", "category", "image", "text", "tokens"]

#: From here on, float64 skips whole numbers.
EXACT = 2**53
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FREE_TEXT_VALUES = 1000  # a text column with more distinct values than this, in most rows, names its rows
_US_PER_DAY = 86_400_000_000
_ISO_HINT = "Write it as 2024-12-31 or 2024-12-31 23:59:59"
_TRUTH = {"true": 1.0, "false": 0.0}


def infer_type(column: Column, declared: str | None) -> tuple[ColumnType, list[str]]:
    """Decides what a column is, from all of its cells.

    Numbers and truth values are numeric; dates are days; lists of numbers are blocks, lists of words tokens, arrays of
    two or three axes images. A text column is numeric if every cell is a plain number, and a category if fewer than
    half are; the same goes for dates. Texts of digits, some with a leading zero, are codes.

    Args:
        column: N cells.
        declared: ``numeric``, ``date``, ``category``, ``text`` or ``image`` if the user said so.

    Returns:
        The type, and notes about doubtful readings.

    Raises:
        DataError: The column cannot be read as declared, is mostly but not wholly numbers or dates as this program
            reads them, or looks like free text.

    Example:
        >>> infer_type(Column("zip", pl.Series(["00501", "501"]), str), None)[0]
        'category'
    """
    dtype = column.values.dtype
    if (is_image(dtype) and declared is None) or declared == "image":
        return "image", []
    if declared == "text":  # whatever the cells look like
        return "text", []
    if is_tokens(dtype) and declared is None:
        return "tokens", []
    if (_is_block(dtype) or is_image(dtype)) and declared not in ("category", "date"):
        return "block", []
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Time, pl.Duration):
        role = f"a {declared}" if declared in ("category", "date") else "an input"
        what = f"cannot be {role}, got type {dtype}"
        raise DataError(Problem(column.head, what, f"Leave it out with data.exclude=[{column.name}]."))
    if declared == "category":
        return "category", []
    if dtype.is_temporal():
        return "date", []
    if declared == "date" and dtype != pl.String:
        return "date", []  # says so where it is none
    if dtype.is_numeric() or dtype == pl.Boolean:
        return "numeric", _precision_notes(column)
    return _infer_text(column, declared)


def numeric_values(column: Column, kind: str, width: int) -> np.ndarray:
    """The numbers of a numeric, date or block column.

    Args:
        column: N cells.
        kind: What the column is.
        width: Numbers per cell; 1 except for blocks.

    Returns:
        (N, width) float64; NaN where missing. Dates are days since 1970-01-01.

    Raises:
        DataError: The first cell that is no number, not finite in float32, or a list of another length.

    Example:
        >>> numeric_values(Column("x", pl.Series(["1", None, "2.5"]), str), "numeric", 1)[:, 0].tolist()
        [1.0, nan, 2.5]
    """
    if kind == "block":
        values = _block(column, width)
    else:
        values = _dates(column) if kind == "date" else _numbers(column)
        values = values.reshape(-1, 1)
    # NaN compares false, so that only infinite and too large numbers are found.
    huge = np.flatnonzero((np.abs(values) > _FLOAT32_MAX).any(axis=1))
    if len(huge):
        row = int(huge[0])
        what = f"must be finite in 32 bits, got {_shown(column, row)}"
        raise DataError(Problem(column.where(row), what, "Correct the value, or make the cell empty."))
    return values


def category_text(column: Column) -> pl.Series:
    """The cells of a category column as text, byte for byte; null where missing.

    Whole numbers that are stored as floats, as all are in a column with holes, or as decimals, as of a database, are
    spelt as whole numbers.

    Example:
        >>> category_text(Column("code", pl.Series([7.0, None, 2.5]), str)).to_list()
        ['7', None, '2.5']

    Raises:
        DataError: The column holds lists or other values that have no text.
    """
    if column.values.dtype == pl.String:
        return column.values
    if not has_text(column.values.dtype):
        raise DataError(Problem(column.head, f"must hold categories, got type {column.values.dtype}"))
    text = column.values.cast(pl.String)
    if column.values.dtype.is_decimal():
        return shortest(text)
    if not column.values.dtype.is_float():
        return text
    whole = (column.values == column.values.floor()) & (column.values.abs() < EXACT)
    integers = column.values.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.select(pl.when(whole).then(integers).otherwise(text).alias(text.name)).to_series()


def has_text(dtype: pl.DataType) -> bool:
    """Whether there is a text that is the value of a cell: of lists, bytes and spans of time there is none."""
    return not (dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Duration))


def lost_digits(name: str, columns: Sequence[tuple[str, pl.Series]]) -> list[Problem]:
    """Why whole numbers of one file and fractions of another cannot be one column; nothing if they can.

    As fractions, whole numbers of more than 53 bits lose digits, and two ids become one.

    Args:
        name: The column.
        columns: Its cells in each file.

    Example:
        >>> print(*lost_digits("id", [("a.parquet", pl.Series([2**53 + 1])), ("b.parquet", pl.Series([0.5]))]))
        a.parquet, column 'id': holds 9007199254740993, more digits than Float64 keeps, its type in b.parquet. Store the column in one way.
        >>> lost_digits("id", [("a.parquet", pl.Series([7])), ("b.parquet", pl.Series([0.5]))])
        []
    """  # noqa: E501
    fractions = [(file, values.dtype) for file, values in columns if values.dtype.is_float()]
    for file, values in columns if fractions else ():
        if is_whole(values.dtype):
            large = values.filter(values.cast(pl.Float64).abs() >= EXACT)
            if len(large):
                what = f"holds {large[0]}, more digits than {fractions[0][1]} keeps, its type in {fractions[0][0]}"
                return [Problem(f"{file}, column '{name}'", what, "Store the column in one way.")]
    return []


def is_whole(dtype: pl.DataType) -> bool:
    """Whether a column holds whole numbers alone: integers, or decimals without places after the point."""
    return dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0)


def is_tokens(dtype: pl.DataType) -> bool:
    """Whether a column's cells are lists of texts."""
    return isinstance(dtype, pl.List | pl.Array) and dtype.inner == pl.String


def holds_nothing(dtype: pl.DataType) -> bool:
    """Whether all cells are missing or lists without a value: the file then does not say what they would hold."""
    return dtype == pl.Null or (isinstance(dtype, pl.List | pl.Array) and dtype.inner == pl.Null)


def block_width(column: Column) -> int:
    """The length of the lists of a block column, from its first list."""
    if isinstance(column.values.dtype, pl.Array):
        return int(np.prod(column.values.dtype.shape))
    first = column.values.drop_nulls().head(1)
    return len(first[0]) if len(first) else 0


def _is_block(dtype: pl.DataType) -> bool:
    inner = getattr(dtype, "inner", None) if isinstance(dtype, pl.List | pl.Array) else None
    return inner is not None and (inner.is_numeric() or inner == pl.Boolean)


def _infer_text(column: Column, declared: str | None) -> tuple[ColumnType, list[str]]:
    text = column.values.cast(pl.String)
    filled = len(text) - text.null_count()
    if declared == "date":
        return _dates_in_text(column, text, "must be a date as declared in data.inputs")
    _, bad = parse_numbers(text)
    numbers = filled - int(bad.sum())
    if filled and numbers == filled:
        padded = text.str.contains(r"^\s*[+-]?0\d")
        if not padded.any():
            return "numeric", _precision_notes(column)
        row = _first(padded)
        place = f"{column.where(row)}: has leading zeros, got '{text[row]}'"
        if declared != "numeric" and text.str.contains(r"^\d+$").all():
            return "category", [f"{place}. The column is read as a category of codes."]
        return "numeric", [f"{place}. The column is read as numbers all the same."]
    if declared == "numeric":
        if filled == 0:
            return "numeric", []
        raise DataError(_not_a_number(column, text, bad, "must be a number as declared in data.inputs"))
    dates = int(text.str.contains(DATE).sum())
    if filled and 2 * dates >= filled:
        return _dates_in_text(column, text, f"must be a date as {dates} of {filled} cells of the column are")
    foreign = int(text.filter(bad).str.contains(f"{FOREIGN_NUMBER}|{PERCENTAGE}").sum())
    if filled and 2 * (numbers + foreign) >= filled:
        share = f"as {numbers + foreign} of {filled} cells of the column are"
        raise DataError(_not_a_number(column, text, bad, f"must be a plain number {share}"))
    distinct = text.n_unique() - (text.null_count() > 0)
    if distinct > _FREE_TEXT_VALUES and 2 * distinct > filled:
        what = f"looks like free text or an id, got {distinct} distinct values in {filled} filled rows"
        declare = f"declare {{name: {column.name}, type: category}} or type: text in data.inputs"
        raise DataError(Problem(column.head, what, f"Write data.exclude=[{column.name}], or {declare}."))
    return "category", [] if filled else [f"{column.head}: holds no value at all."]


def _not_a_number(column: Column, text: pl.Series, bad: pl.Series, what: str) -> Problem:
    row = _first(bad)
    value = text[row]
    looks = notation(value, text.filter(bad).unique().to_list())
    if looks is None:
        return _misfit(column, row, what)
    what = f"looks like {looks.like}"
    if looks.settings:
        return _misfit(column, row, what, instead=f"set {looks.settings}")
    return _misfit(column, row, what, f"Write it as {looks.instead}", _leave_out(column))


def _dates_in_text(column: Column, text: pl.Series, what: str) -> tuple[ColumnType, list[str]]:
    """Reads a column of dates; ``what`` is what a cell that is none must be.

    Raises:
        DataError: Names the first such cell.
    """
    bad = parse_dates(text)[1]
    if bad.any():
        raise DataError(_not_a_date(column, text, _first(bad), what))
    if with_and_without_offset(text):
        return "date", [f"{column.head}: some times have an offset and some none. Those without are read as UTC."]
    return "date", []


def _not_a_date(column: Column, text: pl.Series, row: int, what: str) -> Problem:
    if spelt_as_date(text[row]):
        return _misfit(column, row, "is a date that does not exist")
    if pl.Series([text[row]]).str.contains(DATE)[0]:
        return _misfit(column, row, "looks like a date", _ISO_HINT, _leave_out(column))
    return _misfit(column, row, what)


def _leave_out(column: Column) -> str:
    return f"leave it out with data.exclude=[{column.name}]"


def _misfit(column: Column, row: int, what: str, correct: str = "Correct it", instead: str = "") -> Problem:
    """A cell that keeps its column from being what it looks like, and the ways out."""
    value = column.values[row]
    instead = instead or f"add '{value}' to data.missing if it means no value"
    declare = f"declare {{name: {column.name}, type: category}} in data.inputs"
    return Problem(column.where(row), f"{what}, got '{value}'", f"{correct}, {instead}, or {declare}.")


def _numbers(column: Column) -> np.ndarray:
    series = column.values
    if series.dtype == pl.String:
        series, bad = parse_numbers(series)
        if bad.any():
            truth = column.values.str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Float64)
            if truth.null_count() == column.values.null_count():  # spelt here, and stored as such elsewhere
                return _float64(truth)
            row = _first(bad)
            looks = notation(column.values[row], column.values.filter(bad).unique().to_list())
            what = "must be a number" if looks is None else f"looks like {looks.like}"
            first = f"Set {looks.settings}" if looks is not None and looks.settings else "Correct it"
            hint = f"{first}, or make the cell empty."
            raise DataError(Problem(column.where(row), f"{what}, got '{column.values[row]}'", hint))
    elif not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
        raise DataError(Problem(column.head, f"must hold numbers, got type {series.dtype}"))
    return _float64(series)


def _dates(column: Column) -> np.ndarray:
    series = column.values
    if series.dtype == pl.String:  # text files spell them
        series, bad = parse_dates(series)
        if bad.any():
            row = _first(bad)
            what = f"must be a date, got '{column.values[row]}'"
            raise DataError(Problem(column.where(row), what, f"{_ISO_HINT}, or make the cell empty."))
    elif series.dtype not in (pl.Date, pl.Datetime, pl.Null):
        raise DataError(Problem(column.head, f"must hold dates, got type {series.dtype}"))
    return _float64(series.cast(pl.Datetime("us")).cast(pl.Int64)) / _US_PER_DAY


def _block(column: Column, width: int) -> np.ndarray:
    series = column.values
    if series.dtype == pl.Null:
        return np.full((len(series), width), np.nan)
    if is_image(series.dtype):
        series = series.reshape((len(series), width)) if block_width(column) == width else series
    if not _is_block(series.dtype):
        raise DataError(Problem(column.head, f"must hold lists of {width} numbers, got type {series.dtype}"))
    lists = series.arr.to_list() if isinstance(series.dtype, pl.Array) else series
    lengths = lists.list.len()
    wrong = (lengths != width if width else lengths == 0).fill_null(False)
    if wrong.any():
        row = _first(wrong)
        what = f"must be a list of {width or 'one or more'} number{'s' * (width != 1)}, got {lengths[row]}"
        raise DataError(Problem(column.where(row), what))
    if width == 0:
        what = "holds no list, so that how many numbers it gives is not known"
        raise DataError(Problem(column.head, what, f"Leave it out with data.exclude=[{column.name}]."))
    values = np.full((len(series), width), np.nan)
    values[series.is_not_null().to_numpy()] = _float64(lists.drop_nulls().explode()).reshape(-1, width)
    return values


def _float64(series: pl.Series) -> np.ndarray:
    """float64 with NaN for null, which is what a null becomes here."""
    values: np.ndarray = series.cast(pl.Float64).to_numpy()
    return values


def _precision_notes(column: Column) -> list[str]:
    """A note on whole numbers with more digits than float64 keeps: two ids could become one."""
    series = column.values
    if series.dtype == pl.String:
        text = series.str.strip_chars()
        if not (text.str.len_bytes() >= 16).any():
            return []
        beyond = text.str.contains(r"^[+-]?\d{16,}$") & (text.cast(pl.Float64, strict=False).abs() >= EXACT)
    elif is_whole(series.dtype):
        beyond = series.cast(pl.Float64).abs() >= EXACT
    else:
        return []
    if not beyond.any():
        return []
    row = _first(beyond)
    text_of = f"{column.where(row)}: has more digits than a number can keep, got {series[row]}."
    return [f"{text_of} If it is an id or a code, declare {{name: {column.name}, type: category}}."]


def _first(flags: pl.Series) -> int:
    return int(np.flatnonzero(flags.fill_null(False).to_numpy())[0])


def _shown(column: Column, row: int) -> str:
    value = column.values[row]
    if isinstance(value, pl.Series):
        beyond = value.cast(pl.Float64).abs() > _FLOAT32_MAX
        return f"{value[_first(beyond)]} at position {_first(beyond) + 1} of the list"
    return shown_cell(value)
