"""One value in several spellings: ``1`` and ``1.0``, ``True`` and ``yes``."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence

import polars as pl

_TRUTH_VALUES = {"true": "1", "yes": "1", "y": "1", "false": "0", "no": "0", "n": "0"}


class Spellings:
    r"""Values that are known, and what else stands for one of them.

    Numbers without an exponent are one value however they are spelt, and words in whatever Unicode form: file names of
    macOS have letters and accents apart. So are the two truth values, if the known values are such: beside ``1`` and
    ``0``, ``True``, ``yes`` and ``y`` are 1, and ``False``, ``no`` and ``n`` are 0.

    Args:
        known: The values.

    Example:
        >>> Spellings(["1", "2.5", "07"]).find(["1.0", "2.50", "7", "one"])
        {'1.0': '1', '2.50': '2.5'}
        >>> Spellings(["False", "True"]).find(["1", "no"])
        {'1': 'True', 'no': 'False'}
        >>> Spellings(["caf\u00e9"]).find(["cafe\u0301", "cafe"]) == {"cafe\u0301": "caf\u00e9"}
        True
    """

    def __init__(self, known: Sequence[str]) -> None:
        truth = len(known) == 2 and set(meanings(known).values()) == {"0", "1"}
        self._meaning: Callable[[Sequence[str]], Mapping[str, str]] = meanings if truth else _plain_forms
        self._values: dict[str, str | None] = {}  # by meaning; None: several have it
        for value, meaning in self._meaning(known).items():
            self._values[meaning] = None if meaning in self._values else value

    def find(self, texts: Sequence[str]) -> dict[str, str]:
        """The known value that each of the texts is in another spelling; nothing of a text that may be several."""
        found = {text: self._values.get(meaning) for text, meaning in self._meaning(texts).items()}
        return {text: value for text, value in found.items() if value is not None}


def meanings(texts: Sequence[str]) -> Mapping[str, str]:
    """What two spellings of one value have in common: the number, the truth value, or the word without case."""
    found = {}
    for text, form in _plain_forms(texts).items():
        word = form.strip().casefold()
        found[text] = _TRUTH_VALUES.get(word, word)
    return found


def composed(texts: pl.Series) -> pl.Series:
    """Texts in one Unicode form: letters and their accents as one character (NFC)."""
    return texts.str.normalize("NFC")


def _plain_forms(texts: Sequence[str]) -> Mapping[str, str]:
    """The number that each text is, in its shortest spelling; of words and codes their characters in one form."""
    return {text: number or unicodedata.normalize("NFC", text) for text, number in number_spellings(texts).items()}


def number_spellings(texts: Sequence[str]) -> Mapping[str, str | None]:
    """The number that each text is, in its shortest spelling; None for words, codes such as 007, and exponents."""
    series = pl.Series(texts, dtype=pl.String)
    stripped = series.str.strip_chars()
    numbers = stripped.str.contains(r"^[+-]?(0|[1-9]\d*|)(\.\d*)?$") & stripped.str.contains(r"\d")
    plain = shortest(stripped)
    return {text: number if known else None for text, number, known in zip(series, plain, numbers, strict=True)}


def shortest(numbers: pl.Series) -> pl.Series:
    """Numbers without an exponent in their shortest form, digit for digit: no plus, no zeros that say nothing."""
    text = numbers.str.strip_prefix("+").str.replace(r"^(-?)\.", "${1}0.")
    text = text.str.replace(r"\.0*$", "").str.replace(r"(\.\d*[1-9])0+$", "${1}")
    return text.str.replace(r"^-0$", "0")
