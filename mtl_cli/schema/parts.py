"""The parts of a configuration, each read and checked by itself: the top, components, data, tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_cli.errors import Problem, did_you_mean
from mtl_cli.registry import Option, conform_mapping
from mtl_cli.schema.components import GROUPS, read_common, read_component, read_loggers
from mtl_cli.schema.config import Component, SourceConfig, TaskConfig
from mtl_cli.schema.data import read_data, source_names
from mtl_cli.schema.key_hints import with_sweep_hint
from mtl_cli.schema.options import DataOptions, TrainerOptions
from mtl_cli.schema.tasks import read_tasks
from mtl_cli.types import PositiveInt, Seed

_TOP: dict[str, Option] = {
    "input_dim": Option(PositiveInt | None, None),
    "shared_dim": Option(PositiveInt, 128),
    "only": Option(list[str] | None, None),
    "trainer": Option(TrainerOptions, TrainerOptions()),
    "monitor": Option(str, "mean"),
    "seed": Option(Seed, 0),
    "resume": Option(str | None, None),
    "init_from": Option(str | None, None),
    "freeze": Option(str | list[str], []),
    "dry_run": Option(bool, False),
    "stop_on_failure": Option(bool, False),
    "plugins": Option(list[str], []),
    "extra": Option(Any, None),
}
_NODES = ("data", "tasks", "logger", *GROUPS)  # the other keys at the top, with readers of their own
TOP_KEYS = (*_TOP, *_NODES)


@dataclass(frozen=True)
class Parts:
    """The parts of a configuration after each was checked by itself.

    Args:
        top: Values of the keys at the top, as they were given where they are wrong.
        loss_scale: As in ``RunConfig``, if it is right.
        components: The component of each group; None: there is no such component.
        loggers: The trackers that are right.
        data: The options of the data; None: something in ``data`` is wrong.
        sources: The sources, if ``data`` is right.
        source_names: Names in ``data.sources``, right or wrong; None: the data are of one source.
        names: Names of all declared tasks, right or wrong.
        tasks: Those tasks that are right.
        kept: Those tasks that are trained; None: unknown, since some task or ``only`` is wrong.
        wrong: The keys that have a problem.
    """

    top: Mapping[str, Any]
    loss_scale: Any
    components: Mapping[str, Component | None]
    loggers: Mapping[str, Component]
    data: DataOptions | None
    sources: Mapping[str, SourceConfig]
    source_names: Sequence[str] | None
    names: Sequence[str]
    tasks: Mapping[str, TaskConfig]
    kept: Mapping[str, TaskConfig] | None
    wrong: Collection[str]

    @property
    def trainer(self) -> TrainerOptions | None:
        """The options of the loop; None: something in ``trainer`` is wrong."""
        trainer = self.top["trainer"]
        return trainer if isinstance(trainer, TrainerOptions) else None

    @property
    def freeze(self) -> tuple[str, ...]:
        """What is not trained, which may be given as one text or a list of them; empty if it is neither."""
        freeze = self.top["freeze"]
        return (freeze,) if isinstance(freeze, str) else tuple(freeze) if isinstance(freeze, list) else ()


def read_parts(raw: Mapping[str, Any]) -> tuple[Parts, list[Problem]]:
    """The parts of a configuration, and what is wrong with each by itself."""
    only = raw.get("only")
    top, problems = conform_mapping(raw, _TOP, "", ignore=_NODES)
    found = [with_sweep_hint(problem, only) for problem in problems]
    components, problems = _read_components(raw)
    found += problems
    common, problems = read_common(raw.get("balancing"), "balancing")
    found += problems
    loggers, problems = read_loggers(raw.get("logger"))
    found += problems
    data, sources, problems = read_data(raw.get("data"))
    found += problems
    tasks, names, problems = read_tasks(raw.get("tasks"))
    found += problems
    found += _check_only(only, names)
    wrong = {problem.where for problem in found}
    kept = None
    if len(tasks) == len(names) and "only" not in wrong:
        kept = {name: task for name, task in tasks.items() if only is None or name in only}
    parts = Parts(
        top, common["loss_scale"], components, loggers, data, sources, source_names(raw.get("data")), names, tasks,
        kept, wrong,
    )  # fmt: skip
    return parts, found


def _read_components(raw: Mapping[str, Any]) -> tuple[dict[str, Component | None], list[Problem]]:
    """The component of each group."""
    components, found = {}, []
    for group in GROUPS:
        components[group], problems = read_component(raw.get(group), group)
        found += problems
    return components, found


def _check_only(only: Any, names: Sequence[str]) -> list[Problem]:
    """Whether ``only`` names declared tasks, and at least one."""
    if not isinstance(only, list):
        return []
    if not only:
        return [Problem("only", "leaves no task, got []", "Write only=null for all tasks.")]
    strangers = [str(name) for name in only if str(name) not in names]
    return [Problem("only", f"no task '{name}'", did_you_mean(name, names)) for name in strangers]
