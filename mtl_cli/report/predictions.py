"""What a run's page shows of its predictions and of how tasks share: from curves.json and sharing.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_cli.report import svg
from mtl_cli.report.plots import Plot, in_order

_MOST_TASKS = 24  # a run with hundreds of tasks stays a page


def prediction_plots(curves: Mapping[str, Any], order: Sequence[str]) -> list[Plot]:
    """Confusion and calibration of classes, predicted against true numbers, task by task in the user's order."""
    split = curves["split"]
    plots: list[Plot] = []
    for task in in_order(curves["tasks"], order)[:_MOST_TASKS]:
        found = curves["tasks"][task]
        if "confusion" in found:
            title = f"{task}: rows of each true class (down) by predicted class ({split})"
            drawing = svg.matrix(found["classes"], found["classes"], found["confusion"], by_row=True)
            plots.append(Plot(f"confusion-{task}", title, drawing))
        if "calibration" in found:
            of = found["classes"][1] if len(found["classes"]) == 2 else "the predicted class"
            told = f"mean distance {found['calibration_error']:.3f}; larger dots, more rows"
            title = f"{task}: calibration ({split}), {told}"
            x, y, rows = zip(*found["calibration"], strict=True)
            bins = svg.Series("model", list(zip(x, y, strict=True)), rows)
            perfect = svg.Series("perfect", [(0.0, 0.0), (1.0, 1.0)])
            drawing = svg.lines([bins, perfect], f"predicted chance of {of}", "share that is so")
            plots.append(Plot(f"calibration-{task}", title, drawing))
        if "points" in found:
            points = found["points"]
            shown = f"{len(points)} of {found['rows']} rows" if len(points) < found["rows"] else f"{len(points)} rows"
            low, high = min(x for x, _ in points), max(x for x, _ in points)
            dots = svg.Series("rows", [(x, y) for x, y in points])
            perfect = svg.Series("perfect", [(low, low), (high, high)])
            title = f"{task}: predicted against true ({split}, {shown})"
            plots.append(Plot(f"predicted-{task}", title, svg.scatter(dots, perfect, "true", "predicted")))
    return plots


def sharing_plots(said: Mapping[str, Any], order: Sequence[str]) -> list[Plot]:
    """How much of each expert a task takes, and how features or factors of tasks are mixed; in the user's order."""
    tasks = said["tasks"]
    gates = said.get("gates") or []
    levels = gates if isinstance(gates, list) else [gates]
    plots: list[Plot] = []
    for number, level in enumerate(levels, start=1):
        if level.get("weights"):
            name, title = "expert-use", "mean weight of each expert"
            if len(levels) > 1:
                name, title = f"{name}-level-{number}", f"{title}, level {number}"
            plots += _rows_of_tasks(name, title, tasks, order, level["weights"], "expert")
    for number, mix in enumerate(said.get("mixes") or [], start=1):
        title = f"what each task takes of the others, stage {number}"
        plots += _rows_of_tasks(f"mixing-stage-{number}", title, tasks, order, mix, "task")
    for name, factors in zip(said.get("matrices") or [], said.get("task_factors") or [], strict=False):
        plots += _rows_of_tasks(f"factors-{name}", f"factors of the tasks, {name}", tasks, order, factors, "factor")
    return plots


def _rows_of_tasks(
    name: str, title: str, tasks: Sequence[str], order: Sequence[str], cells: Sequence[Sequence[float]], of: str
) -> list[Plot]:
    if not cells or len(cells) != len(tasks) or not isinstance(cells[0], list):
        return []
    rows = in_order(tasks, order)
    places = [tasks.index(task) for task in rows]
    if of == "task" and len(cells[0]) == len(tasks):
        return [Plot(name, title, svg.matrix(rows, rows, [[cells[i][j] for j in places] for i in places]))]
    columns = [str(number) for number in range(len(cells[0]))]
    return [Plot(name, title, svg.matrix(rows, columns, [cells[i] for i in places]))]
