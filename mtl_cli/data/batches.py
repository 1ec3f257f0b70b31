"""BATCHES: rows in memory, and the order in which an epoch visits them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtl_cli.types import Inputs


class Rows:
    """The rows of one split, on the device that trains: sliced there by index, never collated one by one.

    Args:
        inputs: N rows.
        targets: Labels (N, K) float32, NaN where a task has no label.
        device: Where they go.

    Attributes:
        labelled: (N, K) bool on the CPU, or None if every label is there.
    """

    def __init__(self, inputs: Inputs, targets: np.ndarray, device: torch.device) -> None:
        labelled = ~np.isnan(targets)
        self.labelled: np.ndarray | None = None if labelled.all() else labelled
        self.inputs = inputs.to(device)
        self.targets = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.float32)).to(device)

    def __len__(self) -> int:
        return len(self.targets)

    def gather(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Inputs and labels (B, K) of the rows at ``index``."""
        return self.inputs.rows(index), self.targets.index_select(0, index)

    def in_order(self, size: int) -> Iterator[tuple[Inputs, Tensor]]:
        """All rows in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            stop = start + size
            yield Inputs(self.inputs.numeric[start:stop], self.inputs.categorical[start:stop]), self.targets[start:stop]


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch, known before it begins: nothing in a step has to ask the device.

    Args:
        order: Row indices in the order they are visited, on the device.
        bounds: ``(start, stop)`` of each batch in ``order``.
        counts: (steps, K) float64 on the CPU: labelled rows of each task in each batch.
        scale: (steps, K) on the device: task weight / labelled rows, the factor on each row's loss; 0 without any.
        absent: For each step, the tasks without any label.
    """

    order: Tensor
    bounds: tuple[tuple[int, int], ...]
    counts: np.ndarray
    scale: Tensor
    absent: tuple[tuple[int, ...], ...]


def plan_epoch(
    rows: Rows,
    epoch: int,
    *,
    batch_size: int,
    weights: np.ndarray,
    seed: int,
    shuffle: bool = True,
    drop_last: bool = False,
) -> Epoch:
    """The order and the label counts of epoch ``epoch`` (from 0), a pure function of its arguments.

    That makes resuming in the middle of an epoch a matter of going to a step, not of replaying.

    Args:
        rows: The training rows.
        epoch: Number of the epoch; each has its own order.
        batch_size: B; the last batch may be smaller.
        weights: (K,) task weights.
        seed: The run's seed.
        shuffle: Whether to permute; else rows come as they are.
        drop_last: Leave out a last batch smaller than B, unless it is the only one.
    """
    n = len(rows)
    if shuffle:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(n, generator=generator)
    else:
        order = torch.arange(n)
    bounds = [(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    if drop_last and len(bounds) > 1 and n % batch_size:
        bounds.pop()
    starts = np.array([start for start, _ in bounds])
    if rows.labelled is None:
        sizes = np.array([stop - start for start, stop in bounds], dtype=np.float64)
        counts = np.repeat(sizes[:, None], len(weights), 1)
    else:
        visited = rows.labelled[order[: bounds[-1][1]].numpy()]
        counts = np.add.reduceat(visited, starts, axis=0, dtype=np.float64)
    scale = np.divide(weights, counts, out=np.zeros_like(counts), where=counts > 0)
    absent = (
        tuple(tuple(np.flatnonzero(row == 0).tolist()) for row in counts)
        if rows.labelled is not None
        else ((),) * len(bounds)
    )
    device = rows.targets.device
    return Epoch(order.to(device), tuple(bounds), counts, torch.from_numpy(scale).float().to(device), absent)
