"""Rules of the keys of ``trainer``: when training ends, and on which device it runs."""

from __future__ import annotations

import re

from mtl_cli.errors import Problem, shown
from mtl_cli.schema.config import Component
from mtl_cli.schema.options import TrainerOptions


def check_trainer(trainer: TrainerOptions, scheduler: Component | None) -> list[Problem]:
    """What is wrong with options of the loop that are right one by one."""
    found = []
    if trainer.max_epochs is None and trainer.max_steps is None and trainer.max_time is None:
        what = "never ends: max_epochs, max_steps and max_time are all null"
        found.append(Problem("trainer", what, "Set one of them."))
    if trainer.max_time is not None and not _is_positive_time(trainer.max_time):
        what = f"must be seconds or HH:MM:SS, got {shown(trainer.max_time)}"
        found.append(Problem("trainer.max_time", what, "Example: 01:30:00."))
    top_k = trainer.checkpoint.save_top_k
    if top_k < -1:
        found.append(Problem("trainer.checkpoint.save_top_k", f"must be at least -1 (all), got {top_k}"))
    warmup = scheduler.options.get("warmup_steps", 0) if scheduler is not None else 0
    if trainer.max_steps is not None and isinstance(warmup, int) and warmup >= trainer.max_steps:
        what = f"must be less than trainer.max_steps ({trainer.max_steps}), got {warmup}"
        found.append(Problem("scheduler.warmup_steps", what))
    return found + check_device(trainer.device, "trainer.device")


def seconds(text: str | float) -> float:
    """Time as a number of seconds, or ``HH:MM:SS``, ``DD:HH:MM:SS``.

    Raises:
        ValueError: Neither.

    Example:
        >>> seconds("01:30:00"), seconds(90)
        (5400.0, 90.0)
    """
    if isinstance(text, int | float):
        return float(text)
    parts = [int(part) for part in text.split(":")]
    if len(parts) not in (3, 4) or any(part < 0 for part in parts):
        raise ValueError(text)
    return float(sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False)))


def check_device(name: str, where: str) -> list[Problem]:
    """What is wrong with the name of a device; whether it is there is seen later.

    Example:
        >>> check_device("gpu", "--device")
        [Problem(where='--device', what="must be auto, cpu, cuda, cuda:N or mps, got 'gpu'", hint='')]
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        return []
    return [Problem(where, f"must be auto, cpu, cuda, cuda:N or mps, got '{name}'")]


def _is_positive_time(text: str | float) -> bool:
    try:
        return seconds(text) > 0
    except (ValueError, OverflowError):  # a number of 400 digits
        return False
