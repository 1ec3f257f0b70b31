"""Rows of what users did not take: which inputs and labels of theirs are their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from mtl_cli.data import AnyTable, Features
from mtl_cli.data.labels import copied_labels
from mtl_cli.data.table import Feedback
from mtl_cli.errors import ConfigError, Problem, listed
from mtl_cli.schema import RunConfig

_SHOWN = 8  # columns in a message


def refuse_foreign_inputs(table: AnyTable, features: Features) -> None:
    """Finds inputs that say something else in rows of what was not taken than in the others.

    Raises:
        ConfigError: A user or an item, by which negatives are drawn anew for each epoch, is no category among the
            inputs; an input goes with the item, and rows with another item have a copy of it; or the file of the
            interactions or that of the candidates lacks an input.
    """
    problems = _undrawable(table, features)
    for own, others in zip(table.feedback, table.not_taken, strict=True):
        names = [name for name in features.columns if name not in (own.user, own.item)]
        of_items = _of_items(table, own, others, names)
        if of_items:
            goes = "go" if len(of_items) > 1 else "goes"
            what = (
                f"{_named(of_items)} {goes} with '{own.item}' (one value for each), and rows of what was not taken hold"
            )
            hint = f"Draw negatives yourself, for source: table, or {_leave_out(of_items)}."
            problems.append(Problem("data.inputs", f"{what} that of what was", hint))
        for files in dict.fromkeys(own.lacking.values()):
            absent = [name for name in names if own.lacking.get(name) == files and name not in of_items]
            if absent:
                what = f"{_named(absent)} would say which candidate was taken, as there is none in {files}"
                problems.append(Problem("data.inputs", what, f"Add it there, or {_leave_out(absent)}."))
    if problems:
        raise ConfigError(problems)


def _undrawable(table: AnyTable, features: Features) -> list[Problem]:
    codes = {column.name for column in features.categorical}
    needed = dict.fromkeys(name for drawn in table.drawn for name in (drawn.user, drawn.item))
    hint = "Let data.inputs have it, as {name: NAME, type: category} if it names a type, or write negatives: 0."
    return [
        Problem("data.inputs", f"column '{name}', by which negatives are drawn anew, is no category among them", hint)
        for name in needed
        if name not in codes
    ]


def _of_items(table: AnyTable, own: Feedback, others: np.ndarray, names: Sequence[str]) -> list[str]:
    """Columns that go with the item, and do not go with the user as well; none if there are no rows ``others``."""
    if not others.any():
        return []
    taken = np.flatnonzero(~others[own.first : own.first + own.rows]) + own.first

    def cells(name: str) -> pl.Series:
        return table.values(name).gather(taken)

    users, items = cells(own.user), cells(own.item)
    found = {name: cells(name) for name in names}
    return [name for name, values in found.items() if _goes_with(values, items) and not _goes_with(values, users)]


def _goes_with(values: pl.Series, keys: pl.Series) -> bool:
    """Whether there are several values, one for each key, and keys that occur more than once to tell it by.

    Example:
        >>> years = pl.Series([1994, 1994, 2001])
        >>> _goes_with(years, pl.Series(["a", "a", "b"])), _goes_with(years, pl.Series(["a", "b", "b"]))
        (True, False)
    """
    pairs = pl.DataFrame({"key": keys, "value": values}).drop_nulls()
    different = pairs.unique()
    keys_met = different["key"].n_unique()
    return different.height == keys_met < pairs.height and different["value"].n_unique() > 1


def _named(names: Sequence[str]) -> str:
    return f"column{'s' * (len(names) > 1)} {listed([repr(name) for name in names], _SHOWN)}"


def _leave_out(names: Sequence[str]) -> str:
    return f"leave it out of data.inputs, or by data.exclude=[{','.join(names)}] if that is all columns"


def feedback_roles(table: AnyTable) -> dict[str, str]:
    """Columns that say what was taken, or with what else it was offered, and the words for it."""
    roles = {own.lists: "the lists of candidates" for own in table.feedback if own.lists is not None}
    return roles | {own.label: "the label of what was taken" for own in table.feedback}


def copied_notes(config: RunConfig, table: AnyTable, features: Features) -> list[str]:
    """Inputs that rows of what was not taken have from those of what was, and tasks whose labels there do not count."""
    notes = []
    for own, others in zip(table.feedback, table.not_taken, strict=True):
        names = [name for name in features.columns if name not in (own.user, own.item)]
        copied = [name for name in names if table.values(name).filter(pl.Series(others)).drop_nulls().len()]
        if copied:
            what = f"rows of what was not taken have {_named(copied)} of what was"
            notes.append(f"{int(others.sum()):,} {what}, which must not depend on '{own.item}'.")
    for name, task in config.tasks.items():
        if table.feedback and task.common.labelled:
            columns = [column for column in task.targets(name) if column in table.schema]
            count = int(np.any([copied_labels(table, column) for column in columns], axis=0).sum())
            if count:
                what = f"{count:,} rows of what was not taken have no label, but a copy of one of what was"
                follows = "If it is known for them, draw negatives yourself, for source: table."
                chained = task.common.product_of or task.common.after
                notes.append(f"task '{name}': {what}: it does not count.{f' {follows}' if chained else ''}")
    return notes
