"""Signals that ask a training to stop."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def signals() -> Iterator[Callable[[], int | None]]:
    """SIGINT, SIGTERM and SIGUSR1 (SLURM's warning) finish the step, or the last evaluation; a second stops at once.

    Another evaluation is left between two batches.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log.warning("%s: finishing the step; once more to stop at once", signal.Signals(number).name)

    try:
        previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    except ValueError:  # not the main thread: the caller's handlers stay in charge
        yield lambda: None
        return
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
