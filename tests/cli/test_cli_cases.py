"""Bug reports of other tools, from the file to the prediction: each behaves as it should, named by its case."""

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from worlds import BASE, BASE_TRAIN, BASE_VAL, base_table, three_kind_rows

from mtl_cli import load_run
from mtl_cli.commands import evaluate, predict
from mtl_cli.commands.entry import run
from mtl_cli.data.batches import plan_epoch
from mtl_cli.registry import SOURCES

RUN = ["--config-dir", "conf", "task=base", "hydra.run.dir=run"]
CATEGORY = "data.inputs=[x1,x2,x3,{name: country, type: category}]"


@pytest.fixture
def predicted(capsys):
    """Runs mtl-predict: the table it writes, and what it says on standard error; or the error."""

    def call(data, folder="run", out="pred.csv", code=0):
        capsys.readouterr()
        assert run(predict.predict, [str(folder), "--data", data, "--out", out, "--overwrite"]) == code
        err = capsys.readouterr().err
        return (pl.read_csv(out, infer_schema=False), err) if code == 0 else err

    return call


def _losses(folder):
    lines = map(json.loads, Path(folder, "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if "/" in key} for line in lines]


def test_only_listed_markers_are_missing_from_the_report_to_the_vocabulary(cli, base, predicted):  # DAT-01
    countries = ["NA", "FR", "None", "US", "NA", "FR", "US", "None"]
    base(country=countries, val={"country": ["NA", "FR", "None", "null"]})
    ended = cli(*RUN, CATEGORY, "data.id=country")
    assert ended.code == 2  # the id cannot be an input too
    ended = cli(*RUN, CATEGORY)
    assert ended.code == 0, ended.err
    assert re.search(r"^country +category +0 +NA +input$", ended.out, re.MULTILINE)
    assert "unknown from training: 'null' (1)" in ended.out
    assert load_run("run").features.categorical[0].values == ("FR", "NA", "None", "US")
    assert predicted("train.csv")[1] == ""
    ended = cli(*RUN[:-1], "hydra.run.dir=b", CATEGORY, "data.missing=['',NA]")
    assert re.search(r"^country +category +3 \(NA 3\)", ended.out, re.MULTILINE)  # two of training, one of validation


def test_long_ids_come_back_byte_for_byte_and_are_different_categories(cli, base, predicted):  # DAT-02, DAT-27
    ids = ["1234567890123456789", "1234567890123456790", "", "12345678901234567890", "005", "1e3", "7.0", "8"]
    base(id=ids)
    assert cli(*RUN).code == 0
    table, _ = predicted("train.csv")
    assert table["id"].fill_null("").to_list() == ids
    Path("train.csv").write_text(base_table(BASE_TRAIN, code=ids))
    Path("val.csv").write_text(base_table(BASE_VAL, code=ids[:4]))
    assert cli(*RUN[:-1], "hydra.run.dir=c", "data.inputs=[x1,x2,x3,{name: code, type: category}]").code == 0
    assert set(load_run("c").features.categorical[0].values) == {*ids} - {""}


@pytest.mark.parametrize("header", ["id,x1,x2,x1,x4,ya,yb", "x1,id,x1,x1.1,x4,ya,yb"])
def test_doubled_names_stop_before_anything_is_trained(cli, base, header):  # DAT-03
    base()
    Path("train.csv").write_text("\n".join([header, *base_table(BASE_TRAIN).splitlines()[1:]]) + "\n")
    ended = cli(*RUN)
    assert (ended.code, Path("run").exists()) == (2, False)
    assert ended.err.startswith("train.csv: the header has column 'x1' more than once, at positions ")


def test_byte_order_mark_changes_no_digit(cli, base, predicted):  # DAT-04
    base()
    Path("plain.csv").write_bytes(Path("val.csv").read_bytes())
    assert cli(*RUN).code == 0
    expected, _ = predicted("plain.csv")
    for name in ("train.csv", "val.csv"):
        text = Path(name).read_text()
        quoted = ",".join(f'"{cell}"' for cell in text.splitlines()[0].split(","))
        Path(name).write_text("\ufeff" + text.replace(text.splitlines()[0], quoted), encoding="utf-8")
    assert cli(*RUN[:-1], "hydra.run.dir=bom").code == 0
    assert _losses("bom") == _losses("run")
    table, _ = predicted("val.csv", "bom")
    assert table.equals(expected)
    headless = {name: text.split("\n", 1)[1] for name in ("train.csv", "val.csv") if (text := Path(name).read_text())}
    for name, text in headless.items():
        Path(name).write_text("\ufeff" + text, encoding="utf-8")
    names = ["data.header=false", "data.columns=[id,x1,x2,x3,x4,ya,yb]"]
    assert cli(*RUN[:-1], "hydra.run.dir=none", *names).code == 0
    assert _losses("none") == _losses("run")
    assert predicted("val.csv", "none")[0].equals(expected)  # as the training read its files


def test_european_numbers_are_refused_by_default_and_equal_once_declared(cli, base, predicted):  # DAT-08
    base()
    assert cli(*RUN).code == 0
    prices = ["1.299,99", "12,50", "0,5", "7", "1.000", "20,25", "3,75", "999,99"]
    plain = [1299.99, 12.5, 0.5, 7.0, 1000.0, 20.25, 3.75, 999.99]
    for name, rows, cells in (("train.csv", BASE_TRAIN, prices), ("val.csv", BASE_VAL, prices[:4])):
        text = base_table(rows).replace(",", ";").replace(".", ",")
        lines = [f"{line};{cell}" for line, cell in zip(text.splitlines(), ["price", *cells], strict=True)]
        Path(name).write_text("\n".join(lines) + "\n")
    refused = cli(*RUN[:-1], "hydra.run.dir=a", "data.sep=';'")
    assert refused.code == 2
    assert re.search(r"train.csv, column 'x1', row 1 \(line 2\): .*got '0,1'", refused.err)
    assert "data.decimal" in refused.err
    signs = ["data.sep=';'", "data.decimal=','", "data.thousands=."]
    assert cli(*RUN[:-1], "hydra.run.dir=b", *signs).code == 0
    assert _losses("b") == _losses("run")
    ended = cli(*RUN[:-1], "hydra.run.dir=c", *signs, "data.inputs=[price]", "data.scale=none", "input_dim=1")
    assert ended.code == 0, ended.err
    (column,) = load_run("c").features.numeric
    assert column.name == "price"
    assert predicted("val.csv", "c")[0].height == 4
    table = SOURCES.build("table", path="train.csv", sep=";", decimal=",", thousands=".").read()
    assert table.frame["price"].cast(pl.Float64).to_list() == plain


def test_us_thousands_are_never_one(cli, base):  # DAT-08
    base(x1=[f'"{number}"' for number in ["1,234", "5", "12", "7,000", "1", "2", "3", "4"]])
    refused = cli(*RUN)
    assert refused.code == 2
    assert "train.csv, column 'x1', row 1 (line 2)" in refused.err
    assert "got '1,234'" in refused.err
    assert cli(*RUN, "data.thousands=','").code == 0


TEXTS = """\
# @package _global_
defaults: [{override /encoder: text}, _self_]
shared_dim: 8
data: {source: table, train: train.csv, val: train.csv, id: id, inputs: [{name: text, type: text}], batch_size: 2}
tasks:
  good: {kind: binary, classes: ["no", "yes"]}
trainer: {max_epochs: 2}
"""


def test_line_break_in_a_text_is_one_row(cli, write, predicted):  # DAT-10
    rows = 'id,text,good\n1,fine,yes\n2,"first line\nsecond, line",no\n3,bad,no\n'
    write({"train.csv": rows, "conf/task/base.yaml": TEXTS})
    ended = cli(*RUN)
    assert ended.code == 0, ended.err
    assert "rows: 3 train, 3 val" in ended.out
    assert predicted("train.csv")[0]["id"].to_list() == ["1", "2", "3"]
    write({"stray.csv": 'id,text,good\n1,fine,yes\n2,"first,no\n3,bad,no\n4,worse,no\n'})
    assert "stray.csv, line 3: " in predicted("stray.csv", code=2)
    assert "stray.csv, line 3: " in cli(*RUN[:-1], "hydra.run.dir=s", "data.train=stray.csv").err


def test_wrong_separator_and_no_header_are_told(cli, base):  # DAT-11
    base()
    tabs = base_table(BASE_TRAIN).replace(",", "\t")
    Path("train.csv").write_text(tabs)
    refused = cli(*RUN)
    assert refused.code == 2
    assert refused.err.startswith("train.csv: one column found with separator ',', got header 'id\\tx1\\tx2")
    assert 'Set data.sep="\\t".' in refused.err
    for name, rows in (("train.csv", BASE_TRAIN), ("val.csv", BASE_VAL)):
        Path(name).write_text(base_table(rows).split("\n", 1)[1])
    refused = cli(*RUN)
    assert refused.code == 2
    Path("val.csv").write_text(Path("train.csv").read_text())
    refused = cli(*RUN)
    assert "tasks.a.target: no column 'ya' in train.csv, val.csv." in refused.err
    assert "The first line was read as the header: 1, 0.1, 0.2, 0.3, 0.4." in refused.err
    ended = cli(*RUN, "data.header=false", "data.columns=[id,x1,x2,x3,x4,ya,yb]")
    assert ended.code == 0, ended.err
    assert "rows: 8 train, 8 val" in ended.out


@pytest.mark.parametrize("x3", [[0.5] * 8, [0.5, "", 0.5, "", 0.5, 0.5, 0.5, 0.5]])
def test_constant_input_is_zero_and_finite(cli, base, predicted, x3):  # DAT-12
    base(x3=x3, val={"x3": [0.7, 0.5, 0.5, 0.5]})
    ended = cli(*RUN, "data.scale=standard")
    assert ended.code == 0, ended.err
    assert ended.out.count("column 'x3': the value is the same in all training rows") == 1
    assert all(np.isfinite(value) for line in _losses("run") for key, value in line.items() if key.endswith("loss"))
    values = predicted("val.csv")[0].drop("id", "b_pred").cast(pl.Float64)
    assert np.isfinite(values.to_numpy()).all()


NPZ = BASE.replace("{source: table, train: train.csv, val: val.csv, id: id, inputs: [x1, x2, x3, x4], missing: [\"\"],", "{source: npz, train: m.npz, val: v.npz, inputs: [X],")  # fmt: skip  # noqa: E501


def test_archives_of_other_tools(cli, write):  # DAT-16
    write({"conf/task/base.yaml": NPZ})
    x = np.array([row[1:5] for row in BASE_TRAIN])
    columns = {"ya": np.array([row[5] for row in BASE_TRAIN]), "yb": np.array([row[6] for row in BASE_TRAIN])}
    np.savez("v.npz", X=x, **columns)
    np.savez("m.npz", X=x.astype(object), **columns)
    assert cli(*RUN).err.startswith("m.npz, array 'X': holds Python objects, which are not read.")
    np.savez("m.npz", X=x, ya=columns["ya"][:7], yb=columns["yb"])
    assert cli(*RUN).err.startswith("m.npz: the arrays differ in length: 'X' 8, 'ya' 7, 'yb' 8.")
    for dtype in ("float32", "float64"):
        np.savez("m.npz", X=x.astype(dtype), **columns)
        ended = cli(*RUN[:-1], f"hydra.run.dir={dtype}")
        assert ended.code == 0, ended.err
    assert _losses("float32") == _losses("float64")
    assert cli(*RUN, "data.train=m").err == f"m: no such file, looked for {Path.cwd()}/m. Did you mean 'm.npz'?\n"
    np.savez("m.npz", X=x, ya=columns["ya"])
    assert "there is no array 'yb' in m.npz. Known: X, ya." in cli(*RUN, "data.arrays=[X,ya,yb]").err


def test_text_is_text_whatever_it_looks_like(cli, write, predicted):  # DAT-22
    texts = ["good", "", "5", "NA", "1e3", " "]
    rows = "id,text,good\n" + "".join(f"{i},{text},{'no' if i % 2 else 'yes'}\n" for i, text in enumerate(texts))
    write({"train.csv": rows, "conf/task/base.yaml": TEXTS})
    ended = cli(*RUN, "data.shuffle=false")
    assert (ended.code, ended.err) == (0, "")
    table, err = predicted("train.csv")
    assert table.height == 6
    assert "column 'text': 1 cell is missing" in err
    write({"blank.csv": "id,text,good\n1,,no\n2,,yes\n"})
    ended = cli(*RUN[:-1], "hydra.run.dir=b", "data.train=blank.csv")
    assert ended.code == 0, ended.err  # a batch of blanks alone
    assert all(value is not None for line in _losses("b") for key, value in line.items() if key.endswith("loss"))


def test_no_run_ends_without_a_step(cli, base):  # DAT-23
    base()
    Path("train.csv").write_text(base_table(BASE_TRAIN[:3]))
    ended = cli(*RUN, "data.drop_last=true")
    assert ended.code == 0, ended.err
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 2  # the only batch is kept
    for name in ("train.csv", "val.csv"):
        base()
        Path(name).write_text(base_table([]))
        refused = cli(*RUN[:-1], "hydra.run.dir=e")
        assert (refused.code, refused.err.startswith(f"{name}: holds no rows.")) == (2, True)


def test_every_row_trains_once_per_epoch(cli, base, tmp_path):  # DAT-24
    base()
    Path("train.csv").write_text(base_table([*BASE_TRAIN, (9, *BASE_TRAIN[0][1:]), (10, *BASE_TRAIN[1][1:])]))
    ended = cli(*RUN, "data.batch_size=3", "trainer.max_epochs=3")
    assert "rows: 10 train" in ended.out
    assert "4 steps per epoch" in ended.out
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 12
    rows = three_kind_rows(10)
    for epoch in range(3):
        plan = plan_epoch(rows, epoch, batch_size=3, weights=np.ones(3), seed=0)
        assert [stop - start for start, stop in plan.bounds] == [3, 3, 3, 1]
        assert sorted(plan.order.tolist()) == list(range(10))


def test_an_equals_sign_in_a_path_is_quoted_or_asked_to_be(cli, base, predicted):  # CFG-01
    base()
    assert cli(*RUN[:-1], "hydra.run.dir='runs/epoch=3-step=9'").code == 0
    assert predicted("val.csv", "runs/epoch=3-step=9")[0].height == 4
    assert not re.search(r"[= \[\]]", "".join(path.name for path in Path("runs/epoch=3-step=9").rglob("*")))
    ended = cli("resume=runs/epoch=3-step=9")
    assert ended.err == (
        "command line: cannot read the value of 'resume=runs/epoch=3-step=9'. "
        "Quote it: 'resume=\"runs/epoch=3-step=9\"'.\n"
    )
    assert cli('resume="runs/epoch=3-step=9"', "trainer.max_epochs=3").code == 0


def test_yes_and_no_are_text_or_refused(cli, base):  # CFG-04
    text = BASE.replace("kind: multiclass, target: yb, num_classes: 3", "kind: binary, target: yb, classes: [no, yes]")
    labels = {"yb": ["yes", "no"] * 4, "val": {"yb": ["yes", "no"] * 2}}
    base(text, **labels)
    refused = cli(*RUN)
    assert refused.code == 2
    assert "tasks.b.classes" in refused.err
    assert "quotes" in refused.err
    base(text.replace("[no, yes]", '["no", "yes"]'), **labels)
    assert cli(*RUN).code == 0
    base(BASE.replace("kind: multiclass, target: yb, num_classes: 3", "kind: binary, target: yb"), **labels)
    assert cli(*RUN[:-1], "hydra.run.dir=b", "+tasks.b.classes=[no,yes]").code == 0  # text on the command line
    assert [task.kind.classes for task in load_run("b").tasks if task.name == "b"] == [["no", "yes"]]


@pytest.mark.parametrize(
    ("old", "new", "overrides", "message"),
    [
        ("", "", ["+trainer.lerning_rate=1"], "trainer.lerning_rate (command line): unknown key. Did you mean '"),
        ("{max_epochs: 2}", "{lerning_rate: 1}", [], "trainer.lerning_rate (conf/task/base.yaml, line 9): unknown key"),
        ("num_classes: 3", "wieght: 5", [], "tasks.b.wieght (conf/task/base.yaml, line 8): unknown key. Did you mean"),
    ],
)
def test_mistyped_key_is_refused_before_data_are_read(cli, write, old, new, overrides, message):  # CFG-05
    write({"conf/task/base.yaml": BASE.replace(old, new) if old else BASE})  # and no data
    ended = cli(*RUN, *overrides)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert ended.err.startswith(message)


def test_every_value_still_to_come_is_listed(cli, write, tmp_path):  # CFG-06
    text = BASE.replace("train: train.csv", "train: '???'").replace("{max_epochs: 2}", "{max_epochs: '${.b}'}")
    write({"conf/task/base.yaml": text.replace("shared_dim: 8", "shared_dim: ${paths.root}")})
    ended = cli(*RUN)
    assert ended.code == 2
    for place in ("shared_dim (conf/task/base.yaml, line 3): cannot be resolved, got '${paths.root}'",
                  "data.train (conf/task/base.yaml, line 4): must be set, got ???",
                  "trainer.max_epochs (conf/task/base.yaml, line 9): cannot be resolved, got '${.b}'"):  # fmt: skip
        assert place in ended.err
    assert not (tmp_path / "run").exists()


def test_predict_from_another_folder_finds_its_files_from_there(cli, base, predicted, monkeypatch):  # CFG-07
    base()
    assert cli(*RUN).code == 0
    expected, _ = predicted("val.csv")
    Path("else").mkdir()
    monkeypatch.chdir("else")
    assert predicted("../val.csv", "../run")[0].equals(expected)


@pytest.mark.parametrize("name", ["type", "keys", "forward", "train", "items", "shared", "data"])
def test_any_allowed_name_of_a_task_goes_through_all_commands(cli, base, predicted, capsys, name):  # CFG-09
    base(BASE.replace("  a: {", f"  {name}: {{"))
    assert cli(*RUN, "trainer.max_epochs=1").code == 0
    assert cli("resume=run", "trainer.max_epochs=2").code == 0
    assert f"{name}_pred" in predicted("val.csv")[0].columns
    assert run(evaluate.evaluate, ["run", "--data", "val.csv", "--out", "m.json"]) == 0
    assert f"data/{name}/r2" in json.loads(Path("m.json").read_text())["metrics"]


def test_r2_does_not_depend_on_batches_and_one_row_has_none(cli, base, capsys):  # MET-05
    base()
    assert cli(*RUN).code == 0
    for rows, expected in ((BASE_VAL, float), (BASE_VAL[:1], type(None))):
        Path("e.csv").write_text(base_table(rows))
        assert run(evaluate.evaluate, ["run", "--data", "e.csv", "--out", "m.json", "--overwrite"]) == 0
        metrics = json.loads(Path("m.json").read_text())["metrics"]
        assert all(isinstance(metrics[f"data/a/{metric}"], expected) for metric in ("r2", "pearson"))
    Path("e.csv").write_text(base_table(BASE_VAL, ya=[-5.16, -5.1601, -5.1599, -5.16]))
    assert run(evaluate.evaluate, ["run", "--data", "e.csv", "--out", "m.json", "--overwrite"]) == 0
    assert json.loads(Path("m.json").read_text())["metrics"]["data/a/r2"] < 1


def test_unknown_category_is_refused_where_that_is_asked(cli, base, predicted):  # PRD-02
    base(country=["FR", "US", "NA"] * 2 + ["FR", "US"], val={"country": ["FR", "US", "NA", "FR"]})
    assert cli(*RUN, CATEGORY, "data.unknown=error").code == 0
    Path("new.csv").write_text(base_table(BASE_VAL, country=["US", "DE", "", "US"]))
    hint = "or train with data.unknown=other.\n"
    assert predicted("new.csv", code=2) == (
        "new.csv, column 'country', row 2 (line 3): holds a category that no training row has, got 'DE'. "
        f"Known: FR, NA, US. Correct it, {hint}"
        f"new.csv, column 'country', row 3 (line 4): is missing, which it is in no training row. Fill it, {hint}"
    )
    assert not Path("pred.csv").exists()
    Path("val.csv").write_text(Path("new.csv").read_text())
    assert "val.csv, column 'country', row 2 (line 3)" in cli(*RUN[:-1], "hydra.run.dir=b", CATEGORY, "data.unknown=error").err  # fmt: skip  # noqa: E501
    refused = cli(*RUN[:-1], "hydra.run.dir=b", CATEGORY, "data.unknown=error", "data.min_count=2")
    assert refused.err.startswith("data.unknown (command line): is 'error', where data.min_count=2 makes categories")
    assert cli(*RUN[:-1], "hydra.run.dir=c", CATEGORY).code == 0
    table, err = predicted("new.csv", "c")
    assert "'DE' (1)" in err
    assert table.height == 4


def test_files_of_one_split_in_several_formats_are_one_table(cli, base, predicted):
    base()
    assert cli(*RUN).code == 0
    first, second = base_table(BASE_TRAIN[:3]), base_table(BASE_TRAIN[3:])
    Path("a.csv.gz").write_bytes(gzip.compress(first.encode()))
    Path("b.tsv").write_text(second.replace(",", "\t"))
    assert cli(*RUN[:-1], "hydra.run.dir=two", "data.train=[a.csv.gz,b.tsv]").code == 0
    assert _losses("two") == _losses("run")
    frame = pl.read_csv("train.csv")
    frame.write_parquet("t.parquet")
    frame.write_ipc("t.feather")
    frame.write_ndjson("t.jsonl")
    expected, _ = predicted("train.csv")
    for name in ("t.parquet", "t.feather", "t.jsonl"):
        table, err = predicted(name)
        assert err == ""
        assert table.equals(expected)
    shutil.rmtree("run")
