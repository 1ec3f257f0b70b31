"""The row groups of a Parquet file: how many rows each has, which polars does not tell.

The end of the file describes it, written in Thrift's compact protocol
(https://github.com/apache/parquet-format, https://github.com/apache/thrift/blob/master/doc/specs).
"""

from __future__ import annotations

import struct
from pathlib import Path

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_ROW_GROUPS, _ROWS_OF_GROUP = 4, 3  # numbers of fields


def row_groups(path: Path) -> list[int]:
    """The number of rows of each row group, in order.

    Raises:
        ValueError: The file is no Parquet file, or is damaged.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < 12:
            raise ValueError("it is too short")
        file.seek(size - 8)
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic != b"PAR1" or length > size - 12:
            raise ValueError("it does not end as a Parquet file does")
        file.seek(size - 8 - length)
        described = file.read(length)
    try:
        return _Reader(described).row_groups()
    except IndexError:
        raise ValueError("its description breaks off") from None


class _Reader:
    """Goes through the description of a file."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def row_groups(self) -> list[int]:
        counts: list[int] = []
        number = 0
        while (found := self._field(number))[1] != _STOP:
            number, kind = found
            if number == _ROW_GROUPS and kind == _LIST:
                size, _ = self._list()
                counts = [self._rows_of_group() for _ in range(size)]
            else:
                self._skip(kind)
        return counts

    def _rows_of_group(self) -> int:
        rows, number = 0, 0
        while (found := self._field(number))[1] != _STOP:
            number, kind = found
            if number == _ROWS_OF_GROUP:
                encoded = self._integer()
                rows = (encoded >> 1) ^ -(encoded & 1)
            else:
                self._skip(kind)
        return rows

    def _field(self, before: int) -> tuple[int, int]:
        """Number and type of the next field of a structure."""
        head = self._byte()
        if head == _STOP:
            return before, _STOP
        if head >> 4:
            return before + (head >> 4), head & 15
        encoded = self._integer()
        return (encoded >> 1) ^ -(encoded & 1), head & 15

    def _list(self) -> tuple[int, int]:
        """Size of a list, and the type of its elements."""
        head = self._byte()
        return (self._integer() if head >> 4 == 15 else head >> 4), head & 15

    def _skip(self, kind: int) -> None:
        if kind == _STRUCT:
            number = 0
            while (found := self._field(number))[1] != _STOP:
                number, inner = found
                self._skip(inner)
        elif kind in (_LIST, _SET):
            size, inner = self._list()
            for _ in range(size):
                self._skip(_BYTE if inner in (_TRUE, _FALSE) else inner)
        elif kind == _MAP:
            size = self._integer()
            kinds = self._byte() if size else 0
            for _ in range(size):
                self._skip(kinds >> 4)
                self._skip(kinds & 15)
        elif kind == _BINARY:
            length = self._integer()
            self._at += length
        elif kind == _DOUBLE:
            self._at += 8
        elif kind == _BYTE:
            self._at += 1
        elif kind not in (_TRUE, _FALSE):
            self._integer()

    def _integer(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value
