"""The nodes of registered components (encoder, sharing, ..., loggers): which one is named, and its options.

No component is imported here: what its class says of itself is read from its source.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mtl_cli.errors import Problem, did_you_mean, shown
from mtl_cli.registry import (
    BALANCINGS,
    ENCODERS,
    LOGGERS,
    OPTIMIZERS,
    SCHEDULERS,
    SHARINGS,
    Option,
    Registry,
    conform_mapping,
)
from mtl_cli.schema.config import Component
from mtl_cli.types import TaskNames

#: The groups of which a configuration has one component each.
GROUPS: dict[str, Registry[Any]] = {
    "encoder": ENCODERS,
    "sharing": SHARINGS,
    "balancing": BALANCINGS,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
}
_COMMON: dict[str, dict[str, Option]] = {  # keys of a group that are not the component's own
    "balancing": {"loss_scale": Option(Literal["none", "initial"], "none")},
}


def read_component(node: Any, group: str) -> tuple[Component | None, list[Problem]]:
    """The component that was chosen from a group; None if there is no such component."""
    registry = GROUPS[group]
    if isinstance(node, str):  # `encoder: mlp` inside a file instead of a choice in its defaults list
        hint = f"In a file, write it in the defaults list: `- override /{group}: {node}`. "
        hint += f"On the command line: {group}={node}."
        return None, [Problem(group, f"must be a mapping with a name, got {shown(node)}", hint)]
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        hint = did_you_mean("", registry.names())
        return None, [Problem(group, f"must be a mapping with a name, got {shown(node)}", hint)]
    return _read_named(node, registry, group, ignore=("name", *_COMMON.get(group, {})))


def read_common(node: Any, group: str) -> tuple[dict[str, Any], list[Problem]]:
    """The keys that every component of a group has."""
    options = _COMMON[group]
    given = {key: node[key] for key in options if key in node} if isinstance(node, Mapping) else {}
    return conform_mapping(given, options, group)


def read_loggers(node: Any) -> tuple[dict[str, Component], list[Problem]]:
    """The trackers that were chosen, each below its name as the files of the group ``logger`` put it."""
    if node in (None, {}, []):
        return {}, []
    if not isinstance(node, Mapping):
        hint = "In a file, write it in the defaults list: `- override /logger: [tensorboard]`."
        return {}, [Problem("logger", f"must be a mapping from names to options, got {node!r}", hint)]
    loggers = {}
    found: list[Problem] = []
    for name, options in node.items():
        where = f"logger.{name}"
        if name not in LOGGERS.names():
            found.append(Problem(where, "unknown key", LOGGERS.unknown(name).hint))
        elif not isinstance(options, Mapping) or options.get("name") != name:
            found.append(Problem(where, "is not chosen", f"Add logger={name}, or logger=[{name},...] for several."))
        else:
            component, problems = _read_named(options, LOGGERS, where, ignore=("name",))
            found += problems
            if component is not None:
                found += missing_package(component, LOGGERS, where)
                loggers[name] = component
    return loggers, found


def missing_package(component: Component, registry: Registry[Any], where: str) -> list[Problem]:
    """What is wrong if a component needs an optional package that is not installed."""
    package = class_attribute(registry, component.name, "requires", None)
    if package is None:
        return []
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # of `a.b` there is no `a`
        spec = None
    if spec is not None and spec.origin is not None:  # none: a mere folder of that name, such as trackers leave behind
        return []
    extra = registry.is_shipped(component.name)  # other people's components name packages that are no extras of ours
    hint = f'Install it: pip install "mtl-train[{package}]".' if extra else ""
    return [Problem(where, f"'{component.name}' needs the package {package}, which is not installed", hint)]


def unknown_tasks(component: Component, group: str, names: Sequence[str]) -> list[Problem]:
    """What is wrong if an option that names tasks, in a list or as the keys of a mapping, names an undeclared one."""
    found = []
    for key, option in GROUPS[group].options(component.name).items():
        value = component.options.get(key)
        if is_per_task(option.annotation) and isinstance(value, Mapping | list):
            where = f"{group}.{key}"
            found += [
                Problem(
                    f"{where}.{name}" if isinstance(value, Mapping) else where,
                    f"no task '{name}'",
                    did_you_mean(name, names),
                )
                for name in map(str, value)
                if name not in names
            ]
    return found


def is_per_task(annotation: Any) -> bool:
    """Whether an option's type is, or may be, a list of task names or a mapping from them."""
    members = getattr(annotation, "__args__", ())
    metadata = getattr(annotation, "__metadata__", ())
    return any(isinstance(m, TaskNames) for m in metadata) or any(is_per_task(m) for m in members)


def shares(sharing: Component) -> bool:
    """Whether an architecture has parameters that several tasks train."""
    return bool(class_attribute(SHARINGS, sharing.name, "shares", True))


def class_attribute(registry: Registry[Any], name: str, attribute: str, default: Any) -> Any:
    """What the class of a component says of itself, or the default if it does not say it.

    Example:
        >>> class_attribute(SHARINGS, "separate", "shares", True), class_attribute(SHARINGS, "hard", "shares", True)
        (False, True)
    """
    try:
        return registry.literal(name, attribute)
    except AttributeError:
        return default


def _read_named(
    node: Mapping[str, Any], registry: Registry[Any], where: str, *, ignore: tuple[str, ...]
) -> tuple[Component | None, list[Problem]]:
    name = str(node["name"])
    if name not in registry.names():
        return None, [registry.unknown(name, f"{where}.name")]
    options, problems = conform_mapping(node, registry.options(name), where, ignore=ignore)
    return Component(name, options), [_with_owners(problem, registry) for problem in problems]


def _with_owners(problem: Problem, registry: Registry[Any]) -> Problem:
    """Adds to an unknown key which other components of the group have an option of that name."""
    key = problem.where.rpartition(".")[2]
    owners = [name for name in registry.names() if problem.what == "unknown key" and key in registry.options(name)]
    if not owners:
        return problem
    return replace(problem, hint=f"{problem.hint} It is an option of {registry.group}={', '.join(owners)}.")
