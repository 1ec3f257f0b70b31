"""Features: types decided over whole columns, statistics of training rows only, the same on any later table."""

import datetime
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mtl_cli.data import FeatureOptions, Features, Table, feature_report
from mtl_cli.data.features import format_report
from mtl_cli.data.number_text import with_numbers_read
from mtl_cli.data.table import Part
from mtl_cli.errors import DataError
from mtl_cli.registry import SOURCES
from mtl_cli.types import InputSpec

SHARED = Path(__file__).resolve().parents[3] / "shared"


def table_of(name="x.csv", **columns):
    frame = pl.DataFrame(columns)
    return Table(frame, (Part(name, 0, frame.height, lines=True),))


def fit(table, train=None, reserved=None, **options):
    rows = np.arange(table.frame.height) if train is None else np.array(train)
    return Features.fit(table, FeatureOptions(**{"bins": 0, **options}), rows, reserved or {})


def numeric(features, table):
    return features.transform(table)[0].numeric


def codes(features, table):
    return features.transform(table)[0].categorical[:, 0].tolist()


def error_of(call, *args, **options):
    with pytest.raises(DataError) as caught:
        call(*args, **options)
    return str(caught.value)


def types_of(features):
    return {row.column: row.type for row in features.report() if row.role == "input"}


# --- types


def test_types_are_decided_over_the_whole_column():
    table = table_of(
        n=["1", " -2.5e3 ", "+.5", None],
        c=["a", "1", "b", "c"],
        b=[True, False, None, True],
        i=[1, 2, 3, 4],
        d=[datetime.date(1970, 1, 2)] * 3 + [None],
        fp=[[0, 1], [1, 1], [0, 0], [1, 0]],
        words=["nan", "inf", "Infinity", "0x10"],
    )
    features = fit(table, scale="none")
    assert types_of(features) == {
        "n": "numeric", "c": "category", "b": "numeric", "i": "numeric", "d": "date", "fp": "block",
        "words": "category",
    }  # fmt: skip
    assert features.spec == InputSpec(9, (5, 5), missing=(False, False))  # n b i d fp fp + missing of n, b and d
    assert features.input_dim == 8
    assert features.describe_width() == "fp: 2; 4 numbers: n, b, i, d; 2 categories: c, words"
    expected = [
        [1, 1, 1, 1, 0, 1, 0, 0, 0],
        [-2500, 0, 2, 1, 1, 1, 0, 0, 0],
        [0.5, 0, 3, 1, 0, 0, 0, 1, 0],
        [0, 1, 4, 0, 1, 0, 1, 0, 1],
    ]
    assert numeric(features, table).tolist() == expected


def test_codes_with_leading_zeros_stay_codes():  # DAT-27
    zips = ["00501", "501", "01010", "1010", "00501", "501", "02134", "2134"]
    for inputs in ("*", [{"name": "zip", "type": "category"}]):
        features = fit(table_of(zip=zips), inputs=inputs)
        assert features.categorical[0].values == ("00501", "01010", "02134", "1010", "2134", "501")
    declared = fit(table_of(zip=zips), inputs=[{"name": "zip", "type": "numeric"}])
    place = "x.csv, column 'zip', row 1 (line 2): has leading zeros, got '00501'."
    assert declared.notes == (f"{place} The column is read as numbers all the same.",)
    assert fit(table_of(zip=zips)).notes == (f"{place} The column is read as a category of codes.",)
    assert types_of(fit(table_of(x=["00.5", "2"]))) == {"x": "numeric"}


def test_long_ids_are_different_categories_and_get_a_note_as_numbers():  # DAT-02
    ids = ["1234567890123456789", "1234567890123456790", None, "12345678901234567890", "5"]
    features = fit(table_of(id=ids), inputs=[{"name": "id", "type": "category"}])
    assert sorted(codes(features, table_of(id=ids))) == [1, 2, 3, 4, 5]
    expected = (
        "x.csv, column 'id', row 1 (line 2): has more digits than a number can keep, got 1234567890123456789. "
        "If it is an id or a code, declare {name: id, type: category}."
    )
    assert fit(table_of(id=ids)).notes == (expected,)
    assert fit(table_of(id=[1234567890123456789, 1])).notes == (expected,)
    assert fit(table_of(id=[Decimal(1234567890123456789), Decimal(1)])).notes == (expected,)
    assert fit(table_of(id=pl.Series([1, 2], dtype=pl.Int8))).notes == ()
    assert codes(fit(table_of(k=[7, 10]), inputs=[{"name": "k", "type": "category"}]), table_of(k=["10", "7"])) == [
        1,
        2,
    ]


def test_mostly_numbers_is_an_error_that_names_the_first_other_cell():
    table = table_of("people.csv", age=["31", "?", None, "40"], price=["1,234", "5", "12", "7"], x=["1", "2", "3", "4"])
    assert error_of(fit, table) == (
        "people.csv, column 'age', row 2 (line 3): must be a plain number as 2 of 3 cells of the column are, got '?'. "
        "Correct it, add '?' to data.missing if it means no value, or declare {name: age, type: category} in "
        "data.inputs.\n"
        "people.csv, column 'price', row 1 (line 2): looks like a number with a decimal comma or between groups of "
        'digits, got \'1,234\'. Correct it, set data.decimal="," or data.thousands=",", or declare {name: price, '
        "type: category} in data.inputs."
    )
    inputs = ["*", {"name": "age", "type": "category"}, {"name": "price", "type": "category"}]
    assert types_of(fit(table, inputs=inputs)) == {"age": "category", "price": "category", "x": "numeric"}


@pytest.mark.parametrize("value", ["1,234", "1.299,99", "0,5", "1 000"])
def test_foreign_numbers_are_never_categories_by_accident(value):  # DAT-08
    assert f"got '{value}'" in error_of(fit, table_of(p=[value, value]))


@pytest.mark.parametrize("value", ["1.1.2024", "04/01/2025", "2025/01/04", "4-1-25", "2025-01-04 11:17:00 CET"])
def test_dates_in_other_spellings_are_never_categories_by_accident(value):
    spelling = "Write it as 2024-12-31 or 2024-12-31 23:59:59"
    assert error_of(fit, table_of(d=[value, "soon", value])) == (
        f"x.csv, column 'd', row 1 (line 2): looks like a date, got '{value}'. {spelling}, leave it out with "
        "data.exclude=[d], or declare {name: d, type: category} in data.inputs."
    )
    declared = {"inputs": [{"name": "d", "type": "category"}]}
    assert types_of(fit(table_of(d=[value, "soon", value]), **declared)) == {"d": "category"}


@pytest.mark.parametrize("value", ["59.5%", "-5 %", "5,5%"])
def test_percentages_are_never_categories_by_accident(value):
    assert error_of(fit, table_of(p=[value, "much"])) == (
        f"x.csv, column 'p', row 1 (line 2): looks like a percentage, got '{value}'. Write it as a number without the "
        "%, leave it out with data.exclude=[p], or declare {name: p, type: category} in data.inputs."
    )
    assert types_of(fit(table_of(p=[value, "much", "more"]))) == {"p": "category"}


def test_mostly_dates_is_an_error_that_names_the_first_other_cell():
    days = ["2024-02-28", "2024-02-29 12:00"]
    ways_out = "or declare {name: d, type: category} in data.inputs."
    assert error_of(fit, table_of(d=[*days, "n/a"])) == (
        "x.csv, column 'd', row 3 (line 4): must be a date as 2 of 3 cells of the column are, got 'n/a'. "
        f"Correct it, add 'n/a' to data.missing if it means no value, {ways_out}"
    )
    assert error_of(fit, table_of(d=["2024-02-30", *days])) == (
        "x.csv, column 'd', row 1 (line 2): is a date that does not exist, got '2024-02-30'. "
        f"Correct it, add '2024-02-30' to data.missing if it means no value, {ways_out}"
    )
    assert types_of(fit(table_of(d=[*days, "n/a", "soon", "late"]))) == {"d": "category"}


def test_declared_number_with_other_cells_is_an_error():
    expected = "x.csv, column 'a', row 1 (line 2): must be a number as declared in data.inputs, got 'u'."
    assert error_of(fit, table_of(a=["u", "v"]), inputs=[{"name": "a", "type": "numeric"}]).startswith(expected)


def test_free_text_is_refused_unless_declared():
    table = table_of(text=[f"word {i}" for i in range(1001)], y=["a"] * 1001)
    assert error_of(fit, table) == (
        "x.csv, column 'text': looks like free text or an id, got 1001 distinct values in 1001 filled rows. "
        "Write data.exclude=[text], or declare {name: text, type: category} or type: text in data.inputs."
    )
    assert fit(table, inputs=[{"name": "text", "type": "category"}]).spec.categories == (1002,)
    assert fit(table, exclude=["text"]).spec.categories == (2,)
    assert fit(table_of(text=[f"w{i % 1001}" for i in range(3000)])).spec.categories == (1002,)


def test_types_that_cannot_be_inputs_are_named():
    table = table_of(s=[{"a": 1}], t=[datetime.time(1)], w=[[b"a"]], x=[1])
    assert error_of(fit, table) == (
        "x.csv, column 's': cannot be an input, got type Struct({'a': Int64}). Leave it out with data.exclude=[s].\n"
        "x.csv, column 't': cannot be an input, got type Time. Leave it out with data.exclude=[t].\n"
        "x.csv, column 'w': cannot be an input, got type List(Binary). Leave it out with data.exclude=[w]."
    )


# --- which columns


def test_reserved_columns_are_left_out_and_reported():  # DAT-13
    table = table_of(id=["1", "2"], x=["1", "3"], ya=["0", "1"], note=["u", "v"])
    features = fit(table, reserved={"ya": "target of task 'a'", "id": "id"}, exclude=["no*"])
    assert format_report(features.report()) == (
        "column  type     missing  example  role\n"
        "id      String   0        1        left out: id\n"
        "x       numeric  0        1        input\n"
        "ya      String   0        0        left out: target of task 'a'\n"
        "note    String   0        u        left out: data.exclude"
    )


def test_report_counts_missing_cells_per_marker(tmp_path):  # DAT-01
    path = tmp_path / "x.csv"
    path.write_text("country\nNA\nFR\nNA\n\n")
    table = SOURCES.build("table", path=str(path), missing=["", "NA"]).read()
    row = fit(table).report()[0]
    assert (row.missing, row.markers, row.example) == (3, "NA 2, empty 1", "FR")
    kept = fit(SOURCES.build("table", path=str(path)).read())
    assert kept.categorical[0].values == ("FR", "NA")


def test_wrong_entries_are_listed_at_once():  # DAT-13
    table = table_of(x1=["1"], x2=["2"], ya=["0"])
    inputs = ["x1", "ya", "x_9", "d_*", {"name": "x2", "type": "number"}, {"nam": "x2"}, 5, "x2"]
    types = "numeric, date, category, text, image"
    hint = f"Write a column name, or {{name: NAME, type: TYPE}} with one of {types}."
    assert error_of(fit, table, reserved={"ya": "target of task 'a'"}, inputs=inputs, exclude=["x2", "zz"]) == (
        f"data.inputs[4].type: must be one of {types}, got 'number'.\n"
        "data.inputs[5].nam: unknown key. Did you mean 'name'?\n"
        f"data.inputs[5].name: must be a column name, got null. {hint}\n"
        f"data.inputs[6]: must be a column name or a mapping, got 5. {hint}\n"
        "data.exclude[1]: no column 'zz' in x.csv. Known: x1, x2, ya.\n"
        "data.inputs[1]: column 'ya' cannot be an input, it is the target of task 'a'. Take it out of data.inputs, "
        "or write data.allow_inputs=[ya] if the model is meant to see it.\n"
        "data.inputs[2]: no column 'x_9' in x.csv. Known: x1, x2, ya.\n"
        "data.inputs[3]: no column 'd_*' in x.csv. Known: x1, x2, ya.\n"
        "data.inputs[7]: column 'x2' is also in data.exclude. Keep it in one of the two."
    )


def test_the_schema_of_a_wide_table_is_not_asked_for_once_for_each_column(monkeypatch):
    asked, schema = [], pl.DataFrame.schema
    monkeypatch.setattr(pl.DataFrame, "schema", property(lambda frame: asked.append(0) or schema.fget(frame)))
    counts = []
    for width in (5, 50):
        table = table_of(**{f"x{i}": ["1", "2", "4"] for i in range(width)})
        fit(table, inputs=[f"x{i}" for i in range(width)]).transform(table)
        counts.append(len(asked))
        asked.clear()
    assert counts[0] == counts[1]  # polars makes it anew each time: as the square of the width


def test_no_input_left_is_an_error():
    expected = "data.inputs: no column of x.csv is left as an input, got '*'."
    assert error_of(fit, table_of(y=["1"]), reserved={"y": "target of task 'y'"}) == expected


def test_globs_and_declarations_combine():
    table = table_of(d_a=["1"], y=["1"], d_b=["2"], d_y=["0"])
    features = fit(table, inputs=["d_*", {"name": "d_b", "type": "category"}], reserved={"d_y": "target of task 'y'"})
    assert types_of(features) == {"d_a": "numeric", "d_b": "category"}
    twice = [{"name": "d_b", "type": "category"}, {"name": "d_*", "type": "numeric"}]
    assert (
        error_of(fit, table, inputs=twice) == "data.inputs[1]: column 'd_b' is declared category before, got numeric."
    )


def test_copy_of_a_target_gets_a_note():  # DAT-13
    table = table_of(y=["0", None, "1"], copy=["0", "1", "1"], other=["1", "0", "1"])
    assert fit(table, reserved={"y": "target of task 'a'"}).notes == (
        "x.csv, column 'copy': equals column 'y', the target of task 'a', in every labelled row. "
        "If it is a copy, write data.exclude=[copy].",
    )
    table = table_of(y=[0, None, 1], copy=[0.0, 1.0, 1.0], text=["0", "1", "1"], late=[0, 0, 2])
    notes = fit(table, inputs=["copy", "text", "late"], reserved={"y": "target of task 'a'"}).notes
    assert [note.partition(":")[0] for note in notes] == ["x.csv, column 'copy'"]


def test_columns_that_differ_from_a_target_at_once_are_not_compared_whole(monkeypatch):
    compared, whole = [], feature_report._equal
    monkeypatch.setattr(feature_report, "_equal", lambda *pair: compared.append(pair) or whole(*pair))
    table = table_of(y=["7", "0", "1"], z=["a", "b", None], **{f"x{i}": [str(i), "0", "1"] for i in range(20)})
    roles = {"y": "target of task 'a'", "z": "target of task 'b'", "x0": "mask_by of task 'b'"}
    assert len(feature_report.copies_of_targets(table, [f"x{i}" for i in range(20)], roles)) == 1
    assert len(compared) == 1


@pytest.mark.parametrize("early", [[], [1.0, 1.0]])  # labels among the first rows
def test_targets_whose_labels_come_late_are_not_compared_whole_with_every_column(monkeypatch, early):
    compared, whole = [], feature_report._equal
    monkeypatch.setattr(feature_report, "_equal", lambda *pair: compared.append(pair) or whole(*pair))
    labels = [*early, *[None] * 200, *[float(i % 2) for i in range(10)]]
    inputs = {f"x{i}": [1] * (len(labels) - 10) + [int(j % 3 == i) for j in range(10)] for i in range(5)}
    table = table_of(**inputs, copy=[label or 0 for label in labels[:-10]] + [i % 2 for i in range(10)], y=labels)
    notes = feature_report.copies_of_targets(table, [*inputs, "copy"], {"y": "target of task 'a'"})
    assert [note.partition(":")[0] for note in notes] == ["x.csv, column 'copy'"]
    assert len(compared) == 1


# --- numbers


def test_decimals_of_many_digits_are_read_at_once_and_codes_are_not():
    table = table_of(x=["0.12345678901234567", None], code=["1234567890123456", "1"], late=["1", "-007"])
    assert with_numbers_read(table, ["x", "code", "late"]).frame.dtypes == [pl.Float64, pl.String, pl.String]


def test_standard_scaling_uses_training_rows_only():
    table = table_of(x=["1", "2", "3", "100"], bit=["0", "1", "1", "5"])
    scaled = numeric(fit(table, train=[0, 1, 2]), table)
    std = np.std([1, 2, 3])
    np.testing.assert_allclose(scaled[:, 0], (np.array([1, 2, 3, 100]) - 2) / std, rtol=1e-6)
    assert scaled[:, 1].tolist() == [0, 1, 1, 5]
    assert scaled.dtype == torch.float32


def test_statistics_are_exact_far_from_zero():
    values = 1e9 + np.arange(5.0)
    scaled = numeric(fit(table_of(x=values)), table_of(x=values))
    np.testing.assert_allclose(scaled[:, 0], (np.arange(5) - 2) / np.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("scale", ["standard", "quantile"])
def test_constant_column_is_zero_everywhere_with_a_note(scale):  # DAT-12
    table = table_of(
        x3=["0.5", "0.5", None, "0.7"], empty=pl.Series([None] * 4, dtype=pl.Float64), x=["1", "2", "3", "4"]
    )
    features = fit(table, train=[0, 1, 2], scale=scale, missing_inputs="mean")
    assert numeric(features, table)[:, :2].tolist() == [[0, 0]] * 4
    assert features.notes == (
        "x.csv, column 'x3': the value is the same in all training rows, and is read as 0 everywhere.",
        "x.csv, column 'empty': the value is the same in all training rows, and is read as 0 everywhere.",
    )


def test_many_constant_columns_share_a_note():
    constant = {f"x{i}": ["0.5"] * 3 for i in range(7)}
    features = fit(table_of(**constant, v=[[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], y=["1", "2", "3"]))
    assert features.notes == (
        "x.csv: 7 columns have the same value in all training rows, and are read as 0 everywhere: 'x0', 'x1', 'x2', "
        "'x3', 'x4' and 2 more.",
        "x.csv, column 'v': 1 of 2 values is the same in all training rows, and is read as 0 everywhere.",
    )


def test_quantile_scaling_agrees_with_scikit_learn_and_is_clipped():
    from sklearn.preprocessing import QuantileTransformer

    values = np.random.default_rng(0).exponential(size=3000)
    values[:600] = 1.0  # ties inside the range
    scaled = numeric(fit(table_of(x=values), scale="quantile"), table_of(x=[*values, -9.0, 99.0])).numpy()[:, 0]
    oracle = QuantileTransformer(n_quantiles=1000, output_distribution="normal", subsample=10**9)
    expected = np.clip(oracle.fit_transform(values[:, None])[:, 0], -5, 5)
    np.testing.assert_allclose(scaled[:-2], expected, atol=1e-5)
    assert scaled[-2:].tolist() == [-5, 5]


def test_quantile_scaling_gives_ties_their_middle_rank():
    values = [0.0] * 500 + list(np.arange(1.0, 501.0))
    scaled = numeric(fit(table_of(x=values), scale="quantile"), table_of(x=[0.0]))
    assert abs(float(scaled[0, 0]) - -0.6745) < 0.01  # rank 0.25: the middle of the lower half


def test_missing_numbers_become_zero_and_set_their_indicator():
    table = table_of(a=["1", None, "3", None], b=["1", "2", "3", None], c=["5", "6", "7", "9"])
    features = fit(table, train=[0, 1, 2])
    inputs, notes = features.transform(table)
    assert inputs.numeric[:, 3].tolist() == [0, 1, 0, 1]
    assert inputs.numeric[1, 0] == inputs.numeric[3, 0] == inputs.numeric[3, 1] == 0
    assert features.spec == InputSpec(4)  # b was whole in training: no indicator
    assert features.input_dim == 3
    assert notes == ["x.csv, column 'a': 2 cells are missing.", "x.csv, column 'b': 1 cell is missing."]


def test_missing_numbers_become_the_training_mean():
    table = table_of(a=["2", None, "4"], bit=["0", "1", None])
    features = fit(table, missing_inputs="mean", scale="none")
    assert numeric(features, table).tolist() == [[2, 0], [3, 1], [4, 0.5]]
    assert fit(table, missing_inputs="mean").spec == InputSpec(2)


def test_missing_cells_can_be_refused_at_fit_and_later():
    table = table_of(a=["2", None, None], c=["u", "v", None], fp=[[1.0, None], [1.0, 2.0], None])
    hint = "Fill it, or set data.missing_inputs to indicator or mean."
    assert error_of(fit, table, missing_inputs="error") == (
        f"x.csv, column 'a', row 2 (line 3): is missing, as is 1 more cell of the column. {hint}\n"
        f"x.csv, column 'c', row 3 (line 4): is missing. {hint}\n"
        f"x.csv, column 'fp', row 1 (line 2): is missing, as is 1 more cell of the column. {hint}"
    )
    features = fit(table_of(a=["2", "3"], c=["u", "v"]), missing_inputs="error")
    assert error_of(features.transform, table_of("p.csv", a=["1", None], c=[None, "u"])) == (
        f"p.csv, column 'a', row 2 (line 3): is missing. {hint}\np.csv, column 'c', row 1 (line 2): is missing. {hint}"
    )


@pytest.mark.parametrize(("value", "shown"), [(float("inf"), "inf"), ("1e400", "'1e400'"), (-1e39, "-1e+39")])
def test_infinite_numbers_are_refused_with_their_place(value, shown):
    expected = f"x.csv, column 'x', row 2 (line 3): must be finite in 32 bits, got {shown}. "
    table = table_of(x=["1", value] if isinstance(value, str) else [1.0, value])
    assert error_of(fit, table) == expected + "Correct the value, or make the cell empty."


def test_outlier_of_a_tight_column_stays_finite():
    features = fit(table_of(x=[0.0, 1e-30, 2e-30]))
    assert torch.isfinite(numeric(features, table_of(x=[3e38]))).all()


def test_blocks_are_scaled_per_element():
    frame = {"v": pl.Series([[0.0, 1.0, 5.0], [0.0, 3.0, 7.0], None, [1.0, None, 9.0]], dtype=pl.Array(pl.Float64, 3))}
    features = fit(table_of(**frame), train=[0, 1, 2])
    inputs, notes = features.transform(table_of(**frame))
    assert inputs.numeric.tolist() == [[0, -1, -1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 3, 1]]
    assert features.notes == (
        "x.csv, column 'v': 1 of 3 values is the same in all training rows, and is read as 0 everywhere.",
    )
    assert (features.describe_width(), features.input_dim) == ("v: 3", 3)
    assert notes == ["x.csv, column 'v': 2 cells are missing."]
    listed = table_of(v=[[0.0, 1.0, 5.0]])
    assert numeric(features, listed).tolist() == [[0, -1, -1, 0]]


def test_a_constant_is_0_whatever_rounding_makes_of_its_deviation():
    assert np.std([0.1] * 3) > 0
    assert numeric(fit(table_of(x=[0.1] * 3)), table_of(x=[0.1, 0.2]))[:, 0].tolist() == [0, 0]


def test_lists_of_truth_values_are_blocks_of_0_and_1():
    table = table_of(v=[[True, False], [False, True], None])
    features = fit(table)
    assert types_of(features) == {"v": "block"}
    assert numeric(features, table)[:2, :2].tolist() == [[1, 0], [0, 1]]


def test_a_later_table_may_lack_every_list():
    table = table_of(v=[[1.0, 2.0], [3.0, 2.0]])
    features = fit(table)
    empty = numeric(features, table_of(v=pl.Series([None, None])))
    assert torch.equal(empty, numeric(features, table_of(v=[None, None, [3.0, 2.0]]))[:2])


def test_a_first_list_without_numbers_is_told_and_not_one_with_some():
    expected = "x.csv, column 'v', row 2 (line 3): must be a list of one or more numbers, got 0."
    assert error_of(fit, table_of(v=[None, [], [1.0]])) == expected
    assert error_of(fit, table_of(v=pl.Series([None, None], dtype=pl.List(pl.Float64)))) == (
        "x.csv, column 'v': holds no list, so that how many numbers it gives is not known. "
        "Leave it out with data.exclude=[v]."
    )


def test_lists_of_other_lengths_are_refused_with_their_row():
    expected = "x.csv, column 'v', row 2 (line 3): must be a list of 2 numbers, got 3."
    assert error_of(fit, table_of(v=[[1, 2], [1, 2, 3]])) == expected
    features = fit(table_of(v=[[1, 2], [2, 3]]))
    assert (
        error_of(features.transform, table_of(v=["a"]))
        == "x.csv, column 'v': must hold lists of 2 numbers, got type String."
    )
    infinite = table_of(v=[[1.0, 2.0], [1.0, float("inf")]])
    assert "got inf at position 2 of the list" in error_of(features.transform, infinite)


def test_dates_are_days_and_may_come_as_text_later():
    days = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 3)]
    features = fit(table_of(d=days), scale="none")
    assert numeric(features, table_of(d=days)).tolist() == [[18262], [18264]]
    later = table_of(d=["2020-01-01", "2020-01-01 12:00:00", "2020-01-02T00:00:00.5", None])
    np.testing.assert_allclose(numeric(features, later)[:3, 0], [18262, 18262.5, 18263], atol=1e-2)
    hint = "Write it as 2024-12-31 or 2024-12-31 23:59:59, or make the cell empty."
    expected = f"x.csv, column 'd', row 1 (line 2): must be a date, got '1.2.2020'. {hint}"
    assert error_of(features.transform, table_of(d=["1.2.2020"])) == expected


def test_texts_that_are_all_dates_are_dates():
    days = [datetime.date(2020, 1, 1), None, datetime.date(2020, 1, 3)]
    spelt = ["2020-01-01", None, "2020-01-03 12:00:00"]
    features = fit(table_of(d=spelt), scale="none", missing_inputs="indicator")
    as_dates = fit(table_of(d=days), scale="none", missing_inputs="indicator")
    assert [column.type for column in features.numeric] == [column.type for column in as_dates.numeric] == ["date"]
    assert numeric(features, table_of(d=spelt))[:, 0].tolist()[0::2] == [18262, 18264.5]
    assert fit(table_of(d=["v2020-01-01", "v2020-01-02"])).categorical


def test_moments_with_an_offset_are_moments_in_utc():
    spelt = ["2020-01-01T01:30+02:00", " 2020-1-1 9:00Z ", "2019-12-31T19:00:00.5-0500", "2020-01-01T06:00:00+00"]
    features = fit(table_of(d=spelt), scale="none")
    assert (types_of(features), features.notes) == ({"d": "date"}, ())
    expected = np.array([18261 + 23.5 / 24, 18262 + 9 / 24, 18262, 18262.25])
    np.testing.assert_allclose(numeric(features, table_of(d=spelt))[:, 0], expected, atol=2e-3)
    stored = pl.Series([datetime.datetime(2020, 1, 1, 1)]).dt.replace_time_zone("Europe/Berlin")
    assert numeric(features, table_of(d=stored)).tolist() == [[18262]]


def test_moments_with_and_without_an_offset_get_a_note():
    assert fit(table_of(d=["2020-01-01 09:00Z", "2020-01-01 09:00", "2020-01-01"])).notes == (
        "x.csv, column 'd': some times have an offset and some none. Those without are read as UTC.",
    )


def test_dates_can_be_declared():
    dates = [{"name": "d", "type": "date"}]
    assert types_of(fit(table_of(d=["2020-01-01", None]), inputs=dates)) == {"d": "date"}
    expected = (
        "x.csv, column 'd', row 1 (line 2): must be a date as declared in data.inputs, got 'soon'. Correct it, add "
    )
    assert error_of(fit, table_of(d=["soon", "late", "2020-01-01"]), inputs=dates).startswith(expected)
    assert error_of(fit, table_of(d=[1, 2]), inputs=dates) == "x.csv, column 'd': must hold dates, got type Int64."
    assert error_of(fit, table_of(d=[[1, 2]]), inputs=dates).startswith("x.csv, column 'd': cannot be a date, got type")


# --- categories


def test_categories_come_from_training_rows_in_fixed_order():  # PRD-02
    table = table_of(c=["b", "NA", "a", "b", "z", None])
    features = fit(table, train=[0, 1, 2, 3])
    assert features.categorical[0].values == ("NA", "a", "b")
    assert features.spec.categories == (4,)
    later, notes = features.transform(table_of("p.csv", c=["b", "DE", None, "DE", "a", "fr"]))
    assert later.categorical[:, 0].tolist() == [3, 0, 0, 0, 2, 0]
    assert notes == [
        "p.csv, column 'c': 1 cell is missing.",
        "p.csv, column 'c': 3 cells hold a category unknown from training: 'DE' (2), 'fr' (1).",
    ]


def test_missing_is_a_category_if_training_had_it():
    table = table_of(c=["b", None, "a", "(missing)"])
    features = fit(table)
    assert features.spec.categories == (5,)
    assert codes(features, table) == [3, 4, 2, 1]
    assert codes(fit(table, min_count=2), table) == [0, 0, 0, 0]


def test_rare_categories_are_unknown():
    table = table_of(c=["a", "a", "b", "c", "c"])
    features = fit(table, min_count=2)
    assert codes(features, table) == [1, 1, 0, 2, 2]
    assert features.spec.categories == (3,)


def test_rare_categories_are_not_told_as_those_that_training_never_had():
    table = table_of(c=["a", "a", "b", None])
    features = Features.from_json(fit(table, min_count=2).to_json())
    rare = "a category that fewer than 2 training rows have (data.min_count)"
    assert features.transform(table)[1] == [
        "x.csv, column 'c': 1 cell is missing.",
        f"x.csv, column 'c': 1 cell holds {rare}: 'b' (1).",
    ]
    few = "fewer than 2 training rows"
    assert error_of(fit(table, min_count=2, unknown="error").transform, table) == (
        f"x.csv, column 'c', row 3 (line 4): holds a category that {few} have, got 'b'. Known: a. Correct it, or train "
        "with data.unknown=other.\n"
        f"x.csv, column 'c', row 4 (line 5): is missing, which it is in {few}. Fill it, or train with "
        "data.unknown=other."
    )


def test_column_without_any_value_is_a_category_with_a_note():
    features = fit(table_of(e=pl.Series([None, None], dtype=pl.String)))
    assert features.notes == ("x.csv, column 'e': holds no value at all.",)
    assert codes(features, table_of(e=["new", None])) == [0, 1]


# --- later tables


def test_each_row_gives_the_same_alone_reversed_and_in_the_file():  # PRD-03
    table = table_of(c=["a", "b", "c"], x=["1", "2", "6"])
    features = fit(table)
    whole = features.transform(table)[0]
    later = table_of("p.csv", extra=["?", "?"], x=["6", "1"], c=["c", "a"])
    swapped = features.transform(later)[0]
    assert torch.equal(swapped.numeric, whole.numeric[[2, 0]])
    assert torch.equal(swapped.categorical, whole.categorical[[2, 0]])
    for row in range(3):
        alone = Table(table.frame[row : row + 1], (Part("one.csv", 0, 1, lines=True),))
        assert torch.equal(numeric(features, alone)[0], whole.numeric[row])


def test_absent_columns_and_bad_cells_of_a_later_table_are_listed():
    features = fit(table_of(x1=["1", "2"], x2=["1", "2"], c=["a", "b"]))
    assert error_of(features.transform, table_of("p.csv", z=["1"], cc=["a"], x2=["1"])) == (
        "data.inputs: no column 'x1' in p.csv. Known: cc, x2, z.\n"
        "data.inputs: no column 'c' in p.csv. Did you mean 'cc'?"
    )
    assert error_of(features.transform, table_of("p.csv", x1=["1", "n/a"], x2=[["1"], ["2"]], c=["a", "a"])) == (
        "p.csv, column 'x1', row 2 (line 3): must be a number, got 'n/a'. Correct it, or make the cell empty.\n"
        "p.csv, column 'x2': must hold numbers, got type List(String)."
    )


@pytest.mark.parametrize(("kind", "what"), [("category", "categories"), ("text", "texts")])
def test_spans_of_time_are_no_categories_and_no_texts(kind, what):
    features = fit(table_of(x=["1", "2"]), inputs=[{"name": "x", "type": kind}])
    message = error_of(features.transform, table_of("p.csv", x=[datetime.timedelta(1)]))
    assert message == f"p.csv, column 'x': must hold {what}, got type Duration(time_unit='us')."


def test_table_without_rows_gives_inputs_without_rows():  # PRD-07
    table = table_of(x=["1", "2"], c=["a", None], v=[[1, 2], [3, 5]])
    inputs, notes = fit(table).transform(Table(table.frame.clear(), (Part("p.csv", 0, 0, lines=True),)))
    assert (inputs.numeric.shape, inputs.categorical.shape, notes) == ((0, 3), (0, 1), [])


@pytest.mark.parametrize("scale", ["standard", "quantile", "none"])
def test_json_round_trip_is_exact(scale):
    rng = np.random.default_rng(1)
    table = table_of(
        x=[*rng.normal(size=30) / 3, None], c=["ä", "NA", None] * 10 + ["\n"], v=rng.normal(size=(31, 3)),
        d=[datetime.date(2020, 1, 1 + i % 9) for i in range(31)],
    )  # fmt: skip
    features = fit(table, scale=scale, reserved={})
    text = json.dumps(features.to_json(), allow_nan=False)
    again = Features.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert again.report() == features.report()
    assert (again.notes, again.spec, again.input_dim) == (features.notes, features.spec, features.input_dim)
    for one, two in zip(features.transform(table)[0][:2], again.transform(table)[0][:2], strict=True):
        assert torch.equal(one, two)


def test_inputs_are_contiguous_and_of_the_promised_types():
    inputs, _ = (table := table_of(x=["1", "2"], z=["3", "9"], c=["a", "b"])) and fit(table).transform(table)
    assert (inputs.numeric.dtype, inputs.categorical.dtype) == (torch.float32, torch.int64)
    assert inputs.numeric.is_contiguous()
    assert inputs.categorical.is_contiguous()


# --- real data


def shared_table(name):
    if not SHARED.is_dir():
        pytest.skip("the shared data sets are not on this machine")
    return SOURCES.build("table", path=str(SHARED / f"data/{name}/{name}.parquet")).read()


def test_adult_gives_numbers_and_categories():
    table = shared_table("adult")
    train = np.flatnonzero((table.frame["split"] == "train").to_numpy())
    reserved = {"income_over_50k": "target of task 'income'", "split": "split"}
    features = fit(table, train, reserved, exclude=["education", "fnlwgt"])
    holes = (True, False, True, False, False, False, True)
    assert features.spec == InputSpec(5, (10, 8, 16, 7, 6, 3, 43 - 1), missing=holes)
    inputs, _ = features.transform(table)
    assert inputs.numeric.shape == (48842, 5)
    torch.testing.assert_close(inputs.numeric[train].mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(inputs.numeric[train].std(0), torch.ones(5), atol=1e-3, rtol=0)


def test_tox21_fingerprints_are_a_block_and_smiles_are_refused():
    table = shared_table("tox21")
    train = np.flatnonzero((table.frame["split_random"] == "train").to_numpy())
    message = error_of(fit, table, train)
    assert "column 'smiles': looks like free text or an id, got 7823 distinct values in 8006 filled rows." in message
    features = fit(table, train, {"NR_AR": "target of task 'NR_AR'"}, inputs=["fp", "d_*"])
    assert features.input_dim == 1036
    assert features.describe_width().startswith("fp: 1024; 12 numbers: d_MolWt, d_MolLogP")
    inputs, _ = features.transform(table)
    assert set(inputs.numeric[:, :1024].unique().tolist()) == {0.0, 1.0}


# --- bins


def test_edges_of_bins_follow_the_distinct_values_of_the_training_rows():
    table = table_of(n=[0, 0, 0, 0, 0, 1, 2, 4, 99], two=[0, 1] * 4 + [5])
    features = fit(table, train=range(8), scale="none", bins=3)
    assert features.spec.edges == ((0, (0.0, 1.0, 2.0, 4.0)),)  # a column of two values needs no bins


def test_many_numeric_columns_get_no_bins_by_themselves():
    few = fit(table_of(**{f"x{i}": [1, 2, 3] for i in range(32)}), bins="auto")
    many = fit(table_of(**{f"x{i}": [1, 2, 3] for i in range(33)}), bins="auto")
    assert len(few.spec.edges) == 32
    assert many.spec.edges == ()
    assert few.notes == ()
    assert many.notes == ("33 columns of numbers: data.bins=auto cuts no more than 32 into bins. Write data.bins=48.",)


def test_edges_survive_json():
    features = fit(table_of(n=[0.1, 0.2, 0.7, 3.0]), bins=2)
    assert Features.from_json(json.loads(json.dumps(features.to_json()))).spec == features.spec


def test_links_are_pairs_of_known_categories_and_survive_json():
    table = table_of(user=["a", "a", "b", None, "b"], item=["x", "x", "y", "y", "z"])
    features = fit(table, range(4))  # nobody took z in training; a missing user has a code of its own
    assert features.spec.categories == (4, 3)
    linked = features.with_links(
        [("user", "item"), ("item", "user")], np.array([[1, 1], [2, 2], [1, 1], [3, 2], [2, 0]])
    )
    assert [(own.columns, own.codes.tolist()) for own in linked.links] == [
        ((0, 1), [[1, 2], [1, 2]]), ((1, 0), [[1, 2], [1, 2]]),
    ]  # fmt: skip
    none = features.with_links([("user", "item")], np.zeros((0, 2), np.int64))
    for one in (linked, none):
        again = Features.from_json(json.loads(json.dumps(one.to_json())))
        assert [own.columns for own in again.links] == [own.columns for own in one.links]
        for own, other in zip(again.spec.links, one.spec.links, strict=True):
            assert own.codes.dtype == other.codes.dtype == np.int64
            assert np.array_equal(own.codes, other.codes)
            assert own.codes.shape[0] == 2


# --- one value in several spellings


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ([1.0, None, 2.0, 3.0], ""),  # what pandas makes of integers with a hole
        (["1.0", None, "2.00", "3"], "'1.0' as '1', '2.00' as '2'"),
        (pl.Series(["1", None, "2", "3"]).cast(pl.Decimal(10, 2)), ""),
    ],
)
def test_category_is_the_same_in_another_spelling(cells, note):
    features = fit(table_of(c=[1, 2, 2, 1]), inputs=[{"name": "c", "type": "category"}])
    inputs, notes = features.transform(table_of("new.csv", c=cells))
    assert inputs.categorical[:, 0].tolist() == [1, 0, 2, 0]
    assert [n for n in notes if "spelt" in n] == (
        [f"new.csv, column 'c': categories are spelt otherwise than the known ones, read {note}."] if note else []
    )
    assert notes[-1] == "new.csv, column 'c': 1 cell holds a category unknown from training: '3' (1)."


def test_category_in_several_unicode_forms_is_one():
    apart, one = "cafe\u0301", "caf\u00e9"
    features = fit(table_of(c=[apart, one, "the", apart]), inputs=["c"])
    assert features.categorical[0].values == (apart, "the")  # the more frequent form
    inputs, notes = features.transform(table_of("new.csv", c=["the", one, apart]))
    assert inputs.categorical[:, 0].tolist() == [2, 1, 1]
    told = f"read '{one}' in another Unicode form (NFC, NFD) as '{apart}'"
    assert notes == [f"new.csv, column 'c': categories are spelt otherwise than the known ones, {told}."]
    rare = fit(table_of(c=[apart, one, "the"]), inputs=["c"], min_count=2)
    assert rare.categorical[0].values == (apart,)  # counted together


TRUTH = {"pandas": ["True", "False", "True"], "json": ["true", "false", "true"], "flags": ["1", "0", "1"],
         "stored": [True, False, True], "numbers": [1, 0, 1]}  # fmt: skip


@pytest.mark.parametrize("new", TRUTH)
@pytest.mark.parametrize("old", TRUTH)
def test_truth_values_are_the_same_however_they_are_stored(old, new):
    trained = table_of(b=TRUTH[old])
    features = fit(trained)
    expected, found = (features.transform(table)[0] for table in (trained, table_of(b=TRUTH[new])))
    assert found.numeric.tolist() == expected.numeric.tolist()
    assert found.categorical.tolist() == expected.categorical.tolist()


def test_text_beside_truth_values_is_no_number():
    features = fit(table_of(b=[True, False, True]))
    error = error_of(features.transform, table_of(b=["True", "maybe", "False"]))
    assert error.startswith("x.csv, column 'b', row 1 (line 2): must be a number, got 'True'.")
