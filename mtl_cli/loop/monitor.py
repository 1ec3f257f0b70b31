"""The numbers that decide which epochs are best, and when to stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_cli.loop.evaluate import Evaluation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Monitor:
    """One number of an evaluation on the validation split.

    Args:
        name: ``mean``, ``worst``, ``val/loss`` or ``val/<task>/<metric>``.
        higher_is_better: Its direction.

    Example:
        >>> Monitor("mean", True).better(0.9, 0.8), Monitor("val/loss", False).better(0.9, 0.8)
        (True, False)
    """

    name: str
    higher_is_better: bool

    @property
    def number(self) -> str:
        """The name of the number in the metrics, the same for ``mean`` and ``val/mean``."""
        return self.name if "/" in self.name else f"val/{self.name}"

    @property
    def over_tasks(self) -> bool:
        """Whether it is of the primary metrics of all tasks that have one in an evaluation."""
        return self.number in ("val/mean", "val/worst")

    def value(self, evaluation: Evaluation) -> float | None:
        """The number, or None if it is not defined in this evaluation."""
        return evaluation.flat("val")[self.number]

    def better(self, value: float | None, than: float | None, by: float = 0.0) -> bool:
        """Whether ``value`` beats ``than`` by more than ``by``. None and NaN never do; any other value beats them."""
        if value is None or math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        return value > than + by if self.higher_is_better else value < than - by


_OF_AN_EPOCH = "epoch-"


def checkpoint_of(epoch: int) -> str:
    """The name of the checkpoint of an epoch, of those that are kept besides the best."""
    return f"{_OF_AN_EPOCH}{epoch}"


def is_of_an_epoch(checkpoint: str) -> bool:
    """Whether a checkpoint has the name of one of those."""
    return checkpoint.startswith(_OF_AN_EPOCH)


@dataclass
class Best:
    """The best evaluations so far: which checkpoints to keep.

    Args:
        monitor: What is compared.
        keep: How many to keep; -1 keeps all, 0 none.
        entries: ``[score, epoch, step]`` of those kept, best first.
        outdated: Epochs that were kept by another monitor or ``keep``, until the next score.
    """

    monitor: Monitor
    keep: int
    entries: list[list[Any]] = field(default_factory=list)
    outdated: list[int] = field(default_factory=list)

    @property
    def score(self) -> float | None:
        """The best score, or None before there is one."""
        return self.entries[0][0] if self.entries else None

    @property
    def several(self) -> bool:
        """Whether each that is kept has a checkpoint by its epoch, besides that of the best."""
        return self.keep not in (0, 1)

    def checkpoints(self, epoch: int) -> list[str]:
        """The names that the checkpoint of ``epoch``, one of those kept, is to have."""
        of_epoch = [checkpoint_of(epoch)] if self.several else []
        return of_epoch + (["best"] if self.entries[0][1] == epoch else [])

    def add(self, score: float | None, epoch: int, step: int) -> tuple[bool, list[int]]:
        """Takes a score.

        An epoch that a limit has cut short and that was gone on with has two: the better one stays.

        Returns:
            Whether it is kept, and the epochs whose checkpoints are no longer needed.
        """
        outdated, self.outdated = self.outdated, []
        if score is None or math.isnan(score) or self.keep == 0:
            return False, outdated
        cut = next((entry for entry in self.entries if entry[1] == epoch), None)
        if cut is not None:
            if not self.monitor.better(score, cut[0]):
                return False, outdated
            self.entries.remove(cut)
        place = next(
            (i for i, entry in enumerate(self.entries) if self.monitor.better(score, entry[0])), len(self.entries)
        )
        self.entries.insert(place, [score, epoch, step])
        dropped = [] if self.keep < 0 else self.entries[self.keep :]
        self.entries = self.entries if self.keep < 0 else self.entries[: self.keep]
        kept = place < len(self.entries) and self.entries[place][1] == epoch
        # By another monitor the same epoch may have been kept, cut short: what takes its place has its name.
        outdated = [other for other in outdated if not (kept and other == epoch)]
        return kept, [*outdated, *(entry[1] for entry in dropped)]

    def begin_anew(self) -> None:
        """Forgets all scores, which count no more; what was kept by them is kept until there is another score."""
        self.outdated = [*self.outdated, *(entry[1] for entry in self.entries)]
        self.entries = []

    def load_entries(self, entries: Sequence[Sequence[Any]], outdated: Sequence[int] = ()) -> None:
        """Puts back what a checkpoint has of ``entries``; files are named, and removed, by what stands in it.

        Raises:
            ValueError: It is something else.
        """
        for entry in entries:
            if len(entry) != 3 or type(entry[0]) not in (int, float) or not all(type(n) is int for n in entry[1:]):
                raise ValueError(f"its best scores are not [score, epoch, step], got {entry!r}")
        if not all(type(epoch) is int for epoch in outdated):
            raise ValueError(f"its outdated epochs are no whole numbers, got {outdated!r}")
        self.entries, self.outdated = [list(entry) for entry in entries], list(outdated)
        if self.keep == 0:  # more were kept when it was written
            self.begin_anew()


@dataclass
class EarlyStopping:
    """Stops when the monitored number has not improved for a while.

    Args:
        monitor: What is watched.
        patience: Evaluations without improvement after which to stop; None never stops.
        min_delta: An improvement must be larger than this.
    """

    monitor: Monitor
    patience: int | None
    min_delta: float
    best: float | None = None
    waited: int = 0

    def should_stop(self, evaluation: Evaluation) -> bool:
        """Takes an evaluation; whether to stop now. An undefined number counts as no improvement."""
        value = self.monitor.value(evaluation)
        if self.monitor.better(value, self.best, self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.patience is not None and self.waited >= self.patience

    def begin_anew(self) -> None:
        """Forgets what it has seen, which is of another monitor."""
        self.best, self.waited = None, 0

    def state(self) -> list[Any]:
        """For the checkpoint."""
        return [self.best, self.waited]

    def load_state(self, state: Sequence[Any]) -> None:
        """Puts back what ``state`` gave."""
        best, waited = state
        self.best, self.waited = None if best is None else float(best), int(waited)


@dataclass(frozen=True)
class Scores:
    """What the evaluations of a training have scored so far.

    Args:
        best: Which were the best.
        early_stopping: How long it is that they have not become better.
    """

    best: Best
    early_stopping: EarlyStopping

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "best": self.best.entries,
            "outdated": self.best.outdated,
            "early_stopping": self.early_stopping.state(),
            "monitors": self._monitors(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint holds, of which this is a part.

        Scores of another number than now cannot be compared with later ones: they are forgotten, with a warning.
        """
        self.best.load_entries(state["best"], state.get("outdated", ()))
        self.early_stopping.load_state(state["early_stopping"])
        now = self._monitors()
        before = {**now, **state.get("monitors", {})}  # what an earlier version wrote does not say it
        changed = [key for key in now if before[key] != now[key]]
        if "checkpoint" in changed:
            self.best.begin_anew()
        if "early_stopping" in changed:
            self.early_stopping.begin_anew()
        if changed:
            told = ", ".join(f"trainer.{key}.monitor ({before[key]} before, {now[key]} now)" for key in changed)
            log.warning("%s: the scores so far are of another number and count no more", told)

    def _monitors(self) -> dict[str, str]:
        """The numbers that decide what is best and when to stop."""
        return {"checkpoint": self.best.monitor.number, "early_stopping": self.early_stopping.monitor.number}
