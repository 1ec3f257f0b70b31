"""What a run's page shows of its predictions: from curves.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_cli.report import svg
from mtl_cli.report.plots import MOST_DRAWN, Plot, in_order


def prediction_plots(curves: Mapping[str, Any], order: Sequence[str]) -> list[Plot]:
    """Confusion and calibration of classes, predicted against true numbers, task by task in the user's order."""
    split = curves["split"]
    plots: list[Plot] = []
    for task in in_order(curves["tasks"], order)[:MOST_DRAWN]:
        found = curves["tasks"][task]
        if "confusion" in found:
            title = f"{task}: rows of each true class (down) by predicted class ({split})"
            drawing = svg.matrix(found["classes"], found["classes"], found["confusion"], by_row=True)
            plots.append(Plot(f"confusion-{task}", title, drawing))
        if "calibration" in found:
            of = found["classes"][1] if len(found["classes"]) == 2 else "the likeliest class"
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


def without_confusion(curves: Mapping[str, Any], order: Sequence[str]) -> list[str]:
    """A line on the tasks whose classes are too many for a matrix that can be read; none if there are none."""
    tasks = in_order(curves["tasks"], order)[:MOST_DRAWN]
    counts = {task: len(curves["tasks"][task].get("classes", ())) for task in tasks}
    many = [f"{task} ({n} classes)" for task, n in counts.items() if n and "confusion" not in curves["tasks"][task]]
    return [f"No confusion is drawn of {', '.join(many)}: so many could not be read."] if many else []
