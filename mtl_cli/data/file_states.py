"""The files that the sources of a configuration name: their size, and when they were changed last."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mtl_cli.paths import expanded
from mtl_cli.registry import SOURCES
from mtl_cli.schema import SourceConfig


def file_states(sources: Mapping[str, SourceConfig]) -> dict[str, list[int]]:
    """Size and time of the last change (ns) of all files that sources name and that are there, by name.

    A folder has the size of all files in it, and the time of the last change of any of them.
    """
    found: dict[str, list[int]] = {}
    for name in dict.fromkeys(name for source in sources.values() for name in _names(source)):
        path = expanded(name)
        with suppress(OSError):  # whoever reads it says so
            states = [file.stat() for file in _inside(path)] if path.is_dir() else [path.stat()]
            times = [state.st_mtime_ns for state in states]
            found[name] = [sum(state.st_size for state in states), max(times, default=0)]
    return found


def _names(source: SourceConfig) -> Iterator[str]:
    for option in SOURCES.load(source.component.name).files:
        value = source.component.options.get(option)
        yield from [value] if isinstance(value, str) else value or ()


def _inside(folder: Path) -> Iterator[Path]:
    for here, _, files in os.walk(folder):
        yield from (Path(here, file) for file in files)
