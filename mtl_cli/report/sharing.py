"""What a run's page shows of how tasks share: every finding of sharing.json, whatever architecture has written it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_cli.report import svg
from mtl_cli.report.plots import Plot, not_all
from mtl_cli.sweep.table import Column, markdown_table

_MOST_FINDINGS = 24  # a deep encoder has many weight matrices
_MOST_NAMES = 64  # of rows and of columns; a run with hundreds of tasks stays a page
OTHER_FORM = "sharing.json has the form of another version of mtl-train; its numbers are not shown."


@dataclass(frozen=True)
class _Shown:
    """A finding with its rows and columns in the user's order, and what there is to read about it."""

    name: str
    title: str
    told: list[str]
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]


def sharing_plots(said: Mapping[str, Any], order: Sequence[str]) -> list[Plot]:
    """A heat map of each finding.

    Args:
        said: What ``sharing.json`` says.
        order: The tasks in the user's order.
    """
    return [
        Plot(one.name, one.title, svg.matrix(one.rows, one.columns, one.values), one.told)
        for one in _findings(said, order)
    ]


def sharing_markdown(said: Mapping[str, Any], order: Sequence[str]) -> str:
    """A table of each finding, in Markdown."""
    parts = []
    for one in _findings(said, order):
        table = [Column("", [*one.rows])]
        table += [Column(name, [row[j] for row in one.values]) for j, name in enumerate(one.columns)]
        parts.append(f"### {one.title}\n\n{' '.join(one.told)}\n\n{markdown_table(table)}")
    return "\n".join(parts)


def sharing_left_out(said: Mapping[str, Any]) -> str:
    """A sentence on what is not shown; empty if all is."""
    if "findings" not in said:
        return OTHER_FORM
    more = len(said["findings"]) - _MOST_FINDINGS
    return f"sharing.json has {more} more." if more > 0 else ""


def _findings(said: Mapping[str, Any], order: Sequence[str]) -> list[_Shown]:
    return [_shown(finding, order) for finding in said.get("findings", [])[:_MOST_FINDINGS]]


def _shown(finding: Mapping[str, Any], order: Sequence[str]) -> _Shown:
    rows, columns, values = finding["rows"], finding["columns"], finding["values"]
    down, across = _places(rows, order), _places(columns, order)
    told = [finding["meaning"], *finding["notes"]]
    for names, what in ((rows, "rows"), (columns, "columns")):
        told += not_all(len(names), what, "sharing.json", _MOST_NAMES)
    return _Shown(
        finding["name"],
        finding["title"],
        told,
        [_text(rows[i]) for i in down],
        [_text(columns[j]) for j in across],
        [[values[i][j] for j in across] for i in down],
    )


def _places(names: Sequence[str | Sequence[str]], order: Sequence[str]) -> list[int]:
    """Positions of what is shown of the names: tasks and their parts in the user's order, others behind them."""
    tasks = [name if isinstance(name, str) else name[0] for name in names]
    ranks = [order.index(task) if task in order else len(order) for task in tasks]
    return sorted(range(len(names)), key=lambda place: ranks[place])[:_MOST_NAMES]


def _text(name: str | Sequence[str]) -> str:
    return name if isinstance(name, str) else " ".join(name)
