"""``mtl-train``: Hydra in, friendly errors and exit codes out.

Exit codes: 0 done, 1 our bug, or a job that failed or is left to another process, 2 the user's error, 130 / 143
interrupted. A traceback is shown with ``HYDRA_FULL_ERROR=1`` only.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mtl_cli import __version__, composition, processes
from mtl_cli.commands.entry import flush_output, leave, nobody_reads, say
from mtl_cli.errors import ConfigError, InUseError, MTLError, Problem, RunError, UserError, listed
from mtl_cli.helper import help_the_first
from mtl_cli.processes import Ending, Meeting, Work
from mtl_cli.registry import mistakes_in_components
from mtl_cli.run import RunFolder, find_resumable, flatten, is_locked, remove_if_empty, settings_text
from mtl_cli.run.atomic import write_error
from mtl_cli.schema import RunConfig, seconds, validate
from mtl_cli.steps import Clock, Steps, run_alone
from mtl_cli.sweep import collect, format_table, hydra_callback, hydra_launcher, job_name, write

if TYPE_CHECKING:  # they import PyTorch, which a mistake in a configuration must not wait for
    from mtl_cli.build import Data
    from mtl_cli.data import Features
    from mtl_cli.together import SharedData

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
_SHOWING = {"--cfg", "-c", "--help", "-h", "--info", "-i"}  # flags with which nothing is trained
_OF_THE_COMMAND = ("resume", "dry_run", "stop_on_failure")  # they say what this command does, not what the run is
_HYDRA_VERSION = tuple(int(part) for part in hydra.__version__.split(".")[:2])
_VERSION_BASE: dict[str, Any] = {} if _HYDRA_VERSION >= (1, 4) else {"version_base": "1.3"}

OmegaConf.register_new_resolver("mtl.pid", os.getpid, replace=True)
OmegaConf.register_new_resolver(
    "mtl.job_name", lambda overrides: job_name(composition.shown(composition.unresolved(overrides))), replace=True
)


class _Invocation:
    """What this process was asked for: flags, overrides, and the folders with configuration files."""

    folders: tuple[Path, ...] = ()
    interrupted: int | None = None
    error: BaseException | None = None
    jobs_failed: int = 0
    in_use: list[Path] = []  # noqa: RUF012  folders of jobs of this sweep that another process was in
    told_where: str = ""  # why they failed
    changed: dict[str, str] = {}  # noqa: RUF012  finished jobs of this sweep that are not what it asks for, and why
    started: float = 0.0
    data: SharedData | None = None  # of the last job of this process
    meeting: Meeting | None = None  # where this process, the first of several, tells the others what to do
    told: str = ""  # of the error that ended it


@dataclass(frozen=True)
class _Job:
    """A job whose configuration was checked.

    Args:
        config: The configuration.
        raw: The same as plain mappings.
        overrides: Of the command line.
        folder: Its folder.
        number: Its place in a sweep; None for a single run.
    """

    config: RunConfig
    raw: dict[str, Any]
    overrides: list[str]
    folder: Path
    number: int | None


@hydra.main(config_path=str(composition.config_dir()), config_name="config", **_VERSION_BASE)
def _run(cfg: DictConfig) -> float | None:
    """One job, for Hydra to call."""
    context = HydraConfig.get()
    _console()  # of a launcher that runs jobs in processes of their own
    folder = Path(context.runtime.output_dir)
    if context.mode == RunMode.MULTIRUN and _not_to_start(cfg.get("stop_on_failure"), context.job.num):
        _clear_away(folder)
        return None
    try:
        job = _checked(cfg)
        if job.number is None:
            return _single(job.config, job.raw, job.overrides, folder)
        return run_alone(_sweep_job(job))
    except Exception as error:
        if context.mode != RunMode.MULTIRUN:
            _Invocation.error = error  # raised by _command: Hydra would print a line of its own first
            return None
        if isinstance(error, InUseError):
            _left_to_another(folder, error)
            return None
        _failed(folder, _overrides(), error, keep=cfg.get("dry_run") is not True)
        raise
    finally:
        _clear_away(folder)


def _checked(cfg: DictConfig) -> _Job:
    """The job that Hydra has composed."""
    context, overrides = HydraConfig.get(), _overrides()
    folders = _Invocation.folders or composition.search_path(context.runtime.config_sources)
    choices: Any = OmegaConf.to_container(context.runtime.choices)
    if isinstance(cfg.get("logger"), DictConfig):  # Hydra leaves out what is chosen as a list
        choices["logger"] = list(cfg.logger)
    files = composition.composed_files(folders, choices)
    composition.check_headers(cfg, files)
    origin = composition.origin_of(overrides, files, composition.config_groups(folders))
    raw = composition.plain(cfg, origin, composition.unset(files, overrides))
    if not raw.get("tasks") and not any(o.startswith("task=") for o in overrides):
        raise _no_task(composition.config_groups(folders))
    number = context.job.num if context.mode == RunMode.MULTIRUN else None
    return _Job(validate(raw, origin), raw, overrides, Path(context.runtime.output_dir), number)


def _overrides() -> list[str]:
    return composition.shown(composition.unresolved(HydraConfig.get().overrides.task))  # type: ignore[arg-type]


class _Stacked:
    """What the stacked launcher asks for."""

    def prepare(self, cfg: DictConfig) -> _Job | Exception:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            return _checked(cfg)
        except Exception as error:
            _failed(folder, _overrides(), error, keep=cfg.get("dry_run") is not True)
            return error
        finally:
            _clear_away(folder)

    def groups(self, jobs: Sequence[_Job], most: int) -> list[list[int]]:
        if not jobs:
            return []
        from mtl_cli.together import kinship, why_alone, why_kin_alone

        kin: dict[Any, list[int]] = {}
        for place, job in enumerate(jobs):
            reason = why_alone(job.config)
            if reason is None:
                kin.setdefault(kinship(job.config), []).append(place)
            else:
                log.info("job %s is trained alone: %s", job.number, reason)
        groups = []
        for own in kin.values():
            reason = why_kin_alone(jobs[own[0]].config)
            if reason is None:
                groups += [own[i : i + most] for i in range(0, len(own), most)]
            else:
                for place in own:
                    log.info("job %s is trained alone: %s", jobs[place].number, reason)
        for group in groups:
            numbers = ", ".join(str(jobs[place].number) for place in group)
            if len(group) == 1:
                log.info("job %s is trained alone: no other job of this sweep has its shape", numbers)
            else:
                log.info("%d jobs are trained together: %s", len(group), numbers)
        return [group for group in groups if len(group) > 1]

    def train(self, jobs: Sequence[_Job]) -> list[tuple[float | None, Exception | None]]:
        from mtl_cli.job import signals
        from mtl_cli.together import SharedData, run_together

        waiting = [_not_to_start(job.raw.get("stop_on_failure"), job.number) for job in jobs]
        if any(waiting):  # all of them: the option is the sweep's
            return [(None, None)] * len(jobs)
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
        with signals() as interrupted:
            start = partial(_one_of_sweep, read=SharedData().read, bar=False)
            outcomes = run_together([partial(start, job) for job in jobs], interrupted)
            stopped = interrupted()
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome.error, InUseError):
                _left_to_another(job.folder, outcome.error)
                outcome.error = None
            if isinstance(outcome.error, Exception):
                _failed(job.folder, job.overrides, outcome.error)
            _clear_away(job.folder)
        if stopped is not None:
            _Invocation.interrupted = 128 + stopped
        if stopped is not None or any(isinstance(o.error, KeyboardInterrupt) for o in outcomes):
            raise KeyboardInterrupt
        return [(o.value, o.error if isinstance(o.error, Exception) else None) for o in outcomes]


def _not_to_start(stop: Any, number: int | None) -> bool:
    """Whether a job of a sweep is not begun because another one has failed; says so."""
    if stop is not True or not _Invocation.jobs_failed:
        return False
    log.info("job %s: not started, since another one failed (stop_on_failure)", number)
    return True


def _left_to_another(folder: Path, error: InUseError) -> None:
    """Tells of a job of a sweep that another process is in, which is no failure."""
    _Invocation.in_use.append(folder)
    log.warning("job left to another process: %s", error)


def _failed(folder: Path, overrides: list[str], error: Exception, *, keep: bool = True) -> None:
    """Tells of a job of a sweep that failed, also in its folder unless nothing is to be kept there."""
    _Invocation.jobs_failed += 1
    log.error("job failed: %s: %s", folder.name, _one_line(error) if keep else error)
    if keep:
        _record_failure(folder, overrides, error)
    else:
        _Invocation.told_where = "why is told above"


def _audit(config: RunConfig, folder: Path) -> None:
    """``dry_run=true``."""
    from mtl_cli.job import audit

    with _logging(None), mistakes_in_components():
        audit(config, folder)


def _no_task(groups: Mapping[str, list[str]]) -> ConfigError:
    known = groups["task"]
    hint = f"Known: {', '.join(known)}. Example: mtl-train task={'digits' if 'digits' in known else known[0]}"
    return ConfigError(Problem("task", "must be chosen", hint))


def _single(config: RunConfig, raw: dict[str, Any], overrides: list[str], folder: Path) -> float | None:
    _refuse_in_several(config)
    _tell_of_a_sweep(overrides)
    if config.dry_run:
        _audit(config, folder)
        return None
    if config.resume is None:
        return _train(config, raw, overrides, folder, resume=False)
    if config.resume != "auto":  # what the run started from stays a part of it
        stored = RunFolder.open(Path(config.resume).expanduser()).read_settings()
        raw["init_from"] = stored.get("init_from")
        config = replace(config, init_from=raw["init_from"])
    path, resume = _resumable(config, raw, folder)
    return _train(config, raw, overrides, path, resume=resume)


def _tell_of_a_sweep(overrides: Sequence[str]) -> None:
    """An experiment that sweeps does so with -m alone."""
    params = HydraConfig.get().sweeper.get("params")
    chosen = [o for o in overrides if o.lstrip("+").startswith("experiment=")]
    if params and chosen:
        what = f"sweeps over {listed([str(key) for key in params], 5)} with -m, and this is one run without it"
        say(f"note: {chosen[-1]} {what}. Write: mtl-train -m {' '.join(overrides)}", sys.stderr)


def _resumable(config: RunConfig, raw: dict[str, Any], folder: Path) -> tuple[Path, bool]:
    """The folder to go on in and whether there is something to go on from."""
    if config.resume != "auto":
        path = Path(str(config.resume)).expanduser()
        _refuse_changes(path, raw)
        return path, True
    if (folder / "status.json").exists():  # the same fixed hydra.run.dir again
        _refuse_changes(folder, raw)
        return folder, True
    found = find_resumable(folder.parent)
    if found is None:
        return folder, False
    changed = _changes(found, raw)
    if changed:
        log.warning("resume=auto: %s has another configuration (%s); starting anew", found, ", ".join(changed))
        return folder, False
    return found, True


def _sweep_job(job: _Job) -> Steps[float | None]:
    """A job of a sweep, after which no other one begins if a signal came too late to stop it."""
    late: list[int] = []
    score = yield from _one_of_sweep(job, late=late.append, read=_read)
    if late:
        _Invocation.interrupted = 128 + late[0]
        raise KeyboardInterrupt
    return score


def _read(config: RunConfig, columns: Features | None) -> Data:
    """The data of a job; those of the one before, if they are the same."""
    if _Invocation.data is None:
        from mtl_cli.together import SharedData

        _Invocation.data = SharedData(only_last=True)
    return _Invocation.data.read(config, columns)


def _one_of_sweep(
    job: _Job, interrupted: Callable[[], int | None] | None = None, clock: Clock = time.monotonic, **how: Any
) -> Steps[float | None]:
    """A job of a sweep is skipped if it is done, and gone on with if it was stopped or is to train longer than it has.

    One that failed is begun again where it cannot be gone on with.

    ``interrupted`` and ``clock`` (given if it is trained together with others), and ``how``: see
    ``mtl_cli.job.training``.
    """
    _check_processes(sweeps=True)  # a file may say that it is one
    how |= {"interrupted": interrupted, "clock": clock}
    if interrupted is not None:
        _label.set(f"job {job.number} | ")
    log.info("job %s: %s", job.number, " ".join(job.overrides))
    if job.config.dry_run:
        _audit(job.config, job.folder)
        return None
    folder, given = job.folder, (job.config, job.raw, job.overrides, job.folder)
    if not (folder / "status.json").exists():
        return (yield from _training(*given, resume=False, **how))
    run = RunFolder.open(folder)
    state = run.status["state"]
    if state == "failed":
        if _is_same_with_checkpoint(run, job.raw):
            try:
                return (yield from _training(*given, resume=True, **how))
            except InUseError:
                raise
            except RunError as error:  # its checkpoints are damaged, or of other data
                log.warning("%s It is begun again.", error)
        with RunFolder.claim(folder, resume=True) as claimed:
            claimed.clear()
        return (yield from _training(*given, resume=False, **how))
    try:
        _refuse_changes(folder, job.raw)
        to_go_on = state != "done" or _is_to_train_longer(folder, job.raw)
    except RunError as error:
        if state == "done":
            _Invocation.changed[folder.name] = "; ".join(p.what for p in error.problems)
        raise
    if not to_go_on:
        try:
            score = _best_score(run)
        except (RunError, KeyError, TypeError):
            pass  # it is made anew, as by resume=
        else:
            log.info("done already: %s", folder)
            return score
    return (yield from _training(*given, resume=True, **how))


def _is_same_with_checkpoint(run: RunFolder, raw: dict[str, Any]) -> bool:
    """Whether there is something to go on from; a failed run's folder may not even say what it was."""
    try:
        return bool(run.checkpoints()) and not _changes(run.path, raw)
    except RunError:
        return False


def _best_score(run: RunFolder) -> float | None:
    """What a finished run reached by what it monitors."""
    best = run.read_json("summary.json")["best"]
    return None if best is None else best["score"]


def _train(config: RunConfig, raw: dict[str, Any], overrides: list[str], folder: Path, resume: bool) -> float | None:
    return run_alone(_training(config, raw, overrides, folder, resume=resume))


def _training(
    config: RunConfig, raw: dict[str, Any], overrides: list[str], folder: Path, *, resume: bool, **how: Any
) -> Steps[float | None]:
    """Trains in ``folder``; its status says how it ended, whatever happens."""
    with RunFolder.claim(folder, resume=resume) as run:
        if resume and run.is_done and not _has_more_to_do(run, config):
            log.info("%s: is done, nothing to do", folder)
            return _best_score(run)
        from mtl_cli.job import Interrupted, training

        kept = run.description() if resume else None
        with _logging(folder / "train.log") as written:
            if resume:
                _tell_changes(run, raw)
            try:
                # Gone on with, its status first: under limits not reached yet, it must not say that it is done. A new
                # one, its configuration first: a run whose status says something can be gone on with.
                if resume:
                    run.set_status("running")
                text = settings_text({**raw, "resume": None})
                run.write_config(text, overrides)
                if not resume:
                    run.set_status("running")
                if _Invocation.meeting is not None:
                    how["processes"] = _Invocation.meeting.begin(Work(str(folder.absolute()), resume))
                with mistakes_in_components():
                    return (yield from training(config, run, resume=resume, **how))
            except Interrupted as stop:
                code = 128 + stop.signal
                run.set_status("interrupted", exit_code=code)
                _Invocation.interrupted = code
                log.warning("interrupted; go on with: mtl-train resume=%s", folder)
                raise KeyboardInterrupt from stop
            except KeyboardInterrupt:
                run.set_status("interrupted", exit_code=130)
                raise
            except UserError as error:
                if kept is not None:
                    run.put_back(kept)
                elif run.checkpoints():  # hours of training must not go because its last file cannot be read
                    run.set_status("failed", exit_code=2, error=_one_line(error))
                else:  # nothing was trained: leave nothing that looks like a run
                    run.clear()
                raise
            except Exception as error:
                written.only_here(traceback.format_exc())
                with contextlib.suppress(MTLError):  # a full disk refuses this too; the first error is to be shown
                    run.set_status("failed", exit_code=1, error=_one_line(error))
                raise


def _has_more_to_do(run: RunFolder, config: RunConfig) -> bool:
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


def _is_to_train_longer(folder: Path, raw: dict[str, Any]) -> bool:
    """Whether a finished job of a sweep is asked to train longer than it was.

    Raises:
        RunError: It is asked for less, or for an end that would have been another one.
    """
    old, new, keys = _differing(folder, raw)
    changed = [key for key in keys if _is_below(key, _ENDING)]
    if all(key in _LIMITS and _limit(key, new) > _limit(key, old) for key in changed):
        return bool(changed)
    hint = "A finished job goes on where limits are raised. For anything else choose another folder."
    raise RunError([_changed(folder, _as_change(key, old, new), hint) for key in changed])


def _limit(key: str, settings: Mapping[str, Any]) -> float:
    """What a limit allows; nothing is no limit."""
    value = settings.get(key)
    return math.inf if value is None else _LIMITS[key](value)


def _tell_changes(run: RunFolder, raw: dict[str, Any]) -> None:
    """Which of the keys that may change have another value now."""
    old, new = flatten(run.read_settings()), flatten(raw)
    for key in {**old, **new}:
        if old.get(key) != new.get(key) and key not in _OF_THE_COMMAND:
            log.info("changed since the run began: %s", _as_change(key, old, new))


def _refuse_changes(folder: Path, raw: dict[str, Any]) -> None:
    changed = _changes(folder, raw)
    if changed:
        hint = f"May change on resume: {', '.join(MAY_CHANGE)}. For anything else start a new run."
        raise RunError([_changed(folder, change, hint) for change in changed])


def _changed(folder: Path, change: str, hint: str) -> Problem:
    return Problem(f"resume: {folder}", f"was made with another {change}", hint)


def _changes(folder: Path, raw: dict[str, Any]) -> list[str]:
    """Keys that differ from a run's own configuration and may not, each as ``key (old -> new)``."""
    old, new, keys = _differing(folder, raw)
    return [_as_change(key, old, new) for key in keys if not _is_below(key, (*MAY_CHANGE, *_OF_THE_COMMAND))]


def _differing(folder: Path, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """A run's own configuration, the one that is asked for, both flat, and the keys in which they differ."""
    old, new = flatten(RunFolder.open(folder).read_settings()), flatten(raw)
    keys = [
        key
        for key in {**old, **new}
        if old.get(key) != new.get(key)
        and repr(old.get(key)) != repr(new.get(key))  # not a number is not equal to itself
    ]
    return old, new, keys


def _is_below(key: str, keys: Sequence[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def _as_change(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    return f"{key} ({_as_text(old, key)} -> {_as_text(new, key)})"


def _as_text(values: dict[str, Any], key: str) -> str:
    return "not given" if key not in values else "null" if values[key] is None else str(values[key])


def _clear_away(folder: Path) -> None:
    """Removes a folder that nothing was written to, and its empty parents if they are below the working directory."""
    below = folder.resolve().is_relative_to(Path.cwd().resolve())
    remove_if_empty(folder, Path.cwd() if below else folder.parent)


def _record_failure(folder: Path, overrides: list[str], error: Exception) -> None:
    """A failed job of a sweep says so in its own folder, at once; what went wrong stands in its log.

    A folder that holds a run which has not failed is left alone: the failure is that it cannot be used.
    """
    mend = isinstance(error, UserError)
    try:
        run = RunFolder(folder)
        state = run.status["state"] if (folder / "status.json").exists() else None
        told_by_training = state == "failed" and not mend
        if told_by_training or state not in (None, "failed") or is_locked(folder):
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{error}\n" if mend else "".join(traceback.format_exception(error)))
        (folder / "overrides").write_text("\n".join(overrides) + "\n", encoding="utf-8")
        run.set_status("failed", exit_code=2 if mend else 1, error=_one_line(error))
    except (OSError, MTLError) as second:
        log.error("its folder %s cannot say so: %s", folder, second)


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-train``. Ends the process with the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        processes.check()
        several = processes.size() > 1
    except ConfigError:
        several = False  # the command says so
    if several and processes.rank() > 0:
        leave(help_the_first())
    code = _lead(arguments) if several else run_command(arguments)
    flush_output()
    leave(code)


def run_command(arguments: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    flags, overrides = composition.split_arguments(arguments)
    own = composition.user_config_dir(flags)
    _Invocation.folders = (composition.config_dir(), *([own] if own else []))
    _Invocation.interrupted = _Invocation.error = None
    _Invocation.jobs_failed, _Invocation.in_use, _Invocation.started = 0, [], time.time()
    _Invocation.told_where = "the train.log of each says why"
    _Invocation.changed, _Invocation.data = {}, None
    hydra_callback.sweep_dir = None
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    previous = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints and exits by itself
    _console()
    try:
        return _command(flags, overrides, own)
    except KeyboardInterrupt:
        return _Invocation.interrupted or 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _SHOWING & set(flags):
            nobody_reads(sys.stdout)
            return 128 + signal.SIGPIPE
        code, text = _explain(error, overrides)
        if show_traceback:
            traceback.print_exception(error)
    finally:
        if previous is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = previous
        _finish_sweep()
    _Invocation.told = text
    say(text, sys.stderr)
    return code


def _lead(arguments: Sequence[str]) -> int:
    """Runs a command line as the first of several processes; the others help, and end as it does."""
    _Invocation.meeting, _Invocation.told, code = Meeting(), "", 1
    try:
        code = run_command(arguments)
    finally:
        _Invocation.meeting.end(Ending(code, _Invocation.told))
    return code


def _explain(error: Exception, overrides: Sequence[str]) -> tuple[int, str]:
    """The exit code for an error, and what to tell of it."""
    if count := _jobs_failed():
        return 1, f"{count} job{'' if count == 1 else 's'} failed; {_Invocation.told_where}."
    if isinstance(error, MTLError):
        return (2 if isinstance(error, UserError) else 1), str(error)
    message = composition.friendly(error, overrides, _Invocation.folders)
    return (1, f"{_one_line(error)} (a bug? HYDRA_FULL_ERROR=1 shows where)") if message is None else (2, message)


def _command(flags: list[str], overrides: list[str], own: Path | None) -> int:
    composition.check_flags(flags)
    if "--version" in flags:
        print(f"mtl-train {__version__} (Hydra {hydra.__version__})")
        return 0
    _check_processes("-m" in flags or "--multirun" in flags)
    if own is not None and not own.is_dir():
        raise ConfigError(Problem("--config-dir", f"there is no folder '{own}' in {Path.cwd()}"))
    if own is not None:
        composition.check_shadowed(own)
    groups = composition.config_groups(_Invocation.folders)
    composition.check_overrides(overrides, "-m" in flags or "--multirun" in flags, groups)
    sweeps = {"-m", "--multirun"} & set(flags) and not _SHOWING & set(flags)
    # Else each job would fail with the same message. An experiment, or a value of `tasks`, may bring the tasks.
    if sweeps and not any(o.lstrip("+").startswith(("task", "experiment", "hydra.sweeper")) for o in overrides):
        raise _no_task(groups)
    hydra_launcher.register(_Stacked())
    hydra_callback.forced = partial(composition.forced, groups=groups)
    target = _resume_alone(flags, overrides)
    if target is not None:
        _resume_from_folder(target, overrides)
        return 0
    arguments = [*flags, *(composition.forced(override, groups) for override in overrides)]
    saved, sys.argv = sys.argv, ["mtl-train", *arguments]
    try:
        with composition.mode_by_flags(overrides, own):
            _run()
    finally:
        sys.argv = saved
    if _Invocation.error is not None:
        raise _Invocation.error
    if _jobs_failed():
        say(_explain(RuntimeError(), overrides)[1], sys.stderr)
    if unfinished := _left_unfinished():
        told = f"{unfinished} job{' is' if unfinished == 1 else 's are'} in use by another process and not done yet."
        say(f"{told} The same command again takes over what that one leaves.", sys.stderr)
    return int(_jobs_failed() > 0 or unfinished > 0)


def _check_processes(sweeps: bool) -> None:
    """Refuses what several processes do not do, before anything is composed."""
    processes.check()
    if sweeps and processes.size() > 1:
        what = f"is a sweep, and torchrun starts {processes.size()} processes for one run"
        hint = "Start each job with torchrun, or all with a launcher: mtl-train -m ... hydra/launcher=joblib."
        raise ConfigError(Problem("-m", what, hint))


def _refuse_in_several(config: RunConfig) -> None:
    """Refuses what a configuration asks for and several processes do not do."""
    if processes.size() == 1:
        return
    problems = []
    if config.data.in_memory is False:
        what = "is false, and rows are not streamed in several processes, each of which holds all"
        problems.append(Problem("data.in_memory", what, "Write data.in_memory=true, or train in one process."))
    if config.trainer.device not in ("auto", "cpu", "cuda"):
        what = f"is {config.trainer.device} for each of {processes.size()} processes"
        problems.append(Problem("trainer.device", what, "Write cuda: each takes the GPU of its number; or cpu."))
    if problems:
        raise ConfigError(problems)


def _jobs_failed() -> int:
    """Jobs of this command's sweep that failed; those that ran in other processes have said so in their folders."""
    folder = hydra_callback.sweep_dir
    if folder is None or hydra_callback.in_this_process:
        return _Invocation.jobs_failed
    states = (entry / "status.json" for entry in folder.iterdir())
    ours = [file.parent for file in states if file.exists() and file.stat().st_mtime >= _Invocation.started]
    return sum(RunFolder(run).status["state"] == "failed" for run in ours)


def _left_unfinished() -> int:
    """Jobs of this command's sweep that were left to another process, which has not finished them yet."""
    folder = hydra_callback.sweep_dir
    if folder is None or hydra_callback.in_this_process:
        return sum(not (job / "status.json").exists() or not RunFolder(job).is_done for job in _Invocation.in_use)
    return sum(is_locked(job) for job in folder.iterdir())


def _resume_alone(flags: Sequence[str], overrides: Sequence[str]) -> Path | None:
    """The folder of ``mtl-train resume=RUN`` without a task: everything else is in the run's own config.yaml."""
    if composition.without_config_dir(flags) or any(o.startswith("task=") for o in overrides):
        return None
    values = [o.partition("=")[2].strip("'\"") for o in overrides if o.startswith("resume=")]
    return None if not values or values[-1] in ("auto", "null") else Path(values[-1]).expanduser()


def _resume_from_folder(folder: Path, overrides: Sequence[str]) -> None:
    run = RunFolder.open(folder)
    raw = run.read_settings()
    own = [o for o in overrides if not o.startswith("resume=")]
    for override in own:
        key, equals, _ = override.lstrip("+").partition("=")
        if not equals or key in composition.config_groups(_Invocation.folders):
            raise ConfigError(
                Problem("command line", f"'{override}' cannot be combined with resume=RUN alone", "Write key=value.")
            )
        if key == "init_from":
            what = "cannot be given together with resume, which takes the run's own weights"
            raise ConfigError(Problem("init_from (command line)", what, "Leave one of the two out."))
    given = composition.plain(OmegaConf.from_dotlist([o.lstrip("+") for o in own]))
    raw = _merged(raw, given)  # not by OmegaConf: what stands in a run's file is data, and ${...} in it is text
    raw["resume"] = None  # what init_from= of the run itself does not go together with
    config = validate(raw, composition.origin_of(overrides, []))
    _refuse_changes(folder, raw)
    _refuse_in_several(config)
    if config.dry_run:
        _audit(config, folder)
    else:
        _train(config, raw, run.read_overrides(), folder, resume=True)


def _merged(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings within mappings, the values of ``new`` over those of ``old``."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _finish_sweep() -> None:
    """Writes and prints the leaderboard of a sweep, also of one that broke off."""
    folder = hydra_callback.sweep_dir
    if folder is None or not folder.is_dir():
        return
    records = [
        replace(record, status="changed", error=_Invocation.changed[record.job])
        if record.job in _Invocation.changed
        else record
        for record in collect(folder)
    ]
    if not records:
        if [entry.name for entry in folder.iterdir()] == ["multirun.yaml"]:  # Hydra's own, written before any job
            (folder / "multirun.yaml").unlink()
        _clear_away(folder)
        return
    write(folder, records)
    say(f"\n{format_table(records)}\n\nsweep folder: {folder}", sys.stdout)
    if any(record.status in ("failed", "interrupted") for record in records):
        say(f"to go on: the same command with hydra.sweep.dir={folder}, which leaves alone what is done", sys.stdout)


#: What stands in front of the lines of a job that is trained together with others.
_label: contextvars.ContextVar[str] = contextvars.ContextVar("label", default="")


class _Console(logging.Handler):
    """Log lines that do not tear a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record to standard output."""
        from tqdm import tqdm

        try:
            tqdm.write(_label.get() + self.format(record), file=sys.stdout)
        except BrokenPipeError:  # `| head`: training goes on, and train.log has every line
            nobody_reads(sys.stdout)


class _LogFile(logging.FileHandler):
    """A file whose disk may be full: logging's own handler would print a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Says once that lines are missing; what must not be lost is written elsewhere and stops the run."""
        log.removeHandler(self)
        log.warning("%s: cannot be written, got '%s'. Lines are missing there.", self.baseFilename, sys.exc_info()[1])


#: The log of the job whose code is running: of several that are trained together each has a context of its own.
_job_log: contextvars.ContextVar[Any] = contextvars.ContextVar("job_log", default=None)


class _logging:
    """While it is open, what the package logs in this context also goes to a run's train.log."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._handler: logging.Handler | None = None
        self._before: contextvars.Token[_logging | None] | None = None

    def __enter__(self) -> _logging:
        if self._path is not None:
            try:
                self._handler = _LogFile(self._path, encoding="utf-8")
            except OSError as error:
                raise write_error(self._path, error) from error
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self._handler.addFilter(lambda _: _job_log.get() is self)
            log.addHandler(self._handler)
        self._before = _job_log.set(self)
        return self

    def only_here(self, text: str) -> None:
        """Writes to the file what is too long for the console."""
        if self._handler is not None:
            self._handler.handle(logging.LogRecord(log.name, logging.ERROR, "", 0, text, None, None))

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _job_log.reset(self._before)
        if self._handler is not None:
            log.removeHandler(self._handler)
            self._handler.close()


def _console() -> None:
    """One console handler on our own logger: Hydra rebuilds those of the root logger for every job."""
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        log.addHandler(_Console())
    log.setLevel(logging.INFO)
    log.propagate = False


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


if __name__ == "__main__":
    main()
