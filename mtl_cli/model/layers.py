"""Layers with an optional leading axis of copies, computed as one batched product."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional


def uniform(*shape: int, inputs: int) -> Tensor:
    """The initialisation that nn.Linear and nn.Conv2d have for outputs that are sums over so many inputs.

    Example:
        >>> bool((uniform(5, 4, inputs=4).abs() <= 0.5).all())
        True
    """
    bound = 1 / math.sqrt(max(inputs, 1))
    return torch.empty(shape).uniform_(-bound, bound)


def near_identity(count: int, own: float) -> Tensor:
    """How much each of ``count`` takes of each at first: ``own`` of itself, and the rest of 1 of all others alike.

    Example:
        >>> near_identity(3, 0.9)
        tensor([[0.9000, 0.0500, 0.0500],
                [0.0500, 0.9000, 0.0500],
                [0.0500, 0.0500, 0.9000]])
    """
    if count == 1:
        return torch.ones(1, 1)
    return torch.full((count, count), (1 - own) / (count - 1)).fill_diagonal_(own)


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
        self.weight = nn.Parameter(uniform(*lead, out_features, in_features, inputs=in_features))
        self.bias = nn.Parameter(uniform(*lead, out_features, inputs=in_features))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What ``Linear`` puts out."""
    if weight.dim() == 2:
        return functional.linear(x, weight, bias)
    if x.dim() == 2:  # one product for all copies: the weights side by side
        copies, out_features, in_features = weight.shape
        flat = functional.linear(x, weight.view(-1, in_features), bias.view(-1))
        return flat.view(x.shape[0], copies, out_features).transpose(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def add_linear_gradients(gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Adds to ``weight.grad`` and ``bias.grad`` what ``gradient``, by the output of ``linear``, makes of them."""
    by_weight, by_bias = weight.grad, bias.grad
    if by_weight is None or by_bias is None:
        raise RuntimeError("parameters must have grad")
    if x.dim() == 3:
        by_weight.baddbmm_(gradient.transpose(1, 2), x)
        by_bias.add_(gradient.sum(1))
        return
    if weight.dim() == 3:  # copies of one input: one product, as forward
        gradient = gradient.transpose(0, 1).reshape(x.shape[0], -1)
    by_weight.view(-1, x.shape[1]).addmm_(gradient.t(), x)
    by_bias.view(-1).add_(gradient.sum(0))


def first_rows(sizes: Sequence[int]) -> Tensor:
    """Where the categories of each column begin in one table for all columns, (columns,) int64.

    Args:
        sizes: Number of categories of each column.

    Example:
        >>> first_rows([3, 5, 2])
        tensor([0, 3, 8])
    """
    return torch.tensor([0, *accumulate(sizes)][: len(sizes)], dtype=torch.int64)


def category_table(sizes: Sequence[int], dim: int) -> nn.Parameter:
    """Embeddings of the categories of all columns in one table, each column with its own range of rows.

    One gather then serves all columns. An unknown category, the first of each column, says nothing until training says
    otherwise.

    Args:
        sizes: Number of categories of each column.
        dim: Width of an embedding.

    Example:
        >>> category_table([3, 5], 2).shape
        torch.Size([8, 2])
    """
    table = torch.randn(sum(sizes), dim) / dim**0.5
    table[first_rows(sizes)] = 0.0
    return nn.Parameter(table)


_PARTS = 2**16  # a draw of dropout is one of so many numbers


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """In training sets ``share`` of the numbers to 0 and scales the others up for it: ``nn.Dropout``, drawn faster."""
    return x * dropout_factors(x, share) if training and share else x


def dropout_factors(x: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """What dropout multiplies ``x`` with: 0, or one over the share that is kept.

    On a CPU torch draws one number at a time, which can cost more than the layer. Sixteen bits of a random 64 are
    enough for a draw, so that one draw serves four numbers, at a quarter of the time; the share is met to 1 in 65,536.

    Args:
        x: The factors have its shape, type and device.
        share: Of the factors that are 0, in (0, 1).
        generator: To draw from; torch's own if None.

    Example:
        >>> factors = dropout_factors(torch.ones(10_000), 0.25)
        >>> factors.unique()
        tensor([0.0000, 1.3333])
        >>> 2_300 < int((factors == 0).sum()) < 2_700
        True
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.empty_like(x).bernoulli_(1 - share, generator=generator).div_(1 - share)
    dropped = min(max(round(share * _PARTS), 1), _PARTS - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    parts = draws.view(torch.int16)[: x.numel()].view(x.shape)
    wide = parts.to(torch.promote_types(x.dtype, torch.float32))  # half precision has not so many numbers
    return wide.ge_(dropped - _PARTS // 2).mul_(_PARTS / (_PARTS - dropped)).to(x.dtype)


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


class Conv2d(nn.Module):
    """``nn.Conv2d`` with "same" padding, or ``copies`` of it side by side in the channels.

    Shape:
        (B, in, H, W) -> (B, out, H / stride, W / stride), sizes rounded up. With copies the input is common,
        (B, in, H, W), or one for each, (B, copies * in, H, W), and the output is (B, copies * out, ...).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, copies: int | None = None
    ) -> None:
        super().__init__()
        lead = () if copies is None else (copies,)
        inputs = in_channels * kernel * kernel
        self.weight = nn.Parameter(uniform(*lead, out_channels, in_channels, kernel, kernel, inputs=inputs))
        self.bias = nn.Parameter(uniform(*lead, out_channels, inputs=inputs))
        self._stride, self._padding = stride, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        in_channels = self.weight.shape[-3]
        weight = self.weight.view(-1, *self.weight.shape[-3:])
        groups = x.shape[1] // in_channels  # 1 for a plain layer, and for an input that the copies have in common
        return functional.conv2d(x, weight, self.bias.view(-1), self._stride, self._padding, groups=groups)


class GroupNorm(nn.Module):
    """``nn.GroupNorm`` with at most eight groups, or ``copies`` of it side by side in the channels.

    Shape:
        (B, channels, H, W) -> the same; with copies (B, copies * channels, H, W) -> the same.
    """

    def __init__(self, channels: int, copies: int | None = None) -> None:
        super().__init__()
        lead = () if copies is None else (copies,)
        self.weight = nn.Parameter(torch.ones(*lead, channels))
        self.bias = nn.Parameter(torch.zeros(*lead, channels))

    @staticmethod
    def groups(channels: int) -> int:
        """The number of groups that channels are normalised in."""
        return math.gcd(channels, 8)

    def forward(self, x: Tensor) -> Tensor:
        channels = self.weight.shape[-1]
        groups = self.groups(channels) * (x.shape[1] // channels)
        return functional.group_norm(x, groups, self.weight.view(-1), self.bias.view(-1))


class Bag(nn.Module):
    """Sum of the embeddings of a bag of ids, or ``copies`` of it with tables of their own, in one call.

    Args:
        ids: Number of ids.
        dim: Width of an embedding.
        copies: Number of tables on axis 0; None for a plain table.

    Shape:
        ids (M,) with the start of each of B bags, or (B, ids of a bag) -> (B, dim); with copies (copies, B, dim).
    """

    def __init__(self, ids: int, dim: int, copies: int | None = None) -> None:
        super().__init__()
        lead = () if copies is None else (copies,)
        # Small, so that an id that training has never met says little.
        self.weight = nn.Parameter(torch.randn(*lead, ids, dim) * 0.02)

    def forward(self, ids: Tensor, dropout: float = 0.0, starts: Tensor | None = None) -> Tensor:
        ids, factors = self._flat(ids, dropout)
        if self.weight.dim() == 2:
            return _sums(ids, self.weight, factors, starts)
        copies = len(self.weight)
        if starts is not None:
            ends = torch.arange(copies, device=ids.device).unsqueeze(1) * (len(ids) // copies)
            starts = (starts.unsqueeze(0) + ends).flatten()
        sums: Tensor = _sums(ids, self.weight.flatten(0, 1), factors, starts).unflatten(0, (copies, -1))
        return sums

    def with_backward(self, ids: Tensor, dropout: float = 0.0) -> tuple[Tensor, Callable[[Tensor], None]]:
        """Sums of bags of equal size, ids (B, ids of a bag), without a graph, and their backward pass.

        It adds to the rows of ``weight.grad`` that were read. By autograd each step makes a table of zeros and adds all
        of it, which takes most of a small step's time where the table is large.
        """
        width = self.weight.shape[-1]
        ids, factors = self._flat(ids, dropout)
        sums = _sums(ids, self.weight.detach().view(-1, width), factors, None)

        def backward(gradient: Tensor) -> None:
            if self.weight.grad is None:
                raise RuntimeError("parameters must have grad")
            each = gradient.view(-1, 1, width).expand(-1, ids.shape[1], -1)
            each = each if factors is None else each * factors.unsqueeze(-1)
            self.weight.grad.view(-1, width).index_add_(0, ids.flatten(), each.flatten(0, 1))

        return (sums if self.weight.dim() == 2 else sums.unflatten(0, (len(self.weight), -1))), backward

    def _flat(self, ids: Tensor, dropout: float) -> tuple[Tensor, Tensor | None]:
        """The ids of all copies in their tables below one another, and dropout's factors, the same for all copies."""
        factors = dropout_factors(self.weight.new_empty(()).expand(ids.shape), dropout) if dropout else None
        ids = ids.long()
        if self.weight.dim() == 2:
            return ids, factors
        copies, rows, _ = self.weight.shape
        shift = torch.arange(copies, device=ids.device) * rows
        many = (ids.unsqueeze(0) + shift.view(-1, *(1,) * ids.dim())).flatten(0, 1)
        return many, None if factors is None else factors.repeat(copies, *(1,) * (ids.dim() - 1))


def _sums(ids: Tensor, table: Tensor, factors: Tensor | None, starts: Tensor | None) -> Tensor:
    sums: Tensor = functional.embedding_bag(ids, table, starts, mode="sum", per_sample_weights=factors)
    return sums
