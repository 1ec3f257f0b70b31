"""A composed configuration as plain mappings, and what in it has no value."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtl_cli.composition.files import package_of
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.schema import Origin, with_origin


def plain(config: DictConfig, origin: Origin = lambda _: None, must_be_set: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration as plain mappings and lists, with interpolations resolved.

    Args:
        config: As composed; Hydra's own part is left out.
        origin: Where a key path was set.
        must_be_set: Key paths that count as missing although they have a value; see ``unset``.

    Raises:
        ConfigError: Every value that is missing (``???``) or refers to what is not there.
    """
    problems: list[Problem] = []
    value = _plain(config, "", problems, without=("hydra",))
    told = [problem.where for problem in problems]
    problems += [_missing(path) for path in must_be_set if path not in told]
    if problems:
        raise ConfigError([with_origin(problem, origin) for problem in problems])
    return dict(value)


def _plain(node: Any, where: str, problems: list[Problem], without: Sequence[str] = ()) -> Any:
    if isinstance(node, DictConfig) and node._is_none():
        return None
    if isinstance(node, DictConfig):
        keys = [key for key in node if key not in without]
        return {key: _child(node, key, f"{where}.{key!s}" if where else str(key), problems) for key in keys}
    if isinstance(node, ListConfig):
        return [_child(node, i, f"{where}[{i}]", problems) for i in range(len(node))]
    return node


def _child(node: DictConfig | ListConfig, key: Any, where: str, problems: list[Problem]) -> Any:
    if OmegaConf.is_missing(node, key):
        problems.append(_missing(where))
        return None
    try:
        return _plain(node[key], where, problems)
    except OmegaConfBaseException as error:
        raw = OmegaConf.to_container(node, resolve=False)
        text = raw[key] if isinstance(raw, dict | list) else raw
        reason = str(error).splitlines()[0]
        problems.append(Problem(where, f"cannot be resolved, got '{text}' ({reason})"))
        return None


def _missing(where: str) -> Problem:
    return Problem(where, "must be set, got ???", f"Example: {where}=...")


def unset(files: Sequence[Path], overrides: Sequence[str], groups: Iterable[str] = ()) -> list[str]:
    """Key paths that a file says must be set (``???``) and that nobody sets after it.

    Where there is a value before it, OmegaConf would keep that without a word.

    Args:
        files: The files that were composed, the one that wins last.
        overrides: Of the command line.
        groups: As in ``origin_of``.
    """
    waiting: list[str] = []
    for file in files:
        values = _values(file)
        given = [path for path, value in values.items() if value != "???"]
        waiting = [path for path in waiting if not any(_meet(path, other) for other in given)]
        waiting += [path for path, value in values.items() if value == "???"]
    given = [key for override in overrides if (key := override.lstrip("+").partition("=")[0]) not in groups]
    return [path for path in dict.fromkeys(waiting) if not any(_meet(path, other) for other in given)]


def _meet(path: str, other: str) -> bool:
    """Whether two key paths are one, or one of them leads to the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _values(file: Path) -> dict[str, str]:
    """What a file sets: the values of mappings as they are written, by their key paths; of lists and others ``""``."""
    text = file.read_text(encoding="utf-8")
    return _values_in(text, package_of(file, text))


@functools.cache
def _values_in(text: str, package: str) -> dict[str, str]:
    """The same for the text of a file: the jobs of a sweep are composed of few of them."""
    found: dict[str, str] = {}

    def walk(node: yaml.Node | None, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                walk(value, f"{path}.{key.value}" if path else str(key.value))
        elif path:
            found[path] = node.value if isinstance(node, yaml.ScalarNode) else ""

    walk(yaml.compose(text, Loader=yaml.SafeLoader), package)
    found.pop("defaults", None)
    return found
