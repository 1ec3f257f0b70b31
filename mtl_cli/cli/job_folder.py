"""What a job does in its folder: it trains there, or tries everything without training; it leaves no empty one."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl_cli.cli import session
from mtl_cli.cli.composed import Job
from mtl_cli.cli.console import RunLog, one_line
from mtl_cli.cli.continuing import (
    best_score,
    has_more_to_do,
    refuse_edited_data,
    tell_changes,
    tell_edits,
    with_own_buffer,
    with_own_epochs,
)
from mtl_cli.errors import MTLError, RunError, UserError
from mtl_cli.processes import Work
from mtl_cli.registry import mistakes_in_components
from mtl_cli.run import RunFolder, remove_if_empty, settings_text
from mtl_cli.steps import Steps

log = logging.getLogger("mtl_cli")


def train_in_folder(job: Job, *, resume: bool, **how: Any) -> Steps[float | None]:
    """Trains in the job's folder, whose status says how it ended, whatever happens; gives the score.

    Args:
        job: The job.
        resume: Whether the run in the folder is gone on with.
        how: Further options of ``mtl_cli.job.run_training``.
    """
    with RunFolder.claim(job.folder, resume=resume) as run:
        begun = run if resume else None
        job = with_own_buffer(with_own_epochs(job, begun), begun)
        if resume and run.is_done and not has_more_to_do(run, job.config):
            refuse_edited_data(run, job.config)
            log.info("%s: is done, nothing to do", job.folder)
            tell_edits(run, job.config)
            return best_score(run)
        from mtl_cli.job import training

        kept = run.description() if resume else None
        with RunLog(job.folder / "train.log") as written:
            if resume:
                tell_changes(run.path, job.settings)
            with _status_of_the_end(run, kept, written):
                _describe(run, job, resume=resume)
                meeting = session.current().meeting
                if meeting is not None:
                    how["processes"] = meeting.begin(Work(str(job.folder.absolute()), resume))
                with mistakes_in_components():
                    return (yield from training(job.config, run, resume=resume, **how))


def _describe(run: RunFolder, job: Job, *, resume: bool) -> None:
    """Writes what the run is, and that it is running.

    Gone on with, its status first: under limits not reached yet, it must not say that it is done. A new one, its
    configuration first: a run whose status says something can be gone on with.
    """
    if resume:
        run.set_status("running")
    run.write_config(settings_text({**job.settings, "resume": None}), job.overrides)
    if not resume:
        run.set_status("running")


@contextlib.contextmanager
def _status_of_the_end(run: RunFolder, kept: Mapping[str, bytes] | None, written: RunLog) -> Iterator[None]:
    """Has a run's status say how its training broke off; one that is done stays so while trackers are told the rest.

    Args:
        run: The run.
        kept: What described it before it was gone on with; None for a new one.
        written: Its train.log.
    """
    from mtl_cli.job import Interrupted

    try:
        yield
    except Interrupted as stop:
        code = 128 + stop.signal
        run.set_status("interrupted", exit_code=code)
        session.current().exit_code = code
        log.warning("interrupted; go on with: mtl-train resume=%s", run.path)
        raise KeyboardInterrupt from stop
    except KeyboardInterrupt:
        if not _is_done(run):
            run.set_status("interrupted", exit_code=130)
        raise
    except UserError as error:
        if not _is_done(run):
            _undo(run, kept, error)
        raise
    except Exception as error:
        written.only_here(traceback.format_exc())
        if not _is_done(run):
            with contextlib.suppress(MTLError):  # a full disk refuses this too; the first error is to be shown
                run.set_status("failed", exit_code=1, error=one_line(error))
        raise


def _undo(run: RunFolder, kept: Mapping[str, bytes] | None, error: UserError) -> None:
    """Leaves a run that cannot go on, for a mistake of its user, as it was before."""
    if kept is not None:
        run.put_back(kept)
    elif run.checkpoints():  # hours of training must not go because its last file cannot be read
        run.set_status("failed", exit_code=2, error=one_line(error))
    else:  # nothing was trained: leave nothing that looks like a run
        run.clear()


def _is_done(run: RunFolder) -> bool:
    """Whether the run says so; one that was only begun may say nothing."""
    with contextlib.suppress(RunError):
        return run.is_done
    return False


def try_in_folder(job: Job) -> None:
    """``dry_run=true``."""
    from mtl_cli.job import audit

    with RunLog(None), mistakes_in_components():
        audit(job.config, job.folder)


def clear_away(folder: Path) -> None:
    """Removes a folder that nothing was written to, and its empty parents if they are below the working directory."""
    here = Path.cwd().resolve()
    if folder.resolve() == here:  # hydra.run.dir=.
        return
    below = folder.resolve().is_relative_to(here)
    remove_if_empty(folder, Path.cwd() if below else folder.parent)
