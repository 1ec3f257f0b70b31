"""Impartial multi-task learning, on gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing._solvers import cosines, equal_projections
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, UpdateScale


@BALANCINGS.register("imtl_g")
class IMTLG(GramianBalancing):
    """An update with equal projections on all gradients (Liu et al. 2021, 'Towards Impartial Multi-task Learning').

    The weights sum to 1 and may be negative. With three or more tasks whose gradients differ in length the equal
    projections themselves may be negative: by the paper's formula such a step goes up for all tasks. Where the
    gradients are linearly dependent the projections are as equal as can be, in the sense of least squares, and where
    they allow no such update at all (two opposed gradients) it is 0.

    Args:
        num_tasks: K.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,) with sum 1: about as long as a mean, longer where the sum nearly cancels
        and shorter where the gradients differ in length.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> IMTLG(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.0767, 1.0000, 1.0000])
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
        weights = equal_projections(between) / lengths
        total = weights.sum()
        if abs(total) <= 1e-6 * np.abs(weights).sum():
            return torch.zeros(len(weights), dtype=torch.float64)
        return torch.from_numpy(weights / total)
