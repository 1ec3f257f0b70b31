"""Does sharing pay? The answer from a sweep: parameters, scores and data, each against the tasks trained apart."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mtl_cli.errors import listed
from mtl_cli.report_text import with_deviation
from mtl_cli.sweep import comparison
from mtl_cli.sweep.comparison import BASELINE, FRACTION, Estimate, LearningProblem, Method
from mtl_cli.sweep.records import JobRecord

#: Two-sided 95 % quantiles of Student's t for a mean over so many seeds (n - 1 degrees of freedom).
_T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
_NORMAL_95 = 1.96
_BY_CHANCE = 0.05  # the share of differences that are none and are called clear
_FEW = 10  # of so many tasks or methods, that is hardly one
_IS_KEY = re.compile("[A-Za-z0-9_-]+")  # to Hydra's grammar
_FEW_NAMED = 5  # tasks in a line
_MOST_NAMED = 10  # seeds in a suggestion, methods in a line
_NO_PAIR = f"no finished job of {BASELINE} is on the same rows with the same settings"


@dataclass(frozen=True)
class Verdict:
    """One method against the single-task baseline.

    Args:
        method: The method.
        base: The baseline.
        fewer_parameters: Share of the baseline's parameters that it does without, in per cent; below 0 it has more.
        delta: delta-m in per cent over the seeds; above 0 is better.
        tasks: The same for each task that has numbers, and a baseline that is not 0 where changes are relative.
    """

    method: Method
    base: Method
    fewer_parameters: float | None
    delta: Estimate | None
    tasks: dict[str, Estimate]

    @property
    def without_change(self) -> list[str]:
        """The tasks without a number in ``tasks``, for want of which there is no delta-m."""
        return [task for task in self.method.tasks if task not in self.tasks]


def verdicts(among: Sequence[Method]) -> list[Verdict]:
    """Every method that has a baseline, best delta-m first."""
    bases = [(method, comparison.baseline(method, among)) for method in among]
    found = [_verdict(method, base) for method, base in bases if base is not None]
    return sorted(found, key=lambda v: -(v.delta.mean if v.delta else -math.inf))


def _verdict(method: Method, base: Method) -> Verdict:
    pairs = comparison.paired(method, base)
    ours, theirs = method.number("parameters"), base.number("parameters")
    fewer = 100 * (1 - ours.mean / theirs.mean) if ours and theirs else None
    tasks = {}
    for task in method.tasks:
        change = comparison.estimate([comparison.relative_change(*pair, task) for pair in pairs])
        if change is not None:
            tasks[task] = change
    return Verdict(method, base, fewer, comparison.delta(method, base), tasks)


def is_clear(change: Estimate) -> bool:
    """Whether a mean differs from 0 by Student's t test at 95 %: the one rule for all that is called clear.

    A fixed number of standard errors would not do: of differences that are none, 29 % are more than two from 0 with 2
    seeds, and 18 % with 3. One seed is never clear, nor are two that agree to the last digit: scores of few rows have
    few values.

    Example:
        >>> is_clear(Estimate(1.0, 0.3, 3)), is_clear(Estimate(1.0, 0.3, 2)), is_clear(Estimate(1.0, None, 1))
        (True, False, False)
    """
    if change.error is None or (change.error == 0 and change.n < 3):
        return False
    return abs(change.mean) > t_95(change.n) * change.error


def t_95(n: int) -> float:
    """How many standard errors from 0 a mean over ``n`` values is clear.

    Example:
        >>> t_95(3), round(t_95(31), 2)
        (4.3, 2.05)
    """
    if n in _T_95:
        return _T_95[n]
    last = max(_T_95)  # from there to infinity it is all but straight over 1 / degrees of freedom
    return _NORMAL_95 + (_T_95[last] - _NORMAL_95) * (last - 1) / (n - 1)


def judged(change: Estimate) -> str:
    """``better``, ``worse``, or ``no clear difference``; one seed can say nothing for sure.

    Example:
        >>> judged(Estimate(1.0, 0.3, 3)), judged(Estimate(1.0, 3.0, 3)), judged(Estimate(-2.0, None, 1))
        ('better', 'no clear difference', 'one seed, worse')
    """
    direction = "better" if change.mean > 0 else "worse" if change.mean < 0 else "equal"
    if change.error is None:
        return f"one seed, {direction}"
    return direction if is_clear(change) else "no clear difference"


def more_seeds(change: Estimate) -> str:
    """What to do where nothing is clear.

    Example:
        >>> more_seeds(Estimate(1.0, 3.0, 3)), more_seeds(Estimate(1.0, 3.0, 8))
        ('More seeds may tell: seed=0,1,2,3,4,5.', 'More seeds may tell.')
    """
    wanted = max(5, 2 * change.n)
    named = f": seed={','.join(map(str, range(wanted)))}" if wanted <= _MOST_NAMED else ""
    return f"More seeds may tell{named}."


def rows_needed(method: Method, base: Method, among: Sequence[Method]) -> tuple[float, bool] | None:
    """Training rows that a method needs for the baseline's score with all its rows, by the seeds that both have.

    Found between the fractions that were trained, along a straight line over the logarithm of the rows.

    Returns:
        The rows, and whether that is an upper bound only (the smallest fraction was enough already); None if the
        method never reaches the score, or was not trained with several fractions.
    """
    curve = _ahead(method, base, among)
    if len(curve) < 2:
        return None
    if curve[0][1] >= 0:
        return curve[0][0], True
    for (rows, behind), (more, ahead) in pairwise(curve):
        if behind < 0 <= ahead:
            share = behind / (behind - ahead)
            return math.exp(math.log(rows) + share * (math.log(more) - math.log(rows))), False
    return None


@dataclass(frozen=True)
class _Asked:
    """The question, for one problem.

    Args:
        problem: Its finished methods.
        own: Those of the largest fraction of the training rows that any is compared at; none if none is.
        unpaired: Methods of that fraction that share, and have no baseline to be compared with.
        missing: Why nothing is compared with the largest fraction that was asked for; empty if something is.
    """

    problem: LearningProblem
    own: list[Verdict]
    unpaired: list[Method]
    missing: str


def answer(among: Sequence[Method]) -> str | None:
    """The three claims of multi-task learning, each with its numbers; None if there is nothing to compare.

    Each data set and set of tasks has an answer of its own. With several fractions of the training rows, scores and
    parameters are those of the largest at which a method has a baseline; where that is none, or not the largest of
    all, it is said why. The first line is about the method with the best validation score, against the tasks apart
    with theirs: chosen on test rows, the luckiest of many would come first.
    """
    found = [asked for problem in comparison.learning_problems(among) if (asked := _asked(problem, among)) is not None]
    if not found:
        return None
    heads = {asked.problem.name: _head(asked) for asked in found}
    width = max(map(len, heads))
    lines = ["Does sharing pay?", *(f"  {name:<{width}}  {told}" for name, told in heads.items())]
    if "" in heads:
        lines = [f"Does sharing pay? {heads['']}"]
    for asked in found:
        of = f"{asked.problem.name}: " if asked.problem.name else ""
        elsewhere = other_base(chosen(asked.own, asked.problem.methods), asked.own) if asked.own else None
        named = [verdict.method for verdict in asked.own] + ([] if elsewhere is None else [elsewhere])
        alike = "" if elsewhere is None else " with the same settings"  # which the first line is not about
        for verdict in asked.own:
            name = _name(verdict.method, named)
            lines += ["", f"{of}{name} against {BASELINE}{alike}{_seeds(verdict)}:"]
            lines += [f"  {line}" for line in _claims(verdict, asked.problem.methods)]
        if told := _by_chance("methods", [verdict.delta for verdict in asked.own if verdict.delta is not None]):
            lines += ["", f"{of}{told}"]
        if asked.own and asked.unpaired:
            every = [*(verdict.method for verdict in asked.own), *asked.unpaired]
            names = listed([_short_name(method, every) for method in asked.unpaired], _MOST_NAMED)
            lines += ["", f"{of}not compared, for {_NO_PAIR}: {names}"]
    return "\n".join(lines)


def _asked(problem: LearningProblem, among: Sequence[Method]) -> _Asked | None:
    """The question, if the jobs were to share and to train apart, whatever became of them."""
    every = [*problem.methods, *comparison.unfinished(problem, among)]
    if len({method.sharing == BASELINE for method in every}) < 2:
        return None
    own = of_most_rows(verdicts(problem.methods))
    most = max(map(_fraction, every))
    at = _fraction(own[0].method) if own else most
    compared = [verdict.method for verdict in own]
    unpaired = [
        method
        for method in problem.methods
        if method.sharing != BASELINE and _fraction(method) == at and method not in compared
    ]
    return _Asked(problem, own, unpaired, "" if own and at == most else _missing(problem.methods, every, most))


def _missing(done: Sequence[Method], every: Sequence[Method], most: float) -> str:
    """Why no method is compared with the fraction ``most`` of the training rows."""
    with_most = f" with {100 * most:g} % of the training rows" if len({*map(_fraction, every)}) > 1 else ""
    finished = {method.sharing for method in done if _fraction(method) == most}
    if BASELINE not in finished:
        return f"{BASELINE} has no finished job{with_most}"
    shared = dict.fromkeys(method.sharing for method in every if method.sharing != BASELINE)
    if not finished.intersection(shared):
        return f"{listed([*shared], _MOST_NAMED)} {'has' if len(shared) == 1 else 'have'} no finished job{with_most}"
    return f"{_NO_PAIR}{with_most}"


def of_most_rows(found: Sequence[Verdict]) -> list[Verdict]:
    """Those with the largest fraction of the training rows, in their order."""
    most = max((_fraction(verdict.method) for verdict in found), default=0.0)
    return [verdict for verdict in found if _fraction(verdict.method) == most]


def chosen(own: Sequence[Verdict], among: Sequence[Method]) -> Verdict:
    """The method to tell of: the best on validation rows, against the best of the baseline's settings there.

    Of those that are as good there, the one with fewer parameters, then by its settings: nothing of test rows may tell.

    Args:
        own: Methods with one fraction of the training rows.
        among: All methods of their problem.
    """
    best = min(own, key=lambda verdict: _place_on_val(verdict.method))
    apart = [m for m in among if m.sharing == BASELINE and _fraction(m) == _fraction(best.method)]
    base = min((m for m in apart if comparison.paired(best.method, m)), key=_place_on_val, default=best.base)
    return best if _val_score(base) <= _val_score(best.base) else _verdict(best.method, base)


def other_base(best: Verdict, own: Sequence[Verdict]) -> Method | None:
    """The baseline of the ``chosen`` verdict, if that is none with the method's own settings: to be named beside it."""
    return None if any(best.base is verdict.base for verdict in own if verdict.method is best.method) else best.base


def _place_on_val(method: Method) -> tuple[float, float, str]:
    parameters = method.number("parameters")
    return -_val_score(method), parameters.mean if parameters else math.inf, comparison.canonical(method.settings)


def _val_score(method: Method) -> float:
    found = method.val_mean()
    return -math.inf if found is None else found.mean


def _head(asked: _Asked) -> str:
    if not asked.own:
        return f"Not known: {asked.missing}."
    told = _headline(asked.own, asked.problem.methods)
    if not asked.missing:
        return told
    return f"With {100 * _fraction(asked.own[0].method):g} % of the training rows ({asked.missing}): {told}"


def _headline(own: Sequence[Verdict], among: Sequence[Method]) -> str:
    best = chosen(own, among)
    change = best.delta
    if len(best.method.trained_on) == 1:
        return f"There is nothing to share: {', '.join(best.method.trained_on)} is the only task."
    if change is None:
        return f"Not known: {_no_change(best)}.{_without_them(best)}"
    sign = f"mean change {percent(change._replace(std=None))}"
    told = judged(change)
    named = [*(verdict.method for verdict in own), best.base]
    name, elsewhere = _short_name(best.method, named), other_base(best, own)
    if elsewhere is not None:
        name += f" against {_short_name(elsewhere, named)}"
    if told == "better":
        return f"Yes: {name} scores better ({sign})."
    if told == "worse":
        of = f" for the best architecture, {name}" if len({v.method.sharing for v in own}) > 1 else f", {name}"
        return (
            f"No: the tasks score better apart ({sign}{of}). "
            "Try fewer tasks (only=[...]), or an architecture that shares less (sharing=cross_stitch, mmoe, ple)."
        )
    if told.startswith("one seed"):
        return f"One seed only ({name}: {sign}), which cannot tell. {more_seeds(change)}"
    fewer = best.fewer_parameters
    saved = f", with {fewer:.0f} % fewer parameters" if fewer is not None and fewer > 0 else ""
    return f"No clear difference in scores ({name}: {sign}){saved}. {more_seeds(change)}"


def _short_name(method: Method, among: Sequence[Method]) -> str:
    """The architecture, with the settings where they differ."""
    return _name(method, list(dict.fromkeys(among))).removeprefix("sharing=")


def _claims(verdict: Verdict, among: Sequence[Method]) -> list[str]:
    lines = []
    ours, theirs = verdict.method.number("parameters"), verdict.base.number("parameters")
    if ours and theirs and verdict.fewer_parameters is not None:
        fewer = verdict.fewer_parameters
        word = "as many" if abs(fewer) < 0.5 else f"{abs(fewer):.0f} % {'fewer' if fewer > 0 else 'more'}"
        lines.append(f"parameters  {word} ({round(ours.mean):,} against {round(theirs.mean):,})")
    if verdict.delta is not None:
        lines.append(f"scores      delta-m {percent(verdict.delta)}: {judged(verdict.delta)}")
    else:
        lines.append(f"scores      delta-m is not known: {_no_change(verdict)}")
    for task, change in verdict.tasks.items():
        lines.append(f"            {task} {percent(change)}: {judged(change)}")
    if verdict.delta is not None and (decisive := _decisive(verdict.tasks)) is not None:
        task, rest = decisive
        lines.append(f"            ({task} alone decides the sign: without it {percent(Estimate(rest, None, 1))})")
    if told := _by_chance("tasks", verdict.tasks.values()):
        lines.append(f"            ({told})")
    if len({*map(_fraction, among)}) > 1:
        lines.append(f"data        {_data(verdict, among)}")
    return lines


def _decisive(tasks: Mapping[str, Estimate]) -> tuple[str, float] | None:
    """The task without which the mean change has the other sign, and the mean of the others; None: none or several.

    A change is relative, so that a score near 0 can change by more than those of all other tasks together.
    """
    if len(tasks) < 3:  # of two both are seen
        return None
    total = sum(change.mean for change in tasks.values())
    others = {task: (total - change.mean) / (len(tasks) - 1) for task, change in tasks.items()}
    turning = [(task, rest) for task, rest in others.items() if rest * total < 0]
    return turning[0] if len(turning) == 1 else None


def _by_chance(what: str, changes: Collection[Estimate]) -> str:
    """How many of many changes would be clear if there were none; empty where they are few, or none is clear."""
    if len(changes) <= _FEW or not any(map(is_clear, changes)):
        return ""
    count = _BY_CHANCE * len(changes)
    return f"of {len(changes)} {what} without a difference about {count:.0f} would be called better or worse by chance"


def _no_change(verdict: Verdict) -> str:
    if not comparison.paired(verdict.method, verdict.base):
        return f"it has no seed in common with {BASELINE}"
    reasons = []
    for without, tasks in _lacking(verdict).items():
        own = f"{' and '.join(without)} {'has' if len(without) == 1 else 'have'} no score of"
        named = listed(tasks, _FEW_NAMED)
        reasons.append(f"{own} {named}" if without else f"the score of {named} is 0 for {BASELINE}")
    return "; ".join(reasons)


def _lacking(verdict: Verdict) -> dict[tuple[str, ...], list[str]]:
    """The tasks without a change, by the architectures that have no score of them: none where the baseline's is 0."""
    pairs = comparison.paired(verdict.method, verdict.base)
    sides = dict(zip((verdict.method.sharing, BASELINE), zip(*pairs, strict=True), strict=True))
    found: dict[tuple[str, ...], list[str]] = {}
    for task in verdict.without_change:
        without = tuple(sharing for sharing, jobs in sides.items() if any(job.value(task) is None for job in jobs))
        found.setdefault(without, []).append(task)
    return found


def _without_them(verdict: Verdict) -> str:
    """How to have an answer by the other tasks, if there are some and what these lack is not one side's failure."""
    no_change = verdict.without_change
    if not verdict.tasks or not no_change or any(len(without) == 1 for without in _lacking(verdict)):
        return ""
    settings = listed([f"tasks.{task}.auxiliary=true" for task in no_change], _FEW_NAMED, " ")
    if not all(map(_IS_KEY.fullmatch, no_change)):  # on the command line they would be no keys
        settings = "set auxiliary: true in the file"
    return f" Without {'it' if len(no_change) == 1 else 'them'} there is an answer: {settings}."


def _data(verdict: Verdict, among: Sequence[Method]) -> str:
    rows = verdict.base.number("train_rows")
    if rows is None or len(_ahead(verdict.method, verdict.base, among)) < 2:
        return "not known: it has no score with another fraction of the training rows for the same seeds"
    needed = rows_needed(verdict.method, verdict.base, among)
    if needed is None:
        told = f"does not reach the mean score that {BASELINE} has with {round(rows.mean):,} rows"
    else:
        count, at_most = needed
        bound, share = "at most" if at_most else "about", 100 * count / rows.mean
        score = f"the mean score that {BASELINE} has with {round(rows.mean):,}"
        told = f"{bound} {round(count):,} rows ({share:.0f} %) for {score}"
    clear = verdict.delta is not None and is_clear(verdict.delta)
    return told if clear else f"{told}, by the means; with as many for both, scores do not differ clearly"


def _ahead(method: Method, base: Method, among: Sequence[Method]) -> list[tuple[float, float]]:
    """Training rows of a method with every fraction that was trained, and how far its mean score is above the baseline.

    Over the seeds of its comparison with the baseline, as far as they were trained with the fraction: means over other
    seeds would say something else than what stands beside them.
    """
    wanted = _but_for_rows(method)
    seeds = [job.settings.get("seed") for job, _ in comparison.paired(method, base)]
    points = []
    for other in among:
        if _but_for_rows(other) == wanted:
            pairs = [pair for pair in comparison.paired(other, base) if pair[0].settings.get("seed") in seeds]
            rows, ahead = other.number("train_rows"), comparison.estimate([_mean_ahead(*pair) for pair in pairs])
            if rows is not None and ahead is not None:
                points.append((rows.mean, ahead.mean))
    return sorted(points)


def _but_for_rows(method: Method) -> dict[str, Any]:
    return {key: value for key, value in method.comparable.items() if key != FRACTION}


def _mean_ahead(job: JobRecord, base: JobRecord) -> float | None:
    ours, theirs = comparison.mean_metric(job), comparison.mean_metric(base)
    return None if ours is None or theirs is None else ours - theirs


def _fraction(method: Method) -> float:
    """Of the training rows; 0 for a setting that is no share of them, with which no job can have finished."""
    fraction = method.settings.get(FRACTION, 1.0)
    return float(fraction) if isinstance(fraction, int | float) and 0 < fraction <= 1 else 0.0


def _name(method: Method, among: Sequence[Method]) -> str:
    (label,) = (comparison.labels(among)[i] for i, other in enumerate(among) if other is method)
    rest = ", ".join(f"{key}={value}" for key, value in label.items() if value and key != "sharing")
    return f"sharing={method.sharing}" + (f", {rest}" if rest else "")


def _seeds(verdict: Verdict) -> str:
    n = len(comparison.paired(verdict.method, verdict.base))
    return f" ({n} seed{'' if n == 1 else 's'})"


def percent(change: Estimate) -> str:
    """Mean and deviation of a change: ``+1.20 % ± 0.40``."""
    return with_deviation(change.mean, change.std, 2, "+", " %")
