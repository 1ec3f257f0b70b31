"""Multi-task learning as a bargaining game."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing._solvers import fair_weights
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, NonNegative, PositiveInt, UpdateScale


@BALANCINGS.register("nash_mtl")
class NashMTL(GramianBalancing):
    """The bargaining solution: weights a > 0 with (M a)_i = 1 / a_i for the Gramian M (Navon et al. 2022, Nash-MTL).

    It does not depend on the sizes of the gradients. Solved by Newton's method to the last digit instead of by some
    rounds of a convex solver. As in the authors' code M is divided by its Frobenius norm first, and the update is cut
    to ``max_norm``, which it mostly exceeds: its length is sqrt(k |M|). Where gradients cancel and there is no
    solution, a tiny ridge decides.

    Args:
        num_tasks: K.
        max_norm: Longest update; 0 for any length.
        update_every: Steps from one solution to the next; the weights stay as they are in between (a task that has none
            yet brings the next one forward).
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), positive; the update is sqrt(k |M|) long, but ``max_norm`` if that is shorter.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> NashMTL(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.0542, 0.7061, 0.7061])
    """

    needs_shared: ClassVar[bool] = True
    heeds_weights: ClassVar[bool] = False

    def __init__(
        self,
        num_tasks: int,
        *,
        max_norm: NonNegative = 1.0,
        update_every: PositiveInt = 1,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._max_norm, self._every = max_norm, update_every
        self.last: Tensor  # weights of each task, 0 where there are none yet
        self.register_buffer("last", torch.zeros(num_tasks, dtype=torch.float64))
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        products, weights = gramian.numpy(), self.last[tasks].cpu().numpy()
        if int(self.steps) % self._every == 0 or not weights.all():
            weights = fair_weights(products, 1.0) * math.sqrt(np.linalg.norm(products))
            self.last[tasks] = torch.from_numpy(weights).to(self.last)
        self.steps += 1
        length = math.sqrt(max(weights @ products @ weights, 0.0))
        return torch.from_numpy(weights * (self._max_norm / length if length > self._max_norm > 0 else 1.0))
