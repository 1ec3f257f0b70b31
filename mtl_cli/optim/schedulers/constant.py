"""No schedule."""

from __future__ import annotations

from mtl_cli.optim.base import Scheduler
from mtl_cli.registry import SCHEDULERS
from mtl_cli.types import NonNegativeInt


@SCHEDULERS.register("constant")
class Constant(Scheduler):
    """The learning rate stays as it is, after a warm-up if asked.

    Args:
        total_steps: Steps of the run.
        warmup_steps: Steps over which the rate rises linearly.

    Example:
        >>> [Constant(10, warmup_steps=1).factor(step) for step in (0, 1, 9)]
        [0.5, 1.0, 1.0]
    """

    def __init__(self, total_steps: int, *, warmup_steps: NonNegativeInt = 0) -> None:
        super().__init__(total_steps, warmup_steps)

    def after_warmup(self, progress: float) -> float:  # noqa: ARG002
        return 1.0
