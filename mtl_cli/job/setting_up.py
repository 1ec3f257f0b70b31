"""Setting up a run: its data are read, and all that trains on them is built."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mtl_cli.build import (
    Data,
    build_data,
    build_learner,
    build_mixing,
    build_monitor,
    check_features,
    choose_device,
    refuse_lone_rows,
)
from mtl_cli.data import Features
from mtl_cli.data.batches import Rows
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.loop import Trainer
from mtl_cli.loop.monitor import Best, EarlyStopping, Scores
from mtl_cli.loop.progress import Limits
from mtl_cli.loop.schedule import Schedule
from mtl_cli.processes import ALONE, ProcessGroup
from mtl_cli.run import RunFolder
from mtl_cli.schema import RunConfig, TrainerOptions, best_by, seconds
from mtl_cli.steps import Clock
from mtl_cli.trained import TrainedRun
from mtl_cli.warm_start import Start, start

log = logging.getLogger(__name__)
_CHECKED_ROWS = 4  # that components of the user's are tried on
_ENDLESS = 10**9  # steps of a run that only time or patience ends


@dataclass(frozen=True)
class Run:
    """The parts of a run that was set up."""

    config: RunConfig
    data: Data
    trainer: Trainer
    folder: RunFolder
    start: Start | None = None  # what its weights started from, if they did from another run's

    def flops_per_row(self) -> int:
        """FLOPs of a forward pass of a batch of training rows, by its rows; see ``MultiTaskModel.count_flops``."""
        inputs = self.trainer.train.example(self.config.data.batch_size)
        return round(self.trainer.learner.model.count_flops(inputs) / len(inputs.numeric))


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
    data = read(config, columns if origin is None else origin.features)
    _refuse_monitors_without_labels(config, data)
    device = choose_device(config)
    rows = data.rows("train", device)
    schedule = _schedule(config, rows)
    total = _total_steps(config.trainer, schedule, rows)
    learner = build_learner(config, data, total, processes)
    if learner.scheduler.warmup_steps >= total:
        what = "scheduler.warmup_steps: %d, and the run has %d steps: the learning rate never gets to optimizer.lr"
        log.warning(what, learner.scheduler.warmup_steps, total)
    check_features(learner.model, rows.example(_CHECKED_ROWS))
    refuse_lone_rows(config, learner, rows, schedule.mixing)
    begin = None if origin is None else start(origin, config, data, learner.model)
    trainer = Trainer(
        learner=learner,
        tasks=data.tasks,
        train=rows,
        val=data.rows("val", device),
        folder=folder,
        limits=_limits(config.trainer) if limits is None else limits,
        schedule=schedule,
        scores=Scores(_best(config), _early_stopping(config)),
        interrupted=interrupted,
        name_rows=partial(_name_rows, data, config.data.id),
        bar=bar,
        clock=clock,
    )
    return Run(config, data, trainer, folder, begin)


def _limits(options: TrainerOptions) -> Limits:
    budget = None if options.max_time is None else seconds(options.max_time)
    return Limits(epochs=options.max_epochs, steps=options.max_steps, seconds=budget)


def _schedule(config: RunConfig, rows: Rows) -> Schedule:
    options = config.trainer
    return Schedule(
        batch_size=config.data.batch_size * options.accumulate_grad_batches,
        shuffle=config.data.shuffle,
        drop_last=config.data.drop_last,
        seed=config.seed,
        evaluate_every=options.check_val_every_n_epoch,
        save_every_steps=options.checkpoint.every_n_steps,
        mixing=build_mixing(config, rows),
        skip_nonfinite=options.on_nonfinite == "skip",
        diagnostics_every=options.diagnostics_every,
    )


def _total_steps(options: TrainerOptions, schedule: Schedule, rows: Rows) -> int:
    """The steps that the configuration allows, for schedules of the learning rate."""
    by_epochs = schedule.total_steps(rows, options.max_epochs or 0)
    return min(steps for steps in (by_epochs, options.max_steps, _ENDLESS) if steps)


def _best(config: RunConfig) -> Best:
    options = config.trainer.checkpoint
    return Best(build_monitor(best_by(config.monitor, options.monitor), config.tasks), options.save_top_k)


def _early_stopping(config: RunConfig) -> EarlyStopping:
    options = config.trainer.early_stopping
    monitor = build_monitor(options.monitor or config.monitor, config.tasks)
    return EarlyStopping(monitor, options.patience, options.min_delta)


def _refuse_monitors_without_labels(config: RunConfig, data: Data) -> None:
    """Finds monitors of a task without a label in validation: no epoch would be the best, and patience would run out.

    Raises:
        ConfigError: Every such monitor.
    """
    own = {
        f"trainer.{part}.monitor": getattr(config.trainer, part).monitor for part in ("checkpoint", "early_stopping")
    }
    if config.trainer.early_stopping.patience is None:
        del own["trainer.early_stopping.monitor"]
    chosen = {key if name else "monitor": name or config.monitor for key, name in own.items()}
    unlabelled = {f"val/{name}/": name for name, counts in data.label_counts.items() if not counts["val"].labelled}
    problems = [
        Problem(
            key,
            f"{monitor} would never have a value: task '{unlabelled[task]}' has 0 labels in the val rows",
            f"Choose another, such as {key}=mean, or look at the splits.",
        )
        for key, monitor in chosen.items()
        if (task := monitor[: monitor.rfind("/") + 1]) in unlabelled
    ]
    if problems:
        raise ConfigError(problems)


def _name_rows(data: Data, column: str | None, rows: Sequence[int]) -> list[str]:
    """Training rows as the user knows them: by id if there is one, else by place in the file."""
    index = data.splits.train[list(rows)].tolist()
    if column is None:
        return [data.table.row(row) for row in index]
    return [f"{column} {value}" for value in data.table.values(column).gather(index).to_list()]
