"""The rows of a batch, as many at once as are worked on together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mtl_cli.data.batches import Epoch, Piece, Rows, own_piece

if TYPE_CHECKING:
    from mtl_cli.loop.step import Learner


def pieces(learner: Learner, rows: Rows, epoch: Epoch, batch: int) -> Iterator[Piece]:
    """This process's rows of a batch, as many at once as the learner takes; there is one piece at least."""
    start, stop = epoch.bounds[batch]
    first = start
    for size in piece_sizes(stop - start, learner.piece, learner.balancing.samples):
        yield own_piece(learner.processes, rows, epoch, first, first + size, size / (stop - start))
        first += size


def piece_sizes(rows: int, most: int | None, samples: int) -> list[int]:
    """Rows of each piece of a batch.

    Args:
        rows: Those of the batch.
        most: Rows of a piece at most; None: any number.
        samples: Parts that the balancing method takes the batch in.

    Example:
        >>> piece_sizes(9, 4, 1), piece_sizes(9, None, 2)
        ([4, 4, 1], [5, 4])
    """
    part = -(-rows // samples)
    size = min(most or part, part)
    return [min(size, rows - first) for first in range(0, rows, size)]
