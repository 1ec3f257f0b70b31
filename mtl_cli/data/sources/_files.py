"""What all sources of files do: find them, check that they fit together, and put them into one table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import polars as pl

from mtl_cli.data.collecting import collecting
from mtl_cli.data.column_types import lost_digits
from mtl_cli.data.memory import free_memory
from mtl_cli.data.table import Part, Table
from mtl_cli.errors import ConfigError, DataError, Problem, nearest
from mtl_cli.paths import expanded

Fingerprint = Callable[[bytes], None]
_UNZIPPED_AT_ONCE = 1 << 24  # bytes


@dataclass(frozen=True)
class File:
    """The rows of one file, and what ``Part`` has to know of it.

    Args:
        name: The file, or folder of files, as the user gave it.
        split: The split that it was given for.
        frame: Its rows.
        lines: Whether each row stands on a line of its own.
        header: Whether a line with the names of the columns stands above them.
        folder: Where relative paths in it start from; None: the folder that it is in.
        places: Of each row where it stands.
    """

    name: str
    split: str | None
    frame: pl.DataFrame
    lines: bool
    header: bool = True
    folder: str | None = None
    places: Sequence[str] = ()


def check_paths(
    given: Mapping[str, str | list[str] | None], others: Sequence[Problem] = ()
) -> list[tuple[str, str | None]]:
    """The files of the options ``path``, ``train``, ``val`` and ``test``, each with its split (None for ``path``).

    Args:
        given: The options.
        others: What is wrong with other options of the source; raised with the problems found here.

    Raises:
        ConfigError: The options contradict each other.
    """
    files = {key: [value] if isinstance(value, str) else value for key, value in given.items() if value is not None}
    empty = {key: "list" if not names else "name" for key, names in files.items() if not names or "" in names}
    problems = [Problem(f"data.{key}", f"is an empty {what}", "Name a file.") for key, what in empty.items()]
    if not files:
        problems.append(
            Problem("data.path", "must be given, got null", "Write data.path=FILE, or data.train and data.val.")
        )
    elif "path" in files and len(files) > 1:
        rest = " and ".join(f"data.{key}" for key in files if key != "path")
        problems.append(Problem("data.path", f"cannot be given together with {rest}", "Keep one of the two forms."))
    elif "path" not in files and "train" not in files:
        problems.append(
            Problem("data.train", f"must be given with data.{next(iter(files))}, got null", "Write data.train=FILE.")
        )
    if problems or others:
        raise ConfigError([*problems, *others])
    return [(name, None if key == "path" else key) for key, names in files.items() for name in names]


def existing_file(name: str) -> Path:
    """The path of a file that is there.

    Raises:
        DataError: It is not; says where it was looked for, and the nearest name there.
    """
    path = expanded(name)
    if path.is_file():
        return path
    where = path.absolute()
    if path.is_dir():
        raise DataError(Problem(name, f"is a folder, looked at {where}", "Name the files in it."))
    if not where.parent.is_dir():
        raise DataError(Problem(name, f"no such file, looked for {where}", f"There is no folder {where.parent}."))
    there = [p.name for p in where.parent.iterdir() if p.is_file()]
    whole = [other for other in there if other.startswith(f"{where.name}.")]  # the suffix was left out
    hint = nearest(where.name, there) if not whole else f"Did you mean '{min(whole)}'?"
    raise DataError(Problem(name, f"no such file, looked for {where}", hint))


def existing_folder(name: str) -> Path:
    """The path of a folder that is there.

    Raises:
        DataError: It is not; says where it was looked for, and the nearest name there.
    """
    path = expanded(name)
    if path.is_dir():
        return path
    where = path.absolute()
    if path.is_file():
        raise DataError(Problem(name, f"is a file, looked at {where}", "Name the folder that it is in."))
    there = [p.name for p in where.parent.iterdir() if p.is_dir()] if where.parent.is_dir() else []
    raise DataError(Problem(name, f"no such folder, looked for {where}", nearest(where.name, there)))


def folder_of(name: str) -> str:
    """Where relative paths in a file start from: its own folder; ``""`` for the current one."""
    folder = expanded(name).parent
    return "" if folder == Path() else str(folder)


def refuse_too_large(name: str, unpacked: int) -> None:
    """Refuses a packed file whose content would not fit into memory: a few kilobytes can unpack to any size.

    Raises:
        DataError: It would not.
    """
    free = free_memory()
    if free is not None and unpacked > free:
        what = f"unpacks to more than the memory that is free ({free / 1e9:.1f} GB)"
        raise DataError(Problem(name, what, "Is it what you think it is? If so, split it into several files."))


def read_unzipped(file: IO[bytes], name: str) -> bytes:
    """All that a zipped file holds.

    Raises:
        DataError: It would not fit into memory.
    """
    parts, size = [], 0
    while part := file.read(_UNZIPPED_AT_ONCE):
        parts.append(part)
        size += len(part)
        refuse_too_large(name, size)
    return b"".join(parts)


def read_files(
    given: Sequence[tuple[str, str | None]], read: Callable[[str, str | None, Fingerprint], list[File]]
) -> Table:
    """One table from all files of a source.

    Args:
        given: What ``check_paths`` gave.
        read: Rows of the file of a name and split (of each split in it, if it holds several); it calls its last
            argument with the bytes that the file's identity is made of.

    Raises:
        DataError: A file cannot be read, and so for every file; or the columns differ, or all files that were given
            for a split are empty.
    """
    files: list[File] = []
    problems: list[Problem] = []
    hasher = hashlib.sha256()
    for name, split in given:
        with collecting(problems):
            files += read(name, split, hasher.update)
    problems = problems or [
        *column_differences(files),
        *empty_splits([(file.name, file.split, file.frame.height) for file in files]),
    ]
    if problems:
        raise DataError(problems)
    return Table(stack_frames(files), _parts(files), _given_split(files), hasher.hexdigest())


def empty_splits(files: Sequence[tuple[str, str | None, int]]) -> list[Problem]:
    """A split that files are named for must have rows; one of several files, or a file to predict, may be empty.

    Args:
        files: Name, split and number of rows of each.

    Example:
        >>> empty_splits([("a.csv", "train", 0), ("b.csv", "train", 5)])
        []
        >>> print(*empty_splits([("a.csv", "train", 5), ("b.csv", "val", 0)]))
        b.csv: holds no rows. Leave data.val out, or give it rows.
    """
    filled = {split for _, split, rows in files if rows}
    return [
        Problem(name, "holds no rows", f"Leave data.{split} out, or give it rows.")
        for name, split, _ in files
        if split is not None and split not in filled
    ]


def column_differences(files: list[File]) -> list[Problem]:
    """Columns that a file lacks or has more than the first one, or stores in another way."""
    first, wanted = files[0], files[0].frame.schema
    problems = []
    for file in files[1:]:
        here = file.frame.schema
        lacking = [c for c in wanted if c not in here]
        extra = [c for c in here if c not in wanted]
        found = (("lacks", lacking), ("has", extra))
        parts = [f"{word} {', '.join(map(repr, names))}" for word, names in found if names]
        if parts:
            what = f"must have the columns of {first.name}, but {' and '.join(parts)}"
            problems.append(Problem(file.name, what, "Give every file the same columns."))
            continue
        for column, dtype in wanted.items():
            other = here[column]
            if other != dtype and not _join_safely(dtype, other):
                what = f"has type {other}, but {dtype} in {first.name}"
                problems.append(Problem(f"{file.name}, column '{column}'", what, "Store the column in one way."))
    return problems or [
        problem
        for column in wanted
        for problem in lost_digits(column, [(file.name, file.frame[column]) for file in files])
    ]


def _join_safely(one: pl.DataType, other: pl.DataType) -> bool:
    """Whether a common type keeps the meaning: a column without values fits all, numbers fit numbers."""
    return pl.Null in (one, other) or (one.is_numeric() and other.is_numeric())


def stack_frames(files: list[File]) -> pl.DataFrame:
    """The rows of all files, in types that keep what each of them holds."""
    if len(files) == 1:
        return files[0].frame
    columns = files[0].frame.columns
    return pl.concat([file.frame.select(columns) for file in files], how="vertical_relaxed")


def _parts(files: list[File]) -> tuple[Part, ...]:
    parts, first = [], 0
    for file in files:
        folder = folder_of(file.name) if file.folder is None else file.folder
        rows = file.frame.height
        parts.append(Part(file.name, first, rows, file.lines, header=file.header, folder=folder, places=file.places))
        first += file.frame.height
    return tuple(parts)


def _given_split(files: list[File]) -> pl.Series | None:
    if files[0].split is None:
        return None
    return pl.concat([pl.repeat(f.split, f.frame.height, dtype=pl.String, eager=True) for f in files]).alias("split")
