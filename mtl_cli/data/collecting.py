"""Going on after an error, so that all of them can be shown at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mtl_cli.errors import DataError, Problem, UserError


@contextmanager
def collecting(problems: list[Problem], within: str = "", error: type[UserError] = DataError) -> Iterator[None]:
    """Adds the problems of an error that is raised inside to ``problems``, and goes on.

    Args:
        problems: Gets them.
        within: What they are problems of, to stand in front of each.
        error: Which errors; others are raised as ever.

    Example:
        >>> problems = []
        >>> with collecting(problems, within="tasks.a"):
        ...     raise DataError(Problem("a.csv", "is an empty file"))
        >>> print(problems[0])
        tasks.a: a.csv: is an empty file.
    """
    try:
        yield
    except error as found:
        problems += [replace(p, where=f"{within}: {p.where}") if within else p for p in found.problems]
