"""What the steps of training add up to: losses, weights and gradient lengths of an epoch, rows of each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mtl_cli.loop.recent_steps import OfSome, ReadSteps


class Tally:
    """Sums over steps of a number of each task, and in how many steps each has had one.

    Args:
        num_tasks: K.

    Example:
        >>> tally = Tally(2)
        >>> tally.add([(torch.tensor([1.0, 2.0]), ()), (torch.tensor([3.0]), (1,))])
        >>> tally.means()
        [2.0, 2.0]
    """

    def __init__(self, num_tasks: int) -> None:
        self._state = np.zeros((2, num_tasks))  # sums, steps

    def add(self, steps: Sequence[OfSome], unit: np.ndarray | float = 1.0) -> None:
        """Adds the numbers of steps, one step after the other. Waits for the device once.

        Args:
            steps: Of each the numbers of some tasks, and the others.
            unit: What the numbers of all, or of each of the K tasks, are divided by.
        """
        if not steps:
            return
        start, values = 0, torch.cat([of_step for of_step, _ in steps]).cpu().double().numpy()
        sums, counts = self._state
        units = np.broadcast_to(unit, sums.shape)
        for of_step, without in steps:
            those = np.delete(np.arange(len(sums)), without) if without else slice(None)
            sums[those] += values[start : start + len(of_step)] / units[those]
            counts[those] += 1
            start += len(of_step)

    def means(self) -> list[float | None]:
        """The mean of each task over its steps; None of a task that had none."""
        return [total / steps if steps else None for total, steps in zip(*self._state.tolist(), strict=True)]

    @property
    def empty(self) -> bool:
        return not self._state.any()

    def clear(self) -> None:
        """Forgets all steps."""
        self._state[:] = 0

    def state(self) -> list[list[float]]:
        """For a checkpoint."""
        found: list[list[float]] = self._state.tolist()
        return found

    def load_state(self, state: Sequence[Sequence[float]]) -> None:
        """Goes on from ``state``."""
        self._state[:] = np.array(state, float)


class Totals:
    """What the steps of the epoch under way, and of all epochs, add up to.

    What a step has found is not added at once, but when the host looks at the latest steps.

    Args:
        num_tasks: K.
        sources: Names of the sources of the training rows.

    Attributes:
        weights: Of this epoch, what balancing gave.
        gradient_norms: Of this epoch, the lengths of the gradients.
        skipped: Steps of this epoch that were left out.
        drawn: Rows trained on in all epochs, of each source.
    """

    def __init__(self, num_tasks: int, sources: Sequence[str]) -> None:
        self._sources = tuple(sources)
        self._losses, self._labels = np.zeros(num_tasks), np.zeros(num_tasks)
        self.weights, self.gradient_norms = Tally(num_tasks), Tally(num_tasks)
        self.skipped = 0
        self.drawn = np.zeros(len(self._sources), np.int64)

    def count(self, labels: np.ndarray, drawn: np.ndarray) -> None:
        """Counts the labels of each task (K,) and the rows of each source (S,) of a step that was made."""
        self._labels += labels
        self.drawn += drawn

    def add(self, steps: ReadSteps, factors: Sequence[float]) -> None:
        """Adds steps, one after the other: sums do not depend on when they are added.

        Args:
            steps: The steps.
            factors: What balancing, from which the gradient lengths come, sees each of the K losses times.
        """
        for of_step in steps.losses:
            self._losses += of_step
        self.weights.add(steps.weights)
        self.gradient_norms.add(steps.norms, np.array(factors))

    def mean_losses(self) -> list[float | None]:
        """Mean loss of each task over the labels of this epoch; None of a task that had none."""
        counted = zip(self._losses.tolist(), self._labels, strict=True)
        return [total / labels if labels else None for total, labels in counted]

    def begin_epoch(self) -> None:
        """Forgets what belongs to the epoch before."""
        self._losses[:] = self._labels[:] = 0
        self.weights.clear()
        self.gradient_norms.clear()
        self.skipped = 0

    def rows_by_source(self) -> dict[str, int]:
        """Rows trained on so far, of each source; empty where there is one source."""
        return {} if self._sources == ("",) else dict(zip(self._sources, self.drawn.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "sums": self._losses.tolist(),
            "counts": self._labels.tolist(),
            "balancing_weights": self.weights.state(),
            "gradient_norms": self.gradient_norms.state(),
            "drawn": self.drawn.tolist(),
            "skipped_in_epoch": self.skipped,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint holds, of which this is a part."""
        self._losses = np.array(state["sums"], float)
        self._labels = np.array(state["counts"], float)
        # An earlier version wrote the sums of the weights and the steps, and no lengths of gradients.
        self.weights.load_state(state.get("balancing_weights") or [state["weight_sums"], state["weight_counts"]])
        if "gradient_norms" in state:
            self.gradient_norms.load_state(state["gradient_norms"])
        self.drawn = np.array(state["drawn"], np.int64)
        self.skipped = int(state.get("skipped_in_epoch", 0))
