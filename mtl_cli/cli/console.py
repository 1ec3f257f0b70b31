"""Where log lines go: to the console, and to the train.log of the run that they are about."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
from pathlib import Path

from mtl_cli.commands.entry import print_any_sign, print_nowhere
from mtl_cli.errors import UserError
from mtl_cli.run.atomic import write_error

log = logging.getLogger("mtl_cli")
#: What stands in front of the lines of a job that is trained together with others.
_label: contextvars.ContextVar[str] = contextvars.ContextVar("label", default="")
#: The log of the job whose code is running: each of several that are trained together has a context of its own.
_job_log: contextvars.ContextVar[RunLog | None] = contextvars.ContextVar("job_log", default=None)
_MOST_LETTERS = 1000  # of an error on one line; a message of ours names rows and keys


def show_log() -> None:
    """Shows what the package logs on the console, by a handler of its own: Hydra rebuilds those of the root logger."""
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        log.addHandler(_Console())
    print_any_sign()
    log.setLevel(logging.INFO)
    log.propagate = False


def label_lines(label: str) -> None:
    """Puts a label in front of every line that this context shows on the console."""
    _label.set(label)


def one_line(error: BaseException) -> str:
    r"""The class and the first line of an error, and how many mistakes it tells of besides.

    Example:
        >>> one_line(ValueError("no number\nin row 3"))
        'ValueError: no number'
        >>> from mtl_cli.errors import Problem
        >>> one_line(UserError([*map(Problem, "ab", ("is wrong", "is, too"))]))
        'UserError: a: is wrong. (and 1 more)'
    """
    lines = str(error).strip().splitlines()
    told = f"{type(error).__name__}: {lines[0] if lines else ''}"
    if len(told) > _MOST_LETTERS:
        told = f"{told[:_MOST_LETTERS]}…"
    more = len(error.problems[1:]) if isinstance(error, UserError) else 0
    return f"{told} (and {more} more)" if more else told


class RunLog:
    """While it is open, what the package logs in this context also goes to a run's train.log.

    Args:
        path: The file; None for a dry run, whose lines go to no file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._handler: logging.Handler | None = None
        self._before: contextvars.Token[RunLog | None] | None = None

    def __enter__(self) -> RunLog:
        if self._path is not None:
            try:
                self._handler = _LogFile(self._path, encoding="utf-8")
            except OSError as error:
                raise write_error(self._path, error) from error
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self._handler.addFilter(lambda _: _job_log.get() is self)
            log.addHandler(self._handler)
        self._before = _job_log.set(self)
        return self

    def only_here(self, text: str) -> None:
        """Writes to the file what is too long for the console."""
        if self._handler is not None:
            self._handler.handle(logging.LogRecord(log.name, logging.ERROR, "", 0, text, None, None))

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _job_log.reset(self._before)
        if self._handler is not None:
            log.removeHandler(self._handler)
            with contextlib.suppress(OSError):  # what it could not write, it has told; another error may be passing
                self._handler.close()


class _Console(logging.Handler):
    """Log lines that do not tear a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record to standard output."""
        from tqdm import tqdm

        try:
            tqdm.write(_label.get() + self.format(record), file=sys.stdout)
        except OSError as error:  # `| head`, a full disk: training goes on, and train.log has every line
            print_nowhere(sys.stdout, error)


class _LogFile(logging.FileHandler):
    """A file whose disk may be full: logging's own handler would print a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Says once that lines are missing; what must not be lost is written elsewhere and stops the run."""
        log.removeHandler(self)
        log.warning("%s: cannot be written, got '%s'. Lines are missing there.", self.baseFilename, sys.exc_info()[1])
