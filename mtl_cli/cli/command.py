"""The command line of ``mtl-train``: arguments in, exit code out.

Exit codes: 0 done, 1 our bug, or a job that failed or is left to another process, 2 the user's error, 130 / 143
interrupted. A traceback is shown with ``HYDRA_FULL_ERROR=1`` only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import hydra

from mtl_cli import __version__, composition, processes
from mtl_cli.cli import hydra_launcher, session
from mtl_cli.cli.composed import no_task
from mtl_cli.cli.console import one_line, show_log
from mtl_cli.cli.entrypoint import run_job
from mtl_cli.cli.several_processes import check_processes
from mtl_cli.cli.single_run import folder_to_resume, resume_from_folder
from mtl_cli.cli.sweep_end import is_of_a_job, told_of_failures, told_of_unfinished, write_leaderboard
from mtl_cli.commands.entry import flush_output, leave, print_nowhere, say
from mtl_cli.errors import ConfigError, MTLError, Problem, UserError, unexpected
from mtl_cli.helper import help_the_first
from mtl_cli.processes import Ending, Meeting
from mtl_cli.threads import wait_briefly

_SWEEPING = {"-m", "--multirun"}
_SHOWING = {"--cfg", "-c", "--help", "-h", "--info", "-i"}  # flags with which nothing is trained


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-train``. Ends the process with the exit code; ``run_command`` returns it."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wait_briefly()
    try:
        processes.check()
        several = processes.size() > 1
    except ConfigError:
        several = False  # the command says so
    if several and processes.rank() > 0:
        leave(help_the_first())
    code = _lead(arguments) if several else run_command(arguments)
    flush_output()
    leave(code)


def _lead(arguments: Sequence[str]) -> int:
    """Runs a command line as the first of several processes; the others help, and end as it does."""
    try:
        meeting, code = Meeting(), 1
    except ConfigError as error:
        say(str(error), sys.stderr)
        return 2
    try:
        code = run_command(arguments, meeting)
    finally:
        meeting.end(Ending(code, session.current().told))
    return code


def run_command(arguments: Sequence[str], meeting: Meeting | None = None) -> int:
    """Runs a command line; returns the exit code.

    Args:
        arguments: Without the name of the command.
        meeting: Where this process, the first of several, tells the others what to do; None if it is alone.
    """
    flags, overrides = composition.split_arguments(arguments)
    own = composition.user_config_dir(flags)
    folders = (composition.config_dir(), *([own] if own else []))
    command = session.begin(session.Session(folders=folders, meeting=meeting))
    show_log()
    code = _run(flags, overrides, own)
    try:
        write_leaderboard()
    except (MTLError, OSError) as error:
        say(str(error), sys.stderr)
        code = code or 1
    except KeyboardInterrupt:
        code = command.exit_code or 130
    if command.told:
        say(command.told, sys.stderr)
    return code


def _run(flags: list[str], overrides: list[str], own: Path | None) -> int:
    """Does what a command line asks for; returns the exit code, whatever ends it. The session has what to tell."""
    command = session.current()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    shows = _SHOWING & composition.flag_names(flags)
    try:
        with _errors_raised_by_hydra(), _quiet_log() if shows else contextlib.nullcontext():
            return _carry_out(flags, overrides, own)
    except KeyboardInterrupt:
        return command.exit_code or 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and shows:
            print_nowhere(sys.stdout, error)
            return 128 + signal.SIGPIPE
        code, command.told = _explain(error, overrides)
        if show_traceback:
            traceback.print_exception(error)
        return code


@contextlib.contextmanager
def _errors_raised_by_hydra() -> Iterator[None]:
    """Has Hydra raise its errors: else it prints them, and ends the process by itself."""
    previous = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = previous


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Has the log that Hydra shows things by (``--info``) end quietly, too, where nobody reads any more."""
    previous, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = previous


def _carry_out(flags: list[str], overrides: list[str], own: Path | None) -> int:
    """Does what a command line asks for; returns the exit code of a command that ends without an error."""
    composition.check_flags(flags)
    if "--version" in flags:
        print(f"mtl-train {__version__} (Hydra {hydra.__version__})")
        return 0
    groups = _check(flags, overrides, own)
    folder = folder_to_resume(flags, overrides)
    if folder is not None:
        resume_from_folder(folder, overrides)
        return 0
    _run_hydra([*flags, *(composition.forced(override, groups) for override in overrides)], overrides, own)
    error = session.current().error
    if error is not None:
        raise error
    told = [text for text in (told_of_failures(), told_of_unfinished()) if text is not None]
    for text in told:
        say(text, sys.stderr)
    return int(bool(told))


def _check(flags: list[str], overrides: list[str], own: Path | None) -> Mapping[str, list[str]]:
    """Finds what is wrong with a command line before anything is composed; gives the config groups."""
    sweeps = bool(_SWEEPING & composition.flag_names(flags))
    check_processes(sweeps=sweeps)
    if own is not None and not own.is_dir():
        raise ConfigError(Problem("--config-dir", f"there is no folder '{own}' in {Path.cwd()}"))
    if own is not None:
        composition.check_shadowed(own)
    groups = composition.config_groups(session.current().folders)
    composition.check_overrides(overrides, sweeps, groups)
    trains = sweeps and not _SHOWING & composition.flag_names(flags)
    # Else each job would fail with the same message. An experiment, or a value of `tasks`, may bring the tasks.
    if trains and not any(o.lstrip("+").startswith(("task", "experiment", "hydra.sweeper")) for o in overrides):
        raise no_task(groups)
    return groups


def _run_hydra(arguments: Sequence[str], overrides: Sequence[str], own: Path | None) -> None:
    """Lets Hydra compose the jobs, and call ``run_job`` for each of them."""
    hydra_launcher.register()
    saved, sys.argv = sys.argv, ["mtl-train", *arguments]
    try:
        with composition.mode_by_flags(overrides, own):
            run_job()
    finally:
        sys.argv = saved


def _explain(error: Exception, overrides: Sequence[str]) -> tuple[int, str]:
    """The exit code for an error, and what to tell of it; a job's own was told when it failed."""
    failures = told_of_failures()
    if failures and is_of_a_job(error):
        return 1, failures
    code, message = _explain_own(error, overrides)
    return (1, f"{message}\n{failures}") if failures else (code, message)


def _explain_own(error: Exception, overrides: Sequence[str]) -> tuple[int, str]:
    """The same for an error that is no job's."""
    if isinstance(error, MTLError):
        return (2 if isinstance(error, UserError) else 1), str(error)
    message = composition.friendly(error, overrides, session.current().folders)
    return (1, f"{one_line(error)} {unexpected(error)}") if message is None else (2, message)
