"""What the commands share: arguments, exit codes, and files that are not overwritten by accident."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NoReturn, TextIO

from mtl_cli import __version__, processes
from mtl_cli.errors import ConfigError, MTLError, Problem, UserError, did_you_mean, unexpected
from mtl_cli.paths import expanded
from mtl_cli.registry import mistakes_in_components
from mtl_cli.run import RunFolder
from mtl_cli.threads import wait_briefly

_DISK_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
MANY_NOTES = 20  # about a file; of more the console shows the first
_ARGUMENTS = ("id", "source")  # of functions that commands call, and of the commands
READING = ("sep", "encoding", "decimal", "thousands")  # options of text files that further files may have of their own


class Parser(argparse.ArgumentParser):
    """Arguments whose mistakes are told in the words and with the exit code of all others.

    Args:
        prog: Name of the command.
        description: What it does.
        example: A command line, shown by ``--help`` and with a missing argument.
    """

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog, description=description, epilog=f"example:\n  {example}", allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
        self._example = example

    def error(self, message: str) -> NoReturn:
        """Raises what argparse found as a ConfigError."""
        if message.startswith("the following arguments are required: "):
            names = message.partition(": ")[2]
            raise ConfigError(Problem(names, "must be given", f"Example: {self._example}"))
        if message.startswith("unrecognized arguments: "):
            words = message.partition(": ")[2].split()
            known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            flags = [word for word in words if word.startswith("-")] or words
            raise ConfigError([Problem(word, "unknown argument", did_you_mean(word, known)) for word in flags])
        found = re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL)
        where, what = (found[1], found[2]) if found else (self.prog, message)
        raise ConfigError(Problem(where.partition("/")[0], what))


def run(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 our bug or a full disk, 2 the user's error, 130 interrupted, 141
    when nobody reads what it prints any more, 143 when it was asked to end (SIGTERM).

    Of several processes that ``torchrun`` starts the first does it alone: no row is divided, and none is repeated.
    """
    print_any_sign()
    wait_briefly()
    try:
        if processes.size() > 1 and processes.rank() > 0:
            return 0
        os.environ.pop("WORLD_SIZE", None)
        try:
            with _tidy_end(), mistakes_in_components():
                command(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    except BrokenPipeError as error:  # whoever reads what we print has read enough: `| head`
        print_nowhere(sys.stdout, error)
        return 128 + signal.SIGPIPE
    except MTLError as error:
        return _failed(error, str(error), 2 if isinstance(error, UserError) else 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_TAKES_NO_MORE and error.filename is None:
            print_nowhere(sys.stdout, error)  # files of ours that cannot be written are MTLErrors
            return 1
        lines = str(error).strip().splitlines() or [""]
        text = f"{type(error).__name__}: {lines[0][:300]} {unexpected(error)}"
        return _failed(error, text, 1)
    return 0


@contextlib.contextmanager
def _tidy_end() -> Iterator[None]:
    """Has a signal to end remove what is half written, as an interrupt does; one that is ignored stays so (nohup)."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    in_charge = threading.current_thread() is threading.main_thread()  # else the caller's handlers are
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if in_charge and signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def print_any_sign() -> None:
    """Has signs that a terminal's encoding lacks printed as escapes: names of columns and jobs may have any."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_nowhere(stream: TextIO, error: OSError) -> None:
    """Sends what is printed from now on nowhere, as what it went to, a closed pipe or a full disk, takes no more.

    What still waits to be written goes there too: Python would try once more at its end, and complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if stream is sys.stdout and not isinstance(error, BrokenPipeError):  # a closed pipe is meant: `| head`
        say(f"note: standard output cannot be written, got '{error.strerror}'. Lines are missing there.", sys.stderr)


def say(text: str, stream: TextIO) -> None:
    """Prints, if it can be printed."""
    try:
        print(text, file=stream)
    except OSError as error:
        print_nowhere(stream, error)


def flush_output() -> None:
    """Writes what still waits to be written, if it can be."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            print_nowhere(stream, error)


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code, and all that was registered for the end of it done.

    Python would take PyTorch's modules apart one by one, which takes as long as half of the import of it.
    """
    if sys.getprofile() is None and sys.gettrace() is None:  # else somebody waits for what follows
        threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that are not daemons
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):  # a closed pipe: Python says so, and ends with a code for it
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


def _failed(error: Exception, text: str, code: int) -> int:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(text, file=sys.stderr)
    return code


def note(text: str) -> None:
    """Tells the user something about the run or the data, apart from the results."""
    print(f"note: {text}", file=sys.stderr)


def add_shared(parser: Parser) -> None:
    """Adds what commands about a run and the file of --data have in common.

    How the file is read (as which source, and in which signs it is written), by which weights and where, and whether
    the file of --out may be there.
    """
    parser.add_argument(
        "--source", metavar="NAME", help="which of the run's sources the file is like, if it has several"
    )
    parser.add_argument("--sep", metavar="SIGN", help="what separates the cells of the file; default: as in training")
    parser.add_argument("--encoding", metavar="NAME", help="text encoding of the file; default: as in training")
    signs = "; default: as in training, and none with --decimal"
    parser.add_argument("--decimal", choices=[".", ","], help="decimal sign in the file; default: as in training")
    parser.add_argument("--thousands", choices=[".", ",", " ", "'"], help=f"sign between groups of digits{signs}")
    parser.add_argument("--checkpoint", metavar="NAME", help="best or last; default: best if there is one")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps; default: as in training")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out if it exists")


def check_shared(given: argparse.Namespace, suffixes: Sequence[str]) -> list[Problem]:
    """What is wrong with the run, --data, --out, whose name ends with one of the suffixes, and ``add_shared``'s."""
    return [
        *check_run(given.run, given.checkpoint),
        *check_data(given.data),
        *check_out(given.out, suffixes, given.overwrite, given.data),
        *check_device(given.device),
    ]


def reading(given: argparse.Namespace) -> dict[str, str | None]:
    """The signs that the arguments of ``add_shared`` give, as options of a source; None: as in training."""
    return {key: getattr(given, key) for key in READING}


@contextlib.contextmanager
def own_words(further: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Has the problems of the file of --data name this command's arguments.

    Else they name keys that only mtl-train takes (``data.sep``), or arguments of a function (``source``).

    Args:
        further: What to add to the hints of problems, by where they are.

    Example:
        >>> with own_words():
        ...     raise ConfigError(Problem("x.csv", "one column found", 'Set data.sep=";".'))
        Traceback (most recent call last):
        mtl_cli.errors.ConfigError: x.csv: one column found. Set --sep=";".
    """
    keys = "|".join(READING)

    def told(problem: Problem) -> Problem:
        where, hint = (re.sub(rf"\bdata\.({keys})\b", r"--\1", text) for text in (problem.where, problem.hint))
        where = f"--{where}" if where in _ARGUMENTS else where
        return replace(problem, where=where, hint=f"{hint} {further.get(where, '')}".strip())

    try:
        yield
    except UserError as error:
        if not error.problems:
            raise
        raise type(error)([told(problem) for problem in error.problems]) from None


def check_run(path: str, checkpoint: str | None) -> list[Problem]:
    """What is wrong with a run folder, or the name of its checkpoint, before anything heavy is loaded."""
    try:
        folder = RunFolder.open(path)
    except UserError as error:
        return list(error.problems)
    there = folder.checkpoints()
    if checkpoint is not None and there and checkpoint not in there:
        hint = did_you_mean(checkpoint, there)
        if checkpoint == "best":
            hint = f"No evaluation gave a number to judge by, or trainer.checkpoint.save_top_k is 0. {hint}"
        return [Problem("--checkpoint", f"{path} has no '{checkpoint}'", hint)]
    return [] if there else [folder.lacks_model()]


def check_device(name: str | None) -> list[Problem]:
    """What is wrong with the name of a device; whether it is there is seen later."""
    if name is None:
        return []
    from mtl_cli import schema

    return schema.check_device(name, "--device")


def check_out(path: str | None, suffixes: Sequence[str], overwrite: bool, data: str | None) -> list[Problem]:
    """What is wrong with a file to write."""
    if path is None:
        return []
    out = expanded(path)
    if out.suffix.lower() not in suffixes:
        return [Problem("--out", f"must end with {' or '.join(suffixes)}, got '{path}'")]
    if not out.parent.is_dir():
        return [Problem("--out", f"there is no folder '{out.parent}'", "Make it first.")]
    if out.is_dir():
        return [Problem("--out", f"is a folder, got '{path}'")]
    if data is not None and out.exists() and expanded(data).exists() and out.samefile(expanded(data)):
        return [Problem("--out", f"is the file with the data, got '{path}'", "Choose another name.")]
    if out.exists() and not overwrite:
        return [Problem("--out", f"there is a file '{path}' already", "Add --overwrite, or choose another name.")]
    return []


def check_data(path: str | None) -> list[Problem]:
    """What is wrong with the name of a file, or of a folder of images, to read."""
    if path is None or expanded(path).is_dir():  # whether the run reads folders is seen later
        return []
    from mtl_cli.data.sources._files import existing_file

    try:
        existing_file(path)
    except UserError as error:
        return [Problem(f"--data {p.where}", p.what, p.hint) for p in error.problems]
    return []
