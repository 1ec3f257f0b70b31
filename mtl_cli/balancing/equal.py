"""Equal weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.registry import BALANCINGS


@BALANCINGS.register("equal")
class Equal(LossBalancing):
    """The sum of the losses: unitary scalarization (Kurin et al. 2022, 'In Defense of the Unitary Scalarization').

    Args:
        num_tasks: K.

    Shape:
        losses (k,) -> weights (k,), all 1.

    Example:
        >>> Equal(2).weights(torch.tensor([1.0, 4.0]), torch.arange(2))
        tensor([1., 1.])
    """

    linear: ClassVar[bool] = True

    def __init__(self, num_tasks: int) -> None:  # noqa: ARG002  every method is told K
        super().__init__()

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        return torch.ones_like(losses)
