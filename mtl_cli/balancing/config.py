"""ConFIG, a method of balancing (not a configuration): conflict-free inverse gradients."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._solvers import cosines, equal_projections
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, UpdateScale


@BALANCINGS.register("config")
class ConFIG(GramianBalancing):
    """The direction with the same positive cosine to all gradients (Liu et al. 2024, ConFIG).

    Its length is the sum of the gradients' projections on it. Where the gradients are linearly dependent the cosines
    are as equal as can be, in the sense of least squares.

    Args:
        num_tasks: K.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,); the update is as long as a sum.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> ConFIG(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.1588, 2.0706, 2.0706])
    """

    needs_shared: ClassVar[bool] = True
    heeds_weights: ClassVar[bool] = False

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        between, lengths = cosines(gramian.numpy())
        weights = equal_projections(between)  # of the unit gradients
        projections = between @ weights
        square = weights @ projections
        if square <= 0:  # two opposed gradients: there is no such direction
            return torch.zeros(len(weights), dtype=torch.float64)
        return torch.from_numpy(weights / lengths * (lengths @ projections) / square)
