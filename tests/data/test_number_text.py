"""Numbers written as text: plain ones, and those with other people's signs."""

import polars as pl
import pytest

from mtl_cli.data.number_text import convert_numbers, parse_numbers
from mtl_cli.data.table import Part, Table
from mtl_cli.errors import DataError


def _table(**columns):
    frame = pl.DataFrame(columns)
    return Table(frame, (Part("x.csv", 0, frame.height, lines=True),))


@pytest.mark.parametrize("word", ["inf", "-Infinity", "nan", "one"])
def test_a_word_is_no_number_wherever_it_stands(word):
    values, bad = parse_numbers(pl.Series(["1", word, None, "1e999"]))
    assert values.to_list() == [1.0, None, None, float("inf")]
    assert bad.to_list() == [False, True, False, False]


def test_missing_cells_have_no_say_in_what_holds_numbers():
    table = _table(
        x=["1,5", None, "-2,5", None, "?"], word=["a", "b", None, "c", "3.5"], half=["1,5", "b", None, "c", "d"]
    )
    frame, columns = convert_numbers(table, ",", None)
    assert columns == ("x",)
    assert frame["x"].to_list() == ["1.5", None, "-2.5", None, "?"]
    assert frame.drop("x").equals(table.frame.drop("x"))


def test_a_decimal_point_among_numbers_with_a_comma_is_refused():
    with pytest.raises(DataError) as caught:
        convert_numbers(_table(x=[None, "1,5", "1.299"], y=["1,5", "1", "2.5"]), ",", None)
    assert [str(problem).partition(". ")[0] for problem in caught.value.problems] == [
        f"x.csv, column '{name}', row 3 (line 4): has a decimal point although data.decimal is ',', got '{cell}'"
        for name, cell in (("x", "1.299"), ("y", "2.5"))
    ]
