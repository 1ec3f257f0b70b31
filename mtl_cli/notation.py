"""What a cell that is no plain number looks like to its writer: a decimal comma, groups of digits, per cent, a date."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_DAY = r"(0?[1-9]|[12]\d|3[01])"  # or a month
_DATES = [rf"{_DAY}{s}{_DAY}{s}(\d{{4}}|\d{{2}})|\d{{4}}{s}\d{{1,2}}{s}\d{{1,2}}" for s in (r"\.", "/", "-")]
#: Digits with signs between groups or as a decimal comma: a number to its writer, text to a parser.
FOREIGN_NUMBER = r"^\s*[+-]?\d+([.,' \u00a0]\d+)+\s*$"
#: A number to its writer, with the sign for hundredths.
PERCENTAGE = r"^\s*[+-]?\d+([.,]\d+)?\s*%\s*$"
#: Days as people write them, with or without a time: 2024-12-31, 2024/12/31, 31.12.2024, 12/31/24. 12-34-56 is a code.
DATE = rf"^\s*({'|'.join(_DATES)})([ T]\d.*)?\s*$"
_COMMA, _GROUPS = "a number with a decimal comma", "a number with signs between groups of digits"
_AMBIGUOUS = [(",", None), (".", ",")]  # 1,234 alone may be either
_SIGNS = [*_AMBIGUOUS, (".", " "), (".", "'"), (",", "."), (",", " ")]  # decimal, between groups; likeliest first


class Notation(NamedTuple):
    """What a cell looks like.

    Args:
        like: In words: ``a number with a decimal comma``.
        settings: What reads such cells, in words; empty if nothing does.
        instead: Where nothing does: the number to write, in words.
    """

    like: str
    settings: str
    instead: str = ""


def number_pattern(decimal: str, thousands: str | None) -> str:
    """The pattern of numbers with a decimal sign and a sign between groups of three digits, or none."""
    whole = rf"\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+" if thousands else r"\d+"
    sign = re.escape(decimal)
    return rf"^\s*[+-]?(?:(?:{whole})(?:{sign}\d*)?|{sign}\d+)(?:[eE][+-]?\d+)?\s*$"


def notation(cell: str, others: Iterable[str]) -> Notation | None:
    """What a cell looks like; None if it is like no number or date that somebody writes.

    Args:
        cell: The text, which is no plain number.
        others: Further such cells of the column: ``1,234`` is a thousand or one, beside ``1,5`` it is one.

    Example:
        >>> notation("1,234", ["1,5"])
        Notation(like='a number with a decimal comma', settings='data.decimal=","', instead='')
        >>> notation("1.1.2024", []), notation("n.a.", [])
        (Notation(like='a date', settings='', instead='a number of days'), None)
    """
    if re.match(DATE, cell):
        return Notation("a date", "", "a number of days")
    if re.match(PERCENTAGE, cell):
        return Notation("a percentage", "", "a number without the %")
    if not re.match(FOREIGN_NUMBER, cell):
        return None
    cells = [cell, *(c for c in others if re.match(FOREIGN_NUMBER, c) and not re.match(DATE, c))]
    signs = [pair for pair in _SIGNS if all(re.match(number_pattern(*pair), c) for c in cells)]
    if not signs:
        return Notation(_GROUPS, "data.decimal or data.thousands")
    if signs[:2] == _AMBIGUOUS:
        return Notation(f"{_COMMA} or between groups of digits", " or ".join(map(_settings, _AMBIGUOUS)))
    comma = signs[0][0] == "," and any("," in c for c in cells)
    return Notation(_COMMA if comma else _GROUPS, _settings(signs[0]))


def _settings(signs: tuple[str, str | None]) -> str:
    decimal, thousands = signs
    texts = [f'data.decimal="{decimal}"'] if decimal != "." else []
    return " and ".join([*texts, f'data.thousands="{thousands}"'] if thousands else texts)
