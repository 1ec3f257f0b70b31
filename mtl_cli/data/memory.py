"""How much memory is free: of the machine, of the container, and of what the process may have at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process can still take, if the system says it; the tightest limit counts.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = [limit for limit in (_of_machine(root), *_of_groups(root), _of_process(root)) if limit is not None]
    return max(min(found), 0) if found else None


def size_text(size: float) -> str:
    """Bytes for people.

    Example:
        >>> size_text(3_200_000), size_text(48_250_000_000)
        ('3.2 MB', '48.2 GB')
    """
    unit, name = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
    return f"{size / unit:.1f} {name}"


def _of_machine(root: Path) -> int | None:
    known = _numbers(root / "proc/meminfo")  # MemAvailable counts what Linux uses for files and gives back when asked
    if "MemAvailable:" in known:
        return known["MemAvailable:"] * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_groups(root: Path) -> Iterator[int]:
    """What the control groups of the process, and those that these are in, leave: version 2 and version 1."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = top / path.strip("/")  # in a container the path may be that of the host
        for folder in [own, *own.parents] if own.is_dir() else [top]:
            limit, used = (_lines(folder / name) for name in names[:2])
            if limit and used and limit[0].isdigit():
                yield int(limit[0]) - int(used[0]) + _numbers(folder / "memory.stat").get(names[2], 0)
            if folder == top:
                break


def _of_process(root: Path) -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return limit - _numbers(root / "proc/self/status").get("VmSize:", 0) * 1024


def _numbers(path: Path) -> dict[str, int]:
    """Lines with a name and a number."""
    words = [line.split() for line in _lines(path)]
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
