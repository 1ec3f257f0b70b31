"""Text for the terminal and the log: tables, numbers, and lists cut short."""

from __future__ import annotations

from collections.abc import Sequence


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
    """A metric for people: four decimals, ``n/a`` if it is not defined.

    Example:
        >>> format_number(0.5), format_number(None)
        ('0.5000', 'n/a')
    """
    return "n/a" if value is None else f"{value:.4f}"


def _numeric(cell: str) -> bool:
    return cell in ("", "-", "n/a") or cell.replace(",", "").replace(".", "", 1).lstrip("-").rstrip("%").isdigit()
