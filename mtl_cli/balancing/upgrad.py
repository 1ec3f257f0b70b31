"""Unconflicting projection of gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing._solvers import dual_cone, nonnegative_qp
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, NonNegative, UpdateScale


@BALANCINGS.register("upgrad")
class UPGrad(GramianBalancing):
    """The mean of all gradients, each projected so that it conflicts with none (Quinton & Rey 2024, UPGrad).

    Each gradient is projected on the cone of the directions along which no loss rises (to first order), a small
    quadratic problem solved exactly, for all tasks at once.

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
        gramian (k, k) -> weights (k,), each at least 1/k: the update is of the order of the mean; mostly longer where
        gradients of like length conflict.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> UPGrad(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.2929, 1.9004, 1.9004])
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
        unit = np.eye(len(cone)) / len(cone)
        return torch.from_numpy((unit + nonnegative_qp(cone, unit @ cone)).sum(0))
