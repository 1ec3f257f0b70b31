"""Whether values of a configuration are of the types of options, and what they become."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal

import mtl_cli.types as option_types
from mtl_cli.errors import ConfigError, Problem, did_you_mean, nearest, shown
from mtl_cli.registry.options import REQUIRED, Option, options_of


def conform(value: Any, annotation: Any, where: str) -> tuple[Any, list[Problem]]:
    """Checks ``value`` against a type annotation and converts what is safe to convert (int to float).

    Returns:
        The value to use, and the problems found (empty if it fits).

    Example:
        >>> conform(1, float, "lr")
        (1.0, [])
        >>> print(conform("big", float, "lr")[1][0])
        lr: must be a number, got 'big'.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        value, problems = conform(value, args[0], where)
        bounds = [m for m in args[1:] if isinstance(m, option_types.Range)]
        if not problems:
            problems = [
                Problem(where, f"must be {b.wanted(value)}, got {shown(value)}") for b in bounds if value not in b
            ]
        return value, problems
    if origin in (typing.Union, types.UnionType):
        return _conform_union(value, args, where)
    if is_dataclass(annotation) and isinstance(annotation, type):
        if isinstance(value, annotation):  # made of a mapping before, or by hand
            return value, []
        if not isinstance(value, Mapping):
            return value, [Problem(where, f"must be a mapping, got {shown(value)}")]
        values, problems = conform_mapping(value, options_of(annotation), where)
        return (value if problems else annotation(**values)), problems
    if origin is Literal:
        if any(value == a and type(value) is type(a) for a in args):
            return value, []
        return value, [
            Problem(where, f"must be one of {', '.join(map(str, args))}, got {shown(value)}", _nearest(value, args))
        ]
    if origin is list:
        if not isinstance(value, list):
            return value, [Problem(where, f"must be a list, got {shown(value)}", _as_list(value))]
        pairs = [conform(v, args[0], f"{where}[{i}]") for i, v in enumerate(value)]
        return [v for v, _ in pairs], [p for _, found in pairs for p in found]
    if origin is dict:
        if not isinstance(value, Mapping):
            return value, [Problem(where, f"must be a mapping, got {shown(value)}")]
        checked = {str(k): conform(v, args[1], f"{where}.{k}") for k, v in value.items()}
        return {k: v for k, (v, _) in checked.items()}, [p for _, found in checked.values() for p in found]
    return _conform_plain(value, annotation, where)


def conform_mapping(
    node: Mapping[str, Any], options: Mapping[str, Option], where: str, *, ignore: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """Checks every key of ``node`` against ``options``: unknown keys, types, ranges, missing values; fills defaults."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    prefix = f"{where}." if where else ""
    for key, value in node.items():
        if key in ignore:
            continue
        if key not in options:
            problems.append(Problem(f"{prefix}{key}", "unknown key", did_you_mean(str(key), [*options, *ignore])))
            continue
        values[key], found = conform(value, options[key].annotation, f"{prefix}{key}")
        problems += found
    for key, option in options.items():
        if key not in node:
            if option.default is REQUIRED:
                problems.append(Problem(f"{prefix}{key}", "must be given"))
            values[key] = option.default
    return values, problems


def _as_list(value: Any) -> str:
    """How to write a list instead of a value."""
    if isinstance(value, str) and value.startswith("["):
        return "Quote its items, not the whole."
    return "" if value is None else f"Write [{value}]."


def _conform_union(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, list[Problem]]:
    members = [a for a in args if a is not type(None)]
    if value is None and len(members) < len(args):
        return None, []
    any_value = all(kind in members for kind in typing.get_args(option_types.Plain))  # a text of a table, not a name
    if isinstance(value, str) and value.lower() in ("none", "null") and len(members) < len(args) and not any_value:
        return value, [
            Problem(where, f"is the text {value!r}, not an empty value", f"Write {where.rpartition('.')[2]}=null.")
        ]
    attempts = [conform(value, member, where) for member in members]
    for attempt in attempts:
        if not attempt[1]:
            return attempt
    if len(members) > 1 and not any(_same_shape(value, m) for m in members):
        expected = " or ".join(_type_name(m) for m in members)
        hint = "Write it in quotes." if isinstance(value, bool) and str in members else ""
        hint = hint or _nearest(value, _choices(members))
        return value, [Problem(where, f"must be {expected}, got {shown(value)}", hint)]
    return next((a for a, m in zip(attempts, members, strict=True) if _same_shape(value, m)), attempts[0])


def _conform_plain(value: Any, annotation: Any, where: str) -> tuple[Any, list[Problem]]:
    if annotation is Any:
        return value, []
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value), []
        except OverflowError:
            return value, [Problem(where, f"must be a number within the range of 64 bits, got {shown(value)}")]
    if isinstance(value, annotation) and not (annotation is int and isinstance(value, bool)):
        return value, []
    hint = "Write it in quotes." if annotation is str and isinstance(value, bool | int | float) else ""
    if annotation in (int, float) and isinstance(value, str) and _reads_as(value, annotation):
        hint = "It is text: leave out the quotes; of the environment, ${oc.decode:${oc.env:NAME}} is a number."
    return value, [Problem(where, f"must be {_type_name(annotation)}, got {shown(value)}", hint)]


def _reads_as(text: str, number: type[int] | type[float]) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _type_name(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is Literal:
        return " or ".join(map(str, args))
    return names.get(annotation, {list: "a list", dict: "a mapping"}.get(origin, str(annotation)))


def _same_shape(value: Any, annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _same_shape(value, args[0])
    if origin in (list, dict):
        return isinstance(value, origin)
    if origin is Literal:
        return False
    return not _conform_plain(value, annotation, "")[1]


def _choices(members: list[Any]) -> tuple[Any, ...]:
    return tuple(a for m in members if typing.get_origin(m) is Literal for a in typing.get_args(m))


def _nearest(value: Any, choices: tuple[Any, ...]) -> str:
    return nearest(value, map(str, choices)) if isinstance(value, str) else ""


def check_options_on_init(cls: type, where: str) -> None:
    """Makes direct construction (``CAGrad(c=-1)``) refuse what a configuration would be refused for."""
    original = cls.__init__  # type: ignore[misc]
    options: Mapping[str, Option] | None = None

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal options
        options = options_of(cls) if options is None else options
        problems: list[Problem] = []
        for key, value in kwargs.items():
            if key in options:
                kwargs[key], found = conform(value, _in_constructor(options[key].annotation), f"{where}.{key}")
                problems += found
        if problems:
            raise ConfigError(problems)
        original(self, *args, **kwargs)

    cls.__init__ = __init__  # type: ignore[misc]


def _in_constructor(annotation: Any) -> Any:
    """The type that an option may have in a call: what is given by names of tasks may be given by positions there."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_in_constructor, members))]  # noqa: UP007  of a tuple
    marks = [mark for mark in members[1:] if isinstance(mark, option_types.TaskNames)]
    return typing.Union[marks[0].by_position, annotation] if marks else annotation  # noqa: UP007  of any types
