"""Classes from outside the package, as far as they can be judged before one of them is made."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.registry.options import is_option_type, options_of

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def from_outside(cls: type) -> bool:
    """Whether a class is none of this package's."""
    return not cls.__module__.startswith("mtl_cli.")


def place(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def defining(cls: type, method: str) -> str:
    """The first class that asks for a method."""
    return place(next(base for base in reversed(cls.__mro__) if method in vars(base)))


def strange_types(cls: type) -> dict[str, str]:
    """The options of a class whose types no value of a configuration can have; none where they cannot be read yet."""
    try:
        options = options_of(cls)
    except (NameError, TypeError):  # in quotes, or postponed: told when they are asked for
        return {}
    annotations = {name: option.annotation for name, option in options.items()}
    return {name: inspect.formatannotation(own) for name, own in annotations.items() if not is_option_type(own)}


def strange_methods(cls: type) -> Iterator[tuple[str, str]]:
    """The methods of a class that cannot be called as those of our base, each with its signature, and the base's."""
    ours = [base for base in reversed(cls.__mro__) if not from_outside(base)]
    first = {name: base for base in reversed(ours) for name in vars(base) if not name.startswith("_")}
    for name, base in first.items():
        expected, own = _signature(base, name), _signature(cls, name)
        if expected is not None and own is not None and not _takes_calls_of(expected, own):
            yield f"{name}{own}", f"{place(base)}.{name}{expected}"


def _signature(cls: type, name: str) -> inspect.Signature | None:
    """What a method takes besides the object, types left out; None: it is no method."""
    member = inspect.getattr_static(cls, name)
    function = getattr(member, "__func__", member)  # of a static or class method
    if not isinstance(function, types.FunctionType):
        return None
    return _without_types(inspect.signature(member.__get__(cls, cls)))  # bound, to whatever it is


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    """A signature as short as messages show it."""
    parameters = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=signature.empty)


def _takes_calls_of(expected: inspect.Signature, own: inspect.Signature) -> bool:
    """Whether what is written for one signature can be called by another, with all arguments and with the fewest."""
    for fewest in (False, True):
        given = [p for p in expected.parameters.values() if not (fewest and p.default is not p.empty)]
        by_name = {p.name: None for p in given if p.kind is p.KEYWORD_ONLY}
        by_position = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        try:
            own.bind(*by_position, **by_name)
        except TypeError:
            return False
    return True


def expect_constructor(
    cls: type, who: str, runtime: tuple[Any, ...], options: Mapping[str, Any], bases: Sequence[type]
) -> None:
    """Refuses a class whose constructor cannot be called with the facts and options of its kind of component.

    One that is inherited from the base of all may have no place for the facts, and would take them for other things.

    Args:
        cls: The class.
        who: What messages call it.
        runtime: The facts.
        options: The options.
        bases: What every component of the kind derives from one of.

    Raises:
        ConfigError: It cannot.
    """
    facts = ", ".join(type(fact).__name__ for fact in runtime)
    given = " and ".join(filter(None, [facts, "the options by name"]))
    hint = f"See {place(next(base for base in reversed(cls.__mro__) if not from_outside(base)))}."
    own = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    needed = [p for p in inspect.signature(own).parameters.values() if p.default is p.empty and p.kind not in _VARIADIC]
    if len(needed) - 1 < len(runtime) and any(own is base.__init__ for base in bases):  # type: ignore[misc]
        what = f"has no constructor of its own, which is given {given}"
        raise ConfigError(Problem(who, what, hint))
    signature = _without_types(inspect.signature(cls))
    try:
        signature.bind(*runtime, **options)
    except TypeError as error:
        what = f"its constructor takes {signature}, and is given {given} ({error})"
        raise ConfigError(Problem(who, what, hint)) from error
