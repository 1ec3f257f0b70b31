"""Dual-balancing multi-task learning."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._averages import AveragingBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, ProperFraction, UpdateScale

NO_LOGARITHM = 1e-8  # a loss that is not above it has no logarithm: its own gradient is taken


@BALANCINGS.register("db_mtl")
class DBMTL(AveragingBalancing):
    """Gradients of the logarithms of the losses, averaged over steps and made equally long (Lin et al. 2023, DB-MTL).

    In step n of a task its average becomes (1 - b) g + b average with b = beta / n^beta_sigma, from 0; all averages are
    then made as long as the longest, and added. Heads get the gradient of the logarithm too. A loss of 1e-8 or less
    takes part with its own gradient.

    Args:
        num_tasks: K.
        beta: b in the first step, below 1 (0.9 in LibMTL).
        beta_sigma: How fast b falls; 0: it stays.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.

    Shape:
        Jacobian (k, P) -> update (P,), a sum of k averages, each as long as the longest; weights (k,) of the averages.
        They are kept: K times the shared parameters.

    Example:
        >>> jacobian = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> DBMTL(2, beta=0.0).aggregate(jacobian, torch.tensor([1.0, 2.0]), torch.arange(2))[0]
        tensor([3., 3.])
    """

    needs_shared: ClassVar[bool] = True
    heeds_weights: ClassVar[bool] = False

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: ProperFraction = 0.9,
        beta_sigma: NonNegative = 0.0,
        normalize_to: UpdateScale = "none",
    ) -> None:
        super().__init__(num_tasks, normalize_to)
        self._beta, self._beta_sigma = beta, beta_sigma

    def own_weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return torch.where(losses > NO_LOGARITHM, 1 / losses, 1.0)

    def direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.zeros_like(losses)
        found = jacobian.any(1)
        alive = found.nonzero().flatten()
        if not self.all_have(found, tasks) and not len(alive):
            return torch.zeros_like(jacobian[0]), weights
        present = tasks[alive]
        kept = self._beta / self.count(present) ** self._beta_sigma
        averages = self.average(present, jacobian, alive, self.own_weights(losses, tasks), 1 - kept)
        lengths = averages.norm(dim=1)
        weights[alive] = torch.where(lengths > 0, lengths.max() / lengths, 0.0)
        return weights[alive] @ averages, weights
