"""Factorization machine: what pairs of inputs say together, for recommendation from ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders.base import Encoder, stacked_copy
from mtl_cli.model.layers import first_rows
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Inputs, InputSpec, Positive


@ENCODERS.register("fm")
class FactorizationMachine(Encoder):
    """Products of the vectors of all pairs of inputs, and a sum of single weights (Rendle 2010; He and Chua 2017).

    Every category, and every number times its value, has a vector v of D - 1 numbers and a weight w. The features of a
    row are the sum of v_i * v_j (element by element) over all pairs of its inputs, and s times the sum of its w and of
    an intercept. A linear head on top gives a factorization machine whose factors each task weights for itself; with a
    user and an item alone it is matrix factorization with biases. A missing or unknown category is no input at all.
    Numbers that come with edges are read as plain numbers.

    Args:
        spec: What the inputs are.
        shared_dim: D, the length of the vectors plus one.
        init_std: Standard deviation of the vectors at the start.
        weight_scale: s, which makes the single weights learn that much faster than the vectors, and weight decay pull
            on them that much less: how often something is taken is learnt before who takes it.

    Shape:
        numeric (B, F), categorical (B, number of columns) -> (B, D).

    Example:
        >>> encoder = FactorizationMachine(InputSpec(0, (5, 3)), 8)
        >>> encoder(Inputs(torch.zeros(2, 0), torch.tensor([[1, 2], [4, 1]]))).shape
        torch.Size([2, 8])
    """

    def __init__(
        self, spec: InputSpec, shared_dim: int, *, init_std: Positive = 0.1, weight_scale: Positive = 8.0
    ) -> None:
        super().__init__()
        self.blocks_of(spec)
        self.offsets: Tensor
        self.register_buffer("offsets", first_rows(spec.categories), persistent=False)
        # All columns, each with its own range of rows, then a row for each number; the last of a row is its w.
        table = torch.randn(sum(spec.categories) + spec.numeric_dim, max(shared_dim, 2)) * init_std
        table[:, -1] = 0.0
        speaks = torch.ones(sum(spec.categories), 1)
        speaks[self.offsets] = 0.0
        last = self.offsets + torch.tensor(spec.categories, dtype=torch.int64) - 1
        speaks[last[torch.tensor(spec.missing or [False] * len(last), dtype=torch.bool)]] = 0.0
        self.speaks: Tensor
        self.register_buffer("speaks", speaks, persistent=False)
        self.table = nn.Parameter(table)
        self.intercept = nn.Parameter(torch.zeros(1, 1))
        self._categories, self._dim, self._scale = sum(spec.categories), shared_dim, weight_scale

    def products(self, products: Tensor, inputs: Inputs) -> Tensor:  # noqa: ARG002
        """What is made of the sum of the products of all pairs, (B, D - 1); of copies (copies, B, D - 1)."""
        return products

    def forward(self, inputs: Inputs) -> Tensor:
        lead = self.table.shape[:-2]
        codes = inputs.categorical + self.offsets
        picked = self.table.index_select(-2, codes.flatten()) * self.speaks.index_select(0, codes.flatten())
        picked = picked.view(*lead, *codes.shape, self.table.shape[-1])
        vectors, weights = picked[..., :-1], picked[..., -1:]
        total, squares, single = vectors.sum(-2), vectors.square().sum(-2), weights.sum(-2) + self.intercept
        if inputs.numeric.shape[1]:
            rows = self.table[..., self._categories :, :]
            total = total + inputs.numeric @ rows[..., :-1]
            squares = squares + inputs.numeric.square() @ rows[..., :-1].square()
            single = single + inputs.numeric @ rows[..., -1:]
        products = self.products((total.square() - squares) / 2, inputs)
        return torch.cat([products, self._scale * single], -1)[..., -self._dim :]

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        return stacked_copy(encoders)
