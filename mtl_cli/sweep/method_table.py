"""The leaderboard with seeds folded: one row for each method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from mtl_cli.errors import listed
from mtl_cli.report_text import with_deviation
from mtl_cli.sweep import comparison
from mtl_cli.sweep.comparison import Estimate, Method
from mtl_cli.sweep.records import STATUSES
from mtl_cli.sweep.table import Cell, Column

DELTA = "delta-m %"
NUMBERS = ("parameters", "flops_per_row", "seconds", "rows_per_second", "train_rows")  # beside the scores

_MOST_NAMED = 10  # tasks or seeds in a line


class _Change(Estimate):
    """In per cent, with its sign."""

    def __str__(self) -> str:
        return with_deviation(self.mean, self.std, 2, "+")


class Standing(NamedTuple):
    """Where a method stands among those that were trained for the same tasks, by the same metrics, on the same data.

    Args:
        problem: The tasks and data, in words; empty if the sweep has no others.
        rank: By the mean of the primary metrics; None if there is nothing to compare.
        mean_rank: Mean over tasks of its rank.
        pareto: Whether no other beats it in score, parameters and seconds at once.
    """

    problem: str = ""
    rank: int | None = None
    mean_rank: float | None = None
    pareto: bool = False


def ranked_methods(among: Sequence[Method]) -> list[Method]:
    """Best mean of the primary metrics first, one problem after the other; methods without a rank last, in their order.

    A mean over other tasks than the others' would come first for what it leaves out.
    """
    found = []
    for problem in comparison.learning_problems(among):
        without = comparison.lacking(problem.methods)
        means = [(mean.mean, m) for i, m in enumerate(problem.methods) if i not in without and (mean := m.mean())]
        found += [method for _, method in sorted(means, key=lambda pair: -pair[0])]
    ranked = set(map(id, found))
    return [*found, *(method for method in among if id(method) not in ranked)]


def standings(rows: Sequence[Method]) -> list[Standing]:
    """Where each method of ``ranked_methods`` stands."""
    found = {}
    problems = comparison.learning_problems(rows)
    for problem in problems:
        own = problem.methods
        ranks, front, without = comparison.mean_ranks(own), comparison.pareto(own), comparison.lacking(own)
        is_only_one = len(own) == 1 and len(problems) > 1  # first of one says nothing
        for i, method in enumerate(own):
            found[id(method)] = (
                Standing(problem.name)
                if is_only_one
                else Standing(
                    problem.name, None if i in without or method.mean() is None else i + 1, ranks.get(i), i in front
                )
            )
    return [found.get(id(method), Standing()) for method in rows]


def is_folded(among: Sequence[Method]) -> bool:
    """Whether any method has several jobs, so that its row says more than the jobs' own."""
    return any(len(method.jobs) > 1 for method in among)


def methods_title(among: Sequence[Method]) -> str:
    """The heading of ``method_columns``, which says what the methods are ranked by."""
    places = standings(ranked_methods(among))
    if all(place.rank is None for place in places):
        return "Methods"
    tested = any("test/mean" in job.metrics for method in among for job in method.done)
    within = " for each data set and set of tasks" if len({p.problem for p in places if p.rank}) > 1 else ""
    return f"Methods, ranked by mean {'test' if tested else 'validation'} score over the seeds{within}"


def remarks(among: Sequence[Method]) -> list[str]:
    """What the table's means leave out or compare unequally, for each problem.

    One line for tasks that no method has a number for, one for each method that alone has none, and one where methods
    were trained with other seeds than others.
    """
    lines = []
    names = dict(zip(map(id, among), comparison.labels(among), strict=True))
    for problem in comparison.learning_problems(among):
        of = f"{problem.name}: " if problem.name else ""
        if tasks := comparison.without_number(problem.methods):
            which = f"{of}no job has a score for {listed(tasks, _MOST_NAMED)}"
            lines.append(f"{which}: mean and mean rank are of the other tasks")
        for i, tasks in comparison.lacking(problem.methods).items():
            name = ", ".join(f"{key}={value}" for key, value in names[id(problem.methods[i])].items())
            lines.append(f"{name}: no rank, for it has no score for {listed(tasks, _MOST_NAMED)}, which others have")
        if told := _unequal_seeds(problem.methods):
            lines.append(f"{of}{told}")
    return lines


def method_columns(among: Sequence[Method]) -> list[Column]:
    """The table's columns; numbers are mean ± standard deviation over the seeds."""
    rows = ranked_methods(among)
    labels, places = comparison.labels(rows), standings(rows)
    keys = list(labels[0]) if labels else []
    measured = dict.fromkeys(pair for method in rows for pair in method.primary.items())
    means = [method.mean() for method in rows]
    deltas = [_delta(method, rows) for method in rows]
    table = [
        Column("rank", [place.rank for place in places]),
        *(Column(key, [label[key] for label in labels], "override") for key in keys),
        Column("jobs", [_states(method) for method in rows]),
        *(Column("/".join(pair), [_score(method, *pair) for method in rows], "metric") for pair in measured),
        Column("mean", [*means]),
    ]
    if any(delta is not None for delta in deltas):
        table.append(Column(DELTA, [None if delta is None else _Change(*delta) for delta in deltas]))
    flops = [_whole(method.number("flops_per_row")) for method in rows]
    chosen_by: list[Cell] = [method.val_mean() for method in rows]
    return [
        *table,
        *([Column("val mean", chosen_by, "cost")] if any(cell is not None for cell in chosen_by) else []),
        Column("mean rank", [place.mean_rank for place in places], "cost"),
        Column("parameters", [_whole(method.number("parameters")) for method in rows], "cost"),
        *([Column("flops/row", flops, "cost")] if any(cell is not None for cell in flops) else []),
        Column("seconds", [_mean(method.number("seconds")) for method in rows], "cost"),
        Column("rows/s", [_whole(method.number("rows_per_second")) for method in rows], "cost"),
        Column("pareto", ["*" if place.pareto else "" for place in places], "cost"),
    ]


def as_json(among: Sequence[Method]) -> list[dict[str, Any]]:
    """The same in full, as plain JSON types."""
    rows = ranked_methods(among)
    labels, places = comparison.labels(rows), standings(rows)
    return [
        {
            "method": labels[i],
            "problem": places[i].problem,
            "jobs": [job.job for job in method.jobs],
            "done": len(method.done),
            "tasks": {task: _json(method.task(task)) for task in method.tasks},
            "mean": _json(method.mean()),
            "val_mean": _json(method.val_mean()),
            "delta_m_percent": _json(_delta(method, rows)),
            "mean_rank": places[i].mean_rank,
            "pareto": places[i].pareto,
            **{name: _json(method.number(name)) for name in NUMBERS},
        }
        for i, method in enumerate(rows)
    ]


def _unequal_seeds(among: Sequence[Method]) -> str | None:
    """What to say of methods that were not trained with the same seeds; None of those that were."""
    seeds = [[str(job.settings.get("seed")) for job in method.done] for method in among]
    if len({*map(frozenset, seeds)}) == 1:
        return None
    common = [seed for seed in seeds[0] if all(seed in own for own in seeds)]
    told = f"all methods have {listed(common, _MOST_NAMED)}" if common else "none is common to all methods"
    return f"ranks compare means over different seeds ({told})"


def _delta(method: Method, among: Sequence[Method]) -> Estimate | None:
    base = comparison.baseline(method, among)
    return None if base is None else comparison.delta(method, base)


def _score(method: Method, task: str, metric: str) -> Cell:
    """Of a task by a metric; nothing where another metric stands for it."""
    return method.task(task) if method.primary.get(task) == metric else None


def _states(method: Method) -> str:
    counts = Counter(job.status for job in method.jobs)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def _whole(value: Estimate | None) -> Cell:
    return None if value is None else round(value.mean)


def _mean(value: Estimate | None) -> Cell:
    return None if value is None else value.mean


def _json(value: Estimate | None) -> dict[str, Any] | None:
    return None if value is None else value._asdict()
