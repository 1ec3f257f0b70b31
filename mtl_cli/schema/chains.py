"""Rules of tasks that are made of others (``product_of``) or follow others (``after``)."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_cli.errors import Problem, did_you_mean
from mtl_cli.registry import SHARINGS
from mtl_cli.schema.components import class_attribute, shares
from mtl_cli.schema.config import Component, TaskConfig

Tasks = Mapping[str, TaskConfig]
_EXAMPLES = {
    "product_of": "buy: {kind: binary, product_of: [click, conversion]}",
    "after": "buy: {kind: binary, after: click}",
}


def check_links(tasks: Tasks) -> list[Problem]:
    """What is wrong with the tasks that a task names as its factors, or as what it comes after."""
    found = []
    for name, task in tasks.items():
        if task.common.product_of is not None:
            found += _check_product(name, task, tasks)
        if task.common.after is not None:
            found += _check_after(name, task.common.after, tasks)
    return found


def check_needed(tasks: Tasks, kept: Tasks) -> list[Problem]:
    """Whether tasks that are trained have those that they need: a task without labels needs a product of it."""
    found = []
    for name, task in kept.items():
        if not task.common.labelled:
            found += _check_trained_by_products(name, tasks, kept)
        links = {"product_of": task.common.product_of or [], "after": [task.common.after] if task.common.after else []}
        for key, others in links.items():
            for other in others:
                if other in tasks and other not in kept:
                    hint = f"Keep '{other}' too, or leave '{name}' out."
                    found.append(Problem("only", f"leaves out '{other}', which tasks.{name}.{key} names", hint))
    return found


def _check_trained_by_products(name: str, tasks: Tasks, kept: Tasks) -> list[Problem]:
    """Whether something trains a task without labels."""
    products = [other for other, task in tasks.items() if name in (task.common.product_of or ())]
    if not products:
        hint = "Write labelled: true, or name it in the `product_of` of another task."
        return [Problem(f"tasks.{name}.labelled", "is false, and no task is a product of it", hint)]
    if any(product in kept for product in products):
        return []
    what = f"leaves out {' and '.join(map(repr, products))}, without which nothing trains '{name}'"
    return [Problem("only", what, f"Keep '{products[0]}' too, or leave '{name}' out.")]


def check_support(kept: Tasks, sharing: Component, balancing: Component | None) -> list[Problem]:
    """Whether an architecture and a method of balancing can train such tasks, and have the tasks that they need."""
    chain = class_attribute(SHARINGS, sharing.name, "chain", None)
    found = []
    if chain is not None and not any(getattr(task.common, chain) is not None for task in kept.values()):
        hint = f"Example: tasks: {{{_EXAMPLES[chain]}, ...}}. Without such a task, use sharing=hard."
        found.append(Problem("sharing", f"'{sharing.name}' needs a task with `{chain}`, and there is none", hint))
    ordering = [name for name in SHARINGS.names() if class_attribute(SHARINGS, name, "chain", None) == "after"]
    for name, task in kept.items():
        if task.common.after is not None and chain != "after":
            hint = f"Use sharing={' or sharing='.join(ordering)}, or leave the key out."
            found.append(Problem(f"tasks.{name}.after", f"sharing '{sharing.name}' knows no order of tasks", hint))
        if task.common.product_of is not None:
            found += _check_product_trained(f"tasks.{name}.product_of", sharing, balancing)
    return found


def _check_product_trained(where: str, sharing: Component, balancing: Component | None) -> list[Problem]:
    """A product trains its factors together, and has no features of its own."""
    found = []
    if not shares(sharing):
        what = f"trains its factors together, and sharing '{sharing.name}' trains every task alone"
        found.append(Problem(where, what, "Use sharing=esmm or sharing=hard."))
    if balancing is not None and balancing.options.get("gradients_on") == "features":
        what = "has no features of its own, whose gradient balancing.gradients_on=features would take"
        found.append(Problem(where, what, "Write balancing.gradients_on=parameters."))
    return found


def _check_product(name: str, task: TaskConfig, tasks: Tasks) -> list[Problem]:
    where, factors = f"tasks.{name}.product_of", task.common.product_of or []
    if not task.is_binary:
        return [Problem(where, f"needs kind binary, got {task.kind.name}", "It is a product of probabilities.")]
    found = []
    if len(factors) < 2 or len(set(factors)) < len(factors):
        found.append(Problem(where, f"must name two or more different tasks, got {factors}"))
    for factor in dict.fromkeys(factors):
        found += _check_factor(factor, name, task, tasks)
    if task.common.hidden:
        hint = "Give them to its factors."
        found.append(Problem(f"tasks.{name}.hidden", f"a product has no head, got {task.common.hidden}", hint))
    if not task.common.labelled:
        found.append(Problem(f"tasks.{name}.labelled", "a product needs labels: they train its factors, got false"))
    if task.common.after is not None:
        what = "a product has no features that could follow those of another task"
        found.append(Problem(f"tasks.{name}.after", what))
    return found


def _check_factor(factor: str, name: str, task: TaskConfig, tasks: Tasks) -> list[Problem]:
    """What is wrong with one factor of the task of a name."""
    where = f"tasks.{name}.product_of"
    if factor == name:
        return [Problem(where, f"names the task itself, got {task.common.product_of}")]
    if factor not in tasks:
        return [_no_task(where, factor, name, tasks)]
    if not tasks[factor].is_binary:
        what = f"names '{factor}', of kind {tasks[factor].kind.name}"
        return [Problem(where, what, "A factor is a probability: of kind binary.")]
    factors = tasks[factor].common.product_of
    if factors is not None:
        others = ", ".join(other for other in factors if other != name)
        return [Problem(where, f"names '{factor}', a product itself", f"Name its factors instead: {others}.")]
    return []


def _check_after(name: str, before: str, tasks: Tasks) -> list[Problem]:
    where = f"tasks.{name}.after"
    if before not in tasks:
        return [_no_task(where, before, name, tasks)]
    for task in (name, before):
        if not tasks[task].is_binary:
            what = f"needs kind binary of both tasks, and '{task}' is of kind {tasks[task].kind.name}"
            return [Problem(where, what, "What comes after something else has a probability that is lower.")]
    factors = tasks[before].common.product_of
    if factors is not None:
        hint = f"Name one of its factors: {', '.join(factors)}."
        return [Problem(where, f"names '{before}', a product, which has no features to pass on", hint)]
    circle = _circle(name, tasks)
    if circle:
        what = f"goes round in a circle: {' after '.join(circle)}"
        return [Problem(where, what, "The first task of a chain has no `after`.")]
    return []


def _circle(name: str, tasks: Tasks) -> list[str]:
    """The tasks from one that comes after itself back to it; empty if it does not."""
    path = [name]
    before = tasks[name].common.after
    while before is not None and before in tasks and before not in path:
        path.append(before)
        before = tasks[before].common.after
    return [*path, name] if before == name else []


def _no_task(where: str, named: str, name: str, tasks: Tasks) -> Problem:
    return Problem(where, f"no task '{named}'", did_you_mean(named, [other for other in tasks if other != name]))
