"""The options of components from outside the package, spelt out in what a run stores as its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from mtl_cli.registry import KINDS, LOGGERS, REQUIRED, SOURCES, Registry, conform
from mtl_cli.schema.components import GROUPS

Node = Mapping[str, Any]


def with_own_options(settings: Node) -> dict[str, Any]:
    """The same configuration with what components from outside the package take where nothing is given.

    Their defaults stand in code that may be edited, and no version tells of it; those of shipped components are a
    matter of the version of mtl-train. Nodes with a mistake in them, of which ``validate`` tells, stay.

    Args:
        settings: A configuration whose tasks are a mapping.
    """
    filled = dict(settings)
    for group, registry in GROUPS.items():
        filled[group] = _filled(settings.get(group), registry, "name")
    filled["logger"] = _each(settings.get("logger"), lambda node: _filled(node, LOGGERS, "name"))
    filled["tasks"] = _each(settings.get("tasks"), lambda node: _filled(node, KINDS, "kind"))
    data = _filled(settings.get("data"), SOURCES, "source")
    if isinstance(data, Mapping) and "sources" in data:
        data = {**data, "sources": _each(data["sources"], lambda node: _filled(node, SOURCES, "source"))}
    filled["data"] = data
    return {key: filled[key] for key in filled if key in settings}


def _each(nodes: Any, change: Callable[[Any], Any]) -> Any:
    """The nodes of a mapping, each changed."""
    return {name: change(node) for name, node in nodes.items()} if isinstance(nodes, Mapping) else nodes


def _filled(node: Any, registry: Registry[Any], key: str) -> Any:
    """A node with all options of the component that its ``key`` names, if that is from outside the package."""
    name = node.get(key) if isinstance(node, Mapping) else None
    if not isinstance(name, str) or not registry.is_from_outside(name):
        return node
    options = registry.options(name)
    defaults = {own: _plain(option.default) for own, option in options.items() if option.default is not REQUIRED}
    # What a configuration could not hold stays a matter of the constructor: [] for an option by names of tasks.
    fitting = {own: value for own, value in defaults.items() if not conform(value, options[own].annotation, own)[1]}
    return {**node, **{own: value for own, value in fitting.items() if own not in node}}


def _plain(value: Any) -> Any:
    """A default as YAML would give it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
