"""Encoders of K tasks whose parameters are made anew for each batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import Encoder
from mtl_cli.model.sharing._own_rows import OwnRows
from mtl_cli.types import Inputs


class Template(nn.Module):
    """The encoders of K tasks, which are given their parameters with each call.

    Args:
        encoder: One of them.
        stack: What its ``stack`` makes; its values are dropped, its buffers kept.
        tasks: K.

    Shape:
        Parameters by name (K, ...), Inputs of B rows -> (K, B, D), 0 for what was left out, see ``_own_rows``.
    """

    def __init__(self, encoder: Encoder, stack: nn.Module, tasks: int) -> None:
        super().__init__()
        self._constants = {name: f"constant{i}" for i, (name, _) in enumerate(stack.named_buffers())}
        for name, own in self._constants.items():
            self.register_buffer(own, stack.get_buffer(name).clone(), persistent=False)
        self._own_rows = OwnRows(encoder, stack, tasks)
        self._stack = [stack.to("meta")]  # kept out of the module tree: its values are no parameters

    @property
    def kept_out(self) -> list[nn.Module]:
        """What it computes with and has not in its module tree, in the same mode."""
        return [self._stack[0].train(self.training)]

    def forward(self, parameters: dict[str, Tensor], inputs: Inputs) -> Tensor:
        constants = {name: self.get_buffer(own) for name, own in self._constants.items()}
        stack = self._stack[0].train(self.training)

        def together(inputs: Inputs) -> Tensor:
            features: Tensor = torch.func.functional_call(stack, {**constants, **parameters}, (inputs,))
            return features

        return self._own_rows.features(inputs, parameters, constants, together)
