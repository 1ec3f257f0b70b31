"""The node ``tasks``: each task with its kind, its metrics and what it says about labels.

What ties tasks to each other (``product_of``, ``after``) is checked in ``chains``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mtl_cli.errors import Problem, did_you_mean, nearest, shown
from mtl_cli.registry import KINDS, conform_mapping, options_of
from mtl_cli.schema.components import class_attribute
from mtl_cli.schema.config import NAME, Component, TaskConfig
from mtl_cli.schema.metrics import known_metrics
from mtl_cli.schema.options import TaskOptions

_RESERVED_NAMES = ("loss", "mean", "worst")
_NEEDS_LABELS = ("target", "missing_label", "mask_by", "sample_weight", "source", "ranking")


def read_tasks(node: Any) -> tuple[dict[str, TaskConfig], list[str], list[Problem]]:
    """The tasks that are right by themselves, and the names of all that are declared, right or wrong."""
    declared, found = _declared(node)
    tasks = {}
    for name, options in declared.items():
        task, problems = _read_task(name, options, declared)
        found += problems
        if task is not None:
            tasks[name] = task
    return tasks, [str(name) for name in declared], found


def with_tasks_by_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with its tasks as a mapping, which may be written as a list too.

    A list with a mistake in it, of which ``validate`` tells, stays.

    Example:
        >>> with_tasks_by_name({"tasks": [{"name": "income", "kind": "binary"}], "seed": 0})
        {'tasks': {'income': {'kind': 'binary'}}, 'seed': 0}
    """
    tasks, problems = _declared(settings.get("tasks"))
    return dict(settings) if problems else {**settings, "tasks": tasks}


def _declared(node: Any) -> tuple[Mapping[Any, Any], list[Problem]]:
    """The options of each task by its name, whether they are written as a mapping or as a list."""
    if isinstance(node, list) and node:
        return _from_list(node)
    if isinstance(node, Mapping) and node:
        return node, []
    none = node in (None, {}, [])
    what = "no task is declared" if none else f"must be a mapping from task names to options, got {shown(node)}"
    return {}, [Problem("tasks", what, "Example: tasks: {income: {kind: binary}}.")]


def _from_list(items: list[Any]) -> tuple[dict[Any, Any], list[Problem]]:
    tasks: dict[Any, Any] = {}
    places: dict[Any, int] = {}
    found = []
    for i, item in enumerate(items):
        name = item.get("name") if isinstance(item, Mapping) else None
        if name is not None and not _is_text_or_number(name):
            found.append(_name_is_no_text(f"tasks[{i}].name", name))
        elif name is None:
            hint = "Example: {name: income, kind: binary}."
            found.append(Problem(f"tasks[{i}]", f"must be a mapping with a name, got {shown(item)}", hint))
        elif name in tasks:
            found.append(Problem(f"tasks[{i}]", f"the name '{name}' is taken by tasks[{places[name]}]"))
        else:
            places[name] = i
            tasks[name] = {key: value for key, value in item.items() if key != "name"}
    return tasks, found


def _read_task(name: Any, options: Any, declared: Iterable[Any]) -> tuple[TaskConfig | None, list[Problem]]:
    where = f"tasks.{name}"
    problems = _check_name(name, where)
    if problems:
        return None, problems
    if not isinstance(options, Mapping):
        hint = f"Example: {name}: {{kind: binary}}."
        return None, [Problem(where, f"must be a mapping of options, got {shown(options)}", hint)]
    kind = options.get("kind")
    if not isinstance(kind, str) or kind not in KINDS.names():
        others = [str(other) for other in declared if other != name]
        return None, [_no_such_kind(kind, options, where, others), *_unknown_keys(options, where)]
    common, own = options_of(TaskOptions), KINDS.options(kind)
    values, problems = conform_mapping(options, {**common, **own}, where)
    if problems:
        return None, problems
    task = TaskConfig(
        TaskOptions(**{key: values[key] for key in common}), Component(kind, {key: values[key] for key in own})
    )
    problems = [*_check_metrics(task, where), *_check_labels(task, where)]
    return (None, problems) if problems else (_with_classes(task), [])


def _check_name(name: Any, where: str) -> list[Problem]:
    if not _is_text_or_number(name):
        return [_name_is_no_text(where, name)]
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in _RESERVED_NAMES:
        reserved = ", ".join(_RESERVED_NAMES)
        rule = f"letters, digits, _, -, + and spaces, not starting with a digit, and not {reserved}"
        hint = f"Allowed: {rule}. The column goes into `target`."
        return [Problem(where, f"cannot be the name of a task, got {shown(name)}", hint)]
    return []


def _is_text_or_number(name: Any) -> bool:
    """Whether the name of a task is text or a number: quotes would not make a name of a number."""
    return isinstance(name, str | int | float) and not isinstance(name, bool)


def _name_is_no_text(where: str, name: Any) -> Problem:
    """The problem of a task's name that YAML does not read as text."""
    why = " (what YAML makes of on, off, yes, no)" if isinstance(name, bool) else ""
    return Problem(where, f"the name of a task must be text, got {shown(name)}{why}", "Write it in quotes.")


def _no_such_kind(kind: Any, options: Mapping[str, Any], where: str, others: list[str]) -> Problem:
    what = "must be given" if kind is None else f"unknown kind {kind!r}"
    hint = did_you_mean(str(kind), KINDS.names())
    if kind is None and (near := nearest(where.removeprefix("tasks."), others)):
        hint = f"{hint} Or is it another task? {near}"  # a misspelt name makes a task of its own
    elif kind is None and options.get("type") is not None:
        hint = f"Did you write 'type' for it? {hint}"
    return Problem(f"{where}.kind", what, hint)


def _unknown_keys(options: Mapping[str, Any], where: str) -> list[Problem]:
    """Keys of a task of an unknown kind that tasks of no kind have."""
    of_kinds = {key: option for kind in KINDS.names() for key, option in KINDS.options(kind).items()}
    given = {key: value for key, value in options.items() if key != "kind"}
    _, problems = conform_mapping(given, {**of_kinds, **options_of(TaskOptions)}, where, ignore=("kind",))
    return [problem for problem in problems if problem.what == "unknown key"]


def _check_metrics(task: TaskConfig, where: str) -> list[Problem]:
    metrics, kind = task.common.metrics, task.kind.name
    known = known_metrics(kind, task.common.ranking)
    where = f"{where}.metrics"
    if metrics is None:
        return []
    if not metrics:
        return [Problem(where, "names no metric, got []", "Write null for all.")]
    found = [
        Problem(where, f"'{kind}' has no metric '{name}'", did_you_mean(name, known))
        for name in metrics
        if name not in known
    ]
    found += [Problem(where, f"names '{name}' twice") for name in dict.fromkeys(metrics) if metrics.count(name) > 1]
    if not found and known[metrics[0]] is not True:
        first = ", ".join(name for name, better in known.items() if better)
        what = f"the first is the primary one, which `mean` averages: it must be better when higher, got '{metrics[0]}'"
        found.append(Problem(where, what, f"Put one of these first: {first}."))
    return found


def _check_labels(task: TaskConfig, where: str) -> list[Problem]:
    options, kind = task.common, task.kind.name
    found = [*_check_target(options.target, kind, where), *_check_unlabelled(task, where)]
    if options.sample_weight is not None and class_attribute(KINDS, kind, "per_token", False):
        found.append(Problem(f"{where}.sample_weight", f"'{kind}' takes no weights: all tokens count alike"))
    if options.mask_by is not None and not options.mask_by:
        found.append(Problem(f"{where}.mask_by", "names no column, got {}", "Write null for no mask."))
    markers = options.missing_label if isinstance(options.missing_label, list) else [options.missing_label]
    classes = {str(name) for name in task.kind.options.get("classes") or []}
    found += [
        Problem(f"{where}.missing_label", f"{marker!r} is one of the task's classes", "Take it out of `classes`.")
        for marker in markers
        if marker is not None and str(marker) in classes
    ]
    return found


def _check_target(target: str | list[str] | None, kind: str, where: str) -> list[Problem]:
    if not isinstance(target, list):
        return []
    if not class_attribute(KINDS, kind, "several_columns", False):
        several = ", ".join(k for k in KINDS.names() if class_attribute(KINDS, k, "several_columns", False))
        hint = f"Only {several} takes several columns."
        return [Problem(f"{where}.target", f"'{kind}' takes one column, got {target}", hint)]
    if len(set(target)) != len(target) or len(target) < 2:
        return [Problem(f"{where}.target", f"must be two or more different columns, got {target}")]
    return []


def _check_unlabelled(task: TaskConfig, where: str) -> list[Problem]:
    """A task without labels is a factor of a product, and has none of the keys that say what to do with labels."""
    if task.common.labelled:
        return []
    if not task.is_binary:
        hint = "Only a factor of a task with `product_of` can go without labels."
        return [Problem(f"{where}.labelled", f"must be true for kind {task.kind.name}, got false", hint)]
    hint = "Take one of the two out."
    return [
        Problem(f"{where}.{key}", "cannot be given with labelled: false", hint)
        for key in _NEEDS_LABELS
        if getattr(task.common, key) is not None
    ]


def _with_classes(task: TaskConfig) -> TaskConfig:
    """The task, with 0 and 1 for classes if it has no labels that would tell them and does not name them itself."""
    if task.common.labelled:
        return task
    options = {**task.kind.options, "classes": task.kind.options["classes"] or [0, 1]}
    return TaskConfig(task.common, Component(task.kind.name, options))
