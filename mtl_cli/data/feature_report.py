"""What was decided about every column, as rows and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mtl_cli.data.table import AnyTable

_PROBE = 1000  # rows that are compared before a whole column is
_EXAMPLE = 24  # characters


@dataclass(frozen=True)
class ReportRow:
    """One column of the table.

    Args:
        column: Its name.
        type: ``numeric``, ``date``, ``block``, ``category``, or the storage type of a column that is left out.
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
    notes = []
    for target, role in reserved.items():
        if not role.startswith("target") or target not in table.schema:
            continue
        first = table.head(target, _PROBE)
        for name in inputs:
            if not _equal(table.head(name, _PROBE), first):
                continue
            labels = table.values(target)
            if _equal(table.values(name), labels) and labels.count() > 1:
                notes.append(
                    f"{table.files}, column '{name}': equals column '{target}', the {role}, in every labelled row. "
                    f"If it is a copy, write data.exclude=[{name}]."
                )
    return notes


def _equal(values: pl.Series, labels: pl.Series) -> bool:
    if values.dtype.is_nested() or labels.dtype.is_nested():
        return False
    if values.dtype != labels.dtype:
        if not (values.dtype.is_numeric() and labels.dtype.is_numeric()):
            return False
        values, labels = values.cast(pl.Float64), labels.cast(pl.Float64)
    return bool((values == labels).fill_null(labels.is_null()).all())
