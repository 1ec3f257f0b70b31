"""Several sources as one table."""

from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from mtl_cli.data import FeatureOptions, Features, SplitOptions, split_rows
from mtl_cli.data.combine import combine, combine_splits, own_column_notes, rename_columns
from mtl_cli.data.table import Drawn, Feedback, Part, Table
from mtl_cli.errors import DataError
from mtl_cli.schema import TextOptions


def table(name, columns, **options):
    """The table of one text file."""
    frame = pl.DataFrame(columns)
    return Table(frame, (Part(f"{name}.csv", 0, frame.height, lines=True),), fingerprint=name, **options)


def two():
    """Books and movies with the same users and columns of their own."""
    books = table("books", {"user": ["u1", "u2", None], "pages": ["10", "30", None]}, missing={"user": {"empty": 1}})
    movies = table("movies", {"user": ["u2", "u3"], "genre": ["noir", None]})
    return {"books": books, "movies": movies}


def test_rows_stand_below_each_other_with_their_source_and_place():
    combined = combine(two(), source_column=True)
    assert combined.frame.columns == ["user", "pages", "genre", "source"]
    assert combined.frame["source"].to_list() == ["books"] * 3 + ["movies"] * 2
    assert combined.frame["pages"].to_list() == ["10", "30", None, None, None]
    assert combined.sources == ("books", "movies")
    assert combined.source_of_rows().tolist() == [0, 0, 0, 1, 1]
    assert combined.where("user", 4) == "movies.csv, column 'user', row 2 (line 3)"


def test_a_column_named_source_is_one_like_others_where_none_is_added():
    combined = combine({"a": table("a", {"source": ["x"]}), "b": table("b", {"source": ["y"]})})
    assert combined.frame["source"].to_list() == ["x", "y"]
    assert combined.missing.get("source", {}) == {}


def test_drawn_rows_are_found_under_new_names_and_places():
    ratings = table("r", {"who": ["u1"] * 3, "what": ["a", "b", "c"]}, drawn=(Drawn(1, 2, "who", "what"),))
    renamed = rename_columns(ratings, {"who": "user", "what": "item"}, "data.sources.r.rename")
    assert renamed.drawn == (Drawn(1, 2, "user", "item"),)
    assert combine({"books": two()["books"], "r": renamed}).drawn == (Drawn(4, 2, "user", "item"),)


def test_feedback_is_found_under_new_names_and_places():
    columns = {"who": ["u", "u"], "what": ["a", "b"], "took": [1, 0], "n": [0, 0], "hour": [1, 2]}
    rows = table("r", columns, feedback=(Feedback(0, 2, "who", "what", "took", "n", {"hour": "c.csv"}),))
    names = {"who": "user", "what": "item", "took": "label", "n": "list", "hour": "time"}
    renamed = rename_columns(rows, names, "data.sources.r.rename")
    wanted = Feedback(3, 2, "user", "item", "label", "list", {"time": "c.csv"})
    combined = combine({"books": two()["books"], "r": renamed})
    assert combined.feedback == (wanted,)
    assert combined.not_taken[0].tolist() == [False] * 4 + [True]


def test_rows_of_other_sources_are_counted_apart_from_empty_cells():
    combined = combine(two())
    assert combined.missing["user"] == {"empty": 1}
    assert combined.missing["pages"] == {"not in movies": 2}
    assert combined.column("genre").in_source.tolist() == [False] * 3 + [True] * 2
    assert combined.column("genre").head == "movies.csv, column 'genre'"
    assert combined.column("user").in_source is None


def test_fingerprint_depends_on_each_source_and_its_name():
    prints = {combine(tables).fingerprint for tables in ({"a": two()["books"]}, {"b": two()["books"]}, two())}
    assert len(prints) == 3


def test_numbers_of_two_kinds_are_one_column_and_text_is_another_thing():
    one, other = table("a", {"x": [1, 2]}), table("b", {"x": [0.5]})
    assert combine({"a": one, "b": other}).frame["x"].to_list() == [1.0, 2.0, 0.5]
    with pytest.raises(DataError) as caught:
        combine({"a": one, "b": table("b", {"x": ["one"]})})
    assert str(caught.value) == (
        "b.csv, column 'x': has type String, but Int64 in a.csv. "
        "Store the column in one way, or rename it: data.sources.b.rename={x: OTHER}."
    )


@pytest.mark.parametrize(
    ("text", "numbers", "joined"),
    [
        (["1", None, " 2"], [3.5], [1.0, None, 2.0, 3.5]),
        (["1", "2"], [3], [1, 2, 3]),
        (["0.5", "1e3"], [3.0], [0.5, 1000.0, 3.0]),
    ],
)
def test_text_that_spells_numbers_is_numbers_beside_numbers(text, numbers, joined):
    for first, second in ((text, numbers), (numbers, text)):
        values = combine({"a": table("a", {"x": first}), "b": table("b", {"x": second})}).frame["x"]
        assert sorted(values.drop_nulls().to_list()) == sorted(value for value in joined if value is not None)
        assert values.dtype == pl.Series(numbers).dtype


@pytest.mark.parametrize(
    ("text", "numbers"),
    [(["007", "1"], [2]), (["0.5"], [2]), (["1", "x"], [2.0]), (["0.5"], [Decimal(2)])],
)
def test_codes_and_fractions_beside_whole_numbers_stay_a_clash(text, numbers):
    with pytest.raises(DataError, match="column 'x': has type"):
        combine({"a": table("a", {"x": text}), "b": table("b", {"x": numbers})})


@pytest.mark.parametrize(("text", "places", "joined"), [("0.5", 2, [0.5, 3.0]), ("1", 2, [1, 3]), ("1", 0, [1, 3])])
def test_text_that_spells_numbers_is_numbers_beside_decimals(text, places, joined):
    decimals = pl.Series([3]).cast(pl.Decimal(10, places))
    values = combine({"a": table("a", {"x": [text]}), "b": table("b", {"x": decimals})}).frame["x"]
    assert values.cast(pl.Float64).to_list() == joined


def test_column_without_values_fits_any_type():
    empty = table("a", {"x": pl.Series([None], dtype=pl.Null)})
    assert combine({"a": empty, "b": table("b", {"x": ["one"]})}).frame["x"].to_list() == [None, "one"]
    with pytest.raises(DataError, match=r"has type Int64, but String in b\.csv"):
        combine({"a": empty, "b": table("b", {"x": ["one"]}), "c": table("c", {"x": [1]})})


def test_source_without_rows_is_refused():
    with pytest.raises(DataError, match=r"a\.csv: holds no rows\. Give source 'a' rows, or leave it out\."):
        combine({"a": table("a", {"x": pl.Series([], dtype=pl.String)}), "b": table("b", {"x": ["1"]})})


def test_column_called_source_stands_in_the_way_of_the_sources_name():
    with pytest.raises(DataError, match=r"has the name of what data\.source_as_input adds"):
        combine({"a": table("a", {"source": ["x"]})}, source_column=True)


def test_renamed_columns_are_still_named_as_in_the_file_in_messages():
    renamed = rename_columns(two()["books"], {"user": "reader"}, "data.sources.books.rename")
    assert renamed.frame.columns == ["reader", "pages"]
    assert renamed.missing == {"reader": {"empty": 1}}
    assert combine({"a": renamed}).where("reader", 0) == "books.csv, column 'user', row 1 (line 2)"


def test_columns_may_swap_names():
    renamed = rename_columns(two()["books"], {"user": "pages", "pages": "user"}, "here")
    assert renamed.frame["user"].to_list() == ["10", "30", None]


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"usr": "u"}, "here.usr: no column 'usr' in books.csv. Did you mean 'user'?"),
        ({"user": "pages"}, "here.user: there is a column 'pages' already. Choose another name."),
        ({"user": "a", "pages": "a"}, "here.user: there is a column 'a' already. Choose another name."),
    ],
)
def test_wrong_names_are_refused(rename, message):
    with pytest.raises(DataError) as caught:
        rename_columns(two()["books"], rename, "here")
    assert str(caught.value.problems[0]) == message


def test_splits_are_those_of_each_source_alone():
    tables = {name: table(name, {"x": list(range(rows))}) for name, rows in (("a", 20), ("b", 50))}
    options = {"a": SplitOptions(val=0.5, test=0.0), "b": SplitOptions()}
    own = {name: split_rows(tables[name], options[name]) for name in tables}
    both = combine_splits(own, {"a": 20, "b": 50})
    for split in ("train", "val", "test"):
        rows = getattr(both, split)
        assert rows[rows < 20].tolist() == getattr(own["a"], split).tolist()
        assert (rows[rows >= 20] - 20).tolist() == getattr(own["b"], split).tolist()
    assert both.method == ("a at random (0.5 val, 0 test, seed 0); b at random (0.1 val, 0.1 test, seed 0)")
    assert both.notes == ("a: There are no test rows: the final numbers are those of the validation rows.",)


@pytest.mark.parametrize("missing_inputs", ["indicator", "mean", "error"])
def test_column_that_a_source_lacks_gets_an_input_that_says_so(missing_inputs):
    books = table("books", {"user": ["u1", "u2"], "pages": ["10", "30"]})
    movies = table("movies", {"user": ["u2", "u3"], "genre": ["noir", "war"]})
    combined = combine({"books": books, "movies": movies})
    options = FeatureOptions(missing_inputs=missing_inputs)
    features = Features.fit(combined, options, np.arange(4), {})
    inputs, notes = features.transform(combined)
    assert inputs.numeric.tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert inputs.categorical.tolist() == [[1, 3], [2, 3], [2, 1], [3, 2]]  # users u1 u2 u3; noir, war, not there
    assert notes == []
    assert own_column_notes(combined, features.read_of_lacking()) == [
        "movies: no column 'pages': an input of its own says so in these rows.",
        "books: no column 'genre': an input of its own says so in these rows.",
    ]


def test_empty_cells_of_the_sources_own_rows_are_still_refused_and_counted():
    combined = combine(two())
    with pytest.raises(DataError) as caught:
        Features.fit(combined, FeatureOptions(missing_inputs="error"), np.arange(5), {})
    assert [str(problem).partition(". Fill")[0] for problem in caught.value.problems] == [
        "books.csv, column 'user', row 3 (line 4): is missing",
        "books.csv, column 'pages', row 3 (line 4): is missing",
        "movies.csv, column 'genre', row 2 (line 3): is missing",
    ]
    features = Features.fit(combined, FeatureOptions(), np.arange(5), {})
    assert features.transform(combined)[1] == [
        "books.csv, column 'pages': 1 cell is missing.",
        "books.csv to movies.csv, column 'user': 1 cell is missing.",
        "movies.csv, column 'genre': 1 cell is missing.",
    ]


def test_texts_tokens_and_images_that_a_source_lacks_are_empty_and_no_cell_of_it_is_missing():
    pixels = np.full((2, 3, 3), 7, np.uint8)
    a = table(
        "a", {"x": [1.0, 2.0], "review": ["good", None], "words": [["a"], None], "photo": pixels, "by": ["u", "v"]}
    )
    b = table("b", {"x": [3.0, 4.0]})
    combined = combine({"a": a, "b": b})
    inputs = ["x", {"name": "review", "type": "text"}, "words", "photo"]
    features = Features.fit(combined, FeatureOptions(inputs=inputs, text=TextOptions(by="by")), np.arange(4), {})
    unreadable = []
    read, notes = features.transform(combined, unreadable=unreadable)
    assert notes == [f"a.csv, column '{name}': 1 cell is missing." for name in ("review", "words")]
    assert unreadable == []
    assert read.blocks["photo"].amax((1, 2, 3)).tolist() == [7, 7, 0, 0]
    assert read.blocks["review"].lengths().tolist()[1:] == [0, 0, 0]
    assert own_column_notes(combined, features.read_of_lacking()) == [
        "b: no column 'review': read as empty texts in these rows.",
        "b: no column 'words': read as without tokens in these rows.",
        "b: no column 'photo': read as black images in these rows.",
        "b: no column 'by': texts are read as without it in these rows.",
    ]
    alone, notes = features.transform(b)
    assert notes == []
    assert alone.blocks["photo"].tolist() == read.blocks["photo"][2:].tolist()


def test_table_of_one_source_is_read_by_the_features_of_all():
    combined = combine(two())
    features = Features.from_json(Features.fit(combined, FeatureOptions(), np.arange(5), {}).to_json())
    whole = features.transform(combined)[0]
    alone, notes = features.transform(two()["movies"])
    assert alone.numeric.tolist() == whole.numeric[3:].tolist()
    assert alone.categorical.tolist() == whole.categorical[3:].tolist()
    assert notes == ["movies.csv, column 'genre': 1 cell is missing."]
    with pytest.raises(DataError, match="no column 'user'"):
        features.transform(table("x", {"pages": ["1"]}))


@pytest.mark.parametrize("stored", [pl.Int64, pl.Decimal(38, 0)])
def test_large_ids_are_not_rounded_to_join_sources(stored):
    columns = {"a": pl.Series([2**60 + 1, 2**60 + 2], dtype=stored), "b": pl.Series([0.5, None])}
    tables = {
        name: Table(pl.DataFrame({"user": users}), (Part(f"{name}.parquet", 0, 2, lines=False),))
        for name, users in columns.items()
    }
    with pytest.raises(DataError, match=r"a\.parquet, column 'user': holds 1152921504606846977, more digits than"):
        combine(tables)
