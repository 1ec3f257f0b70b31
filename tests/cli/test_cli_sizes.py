"""Very small batches and very many tasks."""

import json
import re
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from worlds import inputs, make_learner, make_rows

from mtl_cli.commands import evaluate, predict
from mtl_cli.commands.entry import run
from mtl_cli.data.batches import plan_epoch
from mtl_cli.loop.step import train_step
from mtl_cli.tasks.regression import Regression

TASKS = 100


@pytest.fixture
def many(tmp_path, write):
    """200 rows, 4 inputs, 100 targets of which nine in ten are blank."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 4))
    targets = {}
    for t in range(TASKS):
        known = draw.random(200) < 0.1
        targets[f"t{t:03}"] = [float(y) if k else None for y, k in zip(x @ draw.normal(size=4), known, strict=True)]
    pl.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, **targets}).write_csv("many.csv")
    tasks = "".join(f"  {name}: {{kind: regression}}\n" for name in targets)
    write({"conf/task/many.yaml": f"# @package _global_\ndata: {{source: table, path: many.csv}}\ntasks:\n{tasks}"})
    return tmp_path


def _train(cli, *more):
    return cli("--config-dir", "conf", "task=many", "trainer.max_epochs=2", "hydra.run.dir=run", *more)


def test_a_dry_run_of_a_hundred_tasks_tells_everything(cli, many):
    ended = cli("--config-dir", "conf", "task=many", "dry_run=true")
    assert ended.code == 0, ended.err
    for name in (f"t{t:03}" for t in range(TASKS)):
        assert re.search(rf"^{name} +\S.* target of task", ended.out, re.MULTILINE)  # the column
        assert re.search(rf"^{name} +regression ", ended.out, re.MULTILINE)
    assert "all in" not in ended.out  # there are no files


@pytest.mark.parametrize("balancing", ["equal", "pcgrad"])
def test_a_hundred_tasks_leave_the_console_readable_and_everything_in_the_files(cli, many, balancing):  # MOD-05
    ended = _train(cli, f"balancing={balancing}")
    assert ended.code == 0, ended.err
    told = ended.out + ended.err
    assert len(told.splitlines()) < 140
    assert "the 8 tasks with the fewest training labels of 100" in told
    assert "the 8 worst of 100 tasks (all in summary.json)" in told
    assert "100 tasks" in told
    cost = "note: balancing pcgrad takes the gradient of each of the 100 tasks in every step"
    assert told.count(cost) == (balancing == "pcgrad")
    summary = json.loads((many / "run/summary.json").read_text())
    assert all(f"val/t{t:03}/r2" in summary["metrics"] for t in range(TASKS))
    assert (
        set(summary["labelled"]["train"]) == set(summary["parameters"]["tasks"]) == {f"t{t:03}" for t in range(TASKS)}
    )
    labels = pl.read_csv("many.csv", infer_schema_length=None)["t057"]
    assert sum(summary["labelled"][split]["t057"] for split in ("train", "val", "test")) == labels.count()
    if balancing == "equal":
        assert run(predict.predict, ["run", "--data", "many.csv", "--out", "out.csv"]) == 0
        assert pl.read_csv("out.csv").shape == (200, 101)
        assert run(evaluate.evaluate, ["run", "--out", "again.json"]) == 0
        assert len(json.loads((many / "again.json").read_text())["metrics"]) > 4 * TASKS


def test_an_error_of_one_task_among_a_hundred_names_it(cli, many):  # MOD-05
    text = (many / "many.csv").read_text().splitlines()
    cells = text[3].split(",")
    cells[4 + 57] = "much"
    (many / "many.csv").write_text("\n".join([*text[:3], ",".join(cells), *text[4:]]) + "\n")
    ended = _train(cli)
    assert ended.code == 2
    assert "tasks.t057: many.csv, column 't057', row 3" in ended.err
    assert "'much'" in ended.err
    assert "t056" not in ended.err


class Calls(TorchDispatchMode):
    """Counts what PyTorch is asked to compute, backward passes too."""

    def __init__(self):
        super().__init__()
        self.made = Counter()

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # as in mtl_cli.model.flops: else it loads the compiler

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.made[str(function)] += 1
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("sharing", "balancing"),
    [("hard", "equal"), ("hard", "pcgrad"), ("separate", "uncertainty"), ("mmoe", "equal"), ("cgc", "equal")],
)
def test_a_step_of_a_hundred_tasks_is_the_calls_of_one_of_two(sharing, balancing):  # MOD-05: nothing is done by task
    made = []
    for tasks in (2, TASKS):
        labels = np.random.default_rng(0).normal(size=(200, tasks)).astype(np.float32)
        labels[np.random.default_rng(1).random(labels.shape) < 0.9] = np.nan
        rows = make_rows(inputs(torch.randn(200, 5)), labels)
        learner = make_learner([Regression() for _ in range(tasks)], sharing=sharing, balancing=balancing)
        plan = plan_epoch(rows, 0, batch_size=100, weights=np.ones(tasks), seed=0)
        with Calls() as calls:
            train_step(learner, rows, plan, 0, 0)
        made.append(calls.made)
    assert made[0] == made[1]
    assert made[0]


@pytest.fixture
def nine(write):
    """Nine training rows, so that the last batch of four has one row; a task has one labelled row in it."""
    split = ["train"] * 9 + ["val"] * 3
    rows = [f"{i / 10},{i % 4},{'ab'[i % 2] if i % 3 else ''},{part}" for i, part in enumerate(split)]
    write(
        {
            "nine.csv": "x,y,z,part\n" + "\n".join(rows) + "\n",
            "conf/task/nine.yaml": "# @package _global_\ndata: {source: table, path: nine.csv, split: {column: part}}\n"
            "tasks: {y: {kind: regression, hidden: [4]}, z: {kind: binary}}\n",
        }
    )


def test_normalisation_over_a_batch_is_refused_with_the_one_over_a_row(cli, nine):  # MOD-01
    ended = cli("--config-dir", "conf", "task=nine", "encoder.norm=batch")
    assert ended.code == 2
    assert "encoder.norm" in ended.err
    assert "none, layer" in ended.err


@pytest.mark.parametrize("batch", [4, 1])
def test_a_batch_of_one_row_trains_and_one_row_is_predicted(cli, nine, tmp_path, batch):  # MOD-01
    ended = cli("--config-dir", "conf", "task=nine", "encoder.norm=layer", f"data.batch_size={batch}",
                "trainer.max_epochs=3", "hydra.run.dir=run")  # fmt: skip
    assert ended.code == 0, ended.err
    (tmp_path / "one.csv").write_text("x\n0.4\n")
    assert run(predict.predict, ["run", "--data", "one.csv", "--out", "out.csv"]) == 0
    found = pl.read_csv("out.csv")
    assert found.height == 1
    assert found["y_pred"].is_finite().all()
    steps = json.loads((tmp_path / "run/summary.json").read_text())["steps"]
    assert steps == 3 * -(-9 // batch)
