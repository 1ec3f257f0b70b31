"""What every tracker does: it opens a run of its own, takes numbers, and ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run.

    Args:
        folder: The run folder, absolute.
        config: The whole configuration, overrides applied, as in config.yaml.
        overrides: What was given on the command line.
        facts: Versions, seed and fingerprint of the data.
    """

    folder: Path
    config: Mapping[str, Any]
    overrides: tuple[str, ...]
    facts: Mapping[str, Any]


class Logger(ABC):
    """A run in a tracker. Any method may raise whatever its package raises: training goes on all the same.

    Constructing it touches nothing; ``open`` may be called again after it failed.

    Args:
        run: The run.

    Attributes:
        requires: The package that it needs, of one that is shipped also the name of the extra that installs it.
    """

    requires: ClassVar[str]

    def __init__(self, run: RunFacts) -> None:
        self.run = run

    @abstractmethod
    def open(self, known: str | None, step: int) -> str:
        """Starts a run in the tracker, or goes on with one.

        Args:
            known: What an earlier call gave, if this run was stopped and goes on.
            step: The last step whose numbers were sent; -1 for none.

        Returns:
            What finds the tracker's run again.
        """

    @abstractmethod
    def send(self, numbers: Mapping[str, float], step: int) -> None:
        """Sends numbers by name (``val/digit/accuracy``), all finite, of one optimizer step."""

    @abstractmethod
    def close(self, state: str) -> None:
        """Ends the tracker's run: ``done``, ``failed`` or ``interrupted``, after which it may go on."""
