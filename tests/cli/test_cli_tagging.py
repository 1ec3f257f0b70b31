"""Tasks that label words, from a treebank to predictions; and files for one of several sources of a run."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mtl_cli import load_run
from mtl_cli.commands import evaluate, predict
from mtl_cli.commands.entry import run
from mtl_cli.data.input_columns import Findings
from mtl_cli.loop.evaluate import rows_at_once
from mtl_cli.registry import SOURCES

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
HEAD = "# @package _global_\ndefaults: [{override /encoder: sequence}, _self_]\nencoder: {dim: 16}\nshared_dim: 16\n"
TREEBANK = (
    HEAD
    + """\
data:
  {source: conllu, train: train.conllu, val: val.conllu, columns: [form, upos, feats.Number], inputs: [form],
   id: sent_id, batch_size: 8}
tasks:
  upos: {kind: tagging}
  number: {kind: tagging, target: feats.Number}
trainer: {max_epochs: 3}
optimizer: {lr: 0.02}
"""
)
WORDS = {"the": ("DET", "_"), "cats": ("NOUN", "Number=Plur"), "cat": ("NOUN", "Number=Sing"), "sleep": ("VERB", "_")}


def _treebank(seed, count):
    draw = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        lines.append(f"# sent_id = s{seed}-{i}")
        for number, word in enumerate(draw.choice(list(WORDS), draw.integers(1, 6)), start=1):
            upos, feats = WORDS[word]
            lines.append(f"{number}\t{word}\t_\t{upos}\t_\t{feats}\t0\troot\t_\t_")
        lines.append("")
    return "\n".join(lines) + "\n"


@pytest.fixture
def treebank(cli, write):
    """Trains TREEBANK into ``run``."""
    files = {"train.conllu": _treebank(0, 40), "val.conllu": _treebank(1, 30), "conf/task/tags.yaml": TREEBANK}
    write(files)
    ended = cli("--config-dir", "conf", "task=tags", "hydra.run.dir=run")
    assert ended.code == 0, ended.err


def test_gradients_of_features_are_those_of_words_with_two_labels(cli, treebank):
    given = ["--config-dir", "conf", "task=tags", "balancing=graddrop", "balancing.gradients_on=features"]
    ended = cli(*given, "trainer.max_epochs=1", "hydra.run.dir=features")
    assert ended.code == 0, ended.err


def test_task_without_a_labelled_word_in_training_is_refused(cli, write):
    unlabelled = _treebank(0, 40).replace("Number=Plur", "_").replace("Number=Sing", "_")
    yaml = TREEBANK.replace("target: feats.Number", "target: feats.Number, classes: [Plur, Sing]")
    write({"train.conllu": unlabelled, "val.conllu": _treebank(1, 30), "conf/task/tags.yaml": yaml})
    ended = cli("--config-dir", "conf", "task=tags", "hydra.run.dir=run")
    assert (ended.code, ended.err) == (
        2,
        "tasks.number: no token of a training row has a label for it, so that nothing would train its head. Leave it "
        "out (only=[...]), look at the splits, or write `weight: 0` to train without it.\n",
    )
    ended = cli("--config-dir", "conf", "task=tags", "hydra.run.dir=run", "tasks.number.weight=0")
    assert ended.code == 0, ended.err
    assert "task 'number': no train row has a label; its own loss trains nothing." in ended.out


def test_class_without_a_training_word_is_told(cli, write):
    yaml = TREEBANK.replace("upos: {kind: tagging}", "upos: {kind: tagging, classes: [DET, NOUN, VERB, X]}")
    write({"train.conllu": _treebank(0, 9), "val.conllu": _treebank(1, 1), "conf/task/tags.yaml": yaml})
    ended = cli("--config-dir", "conf", "task=tags", "hydra.run.dir=run", "trainer.max_epochs=1")
    assert ended.code == 0, ended.err
    assert "note: task 'upos': no token of a train row has class X." in ended.out
    assert "no val row has class" not in ended.out


def _evaluated(*arguments):
    assert run(evaluate.evaluate, ["run", *arguments, "--out", "m.json", "--overwrite"]) == 0
    return json.loads(Path("m.json").read_text())


def _summary(split="val"):
    metrics = json.loads(Path("run/summary.json").read_text())["metrics"]
    return {key.replace(f"{split}/", "data/"): value for key, value in metrics.items() if key.startswith(f"{split}/")}


@pytest.mark.parametrize("cells", [1, 1_000_000])
def test_numbers_of_a_file_are_those_of_the_training_to_the_last_digit(treebank, capsys, monkeypatch, cells):
    monkeypatch.setattr("mtl_cli.trained._CELLS", cells)
    monkeypatch.setitem(rows_at_once.__globals__, "EVALUATION_BLOCKS", 16)
    of_file = _evaluated("--data", "val.conllu")
    own = _evaluated()
    assert of_file["metrics"] == {key.replace("val/", "data/"): value for key, value in own["metrics"].items()}
    labels = sum(len(cells) for cells in SOURCES.build("conllu", path="val.conllu").read().frame["upos"])
    assert of_file["rows"] == 30
    assert of_file["labelled"]["upos"] == own["labelled"]["upos"] == labels
    assert of_file["metrics"]["data/upos/accuracy"] > 0.9


def test_evaluation_of_the_own_split_is_that_of_the_training(treebank, capsys):
    assert {key.replace("val/", "data/"): value for key, value in _evaluated()["metrics"].items()} == _summary()


def test_a_list_of_labels_for_each_row(treebank, capsys):
    for out in ("p.parquet", "p.csv"):
        assert run(predict.predict, ["run", "--data", "val.conllu", "--out", out]) == 0
    assert run(predict.predict, ["run", "--data", "val.conllu", "--out", "q.csv", "--sep", ";"]) == 2
    refused = "--sep: cannot be given: the run's source 'conllu' reads files without such signs. Leave it out."
    assert capsys.readouterr().err.splitlines()[-1] == refused
    lists, texts = pl.read_parquet("p.parquet"), pl.read_csv("p.csv", infer_schema=False)
    given = SOURCES.build("conllu", path="val.conllu").read().frame
    assert lists["sent_id"].equals(given["sent_id"])
    assert lists["upos_pred"].list.len().equals(given["form"].list.len())
    assert [json.loads(text) for text in texts["upos_pred"]] == lists["upos_pred"].to_list()
    found = np.array([json.loads(text)[0] for text in texts["upos_prob_NOUN"]])
    assert np.array_equal(found, lists["upos_prob_NOUN"].list.first().to_numpy())
    assert {"number_pred", "number_prob_Plur", "number_prob_Sing"} <= {*lists.columns}
    frame = given.select("sent_id", "form")
    predicted = load_run("run").predict(
        pl.concat([frame, pl.DataFrame({"sent_id": ["none"], "form": [[]]}, frame.schema)])
    )
    assert predicted.head(30)["upos_pred"].equals(lists["upos_pred"])
    assert predicted["upos_pred"].to_list()[-1] == []


BOTH = (
    HEAD
    + """\
data: {source: table, train: t.parquet, val: v.parquet, id: n, inputs: [forms], batch_size: 8}
tasks:
  long: {kind: binary}
  tags: {kind: tagging}
trainer: {max_epochs: 2}
"""
)


def test_rows_and_words_are_predicted_side_by_side(cli, write, capsys, monkeypatch):
    write({"conf/task/both.yaml": BOTH})
    draw = np.random.default_rng(0)
    forms = [draw.choice(list(WORDS), draw.integers(1, 6)).tolist() for _ in range(50)]
    frame = pl.DataFrame({
        "n": range(50), "forms": forms, "long": [len(words) > 3 for words in forms],
        "tags": [[WORDS[word][0] for word in words] for words in forms],
    })  # fmt: skip
    frame.write_parquet("t.parquet")
    frame.write_parquet("v.parquet")
    ended = cli("--config-dir", "conf", "task=both", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    whole = load_run("run").predict("v.parquet")
    with monkeypatch.context() as patch:
        patch.setitem(rows_at_once.__globals__, "EVALUATION_BLOCKS", 7)
        pieces = load_run("run").predict("v.parquet")
    for column in ("long_pred", "tags_pred"):
        assert whole[column].equals(pieces[column])
    assert whole["tags_pred"].list.len().to_list() == [len(words) for words in forms]
    right = np.mean([p == t for row, own in zip(whole["tags_pred"], frame["tags"], strict=True) for p, t in zip(row, own, strict=True)])  # fmt: skip  # noqa: E501
    assert right == pytest.approx(json.loads(Path("run/summary.json").read_text())["metrics"]["val/tags/accuracy"])


LANGUAGES = (
    HEAD
    + """\
data:
  sources: {swedish: {path: swedish.parquet}, english: {path: english.parquet}}
  source_as_input: true
  inputs: [words]
  text: {by: source, min_count: 1}
  split: {val: 0.3, test: 0}
  batch_size: 8
tasks:
  tags: {kind: tagging}
trainer: {max_epochs: 12}
optimizer: {lr: 0.02}
"""
)


def test_words_of_two_languages_are_told_apart(cli, write, capsys):
    """What is a verb in one is a noun in the other, whatever stands beside it."""
    draw, tags = np.random.default_rng(0), {"swedish": {"is": "NOUN", "barn": "VERB"}, "english": {"is": "VERB"}}
    for language, tag in tags.items():
        words = [draw.choice(["is", "barn"], draw.integers(1, 6)).tolist() for _ in range(60)]
        frame = pl.DataFrame({"words": words, "tags": [[tag.get(word, "NOUN") for word in row] for row in words]})
        frame.write_parquet(f"{language}.parquet")
    write({"conf/task/languages.yaml": LANGUAGES})
    ended = cli("--config-dir", "conf", "task=languages", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    for language in tags:
        told = next(line for line in ended.out.splitlines() if line.startswith(f"{language} "))
        assert told.endswith(" tags")
        assert _evaluated("--data", f"{language}.parquet", "--source", language)["metrics"]["data/tags/accuracy"] == 1
    assert run(predict.predict, ["run", "--data", "english.parquet", "--out", "p.parquet"]) == 2
    assert "--source" in capsys.readouterr().err


SHOPS = """\
# @package _global_
shared_dim: 8
data:
  sources:
    books: {path: books.csv, rename: {Item: book}, id: null}
    movies: {path: movies.csv, decimal: ",", sep: ";"}
  source_as_input: true
  id: user
  split: {val: 0.3, test: 0}
tasks:
  stars: {kind: regression}
  seen: {kind: binary, source: movies}
trainer: {max_epochs: 2}
"""


@pytest.fixture
def shops(cli, write):
    """Trains two sources with their own columns, separators and decimal signs into ``run``."""
    books = "user,Item,stars\n" + "".join(f"{i},{'ab'[i % 2]},{i % 5}.5\n" for i in range(30))
    movies = "user;length;stars;seen\n" + "".join(f"{i};{90 + i},5;{i % 4},5;{i % 2}\n" for i in range(30))
    text = SHOPS.replace(", id: null", "")
    write({"books.csv": books, "movies.csv": movies, "conf/task/shops.yaml": text})
    ended = cli("--config-dir", "conf", "task=shops", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    return books, movies


def test_file_is_read_as_the_source_that_it_is_like(shops, capsys):
    for name in ("books", "movies"):
        assert run(predict.predict, ["run", "--data", f"{name}.csv", "--source", name, "--out", f"{name}_p.csv"]) == 0
        table = pl.read_csv(f"{name}_p.csv", infer_schema=False)
        assert table["user"].to_list() == [str(i) for i in range(30)]
        assert {"stars_pred", "seen_pred"} <= {*table.columns}
    assert capsys.readouterr().err == ""
    found = _evaluated("--data", "movies.csv", "--source", "movies")
    assert found["labelled"] == {"stars": 30, "seen": 30}
    found = _evaluated("--data", "books.csv", "--source", "books")
    assert found["labelled"] == {"stars": 30, "seen": 0}
    assert found["metrics"]["data/seen/auroc"] is None


def test_rows_of_a_source_are_what_they_were_in_the_training(shops, capsys):
    trained = load_run("run")
    table, _ = trained._own_rows()
    inputs, _ = trained.features.transform(table)
    for name, first in (("books", 0), ("movies", 30)):
        (chunk,) = trained._chunks(build(trained, name), {"user": "data.id"}, Findings())
        rows = chunk.rows.inputs
        assert rows.numeric.equal(inputs.numeric[first : first + 30])
        assert rows.categorical.equal(inputs.categorical[first : first + 30])


def test_a_file_has_the_columns_that_its_source_had(shops, capsys):
    books, _ = shops
    Path("misspelt.csv").write_text(books.replace("Item", "Itm"))
    assert run(predict.predict, ["run", "--data", "misspelt.csv", "--source", "books", "--out", "p.csv"]) == 2
    expected = "data.inputs: no column 'Item' in misspelt.csv. Did you mean 'Itm'?\n"
    assert capsys.readouterr().err == expected
    header, *lines = books.splitlines()  # what only movies had is no input of books
    Path("more.csv").write_text("\n".join([f"{header},length", *(f"{line},120" for line in lines)]) + "\n")
    assert run(predict.predict, ["run", "--data", "books.csv", "--source", "books", "--out", "p.csv"]) == 0
    assert run(predict.predict, ["run", "--data", "more.csv", "--source", "books", "--out", "q.csv"]) == 0
    assert Path("q.csv").read_text() == Path("p.csv").read_text()


def build(trained, name):
    from mtl_cli.build import build_source

    return build_source(trained.config, f"{name}.csv", name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "books.csv"], "--source: must be given: the run has sources with names (books, movies), and each reads its files in its own way. Name the one that the file is like.\n"),  # noqa: E501
        (["--data", "books.csv", "--source", "boks"], "--source: the run has no source 'boks'. Did you mean 'books'?\n"),  # noqa: E501
        (["--source", "books"], "--source: goes with --data, got no file. The run's own rows are read as in training.\n"),  # noqa: E501
    ],
)  # fmt: skip
def test_source_that_is_not_named_or_not_there_is_told(shops, capsys, arguments, message):
    capsys.readouterr()
    assert run(evaluate.evaluate, ["run", *arguments]) == 2
    assert capsys.readouterr().err == message


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
def test_a_real_treebank_survives_the_format(tmp_path):
    frame = pl.read_parquet(SHARED / "ud_multilingual" / "telugu.parquet").head(300)
    lines = []
    for row in frame.iter_rows(named=True):
        for i, form in enumerate(row["forms"]):
            cells = [i + 1, form, "_", row["upos"][i], "_", row["feats"][i], row["head"][i], row["deprel"][i], "_", "_"]
            lines.append("\t".join(map(str, cells)))
        lines.append("")
    (tmp_path / "t.conllu").write_text("\n".join(lines), encoding="utf-8")
    columns = ["form", "upos", "deprel", "head"]
    table = SOURCES.build("conllu", path=str(tmp_path / "t.conllu"), columns=columns).read()
    for column, own in (("form", "forms"), ("upos", "upos"), ("deprel", "deprel")):
        assert table.frame[column].to_list() == frame[own].to_list()
