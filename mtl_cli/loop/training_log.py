"""What is told of each epoch and each evaluation: in metrics.jsonl, and on the console."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_cli.loop.evaluate import Evaluation
from mtl_cli.loop.monitor import Best
from mtl_cli.loop.progress import Progress
from mtl_cli.loop.totals import Totals
from mtl_cli.report_text import format_number
from mtl_cli.run.metrics_log import MetricsLog
from mtl_cli.tasks import Task

log = logging.getLogger(__name__)
_MOST_TASKS = 6  # that the line of an evaluation names one by one


class TrainingLog:
    """Tells how training goes.

    Args:
        metrics: The metrics of the run.
        tasks: K tasks.
        progress: Where training stands.
        skips: Whether steps may be skipped: then the records say how many were.
    """

    def __init__(self, metrics: MetricsLog, tasks: Sequence[Task], progress: Progress, *, skips: bool) -> None:
        self._metrics, self._tasks, self._progress, self._skips = metrics, tasks, progress, skips
        self._broken_down: tuple[str, ...] = ()  # tasks for want of which the last evaluation has no mean

    def write_epoch(self, losses: Mapping[str, float | None], totals: Totals, lr: float) -> None:
        """Writes the record of an epoch: the mean loss, the mean weight and the gradient length of each task.

        The weight is the mean over the steps in which the task had labels. So is the length of its gradient if the
        method needs the gradients; else it is that of the epoch's first batch.

        Args:
            losses: Of each task, the mean over the epoch; None without labels.
            totals: What the epoch has added up to.
            lr: The learning rate of its last step.
        """
        record: dict[str, Any] = {"split": "train", "epoch": self._progress.begun, "step": self._progress.step}
        record.update({f"train/{name}/loss": value for name, value in losses.items()})
        known = [task.weight * value for task in self._tasks if (value := losses[task.name]) is not None]
        record["train/loss"] = sum(known) if known else None
        for key, tally in (("weight", totals.weights), ("gradient_norm", totals.gradient_norms)):
            if not tally.empty:
                means = zip(self._tasks, tally.means(), strict=True)
                record.update({f"train/{task.name}/{key}": mean for task, mean in means})
        record.update({f"rows/{source}": count for source, count in totals.rows_by_source().items()})
        if self._skips:
            record["skipped"] = self._progress.skipped
        record["lr"] = lr
        self._metrics.append(record)

    def warn_without_gradient(self, tasks: Sequence[int]) -> None:
        """Warns of tasks, by position, that a method on gradients had to leave out of a step of the epoch."""
        if tasks:
            log.warning(
                "epoch %d: the gradient of %s on the shared parameters was zero in some step; it had no weight there",
                self._progress.begun, ", ".join(self._tasks[task].name for task in tasks),
            )  # fmt: skip

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes the record of an evaluation, and warns if predictions are such that it has no mean."""
        progress = self._progress
        self._metrics.append({"split": "val", "epoch": progress.begun, "step": progress.step, **evaluation.flat("val")})
        if evaluation.broken_down and evaluation.broken_down != self._broken_down:
            what = "epoch %d: no mean, for predictions of %s are not finite, or too large to score"
            log.warning(what, progress.begun, ", ".join(evaluation.broken_down))
        self._broken_down = evaluation.broken_down

    def show_evaluation(self, evaluation: Evaluation, losses: Mapping[str, float | None], best: Best) -> None:
        """Shows an evaluation on the console, with the mean training losses of the epoch before it.

        Args:
            evaluation: The evaluation.
            losses: Of each task; None without labels.
            best: The best so far, this evaluation among them if it is one.
        """
        score = best.monitor.value(evaluation)
        mark = " *" if best.entries and best.entries[0][2] == self._progress.step else ""
        count = len(evaluation.primary) - len(evaluation.auxiliary)  # of those that the number is over
        some = best.monitor.over_tasks and evaluation.undefined
        note = f" ({count - len(evaluation.undefined)} of {count} tasks)" if some else ""
        log.info(
            "epoch %d: train loss %s | val loss %s | %s %s%s%s | %s",
            self._progress.begun,
            format_number(sum(task.weight * (losses[task.name] or 0.0) for task in self._tasks)),
            format_number(evaluation.loss), best.monitor.name, format_number(score), note, mark, _by_task(evaluation),
        )  # fmt: skip


def _by_task(evaluation: Evaluation) -> str:
    """The primary metric of each task, or the worst where there are many."""
    primary = evaluation.primary
    if len(primary) > _MOST_TASKS:
        return f"worst {format_number(evaluation.worst)}, {len(primary)} tasks"
    return ", ".join(
        f"{name} {metric} {format_number(evaluation.tasks[name][metric])}" for name, metric in primary.items()
    )
