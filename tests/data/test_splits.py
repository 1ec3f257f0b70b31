"""Splits: every row once, the same on every machine, and never torn where it must not be."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mtl_cli.data import SplitOptions, Table, split_rows
from mtl_cli.data.table import Feedback, Part
from mtl_cli.errors import ConfigError, DataError
from mtl_cli.registry import SOURCES

SHARED = Path(__file__).resolve().parents[3] / "shared"


def table_of(columns, given=None):
    frame = pl.DataFrame(columns)
    split = None if given is None else pl.Series("split", given)
    return Table(frame, (Part("x.csv", 0, frame.height, lines=True),), given_split=split)


def lists(splits):
    return splits.train.tolist(), splits.val.tolist(), splits.test.tolist()


def error_of(kind, table, **options):
    with pytest.raises(kind) as caught:
        split_rows(table, SplitOptions(**options))
    return str(caught.value)


def assert_partition(splits, count):
    rows = np.concatenate([splits.train, splits.val, splits.test])
    assert sorted(rows.tolist()) == list(range(count))
    for part in (splits.train, splits.val, splits.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_random_split_has_the_asked_shares_and_does_not_change():
    table = table_of({"x": range(1000)})
    splits = split_rows(table, SplitOptions(val=0.15, test=0.2))
    assert [len(part) for part in lists(splits)] == [650, 150, 200]
    assert_partition(splits, 1000)
    assert splits.method == "at random (0.15 val, 0.2 test, seed 0)"
    assert splits.notes == ()
    assert lists(split_rows(table, SplitOptions(val=0.15, test=0.2))) == lists(splits)
    assert lists(split_rows(table, SplitOptions(val=0.15, test=0.2, seed=1))) != lists(splits)
    assert split_rows(table, SplitOptions()).val[:5].tolist() == [13, 19, 26, 28, 31]  # pinned: a study must repeat


def test_small_table_keeps_a_row_for_every_split():
    assert [len(part) for part in lists(split_rows(table_of({"x": range(4)}), SplitOptions()))] == [2, 1, 1]


def test_without_test_rows_there_is_a_note():
    splits = split_rows(table_of({"x": range(10)}), SplitOptions(test=0.0))
    assert [len(part) for part in lists(splits)] == [9, 1, 0]
    assert splits.notes == ("There are no test rows: the final numbers are those of the validation rows.",)


def test_files_given_per_split_are_used_as_they_are():
    splits = split_rows(table_of({"x": range(4)}, ["train", "train", "val", "test"]), SplitOptions())
    assert lists(splits) == ([0, 1], [2], [3])
    assert (splits.method, splits.notes) == ("by files", ())


def test_validation_rows_are_drawn_from_training_rows_and_never_from_test_rows():
    splits = split_rows(table_of({"x": range(30)}, ["train"] * 20 + ["test"] * 10), SplitOptions(val=0.25))
    assert [len(part) for part in lists(splits)] == [15, 5, 10]
    assert splits.test.tolist() == list(range(20, 30))
    assert splits.notes == ("No validation rows are given: 5 of 20 training rows were drawn at random for it.",)


def test_column_words_are_read_in_any_case_and_spelling():
    words = ["train", "TRAINING", "val", "Valid", "validation", "dev", "test", " Testing "]
    splits = split_rows(table_of({"s": words}), SplitOptions(column="s"))
    assert lists(splits) == ([0, 1], [2, 3, 4, 5], [6, 7])


def test_unknown_or_missing_split_words_are_listed_with_counts():
    table = table_of({"s": ["train", "holdout", None, "train", "holdout"]})
    expected = "x.csv, column 's', row 2 (line 3): must be train, val or test in every row, got "
    assert error_of(DataError, table, column="s") == expected + "'holdout' (2), 'train' (2), (missing) (1)."


def test_column_that_does_not_exist_is_named_with_its_key():
    expected = "data.split.column: no column 'splt' in x.csv. Did you mean 'split'?"
    assert error_of(DataError, table_of({"split": ["train"]}), column="splt") == expected


def test_empty_training_or_validation_is_refused():
    hint = "Change data.split, or give more rows."
    one = table_of({"s": ["test", "val"]})
    assert error_of(DataError, one, column="s") == f"x.csv: no training rows, got 2 rows split by column 's'. {hint}"
    one = table_of({"s": ["test", "train"]})  # which is not taken to choose by, either
    assert error_of(DataError, one, column="s") == f"x.csv: no validation rows, got 2 rows split by column 's'. {hint}"
    how = "at random (0.1 val, 0.1 test, seed 0)"
    assert error_of(DataError, table_of({"s": []})) == (
        f"x.csv: no training rows, got 0 rows split {how}. {hint}\n"
        f"x.csv: no validation rows, got 0 rows split {how}. {hint}"
    )


def test_stratified_split_keeps_every_value_in_proportion():
    labels = ["a"] * 900 + ["b"] * 80 + [None] * 20
    splits = split_rows(table_of({"y": labels}), SplitOptions(stratify="y", val=0.2, test=0.1))
    assert_partition(splits, 1000)
    for part, fraction in ((splits.val, 0.2), (splits.test, 0.1)):
        found = [labels[i] for i in part]
        assert {k: found.count(k) for k in ("a", "b", None)} == {
            k: round(labels.count(k) * fraction) for k in ("a", "b", None)
        }
    assert splits.method == "stratified by 'y' (0.2 val, 0.1 test, seed 0)"


def test_a_column_without_a_value_stratifies_as_one_value():
    splits = split_rows(table_of({"y": pl.Series([None] * 20, dtype=pl.String)}), SplitOptions(stratify="y"))
    assert [len(part) for part in lists(splits)] == [16, 2, 2]


def test_stratified_totals_come_out_right_over_many_small_values():
    splits = split_rows(table_of({"y": [i // 4 for i in range(400)]}), SplitOptions(stratify="y", val=0.1, test=0.1))
    assert [len(part) for part in lists(splits)] == [320, 40, 40]
    assert set(splits.train // 4) == set(range(100))  # every value can be learned


def test_values_that_occur_once_go_to_train_with_a_note():
    splits = split_rows(table_of({"y": ["a"] * 10 + ["b"] * 10 + ["rare"]}), SplitOptions(stratify="y"))
    assert 20 in splits.train
    assert splits.notes == ("Column 'y' has values that occur once; their rows went to train: 'rare'.",)


def test_stratifying_by_an_id_is_refused():
    table = table_of({"y": range(10)})
    what = "cannot be stratified by: 10 of 10 rows hold a value of their own"
    assert error_of(DataError, table, stratify="y") == f"x.csv, column 'y': {what}. Choose a column with few values."


def test_no_group_is_in_two_splits():
    groups = np.random.default_rng(0).integers(0, 20, 500)
    splits = split_rows(table_of({"g": groups.astype(str)}), SplitOptions(group="g", val=0.2, test=0.2))
    assert_partition(splits, 500)
    found = [set(groups[part]) for part in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in found] == [12, 4, 4]
    assert len(set.union(*found)) == 20
    sizes = [len(part) for part in lists(splits)]
    assert splits.notes == (f"20 groups of 'g' make {sizes[0]} train, {sizes[1]} val and {sizes[2]} test rows.",)


def test_stratified_and_grouped_splits_do_not_change():  # pinned: a study must repeat
    values = [str(i * 7919 % 97 % 5) for i in range(1000)]  # sorting equal ones otherwise would draw others
    assert split_rows(table_of({"y": values}), SplitOptions(stratify="y")).val[:5].tolist() == [0, 38, 47, 52, 61]
    groups = [str(i * 7919 % 97) for i in range(1000)]
    assert split_rows(table_of({"g": groups}), SplitOptions(group="g")).val[:5].tolist() == [5, 6, 30, 32, 41]


def test_as_many_groups_as_splits_are_enough():
    found = split_rows(table_of({"g": ["a", "b", "c", "c"]}), SplitOptions(group="g"))
    assert sorted(lists(found)) == [[0], [1], [2, 3]]
    found = split_rows(table_of({"g": ["a", "b", "b"]}), SplitOptions(group="g", test=0.0))
    assert sorted(lists(found)) == [[], [0], [1, 2]]


def test_missing_or_too_few_groups_are_refused():
    place = "x.csv, column 'g', row 2 (line 3)"
    expected = f"{place}: is missing, as a group is in 2 of 3 rows. Give every row a group."
    assert error_of(DataError, table_of({"g": ["a", None, None]}), group="g") == expected
    expected = "x.csv, column 'g': has 2 groups, but 3 splits need one each."
    assert error_of(DataError, table_of({"g": ["a", "b", "b"]}), group="g") == expected


def test_auto_takes_the_first_way_that_has_what_it_needs_and_tells_what_it_ignores():
    columns = {"s": ["train", "val"] * 5, "g": list("abcdefghij"), "y": ["u", "v"] * 5}
    both = split_rows(table_of(columns), SplitOptions(column="s", group="g", stratify="y", test=0.0))
    assert both.method == "by column 's'"
    assert both.notes[:2] == (
        "data.split.group is not used: the rows are split by method 'column'.",
        "data.split.stratify is not used: the rows are split by method 'column'.",
    )
    assert split_rows(table_of(columns), SplitOptions(group="g", stratify="y")).method.startswith("by group 'g'")
    given = split_rows(table_of(columns, ["train", "val"] * 5), SplitOptions(column="s"))
    assert given.notes[0] == "data.split.column is not used: the rows are split by method 'files'."


def test_contradicting_options_are_refused_together():
    table = table_of({"x": range(4)})
    expected = "data.split.method: is 'files', but the files are not given per split. Write data.train and data.val."
    assert error_of(ConfigError, table, method="files") == expected
    assert error_of(ConfigError, table, method="stratified", val=0.5, test=0.5) == (
        "data.split.stratify: must be given with method 'stratified', got null. Name a column.\n"
        "data.split.val: and data.split.test leave no training rows, got 0.5 and 0.5."
    )
    given = table_of({"x": range(2)}, ["train", "val"])
    hint = "Write data.split.method=files, or give all files in data.path."
    expected = f"data.split.method: is 'random', but the files are given per split. {hint}"
    assert error_of(ConfigError, given, method="random") == expected


@pytest.mark.parametrize("values", [[b"\xff", b"train"], [timedelta(1), timedelta(2)]])
def test_a_column_without_a_text_cannot_say_the_split(values):
    message = error_of(DataError, table_of({"s": values}), column="s")
    assert message.startswith("data.split.column: column 's' must hold train, val or test as text, got type ")


def test_a_list_column_cannot_split():
    table = table_of({"fp": [[1], [2]]})
    expected = "data.split.group: column 'fp' holds lists, got type List(Int64)."
    assert error_of(DataError, table, group="fp") == expected


@pytest.mark.parametrize("values", [[True, False] * 10, [1.5, 2.5] * 10, [0, 1] * 10])
def test_any_plain_type_stratifies(values):
    splits = split_rows(table_of({"y": values}), SplitOptions(stratify="y", val=0.2, test=0.2))
    assert [len(part) for part in lists(splits)] == [12, 4, 4]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
def test_official_split_of_adult_is_used():
    table = SOURCES.build("table", path=str(SHARED / "data/adult/adult.parquet")).read()
    splits = split_rows(table, SplitOptions(column="split"))
    assert [len(part) for part in lists(splits)] == [29305, 3256, 16281]


def test_a_share_of_the_training_rows_leaves_the_other_splits_as_they_are():
    table = Table(pl.DataFrame({"x": range(1000)}), (Part("x.csv", 0, 1000, lines=True),))
    whole, third, tenth = (split_rows(table, SplitOptions(train_fraction=f)) for f in (1.0, 0.3, 0.1))
    assert (len(whole.train), len(third.train), len(tenth.train)) == (800, 240, 80)
    assert set(tenth.train) < set(third.train) < set(whole.train)
    assert third.val.tolist() == whole.val.tolist()
    assert third.test.tolist() == whole.test.tolist()
    assert third.notes == ("Trained on 240 of 800 training rows (data.split.train_fraction=0.3).",)
    assert third.train.tolist() == sorted(third.train.tolist())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "2 of 3 lists of candidates would have rows in several splits, which come at random (0.1 val, 0.1 test"),
        (
            {"stratify": "y"},
            "2 of 3 lists of candidates would have rows in several splits, which come stratified by 'y'",
        ),
        (
            {"column": "s", "val": 0.5},
            "3 of 3 lists of candidates would have rows in several splits, which come by column",
        ),
    ],
)
def test_lists_of_candidates_are_not_torn(options, told):
    frame = pl.DataFrame({"list": [0] * 4 + [1] * 4 + [2] * 4 + [None] * 4, "y": [0, 1] * 8})
    frame = frame.with_columns(s=pl.when(pl.col("list").is_null()).then(pl.lit("test")).otherwise(pl.lit("train")))
    feedback = Feedback(0, 16, "user", "item", "y", "list")
    table = Table(frame, (Part("t.csv", 0, 16, lines=True),), feedback=(feedback,))
    with pytest.raises(ConfigError) as caught:
        split_rows(table, SplitOptions(**options))
    assert str(caught.value).startswith(f"data.split.method: {told}")
    assert str(caught.value).endswith(
        "Give both files a column with train, val and test, and write data.split.column=NAME."
    )
    whole = table.frame.with_columns(s=pl.Series(["train"] * 4 + ["val"] * 4 + ["test"] * 4 + ["train"] * 4))
    assert split_rows(Table(whole, table.parts, feedback=(feedback,)), SplitOptions(column="s")).val.tolist() == [
        4,
        5,
        6,
        7,
    ]
