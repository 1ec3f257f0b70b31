"""The two forms of Adam share everything but how weight decay enters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_cli.optim.base import Optimizer
from mtl_cli.optim.flat import FlatParameters


class AdamBase(Optimizer):
    """Moments and fused kernel of Adam; ``kernel`` says which form."""

    kernel: Callable[..., Any]

    def __init__(
        self, flat: FlatParameters, lr: float, betas: Sequence[float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(flat, lr, ("exp_avg", "exp_avg_sq"))
        self._betas, self._eps, self._weight_decay = betas, eps, weight_decay

    def update(self, views: Sequence[Sequence[Tensor]], counts: Sequence[int], lr: float) -> None:
        values, gradients, means, squares = map(list, zip(*views, strict=True))
        steps = {count: torch.full((), float(count), device=values[0].device) for count in set(counts)}
        type(self).kernel(
            values, gradients, means, squares, [], [steps[count] for count in counts],
            lr=lr, beta1=self._betas[0], beta2=self._betas[1], eps=self._eps, weight_decay=self._weight_decay,
            amsgrad=False, maximize=False,
        )  # fmt: skip
