"""What the processes beside the first do: train with it, leave all writing and telling to it, and end as it does."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from mtl_cli.errors import ConfigError, MTLError
from mtl_cli.processes import Ending, Meeting, ProcessLost, rank
from mtl_cli.run import SeenRunFolder
from mtl_cli.schema import validate


def help_the_first() -> int:
    """Waits for the first process to begin a training, and helps; returns the exit code of the first.

    An error is told here if it is this process's own: the first tells what all of them meet.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would not interrupt a wait for the others
    log = logging.getLogger("mtl_cli")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    try:
        meeting = Meeting()
    except ConfigError as apart:
        print(f"process {rank()}: {apart}", file=sys.stderr)
        return 2
    error = _work(meeting)
    ending = meeting.wait_for_end(failed=error is not None)
    if error is not None and not _is_told(error, ending):
        text = str(error) if isinstance(error, MTLError) else "".join(traceback.format_exception(error))
        own = "" if isinstance(error, ProcessLost) else f"process {rank()}: "  # which says so itself
        print(f"{own}{text}", file=sys.stderr)
    meeting.leave()
    return 1 if ending is None else ending.code


def _work(meeting: Meeting) -> BaseException | None:
    """Trains with the first process, if it begins anything; gives the error that ended it."""
    work = meeting.wait_for_work()
    if work is None:
        return None
    from mtl_cli.job import Interrupted, train

    processes, folder = meeting.join(), SeenRunFolder(Path(work.folder))
    try:
        with processes.alike():
            config = replace(validate(folder.read_settings()), loggers={})
        train(config, folder, resume=work.resume, processes=processes)
    except Interrupted:
        return None
    except (Exception, KeyboardInterrupt) as error:
        meeting.leave()  # those who wait for this process see that it is gone
        return error
    return None


def _is_told(error: BaseException, ending: Ending | None) -> bool:
    """Whether the first process has told an error, or has itself left this process alone."""
    if ending is None:
        return False
    lines = str(error).splitlines() or [""]
    own = lines[0] or type(error).__name__
    return isinstance(error, ProcessLost) or (ending.text != "" and (own in ending.text or ending.text in own))
