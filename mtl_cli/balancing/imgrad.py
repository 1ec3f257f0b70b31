"""Imbalance-sensitive gradient descent."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._solvers import around_the_mean, conflict_averse_point, min_norm_point
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, NonNegative, UpdateScale


@BALANCINGS.register("imgrad")
class IMGrad(GramianBalancing):
    """CAGrad that heeds the worst task more, the less the mean gradient serves all (Zhou et al. 2025, IMGrad).

    With s the cosine between the mean gradient g_0 and the shortest convex combination (the update of MGDA), w in the
    simplex minimises (1.5 - s) g_w . g_0 + s c |g_0| |g_w|, and the update is g_0 + c |g_0| g_w / |g_w|: the extension
    of CAGrad, as in the authors' code (without its division by 1 + c^2). At s = 0.75 it is CAGrad.

    Args:
        num_tasks: K.
        c: Distance from the mean gradient, in its lengths, at least 0 (0.8 in the authors' runs).
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), not negative; the update is 1 - c to 1 + c times as long as the mean.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> IMGrad(2, c=0.5).aggregate(jacobian, torch.ones(2), torch.arange(2))[1]
        tensor([0.7041, 0.5000])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        c: NonNegative = 0.8,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._c = c

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        products = gramian.numpy()
        length = math.sqrt(max(products.mean(), 0.0))
        shortest = min_norm_point(products)
        shortest_length = math.sqrt(max(shortest @ products @ shortest, 0.0))
        similar = 0.0
        if length > 0 and shortest_length > 0:
            similar = min(max(shortest @ products.mean(1) / (length * shortest_length), 0.0), 1.0)
        radius = self._c * length
        point = conflict_averse_point(products, radius * similar / (1.5 - similar))
        return torch.from_numpy(around_the_mean(products, point, radius))
