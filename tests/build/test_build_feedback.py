"""What users took as data of a run: inputs that rows of what they did not take cannot have."""

import polars as pl
import pytest

from mtl_cli.build import build_data
from mtl_cli.errors import ConfigError
from mtl_cli.schema import validate


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What six users took, with columns of the user, of the item and of the occasion, and lists without them."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"user": user, "item": (user + i) % 9, "split": "val" if i == 3 else "train", "hour": 3 * user + i}
        for user in range(6)
        for i in range(4)
    ]
    took = pl.DataFrame(rows).with_columns(
        age=40 + pl.col("user"), year=1990 + pl.col("item"), place=pl.concat_list("item", 7 - pl.col("item"))
    )
    took.write_parquet("took.parquet")
    last = took.filter(pl.col("split") == "val").with_columns(
        candidates=pl.concat_list("item", (pl.col("item") + 1) % 9)
    )
    last.drop("item").write_parquet("full.parquet")
    last.select("user", "split", "candidates", shelf=pl.lit("top")).write_parquet("lists.parquet")


def build(inputs="*", exclude=(), tasks=None, **data):
    own = {"source": "interactions", "path": "took.parquet"} if "sources" not in data else {}
    return build_data(
        validate({
            "data": {**own, "inputs": inputs, "exclude": list(exclude), "split": {"column": "split"}, **data},
            "tasks": tasks or {"label": {"kind": "binary", "classes": [0, 1]}},
            "encoder": {"name": "mlp"}, "sharing": {"name": "hard"}, "balancing": {"name": "equal"},
            "optimizer": {"name": "adamw"}, "scheduler": {"name": "constant"}, "trainer": {},
        })
    )  # fmt: skip


@pytest.mark.parametrize("data", [{}, {"negatives": 0, "candidates": "full.parquet"}])
def test_inputs_that_go_with_the_item_are_refused_where_rows_have_another(files, data):
    with pytest.raises(ConfigError) as caught:
        build(exclude=["place", "list"], **data) if data else build(exclude=["place"])
    assert str(caught.value) == (
        "data.inputs: column 'year' goes with 'item' (one value for each), and rows of what was not taken hold that of "
        "what was. Draw negatives yourself, for source: table, or leave it out of data.inputs, or by "
        "data.exclude=[year] if that is all columns."
    )
    found = build(["user", "item", "age", "hour"], **data)
    assert list(found.features.columns) == ["age", "hour", "user", "item"]  # these are the same whatever the item is
    rows = 6 if data else 24 * 4
    what = f"{rows} rows of what was not taken have columns 'age', 'hour' of what was, which must not depend on 'item'."
    assert [note for note in found.notes if "taken" in note] == [what]


def test_what_says_what_was_taken_and_offered_is_no_input_unless_it_is_named(files):
    table = pl.read_parquet("took.parquet").drop("place", "year")
    table.with_columns(bought=pl.col("hour") % 2).write_parquet("took.parquet")
    tasks = {"bought": {"kind": "binary"}}
    found = build(tasks=tasks, candidates="full.parquet", exclude=["place", "year"])
    assert list(found.features.columns) == ["hour", "age", "user", "item"]
    assert "list" in build(["list", "user", "item"], tasks=tasks, candidates="full.parquet").features.columns


def test_inputs_that_go_with_the_item_are_read_where_all_rows_are_of_what_was_taken(files):
    assert "year" in build(["user", "item", "year"], negatives=0).features.columns


def test_all_that_is_wrong_with_the_inputs_is_one_message(files):
    own = {"source": "interactions", "path": "took.parquet", "candidates": "lists.parquet"}
    other = {"source": "interactions", "path": "took.parquet", "rename": {"hour": "time"}}
    with pytest.raises(ConfigError) as caught:
        build(["age", "hour", "time", "year", "place", "shelf"], sources={"a": own, "b": other})
    message = str(caught.value).splitlines()
    goes = (
        "columns 'year', 'place' go with 'item' (one value for each), and rows of what was not taken hold that of what"
    )
    lacks = "would say which candidate was taken, as there is none in"
    assert [line.partition(". ")[0].removeprefix("data.inputs: ") for line in message] == [
        "column 'user', by which negatives are drawn anew, is no category among them",
        "column 'item', by which negatives are drawn anew, is no category among them",
        f"{goes} was",
        f"columns 'age', 'hour' {lacks} lists.parquet",
        f"column 'shelf' {lacks} took.parquet",
        f"{goes} was",
    ]
    hint = "Add it there, or leave it out of data.inputs, or by data.exclude=[shelf] if that is all columns."
    assert message[4].endswith(hint)
