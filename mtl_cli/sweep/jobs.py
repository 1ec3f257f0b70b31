"""Names of a sweep's jobs."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 60


def job_name(overrides: list[str]) -> str:
    """A folder name for the job with these overrides: readable, safe on every file system, the same in any order.

    What says how the sweep is run (``hydra.*``, ``stop_on_failure``) and leading ``+`` do not count. What is often the
    same for all jobs (``experiment``, options of the trainer, paths and other long values) comes last, where it may be
    cut off. The hash at the end keeps apart what the readable part cannot (signs that folders cannot have, long lists,
    capital letters on a disk that does not tell them apart).

    Args:
        overrides: As on the command line: ``trainer.lr=0.1``.

    Returns:
        Letters, digits, ``.``, ``_`` and ``-`` only; ``default`` for no overrides.

    Example:
        >>> job_name(["sharing=mmoe", "seed=1"])
        'seed-1-sharing-mmoe-1c111885'
        >>> job_name(["data.path=/data/of/last/year/adult.parquet", "task=adult", "seed=1"])
        'seed-1-task-adult-data.path--data-of-last-year-adult.parquet-eeef2bcb'
        >>> job_name(["seed=1", "+sharing=mmoe", "hydra.verbose=true"]) == job_name(["sharing=mmoe", "seed=1"])
        True
        >>> job_name([])
        'default'
    """
    counted = sorted(
        {plain for override in overrides if (plain := override.strip().lstrip("+")) and not _of_the_sweep(plain)}
    )
    if not counted:
        return "default"
    digest = hashlib.sha1("\n".join(counted).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]
    telling_first = sorted(counted, key=lambda override: (_commonness(override), override))
    # No leading sign: "-x" reads as an option to shell commands, ".x" is hidden.
    readable = re.sub(r"[^A-Za-z0-9._-]", "-", ",".join(telling_first)).lstrip("-.")[:_LONGEST]
    return f"{readable}-{digest}" if readable else digest


def override_values(overrides: list[str]) -> dict[str, str]:
    """Key and value of each override, without ``hydra.*`` ones; the last one wins.

    Example:
        >>> override_values(["+seed=1", "task=digits", "~logger", "hydra.verbose=true"])
        {'seed': '1', 'task': 'digits', '~logger': ''}
    """
    pairs = (override.strip().lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if key and not _of_the_sweep(key)}


def _commonness(override: str) -> int:
    """How likely an override is the same for all jobs. A name is made from one job's, which cannot tell."""
    if len(override) > _LONGEST // 2:
        return 4
    ranks = {"task=": 1, "experiment=": 2, "trainer.": 3}
    return next((rank for start, rank in ranks.items() if override.startswith(start)), 0)


def _of_the_sweep(override: str) -> bool:
    """Whether an override says how the sweep is run, and nothing of the job."""
    return re.match(r"~?(hydra|stop_on_failure)([./=]|$)", override) is not None
