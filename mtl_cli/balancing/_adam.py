"""Adam on a few numbers that a method learns itself, one per task."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TaskAdam(nn.Module):
    """Adam (Kingma & Ba 2015) whose moments and number of updates are kept for each task, in buffers.

    Args:
        num_tasks: K.
        lr: Learning rate.
        weight_decay: Added to the gradient as weight_decay * value (the L2 form).

    Shape:
        ``step``: values (K,), changed in place where ``tasks`` (k,) say; gradient (k,).
    """

    def __init__(self, num_tasks: int, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        self.mean: Tensor
        self.square: Tensor
        self.updates: Tensor
        for name in ("mean", "square", "updates"):
            self.register_buffer(name, torch.zeros(num_tasks))

    def step(self, values: Tensor, gradient: Tensor, tasks: Tensor) -> None:
        """One update of the values of ``tasks``."""
        old = values[tasks]
        gradient = gradient + self.weight_decay * old
        mean = 0.9 * self.mean[tasks] + 0.1 * gradient
        square = 0.999 * self.square[tasks] + 0.001 * gradient.square()
        updates = self.updates[tasks] + 1
        self.mean[tasks], self.square[tasks], self.updates[tasks] = mean, square, updates
        scale = (square / (1 - 0.999**updates)).sqrt() + 1e-8
        values[tasks] = old - self.lr * mean / (1 - 0.9**updates) / scale
