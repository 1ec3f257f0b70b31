"""Gradient vaccine."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing._solvers import NOISE
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Fraction, GradientsOn, Seed, UpdateScale

LARGEST = 1 - NOISE  # cosine: nearer to 1 it is the rounding of parallel gradients, which must not be made up for


@BALANCINGS.register("gradvac")
class GradVac(GramianBalancing):
    """Pulls each task's gradient to the similarity that it usually has with the others (Wang et al. 2021).

    For task i, over the others j in random order: if the cosine of g_i and g_j is below its moving average, g_i gets as
    much of the original g_j as brings it there. The averages, kept per pair of tasks, start at 0, so that the first
    step is that of PCGrad. All shared parameters are one group (the paper also groups them by layer).

    Args:
        num_tasks: K.
        beta: How much of the new cosine goes into the average in each step (0.5 in LibMTL and TorchJD).
        seed: Start of the generator of the orders; its state is part of the checkpoint.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,), each at least 1: the update is as long as a sum.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> GradVac(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.5848, 3.8012, 3.8012])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: Fraction = 0.5,
        seed: Seed = 0,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._beta = beta
        self.cosines: Tensor
        self.register_buffer("cosines", torch.zeros(num_tasks, num_tasks, dtype=torch.float64))
        self.seed_draws(seed)

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        k = len(gramian)
        with self.draws() as generator:
            orders = torch.rand(k, k, generator=generator).argsort(1)  # a random order of the tasks for every task
        lengths = gramian.diagonal().sqrt()
        pairs = tasks.unsqueeze(1), tasks
        usual = self.cosines[pairs].cpu().clamp(-LARGEST, LARGEST)
        rows = torch.arange(k)
        coefficients = torch.eye(k, dtype=gramian.dtype)  # row i: the changed g_i as a combination of all g_j
        for others in orders.t():  # every task i meets its next other task j at once
            products = coefficients @ gramian
            length = (coefficients * products).sum(1).clamp_min(0).sqrt()
            cosine = products[rows, others] / (length * lengths[others]).clamp_min(torch.finfo(gramian.dtype).tiny)
            cosine = cosine.clamp(-LARGEST, LARGEST)
            target = usual[rows, others]
            other = others != rows
            sine, target_sine = ((1 - c.square()).sqrt() for c in (cosine, target))
            share = length * (target * sine - cosine * target_sine) / (lengths[others] * target_sine)
            coefficients[rows, others] += torch.where(other & (cosine < target), share, 0.0)
            usual[rows, others] = torch.where(other, target.lerp(cosine, self._beta), target)
        self.cosines[pairs] = usual.to(self.cosines.device)
        return coefficients.sum(0)
