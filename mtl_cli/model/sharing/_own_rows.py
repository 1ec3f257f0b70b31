"""Encoders of K tasks, each on the rows that its task has labels for.

Where most rows are of other tasks, as those of several sources are, most of what K encoders make of a batch is looked
at by nobody. A CPU leaves it out, in one of two ways: costly encoders are computed one after the other, the others at
once, on as many rows each as the task with most rows has. Features that nobody wants are 0 then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_cli.model.backward import into_graph
from mtl_cli.model.encoders import Encoder
from mtl_cli.model.encoders.base import values_of_one
from mtl_cli.types import Inputs


def wanted_of(inputs: Inputs, tasks: int) -> Tensor | None:
    """(K, B) bool, which rows are wanted of each encoder; None: not known, or there is no leaving out.

    On an accelerator all is computed at once: it would have to wait until the numbers of rows are known, and many small
    kernels take longer than few large ones (on an H200 `cross_stitch`, with all rows for all of eight tasks, trained on
    small images in a third of the time of `separate` with each task's own). A compiled module has one number of rows.
    Where some tasks are products of others there are fewer encoders than tasks, and their rows are those of several.
    """
    wanted = inputs.wanted
    if wanted is None or len(wanted) != tasks or wanted.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    return wanted


class PaddedRows:
    """The rows of each task, and for tasks with fewer others that do not count, so that all have M.

    Args:
        inputs: B rows, with what is wanted of them.
        wanted: (K, B) bool.
        counts: (K,) how many rows of each task that is.
        every: Whether tasks without rows have M rows that do not count, too; else they are left out.

    Attributes:
        tasks: (k,) the tasks that have rows here: all K with ``every``.
    """

    def __init__(self, inputs: Inputs, wanted: Tensor, counts: Tensor, *, every: bool) -> None:
        self._shape = wanted.shape
        self.tasks = torch.arange(len(wanted)) if every else counts.nonzero().flatten()
        tasks, rows = wanted.index_select(0, self.tasks).nonzero(as_tuple=True)
        counts = counts.index_select(0, self.tasks)
        self._most = max(int(counts.max()), 1)
        place = torch.arange(len(rows)) - (counts.cumsum(0) - counts).index_select(0, tasks)
        self._padded = tasks * self._most + place  # where each of them stands among those of all tasks
        self._spread = self.tasks.index_select(0, tasks) * wanted.shape[1] + rows  # and among all rows for all tasks
        self._rows = rows.new_zeros(len(self.tasks) * self._most).index_copy(0, self._padded, rows)
        self._inputs = inputs._replace(wanted=None)

    @classmethod
    def of(cls, inputs: Inputs, tasks: int, *, every: bool = True) -> PaddedRows | None:
        """None where nothing is to be left out, or less than half could be."""
        wanted = wanted_of(inputs, tasks)
        if wanted is None:
            return None
        counts = wanted.sum(1)
        left = int(counts.max()) * (tasks if every else int((counts > 0).sum()))
        return cls(inputs, wanted, counts, every=every) if 0 < 2 * left <= wanted.numel() else None

    def below_one_another(self) -> Inputs:
        """The rows of one task after those of another, k * M of them."""
        return self._inputs.rows(self._rows)

    def apart(self) -> Inputs:
        """Numbers (k, M, F) and categories (k, M, number of columns)."""
        rows = self._inputs._replace(blocks={}).rows(self._rows)
        return rows._replace(numeric=self._unflat(rows.numeric), categorical=self._unflat(rows.categorical))

    def take(self, x: Tensor) -> Tensor:
        """What belongs to rows, (B, ...), for the rows of each task: (k, M, ...)."""
        return self._unflat(x.index_select(0, self._rows))

    def spread(self, features: Tensor) -> Tensor:
        """(k, M, D) -> (K, B, D), 0 for other rows."""
        own = features.flatten(0, 1).index_select(0, self._padded)
        every = own.new_zeros(self._shape.numel(), own.shape[-1])
        return every.index_copy(0, self._spread, own).view(*self._shape, -1)

    def collect(self, gradient: Tensor) -> Tensor:
        """The backward pass of ``spread``."""
        own = gradient.flatten(0, 1).index_select(0, self._spread)
        return self._unflat(own.new_zeros(len(self._rows), own.shape[-1]).index_copy(0, self._padded, own))

    def _unflat(self, x: Tensor) -> Tensor:
        return x.view(len(self.tasks), self._most, *x.shape[1:])


class OwnRows:
    """How K encoders leave out the rows of other tasks.

    Args:
        encoder: One of them. It gives the computation, and no values.
        stack: What its ``stack`` makes of all. It gives the names of their parameters and buffers, and says whether
            they train.
        tasks: K.
    """

    def __init__(self, encoder: Encoder, stack: nn.Module, tasks: int) -> None:
        self._encoder, self._stack, self._num_tasks = copy.deepcopy(encoder).to("meta"), stack, tasks
        # A stack of another kind may have its parameters under names, or in shapes, of its own.
        names = dict(encoder.named_parameters(remove_duplicate=False)).keys()
        known = values_of_one(stack, dict(stack.named_parameters())).keys() == names
        self._one_by_one = encoder.costly and known
        self._single = tasks == 1 and known

    def features(
        self,
        inputs: Inputs,
        parameters: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        together: Callable[[Inputs], Tensor],
    ) -> Tensor:
        """Features (K, B, D), 0 for what nobody wants if it was left out; (B, D) of a single task.

        Args:
            inputs: B rows.
            parameters: By the names that they have in the stack, (K, ...) each.
            constants: The buffers, by these names.
            together: What computes all encoders at once.
        """
        if self.is_single:
            values = {**constants, **{name: part[0] for name, part in parameters.items()}}
            return self.of_one(inputs, values)
        wanted = self.of_each(inputs)
        if wanted is not None:
            parts = {name: values.unbind(0) for name, values in parameters.items()}

            def values_of(task: int) -> dict[str, Tensor]:
                return {**constants, **{name: part[task] for name, part in parts.items()}}

            return self.one_by_one(inputs, wanted, values_of).spread()
        own = self.padded(inputs)
        return together(inputs) if own is None else own.spread(together(own.apart()))

    @property
    def is_single(self) -> bool:
        """Whether there is one encoder, which is computed by itself, on all rows."""
        return self._single and not torch.compiler.is_compiling()

    def of_one(self, inputs: Inputs, values: Mapping[str, Tensor]) -> Tensor:
        """Features (B, D) of the encoder with these values, by the names in the stack: to the last bit as of itself."""
        encoder = self._encoder.train(self._stack.training)
        features: Tensor = torch.func.functional_call(encoder, values_of_one(self._stack, values), (inputs,))
        return features

    def of_each(self, inputs: Inputs) -> Tensor | None:
        """(K, B) bool, the rows of each encoder where they are to be computed one by one, else None."""
        return wanted_of(inputs, self._num_tasks) if self._one_by_one else None

    def padded(self, inputs: Inputs) -> PaddedRows | None:
        """The rows of each encoder where they are to be computed at once, each on rows of its own, else None."""
        able = vars(type(self._encoder)).get("takes_rows_of_copies")  # what a class says holds for it alone
        return PaddedRows.of(inputs, self._num_tasks) if able else None

    def one_by_one(
        self, inputs: Inputs, wanted: Tensor, values: Callable[[int], Mapping[str, Tensor]]
    ) -> FeaturesOfOwnRows:
        """Computes one encoder after the other.

        Args:
            inputs: B rows.
            wanted: (K, B) bool.
            values: Parameters and buffers of the encoder of a task, by the names that they have in the stack.
        """
        alone, found = inputs._replace(wanted=None), []
        for task, own in enumerate(wanted):
            rows = own.nonzero().flatten()
            if len(rows) or task == 0:  # one at least
                features = self.of_one(alone.rows(rows), values(task))
                found.append(_TaskFeatures(task, self._encoder.places(inputs, rows), features))
        return FeaturesOfOwnRows(found, self._num_tasks, self._encoder.positions(inputs))


class _TaskFeatures(NamedTuple):
    """Features of the rows of one task, and the positions that they belong to."""

    task: int
    places: Tensor
    features: Tensor


class FeaturesOfOwnRows(NamedTuple):
    """Features of each task's own rows."""

    found: Sequence[_TaskFeatures]
    num_tasks: int
    positions: int

    def spread(self) -> Tensor:
        """(K, positions, D), 0 where there are none."""
        like = self.found[0].features
        places = torch.cat([own.task * self.positions + own.places for own in self.found])
        empty = like.new_zeros(self.num_tasks * self.positions, like.shape[-1])
        features: Tensor = empty.index_copy(0, places, torch.cat([own.features for own in self.found]))
        return features.view(self.num_tasks, self.positions, -1)

    def backward(self, gradient: Tensor) -> None:
        """Sends the gradient by what ``spread`` gives into the encoders."""
        for task, places, features in self.found:
            into_graph(features, gradient[task, places])
