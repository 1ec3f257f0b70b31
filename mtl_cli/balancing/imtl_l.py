"""Impartial learning of the losses' scales."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Finite


@BALANCINGS.register("imtl_l")
class IMTLL(LossBalancing):
    """Learnt scales that bring all losses to one size: sum of exp(s_k) L_k - s_k (IMTL-L, Liu et al. 2021).

    s_k is learnt with the model's optimizer and never decayed; at a fixed loss its optimum is exp(s_k) = 1 / L_k. It is
    ``uncertainty`` with twice the weight and -s. The total may become negative; what is monitored are the raw losses.

    Args:
        num_tasks: K.
        initial: s_k at the start; 0 gives every loss the weight 1.

    Shape:
        losses (k,) -> weights (k,), positive.

    Example:
        >>> IMTLL(2).weights(torch.tensor([1.0, 4.0]), torch.arange(2)).detach()
        tensor([1., 1.])
    """

    linear: ClassVar[bool] = True

    def __init__(self, num_tasks: int, *, initial: Finite = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((num_tasks,), float(initial)))

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return torch.exp(self.log_scale[tasks])

    def penalty(self, tasks: Tensor) -> Tensor | None:
        return -self.log_scale[tasks].sum()
