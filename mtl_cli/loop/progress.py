"""How far training is to go, and how far it has come."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    rows: int = 0
    seconds: float = 0.0
    finished: bool = False
    skipped: int = 0

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

    @property
    def begun(self) -> int:
        """Epochs that have begun: the number, from 1, of the one under way, or of the last if none is.

        Example:
            >>> Progress(epoch=2).begun, Progress(epoch=2, step_in_epoch=5).begun
            (2, 3)
        """
        return self.epoch + (self.step_in_epoch > 0)
