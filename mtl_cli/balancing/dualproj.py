"""Projection on the dual cone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing._solvers import dual_cone, nonnegative_qp
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, NonNegative, UpdateScale


@BALANCINGS.register("dualproj")
class DualProj(GramianBalancing):
    """The mean gradient, projected so that it conflicts with none (Lopez-Paz & Ranzato 2017, GEM).

    The mean is projected on the cone of the directions along which no loss rises (to first order), a small quadratic
    problem solved exactly.

    Args:
        num_tasks: K.
        norm_eps: If the squared lengths of all gradients sum to less, nothing is projected and the update is their
            mean. TorchJD has 1e-4, with which projecting ends where training begins to converge.
        reg_eps: Added to the diagonal of the Gramian, once its trace is 1: the larger, the shorter what a projection
            adds (1e-4 in TorchJD).
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), each at least 1/k: at most as long as the mean.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> DualProj(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.5563, 1.1109, 1.1109])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        norm_eps: NonNegative = 0.0,
        reg_eps: NonNegative = 0.0001,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._norm_eps, self._reg_eps = norm_eps, reg_eps

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        cone = dual_cone(gramian.numpy(), self._norm_eps, self._reg_eps)
        mean = np.full((1, len(cone)), 1 / len(cone))
        return torch.from_numpy((mean + nonnegative_qp(cone, mean @ cone))[0])
