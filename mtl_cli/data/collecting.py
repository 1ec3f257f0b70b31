"""Going on after an error, so that all of them can be shown at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtl_cli.errors import DataError, Problem


@contextmanager
def collecting(problems: list[Problem]) -> Iterator[None]:
    """Adds the problems of a DataError that is raised inside to ``problems``, and goes on.

    Example:
        >>> problems = []
        >>> with collecting(problems):
        ...     raise DataError(Problem("a.csv", "is an empty file"))
        >>> print(problems[0])
        a.csv: is an empty file.
    """
    try:
        yield
    except DataError as error:
        problems += error.problems
