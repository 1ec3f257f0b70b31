"""Rules between the parts of a configuration: trainer and schedule, tasks and architecture, tasks and sources, ...

A rule is skipped where one of the keys that it looks at is wrong by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mtl_cli.errors import Problem, did_you_mean, shown
from mtl_cli.registry import BALANCINGS, ENCODERS, SHARINGS, mistakes_in_components
from mtl_cli.schema.chains import check_links, check_needed, check_support
from mtl_cli.schema.components import GROUPS, class_attribute, missing_package, shares, unknown_tasks
from mtl_cli.schema.config import Component
from mtl_cli.schema.metrics import monitor_names
from mtl_cli.schema.options import TrainerOptions
from mtl_cli.schema.parts import Parts
from mtl_cli.schema.streaming import why_whole
from mtl_cli.schema.trainer import check_trainer
from mtl_cli.types import Surroundings


def check_together(parts: Parts) -> list[Problem]:
    """All problems between parts, in the order in which messages show them."""
    found = [
        *_check_components(parts),
        *_check_trainer(parts),
        *_check_kept(parts),
        *_check_start(parts),
        *_check_chains(parts),
        *_check_balancing(parts),
    ]
    found += _check_sharing(parts, {*parts.wrong, *(problem.where for problem in found)})
    return [*found, *_check_task_sources(parts), *_check_data(parts), *_check_streaming(parts)]


def _check_components(parts: Parts) -> list[Problem]:
    """What components ask of the tasks and of the machine."""
    found = []
    for group, component in parts.components.items():
        if component is not None:
            found += unknown_tasks(component, group, parts.names)
            found += missing_package(component, GROUPS[group], group)
    return found


def _check_trainer(parts: Parts) -> list[Problem]:
    return [] if parts.trainer is None else check_trainer(parts.trainer, parts.components["scheduler"])


def _check_kept(parts: Parts) -> list[Problem]:
    """Whether the tasks that are trained can be trained and judged, by what is monitored."""
    kept, trainer = parts.kept, parts.trainer
    if kept is None:
        return []
    found = []
    if kept and all(task.common.auxiliary for task in kept.values()):
        what, hint = "is true for all tasks, and there is none to judge by", "Write false for those you care for."
        found.append(Problem(f"tasks.{next(iter(kept))}.auxiliary", what, hint))
    if kept and all(task.common.weight == 0 for task in kept.values()):
        what, hint = "is 0 for all tasks, and nothing would be trained", "Write a weight above 0 for some."
        found.append(Problem(f"tasks.{next(iter(kept))}.weight", what, hint))
    monitors = {"monitor": parts.top["monitor"]}
    if trainer is not None:
        monitors["trainer.early_stopping.monitor"] = trainer.early_stopping.monitor
        monitors["trainer.checkpoint.monitor"] = trainer.checkpoint.monitor
    known, left_out = monitor_names(kept), monitor_names({n: t for n, t in parts.tasks.items() if n not in kept})
    for where, name in monitors.items():
        if isinstance(name, str) and name not in known:
            if name in left_out:  # a number of another task that is spelt alike would be another choice
                what = f"'{name}' is of a task that is not trained, since only={shown(parts.top['only'])}"
                found.append(Problem(where, what, f"Write {where}=mean, or add the task."))
            else:
                found.append(Problem(where, f"there is no number '{name}' to monitor", did_you_mean(name, known)))
    return found


def _check_start(parts: Parts) -> list[Problem]:
    """Which weights training starts from."""
    if isinstance(parts.top["init_from"], str) and parts.top["resume"] not in (None, "auto"):
        what = "cannot be given together with resume, which takes the run's own weights"
        return [Problem("init_from", what, "Leave one of the two out.")]
    return []


def _check_chains(parts: Parts) -> list[Problem]:
    """Tasks that are made of others or follow others."""
    kept, sharing = parts.kept, parts.components["sharing"]
    if kept is None:
        return []
    found = [*check_links(parts.tasks), *check_needed(parts.tasks, kept)]
    return found if sharing is None else found + check_support(kept, sharing, parts.components["balancing"])


def _check_balancing(parts: Parts) -> list[Problem]:
    """What a method of balancing needs of the architecture, and of the parameters that are trained."""
    sharing, balancing = parts.components["sharing"], parts.components["balancing"]
    if balancing is None:
        return []
    needs_shared = class_attribute(BALANCINGS, balancing.name, "needs_shared", False)
    if needs_shared and sharing is not None and not shares(sharing):
        hint = "Use balancing=equal, or a sharing with shared parameters (sharing=hard)."
        what = f"'{balancing.name}' needs gradients of shared parameters, and sharing '{sharing.name}' has none"
        return [Problem("balancing", what, hint)]
    if needs_shared and "shared" in parts.freeze:
        hint = "Use a method that weights losses, such as balancing=equal, or freeze less."
        what = f"'{balancing.name}' needs gradients of shared parameters, and freeze=[shared] leaves none to train"
        return [Problem("balancing", what, hint)]
    if sharing is not None and balancing.options.get("gradients_on") == "features":
        return _check_common_features(sharing, parts.trainer)
    return []


def _check_common_features(sharing: Component, trainer: TrainerOptions | None) -> list[Problem]:
    """What balancing the gradients of common features asks of the architecture and the loop."""
    found = []
    fitting = [name for name in SHARINGS.names() if class_attribute(SHARINGS, name, "common_features", False)]
    if sharing.name not in fitting:
        hint = f"Write balancing.gradients_on=parameters, or use sharing={' or '.join(fitting)}."
        what = f"'features' are not the same for all tasks with '{sharing.name}'"
        found.append(Problem("balancing.gradients_on", what, hint))
    if trainer is not None and trainer.accumulate_grad_batches > 1:
        hint = "Write balancing.gradients_on=parameters, or trainer.accumulate_grad_batches=1."
        found.append(Problem("balancing.gradients_on", "'features' need all rows of a step at once", hint))
    return found


def _check_sharing(parts: Parts, wrong: Collection[str]) -> list[Problem]:
    """What an architecture itself cannot work with. Only for one that has such a check are classes imported.

    Args:
        parts: The parts of the configuration.
        wrong: All keys that have a problem by now: the architecture is not asked about their values.
    """
    sharing, encoder = parts.components["sharing"], parts.components["encoder"]
    if sharing is None or _wrong_options("sharing", wrong) or not SHARINGS.has_own(sharing.name, "misfits"):
        return []
    heads = None
    if parts.kept and "only" not in wrong:
        heads = sum(task.common.product_of is None for task in parts.kept.values())
    shared_dim = None if "shared_dim" in wrong else parts.top["shared_dim"]
    with mistakes_in_components():
        if encoder is None or _wrong_options("encoder", wrong):
            around = Surroundings(None, "", {}, heads, shared_dim)
        else:
            around = Surroundings(ENCODERS.load(encoder.name), encoder.name, encoder.options, heads, shared_dim)
        found: list[Problem] = SHARINGS.load(sharing.name).misfits(sharing.options, around)
    return found


def _wrong_options(group: str, wrong: Collection[str]) -> bool:
    """Whether some option of a component is among the keys that have a problem."""
    return any(where.startswith(f"{group}.") for where in wrong)


def _check_task_sources(parts: Parts) -> list[Problem]:
    """Which sources label a task, and whether it is of a kind that ranks lists."""
    found = []
    for name, task in parts.tasks.items():
        if task.common.ranking is not None and not task.is_binary:
            found.append(Problem(f"tasks.{name}.ranking", f"needs kind binary, got {task.kind.name}"))
        if task.sources is not None:
            found += _check_labelling(f"tasks.{name}.source", task.sources, parts.source_names)
    return found


def _check_labelling(where: str, sources: Sequence[str], known: Sequence[str] | None) -> list[Problem]:
    """The sources that a task says it is labelled by."""
    if known is None:
        hint = "All rows come from one source: leave it out."
        return [Problem(where, "needs data.sources, got none", hint)]
    if not sources:
        return [Problem(where, "is an empty list", "Write null for every source that has the target column.")]
    strangers = [name for name in sources if name not in known]
    return [Problem(where, f"no source '{name}'", did_you_mean(name, known)) for name in strangers]


def _check_data(parts: Parts) -> list[Problem]:
    """Keys of ``data`` that depend on each other, or on how long is trained."""
    data, trainer = parts.data, parts.trainer
    if data is None:
        return []
    found = []
    if data.unknown == "error" and data.min_count > 1:
        what = f"is 'error', where data.min_count={data.min_count} makes categories of training rows unknown"
        found.append(Problem("data.unknown", what, "Write data.min_count=1, or data.unknown=other."))
    if data.source_as_input and parts.source_names is None:
        found.append(Problem("data.source_as_input", "needs data.sources, got none", "Write false."))
    unlimited = trainer is not None and trainer.max_epochs is None
    if data.mixing == "annealed" and data.anneal_epochs is None and unlimited:
        found.append(Problem("data.anneal_epochs", "must be given where trainer.max_epochs is null, got null"))
    return found


def _check_streaming(parts: Parts) -> list[Problem]:
    """Whether data that are to stay in their files can."""
    data, encoder = parts.data, parts.components["encoder"]
    if data is None or data.in_memory is not False or encoder is None:
        return []
    why = why_whole(parts.sources, parts.tasks, encoder.name)
    return [] if why is None else [Problem("data.in_memory", f"cannot be false: {why[0]}", why[1])]
