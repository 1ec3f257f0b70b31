"""Training as a coroutine: it asks for steps, and whoever runs it makes them, of one training or of several at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class CanBeMade(Protocol):
    """A step that a training asks for."""

    def make(self) -> Any:
        """Makes it, alone; gives what the training is to be sent."""


#: Yields each step that it wants, is sent what came of it, and returns a value.
Steps = Generator[Any, Any, T]
#: Seconds since some moment, the same for all calls.
Clock = Callable[[], float]


class OwnTime:
    """The clock of one of several trainings: the time that it took itself, and its share of what they had in common.

    The time in which others are at work does not count, so that the times of all add up to that of the whole.

    Example:
        >>> now = iter([10.0, 16.0])
        >>> clock = OwnTime(lambda: next(now))
        >>> clock.start()
        >>> clock.stop()
        >>> clock.add(0.5)
        >>> clock()
        6.5
    """

    def __init__(self, now: Clock = time.monotonic) -> None:
        self._now, self._before = now, 0.0
        self._since: float | None = None  # at work from then on

    def __call__(self) -> float:
        return self._before if self._since is None else self._before + self._now() - self._since

    def start(self) -> None:
        """It is at work from now on."""
        self._since = self._now()

    def stop(self) -> None:
        """Others are."""
        self._before, self._since = self(), None

    def add(self, seconds: float) -> None:
        """Counts its share of the time that something took for several."""
        self._before += seconds


def run_alone(steps: Steps[T]) -> T:
    """Makes all steps of a training, one after the other; gives what it returns.

    What goes wrong in a step is thrown into the training, as if it had made the step itself.

    Example:
        >>> class Three:
        ...     def make(self):
        ...         return 3
        >>> def training():
        ...     first = yield Three()
        ...     second = yield Three()
        ...     return first + second
        >>> run_alone(training())
        6
    """
    try:
        step: CanBeMade = next(steps)
        while True:
            try:
                result = step.make()
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
