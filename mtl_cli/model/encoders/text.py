"""Texts as bags of hashed words and pieces of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders.base import Encoder, stacked_copy
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.layers import Bag, dropout
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Inputs, InputSpec, PositiveInt, ProperFraction


@ENCODERS.register("text")
class TextEncoder(Encoder):
    """Embeddings of hashed n-grams, summed over a text, and an MLP (Joulin et al. 2017, 'Bag of Tricks', fastText).

    The sum is divided by the root of the number of n-grams: a long text says more than a short one, but not in
    proportion. A text without any is a row of zeros. Numbers and categories of the row join before the MLP.

    Args:
        spec: What the inputs are; one or more columns of texts.
        shared_dim: D, the width of the last layer.
        dim: Width of the embeddings.
        hidden: Widths of the layers between the embeddings and the last one.
        dropout: Share of each layer's outputs set to 0 in training.
        feature_dropout: Share of the n-grams that are left out in training.
        embedding_dim: Numbers that stand for one category of a categorical column.

    Shape:
        texts Ragged (M,) of B rows -> (B, D).

    Raises:
        ConfigError: The data have no column of texts.

    Example:
        >>> from mtl_cli.types import Block, Ragged
        >>> encoder = TextEncoder(InputSpec(0, blocks=(Block("review", "text", (), 50),)), 8)
        >>> review = Ragged(torch.randint(50, (5,)), torch.tensor([0, 2, 5]))
        >>> encoder(Inputs(torch.empty(2, 0), torch.empty(2, 0, dtype=torch.int64), {"review": review})).shape
        torch.Size([2, 8])
    """

    reads: ClassVar[str] = "text"

    def __init__(
        self,
        spec: InputSpec,
        shared_dim: int,
        *,
        dim: PositiveInt = 64,
        hidden: list[PositiveInt] = [],  # noqa: B006  read only; the literal documents the default
        dropout: ProperFraction = 0.1,
        feature_dropout: ProperFraction = 0.1,
        embedding_dim: PositiveInt = 8,
    ) -> None:
        super().__init__()
        self._texts = [block.name for block in self.blocks_of(spec)]
        self._dropout, self._feature_dropout = dropout, feature_dropout
        self.inner_widths = (dim * len(self._texts), *hidden)
        self.bags = nn.ModuleList(Bag(block.ids, dim) for block in spec.blocks)
        inner = InputSpec(spec.numeric_dim + dim * len(self._texts), spec.categories, spec.edges)
        self.last = MLP(inner, shared_dim, hidden=list(hidden), dropout=dropout, embedding_dim=embedding_dim)

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.last(self._joined(self._sums(inputs), inputs))
        return features

    def stage(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        """The sums of the embeddings; then the layers, the first of which numbers and categories join."""
        if x is None:
            return self._sums(inputs)
        return self.last.stage(index - 1, None if index == 1 else x, self._joined(x, inputs) if index == 1 else inputs)

    def stage_of_slices(self, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        return super().stage_of_slices(index, x, inputs._replace(blocks={}))  # the texts are not read again

    def tables(self) -> list[str]:
        own = [f"last.{name}" for name in self.last.tables()]
        return [*(f"bags.{i}.weight" for i in range(len(self.bags))), *own]

    def _sums(self, inputs: Inputs) -> Tensor:
        found = []
        for name, bag in zip(self._texts, self.bags, strict=True):
            text = inputs.ragged(name)
            count = text.lengths().clamp(min=1).unsqueeze(1)
            x = bag(text.values, self._feature_dropout if self.training else 0.0, text.starts[:-1])
            x = x / count.sqrt()
            found.append(dropout(x, self._dropout, self.training))
        return torch.cat(found, -1)

    def _joined(self, x: Tensor, inputs: Inputs) -> Inputs:
        numeric = inputs.numeric.expand(*x.shape[:-1], inputs.numeric.shape[1])
        return Inputs(torch.cat([numeric, x], -1), inputs.categorical)

    @classmethod
    def widths_by(cls, options: Mapping[str, Any]) -> Sequence[int]:
        return tuple(options["hidden"])

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        return stacked_copy(encoders)
