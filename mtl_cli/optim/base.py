"""What an optimizer and a schedule are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_cli.errors import ConfigError, Problem, RunError
from mtl_cli.optim.flat import FlatParameters
from mtl_cli.registry import describe_component


class Optimizer(ABC):
    """Changes flat parameters by their gradient.

    A constructor takes ``(flat, *, lr, options)``. A task that is absent from a step keeps its parameters, its moments
    and its number of updates as they are, as if the step had not been. What has no owner keeps them in every step.

    Args:
        flat: The parameters.
        lr: Learning rate before the schedule's factor.
        buffers: Names of the vectors (P,) of state.
    """

    def __init__(self, flat: FlatParameters, lr: float, buffers: Sequence[str]) -> None:
        self.flat, self.lr = flat, lr
        self.buffers = {name: torch.zeros_like(flat.values) for name in buffers}
        self._updates: dict[int | None, int] = {segment.task: 0 for segment in flat.segments}
        self._views: dict[tuple[int, int], list[Tensor]] = {}

    def step(self, factor: float, absent: Sequence[int] = ()) -> None:
        """One update with learning rate ``lr * factor``; ``absent`` tasks are left out."""
        for task in self._updates:
            if task not in absent:
                self._updates[task] += 1
        counts = set(self._updates.values())
        if not absent and not self.flat.still and len(counts) == 1:  # the common case: one kernel over everything
            stretches = [(0, self.flat.values.numel(), counts.pop())]
        else:
            stretches = self._stretches(frozenset(absent))
        if stretches:
            views = [self._view(start, stop) for start, stop, _ in stretches]
            self.update(views, [count for *_, count in stretches], self.lr * factor)

    def _stretches(self, absent: frozenset[int]) -> list[tuple[int, int, int]]:
        """Start, stop and number of the update of what is present: neighbours with as many updates are one."""
        found: list[tuple[int, int, int]] = []
        for start, stop, task in self.flat.segments:
            if task in absent:
                continue
            count = self._updates[task]
            if found and found[-1][1:] == (start, count):
                found[-1] = (found[-1][0], stop, count)
            else:
                found.append((start, stop, count))
        return found

    @abstractmethod
    def update(self, views: Sequence[Sequence[Tensor]], counts: Sequence[int], lr: float) -> None:
        """Updates stretches of the vectors in place.

        Args:
            views: For each stretch: values, gradient, and each buffer in the order of ``buffers``.
            counts: For each stretch, the number of this update, from 1.
            lr: Learning rate of this step.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers from which ``load_state_dict`` goes on bit for bit."""
        updates = [[-1 if task is None else task, count] for task, count in self._updates.items()]
        return {"updates": updates, "buffers": {name: b.clone() for name, b in self.buffers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` gave.

        Raises:
            RunError: The state is of another optimizer or of other parameters.
        """
        saved = state["buffers"]
        if saved.keys() != self.buffers.keys() or any(saved[n].shape != b.shape for n, b in self.buffers.items()):
            raise RunError("optimizer: the saved state is of another optimizer or another model.")
        for name, buffer in self.buffers.items():
            buffer.copy_(saved[name])
        self._updates = {None if task < 0 else task: count for task, count in state["updates"]}

    def _view(self, start: int, stop: int) -> list[Tensor]:
        key = (start, stop)
        if key not in self._views:
            vectors = (self.flat.values, self.flat.gradient, *self.buffers.values())
            self._views[key] = [vector[start:stop] for vector in vectors]
        return self._views[key]


class Scheduler(ABC):
    """The factor on the learning rate at each step; a pure function of the step, so that there is nothing to save.

    A constructor takes ``(total_steps, *, warmup_steps, options)``.

    Args:
        total_steps: Optimizer steps of the whole run, as far as the configuration tells.
        warmup_steps: Steps over which the factor rises linearly from near 0 to 1.
    """

    def __init__(self, total_steps: int, warmup_steps: int) -> None:
        self.total_steps, self.warmup_steps = total_steps, warmup_steps

    def factor(self, step: int) -> float:
        """The factor at ``step`` (from 0).

        Raises:
            ConfigError: ``after_warmup`` gives no number from 0.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        span = max(self.total_steps - self.warmup_steps, 1)
        progress = min((step - self.warmup_steps) / span, 1.0)
        factor = self.after_warmup(progress)
        if not isinstance(factor, int | float) or not 0 <= factor < math.inf:
            what = f"gives {factor!r} as the factor at progress {progress:.3g}, must be a number from 0"
            raise ConfigError(Problem(describe_component(self), what))
        return float(factor)  # which a number of NumPy's need not be

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """The factor at ``progress`` in [0, 1] of the steps after the warm-up."""
