"""One encoder for each task, all computed at once, or each on the rows that its task has labels for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_cli.model.backward import Backward, by_autograd, into_graph, no_graph, with_backward
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.ownership import Ownership, stacked
from mtl_cli.model.sharing._own_rows import OwnRows
from mtl_cli.model.sharing.base import Sharing, make_encoders
from mtl_cli.types import Inputs


class Copies(Sharing):
    """K encoders without anything in common but the rows that they read.

    They are computed as one batched operation, each on the rows of its own task alone where that saves much, see
    ``_own_rows``: those of several sources cost little more than one encoder does.

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
        self.encoders = type(encoders[0]).stack(encoders)
        self._own_rows = OwnRows(encoders[0], self.encoders, self._num_tasks)

    def forward(self, inputs: Inputs) -> Tensor:
        parameters, constants = dict(self.encoders.named_parameters()), dict(self.encoders.named_buffers())
        return self._own_rows.features(inputs, parameters, constants, self.encoders)

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        if self._compiled_call_impl is not None:
            return by_autograd(self, inputs)
        if self._own_rows.is_single:
            with torch.enable_grad():
                features = self._own_rows.of_one(inputs, self._leaves(0))
            return features.detach(), lambda gradient: into_graph(features, gradient)
        if (wanted := self._own_rows.of_each(inputs)) is not None:
            with torch.enable_grad():
                found = self._own_rows.one_by_one(inputs, wanted, self._leaves)
            with no_graph():
                return found.spread(), found.backward
        if (own := self._own_rows.padded(inputs)) is not None:
            features, into_encoders = with_backward(self.encoders, own.apart())
            with no_graph():
                return own.spread(features), lambda gradient: into_encoders(own.collect(gradient))
        return with_backward(self.encoders, inputs)

    def owners(self) -> list[Ownership]:
        return stacked(self.parameters(), range(self._num_tasks))

    def _leaves(self, task: int) -> dict[str, Tensor]:
        """The values of one encoder: views of the stacked ones, whose gradients go straight to theirs."""
        leaves = dict(self.encoders.named_buffers())
        for name, values in self.encoders.named_parameters():
            leaves[name] = values.detach()[task].requires_grad_(values.requires_grad)
            if values.requires_grad and values.grad is not None:
                leaves[name].grad = values.grad[task]
        return leaves
