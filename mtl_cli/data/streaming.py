"""Rows whose inputs stay in their files: read ahead, window by window, while the window before is trained on."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mtl_cli.data.batches import Epoch, Origins, Ranking, Rows, Window, permutation
from mtl_cli.data.features import Features
from mtl_cli.data.input_columns import Findings
from mtl_cli.data.memory import free_memory
from mtl_cli.data.selection import select_columns
from mtl_cli.data.stored import StoredTable, Stretch
from mtl_cli.data.table import Table, rows_in
from mtl_cli.errors import DataError, UserError
from mtl_cli.schema import FeatureOptions
from mtl_cli.types import Inputs, Labels, Ragged

_EXAMPLE = 1024  # rows
_SAMPLE = 64  # rows that are looked at to find out how large all are
_IMAGE_SAMPLE = 4  # the same where each is an image file: all have one size
_WINDOW_ROWS = 65_536  # that are shuffled together, unless the user says how many,
_WINDOW_BYTES = 1 << 29  # and most that they take
_SHARE_HELD = 0.25  # of the memory that is free: what validation rows may take
_CUT = 4  # row groups of more than so many times the buffer are cut
_MERGED = 8  # row groups are put together up to this part of the buffer


@dataclass(frozen=True)
class Stream:
    """How the inputs of rows come from their files.

    Args:
        table: N rows.
        features: How inputs are made.
        buffer: Least number of rows that are shuffled together.
        held: Inputs of the rows of some splits, in memory.
        without: The rows that had no inputs when all were gone through, as their image could not be read; sorted.
    """

    table: StoredTable
    features: Features
    buffer: int
    held: Mapping[str, Inputs]
    without: Sequence[int] = ()

    def stretches(self) -> list[Stretch]:
        """The rows as they are read at a time."""
        return self.table.stretches(max(self.buffer // _MERGED, 1), _CUT * self.buffer)

    def read(self, stretch: Stretch, rows: np.ndarray | None = None) -> Inputs:
        """The inputs of a stretch, or of some of its rows.

        Raises:
            DataError: A file is no longer what it was when all rows were gone through: the table's, or an image.
        """
        rows = np.arange(stretch.rows) if rows is None else rows
        table = self.table.read(stretch)
        table = table if len(rows) == stretch.rows else table.some(rows)
        without = rows_in(np.array(self.without, np.int64), stretch.first, stretch.rows)
        try:
            expected = np.flatnonzero(np.isin(rows, without)).tolist()
            return self.features.transform(table, unreadable=[], expected=expected)[0]
        except DataError as error:
            hint = "It was otherwise at the start. Put it back as it was, and go on with resume."
            raise DataError([replace(p, hint=hint if p.hint else "") for p in error.problems]) from None


def input_bytes(table: StoredTable, options: FeatureOptions) -> float:
    """About how many bytes the inputs of a row take in memory, from the first rows.

    Columns with another role count as inputs do: what is made of them is about as large. What cannot be read counts
    nothing: that is told when it is read.
    """
    if not table.height:
        return 0.0
    with suppress(DataError):
        chosen = select_columns(table, options.inputs, options.exclude, {}).inputs
        return sum(_cell_bytes(table, name, declared, options) for name, declared in chosen.items())
    return 0.0


def _cell_bytes(table: StoredTable, name: str, declared: str | None, options: FeatureOptions) -> float:
    dtype = table.schema[name]
    if declared not in ("text", "image") and not dtype.is_nested():
        number = declared != "category" and (dtype.is_numeric() or dtype.is_temporal() or dtype == pl.Boolean)
        return 4.0 if number else 8.0
    alone = FeatureOptions(
        inputs=[name if declared is None else {"name": name, "type": declared}],
        image=replace(options.image, on_bad="skip"),
        text=replace(options.text, by=None, min_count=None),
    )
    with suppress(UserError):
        rows = table.sample(_IMAGE_SAMPLE if declared == "image" else _SAMPLE, [name])
        return _row_bytes(Features.fit(rows, alone, np.arange(rows.height), {}), rows)
    return 0.0


def _row_bytes(features: Features, rows: Table) -> float:
    """Bytes of the inputs of a row, from some."""
    return _size(features.transform(rows, unreadable=[])[0]) / max(rows.height, 1)


def _window_rows(table: StoredTable, features: Features) -> int:
    """How many rows are shuffled together: as many on any machine, so that a run goes on there as it began."""
    fitting = _WINDOW_BYTES / max(_row_bytes(features, table.sample(_SAMPLE)), 1.0)
    return max(min(_WINDOW_ROWS, int(fitting)), 1)


def open_stream(
    table: StoredTable,
    features: Features,
    buffer: int | Literal["auto"],
    hold: Mapping[str, np.ndarray],
    *,
    skip: bool,
) -> tuple[Stream, list[str], list[int]]:
    """Goes through all rows once, so that every cell is known to fit.

    Args:
        table: N rows.
        features: How inputs are made.
        buffer: See ``Stream``; ``auto``: as many as take a moderate number of bytes.
        hold: Rows of splits whose inputs are wanted in memory, if they fit.
        skip: Whether rows whose image cannot be read go without inputs; else they are an error.

    Returns:
        The stream; notes as ``Features.transform`` gives them; the rows that have no inputs.

    Raises:
        DataError: Of the first rows that do not fit, of each column the first cell.
    """
    buffer = _window_rows(table, features) if buffer == "auto" else buffer
    stream, found = Stream(table, features, buffer, {}), Findings()
    held: dict[str, list[Inputs]] | None = None
    bad: list[int] = []
    own: list[int] | None
    for stretch in stream.stretches():
        part, own = table.read(stretch), [] if skip else None
        inputs, _ = features.transform(part, found, unreadable=own)
        bad += [stretch.first + row for row in own or ()]
        found.unreadable += [part.row(row) for row in own or ()]
        if held is None:
            free = free_memory()
            room = math.inf if free is None else _SHARE_HELD * free * stretch.rows / _size(inputs)
            held = {split: [] for split, rows in hold.items() if len(rows) <= room}
        for split, parts in held.items():
            parts.append(inputs.rows(torch.from_numpy(rows_in(hold[split], stretch.first, stretch.rows))))
    whole = {split: join_inputs(parts) for split, parts in (held or {}).items()}
    return replace(stream, held=whole, without=bad), found.notes(), bad


class StreamedRows(Rows):
    """The rows of one split, whose labels are in memory and whose inputs are not.

    The rows are cut into chunks, along the row groups of the files. Each pass over them puts the chunks into an order
    of its own, takes as many as make up ``Stream.buffer`` rows for a window, and shuffles the rows of a window. One
    window is in memory, and the next one comes while it is trained on: by then the order is known, so that training
    that goes on in the middle of a pass reads the window that it is in, and none before.

    Args:
        stream: Where the inputs come from.
        index: (N,) rows of the table, sorted.
        labels: As in ``Rows``, like all others.
        device: Where rows go.
        origins: Which source each row is from.
        rankings: For tasks whose rows are lists to be ranked.
        firsts: For each task the first column of its targets; None: each task has one column.
    """

    def __init__(
        self,
        stream: Stream,
        index: np.ndarray,
        labels: Labels,
        device: torch.device,
        origins: Origins | None = None,
        rankings: Mapping[int, Ranking] | None = None,
        firsts: Sequence[int] | None = None,
    ) -> None:
        own = [(stretch, rows_in(index, stretch.first, stretch.rows)) for stretch in stream.stretches()]
        self._chunks = [(stretch, rows) for stretch, rows in own if len(rows)]
        first, rows = self._chunks[0]
        example = stream.read(first, rows[:_EXAMPLE])
        super().__init__(example, labels, device, origins, rankings=rankings, firsts=firsts)
        self._stream, self._example = stream, self.inputs
        self._starts = np.cumsum([0, *(len(rows) for _, rows in self._chunks)])
        self._place = torch.full((len(index),), -1, device=device)  # of each row in ``inputs``; -1: it is not there
        self._placed: list[slice | Tensor] = []
        self._current: tuple[int, ...] | None = None
        self._reader = _Reader(self)

    @property
    def streamed(self) -> bool:
        return True

    def example(self, rows: int) -> Inputs:
        return self._example.part(0, min(rows, len(self._example.numeric)))

    def let_go(self) -> None:
        self._reader.close()

    def load(self, chunk: int) -> Inputs:
        """The inputs of the rows of a chunk, on the device."""
        return self._stream.read(*self._chunks[chunk]).to(self.device)

    def visits(
        self, own: np.ndarray, source: int, first: int, count: int, seed: int, shuffle: bool
    ) -> tuple[np.ndarray, tuple[Window, ...]]:
        del own, source  # all rows are of one
        size = len(self)
        order: list[np.ndarray] = []
        windows: list[Window] = []
        for lap in range(first // size, (first + count) // size + 1):
            start = lap * size - first
            for number, chunks in enumerate(self._windows(seed, lap, shuffle)):
                stop = start + int(sum(self._starts[c + 1] - self._starts[c] for c in chunks))
                if stop > 0 and start <= count:
                    windows.append(Window(stop, chunks))
                if stop > 0 and start < count:
                    rows = np.concatenate([np.arange(self._starts[c], self._starts[c + 1]) for c in chunks])
                    rows = rows[permutation(len(rows), seed, lap, number + 1)] if shuffle else rows
                    order.append(rows[max(-start, 0) : count - start])
                start = stop
        return np.concatenate(order), tuple(windows)

    def reach(self, epoch: Epoch, step: int) -> None:
        start, stop = epoch.bounds[step]
        first = bisect_right(epoch.windows, start, key=_stop)
        last = bisect_left(epoch.windows, stop, key=_stop)
        needed = epoch.windows[first : last + 1]
        if len(needed) == 1:
            if self._current != needed[0].chunks:
                self._reader.expect([needed[0].chunks])
                self._show(needed[0].chunks)
                self._reader.expect([window.chunks for window in epoch.windows[first : first + 2]])
            return
        self._reader.expect([window.chunks for window in needed])
        parts = []
        for window in needed:
            self._show(window.chunks)
            until = min(window.stop, stop)
            parts.append(self.inputs.rows(self._place[epoch.order[start:until]]))
            start = until
        rows = epoch.order[epoch.bounds[step][0] : stop]
        self._forget()
        self.inputs = join_inputs(parts)
        self._place[rows] = torch.arange(len(rows), device=self.device)
        self._placed = [rows]

    def gather(self, index: Tensor) -> tuple[Inputs, Labels]:
        return self.inputs.rows(self._place.index_select(0, index)), self.labels.rows(index)

    def in_order(self, size: int) -> Iterator[tuple[Inputs, Labels]]:
        start, held = 0, None
        for inputs in self._reader.each(range(len(self._chunks))):
            held = inputs if held is None else join_inputs([held, inputs])
            whole = len(held.numeric) // size * size
            for first in range(0, whole, size):
                yield held.part(first, first + size), self.labels.part(start + first, start + first + size)
            start += whole
            held = held.part(whole, len(held.numeric)) if whole < len(held.numeric) else None
        if held is not None:
            yield held, self.labels.part(start, len(self))

    def _windows(self, seed: int, lap: int, shuffle: bool) -> Iterator[tuple[int, ...]]:
        """The chunks of each window of a pass over all rows."""
        chunks = range(len(self._chunks))
        window: list[int] = []
        rows = 0
        for chunk in permutation(len(chunks), seed, lap, 0).tolist() if shuffle else chunks:
            window.append(chunk)
            rows += len(self._chunks[chunk][1])
            if rows >= self._stream.buffer:
                yield tuple(window)
                window, rows = [], 0
        if window:
            yield tuple(window)

    def _show(self, chunks: tuple[int, ...]) -> None:
        """Makes a window the one that batches are gathered from."""
        self._forget()
        self.inputs, first = self._reader.take(chunks), 0
        for chunk in chunks:
            here = slice(int(self._starts[chunk]), int(self._starts[chunk + 1]))
            count = here.stop - here.start
            self._place[here] = torch.arange(first, first + count, device=self.device)
            self._placed.append(here)
            first += count
        self._current = chunks

    def _forget(self) -> None:
        for rows in self._placed:
            self._place[rows] = -1
        self._placed, self._current = [], None


class _Reader:
    """Reads windows in a thread of its own, before they are asked for."""

    def __init__(self, rows: StreamedRows) -> None:
        self._rows = rows
        self._pool: ThreadPoolExecutor | None = None
        self._closed = threading.Event()
        self._expected: dict[tuple[int, ...], Future[Inputs]] = {}

    def expect(self, windows: Sequence[tuple[int, ...]]) -> None:
        """Says which windows come next; others are dropped."""
        for chunks in [known for known in self._expected if known not in windows]:
            self._expected.pop(chunks).cancel()
        for chunks in windows:
            if chunks not in self._expected:
                self._expected[chunks] = self._submit(chunks)

    def take(self, chunks: tuple[int, ...]) -> Inputs:
        """A window that was expected."""
        return self._expected[chunks].result()

    def each(self, chunks: Sequence[int]) -> Iterator[Inputs]:
        """One chunk after another."""
        following: Future[Inputs] | None = None
        for chunk in chunks:
            present = following or self._submit((chunk,))
            following = self._submit((chunk + 1,)) if chunk + 1 in chunks else None
            yield present.result()

    def close(self) -> None:
        """Stops reading and drops what was read."""
        self._closed.set()
        self._expected.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._closed.clear()

    def _submit(self, chunks: tuple[int, ...]) -> Future[Inputs]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "mtl-reader")
        return self._pool.submit(self._read, chunks)

    def _read(self, chunks: tuple[int, ...]) -> Inputs:
        parts = []
        for chunk in chunks:
            if self._closed.is_set():
                raise CancelledError
            parts.append(self._rows.load(chunk))
        return join_inputs(parts)


def join_inputs(parts: Sequence[Inputs]) -> Inputs:
    """Inputs one below the other."""
    if len(parts) == 1:
        return parts[0]
    blocks: dict[str, Tensor | Ragged] = {}
    for name, block in parts[0].blocks.items():
        if isinstance(block, Ragged):
            blocks[name] = _join_ragged([part.ragged(name) for part in parts])
        else:
            blocks[name] = torch.cat([part.blocks[name] for part in parts])  # type: ignore[misc]
    numeric, codes = (torch.cat([part[i] for part in parts]) for i in (0, 1))  # type: ignore[misc]
    return Inputs(numeric, codes, blocks)


def _size(inputs: Inputs) -> int:
    """Bytes."""
    blocks = [t for b in inputs.blocks.values() for t in (b if isinstance(b, Ragged) else (b,))]
    return sum(tensor.nbytes for tensor in (inputs.numeric, inputs.categorical, *blocks))


def _join_ragged(parts: Sequence[Ragged]) -> Ragged:
    lengths = torch.cat([part.lengths() for part in parts])
    starts = lengths.new_zeros(len(lengths) + 1)
    starts[1:] = lengths.cumsum(0)
    return Ragged(torch.cat([part.values for part in parts]), starts)


def _stop(window: Window) -> int:
    return window.stop
