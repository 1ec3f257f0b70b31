"""Implicit feedback as rows: what was read, what was drawn, and the lists to rank."""

import numpy as np
import polars as pl
import pytest
import torch

from mtl_cli.data.negatives import Negatives
from mtl_cli.data.table import Feedback
from mtl_cli.errors import ConfigError, DataError
from mtl_cli.registry import SOURCES


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Twelve interactions of three users, and lists of two of them."""
    monkeypatch.chdir(tmp_path)
    items = [[0, 1, 2, 3], [2, 3, 4, 5], [6, 7, 0, 8]]
    rows = [(f"u{u}", item, "train" if i < 3 else "test") for u, own in enumerate(items) for i, item in enumerate(own)]
    pl.DataFrame(rows, ["user", "item", "split"], orient="row").write_parquet("took.parquet")
    lists = {"user": ["u0", "u1"], "split": ["test", "test"], "candidates": [[3, 9, 8], [5, 0, 1]]}
    pl.DataFrame(lists).write_parquet("lists.parquet")


def read(**options):
    return SOURCES.build("interactions", path="took.parquet", **options).read()


def test_each_interaction_gets_negatives_that_its_user_never_took(files):
    table = read(negatives=2)
    assert table.frame.height == 36
    assert table.frame["label"].to_list() == [1] * 12 + [0] * 24
    read_rows, drawn = table.frame[:12], table.frame[12:]
    assert drawn["user"].to_list() == np.repeat(read_rows["user"], 2).tolist()
    assert drawn["split"].to_list() == np.repeat(read_rows["split"], 2).tolist()
    assert set(drawn["item"]) <= set(read_rows["item"])
    assert drawn.join(read_rows, on=["user", "item"], how="semi").height == 0
    assert table.frame.equals(read(negatives=2).frame)
    assert not table.frame.equals(read(negatives=2, seed=1).frame)
    assert [(mark.first, mark.rows, mark.user, mark.item) for mark in table.drawn] == [(12, 24, "user", "item")]
    assert table.where("item", 4) == "took.parquet, column 'item', row 5"


def test_users_who_took_every_item_get_no_negatives_which_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [("u", "a"), ("u", "b"), ("u", "c"), ("v", "a")]
    pl.DataFrame(rows, ["user", "item"], orient="row").write_csv("took.csv")
    table = SOURCES.build("interactions", path="took.csv", negatives=2).read()
    assert table.frame[:4].rows() == [(*row, 1) for row in rows]
    drawn = table.frame[4:]
    assert drawn["user"].to_list() == ["v", "v"]
    assert set(drawn["item"]) <= {"b", "c"}
    assert drawn["label"].to_list() == [0, 0]
    assert [(mark.first, mark.rows) for mark in table.drawn] == [(4, 2)]
    assert table.notes == ("took.csv: left out the 6 negatives of 1 user, who took every item.",)
    pl.DataFrame({"user": ["u", "v"], "item": ["a", "a"]}).write_csv("one.csv")
    table = SOURCES.build("interactions", path="one.csv", negatives=1).read()
    assert table.frame.height == 2
    assert table.drawn == ()
    assert table.notes == ("one.csv: left out the 2 negatives of 2 users, each of whom took every item.",)


def test_users_who_took_nearly_every_item_get_negatives_of_the_rest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    took = [("u", item) for item in range(198)] + [("v", item) for item in range(200) if item != 7] + [("w", 7)]
    pl.DataFrame(took, ["user", "item"], orient="row").write_parquet("took.parquet")
    table = read(negatives=1)
    assert table.notes == ()
    assert table.frame.height == 2 * len(took)
    drawn = table.frame[len(took) :]
    assert drawn.join(table.frame[: len(took)], on=["user", "item"], how="semi").height == 0
    assert np.bincount(drawn["item"].filter(drawn["user"] == "u"))[198:].min() > 70  # 99 each
    assert table.frame.equals(read(negatives=1).frame)


def test_lists_hold_the_interaction_and_the_other_candidates(files):
    table = read(candidates="lists.parquet", negatives=1)
    listed = table.frame.filter(pl.col("list").is_not_null()).sort("list", "label", descending=[False, True])
    assert listed.select("user", "item", "label", "list").rows() == [
        ("u0", 3, 1, 0), ("u0", 9, 0, 0), ("u0", 8, 0, 0), ("u1", 5, 1, 1), ("u1", 0, 0, 1), ("u1", 1, 0, 1),
    ]  # fmt: skip
    assert listed["split"].unique().to_list() == ["test"]
    assert table.frame.height == 12 + 4 + 10  # the two that are in a list need no negatives
    assert table.drawn[0].first == 16
    (found,) = table.feedback
    assert found == Feedback(0, 26, "user", "item", "label", "list")
    assert table.not_taken[0].tolist() == [False] * 12 + [True] * 14


def test_columns_may_be_called_as_what_is_counted_on_the_way(files):
    wanted = read(candidates="lists.parquet", negatives=2).frame.drop("label", "list", "split")
    names = {"user": "row", "item": "place", "split": "user"}
    for name in ("took", "lists"):
        pl.read_parquet(f"{name}.parquet").rename(names, strict=False).write_parquet(f"{name}.parquet")
    table = read(user="row", item="place", candidates="lists.parquet", negatives=2)
    assert table.frame.drop("label", "list", "user").rename({"row": "user", "place": "item"}).equals(wanted)


def test_items_that_nobody_took_are_drawn_too(files):
    drawn = read(candidates="lists.parquet", negatives=50).frame[16:]
    assert set(drawn["item"]) == set(range(10))  # 9 is in a list alone


def test_list_whose_first_is_no_interaction_is_whole_all_the_same(files):
    lists = {"user": ["u0", "u9"], "split": ["test", "test"], "candidates": [[7, 9], [0, 1]]}
    pl.DataFrame(lists).write_parquet("lists.parquet")
    table = read(candidates="lists.parquet", negatives=0)
    assert table.frame[12:].select("user", "item", "label", "list").rows() == [
        ("u0", 7, 1, 0), ("u0", 9, 0, 0), ("u9", 0, 1, 1), ("u9", 1, 0, 1),
    ]  # fmt: skip
    assert table.drawn == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "usr"}, "data.user: no column 'usr' in took.parquet. Did you mean 'user'?"),
        (
            {"label": "split"},
            "took.parquet, column 'split': has the name of a new column. Rename it, or set data.label.",
        ),
        (
            {"candidates": "lists.parquet", "candidates_column": "list"},
            "data.candidates_column: no column 'list' in lists.parquet. Did you mean 'split'?",
        ),
        (
            {"candidates": "lists.parquet", "candidates_column": "split"},
            "lists.parquet, column 'split': must hold lists of items, got type String.",
        ),
    ],
)
def test_what_cannot_be_read_is_one_message(files, options, message):
    with pytest.raises(DataError) as caught:
        read(**options)
    assert str(caught.value) == message


def test_missing_cells_and_empty_lists_are_refused(files):
    pl.DataFrame({"user": ["u0", None], "item": [1, 2]}).write_parquet("holes.parquet")
    with pytest.raises(DataError, match=r"^holes\.parquet, column 'user', row 2: is missing\."):
        SOURCES.build("interactions", path="holes.parquet").read()
    pl.DataFrame(
        {"user": ["u0"], "candidates": [[]]}, {"user": pl.String, "candidates": pl.List(pl.Int64)}
    ).write_parquet("lists.parquet")
    with pytest.raises(DataError, match=r"^lists\.parquet, column 'candidates', row 1: is an empty list"):
        read(candidates="lists.parquet")
    pl.DataFrame({"user": ["u0"], "candidates": [[3, None]]}).write_parquet("lists.parquet")
    with pytest.raises(DataError, match=r"^lists\.parquet, column 'candidates', row 1: holds a missing item"):
        read(candidates="lists.parquet")
    with pytest.raises(ConfigError, match=r"data\.path: must be given"):
        SOURCES.build("interactions")


def test_candidates_of_another_type_are_read_as_the_interactions_are_or_refused(files):
    wanted = read(candidates="lists.parquet").frame
    lists = {"user": ["u0", "u1"], "split": ["test", "test"], "candidates": [["3", "9", "8"], ["5", "0", "1"]]}
    pl.DataFrame(lists).write_parquet("texts.parquet")
    assert read(candidates="texts.parquet").frame.equals(wanted)
    pl.DataFrame({**lists, "user": [[0], [1]], "candidates": [["3", "x"], ["5"]]}).write_parquet("other.parquet")
    with pytest.raises(DataError) as caught:
        read(candidates="other.parquet")
    assert [problem.where for problem in caught.value.problems] == [
        "other.parquet, column 'user'", "other.parquet, column 'candidates'",
    ]  # fmt: skip
    assert "has type List(String), but must be read as List(Int64)" in str(caught.value)


def negatives():
    """Two users; rows 2.. are drawn, row 1 is of another source."""
    users, items = np.array([0, -1, 0, 0, 1, 1, 1]), np.array([1, 5, 2, 3, 1, 4, 3])
    return Negatives.of(np.array([3, 6]), 1, users, items)


def test_negatives_of_an_epoch_are_a_function_of_seed_and_epoch():
    users, items = np.repeat(np.arange(10), 4), np.arange(40)
    own = Negatives.of(np.arange(3, 40, 4), 1, users, items)
    draws = [tuple(own.draw(seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert draws == [tuple(own.draw(seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert len(set(draws)) == 25


def test_every_item_that_a_user_has_not_taken_is_drawn_about_equally_often():
    users, items = np.repeat([0, 1], 120), np.concatenate([np.arange(20)] * 12)
    drawn = np.flatnonzero(np.arange(240) % 120 >= 10)  # either user has taken items 0 to 9
    found = Negatives.of(drawn, 1, users, items).draw(0, 0)
    for own in (found[:110], found[110:]):
        counts = np.bincount(own, minlength=20)
        assert not counts[:10].any()
        assert 2 <= counts[10:].min() <= counts.max() <= 24  # 11 each


def test_negatives_are_items_of_the_source_that_the_user_has_not_taken():
    own = negatives()
    assert own.items.tolist() == [1, 2, 3, 4]  # nobody took 3; 5 is of another source
    drawn = np.array([own.draw(0, epoch) for epoch in range(50)])
    assert set(drawn[:, 0]) == {3, 4}  # user 0 took 1 and 2
    assert set(drawn[:, 1]) == {2, 3}  # user 1 took 1 and 4
    codes = torch.zeros(7, 3, dtype=torch.int64)
    own.write(codes, 0, 0)
    first, second = own.draw(0, 0).tolist()
    assert codes.tolist() == [[0, 0, 0]] * 3 + [[0, first, 0]] + [[0, 0, 0]] * 2 + [[0, second, 0]]


def test_rows_of_a_user_who_took_every_item_in_training_keep_their_first_item():
    users, items = np.array([0, 0, 0, 1]), np.array([3, 4, 4, 3])
    own = Negatives.of(np.array([2]), 0, users, items)  # 4 is a candidate with label 0, too
    assert {own.draw(0, epoch).item() for epoch in range(20)} == {4}
