"""What every source offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from mtl_cli.data.table import Table
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.registry import describe_component, options_of


class Source(ABC):
    """Rows from somewhere. Its keyword-only constructor arguments are the options of ``data``.

    Attributes:
        files: The options that name files or folders, by which a finished run knows that its data were changed.
    """

    files: ClassVar[tuple[str, ...]] = ("path", "train", "val", "test")

    @classmethod
    def further_rows(cls, path: str, options: Mapping[str, Any]) -> Source:
        """The source that reads another file for a run of this one: rows to predict or to evaluate, perhaps unlabelled.

        Here cells are read as in training, and only what names the files of the training is left out. A source whose
        options pick what is read of those files overrides this, and so does one that does more than read files.

        Args:
            path: The file.
            options: Those of the run's source.

        Raises:
            ConfigError: The source has no option for a file.
        """
        if "path" not in options_of(cls):
            what = "it has no option 'path', so that it reads no other file"
            raise ConfigError(Problem(describe_component(cls), what, "Give it one, or override further_rows."))
        named = {"train", "val", "test"} & set(options_of(cls))
        return cls(**{**options, **dict.fromkeys(named), "path": path})

    @abstractmethod
    def read(self) -> Table:
        """Reads all rows.

        Raises:
            DataError: The files cannot be read as they are.
        """

    def chunks(self, rows: int, *, verbatim: Collection[str] = (), converted: Collection[str] = ()) -> Iterator[Table]:
        """Reads all rows, some at a time, to predict them with a model that was trained before.

        A source whose files can be read piece by piece overrides this; here they are read whole.

        Args:
            rows: Rows of each table but the last; their places in messages are those of the file.
            verbatim: Columns whose cells are also given as they stand in the file, in ``Table.as_written``.
            converted: ``Table.converted`` of the training table: decided once, not for each table anew.

        Yields:
            The rows in order; one table without rows if there are none.

        Raises:
            DataError: The files cannot be read as they are.
        """
        del verbatim, converted  # of text files only
        table = self.read()
        for first in range(0, max(table.frame.height, 1), rows):
            parts = tuple(replace(part, first=part.first - first) for part in table.parts)
            yield replace(table, frame=table.frame.slice(first, rows), parts=parts, given_split=None)
