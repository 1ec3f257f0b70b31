"""Metrics as text: the table of a split, and notes on metrics that are not defined."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from mtl_cli.report_text import at_most, format_number, text_table

if TYPE_CHECKING:
    from mtl_cli.loop.evaluate import Evaluation
    from mtl_cli.schema import RunConfig
    from mtl_cli.tasks import LabelCounts

MANY_TASKS = 20  # of more the console shows a few, the files all
FEW = 8


def results_table(config: RunConfig, evaluation: Evaluation, split: str, everything: str = "summary.json") -> str:
    """The metrics of each task on a split; of many tasks the worst few.

    Args:
        config: The run's configuration.
        evaluation: The metrics.
        split: Its name.
        everything: Where the metrics of all tasks stand.
    """
    rows = []
    shown = list(config.tasks)
    if len(shown) > MANY_TASKS:
        values = {name: evaluation.tasks[name][evaluation.primary[name]] for name in shown}
        shown = sorted((n for n in shown if values[n] is not None), key=lambda n: values[n] or 0.0)[:FEW]
    for name in shown:
        scores = evaluation.tasks[name]
        main = evaluation.primary[name]
        others = ", ".join(
            f"{metric} {format_number(value)}" for metric, value in scores.items() if metric not in (main, "loss")
        )
        rows.append([name, main, format_number(scores[main]), format_number(scores["loss"]), others])
    counted = len(config.tasks) - len(evaluation.undefined) - len(evaluation.auxiliary)
    note = f" of {counted} of {len(config.tasks)} tasks" if counted < len(config.tasks) else ""
    table = text_table([split, "metric", "value", "loss", "also"], rows)
    if len(shown) < len(config.tasks):
        table += f"\nthe {len(shown)} worst of {len(config.tasks)} tasks (all in {everything})"
    return f"{table}\nmean{note}: {format_number(evaluation.mean)}"


def undefined_notes(
    config: RunConfig,
    evaluation: Evaluation,
    counts: Mapping[str, LabelCounts],
    split: str,
    left_out: Collection[str] = (),
) -> list[str]:
    """One line for each task some of whose metrics are not defined for its labels, or spoilt by its predictions.

    None for a task that is meant to have no labels, or of which ``left_out`` says that this is told.
    """
    notes = []
    for name, scores in evaluation.tasks.items():
        if not config.tasks[name].common.labelled or name in left_out:
            continue
        spoilt = evaluation.spoilt.get(name, ())
        if spoilt:
            what = f"{split}: predictions of task '{name}' are not finite, or too large to score"
            without = "; so there is no mean" if name in evaluation.broken_down else ""
            notes.append(f"{what}: it has no {', '.join(spoilt)}{without}.")
        lacking = [metric for metric, value in scores.items() if value is None and metric not in spoilt]
        if lacking:
            count = counts[name].labelled
            labels = f"{count} label{'' if count == 1 else 's'}" + (f", {counts[name].balance}" if count else "")
            notes.append(f"{split}: not defined for the labels of task '{name}' ({labels}): {', '.join(lacking)}.")
    return at_most(notes, MANY_TASKS)
