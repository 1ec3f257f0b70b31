"""Implicit feedback: who took what, what was drawn that they did not take, and lists of candidates to rank."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import polars as pl

from mtl_cli.data.collecting import collecting
from mtl_cli.data.negatives import TRIES
from mtl_cli.data.sources.base import Source
from mtl_cli.data.sources.table import TableSource
from mtl_cli.data.table import Drawn, Feedback, Part, Table
from mtl_cli.errors import ConfigError, DataError, Problem
from mtl_cli.registry import SOURCES
from mtl_cli.types import NonNegativeInt


@SOURCES.register("interactions")
class InteractionsSource(Source):
    """Files of what users took, as a table with a column of labels: 1 for what they took, 0 for what they did not.

    Each interaction is a row with label 1, and gives ``negatives`` rows with label 0 at the end of the table. Their
    item is drawn uniformly among all items of the files, candidates included, that the user never took: also those
    that nobody took in training, which would else stand above what is taken seldom. If there is none, the rows are left
    out, and that is told. For the training rows it is drawn anew in every epoch, a function of seed and epoch; there
    the user has taken what training rows that were read say, a candidate with label 0 too, and nothing of the other
    splits. User and item are categories, even if they are numbers; where negatives are drawn, both must be inputs.

    A row of ``candidates`` is a list of items for one user, the first of them taken and the others not. An interaction
    that is the first of a list (same user, item, and other columns that both files have, such as the split) belongs to
    it and gets no negatives of its own; the other candidates are rows with label 0. The column ``list`` numbers the
    lists, for ``tasks.NAME.ranking``. A split must keep each of them whole, as a column of both files does.

    Further columns of rows with label 0 are those of the interaction, or of the list. Inputs must be such that they are
    the same for any item: what goes with the user, or the occasion. What goes with the item (has one value for each) is
    refused as an input, and so is what only one of the two files has, which would say what was taken.

    Rows with label 0 have no label of any other task: nobody has rated or bought there. Where that is a label by itself
    (what was not clicked was not bought), draw negatives yourself, for ``source: table``.

    Args:
        path: Files with a row for each interaction, in any format of the ``table`` source.
        candidates: Files with a row for each list.
        user: Column with the user.
        item: Column with the item; also what the candidates are called.
        candidates_column: Column of ``candidates`` with the lists.
        label: Name of the new column of labels.
        negatives: Rows with label 0 for each interaction that is in no list.
        seed: Of the first drawing; other than the training seed, so that all runs evaluate the same rows.

    Raises:
        ConfigError: ``path`` is not given.
    """

    files: ClassVar[tuple[str, ...]] = ("path", "candidates")

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        candidates: str | list[str] | None = None,
        user: str = "user",
        item: str = "item",
        candidates_column: str = "candidates",
        label: str = "label",
        negatives: NonNegativeInt = 4,
        seed: NonNegativeInt = 0,
    ) -> None:
        if path is None:
            raise ConfigError(Problem("data.path", "must be given, got null", "Write data.path=FILE."))
        self._path, self._candidates = path, candidates
        self._user, self._item, self._list, self._label = user, item, candidates_column, label
        self._negatives, self._seed = negatives, seed

    @classmethod
    def further_rows(cls, path: str, options: Mapping[str, Any]) -> Source:
        """Pairs as they are asked for, in a table's file: nothing is drawn or listed."""
        del options
        return TableSource(path=path)

    def read(self) -> Table:
        """Reads all files and draws.

        Raises:
            DataError: A column is absent, taken or has missing cells, or a list is empty.
        """
        table = TableSource(path=self._path).read()
        self._check(table, {self._user: "data.user", self._item: "data.item"})
        frame = table.frame.with_columns(pl.lit(1, pl.Int8).alias(self._label))
        parts, fingerprint = list(table.parts), table.fingerprint
        listed, lacking = np.zeros(frame.height, bool), dict[str, str]()
        if self._candidates is not None:
            lists = TableSource(path=self._candidates).read()
            self._check(lists, {self._user: "data.user", self._list: "data.candidates_column"})
            lacking = self._lacking(table, lists)
            frame, listed = self._with_lists(frame, lists)
            added = frame.height - table.frame.height
            parts.append(Part(f"{lists.files} (candidates)", table.frame.height, added, lines=False))
            fingerprint = hashlib.sha256(f"{fingerprint}{lists.fingerprint}".encode()).hexdigest()
        positives = frame.head(table.frame.height).filter(pl.Series(~listed[: table.frame.height]))
        drawn = self._draw(positives, frame)
        notes = (*table.notes, *self._left_out(drawn, table.files))
        drawn = drawn.drop_nulls(self._item)
        parts.append(Part(f"{table.files} (negatives)", frame.height, drawn.height, lines=False))
        marks = (Drawn(frame.height, drawn.height, self._user, self._item),) if drawn.height else ()
        whole = pl.concat([frame, drawn], how="diagonal_relaxed")
        numbered = None if self._candidates is None else "list"
        feedback = Feedback(0, whole.height, self._user, self._item, self._label, numbered, lacking)
        types = dict.fromkeys((self._user, self._item), "category")  # whatever they are called: numbers, too
        return replace(
            table, frame=whole, parts=tuple(parts), fingerprint=fingerprint, notes=notes, drawn=marks,
            feedback=(feedback,), types=types,
        )  # fmt: skip

    def _check(self, table: Table, needed: dict[str, str]) -> None:
        table.require(list(needed), needed)
        problems = [
            Problem(f"{table.files}, column '{name}'", "has the name of a new column", "Rename it, or set data.label.")
            for name in (self._label, "list")
            if name in table.frame.columns
        ]
        for name in needed:
            absent = table.frame[name].is_null()
            if absent.any():
                row = int(absent.arg_max() or 0)
                problems.append(Problem(table.where(name, row), "is missing", "Every row needs a user and an item."))
        if problems:
            raise DataError(problems)

    def _lacking(self, table: Table, lists: Table) -> dict[str, str]:
        """Columns that only the interactions or only the candidates have, and the files that lack them."""
        taken, candidates = set(table.frame.columns) - {self._item}, set(lists.frame.columns) - {self._list}
        return dict.fromkeys(taken - candidates, lists.files) | dict.fromkeys(candidates - taken, table.files)

    def _with_lists(self, frame: pl.DataFrame, lists: Table) -> tuple[pl.DataFrame, np.ndarray]:
        """The interactions and, below them, the other candidates; and which rows are in a list."""
        column = lists.frame[self._list]
        if not column.dtype.is_nested():
            what = f"must hold lists of items, got type {column.dtype}"
            raise DataError(Problem(f"{lists.files}, column '{self._list}'", what))
        items = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
        short = items.list.len() < 1
        if short.any():
            raise DataError(Problem(lists.where(self._list, int(short.arg_max() or 0)), "is an empty list"))
        holes = items.list.eval(pl.element().is_null()).list.any().fill_null(True)
        if holes.any():
            place, hint = lists.where(self._list, int(holes.arg_max() or 0)), "Every candidate needs an item."
            raise DataError(Problem(place, "holds a missing item", hint))
        problems: list[Problem] = []
        shared = [n for n in lists.frame.columns if n in frame.columns and n not in (self._list, self._item)]
        wanted = {name: (lists.frame[name], frame.schema[name]) for name in shared}
        wanted[self._list] = items, pl.List(frame.schema[self._item])
        same = []
        for name, (cells, dtype) in wanted.items():
            with collecting(problems):
                same.append(_stored_as(cells, dtype, f"{lists.files}, column '{name}'").alias(name))
        if problems:
            raise DataError(problems)
        numbered = lists.frame.with_columns(same).with_columns(pl.col(self._list).alias(self._item))
        numbered = numbered.drop([self._list] if self._list != self._item else [])
        numbered = numbered.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("list"))
        first = numbered.with_columns(pl.col(self._item).list.first())
        keys = [*shared, self._item]
        first = first.unique(keys, keep="first", maintain_order=True)
        found = frame.join(first.select(*keys, "list"), on=keys, how="left", maintain_order="left", nulls_equal=True)
        found = found.with_columns(  # an interaction that stands there twice is in the list once
            pl.when(pl.col("list").is_first_distinct()).then(pl.col("list")).alias("list")
        )
        inside = found["list"].drop_nulls()
        rest = numbered.explode(self._item)
        rest = rest.with_columns(pl.col("list").is_first_distinct().cast(pl.Int8).alias(self._label))
        rest = rest.filter((pl.col(self._label) == 0) | ~pl.col("list").is_in(inside.implode()))
        whole = pl.concat([found, rest], how="diagonal_relaxed")
        return whole, whole["list"].is_not_null().to_numpy()

    def _draw(self, positives: pl.DataFrame, everything: pl.DataFrame) -> pl.DataFrame:
        """``negatives`` rows for each of the positives, with items that their users never took, null if none."""
        count = self._negatives
        if count == 0 or positives.height == 0:
            return positives.head(0)
        taken = everything.filter(pl.col(self._label) == 1)
        items = everything[self._item].unique(maintain_order=True)
        rows = positives[np.repeat(np.arange(positives.height), count)].with_columns(
            pl.lit(0, pl.Int8).alias(self._label)
        )
        # By names of our own: a column of theirs may be called as anything that is added.
        pair = {"user": pl.col(self._user), "item": pl.col(self._item)}
        pairs = taken.select(**pair).unique()
        generator = np.random.default_rng(self._seed)
        drawn = items.gather(generator.integers(len(items), size=rows.height))
        for _ in range(TRIES):
            rows = rows.with_columns(drawn.alias(self._item))
            both = rows.select(**pair).with_row_index("row")
            again = both.join(pairs, on=["user", "item"], how="semi")["row"].sort()
            if not len(again):
                return rows
            drawn = drawn.scatter(again, items.gather(generator.integers(len(items), size=len(again))))
        rest = self._draw_from_rest(rows[again][self._user], items, pairs, generator)
        return rows.with_columns(rows[self._item].scatter(again, rest))

    def _draw_from_rest(
        self, users: pl.Series, items: pl.Series, pairs: pl.DataFrame, generator: np.random.Generator
    ) -> pl.Series:
        """An item for each of the users, among the few that they never took; null for users who took all."""
        every = users.unique().to_frame("user").join(items.to_frame("item"), how="cross")
        never = every.join(pairs, on=["user", "item"], how="anti")
        lists = never.group_by("user").agg(pl.col("item").sort())
        own = users.to_frame("user").join(lists, on="user", how="left", maintain_order="left")["item"]
        places = generator.random(len(own)) * own.list.len().fill_null(0).to_numpy()
        return own.list.get(pl.Series(places.astype(np.int64)), null_on_oob=True)

    def _left_out(self, drawn: pl.DataFrame, files: str) -> list[str]:
        """What to tell of the drawn rows without an item."""
        users = drawn.filter(pl.col(self._item).is_null())[self._user]
        if not len(users):
            return []
        who = "1 user, who" if users.n_unique() == 1 else f"{users.n_unique()} users, each of whom"
        return [f"{files}: left out the {len(users)} negatives of {who} took every item."]


def _stored_as(cells: pl.Series, dtype: pl.DataType, place: str) -> pl.Series:
    """The cells of the candidates in the type of the interactions, so that equal ones are equal."""
    with suppress(pl.exceptions.PolarsError):
        stored = cells.cast(dtype)
        if _missing(stored) == _missing(cells):  # earlier versions of polars leave out items of lists that do not fit
            return stored
    what = f"has type {cells.dtype}, but must be read as {dtype} as in the interactions"
    raise DataError(Problem(place, what, "Store the column in one way."))


def _missing(cells: pl.Series) -> int:
    return (cells.explode() if cells.dtype.is_nested() else cells).null_count()
