"""What is wrong with the data is told before time is spent on them."""

import numpy as np
import polars as pl
import pytest
import torch

from mtl_cli.build import build_data
from mtl_cli.data import Features
from mtl_cli.errors import ConfigError
from mtl_cli.schema import validate
from mtl_cli.tasks import target_columns

TEXTS = "text,x,y\n" + "".join(f"some words {i},{i},{i % 2}\n" for i in range(20))


def _config(path, inputs, encoder="mlp", tasks=None, **data):
    return validate({
        "data": {**({"source": "table", "path": str(path)} if path else {}), "inputs": inputs, **data},
        "tasks": tasks or {"y": {"kind": "binary"}},
        "encoder": {"name": encoder}, "sharing": {"name": "hard"}, "balancing": {"name": "equal"},
        "optimizer": {"name": "adamw"}, "scheduler": {"name": "constant"}, "trainer": {},
    })  # fmt: skip


def test_declared_input_that_the_encoder_does_not_read_is_refused_before_any_file_is_read(tmp_path):
    config = _config(tmp_path / "nowhere.csv", ["x", {"name": "text", "type": "text"}])
    with pytest.raises(ConfigError) as caught:
        build_data(config)
    assert str(caught.value) == (
        "encoder: does not read column 'text', an input of type text. "
        "Use encoder=text, or leave the column out of data.inputs, or by data.exclude=[text] if that is all columns."
    )


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"type": "text"}, "data.inputs[1].name: must be a column name, got null. "),
        ({"name": ["a"], "type": "text"}, "data.inputs[1].name: must be a column name, got ['a']. "),
        (
            {"name": "x", "type": "txt"},
            "data.inputs[1].type: must be one of numeric, date, category, text, image, got 't",
        ),
    ],
)
def test_malformed_input_is_told_before_any_file_is_read(entry, told):
    with pytest.raises(ConfigError) as caught:
        _config("nowhere.csv", ["x", entry])
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("inputs", "read"),
    [
        ("*", ["user"]),
        (["*", {"name": "user", "type": "category"}], ["user"]),
        (["user", "list"], ["user", "list"]),
        ("[ul]*", ["user"]),
        ("list", ["list"]),
    ],
)
def test_column_of_the_lists_to_rank_is_an_input_only_if_it_is_named(tmp_path, inputs, read):
    (tmp_path / "lists.csv").write_text("user,list,y\n" + "".join(f"u{i % 3},{i // 2},{i % 2}\n" for i in range(20)))
    tasks = {"y": {"kind": "binary", "ranking": {"group": "list"}}}
    columns = build_data(_config(tmp_path / "lists.csv", inputs, tasks=tasks)).features.columns
    assert sorted(columns, key=["user", "list"].index) == read


def test_source_is_an_input_beside_a_glob(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(TEXTS)
    sources = {name: {"path": str(tmp_path / f"{name}.csv")} for name in "ab"}
    config = _config(None, "x*", sources=sources, source_as_input=True)
    features = build_data(config).features
    assert list(features.columns) == ["x", "source"]


def test_inputs_that_do_not_suit_the_encoder_are_refused_before_they_are_transformed(tmp_path, monkeypatch):
    (tmp_path / "texts.csv").write_text(TEXTS)
    monkeypatch.setattr(Features, "transform", None)
    with pytest.raises(ConfigError, match="encoder: reads one or more input of type text, and the data have none"):
        build_data(_config(tmp_path / "texts.csv", ["x"], encoder="text"))


@pytest.mark.parametrize("kind", ["regression", "count", "quantile"])
def test_labels_that_are_all_the_same_in_training_get_a_note(tmp_path, kind):
    splits = ["train"] * 6 + ["val", "test"]
    rows = "".join(f"{i},{'' if i == 0 else 7 + (i > 5)},{i},{split}\n" for i, split in enumerate(splits))
    (tmp_path / "x.csv").write_text(f"x,same,differs,split\n{rows}")
    tasks = {name: {"kind": kind} for name in ("same", "differs")}
    config = _config(tmp_path / "x.csv", ["x"], tasks=tasks, split={"column": "split"})
    note = "task 'same': all train rows have the same label; there is nothing to tell apart."
    assert [found for found in build_data(config).notes if found.startswith("task ")] == [note]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_whose_digits_are_lost_get_a_note(tmp_path, ending):
    splits = ["train"] * 20 + ["val"] * 6 + ["test"] * 6
    frame = pl.DataFrame({
        "x": range(32), "split": splits,
        "long": [2**60 + i for i in range(32)],  # floats of 64 bits hold multiples of 256 there
        "outlier": [1e12 if i == 3 else float(i) for i in range(32)],
        "amount": [1e6 if i == 3 else float(i) for i in range(32)],
        "year": [2_000_000_000 + i for i in range(32)],
    })  # fmt: skip
    path = tmp_path / f"x.{ending}"
    frame.write_csv(path) if ending == "csv" else frame.write_parquet(path)
    tasks = {name: {"kind": "regression"} for name in ("long", "outlier", "amount", "year")}
    tasks |= {"count": {"kind": "count", "target": "year"}, "quantile": {"kind": "quantile", "target": "outlier"}}
    config = _config(path, ["x"], tasks=tasks, split={"column": "split"})
    # Nothing says that all labels of 'long' are the same, as which they are stored.
    notes = [note for note in build_data(config).notes if note.startswith("task ")]
    assert [note.partition(" on average")[0] for note in notes] == [
        "task 'long': train labels are rounded by 9.5",
        "task 'outlier': val labels are rounded by 909",
        "task 'count': train labels are rounded by 5",
        "task 'quantile': val labels are rounded by 909",
    ]


@pytest.mark.parametrize("sources", [1, 2])
def test_a_share_of_the_training_rows_has_the_classes_of_all_of_them(tmp_path, sources):
    kinds = {"m": "multiclass", "b": "binary", "o": "ordinal", "l": "multilabel", "t": "tagging", "r": "regression"}
    rows = [
        {"words": ["w", "v"], "m": "abc"[i % 3], "b": i % 2, "o": i % 4, "l": ["x", "y"][: i % 3], "r": float(i)}
        | {"t": ["NN", "VB" if i % 2 else "IN"], "split": ["train", "train", "train", "val", "test"][i % 5]}
        for i in range(60)
    ]
    path = tmp_path / "x.parquet"
    pl.DataFrame(rows).write_parquet(path)
    several = {"sources": {name: {"source": "table", "path": str(path)} for name in "pq"}}
    where, more = (path, {}) if sources == 1 else (None, several)

    def build(fraction):
        split = {"column": "split", "train_fraction": fraction}
        tasks = {name: {"kind": kind} for name, kind in kinds.items()}
        return build_data(_config(where, ["words"], encoder="sequence", tasks=tasks, split=split, **more))

    few, all_rows = build(0.02), build(1.0)
    assert (len(few.splits.train), len(all_rows.splits.train)) == (sources, 36 * sources)
    states = [{task.name: task.kind.state() for task in data.tasks} for data in (few, all_rows)]
    assert states[0].pop("r") != states[1].pop("r")
    assert states[0] == states[1]
    assert states[0]["o"]["classes"] == ["0", "1", "2", "3"]
    assert len([note for note in few.notes if "train row has class" in note]) == 5


def test_places_of_labels_are_found_once_however_many_tasks_there_are(tmp_path, monkeypatch):
    (tmp_path / "texts.csv").write_text(TEXTS)
    data = build_data(_config(tmp_path / "texts.csv", ["x"]))
    found = []
    monkeypatch.setattr(
        "mtl_cli.build.data.target_columns", lambda kinds: found.append(len(kinds)) or target_columns(kinds)
    )
    counts = data.label_counts
    assert found == [1]
    assert {split: own.labelled for split, own in counts["y"].items()} == {"train": 16, "val": 2, "test": 2}
    assert counts["y"]["val"] == data.tasks[0].kind.counts(data.targets(0, "val"))
    assert data.label_counts is counts


def test_negatives_are_drawn_anew_of_users_and_items_that_are_numbers(tmp_path):
    rows = "".join(f"{user},{(user + i) % 9}\n" for user in range(6) for i in range(4))
    (tmp_path / "took.csv").write_text(f"user,item\n{rows}")

    def build(inputs):
        tasks = {"label": {"kind": "binary"}}
        return build_data(_config(tmp_path / "took.csv", inputs, tasks=tasks, source="interactions"))

    data = build("*")
    assert [column.name for column in data.features.categorical] == ["user", "item"]
    rows, drawn = data.rows("train", torch.device("cpu")), []
    for epoch in range(2):
        rows.draw(0, epoch)
        drawn.append(rows.inputs.categorical.clone())
    assert drawn[0].tolist() != drawn[1].tolist()
    with pytest.raises(ConfigError) as caught:
        build([{"name": "user", "type": "numeric"}])
    hint = "Let data.inputs have it, as {name: NAME, type: category} if it names a type, or write negatives: 0."
    assert str(caught.value).splitlines() == [
        f"data.inputs: column '{name}', by which negatives are drawn anew, is no category among them. {hint}"
        for name in ("user", "item")
    ]


@pytest.mark.parametrize("sources", [1, 2])
def test_what_was_not_taken_has_no_label_of_another_task(tmp_path, sources):
    took = [
        (user, (user + i) % 9, "val" if i == 3 else "train", i % 2, float(i)) for user in range(6) for i in (1, 2, 3)
    ]
    took = pl.DataFrame(took, ["user", "item", "split", "buy", "stars"], orient="row")
    took.write_parquet(tmp_path / "took.parquet")
    lists = took.filter(pl.col("split") == "val").with_columns(candidates=pl.concat_list("item", pl.lit(8)))
    lists.drop("item").write_parquet(tmp_path / "lists.parquet")  # with the labels of what was taken, too
    path, label = tmp_path / "took.parquet", "click" if sources == 1 else "took"
    own = {"source": "interactions", "candidates": str(tmp_path / "lists.parquet"), "label": "click"}
    several = {"sources": {name: {**own, "path": str(path), "rename": {"click": label}} for name in "ab"}}
    where, data = (path, own) if sources == 1 else (None, several)
    tasks = {
        "click": {"kind": "binary", "target": label},
        "conversion": {"kind": "binary", "labelled": False},
        "buy": {"kind": "binary", "product_of": ["click", "conversion"], "class_weight": "balanced"},
        "stars": {"kind": "regression", "auxiliary": True},
        "both": {"kind": "multilabel", "target": [label, "buy"]},
    }
    config = _config(where, ["user", "item"], "graph", tasks, **data, split={"column": "split"})
    found = build_data(config)
    frame, labels = found.table.frame, {t.name: found.targets_of(i, slice(None)) for i, t in enumerate(found.tasks)}
    taken = frame[label].to_numpy() == 1
    assert taken.sum() == 18 * sources
    assert frame.filter(~taken)["stars"].null_count() == 0  # what is copied
    np.testing.assert_array_equal(labels["click"][:, 0], taken)
    for name in ("buy", "stars"):
        np.testing.assert_array_equal(~np.isnan(labels[name][:, 0]), taken)
    assert (labels["both"][~taken] == [0, -1]).all()  # the second is not known
    assert found.label_counts["stars"]["train"].balance == "mean 1.5, std 0.5"
    links = found.features.links[0]
    users, items = (found.features.categorical[i].values for i in links.columns)
    train = took.filter(pl.col("split") == "train")
    assert {(int(users[u - 1]), int(items[i - 1])) for u, i in links.codes.T} == set(
        train.select("user", "item").rows()
    )
    what = (
        f"{(~taken).sum()} rows of what was not taken have no label, but a copy of one of what was: it does not count."
    )
    known = " If it is known for them, draw negatives yourself, for source: table."
    assert [note for note in found.notes if "copy" in note] == [
        f"task '{name}': {what}{known * (name == 'buy')}" for name in ("buy", "stars", "both")
    ]


@pytest.mark.parametrize("metrics", [None, ["auroc", "hr@3"], ["auroc"]])
def test_lists_in_several_splits_and_splits_without_lists_are_told(tmp_path, metrics):
    splits = ["train"] * 6 + ["test"] * 6 + ["val"] * 4  # of lists of four; no validation row is in one
    rows = "".join(f"{i},{i % 2},{i % 2},{i // 4 if i < 12 else ''},{split}\n" for i, split in enumerate(splits))
    (tmp_path / "x.csv").write_text(f"x,y,z,list,split\n{rows}")
    task = {"kind": "binary", "ranking": {"group": "list", "k": 3}, **({"metrics": metrics} if metrics else {})}
    config = _config(tmp_path / "x.csv", ["x"], tasks={"y": task, "z": task}, split={"column": "split"})
    wanted = ["1 of 3 lists of 'list' have rows in several splits, each of which ranks its own alone."]
    if metrics != ["auroc"]:
        told = "no ndcg@3 and no hr@3" if metrics is None else "no hr@3"
        hint = " Give val rows lists, or choose the best epoch by trainer.checkpoint.monitor=val/loss." * (not metrics)
        no_list = "no val row of the positive class is in a list, so that there is"
        wanted += [f"task '{name}': {no_list} {told}.{hint}" for name in "yz"]
    assert [note for note in build_data(config).notes if "list" in note] == wanted
