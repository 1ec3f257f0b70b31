"""Chains of tasks from the command line: what is refused, and whether a chain that is known is found."""

import json
import re

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from worlds import state_of

from mtl_cli.commands import evaluate, predict
from mtl_cli.commands.entry import run

ROWS = 6000
TASKS = """\
tasks:
  click: {kind: binary}
  conversion: {kind: binary, labelled: false}
  buy: {kind: binary, product_of: [click, conversion]}
"""


def _logistic(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture(scope="module")
def world():
    """Clicks and conversions of known probability, in which those who click often convert rarely."""
    draw = np.random.default_rng(0)
    user, item = draw.integers(8, size=ROWS), draw.integers(6, size=ROWS)
    u, i = np.linspace(-2, 2, 8)[user], np.linspace(-1, 1, 6)[item]
    click, convert = _logistic(u + i), _logistic(1.5 * i - u)
    clicked = draw.random(ROWS) < click
    frame = pl.DataFrame(
        {
            "user": [f"u{n}" for n in user],
            "item": [f"i{n}" for n in item],
            "click": clicked.astype(int),
            "buy": (clicked & (draw.random(ROWS) < convert)).astype(int),
        }
    )
    return frame, click, convert


@pytest.fixture
def folder(tmp_path, world, write):
    world[0].write_parquet(tmp_path / "log.parquet")
    data = "# @package _global_\ndata: {source: table, path: log.parquet, batch_size: 500}\nshared_dim: 8\n"
    write({"conf/task/mine.yaml": data + TASKS})
    return tmp_path


def _train(cli, *more, folder="run"):
    ended = cli(
        "--config-dir", "conf", "task=mine", f"hydra.run.dir={folder}", "encoder.hidden=[]", "encoder.dropout=0",
        "optimizer.lr=0.02", "trainer.max_epochs=12", *more,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return ended


def _predicted():
    assert run(predict.predict, ["run", "--data", "log.parquet", "--out", "out.parquet", "--overwrite"]) == 0
    return pl.read_parquet("out.parquet")


@pytest.mark.parametrize(("sharing", "balancing"), [("esmm", "equal"), ("hard", "pcgrad"), ("mmoe", "uncertainty")])
def test_conversion_is_learnt_in_the_entire_space_without_a_label_of_its_own(cli, folder, world, sharing, balancing):
    _, click, convert = world
    _train(cli, f"sharing={sharing}", f"balancing={balancing}")
    found = _predicted()
    assert found.columns == [
        "row", "click_pred", "click_prob_1", "conversion_pred", "conversion_prob_1", "buy_pred", "buy_prob_1",
    ]  # fmt: skip
    clicks, conversions = found["click_prob_1"].to_numpy(), found["conversion_prob_1"].to_numpy()
    np.testing.assert_allclose(found["buy_prob_1"].to_numpy(), clicks * conversions, rtol=1e-6)
    assert np.abs(clicks - click).mean() < 0.05
    assert np.abs(conversions - convert).mean() < 0.12  # among rows without a click too
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["metrics"]["val/conversion/auroc"] is None
    assert summary["metrics"]["val/buy/auroc"] > 0.6
    assert summary["parameters"]["tasks"] == {"click": 0, "conversion": 0, "buy": 0}
    if sharing == "mmoe":
        report = json.loads((folder / "run/sharing.json").read_text())
        weights = report["findings"][0]
        assert weights["rows"] == ["click", "conversion"]
        assert f"({summary['rows']['test']:,} rows of each task)" in weights["title"]  # all of the last evaluation


def test_conversion_can_be_evaluated_on_clicks_without_being_trained_on_them(cli, folder, world):
    """As the paper measures it: the labels of the clicked rows, with weight 0."""
    other = "tasks.conversion={labelled: true, target: buy, mask_by: {click: 1}, weight: 0.0}"
    _train(cli, "sharing=esmm", other)
    labelled = _predicted()
    auc = json.loads((folder / "run/summary.json").read_text())["metrics"]["val/conversion/auroc"]
    assert auc > 0.75
    _train(cli, "sharing=esmm", folder="run2")
    assert run(predict.predict, ["run2", "--data", "log.parquet", "--out", "out2.parquet"]) == 0
    for name in ("conversion_prob_1", "buy_prob_1"):  # the labels have changed nothing
        np.testing.assert_allclose(labelled[name], pl.read_parquet("out2.parquet")[name], rtol=1e-5)


def test_evaluation_of_a_product_is_that_of_its_training(cli, folder, capsys):
    ended = _train(cli, "sharing=esmm", "trainer.max_epochs=2")
    assert "'conversion'" not in ended.out + ended.err  # it is meant to have no labels, and there is no note of it
    assert run(evaluate.evaluate, ["run", "--out", "again.json"]) == 0
    summary = json.loads((folder / "run/summary.json").read_text())["metrics"]
    again = json.loads((folder / "again.json").read_text())["metrics"]
    assert again == {key: value for key, value in summary.items() if key.startswith("test/")}
    capsys.readouterr()
    frame = pl.read_parquet("log.parquet")
    assert run(evaluate.evaluate, ["run", "--data", "log.parquet", "--out", "all.json"]) == 0
    found = _predicted()
    auc = json.loads((folder / "all.json").read_text())["metrics"]["data/buy/auroc"]
    assert auc == pytest.approx(roc_auc_score(frame["buy"], found["buy_prob_1"]), abs=1e-9)


def _after(cli, write, tasks, *more, folder="run"):
    data = "# @package _global_\ndata: {source: table, path: log.parquet, batch_size: 500}\nshared_dim: 8\n"
    write({"conf/task/mine.yaml": data + f"tasks: {tasks}\n"})
    _train(cli, "sharing=aitm", *more, folder=folder)
    assert run(predict.predict, [folder, "--data", "log.parquet", "--out", f"{folder}.parquet"]) == 0
    found = pl.read_parquet(f"{folder}.parquet")
    return found["click_prob_1"].to_numpy(), found["buy_prob_1"].to_numpy()


def test_purchase_after_click_is_learnt(cli, folder, world, write):
    _, click, convert = world
    clicks, buys = _after(cli, write, "{click: {kind: binary}, buy: {kind: binary, after: click}}")
    assert np.abs(clicks - click).mean() < 0.05
    assert np.abs(buys - click * convert).mean() < 0.05


def test_calibrator_keeps_what_comes_after_less_likely(cli, folder, write):
    """The wrong way round, clicks are likelier than the purchases that they are said to come after."""
    tasks, excess = "{buy: {kind: binary}, click: {kind: binary, after: buy}}", {}
    for weight in (0.0, 5.0):
        clicks, buys = _after(cli, write, tasks, f"sharing.calibrator={weight}", folder=f"run{weight:g}")
        excess[weight] = np.maximum(clicks - buys, 0).mean()
    assert excess[0.0] > 0.15
    assert excess[5.0] < 0.2 * excess[0.0]


CHAINS = {
    "esmm": TASKS + "  again: {kind: binary, target: buy}\n",
    "aitm": "tasks: {click: {kind: binary}, buy: {kind: binary, after: click}}\n",
}


@pytest.mark.parametrize("sharing", CHAINS)
def test_all_that_tasks_share_can_be_frozen(cli, folder, write, sharing):
    """To the last bit, in the towers that tasks have in one parameter too, and nothing else."""
    data = (folder / "conf/task/mine.yaml").read_text().partition("tasks:")[0]
    write({"conf/task/mine.yaml": data + CHAINS[sharing]})
    line = [f"sharing={sharing}", "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.1"]
    _train(cli, *line, "trainer.max_epochs=1", folder="old")
    ended = _train(cli, *line, "trainer.max_epochs=1", "init_from=old", "freeze=[shared]", folder="new")
    old, new = state_of(folder / "old", "best")["model"], state_of(folder / "new", "last")["model"]
    stayed = {name: [torch.equal(a, b) for a, b in zip(old[name], new[name], strict=True)] for name in old}
    counts = json.loads((folder / "new/summary.json").read_text())["parameters"]
    assert (
        counts["frozen"]
        == counts["shared"]
        == sum(row.numel() for name, rows in stayed.items() for row, same in zip(old[name], rows, strict=True) if same)
    )
    towers = [rows for rows in stayed.values() if 0 < sum(rows) < len(rows)]
    assert towers, "some parameters are frozen in part"
    assert re.search(rf"^shared +{counts['shared']:,} +{counts['shared']:,}$", ended.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (["sharing=separate"], ["tasks.buy.product_of", "trains its factors together, and sharing 'separate'", "esmm"]),
        (["tasks.buy.product_of=[click,convrsion]"], ["no task 'convrsion'", "Did you mean 'conversion'?"]),
        (["tasks.buy.product_of=[click,click]"], ["two or more different tasks, got ['click', 'click']"]),
        (["tasks.buy.product_of=[click,buy]"], ["names the task itself"]),
        (["tasks.buy.kind=regression"], ["tasks.buy.product_of", "needs kind binary, got regression"]),
        (["tasks.click.kind=multiclass"], ["names 'click', of kind multiclass"]),
        (["+tasks.click.product_of=[conversion,buy]"], ["names 'click', a product itself", "conversion"]),
        (["+tasks.buy.hidden=[4]"], ["tasks.buy.hidden", "a product has no head, got [4]"]),
        (["+tasks.conversion.target=buy"], ["tasks.conversion.target", "cannot be given with labelled: false"]),
        (["~tasks.buy.product_of"], ["tasks.conversion.labelled", "no task is a product of it"]),
        (["only=[click,buy]"], ["only", "leaves out 'conversion', which tasks.buy.product_of names"]),
        (["sharing=aitm"], ["sharing", "'aitm' needs a task with `after`", "sharing=hard"]),
        (["+tasks.conversion.after=click"], ["sharing 'esmm' knows no order of tasks", "sharing=aitm"]),
        (["sharing=aitm", "+tasks.conversion.after=clik"], ["no task 'clik'", "Did you mean 'click'?"]),
        (
            ["sharing=aitm", "+tasks.conversion.after=click", "+tasks.click.after=conversion"],
            ["goes round in a circle: click after conversion after click"],
        ),
        (["sharing=aitm", "+tasks.conversion.after=buy"], ["names 'buy', a product", "click, conversion"]),
        (["sharing=aitm", "+tasks.buy.after=click"], ["a product has no features that could follow"]),
        (
            ["sharing=hard", "balancing=pcgrad", "balancing.gradients_on=features"],
            ["tasks.buy.product_of", "balancing.gradients_on=parameters"],
        ),
        (["+only=[click]"], ["sharing", "'esmm' needs a task with `product_of`"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_chain_that_cannot_be_is_refused_with_what_can(cli, folder, changes, messages):
    ended = cli("--config-dir", "conf", "task=mine", "sharing=esmm", *changes)
    assert ended.code == 2
    for message in messages:
        assert message in ended.err, ended.err
    assert not (folder / "runs").exists()


def test_a_purchase_without_a_click_is_told(cli, folder, world):
    frame = world[0].with_columns(click=pl.when(pl.int_range(pl.len()) < 40).then(0).otherwise(pl.col("click")))
    frame = frame.with_columns(buy=pl.when(pl.int_range(pl.len()) < 40).then(1).otherwise(pl.col("buy")))
    frame.write_parquet("log.parquet")
    ended = cli("--config-dir", "conf", "task=mine", "sharing=esmm", "dry_run=true")
    assert ended.code == 0
    assert "note: 40 rows have label 1 for 'buy' and label 0 for 'click', whose product it is" in ended.out + ended.err
