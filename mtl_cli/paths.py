"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path


def expanded(name: str | Path) -> Path:
    """A path with ``~`` and ``~USER`` as the home folders that they are; where there is no such user, as it is written.

    Example:
        >>> expanded("~$draft.png").name, expanded("~").is_absolute()
        ('~$draft.png', True)
    """
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:
        return path
