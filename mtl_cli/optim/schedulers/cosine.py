"""Cosine decay."""

from __future__ import annotations

import math

from mtl_cli.optim.base import Scheduler
from mtl_cli.registry import SCHEDULERS
from mtl_cli.types import Fraction, NonNegativeInt


@SCHEDULERS.register("cosine")
class Cosine(Scheduler):
    """Falls along half a cosine from 1 to ``min_factor`` (Loshchilov and Hutter 2017).

    Args:
        total_steps: Steps of the run.
        warmup_steps: Steps over which the rate rises linearly first.
        min_factor: Factor at the end, one step after the last, as PyTorch counts.

    Example:
        >>> [round(Cosine(10).factor(step), 3) for step in (0, 5, 10)]
        [1.0, 0.5, 0.0]
    """

    def __init__(self, total_steps: int, *, warmup_steps: NonNegativeInt = 0, min_factor: Fraction = 0.0) -> None:
        super().__init__(total_steps, warmup_steps)
        self._min_factor = min_factor

    def after_warmup(self, progress: float) -> float:
        return self._min_factor + (1 - self._min_factor) * 0.5 * (1 + math.cos(math.pi * progress))
