"""Data larger than memory, at the command line."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from mtl_cli.commands.entry import run
from mtl_cli.commands.evaluate import evaluate
from mtl_cli.commands.predict import predict
from mtl_cli.registry import SOURCES
from mtl_cli.run.checkpoint import load

TASK = """\
# @package _global_
data: {source: table, path: people.parquet, id: id, batch_size: 16, shuffle_buffer: 40}
shared_dim: 8
encoder: {hidden: [8]}
tasks:
  spend: {kind: regression}
  stays: {kind: binary}
trainer: {max_epochs: 2, device: cpu, threads: 1}
hydra: {run: {dir: run}}
"""
LINE = ["--config-dir", "conf", "task=mine"]


@pytest.fixture
def people(tmp_path, monkeypatch):
    """A Parquet file with ten row groups, and a task for it."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 3))
    frame = pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(200)],
            "age": x[:, 0],
            "visits": [None if i % 9 == 0 else v for i, v in enumerate(x[:, 1])],
            "city": ["abcd"[i % 4] for i in range(200)],
            "spend": x[:, 0] * 3 + x[:, 2],
            "stays": [None if i % 7 == 0 else int(v > 0) for i, v in enumerate(x[:, 1])],
        }
    )
    frame.write_parquet("people.parquet", row_group_size=20)
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/mine.yaml").write_text(TASK)
    return tmp_path


def _summary(run):
    return json.loads((run / "summary.json").read_text())


def test_runs_and_sweeps_of_when_the_buffer_had_another_default_go_on_with_it(people, cli):
    commands = [*LINE, "resume=auto"], ["-m", *LINE, "seed=0,1", "hydra.sweep.dir=sweep"]
    for buffer, epochs in ((65536, 1), ("auto", 2), ("auto", 2)):
        task = TASK.replace("max_epochs: 2", f"max_epochs: {epochs}")
        task = task.replace("shuffle_buffer: 40", f"shuffle_buffer: {buffer}, in_memory: false")
        (people / "conf/task/mine.yaml").write_text(task)
        for line in commands:
            ended = cli(*line)
            assert (ended.code, ended.err) == (0, "")
    stored = [people / "run/config.yaml", *people.glob("sweep/*/config.yaml")]
    assert [_summary(file.parent)["epochs"] for file in stored] == [2, 2, 2]
    assert all("shuffle_buffer: 65536" in file.read_text() for file in stored)


def test_a_streamed_run_ends_as_any_other_and_its_numbers_are_found_again(people, cli):
    ended = cli(*LINE, "data.in_memory=false")
    assert (ended.code, ended.err) == (0, "")
    held = "at least 40 rows are shuffled together, validation rows in memory"
    assert f"streamed (data.in_memory=false); {held}" in ended.out
    assert cli(*LINE, "data.in_memory=true", "hydra.run.dir=whole").code == 0
    ours, theirs = (json.loads((people / run / "data.json").read_text()) for run in ("run", "whole"))
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert (differing, ours["streamed"]) == ({"streamed", "checksum"}, True)
    first = [json.loads((people / run / "metrics.jsonl").read_text().splitlines()[0]) for run in ("run", "whole")]
    assert first[0]["step"] == first[1]["step"] == 10  # as many steps, in another order
    assert first[0]["train/loss"] != first[1]["train/loss"]
    for split in ("val", "test", "train"):
        assert run(evaluate, ["run", "--split", split, "--out", f"{split}.json"]) == 0
        found, known = (
            json.loads((people / f"{split}.json").read_text())["metrics"],
            _summary(people / "run")["metrics"],
        )
        assert split == "train" or found == {key: known[key] for key in found}
    assert run(predict, ["run", "--data", "people.parquet", "--out", "predicted.csv"]) == 0
    assert pl.read_csv("predicted.csv")["id"].to_list() == [f"p{i}" for i in range(200)]


def test_validation_rows_that_do_not_fit_are_streamed_with_the_same_numbers(people, cli, monkeypatch):
    assert cli(*LINE, "data.in_memory=false").code == 0
    monkeypatch.setattr("mtl_cli.data.streaming.free_memory", lambda: 1000)
    ended = cli(*LINE, "data.in_memory=false", "hydra.run.dir=other")
    assert "validation rows too" in ended.out
    assert _summary(people / "run")["metrics"] == _summary(people / "other")["metrics"]
    ended = cli(*LINE, "data.in_memory=false", "hydra.run.dir=third", "balancing=auto_lambda")
    assert ended.code == 2
    assert "balancing: looks at validation rows in each step, and all 20 of them do not fit into memory" in ended.err


def test_auto_streams_what_would_take_more_than_half_of_the_free_memory(people, cli, monkeypatch):
    stored = type(SOURCES.build("table", path="people.parquet").stored())
    monkeypatch.setattr(stored, "bytes_per_row", lambda _: 25_000)
    monkeypatch.setattr("mtl_cli.build.sources.input_bytes", lambda *_: 12_500)  # of all rows and of splits
    needed = 2 * 200 * 25_000
    monkeypatch.setattr("mtl_cli.build.sources.free_memory", lambda: 2 * needed + 1)
    ended = cli(*LINE)
    assert "in memory: about 10.0 MB of 20.0 MB that are free" in ended.out
    monkeypatch.setattr("mtl_cli.build.sources.free_memory", lambda: 2 * needed - 1)
    ended = cli(*LINE, "hydra.run.dir=streamed")
    assert "streamed: in memory they would take about 10.0 MB, more than half of the 20.0 MB that are free" in ended.out
    assert json.loads((people / "streamed/data.json").read_text())["streamed"]


def test_a_run_goes_on_as_it_began_whatever_memory_is_free_now(people, cli, monkeypatch):
    for free, name in ((1, "streamed"), (10**12, "whole")):
        monkeypatch.setattr("mtl_cli.build.sources.free_memory", lambda free=free: free)
        assert cli(*LINE, f"hydra.run.dir={name}").code == 0
        assert cli(*LINE, f"hydra.run.dir={name}-half", "trainer.max_epochs=1").code == 0
        monkeypatch.setattr(
            "mtl_cli.build.sources.free_memory", lambda free=free: 10**12 // free
        )  # the other way round
        assert cli(f"resume={name}-half", "trainer.max_epochs=2", *LINE).code == 0
        one, other = (load(people / f"{name}{end}/checkpoints/last.pt") for end in ("", "-half"))
        assert all(bool((value == other["model"][key]).all()) for key, value in one["model"].items())


def test_methods_with_passes_of_their_own_and_accumulation_find_their_rows(people, cli):
    given = ["balancing=moco", "trainer.accumulate_grad_batches=2", "trainer.diagnostics_every=3"]
    ended = cli(*LINE, "data.in_memory=false", *given, "data.drop_last=true")
    assert (ended.code, ended.err) == (0, "")


def test_streamed_jobs_of_a_stacked_sweep_are_trained_one_by_one(people, cli):
    given = ["hydra/launcher=stacked", "hydra.sweep.dir=sweep"]
    ended = cli("-m", *LINE, "seed=0,1", "data.in_memory=false", *given)
    assert ended.code == 0
    assert "data.in_memory=false (the data are streamed)" in ended.out + ended.err
    assert cli(*LINE, "seed=1", "data.in_memory=false", "hydra.run.dir=alone").code == 0
    metrics = {json.dumps(_summary(path.parent)["metrics"]) for path in people.glob("sweep/*/summary.json")}
    assert json.dumps(_summary(people / "alone")["metrics"]) in metrics


def test_a_first_update_that_diverges_names_its_rows(people, cli):
    ended = cli(*LINE, "data.in_memory=false", "optimizer=sgd", "optimizer.lr=1e30")
    assert ended.code == 1
    named = r"is not finite, in the batch of (id p\d+, ){7}id p\d+ and 8 more\."
    assert re.search(named, ended.err)


# The peak of resource.getrusage will not do: a process begins with that of the one that started it.
MEASURE = """\
import sys
from mtl_cli.cli import run_command
for name in ("first", "small", "large"):  # what the first run of a process leaves is not of its file
    assert run_command([*sys.argv[1:], f"data.path={name}.parquet", f"hydra.run.dir={name}"]) == 0
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_file(people):
    draw, width = np.random.default_rng(0), 500
    sizes = {"first": 8_000, "small": 8_000, "large": 64_000}
    for name, rows in sizes.items():
        x = draw.normal(size=(rows, width)).astype(np.float32)
        frame = pl.DataFrame({"id": np.arange(rows), "x": x, "spend": x[:, 0] * 2, "stays": (x[:, 1] > 0) * 1})
        frame.write_parquet(f"{name}.parquet", row_group_size=1000)
    given = ["data.in_memory=false", "data.batch_size=1000", "data.shuffle_buffer=2000", "trainer.max_epochs=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, *LINE, *given, "data.split.val=0.02"]
    done = subprocess.run(command, cwd=people, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    _, small, large = (1024 * int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    more = x.itemsize * width * (sizes["large"] - sizes["small"])  # the inputs alone, 112 MB
    assert large - small < more / 2  # measured: 4 to 40 MB, and as much with 32,000 and 96,000 rows
