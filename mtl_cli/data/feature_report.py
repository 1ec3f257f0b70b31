"""What was decided about every column, as rows and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mtl_cli.data.table import AnyTable

_PROBE = 100  # labels that are compared before a whole column is
_EXAMPLE = 24  # characters


@dataclass(frozen=True)
class ReportRow:
    """One column of the table.

    Args:
        column: Its name.
        type: ``numeric``, ``date``, ``block``, ``category``, ``image``, ``text``, ``tokens``, or the storage type of a
            column that is left out.
        missing: Number of missing cells.
        markers: What they held, with counts: ``NA 2, empty 1``.
        example: Its first value, shortened.
        role: ``input``, or ``left out:`` and why.
    """

    column: str
    type: str
    missing: int
    markers: str
    example: str
    role: str


def describe(table: AnyTable, kinds: Mapping[str, str], left_out: Mapping[str, str]) -> tuple[ReportRow, ...]:
    """The report on a table whose inputs have the types ``kinds``."""
    rows = []
    for name, dtype in table.schema.items():
        facts = table.facts(name)
        markers = ", ".join(f"{marker} {count}" for marker, count in sorted(facts.markers.items()))
        first = facts.first.to_list() if isinstance(facts.first, pl.Series) else facts.first
        example = "" if first is None else str(first)
        example = " ".join(example.split())  # a line break would tear the table
        example = example if len(example) <= _EXAMPLE else example[: _EXAMPLE - 3] + "..."
        role = f"left out: {left_out[name]}" if name in left_out else "input"
        kind = kinds.get(name, str(dtype))
        rows.append(ReportRow(name, kind, facts.missing, markers, example, role))
    return tuple(rows)


def format_report(rows: Sequence[ReportRow]) -> str:
    """An aligned text table.

    Example:
        >>> print(format_report([ReportRow("age", "numeric", 2, "NA 2", "39", "input")]))
        column  type     missing   example  role
        age     numeric  2 (NA 2)  39       input
    """
    cells = [("column", "type", "missing", "example", "role")]
    for row in rows:
        missing = f"{row.missing} ({row.markers})" if row.markers else str(row.missing)
        cells.append((row.column, row.type, missing, row.example, row.role))
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def copies_of_targets(table: AnyTable, inputs: Sequence[str], reserved: Mapping[str, str]) -> list[str]:
    """Notes about inputs that equal a target in every row that has one: the model would copy the answer.

    Args:
        table: All rows.
        inputs: The input columns.
        reserved: Columns with another role; targets are those whose role begins with ``target``.
    """
    flat = {name for name, dtype in table.schema.items() if not dtype.is_nested()}
    targets = [name for name, role in reserved.items() if role.startswith("target") and name in flat]
    first = {name: found for name in targets if len(found := _first_labels(table, name)) > 1}
    rows = sorted({row for labels in first.values() for row in labels})
    place = {row: i for i, row in enumerate(rows)}
    known = {name: [(place[row], label) for row, label in labels.items()] for name, labels in first.items()}
    alike: dict[str, list[str]] = {name: [] for name in known}
    for name in [name for name in inputs if rows and name in flat]:  # of many columns and tasks nearly all differ soon
        cells = _as_compared(table.head(name, rows[-1] + 1).gather(rows)).to_list()
        for target, labels in known.items():
            if all(cells[i] == label for i, label in labels):
                alike[target].append(name)
    return [
        f"{table.files}, column '{name}': equals column '{target}', the {reserved[target]}, in every labelled row. "
        f"If it is a copy, write data.exclude=[{name}]."
        for target, names in alike.items()
        for name in names
        if _equal(table.values(name), table.values(target))
    ]


def _first_labels(table: AnyTable, name: str) -> dict[int, Any]:
    """The first labels of a column by their rows: enough of them to tell it from nearly all other columns."""
    cells = table.head(name, _PROBE)
    if 2 * cells.count() < min(_PROBE, table.height):  # the first rows are of other tasks, say
        cells = table.values(name)
    rows = cells.is_not_null().arg_true().head(_PROBE)
    return dict(zip(rows.to_list(), _as_compared(cells.gather(rows)).to_list(), strict=True))


def _as_compared(cells: pl.Series) -> pl.Series:
    """Cells, numbers as float64."""
    return cells.cast(pl.Float64) if cells.dtype.is_numeric() else cells


def _equal(values: pl.Series, labels: pl.Series) -> bool:
    """Whether values are the labels in every row that has one."""
    values, labels = _as_compared(values), _as_compared(labels)
    return values.dtype == labels.dtype and bool((values == labels).fill_null(labels.is_null()).all())
