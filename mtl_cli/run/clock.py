"""The time as run folders write it."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """The present in UTC, to the millisecond, in one fixed form: later times are greater as text.

    Example:
        >>> now() <= now()
        True
        >>> len(now())
        29
    """
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
