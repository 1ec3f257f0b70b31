"""NumPy archives: named arrays with one entry for each row."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from mtl_cli.data.markers import Markers
from mtl_cli.data.sources._files import (
    File,
    Fingerprint,
    check_paths,
    existing_file,
    read_files,
    refuse_too_large,
)
from mtl_cli.data.sources.base import Source
from mtl_cli.data.table import Table
from mtl_cli.errors import DataError, Problem, did_you_mean
from mtl_cli.registry import SOURCES

_SPLIT = re.compile(r"(.+)_(train|training|val|valid|validation|dev|test|testing)")
_UNREADABLE = (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError)
# Of dates: those that a column can have, by those that NumPy has.
_UNITS = {**dict.fromkeys("YMWD", "D"), **dict.fromkeys(("h", "m", "s", "ms"), "ms"), "us": "us", "ns": "ns"}
_WORDS = {"tr": "train", "va": "val", "de": "val", "te": "test"}


@SOURCES.register("npz")
class NpzSource(Source):
    """NumPy archives (.npz): each array is a column, with one entry for each row.

    An array of one axis is a column of numbers or text, of two axes a block of numbers, of three (N, H, W) or four
    (N, H, W, channels) images. Nothing is unpickled. Give either ``path``, or ``train`` and ``val`` and/or ``test``.

    Args:
        path: One file or several, relative to the current folder; the split comes from ``data.split``.
        train: Files whose rows are the training rows.
        val: Files whose rows are the validation rows.
        test: Files whose rows are the test rows.
        arrays: Which arrays to read; null reads all.
        split_names: The names of the arrays end in their split: ``x_train``, ``x_valid``, ``x_test`` are column ``x``.

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
        arrays: list[str] | None = None,
        split_names: bool = False,
    ) -> None:
        problems = []
        if split_names and path is None:
            what = "cannot be given with data.train: files and names of arrays would both say what is in which split"
            problems.append(Problem("data.split_names", what, "Write data.path=FILE, or leave split_names out."))
        self._files = check_paths({"path": path, "train": train, "val": val, "test": test}, problems)
        self._arrays, self._split_names = arrays, split_names
        self._may_lack = False

    @classmethod
    def further_rows(cls, path: str, options: Mapping[str, Any]) -> Source:
        """Those of ``arrays`` that are there: labels need not be. The names may end in a split or be the columns'."""
        arrays, split_names = options["arrays"], options["split_names"]
        if arrays is not None and split_names:
            arrays = [*arrays, *(match[1] for name in arrays if (match := _SPLIT.fullmatch(name)) is not None)]
        source = cls(path=path, arrays=arrays, split_names=split_names)
        source._may_lack = True
        return source

    def read(self) -> Table:
        """Reads all files, in the order train, val, test and as listed.

        Raises:
            DataError: Absent or damaged files, objects instead of numbers, arrays of unequal length.
        """
        table = read_files(self._files, self._read_file)
        frame, missing = Markers().mark(table.frame)
        return replace(table, frame=frame, missing=missing)

    def _read_file(self, name: str, split: str | None, fingerprint: Fingerprint) -> list[File]:
        raw = existing_file(name).read_bytes()
        fingerprint(raw)
        arrays = self._read(raw, name)
        plain = not self._split_names or (self._may_lack and not all(map(_SPLIT.fullmatch, arrays)))
        parts = {split: arrays} if plain else _by_split(arrays, name)
        return [File(name, word, _frame(found, name), lines=False) for word, found in parts.items()]

    def _read(self, raw: bytes, name: str) -> dict[str, np.ndarray]:
        try:
            archive = np.load(io.BytesIO(raw), allow_pickle=False)
        except _UNREADABLE as error:
            raise DataError(Problem(name, f"cannot be read as .npz ({_reason(error)})")) from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            hint = "Save it with numpy.savez(file, x=x, y=y)."
            raise DataError(Problem(name, "is one array without a name, not an .npz archive", hint))
        if archive.zip is not None:
            refuse_too_large(name, sum(int(entry.file_size) for entry in archive.zip.infolist()))
        with archive:
            wanted = archive.files if self._arrays is None else self._arrays
            if self._may_lack:
                wanted = [key for key in wanted if key in archive.files] or wanted
            problems: list[Problem] = []
            found = {}
            for key in wanted:
                if key not in archive.files:
                    hint = did_you_mean(key, archive.files)
                    problems.append(Problem("data.arrays", f"there is no array '{key}' in {name}", hint))
                    continue
                try:
                    found[key] = archive[key]
                except _UNREADABLE as error:
                    what, hint = f"cannot be read ({_reason(error)})", "Is the file complete?"
                    if "pickle" in str(error):
                        what, hint = "holds Python objects, which are not read", "Save it as numbers or text."
                    problems.append(Problem(f"{name}, array '{key}'", what, hint))
        if problems:
            raise DataError(problems)
        return found


def _by_split(arrays: dict[str, np.ndarray], name: str) -> dict[str, dict[str, np.ndarray]]:
    keys: dict[str, dict[str, str]] = {}
    strangers, problems = [], []
    for key in arrays:
        match = _SPLIT.fullmatch(key)
        if match is None:
            strangers.append(key)
            continue
        column, word = match[1], _WORDS[match[2][:2]]
        first = keys.setdefault(word, {}).setdefault(column, key)
        if first != key:
            what = f"arrays '{first}' and '{key}' are both the {word} rows of column '{column}'"
            problems.append(Problem(name, what, "Leave one of them out with data.arrays."))
    if strangers:
        what = f"the names of these arrays do not end in a split: {', '.join(strangers)}"
        problems.append(Problem(name, what, "Name them NAME_train, NAME_val, NAME_test."))
    if problems:
        raise DataError(problems)
    words = (word for word in ("train", "val", "test") if word in keys)
    return {word: {column: arrays[key] for column, key in keys[word].items()} for word in words}


def _frame(arrays: dict[str, np.ndarray], name: str) -> pl.DataFrame:
    """The arrays as columns.

    Raises:
        DataError: Unequal lengths, or values that no column can hold.
    """
    problems = []
    columns = {}
    for key, array in arrays.items():
        where, way_out = f"{name}, array '{key}'", "Leave it out with data.arrays."
        kinds = "biufUSM" if array.ndim == 1 else "biuf"
        if array.ndim not in (1, 2, 3, 4) or array.dtype.kind not in kinds or _is_too_fine(array.dtype):
            what = f"must hold numbers or text with one entry for each row, got shape {array.shape} of {array.dtype}"
            problems.append(Problem(where, what, way_out))
            continue
        try:
            columns[key] = _series(key, array)
        except UnicodeDecodeError as error:
            what = f"must hold UTF-8 text, got byte 0x{error.object[error.start]:02x}"
            problems.append(Problem(where, what, f"Save it as text. {way_out}"))
    lengths = {key: len(array) for key, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) > 1 and not problems:
        shown = ", ".join(f"'{key}' {length}" for key, length in lengths.items())
        problems.append(Problem(name, f"the arrays differ in length: {shown}", "Leave some out with data.arrays."))
    if problems:
        raise DataError(problems)
    return pl.DataFrame(columns)


def _is_too_fine(dtype: np.dtype[Any]) -> bool:
    """Whether the unit of dates is smaller than any that a column can hold, or there is none."""
    return dtype.kind == "M" and np.datetime_data(dtype)[0] not in _UNITS


def _series(name: str, array: np.ndarray) -> pl.Series:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "S":
        array = np.char.decode(array, "utf-8")
    elif kind == "M":
        array = array.astype(f"datetime64[{_UNITS[np.datetime_data(array.dtype)[0]]}]")
    elif kind == "f" and (array.ndim > 1 or size < 4):
        array = array.astype(np.float32)  # what a network reads; half of the memory
    elif kind == "f" and size > 8:
        array = array.astype(np.float64)  # no column has longer numbers
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return pl.Series(name, np.ascontiguousarray(array))


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
