"""Rows that stay in their Parquet files: read a column at a time to decide, a stretch of rows at a time to train."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from mtl_cli.data.markers import Markers
from mtl_cli.data.table import AnyTable, Drawn, Facts, Feedback, Part, Table
from mtl_cli.errors import DataError, Problem
from mtl_cli.types import Column

_KEPT_ROWS = 1000  # the first ones
_PIECE_ROWS = 16_384  # most that are read together, where all are gone through
_PIECE_BYTES = 1 << 22  # and most that they take of a column
_LARGEST_GROUP_IN_PIECES = 8  # a larger row group is cut
_HASHED_AT_ONCE = 1 << 24  # bytes


class Stretch(NamedTuple):
    """Rows that stand one after another in one file.

    Args:
        file: Which file.
        offset: Number of its first row in the file.
        first: Number of its first row in the table.
        rows: How many.
    """

    file: int
    offset: int
    first: int
    rows: int


@dataclass(frozen=True)
class StoredFile:
    """A Parquet file.

    Args:
        name: As the user gave it.
        path: Where it is.
        split: The split that it was given for.
        groups: Rows of each row group.
        state: Size and time of the last change, to notice another one.
    """

    name: str
    path: Path
    split: str | None
    groups: Sequence[int]
    state: tuple[int, int]

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(self.groups)


class StoredTable(AnyTable):
    """N rows in Parquet files with the same columns.

    Args:
        files: The files.
        parts: The same, for messages.
        schema: The columns, and the types that all files can be brought to.
        missing: What means "no value".
        reading: Turns errors of polars for a file into one that names it.
    """

    def __init__(
        self,
        files: Sequence[StoredFile],
        parts: tuple[Part, ...],
        schema: Mapping[str, pl.DataType],
        missing: Markers,
        reading: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.parts = parts
        self.notes: tuple[str, ...] = ()
        self.converted: tuple[str, ...] = ()
        self.types: Mapping[str, str] = {}
        self.drawn: tuple[Drawn, ...] = ()
        self.feedback: tuple[Feedback, ...] = ()
        self._files, self._schema, self._missing, self._reading = list(files), dict(schema), missing, reading
        self._facts: dict[str, Facts] = {}
        self._last: tuple[str, pl.Series] | None = None  # the same column is often asked for several times in a row

    @property
    def height(self) -> int:
        return sum(file.rows for file in self._files)

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        return self._schema

    @functools.cached_property
    def given_split(self) -> pl.Series | None:  # type: ignore[override]
        if self._files[0].split is None:
            return None
        splits = [str(file.split) for file in self._files]
        codes = np.repeat(np.arange(len(splits)), [file.rows for file in self._files])
        return pl.Series("split", splits, pl.String).gather(codes)

    @functools.cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        hasher = hashlib.sha256()
        for file in self._files:
            with file.path.open("rb") as raw:
                while part := raw.read(_HASHED_AT_ONCE):
                    hasher.update(part)
        return hasher.hexdigest()

    def stretches(self, least: int, most: int | None = None) -> list[Stretch]:
        """All rows in order, cut along row groups.

        Args:
            least: Row groups next to each other are put together as long as they have no more rows than this.
            most: Larger row groups are cut into equal parts; None: they stay whole. A part costs nearly the reading of
                all that stands before it in its row group.
        """
        found: list[Stretch] = []
        first = 0
        for number, file in enumerate(self._files):
            offset = 0
            for rows in file.groups:
                last = found[-1] if found else None
                if last is not None and last.file == number and last.rows + rows <= least:
                    found[-1] = last._replace(rows=last.rows + rows)
                elif rows:
                    edges = np.linspace(0, rows, -(-rows // most) + 1 if most else 2).astype(int).tolist()
                    found += [
                        Stretch(number, offset + start, first + start, stop - start)
                        for start, stop in itertools.pairwise(edges)
                    ]
                offset, first = offset + rows, first + rows
        return found

    def read(self, stretch: Stretch, columns: Sequence[str] | None = None) -> Table:
        """Some rows as a table by itself, whose places are those of the files.

        Args:
            stretch: The rows.
            columns: Those that are needed; None: all.

        Raises:
            DataError: The file cannot be read, or is no longer what it was.
        """
        names = list(self._schema) if columns is None else list(columns)
        frame = self._scan(stretch.file, names).slice(stretch.offset, stretch.rows)
        table = self._collect(stretch.file, frame)
        if table.frame.height != stretch.rows:
            raise self._changed(stretch.file)
        parts = tuple(replace(part, first=part.first - stretch.first) for part in self.parts)
        return replace(table, parts=parts)

    def sample(self, rows: int, columns: Sequence[str] | None = None) -> Table:
        """The first rows of the first file that has some, at most so many; as ``read``."""
        first = next(iter(self.stretches(1)), Stretch(0, 0, 0, 0))
        return self.read(first._replace(rows=min(rows, first.rows)), columns)

    def values(self, name: str) -> pl.Series:
        if self._last is None or self._last[0] != name:
            tables = [self._collect(number, self._scan(number, [name])) for number in range(len(self._files))]
            self._last = name, pl.concat([table.frame[name] for table in tables]).rechunk()
            self._facts[name] = _joined(table.facts(name) for table in tables)
        return self._last[1]

    def pieces(self, name: str) -> Iterator[tuple[int, Column]]:
        for stretch in self._stretches_of(name):
            yield stretch.first, self.read(stretch, [name]).column(name)

    def head(self, name: str, rows: int) -> pl.Series:
        series = self._head[name].head(rows)
        return series if len(series) == min(rows, self.height) else self.values(name).head(rows)

    def facts(self, name: str) -> Facts:
        if name not in self._facts:
            self._facts[name] = _joined(self.read(s, [name]).facts(name) for s in self._stretches_of(name))
        return self._facts[name]

    def with_empty(self, columns: Iterable[str]) -> StoredTable:
        if any(name not in self._schema for name in columns):
            raise ValueError("only rows in memory can be given further columns")
        return self

    def bytes_per_row(self) -> float:
        """Bytes that a row takes in memory, from the first rows."""
        return self._head.estimated_size() / max(self._head.height, 1)

    def _stretches_of(self, name: str) -> list[Stretch]:
        """All rows, as many of a column at a time as make up a moderate number of bytes."""
        width = self._head[name].estimated_size() / max(self._head.height, 1)
        rows = max(int(min(_PIECE_BYTES / max(width, 1.0), _PIECE_ROWS)), 1)
        return self.stretches(rows, _LARGEST_GROUP_IN_PIECES * rows)

    @functools.cached_property
    def _head(self) -> pl.DataFrame:
        filled = next((number for number, file in enumerate(self._files) if file.rows), 0)
        return self._collect(filled, self._scan(filled, list(self._schema)).head(_KEPT_ROWS)).frame

    def _scan(self, number: int, names: Sequence[str]) -> pl.LazyFrame:
        scan = pl.scan_parquet(self._files[number].path, glob=False).select(names)
        return scan.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))

    def _collect(self, number: int, scan: pl.LazyFrame) -> Table:
        file = self._files[number]
        try:
            same = file_state(file.path) == file.state
        except OSError:
            same = False
        if not same:
            raise self._changed(number)
        with self._reading(file.name):
            frame = scan.collect()
        if len(self._files) > 1:
            frame = frame.cast({name: self._schema[name] for name in frame.columns})
        frame, missing = self._missing.mark(frame)
        return Table(frame, (self.parts[number],), missing=missing)

    def _changed(self, number: int) -> DataError:
        what = "was changed while it was being read"
        return DataError(Problem(self._files[number].name, what, "Put it back as it was, and go on with resume."))


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of the last change of a file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _joined(parts: Iterable[Facts]) -> Facts:
    """The facts of a column from those of its parts."""
    missing, markers, first = 0, dict[str, int](), None
    for part in parts:
        missing += part.missing
        for marker, count in part.markers.items():
            markers[marker] = markers.get(marker, 0) + count
        first = part.first if first is None else first
    return Facts(missing, markers, first)
