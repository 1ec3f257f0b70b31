"""What an encoder is, and how copies of one are computed together."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl_cli.model.backward import Backward, by_autograd
from mtl_cli.types import Inputs, InputSpec


class Encoder(nn.Module, ABC):
    """Inputs (B rows) to features (B, D).

    A constructor takes ``(spec: InputSpec, shared_dim: int, *, options)``. Each row is encoded on its own: the
    training loop may cut a batch into pieces that fit the processor's cache.
    """

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Features (B, D) of the rows."""

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        """Features without a graph, and their backward pass."""
        return by_autograd(self, inputs)

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        """One module that computes all the encoders at once: inputs to (number of encoders, B, D).

        Its parameters are the encoders' own, stacked on axis 0. This general form runs any encoder under
        ``vmap``; an encoder with a faster batched form overrides it.
        """
        return VmapStack(encoders)


@dataclass(frozen=True)
class EncoderMaker:
    """Makes encoders of one class and size, each with a fresh initialisation.

    Args:
        build: An encoder for given inputs and width.
        spec: What the inputs are.
        shared_dim: D, the width of the features.

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> EncoderMaker(MLP, InputSpec(3), 8)()(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 8])
    """

    build: Callable[[InputSpec, int], Encoder]
    spec: InputSpec
    shared_dim: int

    def __call__(self) -> Encoder:
        """A new encoder."""
        return self.build(self.spec, self.shared_dim)


class VmapStack(nn.Module):
    """Copies of one encoder, computed together by ``torch.func.vmap`` over stacked parameters.

    Args:
        encoders: Encoders of one class and size; their values are copied.

    Shape:
        Inputs of B rows -> (number of encoders, B, D).
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        super().__init__()
        # The skeleton gives the computation only; kept out of the module tree, so that its values are no parameters.
        self._skeleton = [copy.deepcopy(encoders[0]).to("meta")]
        self._names = [name for name, _ in encoders[0].named_parameters()]
        self.stacked = nn.ParameterList(
            nn.Parameter(torch.stack([dict(e.named_parameters())[name].detach() for e in encoders]))
            for name in self._names
        )
        if any(True for _ in encoders[0].buffers()):
            raise TypeError(f"{type(encoders[0]).__name__} has buffers: it needs a `stack` of its own")

    def forward(self, inputs: Inputs) -> Tensor:
        skeleton = self._skeleton[0].train(self.training)

        def one(parameters: dict[str, Tensor]) -> Any:
            return torch.func.functional_call(skeleton, parameters, (inputs,))

        features: Tensor = torch.func.vmap(one, randomness="different")(
            dict(zip(self._names, self.stacked, strict=True))
        )
        return features
