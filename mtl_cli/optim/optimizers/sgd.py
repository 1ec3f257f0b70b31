"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_cli.optim.base import Optimizer
from mtl_cli.optim.flat import FlatParameters
from mtl_cli.registry import OPTIMIZERS
from mtl_cli.types import NonNegative, Positive, ProperFraction


@OPTIMIZERS.register("sgd")
class SGD(Optimizer):
    """Gradient descent, with momentum if asked; equal to ``torch.optim.SGD(fused=True)``.

    Args:
        flat: The parameters.
        lr: Learning rate.
        momentum: Share of the last update that is kept; 0 is plain descent.
        nesterov: Look ahead by the momentum (Sutskever et al. 2013); has no effect without it.
        weight_decay: Times the weights, added to the gradient.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = SGD(FlatParameters([(weight, None, 0, 1)]), lr=0.1)
        >>> weight.grad.fill_(2.0)
        tensor([2.])
        >>> optimizer.step(1.0); weight.data
        tensor([0.8000])
    """

    def __init__(
        self,
        flat: FlatParameters,
        *,
        lr: Positive = 0.1,
        momentum: ProperFraction = 0.0,
        nesterov: bool = False,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(flat, lr, ("momentum",) if momentum else ())
        self._momentum, self._nesterov, self._weight_decay = momentum, nesterov and momentum > 0, weight_decay

    def update(self, views: Sequence[Sequence[Tensor]], counts: Sequence[int], lr: float) -> None:  # noqa: ARG002
        values, gradients, *momenta = (list(vectors) for vectors in zip(*views, strict=True))
        # The buffer starts at 0, so that the first update needs no case of its own (dampening is 0).
        torch._fused_sgd_(
            values, gradients, momenta[0] if momenta else [], weight_decay=self._weight_decay, momentum=self._momentum,
            lr=lr, dampening=0.0, nesterov=self._nesterov, maximize=False, is_first_step=False,
        )  # fmt: skip
