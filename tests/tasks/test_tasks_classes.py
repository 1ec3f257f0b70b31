"""Class labels: what is one class, which classes there are, and what strangers are told."""

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
import torch
from worlds import NAN, column, every_row

from mtl_cli.errors import ConfigError, DataError
from mtl_cli.tasks import _classes
from mtl_cli.tasks._classes import describe_classes, label_texts, sort_classes
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.multiclass import Multiclass
from mtl_cli.tasks.ordinal import Ordinal
from mtl_cli.tasks.tagging import Tagging


def _fit(kind, values, train=None, dtype=None):
    labels = column(values, dtype=dtype)
    kind.fit(labels, every_row(values) if train is None else train)
    return kind


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        pytest.param([1, 0, None], ["1", "0", None], id="whole numbers"),
        pytest.param([1.0, 0.0, None, NAN], ["1", "0", None, None], id="a float column because of blanks"),  # LAB-08
        pytest.param(["1", "1.0", "1.00", "+1", "1e0"], ["1"] * 5, id="one number in many spellings"),
        pytest.param(["2.50", "2.5", ".5", "0.5"], ["2.5", "2.5", "0.5", "0.5"], id="fractions"),
        pytest.param(["-1", "-1.0", "0", "-0"], ["-1", "-1", "0", "0"], id="signs"),
        pytest.param(["007", "7", "7.0"], ["007", "7", "7.0"], id="a leading zero makes all of them text"),
        pytest.param(["1", "1.0", "one"], ["1", "1.0", "one"], id="one word makes all of them text"),
        pytest.param(["yes", "no", None], ["yes", "no", None], id="words"),
        pytest.param(["True", "False"], ["True", "False"], id="booleans as text"),
        pytest.param([True, False, None], ["true", "false", None], id="booleans"),
        pytest.param([Decimal("1.00"), Decimal("0.00"), None], ["1", "0", None], id="decimals"),
        pytest.param([Decimal("2.50"), Decimal("-0.05")], ["2.5", "-0.05"], id="fractions as decimals"),
        pytest.param([1e15, 1e16], ["1000000000000000", "10000000000000000"], id="large floats"),
    ],
)
def test_each_class_has_one_spelling(values, texts):
    assert label_texts(pl.Series(values, strict=False)).to_list() == texts


def test_fractions_of_32_bits_are_the_classes_that_they_are_in_other_files():
    values = pl.Series([0.1, 3.7, -2.0, 123456792.0, 1e-5, None, NAN], dtype=pl.Float32)
    assert label_texts(values).to_list() == ["0.1", "3.7", "-2", "123456792", "1e-05", None, None]
    kind = _fit(Ordinal(classes=[0.1, 0.2]), pl.Series([0.2, 0.1], dtype=pl.Float32))
    assert kind.encode(column(["0.1", "0.2"])).tolist() == [0.0, 1.0]


def test_each_distinct_number_is_spelled_once(monkeypatch):
    spelled = []
    monkeypatch.setattr(_classes, "_float_text", lambda value: spelled.append(value) or str(int(value)))
    assert label_texts(pl.Series([1.0, NAN, 0.0, None] * 500)).to_list() == ["1", None, "0", None] * 500
    assert sorted(spelled) == [0.0, 1.0]


def test_no_labels_are_text_too():
    assert label_texts(pl.Series([], dtype=pl.Float64)).dtype == pl.String


@pytest.mark.parametrize("spelling", [str, int, Decimal], ids=["text", "numbers", "decimals"])
def test_long_whole_numbers_stay_different_classes(spelling):  # DAT-02: 19 digits are more than a float holds
    values = [spelling("1234567890123456789"), spelling("1234567890123456790")]
    assert label_texts(pl.Series(values)).to_list() == ["1234567890123456789", "1234567890123456790"]


def test_classes_count_the_same_by_the_rows_that_are_trained_on():
    labels = column(["a", "b", "b", "c", "b", "a"])
    kind = Multiclass(class_weight="balanced")
    kind.find_classes(labels, np.arange(6))
    kind.fit(labels, np.array([0, 1, 2, 4]))
    assert kind.state() == {"classes": ["a", "b", "c"], "class_weight": pytest.approx([4 / 3, 4 / 9, 1.0])}


def test_numbers_are_sorted_as_numbers_and_words_as_words():
    assert sort_classes(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert sort_classes(["b", "10", "9"]) == ["10", "9", "b"]


@pytest.mark.parametrize(
    ("train", "later"),
    [
        pytest.param(["1", "0", None, "1"], ["1.0", "0.0", "1.00", None], id="numbers"),  # LAB-08
        pytest.param([1.0, 0.0, NAN, 1.0], ["1", "0", "1", None], id="float column, then text"),
        pytest.param(["yes", "no", None, "yes"], ["yes", "no", "yes", None], id="yes and no"),
        pytest.param(["True", "False", None, "True"], ["True", "False", "True", None], id="True and False"),
        pytest.param([True, False, None, True], [True, False, True, None], id="booleans"),
    ],
)
def test_the_same_classes_in_another_file_have_the_same_codes(train, later):
    kind = _fit(Binary(), train)
    codes = kind.encode(column(later)).tolist()
    assert codes[:3] == [1.0, 0.0, 1.0]
    assert codes[3] != codes[3]  # missing


def test_leading_zeros_are_not_cut_off():
    kind = _fit(Multiclass(), ["007", "7", "08"])
    assert kind.classes == ["007", "7", "08"]
    assert len(set(kind.encode(column(["007", "7", "08"])).tolist())) == 3


def test_declared_classes_in_another_spelling_are_the_same_classes():
    kind = _fit(Binary(classes=["0.0", "1.0"]), [1, 0, 1])
    assert kind.encode(column([1, 0, 1])).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("kind", [Binary(), Multiclass(), Ordinal()], ids=["binary", "multiclass", "ordinal"])
def test_unknown_class_is_named_with_its_place(kind):  # LAB-06
    _fit(kind, ["0", "1", "0"])
    with pytest.raises(DataError) as caught:
        kind.encode(column(["0", "3", "3", "1"]))
    assert str(caught.value) == (
        "people.csv, column 'y', row 2: class '3' is not among the classes 0, 1, which are those of the training rows. "
        "Known: 0, 1. Correct the cell, list the task's `classes`, or name the value in its `missing_label`."
    )


def test_unknown_class_of_a_declared_task_is_told_so():
    kind = _fit(Multiclass(classes=[3, 4]), [3, 4])
    with pytest.raises(DataError) as caught:
        kind.encode(column([3, -5, 4]))
    assert str(caught.value) == (
        "people.csv, column 'y', row 2: class '-5' is not among the classes 3, 4, which are the task's `classes`. "
        "Known: 3, 4. Correct the cell, add it to the task's `classes`, or name the value in its `missing_label`."
    )


def test_unknown_class_of_a_task_with_num_classes_is_told_so():
    kind = _fit(Multiclass(num_classes=2), [0, 1])
    with pytest.raises(DataError, match="class '2' is not among the classes 0, 1, as num_classes is 2"):
        kind.encode(column([0, 2]))


def test_many_unknown_classes_are_all_named_after_the_first_ones():
    kind = _fit(Multiclass(), ["a", "b"])
    with pytest.raises(DataError) as caught:
        kind.encode(column(list("agfedcghib")))
    *first, rest = caught.value.problems
    assert [problem.where.rpartition(" ")[2] for problem in first] == ["2", "3", "4", "5", "6"]
    assert str(rest) == (
        "people.csv, column 'y': 7 labels are not among the classes: 'g', 'f', 'e', 'd', 'c', 'h', 'i'."
    )


def test_each_unknown_class_is_named_once_in_the_order_of_the_rows():
    kind = _fit(Multiclass(), ["red", "blue"])
    with pytest.raises(DataError) as caught:
        kind.encode(column(["rde", "red", "grey", "rde", "grey"]))
    assert [problem.where for problem in caught.value.problems] == [
        "people.csv, column 'y', row 1",
        "people.csv, column 'y', row 3",
    ]
    assert "Did you mean 'red'?" in str(caught.value)


def test_classes_come_from_the_training_rows_alone():
    kind = _fit(Multiclass(), ["a", "b", "c"], train=every_row("ab"))
    assert kind.classes == ["a", "b"]


def test_declared_class_without_a_training_row_is_known():  # LAB-06, second run
    kind = _fit(Multiclass(classes=["a", "b", "c"]), ["a", "b", "c"], train=every_row("ab"))
    assert kind.encode(column(["c"])).tolist() == [2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            ["1", "1", None],
            "column 'y': a binary task needs two classes in the training rows, got 1 (1). "
            "Declare the task's `classes`.",
            id="one",
        ),
        pytest.param(
            [None, None],
            "column 'y': no training row has a label for it. Correct its `target`, `missing_label` or `mask_by`, split "
            "the rows otherwise, or list the task's `classes`.",
            id="none",
        ),
        pytest.param(
            ["a", "b", "c"],
            "column 'y': a binary task needs two classes in the training rows, got 3 (a, b, c); "
            "people.csv, column 'y', row 1 holds 'a'. "
            "Use kind: multiclass or regression, or name the value that means 'no label' in `missing_label`.",
            id="three",
        ),
    ],
)
def test_binary_task_needs_two_classes(values, message):
    with pytest.raises(DataError) as caught:
        _fit(Binary(), values, dtype=pl.String)
    assert str(caught.value) == message


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], ["a", "b", "c"]], ids=["one", "twice", "three"])
def test_binary_task_refuses_a_wrong_declaration(classes):
    with pytest.raises(ConfigError) as caught:
        Binary(classes=classes)
    assert str(caught.value) == f"kind.binary.classes: must be two different labels, got {classes}."


def test_num_classes_is_checked_against_the_training_rows():
    with pytest.raises(DataError) as caught:
        _fit(Multiclass(num_classes=2), ["a", "b", "c"])
    assert str(caught.value) == (
        "column 'y': num_classes is 2, but the training rows hold 3 (a, b, c). "
        "Correct num_classes, or list the task's `classes`."
    )


@pytest.mark.parametrize("kind", [Binary, Multiclass, Ordinal])
def test_task_of_classes_needs_a_label_in_the_training_rows(kind):
    with pytest.raises(DataError, match="column 'y': no training row has a label for it"):
        _fit(kind(), [None, None, "a", "b"], train=every_row("ab"))


def test_one_class_is_no_multiclass_task():
    with pytest.raises(DataError) as caught:
        _fit(Multiclass(), ["a", "a"])
    assert str(caught.value) == (
        "column 'y': a multiclass task needs at least two classes, but the training rows hold 1 (a). "
        "Correct num_classes, or list the task's `classes`."
    )


@pytest.mark.parametrize(
    "found",
    [["0", "1", "2"], ["0", "1", "3"], ["1", "2", "3"], ["3", "3", "3"]],
    ids=["last", "inner", "first", "most"],
)
def test_class_without_a_training_row_is_known_by_the_convention_of_counting_from_zero(found):
    kind = _fit(Multiclass(num_classes=4), found)
    assert kind.classes == ["0", "1", "2", "3"]
    assert kind.encode(column(["0", "1", "2", "3"])).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_missing_class_of_words_cannot_be_guessed():
    with pytest.raises(DataError, match="num_classes is 3, but the training rows hold 2"):
        _fit(Multiclass(num_classes=3), ["a", "b"])


def test_multiclass_refuses_a_declaration_that_contradicts_itself():
    with pytest.raises(ConfigError) as caught:
        Multiclass(classes=["a", "b"], num_classes=3)
    assert str(caught.value) == "kind.multiclass.num_classes: is 3, but classes lists 2."


def test_ordinal_task_of_words_needs_an_order():
    with pytest.raises(DataError) as caught:
        _fit(Ordinal(), ["low", "high", "mid"])
    assert str(caught.value) == (
        "column 'y': the order of the classes high, low, mid is not known. "
        "List the task's `classes` from low to high, or name what is no label in its `missing_label`."
    )


@pytest.mark.parametrize("classes", [["low"], ["low", "high", "low"], []])
def test_ordinal_task_refuses_what_is_no_scale(classes):
    with pytest.raises(ConfigError, match=r"kind\.ordinal\.classes: must be two or more different labels, got \["):
        Ordinal(classes=classes)


@pytest.mark.parametrize("word", ["nan", "inf", "1_0"])
def test_a_word_that_python_reads_as_a_number_has_no_place_on_a_scale(word):
    with pytest.raises(DataError, match="is not known"):
        Ordinal().fit(column(["1", "2", word]), every_row([1, 2, 3]))


def test_ordinal_outputs_that_are_no_numbers_are_decoded_all_the_same():
    kind = Ordinal()
    kind.fit(column(["1", "2", "3"]), every_row([1, 2, 3]))
    found = kind.decode(torch.tensor([[torch.nan, torch.nan], [9.0, 9.0]]))
    assert found["pred"].tolist() == ["1", "3"]
    assert np.isnan(found["prob"][0]).any()


def test_confusion_of_an_ordinal_task_is_of_what_it_predicts():
    kind = Ordinal()
    kind.fit(column([str(i) for i in range(5)]), every_row(range(5)))
    outputs, targets = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 5
    confusion = np.array(kind.curves(outputs, targets.float())["confusion"])
    assert np.trace(confusion) / 200 == pytest.approx(kind.score(outputs, targets.float())["accuracy"])


def test_ordinal_task_of_numbers_has_an_order():
    assert _fit(Ordinal(), ["10", "9", "2.5"]).classes == ["2.5", "9", "10"]


def test_ordinal_task_keeps_the_declared_order():
    kind = _fit(Ordinal(classes=["low", "mid", "high"]), ["high", "low", "mid"])
    assert kind.encode(column(["low", "mid", "high"])).tolist() == [0.0, 1.0, 2.0]


def test_many_classes_are_described_by_the_most_frequent():
    codes = every_row("x" * 8) % 7  # one code twice, seven classes
    text = describe_classes(codes, list("abcdefg"))
    assert text == "a: 25%, b: 12%, c: 12%, d: 12%, 3 more"
    assert describe_classes(codes[:4], list("abcde")) == "a: 25%, b: 25%, c: 25%, d: 25%, e: 0%"


def test_a_rare_class_is_not_described_as_one_that_no_row_has():
    assert describe_classes(np.array([1.0] + [0.0] * 999), list("abc")) == "a: >99%, b: <1%, c: 0%"


@pytest.mark.parametrize("kind", [Binary, Multiclass, Ordinal])
def test_lists_are_no_single_labels(kind):
    with pytest.raises(DataError, match=r"must hold one label in each cell, got type List\(.*kind: multilabel"):
        _fit(kind(), [["a"], ["b", "a"]])


@pytest.mark.parametrize("kind", [Multiclass, Ordinal])
def test_balanced_classes_count_the_same_over_the_labelled_training_rows(kind):
    values, train = ["a", "a", "a", "b", None, "c"], np.arange(5)
    kind = _fit(kind(classes=["a", "b", "c", "d"], class_weight="balanced"), values, train)
    weights = kind.row_weights(kind.encode(column(values)))
    assert weights[[0, 1, 2]].sum() == pytest.approx(weights[3])
    assert weights[[0, 1, 2, 3]].sum() == pytest.approx(2.0)  # 4 rows, 2 of the 4 classes
    assert weights[5] == 1.0  # of no training row: nothing is known of it


def test_one_tag_is_too_few_in_words_of_its_own_kind():
    with pytest.raises(DataError) as caught:
        _fit(Tagging(), ["Long", None, "Long"])
    assert str(caught.value).startswith(
        "column 'y': a tagging task needs at least two classes, but the training rows hold 1 (Long). List the task's "
        "`classes`; or"
    )
    assert "num_classes" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^kind\.tagging\.classes: must be two or more"):
        Tagging(classes=["a"])


def test_weights_are_of_the_classes_that_are_named_and_1_of_the_others():
    values = [0.0, 1.0, 2.0, 1.0]
    kind = _fit(Multiclass(class_weight={"1.0": 3.0}), values)
    assert kind.row_weights(kind.encode(column(values))).tolist() == [1.0, 3.0, 1.0, 3.0]
    assert _fit(Multiclass(), values).row_weights(kind.encode(column(values))) is None
    with pytest.raises(DataError, match=r"column 'y': class_weight names '7', which is no class\. Known: 0, 1, 2\."):
        _fit(Multiclass(class_weight={"1": 3.0, "7": 2.0}), values)


def test_classes_that_no_row_has_are_unseen():
    kind = _fit(Multiclass(classes=["a", "b", "c"]), ["a", "b", "c"])
    assert kind.unseen(np.array([1.0, NAN, 1.0])) == ["a", "c"]
    assert kind.unseen(np.array([NAN])) == []


def test_class_in_several_unicode_forms_is_refused_in_training_and_known_later():
    apart, one = "Zu\u0308rich", "Z\u00fcrich"
    with pytest.raises(DataError, match=rf"holds '{one}' in another Unicode form \(NFC, NFD\), which may be the class"):
        _fit(Multiclass(), [apart, "Bern", one])
    kind = _fit(Multiclass(), [one, "Bern", one], train=[0, 1])
    assert kind.encode(column([apart, "Bern", one])).tolist() == [1.0, 0.0, 1.0]
