"""Weights from the slopes of validation losses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing, Passes
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Positive, PositiveInt


@BALANCINGS.register("coba")
class CoBa(LossBalancing):
    """Lets the tasks converge together, by the slopes of their validation losses: CoBa (Gong et al. 2024, MFTCoder).

    Every ``interval`` steps the losses of a batch of validation rows are computed (a forward pass), each divided by its
    first, and a line is fitted to the last ``history`` of them: a_k is its slope. After ``warmup`` such looks

    - RCS = softmax over tasks of K a_k / sum of |a|: more weight for those that converge slowly,
    - ACS = softmax over tasks of -N a_k / sum of |a_k| over the last N slopes: less for those that begin to diverge,
    - DF = min(1, t softmax over all t looks of (-tau t a / sum of |a|), its last value), by slopes a of the largest
      loss,

    and the weights are softmax of K (DF RCS + (1 - DF) ACS), each at least 1 / (10 K), times K. Until then all are 1.
    The validation rows then have taught the weights; the test rows have not.

    Args:
        num_tasks: K.
        warmup: Looks before the weights move.
        history: Looks that a slope is fitted to, at least 2.
        tau: Sharpness of DF.
        interval: Steps between looks.

    Raises:
        ConfigError: ``history`` is 1.

    Shape:
        losses (k,) -> weights (k,), positive, with sum k.

    Example:
        >>> CoBa(2).weights(torch.tensor([1.0, 4.0]), torch.arange(2))
        tensor([1., 1.])
    """

    linear: ClassVar[bool] = True
    extra_passes: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,
        *,
        warmup: PositiveInt = 100,
        history: PositiveInt = 200,
        tau: Positive = 5.0,
        interval: PositiveInt = 1,
    ) -> None:
        super().__init__()
        if history < 2:
            raise ConfigError(Problem("balancing.coba.history", f"must be at least 2, got {history}"))
        self.warmup, self.tau, self.interval = warmup, tau, interval
        self.first: Tensor  # (K,) first validation losses
        self.ratios: Tensor  # (K, history) loss / first, oldest first
        self.slopes: Tensor  # (K, history) of the looks after the warm-up
        self.largest: Tensor  # (1, looks after the warm-up) slopes of the largest ratio
        self.looks: Tensor
        self.register_buffer("first", torch.full((num_tasks,), torch.nan))
        self.register_buffer("ratios", torch.full((num_tasks, history), torch.nan, dtype=torch.float64))
        self.register_buffer("slopes", torch.full((num_tasks, history), torch.nan, dtype=torch.float64))
        self.register_buffer("largest", torch.zeros(1, 0, dtype=torch.float64))
        self.register_buffer("looks", torch.zeros((), dtype=torch.int64))

    def before_step(self, passes: Passes, tasks: Tensor) -> None:  # noqa: ARG002
        if passes.step % self.interval:
            return
        losses = passes.validation_losses()
        self.first.copy_(torch.where(self.first.isnan() & (losses > 0), losses, self.first))
        self.ratios.copy_(torch.cat([self.ratios[:, 1:], (losses / self.first).double().unsqueeze(1)], 1))
        self.looks += 1
        if int(self.looks) < self.warmup:
            return
        slopes = _slopes(self.ratios)
        self.slopes.copy_(torch.cat([self.slopes[:, 1:], slopes.unsqueeze(1)], 1))
        largest = torch.where(self.ratios.isnan(), -torch.inf, self.ratios).amax(0)
        largest = torch.where(largest.isinf(), torch.nan, largest)
        self.largest = torch.cat([self.largest, _slopes(largest.unsqueeze(0)).unsqueeze(0)], 1)

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        k, slopes = len(losses), self.slopes[tasks]
        looks = self.largest.shape[1]
        if looks == 0:
            return torch.ones_like(losses)
        relative = torch.softmax(_share(k * slopes[:, -1], slopes[:, -1].abs().sum()), 0)
        window = (~slopes.isnan()).sum(1)
        absolute = torch.softmax(_share(-window * slopes[:, -1], slopes.abs().nansum(1)), 0)
        moves = _share(-looks * self.largest[0], self.largest.abs().sum())
        factor = (looks * torch.softmax(self.tau * moves, 0)[-1]).clamp(max=1.0)
        weights = torch.softmax(k * (factor * relative + (1 - factor) * absolute), 0)
        least = 1 / (10 * k)
        weights = torch.where((weights < least).any(), weights * (1 - least * k) + least, weights)
        return (k * weights).to(losses)


def _slopes(values: Tensor) -> Tensor:
    """Slope (K,) of the line through each row of values (K, N), those that are NaN left out; 0 for fewer than two."""
    known = ~values.isnan()
    x = torch.arange(values.shape[1], dtype=values.dtype, device=values.device).expand_as(values)
    count = known.sum(1, keepdim=True).clamp_min(1)
    x = torch.where(known, x - (x * known).sum(1, keepdim=True) / count, 0.0)
    y = torch.where(known, values - values.nansum(1, keepdim=True) / count, 0.0)
    spread = x.square().sum(1)
    return torch.where(spread > 0, (x * y).sum(1) / spread, 0.0)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole; 0 where nothing moves."""
    return torch.where(whole > 0, part / whole, 0.0)
