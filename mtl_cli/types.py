"""The words that every part shares: shapes, rows, and the types that options can have.

Shapes, in docstrings and comments everywhere: **B** rows of a batch, **N** rows of a data set, **K** tasks,
**F** input width (``input_dim``), **D** shared width (``shared_dim``), **C** outputs of a head (classes),
**P** shared parameters.

This module imports no PyTorch, so that a configuration can be checked before PyTorch is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy
    import polars
    import torch


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for use in ``Annotated``. ``open_low``/``open_high`` exclude the bound itself."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def wanted(self, value: object) -> str:
        """What a value that is not in here must be.

        Example:
            >>> Range(0).wanted(-1), Range(0).wanted(math.inf)
            ('at least 0', 'finite and at least 0')
        """
        unbounded = math.isinf(self.high) and not math.isinf(self.low)
        return (
            f"finite and {self}" if unbounded and isinstance(value, float) and not math.isfinite(value) else str(self)
        )

    def __str__(self) -> str:
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "a finite number"
            return f"greater than {self.low:g}" if self.open_low else f"at least {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


@dataclass(frozen=True)
class TaskNames:
    """Marks an option of a balancing method, a list or the keys of a mapping, that holds names of declared tasks only.

    Args:
        by_position: What the constructor is given instead: positions of the named tasks, or a value for each task, in
            training order, which is not that of the configuration.
    """

    by_position: Any


@dataclass(frozen=True)
class Surroundings:
    """What an architecture will have to do with, as far as the configuration says it; None: it is wrong there.

    Args:
        encoder: The class of the encoder.
        encoder_name: What it is registered as.
        encoder_options: Its options, defaults filled in.
        tasks: The number of tasks that have a head.
        shared_dim: D.
    """

    encoder: type[Any] | None
    encoder_name: str
    encoder_options: Mapping[str, Any]
    tasks: int | None
    shared_dim: int | None


Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
AtLeastOne = Annotated[float, Range(1)]
Fraction = Annotated[float, Range(0, 1)]
ProperFraction = Annotated[float, Range(0, 1, open_high=True)]  # 1 itself would remove everything
Share = Annotated[float, Range(0, 1, open_low=True)]
PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**63 - 1)]  # what generators take
UpdateScale = Literal["none", "sum", "mean"]  # what a gradient method's update is made as long as
GradientsOn = Literal["parameters", "features"]  # what a gradient method takes the gradients of
Plain = str | bool | int | float  # one value as YAML writes it
ClassNames = list[str | int | float]  # YAML's yes and no are no text, and have to be quoted
PerTask = Annotated[dict[str, NonNegative], TaskNames(list[NonNegative])]
TaskList = Annotated[list[str], TaskNames(list[NonNegativeInt])]

_USUAL_LENGTHS = {"text": 1000, "tokens": 30}  # ids of a text of some hundred words, tokens of a sentence


@dataclass(frozen=True)
class Column:
    """One column of the user's table, as a task sees it.

    Args:
        name: The column's name in the file.
        values: N values; null where the cell is missing. Of text files (CSV) they are text, numbers too, and of others
            what the file holds: ``mtl_cli.tasks.read_numbers`` reads numbers of either.
        where: Gives the place of row ``i`` (0-based) for messages: ``people.csv, column 'age', row 7``.
        in_source: (N,) bool, the rows of those sources that have the column; None: all have it. The cells of the other
            rows are null, and not for lack of a value.
    """

    name: str
    values: polars.Series
    where: Callable[[int], str]
    in_source: numpy.ndarray | None = None

    @property
    def missing(self) -> numpy.ndarray:
        """(N,) bool: cells that lack a value, of the rows of those sources that have the column."""
        null: numpy.ndarray = self.values.is_null().to_numpy()
        return null if self.in_source is None else null & self.in_source

    @property
    def head(self) -> str:
        """The place of the column as a whole, in one file or in several: ``a.csv to c.csv, column 'age'``."""
        first, last = 0, max(len(self.values) - 1, 0)
        if self.in_source is not None:  # of the rows that have the column
            first, last = int(self.in_source.argmax()), last - int(self.in_source[::-1].argmax())
        head, end = (self.where(row).rpartition(", row ")[0] for row in (first, last))
        (file, cut, column), (other, _, _) = head.rpartition(", column "), end.rpartition(", column ")
        return head or self.name if file == other else f"{file} to {other}{cut}{column}"


@dataclass(frozen=True)
class Block:
    """One input column that is more than a number or a category: an image, a text or a sentence of tokens.

    Args:
        name: The column, and the key of its values in ``Inputs.blocks``.
        type: ``image``, ``text`` or ``tokens``.
        shape: Of an image (H, W, channels); of tokens (number of ids of a token,); of a text ().
        ids: Texts and tokens are bags of ids in [0, ids); 0 for images.
        mean: Of an image, the mean of each channel over the training rows.
        std: Of an image, the standard deviation of each channel.
    """

    name: str
    type: Literal["image", "text", "tokens"]
    shape: tuple[int, ...] = ()
    ids: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def cells(self) -> int:
        """How many numbers a row holds; of texts and tokens, which have different lengths, how many are usual."""
        return math.prod(self.shape) * _USUAL_LENGTHS.get(self.type, 1)


@dataclass(frozen=True, eq=False)
class Links:
    """Which categories of two input columns the training rows tie together: who took what.

    Args:
        columns: Positions of the two among the categorical columns.
        codes: (2, M) int64, the two categories of each link; each link once, in rising order.
    """

    columns: tuple[int, int]
    codes: numpy.ndarray


@dataclass(frozen=True)
class InputSpec:
    """What an encoder reads, and for which positions it has to give features.

    Args:
        numeric_dim: Width of ``Inputs.numeric``.
        categories: Number of categories of each categorical column, its unknown slot (code 0) included.
        edges: Of each numeric input that an encoder may cut into bins: its position, and the rising edges of the bins.
        blocks: The columns of ``Inputs.blocks``.
        positions: ``rows``: features of each row; ``tokens``: of each token of the batch, row after row, for tasks that
            label tokens; ``both``: of the rows first, then of the tokens.
        missing: Of each categorical column whether its last code stands for a missing value.
        links: For an encoder that reads them, see ``Encoder.linked``.
    """

    numeric_dim: int
    categories: tuple[int, ...] = ()
    edges: tuple[tuple[int, tuple[float, ...]], ...] = ()
    blocks: tuple[Block, ...] = ()
    positions: Literal["rows", "tokens", "both"] = "rows"
    missing: tuple[bool, ...] = ()
    links: tuple[Links, ...] = ()

    @property
    def cells(self) -> int:
        """How many numbers a row holds, about.

        Example:
            >>> InputSpec(2, (5,), blocks=(Block("photo", "image", (4, 5, 3)),)).cells
            63
        """
        return self.numeric_dim + len(self.categories) + sum(block.cells for block in self.blocks)


class Ragged(NamedTuple):
    """Rows of different lengths, one after the other.

    Args:
        values: (M, ...), the values of all rows.
        starts: (B + 1,) int64; row i is ``values[starts[i]:starts[i + 1]]``.
    """

    values: torch.Tensor
    starts: torch.Tensor

    def places(self, rows: torch.Tensor) -> torch.Tensor:
        """Where the values of some rows stand, one row after the other: int64 positions in ``values``."""
        import torch

        first, lengths = self.starts[rows], self.lengths()[rows]
        ends = lengths.cumsum(0)
        total = int(ends[-1]) if len(rows) else 0
        shift = (first - ends + lengths).repeat_interleave(lengths, output_size=total)
        return shift + torch.arange(total, device=shift.device)

    def rows(self, index: torch.Tensor) -> Ragged:
        """The rows at ``index``, in that order."""
        starts = self.starts.new_zeros(len(index) + 1)
        starts[1:] = self.lengths()[index].cumsum(0)
        return Ragged(self.values.index_select(0, self.places(index)), starts)

    def part(self, start: int, stop: int) -> Ragged:
        """The rows from ``start`` to ``stop``."""
        starts = self.starts[start : stop + 1]
        return Ragged(self.values[int(starts[0]) : int(starts[-1])], starts - starts[0])

    def lengths(self) -> torch.Tensor:
        """Number of values of each row, (B,) int64."""
        return self.starts[1:] - self.starts[:-1]

    def row_of_each(self) -> torch.Tensor:
        """For each value the number of its row, (M,) int64."""
        import torch

        rows = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return rows.repeat_interleave(self.lengths(), output_size=len(self.values))

    def to(self, device: torch.device) -> Ragged:
        """The same rows on ``device``."""
        return Ragged(self.values.to(device), self.starts.to(device))


class Labels(NamedTuple):
    """The labels of some rows, or of other positions that have them (see ``Rows``), for K tasks.

    Shape:
        targets (N, T) float32, the numbers of the labels, those of each task side by side, NaN where a task has no
        label; T is K unless a label of some kind takes several numbers. shares (N, K) float32 above 0, what each
        position counts for each task; None: 1 each.
    """

    targets: torch.Tensor
    shares: torch.Tensor | None = None

    def rows(self, index: torch.Tensor) -> Labels:
        """The labels at ``index`` (an int64 tensor on the same device), in that order."""
        shares = None if self.shares is None else self.shares.index_select(0, index)
        return Labels(self.targets.index_select(0, index), shares)

    def part(self, start: int, stop: int) -> Labels:
        """The labels from ``start`` to ``stop``."""
        return Labels(self.targets[start:stop], None if self.shares is None else self.shares[start:stop])

    def to(self, device: torch.device) -> Labels:
        """The same labels on ``device``."""
        return Labels(self.targets.to(device), None if self.shares is None else self.shares.to(device))


class Inputs(NamedTuple):
    """The inputs of some rows.

    Shape:
        numeric (B, F) float32; categorical (B, number of categorical columns) int64, codes counted from 0
        in each column; blocks by column: images (B, H, W, channels) uint8 or float32, texts ``Ragged`` ids (M,) int32,
        tokens ``Ragged`` ids (M, ids of a token) int32; wanted (K, B) bool, whether anybody will look at what
        is made of a row for a task, or None: at all of it. A model may leave the rest at 0.
    """

    numeric: torch.Tensor
    categorical: torch.Tensor
    blocks: Mapping[str, torch.Tensor | Ragged] = MappingProxyType({})
    wanted: torch.Tensor | None = None

    def rows(self, index: torch.Tensor) -> Inputs:
        """The rows at ``index`` (an int64 tensor on the same device), in that order."""
        none = self.categorical.shape[1] == 0  # making nothing costs less than gathering it
        codes = self.categorical.new_empty(index.shape[0], 0) if none else self.categorical.index_select(0, index)
        numeric, blocks = self.numeric.index_select(0, index), self.blocks
        if blocks:
            blocks = {
                k: b.rows(index) if isinstance(b, Ragged) else b.index_select(0, index) for k, b in blocks.items()
            }
        wanted = None if self.wanted is None else self.wanted.index_select(1, index)
        return Inputs(numeric, codes, blocks, wanted)

    def ragged(self, name: str) -> Ragged:
        """A block of rows of different lengths."""
        block = self.blocks[name]
        if not isinstance(block, Ragged):
            raise TypeError(f"block '{name}' is not ragged")
        return block

    def part(self, start: int, stop: int) -> Inputs:
        """The rows from ``start`` to ``stop``."""
        blocks = {k: b.part(start, stop) if isinstance(b, Ragged) else b[start:stop] for k, b in self.blocks.items()}
        wanted = None if self.wanted is None else self.wanted[:, start:stop]
        return Inputs(self.numeric[start:stop], self.categorical[start:stop], blocks, wanted)

    def to(self, device: torch.device) -> Inputs:
        """The same inputs on ``device``."""
        blocks = {key: block.to(device) for key, block in self.blocks.items()}
        wanted = None if self.wanted is None else self.wanted.to(device)
        return Inputs(self.numeric.to(device), self.categorical.to(device), blocks, wanted)
