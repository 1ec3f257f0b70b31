"""BATCHES: the rows of a split, and the order in which an epoch visits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.data.mixing import Mixing
from mtl_cli.data.negatives import Negatives
from mtl_cli.processes import ProcessGroup
from mtl_cli.types import Inputs, Labels

T = TypeVar("T")


@dataclass(frozen=True)
class Origins:
    """Which source each row is from.

    Args:
        names: S names; one that is empty where there is one source.
        codes: (N,) int64, positions in ``names``.
    """

    names: tuple[str, ...]
    codes: np.ndarray


class TokenLabels(NamedTuple):
    """Labels of the tokens of some rows.

    Args:
        block: The column of ``Inputs.blocks`` whose tokens are labelled.
        labels: Of all M tokens, row after row; with shares if the labels of the rows have them.
        rows_too: Whether some task labels rows: the positions of a batch are then its rows, and after them its tokens.
    """

    block: str
    labels: Labels
    rows_too: bool

    def with_rows(self, rows: Labels, tokens: Labels) -> Labels:
        """The labels of the positions of some rows, from those of the rows and those of their tokens."""
        return join_labels([rows, tokens]) if self.rows_too else tokens


@dataclass(frozen=True)
class Ranking:
    """The lists that the rows of a task form.

    Args:
        k: Places that count.
        groups: (N,) int64, the list of each row; -1 for none.
    """

    k: int
    groups: np.ndarray


class Window(NamedTuple):
    """Rows that are read together, and visited by an epoch one after another.

    Args:
        stop: Where they end in the order of the epoch.
        chunks: Numbers of the chunks of rows that they are.
    """

    stop: int
    chunks: tuple[int, ...]


class Rows:
    """The rows of one split, on the device that trains: sliced there by index, never collated one by one.

    What a batch has labels for are its *positions*: its rows; its tokens, row after row; or rows and then tokens.

    Args:
        inputs: N rows.
        labels: Of the rows, on the CPU.
        device: Where inputs and labels go.
        origins: Which source each row is from; None: all are from one.
        tokens: Labels of the tokens, if some task has such.
        rankings: For tasks (by position) whose rows are lists to be ranked.
        negatives: Rows that get another item each epoch.
        firsts: For each task the first column of its targets; None: each task has one column.

    Attributes:
        labelled: (N, K) on the CPU, the number of labels of each row; None if every row has one for each task.
        counts: (N, K) on the CPU, what the labels of each row count together; None if 1 each.
    """

    def __init__(
        self,
        inputs: Inputs,
        labels: Labels,
        device: torch.device,
        origins: Origins | None = None,
        tokens: TokenLabels | None = None,
        rankings: Mapping[int, Ranking] | None = None,
        negatives: Sequence[Negatives] = (),
        firsts: Sequence[int] | None = None,
    ) -> None:
        self.rankings, self._negatives = rankings or {}, negatives
        self.origins = origins or Origins(("",), np.zeros(len(labels.targets), np.int64))
        columns = slice(None) if firsts is None else list(firsts)
        labelled = ~np.isnan(labels.targets.numpy()[:, columns])
        self.labelled: np.ndarray | None = None if labelled.all() else labelled
        self.counts = self.labelled if labels.shares is None else np.where(labelled, labels.shares.numpy(), 0)
        self._tokens = tokens
        if tokens is not None:
            own = ~np.isnan(tokens.labels.targets.numpy()[:, columns])
            of_tokens = _per_row(own, inputs.ragged(tokens.block).starts.numpy())
            self.labelled = labelled + of_tokens
            self.counts = (labelled if self.counts is None else self.counts) + of_tokens
            self._tokens = tokens._replace(labels=tokens.labels.to(device))
        of_tasks = None if self.labelled is None or self.streamed else self.labelled.T > 0
        if of_tasks is not None and 2 * of_tasks.sum() > of_tasks.size:
            of_tasks = None  # worth telling only where most rows are of other tasks, as those of several sources are
        wanted = None if of_tasks is None else torch.from_numpy(np.ascontiguousarray(of_tasks))
        inputs = inputs._replace(wanted=wanted)
        self.inputs, self.labels = inputs.to(device), labels.to(device)

    def __len__(self) -> int:
        return len(self.labels.targets)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.labels.targets.device

    def draw(self, seed: int, epoch: int) -> None:
        """Draws the negatives of an epoch, a function of seed and epoch."""
        for negatives in self._negatives:
            negatives.write(self.inputs.categorical, seed, epoch)

    @property
    def changes(self) -> bool:
        """Whether inputs are drawn anew in each epoch."""
        return bool(self._negatives)

    @property
    def labels_tokens(self) -> bool:
        """Whether some task labels the tokens of the rows."""
        return self._tokens is not None

    @property
    def streamed(self) -> bool:
        """Whether the inputs stay in their files, see ``StreamedRows``."""
        return False

    def reach(self, epoch: Epoch, step: int) -> None:
        """Called before the batch ``step`` of an epoch is gathered: rows that are not in memory are read."""

    def let_go(self) -> None:
        """Called when the last batch is gathered: nothing more is read ahead."""

    def example(self, rows: int) -> Inputs:
        """The inputs of so many rows or less, always the same ones."""
        return self.inputs.part(0, min(rows, len(self)))

    def visits(
        self, own: np.ndarray, source: int, first: int, count: int, seed: int, shuffle: bool
    ) -> tuple[np.ndarray, tuple[Window, ...]]:
        """``count`` rows from place ``first`` on in the endless order of a source: permutation after permutation.

        Args:
            own: The source's rows.
            source: Its number.
            first: Where to begin.
            count: How many.
            seed: The run's seed.
            shuffle: Whether to permute.

        Returns:
            The rows (count,), and the windows that they are read in with the one that comes next; none in memory.
        """
        return own[_endless_order(len(own), first, count, seed, source if shuffle else None)], ()

    def by_source(self) -> list[np.ndarray]:
        """The rows of each source, S arrays of indices."""
        return [np.flatnonzero(self.origins.codes == code) for code in range(len(self.origins.names))]

    def gather(self, index: Tensor) -> tuple[Inputs, Labels]:
        """Inputs of the rows at ``index``, and the labels of their positions."""
        labels = self.labels.rows(index)
        if self._tokens is not None:
            places = self.inputs.ragged(self._tokens.block).places(index)
            labels = self._tokens.with_rows(labels, self._tokens.labels.rows(places))
        return self.inputs.rows(index), labels

    def without_labels(self, index: Tensor) -> tuple[Inputs, Labels]:
        """What ``gather`` gives, all labels missing: rows that teach nothing."""
        inputs, labels = self.gather(index)
        return inputs, labels._replace(targets=torch.full_like(labels.targets, torch.nan))

    def in_order(self, size: int) -> Iterator[tuple[Inputs, Labels]]:
        """All rows in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            stop = start + size
            labels = self.labels.part(start, stop)
            if self._tokens is not None:
                starts = self.inputs.ragged(self._tokens.block).starts[start : stop + 1]
                own = self._tokens.labels.part(int(starts[0]), int(starts[-1]))
                labels = self._tokens.with_rows(labels, own)
            yield self.inputs.part(start, stop), labels

    def labels_in_order(self, size: int) -> Labels:
        """The labels that ``in_order`` gives with all rows, on the CPU."""
        labels = self.labels
        if self._tokens is not None and len(self):
            labels = join_labels([part for _, part in self.in_order(size)])
        return labels.to(torch.device("cpu"))

    def origins_of_positions(self, size: int) -> Origins:
        """The source of each position, of all rows in order and ``size`` at a time."""
        if self._tokens is None:
            return self.origins
        starts = self.inputs.ragged(self._tokens.block).starts.cpu().numpy()
        parts = []
        for first in range(0, len(self), size):
            rows = self.origins.codes[first : first + size]
            parts += [rows] if self._tokens.rows_too else []
            parts.append(np.repeat(rows, np.diff(starts[first : first + size + 1])))
        return Origins(self.origins.names, np.concatenate(parts))


def join_labels(parts: Sequence[Labels]) -> Labels:
    """Labels one below the other; all parts have shares, or none has."""
    shares = [part.shares for part in parts if part.shares is not None]
    return Labels(torch.cat([part.targets for part in parts]), torch.cat(shares) if shares else None)


def _per_row(flags: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums (N, K) of flags (M, K) over the tokens of each row."""
    sums = np.zeros((len(flags) + 1, flags.shape[1]), np.int64)
    np.cumsum(flags, axis=0, out=sums[1:])
    per_row: np.ndarray = sums[starts[1:]] - sums[starts[:-1]]
    return per_row


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch, known before it begins: nothing in a step has to ask the device.

    Args:
        order: Row indices in the order they are visited, on the device.
        bounds: ``(start, stop)`` of each batch in ``order``.
        counts: (steps, K) float64 on the CPU: what the labelled positions of each task in each batch count together.
        scale: (steps, K) on the device: task weight / count, the factor on each position's loss, or 0.
        absent: For each step, the tasks without any label.
        inactive: For each step, the tasks whose losses do not count: those without any label or of weight 0.
        drawn: (steps, S) int64 on the CPU: rows of each source in each batch.
        windows: Of rows that are streamed: what is read for which part of the order, and what comes after it.
    """

    order: Tensor
    bounds: tuple[tuple[int, int], ...]
    counts: np.ndarray
    scale: Tensor
    absent: tuple[tuple[int, ...], ...]
    inactive: tuple[tuple[int, ...], ...]
    drawn: np.ndarray
    windows: tuple[Window, ...] = ()


class Piece(NamedTuple):
    """Rows that are worked on at once.

    Args:
        inputs: The rows.
        labels: Of their positions.
        complete: No label is missing, so that nothing has to be masked.
        own: How many of them are this process's own: all, or none.
        fraction: Of the rows of the batch, those of the piece (of all processes).
    """

    inputs: Inputs
    labels: Labels
    complete: bool
    own: int
    fraction: float = 1.0


def own_piece(processes: ProcessGroup, rows: Rows, epoch: Epoch, start: int, stop: int, fraction: float = 1.0) -> Piece:
    """This process's part of what an epoch visits from ``start`` to ``stop``, ``fraction`` of the rows of the batch.

    A process without a part takes a row that has no labels and is none of its own, so that all do the same.
    """
    first, last = processes.own_part(start, stop)
    if first == last:
        return Piece(*rows.without_labels(epoch.order[start : start + 1]), complete=False, own=0, fraction=fraction)
    return Piece(*rows.gather(epoch.order[first:last]), rows.labelled is None, own=last - first, fraction=fraction)


def plan_epoch(
    rows: Rows,
    epoch: int,
    *,
    batch_size: int,
    weights: np.ndarray,
    seed: int,
    shuffle: bool = True,
    drop_last: bool = False,
    mixing: Mixing = Mixing(),  # noqa: B008  frozen
) -> Epoch:
    """The order and the label counts of epoch ``epoch`` (from 0), a pure function of its arguments.

    That makes resuming in the middle of an epoch a matter of going to a step, not of replaying. The rows of each source
    have an endless order, one permutation after the other, so that none comes twice before all have come once; an epoch
    goes on where the one before has stopped.

    Args:
        rows: The training rows.
        epoch: Number of the epoch; each has its own order.
        batch_size: B; the last batch may be smaller.
        weights: (K,) task weights.
        seed: The run's seed.
        shuffle: Whether to permute; else rows come as they are, those of several sources evenly spread.
        drop_last: Leave out a last batch smaller than B (of each source, with one source per batch), unless it is the
            only one.
        mixing: Shares of the sources.
    """
    members = rows.by_source()
    sizes = np.array([len(own) for own in members])
    counts, before = mixing.counts(sizes, epoch), mixing.drawn_before(sizes, epoch)
    ordered = [
        rows.visits(own, source, int(first), int(count), seed, shuffle)
        for source, (own, first, count) in enumerate(zip(members, before, counts, strict=True))
    ]
    parts = [part for part, _ in ordered]
    if mixing.method == "round_robin":
        batches = _in_turns([_cut(part, batch_size, drop_last) for part in parts])
    else:
        batches = _cut(_mixed(parts, seed, epoch, shuffle), batch_size, drop_last)
    order = np.concatenate(batches)
    ends = np.cumsum([len(batch) for batch in batches])
    starts = ends - [len(batch) for batch in batches]
    if rows.counts is None:
        counted = np.repeat((ends - starts).astype(np.float64)[:, None], len(weights), 1)
    else:
        counted = np.add.reduceat(rows.counts[order], starts, axis=0, dtype=np.float64)
    scale = np.divide(weights, counted, out=np.zeros_like(counted), where=counted > 0)
    codes = rows.origins.codes[order]
    drawn = np.stack([np.add.reduceat(codes == code, starts, dtype=np.int64) for code in range(len(members))], 1)
    return Epoch(
        torch.from_numpy(order).to(rows.device),
        tuple(zip(starts.tolist(), ends.tolist(), strict=True)),
        counted,
        torch.from_numpy(scale).float().to(rows.device),
        _zeros(counted),
        _zeros(counted * (weights != 0)),
        drawn,
        ordered[0][1],
    )


def _zeros(values: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Where each row of values (steps, K) is 0."""
    if values.all():
        return ((),) * len(values)
    return tuple(tuple(np.flatnonzero(row == 0).tolist()) for row in values)


def count_steps(rows: Rows, epoch: int, *, batch_size: int, drop_last: bool, mixing: Mixing) -> int:
    """Batches of an epoch, without planning it."""
    return sum(_batches(part, batch_size, drop_last) for part in _cut_apart(rows, epoch, mixing))


def batch_sizes(rows: Rows, epoch: int, *, batch_size: int, drop_last: bool, mixing: Mixing) -> list[int]:
    """Rows of each batch of an epoch, in order, without planning it."""
    parts = _cut_apart(rows, epoch, mixing)
    sizes = [[min(batch_size, n - i * batch_size) for i in range(_batches(n, batch_size, drop_last))] for n in parts]
    return _in_turns(sizes)


def _cut_apart(rows: Rows, epoch: int, mixing: Mixing) -> list[int]:
    """Numbers of rows that are cut into batches of their own: of each source, with one source per batch."""
    counts: list[int] = mixing.counts(np.array([len(own) for own in rows.by_source()]), epoch).tolist()
    return counts if mixing.method == "round_robin" else [sum(counts)]


def _batches(count: int, size: int, drop_last: bool) -> int:
    whole, rest = divmod(count, size)
    return whole if rest == 0 or (drop_last and whole) else whole + 1


def _cut(order: np.ndarray, size: int, drop_last: bool) -> list[np.ndarray]:
    return [order[i * size : (i + 1) * size] for i in range(_batches(len(order), size, drop_last))]


def _in_turns(batches: Sequence[Sequence[T]]) -> list[T]:
    longest = max(len(own) for own in batches)
    return [own[turn] for turn in range(longest) for own in batches if turn < len(own)]


def _endless_order(size: int, first: int, count: int, seed: int, source: int | None) -> np.ndarray:
    """``count`` places from ``first`` on in the endless order of a source's rows: permutation after permutation."""
    if count == 0:
        return np.zeros(0, np.int64)
    rounds = range(first // size, (first + count - 1) // size + 1)
    places = [np.arange(size) if source is None else permutation(size, seed, lap, source) for lap in rounds]
    start = first - rounds[0] * size
    order: np.ndarray = np.concatenate(places)[start : start + count]
    return order


def _mixed(parts: Sequence[np.ndarray], seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The rows of all sources in one order: at random, or evenly spread."""
    order: np.ndarray = np.concatenate(parts)
    if len(parts) == 1:
        return order
    if shuffle:
        places = permutation(len(order), seed, epoch, len(parts))
    else:
        spread = [(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts]
        places = np.argsort(np.concatenate(spread), kind="stable")
    mixed: np.ndarray = order[places]
    return mixed


def permutation(size: int, seed: int, number: int, salt: int) -> np.ndarray:
    """A random order of ``size`` places, a function of the arguments alone."""
    key = seed * 1_000_003 + number + salt * 0x9E3779B97F4A7C15
    generator = torch.Generator().manual_seed(key % 2**63)
    order: np.ndarray = torch.randperm(size, generator=generator).numpy()
    return order
