"""Counts and quantiles: in the user's units, and what they refuse."""

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from worlds import column, every_row

from mtl_cli.errors import ConfigError, DataError
from mtl_cli.tasks.count import Count
from mtl_cli.tasks.quantile import Quantile

COUNTS = [0, 3, 1, 7, 0, 12]
AMOUNTS = [10.0, 40.0, 25.0, 90.0, 5.0, 60.0]


def _fit(kind, values):
    kind.fit(column(values), every_row(values))
    return kind, torch.from_numpy(kind.encode(column(values)))


def test_count_scores_are_those_of_scikit_learn():
    kind, targets = _fit(Count(), COUNTS)
    outputs = torch.randn(6, 1)
    expected = kind.decode(outputs)["pred"]
    assert kind.score(outputs, targets) == pytest.approx(
        {
            "d2": oracle.d2_tweedie_score(COUNTS, expected, power=1),
            "deviance": oracle.mean_poisson_deviance(COUNTS, expected),
            "r2": oracle.r2_score(COUNTS, expected),
            "mae": oracle.mean_absolute_error(COUNTS, expected),
        },
        rel=1e-12,  # whole numbers come back exactly
    )


def test_count_loss_is_half_the_deviance_in_multiples_of_the_mean():
    kind, targets = _fit(Count(), COUNTS)
    outputs = torch.randn(6, 1)
    deviance = oracle.mean_poisson_deviance(COUNTS, kind.decode(outputs)["pred"])
    loss = kind.loss(outputs.t().unsqueeze(0), targets.unsqueeze(0)).mean()
    assert float(loss) == pytest.approx(deviance / 2 / np.mean(COUNTS), rel=1e-5)


def test_count_loss_of_the_count_itself_never_rounds_below_0():
    targets = torch.rand(1, 1000) * 50
    loss = Count().loss(targets.log().unsqueeze(1), targets)
    assert 0 <= float(loss.min()) <= float(loss.max()) < 1e-4


def test_an_expected_count_that_overflows_is_infinite_and_warns_of_nothing():
    assert Count().decode(torch.tensor([[1e4], [0.0]]))["pred"].tolist() == [np.inf, 1.0]


def test_output_0_is_the_mean_count():
    kind, _ = _fit(Count(), COUNTS)
    assert kind.decode(torch.zeros(1, 1))["pred"].tolist() == pytest.approx([np.mean(COUNTS)])


def test_every_count_above_0_says_that_something_took_place():
    kind, targets = _fit(Count(), COUNTS)  # in multiples of their mean
    assert kind.affirms(targets.numpy()).tolist() == [count > 0 for count in COUNTS]


def test_counts_of_nothing_but_0_are_learnt_as_they_are():
    kind, targets = _fit(Count(), [0, 0, 0])
    assert targets.tolist() == [0.0, 0.0, 0.0]
    assert kind.score(torch.zeros(3, 1), targets) == {"d2": None, "deviance": 2.0, "r2": None, "mae": 1.0}


def test_equal_counts_explain_nothing_even_where_they_are_met():
    kind, targets = _fit(Count(), [7, 7, 7])
    assert kind.score(torch.zeros(3, 1), targets) == {"d2": None, "deviance": 0.0, "r2": None, "mae": 0.0}


def test_two_different_counts_or_amounts_are_enough_for_the_share_that_is_explained():
    counts, targets = _fit(Count(), [1, 3])
    scores = counts.score(torch.tensor([[0.5], [1.0]]).log(), targets)  # 1 and 2; the mean is 2
    assert scores["d2"] == pytest.approx(1 - (3 * np.log(1.5) - 1) / (3 * np.log(1.5) + np.log(0.5)))
    assert scores["r2"] == pytest.approx(0.5)
    amounts, targets = _fit(Quantile(quantiles=[0.5]), [10.0, 30.0])
    scores = amounts.score(torch.tensor([[-1.0], [0.0]]), targets)  # 10 and 20; the median is 20
    assert scores == pytest.approx({"d2": 0.5, "pinball": 2.5, "coverage": None})


def test_what_is_no_count_is_refused_with_its_row():
    with pytest.raises(DataError) as caught:
        _fit(Count(), [3.0, -1.0, 2.5, None])
    hint = (
        "A count is a whole number from 0; for others use kind: regression, or name the value in the task's "
        "`missing_label`."
    )
    assert str(caught.value) == (
        f"people.csv, column 'y', row 2: -1.0 is no count. {hint}\n"
        f"people.csv, column 'y', row 3: 2.5 is no count. {hint}"
    )


def test_a_count_too_far_from_the_training_rows_is_refused():
    kind, _ = _fit(Count(), COUNTS)
    with pytest.raises(DataError, match=r"row 2: 1e\+60 is too far from the training rows' labels for 32 bits"):
        kind.encode(column([1.0, 1e60]))


def test_counts_are_described():
    kind, targets = _fit(Count(), COUNTS)
    assert kind.describe(targets.numpy()) == "mean 3.833, 33% zeros, most 12"
    assert _fit(Count(), [0.0] + [2.0] * 499)[0].describe(np.array([0.0] + [1.0] * 499)).endswith(", <1% zeros, most 2")


def test_quantiles_of_labels_are_described_without_the_digits_that_float32_lacks():
    kind, targets = _fit(Quantile(), [0.0] * 20 + [52.0] * 30 + [17.0, 40.0])
    assert kind.describe(targets.numpy()) == "10%: 0, 50%: 52, 90%: 52"


def test_levels_are_described_with_the_digits_of_their_columns():
    kind, targets = _fit(Quantile(quantiles=[0.1234567, 0.1234568]), [1.0, 3.0])
    assert [part.split(":")[0] for part in kind.describe(targets.numpy()).split(", ")] == ["12.34567%", "12.34568%"]


@pytest.mark.parametrize("transform", ["none", "log1p", "log", "sqrt", "asinh"])
def test_quantile_scores_are_in_the_users_units(transform):
    kind, targets = _fit(Quantile(transform=transform), AMOUNTS)
    outputs = torch.randn(6, 3)
    levels = kind.decode(outputs)["quantile"]
    assert (np.diff(levels, axis=1) >= 0).all()
    pairs = list(zip([0.1, 0.5, 0.9], levels.T, strict=True))
    scores = kind.score(outputs, targets)
    # 1e-5: labels are held as float32 on the standardised scale
    assert scores["pinball"] == pytest.approx(
        np.mean([oracle.mean_pinball_loss(AMOUNTS, level, alpha=q) for q, level in pairs]), rel=1e-5
    )
    assert scores["d2"] == pytest.approx(
        np.mean([oracle.d2_pinball_score(AMOUNTS, level, alpha=q) for q, level in pairs]), rel=1e-4
    )
    inside = (levels[:, 0] <= AMOUNTS) & (levels[:, 2] >= AMOUNTS)
    assert scores["coverage"] == pytest.approx(inside.mean())


def test_one_quantile_has_no_coverage():
    kind, targets = _fit(Quantile(quantiles=[0.5]), AMOUNTS)
    assert kind.score(torch.zeros(6, 1), targets)["coverage"] is None


def test_quantiles_never_cross():
    kind, _ = _fit(Quantile(quantiles=[0.05, 0.25, 0.5, 0.75, 0.95]), AMOUNTS)
    assert (np.diff(kind.decode(20 * torch.randn(500, 5))["quantile"], axis=1) >= 0).all()


def test_columns_of_a_prediction_name_the_quantiles():
    kind, _ = _fit(Quantile(quantiles=[0.025, 0.5, 0.9]), AMOUNTS)
    columns = kind.columns(torch.randn(4, 3))
    assert list(columns) == ["pred", "q2.5", "q50", "q90"]
    assert np.array_equal(columns["pred"], columns["q50"])


def test_descent_finds_the_quantiles_of_the_labels():
    values = np.random.default_rng(0).exponential(50.0, 2000)
    kind, targets = _fit(Quantile(), values)
    outputs = torch.zeros(1, 3, 1, dtype=torch.float64)
    optimizer = torch.optim.Adam([outputs], lr=0.1)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.99**step
        gradient = kind.loss_and_gradient(outputs.expand(1, 3, 2000), targets.double().unsqueeze(0))[1]
        outputs.grad = gradient.mean(2, keepdim=True)
        optimizer.step()
    np.testing.assert_allclose(
        kind.decode(outputs[..., 0])["quantile"][0], np.quantile(values, [0.1, 0.5, 0.9]), rtol=0.02
    )


@pytest.mark.parametrize("quantiles", [[], [0.5, 0.5], [0.9, 0.1]], ids=["none", "equal", "falling"])
def test_quantiles_must_rise(quantiles):
    with pytest.raises(ConfigError) as caught:
        Quantile(quantiles=quantiles)
    assert str(caught.value) == f"kind.quantile.quantiles: must be one or more rising numbers, got {quantiles}."


def test_quantile_outside_0_and_1_is_refused():
    with pytest.raises(ConfigError, match=r"kind\.quantile\.quantiles\[0\]: must be in \(0, 1\), got 0\.0"):
        Quantile(quantiles=[0, 0.5])
