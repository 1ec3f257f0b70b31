"""Factorization machine whose users and items know their neighbours, for recommendation from ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mtl_cli.errors import ConfigError, Problem, did_you_mean
from mtl_cli.model.encoders.fm import FactorizationMachine
from mtl_cli.registry import ENCODERS
from mtl_cli.types import InputSpec, Positive, PositiveInt


@ENCODERS.register("graph")
class GraphEncoder(FactorizationMachine):
    """Factorization machine on vectors that go along the links of users and items (LightGCN: He et al. 2020).

    Users and items are the nodes of a graph, with an edge where a training row says that the user took the item. Layer
    0 of a node is its own vector; layer l + 1 is the sum of layer l over its neighbours, each divided by the root of
    the product of both numbers of neighbours. The mean of all layers takes the place of the vector in encoder ``fm``;
    single weights, numbers and other categories are as there. Items of several columns (the shops of several tasks)
    are tied by the users that they have in common.

    Only training rows are in the graph, and of these also the very one that is learnt from. The run keeps it; a user or
    an item that is unknown to it is no input. It is alike for all tasks: under sharing=separate, too, it holds what was
    taken in the others.

    Args:
        spec: What the inputs are.
        shared_dim: D, the length of the vectors plus one.
        layers: How many steps vectors go along the links.
        user: The categorical column with the user.
        items: The categorical columns with what users took; all others if empty.
        init_std: Standard deviation of the vectors at the start.
        weight_scale: See encoder ``fm``.

    Shape:
        numeric (B, F), categorical (B, number of columns) -> (B, D).

    Raises:
        ConfigError: A column is not there (by ``linked``).

    Example:
        >>> import numpy as np
        >>> from mtl_cli.types import Inputs, Links
        >>> spec = InputSpec(0, (3, 4), links=(Links((0, 1), np.array([[1, 1, 2], [1, 3, 3]])),))
        >>> GraphEncoder(spec, 8, layers=2)(Inputs(torch.zeros(2, 0), torch.tensor([[1, 2], [2, 1]]))).shape
        torch.Size([2, 8])
    """

    reads_links: ClassVar[bool] = True

    def __init__(
        self,
        spec: InputSpec,
        shared_dim: int,
        *,
        layers: PositiveInt = 4,
        user: str = "user",  # noqa: ARG002  read by linked, as are the items
        items: list[str] = [],  # noqa: ARG002, B006
        init_std: Positive = 0.1,
        weight_scale: Positive = 32.0,
    ) -> None:
        super().__init__(spec, shared_dim, init_std=init_std, weight_scale=weight_scale)
        self._layers, nodes = layers, len(self.table)
        ends = [
            torch.from_numpy(codes) + self.offsets[column]
            for links in spec.links
            for column, codes in zip(links.columns, links.codes, strict=True)
        ]
        here = torch.cat([*ends, torch.empty(0, dtype=torch.int64)])
        there = torch.cat([*(end for pair in zip(ends[1::2], ends[::2], strict=True) for end in pair), here[:0]])
        order = here.argsort(stable=True)
        here, there = here[order], there[order]
        degrees = torch.bincount(here, minlength=nodes)
        # Of its own vector each node keeps the share of one layer; what is in no graph keeps the whole.
        keeps = torch.ones(nodes, 1)
        for column in {column for links in spec.links for column in links.columns}:
            keeps[self.offsets[column] : self.offsets[column] + spec.categories[column]] = 1 / (layers + 1)
        self.starts: Tensor
        self.neighbours: Tensor
        self.strengths: Tensor
        self.keeps: Tensor
        constants = {
            "starts": (degrees.cumsum(0) - degrees).int(),  # of each node's neighbours; int32 is the faster to look up
            "neighbours": there.int(),
            "strengths": (degrees[here] * degrees[there]).double().rsqrt().float(),
            "keeps": keeps,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def linked(cls, categories: Sequence[str], options: Mapping[str, Any]) -> list[tuple[str, str]]:
        user = options["user"]
        items = options["items"] or [name for name in categories if name != user]
        wanted = [("encoder.user", user), *((f"encoder.items[{i}]", name) for i, name in enumerate(items))]
        problems = [
            Problem(where, f"no input '{name}' that is a category", did_you_mean(name, categories))
            for where, name in wanted
            if name not in categories
        ]
        if user in options["items"] or not items:
            problems.append(Problem("encoder.items", f"need another categorical input than the user, '{user}'"))
        if len(set(items)) < len(items):
            problems.append(Problem("encoder.items", f"name a column twice, got {items}"))
        if problems:
            raise ConfigError(problems)
        return [(user, item) for item in items]

    def rows(self) -> Tensor:
        vectors, weights = self.table[..., :-1], self.table[..., -1:]
        wide = vectors if vectors.dim() == 2 else vectors.transpose(0, 1).flatten(1)  # copies side by side
        layer = total = wide.contiguous()
        for _ in range(self._layers):
            layer = _Neighbours.apply(layer, self.starts, self.neighbours, self.strengths)
            total = total + layer
        total = total * self.keeps
        if vectors.dim() == 3:
            total = total.unflatten(1, (len(vectors), -1)).transpose(0, 1)
        return torch.cat([total, weights], -1)


class _Neighbours(torch.autograd.Function):
    """For each node the weighted sum over its neighbours. The weights are symmetric, so that backward is the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, starts: Tensor, neighbours: Tensor, strengths: Tensor) -> Tensor:
        ctx.save_for_backward(starts, neighbours, strengths)
        return _sums(x, starts, neighbours, strengths)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _sums(gradients[0].contiguous(), *ctx.saved_tensors), None, None, None


def _sums(x: Tensor, starts: Tensor, neighbours: Tensor, strengths: Tensor) -> Tensor:
    return functional.embedding_bag(neighbours, x, starts, mode="sum", per_sample_weights=strengths)
