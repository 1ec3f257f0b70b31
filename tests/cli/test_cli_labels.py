"""Labels from the file to the numbers: which rows teach what, and what is said about those that do not."""

import json
import re

import polars as pl
import pytest
from worlds import BASE

from mtl_cli import load_run
from mtl_cli.registry import KINDS

RUN = ["--config-dir", "conf", "task=base", "hydra.run.dir=run"]


def _labelled(out):
    """Task to (train, val) cells of the table of tasks."""
    count = r"(\d+(?: \(\d+ missing\))?)"
    return {
        name: (train, val)
        for name, train, val in re.findall(rf"^(\w+) +(?:{'|'.join(KINDS.names())}) +{count} +{count} ", out, re.M)
    }


def _summary(tmp_path, run="run"):
    return json.loads((tmp_path / run / "summary.json").read_text())


def test_code_that_is_no_class_is_named_with_its_row(cli, base):  # LAB-05, LAB-15
    base(yb=[0, 1, -1, 2, -1, 0, 1, 2])
    ended = cli(*RUN)
    assert (ended.code, ended.err) == (
        2,
        "tasks.b: train.csv, column 'yb', row 3 (line 4): class '-1' is not among the classes 0, 1, 2, as num_classes "
        "is 3. Did you mean '1'? Correct the cell, list the task's `classes`, or name the value in its "
        "`missing_label`.\n",
    )


def test_declared_code_is_no_label_of_that_task_alone(cli, base):  # LAB-05
    base(ya=[1, 2, -1.0, 1.5, 2.5, 0.5, 1.2, 2.2], yb=[0, 1, -1, 2, -1, 0, 1, 2])
    ended = cli(*RUN, "tasks.b.missing_label=-1")
    assert (ended.code, ended.err) == (0, "")
    assert _labelled(ended.out) == {"a": ("8", "4"), "b": ("6 (2 missing)", "4")}


def test_task_without_a_label_in_training_is_refused_unless_it_counts_nothing(cli, base):
    base(ya=[""] * 8)
    ended = cli(*RUN)
    assert (ended.code, ended.err) == (
        2,
        "tasks.a: no training row has a label for it, so that nothing would train its head. Leave it out (only=[...]), "
        "look at the splits, or write `weight: 0` to train without it.\n",
    )
    ended = cli(*RUN, "tasks.a.weight=0")
    assert ended.code == 0
    assert "task 'a': no train row has a label; its own loss trains nothing." in ended.out


def test_task_without_a_label_in_another_split_is_told(cli, base):
    base(val={"ya": [""] * 4})
    ended = cli(*RUN)
    assert ended.code == 0
    assert "task 'a': no val row has a label; it has no score there." in ended.out


def test_auxiliary_tasks_are_none_of_those_that_a_mean_is_of(cli, base):
    base(val={"ya": [""] * 4})
    helper = "+tasks.helper={kind: multiclass, target: yb, num_classes: 3, auxiliary: %s}"
    assert "(2 of 3 tasks)" in cli(*RUN, helper % "false").out
    assert "(1 of 2 tasks)" in cli(*RUN[:-1], "hydra.run.dir=run2", helper % "true").out


@pytest.mark.parametrize(
    ("monitor", "of"), [("mean", True), ("val/worst", True), ("val/loss", False), ("val/b/accuracy", False)]
)
def test_of_how_many_tasks_a_mean_is_stands_beside_means_only(cli, base, monitor, of):
    base(val={"ya": [""] * 4})
    ended = cli(*RUN, f"monitor={monitor}")
    assert re.search(
        rf"^epoch 1: .* \| {monitor} [\d.]+{re.escape(' (1 of 2 tasks)') * of} \* \|", ended.out, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (["monitor=val/a/loss"], ["monitor"]),
        (["trainer.checkpoint.monitor=val/a/loss", "trainer.early_stopping.monitor=val/a/loss"], ["checkpoint"]),
        (["trainer.early_stopping={monitor: val/a/loss, patience: 2}"], ["early_stopping"]),
        (
            ["monitor=val/a/loss", "trainer.checkpoint.monitor=val/b/loss", "trainer.early_stopping.patience=2"],
            ["monitor"],
        ),
        (["monitor=val/a/loss", "trainer.checkpoint.monitor=val/b/loss"], []),
    ],
)
def test_monitor_of_a_task_without_a_label_in_validation_is_refused_before_training(cli, base, given, where):
    base(val={"ya": [""] * 4})
    ended = cli(*RUN, *given)
    keys = [key if key == "monitor" else f"trainer.{key}.monitor" for key in where]
    assert (ended.code, ended.err) == (
        2 if where else 0,
        "".join(
            f"{key}: val/a/loss would never have a value: task 'a' has 0 labels in the val rows. Choose another, such "
            f"as {key}=mean, or look at the splits.\n"
            for key in keys
        ),
    )


@pytest.mark.parametrize("key", ["tasks.b.num_classes=3", "+tasks.b.classes=[0,1,2]"])
def test_code_for_no_label_cannot_be_a_class(cli, base, key):  # LAB-15
    base()
    ended = cli(*RUN, "tasks.b.missing_label=0", key)
    assert ended.code == 2
    assert "missing_label" in ended.err
    assert "class" in ended.err


def test_class_of_another_split_is_named_with_its_row(cli, base):  # LAB-06
    base(val={"yb": [0, 1, 3, 0]})
    ended = cli(*RUN, "tasks.b.num_classes=null")
    assert (ended.code, ended.err.split(" Did")[0].split(" Known")[0]) == (
        2,
        "tasks.b: val.csv, column 'yb', row 3 (line 4): class '3' is not among the classes 0, 1, 2, which are those of "
        "the training rows.",
    )


def test_rows_that_teach_nothing_are_told(cli, base):
    base(ya=["", 2, 1, 1.5, 2.5, 0.5, 1.2, 2.2], yb=["", 1, 2, 0, 1, 0, 1, 2])
    ended = cli(*RUN, "trainer.max_epochs=1")
    assert "note: 1 training row has no label for any task: it teaches nothing." in ended.out


def test_class_without_a_training_row_is_trained_and_told(cli, base):  # LAB-06, DAT-19
    base(val={"yb": [0, 1, 3, 0]})
    ended = cli(*RUN, "tasks.b.num_classes=4")
    assert (ended.code, ended.err) == (0, "")
    assert "note: task 'b': no train row has class 3." in ended.out
    assert "note: task 'b': no val row has class 2." in ended.out
    assert "3: 0%" in ended.out


BINARY = BASE.replace("{kind: multiclass, target: yb, num_classes: 3}", "{kind: binary, target: yb}")


@pytest.mark.parametrize(
    ("train", "val", "classes"),
    [
        (["1", "0", "", "1", "0", "1", "", "0"], ["1.0", "0.0", "1.0", "0.0"], ["0", "1"]),
        (["1", "0", "", "1", "0", "1", "", "0"], ["True", "False", "True", "False"], ["0", "1"]),
        (["True", "False", "", "True", "False", "True", "", "False"], ["true", "FALSE", "1", "0"], ["False", "True"]),
        (["yes", "no", "", "yes", "no", "yes", "", "no"], ["yes", "no", "Yes", "0"], ["no", "yes"]),
    ],
    ids=["numbers", "numbers and truth values", "truth values", "words"],
)
def test_one_class_in_many_spellings_is_shown_as_in_training(cli, base, tmp_path, train, val, classes):  # LAB-08
    base(BINARY, yb=train, val={"yb": val})
    ended = cli(*RUN)
    assert (ended.code, ended.err) == (0, "")
    assert json.loads((tmp_path / "run/data.json").read_text())["tasks"]["b"]["state"]["classes"] == classes
    assert _labelled(ended.out)["b"] == ("6 (2 missing)", "4")


def test_two_spellings_in_the_training_rows_are_refused(cli, base):  # LAB-08
    base(BINARY, yb=["1", "0", "True", "0", "1", "0", "1", "0"], val={"yb": [1, 0, 1, 0]})
    ended = cli(*RUN)
    assert (ended.code, ended.err) == (
        2,
        "tasks.b: train.csv, column 'yb', row 3 (line 4): holds 'True', which may be the class '1' of train.csv, "
        "column 'yb', row 1 (line 2). Write one of them everywhere, or list the task's `classes` if they are "
        "different.\n",
    )


def test_row_without_one_label_teaches_the_other_tasks(cli, base):  # LAB-13
    base(yb=[0, 1, "", 0, "", 2, "", 1])
    ended = cli(*RUN)
    assert _labelled(ended.out) == {"a": ("8", "4"), "b": ("5 (3 missing)", "4")}


def test_weights_are_of_one_task_and_only_their_ratios_matter(cli, base, records, tmp_path):  # LAB-14
    text = BASE.replace("num_classes: 3}", "num_classes: 3, sample_weight: wb}")
    text = text.replace("batch_size: 4", "batch_size: 2, shuffle: false")
    losses = []
    for weights in ([0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 10, 10, 0, 0, 10, 10]):
        base(text, wb=weights, val={"wb": [1, 1, 1, 1]})
        ended = cli(*RUN[:-1], f"hydra.run.dir={weights[2]}")
        assert (ended.code, ended.err) == (0, "")
        assert _labelled(ended.out) == {"a": ("8", "4"), "b": ("4 (4 missing)", "4")}
        losses.append([record["train/b/loss"] for record in records(tmp_path / f"{weights[2]}", "train")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    base(text, wb=[0, 0, 1, -1, 0, 0, 1, 1], val={"wb": [1, 1, 1, 1]})
    refused = cli(*RUN)
    assert (refused.code, refused.err) == (
        2,
        "tasks.b: train.csv, column 'wb', row 4 (line 5): a weight must be a number of at least 0, got '-1'. "
        "Correct the cell; 0 takes the row out of the task.\n",
    )


def test_metrics_do_not_change_with_the_weight_of_the_task(cli, base, tmp_path):  # BAL-13
    base(yb=["", "", 1, "", "", "", "", 0])
    for weight in (1, 10):
        ended = cli(*RUN[:-1], "optimizer.lr=1e-12", f"tasks.b.weight={weight}", f"hydra.run.dir=w{weight}")
        assert ended.code == 0
    one, ten = (_summary(tmp_path, f"w{weight}")["metrics"] for weight in (1, 10))
    own = [key for key in one if "/b/" in key]
    assert {key: one[key] for key in own} == pytest.approx({key: ten[key] for key in own}, rel=1e-6)
    assert ten["val/loss"] == pytest.approx(one["val/a/loss"] + 10 * one["val/b/loss"], rel=1e-6)


def test_metric_of_one_class_is_undefined_and_told(cli, base, tmp_path):  # MET-01
    base(BINARY, yb=[1, 0, 1, 0, 1, 0, 1, 0], val={"yb": [1, 1, 1, 1]})
    ended = cli(*RUN)
    assert ended.code == 0
    metrics = _summary(tmp_path)["metrics"]
    assert [metrics[f"val/b/{name}"] for name in ("auroc", "average_precision")] == [None, None]
    assert "n/a" in ended.out
    assert len(re.findall(r"\bb\b.*4 labels.*1: 100%\): auroc, average_precision", ended.err + ended.out, re.M)) == 1


def test_metrics_of_every_epoch_are_those_of_its_model(cli, base, records, tmp_path):  # MET-06
    base()
    assert cli(*RUN, "trainer.max_epochs=3", "trainer.checkpoint.save_top_k=-1").code == 0
    from mtl_cli.trained import load_run

    for record in records(tmp_path / "run", "val"):
        name, evaluated = load_run(tmp_path / "run", checkpoint=f"epoch-{record['epoch']}").evaluate_split("val")
        found = evaluated.evaluation.flat(name)
        assert {key: record[key] for key in found} == pytest.approx(found, abs=1e-6)


def test_target_may_be_an_input_where_that_is_meant(cli, base):  # DAT-13
    base()
    inputs = "data.inputs=[x1,x2,x3,ya]"
    refused = cli(*RUN, inputs)
    assert refused.code == 2
    assert "data.allow_inputs=[ya]" in refused.err
    allowed = cli(*RUN, inputs, "data.allow_inputs=[ya]")
    assert allowed.code == 0
    assert "note: column 'ya' may be an input although it is the target of task 'a'." in allowed.out


EVERYTHING = """\
# @package _global_
shared_dim: 8
data: {source: table, train: train.csv, val: val.csv, id: id, missing: [""], batch_size: 4}
tasks:
  a: {kind: quantile, target: ya, transform: log1p, metrics: [d2, coverage]}
  visits: {kind: count}
  tags: {kind: multilabel, delimiter: "|"}
  flags: {kind: multilabel, target: [f1, f2], missing_label: -1}
  buys: {kind: binary, mask_by: {clicked: 1}, sample_weight: w, class_weight: balanced, label_smoothing: 0.1}
  clicked: {kind: binary, loss: focal}
  yb: {kind: multiclass, class_weight: {0: 2.0}}
trainer: {max_epochs: 2}
"""


def test_every_kind_trains_predicts_and_is_evaluated(cli, base, tmp_path):
    columns = {
        "visits": [0, 1, 5, 2, 0, 3, "", 1], "tags": ["p|q", "q", "p", "", "q", "p|q", "q", "p"],
        "f1": [0, 1, -1, 0, 1, 0, 1, 0], "f2": [1, 1, 0, -1, 0, 1, 0, 1],
        "clicked": [1, 1, 0, 1, 0, 1, 1, 1], "buys": [0, 1, 0, 1, 0, 0, 1, 1], "w": [1, 2, 1, 1, 1, 0, 3, 1],
    }  # fmt: skip
    base(EVERYTHING, **columns, val={name: values[:4] for name, values in columns.items()})
    ended = cli(*RUN)
    assert (ended.code, ended.err.count("Traceback")) == (0, 0)
    counts = _labelled(ended.out)
    assert counts["buys"] == ("5 (3 missing)", "3 (1 missing)")  # clicked, and of weight above 0
    assert counts["tags"] == ("7 (1 missing)", "3 (1 missing)")
    assert not re.search(r"^(w|clicked|f1) .* (numeric|input)$", ended.out, re.MULTILINE)
    metrics = _summary(tmp_path)["metrics"]
    assert [key for key in metrics if key.startswith("val/a/")] == ["val/a/loss", "val/a/d2", "val/a/coverage"]

    from mtl_cli.trained import load_run

    run = load_run(tmp_path / "run")
    split, again = run.evaluate_split("val")
    assert again.evaluation.flat(split) == {key: metrics[key] for key in again.evaluation.flat(split)}
    of_file = run.evaluate_file("val.csv").evaluation.flat("val")
    assert of_file == pytest.approx({key: metrics[key] for key in of_file}, rel=1e-6)
    without = pl.read_csv("val.csv").select("id", "x1", "x2", "x3", "x4")
    predicted = run.predict(without)
    assert predicted.columns == [
        "id", "a_pred", "a_q10", "a_q50", "a_q90", "visits_pred", "tags_pred", "tags_prob_p", "tags_prob_q",
        "flags_pred", "flags_prob_f1", "flags_prob_f2", "buys_pred", "buys_prob_1", "clicked_pred", "clicked_prob_1",
        "yb_pred", "yb_prob_0", "yb_prob_1", "yb_prob_2",
    ]  # fmt: skip
    assert predicted.height == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+tasks.b.metrics=[acuracy]", "b.metrics*: 'multiclass' has no metric 'acuracy'. Did you mean 'accuracy'?"),
        (
            "+tasks.a.metrics=[rmse]",
            "a.metrics*: the first is the primary one, which `mean` averages: it must be better when higher, "
            "got 'rmse'. "
            "Put one of these first: r2, pearson.",
        ),
        ("+tasks.a.metrics=[]", "a.metrics*: names no metric, got []. Write null for all."),
        ("+tasks.b.label_smoothing=1", "b.label_smoothing*: must be in [0, 1), got 1.0."),
        (
            "+tasks.b.class_weight=balancd",
            "b.class_weight*: must be a mapping or balanced, got 'balancd'. Did you mean 'balanced'?",
        ),
        (
            "tasks.a.target=[ya,yb]",
            "a.target*: 'regression' takes one column, got ['ya', 'yb']. Only multilabel takes several columns.",
        ),
        (
            "+tasks.b.sample_weight=weigth",
            "b.sample_weight: no column 'weigth' in train.csv, val.csv. Known: id, x1, x2, x3, x4, ya, yb.",
        ),
        ("+tasks.b.mask_by={ya: 77}", "b: mask_by.ya: no row of train.csv, val.csv holds 77. Known: 0.5"),
        ("+tasks.b.mask_by={}", "b.mask_by*: names no column, got {}. Write null for no mask."),
        (
            "+tasks.b.class_weight={7: 2}",
            "b: column 'yb': class_weight names '7', which is no class. Known: 0, 1, 2.",
        ),
    ],
)  # fmt: skip
def test_mistake_about_labels_is_told(cli, base, override, message):
    base()
    ended = cli(*RUN, override)
    assert ended.code == 2
    assert ended.err.startswith("tasks." + message.replace("*", " (command line)"))


def test_auxiliary_task_teaches_and_is_in_no_mean_and_no_comparison(cli, base, tmp_path):
    base()
    ended = cli("-m", *RUN[:3], "tasks.b.auxiliary=true", "sharing=separate,hard", "hydra.sweep.dir=sweep")
    assert ended.code == 0, ended.err
    board = json.loads((tmp_path / "sweep/leaderboard.json").read_text())
    assert [list(method["tasks"]) for method in board["methods"]] == [["a"], ["a"]]
    assert "b/accuracy" not in ended.out
    for summary in map(json.loads, (path.read_text() for path in tmp_path.glob("sweep/*/summary.json"))):
        assert (summary["tasks"], summary["primary"]) == (["a", "b"], {"a": "r2"})
        assert summary["metrics"]["val/mean"] == summary["metrics"]["val/a/r2"]
        assert summary["metrics"]["val/b/accuracy"] is not None
    run = next(path.parent for path in tmp_path.glob("sweep/*/summary.json"))
    evaluation = load_run(run).evaluate_split(None)[1].evaluation
    assert (evaluation.mean, evaluation.auxiliary) == (evaluation.tasks["a"]["r2"], ("b",))
