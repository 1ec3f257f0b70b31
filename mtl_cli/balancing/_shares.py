"""Weights in the simplex that a method moves a little in each step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TaskShares(nn.Module):
    """The share of each task, kept from step to step; tasks without labels keep theirs.

    Args:
        num_tasks: K; all shares are 1/K at the start.

    Example:
        >>> shares = TaskShares(4)
        >>> shares.of(torch.tensor([1, 2]))
        tensor([0.5000, 0.5000], dtype=torch.float64)
        >>> shares.keep(torch.tensor([1, 2]), torch.tensor([1.0, 0.0]).double())
        >>> shares.values
        tensor([0.2500, 0.5000, 0.0000, 0.2500], dtype=torch.float64)
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.values: Tensor
        self.register_buffer("values", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))

    def of(self, tasks: Tensor) -> Tensor:
        """Shares (k,) of the tasks of a step, summing to 1, on the CPU; equal ones if they had none."""
        own = self.values[tasks].cpu()
        total = own.sum()
        return own / total if total > 0 else torch.full_like(own, 1 / len(own))

    def keep(self, tasks: Tensor, shares: Tensor) -> None:
        """Keeps new shares (k,) of these tasks, which together have what they had (their part if they had none)."""
        total = float(self.values[tasks].sum())
        self.values[tasks] = (shares * (total or len(tasks) / len(self.values))).to(self.values)
