"""Metrics: scikit-learn's, over a whole split, and None where they are not defined."""

import warnings

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from worlds import column

from mtl_cli.tasks._scores import binary_scores, defined, multiclass_scores, regression_scores
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.multiclass import Multiclass
from mtl_cli.tasks.multilabel import Multilabel
from mtl_cli.tasks.ordinal import Ordinal
from mtl_cli.tasks.regression import Regression


def _classes(n):
    return [str(i) for i in range(n)]


def test_regression_scores_are_those_of_scikit_learn():
    values = np.random.default_rng(0).normal(100.0, 20.0, 50)
    kind = Regression()
    kind.fit(column(values), np.arange(50))
    outputs = torch.randn(50, 1)
    scores = kind.score(outputs, torch.from_numpy(kind.encode(column(values))))
    predicted = kind.decode(outputs)["pred"]
    # 1e-5: labels are held as float32 on the standardised scale
    assert scores["r2"] == pytest.approx(oracle.r2_score(values, predicted), rel=1e-5)
    assert scores["rmse"] == pytest.approx(oracle.root_mean_squared_error(values, predicted), rel=1e-5)
    assert scores["mae"] == pytest.approx(oracle.mean_absolute_error(values, predicted), rel=1e-5)


def test_binary_scores_are_those_of_scikit_learn():
    outputs, targets = torch.randn(60, 1), torch.randint(2, (60,)).float()
    scores = Binary(classes=_classes(2)).score(outputs, targets)
    truth, probability = targets.numpy(), torch.sigmoid(outputs[:, 0].double()).numpy()
    predicted = probability > 0.5
    expected = {
        "auroc": oracle.roc_auc_score(truth, probability),
        "average_precision": oracle.average_precision_score(truth, probability),
        "accuracy": oracle.accuracy_score(truth, predicted),
        "f1": oracle.f1_score(truth, predicted),
        "log_loss": oracle.log_loss(truth, probability),
    }
    assert scores == pytest.approx(expected, rel=1e-12)
    assert list(scores) == list(Binary.metrics)


def test_multiclass_scores_are_those_of_scikit_learn():
    outputs, targets = torch.randn(60, 4), torch.randint(4, (60,)).float()
    scores = Multiclass(classes=_classes(4)).score(outputs, targets)
    truth, probability = targets.numpy(), torch.softmax(outputs.double(), 1).numpy()
    expected = {
        "accuracy": oracle.accuracy_score(truth, probability.argmax(1)),
        "f1_macro": oracle.f1_score(truth, probability.argmax(1), average="macro"),
        "log_loss": oracle.log_loss(truth, probability),
    }
    assert scores == pytest.approx(expected, rel=1e-9)
    assert list(scores) == list(Multiclass.metrics)


@pytest.mark.parametrize("seed", range(20))
def test_written_out_scores_are_those_of_scikit_learn(seed):
    draw = np.random.default_rng(seed)
    n, classes = int(draw.integers(2, 300)), int(draw.integers(2, 7))
    truth, probability = draw.random(n) < draw.uniform(0.1, 0.9), draw.random(n)
    truth[:2] = True, False
    if seed % 2:  # with ties, and certain ones
        probability = np.round(probability, 1)
    expected = {
        "auroc": oracle.roc_auc_score(truth, probability),
        "average_precision": oracle.average_precision_score(truth, probability),
        "accuracy": oracle.accuracy_score(truth, probability > 0.5),
        "f1": oracle.f1_score(truth, probability > 0.5, zero_division=0.0),
        "log_loss": oracle.log_loss(truth, np.clip(probability, 1e-15, 1 - 1e-15)),
    }
    assert binary_scores(truth.astype(np.float32), probability) == pytest.approx(expected, rel=1e-14, abs=1e-15)
    label, scores = draw.integers(0, classes, n), draw.dirichlet(np.ones(classes), n)
    chosen = scores.argmax(1)
    expected = {
        "accuracy": oracle.accuracy_score(label, chosen),
        "f1_macro": oracle.f1_score(label, chosen, average="macro", labels=np.unique(label), zero_division=0.0),
        "log_loss": oracle.log_loss(label, scores, labels=np.arange(classes)),
    }
    assert multiclass_scores(label.astype(np.float32), scores) == pytest.approx(expected, rel=1e-14, abs=1e-15)
    value = draw.normal(100.0, 20.0, n)
    guess = value + draw.normal(size=n)
    expected = {
        "r2": oracle.r2_score(value, guess),
        "rmse": oracle.root_mean_squared_error(value, guess),
        "mae": oracle.mean_absolute_error(value, guess),
    }
    found = regression_scores(value, guess)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-13)


def test_ordinal_scores_are_those_of_scikit_learn():
    kind = Ordinal(classes=_classes(4))
    outputs, targets = torch.randn(60, 3), torch.randint(4, (60,)).float()
    scores = kind.score(outputs, targets)
    truth, predicted = targets.numpy(), kind.decode(outputs)["pred"].astype(float)
    expected = {
        "qwk": oracle.cohen_kappa_score(truth, predicted, weights="quadratic"),
        "mae": oracle.mean_absolute_error(truth, predicted),
        "accuracy": oracle.accuracy_score(truth, predicted),
    }
    assert scores == pytest.approx(expected, rel=1e-12)
    assert list(scores) == list(Ordinal.metrics)


def test_f1_leaves_out_classes_that_do_not_occur():
    outputs = torch.eye(4)[[0, 1, 2]] * 9
    assert Multiclass(classes=_classes(4)).score(outputs, torch.tensor([0.0, 1.0, 2.0]))["f1_macro"] == 1.0


def test_r2_is_the_known_value():  # MET-05
    scores = regression_scores(np.array([3, -0.5, 2, 7]), np.array([2.5, 0.0, 2, 8]))
    assert scores["r2"] == pytest.approx(0.94861, abs=5e-6)


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [([3.0], [2.5]), ([-5.16] * 4, [-5.0, -5.1, -5.2, -5.3]), ([0.1] * 3, [0.1, 0.2, 0.3])],
    ids=["one row", "constant", "constant whose mean is rounded"],
)
def test_r2_of_one_row_or_constant_targets_is_undefined(truth, prediction):  # MET-05
    scores = regression_scores(np.array(truth), np.array(prediction))
    assert scores["r2"] is None
    assert scores["rmse"] is not None
    assert scores["mae"] is not None


def test_r2_of_nearly_constant_targets_is_never_above_one():  # MET-05
    truth = -5.16 + 1e-4 * np.array([-1.0, 1.0, 0.5, -0.5])
    assert regression_scores(truth, truth + 0.1)["r2"] < -1e5


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_scores_that_need_both_classes_are_undefined_with_one(label):  # MET-01
    scores = Binary(classes=_classes(2)).score(torch.tensor([[2.0], [-1.0]]), torch.tensor([label, label]))
    assert [name for name, value in scores.items() if value is None] == ["auroc", "average_precision", "f1"]
    assert scores["accuracy"] == 0.5


def test_one_row_of_a_class_is_enough_for_scores_that_need_both():
    for truth, ranked in (([0, 1, 0], [0.2, 0.9, 0.4]), ([1, 0, 1], [0.6, 0.1, 0.9])):
        scores = binary_scores(np.array(truth, float), np.array(ranked))
        assert scores["auroc"] == scores["average_precision"] == scores["f1"] == 1.0


@pytest.mark.parametrize(("output", "mae", "accuracy"), [(-9.0, 0.0, 1.0), (9.0, 2.0, 0.0)], ids=["right", "wrong"])
def test_kappa_of_labels_of_one_class_is_undefined_whatever_is_predicted(output, mae, accuracy):
    scores = Ordinal(classes=_classes(3)).score(torch.tensor([[output, output]]), torch.tensor([0.0]))
    assert scores == {"qwk": None, "mae": mae, "accuracy": accuracy}


def test_kappa_of_labels_of_two_classes_is_defined():
    scores = Ordinal(classes=_classes(3)).score(torch.tensor([[-9.0, -9.0], [9.0, 9.0]]), torch.tensor([0.0, 2.0]))
    assert scores["qwk"] == 1.0


def test_correlation_with_a_constant_prediction_is_0_and_with_constant_labels_undefined():
    same, varied = np.zeros(4), np.array([1.0, 2.0, 4.0, 8.0])
    assert regression_scores(varied, same)["pearson"] == 0.0
    assert regression_scores(same, varied)["pearson"] is None


def test_correlation_of_two_rows_which_is_1_or_minus_1_is_undefined():
    truth = np.array([1.0, 2.0, 4.0])
    assert regression_scores(truth[:2], truth[:2])["pearson"] is None
    assert regression_scores(truth, truth)["pearson"] == pytest.approx(1.0)


def test_log_loss_of_a_certain_mistake_is_finite():
    outputs = torch.tensor([[400.0], [-400.0]])
    scores = Binary(classes=_classes(2)).score(outputs, torch.tensor([0.0, 1.0]))
    assert scores["log_loss"] == pytest.approx(34.5, abs=0.1)  # -log 1e-15
    many = Multiclass(classes=_classes(3)).score(torch.tensor([[900.0, 0.0, 0.0]]), torch.tensor([1.0]))
    assert many["log_loss"] == pytest.approx(34.5, abs=0.1)
    several = Multilabel(classes=_classes(2)).score(outputs.t(), torch.tensor([[0.0, 1.0]]))
    assert several["log_loss"] == pytest.approx(34.5, abs=0.1)


@pytest.mark.parametrize("outputs", [torch.nan, torch.inf], ids=["nan", "inf"])
def test_outputs_that_are_not_finite_give_undefined_regression_scores(outputs):
    scores = Regression().score(torch.full((3, 1), outputs), torch.tensor([0.0, 1.0, 2.0]))
    assert scores == dict.fromkeys(Regression.metrics)


def test_a_metric_that_warns_is_undefined_also_where_warnings_are_not_errors():
    def ill_defined():
        warnings.warn("only one class", UserWarning, stacklevel=1)
        return 0.0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a test run makes errors of them all
        assert defined(ill_defined) is None
    assert defined(lambda: 0.5) == 0.5


@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
def test_a_metric_that_warns_of_later_versions_is_defined(category):
    def outdated():
        warnings.warn("its default will change", category, stacklevel=1)
        return 0.5

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.warns(category):
            assert defined(outdated) == 0.5


def test_programming_errors_in_a_metric_are_not_hidden():
    with pytest.raises(TypeError):
        defined(oracle.accuracy_score, [1])
