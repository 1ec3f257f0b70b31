"""Which tasks should share a model? The best grouping for every number of models, from a sweep over groups of tasks.

After Standley et al. 2020, 'Which Tasks Should Be Learned Together in Multi-task Learning?': every task is served by
one of the models trained, and the models are chosen so that the tasks together do best. A group that was not trained
is predicted by its pairs: a task's change in it is the mean of its changes in the pairs (their higher-order
approximation). Groupings are chosen on validation rows and told on test rows, so that the choice itself does not
flatter them.
"""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

from mtl_cli.errors import listed
from mtl_cli.sweep.comparison import Estimate, Method, canonical, estimate, group_names, paired, relative_change
from mtl_cli.sweep.payoff import judged, more_seeds, percent

#: Groupings of more tasks are not searched: there are too many.
MOST_TASKS = 12
#: Up to so many tasks ``auto`` trains every group.
FEW_TASKS = 5
_MOST_NAMED = 5  # tasks in a sentence
Group = frozenset[str]
_Member = TypeVar("_Member")


def groups_to_train(word: str, tasks: Sequence[str]) -> list[tuple[str, ...]] | None:
    """The groups that a word of ``only`` stands for, small ones first; None for any other word.

    Args:
        word: ``every_subset``, ``every_pair`` (with each task alone and all together), or ``auto``.
        tasks: All tasks.

    Example:
        >>> groups_to_train("auto", "ab")
        [('a',), ('b',), ('a', 'b')]
        >>> len(groups_to_train("every_pair", "abcdefgh")), len(groups_to_train("every_subset", "abcdefgh"))
        (37, 255)
    """
    if word == "auto":
        word = "every_subset" if len(tasks) <= FEW_TASKS else "every_pair"
    sizes = {"every_subset": range(1, len(tasks) + 1), "every_pair": dict.fromkeys((1, 2, len(tasks)))}.get(word)
    if sizes is None:
        return None
    return [group for size in sizes if size <= len(tasks) for group in combinations(tasks, size)]


def as_choices(groups: Iterable[Sequence[str]]) -> str:
    """Groups of tasks as the values of ``only`` for Hydra, whose grammar takes some names in quotes alone.

    Example:
        >>> as_choices([["smile"], ["smile", "no beard"]])
        '[smile],[smile,"no beard"]'
    """
    return ",".join(f"[{','.join(map(_as_item, group))}]" for group in groups)


def _as_item(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else json.dumps(name, ensure_ascii=False)


@dataclass(frozen=True)
class Grouping:
    """Tasks shared out over models.

    Args:
        groups: The tasks that each model serves; disjoint, every task once.
        models: The tasks that each of these models was trained on, which may be more.
        chosen_by: Mean change over the tasks against each alone on validation rows, in per cent; above 0 is better.
        chosen_error: Its standard error over the seeds; None if a group was not trained, or from one seed.
        change: The same on test rows, over the seeds; None if a group was not trained, or a task has no test score.
        tasks: The same for each task that has one.
        parameters: Of all models together; None if a group was not trained.
        untrained: Those of the models that were not trained: what is said of them is predicted.
    """

    groups: tuple[tuple[str, ...], ...]
    models: tuple[tuple[str, ...], ...]
    chosen_by: float
    chosen_error: float | None
    change: Estimate | None
    tasks: Mapping[str, Estimate]
    parameters: int | None
    untrained: tuple[tuple[str, ...], ...]

    @property
    def without_score(self) -> list[str]:
        """The tasks for want of whose test score a trained grouping has no ``change``."""
        return [] if self.untrained else [task for group in self.groups for task in group if task not in self.tasks]

    def __str__(self) -> str:
        parts = []
        for group, model in zip(self.groups, self.models, strict=True):
            beside = [task for task in model if task not in group]
            parts.append("+".join(group) + (f" (trained with {'+'.join(beside)})" if beside else ""))
        return " | ".join(parts)


@dataclass(frozen=True)
class Study:
    """A sweep over groups of tasks.

    Args:
        name: What sets it apart from other studies of the sweep; empty where there is one.
        tasks: All tasks that have to be served, in their order: not those that are only there to help (``auxiliary``).
        trained: The finished methods, by the tasks that they were trained on, helpers included.
        unfinished: The groups that were to be trained, and of which no job has finished.
    """

    name: str
    tasks: tuple[str, ...]
    trained: Mapping[Group, Method]
    unfinished: tuple[Group, ...] = ()

    @property
    def not_alone(self) -> list[str]:
        """The tasks that were not trained alone, for want of which there is nothing to compare with."""
        return [task for task in self.tasks if frozenset([task]) not in self.trained]

    def change(self, group: Group, task: str, split: str | None = None) -> Estimate | None:
        """Change of a task's primary metric in a trained group against the task alone, in per cent, over the seeds."""
        alone = self.trained.get(frozenset([task]))
        pairs = [] if alone is None else paired(self.trained[group], alone)
        return estimate([relative_change(*pair, task, split) for pair in pairs]) if pairs else None

    def groupings(self) -> list[Grouping]:
        """The best grouping for every number of models, one model first.

        Numbers of models that gain nothing over a smaller one, or for which nothing fitting was trained, are left out.
        None at all where a task was not trained alone.
        """
        if self.not_alone:
            return []
        gains = self._gains()
        served = self._best_models(gains)
        found = _share_out(self.tasks, {group: total for group, (total, _) in served.items()})
        groupings: list[Grouping] = []
        for groups in found:
            model_of = {task: served[group][1] for group in groups for task in group}
            if not groupings or len(set(model_of.values())) > len(groupings[-1].groups):
                groupings.append(self._grouping(model_of, gains))
        return groupings

    def parameters_apart(self) -> int | None:
        """Parameters of all tasks' own models together."""
        counts = [self.trained[frozenset([task])].number("parameters") for task in self.tasks]
        return None if None in counts else round(sum(count.mean for count in counts if count is not None))

    def _gains(self) -> dict[Group, dict[str, float]]:
        """Mean change of each task on validation rows, in the groups trained and in those that pairs predict."""
        gains: dict[Group, dict[str, float]] = {}
        for group in self.trained:
            changes = {task: self.change(group, task, "val") for task in self.tasks if task in group}
            if all(change is not None for change in changes.values()):
                gains[group] = {task: change.mean for task, change in changes.items() if change is not None}
        every = list(combinations(self.tasks, 2))
        if any(frozenset(pair) not in gains for pair in every):
            return gains
        for group in map(frozenset, _subsets(self.tasks)):
            if group not in gains and len(group) > 2:
                gains[group] = {t: statistics.fmean(gains[frozenset((t, u))][t] for u in group - {t}) for t in group}
        return gains

    def _best_models(self, gains: Mapping[Group, Mapping[str, float]]) -> dict[Group, tuple[float, Group]]:
        """For each set of tasks the model that serves it best: the sum of their changes, and what it is trained on."""
        import numpy as np  # here: every command loads this module

        models = sorted(gains, key=len)  # of equals the smallest
        changes = np.array([[gains[model].get(task, -math.inf) for task in self.tasks] for model in models])
        found: dict[Group, tuple[float, Group]] = {}
        for places in _subsets(range(len(self.tasks))):
            sums = changes[:, places].sum(1)  # -inf where the model is not trained on one of them
            best = int(sums.argmax())
            if sums[best] > -math.inf:
                found[frozenset(self.tasks[place] for place in places)] = (float(sums[best]), models[best])
        return found

    def _grouping(self, model_of: Mapping[str, Group], gains: Mapping[Group, Mapping[str, float]]) -> Grouping:
        models = list(dict.fromkeys(model_of[task] for task in self.tasks))
        groups = [[task for task in self.tasks if model_of[task] == model] for model in models]
        chosen_by = statistics.fmean(gains[model_of[task]][task] for task in self.tasks)
        changes = {t: self.change(model_of[t], t) if model_of[t] in self.trained else None for t in self.tasks}
        known = {task: change for task, change in changes.items() if change is not None}
        parameters = [self.trained[m].number("parameters") if m in self.trained else None for m in models]
        untrained = tuple(self.ordered(model) for model in models if model not in self.trained)
        on_val = None if untrained else self._mean_change(model_of, "val")
        return Grouping(
            tuple(map(tuple, groups)), tuple(map(self.ordered, models)),
            chosen_by, None if on_val is None else on_val.error,
            self._mean_change(model_of) if len(known) == len(self.tasks) else None, known,
            None if None in parameters else round(sum(p.mean for p in parameters if p is not None)), untrained,
        )  # fmt: skip

    def _mean_change(self, model_of: Mapping[str, Group], split: str | None = None) -> Estimate | None:
        """The mean over tasks for each seed that all have, so that its spread is that of the mean."""
        by_seed: dict[str, list[float | None]] = {}
        for task, model in model_of.items():
            for ours, alone in paired(self.trained[model], self.trained[frozenset([task])]):
                by_seed.setdefault(str(ours.settings.get("seed")), []).append(relative_change(ours, alone, task, split))
        whole = [values for values in by_seed.values() if len(values) == len(self.tasks) and None not in values]
        return estimate([statistics.fmean(v for v in values if v is not None) for values in whole])

    def ordered(self, group: Group) -> tuple[str, ...]:
        """A group's tasks in their order, then its helpers."""
        return (*(task for task in self.tasks if task in group), *sorted(group - {*self.tasks}))


def studies(among: Sequence[Method]) -> list[Study]:
    """The sweeps over groups of tasks that these methods are.

    The methods of one differ in ``only`` alone, and were to train some task alone, and some with others.
    """
    by_rest: dict[str, dict[str | None, list[int]]] = {}
    unfinished: dict[str, list[Group]] = {}
    for i, method in enumerate(among):
        rest = canonical({key: value for key, value in method.settings.items() if key != "only"})
        if method.done:
            by_rest.setdefault(rest, {}).setdefault(method.done[0].data_fingerprint, []).append(i)
        else:
            unfinished.setdefault(rest, []).append(method.trained_on)
    found: list[tuple[list[int], Study]] = []
    for rest, by_data in by_rest.items():
        for places in by_data.values():
            own = [among[i] for i in places]
            trained = {method.trained_on: method for method in own}
            largest = max(own, key=lambda method: len(method.tasks))
            tasks = tuple(dict.fromkeys([*largest.tasks, *(task for method in own for task in method.tasks)]))
            wanting = tuple(group for group in unfinished.get(rest, ()) if group and group not in trained)
            sizes = [len(group.intersection(tasks)) for group in (*trained, *wanting)]
            if len(tasks) > 1 and 1 in sizes and max(sizes) > 1:
                found.append((places, Study("", tasks, trained, wanting)))
    names = group_names(among, [places for places, _ in found])
    return [replace(study, name=name) for name, (_, study) in zip(names, found, strict=True)]


def answer(among: Sequence[Method]) -> str | None:
    """The best grouping for every number of models, with its numbers and spread; None if there is nothing to say."""
    told = [_answer(found) for found in studies(among)]
    return "\n\n".join(told) or None


def _answer(found: Study) -> str:
    head = f"Which tasks together{f', {found.name}' if found.name else ''}?"
    if len(found.tasks) > MOST_TASKS:
        return f"{head} {len(found.tasks)} tasks: groupings of more than {MOST_TASKS} are not searched."
    if found.not_alone:
        names = listed(found.not_alone, _MOST_NAMED)
        train = _only([task] for task in found.not_alone[:_MOST_NAMED])
        verb, them = ("was", "it") if len(found.not_alone) == 1 else ("were", "them")
        return f"{head} Not known: {names} {verb} not trained alone. Train {them} to know: {train}."
    groupings = found.groupings()
    if not groupings:
        return f"{head} Not known: some task has no score, or 0, alone, or no seed in common with any group."
    seeds = min(len(method.done) for method in found.trained.values())
    each = f"{seeds} seed{'s' * (seeds != 1)} each"
    if any(len(method.done) > seeds for method in found.trained.values()):
        each = f"{seeds} seed{'s' * (seeds != 1)} or more each"
    lines = [
        f"{head} {_headline(groupings, found.parameters_apart())}", "",
        f"{len(found.trained)} groups of {len(found.tasks)} tasks trained, {each}. "
        "Mean change against each task alone; groupings are chosen on validation rows, numbers are of test rows:",
    ]  # fmt: skip
    for grouping in groupings:
        told = _told(grouping)
        size = f", {grouping.parameters:,} parameters" if grouping.parameters else ""
        count = len(grouping.groups)
        lines += [f"  {count} model{' ' if count == 1 else 's'}  {grouping}: {told}{size}"]
        lines += [f"            {task} {percent(change)}: {judged(change)}" for task, change in grouping.tasks.items()]
    if found.unfinished:
        groups = listed(["+".join(found.ordered(group)) for group in found.unfinished], _MOST_NAMED)
        lines += [f"Without a finished job, and so in none of them: {groups}"]
    return "\n".join(lines)


def as_json(among: Sequence[Method]) -> list[dict[str, Any]]:
    """The same in full, as plain JSON types: groupings, and the change of each task in each group that was trained."""
    return [_json(found) for found in studies(among)]


def _json(found: Study) -> dict[str, Any]:
    groupings = found.groupings() if len(found.tasks) <= MOST_TASKS else []
    return {
        "study": found.name,
        "not_trained_alone": found.not_alone,
        "groupings": [
            {
                "models": len(grouping.groups),
                "groups": [list(group) for group in grouping.groups],
                "trained_on": [list(model) for model in grouping.models],
                "predicted": bool(grouping.untrained),
                "without_test_score": grouping.without_score,
                "val_change_percent": grouping.chosen_by,
                "change_percent": None if grouping.change is None else grouping.change._asdict(),
                "tasks": {task: change._asdict() for task, change in grouping.tasks.items()},
                "parameters": grouping.parameters,
            }
            for grouping in groupings
        ],
        "groups": [
            {
                "tasks": list(found.ordered(group)),
                "change_percent": {
                    task: None if (change := found.change(group, task)) is None else change._asdict()
                    for task in found.tasks
                    if task in group
                },
            }
            for group in found.trained
        ],
    }


def _headline(groupings: Sequence[Grouping], parameters_apart: int | None) -> str:
    """The fewest models that do as well as any number of them: by less than a standard error, they count as equal."""
    best = max(groupings, key=lambda grouping: grouping.chosen_by)
    slack = best.chosen_error or 0.0
    best = next(grouping for grouping in groupings if grouping.chosen_by >= best.chosen_by - slack - 1e-9)
    together = groupings[0] if len(groupings[0].groups) == 1 else None
    if best.untrained:
        them = "it" if len(best.untrained) == 1 else "them"
        told = f"Predicted from pairs: {best} ({_on_val(best)} on validation rows)."
        return f"{told} Train {them} to know: {_only(best.untrained)}."
    if best.change is None:
        return f"Not known on test rows: {best} is chosen, {_told(best)}."
    verdict = judged(best.change)
    if verdict == "better":
        return f"{best}: {_told(best)} than each alone."
    advice = f" {more_seeds(best.change)}"
    if verdict.startswith("one seed"):
        return f"One seed only ({best}: {_told(best)}), which cannot tell.{advice}"
    if verdict != "no clear difference" or _is_each_alone(best):
        advice = ""
    saved = ""
    if together is not None and together.parameters and parameters_apart:
        fewer = 100 * (1 - together.parameters / parameters_apart)
        if together.change is not None and judged(together.change) == "better":  # though not chosen on validation rows
            return f"One model for all, with {fewer:.0f} % fewer parameters: {_told(together)} than each alone."
        saved = f" One model for all has {fewer:.0f} % fewer parameters: {_told(together)}."
    return f"No grouping is clearly better than each task alone ({best}: {_told(best)}).{saved}{advice}"


def _only(groups: Iterable[Sequence[str]]) -> str:
    """What trains these groups, as to be written in a shell."""
    choices = as_choices(groups)
    return shlex.quote(f"only={choices}") if '"' in choices else f"only={choices}"


def _is_each_alone(grouping: Grouping) -> bool:
    return all(len(group) == 1 for group in grouping.groups) and grouping.groups == grouping.models


def _told(grouping: Grouping) -> str:
    if grouping.untrained:
        return f"{_on_val(grouping)}, predicted from pairs on validation rows"
    if _is_each_alone(grouping):
        return "each alone, what the others are compared with"
    if grouping.change is None:
        missing = grouping.without_score
        why = f"no test score, or one of 0 alone, for {listed(missing, _MOST_NAMED)}"
        return f"{_on_val(grouping)} on validation rows; {why if missing else 'no seed in common to all tasks'}"
    return f"{percent(grouping.change)}, {judged(grouping.change)}"


def _on_val(grouping: Grouping) -> str:
    return percent(Estimate(grouping.chosen_by, None, 1))


def _share_out(tasks: Sequence[str], totals: Mapping[Group, float]) -> list[list[Group]]:
    """The best way to share out all tasks over 1, 2, ... K groups, where the value of a way is the sum over its groups.

    Dynamic programming over sets of tasks: the group of the first task left, then the rest with one group less. A set
    is a number whose bits are its tasks.
    """
    import numpy as np

    count = len(tasks)
    order = np.zeros(2**count, np.int64)  # of equal groups the smallest comes first
    values = np.full(2**count, -math.inf)
    for place, subset in enumerate(_subsets(range(count)), start=1):
        number = sum(1 << task for task in subset)
        order[number] = place
        values[number] = totals.get(frozenset(tasks[task] for task in subset), -math.inf)
    best = np.full((count + 1, 2**count), -math.inf)  # by the number of groups, and what is shared out
    taken = np.zeros((count + 1, 2**count), np.int64)  # the group of the first task
    best[0, 0] = 0.0
    for left in range(1, 2**count):
        first = left & -left
        groups = np.array([first])
        for task in range(count):
            if (left ^ first) >> task & 1:
                groups = np.concatenate([groups, groups | 1 << task])
        groups = groups[np.argsort(order[groups])]
        ways = values[groups] + best[:-1, left ^ groups]
        chosen = ways.argmax(1)
        best[1:, left], taken[1:, left] = ways[np.arange(count), chosen], groups[chosen]
    found = []
    for number in range(1, count + 1):
        left, ways_of = 2**count - 1, []
        if best[number, left] == -math.inf:
            continue
        for groups_left in range(number, 0, -1):
            group = int(taken[groups_left, left])
            ways_of.append(frozenset(task for place, task in enumerate(tasks) if group >> place & 1))
            left ^= group
        found.append(ways_of)
    return found


def _subsets(tasks: Sequence[_Member]) -> Iterator[tuple[_Member, ...]]:
    """All but the empty one, small ones first."""
    for size in range(1, len(tasks) + 1):
        yield from combinations(tasks, size)
