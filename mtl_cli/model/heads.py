"""Heads: features to outputs per task, computed together.

The heads of tasks that are alike are rows of one matrix, so that 50 tasks cost about what one does. Outputs are
kept as (outputs, B): softmax over classes then runs along contiguous rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mtl_cli.model.backward import no_graph
from mtl_cli.model.layers import Linear
from mtl_cli.model.ownership import Ownership, stacked


class HeadSpec(NamedTuple):
    """The head of one task: its number of outputs C, and the widths of its hidden layers (none: a linear head)."""

    outputs: int
    hidden: tuple[int, ...] = ()


class Heads(nn.Module):
    """All heads of a model. Neighbouring tasks with equal ``hidden`` are computed together.

    Args:
        feature_dim: D.
        specs: K heads, in task order.

    Shape:
        features (B, D) or (K, B, D) -> (O, B), the outputs of all tasks below one another, O = sum of C. Features
        (B, D) that were expanded to (K, B, D) cost what (B, D) cost, and get a gradient for each task. Linear heads
        whose parameters are those of R models on axis 0: (R, B, D) -> (R, O, B).

    Example:
        >>> heads = Heads(8, [HeadSpec(1), HeadSpec(3)])
        >>> outputs = heads(torch.zeros(5, 8))
        >>> outputs.shape, [o.shape for o in heads.split(outputs)]
        (torch.Size([4, 5]), [torch.Size([5, 1]), torch.Size([5, 3])])
    """

    def __init__(self, feature_dim: int, specs: Sequence[HeadSpec]) -> None:
        super().__init__()
        self.output_dims = [spec.outputs for spec in specs]
        runs = [list(run) for _, run in groupby(enumerate(specs), key=lambda pair: pair[1].hidden)]
        self.blocks = nn.ModuleList(_Block(feature_dim, run) for run in runs)

    def forward(self, features: Tensor) -> Tensor:
        if len(self.blocks) == 1:
            outputs: Tensor = self.blocks[0](features)
            return outputs
        own = features.dim() == 3  # a slice of features for each task
        parts = (features[block.tasks[0] : block.tasks[-1] + 1] if own else features for block in self._typed_blocks())
        return torch.cat([block(part) for block, part in zip(self.blocks, parts, strict=True)])

    def with_backward(self, features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Outputs without a graph, and a function from the gradient by them to that by the features.

        The function adds to ``parameter.grad``, each time that it is called.
        """
        written_out = self._written_out()
        if written_out is not None:
            return written_out.linear_with_backward(features)
        leaf = features.detach().requires_grad_()
        outputs: Tensor = self(leaf)

        def backward(gradient: Tensor) -> Tensor:
            leaf.grad = None
            torch.autograd.backward(outputs, gradient, retain_graph=True)  # a method may look before it goes back
            if leaf.grad is None:
                raise RuntimeError("the heads do not depend on the features")
            return leaf.grad

        return outputs.detach(), backward

    @property
    def written_out(self) -> bool:
        """Whether the backward pass is written out: no head has a hidden layer, and all are trained."""
        return self._written_out() is not None

    def split(self, outputs: Tensor) -> list[Tensor]:
        """Outputs (O, B) as a list of K tensors (B, C)."""
        return [part.t() for part in outputs.split(self.output_dims)]

    def owners(self) -> list[Ownership]:
        """Each task owns its rows."""
        return [owned for block in self._typed_blocks() for owned in block.owners()]

    def _written_out(self) -> _Block | None:
        """The one block of heads whose backward pass is written out."""
        only = self._only
        return only if only is not None and only.weight.requires_grad and only.bias.requires_grad else None

    @cached_property
    def _only(self) -> _Block | None:
        """The block, if there is one alone and it has no hidden layers."""
        first, *others = self._typed_blocks()
        return first if not others and not len(first.hidden) else None

    def _typed_blocks(self) -> list[_Block]:
        return [block for block in self.blocks if isinstance(block, _Block)]


class ProductHeads(nn.Module):
    """Heads of K tasks, some of which are products: their probability is that of other binary tasks multiplied.

    A product has no head and reads no features. Its output is the log-odds of the product of the probabilities whose
    log-odds the heads of its factors put out, so that everything that reads outputs treats it as any binary task.

    Args:
        heads: Heads of the tasks that are no products, in task order.
        products: Positions of the factors of each product, by its own position; factors are no products.

    Shape:
        As ``Heads``, with K features for the tasks that have a head, and outputs of all tasks.
    """

    def __init__(self, heads: Heads, products: Mapping[int, Sequence[int]]) -> None:
        super().__init__()
        self.heads = heads
        tasks = range(len(heads.output_dims) + len(products))
        own = iter(heads.output_dims)
        self.output_dims = [1 if task in products else next(own) for task in tasks]
        with_head = [task for task in tasks if task not in products]
        starts = dict(zip(with_head, [0, *torch.tensor(heads.output_dims).cumsum(0).tolist()], strict=False))
        # Of each task the rows of the heads' outputs: its own, or those of its factors.
        self._rows = [
            [starts[factor] for factor in products[task]] if task in products else slice(starts[task], starts[task] + n)
            for task, n in enumerate(self.output_dims)
        ]

    def forward(self, features: Tensor) -> Tensor:
        return self._with_products(self.heads(features))

    def with_backward(self, features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """See ``Heads.with_backward``."""
        given, into_heads = self.heads.with_backward(features)
        leaf = given.requires_grad_()
        outputs = self._with_products(leaf)

        def backward(gradient: Tensor) -> Tensor:
            return into_heads(torch.autograd.grad(outputs, leaf, gradient, retain_graph=True)[0])

        return outputs.detach(), backward

    def split(self, outputs: Tensor) -> list[Tensor]:
        """Outputs (O, B) as a list of K tensors (B, C)."""
        return [part.t() for part in outputs.split(self.output_dims)]

    def owners(self) -> list[Ownership]:
        """Each task with a head owns its rows; positions are among these tasks."""
        return self.heads.owners()

    def _with_products(self, outputs: Tensor) -> Tensor:
        return torch.cat(
            [outputs[r] if isinstance(r, slice) else log_odds_of_product(outputs[r]).unsqueeze(0) for r in self._rows]
        )


def log_odds_of_product(log_odds: Tensor) -> Tensor:
    """Log-odds of the product of probabilities (axis 0) that are given by their log-odds.

    With p = s(a) s(b) and s the logistic function, 1 / p = (1 + exp(-a)) (1 + exp(-b)), so that the log-odds of p,
    -log(1 / p - 1), are -log(exp(-a) + exp(-b) + exp(-a - b)): exact where p rounds to 0 or 1 as well.

    Example:
        >>> log_odds_of_product(torch.tensor([0.0, 0.0])).sigmoid()
        tensor(0.2500)
        >>> log_odds_of_product(torch.tensor([-100.0, 200.0]))
        tensor(-100.)
    """
    product, *others = log_odds.unbind(0)
    for other in others:
        product = -torch.stack([-product, -other, -product - other]).logsumexp(0)
    return product


class _Run(NamedTuple):
    """Neighbours with as many outputs, computed as one batched product."""

    tasks: slice  # of the block's features
    rows: slice  # of the block's outputs
    shape: tuple[int, int]  # (tasks, C)


def _runs(outputs: Sequence[int]) -> list[_Run]:
    found, task, row = [], 0, 0
    for size, run in groupby(outputs):
        tasks = len(list(run))
        found.append(_Run(slice(task, task + tasks), slice(row, row + tasks * size), (tasks, size)))
        task, row = task + tasks, row + tasks * size
    return found


class _SameFeatures(torch.autograd.Function):
    """Linear heads on the same features for all tasks: one product forward, a gradient for each task backward."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, runs: list[_Run]) -> Tensor:
        ctx.save_for_backward(features[0], weight)
        ctx.runs = runs
        return torch.addmm(bias.unsqueeze(1), weight, features[0].t())

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (gradient,) = upstream
        features, weight = (tensor.to(gradient.dtype) for tensor in ctx.saved_tensors)
        per_task = gradient.new_empty(ctx.runs[-1].tasks.stop, *features.shape)
        for tasks, rows, shape in ctx.runs:
            left, right = gradient[rows].view(*shape, -1).transpose(1, 2), weight[rows].view(*shape, -1)
            torch.bmm(left, right, out=per_task[tasks])
        return per_task, gradient @ features, gradient.sum(1), None


class _Block(nn.Module):
    """The heads of neighbouring tasks with equal hidden layers."""

    def __init__(self, feature_dim: int, heads: Sequence[tuple[int, HeadSpec]]) -> None:
        super().__init__()
        self.tasks = [task for task, _ in heads]
        self._outputs = [spec.outputs for _, spec in heads]
        self._runs = _runs(self._outputs)
        hidden = heads[0][1].hidden
        widths = [feature_dim, *hidden]
        self.hidden = nn.ModuleList(Linear(a, b, len(heads)) for a, b in pairwise(widths))
        bound = 1 / math.sqrt(widths[-1])  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(sum(self._outputs), widths[-1]).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(sum(self._outputs)).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.hidden:
            features = torch.relu(layer(features))
        return self._linear(features, self.weight, self.bias)

    def linear_with_backward(self, features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        weight, bias = self.weight, self.bias
        by_weight, by_bias = weight.grad, bias.grad
        if by_weight is None or by_bias is None:
            raise RuntimeError("parameters must have grad")

        def backward(gradient: Tensor) -> Tensor:
            with no_graph():
                by_bias.add_(gradient.sum(-1))
                if weight.dim() == 3:
                    by_weight.baddbmm_(gradient, features)
                    return torch.bmm(gradient.transpose(1, 2), weight)
                if features.dim() == 2:
                    by_weight.addmm_(gradient, features)
                    return gradient.t() @ weight
                same = features.stride(0) == 0  # (B, D) expanded: one product for all
                if same:
                    by_weight.addmm_(gradient, features[0])
                # In the order in which the features lie in memory: what made them so reads it so.
                order = torch.contiguous_format if same else torch.preserve_format
                by_features = torch.empty_like(features, memory_format=order)
                for tasks, rows, shape in self._runs:
                    part = gradient[rows].view(*shape, -1)
                    if not same:
                        by_weight[rows].view(*shape, -1).baddbmm_(part, features[tasks])
                    torch.bmm(part.transpose(1, 2), weight[rows].view(*shape, -1), out=by_features[tasks])
                return by_features

        with no_graph():
            return self._linear(features, weight, bias), backward

    def _linear(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if weight.dim() == 3:  # of several models
            return torch.baddbmm(bias.unsqueeze(2), weight, features.transpose(1, 2))
        if features.dim() == 2:  # the same features for all: one product
            return torch.addmm(bias.unsqueeze(1), weight, features.t())
        if features.stride(0) == 0:
            outputs: Tensor = _SameFeatures.apply(features, weight, bias, self._runs)
            return outputs
        parts = [
            torch.bmm(weight[rows].view(*shape, -1), features[tasks].transpose(1, 2)).flatten(0, 1)
            for tasks, rows, shape in self._runs
        ]
        return (torch.cat(parts) if len(parts) > 1 else parts[0]) + bias.unsqueeze(1)

    def owners(self) -> list[Ownership]:
        owned = stacked(self.hidden.parameters(), self.tasks)
        stops = torch.tensor(self._outputs).cumsum(0).tolist()
        for parameter in (self.weight, self.bias):
            owned += [
                Ownership(parameter, task, stop - outputs, stop)
                for task, outputs, stop in zip(self.tasks, self._outputs, stops, strict=True)
            ]
        return owned
