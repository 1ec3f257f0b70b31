"""A run that goes on: it reads its data as it began, and continues from its newest checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from mtl_cli.build import DATA_FORMAT
from mtl_cli.data import Features
from mtl_cli.errors import Problem, RunError, listed
from mtl_cli.job.setting_up import Run
from mtl_cli.loop import Trainer
from mtl_cli.run import RunFolder, told_of_edits
from mtl_cli.run.checkpoint import load
from mtl_cli.schema import RunConfig
from mtl_cli.trained import stored_features, telling_where

log = logging.getLogger(__name__)


def stored_columns(config: RunConfig, folder: RunFolder) -> Features | None:
    """How a run that goes on reads its columns: as it began, also where it has them from a run that may be gone."""
    return stored_features(config, folder) if _has_data(folder) else None


def read_as_begun(config: RunConfig, folder: RunFolder) -> RunConfig:
    """The configuration that streams rows if the run began so: the order of the rows depends on it.

    With ``data.in_memory=auto`` it would depend on the memory that is free now.
    """
    if config.data.in_memory != "auto" or not _has_data(folder):
        return config
    streamed = bool(folder.read_sealed("data.json", DATA_FORMAT).get("streamed", False))
    return replace(config, data=replace(config.data, in_memory=not streamed))


def finding_data(folder: RunFolder) -> AbstractContextManager[None]:
    """Says of data that are not there where a run that goes on read them as it began."""
    return telling_where(folder.read_sealed("data.json", DATA_FORMAT)) if _has_data(folder) else nullcontext()


def refuse_other_data(run: Run) -> None:
    """Makes sure that a run goes on with the data that it began with.

    With other rows it would be neither the old run nor a new one.

    Raises:
        RunError: They have changed.
    """
    if not _has_data(run.folder):
        return
    stored, found = run.folder.read_sealed("data.json", DATA_FORMAT), run.data.table.fingerprint
    run.folder.refuse_other_data(str(stored.get("fingerprint")), found, run.data.table.files)
    changed = stored_features(run.config, run.folder).changed_files(run.data.table)
    for column, (before, now) in changed.items():
        run.folder.refuse_other_data(before, now, f"the image files of column '{column}'")
    changes = _changes_of_missing(stored["features"], run.data.features)
    if changes:
        what = f"the data are read otherwise than when the run began ({listed(changes, 3)})"
        hint = "Go on with the version of mtl-train that it began with, or start a new run."
        raise RunError(Problem(f"resume: {run.folder.path}", what, hint))


def _changes_of_missing(stored: Mapping[str, Any], features: Features) -> list[str]:
    """The columns that have another number of missing cells than data.json says: other versions find others."""
    missing = {row["column"]: row["missing"] for row in stored["rows"]}
    return [
        f"missing cells of '{row.column}': {missing[row.column]} -> {row.missing}"
        for row in features.rows
        if row.missing != missing.get(row.column, row.missing)
    ]


def tell_edits(run: Run) -> None:
    """Says which code of plugins is no longer that which the run has trained with so far."""
    since = "the run last trained, if only in a comment: it goes on with the code as it is now"
    told = told_of_edits(run.folder, run.config.plugins, since)
    if told is not None:
        log.warning("%s", told)


def go_on(trainer: Trainer) -> None:
    """Puts a trainer where its run has stopped.

    Raises:
        RunError: No checkpoint can be used.
    """
    with trainer.learner.processes.alike():
        damaged = _load_newest(trainer)
    if damaged:  # it must not outlive a run that has nothing left to train
        trainer.checkpoints.save("last")
    _reopen(trainer)
    log.info("resumed after epoch %d, step %d", trainer.progress.epoch, trainer.progress.step)


def _has_data(folder: RunFolder) -> bool:
    """Whether a run has read its data; else it was stopped before."""
    return (folder.path / "data.json").exists()


def _load_newest(trainer: Trainer) -> bool:
    """Goes on from last.pt or, where that is damaged or lost, from the newest checkpoint that can be read.

    Returns:
        Whether last.pt is damaged or lost.
    """
    folder = trainer.folder
    try:
        trainer.checkpoints.load("last")
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
    trainer.checkpoints.load(newest)
    return True


def _reopen(trainer: Trainer) -> None:
    """A finished training whose limits were raised since goes on, and one that was stopped at the end of an epoch."""
    limits, progress = trainer.limits, trainer.progress
    more_epochs = limits.epochs is None or progress.epoch < limits.epochs
    more_steps = not limits.steps_reached(progress.step)
    more_time = limits.seconds is None or progress.seconds < limits.seconds
    stopping = trainer.scores.early_stopping
    waiting = stopping.patience is None or stopping.waited < stopping.patience
    progress.finished = not progress.ending and not (more_epochs and more_steps and more_time and waiting)
