"""What components of the user's own keep where no checkpoint finds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from mtl_cli.errors import listed
from mtl_cli.loop.step import Learner
from mtl_cli.optim import Optimizer, Scheduler
from mtl_cli.registry import describe_component, from_outside

_OF_MODULES = frozenset(vars(nn.Module()))
_OF_OPTIMIZERS = frozenset({"flat", "lr", "buffers", "_updates", "_views"})
_SHOWN = 5  # names in a message


class Unsaved:
    """Looks for plain attributes of a component that change: tensors, numbers, collections of them, and optimizers.

    What stays as the constructor made it is no state: constants may be kept anywhere.

    Args:
        component: A module, an optimizer or a schedule, before it is used.

    Example:
        >>> from mtl_cli.balancing.equal import Equal
        >>> method = Equal(2); method.factor = 2.0; method.steps = 0
        >>> unsaved = Unsaved(method)
        >>> method.steps += 1
        >>> unsaved.changed()
        ['steps']
    """

    def __init__(self, component: nn.Module | Optimizer | Scheduler) -> None:
        self.component = component
        self._before = _values(component)

    def changed(self) -> list[str]:
        """Names of the attributes that are not as they were."""
        return [name for name, value in _values(self.component).items() if not _same(value, self._before.get(name))]

    def message(self) -> str | None:
        """What the user should know of them; None if nothing has changed."""
        names = self.changed()
        if not names:
            return None
        kept, hint = "is no buffer", "Keep it with register_buffer."
        if isinstance(self.component, Optimizer):
            kept, hint = "is none of its buffers", "Name vectors to super().__init__, add other things to state_dict."
        if isinstance(self.component, Scheduler):
            kept, hint = "changes", "Make the factor from the progress alone."
        return (
            f"{describe_component(self.component)}: what it keeps in {_attributes(names)} {kept}: no checkpoint holds "
            f"it; resume, and whatever loads the run, begins it anew. {hint}"
        )


def watch(learner: Learner) -> list[Unsaved]:
    """All parts of a learner that are none of ours and whose whole state should be in a checkpoint."""
    methods = learner.balancing.modules() if _is_own(learner.balancing) else ()
    optimizers = [own for own in learner.optimizers if type(own).state_dict is Optimizer.state_dict]
    parts = [*methods, *_modules(learner.model.sharing), *optimizers, learner.scheduler]
    return [Unsaved(part) for part in parts if _is_own(part)]


def unregistered(model: nn.Module) -> list[str]:
    """What the user should know of layers and parameters that no module has registered, because they are in a list."""
    modules = list(_modules(model))
    known = {id(part) for module in modules for part in (module, *module.parameters(recurse=False))}
    found = {}
    for module in filter(_is_own, modules):
        held = {name: list(_layers(value)) for name, value in _plain(module).items()}
        names = [name for name, parts in held.items() if any(id(part) not in known for part in parts)]
        if names:
            found[type(module)] = (
                f"{describe_component(module)}: layers or parameters in {_attributes(names)} are no part of it: they "
                "are neither trained nor saved. Put them into an nn.ModuleList or nn.ParameterList."
            )
    return list(found.values())


def _is_own(part: object) -> bool:
    """Whether its class is neither ours nor PyTorch's."""
    return from_outside(type(part)) and type(part).__module__.partition(".")[0] != "torch"


def _modules(module: nn.Module) -> Iterator[nn.Module]:
    """It and all within it, also what is kept out of the tree."""
    for own in module.modules():
        yield own
        for inner in getattr(own, "kept_out", ()):
            yield from _modules(inner)


def _attributes(names: list[str]) -> str:
    return listed([f"self.{name}" for name in names], _SHOWN)


def _plain(component: object) -> dict[str, Any]:
    """The attributes that are not the base's."""
    known = _OF_OPTIMIZERS if isinstance(component, Optimizer) else _OF_MODULES
    return {name: value for name, value in vars(component).items() if name not in known}


def _values(component: object) -> dict[str, list[tuple[Any, int]]]:
    """The tensors, each with the number of changes in place so far, and the numbers that attributes hold."""
    held = {name: list(_held(value)) for name, value in _plain(component).items()}
    return {name: values for name, values in held.items() if values}


def _held(value: Any) -> Iterator[tuple[Any, int]]:
    if isinstance(value, Tensor):
        yield value, 0 if value.is_inference() else value._version  # which those of an evaluation do not have
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value, 0
    elif isinstance(state := getattr(value, "state", None), Mapping):  # of an optimizer of PyTorch
        yield from _held(state)
    else:
        for inner in _inner(value):
            yield from _held(inner)


def _layers(value: Any) -> Iterator[nn.Module | nn.Parameter]:
    if isinstance(value, nn.Module | nn.Parameter):
        yield value
    else:
        for inner in _inner(value):
            yield from _layers(inner)


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | Mapping):
        yield from value.values() if isinstance(value, Mapping) else value


def _same(new: list[tuple[Any, int]], old: list[tuple[Any, int]] | None) -> bool:
    if old is None or len(new) != len(old):
        return False
    pairs = zip(new, old, strict=True)
    return all((a is b or (not isinstance(a, Tensor) and a == b)) and m == n for (a, m), (b, n) in pairs)
