"""Which task a parameter belongs to: balancing, freezing, absent tasks and the parameter table all ask this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    def overlaps(self, other: Ownership) -> bool:
        """Whether some row is owned by both."""
        return self.parameter is other.parameter and self.start < other.stop and other.start < self.stop


class NamedRows(NamedTuple):
    """Rows of a parameter, as an ``Ownership`` has them, by its name: it means the same in a copy of the model.

    Args:
        name: Of the parameter.
        start: First row (axis 0).
        stop: One past the last.
    """

    name: str
    start: int
    stop: int


def named_rows(owners: Iterable[Ownership], parameters: Mapping[str, nn.Parameter]) -> list[NamedRows]:
    """What is owned, by names.

    Args:
        owners: Who owns what.
        parameters: All that there are, by name.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    return [NamedRows(names[id(owned.parameter)], owned.start, owned.stop) for owned in owners]


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


def by_rows(parameters: Iterable[nn.Parameter], num_tasks: int) -> list[Ownership]:
    """Ownership of parameters with one row for each of K tasks on axis 0, in their order; others all tasks share.

    Example:
        >>> scale, common = nn.Linear(2, 2).bias, nn.Linear(2, 4).bias
        >>> [owned.task for owned in by_rows([scale, common], 2)]
        [0, 1, None]
    """
    owned = []
    for parameter in parameters:
        divided = parameter.dim() > 0 and len(parameter) == num_tasks
        owned += stacked([parameter], range(num_tasks)) if divided else shared([parameter])
    return owned


def find_flaw(parameters: Mapping[str, nn.Parameter], owners: Iterable[Ownership], num_tasks: int) -> str | None:
    """What keeps owners from owning each row of each parameter once, in words; None: nothing.

    Args:
        parameters: All that there are, by name.
        owners: Who owns them.
        num_tasks: K.

    Example:
        >>> weight = nn.Linear(4, 3).weight
        >>> find_flaw({"weight": weight}, stacked([weight], [0, 1]), 2)
        "nobody owns row 2 of 'weight'"
    """
    spans: dict[nn.Parameter, list[tuple[int, int]]] = {}
    for parameter, task, start, stop in owners:
        if task is not None and not 0 <= task < num_tasks:
            return f"the tasks are 0 to {num_tasks - 1}, got {task}"
        spans.setdefault(parameter, []).append((start, stop))
    for name, parameter in parameters.items():
        rows, owned = (len(parameter) if parameter.dim() else 1), 0
        for start, stop in [*sorted(spans.pop(parameter, [])), (rows, rows)]:
            if start > owned:
                return f"nobody owns {_rows(owned, start)} of '{name}'"
            if start < owned:
                return f"two own {_rows(start, owned)} of '{name}'"
            owned = stop
    return "it names a parameter that is none of its own" if spans else None


def _rows(start: int, stop: int) -> str:
    return f"row {start}" if stop == start + 1 else f"rows {start} to {stop - 1}"
