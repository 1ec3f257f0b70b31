"""The metrics of a run over time: JSON Lines, one flat object per split and evaluation."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_cli.errors import DiskError, Problem, RunError
from mtl_cli.run.atomic import finite, sync_folder, write_error


class MetricsLog:
    """Appends records to a file and reads them back. One process writes; any number may read meanwhile.

    Args:
        path: The file; it appears with the first record.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = MetricsLog(Path(folder) / "metrics.jsonl")
        ...     log.append({"epoch": 1, "val/loss": 0.5})
        ...     size = log.size()  # what a checkpoint written now remembers
        ...     log.append({"epoch": 2, "val/loss": float("nan")})
        ...     print(log.read()[-1])
        ...     log.truncate(size)  # what resuming from that checkpoint does
        ...     print(log.read())
        {'epoch': 2, 'val/loss': None}
        [{'epoch': 1, 'val/loss': 0.5}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends_whole = False
        self._has_lasting_name = False
        self._follow: Callable[[dict[str, Any]], None] | None = None

    def followed_by(self, follow: Callable[[dict[str, Any]], None]) -> None:
        """Has a function called with every record once it is written."""
        self._follow = follow

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record as one line. NaN and infinity become null.

        Args:
            record: Flat: keys to text, numbers, booleans or None.

        Raises:
            TrainingError: The line cannot be written whole; what was written of it is taken back.
            TypeError: A value is nested or has no JSON form; names its key.
        """
        for key, value in record.items():
            if not isinstance(value, str | int | float | bool | None):
                raise TypeError(f"metrics record: {key} must be text, a number or None, got {type(value).__name__}")
        line = json.dumps(finite(record), allow_nan=False, ensure_ascii=False).encode("utf-8") + b"\n"
        try:
            self._append(line)
        except OSError as error:
            self._ends_whole = False
            raise write_error(self.path, error) from error
        if self._follow is not None:
            self._follow(record)

    def size(self) -> int:
        """Bytes in the file, all of them on the disk: a checkpoint may rely on them after a power cut.

        Raises:
            TrainingError: The file cannot be brought to the disk.
        """
        if not self.path.exists():
            return 0
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if not self._has_lasting_name:  # the bytes are safe, but a file that the folder does not list is lost
                sync_folder(self.path.parent)
                self._has_lasting_name = True
        except OSError as error:
            raise write_error(self.path, error) from error
        return size

    def truncate(self, size: int) -> None:
        """Cuts what was written after a checkpoint, so that a resumed run does not say it twice.

        Args:
            size: What ``size()`` gave when the checkpoint was written.

        Raises:
            RunError: The file is shorter, or does not end a line there: it is not the checkpoint's.
            TrainingError: The file cannot be written.
        """
        data = self._read_bytes()
        hint = "The file and the checkpoint are not of the same run; put the right file back, or start a new run."
        if len(data) < size:
            what = f"is shorter than the checkpoint remembers: {size} bytes expected, got {len(data)}"
            raise RunError(Problem(str(self.path), what, hint))
        if size and data[size - 1 : size] != b"\n":
            raise RunError(Problem(str(self.path), f"has no end of a line after byte {size}", hint))
        if len(data) == size:
            return
        try:
            os.truncate(self.path, size)
        except OSError as error:
            raise write_error(self.path, error) from error

    def read(self) -> list[dict[str, Any]]:
        """All records; none if there is no file. A last line without its end (killed mid-write) is left out.

        Raises:
            RunError: Another line is damaged, or the file cannot be read; names the line.
        """
        lines = self._read_bytes().split(b"\n")[:-1]  # what follows the last line end is empty or torn
        return [self._parse(number, line) for number, line in enumerate(lines, start=1)]

    def _read_bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise DiskError.of_reading(self.path, error) from error

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RunError(self._damaged(number, line)) from error
        if not isinstance(record, dict):
            raise RunError(self._damaged(number, line))
        return record

    def _damaged(self, number: int, line: bytes) -> Problem:
        shown = line[:40].decode("utf-8", "replace") + ("..." if len(line) > 40 else "")
        return Problem(f"{self.path}, line {number}", f"is damaged: no JSON object, got {shown!r}", "Remove that line.")

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            if not self._ends_whole:  # a process killed mid-write left half a line, which ours must not be glued to
                _cut_torn_line(descriptor)
                self._ends_whole = True
            before = os.fstat(descriptor).st_size
            # One system call: a reader, or a kill, sees the line whole or not at all.
            written = os.write(descriptor, line)
            if written < len(line):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what cuts a write short
        finally:
            os.close(descriptor)


class SeenLog(MetricsLog):
    """The log as one sees it who leaves all writing to another process."""

    def append(self, record: dict[str, Any]) -> None: ...

    def size(self) -> int:
        return 0

    def truncate(self, size: int) -> None: ...


def _cut_torn_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    os.ftruncate(descriptor, os.pread(descriptor, size, 0).rfind(b"\n") + 1)
