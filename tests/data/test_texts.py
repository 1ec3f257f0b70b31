"""Texts and tokens as bags of hashed features, and labels of tokens."""

import json
import sys
import tracemalloc
import unicodedata
import zlib
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from worlds import column

import mtl_cli.data.texts
from mtl_cli.data import FeatureOptions, Features
from mtl_cli.data.input_columns import CategoryInput, Findings
from mtl_cli.data.table import Part, Table
from mtl_cli.data.texts import text_ids, token_ids
from mtl_cli.data.token_labels import label_tokens, spread_targets
from mtl_cli.errors import DataError
from mtl_cli.schema import TextOptions
from mtl_cli.types import Column

PLAIN = TextOptions(ids=1 << 31, words=1, pieces=None)


def table_of(**columns):
    frame = pl.DataFrame(columns)
    return Table(frame, (Part("reviews.csv", 0, frame.height, lines=True),))


def fit(table, **options):
    return Features.fit(table, FeatureOptions(**options), np.arange(table.frame.height), {})


def test_number_of_a_feature_is_its_crc():  # so it is the same on every machine and in every version
    assert text_ids("Good day!", PLAIN) == [
        zlib.crc32(f"w {word}".encode()) % (1 << 31) for word in ("good", "day", "!")
    ]
    assert text_ids("Good", TextOptions(ids=97, words=1, pieces=None, lowercase=False)) == [zlib.crc32(b"w Good") % 97]
    pieces = [zlib.crc32(f"c {piece}".encode()) % (1 << 31) for piece in ("<ab", "abc", "bc>", "<abc", "abc>")]
    assert text_ids("abc", TextOptions(ids=1 << 31, words=1, pieces=[3, 4])) == [
        zlib.crc32(b"w abc") % (1 << 31),
        *pieces,
    ]
    pairs = text_ids("a b c", TextOptions(ids=1 << 31, words=2, pieces=None))[3:]
    assert pairs == [zlib.crc32(b"w a b") % (1 << 31), zlib.crc32(b"w b c") % (1 << 31)]


def test_runs_of_words_end_with_the_text(monkeypatch):
    sizes = []
    monkeypatch.setattr(mtl_cli.data.texts, "range", lambda *ends: sizes.append(range(*ends)) or sizes[-1], False)
    longest = text_ids("a b c", TextOptions(words=100_000, pieces=None))
    assert longest == text_ids("a b c", TextOptions(words=3, pieces=None))
    assert max(map(len, sizes)) <= 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी में!", ["हिन्दी", "में", "!"]),
        ("ọ̀rọ̀ rẹ", ["ọ̀rọ̀", "rẹ"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("ไม่รู้", ["ไม่รู้"]),
        ("İki 1️⃣ a_b", ["i̇ki", "1️⃣", "a_b"]),
        ("❤️", ["❤", "️"]),  # no letter that the mark could stand on
    ],
)
def test_marks_and_joiners_are_of_their_word_however_they_are_stored(text, words):
    wanted = [zlib.crc32(f"w {unicodedata.normalize('NFC', word)}".encode()) % (1 << 31) for word in words]
    for form in ("NFC", "NFD"):
        assert text_ids(unicodedata.normalize(form, text), PLAIN) == wanted
    composed, apart = (token_ids(unicodedata.normalize(form, "Été"), PLAIN) for form in ("NFC", "NFD"))
    assert composed == apart


def test_marks_are_all_there():
    marks = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M"}
    assert marks <= {code for codes in mtl_cli.data.texts._MARKED for code in codes}


def test_text_column_is_text_whatever_its_cells_look_like():  # DAT-22
    table = table_of(text=["good", None, "5", "NA", "1e3", " "])
    features = fit(table, inputs=[{"name": "text", "type": "text"}], text=PLAIN)
    inputs, notes = features.transform(table)
    assert inputs.blocks["text"].lengths().tolist() == [1, 0, 1, 1, 1, 0]
    assert inputs.blocks["text"].values.tolist() == [text_ids(t, PLAIN)[0] for t in ("good", "5", "na", "1e3")]
    assert notes == ["reviews.csv, column 'text': 1 cell is missing."]
    assert features.report()[0].type == "text"
    with pytest.raises(DataError, match=r"column 'text', row 2 \(line 3\): is missing"):
        fit(table, inputs=[{"name": "text", "type": "text"}], missing_inputs="error")


def test_numbers_can_be_declared_text_and_lists_cannot():
    table = table_of(text=[5, 17], words=[["a"], ["b", "c"]])
    inputs, _ = fit(table, inputs=[{"name": "text", "type": "text"}], text=PLAIN).transform(table)
    assert inputs.blocks["text"].values.tolist() == text_ids("5", PLAIN) + text_ids("17", PLAIN)
    with pytest.raises(DataError, match=r"column 'words': must hold texts, got type List"):
        fit(table, inputs=[{"name": "words", "type": "text"}]).transform(table)


def test_lists_of_words_are_tokens():
    table = table_of(words=[["Cats", "sleep"], [], None, ["cats"]])
    features = fit(table, text=TextOptions(ids=1000))
    inputs, notes = features.transform(table)
    tokens = inputs.blocks["words"]
    assert tokens.starts.tolist() == [0, 2, 2, 2, 3]
    assert tokens.values.tolist() == [token_ids(word, TextOptions(ids=1000)) for word in ("Cats", "sleep", "cats")]
    assert tokens.values.shape == (3, 11)
    assert notes == ["reviews.csv, column 'words': 1 cell is missing."]
    with pytest.raises(DataError, match=r"line 4\): is missing"):
        fit(table, missing_inputs="error")
    with pytest.raises(DataError, match=r"line 2\): is missing"):
        fit(table_of(words=[["a", None], ["b"]]), missing_inputs="error")
    with pytest.raises(DataError, match=r"column 'words': must hold lists of words, got type String"):
        features.transform(table_of(words=["a"]))


@pytest.mark.parametrize(
    ("dtype", "cells"), [(pl.List(pl.Null), [[], None]), (pl.Null, [None, None]), (pl.Array(pl.Null, 0), [[], None])]
)
def test_rows_without_words_are_read_alone_as_in_company(dtype, cells):
    features = fit(table_of(words=[["a"]]))
    for values in (pl.Series(cells, dtype=dtype), pl.Series([*cells, ["a"]], dtype=pl.List(pl.String))[:2]):
        inputs, notes = features.transform(table_of(words=values))
        assert inputs.blocks["words"].starts.tolist() == [0, 0, 0]
        assert inputs.blocks["words"].values.shape == (0, 11)
        count = {0: [], 1: ["1 cell is"], 2: ["2 cells are"]}[values.null_count()]
        assert notes == [f"reviews.csv, column 'words': {cells} missing." for cells in count]


def test_beginnings_and_ends_are_as_long_as_wanted():
    def numbers(*features):
        return [zlib.crc32(feature.encode()) % (1 << 31) for feature in features]

    word = numbers("t Abc", "l abc", "x Xxx")
    assert token_ids("Abc", replace(PLAIN, affix=0)) == word
    assert token_ids("Abc", replace(PLAIN, affix=2)) == word + numbers("p a", "p ab", "s 1 c", "s 2 bc")
    features = fit(table_of(words=[["Abc"]]), text=replace(PLAIN, affix=6))
    assert features.spec.blocks[0].shape == (15,)


def test_features_of_texts_survive_json():
    table = table_of(review=["a b"], words=[["a"]])
    features = fit(table, inputs=[{"name": "review", "type": "text"}, "words"], text=TextOptions(ids=77, pieces=None))
    again = Features.from_json(json.loads(json.dumps(features.to_json())))
    assert again.spec == features.spec
    assert [block.ids for block in again.spec.blocks] == [77, 77]
    for name in ("review", "words"):
        assert again.transform(table)[0].blocks[name].values.equal(features.transform(table)[0].blocks[name].values)


def test_features_of_the_training_rows_have_numbers_of_their_own():
    table = table_of(text=["a b a c", "b a", "d d d d"], words=[["one", "one"], ["two"], ["three"]])
    options = FeatureOptions(inputs=[{"name": "text", "type": "text"}], text=replace(PLAIN, min_count=2))
    features = Features.fit(table, options, np.array([0, 1]), {})
    inputs, _ = features.transform(table)
    assert features.spec.blocks[0].ids == 3  # a, b, and all others: c is there once, and d in no training row
    a, b = sorted([1, 2], key=lambda number: text_ids("ab"[number - 1], replace(PLAIN, ids=1 << 32)))
    assert inputs.blocks["text"].values.tolist() == [a, b, a, 0, b, a, 0, 0, 0, 0]
    most = Features.fit(table, replace(options, text=replace(options.text, ids=2)), np.array([0, 1]), {})
    assert most.spec.blocks[0].ids == 2
    assert most.transform(table)[0].blocks["text"].values.tolist() == [1, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    tokens = fit(table, inputs=["words"], text=TextOptions(min_count=1))
    values = tokens.transform(table)[0].blocks["words"].values
    assert (
        tokens.spec.blocks[0].ids
        == 1 + len(values.unique())
        == 1 + len({number for word in ("one", "two", "three") for number in token_ids(word, TextOptions(ids=1 << 32))})
    )
    assert not tokens.transform(table_of(words=[["Äh"]]))[0].blocks["words"].values.any()
    assert fit(table, inputs=["words"], text=TextOptions(min_count=9)).spec.blocks[0].ids == 1


def test_texts_of_which_little_is_known_are_told():
    table = table_of(
        text=["a b a c", "b a", "c d", "e", "", None], words=[["one"], ["two"], ["9"], ["9", "九"], [], None]
    )
    options = FeatureOptions(inputs=[{"name": "text", "type": "text"}, "words"], text=replace(PLAIN, min_count=1))
    features = Features.fit(table, options, np.array([0, 1]), {})
    features = Features.from_json(json.loads(json.dumps(features.to_json())))
    texts, words = "reviews.csv, column 'text'", "reviews.csv, column 'words'"
    told = "words and parts of words are unknown from training"

    def notes(rows):
        return [note for note in features.transform(table.some(np.array(rows)))[1] if "missing" not in note]

    assert notes([0, 1, 0, 1]) == []
    assert notes([1, 2]) == [f"{words}: 11 of 22 {told}, and 1 row has none that is known."]
    assert notes([2, 3, 4, 5]) == [
        f"{texts}: 2 of 3 {told}, and 1 row has none that is known.",
        f"{words}: 33 of 33 {told}, and 2 rows have none that is known.",
    ]
    found = Findings()
    for rows in ([0, 2], [3, 3]):  # streamed rows are counted over all stretches
        other = Findings()
        features.transform(table.some(np.array(rows)), other)
        found.add(other)
    assert found.notes() == [
        f"{texts}: 3 of 8 {told}, and 2 rows have none that is known.",
        f"{words}: 55 of 66 {told}, and 3 rows have none that is known.",
    ]
    half = features.transform(table_of(text=["a x y"], words=[["one"]]))[1]
    assert half == [f"{texts}: 2 of 3 {told}."]
    hashed = Features.fit(table, replace(options, text=PLAIN), np.array([0, 1]), {})
    assert [note for note in hashed.transform(table)[1] if "missing" not in note] == []


def test_texts_of_which_nothing_is_kept_are_told_once():
    table = table_of(text=["a b a c", "b a"], n=[1, 2])
    features = fit(table, inputs=[{"name": "text", "type": "text"}, "n"], text=replace(PLAIN, min_count=9))
    assert features.notes == (
        "reviews.csv, column 'text': no word or part of one stands 9 times in the training rows (data.text.min_count): "
        "all are read as the same.",
    )
    assert features.transform(table)[1] == []


def test_same_word_is_another_feature_in_rows_with_another_value():
    table = table_of(words=[["is"], ["is"], ["is"]], text=["is"] * 3, language=["sv", "en", None])
    options = {"inputs": ["words", {"name": "text", "type": "text"}], "text": replace(PLAIN, by="language")}
    inputs, _ = fit(table, **options).transform(table)
    first = [zlib.crc32(b"sv\0t is") % (1 << 31), zlib.crc32(b"en\0t is") % (1 << 31), token_ids("is", PLAIN)[0]]
    assert inputs.blocks["words"].values[:, 0].tolist() == first
    assert len(inputs.blocks["words"].values.unique()) == 3 * len(set(token_ids("is", PLAIN)))
    assert inputs.blocks["text"].values.tolist() == [
        zlib.crc32(start + b"w is") % (1 << 31) for start in (b"sv\0", b"en\0", b"")
    ]
    numbered = fit(table, inputs=["words"], text=TextOptions(by="language", min_count=1))
    again = Features.from_json(json.loads(json.dumps(numbered.to_json())))
    assert again.spec == numbered.spec
    assert again.transform(table)[0].blocks["words"].values.equal(numbered.transform(table)[0].blocks["words"].values)
    assert not again.transform(table_of(words=[["is"]], language=["no"]))[0].blocks["words"].values.any()
    with pytest.raises(DataError, match=r"^data.text.by: no column 'language' in reviews.csv. Known: words.$"):
        again.transform(table_of(words=[["is"]]))


def test_value_in_several_unicode_forms_tells_texts_apart_once():
    table = table_of(words=[["is"]] * 3, language=["\u00e9", "e\u0301", "\u00e9"])
    options = FeatureOptions(inputs=["words"], text=TextOptions(by="language", min_count=3))
    features = Features.fit(table, options, np.arange(3), {})
    assert features.blocks[0].known  # counted together
    ids = features.transform(table)[0].blocks["words"].values.reshape(3, -1)
    assert ids[0].equal(ids[1])


def test_values_that_no_training_row_has_are_told_or_refused():
    table = table_of(words=[["is"]] * 3, n=["1", "2", "3"], language=["1", "2", "3"])
    other = table_of(words=[["is"]] * 3, n=["1", "2", "3"], language=["2.0", "7", None])
    place = "reviews.csv, column 'language'"

    def fitted(inputs, **options):
        return Features.fit(table, FeatureOptions(inputs=inputs, **options), np.array([0, 1]), {})

    for inputs in (["words"], ["words", {"name": "language", "type": "category"}], ["words", "language"]):
        features = fitted(inputs, text=TextOptions(by="language"))
        features = Features.from_json(json.loads(json.dumps(features.to_json())))
        read, notes = features.transform(other)
        assert sorted(notes) == [
            f"{place}: 1 cell holds a category unknown from training: '7' (1).",
            f"{place}: 1 cell is missing.",
            f"{place}: categories are spelt otherwise than the known ones, read '2.0' as '2'.",
        ]
        values = read.blocks["words"].values.reshape(3, -1)
        assert values[0].equal(features.transform(table)[0].blocks["words"].values.reshape(3, -1)[1])
        for option, told in (
            ("unknown", "holds a category that no training row has, got '7'"),
            ("missing_inputs", "is missing"),
        ):
            strict = fitted(inputs, text=TextOptions(by="language"), **{option: "error"})
            with pytest.raises(DataError) as caught:
                strict.transform(other)
            assert len([problem for problem in caught.value.problems if told in str(problem)]) == 1
    saved = fitted(["words"], text=TextOptions(by="language")).to_json()
    del saved["by"]  # as runs of before, which did not know the values
    assert Features.from_json(saved).transform(other)[1] == []
    holes = table_of(words=[["is"]] * 2, language=["1", None])
    assert fit(holes, inputs=["words"], text=TextOptions(by="language")).by_values == CategoryInput(
        "language", ("1",), True
    )
    with pytest.raises(DataError, match=r"column 'language', row 2 \(line 3\): is missing"):
        fit(holes, inputs=["words"], text=TextOptions(by="language"), missing_inputs="error")


def test_values_that_tell_features_apart_are_no_targets():
    table = table_of(words=[["a"], ["b"]], n=["1", "2"], tag=["x", "y"])
    reserved = {"tag": "target of task 'tag'"}

    def problems(**options):
        with pytest.raises(DataError) as caught:
            Features.fit(table, FeatureOptions(**options), np.array([0]), reserved)
        return [str(problem) for problem in caught.value.problems]

    assert problems(inputs=["words"], text=TextOptions(by="tag")) == [
        "data.text.by: column 'tag' cannot be an input, it is the target of task 'tag'. Take it out of data.text.by, "
        "or write data.allow_inputs=[tag] if the model is meant to see it."
    ]
    assert problems(inputs=["words"], text=TextOptions(by="tga", min_count=1)) == [
        "data.text.by: no column 'tga' in reviews.csv. Did you mean 'tag'?"
    ]
    Features.fit(table, FeatureOptions(inputs=["n"], text=TextOptions(by="tga")), np.array([0]), reserved)  # no texts


def test_features_of_runs_of_before_are_read():
    table = table_of(words=[["a"]])
    saved = fit(table).to_json()
    (block,) = saved["blocks"]
    del block["known"], block["version"]
    del block["options"]["min_count"], block["options"]["by"], block["options"]["affix"]
    assert Features.from_json(saved).transform(table)[0].blocks["words"].values.tolist() == [
        token_ids("a", TextOptions())
    ]
    table = table_of(text=["में"])
    saved = fit(table, inputs=[{"name": "text", "type": "text"}], text=PLAIN).to_json()
    assert Features.from_json(saved).transform(table)[0].blocks["text"].lengths().tolist() == [1]
    del saved["blocks"][0]["version"]  # which took marks for words
    assert Features.from_json(saved).transform(table)[0].blocks["text"].lengths().tolist() == [3]


def test_numbers_are_the_same_texts_however_they_are_stored():
    given = {"inputs": [{"name": "code", "type": "text"}], "text": PLAIN}
    features = fit(table_of(code=["10012", "7"]), **given)
    expected = features.transform(table_of(code=["10012", "2.5", None]))[0].blocks["code"]
    for stored in (pl.Series([10012.0, 2.5, None]), pl.Series([10012.0, 2.5, None], dtype=pl.Decimal(9, 2))):
        found = features.transform(table_of(code=stored))[0].blocks["code"]
        assert all(map(torch.equal, found, expected))
    whole = features.transform(table_of(code=[10012]))[0].blocks["code"]
    assert whole.values.tolist() == expected.values[:1].tolist()
    saved = fit(table_of(code=[10012.0]), **given).to_json()
    saved["blocks"][0]["version"] = 2  # whose runs have learnt from floats as they are spelt
    before = Features.from_json(saved).transform(table_of(code=[10012.0]))[0].blocks["code"]
    assert before.values.tolist() == text_ids("10012.0", PLAIN)


def test_rows_of_ragged_columns_are_taken_in_any_order():
    table = table_of(words=[["a", "b"], [], ["c"], ["d", "e", "f"]])
    inputs, _ = fit(table).transform(table)
    some = inputs.rows(torch.tensor([3, 1, 0, 3]))
    expected = [token_ids(word, TextOptions()) for word in "defabdef"]
    assert some.blocks["words"].values.tolist() == expected
    assert some.blocks["words"].starts.tolist() == [0, 3, 3, 5, 8]
    assert some.blocks["words"].row_of_each().tolist() == [0, 0, 0, 2, 2, 3, 3, 3]
    assert inputs.part(1, 3).blocks["words"].values.tolist() == [token_ids("c", TextOptions())]


def test_labels_of_tokens_go_where_their_tokens_are():
    tags, tokens = column([["A", None], None, [], ["B"]], "tag"), column([["a", "b"], ["c"], [], ["d"]], "word")
    labels, rows = label_tokens(tags)
    assert (labels.values.to_list(), rows.tolist()) == (["A", None, "B"], [0, 0, 3])
    assert labels.where(2) == "people.csv, column 'tag', row 4, token 1"
    spread = spread_targets(np.array([0, np.nan, 1], np.float32), tags, tokens)
    np.testing.assert_array_equal(spread, np.array([0, np.nan, np.nan, 1], np.float32))


def test_lists_of_another_length_and_labels_of_rows_are_named():
    tags, tokens = column([["A"], ["B"]], "tag"), column([["a"], ["b", "c"]], "word")
    with pytest.raises(DataError, match=r"people.csv, column 'tag', row 2: has 1 label, but 2 tokens in 'word'"):
        spread_targets(np.zeros(2, np.float32), tags, tokens)
    with pytest.raises(DataError, match=r"column 'tag': must hold a list of labels in each row, got type String"):
        label_tokens(Column("tag", pl.Series(["A"]), lambda row: f"people.csv, column 'tag', row {row + 1}"))


@pytest.mark.parametrize("options", [{}, {"min_count": 2, "by": "c"}, {"ids": 7, "min_count": 1}])
def test_rows_are_read_some_at_a_time_with_the_same_features(monkeypatch, options):
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(20)]
    bags = [list(draw.choice(words, count)) if count else None for count in draw.integers(0, 6, 53)]
    table = table_of(
        t=[None if bag is None else " ".join(bag) for bag in bags], l=bags, c=["a", "b", None] * 17 + ["a"] * 2
    )
    given = {"inputs": [{"name": "t", "type": "text"}, "l"], "text": TextOptions(**options)}
    found = []
    for rows in (1000, 7):
        monkeypatch.setattr(mtl_cli.data.texts, "_ROWS_AT_ONCE", rows)
        features = fit(table, **given)
        blocks = features.transform(table)[0].blocks
        found.append((features.to_json()["blocks"], [t.tolist() for block in blocks.values() for t in block]))
    assert found[0] == found[1]


def test_features_of_the_words_so_far_are_copied_a_few_times_only(monkeypatch):
    monkeypatch.setattr(mtl_cli.data.texts, "_ROWS_AT_ONCE", 1)
    copied, join = [], np.concatenate

    def counting(parts, *args, **options):
        copied.append(len(parts[0]))
        return join(parts, *args, **options)

    table = table_of(words=[[f"w{i}", f"v{i}", "w0"] for i in range(200)])
    (block,) = fit(table).blocks
    monkeypatch.setattr(np, "concatenate", counting)
    found = [features for features, _ in block.features(table.column("words"), None)]
    assert sum(copied) <= 2 * 400
    expected = [token_ids(word, TextOptions(ids=1 << 32)) for word in ("w7", "v7", "w0")]
    assert found[7].tolist() == expected


def test_numbers_of_texts_take_little_more_memory_than_they_hold():
    draw = np.random.default_rng(0)
    words = [f"word{i}" for i in range(500)]
    table = table_of(t=[" ".join(draw.choice(words, 40)) for _ in range(4000)])
    features = fit(table, inputs=[{"name": "t", "type": "text"}])
    held = sum(t.nbytes for t in features.transform(table)[0].blocks["t"])
    tracemalloc.start()
    features.transform(table)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * held


def test_features_of_long_words_are_not_kept():
    kept = mtl_cli.data.texts._kept_word_ids
    kept.cache_clear()
    options = TextOptions(ids=1 << 31)
    assert len(text_ids("x" * 1000, options)) == 1 + 1000 + 999 + 998
    assert kept.cache_info().currsize == 0
    text_ids("short", options)
    assert kept.cache_info().currsize == 1
