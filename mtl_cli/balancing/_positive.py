"""What methods that take the logarithm of a loss share: how they treat losses that are tiny, zero or negative."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.errors import TrainingError

SMALLEST = 1e-8  # a loss below this counts as this: no weight grows without bound as a task becomes perfect


def reciprocal(losses: Tensor) -> Tensor:
    """1 / L, the derivative of log L, at most 1 / SMALLEST; 0 where L is not positive, for a perfect task needs none.

    Example:
        >>> reciprocal(torch.tensor([4.0, 0.0, -1.0]))
        tensor([0.2500, 0.0000, 0.0000])
    """
    return torch.where(losses > 0, 1 / losses.clamp_min(SMALLEST), 0.0)


class PositiveLossBalancing(LossBalancing):
    """A method for losses that are not negative. An epoch whose mean loss is negative ends the training."""

    def after_epoch(self, losses: Mapping[str, float | None]) -> None:
        negative = {name: loss for name, loss in losses.items() if loss is not None and loss < 0}
        if negative:
            found = ", ".join(f"{name} ({loss:.4g})" for name, loss in negative.items())
            raise TrainingError(
                f"balancing: {type(self).__name__} takes the logarithm of the losses, and the mean loss of {found} is "
                "negative. Use balancing=equal or balancing=uncertainty."
            )
