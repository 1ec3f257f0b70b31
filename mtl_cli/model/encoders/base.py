"""What an encoder is, and how copies of one are computed together."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.backward import Backward, by_autograd
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Block, Inputs, InputSpec


class Encoder(nn.Module, ABC):
    """Inputs (B rows) to features (B, D).

    A constructor takes ``(spec: InputSpec, shared_dim: int, *, options)``. Each row is encoded on its own: the
    training loop may cut a batch into pieces that fit the processor's cache.

    Attributes:
        reads: The type of ``Inputs.blocks`` that it reads besides numbers and categories (``image``), or None.
        most_blocks: How many columns of that type it can read.
    """

    reads: ClassVar[str | None] = None
    most_blocks: ClassVar[int] = 1_000_000

    @classmethod
    def blocks_of(cls, spec: InputSpec) -> tuple[Block, ...]:
        """The blocks of the inputs, which are all of the type that this encoder reads.

        Raises:
            ConfigError: There are none, too many, or others; names the encoders that read them.
        """
        others = [block for block in spec.blocks if block.type != cls.reads]
        problems = [_unread(block) for block in others]
        found = len(spec.blocks) - len(others)
        if cls.reads is not None and not problems and not 1 <= found <= cls.most_blocks:
            names = ", ".join(f"'{block.name}'" for block in spec.blocks) or "none"
            need = "one" if cls.most_blocks == 1 else "one or more"
            what = f"reads {need} input of type {cls.reads}, and the data have {names}"
            problems.append(Problem("encoder", what, "Choose the columns with data.inputs, or another encoder."))
        if spec.positions != "rows" and cls.reads != "tokens":
            what = "gives features of rows, and some task labels the tokens of its rows"
            problems.append(Problem("encoder", what, "Use encoder=sequence."))
        if problems:
            raise ConfigError(problems)
        return spec.blocks

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


def _unread(block: Block) -> Problem:
    readers = [name for name in ENCODERS.names() if getattr(ENCODERS.load(name), "reads", None) == block.type]
    hint = f"Use encoder={' or encoder='.join(readers)}, or leave the column out with data.exclude=[{block.name}]."
    return Problem("encoder", f"does not read column '{block.name}', an input of type {block.type}", hint)


def stacked_copy(encoders: Sequence[Encoder]) -> nn.Module:
    """The first encoder with the parameters of all stacked on axis 0, for layers that compute copies at once."""
    stack = copy.deepcopy(encoders[0])
    for name, parameter in list(stack.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        values = torch.stack([e.get_parameter(name).detach() for e in encoders])
        setattr(stack.get_submodule(owner), leaf, nn.Parameter(values, parameter.requires_grad))
    return stack


class VmapStack(nn.Module):
    """Copies of one encoder, computed together by ``torch.func.vmap`` over stacked parameters.

    Args:
        encoders: Encoders of one class and size; their values are copied. Buffers must be constants, equal in all.

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
        self._constants = [name for name, _ in encoders[0].named_buffers()]
        for name in self._constants:
            value = encoders[0].get_buffer(name)
            if not all(torch.equal(encoder.get_buffer(name), value) for encoder in encoders):
                raise TypeError(f"buffer '{name}' differs between the copies: the encoder needs a `stack` of its own")
            self.register_buffer(name.replace(".", "_"), value, persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        skeleton = self._skeleton[0].train(self.training)
        constants = {name: self.get_buffer(name.replace(".", "_")) for name in self._constants}

        def one(parameters: dict[str, Tensor]) -> Any:
            return torch.func.functional_call(skeleton, {**constants, **parameters}, (inputs,))

        features: Tensor = torch.func.vmap(one, randomness="different")(
            dict(zip(self._names, self.stacked, strict=True))
        )
        return features
