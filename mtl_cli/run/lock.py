"""One process at a time in a folder.

The lock is the kernel's (``flock``), so that it is gone the moment its owner dies, however it dies. The file
``.lock`` says who the owner is; what it says counts only while the lock is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from mtl_cli.errors import DiskError, InUseError, Problem
from mtl_cli.run.clock import now

LOCK_NAME = ".lock"
_TRIES = 5
_PAUSE = 0.02  # seconds; outlasts a reader's probe, which holds the lock for microseconds


class FolderLock:
    """An exclusive lock on a folder, held until ``release`` or the death of the process.

    Args:
        folder: An existing folder.

    Raises:
        InUseError: Another process holds it; names it.
        DiskError: The folder cannot be locked.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._owner = os.getpid()
        self._descriptor: int | None = self._acquire()
        owner = {"pid": self._owner, "host": socket.gethostname(), "since": now()}
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(owner).encode(), 0)
        except OSError as error:
            self.release()
            raise _cannot_lock(folder, error) from error

    def release(self) -> None:
        """Gives the folder back and removes the lock file. A second call does nothing."""
        if self._descriptor is None:
            return
        if os.getpid() == self._owner:  # a forked child shares the lock and must not take it from its parent
            # Unlinked while still held: see _acquire for why nobody can be fooled by that.
            with contextlib.suppress(OSError):
                self._path.unlink()
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = None

    def _acquire(self) -> int:
        folder = self._path.parent
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE)
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise _cannot_lock(folder, error) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The owner before us may have unlinked the file between our open and our lock: then we hold
                # the lock of a file that nobody else will ever open, and must start again.
                if _same_file(descriptor, self._path):
                    return descriptor
            except BlockingIOError:
                pass
            except OSError as error:
                os.close(descriptor)
                raise _cannot_lock(folder, error) from error
            os.close(descriptor)
        what = f"is in use by {_owner_text(self._path)}"
        raise InUseError(Problem(str(folder), what, "Wait for it to end, or choose another folder."))


def is_locked(folder: Path) -> bool:
    """Whether a live process holds the lock of ``folder``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = FolderLock(Path(folder))
        ...     held = is_locked(Path(folder))
        ...     lock.release()
        ...     print(held, is_locked(Path(folder)))
        True False
    """
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _owner_text(path: Path) -> str:
    try:
        owner = json.loads(path.read_text("utf-8"))
        return f"process {owner['pid']} on host {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # it holds the lock and has not yet written who it is


def _cannot_lock(folder: Path, error: OSError) -> DiskError:
    reason = error.strerror or str(error)
    hint = "Choose a folder that can be written, on a disk that knows file locks."
    return DiskError(Problem(str(folder), f"cannot be locked, got '{reason}'", hint))
