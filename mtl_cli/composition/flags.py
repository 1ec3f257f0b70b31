"""The flags of a command line, apart from its overrides."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.hydra import Hydra

from mtl_cli.errors import ConfigError, Problem

_FLAGS_WITH_VALUE = (
    "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p",
    "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--experimental-rerun",
)  # fmt: skip
_OTHER_FLAGS = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")
_CONFIG_DIR = ("--config-dir", "-cd")


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates flags, each joined with its value, from overrides, so that they may be given in any order.

    Example:
        >>> split_arguments(["task=digits", "--config-dir", "conf", "seed=1", "-m"])
        (['--config-dir=conf', '-m'], ['task=digits', 'seed=1'])
    """
    flags, overrides, rest = [], [], list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
        elif argument in ("--info", "-i") and (not rest or "=" in rest[0]):
            flags.append(f"{argument}=all")  # what Hydra takes it for, but not in front of an override
        elif argument in _FLAGS_WITH_VALUE and rest:
            flags.append(f"{argument}={rest.pop(0)}")
        else:
            flags.append(argument)
    return flags, overrides


def flag_names(flags: Sequence[str]) -> set[str]:
    """The flags without their values."""
    return {flag.partition("=")[0] for flag in flags}


def user_config_dir(flags: Sequence[str]) -> Path | None:
    """The folder given with ``--config-dir``."""
    folders = _config_dirs(flags)
    return Path(folders[-1]) if folders else None


def without_config_dir(flags: Sequence[str]) -> list[str]:
    """The other flags.

    Example:
        >>> without_config_dir(["--config-dir=conf", "-m", "-cd=more"])
        ['-m']
    """
    return [flag for flag in flags if flag.partition("=")[0] not in _CONFIG_DIR]


def check_flags(flags: Sequence[str]) -> None:
    """Finds flags that there are not, those that lack their value, and a second folder of configuration files.

    Raises:
        ConfigError: Every such flag.
    """
    problems = []
    for given in flags:
        flag, _, value = given.partition("=")
        if flag not in (*_FLAGS_WITH_VALUE, *_OTHER_FLAGS):
            key = flag.lstrip("-")
            hint = f"Keys are set without dashes: {key}={value or '...'}. Flags: mtl-train --hydra-help."
            problems.append(Problem(flag, "unknown flag", hint))
        elif flag in _FLAGS_WITH_VALUE and not value:
            problems.append(Problem(flag, "needs a value", f"Write {flag} VALUE."))
    folders = _config_dirs(flags)
    if len(folders) > 1:  # Hydra would take the last, and say nothing of the others
        what = f"must be given once, got {' and '.join(folders)}"
        problems.append(Problem("--config-dir", what, "Put the files of both into one folder."))
    if problems:
        raise ConfigError(problems)


def _config_dirs(flags: Sequence[str]) -> list[str]:
    pairs = (flag.partition("=") for flag in flags)
    return [folder for flag, _, folder in pairs if flag in _CONFIG_DIR and folder]


@contextlib.contextmanager
def mode_by_flags(overrides: Sequence[str], own: Path | None) -> Iterator[None]:
    """Lets ``-m`` alone say whether a command is a sweep, where nothing sets ``hydra.mode``.

    Hydra composes everything once more just to look for that key, which is half of the time until an error is told.

    Args:
        overrides: Of the command line.
        own: The user's folder of configuration files. The shipped ones do not set the key.
    """
    files = [] if own is None else [file.read_bytes() for file in own.rglob("*.y*ml") if file.is_file()]
    if any(re.search(rb"\bmode\b|searchpath", text) for text in (*files, *(o.encode() for o in overrides))):
        yield
        return
    looks, Hydra.get_mode = Hydra.get_mode, lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = looks  # type: ignore[method-assign]
