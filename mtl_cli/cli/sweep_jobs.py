"""A job of a sweep: skipped, begun or gone on with, whatever its folder holds; and what is told of one that fails."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_cli.cli import session
from mtl_cli.cli.composed import Job
from mtl_cli.cli.console import label_lines, one_line
from mtl_cli.cli.continuing import (
    best_score,
    is_same_with_checkpoint,
    is_to_train_longer,
    refuse_changes,
    refuse_edited_data,
    tell_edits,
)
from mtl_cli.cli.job_folder import train_in_folder, try_in_folder
from mtl_cli.cli.several_processes import check_processes
from mtl_cli.errors import ConfigError, DiskError, InUseError, MTLError, Problem, RunError, UserError
from mtl_cli.run import RunFolder, is_locked
from mtl_cli.schema import RunConfig
from mtl_cli.steps import Clock, Steps

if TYPE_CHECKING:  # they import PyTorch, which a mistake in a configuration must not wait for
    from mtl_cli.build import Data
    from mtl_cli.data import Features

log = logging.getLogger("mtl_cli")
_ABOVE = "why is told above"


def job_by_itself(job: Job) -> Steps[float | None]:
    """A job of a sweep, after which no other one begins if a signal came too late to stop it."""
    late: list[int] = []
    score = yield from job_of_sweep(job, late=late.append, read=_read)
    if late:
        session.current().exit_code = 128 + late[0]
        raise KeyboardInterrupt
    return score


def job_of_sweep(
    job: Job, interrupted: Callable[[], int | None] | None = None, clock: Clock = time.monotonic, **how: Any
) -> Steps[float | None]:
    """A job of a sweep is skipped if it is done, and gone on with if it was stopped or is to train longer than it has.

    One that failed is begun again where it cannot be gone on with.

    ``interrupted`` and ``clock`` (given if it is trained together with others), and ``how``: see
    ``mtl_cli.job.run_training``.
    """
    check_processes(sweeps=True)  # a file may say that it is one
    how |= {"interrupted": interrupted, "clock": clock}
    if interrupted is not None:
        label_lines(f"job {job.number} | ")
    log.info("job %s: %s", job.number, " ".join(job.overrides))
    _expect_own_folder(job)
    if job.config.dry_run:
        try_in_folder(job)
        return None
    if not (job.folder / "status.json").exists():
        return (yield from train_in_folder(job, resume=False, **how))
    run = RunFolder.open(job.folder)
    state = run.status["state"]
    if state == "failed":
        return (yield from _after_failure(job, run, how))
    if not _is_to_go_on(job, run, state):
        try:
            score = best_score(run)
        except (RunError, KeyError, TypeError):
            pass  # it is made anew, as by resume=
        else:
            log.info("done already: %s", job.folder)
            tell_edits(run, job.config)
            return score
    return (yield from train_in_folder(job, resume=True, **how))


def _expect_own_folder(job: Job) -> None:
    """Refuses a job in the folder of another one of this sweep: it would be taken for that, to be trained longer."""
    number, overrides = session.current().sweep.begun.setdefault(job.folder, (job.number, job.overrides))
    if overrides != job.overrides:
        what = f"gives jobs {number} and {job.number} one folder, {job.folder}"
        raise ConfigError(Problem("hydra.sweep.subdir", what, "Add what they differ in, or leave it out."))


def _after_failure(job: Job, run: RunFolder, how: dict[str, Any]) -> Steps[float | None]:
    """A job that failed: it is gone on with, or begun again where that cannot be."""
    if is_same_with_checkpoint(run, job.settings):
        try:
            return (yield from train_in_folder(job, resume=True, **how))
        except (InUseError, DiskError):
            raise
        except RunError as error:  # its checkpoints are damaged, or of other data
            log.warning("%s It is begun again.", error)
    with RunFolder.claim(job.folder, resume=True) as claimed:
        claimed.clear()
    return (yield from train_in_folder(job, resume=False, **how))


def _is_to_go_on(job: Job, run: RunFolder, state: str) -> bool:
    """Whether there is training left to do for a job that did not fail.

    Raises:
        RunError: It cannot be gone on with.
    """
    refuse_changes(job.folder, job.settings)
    if state != "done":
        return True
    refuse_edited_data(run, job.config)
    return is_to_train_longer(job.folder, job.settings)


def _read(config: RunConfig, columns: Features | None) -> Data:
    """The data of a job; those of the one before, if they are the same."""
    sweep = session.current().sweep
    if sweep.data is None:
        from mtl_cli.together import SharedData

        sweep.data = SharedData(only_last=True)
    return sweep.data.read(config, columns)


def is_held_back(stop_on_failure: Any, number: int | None) -> bool:
    """Whether a job is not to begin because another one has failed; says so."""
    if stop_on_failure is not True or not session.current().sweep.errors:
        return False
    log.info("job %s: not started, since another one failed (stop_on_failure)", number)
    return True


def leave_to_another(folder: Path, error: InUseError) -> None:
    """Tells of a job that another process is in, which is no failure."""
    session.current().sweep.in_use.append(folder)
    log.warning("job left to another process: %s", error)


def tell_failure(folder: Path, overrides: list[str], error: Exception, *, keep: bool = True) -> None:
    """Tells of a job that failed, also in its folder.

    Args:
        folder: Its folder.
        overrides: Its own.
        error: What went wrong.
        keep: False if nothing is to be kept in the folder, as of a dry run.
    """
    sweep = session.current().sweep
    sweep.errors.append(one_line(error))
    log.error("job failed: %s: %s", folder.name, one_line(error) if keep else error)
    if keep:
        _record_failure(folder, overrides, error)
    else:
        sweep.where_told = _ABOVE


def _record_failure(folder: Path, overrides: list[str], error: Exception) -> None:
    """A failed job of a sweep says so in its own folder, at once; what went wrong stands in its log.

    A folder that holds a run which has not failed is left alone: the failure is that the sweep cannot use it, which the
    leaderboard says.
    """
    mend = isinstance(error, UserError)
    sweep = session.current().sweep
    try:
        run = RunFolder(folder)
        state = run.status["state"] if (folder / "status.json").exists() else None
        if state not in (None, "failed") or is_locked(folder):
            if isinstance(error, RunError):  # of the folder, whose name stands before it
                sweep.refused[folder.name] = "; ".join(problem.what for problem in error.problems)
            elif mend:
                sweep.refused[folder.name] = one_line(error)
            sweep.where_told = _ABOVE
            return
        if state == "failed" and not mend:  # its training has told
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{error}\n" if mend else "".join(traceback.format_exception(error)))
        (folder / "overrides").write_text("\n".join(overrides) + "\n", encoding="utf-8")
        run.set_status("failed", exit_code=2 if mend else 1, error=one_line(error))
    except (OSError, MTLError) as second:
        log.error("its folder %s cannot say so: %s", folder, second)
