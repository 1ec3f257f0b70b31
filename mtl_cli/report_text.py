"""Text for the terminal and the log: tables, numbers, and lists cut short."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"-?[\d,]+(\.\d+)?(e[+-]\d+)?%?")


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; those that hold numbers only are aligned to the right.

    Example:
        >>> print(text_table(["task", "auc"], [["income", "0.91"], ["age", "0.8"]]))
        task     auc
        income  0.91
        age      0.8
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [all(_numeric(row[i]) for row in cells[1:]) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def at_most(lines: Sequence[str], most: int) -> list[str]:
    """The lines, or the first few and how many more there are.

    Example:
        >>> at_most(["a", "b", "c", "d"], 3)
        ['a', 'b', 'and 2 more of this kind.']
    """
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], f"and {len(lines) - most + 1} more of this kind."]


def format_number(value: float | None) -> str:
    """A metric for people: four decimals where they tell it, ``n/a`` if it is not defined.

    Example:
        >>> format_number(0.5), format_number(None), format_number(0.0), format_number(0.0000321)
        ('0.5000', 'n/a', '0.0000', '3.21e-05')
    """
    return "n/a" if value is None else f"{value:{decimals(4, value)}}"


def with_deviation(mean: float, deviation: float | None, places: int, sign: str = "", unit: str = "") -> str:
    """A mean, and its deviation if there is one, with so many decimals, as far as these say something.

    Args:
        mean: The mean.
        deviation: None: there is none.
        places: Decimals.
        sign: ``+`` for a sign before what is above 0.
        unit: What stands behind the mean.

    Example:
        >>> with_deviation(1.25, 0.5, 2, "+", " %"), with_deviation(0.5, None, 4)
        ('+1.25 % ± 0.50', '0.5000')
    """
    form = decimals(places, mean, deviation or 0.0)
    told = f"{mean:{sign}{form}}{unit}"
    return told if deviation is None else f"{told} ± {deviation:{form}}"


def decimals(places: int, *values: float) -> str:
    """The format of numbers that stand together: so many decimals, but none in large numbers; else four digits.

    Example:
        >>> [f"{value:+{decimals(2, value)}}" for value in (12.3456, 0.0, 1234567.8, 0.00012, -4.08e65)]
        ['+12.35', '+0.00', '+1234568', '+0.00012', '-4.08e+65']
    """
    largest = max(map(abs, values))
    if largest and not 0.5 * 10.0**-places <= largest < 1e9:
        return ".4g"
    return f".{places if largest < 1e5 else 0}f"


def _numeric(cell: str) -> bool:
    return cell in ("", "-", "n/a") or _NUMBER.fullmatch(cell) is not None
