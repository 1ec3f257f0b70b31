"""Which columns are inputs: names, globs and declared types to a list."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtl_cli.data.table import AnyTable
from mtl_cli.errors import DataError, Problem, shown
from mtl_cli.schema import input_entries


@dataclass(frozen=True)
class Selection:
    """The chosen input columns, in order, and why the others are not.

    Args:
        inputs: Name to declared type (None: to be inferred).
        left_out: Name to reason.
    """

    inputs: dict[str, str | None] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def select_columns(
    table: AnyTable, inputs: str | list[Any], exclude: list[str], reserved: Mapping[str, str]
) -> Selection:
    """Chooses the input columns.

    Args:
        table: Its columns are the candidates; their order is the order of what a glob matches.
        inputs: ``"*"``, or a list of names, globs (``d_*``) and ``{name: ..., type: ...}``. A glob
            leaves reserved columns out; a later entry may declare the type of a column that a glob has matched.
        exclude: Names and globs of columns that are no inputs.
        reserved: Columns that have another role, with the words for it (``target of task 'income'``).

    Raises:
        DataError: Lists every entry that is malformed, matches nothing, or names a reserved or excluded column.

    Example:
        >>> import polars as pl
        >>> from mtl_cli.data.table import Part, Table
        >>> table = Table(pl.DataFrame({"id": ["7"], "x": ["1"], "y": ["0"]}), (Part("a.csv", 0, 1, lines=True),))
        >>> select_columns(table, "*", ["id"], {"y": "target of task 'y'"})
        Selection(inputs={'x': None}, left_out={'id': 'data.exclude', 'y': "target of task 'y'"})
    """
    entries, problems = input_entries(inputs)
    excluded = _excluded(table, exclude, problems)
    chosen: dict[str, str | None] = {}
    for entry in entries:
        key, name, declared = entry.key, entry.name, entry.type
        matched = _match(name, table.schema)
        if not matched:
            problems.append(_no_column(key, name, table))
        if matched == [name]:
            problems += _refusals(key, name, excluded, reserved)
        for column in matched:
            if column in reserved or column in excluded:
                continue
            before = chosen.setdefault(column, declared)
            if declared is not None and before not in (None, declared):
                problems.append(Problem(key, f"column '{column}' is declared {before} before, got {declared}"))
            chosen[column] = declared if declared is not None else before
    if not chosen and not problems:
        problems.append(Problem("data.inputs", f"no column of {table.files} is left as an input, got {shown(inputs)}"))
    if problems:
        raise DataError(problems)
    reasons = {c: reserved.get(c) or excluded.get(c) or "not in data.inputs" for c in table.schema}
    return Selection(chosen, {c: reason for c, reason in reasons.items() if c not in chosen})


def readable(key: str, name: str, table: AnyTable, reserved: Mapping[str, str]) -> list[Problem]:
    """Why a column that an option names cannot be read along with the inputs: it is not there, or has another role."""
    return _refusals(key, name, {}, reserved) if name in table.schema else [_no_column(key, name, table)]


def _match(name: str, columns: Collection[str]) -> list[str]:
    if name in columns:  # a column may be called `x[0]` or even `*`
        return [name]
    return [c for c in columns if fnmatch.fnmatchcase(c, name)]


def _excluded(table: AnyTable, exclude: list[str], problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    for i, name in enumerate(exclude):
        matched = _match(name, table.schema)
        if not matched:
            problems.append(_no_column(f"data.exclude[{i}]", name, table))
        found.update(dict.fromkeys(matched, "data.exclude"))
    return found


def _no_column(key: str, name: str, table: AnyTable) -> Problem:
    try:
        table.require([name], {name: key})
    except DataError as error:
        return error.problems[0]
    raise ValueError(f"column '{name}' exists")


def _refusals(key: str, name: str, excluded: Mapping[str, str], reserved: Mapping[str, str]) -> list[Problem]:
    if name in reserved:
        what = f"column '{name}' cannot be an input, it is the {reserved[name].removeprefix('the ')}"
        way_out = f"write data.allow_inputs=[{name}] if the model is meant to see it."
        return [Problem(key, what, f"Take it out of {key.partition('[')[0]}, or {way_out}")]
    if name in excluded:
        return [Problem(key, f"column '{name}' is also in data.exclude", "Keep it in one of the two.")]
    return []
