"""One input column: its statistics, and its cells as numbers or codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from mtl_cli.data.column_types import block_width, category_text, is_tokens, numeric_values
from mtl_cli.data.scaling import Scale, Scaler
from mtl_cli.data.table import Pieces, rows_in
from mtl_cli.errors import DataError, Problem, did_you_mean, listed, other_form
from mtl_cli.schema import MissingInputs
from mtl_cli.spelling import Spellings, composed
from mtl_cli.types import Column

NumericType = Literal["numeric", "date", "block"]
_SHOWN = 5  # values named in a note


@dataclass(frozen=True, eq=False)
class NumericInput:
    """A column that gives ``width`` numbers, and one indicator if it had missing cells in training.

    ``edges`` cut its scaled values into bins, for encoders that embed numbers; empty for blocks and 0/1 columns.
    """

    name: str
    type: NumericType
    width: int
    scaler: Scaler
    indicator: bool
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class CategoryInput:
    """A column that gives a code: 0 unknown, ``values[i]`` is i + 1, then missing if that occurred in training.

    Categories in fewer than ``min_count`` training rows are unknown.
    """

    name: str
    values: tuple[str, ...]
    missing: bool
    min_count: int = 1

    @property
    def size(self) -> int:
        """Number of codes."""
        return 1 + len(self.values) + self.missing

    @cached_property
    def codes(self) -> Mapping[str, int]:
        """The code of each category."""
        return {value: code for code, value in enumerate(self.values, 1)}

    @cached_property
    def spellings(self) -> Spellings:
        """What else stands for one of the categories."""
        return Spellings(self.values)

    def spelt_as_known(self, texts: pl.Series) -> pl.Series:
        """Texts with other spellings of the categories replaced by these."""
        others = [text for text in texts.unique().drop_nulls().to_list() if text not in self.codes]
        return texts.replace(self.spellings.find(others)) if others else texts

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        least = {"min_count": self.min_count} if self.min_count > 1 else {}
        return {"name": self.name, "values": list(self.values), "missing": self.missing, **least}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> CategoryInput:
        """The column that ``to_json`` described."""
        return cls(saved["name"], tuple(saved["values"]), saved["missing"], saved.get("min_count", 1))


@dataclass
class FeatureCounts:
    """Features of texts or tokens, counted.

    Args:
        total: All.
        unknown: Those that are unknown from training.
        lost: Rows that have features, none of which is known.
    """

    total: int = 0
    unknown: int = 0
    lost: int = 0

    def add(self, other: FeatureCounts) -> None:
        """Counts those of other rows too."""
        self.total += other.total
        self.unknown += other.unknown
        self.lost += other.lost

    def note(self) -> str | None:
        """What to say of a column with such features; None: some are unknown in any text, and these are no more.

        Example:
            >>> FeatureCounts(900, 800, 2).note(), FeatureCounts(900, 80).note()
            ('800 of 900 words and parts of words are unknown from training, and 2 rows have none that is known', None)
        """
        if not self.lost and 2 * self.unknown <= self.total:
            return None
        rows = f"{self.lost:,} rows have" if self.lost != 1 else "1 row has"
        shares = f"{self.unknown:,} of {self.total:,} words and parts of words are unknown from training"
        return f"{shares}, and {rows} none that is known" if self.lost else shares


@dataclass
class Findings:
    """Cells that were read as something else than what they hold, counted over one table or several.

    Args:
        missing: Place of a column (``people.csv, column 'age'``) to its missing cells.
        unknown: Place of a category column to its unknown categories and how often each occurs.
        rare: Place of such a column where categories in fewer training rows than so many are unknown.
        respelt: Place of a category column to texts that are one of its categories in another spelling, and which.
        unreadable: Rows whose image cannot be read: they are neither predicted nor counted.
        greyed: Place of a column of image files to how many have colours and are read as grey, as those of training are.
        files: What sources say of their files, each once.
        expected: Places of columns that had missing cells in training too, so that the model knows what they mean.
        features: Place of a column of texts or tokens to its features, where not all are known.

    Example:
        >>> Findings(Counter({"a.csv, column 'x'": 2}), {"a.csv, column 'c'": Counter(z=1)}).notes()
        ["a.csv, column 'x': 2 cells are missing.", "a.csv, column 'c': 1 cell holds a category unknown from training: 'z' (1)."]
    """  # noqa: E501

    missing: Counter[str] = field(default_factory=Counter)
    unknown: dict[str, Counter[str]] = field(default_factory=dict)
    rare: dict[str, int] = field(default_factory=dict)
    respelt: dict[str, dict[str, str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    greyed: Counter[str] = field(default_factory=Counter)
    expected: set[str] = field(default_factory=set)
    files: dict[str, None] = field(default_factory=dict)
    features: dict[str, FeatureCounts] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Counts what was found elsewhere too."""
        self.missing.update(other.missing)
        for place, counts in other.unknown.items():
            self.unknown.setdefault(place, Counter()).update(counts)
        self.rare |= other.rare
        for place, texts in other.respelt.items():
            self.respelt.setdefault(place, {}).update(texts)
        self.unreadable += other.unreadable
        self.greyed.update(other.greyed)
        self.expected |= other.expected
        self.files |= other.files
        for place, features in other.features.items():
            self.features.setdefault(place, FeatureCounts()).add(features)

    def notes(self) -> list[str]:
        """A line for each column with missing cells, unknown categories or unknown words, for images, and on files.

        Many columns that had missing cells in training too share one line.
        """
        usual = [place for place in self.missing if place in self.expected]
        folded = dict.fromkeys(usual) if len(usual) > _SHOWN else {}
        lines = list(self.files)
        for file, columns in _by_file(folded).items():
            named = [f"{column} ({self.missing[place]})" for column, place in columns.items()]
            lines.append(f"{file}: {len(columns)} columns have missing cells, as in training: {listed(named, _SHOWN)}.")
        lines += [
            f"{place}: {_cells(count, 'is missing', 'are missing')}."
            for place, count in self.missing.items()
            if place not in folded
        ]
        for place, values in self.respelt.items():
            named = [f"{text!r}{other_form(text, value)} as {value!r}" for text, value in sorted(values.items())]
            pairs = listed(named, _SHOWN)
            lines.append(f"{place}: categories are spelt otherwise than the known ones, read {pairs}.")
        for place, counts in self.unknown.items():
            what = "a category unknown from training"
            if place in self.rare:
                what = f"a category that fewer than {self.rare[place]} training rows have (data.min_count)"
            ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
            shown = ", ".join(f"{value!r} ({count})" for value, count in ordered[:_SHOWN])
            more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
            cells = _cells(counts.total(), f"holds {what}", f"hold {what}")
            lines.append(f"{place}: {cells}: {shown}{more}.")
        lines += [f"{place}: {told}." for place, counts in self.features.items() if (told := counts.note())]
        for place, count in self.greyed.items():
            images = "1 image is" if count == 1 else f"{count} images are"
            lines.append(
                f"{place}: {images} stored in colours and read as grey, as no training image looked at has any."
            )
        if self.unreadable:
            count = len(self.unreadable)
            who = "1 row has no inputs, as its" if count == 1 else f"{count} rows have no inputs, as their"
            lines.append(f"{who} image cannot be read: {listed(self.unreadable, _SHOWN)}.")
        return lines


def fit_numeric(
    column: Column,
    kind: NumericType,
    train_rows: np.ndarray,
    scale: Scale,
    missing_inputs: MissingInputs,
    bins: int = 0,
) -> NumericInput:
    """Measures a numeric or date column on its training rows; ``bins`` is the most bins to cut it into.

    Raises:
        DataError: A cell of any row is no number; training and other rows are held to the same rules.
    """
    values = numeric_values(column, kind, 1)[train_rows]
    scaler = Scaler.fit(lambda: [values], scale, fill_mean=missing_inputs == "mean")
    indicator = _flagged(column, missing_inputs, absent=bool(np.isnan(values).any()))
    edges = _edges(scaler.transform(values), bins) if bins else ()
    return NumericInput(column.name, kind, 1, scaler, indicator, edges)


def fit_block(pieces: Pieces, train_rows: np.ndarray, scale: Scale, missing_inputs: MissingInputs) -> NumericInput:
    """Measures a block column on its training rows, a stretch of rows at a time.

    Raises:
        DataError: As ``fit_numeric``; or all values are needed at once, and there are several stretches.
    """
    first = next(pieces())[1]
    width = next((found for _, column in pieces() if (found := block_width(column))), 0)
    absent = 0

    def training() -> Iterator[np.ndarray]:
        nonlocal absent
        for number, (start, column) in enumerate(pieces()):
            values = numeric_values(column, "block", width)[rows_in(train_rows, start, len(column.values))]
            absent += int(np.isnan(values).sum())
            if scale == "quantile" and number:
                what = "'quantile' needs all rows of a column of lists at once, and the data are streamed"
                raise DataError(
                    Problem("data.scale", f"{what}, got column '{column.name}'", "Write data.scale=standard.")
                )
            yield values

    scaler = Scaler.fit(training, scale, fill_mean=missing_inputs == "mean")
    return NumericInput(first.name, "block", width, scaler, _flagged(first, missing_inputs, absent=absent > 0))


def _flagged(column: Column, missing_inputs: MissingInputs, *, absent: bool) -> bool:
    """Whether an input says where cells are missing; where a source lacks the column the model must know."""
    return column.in_source is not None or (missing_inputs == "indicator" and absent)


def _edges(scaled: np.ndarray, bins: int) -> tuple[float, ...]:
    """Edges of at most ``bins`` bins with about as many distinct values in each.

    Distinct values, not rows: where nine rows of ten hold a 0, quantiles of rows would leave one bin for all others.
    """
    distinct = np.unique(scaled.astype(np.float32))
    if len(distinct) <= 2:
        return ()
    edges = np.unique(np.quantile(distinct, np.linspace(0, 1, min(bins, len(distinct) - 1) + 1)))
    return tuple(float(edge) for edge in edges)


def fit_category(column: Column, train_rows: np.ndarray, min_count: int) -> CategoryInput:
    """Collects the categories of at least ``min_count`` training rows, in the order of their characters.

    Of one that is written in several Unicode forms the most frequent is kept.
    """
    train = category_text(column).gather(train_rows).alias("category")
    counts = train.drop_nulls().value_counts().sort("count", "category", descending=[True, False])
    counts = counts.with_columns(composed(counts["category"]).alias("form"))
    forms = counts.group_by("form", maintain_order=True).agg(pl.col("category").first(), pl.col("count").sum())
    frequent = forms.filter(pl.col("count") >= min_count)["category"]
    missing = train.null_count() >= min_count
    return CategoryInput(column.name, tuple(sorted(frequent.to_list())), missing, min_count)


def constant_notes(columns: Mapping[str, NumericInput]) -> list[str]:
    """A line for each column that says nothing, or has values that do not; many columns of one number share one.

    Args:
        columns: The columns by their places (``people.csv, column 'age'``).
    """
    counts = {place: int(column.scaler.constant.sum()) for place, column in columns.items()}
    single = [place for place, count in counts.items() if count and columns[place].width == 1]
    folded = dict.fromkeys(single) if len(single) > _SHOWN else {}
    what = "the same value in all training rows, and are read as 0 everywhere"
    lines = [
        f"{file}: {len(own)} columns have {what}: {listed([*own], _SHOWN)}." for file, own in _by_file(folded).items()
    ]
    for place in (place for place, count in counts.items() if count and place not in folded):
        count, width = counts[place], columns[place].width
        which, verb = "the value" if width == 1 else f"{count} of {width} values", "is" if count == 1 else "are"
        lines.append(f"{place}: {which} {verb} the same in all training rows, and {verb} read as 0 everywhere.")
    return lines


def _by_file(places: Iterable[str]) -> dict[str, dict[str, str]]:
    """Places of columns by file, and there by column."""
    found: dict[str, dict[str, str]] = {}
    for place in places:
        file, _, column = place.rpartition(", column ")
        found.setdefault(file, {})[column] = place
    return found


def write_numeric(
    source: Column, column: NumericInput, out: np.ndarray, start: int, flag: int | None, refuse: bool, found: Findings
) -> None:
    """Writes the scaled numbers of one column.

    Args:
        source: N cells.
        column: The statistics.
        out: (N, F) float32, written to.
        start: Where the column's numbers begin.
        flag: Where its missing indicator goes, if it has one.
        refuse: Whether a missing cell is an error.
        found: Gets the number of missing cells.

    Raises:
        DataError: A cell does not fit, or is missing and ``refuse``.
    """
    values = numeric_values(source, column.type, column.width)
    missing = np.isnan(values).any(axis=1)
    count = int(missing.sum() if source.in_source is None else missing[source.in_source].sum())
    if count:
        if refuse:
            refuse_missing_cells([source])
        found.missing[source.head] += count
        found.expected |= {source.head} if column.indicator else set()
    out[:, start : start + column.width] = column.scaler.transform(values)
    if flag is not None:
        out[:, flag] = missing


def encode(
    source: Column, category: CategoryInput, refuse: bool, found: Findings, refuse_unknown: bool = False
) -> np.ndarray:
    """Codes (N,) int64 of a category column; counts of missing and unknown cells go to ``found``.

    Raises:
        DataError: A cell is missing and ``refuse``; or ``refuse_unknown``, and it holds what no training row holds.
    """
    text = category_text(source)
    count = int(source.missing.sum())
    if count:
        if refuse:
            refuse_missing_cells([source])
        found.missing[source.head] += count
        found.expected |= {source.head} if category.missing else set()
    codes, absent = _coded(text, category.codes), text.is_null().to_numpy()
    unknown = text.filter(pl.Series((codes == 0) & ~absent))
    respelt = category.spellings.find(unknown.unique().to_list()) if len(unknown) else {}
    if respelt:
        found.respelt.setdefault(source.head, {}).update(respelt)
        codes = _coded(text, {**category.codes, **{other: category.codes[value] for other, value in respelt.items()}})
        unknown = text.filter(pl.Series((codes == 0) & ~absent))
    if refuse_unknown and (len(unknown) or (count and not category.missing)):
        _refuse_unknown(source, category, (codes == 0) & ~absent, source.missing & (not category.missing))
    if len(unknown):
        found.unknown.setdefault(source.head, Counter()).update(dict(unknown.value_counts().rows()))
        found.rare |= {source.head: category.min_count} if category.min_count > 1 else {}
    codes[absent] = category.size - 1 if category.missing else 0
    return codes


def _coded(text: pl.Series, codes: Mapping[str, int]) -> np.ndarray:
    """The code of each text; 0 where it has none."""
    if not codes:
        return np.zeros(len(text), np.int64)
    coded = text.replace_strict(list(codes), list(codes.values()), default=0, return_dtype=pl.Int64)
    found: np.ndarray = coded.fill_null(0).to_numpy().copy()
    return found


def _refuse_unknown(source: Column, category: CategoryInput, unknown: np.ndarray, absent: np.ndarray) -> None:
    """Names the first rows that hold what no training row holds, or too few: a category, or no value."""
    least = category.min_count
    few, verb = ("no training row", "has") if least == 1 else (f"fewer than {least} training rows", "have")
    rows = np.flatnonzero(unknown | absent)
    problems = []
    for row in rows[:_SHOWN].tolist():
        if absent[row]:
            what, hint = f"is missing, which it is in {few}", "Fill it"
        else:
            text = str(source.values[row])
            near = did_you_mean(text, category.values)
            what, hint = f"holds a category that {few} {verb}, got {text!r}", f"{near} Correct it".strip()
        problems.append(Problem(source.where(row), what, f"{hint}, or train with data.unknown=other."))
    if len(rows) > _SHOWN:
        problems.append(Problem(source.head, f"{len(rows) - _SHOWN} more cells hold what {few} {verb}"))
    raise DataError(problems)


def _cells(count: int, one: str, many: str) -> str:
    return f"{count} {f'cell {one}' if count == 1 else f'cells {many}'}"


def refuse_missing_cells(pieces: Iterable[Column]) -> None:
    """Refuses missing cells of a column that is given whole or in stretches, missing elements of lists included.

    Raises:
        DataError: Names the first and counts the others.
    """
    first, count = "", 0
    for column in pieces:
        rows = _missing_rows(column)
        first = first or (column.where(int(rows[0])) if len(rows) else "")
        count += len(rows)
    if count:
        others = count - 1
        more = f", as {'is' if others == 1 else 'are'} {others} more cell{'s' * (others > 1)} of the column"
        hint = "Fill it, or set data.missing_inputs to indicator or mean."
        raise DataError(Problem(first, f"is missing{more if others else ''}", hint))


def _missing_rows(column: Column) -> np.ndarray:
    series = column.values
    absent = series.is_null()
    if series.dtype.is_nested():
        lists = series.arr.to_list() if isinstance(series.dtype, pl.Array) else series
        element = pl.element().is_null()
        if not is_tokens(series.dtype):
            lists = lists.cast(pl.List(pl.Float64))
            element |= pl.element().is_nan()
        absent |= lists.list.eval(element).list.any().fill_null(False)
    return np.flatnonzero(absent.to_numpy() if column.in_source is None else absent.to_numpy() & column.in_source)
