"""Jobs of a sweep that are trained together (``hydra/launcher=stacked``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mtl_cli.cli import session
from mtl_cli.cli.composed import Job, composed_job, given_overrides
from mtl_cli.cli.job_folder import clear_away
from mtl_cli.cli.sweep_jobs import is_held_back, job_of_sweep, leave_to_another, tell_failure
from mtl_cli.errors import InUseError

log = logging.getLogger("mtl_cli")


def prepare(composed: DictConfig) -> Job | Exception:
    """The job of a composed configuration, ready to be trained, or its error, which is recorded."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        return composed_job(composed)
    except Exception as error:
        tell_failure(folder, given_overrides(), error, keep=composed.get("dry_run") is not True)
        return error
    finally:
        clear_away(folder)


def groups(jobs: Sequence[Job], most: int) -> list[list[int]]:
    """Which of the jobs (by position, each at most once) to train together; says why the others are not.

    Args:
        jobs: The jobs.
        most: Largest number of jobs in a group.
    """
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
    together = []
    for own in kin.values():
        reason = why_kin_alone(jobs[own[0]].config)
        if reason is None:
            reason = "no other job of this sweep has its shape" if len(own) == 1 else f"hydra.launcher.max_jobs={most}"
            parts = _evenly(own, most)
        else:
            parts = [[place] for place in own]
        for part in parts:
            numbers = ", ".join(str(jobs[place].number) for place in part)
            if len(part) == 1:
                log.info("job %s is trained alone: %s", numbers, reason)
            else:
                log.info("%d jobs are trained together: %s", len(part), numbers)
                together.append(part)
    return together


def _evenly(places: Sequence[int], most: int) -> list[list[int]]:
    """As few parts as can be, alike in size: a small one takes as many steps as a large one."""
    count = -(-len(places) // most)
    bounds = [len(places) * i // count for i in range(count + 1)]
    return [list(places[start:stop]) for start, stop in pairwise(bounds)]


def train(jobs: Sequence[Job]) -> list[tuple[float | None, Exception | None]]:
    """Trains jobs together; for each of them its score, and its error, which is recorded."""
    from mtl_cli.job import signals
    from mtl_cli.together import SharedData, run_together

    held_back = [is_held_back(job.settings.get("stop_on_failure"), job.number) for job in jobs]
    if any(held_back):  # all of them: the option is the sweep's
        return [(None, None)] * len(jobs)
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    with signals() as interrupted:
        start = partial(job_of_sweep, read=SharedData().read, bar=False)
        outcomes = run_together([partial(start, job) for job in jobs], interrupted)
        stopped = interrupted()
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome.error, InUseError):
            leave_to_another(job.folder, outcome.error)
            outcome.error = None
        if isinstance(outcome.error, Exception):
            tell_failure(job.folder, job.overrides, outcome.error)
        clear_away(job.folder)
    if stopped is not None:
        session.current().exit_code = 128 + stopped
    if stopped is not None or any(isinstance(o.error, KeyboardInterrupt) for o in outcomes):
        raise KeyboardInterrupt
    return [(o.value, o.error if isinstance(o.error, Exception) else None) for o in outcomes]
