"""Multi-objective gradient with double sampling."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._shares import TaskShares
from mtl_cli.balancing._solvers import project_to_simplex
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, Positive, UpdateScale


@BALANCINGS.register("modo")
class MoDo(GramianBalancing):
    """MGDA whose weights move a little in each step, by gradients of two independent batches (Chen et al. 2023, MoDo).

    shares <- projection on the simplex of shares - gamma (G_1 G_2' + rho I) shares; the update is their combination of
    the gradients of both. The two are halves of the rows of each step, which are in random order; with
    ``trainer.accumulate_grad_batches=2`` they are two batches of full size. A task that has labels in one of them only
    keeps its share in that step.

    Args:
        num_tasks: K.
        gamma: Step of the shares (1e-3 in the paper's runs, 0.1 in TorchJD).
        rho: Pull of the shares to equality.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.

    Shape:
        Jacobians (2, k, P) -> weights (k,) in the simplex: the update is at most as long as the longest gradient. One
        Jacobian (k, P) stands for both.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> MoDo(2, gamma=0.01, rho=0.0).aggregate(jacobian, torch.ones(2), torch.arange(2))[1]
        tensor([0.5500, 0.4500])
    """

    needs_shared: ClassVar[bool] = True
    samples: ClassVar[int] = 2

    def __init__(
        self,
        num_tasks: int,
        *,
        gamma: Positive = 0.001,
        rho: NonNegative = 0.1,
        normalize_to: UpdateScale = "none",
    ) -> None:
        super().__init__(normalize_to)
        self._gamma, self._rho = gamma, rho
        self.shares = TaskShares(num_tasks)

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        shares = self.shares.of(tasks)
        moved = shares - self._gamma * (gramian @ shares + self._rho * shares)
        new = torch.from_numpy(project_to_simplex(moved.numpy()))
        self.shares.keep(tasks, new)
        return new

    def kept(self, tasks: Tensor) -> Tensor:
        return self.shares.of(tasks)
