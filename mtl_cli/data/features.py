"""The input columns: decided and measured once on the training rows, then applied to any table."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mtl_cli.data.collecting import collecting
from mtl_cli.data.column_types import ColumnType, category_text, infer_type
from mtl_cli.data.feature_report import ReportRow, copies_of_targets, describe, format_report
from mtl_cli.data.images import ImageInput, digest_of_sizes, fit_image_arrays, fit_image_files, image_values
from mtl_cli.data.input_columns import (
    CategoryInput,
    Findings,
    NumericInput,
    constant_notes,
    encode,
    fit_block,
    fit_category,
    fit_numeric,
    refuse_missing_cells,
    write_numeric,
)
from mtl_cli.data.number_text import with_numbers_read
from mtl_cli.data.scaling import Scaler
from mtl_cli.data.selection import readable, select_columns
from mtl_cli.data.table import AnyTable, Table
from mtl_cli.data.texts import BagInput, TextInput, TokensInput
from mtl_cli.errors import DataError, Problem, listed
from mtl_cli.schema import FeatureOptions, ImageOptions, TextOptions
from mtl_cli.types import Column, Inputs, InputSpec, Links, Ragged

__all__ = ["FeatureOptions", "Features", "format_report"]

BlockInput = ImageInput | BagInput
_MOST_CUT = 32  # columns of numbers into bins, by themselves
_BAGS: dict[str, type[BagInput]] = {"text": TextInput, "tokens": TokensInput}
_BLOCKS: dict[str, type[BlockInput]] = {"image": ImageInput, **_BAGS}
_READ_OF_LACKING = {"image": "read as black images", "text": "read as empty texts", "tokens": "read as without tokens"}


class SameColumns(NamedTuple):
    """Which input columns are those of another run.

    Args:
        numeric: Whether all that are numbers are.
        categorical: Whether all categories are.
        blocks: The blocks that are.
        every_block: Whether neither has others.
    """

    numeric: bool
    categorical: bool
    blocks: tuple[str, ...]
    every_block: bool


@dataclass(frozen=True, eq=False)
class Features:
    """The input columns of a run, with all statistics. Made by ``fit`` or ``from_json``.

    Args:
        numeric: In the order in which their numbers stand in ``Inputs.numeric``; the indicators follow at the end.
        categorical: In the order in which their codes stand in ``Inputs.categorical``.
        refuse_missing: Whether a missing cell is an error.
        refuse_unknown: Whether a category that no training row has is an error.
        links: Which categories of two columns training rows tie together, for an encoder that reads it.
        notes: What ``fit`` found that the user should know.
        rows: The rows of ``report``.
        optional: Inputs that not every source had: a table without them is read as rows of a source without them.
        blocks: The columns of ``Inputs.blocks``.
        by_values: The column of ``data.text.by``, with the values that training rows have; None if there is none. Runs
            of before do not know the values: theirs is None too.
    """

    numeric: tuple[NumericInput, ...]
    categorical: tuple[CategoryInput, ...]
    refuse_missing: bool = False
    notes: tuple[str, ...] = ()
    rows: tuple[ReportRow, ...] = ()
    optional: tuple[str, ...] = ()
    blocks: tuple[BlockInput, ...] = ()
    refuse_unknown: bool = False
    links: tuple[Links, ...] = ()
    by_values: CategoryInput | None = None

    @classmethod
    def fit(
        cls, table: AnyTable, options: FeatureOptions, train_rows: np.ndarray, reserved: Mapping[str, str]
    ) -> Features:
        """Decides the type of every input column from all rows, and takes statistics from the training rows only.

        Args:
            table: All rows.
            options: Which columns, and how.
            train_rows: Row indices, int64.
            reserved: Columns with another role, and the words for it (``target of task 'income'``).

        Raises:
            DataError: Lists the problems of all columns.

        Example:
            >>> import polars as pl
            >>> from mtl_cli.data.table import Part
            >>> frame = pl.DataFrame({"x": ["1", "3", "9"], "c": ["a", "b", "z"], "y": ["0", "1", "0"]})
            >>> table = Table(frame, (Part("a.csv", 0, 3, lines=True),))
            >>> features = Features.fit(table, FeatureOptions(), np.array([0, 1]), {"y": "target of task 'y'"})
            >>> inputs, notes = features.transform(table)
            >>> inputs.numeric[:, 0].tolist(), inputs.categorical[:, 0].tolist()
            ([-1.0, 1.0, 7.0], [1, 2, 0])
            >>> notes
            ["a.csv, column 'c': 1 cell holds a category unknown from training: 'z' (1)."]
        """
        return cls.fit_reading(table, options, train_rows, reserved)[0]

    @classmethod
    def fit_reading(
        cls, table: AnyTable, options: FeatureOptions, train_rows: np.ndarray, reserved: Mapping[str, str]
    ) -> tuple[Features, AnyTable]:
        """``fit``, and the table with texts of numbers read as such: ``transform`` need not read them once more."""
        selection = select_columns(table, options.inputs, options.exclude, reserved)
        numeric: list[NumericInput] = []
        categorical: list[CategoryInput] = []
        blocks: list[BlockInput] = []
        by_place: dict[str, NumericInput] = {}
        problems: list[Problem] = []
        as_read = table
        told = {name: kind for name, kind in table.types.items() if kind != "name"}  # by the source
        known = {name: declared or told.get(name) for name, declared in selection.inputs.items()}
        if isinstance(table, Table):
            table = with_numbers_read(table, [name for name, kind in known.items() if kind in (None, "numeric")])
        types, notes = _infer_types(table, known, problems)
        text, told_apart, groups = _fit_by(as_read, options, types, train_rows, reserved, problems)
        bins, found = _bins(options, types)
        notes += found
        for name, kind in types.items():
            pieces = functools.partial(table.pieces, name)
            with collecting(problems):
                if kind == "image":
                    image, found = _fit_image(table, name, train_rows, options.image)
                    blocks.append(image)
                    notes += found
                    continue
                if options.missing_inputs == "error":
                    refuse_missing_cells(column for _, column in pieces())
                if kind == "text" or kind == "tokens":
                    bag, found = _BAGS[kind].fit(name, text, as_read, train_rows, groups)
                    blocks.append(bag)
                    notes += found
                elif kind == "category":
                    categorical.append(fit_category(table.column(name), train_rows, options.min_count))
                elif kind == "block":
                    numeric.append(fit_block(pieces, train_rows, options.scale, options.missing_inputs))
                    by_place[next(pieces())[1].head] = numeric[-1]
                else:
                    column = table.column(name)
                    numeric.append(fit_numeric(column, kind, train_rows, options.scale, options.missing_inputs, bins))
                    by_place[column.head] = numeric[-1]
        if problems:
            raise DataError(problems)
        notes += constant_notes(by_place)
        notes += copies_of_targets(as_read, list(selection.inputs), reserved)
        rows = describe(as_read, types, selection.left_out)
        by = [] if text.by is None else [text.by]
        optional = tuple(name for name in dict.fromkeys([*selection.inputs, *by]) if table.lacking(name))
        refuse = options.missing_inputs == "error"
        features = cls(
            numeric=tuple(numeric), categorical=tuple(categorical), refuse_missing=refuse, notes=tuple(notes),
            rows=rows, optional=optional, blocks=tuple(blocks), refuse_unknown=options.unknown == "error",
            by_values=told_apart,
        )  # fmt: skip
        return features, table

    @property
    def spec(self) -> InputSpec:
        """What an encoder has to read."""
        indicators = sum(column.indicator for column in self.numeric)
        width = sum(column.width for column in self.numeric) + indicators
        places = zip(self.numeric, self.places(), strict=True)
        edges = tuple((start, column.edges) for column, (start, _) in places if column.edges)
        blocks = tuple(column.block for column in self.blocks)
        sizes = tuple(column.size for column in self.categorical)
        missing = tuple(column.missing for column in self.categorical)
        return InputSpec(width, sizes, edges, blocks, missing=missing, links=self.links)

    @property
    def columns(self) -> dict[str, str]:
        """The columns that ``transform`` reads, and who names them."""
        inputs = [column.name for part in (self.numeric, self.categorical, self.blocks) for column in part]
        by = {} if self._by_column is None else {self._by_column: "data.text.by"}
        return by | dict.fromkeys(inputs, "data.inputs")

    def read_of_lacking(self) -> dict[str, str]:
        """What is read in the rows of sources that do not have a column, in words, of each that some source lacks."""
        words = {block.name: _READ_OF_LACKING[block.type] for block in self.blocks}
        told = {column.name for part in (self.numeric, self.categorical) for column in part}
        if self._by_column is not None and self._by_column not in told:
            words[self._by_column] = "texts are read as without it"
        return {name: words.get(name, "an input of its own says so") for name in self.optional}

    @property
    def input_dim(self) -> int:
        """F as the user counts it: numbers per row, those of blocks and images, one for others; no indicators."""
        blocks = sum(math.prod(column.block.shape) if column.type == "image" else 1 for column in self.blocks)
        return sum(column.width for column in self.numeric) + blocks + len(self.categorical)

    def describe_width(self) -> str:
        """What ``input_dim`` is made of, in words: ``pixels: 64; 2 numbers: x1, x2; 1 category: country``."""
        pieces = [f"{column.name}: {column.width}" for column in self.numeric if column.type == "block"]
        pieces += [f"{b.name}: {b.type} {' x '.join(map(str, b.shape))}".rstrip() for b in self.spec.blocks]
        single = [column.name for column in self.numeric if column.type != "block"]
        coded = [column.name for column in self.categorical]
        for one, many, names in (("number", "numbers", single), ("category", "categories", coded)):
            if names:
                pieces.append(f"{len(names)} {one if len(names) == 1 else many}: {listed(names, 8)}")
        return "; ".join(pieces)

    def transform(
        self,
        table: Table,
        found: Findings | None = None,
        *,
        unreadable: list[int] | None = None,
        expected: Collection[int] | None = None,
    ) -> tuple[Inputs, list[str]]:
        """Turns the rows of any table that has the input columns into numbers; other columns are ignored.

        Args:
            table: N rows.
            found: Counts of the tables before this one, to go on with.
            unreadable: Gets the rows that have no inputs, because their image is damaged or missing; None makes such
                an image an error.
            expected: The only rows that may be among them; None: any may.

        Returns:
            N rows of inputs, and notes: per column how many cells hold an unknown category or are missing, and of
            texts and tokens how much is unknown, where it is most of it or all of a row.

        Raises:
            DataError: Lists absent columns, or of each column the first cell that does not fit its type.
        """
        table = as_read = table.with_empty(self.optional)
        table.require(self.columns, self.columns)
        table = with_numbers_read(table, [c.name for c in self.numeric if c.type == "numeric"], decided=True)
        # Column by column memory: each input column is written in one stretch.
        numeric = np.zeros((table.frame.height, self.spec.numeric_dim), np.float32, order="F")
        codes = np.zeros((table.frame.height, len(self.categorical)), np.int64, order="F")
        found = Findings() if found is None else found
        problems: list[Problem] = []
        places = self.places()
        for column, (start, flag) in zip(self.numeric, places, strict=True):
            with collecting(problems):
                write_numeric(table.column(column.name), column, numeric, start, flag, self.refuse_missing, found)
        for i, category in enumerate(self.categorical):
            with collecting(problems):
                source = table.column(category.name)
                codes[:, i] = encode(source, category, self.refuse_missing, found, self.refuse_unknown)
        blocks: dict[str, np.ndarray | tuple[np.ndarray, np.ndarray]] = {}
        bad: dict[int, str] = {}
        groups = None
        with collecting(problems):
            groups = self._groups(as_read, found)
        for block in self.blocks:
            damaged: list[int] | None = None if unreadable is None else []
            with collecting(problems):
                source = table.column(block.name)
                if isinstance(block, ImageInput):
                    greyed: list[int] = []
                    files = _from_files(table, source, block.options)
                    blocks[block.name] = image_values(files, block, damaged, greyed, expected)
                    if greyed:
                        found.greyed[source.head] += len(greyed)
                else:
                    if self.refuse_missing:
                        refuse_missing_cells([source])
                    blocks[block.name] = block.values(source, groups, found)
                    if count := int(source.missing.sum()):  # read as empty
                        found.missing[source.head] += count
            bad |= {row: table.where(block.name, row) for row in damaged or ()}
        if problems:
            raise DataError(problems)
        if unreadable is not None:
            unreadable += sorted(bad)
        return _to_inputs(numeric, codes, blocks), [*found.notes(), *_left_out(bad)]

    def vocabularies(self) -> dict[str, int]:
        """How many words and parts of words are known of each column of texts or tokens that has some unknown."""
        bags = [block for block in self.blocks if isinstance(block, BagInput)]
        return {bag.name: bag.size for bag in bags if bag.size is not None}

    @property
    def _by_column(self) -> str | None:
        return next((block.options.by for block in self.blocks if isinstance(block, BagInput)), None)

    def _groups(self, table: Table, found: Findings) -> pl.Series | None:
        """The value of ``data.text.by`` in each row, as training rows spell it; None without it.

        Of a value that no training row has, all features are new. What an input of its own tells is not told twice.

        Raises:
            DataError: As ``encode``.
        """
        if self._by_column is None:
            return None
        source = table.column(self._by_column)
        groups = category_text(source)
        if self.by_values is None:
            return groups
        category = any(column.name == source.name for column in self.categorical)
        told = category or any(column.name == source.name for column in self.numeric)
        own = Findings()
        encode(source, self.by_values, self.refuse_missing and not told, own, self.refuse_unknown and not category)
        if told:
            own.missing.clear()
        if not category:
            found.add(own)
        return groups.replace(own.respelt.get(source.head, {}))

    def with_links(self, pairs: Sequence[tuple[str, str]], codes: np.ndarray) -> Features:
        """These columns with the links of some rows.

        Args:
            pairs: Names of two categorical columns each.
            codes: (rows, number of categorical columns); a row in which one of two categories is missing or unknown
                ties nothing.

        Example:
            >>> names = [CategoryInput("user", ("a", "b"), False), CategoryInput("item", ("x", "y"), False)]
            >>> codes = np.array([[2, 1], [1, 2], [2, 1], [0, 1]])
            >>> Features((), tuple(names)).with_links([("user", "item")], codes).links[0].codes.tolist()
            [[1, 2], [2, 1]]
        """
        names = [column.name for column in self.categorical]
        found = []
        for pair in pairs:
            first, second = (names.index(name) for name in pair)
            here = [(codes[:, i] > 0) & (codes[:, i] <= len(self.categorical[i].values)) for i in (first, second)]
            own, size = codes[here[0] & here[1]], self.categorical[second].size
            each = np.unique(own[:, first] * size + own[:, second])
            found.append(Links((first, second), np.stack(np.divmod(each, size))))
        return replace(self, links=tuple(found))

    def changed_files(self, table: AnyTable) -> dict[str, tuple[str, str]]:
        """The columns whose image files have other sizes than those of the training: what they have had, and have.

        Args:
            table: The rows of the training, as they are read now.
        """
        found = {}
        for block in self.blocks:
            if isinstance(block, ImageInput) and block.files and table.schema.get(block.name) == pl.String:
                column = _from_files(table, table.column(block.name), block.options)
                found[block.name] = block.files, digest_of_sizes(column, block.options)
        return {name: (before, now) for name, (before, now) in found.items() if before != now}

    def differences(self, other: Features) -> list[str]:
        """How the columns differ from those of ``other``, whatever their order and statistics; none: the same."""
        here, there = self._described(), other._described()
        found = [f"'{name}' is not there" for name in here if name not in there]
        found += [f"'{name}' is not here" for name in there if name not in here]
        both = [name for name in here if name in there and here[name] != there[name]]
        return found + [f"'{name}' is {there[name]} there, {here[name]} here" for name in both]

    def read_as(self, other: Features) -> Features:
        """These columns, those that are the same with the order, statistics, bins and categories of ``other``.

        Numbers are read together: they are the same if all of them are. So are categories. Blocks are the same one by
        one, each at its place among them: others go where one is gone, or behind them all.
        """
        numeric = self._alike(other, *(sorted(c.name for c in own.numeric) for own in (self, other)))
        categorical = self._alike(other, *(sorted(c.name for c in own.categorical) for own in (self, other)))
        placed = self._blocks_placed_as(other)
        same = replace(self, blocks=placed).same_as(other).blocks
        theirs = {block.name: block for block in other.blocks if block.name in same}
        return replace(
            self,
            numeric=other.numeric if numeric else self.numeric,
            categorical=other.categorical if categorical else self.categorical,
            blocks=tuple(_from_here(own, theirs[own.name]) if own.name in theirs else own for own in placed),
            by_values=other.by_values if any(isinstance(b, BagInput) for b in theirs.values()) else self.by_values,
        )

    def same_as(self, other: Features) -> SameColumns:
        """Which columns stand where ``other`` has the same: weights that read them mean the same."""
        blocks = tuple(
            own.name
            for own, theirs in zip(self.blocks, other.blocks, strict=False)
            if self._alike(other, [own.name], [theirs.name])
        )
        return SameColumns(
            self._alike(other, *([c.name for c in own.numeric] for own in (self, other))),
            self._alike(other, *([c.name for c in own.categorical] for own in (self, other))),
            blocks,
            len(blocks) == len(self.blocks) == len(other.blocks),
        )

    def _alike(self, other: Features, names: Sequence[str], others: Sequence[str]) -> bool:
        """Whether columns of these and of ``other`` are the same, in this order."""
        here, there = self._described(), other._described()
        return [(name, here[name]) for name in names] == [(name, there[name]) for name in others]

    def _blocks_placed_as(self, other: Features) -> tuple[BlockInput, ...]:
        """The blocks, those that ``other`` has too at its places as far as there are enough to fill all before them."""
        theirs = {block.name for block in other.blocks}
        common = {
            own.name: own for own in self.blocks if own.name in theirs and self._alike(other, [own.name], [own.name])
        }
        rest = [own for own in self.blocks if own.name not in common]
        placed = [common[b.name] if b.name in common else rest.pop(0) if rest else None for b in other.blocks]
        return tuple(own for own in (*placed, *rest) if own is not None)

    def _described(self) -> dict[str, str]:
        """What each column is, in words that are equal where the weights that read it mean the same."""
        found = {c.name: c.type if c.width == 1 else f"{c.type} of {c.width}" for c in self.numeric}
        found |= {c.name: "category" for c in self.categorical}
        for block in self.blocks:
            how = f"{block.shape[-1]} channels" if isinstance(block, ImageInput) else f"{asdict(block.options)}"
            found[block.name] = f"{block.type} ({how})"
        return {name: f"{what}, not in every source" if name in self.optional else what for name, what in found.items()}

    def report(self) -> list[ReportRow]:
        """One row per column of the training table: what it is and why it is an input or not."""
        return list(self.rows)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON types; ``from_json`` gives the same features, bit for bit, also after a file."""
        return {
            "numeric": [{**vars(c), "scaler": c.scaler.to_json(), "edges": list(c.edges)} for c in self.numeric],
            "categorical": [c.to_json() for c in self.categorical],
            "refuse_missing": self.refuse_missing,
            "refuse_unknown": self.refuse_unknown,
            "notes": list(self.notes),
            "rows": [asdict(row) for row in self.rows],
            "optional": list(self.optional),
            "blocks": [column.to_json() for column in self.blocks],
            "links": [
                # one text for each column: a list of numbers would be a line of the file for each
                {"columns": list(own.columns), "codes": [" ".join(map(str, codes.tolist())) for codes in own.codes]}
                for own in self.links
            ],
            "by": None if self.by_values is None else self.by_values.to_json(),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Features:
        """The features that ``to_json`` described."""
        return cls(
            numeric=tuple(
                NumericInput(**{**c, "scaler": Scaler.from_json(c["scaler"]), "edges": tuple(c["edges"])})
                for c in saved["numeric"]
            ),
            categorical=tuple(CategoryInput.from_json(c) for c in saved["categorical"]),
            refuse_missing=saved["refuse_missing"],
            notes=tuple(saved["notes"]),
            rows=tuple(ReportRow(**row) for row in saved["rows"]),
            optional=tuple(saved["optional"]),
            blocks=tuple(_BLOCKS[column["type"]].from_json(column) for column in saved["blocks"]),
            refuse_unknown=saved.get("refuse_unknown", False),  # runs of before had no choice
            links=tuple(
                Links(
                    (own["columns"][0], own["columns"][1]),
                    np.stack([np.fromstring(codes, np.int64, sep=" ") for codes in own["codes"]]),
                )
                for own in saved.get("links", [])
            ),
            by_values=None if saved.get("by") is None else CategoryInput.from_json(saved["by"]),
        )

    def places(self) -> Iterator[tuple[int, int | None]]:
        """Of each numeric column the position of its first number, and of its indicator."""
        start, flag = 0, sum(column.width for column in self.numeric)
        for column in self.numeric:
            yield start, flag if column.indicator else None
            start += column.width
            flag += column.indicator


def _infer_types(
    table: AnyTable, known: Mapping[str, str | None], problems: list[Problem]
) -> tuple[dict[str, ColumnType], list[str]]:
    """The type of each column, by what is known of it, and notes; ``problems`` gets those of columns without one."""
    types: dict[str, ColumnType] = {}
    notes: list[str] = []
    for name, declared in known.items():
        with collecting(problems):
            wide = declared in ("text", "image") or table.schema[name].is_nested()  # its cells are not looked at
            column = next(table.pieces(name))[1] if wide else table.column(name)
            types[name], found = infer_type(column, declared)
            notes += found
    return types, notes


def _fit_by(
    table: AnyTable,
    options: FeatureOptions,
    types: Mapping[str, ColumnType],
    train_rows: np.ndarray,
    reserved: Mapping[str, str],
    problems: list[Problem],
) -> tuple[TextOptions, CategoryInput | None, pl.Series | None]:
    """How texts and tokens are read: the column ``data.text.by``, and its value in each row as training rows spell it.

    Where there are none, or the column cannot be read, they are read without it; ``problems`` gets what is wrong.
    """
    by, without = options.text.by, replace(options.text, by=None)
    if by is None or not set(types.values()) & _BAGS.keys():
        return without, None, None
    if wrong := readable("data.text.by", by, table, reserved):
        problems += wrong
        return without, None, None
    with collecting(problems):
        column = table.column(by)
        if options.missing_inputs == "error" and by not in types:
            refuse_missing_cells([column])
        category = fit_category(column, train_rows, 1)
        return options.text, category, category.spelt_as_known(category_text(column))
    return without, None, None


def _fit_image(
    table: AnyTable, name: str, train_rows: np.ndarray, options: ImageOptions
) -> tuple[ImageInput, list[str]]:
    if table.schema[name] == pl.String:  # paths
        return fit_image_files(_from_files(table, table.column(name), options), train_rows, options)
    return fit_image_arrays(functools.partial(table.pieces, name), train_rows, options)


def _from_files(table: AnyTable, column: Column, options: ImageOptions) -> Column:
    """A column of images; paths start from the folder of their file, unless a root is given."""
    return column if options.root is not None else replace(column, values=table.resolve_paths(column.name))


def _from_here(own: BlockInput, other: BlockInput) -> BlockInput:
    """A block with the statistics of ``other`` that is found where ``own`` is: image files may lie elsewhere now."""
    if not isinstance(own, ImageInput) or not isinstance(other, ImageInput):
        return other
    return own.measured_as(other)


def _bins(options: FeatureOptions, types: Mapping[str, ColumnType]) -> tuple[int, list[str]]:
    """Bins per numeric column: as given, or 48 unless there are so many columns that the first layer would be huge.

    With a note in the latter case.
    """
    if options.bins != "auto":
        return options.bins, []
    single = sum(kind in ("numeric", "date") for kind in types.values())
    if single <= _MOST_CUT:
        return 48, []
    what = f"{single} columns of numbers: data.bins=auto cuts no more than {_MOST_CUT} into bins"
    return 0, [f"{what}. Write data.bins=48."]


def _left_out(bad: Mapping[int, str]) -> list[str]:
    """The note on rows whose image cannot be read."""
    if not bad:
        return []
    who = "1 row is left out for every task, its"
    if len(bad) > 1:
        who = f"{len(bad)} rows are left out for every task, their"
    return [f"{who} image cannot be read: {listed(list(bad.values()), 5)}."]


def _to_inputs(
    numeric: np.ndarray, codes: np.ndarray, blocks: Mapping[str, np.ndarray | tuple[np.ndarray, np.ndarray]]
) -> Inputs:
    import torch  # here, so that reading and splitting need no PyTorch

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.require(values, requirements=["C", "W"]))

    made = {
        name: Ragged(tensor(block[0]), tensor(block[1])) if isinstance(block, tuple) else tensor(block)
        for name, block in blocks.items()
    }
    return Inputs(tensor(numeric), tensor(codes), made)
