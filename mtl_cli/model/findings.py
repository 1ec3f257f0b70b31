"""What an architecture has to say of itself once it is trained, in a form that speaks for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

Label = str | tuple[str, str]


@dataclass(frozen=True)
class Finding:
    """A matrix of numbers with names for its rows and columns: a heat map and a table of the report.

    The report knows no architecture. What it shows is what stands here, under the words that stand here.

    Args:
        name: What it shows, in a few words that stay the same from run to run; no two of an architecture are alike.
        title: What the numbers are.
        meaning: What a reader learns from them, in a sentence.
        rows: The name of each row: that of a task, a pair of a task and which of its parts, or any other text. The
            report puts those of tasks into the user's order.
        columns: The name of each column.
        values: A number for each row and column; None where there is none.
        notes: What deserves a second look.

    Raises:
        ValueError: The values are not as many as the names.

    Example:
        >>> Finding("mixing", "what a takes of others", "1: all.", ["a"], ["a", "b"], [[0.9]])
        Traceback (most recent call last):
        ValueError: mixing: 1 rows and 2 columns have names, values [1]
    """

    name: str
    title: str
    meaning: str
    rows: Sequence[Label]
    columns: Sequence[Label]
    values: Sequence[Sequence[float | None]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.values) != len(self.rows) or any(len(row) != len(self.columns) for row in self.values):
            shape = f"{len(self.rows)} rows and {len(self.columns)} columns"
            raise ValueError(f"{self.name}: {shape} have names, values {[len(row) for row in self.values]}")


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """What stands in ``sharing.json``."""
    return {"findings": [asdict(finding) for finding in findings]}


def mixing_by_stage(names: Sequence[Label], mixes: Sequence[Tensor], *, title: str, meaning: str) -> list[Finding]:
    """How much of each other each of ``names`` takes at each stage, as (names, names) matrices.

    Args:
        names: What mixes, and is mixed: tasks, or parts of them.
        mixes: A matrix for each stage.
        title: With ``{}`` for the number of the stage.
        meaning: See ``Finding``.
    """
    return [
        Finding(f"mixing-stage-{number}", title.format(number), meaning, names, names, mix.tolist())
        for number, mix in enumerate(mixes, start=1)
    ]


def parts_of(tasks: Sequence[str], count: int) -> list[Label]:
    """Names of ``count`` parts of each task, those of a task together; of one, the task's own name.

    Example:
        >>> parts_of(["a", "b"], 2)
        [('a', '0'), ('a', '1'), ('b', '0'), ('b', '1')]
    """
    return list(tasks) if count == 1 else [(task, str(part)) for task in tasks for part in range(count)]


def numbered(what: str, count: int) -> list[str]:
    """``what 1``, ``what 2``, ...: stages and levels, as in the titles of the report."""
    return [f"{what} {number}" for number in range(1, count + 1)]
