"""Folders of runs below a folder: find the one to go on with, clear away empty ones."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mtl_cli.errors import RunError
from mtl_cli.run.folder import STATUS, RunFolder
from mtl_cli.run.lock import is_locked


def remove_if_empty(path: Path, stop: Path) -> None:
    """Removes the folder ``path``, then each parent that this leaves empty, up to but not including ``stop``.

    Nothing that holds a file is ever removed.

    Raises:
        ValueError: ``path`` is not below ``stop``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as scratch:
        ...     stop = Path(scratch)
        ...     (stop / "day" / "time").mkdir(parents=True)
        ...     remove_if_empty(stop / "day" / "time", stop)
        ...     list(stop.iterdir())
        []
    """
    folder, end = path.resolve(), stop.resolve()
    if end not in folder.parents:
        raise ValueError(f"{path} is not below {stop}")
    while folder != end:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass  # gone already; its parents may be empty all the same
        except OSError:
            return
        folder = folder.parent


def find_resumable(root: Path) -> list[Path]:
    """The unfinished runs below ``root`` that no live process is in, the one that was written to last first.

    Args:
        root: A run folder, or a folder with run folders somewhere below.

    Returns:
        Folders with ``checkpoints/last.pt`` whose state is running, interrupted or failed.
    """
    times = {folder: _last_written_if_resumable(RunFolder(folder)) for folder in _run_folders(root)}
    known = [(time, folder) for folder, time in times.items() if time is not None]
    return [folder for _, folder in sorted(known, reverse=True)]


def _last_written_if_resumable(run: RunFolder) -> int | None:
    """When an unfinished run was last written to, in nanoseconds; None if it cannot be resumed.

    Its status is of when it began or ended. One that was killed has only its checkpoint to tell how far it came.
    """
    try:
        status = run.status
        written = max(file.stat().st_mtime_ns for file in (run.path / STATUS, run.checkpoint("last")))
    except (RunError, OSError):
        return None
    return None if status["state"] == "done" or is_locked(run.path) else written


def _run_folders(root: Path) -> Iterable[Path]:
    for name, folders, files in os.walk(root):
        if STATUS in files:
            folders.clear()  # runs are not nested, and checkpoints need no visit
            yield Path(name)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
