"""Fair resource allocation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._solvers import fair_weights
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, Positive, UpdateScale


@BALANCINGS.register("fairgrad")
class FairGrad(GramianBalancing):
    """The alpha-fair update: weights x > 0 with (M x)_i = x_i^(-1/alpha) for the Gramian M (Ban & Ji 2024, FairGrad).

    alpha near 0 is the sum, projected so that it conflicts with no gradient (k times ``dualproj``), 1 has the direction
    of Nash-MTL, and the larger it is, the more goes to the task whose loss falls least. Solved by Newton's method on
    the convex function behind the equation, not by least squares. Where gradients cancel and there is no solution, a
    tiny ridge decides.

    Args:
        num_tasks: K.
        alpha: Fairness, above 0 (1 is the default of the authors' code, 2 what all their runs use).
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), positive. Gradients s times as long make the update s^((1 - alpha) / (1 +
        alpha)) times as long: longer if alpha < 1, shorter if alpha > 1; with alpha 1 it is always sqrt(k) long.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> FairGrad(2, alpha=1.0).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.0766, 0.9985, 0.9985])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        alpha: Positive = 2.0,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._alpha = alpha

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return torch.from_numpy(fair_weights(gramian.numpy(), self._alpha))
