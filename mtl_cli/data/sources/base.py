"""What every source offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mtl_cli.data.table import Table


class Source(ABC):
    """Rows from somewhere. Its keyword-only constructor arguments are the options of ``data``."""

    @abstractmethod
    def read(self) -> Table:
        """Reads all rows.

        Raises:
            DataError: The files cannot be read as they are.
        """
