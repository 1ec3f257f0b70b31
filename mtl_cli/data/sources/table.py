"""Tables in files: delimited text, Parquet, Arrow and JSON Lines."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from mtl_cli.data.collecting import collecting
from mtl_cli.data.number_text import convert_numbers
from mtl_cli.data.sources.base import Source
from mtl_cli.data.table import Part, Table
from mtl_cli.data.text_file import parse_text, parse_text_blocks
from mtl_cli.errors import ConfigError, DataError, Problem, did_you_mean
from mtl_cli.registry import SOURCES

_TEXT = {".csv": ",", ".tsv": "\t", ".txt": ","}  # suffix -> separator unless `sep` is given
_BINARY: dict[str, Callable[[io.BytesIO], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".pq": pl.read_parquet,
    ".arrow": pl.read_ipc,
    ".feather": pl.read_ipc,
    ".jsonl": lambda f: pl.read_ndjson(f, infer_schema_length=None),
    ".ndjson": lambda f: pl.read_ndjson(f, infer_schema_length=None),
}


@dataclass(frozen=True)
class _File:
    name: str
    split: str | None
    frame: pl.DataFrame
    lines: bool


@SOURCES.register("table")
class TableSource(Source):
    """One table in one or more files with the same columns.

    Formats, by suffix: ``.csv``, ``.tsv``, ``.txt`` (each also ``.gz``), ``.parquet``, ``.pq``, ``.arrow``,
    ``.feather``, ``.jsonl``, ``.ndjson``. Cells of text files stay the text they are; what a column means is decided
    later, over the whole column. Give either ``path``, or ``train`` and ``val`` and/or ``test``.

    Args:
        path: One file or several, relative to the current folder; the split comes from ``data.split``.
        train: Files whose rows are the training rows.
        val: Files whose rows are the validation rows.
        test: Files whose rows are the test rows.
        missing: Texts that mean "no value" in text columns, whole cells only; null means ``[""]``. Nothing else is
            taken as missing, except the nulls and NaNs of binary files.
        sep: The character between cells of text files; null means tab for ``.tsv`` and comma otherwise.
        decimal: The decimal sign. With a comma, columns in which at least half of the cells are such numbers are
            rewritten with a point.
        thousands: The sign between groups of three digits (``.`` in ``1.299,99``); null means that there is none.
        encoding: Text encoding of text files.

    Raises:
        ConfigError: The options contradict each other.
    """

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
    ) -> None:
        given = {"path": path, "train": train, "val": val, "test": test}
        files = {key: [value] if isinstance(value, str) else value for key, value in given.items() if value is not None}
        self._sep = {"\\t": "\t", "tab": "\t"}.get(sep, sep) if sep is not None else None  # shells cannot type a tab
        _check_options(files, self._sep, decimal, thousands)
        self._files = [(name, None if key == "path" else key) for key, names in files.items() for name in names]
        self._missing = [""] if missing is None else list(missing)
        self._decimal, self._thousands, self._encoding = decimal, thousands, encoding

    def read(self) -> Table:
        """Reads all files, in the order train, val, test and as listed.

        Raises:
            DataError: Absent, damaged or unequal files; every file's problems are listed.
        """
        files: list[_File] = []
        problems: list[Problem] = []
        hasher = hashlib.sha256()
        for name, split in self._files:
            with collecting(problems):
                files.append(self._read_file(name, split, hasher.update))
        problems = problems or [*_column_differences(files), *_empty_splits(files)]
        if problems:
            raise DataError(problems)
        table = Table(_stack(files), _parts(files), _given_split(files), hasher.hexdigest())
        return self._interpret(table, (), None)

    def chunks(self, rows: int, *, verbatim: Collection[str] = (), converted: Collection[str] = ()) -> Iterator[Table]:
        """Reads text and Parquet files piece by piece, other formats whole."""
        for name, _ in self._files:
            first = 0
            for frame, lines in _regrouped(self._pieces(name, rows), rows):
                table = Table(frame, (Part(name, -first, first + frame.height, lines),))
                yield self._interpret(table, verbatim, converted)
                first += frame.height

    def _interpret(self, table: Table, verbatim: Collection[str], converted: Collection[str] | None) -> Table:
        """What the cells mean: which are missing, and other people's numbers."""
        as_they_are = [table.frame[name] for name in verbatim if name in table.frame.columns]
        frame, missing = _mark_missing(table.frame, self._missing)
        table = replace(table, frame=frame.with_columns(as_they_are), missing=missing)
        if (self._decimal, self._thousands) == (".", None):
            return table
        frame, names = convert_numbers(table, self._decimal, self._thousands, converted)
        return replace(table, frame=frame.with_columns(as_they_are), converted=names)

    def _pieces(self, name: str, rows: int) -> Iterator[tuple[pl.DataFrame, bool]]:
        path = existing_file(name)
        suffix, zipped = _format(path, name)
        if suffix in _TEXT:
            try:
                with gzip.open(path) if zipped else path.open("rb") as file:
                    yield from parse_text_blocks(file, name, self._sep or _TEXT[suffix], self._encoding)  # type: ignore[arg-type]
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise _not_unzipped(name, error) from None
        elif suffix in (".parquet", ".pq") and path.stat().st_size:
            with _readable(name, suffix):
                whole = pl.scan_parquet(path, glob=False)
                height = whole.select(pl.len()).collect().item()
                for first in range(0, max(height, 1), rows):
                    yield _plain(whole.slice(first, rows).collect()), False
        else:
            read = self._read_file(name, None, lambda _: None)
            yield read.frame, read.lines

    def _read_file(self, name: str, split: str | None, fingerprint: Callable[[bytes], None]) -> _File:
        path = existing_file(name)
        raw = path.read_bytes()
        fingerprint(raw)
        suffix, zipped = _format(path, name)
        if suffix in _TEXT:
            text = _unzip(raw, name) if zipped else raw
            frame, lines = parse_text(text, name, self._sep or _TEXT[suffix], self._encoding)
            return _File(name, split, frame, lines)
        if not raw:
            raise DataError(Problem(name, "is an empty file"))
        with _readable(name, suffix):
            return _File(name, split, _plain(_BINARY[suffix](io.BytesIO(raw))), lines=False)


def _check_options(files: dict[str, list[str]], sep: str | None, decimal: str, thousands: str | None) -> None:
    problems = [Problem(f"data.{key}", "is an empty list", "Name a file.") for key, names in files.items() if not names]
    if not files:
        problems.append(
            Problem("data.path", "must be given, got null", "Write data.path=FILE, or data.train and data.val.")
        )
    elif "path" in files and len(files) > 1:
        others = " and ".join(f"data.{key}" for key in files if key != "path")
        problems.append(Problem("data.path", f"cannot be given together with {others}", "Keep one of the two forms."))
    elif "path" not in files and "train" not in files:
        problems.append(
            Problem("data.train", f"must be given with data.{next(iter(files))}, got null", "Write data.train=FILE.")
        )
    if sep is not None and (len(sep) != 1 or not sep.isascii() or sep in '"\r\n'):
        problems.append(Problem("data.sep", f"must be one character, not a quote or line break, got {sep!r}"))
    if decimal == thousands:
        problems.append(Problem("data.thousands", f"must differ from data.decimal, got '{thousands}'"))
    if problems:
        raise ConfigError(problems)


def existing_file(name: str) -> Path:
    """The file of that name.

    Raises:
        DataError: There is none; says where it was looked for, and the nearest name there.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    where = path.absolute()
    if path.is_dir():
        raise DataError(Problem(name, f"is a folder, looked at {where}", "Name the files in it."))
    if not where.parent.is_dir():
        raise DataError(Problem(name, f"no such file, looked for {where}", f"There is no folder {where.parent}."))
    hint = did_you_mean(where.name, (p.name for p in where.parent.iterdir() if p.is_file()))
    hint = hint if hint.startswith("Did") else ""
    raise DataError(Problem(name, f"no such file, looked for {where}", hint))


def _unzip(raw: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise _not_unzipped(name, error) from None


def _not_unzipped(name: str, error: Exception) -> DataError:
    return DataError(Problem(name, f"cannot be unzipped ({error})", "Is the file complete?"))


def _format(path: Path, name: str) -> tuple[str, bool]:
    """The suffix that says how to read a file, and whether it is zipped.

    Raises:
        DataError: Nothing here reads such files.
    """
    suffixes = [s.lower() for s in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    suffix = next(iter(suffixes[-2:-1] if zipped else suffixes[-1:]), "")
    if suffix not in _TEXT and (suffix not in _BINARY or zipped):
        known = ", ".join([*_TEXT, *(f"{s}.gz" for s in _TEXT), *_BINARY])
        raise DataError(Problem(name, f"unknown file format '{''.join(suffixes[-1:])}'", f"Known: {known}."))
    return suffix, zipped


@contextmanager
def _readable(name: str, suffix: str) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(Problem(name, f"cannot be read as {suffix} ({reason})", "Is the file complete?")) from None


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


def _empty_splits(files: list[_File]) -> list[Problem]:
    """A file named for a split must hold rows; a file to predict may be empty."""
    empty = [file for file in files if file.split is not None and file.frame.height == 0]
    return [Problem(file.name, "holds no rows", f"Leave data.{file.split} out, or give it rows.") for file in empty]


def _column_differences(files: list[_File]) -> list[Problem]:
    first = files[0]
    problems = []
    for file in files[1:]:
        lacking = [c for c in first.frame.columns if c not in file.frame.columns]
        extra = [c for c in file.frame.columns if c not in first.frame.columns]
        found = (("lacks", lacking), ("has", extra))
        parts = [f"{word} {', '.join(map(repr, names))}" for word, names in found if names]
        if parts:
            what = f"must have the columns of {first.name}, but {' and '.join(parts)}"
            problems.append(Problem(file.name, what, "Give every file the same columns."))
            continue
        for column, dtype in first.frame.schema.items():
            other = file.frame.schema[column]
            if other != dtype and not _join_safely(dtype, other):
                what = f"has type {other}, but {dtype} in {first.name}"
                problems.append(Problem(f"{file.name}, column '{column}'", what, "Store the column in one way."))
    return problems


def _join_safely(one: pl.DataType, other: pl.DataType) -> bool:
    """Whether a common type keeps the meaning: a column without values fits all, numbers fit numbers."""
    return pl.Null in (one, other) or (one.is_numeric() and other.is_numeric())


def _stack(files: list[_File]) -> pl.DataFrame:
    if len(files) == 1:
        return files[0].frame
    columns = files[0].frame.columns
    return pl.concat([file.frame.select(columns) for file in files], how="vertical_relaxed")


def _mark_missing(frame: pl.DataFrame, markers: list[str]) -> tuple[pl.DataFrame, dict[str, dict[str, int]]]:
    """Makes marked cells null and counts them per column and marker."""
    counts: dict[str, dict[str, int]] = {}
    changed = []
    for series in frame.iter_columns():
        found = {"null": series.null_count()}
        if series.dtype == pl.String and markers:
            marked = series.is_in(markers).fill_null(False)
            for value, count in sorted(series.filter(marked).value_counts().rows()):
                found[value or "empty"] = count
            changed.append(pl.select(pl.when(~marked).then(series).alias(series.name)).to_series())
        elif series.dtype.is_float():
            found["NaN"] = int(series.is_nan().sum())
            changed.append(series.fill_nan(None))
        found = {marker: count for marker, count in found.items() if count}
        if found:
            counts[series.name] = found
    return frame.with_columns(changed), counts


def _parts(files: list[_File]) -> tuple[Part, ...]:
    parts, first = [], 0
    for file in files:
        parts.append(Part(file.name, first, file.frame.height, file.lines))
        first += file.frame.height
    return tuple(parts)


def _given_split(files: list[_File]) -> pl.Series | None:
    if files[0].split is None:
        return None
    return pl.Series("split", [s for f in files for s in [f.split] * f.frame.height], dtype=pl.String)
