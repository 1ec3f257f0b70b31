"""A configuration that was checked: what the rest of the program reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtl_cli.schema.options import DataOptions, SplitOptions, TaskOptions, TrainerOptions

#: What tasks and sources may be called; some of their names become parts of column names and of key paths.
NAME = re.compile(r"[^\W\d][\w \-+]*")


@dataclass(frozen=True)
class Component:
    """A registered component and its options, all of them, defaults filled in."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class SourceConfig:
    """Where rows come from.

    Args:
        component: The source and its options.
        split: How its rows are split.
        rename: New names of columns, by their name in the files.
    """

    component: Component
    split: SplitOptions
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskConfig:
    """A task: its common options, and its kind with the kind's options."""

    common: TaskOptions
    kind: Component

    def targets(self, name: str) -> list[str]:
        """The label column, or several that make up the label: as given, or the task's name; none without labels."""
        if not self.common.labelled:
            return []
        target = self.common.target or name
        return [target] if isinstance(target, str) else target

    @property
    def is_binary(self) -> bool:
        """Whether it predicts one probability, which can be a factor of a product, follow another or rank a list.

        Known by the name of the kind: no class says of itself that its output is one probability.
        """
        return self.kind.name == "binary"

    @property
    def sources(self) -> tuple[str, ...] | None:
        """Names of the sources that label it; None: every source that has its target column."""
        given = self.common.source
        return (given,) if isinstance(given, str) else None if given is None else tuple(given)


@dataclass(frozen=True)
class RunConfig:
    """A configuration that was checked as a whole.

    Args:
        sources: Where the rows come from: by the names in ``data.sources``; one source alone has none, ``""``.
        tasks: The tasks that are trained.
        left_out: Tasks that ``only`` leaves out; their labels are no inputs all the same, so that subsets compare.
        loss_scale: ``none``, or ``initial``: each task's loss is divided by its first value before it is weighted.
        loggers: Trackers that the metrics go to as well, by name.
        plugins: Modules with components of the user's own.
    """

    data: DataOptions
    sources: Mapping[str, SourceConfig]
    input_dim: int | None
    shared_dim: int
    tasks: Mapping[str, TaskConfig]
    left_out: Mapping[str, TaskConfig]
    encoder: Component
    sharing: Component
    balancing: Component
    loss_scale: str
    optimizer: Component
    scheduler: Component
    trainer: TrainerOptions
    monitor: str
    seed: int
    resume: str | None
    init_from: str | None
    freeze: tuple[str, ...]
    dry_run: bool
    loggers: Mapping[str, Component] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
