"""Convolutions over the tokens of a row, for tasks that label tokens, rows or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtl_cli.model.backward import Backward
from mtl_cli.model.encoders.base import Encoder, stacked_copy
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.layers import Bag, LayerNorm, Linear, dropout
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Inputs, InputSpec, PositiveInt, ProperFraction


@ENCODERS.register("sequence")
class SequenceEncoder(Encoder):
    """Residual convolutions over a column of tokens, each token the sum of embeddings of its hashed features.

    A token is known by itself, by its beginnings and ends, and by its shape. Each layer reads a token and its
    neighbours; the tokens of all rows stand one after the other, without padding, and no layer looks across the end of
    a row. Numbers and categories of the row are added to each of its tokens. A row's own features are the mean of its
    tokens.

    Args:
        spec: What the inputs are; one column of tokens.
        shared_dim: D, the width of the last layer.
        dim: Width of the embeddings and of the layers.
        reach: One layer for each entry: how far to the left and right its two neighbours are.
        dropout: Share of each layer's outputs set to 0 in training.
        feature_dropout: Share of the tokens' hashed features that are left out in training, as new words lack them.
        embedding_dim: Numbers that stand for one category of a categorical column.

    Shape:
        tokens Ragged (M, features) -> by ``spec.positions``: rows (B, D), tokens (M, D), or both (B + M, D).

    Raises:
        ConfigError: The data have no column of tokens, or more than one.

    Example:
        >>> from mtl_cli.types import Block, InputSpec, Ragged
        >>> spec = InputSpec(0, blocks=(Block("forms", "tokens", (3,), 50),), positions="tokens")
        >>> encoder = SequenceEncoder(spec, 8)
        >>> forms = Ragged(torch.randint(50, (5, 3)), torch.tensor([0, 2, 5]))
        >>> encoder(Inputs(torch.empty(2, 0), torch.empty(2, 0, dtype=torch.int64), {"forms": forms})).shape
        torch.Size([5, 8])
    """

    reads: ClassVar[str] = "tokens"
    costly: ClassVar[bool] = True
    most_blocks: ClassVar[int] = 1

    def __init__(
        self,
        spec: InputSpec,
        shared_dim: int,
        *,
        dim: PositiveInt = 96,
        reach: list[PositiveInt] = [1, 1, 2],  # noqa: B006  read only; the literal documents the default
        dropout: ProperFraction = 0.2,
        feature_dropout: ProperFraction = 0.1,
        embedding_dim: PositiveInt = 8,
    ) -> None:
        super().__init__()
        (tokens,) = self.blocks_of(spec)
        self._tokens, self._positions, self._reach = tokens.name, spec.positions, tuple(reach)
        self._dropout, self._feature_dropout = dropout, feature_dropout
        self.inner_widths = (dim,) * len(reach)
        self.bag = Bag(tokens.ids, dim)
        inner = InputSpec(spec.numeric_dim, spec.categories, spec.edges)
        whole_row = spec.numeric_dim or spec.categories
        self.row = MLP(inner, dim, embedding_dim=embedding_dim) if whole_row else None
        self.norms = nn.ModuleList(LayerNorm(dim) for _ in reach)
        self.layers = nn.ModuleList(Linear(3 * dim, dim) for _ in reach)
        self.last = Linear(dim, shared_dim)

    def forward(self, inputs: Inputs) -> Tensor:
        return self._encoded(None, inputs)

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        """By autograd but for the table of the tokens' features, see ``Bag.with_backward``."""
        if not self.bag.weight.requires_grad:
            return super().with_backward(inputs)
        sums, into_table = self.bag.with_backward(inputs.ragged(self._tokens).values, self._left_out())
        sums.requires_grad_()
        features = self._encoded(self._with_row(sums, inputs), inputs)

        def backward(gradient: Tensor) -> None:
            torch.autograd.backward(features, gradient)
            if sums.grad is None:
                raise RuntimeError("the features do not depend on the tokens")
            into_table(sums.grad)

        return features.detach(), backward

    def _encoded(self, x: Tensor | None, inputs: Inputs) -> Tensor:
        for index in range(len(self.layers)):
            x = self.stage(index, x, inputs)
        return self.stage(len(self.layers), x, inputs)

    def stage(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        """A layer over the tokens (M, dim), the first with their embeddings; then the last layer and the mean."""
        x = self._embedded(inputs) if x is None else x
        if index == len(self.layers):
            return self.placed(torch.relu(self.last(self._drop(x))), inputs)
        row, reach = inputs.ragged(self._tokens).row_of_each(), self._reach[index]
        x = self._drop(x)
        normal = self.norms[index](x)
        around = torch.cat([_beside(normal, row, -reach), normal, _beside(normal, row, reach)], -1)
        return x + torch.relu(self.layers[index](around))

    def stage_of_slices(self, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        return self.stage(index, x, inputs)  # layers take any axes before the tokens

    def placed(self, x: Tensor, inputs: Inputs) -> Tensor:
        """Tokens, their rows' means, or both, as ``spec.positions`` says."""
        if self._positions == "tokens":
            return x
        tokens = inputs.ragged(self._tokens)
        sums = x.new_zeros(*x.shape[:-2], len(inputs.numeric), x.shape[-1]).index_add(-2, tokens.row_of_each(), x)
        mean = sums / tokens.lengths().clamp(min=1).unsqueeze(1)
        return mean if self._positions == "rows" else torch.cat([mean, x], -2)

    def positions(self, inputs: Inputs) -> int:
        rows, tokens = len(inputs.numeric), len(inputs.ragged(self._tokens).values)
        return {"rows": rows, "tokens": tokens, "both": rows + tokens}[self._positions]

    def places(self, inputs: Inputs, rows: Tensor) -> Tensor:
        if self._positions == "rows":
            return rows
        tokens = inputs.ragged(self._tokens).places(rows)
        return tokens if self._positions == "tokens" else torch.cat([rows, len(inputs.numeric) + tokens])

    def tables(self) -> list[str]:
        return ["bag.weight", *([] if self.row is None else [f"row.{name}" for name in self.row.tables()])]

    def _embedded(self, inputs: Inputs) -> Tensor:
        tokens = inputs.ragged(self._tokens)
        return self._with_row(self.bag(tokens.values, self._left_out()), inputs)

    def _left_out(self) -> float:
        """Share of the tokens' features that are left out now."""
        return self._feature_dropout if self.training else 0.0

    def _with_row(self, x: Tensor, inputs: Inputs) -> Tensor:
        """The tokens with the numbers and categories of their rows."""
        if self.row is not None:
            x = x + self.row(inputs).index_select(-2, inputs.ragged(self._tokens).row_of_each())
        return x

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self._dropout, self.training)

    @classmethod
    def widths_by(cls, options: Mapping[str, Any]) -> Sequence[int]:
        return (options["dim"],) * len(options["reach"])

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        return stacked_copy(encoders)


def _beside(x: Tensor, row: Tensor, offset: int) -> Tensor:
    """For each token (axis -2) the one ``offset`` further in its row; zeros beyond the ends of the row."""
    place = torch.arange(len(row), device=row.device) + offset
    inside = place.clamp(0, max(len(row) - 1, 0))
    same = (place == inside) & (row.index_select(0, inside) == row)
    return x.index_select(-2, inside) * same.unsqueeze(1)
