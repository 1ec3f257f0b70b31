"""Tables in files: delimited text, Parquet, Arrow and JSON Lines."""

from __future__ import annotations

import codecs
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from mtl_cli.data.collecting import collecting
from mtl_cli.data.column_types import EXACT, lost_digits
from mtl_cli.data.markers import Markers
from mtl_cli.data.number_text import convert_numbers
from mtl_cli.data.sources._files import (
    File,
    Fingerprint,
    check_paths,
    column_differences,
    empty_splits,
    existing_file,
    folder_of,
    read_files,
    read_unzipped,
    stack_frames,
)
from mtl_cli.data.sources._parquet import row_groups
from mtl_cli.data.sources._unzip import unzipped
from mtl_cli.data.sources.base import Source
from mtl_cli.data.stored import StoredFile, StoredTable, file_state
from mtl_cli.data.table import Part, Table
from mtl_cli.data.text_file import parse_text, parse_text_blocks
from mtl_cli.errors import DataError, Problem, shown
from mtl_cli.registry import SOURCES


def _read_arrow(file: io.BytesIO) -> pl.DataFrame:
    """A file of the Arrow format, or the stream that other tools write under the same name."""
    return (pl.read_ipc if file.getvalue()[:6] == b"ARROW1" else pl.read_ipc_stream)(file)


def _read_json_lines(file: io.BytesIO) -> pl.DataFrame:
    marked = file.getvalue().startswith(codecs.BOM_UTF8)
    lines = io.BytesIO(file.getvalue()[len(codecs.BOM_UTF8) :]) if marked else file
    return pl.read_ndjson(lines, infer_schema_length=None)


_READS = 8  # of a row group of Parquet, at most: each may decode all of it, however few rows are wanted
_TEXT = {".csv": ",", ".tsv": "\t", ".txt": ","}  # suffix -> separator unless `sep` is given
_BINARY: dict[str, Callable[[io.BytesIO], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".pq": pl.read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class _Signs:
    """How cells are read, see ``TableSource``."""

    missing: list[str]
    decimal: str
    thousands: str | None

    @functools.cached_property
    def markers(self) -> Markers:
        """What means "no value" in a cell."""
        return Markers(self.missing, self.decimal, self.thousands)

    def read(self, table: Table, verbatim: Collection[str] = (), converted: Collection[str] | None = None) -> Table:
        """What the cells mean: which are missing, and other people's numbers; see ``Source.chunks``."""
        as_written = {name: table.frame[name] for name in verbatim if name in table.frame.columns}
        frame, counts = self.markers.mark(table.frame)
        table = replace(table, frame=frame, missing=counts, as_written=as_written)
        if (self.decimal, self.thousands) == (".", None):
            return table
        frame, names = convert_numbers(table, self.decimal, self.thousands, converted)
        return replace(table, frame=frame, converted=names)


@SOURCES.register("table")
class TableSource(Source):
    """One table in one or more files with the same columns.

    Formats, by suffix: ``.csv``, ``.tsv``, ``.txt`` (each also ``.gz`` and ``.zst``), ``.parquet``, ``.pq``,
    ``.arrow``, ``.feather``, ``.jsonl``, ``.ndjson``. Cells of text files stay the text they are; what a column means
    is decided later, over the whole column. Give either ``path``, or ``train`` and ``val`` and/or ``test``.

    Args:
        path: One file or several, relative to the current folder; the split comes from ``data.split``.
        train: Files whose rows are the training rows.
        val: Files whose rows are the validation rows.
        test: Files whose rows are the test rows.
        missing: Texts that mean "no value", whole cells only (no elements of lists); null means ``[""]``. A number
            among them is meant in any spelling, and in columns of numbers too; a day or moment, in columns of dates.
            Nothing else is taken as missing, except the nulls and NaNs of binary files.
        sep: The character between cells of text files; null means tab for ``.tsv`` and comma otherwise.
        decimal: The decimal sign. With a comma, columns in which at least half of the cells are such numbers are
            rewritten with a point.
        thousands: The sign between groups of three digits (``.`` in ``1.299,99``); null means that there is none.
        encoding: Text encoding of text files.
        header: Whether the first line of text files names the columns.
        columns: Names of the columns of text files without a header.

    Raises:
        ConfigError: The options contradict each other.
    """

    #: Other ways to write a separator: shells cannot type a tab.
    spelt: ClassVar[Mapping[str, str]] = {"\\t": "\t", "tab": "\t"}

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        missing: list[str] | None = None,
        sep: str | None = None,
        decimal: Literal[".", ","] = ".",
        thousands: Literal[".", ",", " ", "'"] | None = None,
        encoding: str = "utf-8",
        header: bool = True,
        columns: list[str] | None = None,
    ) -> None:
        given = {"path": path, "train": train, "val": val, "test": test}
        self._sep = None if sep is None else self.spelt.get(sep, sep)
        wrong = [*_text_problems(self._sep, decimal, thousands), *_column_problems(header, columns)]
        self._files = check_paths(given, wrong)
        self._signs = _Signs([""] if missing is None else list(missing), decimal, thousands)
        self._encoding, self._columns = encoding, columns

    def read(self) -> Table:
        """Reads all files, in the order train, val, test and as listed.

        Raises:
            DataError: Absent, damaged or unequal files; every file's problems are listed.
        """
        return self._signs.read(read_files(self._files, lambda *file: [self._read_file(*file)]))

    def stored(self) -> StoredTable:
        """The rows, left in their files, which are Parquet files.

        Raises:
            DataError: Absent, damaged or unequal files; every file's problems are listed.
        """
        files: list[StoredFile] = []
        empty: list[File] = []
        problems: list[Problem] = []
        for name, split in self._files:
            with collecting(problems):
                path = existing_file(name)
                state = file_state(path)
                suffix, _ = _format(path, name)
                if not state[0]:
                    raise DataError(Problem(name, "is an empty file"))
                with _readable(name, suffix):
                    files.append(StoredFile(name, path, split, row_groups(path), state))
                    empty.append(File(name, split, _plain(pl.scan_parquet(path, glob=False).head(0).collect()), False))
        if problems:
            raise DataError(problems)
        problems = column_differences(empty) or _lost_digits(files, empty)
        problems += empty_splits([(file.name, file.split, file.rows) for file in files])
        if problems:
            raise DataError(problems)
        starts = [0, *accumulate(file.rows for file in files)]
        parts = tuple(
            Part(file.name, first, file.rows, lines=False, folder=folder_of(file.name))
            for file, first in zip(files, starts, strict=False)
        )
        schema = stack_frames(empty).schema
        return StoredTable(files, parts, schema, self._signs.markers, functools.partial(_readable, suffix=".parquet"))

    def chunks(self, rows: int, *, verbatim: Collection[str] = (), converted: Collection[str] = ()) -> Iterator[Table]:
        """Reads text and Parquet files piece by piece, other formats whole."""
        for name, _ in self._files:
            first = 0
            for frame, lines in _regrouped(self._pieces(name, rows), rows):
                header, folder = self._columns is None, folder_of(name)
                part = Part(name, -first, first + frame.height, lines, header=header, folder=folder)
                yield self._signs.read(Table(frame, (part,)), verbatim, converted)
                first += frame.height

    def _pieces(self, name: str, rows: int) -> Iterator[tuple[pl.DataFrame, bool]]:
        path = existing_file(name)
        suffix, zipped = _format(path, name)
        if suffix in _TEXT:
            sep = self._sep or _TEXT[suffix]
            with path.open("rb") as raw, unzipped(raw, zipped, name) as file:
                yield from parse_text_blocks(file, name, sep, self._encoding, columns=self._columns)
        elif suffix in (".parquet", ".pq") and path.stat().st_size:
            with _readable(name, suffix):
                whole, groups = pl.scan_parquet(path, glob=False), row_groups(path)
                at_once = max(rows, -(-max(groups, default=0) // _READS))
                for first in range(0, max(sum(groups), 1), at_once):
                    yield _plain(whole.slice(first, at_once).collect()), False
        else:
            read = self._read_file(name, None, lambda _: None)
            yield read.frame, read.lines

    def _read_file(self, name: str, split: str | None, fingerprint: Fingerprint) -> File:
        path = existing_file(name)
        raw = path.read_bytes()
        fingerprint(raw)
        suffix, zipped = _format(path, name)
        if suffix in _TEXT:
            with unzipped(io.BytesIO(raw), zipped, name) as file:
                text = read_unzipped(file, name) if zipped else raw
            sep = self._sep or _TEXT[suffix]
            frame, lines = parse_text(text, name, sep, self._encoding, columns=self._columns)
            return File(name, split, frame, lines, header=self._columns is None)
        if not raw:
            raise DataError(Problem(name, "is an empty file"))
        with _readable(name, suffix):
            frame = _plain(_BINARY[suffix](io.BytesIO(raw)))
            if suffix in _JSON_LINES:
                _refuse_doubled_keys(name, raw, frame.columns)
        return File(name, split, frame, lines=False)


def _lost_digits(files: Sequence[StoredFile], like: Sequence[File]) -> list[Problem]:
    """Columns that hold large whole numbers in one file and fractions in another; only these are read for it."""
    problems = []
    schemas = [file.frame.schema for file in like]
    for column, dtype in schemas[0].items():
        if not dtype.is_numeric() or len({schema[column].is_float() for schema in schemas}) == 1:
            continue
        large = pl.col(column).cast(pl.Float64).abs() >= EXACT
        found = [
            (file.name, pl.scan_parquet(file.path, glob=False).select(column).filter(large).head(1).collect()[column])
            for file in files
        ]
        problems += lost_digits(column, found)
    return problems


class FrameSource(Source):
    """A frame in memory, whose cells mean what those of a table's files do.

    Args:
        frame: The rows.
        missing: As for ``TableSource``.
        decimal: As for ``TableSource``.
        thousands: As for ``TableSource``.
    """

    #: The options of a table source that its rows are read by.
    signs: ClassVar[tuple[str, ...]] = ("missing", "decimal", "thousands")

    def __init__(
        self, frame: pl.DataFrame, *, missing: list[str] | None = None, decimal: str = ".", thousands: str | None = None
    ) -> None:
        self._frame, self._signs = _plain(frame), _Signs([""] if missing is None else missing, decimal, thousands)

    def read(self) -> Table:
        return self._signs.read(self._some(0, self._frame.height))

    def chunks(self, rows: int, *, verbatim: Collection[str] = (), converted: Collection[str] = ()) -> Iterator[Table]:
        for first in range(0, max(self._frame.height, 1), rows):
            yield self._signs.read(self._some(first, rows), verbatim, converted)

    def _some(self, first: int, rows: int) -> Table:
        return Table(self._frame.slice(first, rows), (Part("table", -first, self._frame.height, lines=False),))


def _text_problems(sep: str | None, decimal: str, thousands: str | None) -> list[Problem]:
    problems = []
    if sep is not None and (len(sep) != 1 or not sep.isascii() or sep in '"\r\n'):
        problems.append(Problem("data.sep", f"must be one character, not a quote or line break, got {sep!r}"))
    if decimal == thousands:
        problems.append(Problem("data.thousands", f"must differ from data.decimal, got '{thousands}'"))
    return problems


def _column_problems(header: bool, columns: list[str] | None) -> list[Problem]:
    if header and columns is not None:
        hint = "Write data.header=false if the files have no header, or leave the names out."
        return [Problem("data.columns", "names the columns of files without a header", hint)]
    if not header and not columns:
        return [
            Problem("data.columns", f"must be given with data.header=false, got {shown(columns)}", "Name them all.")
        ]
    found = [
        Problem("data.columns", f"names '{name}' twice")
        for name in dict.fromkeys(columns or ())
        if (columns or []).count(name) > 1
    ]
    return found + [Problem("data.columns", "holds an empty name")] * ("" in (columns or ()))


def _format(path: Path, name: str) -> tuple[str, str]:
    """The suffix that says how to read a file, and that which says how it is zipped, if it is.

    Raises:
        DataError: Nothing here reads such files.
    """
    suffixes = [s.lower() for s in path.suffixes]
    zipped = suffixes[-1] if suffixes[-1:] in ([".gz"], [".zst"]) else ""
    suffix = next(iter(suffixes[-2:-1] if zipped else suffixes[-1:]), "")
    if suffix not in _TEXT and (suffix not in _BINARY or zipped):
        known = ", ".join([*_TEXT, *(f"{s}{z}" for z in (".gz", ".zst") for s in _TEXT), *_BINARY])
        raise DataError(Problem(name, f"unknown file format '{''.join(suffixes[-1:])}'", f"Known: {known}."))
    return suffix, zipped


@contextmanager
def _readable(name: str, suffix: str) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(Problem(name, f"cannot be read as {suffix} ({reason})", "Is the file complete?")) from None


def _refuse_doubled_keys(name: str, raw: bytes, keys: Sequence[str]) -> None:
    """Refuses lines that give a key two values: polars keeps one of them in silence.

    Raises:
        DataError: Such lines, the first five of them.
    """
    lines = pl.Series(raw.decode("utf-8-sig").split("\n"), dtype=pl.String)
    doubtful = lines.str.contains("\\u", literal=True)  # a key may be spelt in two ways
    for key in keys:
        spelt = re.escape(json.dumps(key, ensure_ascii=False))
        doubtful |= lines.str.count_matches(rf"{spelt}\s*:") > 1
    problems = []
    for place in doubtful.arg_true().to_list():
        where = f"{name}, line {place + 1}"
        problems += [Problem(where, f"has the key '{key}' twice", "Keep one.") for key in _doubled_keys(lines[place])]
        if len(problems) >= 5:
            break
    if problems:
        raise DataError(problems[:5])


def _doubled_keys(line: str) -> list[str]:
    found: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        found.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)

    json.loads(line, object_pairs_hook=look)
    return found


def _regrouped(pieces: Iterable[tuple[pl.DataFrame, bool]], rows: int) -> Iterator[tuple[pl.DataFrame, bool]]:
    """The same rows, ``rows`` at a time; one frame without rows if there are none."""
    held, alone, given = None, True, False
    for frame, lines in pieces:
        held, alone = frame if held is None else pl.concat([held, frame]), lines
        while held.height >= rows:
            yield held.head(rows), alone
            held, given = held.slice(rows), True
    if held is not None and (held.height or not given):
        yield held, alone


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Dictionary-encoded text as text: how a writer stored it says nothing about what it means."""
    return frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
