"""Between Hydra and the rest: overrides in, plain mappings and readable errors out.

Hydra would refuse ``tasks.income.weight=2`` where the file does not list the option, and accept ``+sed=1``. Here every
override is applied, and ``schema.validate`` alone decides what is a key: one rule, one message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtl_cli.errors import ConfigError, Problem, did_you_mean

TOP_LEVEL = (
    "data", "tasks", "input_dim", "shared_dim", "only", "monitor", "seed", "resume", "dry_run", "plugins", "extra", "hydra",
)  # fmt: skip
FLAGS_WITH_VALUE = (
    "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p",
    "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc",
)  # fmt: skip


def config_dir() -> Path:
    """The shipped configuration files: inside the package in a wheel, beside it in a source tree."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise RuntimeError("mtl-train: its configs/ folder is missing; install the package again")


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates flags (with their values) from overrides, so that they may be given in any order.

    Example:
        >>> split_arguments(["task=digits", "--config-dir", "conf", "seed=1", "-m"])
        (['--config-dir', 'conf', '-m'], ['task=digits', 'seed=1'])
    """
    flags, overrides, rest = [], [], list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        flags.append(argument)
        if argument in FLAGS_WITH_VALUE and rest:
            flags.append(rest.pop(0))
    return flags, overrides


def user_config_dir(flags: Sequence[str]) -> Path | None:
    """The folder given with ``--config-dir``."""
    for flag, value in zip(flags, [*flags, ""][1:], strict=True):
        if flag in ("--config-dir", "-cd"):
            return Path(value)
        if flag.startswith("--config-dir="):
            return Path(flag.partition("=")[2])
    return None


def config_groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Choices of each config group in these folders: ``{"encoder": ["mlp"], ...}``."""
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/**/*.yaml")) if folder.is_dir() else []:
            groups.setdefault(file.parent.relative_to(folder).as_posix(), []).append(file.stem)
    return groups


def forced(override: str, groups: Mapping[str, Any]) -> str:
    """An override that Hydra applies whether or not a file lists the key; choices of groups stay as they are.

    Example:
        >>> forced("tasks.income.weight=2", {}), forced("sharing=mmoe", {"sharing": []}), forced("~extra", {})
        ('++tasks.income.weight=2', 'sharing=mmoe', '~extra')
    """
    key = override.lstrip("+").partition("=")[0].partition("@")[0].lstrip("/")
    if (
        override.startswith("~")
        or "=" not in override
        or key in groups
        or key == "hydra"
        or key.startswith(("hydra.", "hydra/"))
    ):
        return override
    return "++" + override.lstrip("+")


def check_overrides(overrides: Sequence[str], multirun: bool, groups: Mapping[str, Any]) -> None:
    """Finds overrides that Hydra could not read, and what can be said of them before anything is composed.

    Raises:
        ConfigError: Every such override, with the way to write it.
    """
    parser = OverridesParser.create()
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        try:
            override = parser.parse_override(text)
        except HydraException:
            what = f"cannot read the value of '{text}'" if equals else f"'{text}' is no override"
            hint = f"Quote it: '{key}=\"{value}\"'." if equals else "Write key=value."
            problems.append(Problem("command line", what, hint))
            continue
        if override.is_sweep_override() and not multirun:
            what = f"'{text}' gives several values for one run"
            problems.append(Problem("command line", what, f"For a sweep add -m; for a list write {key}=[{value}]."))
        top = key.lstrip("+~")
        near = did_you_mean(top, [*groups, *TOP_LEVEL])
        if top not in groups and top not in TOP_LEVEL and "." not in top and near.startswith("Did"):
            problems.append(Problem(f"{top} (command line)", "unknown key", near))
    if problems:
        raise ConfigError(problems)


def shown(overrides: Sequence[str]) -> list[str]:
    """Overrides as the user wrote them."""
    return [override.removeprefix("++") for override in overrides]


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain mappings and lists, with interpolations resolved.

    Raises:
        ConfigError: Every value that is missing (``???``) or refers to what is not there.
    """
    problems: list[Problem] = []
    value = _plain(config, "", problems)
    if problems:
        raise ConfigError(problems)
    return dict(value)


def origin_of(overrides: Sequence[str], files: Sequence[Path]) -> Callable[[str], str | None]:
    """Finds where a key path was set: on the command line, or in which line of which file.

    Args:
        overrides: Of the command line.
        files: The files that were composed, the one that wins last.
    """
    on_command_line = {o.lstrip("+~").partition("=")[0] for o in overrides if "=" in o or o.startswith("~")}

    def find(path: str) -> str | None:
        if any(
            key == path or path.startswith((f"{key}.", f"{key}[")) or key.startswith(f"{path}.")
            for key in on_command_line
        ):
            return "command line"
        keys = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
        while keys:
            for file in reversed(files):
                line = _line_in(file, keys)
                if line is not None:
                    return f"{_short(file)}, line {line}"
            keys.pop()  # a key that must be given is missing where its parent stands
        return None

    return find


def composed_files(config: DictConfig, folders: Sequence[Path], choices: Mapping[str, Any]) -> list[Path]:
    """The files behind a composed configuration: the main one, then each group's choice; task and experiment win."""
    del config
    files = [folders[0] / "config.yaml"]
    for group, choice in sorted(choices.items(), key=lambda item: (item[0] == "task", item[0] == "experiment")):
        names = choice if isinstance(choice, list) else [choice]
        files += [f for name in names for folder in folders if (f := folder / group / f"{name}.yaml").is_file()]
    return files


def friendly(error: Exception, overrides: Sequence[str], folders: Sequence[Path]) -> str | None:
    """Our message for an exception of Hydra, OmegaConf or YAML, or None if it is none that a user can mend."""
    groups = config_groups(folders)
    if isinstance(error, MissingConfigException):
        return _no_such_choice(error, groups)
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        place = f"{_short(Path(mark.name))}, line {mark.line + 1}" if mark is not None else "a configuration file"
        return f"{place}: is not valid YAML ({getattr(error, 'problem', None) or 'cannot be read'})."
    if isinstance(error, ConfigCompositionException | HydraException | OmegaConfBaseException):
        text = str(error)
        key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct|append.*?'([^']+)'", text)
        word = next((g for g in key.groups() if g), "") if key else ""
        hint = did_you_mean(word, groups) if word and word in text and word not in groups else ""
        return " ".join(part for part in (text.strip().splitlines()[0].rstrip("."), hint) if part).rstrip() + (
            "" if hint else "."
        )
    if isinstance(error, RecursionError):
        return "the configuration refers to itself without end. Look at `defaults:` lists and ${...} in your files."
    return None


def _plain(node: Any, where: str, problems: list[Problem]) -> Any:
    if isinstance(node, DictConfig) and node._is_none():
        return None
    if isinstance(node, DictConfig):
        return {key: _child(node, key, f"{where}.{key}" if where else str(key), problems) for key in node}
    if isinstance(node, ListConfig):
        return [_child(node, i, f"{where}[{i}]", problems) for i in range(len(node))]
    return node


def _child(node: DictConfig | ListConfig, key: Any, where: str, problems: list[Problem]) -> Any:
    if OmegaConf.is_missing(node, key):
        problems.append(Problem(where, "must be set, got ???", f"Example: {where}=..."))
        return None
    try:
        return _plain(node[key], where, problems)
    except OmegaConfBaseException as error:
        raw = OmegaConf.to_container(node, resolve=False)
        text = raw[key] if isinstance(raw, dict | list) else raw
        reason = str(error).splitlines()[0]
        problems.append(Problem(where, f"cannot be resolved, got '{text}' ({reason})"))
        return None


def _line_in(file: Path, keys: Sequence[str]) -> int | None:
    """The line of a key path in a YAML file, considering a ``# @package`` header and the folder it is in."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    group = "" if "@package _global_" in text.partition("\n")[0] or file.name == "config.yaml" else file.parent.name
    keys = list(keys)
    if group:
        if not keys or keys[0] != group:
            return None
        keys = keys[1:]
        if not keys:
            return 1
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == key), None)
        elif isinstance(node, yaml.SequenceNode):
            found = _list_entry(node, key)
        else:
            found = None
        if found is None:
            return None
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _list_entry(node: yaml.SequenceNode, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """An entry of a list by position, or (tasks as a list) by its name."""
    for i, entry in enumerate(node.value):
        names = [v.value for k, v in entry.value if k.value == "name"] if isinstance(entry, yaml.MappingNode) else []
        if str(i) == key or key in names:
            return entry, entry
    return None


def _no_such_choice(error: MissingConfigException, groups: Mapping[str, list[str]]) -> str:
    name = str(error.missing_cfg_file or "")
    group, _, choice = name.rpartition("/")
    if group in groups:
        return f"{group}: there is no {group} '{choice}'. {did_you_mean(choice, groups[group])}"
    top = name.partition("/")[0]
    return f"there is no config group '{group or top}'. {did_you_mean(group or top, groups)}"


def _short(path: Path) -> str:
    """A path as people would type it: relative to here if it is below."""
    shipped = config_dir()
    if path.is_relative_to(shipped):
        return f"configs/{path.relative_to(shipped).as_posix()}"
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
