"""What a report draws of predictions says what the predictions were."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from worlds import column, every_row, three_kinds

from mtl_cli.tasks._curves import BINS, MOST_CLASSES, MOST_POINTS, class_curves, number_curves
from mtl_cli.tasks.count import Count
from mtl_cli.tasks.ordinal import Ordinal
from mtl_cli.tasks.regression import Regression


@pytest.fixture
def chances():
    """Chances of three classes for 500 rows, and labels drawn from them: calibrated by construction."""
    draw = np.random.default_rng(0)
    chances = draw.dirichlet([1.0, 1.0, 1.0], 500)
    return chances, np.array([draw.choice(3, p=row) for row in chances])


def test_confusion_is_that_of_scikit_learn(chances):
    found = class_curves(*chances, ["a", "b", "c"])
    np.testing.assert_array_equal(found["confusion"], confusion_matrix(chances[1], chances[0].argmax(1)))


def test_calibration_holds_every_row_once_and_finds_what_is_calibrated(chances):
    found = class_curves(*chances, ["a", "b", "c"])
    assert sum(rows for *_, rows in found["calibration"]) == 500
    assert len(found["calibration"]) <= BINS
    assert found["calibration_error"] < 0.06
    sure = np.eye(3)[chances[0].argmax(1)]  # the same predictions with far too much confidence
    right = (chances[0].argmax(1) == chances[1]).mean()
    assert class_curves(sure, chances[1], ["a", "b", "c"])["calibration_error"] == pytest.approx(1 - right, abs=1e-6)


def test_calibration_is_of_the_likeliest_class_where_another_is_predicted():
    # certain of an end, and divided between both: the expected level is the middle, which is never so
    kind = Ordinal(classes=["low", "mid", "high"])
    outputs, truth = torch.tensor([[0.3, 0.3]]).repeat(1000, 1), torch.zeros(1000)
    truth[: round(1000 * float(torch.sigmoid(torch.tensor(0.3))))] = 2.0
    found = kind.curves(outputs, truth)
    assert found["confusion"] == [[0, 426, 0], [0, 0, 0], [0, 574, 0]]
    assert found["calibration"] == [[pytest.approx(0.574443, abs=1e-6), 0.574, 1000]]
    assert found["calibration_error"] < 0.001


def test_many_classes_have_no_confusion_matrix():
    classes = [str(i) for i in range(MOST_CLASSES + 1)]
    found = class_curves(np.full((2, len(classes)), 1 / len(classes)), np.array([0, 1]), classes)
    assert "confusion" not in found
    assert found["calibration"]


def test_few_points_stand_for_many_rows():
    true = np.random.default_rng(0).normal(size=5000)
    found = number_curves(true + 1, true)
    points = np.array(found["points"])
    assert (len(points), found["rows"]) == (MOST_POINTS, 5000)
    assert (points[0, 0], points[-1, 0]) == (true.min(), true.max())
    np.testing.assert_allclose(points[:, 1], points[:, 0] + 1)


@pytest.mark.parametrize(
    ("kind", "values"), [(Regression(transform="log1p"), [1.0, 20.0, 300.0]), (Count(), [0, 3, 9])]
)
def test_true_numbers_are_in_the_users_units(kind, values):
    labels = column([float(v) for v in values])
    kind.fit(labels, every_row(values))
    targets = torch.from_numpy(kind.encode(labels))
    found = kind.curves(torch.zeros(3, 1), targets)
    assert [x for x, _ in found["points"]] == pytest.approx(values, rel=1e-5)
    assert [y for _, y in found["points"]] == pytest.approx(kind.decode(torch.zeros(3, 1))["pred"])


def test_kinds_with_classes_give_confusion_and_bad_outputs_give_nothing():
    _, binary, multiclass = three_kinds()
    assert binary.curves(torch.tensor([[2.0], [-2.0]]), torch.tensor([1.0, 1.0]))["confusion"] == [[0, 0], [1, 1]]
    assert multiclass.curves(torch.eye(3), torch.arange(3.0))["confusion"] == np.eye(3).tolist()
    assert multiclass.curves(torch.full((3, 3), float("nan")), torch.arange(3.0)) == {}
