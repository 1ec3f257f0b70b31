"""Gradient sign dropout."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import GradientBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Fraction, GradientsOn, Seed, UpdateScale


@BALANCINGS.register("graddrop")
class GradDrop(GradientBalancing):
    """Keeps, at random in each coordinate, the positive or the negative parts of the gradients (Chen et al. 2020).

    The positive ones with probability (1 + sum of g / sum of |g|) / 2. The paper works on the representation, where a
    coordinate's sign is that of the sum over rows of gradient times sign of the feature: that is
    ``gradients_on=features``. On the parameters it is the same rule with the sign of the gradient (as in TorchJD).

    Args:
        num_tasks: K.
        leak: Share of a dropped part that is let through.
        seed: Start of the generator; its state is part of the checkpoint.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` is the paper's method; ``parameters`` applies its rule to the shared parameters.

    Shape:
        Jacobian (k, P) -> update (P,); there are no weights. The update is as long as a sum.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0], [-6.0, 1.0]])
        >>> GradDrop(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([-10.,   2.])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        leak: Fraction = 0.0,
        seed: Seed = 0,
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._leak = leak
        self.seed_draws(seed)

    def direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, None]:  # noqa: ARG002
        self.all_have(jacobian.any(1), tasks)
        return self._keep(jacobian, jacobian), None

    def feature_direction(
        self,
        gradients: Tensor,
        features: Tensor,
        losses: Tensor,  # noqa: ARG002
        tasks: Tensor,  # noqa: ARG002
    ) -> tuple[Tensor, None]:
        signs = (gradients * features.sign()).sum(1)
        return self._keep(gradients, signs), None

    def _keep(self, gradients: Tensor, signs: Tensor) -> Tensor:
        """Sum over the tasks of what is kept of the gradients (k, ..., n) by signs (k, n)."""
        with self.draws() as generator:
            draw = torch.rand(signs.shape[1], generator=generator).to(signs)
        sizes = torch.zeros_like(draw)
        for row in signs:
            sizes += row.abs()
        purity = (1 + signs.sum(0) / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)) / 2
        positive = purity > draw
        total = torch.zeros_like(gradients[0])
        for gradient, sign in zip(gradients, signs, strict=True):
            total += torch.where((sign > 0) == positive, gradient, self._leak * gradient)
        return total
