"""How the gradients of the tasks related over a run: what ``trainer.diagnostics_every`` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from mtl_cli.report import svg
from mtl_cli.report.plots import MOST_DRAWN, Plot, in_order, not_all
from mtl_cli.sweep.table import Cell, Column

FEW_IN_COMMON = 0.3  # of the rows: below it a cosine says little (reported by arXiv 2604.07848, a preprint)


def gradient_plots(records: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[Plot]:
    """Mean cosines, conflicts and norms over the steps.

    Args:
        records: The looks, in order.
        order: The tasks in the user's order.
    """
    tasks = _tasks(records, order)
    shown, told = tasks[:MOST_DRAWN], not_all(len(tasks), "tasks", "diagnostics.jsonl")
    plots = []
    if len(tasks) > 1:
        cells = [[1.0 if a == b else _mean(records, "cosine", a, b) for b in shown] for a in shown]
        title = "mean cosine between gradients, below 0 they conflict"
        plots.append(Plot("gradient-cosines", title, svg.matrix(shown, shown, cells, full=1.0), told))
        every = list(combinations(tasks, 2))
        pairs = every[:MOST_DRAWN]
        series = [
            svg.Series(f"{a}, {b}", [(r["step"], _of_pair(r, "cosine", a, b)) for r in records]) for a, b in pairs
        ]
        over = svg.lines(series, "step", "cosine")
        few = not_all(len(every), "pairs", "diagnostics.jsonl")
        plots.append(Plot("gradient-cosines-over-time", "cosine between gradients", over, few))
        conflicts = svg.lines([_over(records, "conflicting", "conflicting")], "step", "share")
        plots.append(Plot("gradient-conflicts", "share of pairs that conflict", conflicts))
        condition = svg.lines([_over(records, "condition", "condition")], "step", "largest / smallest")
        plots.append(Plot("gradient-condition", "condition number of the gradients", condition))
    norms = [_over(records, f"norm/{task}", task) for task in shown]
    plots.append(Plot("gradient-norms", "length of each task's gradient", svg.lines(norms, "step", "norm"), told))
    return plots


def pair_table(records: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[Column]:
    """Each pair of tasks: mean cosine, share of looks in conflict, similarity of lengths, rows in common."""
    tasks = _tasks(records, order)
    pairs = list(combinations(tasks, 2))
    conflicts: list[Cell] = []
    for a, b in pairs:
        cosines = _values(records, "cosine", a, b)
        conflicts.append(fmean(cosine < 0 for cosine in cosines) if cosines else None)
    table = [
        Column("tasks", [f"{a}, {b}" for a, b in pairs]),
        Column("mean cosine", _means(records, "cosine", pairs)),
        Column("looks in conflict", conflicts),
        Column("similarity of lengths", _means(records, "similarity", pairs)),
    ]
    if any(key.startswith("overlap/") for record in records for key in record):
        overlaps = [_mean(records, "overlap", a, b) for a, b in pairs]
        few = [o is not None and o < FEW_IN_COMMON for o in overlaps]
        table.append(Column("rows in common", [*overlaps]))
        table.append(Column("note", ["few rows in common" if is_few else "" for is_few in few]))
    return table


def _tasks(records: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[str]:
    return in_order({key[5:]: None for record in records for key in record if key.startswith("norm/")}, order)


def _values(records: Sequence[Mapping[str, Any]], what: str, a: str, b: str) -> list[float]:
    found = (_of_pair(record, what, a, b) for record in records)
    return [value for value in found if value is not None]


def _of_pair(record: Mapping[str, Any], what: str, a: str, b: str) -> float | None:
    """A number of two tasks, which stands there under the one first in training."""
    value: float | None = record.get(f"{what}/{a}/{b}", record.get(f"{what}/{b}/{a}"))
    return value


def _mean(records: Sequence[Mapping[str, Any]], what: str, a: str, b: str) -> float | None:
    values = _values(records, what, a, b)
    return fmean(values) if values else None


def _means(records: Sequence[Mapping[str, Any]], what: str, pairs: Sequence[tuple[str, str]]) -> list[Cell]:
    return [_mean(records, what, a, b) for a, b in pairs]


def _over(records: Sequence[Mapping[str, Any]], key: str, name: str) -> svg.Series:
    return svg.Series(name, [(record["step"], record.get(key)) for record in records])
