"""The options of components: their types and defaults."""

from __future__ import annotations

import ast
import functools
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal

import mtl_cli.types as option_types

REQUIRED = object()
_PLAIN_TYPES = (Any, bool, int, float, str, list, dict, type(None))
_ANNOTATION_NAMES = {**vars(typing), **vars(option_types)}


@dataclass(frozen=True)
class Option:
    """One key that a component accepts: its type annotation and its default (``REQUIRED`` if there is none)."""

    annotation: Any
    default: Any


@functools.cache  # a run of 600 tasks asks for those of a task 600 times
def options_of(cls: type) -> Mapping[str, Option]:
    """The options of a class: its constructor's keyword-only arguments, or its fields if it is a dataclass."""
    if is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        found = {}
        for field in fields(cls):
            default = REQUIRED if field.default is MISSING else field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            found[field.name] = Option(hints[field.name], default)
        return found
    init = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    parameters = [p for p in inspect.signature(init).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if not parameters:
        return {}
    names = {**_ANNOTATION_NAMES, **init.__globals__}  # of the module that it stands in: a subclass may inherit it
    hints = typing.get_type_hints(init, names, include_extras=True)
    return {p.name: Option(hints[p.name], REQUIRED if p.default is p.empty else p.default) for p in parameters}


@functools.cache
def options_from_source(init: ast.FunctionDef) -> Mapping[str, Option]:
    """The same of the source of a constructor of ours, whose module is not imported for it."""
    found = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        if argument.annotation is None:
            raise TypeError(f"option '{argument.arg}' has no type annotation")
        annotation = eval(ast.unparse(argument.annotation), dict(_ANNOTATION_NAMES))  # our own source, not user input
        found[argument.arg] = Option(annotation, REQUIRED if default is None else ast.literal_eval(default))
    return found


def is_option_type(annotation: Any) -> bool:
    """Whether ``conform`` knows how to check values against a type annotation.

    Example:
        >>> [is_option_type(own) for own in (list[float | None], dict[str, bool], tuple[int, ...], list[set[str]])]
        [True, True, False, False]
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return is_option_type(args[0])
    if origin in (typing.Union, types.UnionType, list):
        return all(map(is_option_type, args))
    if origin is dict:
        return args[0] is str and is_option_type(args[1])
    if is_dataclass(annotation) and isinstance(annotation, type):
        return all(is_option_type(option.annotation) for option in options_of(annotation).values())
    return origin is Literal or annotation in _PLAIN_TYPES
