"""Scale-invariant sum of losses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mtl_cli.balancing._positive import PositiveLossBalancing, reciprocal
from mtl_cli.registry import BALANCINGS


@BALANCINGS.register("si")
class SI(PositiveLossBalancing):
    """The sum of the losses' logarithms (scale-invariant baseline): weights 1 / L_k.

    Multiplying a loss by a number, ``tasks.NAME.weight`` too, changes nothing. A loss below 1e-8 counts as 1e-8, and
    one of 0 gets no weight. A negative loss is refused.

    Args:
        num_tasks: K.

    Shape:
        losses (k,) -> weights (k,), not negative.

    Example:
        >>> import torch
        >>> SI(2).weights(torch.tensor([1.0, 4.0]), torch.arange(2))
        tensor([1.0000, 0.2500])
    """

    heeds_weights: ClassVar[bool] = False

    def __init__(self, num_tasks: int) -> None:  # noqa: ARG002
        super().__init__()

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return reciprocal(losses)
