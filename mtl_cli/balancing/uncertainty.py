"""Uncertainty weighting."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Finite


@BALANCINGS.register("uncertainty")
class Uncertainty(LossBalancing):
    """Learnt weights from each task's noise: sum of 0.5 exp(-s_k) L_k + 0.5 s_k (Kendall et al. 2018).

    s_k, the log-variance of task k, is learnt with the model's optimizer and never decayed; at a fixed loss its
    optimum is log L_k. The total may become negative; what is monitored and printed are the raw losses. The paper
    has no factor 0.5 on classification losses; like most implementations this one treats all losses alike.

    Args:
        num_tasks: K.
        initial: s_k at the start; 0 gives every loss the weight 0.5 (LibMTL starts at -0.5).

    Shape:
        losses (k,) -> weights (k,), positive.

    Example:
        >>> Uncertainty(2).weights(torch.tensor([1.0, 4.0]), torch.arange(2)).detach()
        tensor([0.5000, 0.5000])
    """

    linear: ClassVar[bool] = True

    def __init__(self, num_tasks: int, *, initial: Finite = 0.0) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.full((num_tasks,), float(initial)))

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return 0.5 * torch.exp(-self.log_variance[tasks])

    def penalty(self, tasks: Tensor) -> Tensor | None:
        return 0.5 * self.log_variance[tasks].sum()
