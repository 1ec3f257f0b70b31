"""Fixed weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, NonNegativeInt, PerTask


@BALANCINGS.register("fixed")
class Fixed(LossBalancing):
    """The losses weighted by given numbers. Tuned on validation, it is the bar that other methods must pass (Xin 2022).

    Args:
        num_tasks: K.
        weights: K weights, at least 0, in task order; in a configuration a mapping from task names, where a task that
            is not named has weight 1. Empty: all 1.
        draw: 0 for ``weights``; n for the n-th of an endless list of random weights, positive, with sum K, all such
            weights being equally likely. The list is the same for every seed: a random search is a sweep over n.

    Raises:
        ConfigError: Not K weights, or ``weights`` and ``draw`` both.

    Shape:
        losses (k,) -> weights (k,).

    Example:
        >>> Fixed(2, weights=[1.0, 0.5]).weights(torch.tensor([1.0, 4.0]), torch.arange(2))
        tensor([1.0000, 0.5000])
    """

    linear: ClassVar[bool] = True

    def __init__(self, num_tasks: int, *, weights: PerTask | list[NonNegative] = [], draw: NonNegativeInt = 0) -> None:  # noqa: B006
        super().__init__()
        values = list(weights) or [1.0] * num_tasks
        if isinstance(weights, dict) or len(values) != num_tasks:
            raise ConfigError(Problem("balancing.fixed.weights", f"must be {num_tasks} numbers, got {weights}"))
        if draw and any(value != 1.0 for value in values):  # 1 each is what a configuration without weights becomes
            what = f"gives weights of its own, got {draw} and weights {list(weights)}"
            raise ConfigError(Problem("balancing.draw", what, "Set one of them."))
        self.values: Tensor
        self.register_buffer("values", _drawn(num_tasks, draw) if draw else torch.tensor(values))

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return self.values[tasks]


def _drawn(num_tasks: int, number: int) -> Tensor:
    """Uniform on the simplex, times K: exponential numbers divided by their mean."""
    uniform = torch.rand(num_tasks, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    sizes = -torch.log1p(-uniform) + 1e-9
    return (sizes / sizes.mean()).float()
