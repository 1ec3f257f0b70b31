"""Overrides: what Hydra can read, what can be said of them early, and how Hydra is given them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException
from omegaconf import ListConfig, OmegaConf

from mtl_cli.errors import ConfigError, Problem, did_you_mean, nearest
from mtl_cli.schema import TOP_KEYS

_TOP_LEVEL = (*TOP_KEYS, "hydra")


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
        top = key.lstrip("+~")
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(_unreadable(parser, key, value) if top and equals else _no_override(text))
            continue
        if not top:
            problems.append(_no_override(text))
            continue
        if override.is_sweep_override() and not multirun:
            what = f"'{text}' gives several values for one run"
            plain_list = "" if re.search(r"[(\[{]", value) else f"; for a list write {key}=[{value}]"
            problems.append(Problem("command line", what, f"For a sweep add -m{plain_list}."))
        if top in groups and (other := _no_choice(override, value)) is not None:
            what = f"must be the name of a choice, got {other}"
            quoted = f"Quote it: '{key}=\"{other}\"'."  # a file may be called 2024.yaml
            hint = quoted if other in groups[top] else did_you_mean(other, groups[top])
            problems.append(Problem(f"{top} (command line)", what, hint))
        near = nearest(top, [*groups, *_TOP_LEVEL])
        if top not in groups and top not in _TOP_LEVEL and "." not in top and near:
            problems.append(Problem(f"{top} (command line)", "unknown key", near))
    if problems:
        raise ConfigError(problems)


def _no_override(text: str) -> Problem:
    return Problem("command line", f"'{text}' is no override", "Write key=value.")


def _unreadable(parser: OverridesParser, key: str, value: str) -> Problem:
    """What Hydra's grammar does not take of an override, and a way to write it that it does take."""
    if not _reads(parser, f"{key}=0"):
        what = f"cannot read the key of '{key}={value}'"
        hint = "Set it in a file: on the command line a key is of letters from a to z, digits, '_', '-' and dots."
        return Problem("command line", what, hint)
    is_container = value.startswith(("[", "{"))
    forms = [_items_quoted(parser, value, ",[]{}" + colon) for colon in ("", ":")] if is_container else [_quoted(value)]
    readable = next((form for form in forms if _reads(parser, f"{key}={form}")), None)
    if readable is not None:
        hint = f"Quote {'its items' if is_container else 'it'}: {shlex.quote(f'{key}={readable}')}."
    else:
        hint = 'Set it in a file, or write a list as [a,"b=c"], with quotes around what is no plain word.'
    return Problem("command line", f"cannot read the value of '{key}={value}'", hint)


def _items_quoted(parser: OverridesParser, value: str, between: str) -> str:
    """A list or mapping with quotes around every item that cannot be read without them.

    Args:
        parser: Reads items.
        value: As the user wrote it.
        between: The signs that items stand between.
    """
    around = re.escape(between)
    item = re.compile(rf"""(?:"[^"]*"|'[^']*')(?=\s*[{around}])|[^{around}\s](?:[^{around}]*[^{around}\s])?""")
    return item.sub(lambda found: found[0] if _reads(parser, f"a=[{found[0]}]") else _quoted(found[0]), value)


def _quoted(text: str) -> str:
    """A text as Hydra's grammar takes any, in quotes."""
    return '"' + text.replace('"', r"\"") + '"'


def _reads(parser: OverridesParser, override: str) -> bool:
    try:
        parser.parse_override(override)
    except HydraException:
        return False
    return True


def _no_choice(override: Override, text: str) -> str | None:
    """What a group's override gives, as ``text`` or within it, that names no choice; None if all of it does."""
    value = None if override.is_delete() else override.value()
    if isinstance(value, ChoiceSweep):
        others = [each for each in value.list if not isinstance(each, str | QuotedString | list)]
        return json.dumps(others[0]) if others else None
    named = override.is_delete() or override.is_sweep_override() or isinstance(value, list)
    return None if named or (isinstance(value, str) and value) else text


def as_written(overrides: Sequence[str]) -> list[str]:
    """Overrides as the user wrote them."""
    return [override.removeprefix("++") for override in overrides]


def unresolved(overrides: ListConfig) -> list[str]:
    """Hydra's list of overrides as text; a ``${...}`` in one is not for this list to resolve."""
    plain_list = OmegaConf.to_container(overrides, resolve=False)
    return list(map(str, plain_list)) if isinstance(plain_list, list) else []
