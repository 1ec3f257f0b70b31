"""Fast adaptive multitask optimization."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._adam import TaskAdam
from mtl_cli.balancing._positive import PositiveLossBalancing
from mtl_cli.balancing.base import Passes
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, Positive

EPSILON = 1e-8


@BALANCINGS.register("famo")
class FAMO(PositiveLossBalancing):
    """Lets all losses fall at the same relative rate, by losses alone: FAMO (Liu et al. 2023).

    With z = softmax(logits) and c = sum of z_k / L_k, the update is that of sum of z_k log L_k / c: a convex
    combination of the tasks' gradients. After the update the losses of the same batch are computed again (a forward
    pass more), and an Adam of the method's own lowers the logits of tasks that have improved much. The losses are
    assumed to be at least 0; a task whose loss is 0 takes nearly all the weight, as the formula has it. A negative
    loss is refused.

    Args:
        num_tasks: K.
        lr: Learning rate of the logits.
        weight_decay: Decay of the logits; pulls towards equal z.

    Shape:
        losses (k,) -> weights (k,), positive, with sum 1.

    Example:
        >>> FAMO(2).weights(torch.tensor([1.0, 4.0]), torch.arange(2))
        tensor([0.8000, 0.2000])
    """

    extra_passes: ClassVar[bool] = True
    heeds_weights: ClassVar[bool] = False

    def __init__(self, num_tasks: int, *, lr: Positive = 0.025, weight_decay: NonNegative = 0.001) -> None:
        super().__init__()
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(num_tasks))
        self.adam = TaskAdam(num_tasks, lr, weight_decay)

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        share = torch.softmax(self.logits[tasks], 0) / (losses.clamp_min(0) + EPSILON)
        return share / share.sum()

    def after_step(self, passes: Passes, losses: Tensor, tasks: Tensor) -> None:
        before, after = ((values.clamp_min(0) + EPSILON).log() for values in (losses, passes.losses()))
        improved, z = before - after, torch.softmax(self.logits[tasks], 0)
        improved = torch.where(improved.isfinite(), improved, 0.0)  # a loss that is not must not spoil the logits
        self.adam.step(self.logits, z * (improved - z @ improved), tasks)
