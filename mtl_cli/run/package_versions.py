"""The versions that a run was made with."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

_PACKAGES = ("torch", "mtl-train", "polars", "hydra-core", "omegaconf", "scikit-learn", "numpy", "pillow", "torchjd")


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
