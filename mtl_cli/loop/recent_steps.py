"""The latest steps: their numbers stay on the device until many are read at once, and the first bad one is found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

OfSome = tuple[Tensor, tuple[int, ...]]  # numbers (k,) of tasks, and those of the K tasks that have none


class ReadSteps(NamedTuple):
    """Numbers of some steps in a row.

    Args:
        losses: (steps, K) float64, sums over the rows of each step.
        weights: What balancing gave, of the steps in which it gave any.
        norms: The lengths of the gradients of the losses as balancing sees them, of the steps in which they are known.
    """

    losses: np.ndarray
    weights: list[OfSome]
    norms: list[OfSome]


class RecentSteps:
    """The steps whose numbers were not read yet, so that nothing has to wait for the device after each of them.

    Args:
        num_tasks: K.
        device: Where losses are.
        size: Steps that are remembered.

    Attributes:
        count: Steps since the last ``take``.

    Example:
        >>> recent = RecentSteps(2, torch.device("cpu"), size=3)
        >>> for sums in ([1.0, 2.0], [1.0, float("inf")], [float("nan"), float("nan")]):
        ...     recent.add(torch.tensor(sums))
        >>> recent.full, recent.first_bad()
        (True, (1, [1]))
        >>> len(recent.take().losses), recent.full, recent.first_bad()
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
        return len(self._losses) == self._size

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
            >>> recent = RecentSteps(1, torch.device("cpu"))
            >>> for loss, weight in ((1.0, 1.0), (1.0, float("nan")), (float("nan"), float("nan"))):
            ...     recent.add(torch.tensor([loss]), torch.tensor([weight]))
            >>> recent.first_bad_weights(), recent.first_bad()
            (1, (2, [0]))
        """
        bad = self.first_bad()
        earlier = len(self._weights) - self.count  # of the step before ``take``
        known = self._weights if bad is None else self._weights[: earlier + bad[0]]
        for place, given in enumerate(known):
            if given is not None and not bool(given[0].isfinite().all()):
                return place - earlier
        return None

    def take(self) -> ReadSteps:
        """The steps since the last ``take``. It forgets them, but for the weights of the last."""
        weights = [step for step in self._weights[len(self._weights) - self.count :] if step is not None]
        taken = ReadSteps(self._read(), weights, list(self._norms))
        self._losses.clear()
        self._norms.clear()
        del self._weights[:-1]
        return taken

    def _read(self) -> np.ndarray:
        """The losses (steps, K) in float64."""
        losses = torch.stack(self._losses or [self._nothing]).cpu().double().numpy()
        return losses[: self.count]
