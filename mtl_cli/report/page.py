"""The page: the answer first, then tables and plots. No network, no script or style from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mtl_cli.report import svg
from mtl_cli.report.gradients import gradient_plots, pair_table
from mtl_cli.report.plots import MOST_DRAWN, Plot, in_order, not_all
from mtl_cli.report.predictions import prediction_plots, without_confusion
from mtl_cli.report.sharing import sharing_left_out, sharing_markdown, sharing_plots
from mtl_cli.report.style import SCRIPT, STYLE
from mtl_cli.run import MetricsLog, RunFolder, flatten
from mtl_cli.sweep import comparison, grouping, method_table, payoff
from mtl_cli.sweep.comparison import FRACTION, Estimate, LearningProblem, Method
from mtl_cli.sweep.leaderboard import answer
from mtl_cli.sweep.records import JobRecord, computed_on, how_jobs_ended
from mtl_cli.sweep.table import Cell, Column, columns, jobs_title, markdown_table, text

Record = Mapping[str, Any]
SCORE = "mean of the primary metrics"
_SHARING = "What the tasks share"


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: Its heading.
        before: HTML above the plots.
        plots: Plots, beside one another.
        after: HTML below them.
        closed: Whether it opens on a click only.
    """

    title: str
    before: str = ""
    plots: Sequence[Plot] = ()
    after: str = ""
    closed: bool = False


@dataclass(frozen=True)
class Report:
    """What there is to show, as one page or plot by plot.

    Args:
        title: Of the page.
        sections: Its parts.
    """

    title: str
    sections: Sequence[Section]

    @property
    def plots(self) -> list[Plot]:
        """All plots, in the order of the page."""
        return [plot for section in self.sections for plot in section.plots]

    def page(self) -> str:
        """The page, as HTML."""
        parts = "".join(map(_section, self.sections))
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head><body><main>"
            f"<h1>{escape(self.title)}</h1>{parts}</main><script>{SCRIPT}</script></body></html>\n"
        )


def run_report(run: RunFolder, config: Mapping[str, Any]) -> Report:
    """One run.

    Args:
        run: Its folder.
        config: Its configuration.
    """
    records = _by_epoch(MetricsLog(run.path / "metrics.jsonl").read())
    finished = (run.path / "summary.json").exists()
    summary = run.read_json("summary.json") if finished else {}
    state = str(run.status["state"])
    order = list(summary.get("tasks", ()))
    sections = [
        Section("Result", _run_result(summary, state)),
        _run_curves(records, summary),
        Section("Weights of the tasks", plots=_weight_curves(records, order)),
        _gradients(run, order),
        _predictions(run, order),
        _sharing(run, order),
        Section("Parameters", _parameters(summary) if summary else ""),
        Section("Configuration", _settings(config), closed=True),
    ]
    return Report(run.path.name, _filled(sections))


def sweep_report(name: str, records: Sequence[JobRecord], logs: Mapping[str, Sequence[Record]]) -> Report:
    """One or several sweeps.

    Args:
        name: The title of the page.
        records: Their jobs.
        logs: The metrics over time of each job, by the job's name.
    """
    among = method_table.ranked_methods(comparison.methods(records))
    told = answer(among)
    failed = [record for record in records if record.error]
    failures = "".join(f"<li><b>{escape(r.job)}</b>: {escape(r.error or '')}</li>" for r in failed)
    jobs = f"{_table(columns(records))}<p>{escape(how_jobs_ended(records))}</p>"
    remarks = _paragraphs(method_table.remarks(among))
    plots = [*_grouping_plots(among), *_delta_plots(among), *_trade_off(among), *_data_curves(among)]
    sections = [
        Section("Answer", f"<pre>{escape(told)}</pre>" if told else ""),
        Section(
            method_table.methods_title(among),
            _table(method_table.method_columns(among)) + remarks if among else "<p>none</p>",
        ),
        Section("Score, cost and data", plots=plots),
        Section("Learning curves", plots=_method_curves(among, logs)),
        Section("What differs", _differences(among)),
        Section("Failures", f"<ul>{failures}</ul>" if failed else ""),
        Section(jobs_title(records), jobs, closed=bool(among)),
    ]
    return Report(name, _filled(sections))


def picture_report(title: str, told: str, table: Sequence[Column], plots: Sequence[Plot]) -> Report:
    """Where something ended, and the paths there.

    Args:
        title: The title of the page.
        told: A sentence or two above the table.
        table: The table.
        plots: The paths.
    """
    return Report(title, [Section("Results", f"<p>{escape(told)}</p>{_table(table)}"), Section("Plots", plots=plots)])


def run_markdown(run: RunFolder) -> str:
    """One run as Markdown: its facts, the metrics of each task, and how the tasks share."""
    if not (run.path / "summary.json").exists():
        return f"# {run.path.name}\n\nThe run is not finished: {run.status['state']}.\n"
    summary = run.read_json("summary.json")
    facts, table = _result(summary)
    result = f"# {run.path.name}\n\n{' · '.join(facts)}\n\n{markdown_table(table)}"
    if not (run.path / "sharing.json").exists():
        return result
    said = run.read_json("sharing.json")
    parts = [result, f"## {_SHARING}\n", sharing_markdown(said, list(summary["tasks"])), sharing_left_out(said)]
    return "\n".join(filter(None, parts))


def _run_result(summary: Mapping[str, Any], state: str) -> str:
    if not summary:
        return f"<p>The run is not finished: {escape(state)}.</p>"
    facts, table = _result(summary)
    first, *others = map(escape, facts)
    return f"<p>{' · '.join([f'<b>{first}</b>', *others])}</p>" + _table(table)


def _result(summary: Mapping[str, Any]) -> tuple[list[str], list[Column]]:
    split = "test" if any(key.startswith("test/") for key in summary["metrics"]) else "val"
    tasks, metrics = list(summary["tasks"]), summary["metrics"]
    names = dict.fromkeys(k.rsplit("/", 1)[1] for k in metrics if k.startswith(f"{split}/") and k.count("/") == 2)
    table = [
        Column("task", tasks),
        Column("measured by", [summary["primary"].get(task, "auxiliary") for task in tasks]),
        *(Column(name, [metrics.get(f"{split}/{task}/{name}") for task in tasks]) for name in names),
    ]
    best, speed = summary.get("best"), summary["rows_per_second"]
    seconds = summary.get("train_seconds", summary["seconds"])  # the leaderboard's; not in runs of older versions
    chosen = f"epoch {best['epoch']}, the best by {summary['monitor']}" if best else "the last epoch"
    facts = [
        f"mean on {split}: {text(metrics.get(f'{split}/mean'))}",
        f"weights of {chosen}",
        f"{summary['rows']['train']:,} training rows, {summary['epochs']:.4g} epochs, {summary['steps']:,} steps",
        f"{seconds:.1f} s of training" + (f", {speed:,.0f} rows/s" if speed else ""),
    ]
    if place := computed_on(summary):
        facts.append(f"computed on {place}; another device or number of threads may change the last digits")
    return facts, table


def _run_curves(records: Sequence[Record], summary: Mapping[str, Any]) -> Section:
    train, val = ([r for r in records if r["split"] == split] for split in ("train", "val"))
    logged = dict.fromkeys(k.split("/")[1] for r in train for k in r if k.endswith("/loss") and k.count("/") == 2)
    tasks = [*summary["tasks"]] if summary else [*logged]  # in the user's order, once that is known
    means = svg.lines([_over(val, "val/mean", "mean")], "epoch", "mean")
    plots = [Plot("learning-curve", f"{SCORE} (val)", means)]
    for task in tasks[:MOST_DRAWN]:
        losses = [_over(train, f"train/{task}/loss", "train"), _over(val, f"val/{task}/loss", "val")]
        plots.append(Plot(f"learning-curve-{task}-loss", f"{task}: loss", svg.lines(losses, "epoch", "loss")))
        metric = summary.get("primary", {}).get(task)
        if metric:
            scores = svg.lines([_over(val, f"val/{task}/{metric}", metric)], "epoch", metric)
            plots.append(Plot(f"learning-curve-{task}", f"{task}: {metric} (val)", scores))
    return Section("Learning curves", _paragraphs(not_all(len(tasks), "tasks", "metrics.jsonl")), plots)


def _weight_curves(records: Sequence[Record], order: Sequence[str]) -> list[Plot]:
    train = [r for r in records if r["split"] == "train"]
    plots = []
    for plot, key, title, label in (
        ("task-weights", "weight", "mean weight that balancing gave", "weight"),
        ("gradient-norms", "gradient_norm", "length of the tasks' gradients, of the shared parameters", "length"),
    ):
        tasks = in_order({name.split("/")[1]: None for r in train for name in r if name.endswith(f"/{key}")}, order)
        series = [_over(train, f"train/{task}/{key}", task) for task in tasks[:MOST_DRAWN]]
        if any(len({y for _, y in one.points}) > 1 for one in series):  # constant weights are in the configuration
            told = not_all(len(tasks), "tasks", "metrics.jsonl")
            plots.append(Plot(plot, title, svg.lines(series, "epoch", label), told))
    return plots


def _gradients(run: RunFolder, order: Sequence[str]) -> Section:
    """How the gradients of the tasks related, if the run looked at them."""
    looks = MetricsLog(run.path / "diagnostics.jsonl").read()
    title = "Gradients of the tasks"
    if not looks:
        return Section(title)
    told = f"<p>{len(looks)} looks at the gradients of the plain losses on the shared parameters.</p>"
    return Section(title, told, gradient_plots(looks, order), _table(pair_table(looks, order)))


def _predictions(run: RunFolder, order: Sequence[str]) -> Section:
    if not (run.path / "curves.json").exists():
        return Section("Predictions")
    curves = run.read_json("curves.json")
    told = [*not_all(len(curves["tasks"]), "tasks", "curves.json"), *without_confusion(curves, order)]
    return Section("Predictions", _paragraphs(told), prediction_plots(curves, order))


def _sharing(run: RunFolder, order: Sequence[str]) -> Section:
    """What the architecture says of how the tasks share, if it has anything to say."""
    if not (run.path / "sharing.json").exists():
        return Section(_SHARING)
    said = run.read_json("sharing.json")
    left_out = sharing_left_out(said)
    return Section(_SHARING, f"<p>{escape(left_out)}</p>" if left_out else "", sharing_plots(said, order))


def _parameters(summary: Mapping[str, Any]) -> str:
    own = summary["parameters"]["tasks"]
    names = ["shared", *own, "total"]
    counts = [summary["parameters"]["shared"], *own.values(), summary["parameters"]["total"]]
    flops = summary.get("flops_per_row")  # not in runs of older versions
    told = "" if flops is None else f"<p>{flops:,} FLOPs per row in matrix products and convolutions, forward.</p>"
    return _table([Column("parameters", names), Column("number", counts)]) + told


def _delta_plots(among: Sequence[Method]) -> list[Plot]:
    """Each data set and set of tasks has bars of its own: a change of one is no change of another."""
    plots = []
    for problem in comparison.learning_problems(among):
        found = payoff.verdicts(problem.methods)
        named = dict(zip(map(id, problem.methods), comparison.labels(problem.methods), strict=True))
        bars = [svg.Bar(_name(named[id(v.method)]), v.delta.mean, v.delta.error) for v in found if v.delta]
        title = f"{_of(problem)}delta-m against the tasks apart, above 0 is better (± standard error)"
        if bars:
            plots.append(Plot(f"{_of(problem)}delta-m", title, svg.bars(bars, "delta-m, %")))
        if found:  # of the method that the answer's first line is about
            verdict = payoff.chosen(payoff.of_most_rows(found), problem.methods)
            elsewhere = payoff.other_base(verdict, found)
            against = "" if elsewhere is None else f" against {_name(named[id(elsewhere)])}"
            tasks = [svg.Bar(task, change.mean, change.error) for task, change in verdict.tasks.items()]
            title = f"{_of(problem)}change per task (± standard error): {_name(named[id(verdict.method)])}{against}"
            drawn = svg.bars(tasks[:MOST_DRAWN], "change, %")
            told = not_all(len(tasks), "tasks", "the answer")
            plots.append(Plot(f"{_of(problem)}delta-m-per-task", title, drawn, told))
    return plots


def _of(problem: LearningProblem) -> str:
    return f"{problem.name}: " if problem.name else ""


def _grouping_plots(among: Sequence[Method]) -> list[Plot]:
    plots = []
    for found in grouping.studies(among):
        groupings = found.groupings() if len(found.tasks) <= grouping.MOST_TASKS else []
        bars = [
            svg.Bar(str(one), one.change.mean, one.change.error)
            for one in groupings
            if one.change is not None and len(one.groups) < len(one.tasks)
        ]
        if bars:
            of = f"{found.name}: " if found.name else ""
            what = "the best grouping for each number of models, mean change against each task alone"
            plots.append(Plot(f"{of}best-groupings", f"{of}{what} (± standard error)", svg.bars(bars, "change, %")))
    return plots


def _trade_off(among: Sequence[Method]) -> list[Plot]:
    plots = []
    for problem in comparison.learning_problems(among):
        names = comparison.labels(problem.methods)
        for cost in ("parameters", "seconds"):
            points = {}
            for i, method in enumerate(problem.methods):
                paid, score = method.number(cost), method.mean()
                if paid is not None and score is not None:
                    points[i] = paid.mean, -score.mean
            best = comparison.front(points)
            named = [svg.Point(_name(names[i]), x, -y, strong=i in best) for i, (x, y) in points.items()]
            if len(named) > 1:
                title = f"{_of(problem)}score against {cost}"
                told = ["In colour: no other has a score as good at the same cost or less."]
                plots.append(Plot(title, title, svg.named_points(named, cost, SCORE), told))
    return plots


def _data_curves(among: Sequence[Method]) -> list[Plot]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for method, names in zip(among, comparison.labels(among), strict=True):
        rows, score = method.number("train_rows"), method.mean()
        if rows is not None and score is not None and FRACTION in names:
            name = _name({key: value for key, value in names.items() if key != FRACTION})
            curves.setdefault(name, []).append((rows.mean, score.mean))
    if not curves:
        return []
    series = [svg.Series(name, sorted(points)) for name, points in curves.items()]
    title, told = "score against training rows", not_all(len(series), "methods", "the table")
    return [Plot(title, title, svg.lines(series[:MOST_DRAWN], "training rows", SCORE, log_x=True), told)]


def _method_curves(among: Sequence[Method], logs: Mapping[str, Sequence[Record]]) -> list[Plot]:
    series, is_cut = [], False
    for method, names in zip(among, comparison.labels(among), strict=True):
        read = [[r for r in _by_epoch(logs.get(job.job, [])) if r["split"] == "val"] for job in method.done]
        curves = [{record["epoch"]: record.get("val/mean") for record in records} for records in read if records]
        # Where a seed has ended, the mean over the others would step up or down though none of them does.
        common = sorted(set.intersection(*map(set, curves))) if curves else []
        is_cut |= any(len(curve) > len(common) for curve in curves)
        means = [comparison.estimate([curve[epoch] for curve in curves]) for epoch in common]
        points = [(epoch, None if mean is None else mean.mean) for epoch, mean in zip(common, means, strict=True)]
        if points:
            series.append(svg.Series(_name(names), points))
    title = f"{SCORE} (val), mean over seeds"
    told = ["Of the epochs that all seeds have: some ended before others."] if is_cut else []
    told += not_all(len(series), "methods", "metrics.jsonl of each job")
    return [Plot("learning-curves", title, svg.lines(series[:MOST_DRAWN], "epoch", "mean"), told)] if series else []


def _differences(among: Sequence[Method]) -> str:
    keys = dict.fromkeys(key for method in among for key in method.settings)
    differing = [key for key in keys if len({repr(method.settings.get(key, "")) for method in among}) > 1]
    if len(among) < 2 or not differing:
        return ""
    table = [Column("key", list(differing))]
    for method, label in zip(among[:MOST_DRAWN], comparison.labels(among), strict=False):
        own = method.settings
        table.append(
            Column(_name(label), [comparison.setting_text(own[key]) if key in own else "" for key in differing])
        )
    return _paragraphs(not_all(len(among), "methods", "config.yaml of each job")) + _table(table)


def _settings(config: Mapping[str, Any]) -> str:
    flat = flatten(dict(config))
    return _table([Column("key", list(flat)), Column("value", [*map(comparison.setting_text, flat.values())])])


def _by_epoch(records: Sequence[Record]) -> list[Record]:
    """The last record of each epoch: one that a limit had cut short has another, when training went on."""
    return list({(record["split"], record["epoch"]): record for record in records}.values())


def _over(records: Sequence[Record], key: str, name: str) -> svg.Series:
    return svg.Series(name, [(r["epoch"], r.get(key)) for r in records])


def _name(label: Mapping[str, str]) -> str:
    components = ("task", "sharing", "balancing", "encoder")
    label = {key: value for key, value in label.items() if value}  # what other methods alone were given is no name
    first = [label[key] for key in components if key in label]
    rest = [f"{key.rpartition('.')[2]}={value}" for key, value in label.items() if key not in components]
    return ", ".join([*first, *rest]) or "all"


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _table(table: Sequence[Column]) -> str:
    kinds = ["n" if column.is_numeric else "t" for column in table]
    head = "".join(f'<th class="{kind}">{escape(c.name)}</th>' for kind, c in zip(kinds, table, strict=True))
    rows = []
    for row in zip(*(column.cells for column in table), strict=True):
        cells = (_table_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _table_cell(cell: Cell, kind: str) -> str:
    full = escape("" if cell is None else str(cell.mean if isinstance(cell, Estimate) else cell))
    return f'<td class="{kind}" data-sort="{full}">{escape(text(cell))}</td>'


def _filled(sections: Iterable[Section]) -> list[Section]:
    """Those in which there is something."""
    return [section for section in sections if section.before or section.plots]


def _section(section: Section) -> str:
    plots = "".join(plot.figure() for plot in section.plots)
    body = section.before + (f'<div class="plots">{plots}</div>' if plots else "") + section.after
    if section.closed:
        return f"<details><summary><h2>{escape(section.title)}</h2></summary>{body}</details>"
    return f"<section><h2>{escape(section.title)}</h2>{body}</section>"
