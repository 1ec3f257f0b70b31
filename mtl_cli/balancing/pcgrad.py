"""Projecting conflicting gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, Seed, UpdateScale


@BALANCINGS.register("pcgrad")
class PCGrad(GramianBalancing):
    """Each task's gradient is projected off the others it conflicts with, in random order (Yu et al. 2020).

    For task i, over the others j in random order: if g_i . g_j < 0, g_i loses its component along the original g_j.
    The update is the sum of the projected gradients. Every projected gradient is a combination of the original ones,
    so the whole method runs on their Gramian.

    Args:
        num_tasks: K.
        seed: Start of the generator of the orders; its state is part of the checkpoint.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), each at least 1: the update is as long as a sum.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> PCGrad(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.5848, 3.8012, 3.8012])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        seed: Seed = 0,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self.seed_draws(seed)

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        k = len(gramian)
        with self.draws() as generator:
            orders = torch.rand(k, k, generator=generator).argsort(1)  # a random order of the tasks for every task
        matrix, rows = gramian.numpy(), np.arange(k)  # NumPy: on matrices this small it costs a fraction of PyTorch
        squares = matrix.diagonal()
        coefficients = np.eye(k)  # row i: the projected g_i as a combination of all g_j
        for others in orders.numpy().T:  # every task i meets its next other task j at once
            products = (coefficients * matrix[others]).sum(1)
            conflict = (products < 0) & (others != rows)
            coefficients[rows, others] -= np.where(conflict, products / squares[others], 0.0)
        return torch.from_numpy(coefficients.sum(0))
