"""Tables: every number gets an embedding, as every category does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders.base import Encoder, TableEncoder, stacked_copy
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.layers import uniform
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Inputs, InputSpec, Positive, PositiveInt, ProperFraction


@ENCODERS.register("tabular")
class TabularEncoder(TableEncoder):
    """Embeddings of numbers and of categories, and an MLP (Gorishniy et al. 2022, 'Embeddings for Numerical Features').

    What a number says often turns at some value: an MLP on the plain number learns that late. Here each number x of
    its own column that comes with edges (``data.bins``) is first read in many places, r(x), and its embedding is
    relu(W r(x) + b), with W and b of its column. ``piecewise_linear``: how far x has come through each bin, 0 to 1.
    ``periodic``: r(x) holds sin(2 pi c x) and cos(2 pi c x) for learnt frequencies c. The MLP reads the numbers
    themselves too, those without edges (0/1, list columns) only so.

    Args:
        spec: What the inputs are.
        shared_dim: D, the width of the last layer.
        numbers: How numbers are read, piecewise_linear or periodic.
        dim: Width of a number's embedding.
        frequencies: Frequencies of each column (periodic).
        frequency_std: Standard deviation of the frequencies at the start, per unit of the scaled number (periodic): low
            for what changes slowly with the number, high for what goes up and down. It matters; try 0.01 to 10.
        hidden: Widths of the layers between the embeddings and the last one.
        dropout: Share of each layer's outputs set to 0 in training.
        embedding_dim: Numbers that stand for one category of a categorical column.

    Shape:
        numeric (B, F), categorical (B, number of columns) -> (B, D).

    Raises:
        ConfigError: No number comes with edges.

    Example:
        >>> encoder = TabularEncoder(InputSpec(2, (5,), edges=((1, (-1.0, 0.0, 1.0)),)), 8)
        >>> encoder(Inputs(torch.zeros(3, 2), torch.tensor([[0], [4], [1]]))).shape
        torch.Size([3, 8])
    """

    takes_rows_of_copies: ClassVar[bool] = True

    def __init__(
        self,
        spec: InputSpec,
        shared_dim: int,
        *,
        numbers: Literal["piecewise_linear", "periodic"] = "piecewise_linear",
        dim: PositiveInt = 24,
        frequencies: PositiveInt = 48,
        frequency_std: Positive = 0.5,
        hidden: list[PositiveInt] = [256],  # noqa: B006  read only; the literal documents the default
        dropout: ProperFraction = 0.1,
        embedding_dim: PositiveInt = 8,
    ) -> None:
        super().__init__()
        self.blocks_of(spec)
        if not spec.edges:
            what = "tabular embeds the numbers that data.bins cuts into bins, and there are none"
            hint = "Set data.bins=48 (auto cuts no column where they are more than 32), or use encoder=mlp."
            raise ConfigError(Problem("encoder", what, hint))
        self.inner_widths = tuple(hidden)
        self.columns: Tensor
        self.register_buffer("columns", torch.tensor([c for c, _ in spec.edges], dtype=torch.int64), persistent=False)
        edges = [torch.tensor(e) for _, e in spec.edges]
        self.numbers: _PiecewiseLinear | _Periodic
        if numbers == "piecewise_linear":
            self.numbers = _PiecewiseLinear(edges, dim)
        else:
            self.numbers = _Periodic(len(edges), frequencies, frequency_std, dim)
        self.bias = nn.Parameter(torch.zeros(len(edges), dim))
        inner = InputSpec(spec.numeric_dim + len(edges) * dim, spec.categories)
        self.last = MLP(inner, shared_dim, hidden=list(hidden), dropout=dropout, embedding_dim=embedding_dim)

    @property
    def read_dim(self) -> int:
        return self.last.read_dim

    def read(self, inputs: Inputs) -> Tensor:
        return self.last.read(self._embedded(inputs))

    def encode(self, x: Tensor) -> Tensor:
        return self.last.encode(x)

    def stage(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        """A layer; the first also reads the inputs."""
        return self.last.stage(index, x, self._embedded(inputs) if x is None else inputs)

    def tables(self) -> list[str]:
        return [f"last.{name}" for name in self.last.tables()]

    def _embedded(self, inputs: Inputs) -> Inputs:
        """The row with the embeddings of its numbers among the numbers."""
        x = inputs.numeric.index_select(-1, self.columns).transpose(-2, -1).unsqueeze(-1)
        embedded = torch.relu(self.numbers(x) + self.bias.unsqueeze(-2)).transpose(-3, -2).flatten(-2)
        numeric = inputs.numeric.expand(*embedded.shape[:-1], inputs.numeric.shape[-1])
        return Inputs(torch.cat([numeric, embedded], -1), inputs.categorical)

    @classmethod
    def widths_by(cls, options: Mapping[str, Any]) -> Sequence[int]:
        return tuple(options["hidden"])

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        return stacked_copy(encoders)


class _Periodic(nn.Module):
    """W [sin(2 pi c x), cos(2 pi c x)] for each of F columns, with frequencies c of its own.

    Shape:
        (F, B, 1) -> (F, B, dim); of copies (copies, F, B, dim).
    """

    def __init__(self, columns: int, frequencies: int, std: float, dim: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(columns, 1, frequencies) * std)
        self.weight = nn.Parameter(uniform(columns, 2 * frequencies, dim, inputs=2 * frequencies))

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * x * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1) @ self.weight


class _PiecewiseLinear(nn.Module):
    """W r for each of F columns, r how far x has come through each of the column's bins, 0 to 1.

    Shape:
        (F, B, 1) -> (F, B, dim); of copies (copies, F, B, dim).
    """

    def __init__(self, edges: Sequence[Tensor], dim: int) -> None:
        super().__init__()
        counts = [len(e) - 1 for e in edges]
        self.low: Tensor
        self.width: Tensor
        self.rows: Tensor
        # Columns have different numbers of bins: those with fewer get bins without end, through which no x comes.
        pad = [(0, max(counts) - count) for count in counts]
        low = [functional.pad(e[:-1], p) for e, p in zip(edges, pad, strict=True)]
        width = [functional.pad(e.diff(), p, value=math.inf) for e, p in zip(edges, pad, strict=True)]
        rows = [functional.pad(r, p) for r, p in zip(torch.arange(sum(counts)).split(counts), pad, strict=True)]
        self.register_buffer("low", torch.stack(low).unsqueeze(1), persistent=False)
        self.register_buffer("width", torch.stack(width).unsqueeze(1), persistent=False)
        self.register_buffer("rows", torch.stack(rows), persistent=False)
        self.weight = nn.Parameter(torch.cat([uniform(count, dim, inputs=count) for count in counts]))

    def forward(self, x: Tensor) -> Tensor:
        through = ((x - self.low) / self.width).clamp(0.0, 1.0)
        weight = self.weight.index_select(-2, self.rows.flatten())
        embedded: Tensor = through @ weight.unflatten(-2, self.rows.shape)
        return embedded
