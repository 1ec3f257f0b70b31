"""Whether a run may be gone on with: what may differ from its own settings, and whether anything is left to do."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl_cli.cli import session
from mtl_cli.cli.composed import Job
from mtl_cli.errors import Problem, RunError, UserError, listed
from mtl_cli.run import RunFolder, flatten, told_of_edits
from mtl_cli.schema import RunConfig, seconds, with_own_options, with_tasks_by_name

log = logging.getLogger("mtl_cli")
#: Keys that may differ between a run and its resumption: they do not change what has been trained so far.
MAY_CHANGE = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.early_stopping",
    "trainer.checkpoint",
    "trainer.device",
    "trainer.threads",
    "trainer.on_nonfinite",
    "trainer.diagnostics_every",
    "logger",
    "extra",
)
#: What limits how long a run trains, and how to read it.
_LIMITS: Mapping[str, Callable[[Any], float]] = {
    "trainer.max_epochs": float,
    "trainer.max_steps": float,
    "trainer.max_time": seconds,
    "trainer.early_stopping.patience": float,
}
#: What, of all that may change, may make a finished run end otherwise.
_ENDING = (*_LIMITS, "trainer.early_stopping", "trainer.checkpoint.monitor", "trainer.checkpoint.save_top_k")
_ANNEAL_EPOCHS = "data.anneal_epochs"
_SHUFFLE_BUFFER = "data.shuffle_buffer"
_BUFFER_OF_BEFORE = 65536  # that an earlier version took where nothing was given
_OF_THE_COMMAND = ("resume", "dry_run", "stop_on_failure")  # they say what this command does, not what the run is


@dataclass(frozen=True)
class Changes:
    """A run's own settings beside those that are asked for now.

    Args:
        old: The run's own, flat.
        new: Those that are asked for, flat.
    """

    old: Mapping[str, Any]
    new: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, settings: Mapping[str, Any]) -> Changes:
        """What changes if the run in a folder is gone on with under these settings.

        Raises:
            RunError: The folder does not say what its own settings are.
        """
        stored = RunFolder.open(folder).read_settings()  # older versions stored a list as one, and not all options
        old, new = (flatten(with_own_options(with_tasks_by_name(values))) for values in (stored, settings))
        if new.get(_ANNEAL_EPOCHS) is None and _ANNEAL_EPOCHS in old:  # see ``with_own_epochs``
            new[_ANNEAL_EPOCHS] = old[_ANNEAL_EPOCHS]
        if _is_of_before(old.get(_SHUFFLE_BUFFER), new.get(_SHUFFLE_BUFFER)):  # see ``with_own_buffer``
            new[_SHUFFLE_BUFFER] = old[_SHUFFLE_BUFFER]
        return cls(old, new)

    @property
    def keys(self) -> list[str]:
        """Keys whose values differ, in the order of the run's own settings."""
        return [
            key
            for key in {**self.old, **self.new}
            if self.old.get(key) != self.new.get(key)
            and repr(self.old.get(key)) != repr(self.new.get(key))  # not a number is not equal to itself
        ]

    @property
    def forbidden(self) -> list[str]:
        """The keys among them that may not differ."""
        return [key for key in self.keys if not _is_below(key, (*MAY_CHANGE, *_OF_THE_COMMAND))]

    def told(self, key: str) -> str:
        """One change for people to read.

        Example:
            >>> Changes({"seed": 0}, {"seed": 1}).told("seed")
            'seed (0 -> 1)'
        """
        return f"{key} ({_value(self.old, key)} -> {_value(self.new, key)})"


def with_own_epochs(job: Job, begun: RunFolder | None) -> Job:
    """The job with ``data.anneal_epochs`` as the number that the run began with, where it follows the limit of epochs.

    That limit may change on resume; which rows the epochs trained so far have drawn may not.

    Args:
        job: The job.
        begun: The run that it goes on with; None: it begins one.
    """
    given = job.settings["data"]
    if job.config.data.mixing != "annealed" or given.get("anneal_epochs") is not None:
        return job
    epochs = job.config.data.anneal_epochs
    if begun is not None:
        old = begun.read_settings()
        epochs = old["data"].get("anneal_epochs") or old["trainer"]["max_epochs"]
    config = replace(job.config, data=replace(job.config.data, anneal_epochs=epochs))
    return replace(job, config=config, settings={**job.settings, "data": {**given, "anneal_epochs": epochs}})


def with_own_buffer(job: Job, begun: RunFolder | None) -> Job:
    """The job with the ``data.shuffle_buffer`` that was the default when the run began, where it is ``auto`` now.

    The order of the rows that are streamed depends on it.

    Args:
        job: The job.
        begun: The run that it goes on with; None: it begins one.
    """
    if begun is None:
        return job
    stored = begun.read_settings()["data"].get("shuffle_buffer")
    if not _is_of_before(stored, job.config.data.shuffle_buffer):
        return job
    config = replace(job.config, data=replace(job.config.data, shuffle_buffer=stored))
    data = {**job.settings["data"], "shuffle_buffer": stored}
    return replace(job, config=config, settings={**job.settings, "data": data})


def _is_of_before(old: Any, new: Any) -> bool:
    return bool(old == _BUFFER_OF_BEFORE and new == "auto")


def forbidden_changes(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """What differs from a run's own settings and may not, for people to read."""
    changes = Changes.of(folder, settings)
    before, now = (_tasks(values) for values in (changes.old, changes.new))
    moved = [f"order of tasks ({', '.join(before)} -> {', '.join(now)})"] if before != now else []
    return [changes.told(key) for key in changes.forbidden] or moved


def refuse_changes(folder: Path, settings: Mapping[str, Any]) -> None:
    """Finds what keeps a run from being gone on with under these settings.

    Raises:
        RunError: Every key that may not differ from the run's own.
    """
    changes = forbidden_changes(folder, settings)
    if changes:
        hint = f"May change on resume: {', '.join(MAY_CHANGE)}. For anything else start a new run."
        raise RunError([_refused(folder, change, hint) for change in changes])


def tell_changes(folder: Path, settings: Mapping[str, Any]) -> None:
    """Logs which of the keys that may change have another value now."""
    changes = Changes.of(folder, settings)
    for key in changes.keys:
        if key not in _OF_THE_COMMAND:
            log.info("changed since the run began: %s", changes.told(key))


def is_same_with_checkpoint(run: RunFolder, settings: Mapping[str, Any]) -> bool:
    """Whether there is something to go on from; a failed run's folder may not even say what it was."""
    try:
        return bool(run.checkpoints()) and not forbidden_changes(run.path, settings)
    except RunError:
        return False


def is_to_train_longer(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a finished job of a sweep is asked to train longer than it was.

    Raises:
        RunError: It is asked for less, or for an end that would have been another one.
    """
    changes = Changes.of(folder, settings)
    ending = [key for key in changes.keys if _is_below(key, _ENDING)]
    if all(key in _LIMITS and _limit(key, changes.new) > _limit(key, changes.old) for key in ending):
        return bool(ending)
    hint = "A finished job goes on where limits are raised. For anything else choose another folder."
    raise RunError([_refused(folder, changes.told(key), hint) for key in ending])


def has_more_to_do(run: RunFolder, config: RunConfig) -> bool:
    """Whether the limits go beyond what a finished run has trained."""
    trainer = config.trainer
    try:
        done = run.read_json("summary.json")
        epochs, steps = float(done["epochs"]), int(done["steps"])
        _ = done["best"] and float(done["best"]["score"] or 0)
    except (RunError, KeyError, TypeError, ValueError):
        log.warning("%s: is damaged or missing; it is made anew from the checkpoints", run.path / "summary.json")
        return True
    more_epochs = trainer.max_epochs is None or trainer.max_epochs > epochs
    more_steps = trainer.max_steps is None or trainer.max_steps > steps
    stored = flatten(run.read_settings())
    now = (trainer.max_epochs, trainer.max_steps, trainer.max_time, trainer.early_stopping.patience)
    changed = any(stored.get(key) != limit for key, limit in zip(_LIMITS, now, strict=True))
    return more_epochs and more_steps and changed


def refuse_edited_data(run: RunFolder, config: RunConfig) -> None:
    """Finds that the files which a finished run has read hold other data now.

    They are read again where their size or time of change is another one. Files that are not there, as of a run that
    was moved, say nothing, nor does a run of an older version.

    Raises:
        RunError: They do, or cannot be read any more.
    """
    try:
        done = run.read_json("summary.json")
        before, fingerprint = dict(done.get("data_files", {})), str(done["data_fingerprint"])
    except (RunError, KeyError, TypeError, ValueError, AttributeError):
        return  # it is made anew
    now = _states(config)
    touched = [name for name, state in before.items() if now.get(name, state) != state]
    if not touched:
        return
    try:
        found = _fingerprint(config)
    except UserError as error:
        raise RunError(error.problems) from error
    run.refuse_other_data(fingerprint, found, listed(touched, 5))


def _states(config: RunConfig) -> Mapping[str, list[int]]:
    """The states of the files that are read, looked at once for all finished runs of a command."""
    known, key = session.current().file_states, repr(config.sources)
    if key not in known:
        from mtl_cli.data.file_states import file_states

        known[key] = file_states(config.sources)
    return known[key]


def _fingerprint(config: RunConfig) -> str:
    """The fingerprint of the data as the files hold them now; read once for all finished runs of a command."""
    known, key = session.current().fingerprints, repr((config.sources, config.data.in_memory))
    if key not in known:
        from mtl_cli.build.sources import read_rows

        known[key] = read_rows(config)[0].fingerprint
    return known[key]


def tell_edits(run: RunFolder, config: RunConfig) -> None:
    """Warns that a finished run, which is not trained again, was trained with other code of plugins than there is."""
    since = "it was trained, if only in a comment: its numbers are of the code as it was"
    told = told_of_edits(run, config.plugins, since)
    if told is not None:
        log.warning("%s: %s", run.path, told)


def best_score(run: RunFolder) -> float | None:
    """What a finished run reached by what it monitors.

    Raises:
        RunError: Its summary.json cannot be read.
        KeyError: What it holds is no summary.
        TypeError: The same.
    """
    best = run.read_json("summary.json")["best"]
    return None if best is None else best["score"]


def _refused(folder: Path, change: str, hint: str) -> Problem:
    return Problem(f"resume: {folder}", f"was made with another {change}", hint)


def _limit(key: str, settings: Mapping[str, Any]) -> float:
    """What a limit allows; nothing is no limit."""
    value = settings.get(key)
    return math.inf if value is None else _LIMITS[key](value)


def _tasks(settings: Mapping[str, Any]) -> list[str]:
    """The tasks of flat settings, in their order, by which weights are drawn."""
    return list(dict.fromkeys(key.split(".")[1] for key in settings if key.startswith("tasks.")))


def _is_below(key: str, keys: Sequence[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def _value(values: Mapping[str, Any], key: str) -> str:
    return "not given" if key not in values else "null" if values[key] is None else str(values[key])
