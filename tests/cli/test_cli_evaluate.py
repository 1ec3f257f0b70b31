"""mtl-evaluate: the training's numbers again to the last digit, and numbers on other labelled rows."""

import json
import os
import pickle
import re
from pathlib import Path

import polars as pl
import pytest

from mtl_cli.commands import evaluate as command
from mtl_cli.commands.entry import run

CUSTOMERS = ["--config-dir", "conf", "task=customers", "hydra.run.dir=run"]


@pytest.fixture
def evaluate(capsys):
    """Runs mtl-evaluate: exit code, standard output, standard error."""

    def call(*arguments):
        capsys.readouterr()
        code = run(command.evaluate, [str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def _json(name):
    return json.loads(Path(name).read_text())


def _split(name):
    return {key: value for key, value in _json("run/summary.json")["metrics"].items() if key.startswith(f"{name}/")}


def test_numbers_are_those_of_the_training_to_the_last_digit(cli, customers, evaluate):
    trained = cli(*CUSTOMERS)
    code, out, err = evaluate("run", "--out", "test.json")
    assert (code, "not the numbers" in err) == (0, False)
    assert _json("test.json")["metrics"] == _split("test")
    table = trained.out[trained.out.index("\ntest ") + 1 :].split("\nmean")[0]
    assert table in out
    assert evaluate("run", "--split", "val", "--out", "val.json")[0] == 0
    assert _json("val.json")["metrics"] == _split("val")
    assert evaluate("run", "--split", "train", "--out", "train.json")[0] == 0
    assert _json("train.json")["rows"] == _json("run/summary.json")["rows"]["train"]


@pytest.mark.parametrize("more", [["sharing=tucker"], ["sharing=ple", "freeze=[encoder]"]])
def test_numbers_are_those_of_the_training_where_products_round_by_where_weights_begin(cli, customers, evaluate, more):
    cli(*CUSTOMERS, *more)
    assert evaluate("run", "--out", "test.json")[0] == 0
    assert _json("test.json")["metrics"] == _split("test")


def test_each_epochs_checkpoint_gives_the_numbers_that_were_logged(cli, customers, evaluate, records):  # MET-06
    cli(*CUSTOMERS, "trainer.max_epochs=3", "trainer.checkpoint.save_top_k=-1")
    for line in records(Path("run"), "val"):
        name = f"epoch-{line['epoch']}"
        arguments = ("run", "--split", "val", "--checkpoint", name, "--overwrite", "--out", "m.json")
        assert evaluate(*arguments)[0] == 0
        once = _json("m.json")["metrics"]
        evaluate(*arguments)
        assert _json("m.json")["metrics"] == once
        assert {key: line[key] for key in once} == pytest.approx(once, rel=1e-6)


def test_changed_data_are_noticed(cli, customers, evaluate):
    cli(*CUSTOMERS)
    with Path("customers.csv").open("a") as file:
        file.write("c999,30,a,3,yes,1500,A,S\n")
    code, _, err = evaluate("run")
    assert code == 0
    assert err.startswith("note: customers.csv: changed since the training (another fingerprint)")


def test_data_that_are_not_there_are_asked_for(cli, customers, evaluate, tmp_path, monkeypatch):
    cli(*CUSTOMERS)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    code, _, err = evaluate("../run")
    assert (code, "customers.csv: no such file" in err) == (2, True)
    assert f"The training read it from the folder {tmp_path}: run the command there, or name --data." in err


def test_a_labelled_file_counts_its_labelled_rows(cli, customers, evaluate):
    cli(*CUSTOMERS)
    header, *lines = customers["customers.csv"].splitlines()
    cells = [line.split(",") for line in lines]
    for row in cells[:20]:
        row[4] = ""  # churned
    Path("new.csv").write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    code, out, _ = evaluate("run", "--data", "new.csv", "--out", "m.json")
    found = _json("m.json")
    assert (code, found["rows"], found["split"]) == (0, 120, None)
    assert found["labelled"]["churned"] == sum(row[4] not in ("", "?") for row in cells)
    assert "new.csv" in out
    assert all(isinstance(value, float) for value in found["metrics"].values())


def test_whole_file_gives_the_numbers_of_its_rows_split_by_split(cli, customers, write, evaluate):
    header, *lines = customers["customers.csv"].splitlines()
    write({name: "\n".join([header, *part]) + "\n" for name, part in {"t.csv": lines[:80], "v.csv": lines[80:]}.items()})  # fmt: skip  # noqa: E501
    ended = cli(*CUSTOMERS, "data.path=null", "data.train=t.csv", "data.val=v.csv")
    assert ended.code == 0, ended.err
    assert evaluate("run", "--data", "v.csv", "--out", "m.json")[0] == 0
    assert {k.replace("data/", "val/"): v for k, v in _json("m.json")["metrics"].items()} == _split("val")


def test_a_file_may_lack_the_labels_of_some_tasks_but_not_of_all(cli, customers, evaluate):
    cli(*CUSTOMERS)
    Path("new.csv").write_text(customers["customers.csv"])
    assert evaluate("run", "--data", "new.csv", "--out", "whole.json")[0] == 0
    whole = pl.read_csv("new.csv", infer_schema=False)
    whole.drop("churned", "segment").write_csv("some.csv")
    code, out, err = evaluate("run", "--data", "some.csv", "--out", "some.json")
    assert code == 0
    for task in ("churned", "segment"):
        assert f"note: task '{task}': not evaluated, no column '{task}' in some.csv.\n" in err
        assert err.count(f"task '{task}'") == 1
    assert "mean of 2 of 4 tasks: " in out
    found = _json("some.json")
    assert (found["labelled"]["churned"], found["labelled"]["segment"]) == (0, 0)
    assert found["metrics"]["data/income/r2"] == _json("whole.json")["metrics"]["data/income/r2"]
    whole.drop("churned", "segment", "income_eur", "size").write_csv("none.csv")
    code, _, err = evaluate("run", "--data", "none.csv")
    assert (code, err.count("no column '"), "tasks.income.target: no column 'income_eur' in none.csv" in err) == (
        2,
        4,
        True,
    )


def test_a_labelled_file_in_other_signs_gives_the_same_numbers(cli, customers, evaluate):
    cli(*CUSTOMERS)
    text = customers["customers.csv"]
    Path("new.csv").write_text(text)
    Path("eu.csv").write_text(re.sub(r";(\d+)(?=;)", r";\1,0", text.replace(",", ";")))
    assert evaluate("run", "--data", "new.csv", "--out", "new.json")[0] == 0
    assert evaluate("run", "--data", "eu.csv", "--out", "eu.json", "--sep", ";", "--decimal", ",")[0] == 0
    assert _json("eu.json")["metrics"] == _json("new.json")["metrics"]
    assert 'Set --sep=";".' in evaluate("run", "--data", "eu.csv")[2]


def test_class_that_the_training_did_not_have_is_refused_with_its_place(cli, customers, evaluate):  # LAB-06
    cli(*CUSTOMERS)
    Path("new.csv").write_text(customers["customers.csv"] + "c999,30,a,3,yes,1500,D,S\n")
    code, out, err = evaluate("run", "--data", "new.csv", "--out", "m.json")
    assert (code, out, Path("m.json").exists()) == (2, "", False)
    assert err.startswith(
        "tasks.segment: new.csv, column 'segment', row 121 (line 122): class 'D' is not among the classes A, B, C"
    )


def test_undefined_numbers_are_null_and_told_with_the_labels(cli, customers, evaluate):  # MET-01, MET-02, MET-05
    cli(*CUSTOMERS)
    header, *lines = customers["customers.csv"].splitlines()
    whole = [line for line in lines if line.split(",")[4] == "yes" and "?" not in line and ",," not in line]
    Path("yes.csv").write_text("\n".join([header, *whole]) + "\n")
    code, out, err = evaluate("run", "--data", "yes.csv", "--out", "m.json")
    metrics = _json("m.json")["metrics"]
    assert code == 0
    assert (metrics["data/churned/auroc"], metrics["data/churned/average_precision"]) == (None, None)
    assert metrics["data/mean"] is not None
    assert f"note: yes.csv: not defined for the labels of task 'churned' ({len(whole)} labels, no: 0%, yes: 100%): auroc, average_precision, f1.\n" in err  # fmt: skip  # noqa: E501
    assert "mean of 3 of 4 tasks: " in out
    assert " n/a" in out
    Path("one.csv").write_text("\n".join([header, whole[0]]) + "\n")
    assert evaluate("run", "--data", "one.csv", "--out", "one.json")[0] == 0
    assert _json("one.json")["metrics"]["data/income/r2"] is None
    assert _json("one.json")["metrics"]["data/income/mae"] is not None


def test_numbers_that_differ_from_the_summarys_are_told(cli, customers, evaluate):
    cli(*CUSTOMERS)
    summary = _json("run/summary.json")
    own = summary["metrics"]["test/income/mae"]
    for mae, why in [
        (own * (1 + 1e-6), "changes the last digits.\n"),
        (0.5, "and these are more: it is other code than"),
    ]:
        summary["metrics"]["test/income/mae"] = mae
        Path("run/summary.json").write_text(json.dumps(summary))
        code, _, err = evaluate("run")
        assert code == 0
        assert f"note: not the numbers of summary.json: test/income/mae {mae} -> {own}. Another machine" in err
        assert why in err
    assert "not the numbers" not in evaluate("run", "--checkpoint", "last", "--split", "train")[2]
    summary["metrics"]["test/income/mae"] = own * (1 + 1e-6)
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("compile: false", "compile: true"))
    Path("run/summary.json").write_text(json.dumps(summary))
    assert f" -> {own}. The model was compiled for its training (trainer.compile), and here" in evaluate("run")[2]


class _Harmful:
    def __reduce__(self):
        return os.system, ("touch pwned.txt",)


def test_mistakes_and_harmful_files_are_refused(cli, customers, evaluate):  # CKP-09
    cli(*CUSTOMERS)
    for arguments, expected in [
        (["run", "--split", "tst"], "--split: must be train, val or test, got 'tst'. Did you mean 'test'?\n"),
        (["run", "--split", "val", "--data", "customers.csv"], "--split: cannot be given together with --data"),
        (
            ["run", "--source", "a"],
            "--source: goes with --data, got no file. The run's own rows are read as in training.\n",
        ),
        (["run", "--decimal", ","], "--decimal: goes with --data, got no file."),
        (["run", "--out", "m.txt"], "--out: must end with .json, got 'm.txt'.\n"),
        (["nowhere"], "nowhere: is not a run folder: there is no such folder.\n"),
        ([], "RUN: must be given. Example: mtl-evaluate runs/churn/NAME"),
    ]:
        code, out, err = evaluate(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(expected)
    Path("run/checkpoints/best.pt").write_bytes(pickle.dumps(_Harmful()))
    code, _, err = evaluate("run")
    assert (code, err.startswith("run/checkpoints/best.pt: holds Python objects that could run code")) == (2, True)
    assert not Path("pwned.txt").exists()


def test_help_has_an_example(evaluate):
    code, out, err = evaluate("--help")
    assert (code, err) == (0, "")
    assert "example:\n  mtl-evaluate runs/churn/NAME --data labelled.csv" in out


def test_empty_cells_of_a_ranking_are_those_of_the_training(cli, write, evaluate):
    rows = [f"{i},{'' if i % 5 == 0 else i % 4},{i % 3 == 0:d}" for i in range(60)]
    write({
        "train.csv": "\n".join(["x,list,y", *rows[:30]]) + "\n",
        "val.csv": "\n".join(["x,list,y", *rows[30:]]) + "\n",
        "conf/task/lists.yaml": "# @package _global_\n"
        "data: {source: table, train: train.csv, val: val.csv, inputs: [x, list], allow_inputs: [list]}\n"
        "tasks: {y: {kind: binary, ranking: {group: list, k: 2}}}\ntrainer: {max_epochs: 2}\n",
    })  # fmt: skip
    assert cli("--config-dir", "conf", "task=lists", "hydra.run.dir=run").code == 0
    evaluate("run", "--out", "own.json")
    assert evaluate("run", "--data", "val.csv", "--out", "file.json")[0] == 0
    own, file = (list(_json(name)["metrics"].values()) for name in ("own.json", "file.json"))
    assert file == pytest.approx(own, rel=1e-6)


def test_weights_with_another_decimal_sign_are_read(cli, write, evaluate):
    rows = ["x;y;w", *(f"{i % 7};{i % 3}.5;{1 + i % 2}.0" for i in range(40))]
    write({
        "a.csv": "\n".join(rows) + "\n",
        "b.csv": "\n".join(rows).replace(".", ",") + "\n",
        "alike.csv": "\n".join(rows).replace(";2.0", ";1.0") + "\n",
        "conf/task/weighted.yaml": "# @package _global_\ndata: {source: table, path: a.csv, sep: ';'}\n"
        "tasks: {y: {kind: regression, sample_weight: w}}\ntrainer: {max_epochs: 1}\n",
    })  # fmt: skip
    assert cli("--config-dir", "conf", "task=weighted", "hydra.run.dir=run").code == 0
    for name, *how in (("a",), ("b", "--decimal", ","), ("alike",)):
        assert evaluate("run", "--data", f"{name}.csv", *how, "--out", f"{name}.json")[0] == 0
    a, b, alike = ([*_json(f"{name}.json")["metrics"].values()] for name in ("a", "b", "alike"))
    assert a == b != alike


def test_without_the_weights_of_its_rows_a_task_is_evaluated_with_rows_that_count_alike(cli, write, evaluate):
    rows = [f"{i % 7},{i % 3}.5,{1 + i % 2},{i % 5 > 1:d}" for i in range(40)]
    task = "# @package _global_\ndata: {source: table, path: a.csv, exclude: [flag]}\n" \
        "tasks: {y: {kind: regression, sample_weight: w}, z: {kind: regression, target: y, mask_by: {flag: 1}}}\n" \
        "trainer: {max_epochs: 1}\n"  # fmt: skip
    for name, columns in {"a": (0, 1, 2, 3), "none": (0, 1)}.items():
        lines = [",".join([line.split(",")[i] for i in columns]) for line in ("x,y,w,flag", *rows)]
        write({f"{name}.csv": "\n".join(lines) + "\n"})
    ones = [line.split(",") for line in rows]
    write({
        "ones.csv": "\n".join(["x,y,w,flag", *(f"{x},{y},1,{flag}" for x, y, _, flag in ones)]) + "\n",
        "conf/task/weighted.yaml": task,
    })  # fmt: skip
    assert cli("--config-dir", "conf", "task=weighted", "hydra.run.dir=run").code == 0
    told = {}
    for name in ("a", "ones", "none"):
        code, _, told[name] = evaluate("run", "--data", f"{name}.csv", "--out", f"{name}.json")
        assert code == 0
    assert told["ones"] == ""
    assert told["none"].startswith(
        "note: task 'z': not evaluated, no column 'flag' in none.csv.\n"
        "note: task 'y': no column 'w' in none.csv; all its labelled rows are evaluated and count alike in its loss.\n"
    )
    metrics = {name: _json(f"{name}.json")["metrics"] for name in told}
    of_y = {name: {key: value for key, value in own.items() if "/y/" in key} for name, own in metrics.items()}
    assert of_y["none"] == of_y["ones"]
    assert {key for key in of_y["a"] if of_y["a"][key] != of_y["none"][key]} == {"data/y/loss"}


@pytest.mark.parametrize("kind", ["multiclass", "multiclass, num_classes: 3", "multilabel"])
def test_a_class_that_a_model_has_not_is_no_reason_to_declare_it(cli, write, evaluate, kind):
    rows = [f"{i % 7},{i % 3}" for i in range(40)]
    write({
        "a.csv": "\n".join(["x,y", *(row + ";0" * (kind == "multilabel") for row in rows)]) + "\n",
        "b.csv": "\n".join(["x,y", *rows, "1,9"]) + "\n",
        "conf/task/few.yaml": "# @package _global_\ndata: {source: table, path: a.csv}\n"
        f"tasks: {{y: {{kind: {kind}}}}}\ntrainer: {{max_epochs: 1}}\n",
    })  # fmt: skip
    assert cli("--config-dir", "conf", "task=few", "hydra.run.dir=run").code == 0
    code, _, err = evaluate("run", "--data", "b.csv")
    assert (code, err.split(" is not among ")[1]) == (
        2,
        "the classes 0, 1, 2, which are those that it was trained on. Known: 0, 1, 2. Correct the cell, or empty it: a "
        "row without a label does not count for the task.\n",
    )
