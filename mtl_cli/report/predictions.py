"""What a run's page shows of its predictions and of how tasks share: from curves.json and sharing.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_cli.report import svg

_MOST_TASKS = 24  # a run with hundreds of tasks stays a page
Plot = tuple[str, str]


def prediction_plots(curves: Mapping[str, Any]) -> list[Plot]:
    """Confusion and calibration of classes, predicted against true numbers, task by task."""
    split = curves["split"]
    plots: list[Plot] = []
    for task, found in list(curves["tasks"].items())[:_MOST_TASKS]:
        if "confusion" in found:
            title = f"{task}: rows of each true class (down) by predicted class ({split})"
            plots.append((title, svg.matrix(found["classes"], found["classes"], found["confusion"], by_row=True)))
        if "calibration" in found:
            of = found["classes"][1] if len(found["classes"]) == 2 else "the predicted class"
            title = f"{task}: calibration ({split}), mean distance {found['calibration_error']:.3f}"
            bins = svg.Series("model", [(x, y) for x, y, _ in found["calibration"]])
            perfect = svg.Series("perfect", [(0.0, 0.0), (1.0, 1.0)])
            plots.append((title, svg.lines([bins, perfect], f"predicted chance of {of}", "share that is so")))
        if "points" in found:
            points = found["points"]
            shown = f"{len(points)} of {found['rows']} rows" if len(points) < found["rows"] else f"{len(points)} rows"
            low, high = min(x for x, _ in points), max(x for x, _ in points)
            rows = svg.Series("rows", [(x, y) for x, y in points])
            perfect = svg.Series("perfect", [(low, low), (high, high)])
            title = f"{task}: predicted against true ({split}, {shown})"
            plots.append((title, svg.scatter(rows, perfect, "true", "predicted")))
    return plots


def sharing_plots(said: Mapping[str, Any]) -> list[Plot]:
    """How much of each expert a task takes, and how features or factors of tasks are mixed."""
    tasks = said["tasks"]
    gates = said.get("gates") or []
    levels = gates if isinstance(gates, list) else [gates]
    plots: list[Plot] = []
    for number, level in enumerate(levels, start=1):
        if level.get("weights"):
            title = "mean weight of each expert" + (f", level {number}" if len(levels) > 1 else "")
            plots.append(_rows_of_tasks(title, tasks, level["weights"], "expert"))
    for number, mix in enumerate(said.get("mixes") or [], start=1):
        plots.append(_rows_of_tasks(f"what each task takes of the others, stage {number}", tasks, mix, "task"))
    for name, factors in zip(said.get("matrices") or [], said.get("task_factors") or [], strict=False):
        plots.append(_rows_of_tasks(f"factors of the tasks, {name}", tasks, factors, "factor"))
    return [plot for plot in plots if plot[1]]


def _rows_of_tasks(title: str, tasks: Sequence[str], cells: Sequence[Sequence[float]], of: str) -> Plot:
    if not cells or len(cells) != len(tasks) or not isinstance(cells[0], list):
        return title, ""
    columns = list(tasks) if of == "task" and len(cells[0]) == len(tasks) else [str(i) for i in range(len(cells[0]))]
    return title, svg.matrix(tasks, columns, cells)
