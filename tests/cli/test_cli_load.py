"""Much of everything: tasks, columns, categories, jobs, and names that are hard to write."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from worlds import held_bytes, start

from mtl_cli.cli import entrypoint
from mtl_cli.commands import predict
from mtl_cli.commands.entry import run

TINY = """\
# @package _global_
data: {source: table, path: tiny.csv}
shared_dim: 8
encoder: {hidden: [8]}
tasks: {y: {kind: regression}, z: {kind: binary}}
trainer: {max_epochs: 1, device: cpu, threads: 1}
"""
SWEEP = ["-m", "--config-dir", "conf", "task=tiny", "hydra.sweep.dir=sweep"]


def _seeds(count):
    return f"seed={','.join(map(str, range(count)))}"


@pytest.fixture
def tiny(write, tmp_path):
    """A task whose training takes a moment."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 120)).round(3)
    pl.DataFrame({"a": a, "b": b, "y": a + b, "z": (a > b).astype(int)}).write_csv(tmp_path / "tiny.csv")
    write({"conf/task/tiny.yaml": TINY})


NAMES = ["two words", "a/b", "größe", "x=y", "mean.of.it", "'quoted'", "日本", "-1", "yes", "100%"]


def test_names_may_hold_spaces_slashes_signs_and_any_letters(cli, write, tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 2)).round(3)
    classes = ["a b", "c/d", "é=f"]
    columns = {name: (x[:, 0] + i).round(3) for i, name in enumerate(NAMES)}
    frame = pl.DataFrame({"in put/ä=1": x[:, 0], "c, d": [classes[i % 3] for i in range(60)], **columns})
    frame = frame.with_columns(pl.Series("kind of/it", [classes[i % 3] for i in range(60)]))
    frame.write_csv("odd names=ü.csv")
    tasks = "".join(
        f"  task {i}: {{kind: regression, target: {name}}}\n" for i, name in enumerate(map(json.dumps, NAMES))
    )
    tasks += '  "größe 1": {kind: multiclass, target: "kind of/it"}\n'
    text = f'# @package _global_\ndata: {{source: table, path: "odd names=ü.csv"}}\nshared_dim: 8\ntasks:\n{tasks}'
    write({"conf/task/odd.yaml": text})
    ended = cli("--config-dir", "conf", "task=odd", "trainer.max_epochs=1", "hydra.run.dir='a run/ü=1'")
    assert (ended.code, ended.err) == (0, "")
    assert run(predict.predict, ["a run/ü=1", "--data", "odd names=ü.csv", "--out", "out.csv"]) == 0
    assert pl.read_csv("out.csv").height == 60


def _many_categories(rows, size):
    draw = np.random.default_rng(0)
    code = draw.integers(0, size, rows)
    values = [f"cat é/{i}=x" for i in code]
    frame = pl.DataFrame({"c": values, "y": (code / size).round(3), "z": [f"class {i // 3}" for i in code]})
    frame.write_csv("many.csv")
    return "# @package _global_\ndata: {source: table, path: many.csv, batch_size: 512}\nshared_dim: 16\n" + (
        "tasks: {y: {kind: regression}, z: {kind: multiclass}}\ntrainer: {max_epochs: 1, threads: 1, device: cpu}\n"
    )


def _train_many_categories(cli, write, rows, size):
    write({"conf/task/many.yaml": _many_categories(rows, size)})
    ended = cli("--config-dir", "conf", "task=many", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) < 80
    assert run(predict.predict, ["run", "--data", "many.csv", "--out", "out.parquet"]) == 0
    assert pl.scan_parquet("out.parquet").select(pl.len()).collect().item() == rows


def test_hundreds_of_categories_and_a_hundred_classes(cli, write):
    _train_many_categories(cli, write, 2000, 300)


@pytest.mark.slow
def test_five_thousand_categories(cli, write):
    _train_many_categories(cli, write, 50_000, 5000)


@pytest.mark.slow
def test_a_thousand_tasks(cli, write, tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 4))
    labels = {f"t{t:04}": np.where(draw.random(400) < 0.1, x @ draw.normal(size=4), np.nan) for t in range(1000)}
    frame = pl.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, **labels})
    frame.fill_nan(None).write_csv("many.csv")
    tasks = "".join(f"  {name}: {{kind: regression}}\n" for name in labels)
    write({"conf/task/many.yaml": f"# @package _global_\ndata: {{source: table, path: many.csv}}\ntasks:\n{tasks}"})
    ended = cli("--config-dir", "conf", "task=many", "trainer.max_epochs=2", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) < 140
    assert all(
        f"val/t{t:04}/r2" in json.loads((tmp_path / "run/summary.json").read_text())["metrics"] for t in (0, 999)
    )


def test_a_later_job_of_a_sweep_begins_with_what_an_early_one_began_with(cli, tiny, monkeypatch):
    held, real = [], entrypoint.job_by_itself

    def noted(*arguments, **options):
        held.append(held_bytes())
        return real(*arguments, **options)

    monkeypatch.setattr(entrypoint, "job_by_itself", noted)
    assert cli(*SWEEP, _seeds(4)).code == 0
    assert held[1] == held[3] > 0


@pytest.mark.slow
def test_memory_does_not_grow_over_fifty_jobs_of_one_sweep(cli, tiny, monkeypatch):
    seen, real, page = [], entrypoint.job_by_itself, os.sysconf("SC_PAGE_SIZE")

    def noted(*arguments, **options):
        seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
        return real(*arguments, **options)

    monkeypatch.setattr(entrypoint, "job_by_itself", noted)
    assert cli(*SWEEP, _seeds(60)).code == 0
    assert seen[59] - seen[9] < 20e6  # measured: 10 MB over 490 jobs


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "stacked"])
def test_a_sweep_of_500_jobs_that_is_interrupted_goes_on(tiny, tmp_path, launcher):
    line = [sys.executable, "-m", "mtl_cli.cli", *SWEEP, _seeds(500), f"hydra/launcher={launcher}"]
    sweep = tmp_path / "sweep"

    def done():
        states = {path.parent.name: json.loads(path.read_text())["state"] for path in sweep.glob("*/status.json")}
        return {name for name, state in states.items() if state == "done"}

    with (tmp_path / "out.txt").open("w") as out:
        process = start(line, cwd=tmp_path, stdout=out, stderr=out)
        while len(done()) < 20 and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130, (tmp_path / "out.txt").read_text()[-2000:]
    before = {name: (sweep / name / "summary.json").read_bytes() for name in done()}
    assert 20 <= len(before) < 500
    assert "leaderboard" in {path.stem for path in sweep.iterdir()}
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "500 jobs: 500 done" in ended.stdout
    assert all((sweep / name / "summary.json").read_bytes() == data for name, data in before.items())


@pytest.mark.slow
def test_a_million_rows_of_two_hundred_columns(cli, write, tmp_path):
    draw, rows = np.random.default_rng(0), 1_000_000
    columns = {f"x{i:03}": draw.standard_normal(rows, dtype=np.float32) for i in range(200)}
    labels = {"y": columns["x000"] - columns["x199"], "z": columns["x001"] > 0}
    pl.DataFrame({**columns, **labels}).write_parquet("large.parquet", row_group_size=50_000)
    write(
        {
            "conf/task/large.yaml": "# @package _global_\n"
            "data: {source: table, path: large.parquet, batch_size: 4096}\nencoder: {hidden: []}\n"
            "trainer: {max_epochs: 1, device: cpu}\ntasks: {y: {kind: regression}, z: {kind: binary}}\n"
        }
    )
    for in_memory in ("true", "false"):
        ended = cli(
            "--config-dir", "conf", "task=large", f"data.in_memory={in_memory}", f"hydra.run.dir=run-{in_memory}"
        )
        assert ended.code == 0, ended.err
        metrics = json.loads((tmp_path / f"run-{in_memory}/summary.json").read_text())["metrics"]
        assert metrics["test/y/r2"] > 0.9
        assert metrics["test/z/auroc"] > 0.9
