"""The user's rows, and the way from any cell back to its place in a file."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mtl_cli.errors import DataError, Problem, did_you_mean
from mtl_cli.paths import expanded
from mtl_cli.types import Column

#: A column as stretches of rows, each with its first row; made anew by each call.
Pieces = Callable[[], Iterator[tuple[int, Column]]]


@dataclass(frozen=True)
class Part:
    """The rows of a table that came from one file.

    Args:
        name: The file as the user gave it.
        first: Index in the table of the file's first row; negative if the table begins further down in the file.
        rows: How many rows the file holds.
        lines: Whether each row stands on a line of its own (text files without a line break inside a cell).
        source: The name of its source, where there are several.
        columns: The columns that the source has; None: all of the table.
        renamed: Names in the file of columns that were renamed, by the new name.
        header: Whether a line with the names of the columns stands above the rows.
        folder: Where relative paths in the cells start from; ``""`` is where the command is run.
        places: Where each row of the file stands, if ``lines`` does not say it: ``line 12``, ``a/7.png``.
    """

    name: str
    first: int
    rows: int
    lines: bool
    source: str = ""
    columns: frozenset[str] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    header: bool = True
    folder: str = ""
    places: Sequence[str] = ()

    def has(self, column: str) -> bool:
        """Whether the file's source has the column."""
        return self.columns is None or column in self.columns


@dataclass(frozen=True)
class Pairs:
    """Rows of a table that stand one after another, each of a user and an item.

    Args:
        first: Index of the first of them.
        rows: How many.
        user: Column with the user.
        item: Column with the item.
    """

    first: int
    rows: int
    user: str
    item: str


@dataclass(frozen=True)
class Drawn(Pairs):
    """Pairs whose item was drawn, not read."""


@dataclass(frozen=True)
class Feedback(Pairs):
    """Pairs of a source that knows what users took, and beside it has rows of what they did not take.

    Args, besides those of ``Pairs``:
        label: Column that is 1 in rows of what was taken, and 0 in the others. Cells that these have in further columns
            are copies from a row of what was taken.
        lists: Column that numbers the lists of candidates; None: there are none.
        lacking: Columns that some of the files lack, and which: those of interactions, or those of candidates.
    """

    label: str
    lists: str | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)


def rows_in(rows: np.ndarray, first: int, count: int) -> np.ndarray:
    """Those of some rows (sorted) that are among ``count`` rows from ``first`` on, counted from there.

    Example:
        >>> rows_in(np.array([1, 4, 5, 9]), 4, 3).tolist()
        [0, 1]
    """
    begin, end = np.searchsorted(rows, [first, first + count])
    found: np.ndarray = rows[begin:end] - first
    return found


@dataclass(frozen=True)
class Facts:
    """What a report says of a column.

    Args:
        missing: Number of missing cells.
        markers: What they held, with counts.
        first: The first value that is there, if any.
    """

    missing: int
    markers: Mapping[str, int]
    first: Any


class AnyTable(ABC):
    """N rows, as read: nothing scaled, filled or left out. They are in memory (``Table``) or stay in their files.

    Attributes:
        parts: Where the rows came from, in order.
        given_split: Per row ``train``, ``val`` or ``test`` if the files were given per split.
        fingerprint: sha256 (hex) over the bytes of all files in order; for embedded data over name and library version.
        notes: What the user should know about the files.
        converted: Columns whose numbers were written with other decimal or group signs.
        types: What the source knows about columns that their values do not say: ``image`` of a path; ``category`` of
            what is no quantity; ``name`` of a column that names the rows, which is no input unless it is listed.
        drawn: Rows that were not read but drawn, and are drawn anew for each epoch.
        feedback: Rows of sources of what users took.
    """

    parts: tuple[Part, ...]
    given_split: pl.Series | None
    fingerprint: str
    notes: tuple[str, ...]
    converted: tuple[str, ...]
    types: Mapping[str, str]
    drawn: tuple[Drawn, ...]
    feedback: tuple[Feedback, ...]

    @property
    @abstractmethod
    def height(self) -> int:
        """N."""

    @property
    @abstractmethod
    def schema(self) -> Mapping[str, pl.DataType]:
        """The columns in order, and how their values are stored."""

    @abstractmethod
    def values(self, name: str) -> pl.Series:
        """All cells of a column that is there; null where missing."""

    @abstractmethod
    def pieces(self, name: str) -> Iterator[tuple[int, Column]]:
        """A column that need not fit into memory: one stretch of rows after the other, each with its first row."""

    @abstractmethod
    def head(self, name: str, rows: int) -> pl.Series:
        """The first cells of a column."""

    @abstractmethod
    def facts(self, name: str) -> Facts:
        """What a report says of a column."""

    @abstractmethod
    def with_empty(self, columns: Iterable[str]) -> AnyTable:
        """The table with those of the columns that it lacks added, without values, as a source's that has them not."""

    @property
    def files(self) -> str:
        """The names of the files, for messages: ``train.csv, val.csv``."""
        return ", ".join(part.name for part in self.parts)

    def resolve_paths(self, column: str) -> pl.Series:
        """A column of paths, the relative ones from the folder of the file that names them.

        Example:
            >>> frame = pl.DataFrame({"photo": ["7.png", "/all/8.png", None]})
            >>> table = Table(frame, (Part("photos/list.csv", 0, 3, lines=True, folder="photos"),))
            >>> table.resolve_paths("photo").to_list()
            ['photos/7.png', '/all/8.png', None]
        """
        cells = self.values(column)
        if cells.dtype != pl.String or not any(part.folder for part in self.parts):
            return cells
        paths: list[str | None] = []
        for part in self.parts:
            own = cells[max(part.first, 0) : max(part.first + part.rows, 0)]
            paths += [None if cell is None else str(Path(part.folder) / expanded(cell)) for cell in own]
        return pl.Series(column, paths, pl.String)

    def where(self, column: str, row: int) -> str:
        """The place of a cell, for messages.

        Args:
            column: The column's name.
            row: Index in the table, from 0.

        Returns:
            File, column and data row (from 1 within its file), and the line of the file where that is known.

        Example:
            >>> table = Table(pl.DataFrame({"age": ["3", "4"]}), (Part("people.csv", 0, 2, lines=True),))
            >>> table.where("age", 1)
            "people.csv, column 'age', row 2 (line 3)"
        """
        row = self._row_of_files(row)
        part = self._part(row)
        return f"{part.name}, column '{part.renamed.get(column, column)}', {self._number(part, row)}"

    def row(self, row: int) -> str:
        """The place of a row (index from 0), for messages.

        Example:
            >>> table = Table(pl.DataFrame({"age": ["3", "4"]}), (Part("people.csv", 0, 2, lines=True),))
            >>> table.row(1)
            'people.csv row 2 (line 3)'
        """
        row = self._row_of_files(row)
        part = self._part(row)
        return f"{part.name} {self._number(part, row)}"

    def _row_of_files(self, row: int) -> int:
        """Which of the rows of ``parts`` a row of the table is."""
        return row

    def _part(self, row: int) -> Part:
        return next(p for p in reversed(self.parts) if p.first <= row)

    @staticmethod
    def _number(part: Part, row: int) -> str:
        number = row - part.first + 1
        place = f"line {number + part.header}" if part.lines else part.places[number - 1] if part.places else ""
        return f"row {number} ({place})" if place else f"row {number}"

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, in the order of their rows; one that is empty if there is one source."""
        return tuple(dict.fromkeys(part.source for part in self.parts))

    def source_of_rows(self) -> np.ndarray:
        """(N,) int64: the position in ``sources`` of each row's source."""
        codes = [self.sources.index(part.source) for part in self.parts]
        return np.repeat(codes, self._rows_here()).astype(np.int64)

    def _rows_here(self) -> list[int]:
        """How many rows of each part the table holds: it may begin and end within one."""
        return [max(min(part.first + part.rows, self.height) - max(part.first, 0), 0) for part in self.parts]

    def lacking(self, column: str) -> tuple[str, ...]:
        """The sources that do not have a column."""
        return tuple(dict.fromkeys(part.source for part in self.parts if not part.has(column)))

    @functools.cached_property
    def not_taken(self) -> tuple[np.ndarray, ...]:
        """For each of ``feedback`` (N,) bool: the rows of what was not taken."""
        found = [np.zeros(self.height, bool) for _ in self.feedback]
        for feedback, others in zip(self.feedback, found, strict=True):
            own = slice(feedback.first, feedback.first + feedback.rows)
            others[own] = (self.values(feedback.label)[own] == 0).to_numpy()
        return tuple(found)

    def column(self, name: str) -> Column:
        """One column with the places of its cells.

        Raises:
            DataError: There is no such column.
        """
        if name not in self.schema:
            raise DataError(Problem(self.files, f"no column '{name}'", self._way_out(name)))
        own = None
        if self.lacking(name):
            own = np.repeat([part.has(name) for part in self.parts], self._rows_here())
        return Column(name, self.values(name), functools.partial(self.where, name), own)

    def require(self, names: Iterable[str], who: Mapping[str, str]) -> None:
        """Checks that columns exist.

        Args:
            names: The columns that are needed.
            who: For each of them the configuration key that names it.

        Raises:
            DataError: Lists every absent column, each with the nearest name.

        Example:
            >>> table = Table(pl.DataFrame({"income": ["3"]}), (Part("people.csv", 0, 1, lines=True),))
            >>> table.require(["incme"], {"incme": "tasks.income.target"})
            Traceback (most recent call last):
            mtl_cli.errors.DataError: tasks.income.target: no column 'incme' in people.csv. Did you mean 'income'?
        """
        schema = self.schema
        absent = [name for name in dict.fromkeys(names) if name not in schema]
        if absent:
            named = {new: old for part in self.parts for new, old in part.renamed.items()}
            own = {name: named.get(name, name) for name in absent}  # as the files would call it
            raise DataError(
                [Problem(who[n], f"no column '{own[n]}' in {self.files}", self._way_out(own[n])) for n in absent]
            )

    def _way_out(self, name: str) -> str:
        # Numbers as names mean that the first row of data was taken for the header.
        columns = list(self.schema)
        numbers = [c for c in columns if c.lstrip("+-").replace(".", "", 1).isdigit()]
        if columns and 2 * len(numbers) >= len(columns) and any(p.lines for p in self.parts):
            shown = ", ".join(columns[:5])
            hint = "Write the column names there, or set data.header=false."
            return f"The first line was read as the header: {shown}. {hint}"
        return did_you_mean(name, columns)


@dataclass(frozen=True, eq=False)
class Table(AnyTable):
    """N rows in memory.

    Args, besides the attributes of ``AnyTable``:
        frame: N rows. Columns of text files are text; a missing cell is null.
        missing: Per column that has missing cells, how many from which marker (``empty``, ``NA``, ``null``, ``NaN``).
        as_written: The cells of some columns as they stand in the file, for whoever writes them again.
        picked: (N,) which rows of ``parts`` the rows are, if they are not all from one on.
    """

    frame: pl.DataFrame
    parts: tuple[Part, ...]
    given_split: pl.Series | None = None
    fingerprint: str = ""
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    drawn: tuple[Drawn, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    as_written: Mapping[str, pl.Series] = field(default_factory=dict)
    picked: np.ndarray | None = None

    @property
    def height(self) -> int:
        return self.frame.height

    @functools.cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        return self.frame.schema

    def values(self, name: str) -> pl.Series:
        return self.frame[name]

    def pieces(self, name: str) -> Iterator[tuple[int, Column]]:
        yield 0, self.column(name)

    def head(self, name: str, rows: int) -> pl.Series:
        return self.frame[name].head(rows)

    def some(self, rows: np.ndarray) -> Table:
        """Some of the rows (sorted) of one file, as a table by itself."""
        return replace(self, frame=self.frame[rows], picked=rows)

    def _row_of_files(self, row: int) -> int:
        return row if self.picked is None else int(self.picked[row])

    def facts(self, name: str) -> Facts:
        series = self.frame[name]
        first = series.drop_nulls().head(1)
        return Facts(series.null_count(), self.missing.get(name, {}), first[0] if len(first) else None)

    def without(self, columns: Iterable[str]) -> Table:
        """The table without those of the columns that it has."""
        dropped = set(columns) & self.schema.keys()
        return replace(self, frame=self.frame.drop(dropped)) if dropped else self

    def with_empty(self, columns: Iterable[str]) -> Table:
        absent = [name for name in columns if name not in self.schema]
        if not absent:
            return self
        frame = self.frame.with_columns(pl.lit(None).alias(name) for name in absent)
        own = frozenset(self.schema)
        parts = tuple(replace(p, columns=own if p.columns is None else p.columns - set(absent)) for p in self.parts)
        return replace(self, frame=frame, parts=parts)
