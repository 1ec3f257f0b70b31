"""The configuration files: the shipped ones, those of the user, and those that were chosen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mtl_cli.errors import ConfigError, Problem

_GLOBAL = "# @package _global_"


def config_dir() -> Path:
    """The shipped configuration files: inside the package in a wheel, beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RuntimeError("mtl-train: its configs/ folder is missing; install the package again")


def search_path(sources: Iterable[Any]) -> tuple[Path, ...]:
    """The folders with configuration files, from what Hydra says of a running job; ours first."""
    folders = [Path(source.path) for source in sources if source.schema == "file" and source.provider != "hydra"]
    return tuple(folder for folder in folders if folder.is_dir())


def config_groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Choices of each config group in these folders: ``{"encoder": ["mlp"], ...}``."""
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/**/*.yaml")) if folder.is_dir() else []:
            groups.setdefault(file.parent.relative_to(folder).as_posix(), []).append(file.stem)
    return groups


def composed_files(folders: Sequence[Path], choices: Mapping[str, Any]) -> list[Path]:
    """The files that were chosen, task and experiment last: they win. The main one holds defaults, never a mistake."""
    files = []
    for group, choice in sorted(choices.items(), key=lambda item: (item[0] == "experiment", item[0] == "task")):
        names = choice if isinstance(choice, list) else [choice]
        files += [f for name in names for folder in folders if (f := folder / group / f"{name}.yaml").is_file()]
    return files


def check_shadowed(own: Path) -> None:
    """Finds files of the user that would be ignored: Hydra takes ours where both have the same name.

    Raises:
        ConfigError: Every such file, unless it is a copy.
    """
    shipped = config_dir()
    problems = []
    for file in sorted(own.rglob("*.yaml")) if own.resolve() != shipped else []:
        ours = shipped / file.relative_to(own)
        if ours.is_file() and ours.read_bytes() != file.read_bytes():
            what = "would be ignored: mtl-train ships a file of that name"
            problems.append(Problem(short_path(file), what, "Give yours another name."))
    if problems:
        raise ConfigError(problems)


def check_headers(config: DictConfig, files: Sequence[Path]) -> None:
    """Finds task and experiment files without their first line: Hydra puts all they say below ``task``.

    Raises:
        ConfigError: Every such file.
    """
    problems = [
        Problem(f"{short_path(file)}, line 1", f"must be `{_GLOBAL}`", "Without it, what the file says has no effect.")
        for file in files
        if file.parent.name in ("task", "experiment") and file.parent.name in config
    ]
    if problems:
        raise ConfigError(problems)


def package_of(file: Path, text: str) -> str:
    """The key path below which a file's own keys stand: its group, or what a ``# @package`` header says."""
    header = re.match(r"\s*#\s*@package[ \t]+(\S+)", text)  # whatever Hydra takes for one
    package = header[1] if header else file.parent.name
    return "" if package == "_global_" else package


def is_utf8(file: Path) -> bool:
    """Whether a file can be read as text."""
    try:
        file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True


def short_path(path: Path) -> str:
    """A path as people would type it: relative to here if it is below."""
    shipped = config_dir()
    if path.is_relative_to(shipped):
        return f"configs/{path.relative_to(shipped).as_posix()}"
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
