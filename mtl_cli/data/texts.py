"""Texts and tokens to bags of hashed features: no vocabulary to build, store or download, and nothing is unknown.

A feature (a word, a piece of one, two words in a row) is known by its number: CRC-32 of its UTF-8 bytes, modulo how
many numbers there are. That is the same on every machine and in every version, so a run needs no more than that count.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mtl_cli.errors import DataError, Problem
from mtl_cli.schema import TextOptions
from mtl_cli.types import Block, Column

_WORDS = re.compile(r"\w+|[^\w\s]")
_AFFIX = 4  # longest prefix and suffix of a token that is a feature of its own
TOKEN_FEATURES = 3 + 2 * _AFFIX


@dataclass(frozen=True)
class TextInput:
    """A column of texts: each is the bag of its words, pairs of words and pieces of words.

    Args:
        name: The column.
        options: Which features, and how many numbers for them.
    """

    name: str
    options: TextOptions
    type: str = "text"

    @property
    def block(self) -> Block:
        """What an encoder has to know."""
        return Block(self.name, "text", (), self.options.ids)

    def values(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """The ids (M,) int32 of all texts, and where each text starts (N + 1,) int64; a missing text has none.

        Raises:
            DataError: The column holds no texts.
        """
        if column.values.dtype.is_nested() or column.values.dtype in (pl.Binary, pl.Object):
            raise DataError(Problem(_head(column), f"must hold texts, got type {column.values.dtype}"))
        bags = [text_ids(text or "", self.options) for text in column.values.cast(pl.String).to_list()]
        return _flat(bags), _starts([len(bag) for bag in bags])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "options": vars(self.options)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> TextInput:
        """The column that ``to_json`` described."""
        return cls(**{**saved, "options": TextOptions(**saved["options"])})


@dataclass(frozen=True)
class TokensInput:
    """A column of lists of words: each word is known by itself, its beginnings and ends, and its shape.

    Args:
        name: The column.
        options: How many numbers there are for the features.
    """

    name: str
    options: TextOptions
    type: str = "tokens"

    @property
    def block(self) -> Block:
        """What an encoder has to know."""
        return Block(self.name, "tokens", (TOKEN_FEATURES,), self.options.ids)

    def values(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """The ids (M, ids of a token) int32 of all tokens, and where each row starts (N + 1,) int64.

        A missing list is an empty one.

        Raises:
            DataError: The column holds no lists of texts.
        """
        if not is_tokens(column.values.dtype):
            raise DataError(Problem(_head(column), f"must hold lists of words, got type {column.values.dtype}"))
        words = [word or "" for row in column.values.to_list() for word in row or ()]
        places = {word: place for place, word in enumerate(dict.fromkeys(words))}
        known = np.array([token_ids(word, self.options.ids) for word in places], np.int32).reshape(-1, TOKEN_FEATURES)
        ids = known[np.array([places[word] for word in words], np.int64)]
        return ids, _starts(token_counts(column.values))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "options": vars(self.options)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> TokensInput:
        """The column that ``to_json`` described."""
        return cls(**{**saved, "options": TextOptions(**saved["options"])})


def is_tokens(dtype: pl.DataType) -> bool:
    """Whether a column's cells are lists of texts."""
    return isinstance(dtype, pl.List | pl.Array) and dtype.inner == pl.String


def token_counts(values: pl.Series) -> np.ndarray:
    """Number of elements of each list, (N,) int64; 0 where the list is missing."""
    if values.dtype == pl.Null:  # no value at all says nothing of what it would be
        return np.zeros(len(values), np.int64)
    lists = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
    counts: np.ndarray = lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()
    return counts


def text_ids(text: str, options: TextOptions) -> list[int]:
    """The features of a text.

    Words are runs of letters, digits and underscores, or single other signs. Pieces are those of ``<word>``: the signs
    tell its edges from its middle.

    Example:
        >>> len(text_ids("good", TextOptions(words=1, pieces=[3, 3]))), text_ids(" ", TextOptions())
        (5, [])
    """
    words = _WORDS.findall(text.lower() if options.lowercase else text)
    low, high = options.pieces or (1, 0)
    ids = [number for word in words for number in _word_ids(word, low, high, options.ids)]
    for size in range(2, options.words + 1):
        ids += [_number("w", " ".join(words[i : i + size]), options.ids) for i in range(len(words) - size + 1)]
    return ids


def token_ids(word: str, ids: int) -> list[int]:
    """The features of a token: itself, in lower case, its shape, and its beginnings and ends of 1 to 4 letters.

    Example:
        >>> token_ids("Cats", 1000)[1] == token_ids("cats", 1000)[0]
        False
        >>> token_ids("Cats", 1000)[-1] == token_ids("hats", 1000)[-1]
        False
        >>> token_ids("Cats", 1000)[-2] == token_ids("hats", 1000)[-2]
        True
    """
    lower = word.lower()
    ends = [("p", lower[:n]) for n in range(1, _AFFIX + 1)] + [("s", f"{n} {lower[-n:]}") for n in range(1, _AFFIX + 1)]
    return [_number(kind, text, ids) for kind, text in [("t", word), ("l", lower), ("x", _shape(word)), *ends]]


def _shape(word: str) -> str:
    """``Xxx9-``: what kind of sign stands where, runs of three or more cut to two, so that lengths matter little."""
    signs = "".join(
        "9" if c.isdigit() else "X" if c.isupper() else "x" if c.islower() else "o" if c.isalpha() else c for c in word
    )
    return re.sub(r"(.)\1{2,}", r"\1\1", signs)


@functools.lru_cache(maxsize=1 << 18)
def _word_ids(word: str, low: int, high: int, ids: int) -> tuple[int, ...]:
    marked = f"<{word}>"
    return (_number("w", word, ids), *(_number("c", piece, ids) for piece in _pieces(marked, low, high)))


def _pieces(text: str, low: int, high: int) -> Iterator[str]:
    for size in range(low, min(high, len(text)) + 1):
        yield from (text[i : i + size] for i in range(len(text) - size + 1))


def _number(kind: str, text: str, ids: int) -> int:
    return zlib.crc32(f"{kind} {text}".encode("utf-8", "surrogatepass")) % ids


def _flat(bags: list[list[int]]) -> np.ndarray:
    return np.fromiter((number for bag in bags for number in bag), np.int32)


def _starts(counts: np.ndarray | list[int]) -> np.ndarray:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _head(column: Column) -> str:
    return column.where(0).rpartition(", row ")[0] or column.name
