"""Random loss weighting."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Seed


@BALANCINGS.register("rlw")
class RLW(LossBalancing):
    """Random weights, new in each step: k softmax(normal numbers) (RLW, Lin et al. 2022). A litmus test for the others.

    The paper's weights sum to 1; these sum to k, the tasks of the step, so that a learning rate suits ``equal`` too.

    Args:
        num_tasks: K.
        seed: Start of the generator of the weights; its state is part of the checkpoint.

    Shape:
        losses (k,) -> weights (k,), positive, with sum k.

    Example:
        >>> RLW(3).weights(torch.tensor([1.0, 2.0, 4.0]), torch.arange(3)).sum()
        tensor(3.)
    """

    linear: ClassVar[bool] = True

    def __init__(self, num_tasks: int, *, seed: Seed = 0) -> None:  # noqa: ARG002
        super().__init__()
        self.seed_draws(seed)

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        with self.draws() as generator:
            drawn = torch.softmax(torch.randn(len(losses), generator=generator), 0)
        return len(losses) * drawn.to(losses)
