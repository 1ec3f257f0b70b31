"""All parameters as one vector: an optimizer step, a gradient norm or a copy is then one operation."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

_ALIGNED = 64  # bytes: where PyTorch has a tensor of its own begin, and how far products of matrices look


class Segment(NamedTuple):
    """A stretch of the flat vector and the task that owns it (None: shared)."""

    start: int
    stop: int
    task: int | None


class FlatParameters:
    """Moves parameters (and their gradients) into one vector each; the parameters become views of it.

    Args:
        owners: ``(parameter, task, start, stop)``: who owns which rows (axis 0) of each parameter that is trained. Rows
            of such a parameter that nobody owns stay as they are. All parameters must have one dtype and device.

    Attributes:
        values: (P,) every parameter value.
        gradient: (P,) every gradient; ``parameter.grad`` are views of it, filled by ``backward``.
        segments: Stretches with one owner, in order.
        still: Stretches without an owner.
        places: Where in the vectors each parameter is.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> flat = FlatParameters([(layer.weight, None, 0, 1), (layer.bias, None, 0, 1)])
        >>> layer(torch.ones(1, 2)).backward()
        >>> flat.gradient
        tensor([1., 1., 1.])
    """

    def __init__(self, owners: Iterable[tuple[nn.Parameter, int | None, int, int]]) -> None:
        rows: dict[nn.Parameter, list[Segment]] = {}
        for parameter, task, start, stop in owners:
            rows.setdefault(parameter, []).append(Segment(start, stop, task))
        parameters = [p for p in rows if p.requires_grad]
        total = sum(p.numel() for p in parameters)
        like = parameters[0] if parameters else torch.empty(0)
        self.values = torch.empty(total, dtype=like.dtype, device=like.device)
        self.gradient = torch.zeros_like(self.values)
        self.segments: list[Segment] = []
        self.still: list[slice] = []
        self.shared: list[nn.Parameter] = []  # parameters of which all tasks own every row
        self.private: list[nn.Parameter] = []  # the others, also where tasks share some of their rows
        self._scratch = self.values.new_empty(0)
        self.places: dict[nn.Parameter, slice] = {}
        offset = 0
        for parameter in parameters:
            stop = offset + parameter.numel()
            self.values[offset:stop] = parameter.detach().flatten()
            self.places[parameter] = slice(offset, stop)
            per_row = parameter.numel() // max(parameter.shape[0] if parameter.dim() else 1, 1)
            owned, common = offset, True
            for part in sorted(rows[parameter]):
                segment = Segment(offset + part.start * per_row, offset + part.stop * per_row, part.task)
                self._leave(owned, segment.start)
                self._append(segment)
                common = common and segment.task is None and segment.start == owned
                owned = segment.stop
            self._leave(owned, stop)
            (self.shared if common and owned == stop else self.private).append(parameter)
            offset = stop
        self._point()

    def move(self, values: Tensor, gradient: Tensor) -> None:
        """Lives in these vectors (P,) from now on, such as rows of a matrix. Before the first step of an optimizer."""
        values.copy_(self.values)
        self.values, self.gradient = values, gradient.zero_()
        self._point()

    def jacobian(self, rows: int) -> Tensor:
        """Memory for ``rows`` gradients of the shared parameters (rows, P), what was in it before; always the same."""
        width = sum(parameter.numel() for parameter in self.shared)
        if self._scratch.numel() < rows * width:
            self._scratch = self.values.new_empty(rows * width)
        return self._scratch[: rows * width].view(rows, width)

    def zero_gradient(self, tasks: Collection[int] | None = None) -> None:
        """Sets all gradients to 0, or those of what some tasks own."""
        if tasks is None:
            self.gradient.zero_()
            return
        for start, stop, task in self.segments:
            if task in tasks:
                self.gradient[start:stop].zero_()

    def zero_still(self) -> None:
        """Sets the gradients of what stays as it is to 0: they count neither for clipping nor for a look ahead."""
        for stretch in self.still:
            self.gradient[stretch].zero_()

    def gradient_norm(self) -> Tensor:
        """Length of the whole gradient, a tensor of one value (nothing waits for the device)."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        return norm

    def _point(self) -> None:
        for parameter, place in self.places.items():
            parameter.data = self.values[place].view(parameter.shape)
            parameter.grad = self.gradient[place].view(parameter.shape)

    def _leave(self, start: int, stop: int) -> None:
        if stop > start:
            self.still.append(slice(start, stop))

    def _append(self, segment: Segment) -> None:
        last = self.segments[-1] if self.segments else None
        if last is not None and last.task == segment.task and last.stop == segment.start:
            self.segments[-1] = Segment(last.start, segment.stop, segment.task)
        elif segment.stop > segment.start:
            self.segments.append(segment)


def begin_as_in_a_vector(parameters: Iterable[nn.Parameter]) -> None:
    """Has parameters begin as far from a multiple of 64 bytes as in a ``FlatParameters`` of them, each in own memory.

    Products of matrices round otherwise where one of them begins otherwise, so that a model would differ from the one
    that was trained in the last bits. One vector would do as well, but whoever pickles a parameter would get all.

    Args:
        parameters: Those of the vector, in order; more than once or not trained, as they may be there.
    """
    offset = 0
    for parameter in dict.fromkeys(p for p in parameters if p.requires_grad):
        begin = offset % (_ALIGNED // parameter.element_size())
        if begin or not parameter.is_contiguous():
            values = parameter.data.new_empty(begin + parameter.numel())[begin:]
            parameter.data = values.view(parameter.shape).copy_(parameter.data)
        offset += parameter.numel()
