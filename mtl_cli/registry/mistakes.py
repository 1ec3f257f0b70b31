"""What a component gives or does, told as its own mistake where it is one."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mtl_cli.errors import ConfigError, MTLError, Problem, is_lack_of_memory
from mtl_cli.registry.class_checks import from_outside
from mtl_cli.registry.registries import ALL, describe_component


def expect_shape(component: object, what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Refuses what a component gives if it is no tensor of a shape.

    Args:
        component: Who gives it.
        what: What it is, in words.
        value: It.
        shape: Its shape, if all is well.

    Raises:
        ConfigError: It has another shape.
    """
    found = getattr(value, "shape", None)
    if found != shape:
        given = f"a {type(value).__name__}" if found is None else f"{tuple(found)}"
        must = "must have shape" if found is None else "must be"
        raise ConfigError(Problem(describe_component(component), f"gives {given} as {what}, {must} {tuple(shape)}"))


@contextmanager
def mistakes_in_components() -> Iterator[None]:
    """Tells of errors that come out of components from outside the package as what they are: no bugs of ours.

    Raises:
        ConfigError: Such an error came; names the component, file and line. Other errors pass.
    """
    try:
        yield
    except (MTLError, MemoryError, OSError):
        raise
    except Exception as error:
        where = _own_line(error)
        if where is None or is_lack_of_memory(error):  # not the component's mistake
            raise
        lines = str(error).strip().splitlines() or [""]
        problem = Problem(where, f"{type(error).__name__}: {lines[0][:300]}", "HYDRA_FULL_ERROR=1 shows all of it.")
        raise ConfigError(problem) from error


def _own_line(error: Exception) -> str | None:
    """The innermost line of an error's traceback that is in a module with a component from outside.

    Where there is none, that of a method which such a component inherits: what it does with what the component gave it.
    Or else the component that lacks an attribute, as one does whose constructor does not call that of its base.
    """
    outside = [cls for registry in ALL for cls in registry._classes.values() if from_outside(cls)]
    modules = {cls.__module__: cls for cls in outside}
    inherited = None
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        cls = modules.get(frame.f_globals.get("__name__", ""))
        own = frame.f_locals.get("self")  # a module may hold several components
        owner = frame.f_locals.get("cls", cls) if own is None else type(own)
        place = f", {frame.f_code.co_filename}, line {line}"
        if cls is not None:
            return describe_component(owner) + place
        if inherited is None and any(owner is known for known in outside):
            inherited = describe_component(owner) + place
    lacking = type(error.obj) if isinstance(error, AttributeError) else None
    return inherited or next((describe_component(cls) for cls in outside if cls is lacking), None)
