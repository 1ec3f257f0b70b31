"""Layers with an optional leading axis of copies, computed as one batched product."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Module):
    """``nn.Linear``, or ``copies`` of it with their own weights, computed together.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        copies: Number of layers on axis 0; None for a plain layer with plain weights.

    Shape:
        (B, in) -> (B, out) without copies; (B, in) or (copies, B, in) -> (copies, B, out) with them.

    Example:
        >>> Linear(3, 5, copies=4)(torch.zeros(2, 3)).shape
        torch.Size([4, 2, 5])
    """

    def __init__(self, in_features: int, out_features: int, copies: int | None = None) -> None:
        super().__init__()
        lead = () if copies is None else (copies,)
        bound = 1 / math.sqrt(max(in_features, 1))  # the initialisation of nn.Linear, for every copy
        self.weight = nn.Parameter(torch.empty(*lead, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(*lead, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return functional.linear(x, self.weight, self.bias)
        if x.dim() == 2:  # one product for all copies: the weights side by side
            copies, out_features, in_features = self.weight.shape
            flat = functional.linear(x, self.weight.view(-1, in_features), self.bias.view(-1))
            return flat.view(-1, copies, out_features).transpose(0, 1)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class LayerNorm(nn.Module):
    """``nn.LayerNorm`` over the last axis, or ``copies`` of it on axis 0.

    Shape:
        (B, width) -> (B, width); with copies (copies, B, width) -> the same.
    """

    def __init__(self, width: int, copies: int | None = None) -> None:
        super().__init__()
        lead = () if copies is None else (copies,)
        self.weight = nn.Parameter(torch.ones(*lead, width))
        self.bias = nn.Parameter(torch.zeros(*lead, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 1:
            return functional.layer_norm(x, self.weight.shape, self.weight, self.bias)
        normal = functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.bias.unsqueeze(1), normal, self.weight.unsqueeze(1))
