"""The end of a sweep: the leaderboard, and what is told of jobs that failed or were left to another process."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_cli.cli import session
from mtl_cli.cli.console import one_line
from mtl_cli.cli.job_folder import clear_away
from mtl_cli.commands.entry import say
from mtl_cli.errors import RunError
from mtl_cli.run import RunFolder, is_locked
from mtl_cli.sweep import JobRecord, collect, format_table, write


def told_of_failures() -> str | None:
    """How many jobs of this command's sweep failed, for people to read; None if none did."""
    count = len(_errors())
    return f"{count} job{'' if count == 1 else 's'} failed; {session.current().sweep.where_told}." if count else None


def is_of_a_job(error: Exception) -> bool:
    """Whether an error is that of a job that failed, which a sweep passes on when all jobs have ended."""
    return one_line(error) in _errors()


def told_of_unfinished() -> str | None:
    """How many jobs were left to another process, which has not finished them yet; None if there are none."""
    count = _left_unfinished()
    if not count:
        return None
    told = f"{count} job{' is' if count == 1 else 's are'} in use by another process and not done yet."
    return f"{told} The same command again takes over what that one leaves."


def write_leaderboard() -> None:
    """Prints and writes the leaderboard of a sweep, also of one that broke off."""
    sweep = session.current().sweep
    folder = _folder()
    if folder is None:
        return
    records = [
        _refused(record, sweep.refused[record.job]) if record.job in sweep.refused else record
        for record in collect(folder)
    ]
    if not records:
        if [entry.name for entry in folder.iterdir()] == ["multirun.yaml"]:  # Hydra's own, written before any job
            (folder / "multirun.yaml").unlink()
        clear_away(folder)
        return
    say(f"\n{format_table(records)}\n\nsweep folder: {folder}", sys.stdout)
    left = {record.job for record in records if record.status in ("failed", "interrupted")}
    if left.difference(sweep.refused):
        say(f"to go on: the same command with hydra.sweep.dir={folder}, which leaves alone what is done", sys.stdout)
    write(folder, records)  # last: the disk may be full


def _refused(record: JobRecord, why: str) -> JobRecord:
    """The numbers of a finished job that the sweep cannot use are not of what it asks for."""
    return replace(record, status="changed" if record.status == "done" else record.status, error=why)


def _errors() -> list[str]:
    """Why jobs of this command's sweep failed; those that ran in other processes have said so in their folders."""
    command = session.current()
    sweep = command.sweep
    folder = _folder()
    if folder is None or sweep.in_this_process:
        return sweep.errors
    states = (entry / "status.json" for entry in folder.iterdir())
    ours = [file.parent for file in states if file.exists() and file.stat().st_mtime >= command.started]
    return [str(status.get("error")) for status in map(_status, ours) if status.get("state") == "failed"]


def _left_unfinished() -> int:
    sweep = session.current().sweep
    folder = _folder()
    if folder is None or sweep.in_this_process:
        return sum(_status(job).get("state") != "done" for job in sweep.in_use)
    return sum(is_locked(job) for job in folder.iterdir())


def _folder() -> Path | None:
    """The folder of the sweep that this process runs; None if there is none, or it could not be made."""
    folder = session.current().sweep.folder
    # not by Path.is_dir, which raises for names that are too long
    return folder if folder is not None and os.path.isdir(folder) else None  # noqa: PTH112


def _status(job: Path) -> dict[str, Any]:
    """What the status of a job says; nothing if it cannot be read, of which the leaderboard tells."""
    try:
        return RunFolder(job).status
    except RunError:
        return {}
