"""Direction-oriented multi-objective learning."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing._shares import TaskShares
from mtl_cli.balancing._solvers import project_to_simplex
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, Positive, PositiveInt, ProperFraction, UpdateScale


@BALANCINGS.register("sdmgrad")
class SDMGrad(GramianBalancing):
    """MGDA pulled to the mean gradient, by gradients of three independent batches (Xiao et al. 2023, SDMGrad).

    w minimises |g_w + lambda g_0|^2 over the simplex, by SGD with momentum on G_1 G_2' (divided by the square of the
    mean length), going on from the w of the last step; the update is (g_w + lambda g_0) / (1 + lambda) of the third
    batch. The three are thirds of the rows of each step, which are in random order, so that the shared parameters learn
    from a third of them; with ``trainer.accumulate_grad_batches=3`` they are three batches of full size. A task that
    has no label in one of the first two keeps its w in that step.

    Args:
        num_tasks: K.
        pull: lambda, pull to the mean gradient, at least 0 (0.3 in the authors' runs).
        lr: Rate of the SGD (10 in the authors' code, 5 in LibMTL).
        momentum: Of the SGD.
        iterations: Steps of the SGD.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.

    Shape:
        Jacobians (3, k, P) -> weights (k,) in the simplex: the update is at most as long as the longest gradient. One
        Jacobian (k, P) stands for all.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> SDMGrad(2, pull=0.0, lr=0.1, iterations=200).aggregate(jacobian, torch.ones(2), torch.arange(2))[1]
        tensor([0.6000, 0.4000])
    """

    needs_shared: ClassVar[bool] = True
    samples: ClassVar[int] = 3

    def __init__(
        self,
        num_tasks: int,
        *,
        pull: NonNegative = 0.3,
        lr: Positive = 10.0,
        momentum: ProperFraction = 0.5,
        iterations: PositiveInt = 20,
        normalize_to: UpdateScale = "none",
    ) -> None:
        super().__init__(normalize_to)
        self._pull, self._lr, self._momentum, self._iterations = pull, lr, momentum, iterations
        self.shares = TaskShares(num_tasks)

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        square = gramian.diagonal().clamp_min(0).sqrt().mean() ** 2
        matrix = (gramian / (square + 1e-8)).numpy()
        shares = self.shares.of(tasks).numpy()
        mean, velocity = 1 / len(shares), np.zeros(len(shares))
        for _ in range(self._iterations):
            velocity = self._momentum * velocity + matrix @ (shares + self._pull * mean)
            shares = project_to_simplex(shares - self._lr * velocity)
        new = torch.from_numpy(shares)
        self.shares.keep(tasks, new)
        return self._pulled(new)

    def kept(self, tasks: Tensor) -> Tensor:
        return self._pulled(self.shares.of(tasks))

    def _pulled(self, shares: Tensor) -> Tensor:
        """Weights (k,) of the gradients by the shares (k,): with lambda times those of the mean."""
        return (shares + self._pull * (1 / len(shares))) / (1 + self._pull)

    def pick(self, jacobians: Tensor) -> Tensor:
        return jacobians[-1]
