"""Zipped files as a stream of what is in them; a file that breaks off is an error, never a shorter file."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

from mtl_cli.errors import ConfigError, DataError, Problem

_PIECE = 1 << 20  # zipped bytes at a time


@contextmanager
def unzipped(file: BinaryIO, zipped: str, name: str) -> Iterator[IO[bytes]]:
    """The content of a file.

    Args:
        file: The file, open at its start.
        zipped: The suffix that says how it is zipped: ``.gz``, ``.zst`` or, if it is not, ``""``.
        name: The file's name, for messages.

    Raises:
        DataError: The file is damaged; also while it is read.
        ConfigError: The package that reads it is not installed.
    """
    errors: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
    opened: Any = file
    if zipped == ".gz":
        opened = gzip.GzipFile(fileobj=file)
    elif zipped == ".zst":
        try:
            import zstandard  # an extra: only such files need it
        except ImportError:
            what, hint = (
                "needs the package zstandard, which is not installed",
                "pip install 'mtl-train[zstd]', or unzip it.",
            )
            raise ConfigError(Problem(name, what, hint)) from None
        opened = io.BufferedReader(_Joined(_frames(file, zstandard.ZstdDecompressor)))
        errors = (EOFError, zstandard.ZstdError)
    try:
        yield opened
    except errors as error:
        raise DataError(Problem(name, f"cannot be unzipped ({error})", "Is the file complete?")) from None


def _frames(file: BinaryIO, decompressor: Any) -> Iterator[bytes]:
    """The content of a zstandard file of one or more frames."""
    # Not its own stream_reader, which takes the beginning of a file for the whole.
    frame, rest = None, b""
    while data := rest or file.read(_PIECE):
        if frame is None or frame.eof:
            frame = decompressor().decompressobj()
        yield frame.decompress(data)
        rest = frame.unused_data if frame.eof else b""
    if frame is not None and not frame.eof:
        raise EOFError("it ends in the middle")


class _Joined(io.RawIOBase):
    """Pieces of bytes as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
