"""What a balancing method learns outside of its parameters and buffers, where no checkpoint finds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from mtl_cli.balancing.base import Balancing

_OF_MODULES = frozenset(vars(nn.Module()))


class Unsaved:
    """Looks for plain attributes of a method that change: tensors, numbers, and collections of them.

    What stays as the constructor made it is no state: constants may be kept anywhere.

    Args:
        method: The method, before it is used.

    Example:
        >>> from mtl_cli.balancing.equal import Equal
        >>> method = Equal(2); method.factor = 2.0; method.steps = 0
        >>> unsaved = Unsaved(method)
        >>> method.steps += 1
        >>> unsaved.changed()
        ['steps']
    """

    def __init__(self, method: Balancing) -> None:
        self._method = method
        self._before = _values(method)

    def changed(self) -> list[str]:
        """Names of the attributes that are not as they were."""
        return [name for name, value in _values(self._method).items() if not _same(value, self._before.get(name))]


def _values(method: Balancing) -> dict[str, list[tuple[Any, int]]]:
    """The tensors, each with the number of changes in place so far, and the numbers that attributes hold."""
    held = {name: list(_held(value)) for name, value in vars(method).items() if name not in _OF_MODULES}
    return {name: values for name, values in held.items() if values}


def _held(value: Any) -> Iterator[tuple[Any, int]]:
    if isinstance(value, Tensor):
        yield value, value._version
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value, 0
    elif isinstance(value, list | tuple | Mapping):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _held(inner)


def _same(new: list[tuple[Any, int]], old: list[tuple[Any, int]] | None) -> bool:
    if old is None or len(new) != len(old):
        return False
    pairs = zip(new, old, strict=True)
    return all((a is b or (not isinstance(a, Tensor) and a == b)) and m == n for (a, m), (b, n) in pairs)
