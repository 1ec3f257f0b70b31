"""Multi-objective gradient correction."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtl_cli.balancing._averages import AveragingBalancing
from mtl_cli.balancing._shares import TaskShares
from mtl_cli.balancing._solvers import project_to_simplex
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, Positive, UpdateScale


@BALANCINGS.register("moco")
class MoCo(AveragingBalancing):
    """MGDA on moving averages of the gradients, its weights moved a little in each step (Fernando et al. 2023, MoCo).

    In step n of a task: y <- y - beta / n^beta_sigma (y - g), where g is the gradient made as long as the task's loss;
    then shares <- map(shares - gamma / n^gamma_sigma (Y Y' + rho I) shares), and the update is their combination of the
    averages. The paper maps by projection on the simplex; its code and LibMTL, whose defaults these are, by softmax.

    Args:
        num_tasks: K.
        beta: How much of a new gradient goes into the average in the first step.
        beta_sigma: How fast that falls.
        gamma: Step of the shares in the first step.
        gamma_sigma: How fast that falls.
        rho: Pull of the shares to equality.
        map: How the shares come back to the simplex: ``softmax`` or ``projection``.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.

    Shape:
        Jacobian (k, P) -> update (P,), a convex combination of averages that are as long as the losses; weights (k,) of
        the averages. The averages are kept: K times the shared parameters.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> MoCo(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[1].sum()
        tensor(1.)
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: Positive = 0.5,
        beta_sigma: NonNegative = 0.5,
        gamma: Positive = 0.1,
        gamma_sigma: NonNegative = 0.5,
        rho: NonNegative = 0.0,
        map: Literal["softmax", "projection"] = "softmax",
        normalize_to: UpdateScale = "none",
    ) -> None:
        super().__init__(num_tasks, normalize_to)
        self._beta, self._beta_sigma, self._gamma, self._gamma_sigma = beta, beta_sigma, gamma, gamma_sigma
        self._rho, self._map = rho, map
        self.shares = TaskShares(num_tasks)

    def direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor]:
        lengths = jacobian.norm(dim=1)
        weights = torch.zeros_like(lengths)
        found = lengths != 0
        alive = found.nonzero().flatten()
        if not self.all_have(found, tasks) and not len(alive):
            return torch.zeros_like(jacobian[0]), weights
        present = tasks[alive]
        rates = self._beta / self.count(present) ** self._beta_sigma
        averages = self.average(present, jacobian, alive, losses.abs() / lengths, rates.clamp(max=1.0))
        shares = self._step((averages @ averages.t()).cpu().double(), present)
        weights[alive] = shares.to(weights)
        return weights[alive] @ averages, weights

    def _step(self, gramian: Tensor, tasks: Tensor) -> Tensor:
        shares = self.shares.of(tasks)
        rates = self._gamma / self.steps[tasks].cpu() ** self._gamma_sigma
        moved = shares - rates * (gramian @ shares + self._rho * shares)
        project = self._map == "projection"
        new = torch.from_numpy(project_to_simplex(moved.numpy())) if project else torch.softmax(moved, 0)
        self.shares.keep(tasks, new)
        return new
