"""The words that every part shares: shapes, rows, and the types that options can have.

Shapes, in docstrings and comments everywhere: **B** rows of a batch, **N** rows of a data set, **K** tasks,
**F** input width (``input_dim``), **D** shared width (``shared_dim``), **C** outputs of a head (classes),
**P** shared parameters.

This module imports no PyTorch, so that a configuration can be checked before PyTorch is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

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
        if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and not math.isinf(value)

    def __str__(self) -> str:
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "a finite number"
            return f"greater than {self.low:g}" if self.open_low else f"at least {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


@dataclass(frozen=True)
class TaskNames:
    """Marks an option, a list or the keys of a mapping, that may hold names of declared tasks only."""


Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
AtLeastOne = Annotated[float, Range(1)]
Fraction = Annotated[float, Range(0, 1)]
ProperFraction = Annotated[float, Range(0, 1, open_high=True)]  # 1 itself would remove everything
Share = Annotated[float, Range(0, 1, open_low=True)]
PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
UpdateScale = Literal["none", "sum", "mean"]  # what a gradient method's update is made as long as
GradientsOn = Literal["parameters", "features"]  # what a gradient method takes the gradients of
PerTask = Annotated[dict[str, NonNegative], TaskNames()]
TaskList = Annotated[list[str], TaskNames()]


@dataclass(frozen=True)
class Column:
    """One column of the user's table, as a task sees it.

    Args:
        name: The column's name in the file.
        values: N values; null where the cell is missing.
        where: Gives the place of row ``i`` (0-based) for messages: ``people.csv, column 'age', row 7``.
        own: (N,) bool, the rows of those sources that have the column; None: all have it. The cells of the other rows
            are null, and not for lack of a value.
    """

    name: str
    values: polars.Series
    where: Callable[[int], str]
    own: numpy.ndarray | None = None

    @property
    def head(self) -> str:
        """The place of the column as a whole: ``people.csv, column 'age'``."""
        first = 0 if self.own is None else int(self.own.argmax())
        return self.where(first).rpartition(", row ")[0] or self.name


@dataclass(frozen=True)
class InputSpec:
    """What an encoder reads.

    Args:
        numeric_dim: Width of ``Inputs.numeric``.
        categories: Number of categories of each categorical column, its unknown slot (code 0) included.
        edges: Of each numeric input that an encoder may cut into bins: its position, and the rising edges of the bins.
    """

    numeric_dim: int
    categories: tuple[int, ...] = ()
    edges: tuple[tuple[int, tuple[float, ...]], ...] = ()


class Inputs(NamedTuple):
    """The inputs of some rows.

    Shape:
        numeric (B, F) float32; categorical (B, number of categorical columns) int64, codes counted from 0
        in each column.
    """

    numeric: torch.Tensor
    categorical: torch.Tensor

    def rows(self, index: torch.Tensor) -> Inputs:
        """The rows at ``index`` (an int64 tensor on the same device), in that order."""
        none = self.categorical.shape[1] == 0  # a view of nothing costs less than gathering it
        codes = self.categorical[: len(index)] if none else self.categorical.index_select(0, index)
        return Inputs(self.numeric.index_select(0, index), codes)

    def to(self, device: torch.device) -> Inputs:
        """The same inputs on ``device``."""
        return Inputs(self.numeric.to(device), self.categorical.to(device))
