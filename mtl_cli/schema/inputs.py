"""``data.inputs``, entry by entry: what can be read of it, and checked, without the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtl_cli.errors import Problem, did_you_mean, shown

EVERY_COLUMN = "*"
_TYPES = ("numeric", "date", "category", "text", "image")


@dataclass(frozen=True)
class InputEntry:
    """One entry.

    Args:
        key: Its key, for messages.
        name: A column, or a glob.
        type: The declared type; None: to be inferred.
    """

    key: str
    name: str
    type: str | None = None


def input_entries(inputs: str | list[Any]) -> tuple[list[InputEntry], list[Problem]]:
    """The entries of ``data.inputs``, those that are right, and what is wrong with the others.

    Example:
        >>> input_entries("x_*")[0]
        [InputEntry(key='data.inputs', name='x_*', type=None)]
        >>> input_entries(["x", {"name": "zip", "type": "category"}])[0][1]
        InputEntry(key='data.inputs[1]', name='zip', type='category')
    """
    if isinstance(inputs, str):
        return [InputEntry("data.inputs", inputs)], []
    entries, problems = [], []
    for i, given in enumerate(inputs):
        entry, wrong = _read_entry(f"data.inputs[{i}]", given)
        problems += wrong
        if not wrong:
            entries.append(entry)
    return entries, problems


def _read_entry(key: str, given: Any) -> tuple[InputEntry, list[Problem]]:
    if isinstance(given, str):
        return InputEntry(key, given), []
    hint = f"Write a column name, or {{name: NAME, type: TYPE}} with one of {', '.join(_TYPES)}."
    if not isinstance(given, Mapping):
        return InputEntry(key, ""), [Problem(key, f"must be a column name or a mapping, got {shown(given)}", hint)]
    known = ("name", "type")
    problems = [Problem(f"{key}.{k}", "unknown key", did_you_mean(str(k), known)) for k in given if k not in known]
    name, declared = given.get("name"), given.get("type")
    if not isinstance(name, str):
        problems.append(Problem(f"{key}.name", f"must be a column name, got {shown(name)}", hint))
    if declared is not None and declared not in _TYPES:
        problems.append(Problem(f"{key}.type", f"must be one of {', '.join(_TYPES)}, got {shown(declared)}"))
    return InputEntry(key, str(name), declared), problems
