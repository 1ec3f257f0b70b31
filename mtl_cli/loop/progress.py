"""How far training is to go, how far it has come, and the time that it has taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mtl_cli.steps import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long to train. Whatever is reached first ends the training.

    Args:
        epochs: Passes over the training rows, or None.
        steps: Optimizer steps, or None.
        seconds: Time, over all resumes, or None; the step that is under way is finished.
    """

    epochs: int | None
    steps: int | None
    seconds: float | None

    def steps_reached(self, steps: int) -> bool:
        """Whether no step is allowed after so many."""
        return self.steps is not None and steps >= self.steps

    def epochs_reached(self, epochs: int) -> bool:
        """Whether no epoch is allowed after so many."""
        return self.epochs is not None and epochs >= self.epochs


@dataclass
class Progress:
    """Where training stands; all of it is in the checkpoint.

    Args:
        epoch: Whole epochs.
        step_in_epoch: Steps of the epoch under way; 0 if none is.
        step: Steps of all epochs.
        rows: Rows trained on, each as often as it was.
        seconds: Time, over all resumes.
        finished: Whether a limit is reached, or early stopping has ended it.
        skipped: Steps left out because a loss or gradient was not finite.
        ending: Whether the epoch under way has all steps that it was allowed, and is still to be evaluated.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    rows: int = 0
    seconds: float = 0.0
    finished: bool = False
    skipped: int = 0
    ending: bool = False

    @classmethod
    def of_checkpoint(cls, saved: Mapping[str, Any]) -> Progress:
        """What a checkpoint says.

        Raises:
            TypeError: It says something else.
        """
        cut = saved.get("cut", 0)
        if cut:  # an earlier version closed an epoch that a limit had cut short
            log.warning("epoch %d was cut short by a limit: its last %d steps are not made up for", saved["epoch"], cut)
        return cls(**{key: value for key, value in saved.items() if key != "cut"})

    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Goes to where a checkpoint says; as ``of_checkpoint``."""
        vars(self).update(vars(Progress.of_checkpoint(saved)))

    @property
    def begun(self) -> int:
        """Epochs that have begun: the number, from 1, of the one under way, or of the last if none is.

        Example:
            >>> Progress(epoch=2).begun, Progress(epoch=2, step_in_epoch=5).begun
            (2, 3)
        """
        return self.epoch + (self.step_in_epoch > 0)


class Stopwatch:
    """The time that training takes, evaluations and checkpoints included, over all resumes.

    Args:
        clock: Tells the time.

    Example:
        >>> now = iter([0.0, 10.0, 12.0, 15.0, 16.0])
        >>> stopwatch = Stopwatch(lambda: next(now))
        >>> stopwatch.start(100.0)
        >>> with stopwatch.paused():
        ...     pass  # from 12 to 15
        >>> stopwatch.seconds()
        103.0
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start, self._before = clock(), 0.0

    def start(self, before: float) -> None:
        """Goes on after the seconds that earlier sessions took."""
        self._start, self._before = self._clock(), before

    def seconds(self) -> float:
        """The time so far."""
        return self._before + self._clock() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within takes no time of the training."""
        paused = self._clock()
        yield
        self._start += self._clock() - paused
