"""Texts and tokens to bags of features: a word, a piece of one, two words in a row.

A feature is known by its CRC-32, of its UTF-8 bytes. That is the same on every machine and in every version. Its number
is that modulo how many numbers there are, so that there is no vocabulary to build or store, and nothing is unknown, but
features share numbers by chance; or, with ``min_count``, its place among those of the training rows.
"""

from __future__ import annotations

import base64
import functools
import itertools
import re
import unicodedata
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from mtl_cli.data.column_types import category_text, has_text, holds_nothing, is_tokens
from mtl_cli.data.input_columns import FeatureCounts, Findings
from mtl_cli.data.table import AnyTable, rows_in
from mtl_cli.errors import DataError, Problem
from mtl_cli.schema import TextOptions
from mtl_cli.types import Block, Column

VERSION = 3  # of how texts and tokens are read
_JOINERS = "\u200c\u200d"  # they say how letters of a word join
_MARKED = (range(0x300, 0x20000), range(0xE0000, 0xE1000))  # where combining marks stand
_ALL = 1 << 32  # values of CRC-32
_ROWS_AT_ONCE = 1024  # whose cells and features are held on the way to their numbers, at many times the bytes
_LONGEST_KEPT = 32  # letters of words whose features are kept for the next time: longer ones are rare, and have many


@dataclass(frozen=True)
class BagInput(ABC):
    """A column whose cells are bags of features.

    Args:
        name: The column.
        options: Which features, and how they get their numbers.
        known: With ``options.min_count``, the CRC-32 of the features that have a number of their own, ascending and as
            bytes (``<u4``): the i-th has i + 1, and all others 0.
        version: Which way the cells are read: the training's.
    """

    name: str
    options: TextOptions
    known: bytes | None = None
    version: int = 1  # of runs of before

    type: ClassVar[Literal["text", "tokens"]]

    @classmethod
    def fit(
        cls, name: str, options: TextOptions, table: AnyTable, train_rows: np.ndarray, groups: pl.Series | None = None
    ) -> tuple[BagInput, list[str]]:
        """Looks for the features that the training rows have often enough; ``groups`` as in ``values``.

        Returns:
            The column, and what the user should know: that there are no such features.

        Raises:
            DataError: The column holds something else.
        """
        read = cls(name, options, version=VERSION)
        if options.min_count is None:
            return read, []

        def training() -> Iterator[np.ndarray]:
            for start, column in table.pieces(name):
                rows = rows_in(train_rows, start, len(column.values))
                part = replace(column, values=column.values.gather(rows), in_source=None)
                own = None if groups is None else groups.gather(rows + start)
                yield from (features for features, _ in read.features(part, own))

        found, counts = _counted(training())
        often = np.flatnonzero(counts >= options.min_count)
        most = often[np.argsort(-counts[often], kind="stable")][: options.ids - 1]
        notes = []
        if len(most) == 0:
            what = f"no word or part of one stands {options.min_count:,} times in the training rows"
            notes = [f"{next(table.pieces(name))[1].head}: {what} (data.text.min_count): all are read as the same."]
        return replace(read, known=np.sort(found[most]).astype("<u4").tobytes()), notes

    @property
    def block(self) -> Block:
        """What an encoder has to know."""
        return Block(self.name, self.type, self.shape, self.options.ids if self.size is None else self.size + 1)

    @property
    def size(self) -> int | None:
        """How many features have a number of their own; None: all have one that is their hash."""
        return None if self.known is None else len(self.known) // 4

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes of the features of one text or token."""
        return ()

    def values(
        self, column: Column, groups: pl.Series | None = None, found: Findings | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (M, ...) int32 of the features of all cells, and where each row starts (N + 1,) int64.

        Args:
            column: N cells; a missing one has no features.
            groups: The value of ``options.by`` in each row as text, null where there is none; None without that option.
            found: Gets how many features there are, and how many are unknown.

        Raises:
            DataError: The column holds something else.
        """
        read = [(self._numbers(features), counts) for features, counts in self.features(column, groups)]
        if found is not None and self.size:  # with none known, ``fit`` says so
            counted = found.features.setdefault(column.head, FeatureCounts())
            for part in read:
                counted.add(_unknown(*part))
        numbers, counts = (np.concatenate(parts) for parts in zip(*read, strict=True))
        return numbers, _starts(counts)

    def _numbers(self, features: np.ndarray) -> np.ndarray:
        """The numbers of features."""
        if self.known is None:
            return (features % self.options.ids).astype(np.int32)
        known = np.append(np.frombuffer(self.known, "<u4").astype(np.int64), _ALL)  # which nothing is: all have a place
        place = np.searchsorted(known, features)
        return np.where(known[place] == features, place + 1, 0).astype(np.int32)

    @abstractmethod
    def features(self, column: Column, groups: pl.Series | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """CRC-32 (M, ...) int64 of the features of some cells after others, and how many each cell has.

        Yields at least once; for the rest see ``values``.
        """

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        known = None if self.known is None else base64.b64encode(self.known).decode()
        own = {"type": self.type, "name": self.name, "options": vars(self.options)}
        return {**own, "known": known, "version": self.version}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> BagInput:
        """The column that ``to_json`` described."""
        known = saved.get("known")  # runs of before had hashed features only
        options, version = TextOptions(**saved["options"]), saved.get("version", 1)
        return cls(saved["name"], options, None if known is None else base64.b64decode(known), version)


@dataclass(frozen=True)
class TextInput(BagInput):
    """A column of texts: each is the bag of its words, pairs of words and pieces of words."""

    type: ClassVar[Literal["text", "tokens"]] = "text"

    def features(self, column: Column, groups: pl.Series | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not has_text(column.values.dtype):
            raise DataError(Problem(column.head, f"must hold texts, got type {column.values.dtype}"))
        options = replace(self.options, ids=_ALL)
        # Before version 3 a whole number was one text where it was stored as such, and another where as a float.
        texts = column.values.cast(pl.String) if self.version < 3 else category_text(column)
        for cells, seeds in _some_rows(texts, groups):
            bags = [
                np.array(text_ids(text or "", options, seed, self.version), np.int64)
                for text, seed in zip(cells, seeds, strict=True)
            ]
            yield np.concatenate([np.empty(0, np.int64), *bags]), np.array([len(bag) for bag in bags], np.int64)


@dataclass(frozen=True)
class TokensInput(BagInput):
    """A column of lists of words: each word is known by itself, its beginnings and ends, and its shape."""

    type: ClassVar[Literal["text", "tokens"]] = "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (3 + 2 * self.options.affix,)

    def features(self, column: Column, groups: pl.Series | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not is_tokens(column.values.dtype) and not holds_nothing(column.values.dtype):
            raise DataError(Problem(column.head, f"must hold lists of words, got type {column.values.dtype}"))
        options = replace(self.options, ids=_ALL)
        places: dict[tuple[str, int], int] = {}  # of the words so far in ``ids``, which has room for more
        ids = np.empty((0, *self.shape), np.int64)
        for cells, seeds in _some_rows(column.values, groups):
            words = [(word or "", seed) for row, seed in zip(cells, seeds, strict=True) for word in row or ()]
            new = [word for word in dict.fromkeys(words) if word not in places]
            places.update(zip(new, itertools.count(len(places))))
            if len(places) > len(ids):  # twice as many, so that each is copied a few times only
                ids = np.concatenate([ids, np.empty((max(len(new), len(ids)), *self.shape), np.int64)])
            own = np.array([token_ids(word, options, seed, self.version) for word, seed in new], np.int64)
            ids[len(places) - len(new) : len(places)] = own.reshape(-1, *self.shape)
            counts = np.array([len(row or ()) for row in cells], np.int64)
            yield ids[np.array([places[word] for word in words], np.int64)], counts


def token_counts(values: pl.Series) -> np.ndarray:
    """Number of elements of each list, (N,) int64; 0 where the list is missing."""
    if values.dtype == pl.Null:  # no value at all says nothing of what it would be
        return np.zeros(len(values), np.int64)
    lists = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
    counts: np.ndarray = lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()
    return counts


def text_ids(text: str, options: TextOptions, seed: int = 0, version: int = VERSION) -> list[int]:
    """The features of a text; texts with another ``seed`` have others.

    Words are runs of letters, digits and underscores with the marks on them, or single other signs. Pieces are those of
    ``<word>``: the signs tell its edges from its middle. However letters and marks are stored, they are the same (NFC).
    Version 1 did not see to that, and each mark was a word by itself.

    Example:
        >>> len(text_ids("good", TextOptions(words=1, pieces=[3, 3]))), text_ids(" ", TextOptions())
        (5, [])
    """
    words = _words(version).findall(_composed(text.lower() if options.lowercase else text, version))
    low, high = options.pieces or (1, 0)
    ids = [number for word in words for number in _word_ids(word, low, high, options.ids, seed)]
    for size in range(2, min(options.words, len(words)) + 1):
        runs = (" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
        ids += [_number("w", run, options.ids, seed) for run in runs]
    return ids


def token_ids(word: str, options: TextOptions, seed: int = 0, version: int = VERSION) -> list[int]:
    """The features of a token: itself, in lower case, its shape, and its beginnings and ends of 1 to ``affix`` letters.

    A token with another ``seed`` has others. As for ``version``, see ``text_ids``.

    Example:
        >>> one, other = (token_ids(word, TextOptions(affix=4)) for word in ("Cats", "hats"))
        >>> [one[-n] == other[-n] for n in (1, 2)]  # "cats" and "hats", "ats"
        [False, True]
    """
    word, lower = _composed(word, version), _composed(word.lower(), version)
    sizes = range(1, options.affix + 1)
    ends = [("p", lower[:n]) for n in sizes] + [("s", f"{n} {lower[-n:]}") for n in sizes]
    return [
        _number(kind, text, options.ids, seed) for kind, text in [("t", word), ("l", lower), ("x", _shape(word)), *ends]
    ]


@functools.cache
def _words(version: int) -> re.Pattern[str]:
    r"""What is a word of a text. Python's ``\w`` has no marks in it, which are most vowels of India's scripts."""
    if version == 1:
        return re.compile(r"\w+|[^\w\s]")
    marks = np.array([c for c in itertools.chain(*_MARKED) if unicodedata.category(chr(c)).startswith("M")])
    runs = np.split(marks, np.flatnonzero(np.diff(marks) > 1) + 1)
    inside = "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
    return re.compile(rf"\w[\w{inside}{_JOINERS}]*|[^\w\s]")


def _composed(text: str, version: int) -> str:
    return text if version == 1 else unicodedata.normalize("NFC", text)


def _shape(word: str) -> str:
    """``Xxx9-``: what kind of sign stands where, runs of three or more cut to two, so that lengths matter little."""
    signs = "".join(
        "9" if c.isdigit() else "X" if c.isupper() else "x" if c.islower() else "o" if c.isalpha() else c for c in word
    )
    return re.sub(r"(.)\1{2,}", r"\1\1", signs)


def _word_ids(word: str, low: int, high: int, ids: int, seed: int) -> tuple[int, ...]:
    find = _kept_word_ids if len(word) <= _LONGEST_KEPT else _find_word_ids
    return find(word, low, high, ids, seed)


def _find_word_ids(word: str, low: int, high: int, ids: int, seed: int) -> tuple[int, ...]:
    pieces = _pieces(f"<{word}>", low, high)
    return (_number("w", word, ids, seed), *(_number("c", piece, ids, seed) for piece in pieces))


_kept_word_ids = functools.lru_cache(maxsize=1 << 18)(_find_word_ids)


def _pieces(text: str, low: int, high: int) -> Iterator[str]:
    for size in range(low, min(high, len(text)) + 1):
        yield from (text[i : i + size] for i in range(len(text) - size + 1))


def _number(kind: str, text: str, ids: int, seed: int) -> int:
    return zlib.crc32(f"{kind} {text}".encode("utf-8", "surrogatepass"), seed) % ids


def _seeds(groups: pl.Series | None, rows: int) -> Iterable[int]:
    """What the features of each row start from: the CRC-32 of what stands in front of them, the row's group."""
    if groups is None:
        return itertools.repeat(0, rows)
    seeds = {g: 0 if g is None else zlib.crc32(f"{g}\0".encode("utf-8", "surrogatepass")) for g in groups.unique()}
    return [seeds[group] for group in groups]


def _some_rows(cells: pl.Series, groups: pl.Series | None) -> Iterator[tuple[list[Any], Iterable[int]]]:
    """Some cells after others, at least once, and what the features of each start from."""
    for first in range(0, max(len(cells), 1), _ROWS_AT_ONCE):
        own = cells.slice(first, _ROWS_AT_ONCE).to_list()
        yield own, _seeds(None if groups is None else groups.slice(first, _ROWS_AT_ONCE), len(own))


def _counted(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct numbers of all parts, ascending, and how often each occurs.

    Example:
        >>> [found.tolist() for found in _counted([np.array([7, 3, 7]), np.array([3]), np.array([9, 7])])]
        [[3, 7, 9], [2, 3, 1]]
    """
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for part in parts:
        found.append(np.unique(part, return_counts=True))
        if sum(len(numbers) for numbers, _ in found[1:]) >= len(found[0][0]):  # so that each is sorted a few times only
            found = [_added_up(found)]
    return _added_up(found)


def _added_up(counted: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    numbers, times = (np.concatenate(parts) for parts in zip(*counted, strict=True))
    distinct, place = np.unique(numbers, return_inverse=True)
    return distinct, np.bincount(place, times, len(distinct)).astype(np.int64)


def _unknown(numbers: np.ndarray, counts: np.ndarray) -> FeatureCounts:
    """How many features of some cells are unknown; numbers (M, ...) of the features, and how many (N,) each cell has.

    Example:
        >>> _unknown(np.array([4, 0, 0, 0]), np.array([2, 0, 2]))
        FeatureCounts(total=4, unknown=3, lost=1)
    """
    known = np.count_nonzero(numbers, axis=tuple(range(1, numbers.ndim)))
    of_cells = np.diff(_starts(known)[_starts(counts)])
    return FeatureCounts(numbers.size, numbers.size - int(known.sum()), int(((counts > 0) & (of_cells == 0)).sum()))


def _starts(counts: np.ndarray) -> np.ndarray:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts
