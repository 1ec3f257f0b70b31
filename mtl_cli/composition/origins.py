"""Where a key was set: on the command line, or in which line of which file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from mtl_cli.composition.files import package_of, short_path
from mtl_cli.schema import Origin


def origin_of(overrides: Sequence[str], files: Sequence[Path], groups: Iterable[str] = ()) -> Origin:
    """Finds where a key path was set: on the command line, or in which line of which file.

    Args:
        overrides: Of the command line.
        files: The files that were composed, the one that wins last.
        groups: Config groups: an override of one chooses a file, and says nothing of the keys in it.
    """
    on_command_line = {o.lstrip("+~").partition("=")[0] for o in overrides if "=" in o or o.startswith("~")}
    values = tuple(key for key in on_command_line if key not in groups)

    def find(path: str) -> str | None:
        if path in on_command_line or any(
            path.startswith((f"{key}.", f"{key}[")) or key.startswith(f"{path}.") for key in values
        ):
            return "command line"
        keys = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
        while keys:
            for file in reversed(files):
                line = _line_in(file, keys)
                if line is not None:
                    return f"{short_path(file)}, line {line}"
            keys.pop()  # a key that must be given is missing where its parent stands
            if any(key.startswith(".".join([*keys, ""])) for key in values if keys):
                return "command line"
        return None

    return find


def _line_in(file: Path, keys: Sequence[str]) -> int | None:
    """The line of a key path in a YAML file, considering a ``# @package`` header and the folder it is in."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    above = package_of(file, text).split(".") if package_of(file, text) else []
    if list(keys[: len(above)]) != above:
        return None
    keys = list(keys[len(above) :])
    if not keys:
        return 1 if above else None
    line = None
    while keys:
        for length in range(1, len(keys) + 1):  # a name may hold a dot
            found = _entry(node, ".".join(keys[:length]))
            if found is not None:
                break
        else:
            return None
        line, node, keys = found[0].start_mark.line + 1, found[1], keys[length:]
    return line


def _entry(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The key node and value node of an entry of a mapping or list."""
    if isinstance(node, yaml.SequenceNode):
        return _list_entry(node, key)
    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((k, v) for k, v in node.value if key in (k.value, _boolean(k))), None)


def _boolean(key: yaml.Node) -> str | None:
    """``True`` for the key ``on``: what becomes of it in YAML."""
    if key.tag != "tag:yaml.org,2002:bool":
        return None
    return str(yaml.SafeLoader.bool_values[key.value.lower()])


def _list_entry(node: yaml.SequenceNode, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """An entry of a list by position, or (tasks as a list) by its name."""
    for i, entry in enumerate(node.value):
        names = [v.value for k, v in entry.value if k.value == "name"] if isinstance(entry, yaml.MappingNode) else []
        if str(i) == key or key in names:
            return entry, entry
    return None
