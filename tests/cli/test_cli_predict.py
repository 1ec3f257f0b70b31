"""mtl-predict: any table in, one row out for each, in the user's units and class names."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score, roc_auc_score
from worlds import BASE, BASE_TRAIN, BASE_VAL, base_table

from mtl_cli import load_run
from mtl_cli import trained as trained_module
from mtl_cli.build import build_source
from mtl_cli.cli import run_command
from mtl_cli.commands import predict as command
from mtl_cli.commands.entry import run
from mtl_cli.errors import ConfigError, UserError
from mtl_cli.loop.evaluate import rows_at_once
from mtl_cli.run import digest
from mtl_cli.run.atomic import TEMPORARY_SUFFIX

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ADULT = SHARED / "adult" / "adult.parquet"
TRAIN, VAL = base_table(BASE_TRAIN), base_table(BASE_VAL)
TASK = BASE.replace("input_dim: 4", "input_dim: null")  # for other columns too


@pytest.fixture(scope="module")
def trained_base(tmp_path_factory):
    """TASK, trained once for all tests that take it as it is."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "conf/task").mkdir(parents=True)
        for name, text in {"train.csv": TRAIN, "val.csv": VAL, "conf/task/base.yaml": TASK}.items():
            (folder / name).write_text(text)
        assert run_command(["--config-dir", "conf", "task=base", "hydra.run.dir=run"]) == 0
    return folder


@pytest.fixture
def train_base(cli, write, trained_base, tmp_path):
    """Trains TASK, with other rows or keys if given, into ``run``."""

    def train(*overrides, train=TRAIN, val=VAL):
        if (overrides, train, val) == ((), TRAIN, VAL):
            shutil.copytree(trained_base, tmp_path, dirs_exist_ok=True)
            return
        write({"train.csv": train, "val.csv": val, "conf/task/base.yaml": TASK})
        ended = cli("--config-dir", "conf", "task=base", "hydra.run.dir=run", *overrides)
        assert ended.code == 0, ended.err

    return train


@pytest.fixture
def predict(capsys):
    """Runs mtl-predict: exit code, standard output, standard error."""

    def call(*arguments):
        capsys.readouterr()
        code = run(command.predict, [str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def _table(name="pred.csv"):
    return pl.read_csv(name, infer_schema=False)


def test_one_row_for_each_row_in_order(train_base, predict):
    train_base()
    best = json.loads(Path("run/summary.json").read_text())["best"]["epoch"]
    assert predict("run", "--data", "val.csv", "--out", "pred.csv") == (
        0, f"4 rows of val.csv predicted with the best weights (epoch {best}): pred.csv\n", "",
    )  # fmt: skip
    table = _table()
    assert table.columns == ["id", "a_pred", "b_pred", "b_prob_0", "b_prob_1", "b_prob_2"]
    assert table["id"].to_list() == ["101", "102", "103", "104"]
    chances = table[:, 3:].cast(pl.Float64).to_numpy()
    np.testing.assert_allclose(chances.sum(1), 1.0, atol=1e-12)
    assert table["b_pred"].to_list() == [str(i) for i in chances.argmax(1)]
    assert not list(Path().glob(".*"))


def test_labels_order_and_other_columns_do_not_matter(train_base, predict, tmp_path):
    train_base()
    predict("run", "--data", "val.csv", "--out", "whole.csv")
    frame = pl.read_csv("val.csv", infer_schema=False)
    frame.select("x4", "id", pl.lit("?").alias("more"), "x2", "x1", "x3").write_csv("other.csv")
    assert predict("run", "--data", "other.csv", "--out", "other_pred.csv")[0] == 0
    assert Path("other_pred.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_moved_run_needs_neither_its_data_nor_its_folder(train_base, predict, tmp_path):
    train_base()
    predict("run", "--data", "val.csv", "--out", "before.csv")
    shutil.move("run", tmp_path / "else where")
    shutil.copy("val.csv", "new.csv")
    for name in ("train.csv", "val.csv"):
        Path(name).unlink()
    assert predict("else where", "--data", "new.csv", "--out", "after.csv")[0] == 0
    assert Path("after.csv").read_bytes() == Path("before.csv").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_ids_are_kept_as_they_are(train_base, predict, suffix):
    train_base()
    ids = ["007", " 7", "90071992547409931234", "", 'a "b", c', "NA"]
    lines = [f'"{one.replace(chr(34), chr(34) * 2)}",0.1,0.2,0.3,0.4' for one in ids]
    Path("new.csv").write_text("id,x1,x2,x3,x4\n" + "\n".join(lines) + "\n")
    assert predict("run", "--data", "new.csv", "--out", f"p.{suffix}")[0] == 0
    if suffix == "parquet":
        table = pl.read_parquet("p.parquet")
    else:
        with Path(f"p.{suffix}").open(newline="") as file:
            header, *rows = csv.reader(file, delimiter="," if suffix == "csv" else "\t")
        table = pl.DataFrame(rows, schema=header, orient="row")
    assert table["id"].to_list() == ids
    assert table.columns[1:3] == ["a_pred", "b_pred"]


def test_rows_are_numbered_where_there_is_no_id(train_base, predict):
    train_base("data.id=null")
    assert predict("run", "--data", "val.csv", "--out", "pred.csv")[0] == 0
    assert _table().columns[0] == "row"
    assert _table()["row"].to_list() == ["1", "2", "3", "4"]
    assert predict("run", "--data", "val.csv", "--out", "pred.parquet", "--id", "id")[0] == 0
    assert pl.read_parquet("pred.parquet")["id"].to_list() == ["101", "102", "103", "104"]


def test_binary_has_the_probability_of_its_positive_class_and_ordinal_its_levels(cli, customers, predict):
    assert cli("--config-dir", "conf", "task=customers", "hydra.run.dir=run").code == 0
    assert predict("run", "--data", "customers.csv", "--out", "p.parquet")[0] == 0
    table = pl.read_parquet("p.parquet")
    assert table.columns == [
        "customer", "churned_pred", "churned_prob_yes", "income_pred",
        "segment_pred", "segment_prob_A", "segment_prob_B", "segment_prob_C",
        "size_pred", "size_prob_S", "size_prob_M", "size_prob_L",
    ]  # fmt: skip
    yes = table["churned_prob_yes"] > 0.5
    assert table["churned_pred"].to_list() == ["yes" if one else "no" for one in yes]
    assert set(table["size_pred"]) <= set("SML")
    assert table["income_pred"].is_between(100, 10_000).all()  # euros, not logarithms


def test_names_that_meet_are_told_apart(train_base, predict):
    train_base("data.id=a_pred", train=TRAIN.replace("id,", "a_pred,"), val=VAL.replace("id,", "a_pred,"))
    assert predict("run", "--data", "val.csv", "--out", "pred.csv")[0] == 0
    assert _table().columns[:2] == ["a_pred", "a_pred_2"]
    assert _table()["a_pred"].to_list() == ["101", "102", "103", "104"]


def _with_country(text, values):
    lines = text.splitlines()
    cells = ["country", *values]
    return "\n".join(f"{line},{cell}" for line, cell in zip(lines, cells, strict=True)) + "\n"


COUNTRY = ("data.inputs=[x1,x2,x3,x4,country]",)


def test_unseen_category_counts_as_unknown_and_is_told(train_base, predict):  # PRD-02
    train_base(*COUNTRY, train=_with_country(TRAIN, ["FR", "US", "NA"] * 2 + ["US", "NA"]), val=_with_country(VAL, ["FR", "US", "NA", "US"]))  # fmt: skip  # noqa: E501
    Path("seen.csv").write_text(_with_country(VAL, ["FR", "US", "NA", "US"]))
    Path("new.csv").write_text(_with_country(VAL, ["FR", "DE", "", "US"]))
    predict("run", "--data", "seen.csv", "--out", "seen_pred.csv")
    code, _, err = predict("run", "--data", "new.csv", "--out", "pred.csv")
    assert (code, err) == (
        0,
        "note: new.csv, column 'country': 1 cell is missing.\n"
        "note: new.csv, column 'country': 1 cell holds a category unknown from training: 'DE' (1).\n",
    )
    assert _table().rows()[0] == _table("seen_pred.csv").rows()[0]
    assert _table().rows()[3] == _table("seen_pred.csv").rows()[3]


def test_counts_are_of_the_whole_file(train_base, predict, monkeypatch):  # PRD-02
    monkeypatch.setitem(rows_at_once.__globals__, "EVALUATION_ROWS", 16)
    monkeypatch.setattr("mtl_cli.trained._CELLS", 1)
    train_base(*COUNTRY, train=_with_country(TRAIN, ["FR", "US"] * 4), val=_with_country(VAL, ["FR", "US"] * 2))
    body = "".join(f"{i},0.1,0.2,0.3,0.4,{'DE' if i % 2 else 'FR'}\n" for i in range(100))
    Path("new.csv").write_text("id,x1,x2,x3,x4,country\n" + body)
    for out in ("p.csv", "p.parquet"):
        code, text, err = predict("run", "--data", "new.csv", "--out", out)
        assert (code, text.split(" ")[0]) == (0, "100")
        assert err == "note: new.csv, column 'country': 50 cells hold a category unknown from training: 'DE' (50).\n"
    assert pl.read_parquet("p.parquet")["id"].to_list() == [str(i) for i in range(100)]
    assert pl.read_parquet("p.parquet")["a_pred"].to_list() == _table("p.csv")["a_pred"].cast(pl.Float64).to_list()


def test_fewer_rows_are_held_at_once_where_much_is_predicted_of_each(train_base, monkeypatch):
    monkeypatch.setitem(rows_at_once.__globals__, "EVALUATION_ROWS", 2)
    monkeypatch.setattr("mtl_cli.trained._CELLS", 12)  # six rows of two inputs, but three of four outputs
    train_base("data.inputs=[x1,x2]")
    rows = pl.DataFrame({"id": range(8), "x1": [0.5] * 8, "x2": [0.1] * 8})
    rows.write_csv("new.csv")
    trained = load_run("run")
    frames = trained.predictions(build_source(trained.config, "new.csv", None))
    assert [frame.height for frame in frames] == [2, 2, 2, 2]


def test_a_row_is_predicted_alike_alone_reversed_and_in_the_file(train_base, predict):  # PRD-03
    train_base(*COUNTRY, train=_with_country(TRAIN, list("abcabcab")), val=_with_country(VAL, list("abca")))
    whole = pl.read_csv("val.csv", infer_schema=False).with_columns(country=pl.Series(["a", "c", "a", "c"]))
    whole.write_csv("whole.csv")
    predict("run", "--data", "whole.csv", "--out", "pred.csv")
    expected = _table().select("id", pl.exclude("id", "b_pred").cast(pl.Float64))
    parts = {"reversed": whole.reverse(), **{f"row{i}": whole[i : i + 1] for i in range(4)}}
    for name, part in parts.items():
        part.write_csv(f"{name}.csv")
        predict("run", "--data", f"{name}.csv", "--out", f"{name}_pred.csv")
        found = _table(f"{name}_pred.csv").select("id", pl.exclude("id", "b_pred").cast(pl.Float64))
        joined = found.join(expected, on="id", how="left", maintain_order="left")
        same = joined[:, 1 : len(expected.columns)].to_numpy()
        np.testing.assert_allclose(same, joined[:, len(expected.columns) :].to_numpy(), atol=1e-6)


def test_predictions_are_in_the_units_of_each_task(train_base, predict):  # PRD-05
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 4))
    ya, yc = 1000 + 100 * x[:, 0], 0.1 + 0.01 * x[:, 1]
    lines = [
        f"{i}," + ",".join(f"{v:.4f}" for v in x[i]) + f",{'' if i % 7 == 0 else ya[i]},{'' if i % 5 == 0 else yc[i]},3"
        for i in range(200)
    ]
    header = "id,x1,x2,x3,x4,ya,yc,constant"
    overrides = ["tasks={a:{kind:regression,target:ya},c:{kind:regression,target:yc},k:{kind:regression,target:constant}}"]  # fmt: skip  # noqa: E501
    text = "\n".join([header, *lines[:150]]) + "\n", "\n".join([header, *lines[150:]]) + "\n"
    train_base("+" + overrides[0], "~tasks.b", "data.batch_size=32", "trainer.max_epochs=5", train=text[0], val=text[1])
    predict("run", "--data", "val.csv", "--out", "with.csv")
    pl.read_csv("val.csv", infer_schema=False).drop("ya", "yc", "constant").write_csv("bare.csv")
    predict("run", "--data", "bare.csv", "--out", "without.csv")
    assert Path("with.csv").read_bytes() == Path("without.csv").read_bytes()
    table = _table("with.csv").cast(pl.Float64)
    summary = json.loads(Path("run/summary.json").read_text())["metrics"]
    for name, truth, every, middle in (("a", ya, 7, 1000), ("c", yc, 5, 0.1)):
        labelled = np.array([i % every != 0 for i in range(150, 200)])
        error = mean_absolute_error(truth[150:][labelled], table[f"{name}_pred"].to_numpy()[labelled])
        assert error == pytest.approx(summary[f"val/{name}/mae"], rel=1e-5)
        assert table[f"{name}_pred"].mean() == pytest.approx(middle, rel=0.15)
    np.testing.assert_allclose(table["k_pred"], 3.0, atol=0.5)


def test_one_row_no_rows_and_an_empty_file(train_base, predict):  # PRD-07
    train_base()
    Path("one.csv").write_text("".join(VAL.splitlines(keepends=True)[:2]))
    Path("none.csv").write_text(VAL.splitlines()[0] + "\n")
    Path("empty.csv").touch()
    assert predict("run", "--data", "one.csv", "--out", "one_pred.csv")[0] == 0
    assert _table("one_pred.csv").height == 1
    for out in ("none_pred.csv", "none_pred.parquet"):
        assert predict("run", "--data", "none.csv", "--out", out)[0] == 0
    assert Path("none_pred.csv").read_text() == "id,a_pred,b_pred,b_prob_0,b_prob_1,b_prob_2\n"
    predict("run", "--data", "one.csv", "--out", "one_pred.parquet")
    assert pl.read_parquet("none_pred.parquet").schema == pl.read_parquet("one_pred.parquet").schema
    code, _, err = predict("run", "--data", "empty.csv", "--out", "e.csv")
    assert (code, err.startswith("empty.csv: is an empty file"), Path("e.csv").exists()) == (2, True, False)


def test_a_bad_cell_is_named_with_its_place_in_the_file(train_base, predict, monkeypatch):
    monkeypatch.setitem(rows_at_once.__globals__, "EVALUATION_ROWS", 2)
    monkeypatch.setattr("mtl_cli.trained._CELLS", 1)
    train_base()
    Path("new.csv").write_text(VAL + "105,0.1,0.2,high,0.4,,\n")
    code, _, err = predict("run", "--data", "new.csv", "--out", "pred.csv")
    assert code == 2
    assert err.startswith("new.csv, column 'x3', row 5 (line 6): must be a number, got 'high'.")
    assert not Path("pred.csv").exists()
    assert sorted(path.name for path in Path().iterdir()) == ["conf", "new.csv", "run", "train.csv", "val.csv"]


def test_all_absent_columns_are_named_at_once(train_base, predict):
    train_base()
    Path("new.csv").write_text("idd,x1,xx2,x3\n1,1,1,1\n")
    code, _, err = predict("run", "--data", "new.csv", "--out", "pred.csv")
    assert code == 2
    assert err.splitlines() == [
        "data.inputs: no column 'x2' in new.csv. Did you mean 'xx2'?",
        "data.inputs: no column 'x4' in new.csv. Known: idd, x1, x3, xx2.",
        "data.id: no column 'id' in new.csv. Did you mean 'idd'? Or number the rows with --id -.",
    ]


def test_other_decimal_signs_are_read_as_in_training(train_base, predict):
    def comma(text):
        return text.replace(",", ";").replace(".", ",")

    keys = ("data.sep=';'", 'data.decimal=","')
    train_base(*keys, train=comma(TRAIN), val=comma(VAL))
    Path("new.csv").write_text(comma(VAL).replace("0,2;0,1;0,8", ";;0,8"))
    assert predict("run", "--data", "new.csv", "--out", "pred.csv")[:1] == (0,)
    Path("one.csv").write_text("".join(Path("new.csv").read_text().splitlines(keepends=True)[:2]))
    predict("run", "--data", "one.csv", "--out", "one_pred.csv")
    assert _table("one_pred.csv")["id"].to_list() == ["101"]
    alone, among = _table("one_pred.csv").row(0), _table().row(0)
    assert [float(v) for v in alone] == pytest.approx([float(v) for v in among], abs=1e-6)


def test_a_file_in_other_signs_than_those_of_the_training_is_read_if_they_are_told(train_base, predict):
    train_base()
    predict("run", "--data", "val.csv", "--out", "plain.csv")
    Path("eu.csv").write_text(VAL.replace(",", ";").replace(".", ","), encoding="utf-16")
    arguments = ["run", "--data", "eu.csv", "--out", "pred.csv"]
    assert "Set --encoding, for example to cp1252" in predict(*arguments)[2]
    arguments += ["--encoding", "utf-16"]
    assert predict(*arguments)[2] == (
        "eu.csv: one column found with separator ',', got header 'id;x1;x2;x3;x4;ya;yb'. Set --sep=\";\".\n"
    )
    assert predict(*arguments, "--sep=;")[2].splitlines()[0] == (
        "eu.csv, column 'x1', row 1 (line 2): looks like a number with a decimal comma, got '0,4'. "
        'Set --decimal=",", or make the cell empty.'
    )
    assert predict(*arguments, "--sep=;", "--decimal=,")[:1] == (0,)
    assert _table("pred.csv").equals(_table("plain.csv"))


def test_a_file_in_plain_signs_is_read_by_a_run_that_was_trained_on_others(train_base, predict):
    train_base("data.sep=';'", 'data.decimal=","', train=TRAIN.replace(",", ";").replace(".", ","),
         val=VAL.replace(",", ";").replace(".", ","))  # fmt: skip
    predict("run", "--data", "val.csv", "--out", "own.csv")
    Path("plain.csv").write_text(VAL)
    assert predict("run", "--data", "plain.csv", "--out", "pred.csv", "--sep=,", "--decimal=.")[:1] == (0,)
    assert _table("pred.csv").equals(_table("own.csv"))


def test_rows_without_the_id_column_can_be_numbered(train_base, predict):
    train_base()
    Path("new.csv").write_text(VAL.replace("id,", "nr,"))
    _, _, err = predict("run", "--data", "new.csv", "--out", "pred.csv")
    assert err.startswith("data.id: no column 'id' in new.csv. ")
    assert err.endswith("Or number the rows with --id -.\n")
    assert predict("run", "--data", "new.csv", "--out", "pred.csv", "--id", "-")[0] == 0


def test_notes_about_many_columns_are_folded(train_base, predict):
    names = [f"x{i}" for i in range(30)]
    rows = ["id,ya,yb," + ",".join(names)]
    rows += [f"{r},{r / 10},{r % 3}," + ",".join("" if i < 6 and r == 2 else f"{r * i % 7}" for i in range(30))
             for r in range(8)]  # fmt: skip
    text = "\n".join(rows) + "\n"
    train_base("data.inputs=['*']", train=text, val=text)
    Path("new.csv").write_text(f"{rows[0]}\n1,,,{',' * 29}\n")
    _, _, err = predict("run", "--data", "new.csv", "--out", "pred.csv")
    told = err.splitlines()
    assert told[0] == (
        "note: new.csv: 6 columns have missing cells, as in training: "
        "'x0' (1), 'x1' (1), 'x2' (1), 'x3' (1), 'x4' (1) and 1 more."
    )
    assert told[1] == "note: new.csv, column 'x6': 1 cell is missing."
    assert told[19:] == ["note: and 6 more of this kind."]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--data", "val.csv", "--out", "p.csv", "--decimal", "x"], "--decimal: invalid choice: 'x'"),
        (["run", "--data", "val.csv", "--out", "p.csv", "--sep", ";;"], "--sep: must be one character, not a quote"),
        (["run"], "--data, --out: must be given. Example: mtl-predict runs/churn/NAME --data new.csv --out"),
        (["run", "--data", "val.csv", "--outt", "p.csv"], "--out: must be given. Example: mtl-predict"),
        (["run", "--data", "val.csv", "--out", "p.csv", "--checkpont", "x"], "--checkpont: unknown argument. Did you mean '--checkpoint'?"),  # noqa: E501
        (["run", "--data", "vall.csv", "--out", "p.csv"], "--data vall.csv: no such file, looked for"),
        (["run", "--data", "val.csv", "--out", "p.txt"], "--out: must end with .csv or .tsv or .parquet, got 'p.txt'."),
        (["run", "--data", "val.csv", "--out", "no/p.csv"], "--out: there is no folder 'no'. Make it first."),
        (["run", "--data", "val.csv", "--out", "train.csv"], "--out: there is a file 'train.csv' already. Add --overwrite"),  # noqa: E501
        (["run", "--data", "val.csv", "--out", "val.csv", "--overwrite"], "--out: is the file with the data"),
        (["run", "--data", "val.csv", "--out", "p.csv", "--checkpoint", "bst"], "--checkpoint: run has no 'bst'. Did you mean 'best'?"),  # noqa: E501
        (["run", "--data", "val.csv", "--out", "p.csv", "--device", "gpu"], "--device: must be auto, cpu, cuda, cuda:N or mps, got 'gpu'."),  # noqa: E501
        (["conf", "--data", "val.csv", "--out", "p.csv"], "conf: is not a run folder (no config.yaml or status.json)"),
        (["run/checkpoints/best.pt", "--data", "val.csv", "--out", "p.csv"], "run/checkpoints/best.pt: is not a run folder but a file. Name the folder: run."),  # noqa: E501
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(train_base, predict, arguments, expected):
    train_base()
    code, out, err = predict(*arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err
    assert not Path("p.csv").exists()


def test_an_existing_file_is_replaced_only_if_asked(train_base, predict):
    train_base()
    Path("pred.csv").write_text("precious")
    assert predict("run", "--data", "val.csv", "--out", "pred.csv")[0] == 2
    assert Path("pred.csv").read_text() == "precious"
    assert predict("run", "--data", "val.csv", "--out", "pred.csv", "--overwrite")[0] == 0
    assert _table().height == 4


@pytest.fixture
def own_signals():
    """Signals as a shell leaves them to a command: those of the tests may be ignored, in the background or by nohup."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("name", ["pred.csv", "pred.parquet"])
def test_a_command_that_is_asked_to_end_leaves_nothing_half_written(train_base, predict, monkeypatch, name, number):
    train_base()
    Path(name).write_text("precious")
    before, frames = sorted(path.name for path in Path().iterdir()), command._Counted.__iter__

    def ended(counted):
        yield from frames(counted)
        assert any(path.suffix == TEMPORARY_SUFFIX for path in Path().iterdir())
        assert signal.getsignal(number) is not signal.SIG_DFL
        signal.raise_signal(number)

    monkeypatch.setattr(command._Counted, "__iter__", ended)
    code, out, _ = predict("run", "--data", "val.csv", "--out", name, "--overwrite")
    assert (code, out) == (128 + number, "")
    assert (sorted(path.name for path in Path().iterdir()), Path(name).read_text()) == (before, "precious")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


class _Harmful:
    def __reduce__(self):
        return os.system, ("touch pwned.txt",)


@pytest.mark.parametrize("name", ["checkpoints/best.pt", "data.json", "config.yaml"])
def test_files_that_could_run_code_are_refused(train_base, predict, name):  # CKP-09
    train_base()
    Path("run", name).write_bytes(pickle.dumps(_Harmful(), protocol=0))
    code, _, err = predict("run", "--data", "val.csv", "--out", "pred.csv")
    assert code == 2
    assert err.startswith(f"run/{name}")
    assert not Path("pwned.txt").exists()
    assert not Path("pred.csv").exists()


def _edit(name, change):
    value = json.loads(Path(name).read_text())
    change(value)
    if "checksum" in value:  # as if it had been written like this
        value["checksum"] = digest({key: part for key, part in value.items() if key != "checksum"})
    Path(name).write_text(json.dumps(value))


def test_data_of_another_version_or_run_are_refused(train_base, predict):
    train_base()
    whole = Path("run/data.json").read_text()
    _edit("run/data.json", lambda d: d.update(format=99))
    code, _, err = predict("run", "--data", "val.csv", "--out", "pred.csv")
    assert (code, err.startswith("run/data.json: has format 99, this version of mtl-train reads 1.")) == (2, True)
    Path("run/data.json").write_text(whole)
    _edit("run/data.json", lambda d: d["features"].pop("numeric"))
    code, _, err = predict("run", "--data", "val.csv", "--out", "pred.csv")
    assert (code, err.startswith("run/data.json: is not what this version of mtl-train writes")) == (2, True)
    Path("run/data.json").write_text(whole)
    _edit("run/data.json", lambda d: d["features"]["numeric"].pop())
    code, _, err = predict("run", "--data", "val.csv", "--out", "pred.csv")
    assert (code, err.startswith("run/checkpoints/best.pt: does not fit the model of the run")) == (2, True)


def test_a_run_without_a_checkpoint_and_an_unfinished_one(train_base, predict):
    train_base()
    best = json.loads(Path("run/summary.json").read_text())["best"]["epoch"]
    _edit("run/status.json", lambda s: s.update(state="interrupted"))
    Path("run/summary.json").unlink()
    code, _, err = predict("run", "--data", "val.csv", "--out", "pred.csv")
    assert (code, err) == (0, f"note: the run has not finished (it is interrupted): weights of epoch {best}.\n")
    shutil.rmtree("run/checkpoints")
    code, _, err = predict("run", "--data", "val.csv", "--out", "p.csv")
    assert (code, err) == (
        2, "run: has no checkpoint yet, so that there is no model. Go on with it: mtl-train resume=run.\n",
    )  # fmt: skip
    _edit("run/status.json", lambda s: s.update(state="done"))  # resume would say that there is nothing to do
    code, _, err = predict("run", "--data", "val.csv", "--out", "p.csv")
    assert (code, err) == (2, "run: has no checkpoint any more, so that there is no model. Train again.\n")


def test_mistakes_do_not_load_pytorch(tmp_path):
    code = (
        "import sys; from mtl_cli.commands.predict import predict; from mtl_cli.commands.entry import run;"
        "c = run(predict, sys.argv[1:]); print(c, 'torch' in sys.modules)"
    )
    for arguments in (["--help"], ["nowhere", "--data", "x.csv", "--out", "y.csv"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert ended.stdout.splitlines()[-1] == ("0 False" if arguments == ["--help"] else "2 False"), ended.stderr


def test_library_predicts_frames_and_files(train_base):
    train_base()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    trained = load_run("run")
    assert torch.rand(1) == expected  # loading uses up none of the caller's random numbers
    from_file = trained.predict("val.csv")
    from_frame = trained.predict(pl.read_csv("val.csv"), id="")
    assert from_frame.columns[0] == "row"
    assert from_file.drop("id").equals(from_frame.drop("row"))
    assert repr(trained) == "<TrainedRun run: best weights (epoch 1), tasks a, b>"  # the last line of a notebook's cell


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda frame: frame.lazy(), "polars.lazyframe.frame.LazyFrame. Call .collect() on it."),
        (lambda frame: frame.to_dict(), "builtins.dict. Make it a frame with polars.DataFrame."),
        (
            lambda _: type("DataFrame", (), {"__module__": "pandas"})(),
            "pandas.DataFrame. Call polars.from_pandas on it.",
        ),
    ],
)
def test_data_that_are_no_frame_are_refused_with_what_makes_them_one(train_base, given, message):
    train_base()
    with pytest.raises(TypeError) as refused:
        load_run("run").predict(given(pl.read_csv("val.csv")))
    assert str(refused.value) == f"data: must be the name of a file or a polars.DataFrame, got {message}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "data.id: no column 'id' in table. Known: x1, x2, x3, x4, ya, yb. Or number the rows with id=\"\"."),
        ({"id": "x5"}, "id: no column 'x5' in table. Known: x1, x2, x3, x4, ya, yb. Or number the rows with id=\"\"."),
        ({"source": "x"}, "source: the run has no source 'x'. Leave it out."),
    ],
)
def test_mistakes_in_python_are_told_in_its_words(train_base, given, message):
    train_base()
    with pytest.raises(UserError) as refused:
        load_run("run").predict(pl.read_csv("val.csv").select(pl.exclude("id")), **given)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device: must be auto, cpu, cuda, cuda:N or mps, got 'gpu'."),
        ("cuda:99", "device: there is no device 'cuda:99' here. Choose another one: cpu."),
    ],
)
def test_a_device_that_is_not_there_is_refused(train_base, device, message):
    train_base()
    with pytest.raises(ConfigError) as refused:
        load_run("run", device=device)
    assert str(refused.value) == message


@pytest.mark.parametrize("more", [["trainer.threads=3"], ["trainer.threads=auto", "freeze=[encoder]"]])
def test_library_computes_with_the_threads_of_the_training_and_leaves_those_of_its_caller(
    train_base, monkeypatch, more
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("mtl_cli.build.device.MANY_OPERATIONS", 3 * 4 * 100)  # heads alone have 36 parameters
    train_base(*more)
    assert json.loads(Path("run/summary.json").read_text())["threads"] == 3
    torch.set_num_threads(2)
    seen, forward = [], trained_module.forward

    def counted(*arguments):
        seen.append(torch.get_num_threads())
        return forward(*arguments)

    monkeypatch.setattr(trained_module, "forward", counted)
    trained = load_run("run")
    for act in (lambda: trained.predict("val.csv"), lambda: trained.evaluate_file("val.csv"),
                lambda: trained.evaluate_split("val")):  # fmt: skip
        act()
        assert torch.get_num_threads() == 2
    assert seen == [3, 3, 3]


def test_predictions_in_several_threads_leave_each_the_number_of_its_caller(train_base, monkeypatch):
    train_base("trainer.threads=3")
    trained, forward = load_run("run"), trained_module.forward
    left, entered = [], threading.Event()

    def request():
        trained.predict("val.csv")
        left.append(torch.get_num_threads())

    second = threading.Thread(target=request)

    def slow(*arguments):
        if threading.current_thread() is second:
            entered.set()
        else:  # a request comes in while another one is computed
            second.start()
            entered.wait(0.2)
        return forward(*arguments)

    monkeypatch.setattr(trained_module, "forward", slow)
    torch.set_num_threads(2)
    first = threading.Thread(target=request)
    first.start()
    first.join()
    second.join()
    assert (left, torch.get_num_threads()) == ([2, 2], 2)


def test_what_is_found_in_rows_is_of_one_call_alone(train_base):
    train_base()
    Path("new.csv").write_text(VAL.replace("101,0.4,", "101,,"))
    trained, frame = load_run("run"), pl.read_csv("new.csv")
    note = "new.csv, column 'x1': 1 cell is missing."
    assert [trained.evaluate_file("new.csv").notes for _ in range(2)] == [(note,)] * 2
    trained.predict(frame)
    assert trained.findings.notes() == ["table, column 'x1': 1 cell is missing."]
    assert trained.evaluate_file("val.csv").notes == ()
    source = build_source(trained.config, "new.csv")
    begun, other = trained.predictions(source), trained.predictions(source)
    assert next(begun).equals(next(other))
    assert trained.findings.notes() == [note]  # not twice: each counts its own


def test_cells_of_a_frame_mean_what_those_of_a_file_do(train_base):
    signs = ("data.sep=';'", 'data.decimal=","', "data.missing=['?']")
    train_base(*signs, train=TRAIN.replace(",", ";").replace(".", ",").replace("0,1;", "?;"),
         val=VAL.replace(",", ";").replace(".", ","))  # fmt: skip
    Path("new.csv").write_text(VAL.replace(",", ";").replace(".", ",").replace("0,2;", "?;"))
    trained = load_run("run")
    frame = pl.read_csv("new.csv", separator=";", infer_schema=False)
    assert "?" in frame["x2"].to_list()
    assert trained.predict(frame).equals(trained.predict("new.csv"))


def test_an_id_that_is_an_input_is_written_as_it_stands_and_read_as_it_is_meant(train_base, predict):
    train_base("data.allow_inputs=[x1]", "data.id=x1", train=TRAIN.replace("3,0.9,", "3,,"))
    Path("new.csv").write_text(VAL.replace("101,0.4,", "101,,"))
    assert predict("run", "--data", "new.csv", "--out", "own.csv")[0] == 0
    assert predict("run", "--data", "new.csv", "--out", "rows.csv", "--id", "-")[0] == 0
    assert predict("run", "--data", "new.csv", "--out", "other.csv", "--id", "x2")[0] == 0
    own, rows, other = (_table(f"{name}.csv") for name in ("own", "rows", "other"))
    assert own.drop("x1").equals(rows.drop("row"))
    assert other.drop("x2").equals(rows.drop("row"))
    assert own["x1"].to_list() == ["", "0.1", "0.5", "0.2"]


def test_digits_from_a_file_with_lists_and_numbers_again(cli, predict):
    from mtl_cli.data import split_rows
    from mtl_cli.registry import SOURCES
    from mtl_cli.schema import SplitOptions

    assert cli("task=digits", "experiment=smoke", "hydra.run.dir=run").code == 0
    summary = json.loads(Path("run/summary.json").read_text())["metrics"]
    import yaml

    config = yaml.safe_load(Path("run/config.yaml").read_text())
    table = SOURCES.build("sklearn", dataset="digits").read()
    test = table.frame[split_rows(table, SplitOptions(**config["data"]["split"])).test]
    test.write_parquet("test.parquet")
    assert predict("run", "--data", "test.parquet", "--out", "pred.csv")[0] == 0
    found = _table()
    assert accuracy_score(test["digit"].cast(pl.String), found["digit_pred"]) == summary["test/digit/accuracy"]
    again = roc_auc_score(test["even"], found["even_prob_1"].cast(pl.Float64))
    assert again == pytest.approx(summary["test/even/auroc"], rel=1e-12)  # to rounding
    error = mean_absolute_error(test["ink"], found["ink_pred"].cast(pl.Float64))
    assert error == pytest.approx(summary["test/ink/mae"], rel=1e-6)


ADULT_TASK = """\
# @package _global_
data:
  source: table
  path: adult.csv
  exclude: [education, fnlwgt]
  split: {column: split}
shared_dim: 16
tasks:
  income: {kind: binary, target: income_over_50k}
  education: {kind: ordinal, target: education_num}
  hours: {kind: regression, target: hours_per_week}
trainer: {max_epochs: 1}
"""


def test_predictions_of_real_rows_give_the_summarys_numbers(cli, write, predict):
    if not ADULT.exists():
        pytest.skip(f"needs {ADULT}")
    frame = pl.read_parquet(ADULT).gather_every(8)
    frame.write_csv("adult.csv")
    write({"conf/task/census.yaml": ADULT_TASK})
    assert cli("--config-dir", "conf", "task=census", "hydra.run.dir=run").code == 0
    summary = json.loads(Path("run/summary.json").read_text())["metrics"]
    test = frame.filter(pl.col("split") == "test")
    test.drop("income_over_50k", "education_num", "hours_per_week", "split").write_csv("test.csv")
    assert predict("run", "--data", "test.csv", "--out", "pred.csv")[0] == 0
    found = pl.read_csv("pred.csv")
    score = roc_auc_score(test["income_over_50k"], found["income_prob_1"])
    assert score == pytest.approx(summary["test/income/auroc"], abs=1e-6)
    assert r2_score(test["hours_per_week"], found["hours_pred"]) == pytest.approx(summary["test/hours/r2"], abs=1e-6)
    steps = mean_absolute_error(test["education_num"], found["education_pred"])
    assert steps == pytest.approx(summary["test/education/mae"], abs=1e-9)
