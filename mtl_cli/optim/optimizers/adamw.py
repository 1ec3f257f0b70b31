"""AdamW."""

from __future__ import annotations

import torch

from mtl_cli.optim.flat import FlatParameters
from mtl_cli.optim.optimizers._adam import AdamBase
from mtl_cli.registry import OPTIMIZERS
from mtl_cli.types import NonNegative, Positive, ProperFraction


@OPTIMIZERS.register("adamw")
class AdamW(AdamBase):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); equal to ``torch.optim.AdamW(fused=True)``.

    Args:
        flat: The parameters.
        lr: Learning rate.
        beta1: Decay of the mean of the gradients.
        beta2: Decay of the mean of their squares.
        eps: Added to the root of the squares.
        weight_decay: Share of each weight taken off per step, times the learning rate.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = AdamW(FlatParameters([(weight, None, 0, 1)]), lr=0.1, weight_decay=0.0)
        >>> weight.grad.fill_(2.0)
        tensor([2.])
        >>> optimizer.step(1.0); weight.data
        tensor([0.9000])
    """

    kernel = staticmethod(torch._fused_adamw_)

    def __init__(
        self,
        flat: FlatParameters,
        *,
        lr: Positive = 1e-3,
        beta1: ProperFraction = 0.9,
        beta2: ProperFraction = 0.999,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(flat, lr, (beta1, beta2), eps, weight_decay)
