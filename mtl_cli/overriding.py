"""Forms that a class writes out of what it computes, and subclasses that compute something else.

A written-out form (a loss with its derivative, say) is fast, and right for the class that wrote it. A subclass that
overrides what it was made from would inherit it all the same: it would be trained as its parent and evaluated as
itself. Such a class has the general form of the base again, which is made from whatever the class computes.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping


def restore_general(cls: type, base: type, forms: Mapping[str, str], of: Collection[str]) -> None:
    """Gives a class the general forms of its base, where those that it inherits are of something else than it computes.

    A base calls it in ``__init_subclass__``. What a class writes out itself is taken at its word.

    Args:
        cls: The class.
        base: What it derives from.
        forms: Names of the forms, each with that of the base's general one.
        of: Names of what they are made from, beside the methods that the base does not know.

    Example:
        >>> class Shape:
        ...     def __init_subclass__(cls): restore_general(cls, Shape, {"twice": "twice"}, of=("area",))
        ...     def twice(self): return 2 * self.area()
        >>> class Square(Shape):
        ...     def area(self): return 4
        ...     def twice(self): return 8
        >>> class Same(Square): pass
        >>> class Larger(Square):
        ...     def area(self): return 5
        >>> Same.twice is Square.twice, Larger().twice()
        (True, 10)
    """
    for form, general in forms.items():
        if not is_own_form(cls, base, form, of):
            setattr(cls, form, vars(base)[general])


def is_own_form(cls: type, base: type, form: str, of: Collection[str]) -> bool:
    """Whether a form that a class may have inherited is of what the class computes; see ``restore_general``."""
    writer = next(own for own in cls.__mro__ if form in vars(own))
    return writer is base or all(_held(cls, name) is _held(writer, name) for name in (*of, *_helpers(writer, base)))


def _held(cls: type, name: str) -> object:
    return inspect.getattr_static(cls, name, None)


def _helpers(cls: type, base: type) -> list[str]:
    """The methods of a class that its base does not know."""
    line = cls.__mro__[: cls.__mro__.index(base)]
    methods = [name for own in line for name, value in vars(own).items() if _is_method(value)]
    return [name for name in methods if not hasattr(base, name)]


def _is_method(value: object) -> bool:
    return inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod)
