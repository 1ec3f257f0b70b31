"""The code of plugins that a run was made with. It has no version that would tell of a change."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mtl_cli.errors import listed
from mtl_cli.run.folder import RunFolder

PLUGINS = "plugins.json"
_FORMAT = 1
_SHOWN = 5  # modules in a message


def record_code(folder: RunFolder, plugins: Sequence[str]) -> None:
    """Writes checksums of the plugins' files to plugins.json, if there are any.

    Raises:
        TrainingError: The file cannot be written.
    """
    if plugins:
        folder.write_sealed(PLUGINS, {"format": _FORMAT, "modules": _checksums(plugins)})


def changed_code(folder: RunFolder, plugins: Sequence[str]) -> list[str]:
    """Modules whose files are not those that the run was last trained with.

    Raises:
        RunError: plugins.json is damaged.
    """
    if not (folder.path / PLUGINS).exists():  # there are none, or the run is of an older version
        return []
    recorded, now = folder.read_sealed(PLUGINS, _FORMAT)["modules"], _checksums(plugins)
    return [module for module, checksum in recorded.items() if now.get(module, checksum) != checksum]


def told_of_edits(folder: RunFolder, plugins: Sequence[str], since: str) -> str | None:
    """What the user should know of ``changed_code``; None if there is none.

    Args:
        folder: The run.
        plugins: Its plugins.
        since: What they have changed since, and what follows from it.

    Raises:
        RunError: plugins.json is damaged.
    """
    edited = changed_code(folder, plugins)
    return f"the code of {listed(edited, _SHOWN)} has changed since {since}" if edited else None


def _checksums(plugins: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the file of each module that is loaded of the plugins and the packages that they are in."""
    packages = {plugin.partition(".")[0] for plugin in plugins}
    loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}
    files = {name: Path(file) for name in sorted(loaded) if (file := getattr(loaded[name], "__file__", None))}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()}
