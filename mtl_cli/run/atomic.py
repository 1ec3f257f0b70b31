"""Files that appear whole or not at all: write beside the target, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mtl_cli.errors import Problem, TrainingError

TEMPORARY_SUFFIX = ".mtl-tmp"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that takes the place of ``path`` when the block ends without an error.

    Whatever goes wrong until then, the file that was at ``path`` stays as it was and the temporary one is removed. The
    new file is there, though a power cut may take it back, where the folder alone cannot be synced after that.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        A binary file open for writing.

    Raises:
        TrainingError: The operating system refused (full disk, no permission); names the path and the reason.
    """
    # The hidden name keeps it out of listings; the random part keeps two writers apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        # os.open, not tempfile: the file must get the permissions that the user's umask gives, not 0600.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - one module for all four system calls
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path``, whole or not at all.

    Raises:
        TrainingError: The file cannot be written; see ``replacing``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes(Path(folder) / "a", b"new")
        ...     [(p.name, p.read_bytes()) for p in Path(folder).iterdir()]
        [('a', b'new')]
    """
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8 to ``path``, whole or not at all.

    Raises:
        TrainingError: The file cannot be written; see ``replacing``.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, obj: object) -> None:
    """Writes ``obj`` as indented JSON to ``path``, whole or not at all. Numbers that are not finite become null.

    Raises:
        TrainingError: The file cannot be written; see ``replacing``.
        TypeError: ``obj`` holds something that JSON has no word for.
    """
    write_text(path, json.dumps(finite(obj), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def finite(obj: Any) -> Any:
    """The same nested lists and dicts with None for every NaN and infinity, which JSON cannot say.

    Example:
        >>> finite({"loss": float("nan"), "scores": (0.5, float("inf"))})
        {'loss': None, 'scores': [0.5, None]}
    """
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, dict):
        return {key: finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [finite(value) for value in obj]
    return obj


def write_error(path: Path, error: OSError) -> TrainingError:
    """The error for a file that the operating system refused to write.

    Example:
        >>> print(write_error(Path("a/b.json"), OSError(28, "No space left on device")))
        a/b.json: cannot be written, got 'No space left on device'. Check the free space and the permissions there.
    """
    reason = error.strerror or str(error)
    hint = "Check the free space and the permissions there."
    return TrainingError(str(Problem(str(path), f"cannot be written, got '{reason}'", hint)))


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder``, or a new entry of it, survive a power cut.

    Raises:
        OSError: The operating system refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename itself is done, so nothing is lost but speed.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
