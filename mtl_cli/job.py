"""One run from a checked configuration to its summary: what ``mtl-train`` does for every job."""

from __future__ import annotations

import logging
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtl_cli.build import (
    DATA_FORMAT,
    Data,
    build_data,
    build_learner,
    build_loggers,
    build_mixing,
    build_monitor,
    check_features,
    choose_device,
    refuse_lone_rows,
)
from mtl_cli.data import Features
from mtl_cli.data.feature_report import format_report
from mtl_cli.errors import Problem, RunError
from mtl_cli.loop import Trainer
from mtl_cli.loop.evaluate import Evaluation
from mtl_cli.loop.monitor import Best, EarlyStopping
from mtl_cli.loop.progress import Limits
from mtl_cli.loop.trainer import Interrupted, Schedule
from mtl_cli.model.findings import as_json
from mtl_cli.processes import ALONE, ProcessGroup
from mtl_cli.report_text import at_most, format_number, text_table
from mtl_cli.run import RunFolder, digest, versions
from mtl_cli.run.checkpoint import load
from mtl_cli.run.loggers import Followers, RunFacts
from mtl_cli.schema import RunConfig, best_by, seconds, task_metrics
from mtl_cli.steps import Clock, Steps, run_alone
from mtl_cli.tasks import LabelCounts
from mtl_cli.trained import TrainedRun, load_run, stored_features
from mtl_cli.warm_start import Start, start

log = logging.getLogger(__name__)
MANY_TASKS = 20  # of more the console shows a few, the files all
FEW = 8
_CHECKED_ROWS = 4  # that components of the user's are tried on
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Run:
    """The parts of a run that was set up."""

    config: RunConfig
    data: Data
    trainer: Trainer
    folder: RunFolder
    start: Start | None = None  # what its weights started from, if they did from another run's


def train(
    config: RunConfig,
    folder: RunFolder,
    *,
    resume: bool,
    processes: ProcessGroup = ALONE,
) -> float | None:
    """Trains in a claimed folder whose config is written.

    Args:
        config: The configuration.
        folder: The folder.
        resume: Go on from ``checkpoints/last.pt`` if there is one.
        processes: Those that train together.

    Returns:
        The best value of what is monitored, None if it was never defined.

    Raises:
        UserError: The data or the checkpoint cannot be used.
        TrainingError: Training could not go on.
        Interrupted: A signal asked to stop; the state is saved.
    """
    return run_alone(training(config, folder, resume=resume, processes=processes))


def training(
    config: RunConfig,
    folder: RunFolder,
    *,
    resume: bool,
    interrupted: Callable[[], int | None] | None = None,
    late: Callable[[int], None] = lambda _: None,
    read: Callable[[RunConfig, Features | None], Data] = build_data,
    bar: bool = True,
    processes: ProcessGroup = ALONE,
    clock: Clock = time.monotonic,
) -> Steps[float | None]:
    """``train``, for whoever makes the steps: of one run, or of several together.

    Args:
        config: The configuration.
        folder: The folder.
        resume: Go on from ``checkpoints/last.pt`` if there is one.
        interrupted: Gives the number of a signal that asked to stop, or None; by default this listens for signals.
        late: Told the number of one that came when the last step was made: the run ends as if there had been none.
        read: Reads the data.
        bar: Whether to show a progress bar.
        processes: Those that train together.
        clock: The time that the run takes.
    """
    with _Trackers(config, folder) as trackers:
        started = clock()
        with signals() if interrupted is None else nullcontext(interrupted) as asked:
            with processes.alike():
                folder.set_status("running")
                settings = digest(folder.read_settings())
                begun = resume and bool(folder.checkpoints())
                origin = None if begun or config.init_from is None else load_run(config.init_from, device="cpu")
                columns = _stored_columns(config, folder) if begun else None
                config = _read_as_begun(config, folder) if begun else config
                run = set_up(
                    config, folder, asked, origin=origin, columns=columns, read=read, bar=bar, processes=processes,
                    clock=clock,
                )  # fmt: skip
                trainer = run.trainer
                if resume:
                    _refuse_other_data(run)
            hint = f"All of them must find {run.data.table.files} as they were for the first."
            processes.refuse_difference(lambda: run.data.table.fingerprint, "data", hint)
            folder.write_sealed("data.json", run.data.state(config))
            log.info("%s", describe(run))
            if run.start is not None:
                folder.write_json("init.json", run.start.to_json())
            if begun:
                with processes.alike():
                    damaged = _load_newest(trainer)
                if damaged:  # it must not outlive a run that has nothing left to train
                    trainer.save("last")
                _reopen(trainer)
                log.info("resumed after epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)
            else:
                trainer.diagnostics.truncate(0)
                trainer.metrics.truncate(0)  # of a process that died before its first checkpoint
            trackers.follow(run)
            yield from trainer.steps()
            too_late = asked()
            train_seconds = trainer.seconds()
        summary = _summarise(run, train_seconds)
        summary |= {"seconds": round(clock() - started, 3), "config": settings}
        folder.write_json("summary.json", summary)
        folder.set_status("done", exit_code=0)
        trackers.final = {key: value for key, value in summary["metrics"].items() if key.startswith("test/")}
        log.info("run folder: %s", folder.path)
        if too_late is not None:
            late(too_late)
        return trainer.best.score


def audit(config: RunConfig, folder: Path) -> None:
    """``dry_run=true``: everything that can fail is tried, and nothing is left behind.

    Reads the data, prints what there is, makes one training and one evaluation step, writes a checkpoint where the
    run would be and reads it back.
    """
    folder.mkdir(parents=True, exist_ok=True)  # the very disk that the run would write to
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".dry-run-") as scratch,
        RunFolder.claim(Path(scratch) / "run") as claimed,
    ):
        origin = None if config.init_from is None else load_run(config.init_from, device="cpu")
        run = set_up(config, claimed, lambda: None, Limits(None, 1, None), origin=origin)
        log.info("%s", describe(run, whole=True))
        trainer = run.trainer
        trainer.fit()
        trainer.load("last")
        evaluation = trainer.evaluate(trainer.val)
        flops = f"{flops_per_row(run):,} FLOPs per row in matrix products and convolutions"
        log.info("forward pass: %s", flops)
        log.info("one training step, one evaluation, one checkpoint written and read: all well")
        log.info("validation loss after one step: %s", format_number(evaluation.loss))
    log.info("dry run: nothing was kept")


def set_up(
    config: RunConfig,
    folder: RunFolder,
    interrupted: Callable[[], int | None],
    limits: Limits | None = None,
    *,
    origin: TrainedRun | None = None,
    columns: Features | None = None,
    read: Callable[[RunConfig, Features | None], Data] = build_data,
    bar: bool = True,
    processes: ProcessGroup = ALONE,
    clock: Clock = time.monotonic,
) -> Run:
    """Reads the data and builds everything.

    Args:
        config: The configuration.
        folder: The run folder.
        interrupted: See ``Trainer``.
        limits: How long to train; None: as the configuration says.
        origin: A run to start from.
        columns: How to read input columns that are the same; None: as ``origin`` does, or by the data alone.
        read: Reads the data.
        bar: Whether to show a progress bar.
        processes: Those that train together.
        clock: The time that training takes.
    """
    if origin is not None:
        columns = origin.features
    data = read(config, columns)
    options = config.trainer
    if limits is None:
        budget = None if options.max_time is None else seconds(options.max_time)
        limits = Limits(options.max_epochs, options.max_steps, budget)
    device = choose_device(config)
    rows = data.rows("train", device)
    schedule = Schedule(
        config.data.batch_size * options.accumulate_grad_batches,
        config.data.shuffle, config.data.drop_last, config.seed,
        options.check_val_every_n_epoch, options.checkpoint.every_n_steps, build_mixing(config, rows),
        options.on_nonfinite == "skip", options.diagnostics_every,
    )  # fmt: skip
    steps = schedule.total_steps(rows, options.max_epochs or 0)
    total = min(s for s in (steps or options.max_steps, options.max_steps or steps, 10**9) if s)
    learner = build_learner(config, data, total, processes)
    if learner.scheduler.warmup_steps >= total:
        what = "scheduler.warmup_steps: %d, and the run has %d steps: the learning rate never gets to optimizer.lr"
        log.warning(what, learner.scheduler.warmup_steps, total)
    check_features(learner.model, rows.example(_CHECKED_ROWS))
    refuse_lone_rows(config, learner, rows, schedule.mixing)
    begin = None if origin is None else start(origin, config, data, learner.model)
    best = Best(
        build_monitor(best_by(config.monitor, options.checkpoint.monitor), config.tasks), options.checkpoint.save_top_k
    )
    stop = options.early_stopping
    stopping = EarlyStopping(build_monitor(stop.monitor or config.monitor, config.tasks), stop.patience, stop.min_delta)
    trainer = Trainer(
        learner,
        data.tasks,
        rows,
        data.rows("val", device),
        folder,
        limits,
        schedule,
        best,
        stopping,
        interrupted,
        partial(_name_rows, data, config.data.id),
        bar,
        clock,
    )
    return Run(config, data, trainer, folder, begin)


def describe(run: Run, *, whole: bool = False) -> str:
    """What is about to be trained: columns, tasks with their labels and first loss, parameters.

    Args:
        run: The run.
        whole: Every column, task and note, for a dry run, which leaves no file that has them; else some of many.
    """
    data, trainer, config = run.data, run.trainer, run.config
    count = trainer.learner.processes.size
    splits = {name: getattr(data.splits, name) for name in ("train", "val", "test")}
    sizes = ", ".join(f"{len(index):,} {name}" for name, index in splits.items())
    first = trainer.mean_losses(trainer.val)
    labels: list[list[str]] = []
    labelled: dict[str, int] = {}
    positions = {task.name: position for position, task in enumerate(data.tasks)}
    for name in config.tasks:  # in the user's order
        task, counts = data.tasks[positions[name]], data.label_counts[name]
        cells = [f"{c.labelled:,}" + (f" ({c.missing:,} missing)" if c.missing else "") for c in counts.values()]
        labelled[name] = counts["train"].labelled
        loss = format_number(first[name])
        labels.append([name, config.tasks[name].kind.name, *cells, f"{task.weight:g}", loss, counts["train"].balance])
    header = ["task", "kind", "train", "val", "test", "weight", "first val loss", "training labels"]
    model = trainer.learner.model
    columns = {"number": model.count_parameters()}
    if model.count_frozen().total:
        columns["frozen"] = model.count_frozen()
    order = [positions[name] for name in config.tasks]
    counted = [[data.tasks[i].name, *(f"{counts.tasks[i]:,}" for counts in columns.values())] for i in order]
    more = []
    if len(order) > MANY_TASKS and not whole:
        fewest = sorted(labelled, key=labelled.__getitem__)[:FEW]
        labels = [row for row in labels if row[0] in fewest]
        more = [f"the {FEW} tasks with the fewest training labels of {len(order)} (all in summary.json in the end)"]
        counted = [[f"{len(order)} tasks", *(f"{sum(counts.tasks):,}" for counts in columns.values())]]
    counted = [
        ["shared", *(f"{counts.shared:,}" for counts in columns.values())],
        *counted,
        ["total", *(f"{counts.total:,}" for counts in columns.values())],
    ]
    report = format_report(data.features.report())
    notes = data.notes if whole else at_most(data.notes, MANY_TASKS)
    parts = [
        f"columns ({data.table.files})", report if whole else _shorten(report), "",
        f"rows: {sizes}, {data.splits.method}", *([data.storage] if data.storage else []), *_describe_sources(run),
        *(f"note: {note}" for note in [*notes, *_cost(run)]), "",
        text_table(header, labels), *more, "",
        text_table(["parameters", *columns], counted), "",
        f"sharing {config.sharing.name}, encoder {config.encoder.name}, balancing {config.balancing.name}, "
        f"{trainer.schedule.steps(trainer.train, 0)} steps per epoch, device {choose_device(config)}, "
        f"{torch.get_num_threads()} CPU thread(s)" + (f" in each of {count} processes" if count > 1 else ""),
        *([] if run.start is None else ["", run.start.describe()]),
    ]  # fmt: skip
    return "\n".join(parts)


def _cost(run: Run) -> list[str]:
    """What a method that takes a gradient for each task costs where there are many."""
    name, tasks = run.config.balancing.name, len(run.data.tasks)
    if tasks <= MANY_TASKS or not run.trainer.learner.balancing.needs_shared:
        return []
    what = f"takes the gradient of each of the {tasks} tasks in every step, where balancing=equal takes one"
    return [f"balancing {name} {what}: expect steps that are many times slower."]


def flops_per_row(run: Run) -> int:
    """FLOPs of a forward pass of a batch of training rows, by its rows; see ``MultiTaskModel.count_flops``."""
    inputs = run.trainer.train.example(run.config.data.batch_size)
    return round(run.trainer.learner.model.count_flops(inputs) / len(inputs.numeric))


def _describe_sources(run: Run) -> list[str]:
    """The rows of each source and how many of them an epoch draws; nothing where there is one source."""
    names = run.data.table.sources
    if names == ("",):
        return []
    trainer, codes = run.trainer, run.data.table.source_of_rows()
    sizes = {s: np.bincount(codes[getattr(run.data.splits, s)], minlength=len(names)) for s in ("train", "val", "test")}
    counts = trainer.schedule.mixing.counts(sizes["train"], 0)
    rows = [
        [name, *(f"{sizes[split][i]:,}" for split in sizes), f"{counts[i]:,}", ", ".join(_labelled_by(run.data, i))]
        for i, name in enumerate(names)
    ]
    header = ["source", "train", "val", "test", "in first epoch", "tasks"]
    return ["", text_table(header, rows), f"mixing {trainer.schedule.mixing.method}", ""]


def _labelled_by(data: Data, source: int) -> list[str]:
    rows = np.flatnonzero(data.table.source_of_rows() == source)
    return [task.name for i, task in enumerate(data.tasks) if not np.isnan(data.labels_of(i, rows)).all()]


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


def undefined_notes(evaluation: Evaluation, counts: Mapping[str, LabelCounts], split: str) -> list[str]:
    """One line for each task some of whose metrics are not defined for its labels, or spoilt by its predictions."""
    notes = []
    for name, scores in evaluation.tasks.items():
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


def _summarise(run: Run, training: float) -> dict[str, Any]:
    config, data, trainer = run.config, run.data, run.trainer
    best, progress = trainer.best, trainer.progress
    which = "best" if best.entries and run.folder.checkpoint("best").exists() else "last"
    try:
        trainer.load_weights(which)
    except RunError as error:
        if which == "last":
            raise
        log.warning("%s The final numbers are of the last weights.", error)
        which = "last"
        trainer.load_weights(which)
    device = choose_device(config)
    tested = len(data.splits.test) > 0
    evaluations = {"val": trainer.evaluate(trainer.val, curves=not tested)}
    if tested:
        evaluations["test"] = trainer.evaluate(data.rows("test", device), curves=True)
    shown = "test" if tested else "val"
    run.folder.write_json("curves.json", {"format": 1, "split": shown, "tasks": evaluations[shown].curves})
    if which == "best":
        score = f"{best.monitor.name} ({format_number(best.score)} on val)"
        chosen = f"weights of epoch {best.entries[0][1]}, the best by {score}"
    else:
        why = "the best checkpoint cannot be read" if best.entries else f"no best checkpoint by {best.monitor.name}"
        chosen = f"weights of the last epoch, {progress.begun} ({why})"
    log.info("\n%s\n%s", chosen, results_table(config, evaluations[shown], shown))
    for split, evaluation in evaluations.items():
        labels = {name: counts[split] for name, counts in data.label_counts.items()}
        for note in undefined_notes(evaluation, labels, split):
            log.warning("%s", note)
    model = trainer.learner.model
    findings = model.sharing.report([trainer.tasks[position].name for position in model.with_head])
    if findings:  # before anything else is computed: gates tell of the last rows that they have seen
        run.folder.write_json("sharing.json", as_json(findings))
    counts = model.count_parameters()
    names = [task.name for task in data.tasks]
    of_all, better = evaluations["val"].primary, task_metrics(config.tasks)
    primary = {task: metric for task, metric in of_all.items() if not config.tasks[task].common.auxiliary}
    return {
        "format": 1,
        "tasks": list(config.tasks),
        "monitor": best.monitor.name,
        "mode": "max" if best.monitor.higher_is_better else "min",
        "best": {"epoch": best.entries[0][1], "step": best.entries[0][2], "score": best.score}
        if best.entries
        else None,
        "weights": which,
        "metrics": {key: value for split, e in evaluations.items() for key, value in e.flat(split).items()},
        "primary": primary,
        "higher_is_better": {task: better[task][metric] for task, metric in primary.items()},
        "parameters": {
            "total": counts.total,
            "shared": counts.shared,
            "tasks": dict(zip(names, counts.tasks, strict=True)),
            "frozen": trainer.learner.model.count_frozen().total,
        },
        "flops_per_row": flops_per_row(run),
        "labelled": {
            split: {name: counts[split].labelled for name, counts in data.label_counts.items()}
            for split in ("train", "val", "test")
        },
        "rows": {split: len(getattr(data.splits, split)) for split in ("train", "val", "test")},
        "rows_seen": trainer.rows_by_source(),
        "epochs": trainer.epochs,
        "steps": progress.step,
        "skipped_steps": progress.skipped,
        "train_seconds": round(training, 3),
        "rows_per_second": round(progress.rows / training, 1) if training > 0 and progress.rows else None,
        "seed": config.seed,
        "data_fingerprint": data.table.fingerprint,
        "versions": versions(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "processes": trainer.learner.processes.size,
    }


class _Trackers:
    """Trackers that are told what metrics.jsonl is told, the final numbers, and how a training ended."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self._config, self._folder = config, folder
        self._followers: Followers | None = None
        self.final: Mapping[str, float | None] = {}

    def follow(self, run: Run) -> None:
        """Opens what was chosen; from now on it gets every record."""
        known = {"seed": run.config.seed, "data_fingerprint": run.data.table.fingerprint, "versions": versions()}
        config, overrides = self._folder.read_settings(), tuple(self._folder.read_overrides())
        facts = RunFacts(self._folder.path.absolute(), config, overrides, known)
        metrics = run.trainer.metrics
        self._followers = Followers(self._folder, metrics.read(), build_loggers(self._config, facts))
        metrics.followed_by(self._followers.follow)
        self._followers.start()

    def __enter__(self) -> _Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._followers is not None:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            state = "done" if error is None else "interrupted" if stopped else "failed"
            self._followers.close(state, self.final)


def _name_rows(data: Data, column: str | None, rows: Sequence[int]) -> list[str]:
    """Training rows as the user knows them: by id if there is one, else by place in the file."""
    index = data.splits.train[list(rows)].tolist()
    if column is None:
        return [data.table.row(row) for row in index]
    return [f"{column} {value}" for value in data.table.values(column).gather(index).to_list()]


def _stored_columns(config: RunConfig, folder: RunFolder) -> Features | None:
    """How a run that goes on reads its columns: as it began, also where it has them from a run that may be gone."""
    if not (folder.path / "data.json").exists():
        return None
    return stored_features(config, folder)


def _read_as_begun(config: RunConfig, folder: RunFolder) -> RunConfig:
    """The order of the rows depends on whether they are streamed: it must not depend on the memory free now."""
    if config.data.in_memory != "auto" or not (folder.path / "data.json").exists():
        return config
    streamed = bool(folder.read_sealed("data.json", DATA_FORMAT).get("streamed", False))
    return replace(config, data=replace(config.data, in_memory=not streamed))


def _refuse_other_data(run: Run) -> None:
    """A run that goes on with other rows would be neither the old run nor a new one."""
    if not (run.folder.path / "data.json").exists():  # stopped before it had read them
        return
    stored, found = run.folder.read_sealed("data.json", DATA_FORMAT), run.data.table.fingerprint
    before = stored.get("fingerprint")
    if before != found:
        what = f"the data have changed since the run began (fingerprint {str(before)[:12]} -> {found[:12]})"
        hint = f"Put {run.data.table.files} back as they were, or start a new run."
        raise RunError(Problem(f"resume: {run.folder.path}", what, hint))


def _load_newest(trainer: Trainer) -> bool:
    """Goes on from last.pt or, where that is damaged or lost, from the newest checkpoint that can be read.

    Returns:
        Whether last.pt is damaged or lost.
    """
    folder = trainer.folder
    try:
        trainer.load("last")
        return False
    except RunError as error:
        steps = {}
        for name in folder.checkpoints():
            with suppress(RunError):
                steps[name] = load(folder.checkpoint(name))["progress"]["step"]
        if "last" in steps or not steps:  # it can be read, but is of another model; or there is nothing else
            raise
        newest = max(steps, key=lambda name: steps[name])
        log.warning("%s Going on from %s instead.", error, folder.checkpoint(newest))
    trainer.load(newest)
    return True


def _reopen(trainer: Trainer) -> None:
    """A finished training whose limits were raised since goes on."""
    limits, progress = trainer.limits, trainer.progress
    more_epochs = limits.epochs is None or progress.epoch < limits.epochs
    more_steps = limits.steps is None or progress.step < limits.steps
    more_time = limits.seconds is None or progress.seconds < limits.seconds
    stopping = trainer.early_stopping
    waiting = stopping.patience is None or stopping.waited < stopping.patience
    progress.finished = not (more_epochs and more_steps and more_time and waiting)


@contextmanager
def signals() -> Iterator[Callable[[], int | None]]:
    """SIGINT, SIGTERM and SIGUSR1 (SLURM's warning) finish the step under way; a second one stops at once."""
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log.warning("%s: finishing the step; once more to stop at once", signal.Signals(number).name)

    try:
        previous = {number: signal.signal(number, handle) for number in SIGNALS}
    except ValueError:  # not the main thread: the caller's handlers stay in charge
        yield lambda: None
        return
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _shorten(text: str, most: int = 40) -> str:
    lines = text.splitlines()
    return (
        text
        if len(lines) <= most
        else "\n".join([*lines[:most], f"... and {len(lines) - most} more columns (all in data.json)"])
    )


__all__ = [
    "Interrupted",
    "Run",
    "audit",
    "describe",
    "results_table",
    "set_up",
    "signals",
    "train",
    "training",
    "undefined_notes",
]
