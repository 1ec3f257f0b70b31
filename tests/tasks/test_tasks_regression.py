"""Regression targets: standardised for training, in the user's units for people."""

from datetime import date

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import NAN, column, every_row

from mtl_cli.errors import ConfigError, DataError
from mtl_cli.tasks import read_numbers
from mtl_cli.tasks._numbers import Units
from mtl_cli.tasks.quantile import Quantile
from mtl_cli.tasks.regression import Regression


def _fit(values, train=None, **options):
    kind = Regression(**options)
    kind.fit(column(values), every_row(values) if train is None else train)
    return kind


def test_scale_comes_from_the_labelled_training_rows_alone():
    values = [1.0, None, 3.0, 1000.0]
    kind = _fit(values, train=np.array([0, 1, 2]))
    np.testing.assert_allclose(kind.encode(column(values))[[0, 2, 3]], [-1.0, 1.0, 998.0], rtol=1e-6)
    assert np.isnan(kind.encode(column(values))[1])


def test_what_is_below_the_root_of_0_is_0_and_the_formula_says_so():
    kind = _fit([0.0, 4.0], transform="sqrt")
    state = kind.state()
    below, above = (torch.tensor([[(root - state["mean"]) / state["std"]]]) for root in (-3.0, 3.0))
    assert [kind.decode(outputs)["pred"].round(4).tolist() for outputs in (below, above)] == [[0.0], [9.0]]
    for formula in (Regression.formula, Quantile.formula):
        assert "back undoes `transform` (of sqrt: squares what is above 0, all else is 0)" in formula


def test_dates_are_no_targets():
    days = pl.Series([date(2024, 1, 1), date(2024, 1, 3)])
    with pytest.raises(DataError, match=r"must hold numbers, got type Date\. Write it as a number of days\."):
        _fit(days)


def test_a_label_too_far_from_the_training_rows_is_refused():
    values = [0.0, 0.001, 1e60]
    kind = _fit(values, train=np.array([0, 1]))
    with pytest.raises(DataError, match=r"row 3.*is too far from the training rows' labels for 32 bits"):
        kind.encode(column(values))


def test_head_means_the_same_whatever_loss_it_was_trained_by():
    meaning = Regression(loss="mse", transform="log1p").meaning()
    assert Regression(loss="huber", huber_delta=2.0, transform="log1p").meaning() == meaning
    assert Regression(loss="mse").meaning() != meaning


def test_training_targets_have_mean_0_and_deviation_1():
    values = np.random.default_rng(0).normal(50.0, 7.0, 200)
    encoded = _fit(values).encode(column(values)).astype(np.float64)
    assert abs(encoded.mean()) < 1e-6
    assert abs(encoded.std() - 1) < 1e-6


@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, -5e8, 1e-20])
def test_constant_target_is_shifted_and_not_scaled(constant):
    values = [constant] * 7
    kind = _fit(values)
    assert kind.encode(column(values)).tolist() == pytest.approx([0.0] * 7, abs=1e-15)
    assert kind.encode(column([constant + 2.0]))[0] == pytest.approx(2.0)


def test_targets_that_differ_little_next_to_their_size_are_scaled():
    values = [1e15 + 10.0 * step for step in (1, 2, 3)]
    np.testing.assert_allclose(_fit(values).encode(column(values)), [-1.2247449, 0.0, 1.2247449], atol=1e-6)
    rounded = [0.1 + 0.2, 0.3, 0.3]
    assert np.abs(_fit(rounded).encode(column(rounded))).max() < 1e-15


@pytest.mark.parametrize("scale", [1e-13, 1e-3, 1e12])
def test_targets_of_any_size_are_scaled(scale):  # farads and euros weigh the same
    encoded = _fit([1 * scale, 2 * scale, 3 * scale]).encode(column([1 * scale, 2 * scale, 3 * scale]))
    np.testing.assert_allclose(encoded, [-1.2247449, 0.0, 1.2247449], atol=1e-6)


@pytest.mark.parametrize("transform", ["none", "log1p"])
@settings(max_examples=40)
@given(
    values=st.lists(st.floats(-0.5, 1e6, allow_subnormal=False), min_size=2, max_size=20),
)
def test_decoding_gives_the_users_units(transform, values):
    kind = _fit(values, transform=transform)
    outputs = torch.from_numpy(kind.encode(column(values))).unsqueeze(1)
    spread = max(np.ptp(values), abs(values[0]), 1.0)
    # float32 on a standardised scale: relative to the spread; exponentiated, relative to the value
    np.testing.assert_allclose(kind.decode(outputs)["pred"], values, rtol=2e-5, atol=2e-6 * spread)


def test_scores_are_in_the_users_units():
    values = [1.0, 10.0, 100.0]
    kind = _fit(values, transform="log1p")
    targets = torch.from_numpy(kind.encode(column(values)))
    wrong = torch.from_numpy(kind.encode(column([2.0, 10.0, 100.0]))).unsqueeze(1)
    scores = kind.score(wrong, targets)
    assert scores["mae"] == pytest.approx(1 / 3, rel=1e-5)
    assert scores["rmse"] == pytest.approx((1 / 3) ** 0.5, rel=1e-5)


def test_prediction_too_large_for_the_users_units_is_infinite_and_has_no_score():
    kind = _fit([0.0, 10.0, 1000.0], transform="log1p")
    outputs = torch.full((2, 1), 1e4)
    assert np.isinf(kind.decode(outputs)["pred"]).all()
    assert kind.score(outputs, torch.tensor([0.0, 1.0])) == dict.fromkeys(Regression.metrics)


def test_log1p_of_minus_one_or_less_is_refused_with_its_row():
    with pytest.raises(DataError) as caught:
        _fit([3.0, -1.0, 0.0, -2.5], transform="log1p")
    hint = "Use transform: none, or name the value in the task's `missing_label`."
    assert str(caught.value) == (
        f"people.csv, column 'y', row 2: -1.0 has no log1p. {hint}\n"
        f"people.csv, column 'y', row 4: -2.5 has no log1p. {hint}"
    )


def test_text_and_infinity_are_refused_with_their_rows():
    with pytest.raises(DataError) as caught:
        _fit(["1", "n.a.", "inf", None])
    hint = "Correct the cell, or name the value in the task's `missing_label`."
    assert str(caught.value) == (
        f"people.csv, column 'y', row 2: 'n.a.' is not a number. {hint}\n"
        f"people.csv, column 'y', row 3: 'inf' is not a number. {hint}"
    )


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("9,1", 'looks like a number with a decimal comma. Set data.decimal=",", or correct the cell.'),
        ("1.1.2024", "looks like a date. Write it as a number of days."),
    ],
)
def test_target_in_another_notation_is_told_so(cell, told):
    with pytest.raises(DataError) as caught:
        _fit(["1", cell])
    assert str(caught.value) == f"people.csv, column 'y', row 2: '{cell}' {told}"


def test_further_cells_that_are_no_numbers_are_counted():
    with pytest.raises(DataError) as caught:
        _fit(["1", *["n.a."] * 6])
    assert len(caught.value.problems) == 6
    assert str(caught.value.problems[-1]) == "people.csv, column 'y': has 1 more cell of this kind."


def test_numbers_whose_squares_are_none_are_refused_with_their_rows():
    with pytest.raises(DataError, match=r"^people\.csv, column 'y', row 2: -1e\+308 is beyond 1e\+150\. Correct"):
        _fit([1.0, -1e308, 2.0])


@pytest.mark.parametrize("values", [[1.0, NAN, 3.0], ["1", None, "3"], [1, None, 3]], ids=["nan", "text", "null"])
def test_missing_target_is_nan_however_it_is_stored(values):
    encoded = _fit(values).encode(column(values))
    assert encoded.dtype == np.float32
    assert np.isnan(encoded).tolist() == [False, True, False]


def test_target_without_any_training_label_is_left_as_it_is():
    kind = _fit([None, 5.0], train=np.array([0]))
    assert kind.encode(column([None, 5.0]))[1] == 5.0


@pytest.mark.parametrize("values", [["1.5", None, "2"], [1.5, None, 2.0]], ids=["of a text file", "of another"])
def test_numbers_are_read_for_kinds_of_ones_own_whatever_the_file_holds(values):
    np.testing.assert_array_equal(read_numbers(column(values)), [1.5, NAN, 2.0])


def test_booleans_are_numbers_too():
    kind = Regression()
    labels = column([True, False, True, False], dtype=pl.Boolean)
    kind.fit(labels, np.arange(4))
    assert kind.encode(labels).tolist() == [1.0, -1.0, 1.0, -1.0]


@pytest.mark.parametrize("transform", ["none", "log1p", "sqrt", "asinh"])
@pytest.mark.parametrize("values", [[0.0] * 5 + [52.0] * 3 + [17.0, 3.0], [-1.1, 0.3, 0.8], [1e6 + 0.1, 1e6, 1e6 + 1]])
def test_labels_are_restored_to_the_digits_that_were_given(transform, values):
    values = np.abs(values) if transform in ("log1p", "sqrt") else np.array(values)
    units = Units(transform)
    units.fit(column(values.tolist()), every_row(values))
    restored = units.restore(units.encode(column(values.tolist())))
    np.testing.assert_allclose(restored, values, rtol=1e-6, atol=0)


def test_mean_of_0_is_described_as_0():
    values = [-1.1, 0.3, 0.8, 2.2, -2.2]
    kind = _fit(values)
    assert kind.describe(kind.encode(column(values))) == "mean 0, std 1.524"


def test_labels_are_described_in_the_users_units():
    kind = _fit([10.0, 20.0, 30.0])
    assert kind.describe(kind.encode(column([10.0, 20.0, 30.0]))) == "mean 20, std 8.165"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "msee"}, "kind.regression.loss: must be one of mse, mae, huber, got 'msee'. Did you mean 'mse'?"),
        ({"huber_delta": 0}, "kind.regression.huber_delta: must be greater than 0, got 0.0."),
        (
            {"transform": "logp"},
            "kind.regression.transform: must be one of none, log1p, log, sqrt, asinh, got 'logp'. "
            "Did you mean 'log1p'?",
        ),
    ],
    ids=["loss", "huber_delta", "transform"],
)
def test_wrong_option_is_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        Regression(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("transform", "least", "beyond"),
    [("log", 1e-9, 0.0), ("log1p", -0.999, -1.0), ("sqrt", 0.0, -1e-9), ("asinh", -1e9, None)],
)
def test_a_transform_takes_all_that_it_is_defined_for(transform, least, beyond):
    kind, values = Regression(transform=transform), [least, 3.0]
    kind.fit(column(values), every_row(values))
    assert np.isfinite(kind.encode(column(values))).all()
    if beyond is not None:
        with pytest.raises(DataError, match=rf"row 2: {beyond} has no {transform}\."):
            kind.encode(column([least, beyond]))
