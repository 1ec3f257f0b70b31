"""The rows of a run: its sources, how they are split, and whether they stay in their files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from mtl_cli.build.labels import label_columns
from mtl_cli.data import AnyTable, Source, Splits, Table, split_rows
from mtl_cli.data.collecting import collecting
from mtl_cli.data.combine import NamedSource, combine, combine_splits, rename_columns
from mtl_cli.data.memory import free_memory, size_text
from mtl_cli.data.sources.table import TableSource
from mtl_cli.data.stored import StoredTable
from mtl_cli.data.streaming import input_bytes
from mtl_cli.errors import ConfigError, DataError, Problem, UserError, did_you_mean
from mtl_cli.processes import local_size, size
from mtl_cli.registry import SOURCES, describe_component, from_outside
from mtl_cli.schema import Component, RunConfig, why_whole

_MEMORY_SHARE = 0.5  # of what is free: data that would take more are streamed
_INPUTS_HELD = 2  # those of all rows, and those of the splits; besides the table itself


def read_rows(config: RunConfig) -> tuple[AnyTable, Splits, str]:
    """All rows and how they are split: each source by itself, then one below the other; and where they are, in words.

    Raises:
        UserError: The problems of all sources, each with the source's own keys.
    """
    tables: dict[str, AnyTable] = {}
    whole: dict[str, Table] = {}
    storage = ""
    splits: dict[str, Splits] = {}
    problems: list[Problem] = []
    several = "" not in config.sources
    for name, given in config.sources.items():
        where = f"data.sources.{name}" if several else "data"
        try:
            source = _source(given.component)
            if several:
                tables[name] = whole[name] = rename_columns(_rows_of(source), given.rename, f"{where}.rename")
            else:
                stored, storage = _stay(config, source)
                tables[name] = stored or _rows_of(source)
        except UserError as error:
            problems += [_at(where, problem) for problem in error.problems]
    if problems:
        raise DataError(problems)
    table = combine(whole, source_column=config.data.source_as_input) if several else tables[""]
    _require_columns(config, table, tables)
    for name, own in tables.items():
        where = f"data.sources.{name}" if several else "data"
        try:
            splits[name] = split_rows(own, config.sources[name].split)
        except UserError as error:
            problems += [_at(where, problem) for problem in error.problems]
    if problems:
        raise DataError(problems)
    if not several:
        return table, splits[""], storage
    return table, combine_splits(splits, {name: own.height for name, own in tables.items()}), ""


def streams(config: RunConfig) -> bool:
    """Whether the rows of a configuration stay in their files: by what it says, or by the memory that is free now."""
    try:
        return "" in config.sources and _stay(config, _source(config.sources[""].component))[0] is not None
    except UserError:  # told when they are read
        return False


def build_source(config: RunConfig, path: str, name: str | None = None) -> Source:
    """A source of the run, reading another file in the same way (separator, missing markers, decimal sign...).

    Args:
        config: The configuration.
        path: The file.
        name: Which of the run's sources, where they have names.

    Raises:
        ConfigError: There is no such source, or there are several and none is named.
    """
    return name_source(config, _another_file(config.sources[choose_source(config, name)].component, path), name)


def choose_source(config: RunConfig, name: str | None) -> str:
    """The name of a source in ``config.sources``.

    Raises:
        ConfigError: As ``build_source``.
    """
    several = "" not in config.sources
    if name is None and several:
        known = ", ".join(config.sources)
        what = f"must be given: the run has sources with names ({known}), and each reads its files in its own way"
        raise ConfigError(Problem("source", what, "Name the one that the file is like."))
    if name is not None and (not several or name not in config.sources):
        hint = did_you_mean(name, config.sources) if several else "Leave it out."
        raise ConfigError(Problem("source", f"the run has no source '{name}'", hint))
    return name or ""


def name_source(config: RunConfig, source: Source, name: str | None) -> Source:
    """Rows that are like those of a source with a name: renamed, and with the source as an input if that is so.

    Raises:
        ConfigError: As ``build_source``.
    """
    chosen = choose_source(config, name)
    if not chosen:
        return source
    return NamedSource(source, chosen, config.sources[chosen].rename, source_column=config.data.source_as_input)


def _another_file(component: Component, path: str) -> Source:
    source: Source = SOURCES.load(component.name).further_rows(path, component.options)
    return source


def _source(component: Component) -> Source:
    source: Source = SOURCES.build(component.name, **component.options)
    return source


def _rows_of(source: Source) -> Table:
    """All rows of a source.

    Raises:
        ConfigError: The source, which is none of ours, gives something else, or does not say where each row is from.
    """
    table = source.read()
    what, hint = "", "See mtl_cli.data.table."
    if not isinstance(table, Table):
        what = f"its read gives a {type(table).__name__}, must be a Table"
    elif from_outside(type(source)) and table.picked is None and not table.drawn:
        held = sum(part.rows for part in table.parts)
        if held < table.height:
            what = f"the parts of its Table hold {held:,} rows, and the frame has {table.height:,}"
    if what:
        raise ConfigError(Problem(describe_component(source), what, hint))
    return table


def _stay(config: RunConfig, source: Source) -> tuple[StoredTable | None, str]:
    """The rows of the one source if they stay in their files, and why they do or do not, if that was to be decided."""
    wanted = config.data.in_memory
    whole = why_whole(config.sources, config.tasks, config.encoder.name) is not None
    if wanted is True or whole or not isinstance(source, TableSource):
        return None, ""
    table = source.stored()
    if wanted is False:
        return table, "streamed (data.in_memory=false)"
    row = table.bytes_per_row() + _INPUTS_HELD * input_bytes(table, config.data)
    needed, free = table.height * row * local_size(), free_memory()
    if free is None or needed <= _MEMORY_SHARE * free:
        known = "" if free is None else f" of {size_text(free)} that are free"
        return None, f"in memory: about {size_text(needed)}{known}"
    why = f"in memory they would take about {size_text(needed)}, more than half of the {size_text(free)} that are free"
    if size() > 1:
        what = f"is auto, and rows are not streamed in several processes, each of which holds all: {why}"
        raise ConfigError(Problem("data.in_memory", what, "Write data.in_memory=true, or train in one process."))
    return table, f"streamed: {why}"


def _at(where: str, problem: Problem) -> Problem:
    """A problem of a source, with the keys of ``data`` turned into the source's own."""
    return replace(problem, where=re.sub(r"^data\.(?!sources\.)", f"{where}.", problem.where))


def _require_columns(config: RunConfig, table: AnyTable, tables: Mapping[str, AnyTable]) -> None:
    """Finds columns that the configuration names and that are not there, those of the splits in each source."""
    problems: list[Problem] = []
    everything = {**config.tasks, **config.left_out}
    who = label_columns(everything)
    who.update({column: "data.allow_inputs" for column in config.data.allow_inputs if column not in who})
    for name, task in everything.items():
        if task.common.ranking is not None:
            who.setdefault(task.common.ranking.group, f"tasks.{name}.ranking.group")
    if config.data.id is not None:
        who[config.data.id] = "data.id"
    if len(tables) == 1:
        split = config.data.split
        for key in ("column", "group", "stratify"):
            who.update({column: f"data.split.{key}" for column in (getattr(split, key),) if column is not None})
    with collecting(problems):
        table.require(list(who), who)
    for name, task in everything.items():
        for source in task.sources or ():
            for target in task.targets(name):
                if target in table.schema and target not in tables[source].schema:
                    with collecting(problems):
                        tables[source].require([target], {target: f"tasks.{name}.target"})
    if problems:
        raise DataError(problems)
