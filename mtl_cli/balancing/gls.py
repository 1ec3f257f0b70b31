"""Geometric loss strategy."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mtl_cli.balancing._positive import SMALLEST, PositiveLossBalancing, reciprocal
from mtl_cli.registry import BALANCINGS


@BALANCINGS.register("gls")
class GLS(PositiveLossBalancing):
    """The geometric mean of the losses (GLS, Chennupati et al. 2019): weights (product of L)^(1/k) / (k L_k).

    Multiplying a loss by a number, ``tasks.NAME.weight`` too, changes the length of the update and not its direction.
    A loss below 1e-8 counts as 1e-8, and one of 0 gets no weight; where one loss is nearly 0, all others have next to
    no weight: so it is with a product. A negative loss is refused.

    Args:
        num_tasks: K.

    Shape:
        losses (k,) -> weights (k,), not negative.

    Example:
        >>> import torch
        >>> GLS(2).weights(torch.tensor([1.0, 4.0]), torch.arange(2))
        tensor([1.0000, 0.2500])
    """

    heeds_weights: ClassVar[bool] = False

    def __init__(self, num_tasks: int) -> None:  # noqa: ARG002
        super().__init__()

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        mean = losses.clamp_min(SMALLEST).log().mean().exp()
        return mean / len(losses) * reciprocal(losses)
