"""Adam."""

from __future__ import annotations

import torch

from mtl_cli.optim.flat import FlatParameters
from mtl_cli.optim.optimizers._adam import AdamBase
from mtl_cli.registry import OPTIMIZERS
from mtl_cli.types import NonNegative, Positive, ProperFraction


@OPTIMIZERS.register("adam")
class Adam(AdamBase):
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient. Equal to ``torch.optim.Adam(fused=True)``.

    Args:
        flat: The parameters.
        lr: Learning rate.
        beta1: Decay of the mean of the gradients.
        beta2: Decay of the mean of their squares.
        eps: Added to the root of the squares.
        weight_decay: Times the weights, added to the gradient.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = Adam(FlatParameters([(weight, None, 0, 1)]), lr=0.1)
        >>> weight.grad.fill_(2.0)
        tensor([2.])
        >>> optimizer.step(1.0); weight.data
        tensor([0.9000])
    """

    kernel = staticmethod(torch._fused_adam_)

    def __init__(
        self,
        flat: FlatParameters,
        *,
        lr: Positive = 1e-3,
        beta1: ProperFraction = 0.9,
        beta2: ProperFraction = 0.999,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(flat, lr, (beta1, beta2), eps, weight_decay)
