"""Fixed weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, PerTask


@BALANCINGS.register("fixed")
class Fixed(LossBalancing):
    """The losses weighted by given numbers. Tuned on validation, it is the bar that other methods must pass (Xin 2022).

    Args:
        num_tasks: K.
        weights: K weights, at least 0, in task order; in a configuration a mapping from task names, where a task that
            is not named has weight 1. Empty: all 1.

    Raises:
        ConfigError: Not K weights.

    Shape:
        losses (k,) -> weights (k,).

    Example:
        >>> Fixed(2, weights=[1.0, 0.5]).weights(torch.tensor([1.0, 4.0]), torch.arange(2))
        tensor([1.0000, 0.5000])
    """

    linear: ClassVar[bool] = True

    def __init__(self, num_tasks: int, *, weights: PerTask | list[NonNegative] = []) -> None:  # noqa: B006
        super().__init__()
        values = list(weights) or [1.0] * num_tasks
        if isinstance(weights, dict) or len(values) != num_tasks:
            raise ConfigError(Problem("balancing.fixed.weights", f"must be {num_tasks} numbers, got {weights}"))
        self.values: Tensor
        self.register_buffer("values", torch.tensor(values))

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return self.values[tasks]
