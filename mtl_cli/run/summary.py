"""The versions a run was made with, and what summary.json says.

summary.json, written at the end of a training; numbers that are not finite are null:

    format            1
    tasks             names of the tasks, in order
    monitor, mode     what "best" was chosen by (``mean``, ``val/loss``...) and "max" or "min"
    best              {"epoch": 3, "step": 120, "score": 0.91}; score null if no evaluation gave a number
    metrics           flat: "val/TASK/METRIC", "val/mean", "val/loss", the same under "test/"
    primary           metric that stands for each task but auxiliary ones: {"digit": "accuracy"}
    higher_is_better  the direction of each of them: {"digit": true}
    parameters        {"total": 1, "shared": 1, "tasks": {"digit": 1}, "frozen": 0}
    rows              {"train": 1, "val": 1, "test": 1}
    rows_seen         rows trained on, of each source: {"books": 1}; {} for one source
    epochs, steps     done in all, resumed parts included
    skipped_steps     of them left out because a loss or gradient was not finite (trainer.on_nonfinite=skip)
    train_seconds     time from the first step to the last, validations and checkpoints included, resumed parts too
    seconds           time of the process that ended the run, with imports, reading the data and the final evaluation
                      (both times: for a job of a stacked sweep its share of what was done for several jobs at once)
    rows_per_second   rows trained on over train_seconds
    seed, device, threads, processes, data_fingerprint, versions
    config            checksum of config.yaml as it was then
"""

from __future__ import annotations

import functools
import platform
from importlib import metadata

_PACKAGES = ("torch", "mtl-train", "polars", "hydra-core", "omegaconf", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a run's numbers; those not installed are left out.

    Example:
        >>> versions()["python"] == platform.python_version()
        True
    """
    found = {"python": platform.python_version()}
    return found | {name: version for name in _PACKAGES if (version := _version(name))}


@functools.cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # mtl-train itself may be run from its source folder
        return None
