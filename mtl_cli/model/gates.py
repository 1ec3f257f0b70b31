"""Gates: how much of each expert a task gets, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.layers import Linear
from mtl_cli.types import Inputs

EMBEDDING_DIM = 8  # numbers that stand for one category in what a gate reads


class GateInputs(nn.Module):
    """What gates read of the inputs: the numbers as they are, and an embedding of the categories.

    Where the inputs are more than numbers and categories (images, texts) the gates read the features of a small
    projection of their own: one more copy of the encoder, which knows how to read them.

    Args:
        make_encoder: Makes encoders of the inputs.

    Attributes:
        width: G, the width of what gates read.

    Shape:
        Inputs of B rows -> (B, G).
    """

    def __init__(self, make_encoder: EncoderMaker) -> None:
        super().__init__()
        spec = make_encoder.spec
        self.encoder = make_encoder() if getattr(spec, "blocks", ()) else None
        if self.encoder is not None:
            self.width = make_encoder.shared_dim
            return
        self.width = spec.numeric_dim + len(spec.categories) * EMBEDDING_DIM
        if spec.categories:
            offsets = torch.tensor((0, *spec.categories[:-1])).cumsum(0)
            self.offsets: Tensor
            self.register_buffer("offsets", offsets, persistent=False)
            table = torch.randn(sum(spec.categories), EMBEDDING_DIM) / EMBEDDING_DIM**0.5
            table[offsets] = 0.0  # an unknown category says nothing until training says otherwise
            self.embedding = nn.Parameter(table)

    def forward(self, inputs: Inputs) -> Tensor:
        if self.encoder is not None:
            features: Tensor = self.encoder(inputs)
            return features
        if not inputs.categorical.shape[1]:
            return inputs.numeric
        codes = inputs.categorical + self.offsets
        picked = self.embedding.index_select(0, codes.flatten()).view(len(codes), -1)
        return torch.cat([inputs.numeric, picked], 1)


class Gates(nn.Module):
    """Softmax weights over E experts for each of K tasks, from one linear layer or a small network per task.

    Args:
        width: G, the width of what the gates read.
        experts: E.
        tasks: K.
        hidden: Widths of ReLU layers before the last one.

    Shape:
        (B, G) common to all tasks or (K, B, G) -> (K, E, B), positive, with sum 1 over E.

    Example:
        >>> Gates(3, experts=4, tasks=2)(torch.zeros(5, 3)).sum(1).shape
        torch.Size([2, 5])
    """

    def __init__(self, width: int, *, experts: int, tasks: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b, tasks) for a, b in pairwise([width, *hidden]))
        self.last = Linear([width, *hidden][-1], experts, tasks)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return logits(self.last, x).softmax(1)


def logits(layer: Linear, x: Tensor) -> Tensor:
    """Outputs of K layers as (K, outputs, B): a softmax over outputs then runs along contiguous rows."""
    weight, bias = layer.weight, layer.bias
    if x.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(2), weight, x.transpose(1, 2))
    flat = torch.addmm(bias.view(-1, 1), weight.view(-1, weight.shape[2]), x.t())
    return flat.view(*bias.shape, -1)


def mix(gates: Tensor, experts: Tensor) -> Tensor:
    """Sum of the experts weighted by each task's gate, one product per row.

    Shape:
        gates (K, E, B), experts (E, B, D) -> (K, B, D).
    """
    return torch.bmm(gates.permute(2, 0, 1), experts.transpose(0, 1)).transpose(0, 1)
