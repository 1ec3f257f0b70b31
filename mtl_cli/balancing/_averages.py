"""Moving averages of the tasks' gradients, kept from step to step."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_cli.balancing.base import GradientBalancing
from mtl_cli.types import UpdateScale


class AveragingBalancing(GradientBalancing):
    """A method on averages of the gradients over the steps, one for each task: K times the shared parameters.

    Args:
        num_tasks: K.
        normalize_to: See ``GradientBalancing``.
    """

    def __init__(self, num_tasks: int, normalize_to: UpdateScale) -> None:
        super().__init__(normalize_to)
        self.averages: Tensor
        self.register_buffer("averages", torch.zeros(num_tasks, 0))
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros(num_tasks, dtype=torch.int64))

    def count(self, tasks: Tensor) -> Tensor:
        """Counts a step of these tasks; their steps so far (k,), this one included."""
        self.steps[tasks] += 1
        return self.steps[tasks]

    def average(self, tasks: Tensor, jacobian: Tensor, rows: Tensor, scales: Tensor, rates: Tensor) -> Tensor:
        """Moves the averages of some tasks towards their gradients.

        Args:
            tasks: (k,), the tasks.
            jacobian: Gradients (n, P), of these tasks and maybe of others.
            rows: (k,), where in it each task's is.
            scales: (n,), what each gradient is multiplied by.
            rates: (k,), how far to go: 0 leaves the average as it is, 1 forgets it.

        Returns:
            The averages (k, P).
        """
        if not self.averages.shape[1]:
            self.averages = jacobian.new_zeros(len(self.averages), jacobian.shape[1])
        for row, task, rate in zip(rows.tolist(), tasks.tolist(), rates.tolist(), strict=True):
            self.averages[task].lerp_(jacobian[row] * scales[row], rate)
        return self.averages if len(tasks) == len(self.averages) else self.averages[tasks]
