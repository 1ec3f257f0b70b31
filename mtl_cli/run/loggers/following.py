"""Trackers follow metrics.jsonl: what is in the file and was not sent yet is sent.

So an outage loses nothing (what was missed is sent when the tracker is back, at the latest at the end), a resumed run
says nothing twice, and no mistake of a tracker can stop a training.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from mtl_cli.errors import MTLError
from mtl_cli.run.folder import RunFolder
from mtl_cli.run.loggers.base import Logger

log = logging.getLogger(__name__)
FILE = "loggers.json"
PAUSE = 30.0  # seconds until a tracker that failed is tried again, or 10 times as long as failing took


class Followers:
    """All trackers of a run.

    Args:
        folder: The run folder, claimed.
        records: What metrics.jsonl holds.
        loggers: The trackers by name.
        clock: Seconds, for the pauses.
    """

    def __init__(
        self,
        folder: RunFolder,
        records: Sequence[Mapping[str, Any]],
        loggers: Mapping[str, Logger],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._records = folder, list(records)
        positions: dict[str, _Position] = {}
        if loggers and (folder.path / FILE).exists():
            try:
                positions = {name: _Position(**told) for name, told in dict(folder.read_json(FILE)).items()}
            except (MTLError, TypeError, ValueError) as error:
                log.warning("%s: cannot be used (%s); trackers start new runs.", folder.path / FILE, error)
        self._followers = [
            _Follower(name, one, positions.get(name, _Position()), clock) for name, one in loggers.items()
        ]

    def start(self) -> None:
        """Opens the trackers' runs, and sends what was not sent yet."""
        self._each(lambda follower: follower.catch_up(self._records))

    def follow(self, record: Mapping[str, Any]) -> None:
        """Takes a record that was written, and sends what was not sent yet. One that failed just now must wait."""
        self._records.append(record)
        self.start()

    def close(self, state: str, final: Mapping[str, float | None] | None = None) -> None:
        """Sends what is left, the final numbers if there are any, and ends the trackers' runs."""
        self._each(lambda follower: follower.close(self._records, state, final or {}))

    def _each(self, do: Callable[[_Follower], None]) -> None:
        before = [follower.position() for follower in self._followers]
        for follower in self._followers:
            do(follower)
        after = {follower.name: follower.position() for follower in self._followers}
        if list(after.values()) == before:
            return
        try:
            self._folder.write_json(FILE, {name: asdict(position) for name, position in after.items()})
        except MTLError as error:  # what else is written to that disk says whether training can go on
            log.warning("%s Trackers may be told twice after a resume.", error)


@dataclass(frozen=True)
class _Position:
    """How far a tracker has come, which a resumed run has to know.

    Args:
        run: What the tracker calls its run; None before there is one.
        records: How many were sent.
        step: That of the last of them.
        ended: Whether the tracker's run was ended, with nothing left to send.
    """

    run: str | None = None
    records: int = 0
    step: int = -1
    ended: bool = False

    def __post_init__(self) -> None:
        if not all(type(number) is int for number in (self.records, self.step)):
            raise TypeError(f"records and step are no whole numbers, got {self.records!r} and {self.step!r}")


class _Follower:
    """One tracker, how far it has come, and whether it works."""

    def __init__(self, name: str, logger: Logger, position: _Position, clock: Callable[[], float]) -> None:
        self.name, self._logger, self._clock = name, logger, clock
        self._run, self._sent, self._step, self._ended = astuple(position)
        self._is_open = self._warned = False
        self._not_before = -float("inf")

    def position(self) -> _Position:
        """How far it has come."""
        return _Position(self._run, self._sent, self._step, self._ended)

    def catch_up(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Sends what was not sent yet, unless the tracker failed just now."""
        if self._clock() >= self._not_before:
            self._try(lambda: self._send(records))

    def close(self, records: Sequence[Mapping[str, Any]], state: str, final: Mapping[str, float | None]) -> None:
        """Sends what is left and ends the tracker's run."""
        if self._ended and self._sent >= len(records) and not self._is_open:  # resumed, and nothing was left to do
            return
        complete = self._try(lambda: self._send(records))
        if complete and final:
            complete = self._try(lambda: self._logger.send(_numbers(final), max(self._step, 0)))
        if self._is_open:
            self._try(lambda: self._logger.close(state))
            self._ended = complete and state == "done"
        missing = len(records) - self._sent  # below 0 where a hard kill has cut metrics.jsonl back
        if not complete and missing > 0:
            told = "logger %s: %d of %d records are not there; metrics.jsonl has all."
            log.warning(told, self.name, missing, len(records))

    def _send(self, records: Sequence[Mapping[str, Any]]) -> None:
        if not self._is_open:
            self._run = self._logger.open(self._run, self._step)
            self._is_open = True
        # A hard kill may have cut metrics.jsonl back to the last checkpoint: what comes again was sent already.
        for record in records[self._sent :]:
            step = int(record["step"])
            self._logger.send(_numbers(record), step)
            self._sent, self._step = self._sent + 1, step

    def _try(self, do: Callable[[], None]) -> bool:
        started = self._clock()
        try:
            do()
        except Exception as error:  # whatever a tracker's package may raise
            took = self._clock() - started
            self._not_before = self._clock() + max(PAUSE, 10 * took)
            if not self._warned:
                lines = str(error).strip().splitlines() or [""]
                what = f"{type(error).__name__}: {lines[0][:300]}"
                log.warning("logger %s does not work (%s). Training goes on; metrics.jsonl has all.", self.name, what)
            self._warned = True
            return False
        return True


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record; metrics that are not defined are left out, for trackers know no null."""
    return {
        key: float(value)
        for key, value in record.items()
        if key != "step" and isinstance(value, int | float) and math.isfinite(value)
    }
