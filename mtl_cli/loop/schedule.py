"""When training does what: its batches, evaluations, checkpoints, and looks at the gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtl_cli.data.batches import Epoch, Rows, count_steps, plan_epoch
from mtl_cli.data.mixing import Mixing


@dataclass(frozen=True)
class Schedule:
    """When to do what.

    Args:
        batch_size: Rows of an optimizer step.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether a smaller last batch is left out.
        seed: The run's seed.
        evaluate_every: Epochs between evaluations.
        save_every_steps: Steps between checkpoints inside an epoch, or None; the end of an epoch always has one.
        mixing: Shares of the sources.
        skip_nonfinite: Whether a step whose losses or gradients are not finite is left out; else training stops.
        diagnostics_every: Steps between looks at the gradients of the tasks, or 0.
    """

    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    evaluate_every: int = 1
    save_every_steps: int | None = None
    mixing: Mixing = Mixing()  # noqa: RUF009  frozen
    skip_nonfinite: bool = False
    diagnostics_every: int = 0

    def plan(self, rows: Rows, epoch: int, weights: np.ndarray) -> Epoch:
        """The batches of epoch ``epoch`` (from 0) over some rows, with the weights of the tasks (K,)."""
        return plan_epoch(
            rows, epoch, batch_size=self.batch_size, weights=weights, seed=self.seed, shuffle=self.shuffle,
            drop_last=self.drop_last, mixing=self.mixing,
        )  # fmt: skip

    def steps(self, rows: Rows, epoch: int) -> int:
        """Optimizer steps of epoch ``epoch`` (from 0) over some rows."""
        return count_steps(rows, epoch, batch_size=self.batch_size, drop_last=self.drop_last, mixing=self.mixing)

    def total_steps(self, rows: Rows, epochs: int) -> int:
        """Optimizer steps of the first epochs."""
        if self.mixing.method != "annealed":  # else each epoch may have another length
            return epochs * self.steps(rows, 0)
        return sum(self.steps(rows, epoch) for epoch in range(epochs))

    def evaluates_after(self, epochs: int) -> bool:
        """Whether there is an evaluation after so many whole epochs."""
        return epochs % self.evaluate_every == 0

    def saves_after(self, steps: int) -> bool:
        """Whether there is a checkpoint after so many steps, wherever in an epoch that is."""
        return self.save_every_steps is not None and steps % self.save_every_steps == 0
