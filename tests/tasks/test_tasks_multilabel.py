"""Any number of labels for a row: how they are written, and what they score."""

import numpy as np
import polars as pl
import pytest
import sklearn.metrics as oracle
import torch
from worlds import NAN, column, every_row

from mtl_cli.errors import ConfigError, DataError
from mtl_cli.tasks.multilabel import Multilabel

EXPECTED = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [NAN, NAN, NAN]]


def _fit(values, dtype=None, **options):
    kind = Multilabel(**options)
    labels = column(values, dtype=dtype)
    kind.fit(labels, every_row(values))
    return kind, kind.encode(labels)


@pytest.mark.parametrize(
    ("values", "dtype", "options"),
    [
        pytest.param([["a", "c"], [], ["b"], None], pl.List(pl.String), {}, id="lists"),
        pytest.param(["a;c", "", "b", None], pl.String, {}, id="text"),
        pytest.param([" c | a", "", "b|", None], pl.String, {"delimiter": "|"}, id="text with blanks"),
        pytest.param(
            [{"a": 1, "b": 0, "c": 1}, {"a": 0, "b": 0, "c": 0}, {"a": 0, "b": 1, "c": 0}, dict.fromkeys("abc")],
            None, {}, id="columns",
        ),
        pytest.param(
            [{"a": 1, "b": 0, "c": 1}, {"a": 0, "b": 0, "c": 0}, {"a": 0, "b": 1, "c": 0}, dict.fromkeys("abc")],
            pl.Struct(dict.fromkeys("abc", pl.Decimal(10, 2))), {}, id="columns of decimals",
        ),
        pytest.param(
            [{"a": True, "b": False, "c": True}, dict.fromkeys("abc", False),
             {"a": False, "b": True, "c": False}, None],
            None, {}, id="columns of truth values",
        ),
    ],
)  # fmt: skip
def test_labels_are_read_however_they_are_written(values, dtype, options):
    kind, targets = _fit(values, dtype, **options)
    assert kind.classes == ["a", "b", "c"]
    np.testing.assert_array_equal(targets, EXPECTED)


@pytest.mark.parametrize("dtype", [pl.List(pl.String), pl.Array(pl.String, 2)])
def test_nothing_but_missing_labels_is_no_label(dtype):
    _, targets = _fit([["a", "b"], [None, None], ["b", None], None], dtype)
    np.testing.assert_array_equal(targets, [[1, 1], [NAN, NAN], [0, 1], [NAN, NAN]])


def test_an_empty_list_is_a_row_without_labels():
    _, targets = _fit([["a", "b"], [], None], pl.List(pl.String))
    np.testing.assert_array_equal(targets, [[1, 1], [0, 0], [NAN, NAN]])


def test_numbers_are_labels_in_one_spelling():
    kind, targets = _fit([[10, 9], [9], None], pl.List(pl.Int64))
    assert kind.classes == ["9", "10"]
    np.testing.assert_array_equal(kind.encode(column(["9.0;10", "9", None], dtype=pl.String)), targets)


@pytest.mark.parametrize("declared", [None, ["250.00", "401.9", "V27"]])
def test_label_is_the_same_whatever_rows_are_read_with_it(declared):
    kind, _ = _fit(["250.00;V27", "401.9"], classes=declared)  # codes, not all of which are numbers
    assert kind.classes == ["250.00", "401.9", "V27"]
    np.testing.assert_array_equal(kind.encode(column(["250.00;401.9"])), [[1, 1, 0]])
    np.testing.assert_array_equal(kind.encode(column([[250.0], [401.9]])), [[1, 0, 0], [0, 1, 0]])


def test_single_cells_may_be_missing():
    kind, targets = _fit([{"a": 1, "b": None}, {"a": 0, "b": 1}, {"a": None, "b": None}])
    np.testing.assert_array_equal(targets, [[1, -1], [0, 1], [NAN, NAN]])
    outputs = torch.tensor([[0.7, -9.0], [0.2, 0.4]])
    losses = kind.loss(outputs.t().unsqueeze(0), torch.from_numpy(targets[:2]).t().unsqueeze(0))[0]
    softplus = torch.nn.functional.softplus
    assert float(losses[0]) == pytest.approx(float(softplus(torch.tensor(-0.7))))  # the known cell alone
    assert float(losses[1]) == pytest.approx(float((softplus(torch.tensor(0.2)) + softplus(torch.tensor(-0.4))) / 2))


def test_scores_are_those_of_scikit_learn():
    kind = Multilabel(classes=["a", "b", "c"])
    outputs, truth = torch.randn(40, 3), torch.randint(2, (40, 3))
    probability = torch.sigmoid(outputs.double()).numpy()
    chosen = probability > 0.5
    assert kind.score(outputs, truth.float()) == pytest.approx(
        {
            "auroc": oracle.roc_auc_score(truth, probability, average="macro"),
            "average_precision": oracle.average_precision_score(truth, probability, average="macro"),
            "f1_micro": oracle.f1_score(truth, chosen, average="micro"),
            "f1_macro": oracle.f1_score(truth, chosen, average="macro"),
            "log_loss": oracle.log_loss(truth.flatten(), probability.flatten()),
        },
        rel=1e-12,
    )


def test_cells_that_are_not_known_are_in_no_metric():
    kind = Multilabel(classes=["a", "b"])
    outputs, truth = torch.randn(40, 2), torch.randint(2, (40, 2)).float()
    truth[:20, 1] = -1
    probability = torch.sigmoid(outputs.double()).numpy()
    expected = [
        oracle.roc_auc_score(truth[:, 0], probability[:, 0]),
        oracle.roc_auc_score(truth[20:, 1], probability[20:, 1]),
    ]
    assert kind.score(outputs, truth)["auroc"] == pytest.approx(np.mean(expected))


def test_a_label_that_never_or_always_occurs_has_no_say_in_areas():
    kind = Multilabel(classes=["some", "never", "always"])
    outputs, truth = torch.randn(20, 3), torch.tensor([0.0, 0.0, 1.0]).repeat(20, 1)
    truth[::3, 0], truth[::2, 1:] = 1.0, -1.0
    probability = torch.sigmoid(outputs.double()).numpy()
    scores = kind.score(outputs, truth)
    assert scores["auroc"] == pytest.approx(oracle.roc_auc_score(truth[:, 0], probability[:, 0]))
    assert scores["average_precision"] == pytest.approx(oracle.average_precision_score(truth[:, 0], probability[:, 0]))
    chosen = probability > 0.5
    f1 = [oracle.f1_score(truth[:, 0], chosen[:, 0]), oracle.f1_score(truth[1::2, 2], chosen[1::2, 2])]
    assert scores["f1_macro"] == pytest.approx(np.mean(f1))


def test_prediction_is_the_labels_above_one_half():
    kind = Multilabel(classes=["a", "b"], delimiter="|")
    columns = kind.columns(torch.tensor([[1.0, 2.0], [-1.0, 2.0], [-1.0, -2.0]]))
    assert columns["pred"].tolist() == ["a|b", "b", ""]
    assert list(columns) == ["pred", "prob_a", "prob_b"]


def test_labels_are_described_by_their_share():
    kind, targets = _fit(["a;b", "b", None, "b"], pl.String)
    assert kind.counts(targets).balance == "b: 100%, a: 33%"
    assert kind.unseen(targets[1:]) == ["a"]
    assert _fit(["a;b;c;d"])[0].describe(np.eye(4)) == "a: 25%, b: 25%, c: 25%, d: 25%"
    assert _fit(["a;b"])[0].describe(np.array([[1.0, 1.0]] + [[1.0, 0.0]] * 499)) == "a: 100%, b: <1%"
    assert _fit(["a;b;c;d;e"])[0].describe(np.eye(5)) == "a: 20%, b: 20%, c: 20%, d: 20%, 1 more"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            ["a", "b", "c"],
            "column 'y': no training row holds the delimiter ';', got 'a'. Write the task's `delimiter`, or use "
            "kind: multiclass if a row has one label.",
            id="another delimiter",
        ),
        pytest.param(
            ["a", "a;", None],
            "column 'y': a multilabel task needs two or more labels in the training rows, got 1 (a). "
            "List the task's `classes`, or use kind: binary.",
            id="one label",
        ),
        pytest.param(
            [None, "Yes;b", "yes"],
            "people.csv, column 'y', row 3: holds 'yes', which may be the class 'Yes' of people.csv, column 'y', "
            "row 2. Write one of them everywhere, or list the task's `classes` if they are different.",
            id="one label in two spellings",
        ),
        pytest.param(
            [{"a": 1, "b": 0}, {"a": 2, "b": 1}],
            "people.csv, column 'y', row 2: label 'a' must be 0 or 1, got 2. Correct the cell, or name the value in "
            "the task's `missing_label`.",
            id="a number",
        ),
    ],
)
def test_wrong_labels_are_told(values, message):
    with pytest.raises(DataError) as caught:
        _fit(values)
    assert str(caught.value) == message


@pytest.mark.parametrize("delimiter", ["|", ".", "("])
def test_delimiter_is_a_text_and_no_pattern(delimiter):
    assert _fit([f"a{delimiter}b", "b"], delimiter=delimiter)[0].classes == ["a", "b"]
    with pytest.raises(DataError, match="no training row holds the delimiter"):
        _fit(["a", "b"], delimiter=delimiter)


def test_label_of_another_split_is_named_with_its_row():  # LAB-06
    kind, _ = _fit(["red;blue", "blue"], pl.String)
    with pytest.raises(DataError) as caught:
        kind.encode(column(["blue", "rde;blue"]))
    assert str(caught.value) == (
        "people.csv, column 'y', row 2: label 'rde' is not among the classes blue, red, which are those of the "
        "training rows. Did you mean 'red'? Correct the cell, list the task's `classes`, or name the value in its "
        "`missing_label`."
    )


def test_unknown_label_of_declared_ones_is_told_so():
    kind = Multilabel(classes=["red", "blue"])
    with pytest.raises(DataError, match=r"which are the task's `classes`.*add it to the task's `classes`"):
        kind.encode(column(["blue;green"]))


def test_labels_need_a_training_row_that_has_some():
    with pytest.raises(DataError, match="column 'y': no training row has a label for it"):
        Multilabel().fit(column([None, "a;b"]), every_row("a"))


def test_further_wrong_cells_are_counted():
    with pytest.raises(DataError) as caught:
        _fit([{"a": 2, "b": 3}] * 4)
    assert len(caught.value.problems) == 6
    assert str(caught.value.problems[-1]) == "people.csv, column 'y': has 3 more cells of this kind."


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], [1, "1.0"]], ids=["one", "twice", "twice as a number"])
def test_declared_labels_must_differ(classes):
    with pytest.raises(ConfigError, match="must be two or more different labels"):
        Multilabel(classes=classes)


def test_lists_of_lists_are_refused():
    with pytest.raises(DataError, match=r"must hold lists of labels, got type List\(List\("):
        _fit([[["a"]], [["b"], ["a"]]])


def test_single_labels_that_are_not_known_count_for_no_task_of_several():
    kind = Multilabel(classes=["a", "b", "c"])
    outputs = torch.randn(3, 3, 5, dtype=torch.float64)  # as many tasks as labels: shapes tell no wrong axis
    targets = torch.randint(-1, 2, (3, 3, 5)).double()
    targets[:, 0] = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])  # one is known in each row
    rows, gradient = kind.loss_and_gradient(outputs, targets)
    chance = outputs.sigmoid()
    of_cells = -torch.where(targets == 1, chance, 1 - chance).log().where(targets >= 0, torch.zeros(()).double())
    torch.testing.assert_close(rows, of_cells.sum(1) / (targets >= 0).sum(1))
    leaf = outputs.clone().requires_grad_()
    kind.loss(leaf, targets).sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
