"""Which task a parameter belongs to: balancing, freezing, absent tasks and the parameter table all ask this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn


class Ownership(NamedTuple):
    """A parameter, or rows of it, and its owner.

    Parameters of tasks that are alike are stacked on axis 0, so that they are computed in one operation; each
    task then owns some rows of one parameter.

    Args:
        parameter: The parameter.
        task: Position of the owning task, or None if all tasks share it.
        start: First row (axis 0) that is owned.
        stop: One past the last.
    """

    parameter: nn.Parameter
    task: int | None
    start: int
    stop: int

    @property
    def numel(self) -> int:
        """Number of values owned."""
        rows = self.parameter.shape[0] if self.parameter.dim() else 1
        return self.parameter.numel() // rows * (self.stop - self.start)


def shared(parameters: Iterable[nn.Parameter]) -> list[Ownership]:
    """Ownership by all tasks together."""
    return [Ownership(p, None, 0, p.shape[0] if p.dim() else 1) for p in parameters]


def stacked(parameters: Iterable[nn.Parameter], tasks: Sequence[int | None]) -> list[Ownership]:
    """Ownership of parameters whose axis 0 is divided equally among ``tasks``, in that order."""
    owned = []
    for parameter in parameters:
        rows = parameter.shape[0] // len(tasks)
        owned += [Ownership(parameter, task, i * rows, (i + 1) * rows) for i, task in enumerate(tasks)]
    return owned
