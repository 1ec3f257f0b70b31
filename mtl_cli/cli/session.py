"""What one command knows while it runs.

Hydra calls the entry point of a job, the callback of a sweep and the launchers with a configuration and nothing else.
Whatever they need besides, and whatever the command is to learn from them, is in the session of the command.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_cli.processes import Meeting

if TYPE_CHECKING:  # it imports PyTorch, which a mistake in a configuration must not wait for
    from mtl_cli.together import SharedData


@dataclass
class SweepState:
    """The sweep of a command, as far as this process has to do with it.

    Attributes:
        folder: The folder of the sweep that this process runs; None if there is none.
        in_this_process: Whether the jobs run in this process, and not in processes that a launcher starts.
        errors: Of the jobs that failed in this process, a line each.
        where_told: Where it stands why they failed.
        begun: Of each folder that a job had in this process, the job's number and overrides.
        in_use: Folders of jobs that another process was in.
        refused: Jobs whose folder holds a run that the sweep cannot use, and why; they count as failed.
        data: Those of the last job, for the next one to use if they are the same.
    """

    folder: Path | None = None
    in_this_process: bool = True
    errors: list[str] = field(default_factory=list)
    where_told: str = "the train.log of each says why"
    begun: dict[Path, tuple[int | None, list[str]]] = field(default_factory=dict)
    in_use: list[Path] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    data: SharedData | None = None


@dataclass
class Session:
    """What one command knows while it runs.

    Attributes:
        folders: Folders with configuration files, ours first; empty in a process that a launcher started.
        meeting: Where this process, the first of several, tells the others what to do; None if it is alone.
        started: When the command began, in seconds since the epoch.
        exit_code: What to end with if the command was interrupted by a signal.
        error: Of the job of a command that is no sweep: the command tells it, since Hydra would add a line of its own.
        told: What the user was told of the error that ended the command.
        file_states: Of the files that finished runs were trained on, by their sources.
        fingerprints: Of data that were read to see whether finished runs were trained on them.
        sweep: Its sweep.
    """

    folders: tuple[Path, ...] = ()
    meeting: Meeting | None = None
    started: float = field(default_factory=time.time)
    exit_code: int | None = None
    error: BaseException | None = None
    told: str = ""
    file_states: dict[str, Mapping[str, list[int]]] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    sweep: SweepState = field(default_factory=SweepState)


_current = Session()  # until a command begins; a process that a launcher started runs jobs without one


def current() -> Session:
    """The session of the command that this process runs."""
    return _current


def begin(session: Session) -> Session:
    """Makes a session the current one, and gives it."""
    global _current
    _current = session
    return session
