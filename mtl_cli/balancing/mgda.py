"""Multiple gradient descent."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtl_cli.balancing._solvers import min_norm_point
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, UpdateScale


@BALANCINGS.register("mgda")
class MGDA(GramianBalancing):
    """The shortest convex combination of the gradients, which no task objects to (Désidéri 2012; Sener & Koltun 2018).

    The weights are exact, not those of some steps of Frank-Wolfe. Small gradients get the most weight: where tasks
    differ in the size of their gradients, the update is at most as long as the shortest. With ``normalization`` the
    gradients are divided first, and the update combines the divided ones, so that it stays one that no task objects to
    (as LibMTL does it; the code of Sener & Koltun gives these weights to the undivided gradients).

    Args:
        num_tasks: K.
        normalization: What each gradient is divided by: ``none``, ``l2``: its length, ``loss``: the size of the task's
            loss, ``loss+``: both.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), not negative; without normalization their sum is 1: at most as long as the mean.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> MGDA(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[1]
        tensor([0.6000, 0.4000])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        normalization: Literal["none", "l2", "loss", "loss+"] = "none",
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._normalization = normalization

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        divisor = torch.ones(len(gramian), dtype=torch.float64)
        if self._normalization in ("l2", "loss+"):
            divisor = gramian.diagonal().sqrt()
        if self._normalization in ("loss", "loss+"):
            sizes = losses.abs().cpu().double()
            divisor = divisor * torch.where(sizes > 0, sizes, 1.0)
        weights = min_norm_point((gramian / divisor.outer(divisor)).numpy())
        return torch.from_numpy(weights) / divisor
