"""Smooth Tchebycheff scalarization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._positive import SMALLEST, PositiveLossBalancing, reciprocal
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Positive, PositiveInt


@BALANCINGS.register("stch")
class STCH(PositiveLossBalancing):
    """A smooth maximum over the tasks' relative losses: STCH as its authors train networks with it (Lin et al. 2024).

    In the first epochs it is the sum of log L_k (``si``). The mean losses of the last of these are the nadir n_k; from
    then on it is k mu log sum_k exp(log(L_k / n_k) / mu), so that tasks which have improved least weigh most. The
    update has the scale of ``si``: with K equal tasks it is the same. A task without labels in that epoch takes the
    next epoch with labels, and counts as unimproved until then. A negative loss is refused. (TorchJD's STCH has no
    logarithm and no nadir: it is another method.)

    Args:
        num_tasks: K.
        mu: Smoothness: towards 0 only the worst task counts.
        warmup_epochs: Epochs of warm-up; the last one gives the nadir.

    Shape:
        losses (k,) -> weights (k,), not negative.

    Example:
        >>> method = STCH(2, warmup_epochs=1)
        >>> method.after_epoch({"a": 1.0, "b": 1.0})
        >>> method.weights(torch.tensor([1.0, 0.5]), torch.arange(2))
        tensor([1.3333, 1.3333])
    """

    heeds_weights: ClassVar[bool] = False

    def __init__(self, num_tasks: int, *, mu: Positive = 1.0, warmup_epochs: PositiveInt = 4) -> None:
        super().__init__()
        self.mu, self.warmup_epochs = mu, warmup_epochs
        self.nadir: Tensor
        self.epochs: Tensor
        self.register_buffer("nadir", torch.full((num_tasks,), torch.nan))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        nadir = self.nadir[tasks]
        improved = torch.where(nadir > 0, losses.clamp_min(SMALLEST) / nadir, 1.0).log()
        share = len(losses) * torch.softmax(improved / self.mu, 0)
        return torch.where(self.epochs < self.warmup_epochs, 1.0, share) * reciprocal(losses)

    def after_epoch(self, losses: Mapping[str, float | None]) -> None:
        super().after_epoch(losses)
        self.epochs += 1
        if int(self.epochs) >= self.warmup_epochs:
            means = torch.tensor([torch.nan if loss is None else loss for loss in losses.values()]).to(self.nadir)
            self.nadir.copy_(torch.where(self.nadir.isnan(), means, self.nadir))
