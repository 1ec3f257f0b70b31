"""Delimited text to a frame of text cells, checked byte by byte before it is parsed.

The parser (polars) fills short rows and may join rows at a stray quote; a scan of the separators, line ends and
quotes finds both beforehand, with the line of the file.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import polars as pl

from mtl_cli.errors import ConfigError, DataError, Problem

_CHUNK = 1 << 24  # bytes scanned at once, so that the positions of all separators never stand in memory together
_SHOWN = 3  # broken lines shown one by one
_QUOTE, _NEWLINE = ord('"'), ord("\n")


@dataclass(frozen=True)
class _Scan:
    ends: np.ndarray  # (rows + 1,) byte position of the line break that ends the header and each row
    cells: np.ndarray  # (rows + 1,) number of cells of the header and of each row
    multiline: bool  # whether some cell holds a line break


def parse_text(
    raw: bytes, name: str, sep: str, encoding: str, skipped: int = 0, columns: Sequence[str] | None = None
) -> tuple[pl.DataFrame, bool]:
    r"""Parses a delimited text file whose first line is the header, unless the columns are named.

    Args:
        raw: The bytes of the file.
        name: The file's name, for messages.
        sep: One character.
        encoding: Name of the text encoding; a byte-order mark is dropped.
        skipped: Lines of the file that are left out between the header and the first row, for messages.
        columns: Names of the columns of a file without a header.

    Returns:
        The cells as text, an empty cell as ``''``; and whether data row r stands on line r + 1.

    Raises:
        DataError: Empty, undecodable, ragged or badly quoted text, doubled or empty column names, a wrong separator.
        ConfigError: Unknown encoding.

    Example:
        >>> frame, lines = parse_text(b'id,text\n007,"a, b"\n', "x.csv", ",", "utf-8")
        >>> frame.rows(), lines
        ([('007', 'a, b')], True)
    """
    data = _decode(raw, name, encoding)
    if not data or data.isspace():
        without = Problem(name, "is an empty file, without a header", "Write the column names on the first line.")
        raise DataError(without if columns is None else Problem(name, "is an empty file"))
    if b"\n" not in data and b"\r" in data:
        raise DataError(Problem(name, "ends its lines with CR alone", "Save it with LF or CR LF line ends."))
    if data.endswith((b"\n\n", b"\n\r\n")) and sep.encode() in _first_line(data):
        data = data.rstrip(b"\r\n") + b"\n"  # blank lines at the end are no rows, unless the only cell is empty
    if columns is not None:
        data, skipped = _header(columns, sep) + data, skipped - 1
    first = _first_line(data).decode().removesuffix("\r")
    if b'"' not in data and "\r" not in first:
        header = first.split(sep)
        if columns is None:
            _check_header(header, name, sep)
        frame = _parse_unquoted(data, header, sep)
        if frame is not None:
            return frame, True
    if columns is None and sep not in first and first.count('"') % 2 == 0:
        _check_header([first], name, sep)  # with another separator quotes stand inside cells: that is not what is wrong
    scan = _scan(data, name, sep, skipped)
    line = data[: scan.ends[0]].decode().removesuffix("\r")
    header, *others = csv.reader(io.StringIO(line, newline=""), delimiter=sep)
    if others:
        what = f"has a CR outside of quotes that no LF follows, got {_short(first)}"
        raise DataError(Problem(f"{name}, line 1", what, "Save it with LF or CR LF line ends."))
    if columns is None:
        _check_header(header, name, sep)
    _check_widths(data, scan, name, sep, skipped, "the header has" if columns is None else "data.columns has")
    return _parse(data, header, len(scan.ends) - 1, name, sep), not scan.multiline


def parse_text_blocks(
    file: IO[bytes],
    name: str,
    sep: str,
    encoding: str,
    size: int = _CHUNK,
    columns: Sequence[str] | None = None,
) -> Iterator[tuple[pl.DataFrame, bool]]:
    r"""Parses a delimited text file piece by piece, with about ``size`` bytes of it in memory at a time.

    Args:
        file: The file, open at its start.
        name: The file's name, for messages.
        sep: One character.
        encoding: Name of the text encoding; a byte-order mark is dropped.
        size: Bytes to read at a time.
        columns: Names of the columns of a file without a header.

    Yields:
        What ``parse_text`` gives, for some rows after another; at least once. Whether rows stand on lines of their own
        holds for all rows so far.

    Raises:
        DataError: As ``parse_text``, when the piece is reached.

    Example:
        >>> pieces = parse_text_blocks(io.BytesIO(b'a\n1\n22\n333\n'), "x.csv", ",", "utf-8", size=5)
        >>> [frame["a"].to_list() for frame, _ in pieces]
        [['1'], ['22'], ['333']]
    """
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise _unknown_encoding(encoding) from None
    header = b"" if columns is not None else None
    pending, skipped, lines, ended, first, begun = b"", 0, True, False, True, False
    while not ended:
        raw = file.read(size)
        ended = not raw
        try:
            pending += decoder.decode(raw, final=ended).encode()
        except UnicodeDecodeError as error:
            before = (header or b"").count(b"\n") + skipped + pending.count(b"\n")
            raise _not_text(error, name, before) from None
        if not begun and pending:
            pending, begun = pending.removeprefix("\ufeff".encode()), True
        if header is None:
            cut = _row_end(pending, last=False)
            if cut == 0 and not ended:
                continue
            header, pending = (pending[:cut], pending[cut:]) if cut else (pending, b"")
        cut = len(pending) if ended else _row_end(pending, last=True)
        if cut == 0 and not (ended and first):
            continue
        frame, alone = parse_text(header + pending[:cut], name, sep, "utf-8", skipped, columns)
        lines = lines and alone
        yield frame, lines
        skipped += pending.count(b"\n", 0, cut)
        pending, first = pending[cut:], False


def _header(columns: Sequence[str], sep: str) -> bytes:
    """The line that a file without a header lacks."""
    line = io.StringIO(newline="")
    csv.writer(line, delimiter=sep, lineterminator="\n").writerow(columns)
    return line.getvalue().encode()


def _row_end(data: bytes, *, last: bool) -> int:
    """Where the first or the last whole row ends; 0 if none does. The last is no blank line: what follows says more."""
    find = data.rfind if last else data.find
    place = find(b"\n")
    while place >= 0:
        blank = last and data[data.rfind(b"\n", 0, place) + 1 : place] in (b"", b"\r")
        if not blank and data.count(b'"', 0, place) % 2 == 0:
            return place + 1
        place = data.rfind(b"\n", 0, place) if last else data.find(b"\n", place + 1)
    return 0


def _decode(raw: bytes, name: str, encoding: str) -> bytes:
    """The text as UTF-8 without a byte-order mark."""
    try:
        known = codecs.lookup(encoding).name
        if known in ("utf-8", "ascii") and raw.isascii():  # no copy of a large file
            return raw
        text = raw.decode(encoding)
    except LookupError:
        raise _unknown_encoding(encoding) from None
    except UnicodeDecodeError as error:
        raise _not_text(error, name, 0) from None
    return text.removeprefix("\ufeff").encode()


def _unknown_encoding(encoding: str) -> ConfigError:
    return ConfigError(Problem("data.encoding", f"unknown encoding, got '{encoding}'", "Write utf-8."))


def _not_text(error: UnicodeDecodeError, name: str, before: int) -> DataError:
    line = before + error.object.count(b"\n", 0, error.start) + 1
    what = f"is not {error.encoding} text, got byte 0x{error.object[error.start]:02x}"
    hint = "Set data.encoding, for example to cp1252 (Western Windows) or utf-16."
    return DataError(Problem(f"{name}, line {line}", what, hint))


def _scan(data: bytes, name: str, sep: str, skipped: int) -> _Scan:
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == _QUOTE)
    _check_quotes(data, quotes, name, sep, skipped)
    ends, before = [], []
    total, breaks = 0, 0
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        cuts = _outside(np.flatnonzero(chunk == ord(sep)) + start, quotes)
        newlines = np.flatnonzero(chunk == _NEWLINE) + start
        ends.append(_outside(newlines, quotes))
        before.append(total + np.searchsorted(cuts, ends[-1]))
        total += len(cuts)
        breaks += len(newlines)
    end, cut = np.concatenate(ends), np.concatenate(before)
    multiline = breaks > len(end)
    if not data.endswith(b"\n"):
        end, cut = np.append(end, len(data)), np.append(cut, total)
    return _Scan(end, np.diff(cut, prepend=0) + 1, multiline)


def _outside(positions: np.ndarray, quotes: np.ndarray) -> np.ndarray:
    """The positions that are not inside quotes: an even number of quotes stands before them."""
    if len(quotes) == 0:
        return positions
    kept: np.ndarray = positions[np.searchsorted(quotes, positions) % 2 == 0]
    return kept


def _check_quotes(data: bytes, quotes: np.ndarray, name: str, sep: str, skipped: int) -> None:
    """A quote opens at the start of a cell and closes at its end; inside, it is doubled."""
    if len(quotes) == 0:
        return
    padded = np.frombuffer(b"\n" + data + b"\n\n", np.uint8)  # the file's edges are edges of cells
    opening, closing = quotes[::2], quotes[1::2]
    starts = np.isin(padded[opening], [ord(sep), _NEWLINE, _QUOTE])  # padded[i] is the byte before byte i
    stops = np.isin(padded[closing + 2], [ord(sep), _NEWLINE, _QUOTE])
    stops |= (padded[closing + 2] == ord("\r")) & (padded[closing + 3] == _NEWLINE)
    wrong_start = np.flatnonzero(~starts)
    wrong_stop = np.flatnonzero(~stops)
    first_start = int(opening[wrong_start[0]]) if len(wrong_start) else len(data)
    unclosed = len(opening) - 1 if len(quotes) % 2 else len(opening)
    pair = min(int(wrong_stop[0]) if len(wrong_stop) else len(opening), unclosed)
    while 0 < pair < len(opening) and opening[pair] == closing[pair - 1] + 1:
        pair -= 1  # a doubled quote is inside the cell: step back to where the cell opened
    first_stop = int(opening[pair]) if pair < len(opening) else len(data)
    if min(first_start, first_stop) == len(data):
        return
    if first_stop < first_start:
        what = "a cell opens with a quote that is not closed at the end of a cell"
    else:
        what = "a quote stands inside a cell that does not begin with one"
    place = min(first_start, first_stop)
    line = data.count(b"\n", 0, place) + 1 + skipped
    text = data[data.rfind(b"\n", 0, place) + 1 :].split(b"\n", 1)[0].decode().removesuffix("\r")
    hint = "Write a cell that holds a quote in quotes, and double the quotes inside it."
    raise DataError(Problem(f"{name}, line {line}", f"{what}, got {_short(text)}", hint))


def _check_header(header: list[str], name: str, sep: str) -> None:
    problems = []
    places = defaultdict(list)
    for position, column in enumerate(header, start=1):
        places[column].append(position)
    for column, positions in places.items():
        shown = " and ".join(map(str, positions))
        if column == "":
            where = f"position{'s' * (len(positions) > 1)} {shown}"
            problems.append(Problem(name, f"the header has no name at {where}", "Name every column."))
        elif len(positions) > 1:
            what = f"the header has column '{column}' more than once, at positions {shown}"
            problems.append(Problem(name, what, "Rename or remove the others."))
    hint = _other_separator(header[0], sep) if len(header) == 1 else ""
    if hint:
        what = f"one column found with separator {_sep_name(sep)}, got header {_short(header[0])}"
        problems = [Problem(name, what, hint)]
    if problems:
        raise DataError(problems)


def _other_separator(line: str, sep: str) -> str:
    """The advice to set another separator, if a line of one cell has one."""
    other = next((s for s in ",;\t|" if s != sep and s in line), None)
    return "" if other is None else f'Set data.sep="{other}".'.replace("\t", "\\t")


def _check_widths(data: bytes, scan: _Scan, name: str, sep: str, skipped: int, wanted: str) -> None:
    wrong = np.flatnonzero(scan.cells != scan.cells[0])
    problems = []
    for row in wrong[:_SHOWN]:
        start, end = int(scan.ends[row - 1]) + 1, int(scan.ends[row])
        line = data.count(b"\n", 0, start) + 1 + skipped
        cells = int(scan.cells[row])
        what = f"has {cells} cell{'s' * (cells != 1)} where {wanted} {scan.cells[0]}"
        text = data[start:end].decode().removesuffix("\r")
        hint = _other_separator(text, sep) if cells == 1 and row == 1 else ""
        problems.append(Problem(f"{name}, line {line}", f"{what}, got {_short(text)}", hint))
    if len(wrong) > _SHOWN:
        more = len(wrong) - _SHOWN
        lines = "1 more line has" if more == 1 else f"{more} more lines have"
        problems.append(Problem(name, f"{lines} another number of cells"))
    if problems:
        raise DataError(problems)


def _first_line(data: bytes) -> bytes:
    """All before the first line break."""
    return data[:end] if (end := data.find(b"\n")) >= 0 else data


def _parse_unquoted(data: bytes, header: list[str], sep: str) -> pl.DataFrame | None:
    """The cells of a text without quotes, at less than the cost of a scan; None if some row has not its cells."""
    rows = data.count(b"\n") - data.endswith(b"\n")
    if rows == 0 or not _is_regular(data, len(header), sep):
        return None
    frame = _cells(data, sep)
    return _named(frame, header) if frame.shape == (rows, len(header)) else None


def _is_regular(data: bytes, width: int, sep: str) -> bool:
    """Whether of the separators and line breaks each ``width``-th is a line break, and no other one."""
    array, seen = np.frombuffer(data, np.uint8), 0
    for start in range(0, len(array), _CHUNK):
        chunk = array[start : start + _CHUNK]
        breaks = chunk == _NEWLINE
        marks = breaks[breaks | (chunk == ord(sep))]
        ends = marks[(width - 1 - seen) % width :: width]
        if not ends.all() or np.count_nonzero(marks) != len(ends):
            return False
        seen += len(marks)
    return (seen + (not data.endswith(b"\n"))) % width == 0


def _cells(data: bytes, sep: str) -> pl.DataFrame:
    """All rows after the first line; none if the parser refuses the text."""
    try:
        # The header is read as a row: no name is changed, and no first cell is taken for a byte-order mark.
        return pl.read_csv(io.BytesIO(data), has_header=False, infer_schema=False, separator=sep)[1:]
    except pl.exceptions.PolarsError:
        return pl.DataFrame()


def _named(frame: pl.DataFrame, header: list[str]) -> pl.DataFrame:
    # The parser gives an empty cell as null; no cell is absent here.
    frame.columns = header
    return frame.with_columns(frame[name].fill_null("") for name in header if frame[name].null_count())


def _parse(data: bytes, header: list[str], rows: int, name: str, sep: str) -> pl.DataFrame:
    if rows == 0:
        return pl.DataFrame(schema=dict.fromkeys(header, pl.String))
    frame = _cells(data, sep)
    if frame.shape != (rows, len(header)):  # two readers disagree: the slow exact one decides
        try:
            cells = list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=sep, strict=True))[1:]
            cells = [row or [""] for row in cells]  # the reader gives a blank line as no cell at all
            return pl.DataFrame(cells, schema=dict.fromkeys(header, pl.String), orient="row")
        except csv.Error as error:
            raise DataError(Problem(name, f"cannot be read as delimited text ({error})")) from None
    return _named(frame, header)


def _sep_name(sep: str) -> str:
    return {"\t": "tab"}.get(sep, f"'{sep}'")


def _short(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else text[: length - 3] + "...")
