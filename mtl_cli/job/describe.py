"""What the console shows of a run before it trains: columns, rows, tasks, parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from mtl_cli.build import Data, choose_device
from mtl_cli.data.feature_report import format_report
from mtl_cli.errors import listed
from mtl_cli.job.setting_up import Run
from mtl_cli.report_text import at_most, format_number, text_table
from mtl_cli.results_text import FEW, MANY_TASKS

_MOST_COLUMNS = 40  # of more the console shows the first


def describe(run: Run, *, whole: bool = False) -> str:
    """What is about to be trained: columns, tasks with their labels and first loss, parameters.

    Args:
        run: The run.
        whole: Every column, task and note, for a dry run, which leaves no file that has them; else some of many.
    """
    first_losses = run.trainer.mean_losses(run.trainer.val)
    blocks = [
        *_columns(run.data, whole),
        "",
        *_rows(run),
        *_notes(run, whole),
        "",
        *_tasks(run, first_losses, whole),
        "",
        _parameters(run, whole),
        "",
        _settings(run),
        *([] if run.start is None else ["", run.start.describe()]),
    ]
    return "\n".join(blocks)


def _columns(data: Data, whole: bool) -> list[str]:
    report = format_report(data.features.report())
    return [f"columns ({data.table.files})", report if whole else _shorten(report)]


def _shorten(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= _MOST_COLUMNS:
        return text
    more = f"... and {len(lines) - _MOST_COLUMNS} more columns (all in data.json)"
    return "\n".join([*lines[:_MOST_COLUMNS], more])


def _rows(run: Run) -> list[str]:
    """The rows of each split, how they are held, and where they come from."""
    splits, storage = run.data.splits, run.data.storage
    sizes = f"{len(splits.train):,} train, {len(splits.val):,} val, {len(splits.test):,} test"
    return [f"rows: {sizes}, {splits.method}", *([storage] if storage else []), *_sources(run)]


def _sources(run: Run) -> list[str]:
    """The rows of each source and how many of them an epoch draws; nothing where there is one source."""
    names = run.data.table.sources
    if names == ("",):
        return []
    codes, drawn = run.data.table.source_of_rows(), _drawn(run)
    sizes = {s: np.bincount(codes[getattr(run.data.splits, s)], minlength=len(names)) for s in ("train", "val", "test")}
    rows = [
        [
            name,
            *(f"{sizes[split][i]:,}" for split in sizes),
            f"{drawn[i]:,}",
            ", ".join(_labelled_in(run.data, np.flatnonzero(codes == i))),
        ]
        for i, name in enumerate(names)
    ]
    header = ["source", "train", "val", "test", "in first epoch", "tasks"]
    return ["", text_table(header, rows), f"mixing {run.trainer.schedule.mixing.method}", ""]


def _drawn(run: Run) -> np.ndarray:
    """(S,) rows that the first epoch draws from each source, without those of a last batch that is left out."""
    train, schedule = run.trainer.train, run.trainer.schedule
    if schedule.drop_last:
        drawn: np.ndarray = schedule.plan(train, 0, np.ones(len(run.data.tasks))).drawn.sum(0)
        return drawn
    return schedule.mixing.counts(np.array([len(own) for own in train.by_source()]), 0)


def _labelled_in(data: Data, rows: np.ndarray) -> list[str]:
    """The tasks that some rows have labels for."""
    return [task.name for i, task in enumerate(data.tasks) if not np.isnan(data.targets_of(i, rows)).all()]


def _notes(run: Run, whole: bool) -> list[str]:
    notes = run.data.notes if whole else at_most(run.data.notes, MANY_TASKS)
    return [f"note: {note}" for note in [*notes, *_idle(run), *_cost(run), *_unheeded(run)]]


def _idle(run: Run) -> list[str]:
    """Sources whose training rows have no label for any task (of those that ``only`` leaves), and what they take."""
    names, train = run.data.table.sources, run.data.splits.train
    if len(names) == 1:
        return []
    codes, drawn = run.data.table.source_of_rows()[train], _drawn(run)
    return [
        f"source '{name}' has no training label for any task, and gives {drawn[i]:,} of the {drawn.sum():,} rows of "
        "the first epoch. To spare them, leave it out, with the tasks and inputs that it alone has."
        for i, name in enumerate(names)
        if not _labelled_in(run.data, train[codes == i])
    ]


def _cost(run: Run) -> list[str]:
    """What a method that takes a gradient for each task costs where there are many."""
    name, tasks = run.config.balancing.name, len(run.data.tasks)
    if tasks <= MANY_TASKS or not run.trainer.learner.balancing.needs_shared:
        return []
    what = f"takes the gradient of each of the {tasks} tasks in every step, where balancing=equal takes one"
    return [f"balancing {name} {what}: expect steps that are many times slower."]


def _unheeded(run: Run) -> list[str]:
    """Weights of tasks that the method makes up for."""
    given = {name: task.common.weight for name, task in run.config.tasks.items()}
    weights = [f"tasks.{name}.weight={weight:g}" for name, weight in given.items() if weight not in (0, 1)]
    balancing = run.trainer.learner.balancing
    if not weights or balancing.heeds_weights:
        return []
    direction = f"balancing {run.config.balancing.name} goes in the same direction without {listed(weights, FEW)}"
    if balancing.heads_heed_weights:
        return [f"{direction} on the shared parameters: only parameters of single tasks learn by them."]
    return [f"{direction}."]


def _tasks(run: Run, first_losses: Mapping[str, float | None], whole: bool) -> list[str]:
    """The tasks in the user's order, with their labels; of many those with the fewest training labels."""
    names, left_out = list(run.config.tasks), []
    if len(names) > MANY_TASKS and not whole:
        fewest = sorted(names, key=lambda name: run.data.label_counts[name]["train"].labelled)[:FEW]
        left_out = [f"the {FEW} tasks with the fewest training labels of {len(names)} (all in summary.json in the end)"]
        names = [name for name in names if name in fewest]
    weights = {task.name: task.weight for task in run.data.tasks}
    rows = []
    for name in names:
        counts = run.data.label_counts[name]
        cells = [f"{c.labelled:,}" + (f" ({c.missing:,} missing)" if c.missing else "") for c in counts.values()]
        kind, loss = run.config.tasks[name].kind.name, format_number(first_losses[name])
        rows.append([name, kind, *cells, f"{weights[name]:g}", loss, counts["train"].balance])
    header = ["task", "kind", "train", "val", "test", "weight", "first val loss", "training labels"]
    return [text_table(header, rows), *left_out]


def _parameters(run: Run, whole: bool) -> str:
    """How many parameters are shared and of each task, and how many of them are frozen if some are."""
    model, names = run.trainer.learner.model, list(run.config.tasks)
    columns = {"number": model.count_parameters(), "frozen": model.count_frozen()}
    if not columns["frozen"].total:
        del columns["frozen"]
    counts = columns.values()
    if len(names) > MANY_TASKS and not whole:
        by_task = [_counts(f"{len(names)} tasks", (sum(count.tasks) for count in counts))]
    else:
        positions = {task.name: position for position, task in enumerate(run.data.tasks)}
        by_task = [_counts(name, (count.tasks[positions[name]] for count in counts)) for name in names]
    rows = [
        _counts("shared", (count.shared for count in counts)),
        *by_task,
        _counts("total", (count.total for count in counts)),
    ]
    return text_table(["parameters", *columns], rows)


def _counts(name: str, numbers: Iterable[int]) -> list[str]:
    return [name, *(f"{number:,}" for number in numbers)]


def _settings(run: Run) -> str:
    """The components, the length of an epoch, and what computes."""
    config, trainer = run.config, run.trainer
    count = trainer.learner.processes.size
    return (
        f"sharing {config.sharing.name}, encoder {config.encoder.name}, balancing {config.balancing.name}, "
        f"{trainer.schedule.steps(trainer.train, 0)} steps per epoch, device {choose_device(config)}, "
        f"{torch.get_num_threads()} CPU thread(s)" + (f" in each of {count} processes" if count > 1 else "")
    )
