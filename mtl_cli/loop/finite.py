"""Numbers that are not finite: in which step they came first, and a step that is taken back."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtl_cli.data.batches import Rows
from mtl_cli.loop.step import Learner

OfSome = tuple[Tensor, tuple[int, ...]]  # numbers (k,) of tasks, and those of the K tasks that have none


class WatchedSteps(NamedTuple):
    """Numbers of some steps in a row.

    Args:
        losses: (steps, K) float64, sums over the rows of each step.
        weights: What balancing gave, of the steps in which it gave any.
        norms: The lengths of the gradients of the losses as balancing sees them, of the steps in which they are known.
    """

    losses: np.ndarray
    weights: list[OfSome]
    norms: list[OfSome]


class LossWatch:
    """Remembers the latest steps, so that nothing has to wait for the device to ask each of them.

    Args:
        num_tasks: K.
        device: Where losses are.
        size: Steps that are remembered.

    Attributes:
        count: Steps since the last ``take``.

    Example:
        >>> watch = LossWatch(2, torch.device("cpu"), size=3)
        >>> for sums in ([1.0, 2.0], [1.0, float("inf")], [float("nan"), float("nan")]):
        ...     watch.add(torch.tensor(sums))
        >>> watch.full, watch.first_bad()
        (True, (1, [1]))
        >>> len(watch.take().losses), watch.full, watch.first_bad()
        (3, False, None)
    """

    def __init__(self, num_tasks: int, device: torch.device, size: int = 256) -> None:
        self._nothing = torch.zeros(num_tasks, device=device)
        self._size = size
        self._losses: list[Tensor] = []  # as they were given: to copy each would cost every step something
        self._weights: list[OfSome | None] = []
        self._norms: list[OfSome] = []

    def add(
        self,
        sums: Tensor | None,
        weights: Tensor | None = None,
        norms: Tensor | None = None,
        inactive: tuple[int, ...] = (),
    ) -> None:
        """Takes a step.

        Args:
            sums: Its losses (K,), which nobody changes afterwards; None: it was skipped.
            weights: What balancing made of them (k,), if anything.
            norms: The lengths of their gradients (k,), if known.
            inactive: The tasks that balancing has not seen.
        """
        self._losses.append(self._nothing if sums is None else sums)
        # A method may write its next weights over these.
        self._weights.append(None if weights is None else (weights.clone(), inactive))
        if norms is not None:
            self._norms.append((norms, inactive))

    @property
    def count(self) -> int:
        return len(self._losses)

    @property
    def full(self) -> bool:
        """Whether its steps must be taken before the next one."""
        return self.count == self._size

    def first_bad(self) -> tuple[int, list[int]] | None:
        """The first step with a loss that is not finite, from 0 since the last ``take``, and its tasks."""
        bad = ~np.isfinite(self._read())
        if not bad.any():
            return None
        step = int(bad.any(1).argmax())
        return step, np.flatnonzero(bad[step]).tolist()

    def first_bad_weights(self) -> int | None:
        """The first step whose losses are finite and whose weights are not, before any other number that is not.

        -1 is the last step before ``take``.

        Example:
            >>> watch = LossWatch(1, torch.device("cpu"))
            >>> for loss, weight in ((1.0, 1.0), (1.0, float("nan")), (float("nan"), float("nan"))):
            ...     watch.add(torch.tensor([loss]), torch.tensor([weight]))
            >>> watch.first_bad_weights(), watch.first_bad()
            (1, (2, [0]))
        """
        bad = self.first_bad()
        earlier = len(self._weights) - self.count  # of the step before ``take``
        known = self._weights if bad is None else self._weights[: earlier + bad[0]]
        for place, given in enumerate(known):
            if given is not None and not bool(given[0].isfinite().all()):
                return place - earlier
        return None

    def take(self) -> WatchedSteps:
        """The steps since the last ``take``. It forgets them, but for the weights of the last."""
        weights = [step for step in self._weights[len(self._weights) - self.count :] if step is not None]
        taken = WatchedSteps(self._read(), weights, list(self._norms))
        self._losses.clear()
        self._norms.clear()
        del self._weights[:-1]
        return taken

    def _read(self) -> np.ndarray:
        """The losses (steps, K) in float64."""
        losses = torch.stack(self._losses or [self._nothing]).cpu().double().numpy()
        return losses[: self.count]


class Snapshot:
    """All that a step may change before the optimizer does: what a step that is taken back needs.

    Args:
        learner: What is trained.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        # The parameters, the method's too, only the optimizer changes.
        self._balancing = [
            (module, name, buffer.clone())
            for module in learner.balancing.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        self._scale = None if learner.loss_scale is None else copy.deepcopy(learner.loss_scale.state_dict())
        self._buffers = [(buffer, buffer.clone()) for buffer in learner.model.buffers()]
        device = learner.parameters.values.device
        self._cuda = device if device.type == "cuda" else None
        self._random = torch.get_rng_state()
        self._cuda_random = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)

    def restore(self) -> None:
        """Puts everything back, the generators included."""
        for module, name, value in self._balancing:  # put back, not loaded: a method may have made it larger
            setattr(module, name, value)
        if self._learner.loss_scale is not None and self._scale is not None:
            self._learner.loss_scale.load_state_dict(self._scale)
        for buffer, value in self._buffers:
            buffer.copy_(value)
        torch.set_rng_state(self._random)
        if self._cuda is not None and self._cuda_random is not None:
            torch.cuda.set_rng_state(self._cuda_random, self._cuda)


def state_is_finite(learner: Learner) -> bool:
    """Whether all parameters and what the optimizers remember of them are finite. Waits for the device."""
    vectors = [v for optimizer in learner.optimizers for v in (optimizer.flat.values, *optimizer.buffers.values())]
    return all(bool(vector.isfinite().all()) for vector in vectors)


def rows_without_finite_loss(learner: Learner, rows: Rows, index: Tensor) -> list[int]:
    """Which of the rows at ``index`` have, each alone, a loss that is not finite with the present weights."""
    found = []
    learner.model.eval()
    with torch.no_grad(), learner.precision():
        for row in index.split(1):
            inputs, labels = rows.gather(row)
            outputs = learner.model.outputs(inputs)
            sums, _ = learner.objective.sums_and_gradient(outputs, labels, complete=False)
            if not bool(sums.isfinite().all()):
                found.append(int(row))
    learner.model.train()
    return found
