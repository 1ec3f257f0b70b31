"""Jobs that differ in their seed alone are one method; methods are compared with the single-task baseline.

delta-m is the mean over tasks of the relative change of the primary metric in per cent, its sign turned where lower is
better: **above 0 is better than the same tasks trained apart** (``sharing=separate`` on the same rows, with the same
settings otherwise). Vandenhende et al. 2022, 'Multi-Task Learning for Dense Prediction Tasks', eq. 5. Metrics that are
shares already and 0 for a constant (R2, D2, kappa, correlation) may be 0 or below, where a relative change means
nothing: their difference counts itself.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mtl_cli.report_text import with_deviation
from mtl_cli.sweep.jobs import override_values
from mtl_cli.sweep.records import JobRecord

BASELINE = "separate"
#: Metrics that are 0 where a prediction says nothing and 1 where it says all.
SHARES = ("r2", "d2", "qwk", "pearson")
FRACTION = "data.split.train_fraction"
SPLIT_SEED = "data.split.seed"
#: Settings that make no other method, with those below them: what they change is noise, place or speed, or what is
#: kept and looked at on the way.
_SAME_METHOD = (
    "seed", "resume", "dry_run", "stop_on_failure", "extra", "plugins", "logger", "trainer.device", "trainer.threads",
    "trainer.diagnostics_every", "trainer.checkpoint.every_n_steps",
)  # fmt: skip
#: Where the data lie; what they are, their fingerprint says.
_PLACE = re.compile(r"data\.(sources\.[^.]+\.)?(path|train|val|test|candidates)")


class Estimate(NamedTuple):
    """A mean over seeds.

    Args:
        mean: The mean.
        std: Standard deviation between seeds (n - 1); None from one value.
        n: How many values.
    """

    mean: float
    std: float | None
    n: int

    @property
    def error(self) -> float | None:
        """Standard error of the mean."""
        return None if self.std is None else self.std / math.sqrt(self.n)

    def __str__(self) -> str:
        """``0.9123 ± 0.0040``, mean and deviation.

        Example:
            >>> str(Estimate(0.91234, 0.004, 3)), str(Estimate(0.5, None, 1))
            ('0.9123 ± 0.0040', '0.5000')
        """
        return with_deviation(self.mean, self.std, 4)


@dataclass(frozen=True, eq=False)
class Method:
    """What was trained, once for each seed.

    Args:
        settings: Its configuration without what makes no other method, flat.
        jobs: Its jobs, by seed.
    """

    settings: Mapping[str, Any]
    jobs: tuple[JobRecord, ...]

    @cached_property
    def comparable(self) -> Mapping[str, Any]:
        """Its settings to be compared with others': what is not a number, or may hold such a thing, is text in them."""
        return {
            key: canonical(value) if isinstance(value, list | dict) or value != value else value
            for key, value in self.settings.items()
        }

    @property
    def done(self) -> list[JobRecord]:
        """The jobs that finished."""
        return [job for job in self.jobs if job.status == "done"]

    @property
    def sharing(self) -> str:
        """Its sharing architecture."""
        return str(self.settings.get("sharing.name"))

    @property
    def tasks(self) -> list[str]:
        """The tasks that all its finished jobs have a primary metric for."""
        done = self.done
        return [task for task in done[0].primary if all(task in job.primary for job in done)] if done else []

    @property
    def primary(self) -> dict[str, str]:
        """The metric that stands for each of its ``tasks``."""
        return {task: self.done[0].primary[task] for task in self.tasks}

    @property
    def trained_on(self) -> frozenset[str]:
        """The tasks that it was trained on, those that are there to help included: those of ``only``, or all."""
        only = self.settings.get("only")
        declared = {key.split(".")[1] for key in self.settings if key.startswith("tasks.")}
        return frozenset(map(str, only if isinstance(only, list) else declared.union(self.tasks)))

    def task(self, name: str) -> Estimate | None:
        """The primary metric of a task."""
        return estimate([job.value(name) for job in self.done if name in job.primary])

    def mean(self) -> Estimate | None:
        """The mean of its jobs' ``mean_metric``."""
        return estimate([mean_metric(job) for job in self.done])

    def val_mean(self) -> Estimate | None:
        """The mean of the primary metrics on the validation split: what a choice may be made by."""
        return estimate([job.metrics.get("val/mean") for job in self.done])

    def number(self, name: str) -> Estimate | None:
        """Another number of the jobs: ``seconds``, ``parameters``, ``flops_per_row``, ``train_rows``..."""
        return estimate([getattr(job, name) for job in self.done])


@dataclass(frozen=True, eq=False)
class LearningProblem:
    """The methods whose scores can be compared: the same tasks by the same metrics, on the same data, split alike.

    Args:
        name: What sets it apart from the other problems of a sweep, ``task=digits``; empty where it is the only one.
        methods: Those with finished jobs.
    """

    name: str
    methods: tuple[Method, ...]


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Mean and deviation; None if any value is missing, for a mean over what happened to work is none.

    Example:
        >>> estimate([1.0, 3.0])
        Estimate(mean=2.0, std=1.4142135623730951, n=2)
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or len(known) != len(values):
        return None
    return Estimate(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def canonical(value: Any) -> str:
    """One setting, or several by name, as text that is equal for equal ones.

    Example:
        >>> canonical({"b": float("nan"), "a": [1]}) == canonical({"a": [1], "b": float("nan")})
        True
    """
    return json.dumps(value, sort_keys=True, default=str)


def methods(records: Sequence[JobRecord]) -> list[Method]:
    """Folds jobs that differ in their seed alone. Jobs without a readable configuration are left out.

    A seed that was run twice counts once, for a second time says nothing about the spread: its finished job, or the
    first. Jobs from before and after their data file was changed are not the same method; those with copies of one file
    are, and have the place of the first in their settings. Where every job draws its split by its own seed
    (``data.split.seed=${seed}``), that is part of the seed.
    """
    known = [record for record in records if record.settings]
    drawn_too = all(record.settings.get(SPLIT_SEED) == record.settings.get("seed") for record in known)
    settings: dict[str, dict[str, Any]] = {}
    alike: dict[str, list[JobRecord]] = {}
    for record, place in zip(known, _first_places(known), strict=True):
        own = _method_settings({**record.settings, **place}, drawn_too)
        key = canonical(own)
        settings[key] = own
        alike.setdefault(key, []).append(record)
    found = [(key, _one_per_seed(jobs)) for key, of_settings in alike.items() for jobs in _by_data(of_settings)]
    return [
        Method(settings[key], tuple(sorted(jobs, key=lambda job: (str(job.settings.get("seed")), job.job))))
        for key, jobs in found
    ]


def learning_problems(among: Sequence[Method]) -> list[LearningProblem]:
    """The methods with finished jobs by what they were trained for, in the order in which they come."""
    groups: dict[tuple[str | None, frozenset[tuple[str, str]], bool, str], list[int]] = {}
    for i, method in enumerate(among):
        if method.done:
            tested = any("test/mean" in job.metrics for job in method.done)
            data, split = method.done[0].data_fingerprint, scored_on(method.settings)
            key = data, frozenset(method.primary.items()), tested, split
            groups.setdefault(key, []).append(i)
    names = group_names(among, list(groups.values()))
    return [LearningProblem(name, tuple(among[i] for i in g)) for name, g in zip(names, groups.values(), strict=True)]


def unfinished(problem: LearningProblem, among: Sequence[Method]) -> list[Method]:
    """The methods without a finished job that were to be of a problem: for its tasks on its data, as settings tell."""
    wanted = [_trained_for(method) for method in problem.methods]
    return [method for method in among if not method.done and _trained_for(method) in wanted]


def scored_on(settings: Mapping[str, Any]) -> str:
    """Which rows scores are of, as far as settings tell: of how many it was trained on makes no difference.

    Example:
        >>> scored_on({"data.split.seed": 0, "data.split.train_fraction": 0.1, "seed": 1})
        '{"data.split.seed": 0}'
    """
    split = {key: value for key, value in settings.items() if key.startswith("data.split.") and key != FRACTION}
    return canonical(split)


def group_names(among: Sequence[Method], groups: Sequence[Sequence[int]]) -> list[str]:
    """What tells groups of methods, given by their positions, apart; nothing where there is one group.

    The label keys that are the same within each; else the tasks that they are made of, with their metrics or their
    data, or both, as far as that is needed.
    """
    if len(groups) < 2:
        return [""] * len(groups)
    named = labels(among)
    primary = [{t: metric for i in group for t, metric in among[i].primary.items()} for group in groups]
    tasks = [", ".join(own) for own in primary]
    by_metric = [", ".join(map("/".join, own.items())) for own in primary]
    data = [f" (data {str(among[group[0]].done[0].data_fingerprint)[:8]})" for group in groups]
    choices = [_names([[named[i] for i in group] for group in groups]), tasks, by_metric]
    choices += [[*map("".join, zip(of, data, strict=True))] for of in (tasks, by_metric)]
    return next((names for names in choices if len({*names}) == len(groups)), choices[-1])


def baseline(method: Method, among: Sequence[Method]) -> Method | None:
    """The single-task baseline that a method can fairly be compared with, or None.

    It was trained on the same rows of the same data with the same settings but for ``sharing``. A method's balancing
    may not be defined for it (nothing is shared whose gradients could be combined): then that of ``equal`` counts.
    """
    if method.sharing == BASELINE or not method.done:
        return None
    candidates = [other for other in among if other.sharing == BASELINE and other.done and _same_data(method, other)]
    for without in (("sharing.",), ("sharing.", "balancing.")):
        wanted = _without(method.comparable, without)
        found = [other for other in candidates if _without(other.comparable, without) == wanted]
        equal = [other for other in found if other.settings.get("balancing.name") == "equal"]
        for choice in (found, equal):
            if len(choice) == 1:
                return choice[0]
    return None


def delta_m(job: JobRecord, base: JobRecord) -> float | None:
    """delta-m of one job against another, in per cent; above 0 is better. None if a metric is missing or 0.

    Example:
        >>> made = dict(status="done", primary={"a": "auroc", "b": "rmse"}, higher_is_better={"a": True, "b": False})
        >>> ours = JobRecord("x", metrics={"test/a/auroc": 0.99, "test/b/rmse": 1.0}, **made)
        >>> theirs = JobRecord("y", metrics={"test/a/auroc": 0.9, "test/b/rmse": 2.0}, **made)
        >>> round(delta_m(ours, theirs), 6)
        30.0
    """
    changes = [relative_change(job, base, task) for task in job.primary]
    known = [change for change in changes if change is not None]
    return statistics.fmean(known) if known and len(known) == len(changes) else None


def mean_metric(job: JobRecord) -> float | None:
    """The mean of the primary metrics: on the test split, or on the validation split without one."""
    return job.metrics.get("test/mean", job.metrics.get("val/mean"))


def relative_change(job: JobRecord, base: JobRecord, task: str, split: str | None = None) -> float | None:
    """Change of one task's primary metric in per cent of the baseline's (``SHARES``: of 1), above 0 for better.

    On ``split``; None for the test split if there is one, else the validation split.

    Example:
        >>> one, two = (JobRecord("", "done", metrics={"test/a/r2": r2}, primary={"a": "r2"}) for r2 in (0.1, -0.1))
        >>> round(relative_change(one, two, "a"), 6)
        20.0
    """
    metric = job.primary.get(task)
    if metric is None or metric != base.primary.get(task):
        return None
    ours, theirs = job.value(task, split), base.value(task, split)
    if ours is None or theirs is None:
        return None
    sign = 1 if job.higher_is_better.get(task, True) else -1
    whole = 1.0 if metric in SHARES else abs(theirs)
    return None if whole == 0 else 100 * sign * (ours - theirs) / whole


def paired(method: Method, base: Method) -> list[tuple[JobRecord, JobRecord]]:
    """The jobs of two methods with equal seeds."""
    by_seed = {job.settings.get("seed"): job for job in base.done}
    return [(job, by_seed[seed]) for job in method.done if (seed := job.settings.get("seed")) in by_seed]


def delta(method: Method, base: Method) -> Estimate | None:
    """delta-m of a method, each seed against the same seed of the baseline."""
    pairs = paired(method, base)
    return estimate([delta_m(*pair) for pair in pairs]) if pairs else None


def mean_ranks(among: Sequence[Method]) -> dict[int, float]:
    """Mean over tasks of each method's rank by its mean metric, by position; equal values share their mean rank.

    Tasks ``without_number`` are left out. Methods without a number for every other task have none.
    """
    tasks = {task for method in among for task in method.tasks}.difference(without_number(among))
    scores = {
        i: {task: method.task(task) for task in tasks}
        for i, method in enumerate(among)
        if all(method.task(task) is not None for task in tasks)
    }
    ranks: dict[int, list[float]] = {i: [] for i in scores}
    for task in tasks:
        up = all(among[i].done[0].higher_is_better.get(task, True) for i in scores)
        values = {
            i: (estimates[task] or Estimate(math.nan, None, 0)).mean * (-1 if up else 1)
            for i, estimates in scores.items()
        }
        for i, value in values.items():
            ahead, equal = sum(v < value for v in values.values()), sum(v == value for v in values.values())
            ranks[i].append(ahead + (equal + 1) / 2)
    return {i: statistics.fmean(found) for i, found in ranks.items() if found}


def without_number(among: Sequence[Method]) -> list[str]:
    """The tasks that no method has a number for: their labels allow none, or there are none to test on."""
    tasks = dict.fromkeys(task for method in among for task in method.tasks)
    return [task for task in tasks if all(method.task(task) is None for method in among)]


def lacking(among: Sequence[Method]) -> dict[int, list[str]]:
    """Methods, by position, whose mean is none or over other tasks than others' with the same seed: what they lack."""
    known: dict[Any, set[str]] = {}
    for method in among:
        for job in method.done:
            numbers = {task for task in job.primary if job.value(task) is not None}
            known.setdefault(job.settings.get("seed"), set()).update(numbers)
    found = {}
    for i, method in enumerate(among):
        lost = {t for job in method.done for t in known[job.settings.get("seed")] if job.value(t) is None}
        if lost:
            found[i] = [task for task in method.tasks if task in lost]
    return found


def pareto(among: Sequence[Method]) -> set[int]:
    """Positions of the methods that no other beats in score and parameters and seconds at once."""
    points, without = {}, lacking(among)
    for i, method in enumerate(among):
        if i in without:
            continue
        found = method.mean(), method.number("parameters"), method.number("seconds")
        if None not in found:
            score, parameters, seconds = (value.mean for value in found if value is not None)
            points[i] = (-score, parameters, seconds)
    return front(points)


def front(points: Mapping[int, tuple[float, ...]]) -> set[int]:
    """Keys of the points that no other is at least as good as in everything, and better in something; less is better.

    Example:
        >>> front({0: (1.0, 2.0), 1: (2.0, 1.0), 2: (2.0, 2.0)})
        {0, 1}
    """
    return {
        i
        for i, point in points.items()
        if not any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points.values()
        )
    }


def labels(among: Sequence[Method]) -> list[dict[str, str]]:
    """What sets the methods apart: one mapping from key to value for each, with the same keys.

    These are the overrides that were swept, where they tell all methods apart: ``task`` is one key to its user and
    dozens of settings. Else they are settings: ``sharing.name`` is called ``sharing``; an option of a component is
    shown where it differs between methods that have chosen the same component.
    """
    if swept := _swept(among):
        return swept
    keys = [key for key in dict.fromkeys(k for m in among for k in m.settings) if _varies(key, among)]
    named = {key.removesuffix(".name"): key for key in keys if key.endswith(".name")}
    shown = []
    for key in keys:
        group = key.partition(".")[0]
        if key.endswith(".name") or group not in named:
            shown.append(key)
        else:
            chosen = {method.settings.get(named[group]) for method in among}
            alike = ([m for m in among if m.settings.get(named[group]) == name] for name in chosen)
            if any(_varies(key, same) for same in alike):
                shown.append(key)
    return [
        {
            key.removesuffix(".name"): setting_text(method.settings[key]) if key in method.settings else ""
            for key in shown
        }
        for method in among
    ]


def setting_text(value: Any) -> str:
    """A setting for people, as YAML has it.

    Example:
        >>> [setting_text(value) for value in (None, True, 0.1, ["", None], {"a": False})]
        ['null', 'true', '0.1', '["", null]', '{a: false}']
    """
    if isinstance(value, list):
        return f"[{', '.join(map(setting_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {setting_text(item)}' for key, item in value.items())}}}"
    if value is None or value == "":
        return "null" if value is None else '""'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _swept(among: Sequence[Method]) -> list[dict[str, str]] | None:
    """The overrides in which the methods differ; None if some have the same, or one has several values of a key."""
    given = [[override_values(job.overrides) for job in method.jobs] for method in among]
    columns: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for jobs in given for values in jobs for key in values):
        chosen = [{_chosen(key, method, values) for values in jobs} for method, jobs in zip(among, given, strict=True)]
        if _makes_a_method(key) and all(len(values) == 1 for values in chosen) and len(set().union(*chosen)) > 1:
            columns[key] = [value for (value,) in chosen]
    rows = list(zip(*columns.values(), strict=True))
    return [dict(zip(columns, row, strict=True)) for row in rows] if rows and len({*rows}) == len(among) else None


def _chosen(key: str, method: Method, given: Mapping[str, str]) -> str:
    """What a method has for the key of an override, given or by default: as its settings say if they hold the key."""
    for setting in (f"{key}.name", key):
        if setting in method.settings:
            return setting_text(method.settings[setting])
    return given.get(key, "")


def _names(groups: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    """Names for groups of labels by the keys that are the same within each; one key where it tells them apart."""
    keys = [key for key in (groups[0][0] if groups else ()) if all(len({one[key] for one in g}) == 1 for g in groups)]
    # The task first: that is what the user calls data and tasks together.
    for key in sorted(keys, key=lambda key: key != "task"):
        if len({group[0][key] for group in groups}) == len(groups):
            keys = [key]
            break
    return [", ".join(f"{key}={group[0][key]}" for key in keys) for group in groups]


def _one_per_seed(jobs: Sequence[JobRecord]) -> list[JobRecord]:
    chosen: dict[str, JobRecord] = {}
    for job in sorted(jobs, key=lambda job: (job.status != "done", job.job)):
        chosen.setdefault(str(job.settings.get("seed")), job)
    return list(chosen.values())


def _by_data(jobs: Sequence[JobRecord]) -> list[list[JobRecord]]:
    """Jobs of the same settings by the data that they were trained on; those that do not tell go with the last."""
    known = list(dict.fromkeys(job.data_fingerprint for job in jobs if job.data_fingerprint is not None))
    if len(known) < 2:
        return [list(jobs)]
    last = known[-1]
    return [[job for job in jobs if (job.data_fingerprint or last) == data] for data in known]


def _first_places(records: Sequence[JobRecord]) -> list[dict[str, Any]]:
    """For each job where its data lie: for data that are found at several places, the first of them.

    Jobs that do not tell their data have those of a job with the same place. Places are alike that give as many files
    for the same splits of the same sources. Paths of images in a table start from its place, and its fingerprint does
    not know what lies there: such a place is one of its own.
    """
    first: dict[tuple[str | None, str], dict[str, Any]] = {}
    by_place: dict[str, dict[str, Any]] = {}
    own = [{key: value for key, value in r.settings.items() if _PLACE.fullmatch(key)} for r in records]
    texts = [*map(canonical, own)]
    for record, place, text in zip(records, own, texts, strict=True):
        if record.data_fingerprint is not None and not _has_images(record):
            shape = canonical({k: len(v) if isinstance(v, list) else v and 1 for k, v in place.items()})
            by_place[text] = first.setdefault((record.data_fingerprint, shape), place)
    return [by_place.get(text, place) for place, text in zip(own, texts, strict=True)]


def _has_images(record: JobRecord) -> bool:
    inputs = record.settings.get("data.inputs")
    return isinstance(inputs, list) and any(isinstance(i, dict) and i.get("type") == "image" for i in inputs)


def _trained_for(method: Method) -> dict[str, Any]:
    """Its tasks and data, but for how many of the training rows."""
    own = {k: value for k, value in method.comparable.items() if k.startswith(("tasks.", "data.")) or k == "only"}
    return _without(own, (FRACTION,))


def _varies(key: str, among: Sequence[Method]) -> bool:
    return len({canonical(method.settings.get(key, "(none)")) for method in among}) > 1


def _method_settings(settings: Mapping[str, Any], drawn_too: bool) -> dict[str, Any]:
    """What makes the method, ``drawn_too``: the seed of the split is the seed."""
    own = {key: value for key, value in settings.items() if _makes_a_method(key)}
    return {**own, SPLIT_SEED: "${seed}"} if drawn_too and SPLIT_SEED in own else own


def _makes_a_method(key: str) -> bool:
    return not any(f"{key}.".startswith(f"{same}.") for same in _SAME_METHOD)


def _without(settings: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not key.startswith(prefixes)}


def _same_data(a: Method, b: Method) -> bool:
    """Whether the jobs of equal seeds were trained on as many rows of the same data; the first ones where none are.

    How many rows a split has may depend on the seed that draws it.
    """
    pairs = paired(a, b) or [(a.done[0], b.done[0])]
    return all(x.data_fingerprint == y.data_fingerprint and x.train_rows == y.train_rows for x, y in pairs)
