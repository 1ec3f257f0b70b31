"""Which rows carry a label for a task, and what they count."""

from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from mtl_cli.data.labels import label_column, label_roles, row_weights
from mtl_cli.data.table import Feedback, Part, Table
from mtl_cli.errors import DataError
from mtl_cli.schema import TaskOptions


def _table(**columns):
    frame = pl.DataFrame(columns)
    return Table(frame, (Part("people.csv", 0, frame.height, lines=True),))


def _labels(table, *targets, **options):
    return label_column(table, targets or ["y"], TaskOptions(kind="binary", **options)).values.to_list()


@pytest.mark.parametrize(
    ("values", "marker", "expected"),
    [
        pytest.param(["0", "1", "-1"], -1, ["0", "1", None], id="number in text"),
        pytest.param(["0", "1", "-1.0"], -1, ["0", "1", None], id="number spelt otherwise"),
        pytest.param([0.0, 1.0, -1.0], -1, [0.0, 1.0, None], id="number in numbers"),
        pytest.param(["0", "?", "-1"], ["?", -1], ["0", None, None], id="several"),
        pytest.param(["007", "7", "8"], "7", ["007", None, "8"], id="text is text"),
        pytest.param(["NaN", "?", "1"], None, ["NaN", "?", "1"], id="nothing unless declared"),
        pytest.param([True, False, None], False, [True, None, None], id="truth value"),
        pytest.param([["A", "_"], None], "_", [["A", None], None], id="tokens"),
        pytest.param(pl.Series([[1, -1], [2, 3]], dtype=pl.Array(pl.Int64, 2)), -1, [[1, None], [2, 3]], id="arrays"),
        pytest.param([[1.0, -1.0], [], None], -1, [[1.0, None], [], None], id="number in lists of numbers"),
        pytest.param([[1, -1], [2, 3]], -1.0, [[1, None], [2, 3]], id="number spelt otherwise in lists"),
        pytest.param([2**53 + 1, 2**53], 2**53, [2**53 + 1, None], id="neighbour of a long id"),
        pytest.param([str(2**53 + 1), str(2**53)], 2**53, [str(2**53 + 1), None], id="and in text"),
        pytest.param([[2**63 - 2, 2**63 - 1]], 2**63 - 1, [[2**63 - 2, None]], id="and in lists"),
        pytest.param([Decimal("2.00"), Decimal("3.00")], 2, [None, Decimal("3.00")], id="decimals"),
        pytest.param(pl.Series([0.1, 2.0], dtype=pl.Float32), [0.1], [None, 2.0], id="fraction in 32 bits"),
        pytest.param(["cafe\u0301", "the"], "caf\u00e9", [None, "the"], id="another Unicode form"),
        pytest.param(["007", "1e3", "x"], [7, 1000], [None, None, "x"], id="numbers in text"),
        pytest.param([None, None], [1, True], [None, None], id="no value at all"),
        pytest.param(pl.Series([[1, -1]], dtype=pl.Array(pl.Float32, 2)), -1, [[1.0, None]], id="arrays of numbers"),
    ],
)
def test_only_declared_markers_mean_no_label(values, marker, expected):  # LAB-05, DAT-01
    assert _labels(_table(y=values), missing_label=marker) == expected


def test_rows_of_what_was_not_taken_have_their_own_label_and_no_other():
    frame = pl.DataFrame({"stars": [5, 4, 5, 4, 3], "took": [1, 1, 0, 0, None]})
    table = Table(frame, (Part("took.csv", 0, 5, lines=True),), feedback=(Feedback(0, 4, "user", "item", "took"),))
    assert _labels(table, "took") == [1, 1, 0, 0, None]
    assert _labels(table, "stars") == [5, 4, None, None, 3]  # the last row is of another source
    assert _labels(table, "took", "stars")[2:4] == [{"took": 0, "stars": None}] * 2
    assert _labels(table, "took", mask_by={"stars": 5}) == [1, None, 0, None, None]


def test_marker_of_one_task_is_a_value_of_another():  # LAB-05
    table = _table(ya=["1.0", "-1.0"], yb=["0", "-1"])
    assert _labels(table, "yb", missing_label=-1) == ["0", None]
    assert _labels(table, "ya") == ["1.0", "-1.0"]


@pytest.mark.parametrize(
    ("clicked", "wanted"),
    [(["1", "0", "1.0", None], 1), ([1, 0, 1, None], 1), ([True, False, True, None], 1), (["y", "n", "y", ""], "y"),
     (["a", "b", "c", "d"], ["a", "c"]), ([True, False, True, None], True)],
    ids=["text", "numbers", "truth values", "words", "one of several", "truth value"],
)  # fmt: skip
def test_label_counts_only_where_the_mask_holds(clicked, wanted):
    table = _table(y=["0", "1", "1", "0"], clicked=clicked)
    assert _labels(table, mask_by={"clicked": wanted}) == ["0", None, "1", None]


def test_all_masks_must_hold():
    table = _table(y=["0", "1", "1"], clicked=["1", "1", "0"], country=["de", "at", "de"])
    assert _labels(table, mask_by={"clicked": 1, "country": "de"}) == ["0", None, None]


def test_mask_that_never_holds_is_told():
    with pytest.raises(DataError) as caught:
        _labels(_table(y=["0"], country=["Austria"]), mask_by={"country": "Austira"})
    assert str(caught.value) == "mask_by.country: no row of people.csv holds 'Austira'. Did you mean 'Austria'?"


def test_row_of_weight_0_has_no_label():  # LAB-14
    table = _table(y=["0", "1", "1"], w=["0", "2", "0.0"])
    assert _labels(table, sample_weight="w") == [None, "1", None]


def test_several_columns_are_one_label():
    table = _table(a=["1", "-1"], b=["0", "1"], clicked=["1", "1"])
    assert _labels(table, "a", "b", missing_label=-1) == [{"a": "1", "b": "0"}, {"a": None, "b": "1"}]
    masked = _labels(_table(a=["1", "0"], b=["0", "1"], clicked=["1", "0"]), "a", "b", mask_by={"clicked": 1})
    assert masked == [{"a": "1", "b": "0"}, None]


def test_weights_are_needed_where_there_is_a_label():
    table = _table(w=["2", None, "0.5"])
    assert row_weights(table, "w", pl.Series([True, False, True]).to_numpy()).tolist() == [2.0, 1.0, 0.5]


def test_further_bad_weights_are_counted():
    with pytest.raises(DataError) as caught:
        row_weights(_table(w=["-1"] * 7), "w", pl.Series([True] * 7).to_numpy())
    assert len(caught.value.problems) == 6
    assert str(caught.value.problems[-1]) == "people.csv, column 'w': has 2 more cells of this kind."


def test_bad_weights_are_named_with_their_rows():  # LAB-14
    with pytest.raises(DataError) as caught:
        row_weights(_table(w=["1", "-1", None, "heavy", "inf"]), "w", pl.Series([True] * 5).to_numpy())
    hint = "Correct the cell; 0 takes the row out of the task."
    assert str(caught.value).splitlines() == [
        f"people.csv, column 'w', row {row} (line {row + 1}): "
        f"a weight must be a number of at least 0, got {value}. {hint}"
        for row, value in ((2, "'-1'"), (3, "nothing"), (4, "'heavy'"), (5, "'inf'"))
    ]


def test_bad_weight_that_is_a_decimal_is_shown_as_it_is_written():
    with pytest.raises(DataError, match=r"must be a number of at least 0, got -2\.00\."):
        row_weights(_table(w=[Decimal("-2.00")]), "w", pl.Series([True]).to_numpy())


@pytest.mark.parametrize("weight", [1e-44, 1e36])  # in 32 bits the loss of a batch of such rows is no number
def test_weight_that_32_bits_do_not_hold_is_refused(weight):
    with pytest.raises(DataError) as caught:
        row_weights(_table(w=[1e-30, weight, 0.0, 1e30, weight]), "w", np.array([True, True, True, True, False]))
    assert str(caught.value) == (
        f"people.csv, column 'w', row 2 (line 3): a weight must be 0, or from 1e-30 to 1e+30, got {weight}. "
        "Correct the cell; 0 takes the row out of the task. "
        "Only ratios matter: all weights may be multiplied by one number."
    )


@pytest.mark.parametrize("cells", [[date(2024, 1, 1), None], [datetime(2024, 1, 1), None]])
def test_days_and_moments_are_no_weights(cells):
    with pytest.raises(
        DataError, match=r"^people\.csv, column 'w': a weight must be a number of at least 0, got type Date"
    ):
        _labels(_table(y=["1", "0"], w=cells), sample_weight="w")
    with pytest.raises(DataError, match="a weight must be a number"):
        row_weights(_table(w=cells), "w", np.array([True, False]))


@pytest.mark.parametrize("cells", [[[1], [2]], [{"a": 1}, {"a": 2}]])
@pytest.mark.parametrize("options", [{"mask_by": {"x": 1}}, {"sample_weight": "x"}])
def test_lists_are_no_weights_and_no_masks(cells, options):
    with pytest.raises(
        DataError, match=r"^people\.csv, column 'x': must hold one value in each row, got type (List|Struct)"
    ):
        _labels(_table(y=["1", "0"], x=cells), **options)


def test_columns_of_tasks_have_roles():
    tasks = {
        "b": (["y"], TaskOptions(kind="binary", mask_by={"x": 1, "asked": 1}, sample_weight="w")),
        "a": (["x"], TaskOptions(kind="binary")),
    }
    assert label_roles(tasks) == {
        "y": "target of task 'b'",
        "x": "target of task 'a'",
        "asked": "mask_by of task 'b'",
        "w": "sample_weight of task 'b'",
    }


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [([b"x", b"\xff"], "Binary"), ([timedelta(1), None], "Duration"), ([[timedelta(1)], []], "List")],
)
def test_cells_that_are_no_labels_are_refused(cells, dtype):
    table = Table(pl.DataFrame({"a": cells}), (Part("a.parquet", 0, 2, lines=False),))
    with pytest.raises(
        DataError, match=rf"^a\.parquet, column 'a': must hold numbers, text or lists, got type {dtype}"
    ):
        label_column(table, ["a"], TaskOptions(kind="binary"))
