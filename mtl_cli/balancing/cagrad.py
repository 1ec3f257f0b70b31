"""Conflict-averse gradient descent."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._solvers import around_the_mean, conflict_averse_point
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, NonNegative, UpdateScale


@BALANCINGS.register("cagrad")
class CAGrad(GramianBalancing):
    """The update near the mean gradient that is best for the task it is worst for (Liu et al. 2021, CAGrad).

    d = g_0 + c |g_0| g_w / |g_w|, with g_0 the mean gradient, g_w = sum of w_i g_i, and w in the simplex minimising g_w
    . g_0 + c |g_0| |g_w|. c = 0 is the mean gradient; a large c goes the way of MGDA. Where no common descent is left
    (g_w = 0), the update is 0. The authors' code then divides by 1 + c^2 and multiplies by K, TorchJD does neither, nor
    does this: that is what ``normalize_to`` is for.

    Args:
        num_tasks: K.
        c: Distance from the mean gradient, in its lengths, at least 0 (0.5 in LibMTL; in the paper 0.4 on NYUv2).
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), not negative; the update is 1 - c to 1 + c times as long as the mean.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> CAGrad(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.1835, 1.2041, 1.2041])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        c: NonNegative = 0.5,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._c = c

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        products = gramian.numpy()
        radius = self._c * math.sqrt(max(products.mean(), 0.0))
        return torch.from_numpy(around_the_mean(products, conflict_averse_point(products, radius), radius))
