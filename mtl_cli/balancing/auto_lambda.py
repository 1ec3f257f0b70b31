"""Weights that lower the validation loss of the tasks one cares for."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._adam import TaskAdam
from mtl_cli.balancing.base import LossBalancing, Passes
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Finite, NonNegativeInt, Positive, TaskList


@BALANCINGS.register("auto_lambda")
class AutoLambda(LossBalancing):
    """Learns the weights by which training lowers the primary tasks' validation loss: Auto-lambda (Liu et al. 2022).

    Each step first looks ahead: one plain gradient step of the weighted losses, then the gradient d of the primary
    tasks' loss on validation rows there. By finite differences of size 0.01 along d, d L_val / d w_k is about
    -lr (L_k(theta + eps d) - L_k(theta - eps d)) / (2 eps) with eps = 0.01 / |d|, and an Adam of the method's own
    lowers it. The tasks that are not primary are auxiliary: they count as far as they help. A weight may become
    negative.

    It costs two forward and backward passes and two forward passes more per step. The validation rows then have taught
    the weights; the test rows have not.

    Args:
        num_tasks: K.
        primary: Names of the tasks to care for, in a constructor call their positions; empty: all.
        initial: Every weight at the start.
        lr: Learning rate of the weights.

    Raises:
        ConfigError: A position is not below K.

    Shape:
        losses (k,) -> weights (k,).

    Example:
        >>> AutoLambda(2, primary=[0]).weights(torch.ones(2), torch.arange(2))
        tensor([0.1000, 0.1000])
    """

    linear: ClassVar[bool] = True
    extra_passes: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,
        *,
        primary: TaskList | list[NonNegativeInt] = [],  # noqa: B006
        initial: Finite = 0.1,
        lr: Positive = 0.0001,
    ) -> None:
        super().__init__()
        wrong = [task for task in primary if not isinstance(task, int) or task >= num_tasks]
        if wrong:
            what = f"must be positions below {num_tasks}, got {wrong}"
            raise ConfigError(Problem("balancing.auto_lambda.primary", what))
        self._primary = [task in primary or not primary for task in range(num_tasks)]
        self.values: Tensor
        self.register_buffer("values", torch.full((num_tasks,), float(initial)))
        self.adam = TaskAdam(num_tasks, lr)

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return self.values[tasks]

    def before_step(self, passes: Passes, tasks: Tensor) -> None:
        theta = passes.parameters.clone()
        passes.parameters -= passes.lr * passes.gradient(self.values[tasks])
        direction = passes.validation_gradient(self.values.new_tensor(self._primary))
        norm = direction.norm()
        unit = torch.where(norm > 0, direction / norm, 0.0)
        around = []
        for sign in (0.01, -0.01):
            passes.parameters.copy_(theta + sign * unit)
            around.append(passes.losses())
        passes.parameters.copy_(theta)
        slope = -passes.lr * norm * (around[0] - around[1]) / 0.02
        self.adam.step(self.values, slope, tasks)
