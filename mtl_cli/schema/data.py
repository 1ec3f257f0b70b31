"""The node ``data``: the keys that every source has, and one source or several with options of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mtl_cli.errors import Problem, did_you_mean, shown
from mtl_cli.registry import SOURCES, Option, conform, conform_mapping, options_of
from mtl_cli.schema.config import NAME, Component, SourceConfig
from mtl_cli.schema.inputs import input_entries
from mtl_cli.schema.options import DataOptions, ImageOptions, SplitOptions, TextOptions

Sources = Mapping[str, SourceConfig]
_SOURCE_KEYS = ("source", "sources")  # which source there is: neither options of data nor of a source
_OF_ONE_OF_SEVERAL = {
    "rename": Option(dict[str, str], {}),
    "split": Option(SplitOptions, SplitOptions()),
}


def read_data(node: Any) -> tuple[DataOptions | None, Sources, list[Problem]]:
    """The options of the data, and the sources as in ``RunConfig``; without options if something is wrong."""
    if not isinstance(node, Mapping):
        hint = "It needs at least `source` (table or sklearn)."
        return None, {}, [Problem("data", f"must be a mapping, got {shown(node)}", hint)]
    return _read_one(node) if node.get("sources") is None else _read_several(node)


def source_names(node: Any) -> list[str] | None:
    """The names in ``data.sources``, right or wrong; None if the data are of one source."""
    named = node.get("sources") if isinstance(node, Mapping) else None
    if named is None:
        return None
    return [str(name) for name in named] if isinstance(named, Mapping) else []


def _read_one(node: Mapping[str, Any]) -> tuple[DataOptions | None, Sources, list[Problem]]:
    """``data`` with one source, whose options stand among those of ``data``."""
    common = options_of(DataOptions)
    own, known, problems = _source_options(node.get("source"), "data.source")
    values, wrong = _read_options(node, {**common, **known})
    problems += wrong
    if problems or own is None:
        return None, {}, problems
    data = DataOptions(**{key: value for key, value in values.items() if key in common})
    component = Component(str(node["source"]), {key: values[key] for key in own})
    return data, {"": SourceConfig(component, data.split)}, []


def _read_several(node: Mapping[str, Any]) -> tuple[DataOptions | None, Sources, list[Problem]]:
    """``data.sources``: what all share stands in ``data``, what a source has for itself in its own mapping."""
    found = []
    if node.get("source") is not None:
        what = f"cannot be given together with data.sources, got {shown(node['source'])}"
        found.append(Problem("data.source", what, "Write it in each source."))
    values, problems = _read_options(node, options_of(DataOptions))
    found += [_with_place_in_source(problem) for problem in problems]
    named = node["sources"]
    if not isinstance(named, Mapping) or not named:
        hint = "Example: sources: {books: {path: books.csv}, movies: {path: movies.csv}}."
        found.append(Problem("data.sources", f"must be a mapping from names to options, got {shown(named)}", hint))
        return None, {}, found
    sources = {}
    for name, options in named.items():
        source, problems = _read_named(name, options, node.get("split"))
        found += problems
        if source is not None:
            sources[name] = source
    return (None, {}, found) if found else (DataOptions(**values), sources, [])


def _read_options(node: Mapping[str, Any], options: Mapping[str, Option]) -> tuple[dict[str, Any], list[Problem]]:
    """The values of ``data``, and what is wrong with them."""
    values, problems = conform_mapping(node, options, "data", ignore=_SOURCE_KEYS)
    if "data.inputs" not in {problem.where for problem in problems}:
        problems += input_entries(values["inputs"])[1]
    if isinstance(values["image"], ImageOptions):  # else it is wrong by itself
        problems += _check_size(values["image"].size)
    if isinstance(values["text"], TextOptions):
        problems += _check_pieces(values["text"].pieces)
    return values, problems


def _check_size(size: list[int] | None) -> list[Problem]:
    if size is None or len(size) == 2:
        return []
    hint = "Write null for images as they are stored."
    return [Problem("data.image.size", f"must be [height, width], got {shown(size)}", hint)]


def _check_pieces(pieces: list[int] | None) -> list[Problem]:
    if pieces is None or (len(pieces) == 2 and pieces[0] <= pieces[1]):
        return []
    return [Problem("data.text.pieces", f"must be [shortest, longest], got {shown(pieces)}", "Write null for none.")]


def _with_place_in_source(problem: Problem) -> Problem:
    """Says of an unknown key of ``data`` that it belongs into each source, if some source has such an option."""
    key = problem.where.removeprefix("data.")
    if problem.what == "unknown key" and any(key in SOURCES.options(name) for name in SOURCES.names()):
        return replace(problem, hint=f"Write it in each source: data.sources.NAME.{key}.")
    return problem


def _read_named(name: Any, options: Any, common_split: Any) -> tuple[SourceConfig | None, list[Problem]]:
    """One of several sources, by its name and its own options."""
    where = f"data.sources.{name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        hint = "Allowed: letters, digits, _, -, + and spaces, not starting with a digit."
        return None, [Problem(where, f"cannot be the name of a source, got {shown(name)}", hint)]
    if not isinstance(options, Mapping):
        hint = f"Example: {name}: {{path: {name}.csv}}."
        return None, [Problem(where, f"must be a mapping of options, got {shown(options)}", hint)]
    kind = options.get("source", "table")
    own, known, problems = _source_options(kind, f"{where}.source")
    values, wrong = conform_mapping(options, {**known, **_OF_ONE_OF_SEVERAL}, where, ignore=("source",))
    problems += wrong
    if problems or own is None:
        return None, problems
    component = Component(str(kind), {key: values[key] for key in own})
    split = _merged_split(common_split, options.get("split", {}), values["split"])
    return SourceConfig(component, split, values["rename"]), []


def _merged_split(common: Any, own: Mapping[str, Any], own_split: SplitOptions) -> SplitOptions:
    """How one of several sources is split: by its own keys where it has them, by those of ``data.split`` otherwise."""
    if not isinstance(common, Mapping):
        return own_split
    split, wrong = conform({**common, **own}, SplitOptions, "split")
    return SplitOptions() if wrong else split  # what is wrong in data.split was said of data.split already


def _source_options(name: Any, where: str) -> tuple[Mapping[str, Option] | None, Mapping[str, Option], list[Problem]]:
    """The options of a source (None if there is no such source), those that may be meant, and what is wrong."""
    if isinstance(name, str) and name in SOURCES.names():
        return SOURCES.options(name), SOURCES.options(name), []
    what = "must be given" if name is None else f"unknown source {name!r}"
    known = {key: option for source in SOURCES.names() for key, option in SOURCES.options(source).items()}
    return None, known, [Problem(where, what, did_you_mean(str(name), SOURCES.names()))]
