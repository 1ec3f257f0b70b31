"""Training as a coroutine: it asks for steps, and whoever runs it makes them, of one training or of several at once."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class CanBeMade(Protocol):
    """A step that a training asks for."""

    def make(self) -> Any:
        """Makes it, alone; gives what the training is to be sent."""


#: Yields each step that it wants, is sent what came of it, and returns a value.
Steps = Generator[Any, Any, T]


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
