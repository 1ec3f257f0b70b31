"""Factorization machine whose users and items know their neighbours, for recommendation from ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_cli.errors import ConfigError, Problem, did_you_mean
from mtl_cli.model.encoders.base import Encoder, stacked_copy
from mtl_cli.model.encoders.fm import FactorizationMachine
from mtl_cli.model.layers import first_rows
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Inputs, InputSpec, Positive, PositiveInt


@ENCODERS.register("graph")
class GraphEncoder(FactorizationMachine):
    """Factorization machine on vectors that go along the links of users and items (LightGCN: He et al. 2020).

    Users and items are the nodes of a graph, with an edge where a training row says that the user took the item. Layer
    0 of a node is its own vector; layer l + 1 is the sum of layer l over its neighbours, each divided by the root of
    the product of both numbers of neighbours. In the product of a user and an item the mean of all layers takes the
    place of the vectors; single weights and all other pairs are as in encoder ``fm``.

    Items of several columns (the shops of several tasks) have a graph each, and the users' own vectors in common.
    Only training rows are in a graph, and of these also the very one that is learnt from. The run keeps it; a user or
    an item that is unknown to it is no input.

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
        self._columns, sizes = [links.columns for links in spec.links], spec.categories
        self._sizes, self._starts = sizes, first_rows(sizes).tolist()
        self.graphs = nn.ModuleList(
            _Graph(links.codes, [sizes[column] for column in links.columns], layers) for links in spec.links
        )

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

    def products(self, products: Tensor, inputs: Inputs) -> Tensor:
        vectors = self.table[..., :-1]
        for (user, item), graph in zip(self._columns, self.graphs, strict=True):
            users, items = inputs.categorical[:, user], inputs.categorical[:, item]
            speaks = self.speaks[users + self._starts[user]] * self.speaks[items + self._starts[item]]
            parts = [vectors.narrow(-2, self._starts[c], self._sizes[c]) for c in (user, item)]
            own = torch.cat(parts, -2)
            # Side by side, so that one look-up finds both: what the pair is, and what it would be without the graph.
            both = torch.cat([graph(own), own], -1)
            pair = both.index_select(-2, users) * both.index_select(-2, items + self._sizes[user])
            along, plain = pair.chunk(2, -1)
            products = products + speaks * (along - plain)
        return products

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        return stacked_copy(encoders)


class _Graph(nn.Module):
    """The mean of the layers of the nodes of two columns, those of the second after those of the first.

    Args:
        codes: The links, see ``Links``.
        sizes: Categories of both columns.
        layers: Number of layers after the first.

    Shape:
        (nodes, width) -> the same; of copies (copies, nodes, width).
    """

    def __init__(self, codes: np.ndarray, sizes: Sequence[int], layers: int) -> None:
        super().__init__()
        first, second = torch.from_numpy(codes)
        here, there = torch.cat([first, second + sizes[0]]), torch.cat([second + sizes[0], first])
        order = here.argsort(stable=True)
        here, there = here[order], there[order]
        degrees = torch.bincount(here, minlength=sum(sizes))
        self._layers = layers
        self.starts: Tensor  # of the neighbours of each node; int32 is the faster to look up
        self.neighbours: Tensor
        self.strengths: Tensor
        self.register_buffer("starts", (degrees.cumsum(0) - degrees).int(), persistent=False)
        self.register_buffer("neighbours", there.int(), persistent=False)
        strengths = (degrees[here] * degrees[there]).double().rsqrt().float()
        self.register_buffer("strengths", strengths, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dim() == 2 else x.transpose(0, 1).flatten(1)  # copies side by side
        layer = total = wide.contiguous().to(self.strengths.dtype)  # not in bfloat16, however the table was made
        for _ in range(self._layers):
            layer = _Neighbours.apply(layer, self.starts, self.neighbours, self.strengths)
            total = total + layer
        mean = total / (self._layers + 1)
        return mean if x.dim() == 2 else mean.unflatten(1, (len(x), -1)).transpose(0, 1)


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
