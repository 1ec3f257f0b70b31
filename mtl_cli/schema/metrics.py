"""The metrics of tasks, what a run may be judged by, and in which direction it is better."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mtl_cli.registry import KINDS
from mtl_cli.schema.config import TaskConfig
from mtl_cli.schema.options import RankingOptions


def task_metrics(tasks: Mapping[str, TaskConfig]) -> dict[str, dict[str, bool | None]]:
    """For each task the metrics it reports, and whether higher is better (None: neither)."""
    found = {}
    for name, task in tasks.items():
        known = known_metrics(task.kind.name, task.common.ranking)
        found[name] = {metric: known[metric] for metric in task.common.metrics or known}
    return found


def known_metrics(kind: str, ranking: RankingOptions | None) -> dict[str, bool | None]:
    """Metrics that a task can report: of the lists that it ranks, if it does, and of its kind."""
    listed = {} if ranking is None else {f"ndcg@{ranking.k}": True, f"hr@{ranking.k}": True}
    return {**listed, **KINDS.literal(kind, "metrics")}


def is_higher_better(monitor: str, tasks: Mapping[str, TaskConfig] = MappingProxyType({})) -> bool:
    """Whether a higher value of what is monitored is better.

    Args:
        monitor: A name as ``monitor_names`` has them.
        tasks: The tasks, whose kinds say it; of one that is not known the name of the metric does.

    Example:
        >>> is_higher_better("mean"), is_higher_better("val/loss"), is_higher_better("val/income/rmse")
        (True, False, False)
    """
    *_, task, metric = ["", *monitor.split("/")]
    better: dict[str, bool | None] = {"loss": False}
    for kind in KINDS.names():
        better |= KINDS.literal(kind, "metrics")
    if task in tasks:
        better |= task_metrics({task: tasks[task]})[task]
    return better.get(metric) is not False


def best_by(monitor: str, of_checkpoint: str | None) -> str:
    """What makes an epoch the best, and is the score of its run: in a sweep the jobs are ranked, and searched, by it.

    Args:
        monitor: The run's ``monitor``.
        of_checkpoint: ``trainer.checkpoint.monitor``, which goes first.

    Example:
        >>> best_by("mean", None), best_by("mean", "val/loss")
        ('mean', 'val/loss')
    """
    return of_checkpoint or monitor


def monitor_names(tasks: Mapping[str, TaskConfig]) -> list[str]:
    """Everything that ``monitor`` may be: a task without labels has no number."""
    labelled = {name: task for name, task in tasks.items() if task.common.labelled}
    names = ["mean", "worst", "loss", "val/mean", "val/worst", "val/loss"]
    return names + [
        f"val/{task}/{metric}"
        for task, metrics in task_metrics(labelled).items()
        for metric in ("loss", *(m for m, better in metrics.items() if better is not None))
    ]
