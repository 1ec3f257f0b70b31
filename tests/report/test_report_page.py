"""The page stands alone, says what the numbers say, and shows hostile names as text."""

import json
import math
import re
import sys
from functools import partial
from html import escape
from html.parser import HTMLParser
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from worlds import HOSTILE, write_run

from mtl_cli.commands.entry import run
from mtl_cli.commands.report import report
from mtl_cli.errors import ConfigError
from mtl_cli.model.findings import Finding, as_json, parts_of
from mtl_cli.report import Plot, plot_files, svg
from mtl_cli.report.page import sweep_report
from mtl_cli.report.png import painter
from mtl_cli.run import MetricsLog, RunFolder
from mtl_cli.sweep import JobRecord, collect


def _report(arguments):
    assert run(report, arguments) == 0


class _Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _page(path):
    text = path.read_text(encoding="utf-8")
    checker = _Balanced()
    checker.feed(text)
    assert checker.open == []
    assert not re.search(r"(https?:)?//(?!www\.w3)", text), "nothing from elsewhere"
    assert HOSTILE not in text
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)
    return text


def test_page_of_a_run(tmp_path, capsys):
    write_run(tmp_path / "run", task=HOSTILE.replace("/", "|"))
    _report([str(tmp_path / "run")])
    assert capsys.readouterr().out == f"{tmp_path / 'run/report.html'}\n"
    text = _page(tmp_path / "run" / "report.html")
    assert "<b>mean on test: 0.9000</b>" in text
    assert "100 training rows, 3 epochs, 9 steps" in text
    assert "computed on cpu with 2 CPU threads; another device or number of threads may change the last digits" in text
    assert "mean weight that balancing gave" in text
    assert text.count("<polyline") == 1 + 3 + 1  # mean; losses of train and val and the accuracy; the weight


def test_page_of_a_run_that_is_not_finished(tmp_path):
    write_run(tmp_path / "run", state="interrupted")
    _report([str(tmp_path / "run"), "--out", str(tmp_path / "page.html")])
    assert "The run is not finished: interrupted." in _page(tmp_path / "page.html")


def test_gradients_of_the_tasks(tmp_path):
    write_run(tmp_path / "run")
    log = MetricsLog(tmp_path / "run" / "diagnostics.jsonl")
    for step, cosine in ((0, 0.5), (10, -0.25), (20, None)):
        log.append(
            {"step": step, "norm/a": 1.0, f"norm/{HOSTILE[1:-9]}": 2.0, f"cosine/a/{HOSTILE[1:-9]}": cosine,
             f"similarity/a/{HOSTILE[1:-9]}": 0.8, f"overlap/a/{HOSTILE[1:-9]}": 0.1, "conflicting": 0.0,
             "condition": 2.0}
        )  # fmt: skip
    _report([str(tmp_path / "run")])
    text = _page(tmp_path / "run" / "report.html")
    assert "3 looks at the gradients" in text
    assert ">0.12</text>" in text, "the mean of the known cosines, in the heat map"
    assert 'data-sort="0.125"' in text
    assert 'data-sort="0.5"' in text, "conflict in one of two looks"
    assert "few rows in common" in text


def test_a_calibration_shows_how_many_rows_each_bin_has():
    drawn = svg.lines([svg.Series("model", [(0.1, 0.0), (0.9, 1.0)], [1, 100])], "chance", "share")
    radii = [float(radius) for radius in re.findall(r' r="(.*?)"', drawn.body)]
    assert radii == [2.1, 7.5]
    assert "(100 rows)" in drawn.body


def test_a_matrix_leaves_unknown_cells_empty():
    drawing = svg.matrix(["a", "b"], ["a", "b"], [[1.0, None], [float("nan"), -0.5]], full=1.0)
    assert drawing.body.count("<rect") == 2
    assert 'class="cell down" fill-opacity="0.460"' in drawing.body
    assert '<text class="on"' in drawing.body, "the text on the strongest colour is light, or dark in the dark"


def test_epochs_are_whole_numbers():
    drawing = svg.lines([svg.Series("a", [(1, 0.5), (2, 0.6), (3, 0.7)])], "epoch", "mean")
    ticks = re.findall(r'<text class="tick"[^>]*middle">([^<]*)<', drawing.body)
    assert ticks == ["1", "2", "3"]


@pytest.fixture
def sweep(tmp_path):
    """Three seeds of two methods, and a failed job."""
    for seed in range(3):
        write_run(tmp_path / f"sweep/hard-{seed}", "hard", seed, 0.9 + seed / 1000)
        write_run(tmp_path / f"sweep/separate-{seed}", "separate", seed, 0.8 + seed / 1000)
    with RunFolder.claim(tmp_path / "sweep/broken") as folder:
        folder.set_status("failed", error=HOSTILE, exit_code=1)
    return tmp_path / "sweep"


def test_page_of_a_sweep_has_the_answer_first(sweep):
    _report([str(sweep)])
    text = _page(sweep / "report.html")
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Answer",
        "Methods, ranked by mean test score over the seeds",
        "Score, cost and data",
        "Learning curves",
        "What differs",
        "Failures",
        "Jobs, ranked by validation score (mean)",
    ]
    assert "Does sharing pay? Yes: hard scores better (mean change +12.48 %)." in text
    assert '<rect class="bar up"' in text
    assert "7 jobs: 6 done, 1 failed" in text


def test_numbers_with_a_spread_are_sorted_and_aligned_as_numbers(sweep):
    _report([str(sweep)])
    text = _page(sweep / "report.html")
    assert re.search(r'<td class="n" data-sort="0\.90\d+">0\.90\d+ ± 0\.001\d</td>', text)
    assert re.search(r'<td class="n" data-sort="12\.4\d+">\+12\.4\d ± \d\.\d\d</td>', text)


def test_what_differs_is_told_by_the_names_of_the_methods_and_as_in_yaml():
    settings = {"hard": {"trainer.compile": True}, "mmoe": {"trainer.compile": None, "sharing.experts": [1, None]}}
    jobs = [JobRecord(name, "done", settings={"sharing.name": name, **own}) for name, own in settings.items()]
    (told,) = (section.before for section in sweep_report("s", jobs, {}).sections if section.title == "What differs")
    assert re.findall(r"<th class[^>]*>(.*?)</th>", told) == ["key", "hard, compile=true", "mmoe, compile=null"]
    rows = [re.findall(r"<td class[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", told)[1:]]
    assert rows == [
        ["sharing.name", "hard", "mmoe"], ["trainer.compile", "true", "null"], ["sharing.experts", "", "[1, null]"],
    ]  # fmt: skip


def test_a_damaged_file_of_metrics_costs_the_page_one_curve(sweep, capsys):
    for job, line in (("hard-0", "{\n"), ("separate-0", '{"epoch": 1}\n')):
        with (sweep / job / "metrics.jsonl").open("a") as file:
            file.write(line)
    _report([str(sweep)])
    assert "Does sharing pay? Yes" in _page(sweep / "report.html")
    damaged, without = capsys.readouterr().err.splitlines()
    assert damaged.startswith(f"note: {sweep}/hard-0/metrics.jsonl, line 7: is damaged: no JSON object, got '{{'.")
    assert damaged.endswith(" The job is left out of the curves.")
    told = "1 of 7 records name no split and epoch. They are left out of the curves."
    assert without == f"note: {sweep}/separate-0/metrics.jsonl: {told}"


CUT = "Of the epochs that all seeds have: some ended before others."


@pytest.mark.parametrize(("longer", "told"), [(0, []), (3, [CUT])], ids=["equal ends", "early stopping"])
def test_a_mean_over_seeds_is_one_of_all_of_them(sweep, monkeypatch, longer, told):
    drawn = {}
    monkeypatch.setattr(svg, "lines", lambda series, *_: drawn.update({s.name: s.points for s in series}))
    for epoch in range(4, 4 + longer):
        MetricsLog(sweep / "hard-2/metrics.jsonl").append({"split": "val", "epoch": epoch, "val/mean": 0.1})
    logs = {f"hard-{seed}": MetricsLog(sweep / f"hard-{seed}/metrics.jsonl").read() for seed in range(3)}
    (plot,) = [plot for plot in sweep_report("s", collect(sweep), logs).plots if plot.name == "learning-curves"]
    assert drawn["hard"] == [(epoch, pytest.approx(0.901)) for epoch in (1, 2, 3)]
    assert plot.told == told


def test_no_more_curves_are_drawn_than_can_be_told_apart():
    jobs = [
        JobRecord(
            f"job {i}", "done", metrics={"test/a/auroc": 0.5, "test/mean": 0.9 - i / 100}, primary={"a": "auroc"},
            train_rows=10, settings={"optimizer.lr": i / 2, "data.split.train_fraction": f, "seed": 0},
        )
        for i in range(40) for f in (0.5, 1.0)
    ]  # fmt: skip
    logs = {job.job: [{"split": "val", "epoch": epoch, "val/mean": 0.5} for epoch in (1, 2)] for job in jobs}
    plots = {plot.name: plot for plot in sweep_report("s", jobs, logs).plots}
    for name, count in (("learning-curves", 80), ("score against training rows", 40)):
        kinds = [kind for _, kind in plots[name].drawing.legend]
        assert len({*kinds}) == len(kinds) == 24
        assert plots[name].told[0].startswith(f"The first 24 of {count} methods")


def test_plots_of_different_tasks_are_not_one_plot(sweep, capsys):
    for sharing, accuracy in (("hard", 0.3), ("separate", 0.4)):
        write_run(sweep / f"other-{sharing}", sharing, 0, accuracy, task="park")
        config = {"sharing": {"name": sharing}, "seed": 0, "data": {"path": "park.csv"}}
        (sweep / f"other-{sharing}/config.yaml").write_text(json.dumps(config))
    _report([str(sweep), "--format", "svg"])
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert sum("delta-m" in name and "per-task" not in name for name in names) == 2
    assert sum("score-against-parameters" in name for name in names) == 2


def test_a_sweep_without_a_finished_job_has_no_plots(tmp_path, capsys):
    with RunFolder.claim(tmp_path / "sweep/a") as folder:
        folder.write_config("{seed: 0}", [])
        folder.set_status("failed", exit_code=1, error="boom")
    assert run(report, [str(tmp_path / "sweep"), "--format", "svg"]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'sweep'}: has nothing to draw: no job has finished.\n"
    assert not (tmp_path / "sweep/plots").exists()


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("md", "```\nDoes sharing pay?"),
        ("text", "Methods, ranked by mean test score over the seeds:\nrank  sharing"),
        ("json", "{"),
    ],
)
def test_other_formats_are_those_of_the_leaderboard(sweep, capsys, form, start):
    _report([str(sweep), "--format", form])
    assert capsys.readouterr().out.startswith(start)


@pytest.mark.parametrize(("form", "out", "file"), [("md", "a.md", "a.md"), ("svg", "b", "b/learning-curves.svg")])
def test_what_is_written_into_the_home_folder(sweep, tmp_path, monkeypatch, form, out, file):
    monkeypatch.setenv("HOME", str(tmp_path))  # a shell leaves the ~ of --out=~/x as it is
    _report([str(sweep), "--format", form, f"--out=~/{out}"])
    assert (tmp_path / file).is_file()


def test_several_sweeps_are_one_table_whatever_their_order(sweep, tmp_path, capsys):
    write_run(tmp_path / "other/mmoe-0", "mmoe", 0, 0.95)
    tables = []
    for folders in ((sweep, tmp_path / "other"), (tmp_path / "other", sweep)):
        _report([*map(str, folders), "--format", "text"])
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert "mmoe" in tables[0]
    _report([str(sweep), str(tmp_path / "other"), "--out", str(tmp_path / "both.html")])
    assert "other/mmoe-0" in _page(tmp_path / "both.html")


def test_sweeps_of_one_name_are_told_apart_by_their_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, sharing in (("mon", "hard"), ("tue", "mmoe")):
        write_run(tmp_path / folder / "sweep/job", sharing)
    _report(["mon/sweep", "tue/sweep", "--format", "json"])
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert sorted(job["job"] for job in jobs) == ["mon/sweep/job", "tue/sweep/job"]


NO_FOLDER = "none: is not a sweep's folder: there is no such folder.\n"
NO_RUN = "empty: holds no run. Give the folder of a run or of a sweep.\n"
NO_PLACE = "--out: there is no folder 'absent'. Make it first.\n"
A_RUN = "run: is a run; several folders, and the formats json and text, are for sweeps.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], NO_FOLDER),
        (["empty"], NO_RUN),
        (["run", "--format", "json"], A_RUN),
        (["run", "--out", "absent/page.html"], NO_PLACE),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "run")
    assert run(report, arguments) == 2
    assert capsys.readouterr().err == message


def test_a_line_is_drawn_between_its_bounds_and_breaks_at_nothing():
    drawn = svg.lines([svg.Series("a", [(1, 0.0), (2, 0.5), (3, None), (4, 0.5), (5, 1.0)])], "epoch", "score")
    before, after = re.findall(r'points="(.*?)"', drawn.body)
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in (before.split(" ")[0], after.split(" ")[1]))
    assert x1 < x2 <= svg.WIDTH
    assert 0 <= y2 < y1 <= svg.HEIGHT  # higher is further up
    assert drawn.body.count("<circle") == 4
    assert svg.lines([svg.Series("a", [(1, None)])], "x", "y") == svg.Drawing()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.9990, 0.9992, ["0.999", "0.99905", "0.9991", "0.99915", "0.9992"]),
        (1_000_000, 1_000_400, ["1M", "1.0001M", "1.0002M", "1.0003M", "1.0004M"]),
        (12_345, 12_346, ["12,345", "12,345.2", "12,345.4", "12,345.6", "12,345.8", "12,346"]),
        (0, 4e-13, ["0", "1e-13", "2e-13", "3e-13", "4e-13"]),
        (0, 2000, ["0", "500", "1,000", "1,500", "2,000"]),
    ],
)
def test_no_two_ticks_read_the_same(low, high, ticks):
    drawn = svg.lines([svg.Series("a", [(1, low), (2, high)])], "epoch", "score")
    assert re.findall(r'<text class="tick"[^>]*text-anchor="end">([^<]*)<', drawn.body) == ticks


def test_more_series_than_colours_are_told_apart_by_the_style_of_line():
    drawn = svg.lines([svg.Series(str(i), [(0, i), (1, i)]) for i in range(25)], "x", "y")
    assert len({*re.findall(r'class="line (.*?)"', drawn.body)}) == len({kind for _, kind in drawn.legend}) == 25
    assert Plot("curves", "curves", drawn).file().count('class="line c0 dashed"') == 2  # in the legend too


def test_points_have_their_names_beside_them():
    points = [svg.Point(f"way_{i}", 100_000.0 * (i % 4), 0.8 + 0.001 * i, strong=i < 3) for i in range(12)]
    drawn = svg.named_points([*points, svg.Point("diverged", 1.0, math.nan)], "parameters", "score")
    found = re.findall(r'<text class="(name|tick)" x="([^"]*)" y="([^"]*)" text-anchor="(\w+)">(way_\d+)<', drawn.body)
    assert [name for *_, name in found] == [point.name for point in points]
    assert [kind for kind, *_ in found] == ["name"] * 3 + ["tick"] * 9
    assert drawn.body.count("<circle") == 12
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    boxes = [(float(x) - 30 * shift[anchor], float(y)) for _, x, y, anchor, _ in found]
    assert all(abs(a[0] - b[0]) > 30 or abs(a[1] - b[1]) > 11 for a, b in combinations(boxes, 2))
    assert svg.named_points([], "x", "y") == svg.Drawing()


def test_bars_start_at_zero():
    drawn = svg.bars([svg.Bar("gain", 2.0, 0.5), svg.Bar("loss", -1.0)], "change")
    (_, zero) = re.findall(r'<line class="axis" x1="(.*?)" x2="(.*?)"', drawn.body)[0]
    gain, loss = re.findall(r'<rect class="bar (\w+)" x="(.*?)" y=".*?" width="(.*?)"', drawn.body)
    assert (gain[0], gain[1]) == ("up", zero)
    assert loss[0] == "down"
    assert float(loss[1]) + float(loss[2]) == pytest.approx(float(zero), abs=0.11)


def test_predictions_are_drawn(tmp_path):
    write_run(tmp_path / "run")
    confusion = {
        "classes": [HOSTILE, "b"],
        "confusion": [[8, 2], [0, 5]],
        "calibration": [[0.2, 0.1, 9], [0.9, 1.0, 6]],
    }
    curves = {
        "digit": {**confusion, "calibration_error": 0.08},
        "ink": {"points": [[1.0, 1.5], [2.0, 1.9], [4.0, 3.0]], "rows": 9},
    }
    folder = RunFolder(tmp_path / "run")
    folder.write_json("curves.json", {"split": "test", "tasks": curves})
    _report([str(tmp_path / "run")])
    text = _page(tmp_path / "run" / "report.html")
    assert "digit: calibration (test), mean distance 0.080" in text
    assert "ink: predicted against true (test, 3 of 9 rows)" in text
    assert text.count('class="dot c0 many"') == 3
    shades = [float(shade) for shade in re.findall(r'class="cell up" fill-opacity="([\d.]+)"', text)]
    assert shades[0] > shades[1] > shades[2] == pytest.approx(0.06)
    assert shades[3] == pytest.approx(0.86)  # all rows of that class


def _finding(name, rows, columns, values, notes=()):
    return Finding(name, f"title of {name}", f"meaning of {name}", rows, columns, values, notes)


def test_a_confusion_that_is_not_drawn_is_told(tmp_path):
    write_run(tmp_path / "run")
    many = {"classes": [*map(str, range(40))], "calibration": [[0.2, 0.1, 9]], "calibration_error": 0.1}
    number = {"points": [[1.0, 1.5]], "rows": 1}
    RunFolder(tmp_path / "run").write_json("curves.json", {"split": "test", "tasks": {"digit": many, "ink": number}})
    _report([str(tmp_path / "run")])
    told = "<p>No confusion is drawn of digit (40 classes): so many could not be read.</p>"
    assert told in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_numbers_below_a_logarithmic_axis_do_not_lie_on_one_another():
    rows = (126, 300, 1000, 1131, 1258)
    drawn = svg.lines([svg.Series("hard", [(row, 0.5) for row in rows])], "rows", "mean", log_x=True)
    ticks = re.findall(r'x="([\d.]+)" y="236.0" text-anchor="middle">([\d,]+)<', drawn.body)
    assert {tick for _, tick in ticks} == {"126", "300", "1,258"}
    assert min(b - a for a, b in pairwise(sorted(float(x) for x, _ in ticks))) > 35


def test_numbers_beside_an_axis_do_not_reach_its_name():
    drawn = svg.lines([svg.Series("r2", [(1, -7.5e-6), (2, 5e-6)])], "epoch", "r2")
    ticks = re.findall(r'x="([\d.]+)" y="[\d.]+" text-anchor="end">(-[^<]+)<', drawn.body)
    assert min(float(x) - 6 * len(tick) for x, tick in ticks) > 12  # where the name stands


def test_findings_are_shown_in_the_order_of_the_user_with_what_they_mean(tmp_path, capsys):
    write_run(tmp_path / "run", tasks=["digit", HOSTILE])
    parts = parts_of([HOSTILE, "digit"], 2)
    findings = [
        _finding("use", [HOSTILE, "digit"], ["0", "1"], [[0.25, 0.75], [0.9, None]], ["look again"]),
        _finding("mixing", parts, parts, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]),
    ]
    RunFolder(tmp_path / "run").write_json("sharing.json", as_json(findings))
    _report([str(tmp_path / "run")])
    text = _page(tmp_path / "run" / "report.html")
    use, mixing = re.findall(r"<figcaption>title of \w+</figcaption>.*?</figure>", text, re.DOTALL)
    assert '<p class="told">meaning of use</p><p class="told">look again</p>' in use
    first, second = escape(HOSTILE), "digit"
    assert re.findall("<title>(.*?)</title>", use) == [f"{second}, 0: 0.9", f"{first}, 0: 0.25", f"{first}, 1: 0.75"]
    numbers = re.findall(r"<title>.*?: (\d+)</title>", mixing)
    assert numbers == list(map(str, [11, 12, 9, 10, 15, 16, 13, 14, 3, 4, 1, 2, 7, 8, 5, 6]))
    assert f"<title>{first} 0, {second} 1: 4</title>" in mixing
    capsys.readouterr()
    _report([str(tmp_path / "run"), "--format", "md"])
    told = capsys.readouterr().out.partition("## What the tasks share\n\n")[2]
    assert told.startswith("### title of use\n\nmeaning of use look again\n\n|  | 0 | 1 |\n")
    assert "| digit | 0.9000 |  |\n" in told
    _report([str(tmp_path / "run"), "--format", "svg"])
    file = (tmp_path / "run/plots/use.svg").read_text(encoding="utf-8")
    assert [line.text for line in ElementTree.fromstring(file) if line.tag.endswith("text")] == [
        "title of use", "meaning of use", "look again",
    ]  # fmt: skip


def test_change_per_task_is_of_the_method_that_the_answer_is_about():
    def job(sharing, seed, fraction, val, test):
        settings = {"sharing.name": sharing, "seed": seed, "data.split.train_fraction": fraction}
        metrics = {"test/a/auroc": test, "test/mean": test, "val/mean": val}
        more = {"primary": {"a": "auroc"}, "train_rows": int(1000 * fraction), "data_fingerprint": "x"}
        return JobRecord(f"{sharing}-{seed}-{fraction}", "done", metrics=metrics, settings=settings, **more)

    scores = {"hard": (0.7, 0.6), "mmoe": (0.6, 0.8), "separate": (0.5, 0.5)}  # on validation rows and test rows
    jobs = [job(name, seed, 1.0, *both) for name, both in scores.items() for seed in (0, 1)]
    jobs += [job(name, 0, 0.1, 0.4, test) for name, test in (("hard", 0.9), ("separate", 0.1))]
    plots = {plot.name: plot for plot in sweep_report("sweep", jobs, {}).plots}
    assert plots["delta-m-per-task"].title == "change per task (± standard error): hard, train_fraction=1.0"


def test_what_is_not_drawn_is_told(tmp_path):
    names = [f"t{number}" for number in range(70)]
    write_run(tmp_path / "run", tasks=names, task="t0")
    folder = RunFolder(tmp_path / "run")
    log = MetricsLog(folder.path / "metrics.jsonl")
    for weight in (1.0, 2.0):
        log.append({"split": "train", "epoch": 3 + weight, **{f"train/{name}/weight": weight for name in names}})
    looks = MetricsLog(folder.path / "diagnostics.jsonl")
    looks.append({"step": 0, **{f"norm/{name}": 1.0 for name in names}})
    points = {"points": [[0.0, 1.0], [1.0, 0.0]], "rows": 2}
    folder.write_json("curves.json", {"split": "test", "tasks": dict.fromkeys(names, points)})
    _report([str(folder.path)])
    text = _page(folder.path / "report.html")
    assert text.count("The first 24 of 70 tasks; metrics.jsonl has all.") == 2  # curves and weights
    assert text.count("The first 24 of 70 tasks; diagnostics.jsonl has all.") == 2  # cosines and lengths
    assert text.count("The first 24 of 2415 pairs; diagnostics.jsonl has all.") == 1
    assert text.count("The first 24 of 70 tasks; curves.json has all.") == 1


def test_a_run_with_very_many_tasks_and_matrices_stays_a_page(tmp_path, capsys):
    names = [f"t{number}" for number in range(70)]
    write_run(tmp_path / "run", tasks=names)
    findings = [_finding(f"f{number}", names, ["0"], [[0.5]] * 70) for number in range(30)]
    RunFolder(tmp_path / "run").write_json("sharing.json", as_json(findings))
    _report([str(tmp_path / "run")])
    text = _page(tmp_path / "run" / "report.html")
    assert text.count('<rect class="cell up"') + text.count('class="cell up"') == 24 * 64
    assert "The first 64 of 70 rows; sharing.json has all." in text
    assert "sharing.json has 6 more." in text
    _report([str(tmp_path / "run"), "--format", "md"])
    assert capsys.readouterr().out.endswith("sharing.json has 6 more.\n")


def test_what_another_version_has_said_of_sharing_is_not_guessed_at(tmp_path, capsys):
    write_run(tmp_path / "run")
    gates = {"weights": [[0.25, 0.75], [0.9, 0.1]], "entropy": [0.5, 0.3], "rows": 9}
    RunFolder(tmp_path / "run").write_json("sharing.json", {"tasks": ["ink", "digit"], "gates": gates})
    told = "sharing.json has the form of another version of mtl-train; its numbers are not shown."
    _report([str(tmp_path / "run")])
    assert told in _page(tmp_path / "run" / "report.html")
    capsys.readouterr()
    _report([str(tmp_path / "run"), "--format", "md"])
    assert told in capsys.readouterr().out


def test_a_matrix_has_a_cell_for_each_number_and_another_colour_below_zero():
    drawn = svg.matrix(["a", "b"], ["x", "y", "z"], [[1, -2, 0], [0.5, 0.25, 2]])
    ElementTree.fromstring(f"<svg>{drawn.body}</svg>")
    assert drawn.body.count("<rect") == 6
    assert drawn.body.count("cell down") == 1
    assert "<title>a, y: -2</title>" in drawn.body
    assert svg.matrix([], [], []) == svg.Drawing()
    assert ">-0.00<" not in svg.matrix(["a"], ["x"], [[-0.004]]).body


def test_a_matrix_of_small_numbers_has_the_digits_that_tell_them_apart():
    drawn = svg.matrix(["a"], ["x", "y"], [[0.0123, 0.004]])
    assert re.findall(r">([\d.]+)</text>", drawn.body) == ["0.012", "0.004"]
    assert ">0.0001</text>" in svg.matrix(["a"], ["x"], [[0.00007]]).body


def test_names_of_a_large_matrix_do_not_lie_on_one_another():
    names = [f"task {number}" for number in range(60)]
    drawn = svg.matrix(names, names, [[1.0] * 60] * 60)
    assert drawn.body.count("<rect") == 3600
    downs = [float(y) for y in re.findall(r'<text class="name" x="102.0" y="(.*?)"', drawn.body)]
    assert len(downs) == 20
    assert min(b - a for a, b in pairwise(downs)) > 11


@pytest.mark.parametrize(
    "names",
    [
        [f"blood pressure after exercise, clinic {i} of 24" for i in range(24)],
        ["FULL_CAPITALS_WITHOUT_A_SPACE_W" + "MW"[i] for i in range(2)],
        ["総コレステロール値" * 3 + str(i) for i in range(9)],
        ["x" * 100_000, "short"],
    ],
)
def test_long_names_are_cut_within_the_plot_and_stay_different(names):
    drawn = [
        svg.bars([svg.Bar(name, 1.0) for name in names], "x"),
        svg.matrix(names, names, [[1.0] * len(names)] * len(names)),
    ]
    for one, at in zip(drawn, ("167.0", "102.0"), strict=True):
        shown = re.findall(rf'<text class="name" x="{at}" y=".*?" text-anchor="end">(.*?)</text>', one.body)
        assert len({*shown}) == len(names)
        letters = [sum(2 if ord(letter) > 0x3000 else 1 for letter in name) for name in shown]
        assert max(letters) * 5.9 < float(at)


def test_a_long_label_of_an_axis_stays_in_the_picture():
    drawn = svg.lines([svg.Series("model", [(0, 0), (1, 1)])], f"predicted chance of {'a class ' * 20}", "share")
    (label,) = re.findall(r'<text class="label" .*?>(predicted chance of .*?)</text>', drawn.body)
    assert len(label) * 6 < svg.WIDTH


def test_every_plot_is_a_file_of_its_own(sweep, capsys):
    _report([str(sweep), "--format", "svg"])
    named = ["delta-m", "delta-m-per-task", "learning-curves", "score-against-parameters", "score-against-seconds"]
    files = [sweep / "plots" / f"{name}.svg" for name in named]
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(map(str, files))
    assert set((sweep / "plots").iterdir()) == set(files)
    _report([str(sweep)])
    assert len(files) == _page(sweep / "report.html").count("<svg")
    for file in files:
        text = file.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert "var(" not in text
    curves = (sweep / "plots/learning-curves.svg").read_text(encoding="utf-8")
    assert curves.count('<rect class="swatch') == 2  # the legend is in the file


def test_plots_of_a_run_have_names_that_stay_and_leave_other_files_alone(tmp_path, capsys):
    write_run(tmp_path / "run", task="income (EUR)\x0b")
    out = tmp_path / "figures"
    _report([str(tmp_path / "run"), "--format", "svg", "--out", str(out)])
    names = ["learning-curve-income-EUR-loss", "learning-curve-income-EUR", "learning-curve", "task-weights"]
    files = {out / f"{name}.svg" for name in names}
    assert set(out.iterdir()) == files
    for file in files:
        ElementTree.fromstring(file.read_text(encoding="utf-8"))  # what XML cannot hold is not in it
    (out / "mine.svg").write_text("mine")
    (out / "learning-curve.svg").write_text("of another run")
    _report([str(tmp_path / "run"), "--format", "svg", "--out", str(out)])
    assert set(out.iterdir()) == {*files, out / "mine.svg"}
    assert (out / "mine.svg").read_text() == "mine"
    assert (out / "learning-curve.svg").read_text().startswith("<svg ")
    capsys.readouterr()
    assert run(report, [str(tmp_path / "run"), "--format", "svg", "--out", str(out / "mine.svg")]) == 2
    assert capsys.readouterr().err == f"--out: must be a folder for the plots, got the file '{out / 'mine.svg'}'.\n"


def test_no_plot_takes_the_file_of_another():
    drawing = svg.Drawing("<g/>")
    names = ["a b", "A-b", "a-b-2", "no numbers", "Größe €"]
    plots = [Plot(name, "title", drawing if name != "no numbers" else svg.Drawing()) for name in names]
    assert list(plot_files(plots)) == ["a-b", "A-b-2", "a-b-2-2", "Größe"]


def test_a_long_title_is_whole_in_the_file():
    title = "the best grouping for each number of models, mean change against each task alone (± standard error)"
    text = Plot("x", title, svg.bars([svg.Bar("a", 1.0)], "change, %")).file()
    lines = [line.text for line in ElementTree.fromstring(text) if line.tag.endswith("text")]
    assert len(lines) == 2
    assert " ".join(lines) == title


def test_a_png_is_named_with_its_extra_where_it_is_not_installed(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert run(report, [str(tmp_path / "run"), "--format", "png"]) == 2
    assert capsys.readouterr().err == (
        "--format: 'png' needs the package resvg-py, which is not installed. "
        'Install it: pip install "mtl-train[png]".\n'
    )
    assert not (tmp_path / "run/plots").exists()


def test_plots_as_png(sweep):
    pytest.importorskip("resvg_py", reason="resvg-py (the extra png) is not installed")
    try:
        painter()
    except ConfigError as reason:  # the only one left: the machine has no font
        pytest.skip(str(reason))
    _report([str(sweep), "--format", "png"])
    _report([str(sweep), "--format", "svg"])
    files = sorted((sweep / "plots").glob("*.png"))
    assert [file.stem for file in files] == [file.stem for file in sorted((sweep / "plots").glob("*.svg"))]
    for file in files:
        data = file.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        drawn = ElementTree.fromstring(file.with_suffix(".svg").read_text(encoding="utf-8"))
        assert int.from_bytes(data[16:20], "big") == 3 * int(drawn.get("width"))
        assert int.from_bytes(data[20:24], "big") == 3 * int(drawn.get("height"))


@pytest.mark.parametrize("family", ["DejaVu Sans", "Arial"])
def test_a_png_is_written_in_a_font_that_the_machine_has(sweep, monkeypatch, family):
    resvg = pytest.importorskip("resvg_py", reason="resvg-py (the extra png) is not installed")
    used = []

    def only(svg_string, sans_serif_family, **_):
        used.append(sans_serif_family)
        return svg_string.replace(">M<", "><").encode() if sans_serif_family != family else svg_string.encode()

    monkeypatch.setattr(resvg, "svg_to_bytes", only)
    _report([str(sweep), "--format", "png"])
    assert used[-1] == family


def test_a_png_without_words_is_refused(sweep, capsys, monkeypatch):
    resvg = pytest.importorskip("resvg_py", reason="resvg-py (the extra png) is not installed")
    monkeypatch.setattr(resvg, "svg_to_bytes", partial(resvg.svg_to_bytes, skip_system_fonts=True))
    assert run(report, [str(sweep), "--format", "png"]) == 2
    assert capsys.readouterr().err.startswith("--format: 'png' needs a font, and this machine has none of Liber")


def test_seconds_of_a_resumed_run_are_of_all_its_parts_as_in_the_leaderboard(tmp_path, capsys):
    write_run(tmp_path / "run")
    file = tmp_path / "run/summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"train_seconds": 3600.0, "seconds": 2.0}))
    _report([str(tmp_path / "run"), "--format", "md"])
    assert " · 3600.0 s of training, " in capsys.readouterr().out


def test_a_run_as_markdown(tmp_path, capsys):
    write_run(tmp_path / "run")
    _report([str(tmp_path / "run"), "--format", "md"])
    told = capsys.readouterr().out
    assert told.startswith("# run\n\nmean on test: 0.9000 · weights of epoch 3, the best by mean · 100 training rows")
    assert "| digit | accuracy | 0.9000 | 0.4000 |" in told
