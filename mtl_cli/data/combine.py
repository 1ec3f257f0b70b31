"""Several sources as one stream of rows: shared columns below each other, columns of its own missing for the others."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from mtl_cli.data.column_types import is_whole, lost_digits
from mtl_cli.data.number_text import parse_numbers
from mtl_cli.data.sources.base import Source
from mtl_cli.data.splits import Splits
from mtl_cli.data.table import AnyTable, Feedback, Table
from mtl_cli.errors import DataError, Problem, did_you_mean, listed

SOURCE_COLUMN = "source"


def rename_columns(table: Table, rename: Mapping[str, str], where: str) -> Table:
    """Gives columns other names; messages go on to name them as the files do.

    Args:
        table: As read.
        rename: New names by old ones.
        where: The configuration key, for messages.

    Raises:
        DataError: A column is not there, or its new name is taken.

    Example:
        >>> from mtl_cli.data.table import Part
        >>> table = Table(pl.DataFrame({"item": [7]}), (Part("books.csv", 0, 1, lines=True),))
        >>> renamed = rename_columns(table, {"item": "book"}, "data.sources.books.rename")
        >>> renamed.frame.columns, renamed.where("book", 0)
        (['book'], "books.csv, column 'item', row 1 (line 2)")
    """
    if not rename:
        return table
    problems = []
    columns = table.frame.columns
    for old, new in rename.items():
        if old not in columns:
            problems.append(
                Problem(f"{where}.{old}", f"no column '{old}' in {table.files}", did_you_mean(old, columns))
            )
        elif (new in columns and new not in rename) or list(rename.values()).count(new) > 1:
            problems.append(Problem(f"{where}.{old}", f"there is a column '{new}' already", "Choose another name."))
    if problems:
        raise DataError(problems)
    renamed = {new: old for old, new in rename.items()}
    missing = {rename.get(column, column): counts for column, counts in table.missing.items()}
    parts = tuple(replace(part, renamed=renamed) for part in table.parts)
    drawn = tuple(replace(d, user=rename.get(d.user, d.user), item=rename.get(d.item, d.item)) for d in table.drawn)
    feedback = tuple(_renamed(own, rename) for own in table.feedback)
    types = {rename.get(column, column): kind for column, kind in table.types.items()}
    converted = tuple(rename.get(column, column) for column in table.converted)
    return replace(
        table,
        frame=table.frame.rename(dict(rename)), parts=parts, missing=missing, drawn=drawn,
        feedback=feedback, types=types, converted=converted,
        as_written={rename.get(name, name): cells for name, cells in table.as_written.items()},
    )  # fmt: skip


def _renamed(feedback: Feedback, rename: Mapping[str, str]) -> Feedback:
    user, item, label = (rename.get(name, name) for name in (feedback.user, feedback.item, feedback.label))
    lists = None if feedback.lists is None else rename.get(feedback.lists, feedback.lists)
    lacking = {rename.get(name, name): files for name, files in feedback.lacking.items()}
    return replace(feedback, user=user, item=item, label=label, lists=lists, lacking=lacking)


def combine(tables: Mapping[str, Table], *, source_column: bool = False) -> Table:
    """One table of all rows, source after source.

    Columns of the same name are one column. A column that a source does not have is null in its rows; that these are
    not missing cells of the source's files is counted apart (``not in movies``).

    Args:
        tables: By the name of the source.
        source_column: Whether to add the column ``source`` with the name of each row's source.

    Raises:
        DataError: A column has types in two sources that cannot be one, or a source has no rows.

    Example:
        >>> from mtl_cli.data.table import Part
        >>> books = Table(pl.DataFrame({"user": [1], "pages": [9]}), (Part("b.csv", 0, 1, lines=True),))
        >>> movies = Table(pl.DataFrame({"user": [2]}), (Part("m.csv", 0, 1, lines=True),))
        >>> table = combine({"books": books, "movies": movies}, source_column=True)
        >>> table.frame.rows(), table.missing
        ([(1, 9, 'books'), (2, None, 'movies')], {'pages': {'not in movies': 1}})
        >>> table.where("pages", 1)
        "m.csv, column 'pages', row 1 (line 2)"
    """
    tables = _with_numbers(tables)
    problems = [
        Problem(table.files, "holds no rows", f"Give source '{name}' rows, or leave it out.")
        for name, table in tables.items()
        if table.frame.height == 0
    ]
    problems += _clashes(tables)
    if source_column:
        hint = f"Write data.source_as_input=false, or rename it: data.sources.NAME.rename={{{SOURCE_COLUMN}: OTHER}}."
        problems += [
            Problem(f"{table.files}, column '{SOURCE_COLUMN}'", "has the name of what data.source_as_input adds", hint)
            for table in tables.values()
            if SOURCE_COLUMN in table.frame.columns
        ]
    if problems:
        raise DataError(problems)
    frame = pl.concat([table.frame for table in tables.values()], how="diagonal_relaxed")
    if source_column:
        names = [pl.repeat(name, table.frame.height, dtype=pl.String, eager=True) for name, table in tables.items()]
        frame = frame.with_columns(pl.concat(names).alias(SOURCE_COLUMN))
    parts, drawn, feedback, missing, first = [], [], [], dict[str, dict[str, int]](), 0
    for name, table in tables.items():
        columns = frozenset(table.frame.columns) | ({SOURCE_COLUMN} if source_column else set())
        parts += [replace(p, first=p.first + first, source=name, columns=columns) for p in table.parts]
        drawn += [replace(rows, first=rows.first + first) for rows in table.drawn]
        feedback += [replace(rows, first=rows.first + first) for rows in table.feedback]
        first += table.frame.height
        for column in frame.columns:
            here = {} if column in columns else {f"not in {name}": table.frame.height}
            for marker, count in {**table.missing.get(column, {}), **here}.items():
                counts = missing.setdefault(column, {})
                counts[marker] = counts.get(marker, 0) + count
    hasher = hashlib.sha256()
    for name, table in tables.items():
        hasher.update(f"{name}:{table.fingerprint}\n".encode())
    notes = tuple(f"{name}: {note}" for name, table in tables.items() for note in table.notes)
    return replace(
        next(iter(tables.values())),
        frame=frame, parts=tuple(parts), given_split=None, fingerprint=hasher.hexdigest(), missing=missing, notes=notes,
        drawn=tuple(drawn), feedback=tuple(feedback),
        converted=tuple(dict.fromkeys(c for table in tables.values() for c in table.converted)),
        types={column: kind for table in tables.values() for column, kind in table.types.items()},
    )  # fmt: skip


class NamedSource(Source):
    """Other rows of one of several sources, after the training: as ``combine`` would give them.

    Args:
        source: Reads them.
        name: The name of the source in the run.
        rename: New names of columns; those that the rows lack do not matter.
        source_column: Whether to add the column ``source``.
    """

    def __init__(self, source: Source, name: str, rename: Mapping[str, str], *, source_column: bool) -> None:
        self._source, self._name, self._rename, self._source_column = source, name, rename, source_column

    def read(self) -> Table:
        return self._named(self._source.read())

    def chunks(self, rows: int, *, verbatim: Collection[str] = (), converted: Collection[str] = ()) -> Iterator[Table]:
        old = {new: old for old, new in self._rename.items()}
        names = [[old.get(name, name) for name in given] for given in (verbatim, converted)]
        yield from map(self._named, self._source.chunks(rows, verbatim=names[0], converted=names[1]))

    def _named(self, table: Table) -> Table:
        there = {old: new for old, new in self._rename.items() if old in table.frame.columns}
        table = rename_columns(table, there, f"data.sources.{self._name}.rename")
        frame = table.frame
        if self._source_column:
            frame = frame.with_columns(pl.lit(self._name).alias(SOURCE_COLUMN))
        # What the rows lack is told by the name that their files would have for it.
        lacking = {new: old for old, new in self._rename.items() if new not in frame.columns}
        parts = tuple(
            replace(p, source=self._name, columns=frozenset(frame.columns), renamed={**p.renamed, **lacking})
            for p in table.parts
        )
        return replace(table, frame=frame, parts=parts)


def combine_splits(splits: Mapping[str, Splits], sizes: Mapping[str, int]) -> Splits:
    """The splits of the combined rows.

    Args:
        splits: Of each source by itself.
        sizes: Rows of each source, in the order in which they stand.
    """
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    rows = {
        split: np.concatenate([getattr(own, split) + starts[name] for name, own in splits.items()])
        for split in ("train", "val", "test", "all_train")
    }
    methods = {own.method for own in splits.values()}
    told = methods.pop() if len(methods) == 1 else "; ".join(f"{name} {own.method}" for name, own in splits.items())
    notes = tuple(f"{name}: {note}" for name, own in splits.items() for note in own.notes)
    return Splits(**rows, method=told, notes=notes)


def own_column_notes(table: AnyTable, inputs: Mapping[str, str]) -> list[str]:
    """What becomes of the inputs that some sources do not have.

    Args:
        table: All rows.
        inputs: The columns, and what is read in rows of such sources, in words.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for column, read in inputs.items():
        lacking = table.lacking(column)
        if lacking:
            alike.setdefault((", ".join(lacking), read), []).append(column)
    return [
        f"{who}: no column {listed([*map(repr, columns)], 8)}: {read} in these rows."
        for (who, read), columns in alike.items()
    ]


def _with_numbers(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The tables, with numbers where one has text that spells numbers and another, of a binary file, has numbers."""
    numeric: dict[str, list[pl.DataType]] = {}
    for table in tables.values():
        for column, dtype in table.frame.schema.items():
            if dtype.is_numeric():
                numeric.setdefault(column, []).append(dtype)
    found = {}
    for name, table in tables.items():
        texts = [c for c, dtype in table.frame.schema.items() if dtype == pl.String and c in numeric]
        read = [_spelt_numbers(table.frame[column], numeric[column]) for column in texts]
        frame = table.frame.with_columns([values for values in read if values is not None])
        found[name] = replace(table, frame=frame)
    return found


def _spelt_numbers(text: pl.Series, others: Sequence[pl.DataType]) -> pl.Series | None:
    """The numbers that texts spell, of the type that numbers elsewhere have; None where they are, or may be, no such.

    Codes with leading zeros are none, nor are fractions where others are whole: as categories they would be others.
    """
    values, bad = parse_numbers(text)
    if bad.any() or text.str.contains(r"^\s*[+-]?0\d").any():
        return None
    if not all(map(is_whole, others)):
        return values
    whole = text.str.strip_chars().cast(pl.Int64, strict=False)
    return whole if whole.null_count() == text.null_count() else None


def _clashes(tables: Mapping[str, Table]) -> list[Problem]:
    problems = []
    first: dict[str, tuple[str, pl.DataType]] = {}
    for name, table in tables.items():
        for column, dtype in table.frame.schema.items():
            other, before = first.setdefault(column, (name, dtype))
            if before == pl.Null:
                first[column] = (name, dtype)
            elif dtype not in (before, pl.Null) and not (before.is_numeric() and dtype.is_numeric()):
                place = f"{table.files}, column '{table.parts[0].renamed.get(column, column)}'"
                what = f"has type {dtype}, but {before} in {tables[other].files}"
                hint = f"Store the column in one way, or rename it: data.sources.{name}.rename={{{column}: OTHER}}."
                problems.append(Problem(place, what, hint))
    for column in first:
        cells = [(table.files, table.frame[column]) for table in tables.values() if column in table.schema]
        problems += lost_digits(column, cells)
    return problems
