"""Weights by estimates of how far each task is from its optimum."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Positive

EPSILON = 1e-7


@BALANCINGS.register("excess_mtl")
class ExcessMTL(LossBalancing):
    """More weight for tasks far from their own optimum, whatever their noise: ExcessMTL (He et al. 2024).

    With g_k the gradient on the shared parameters and S_k the sum of all its squares so far, the excess risk is about
    e_k = sum of g_k^2 / sqrt(S_k). In each step w_k is multiplied by exp(step_size e_k / first e_k), and all are
    brought to the sum they had; they start at 1. A task's first step with a gradient gives its first e_k and leaves its
    weight.

    S is as large as the shared parameters for each task: K x P numbers, in the checkpoint too.

    Args:
        num_tasks: K.
        step_size: Of the weights.

    Shape:
        losses (k,) -> weights (k,), positive, with sum k.

    Example:
        >>> method = ExcessMTL(2, step_size=1.0)
        >>> for gradients in ([[1.0], [1.0]], [[1.0], [0.0]]):
        ...     method.observe(torch.tensor(gradients), torch.ones(2), torch.arange(2))
        >>> method.weights(torch.ones(2), torch.arange(2))
        tensor([1.3395, 0.6605])
    """

    needs_shared: ClassVar[bool] = True
    observes: ClassVar[Literal["nothing", "last layer", "shared"]] = "shared"

    def __init__(self, num_tasks: int, *, step_size: Positive = 0.01) -> None:
        super().__init__()
        self.step_size = step_size
        self.log_weights: Tensor
        self.first: Tensor
        self.squares: Tensor
        self.register_buffer("log_weights", torch.zeros(num_tasks))
        self.register_buffer("first", torch.full((num_tasks,), torch.nan))
        self.register_buffer("squares", torch.zeros(num_tasks, 0))  # (K, P) with the first gradients

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        return len(losses) * torch.softmax(self.log_weights[tasks], 0)

    def observe(self, gradients: Tensor, losses: Tensor, tasks: Tensor) -> None:  # noqa: ARG002
        if self.squares.shape[1] == 0:
            self.squares = gradients.new_zeros(len(self.first), gradients.shape[1])
        squares = gradients.square()
        total = self.squares[tasks] + squares
        self.squares[tasks] = total
        excess = (squares * (total + EPSILON).rsqrt()).sum(1)
        first = self.first[tasks]
        relative = torch.where(first.isnan(), 0.0, excess / (first + EPSILON))
        self.first[tasks] = torch.where(first.isnan() & (excess > 0), excess, first)
        old = self.log_weights[tasks]
        new = old + self.step_size * relative
        self.log_weights[tasks] = new + torch.logsumexp(old, 0) - torch.logsumexp(new, 0)
