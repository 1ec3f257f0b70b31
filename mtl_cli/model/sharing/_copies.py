"""One encoder for each task, all computed at once, or each on the rows that its task has labels for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_cli.model.backward import Backward, by_autograd, into_graph, with_backward
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.ownership import Ownership, stacked
from mtl_cli.model.sharing.base import Sharing, make_encoders
from mtl_cli.types import Inputs


class Copies(Sharing):
    """K encoders without anything in common but the rows that they read.

    They are computed as one batched operation. Where encoding a row is costly and most rows are of other tasks, as
    those of several sources are, each encoder reads those of its own task alone, which costs what one encoder costs;
    features that nobody wants are 0 then.

    Args:
        make_encoder: Makes encoders.
        task_names: K names.

    Shape:
        Inputs of B rows -> (K, B, D).
    """

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> None:
        super().__init__()
        encoders = make_encoders(make_encoder, task_names)
        self._num_tasks = len(encoders)
        # Gives the computation of one only; kept out of the module tree, so that its values are no parameters.
        self._one = [copy.deepcopy(encoder).to("meta") for encoder in encoders[:1] if encoder.costly]
        self.encoders = type(encoders[0]).stack(encoders)

    def forward(self, inputs: Inputs) -> Tensor:
        if not self._apart(inputs):
            features: Tensor = self.encoders(inputs)
            return features
        parts = {name: values.unbind(0) for name, values in self.encoders.named_parameters()}
        found = list(self._each(inputs, [{name: part[t] for name, part in parts.items()} for t in self._tasks()]))
        return _spread(found, self._num_tasks, self._one[0].positions(inputs))

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        if self._compiled_call_impl is not None:
            return by_autograd(self, inputs)
        if not self._apart(inputs):
            return with_backward(self.encoders, inputs)
        with torch.enable_grad():
            found = list(self._each(inputs, [self._leaves(task) for task in self._tasks()]))

        def backward(gradient: Tensor) -> None:
            for task, places, features in found:
                into_graph(features, gradient[task, places])

        with torch.no_grad():
            return _spread(found, self._num_tasks, self._one[0].positions(inputs)), backward

    def owners(self) -> list[Ownership]:
        return stacked(self.parameters(), self._tasks())

    def _tasks(self) -> range:
        return range(self._num_tasks)

    def _apart(self, inputs: Inputs) -> bool:
        """Whether to compute each encoder on its own rows. A compiled module has one shape of rows: it does not."""
        known = inputs.wanted is not None and len(inputs.wanted) == self._num_tasks  # else some are products of others
        return bool(self._one) and known and self._compiled_call_impl is None

    def _leaves(self, task: int) -> dict[str, Tensor]:
        """The parameters of one encoder: views of the stacked ones, whose gradients go straight to theirs."""
        leaves = {}
        for name, values in self.encoders.named_parameters():
            leaves[name] = values.detach()[task].requires_grad_(values.requires_grad)
            if values.requires_grad and values.grad is not None:
                leaves[name].grad = values.grad[task]
        return leaves

    def _each(self, inputs: Inputs, parameters: Sequence[Mapping[str, Tensor]]) -> Iterator[_OwnRows]:
        if inputs.wanted is None:
            raise ValueError("nothing says which rows are wanted")
        one, constants = self._one[0].train(self.training), dict(self.encoders.named_buffers())
        for task, wanted in enumerate(inputs.wanted):
            rows = wanted.nonzero().flatten()
            if len(rows) or task == 0:  # one at least
                own = inputs._replace(wanted=None).rows(rows)
                features = torch.func.functional_call(one, {**constants, **parameters[task]}, (own,))
                yield _OwnRows(task, one.places(inputs, rows), features)


class _OwnRows(NamedTuple):
    """Features of the rows of one task, and the positions that they belong to."""

    task: int
    places: Tensor
    features: Tensor


def _spread(found: Sequence[_OwnRows], tasks: int, positions: int) -> Tensor:
    """Features (K, positions, D), 0 where there are none."""
    like = found[0].features
    places = torch.cat([own.task * positions + own.places for own in found])
    empty = like.new_zeros(tasks * positions, like.shape[-1])
    features: Tensor = empty.index_copy(0, places, torch.cat([own.features for own in found]))
    return features.view(tasks, positions, -1)
