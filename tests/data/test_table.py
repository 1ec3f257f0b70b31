"""Reading: cell for cell what the file holds, or an error that names the place."""

import csv
import datetime
import gzip
import hashlib
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtl_cli.data import Table
from mtl_cli.data.sources.base import Source
from mtl_cli.data.table import Part
from mtl_cli.data.text_file import parse_text, parse_text_blocks
from mtl_cli.errors import ConfigError, DataError
from mtl_cli.registry import SOURCES

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, content):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def read(**options):
    return SOURCES.build("table", **options).read()


def read_text(content, name="x.csv", **options):
    write(name, content)
    return read(path=name, **options)


def error_of(content, name="x.csv", **options):
    with pytest.raises(DataError) as caught:
        read_text(content, name, **options)
    return str(caught.value)


def config_error(**options):
    with pytest.raises(ConfigError) as caught:
        SOURCES.build("table", **options)
    return str(caught.value)


def test_cells_of_text_files_stay_text():  # DAT-01, DAT-02, DAT-27
    ids = ["1234567890123456789", "1234567890123456790", "", "12345678901234567890", "007"]
    countries = ["NA", "FR", "None", "null", "nan"]
    table = read_text("id,country\n" + "".join(f"{i},{c}\n" for i, c in zip(ids, countries, strict=True)))
    assert table.frame["id"].to_list() == [*ids[:2], None, *ids[3:]]
    assert table.frame["country"].to_list() == countries
    assert table.missing == {"id": {"empty": 1}}


def test_only_listed_markers_are_missing_and_counted():  # DAT-01
    table = read_text("a,b\nNA,\n?,NA\nx,NAN\n", missing=["", "NA", "?"])
    assert table.frame.rows() == [(None, None), (None, None), ("x", "NAN")]
    assert table.missing == {"a": {"?": 1, "NA": 1}, "b": {"empty": 1, "NA": 1}}


NUMBERS = ["-200", "-200.0", " -2e2 ", "-20", "-200.5", "x"]


@pytest.mark.parametrize("marker", ["-200", "-200.0", "-2E+2"])
def test_marker_that_is_a_number_is_missing_in_every_spelling(marker):
    table = read_text("a,b\n" + "".join(f"{cell},{cell}\n" for cell in NUMBERS), missing=["", marker])
    assert table.frame["a"].to_list() == [None, None, None, *NUMBERS[3:]]
    assert table.missing["a"] == {"-200": 1, "-200.0": 1, " -2e2 ": 1}


@pytest.mark.parametrize("marker", ["-1299.5", "-1299,5", "-1.299,50"])
def test_marker_that_is_a_number_has_the_signs_of_the_table_or_none(marker):
    signs = {"sep": ";", "decimal": ",", "thousands": "."}
    table = read_text("a;b\n-1.299,5;x\n-1299,50;y\n7,5;z\n", missing=[marker], **signs)
    assert table.frame["a"].to_list() == [None, None, "7.5"]


def test_codes_and_long_ids_are_no_other_spelling_of_a_marker():
    cells = ["007", "00", "9007199254740993"]
    table = read_text("a\n" + "\n".join(cells), missing=["7", "0", "9007199254740992"])
    assert table.frame["a"].to_list() == cells


def test_marker_that_is_a_number_or_a_day_is_missing_where_numbers_and_days_are_stored():
    days = [datetime.date(1900, 1, 1), datetime.date(2024, 5, 1), None]
    frame = pl.DataFrame(
        {
            "float": [-200.0, 1.5, float("nan")],
            "short": pl.Series([-99.9, 1.5, -200.0], dtype=pl.Float32),
            "whole": [-200, 3, None],
            "small": pl.Series([200, 3, 56], dtype=pl.UInt8),
            "large": [2**63 - 1, 2**63 - 2, 0],
            "price": pl.Series(["-99.9", "1.5", "-200"]).cast(pl.Decimal(10, 2)),
            "id": pl.Series([2**63 - 1, 2**63 - 2, None]).cast(pl.Decimal(38, 0)),
            "flag": [True, False, None],
            "text": ["-200", "-200.0", "7"],
            "code": ["007", "-0200", "7"],
            "day": days,
            "moment": pl.Series(days).cast(pl.Datetime("ms")),
            "list": [[-200.0], [1.0], [2.0]],
        }
    )
    frame.write_parquet("x.parquet")
    source = SOURCES.build("table", path="x.parquet", missing=["", "-200", "-99.9", str(2**63 - 1), "1900-01-01"])
    table = source.read()
    assert table.missing == {
        "float": {"-200": 1, "NaN": 1},
        "short": {"-200": 1, "-99.9": 1},
        "whole": {"-200": 1, "null": 1},
        "large": {str(2**63 - 1): 1},
        "price": {"-200": 1, "-99.9": 1},
        "id": {str(2**63 - 1): 1, "null": 1},
        "flag": {"null": 1},
        "text": {"-200": 1, "-200.0": 1},
        "day": {"1900-01-01": 1, "null": 1},
        "moment": {"1900-01-01": 1, "null": 1},
    }
    assert {name: table.frame[name].null_count() for name in frame.columns if name in table.missing} == {
        name: sum(counts.values()) for name, counts in table.missing.items()
    }
    assert table.frame["large"].to_list() == [None, 2**63 - 2, 0]
    assert table.frame["id"].to_list() == [None, 2**63 - 2, None]
    assert pl.concat(part.frame for part in source.chunks(2)).equals(table.frame)
    assert read(path="x.parquet").missing.keys() == {"float", "whole", "id", "flag", "day", "moment"}


@pytest.mark.parametrize(("rows", "reads"), [(3, 8), (30, 4)])
def test_a_row_group_of_parquet_is_not_read_for_every_few_rows_of_it(monkeypatch, rows, reads):
    frame, slices, original = pl.DataFrame({"x": range(100)}), [], pl.LazyFrame.slice
    frame.write_parquet("x.parquet")
    monkeypatch.setattr(pl.LazyFrame, "slice", lambda *given: slices.append(given[1:]) or original(*given))
    chunks = [chunk.frame for chunk in SOURCES.build("table", path="x.parquet").chunks(rows)]
    assert len(slices) == reads
    assert {chunk.height for chunk in chunks[:-1]} == {rows}
    assert pl.concat(chunks).equals(frame)


def test_without_markers_an_empty_cell_is_an_empty_text():
    assert read_text('a,b\n,1\n"",2\n', missing=[]).frame["a"].to_list() == ["", ""]


def test_duplicate_header_names_are_refused_with_positions():  # DAT-03
    expected = "x.csv: the header has column 'x1' more than once, at positions 2 and 4. Rename or remove the others."
    assert error_of("id,x1,x2,x1,x4,ya,yb\n1,2,3,4,5,6,7\n") == expected


def test_every_header_problem_is_listed():
    assert error_of("x1,x1,x1.1,,\n1,2,3,4,5\n") == (
        "x.csv: the header has column 'x1' more than once, at positions 1 and 2. Rename or remove the others.\n"
        "x.csv: the header has no name at positions 4 and 5. Name every column."
    )


@pytest.mark.parametrize("header", ["x1,x2", '"x1","x2"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_change_nothing(header, end):  # DAT-04
    text = end.join([header, "1,2", "3,4"])
    assert read_text(b"\xef\xbb\xbf" + text.encode()).frame.equals(read_text(f"{text}{end}{end}").frame)
    assert read(path="x.csv").frame.columns == ["x1", "x2"]


def test_byte_order_mark_inside_the_text_is_kept():
    assert read_text("\ufeffa,b\n\ufeff,1\n").frame.rows() == [("\ufeff", "1")]


def test_quoted_line_break_is_one_row_and_hides_line_numbers():  # DAT-10
    table = read_text('id,text\n1,a\n2,"first line\nsecond, ""line"""\n3,c\n')
    assert table.frame.rows() == [("1", "a"), ("2", 'first line\nsecond, "line"'), ("3", "c")]
    assert table.where("text", 2) == "x.csv, column 'text', row 3"


QUOTE_HINT = "Write a cell that holds a quote in quotes, and double the quotes inside it."


@pytest.mark.parametrize(
    "text",
    ['id,t\n1,a\n2,"b\n3,c\n', 'id,t\n1,a\n2,"b\n3,"c"\n', 'id,t\n1,a\n2,"b\n3,""\n', 'id,t\n1,a\n2,"b\n3,"c, d"\n'],
)
def test_unclosed_quote_is_refused_with_its_line(text):  # DAT-10
    what = "a cell opens with a quote that is not closed at the end of a cell"
    assert error_of(text) == f"x.csv, line 3: {what}, got '2,\"b'. {QUOTE_HINT}"


def test_quote_inside_a_bare_cell_is_refused_with_its_line():
    what = "a quote stands inside a cell that does not begin with one"
    assert error_of('id,t\n1,5" pipe\n2,6" pipe\n') == f"x.csv, line 2: {what}, got '1,5\" pipe'. {QUOTE_HINT}"


def test_a_quote_closes_before_a_line_end_and_not_before_a_carriage_return_alone():
    assert read_text('a,b\r\n1,"2"\r\n3,"4"\r\n').frame.rows() == [("1", "2"), ("3", "4")]
    what = "a cell opens with a quote that is not closed at the end of a cell"
    assert error_of('a,b\n1,2\n"3"\r4,5\n').startswith(f"x.csv, line 3: {what}")


def test_ragged_rows_are_refused_with_their_lines():
    assert error_of('a,b\n1,2,3\n"x\ny",2\n1\n\n1,2\n5\n') == (
        "x.csv, line 2: has 3 cells where the header has 2, got '1,2,3'.\n"
        "x.csv, line 5: has 1 cell where the header has 2, got '1'.\n"
        "x.csv, line 6: has 1 cell where the header has 2, got ''.\n"
        "x.csv: 1 more line has another number of cells."
    )


def test_blank_cells_of_a_single_column_are_rows():
    assert read_text("a\n1\n\n\n").frame["a"].to_list() == ["1", None, None]


def test_wrong_separator_is_named():  # DAT-11
    expected = "x.csv: one column found with separator ',', got header 'id\\tx1\\tya'. Set data.sep=\"\\t\"."
    assert error_of("id\tx1\tya\n1\t2\t3\n") == expected
    assert read(path="x.csv", sep="\\t").frame.rows() == [("1", "2", "3")]
    assert error_of("a;b\n1;2\n") == "x.csv: one column found with separator ',', got header 'a;b'. Set data.sep=\";\"."


def test_missing_header_line_is_told_from_the_names():  # DAT-11
    table = read_text("1,0.1,0.2\n2,0.5,0.1\n")
    with pytest.raises(DataError) as caught:
        table.require(["x1", "1", "ya"], {"x1": "data.inputs[0]", "ya": "tasks.a.target", "1": "-"})
    hint = "The first line was read as the header: 1, 0.1, 0.2. Write the column names there, or set data.header=false."
    assert str(caught.value) == (
        f"data.inputs[0]: no column 'x1' in x.csv. {hint}\ntasks.a.target: no column 'ya' in x.csv. {hint}"
    )


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_empty_file_is_named(content):  # PRD-07
    expected = "x.csv: is an empty file, without a header. Write the column names on the first line."
    assert error_of(content) == expected


def test_header_alone_is_a_table_without_rows():  # PRD-07
    table = read_text("a,b\n")
    assert (table.frame.shape, table.frame.dtypes) == ((0, 2), [pl.String, pl.String])


def test_absent_file_shows_both_paths_and_the_nearest_name(tmp_path):
    write("train.csv", "a\n1\n")
    with pytest.raises(DataError) as caught:
        read(path=["trian.csv", "no/x.csv", "."])
    assert str(caught.value) == (
        f"trian.csv: no such file, looked for {tmp_path}/trian.csv. Did you mean 'train.csv'?\n"
        f"no/x.csv: no such file, looked for {tmp_path}/no/x.csv. There is no folder {tmp_path}/no.\n"
        f".: is a folder, looked at {tmp_path}. Name the files in it."
    )


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("x.csv", "a\n1\n")
    assert read(path="~/x.csv").where("a", 0) == "~/x.csv, column 'a', row 1 (line 2)"


def test_wrong_encoding_is_named_with_line_and_byte():
    hint = "Set data.encoding, for example to cp1252 (Western Windows) or utf-16."
    assert error_of("a\nx\né\n".encode("cp1252")) == f"x.csv, line 3: is not utf-8 text, got byte 0xe9. {hint}"
    assert read(path="x.csv", encoding="cp1252").frame["a"].to_list() == ["x", "é"]
    assert read_text("a,b\n1,é\n".encode("utf-16"), encoding="utf-16").frame.rows() == [("1", "é")]


def test_unknown_encoding_and_old_line_ends_are_refused():
    write("x.csv", "a\n1\n")
    with pytest.raises(ConfigError, match=r"^data.encoding: unknown encoding, got 'utf9'. Write utf-8.$"):
        read(path="x.csv", encoding="utf9")
    assert error_of("a,b\r1,2\r") == "x.csv: ends its lines with CR alone. Save it with LF or CR LF line ends."


def test_header_with_a_carriage_return_alone_is_refused():
    what = "has a CR outside of quotes that no LF follows, got 'a\\r1,2'"
    assert error_of("a\r1,2\n3,4\n") == f"x.csv, line 1: {what}. Save it with LF or CR LF line ends."
    assert read_text('"a\r1",2\n3,4\n').frame.columns == ["a\r1", "2"]


def test_options_that_contradict_each_other_are_refused_before_reading():
    hint = "Write data.path=FILE, or data.train and data.val."
    assert config_error() == f"data.path: must be given, got null. {hint}"
    both = "data.path: cannot be given together with data.val and data.test. Keep one of the two forms."
    assert config_error(path="a", val="b", test="c") == both
    assert config_error(val="b") == "data.train: must be given with data.val, got null. Write data.train=FILE."
    assert config_error(path="") == "data.path: is an empty name. Name a file."
    assert config_error(train="a", val=["b", ""]) == "data.val: is an empty name. Name a file."
    assert config_error(path=[], sep=";;", decimal=",", thousands=",") == (
        "data.path: is an empty list. Name a file.\n"
        "data.sep: must be one character, not a quote or line break, got ';;'.\n"
        "data.thousands: must differ from data.decimal, got ','."
    )


def test_files_per_split_are_stacked_by_column_name():
    write("train.csv", "a,b\n1,2\n3,4\n")
    write("val.csv", "b,a\n6,5\n")
    table = read(train="train.csv", val="val.csv")
    assert table.frame.rows() == [("1", "2"), ("3", "4"), ("5", "6")]
    assert table.given_split.to_list() == ["train", "train", "val"]
    assert table.where("a", 2) == "val.csv, column 'a', row 1 (line 2)"  # LAB-06
    assert table.column("b").where(1) == "train.csv, column 'b', row 2 (line 3)"
    assert table.fingerprint == hashlib.sha256(b"a,b\n1,2\n3,4\nb,a\n6,5\n").hexdigest()
    assert table.parts == (Part("train.csv", 0, 2, lines=True), Part("val.csv", 2, 1, lines=True))


def test_files_with_other_columns_or_types_are_refused():
    write("a.csv", "x,y\n1,2\n")
    write("b.csv", "x,z\n1,2\n")
    pl.DataFrame({"x": [1], "y": ["2"]}).write_parquet("c.parquet")
    with pytest.raises(DataError) as caught:
        read(path=["a.csv", "b.csv", "c.parquet"])
    assert str(caught.value) == (
        "b.csv: must have the columns of a.csv, but lacks 'y' and has 'z'. Give every file the same columns.\n"
        "c.parquet, column 'x': has type Int64, but String in a.csv. Store the column in one way."
    )


def test_arrow_streams_and_json_lines_with_a_mark_are_read():
    frame = pl.DataFrame({"x": [1, 2], "y": ["a", "b"]})
    frame.write_ipc("file.arrow")
    frame.write_ipc_stream("stream.arrow")
    Path("x.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"x": 1, "y": "a"}\n{"x": 2, "y": "b"}\n')
    for name in ("file.arrow", "stream.arrow", "x.jsonl"):
        assert read(path=name).frame.equals(frame)


def test_a_file_for_a_split_must_hold_rows():  # DAT-23
    write("train.csv", "a\n1\n")
    write("val.csv", "a\n")
    with pytest.raises(DataError, match=r"^val.csv: holds no rows. Leave data.val out, or give it rows.$"):
        read(train="train.csv", val="val.csv")


def test_columns_that_are_absent_are_listed_at_once_with_the_nearest_name():
    table = read_text("income,age\n1,2\n", "people.csv")
    with pytest.raises(DataError) as caught:
        table.require(["incme", "age", "agee"], {"incme": "tasks.income.target", "agee": "data.id", "age": "-"})
    assert str(caught.value) == (
        "tasks.income.target: no column 'incme' in people.csv. Did you mean 'income'?\n"
        "data.id: no column 'agee' in people.csv. Did you mean 'age'?"
    )
    with pytest.raises(DataError, match=r"^people.csv: no column 'Age'. Did you mean 'age'\?$"):
        table.column("Age")


def test_decimal_comma_and_thousands_are_read_right():  # DAT-08
    content = 'x;price;name\n0,5;1.299,99;"a,b"\n1,25;12,50;c\n-3;7;d,1\n'
    frame = read_text(content, sep=";", decimal=",", thousands=".").frame
    assert frame["x"].to_list() == ["0.5", "1.25", "-3"]
    assert frame["price"].to_list() == ["1299.99", "12.50", "7"]
    assert frame["name"].to_list() == ["a,b", "c", "d,1"]
    assert read_text('p\n"1,234"\n5\n"12,345.5"\n', thousands=",").frame["p"].to_list() == ["1234", "5", "12345.5"]


def test_decimal_point_beside_decimal_comma_is_refused():  # DAT-08: 1.299 may be 1299
    assert error_of("p;q\n1,5;a\n1.299;b\n", sep=";", decimal=",") == (
        "x.csv, column 'p', row 2 (line 3): has a decimal point although data.decimal is ',', got '1.299'. "
        "Set data.thousands if it separates thousands, or write all numbers of the table in one way."
    )


@pytest.mark.parametrize("options", [{}, {"thousands": "."}])
def test_decimal_point_that_separates_no_thousands_is_not_said_to(options):
    assert error_of("p;q\n1,5;a\n0.92;b\n", sep=";", decimal=",", **options) == (
        "x.csv, column 'p', row 2 (line 3): has a decimal point although data.decimal is ',', got '0.92'. "
        "Write all numbers of the table in one way."
    )


@pytest.mark.parametrize("name", ["x.csv.gz", "x.TSV.gz", "x.txt"])
def test_gzip_and_other_text_suffixes_read_as_csv_does(name):
    text = "a,b\n1,é\n".replace(",", "\t" if "TSV" in name else ",").encode()
    table = read_text(gzip.compress(text) if name.endswith(".gz") else text, name)
    assert table.frame.rows() == [("1", "é")]


def test_zstandard_is_read_in_whole_and_in_pieces_or_names_its_package(monkeypatch):
    frame = pl.DataFrame({"a": [str(i) for i in range(999)], "b": ["é\n"] * 999})
    frame.write_csv("x.csv.zst", compression="zstd")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(ConfigError, match=r"^x.csv.zst: needs the package zstandard.* 'mtl-train\[zstd\]'"):
            read(path="x.csv.zst")
    pytest.importorskip("zstandard", reason="needs the extra zstd")
    assert read(path="x.csv.zst").frame.equals(frame)
    pieces = SOURCES.build("table", path="x.csv.zst").chunks(100)
    assert pl.concat([piece.frame for piece in pieces]).equals(frame)
    zipped = Path("x.csv.zst").read_bytes()
    frame.write_csv("y.csv.zst", include_header=False, compression="zstd")
    write("two.csv.zst", zipped + Path("y.csv.zst").read_bytes())  # frames may stand one after the other
    assert read(path="two.csv.zst").frame.height == 2 * 999
    for cut in (1, 4, len(zipped) // 2):
        write("y.csv.zst", zipped[:-cut])
        with pytest.raises(DataError, match=r"^y.csv.zst: cannot be unzipped \(it ends in the middle"):
            read(path="y.csv.zst")


HEADERLESS = {"header": False, "columns": ["id", "t", "x"]}


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_file_without_a_header_takes_the_names_given(start):  # DAT-04, DAT-11
    text = start + '007,"a, b",1\n8,c,2\n'
    table = read_text(text, **HEADERLESS)
    assert table.frame.rows(named=True)[0] == {"id": "007", "t": "a, b", "x": "1"}
    assert (table.frame.height, table.where("x", 1)) == (2, "x.csv, column 'x', row 2 (line 2)")
    source = SOURCES.build("table", path="x.csv", **HEADERLESS)
    pieces = list(source.chunks(1))
    assert [piece.frame["id"].item() for piece in pieces] == ["007", "8"]
    assert pieces[1].where("x", 0) == "x.csv, column 'x', row 2 (line 2)"
    write("y.csv", '9,"d\ne",3\n')
    assert read(path=["x.csv", "y.csv"], **HEADERLESS).where("t", 2) == "y.csv, column 't', row 1"


def test_lines_of_a_file_without_a_header_are_counted_from_one(monkeypatch):
    what = "x.csv, line 2: has 2 cells where data.columns has 3, got '4,5'."
    assert error_of("1,2,3\n4,5\n7,8,9\n", **HEADERLESS) == what
    assert error_of("1\t2\t3\n", **HEADERLESS) == (
        "x.csv, line 1: has 1 cell where data.columns has 3, got '1\\t2\\t3'. Set data.sep=\"\\t\"."
    )
    assert error_of('1,2,3\n"4,5,6\n', **HEADERLESS).startswith("x.csv, line 2: a cell opens with a quote")
    assert error_of(b"1,2,3\n4,5,\xe9\n", **HEADERLESS).startswith("x.csv, line 2: is not utf-8 text")
    assert error_of("", **HEADERLESS) == "x.csv: is an empty file."
    monkeypatch.setattr("mtl_cli.data.text_file._CHUNK", 7)
    for text in (b"1,2,3\n4,5,6\n7,8\n", b"1,2,3\n4,5,6\n7,8,\xe9\n"):
        with pytest.raises(DataError, match=r"x.csv, line 3: "):
            list(parse_text_blocks(io.BytesIO(text), "x.csv", ",", "utf-8", size=7, columns=["a", "b", "c"]))


@pytest.mark.parametrize("size", [3, 5, 7, 50])
def test_a_blank_line_is_no_row_less_wherever_the_text_is_cut(size):
    def read_pieces(text):
        return [
            row for frame, _ in parse_text_blocks(io.BytesIO(text), "x.csv", ",", "utf-8", size) for row in frame.rows()
        ]

    with pytest.raises(DataError, match=r"x.csv, line 3: has 1 cell where the header has 2, got ''"):
        read_pieces(b"a,b\n1,2\n\n3,4\n")
    assert read_pieces(b"a,b\n1,2\n\n\n") == [("1", "2")]
    assert read_pieces(b"a\n1\n\n\n2\n") == [("1",), ("",), ("",), ("2",)]


def test_names_of_columns_go_with_files_without_a_header():
    assert config_error(path="x", columns=["a"]) == (
        "data.columns: names the columns of files without a header. "
        "Write data.header=false if the files have no header, or leave the names out."
    )
    assert config_error(path="x", header=False) == (
        "data.columns: must be given with data.header=false, got null. Name them all."
    )
    twice = config_error(path="x", header=False, columns=["a", "a", ""])
    assert twice == "data.columns: names 'a' twice.\ndata.columns: holds an empty name."


@pytest.mark.parametrize(
    ("suffix", "writer"), [("parquet", "parquet"), ("pq", "parquet"), ("feather", "ipc"), ("jsonl", "ndjson")]
)
def test_binary_tables_keep_their_types(suffix, writer):
    frame = pl.DataFrame({"a": [1, None], "b": ["", "x"], "c": [0.5, float("nan")], "fp": [[1, 2], [3, 4]]})
    frame = frame.with_columns(k=pl.Series(["u", "v"], dtype=pl.Categorical))
    frame = frame.with_columns(pl.col("c").fill_nan(None)) if writer == "ndjson" else frame
    getattr(frame, f"write_{writer}")(f"x.{suffix}")
    table = read(path=f"x.{suffix}")
    assert table.frame.rows() == [(1, None, 0.5, [1, 2], "u"), (None, "x", None, [3, 4], "v")]
    assert table.frame.schema["k"] == pl.String
    assert table.missing == {"a": {"null": 1}, "b": {"empty": 1}, "c": {"null" if writer == "ndjson" else "NaN": 1}}
    assert table.where("a", 1) == f"x.{suffix}, column 'a', row 2"


def test_key_with_two_values_in_json_lines_is_refused(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(
        '{"a": 1, "b": "the \\"a\\": is no key"}\n{"a": 2, "b": "x", "a" : 3}\n{"\\u0061": 4, "a": 5, "b": "y"}\n'
    )
    with pytest.raises(DataError) as caught:
        SOURCES.build("table", path=str(file)).read()
    assert str(caught.value).splitlines() == [f"{file}, line {n}: has the key 'a' twice. Keep one." for n in (2, 3)]
    file.write_text('{"a": 1, "b": "\\u00e9"}\n\n{"a": 2, "b": "\\"a\\": \\"a\\":"}\n')
    assert SOURCES.build("table", path=str(file)).read().frame["a"].to_list() == [1, 2]


@pytest.mark.parametrize("name", ["x.parquet", "x.feather", "x.jsonl"])
def test_damaged_binary_file_is_an_error_without_traceback(name):
    assert error_of(b"{PAR1 no table", name).startswith(f"{name}: cannot be read as .{name[2:]} (")
    assert error_of(b"", name) == f"{name}: is an empty file."


def test_damaged_gzip_and_unknown_format_are_named():
    message = error_of(gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "x.csv.gz")
    assert message.startswith("x.csv.gz: cannot be unzipped (")
    text = ", ".join(f".{kind}{zipped}" for zipped in ("", ".gz", ".zst") for kind in ("csv", "tsv", "txt"))
    known = f"{text}, .parquet, .pq, .arrow, .feather, .jsonl, .ndjson"
    assert error_of("a", "x.xlsx") == f"x.xlsx: unknown file format '.xlsx'. Known: {known}."


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
cells = st.one_of(
    texts, st.sampled_from(["", '"', '""', ",", "\n", "\r", "\r\n", "NA", " ", "007", "1,5", "\ufeff", "'"])
)


@given(st.data(), st.integers(1, 4), st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_wrote_is_read_cell_for_cell(data, width, sep, end):
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=5))
    buffer = io.StringIO(newline="")
    # A bare CR before a bare LF cannot be told from a CR LF line end: Python < 3.13 writes it unquoted.
    all_quoted = data.draw(st.booleans()) or any("\r" in cell for row in rows for cell in row)
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, delimiter=sep, lineterminator=end, quoting=quoting)
    writer.writerows([[f"c{i}" for i in range(width)], *rows])
    table = read_text(buffer.getvalue(), sep=sep, missing=[])
    assert table.frame.rows() == [tuple(row) for row in rows]
    assert table.parts[0].lines is not any("\n" in cell for row in rows for cell in row)


@settings(max_examples=300)
@example([",", "\n", ",", ","])
@example(["\n", ",", ","])
@given(st.lists(st.sampled_from([",", "\n", "\r\n", "\r", "a", "0", " ", ";", "\x00", "\ufeff", "é"]), max_size=14))
def test_text_without_quotes_is_read_alike_with_and_without_a_scan(pieces):
    def outcome(text):
        try:
            return [column.to_list() for column in parse_text(text, "x.csv", ",", "utf-8")[0].iter_columns()]
        except DataError as error:
            return str(error)

    text = ("a,b\n" + "".join(pieces)).encode()
    found = outcome(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl_cli.data.text_file._parse_unquoted", lambda *_: None)
        assert outcome(text) == found


def test_a_long_row_does_not_make_up_for_a_short_one():
    assert error_of("a,b\n1,2\n1,2,3\n4\n5,6\n") == (
        "x.csv, line 3: has 3 cells where the header has 2, got '1,2,3'.\n"
        "x.csv, line 4: has 1 cell where the header has 2, got '4'."
    )
    assert error_of("a,b\n\n,,") == (  # a parser may take the last separator for nothing
        "x.csv, line 2: has 1 cell where the header has 2, got ''.\n"
        "x.csv, line 3: has 3 cells where the header has 2, got ',,'."
    )


def test_large_files_are_scanned_in_pieces(monkeypatch):
    monkeypatch.setattr("mtl_cli.data.text_file._CHUNK", 7)
    rows = [(f"{i}", f'a"\n,{i}') for i in range(20)]
    text = "id,t\n" + "".join(f'{i},"{t.replace(chr(34), chr(34) * 2)}"\n' for i, t in rows)
    assert read_text(text).frame.rows() == rows
    assert error_of(text + "1,2,3") == "x.csv, line 42: has 3 cells where the header has 2, got '1,2,3'."


def test_digits_have_targets_computed_from_their_images():
    table = SOURCES.build("sklearn", dataset="digits").read()
    assert table.frame.schema == pl.Schema(
        {"pixels": pl.Array(pl.Float32, 64), "digit": pl.Int64, "even": pl.Int8, "ink": pl.Float64, "width": pl.Int64}
    )
    images = table.frame["pixels"].to_numpy().reshape(-1, 8, 8)
    assert len(images) == 1797
    assert table.frame["even"].to_list() == [1 - d % 2 for d in table.frame["digit"]]
    np.testing.assert_allclose(table.frame["ink"], images.mean(axis=(1, 2)), rtol=1e-6)
    assert table.frame["width"].to_list() == [int((image.max(axis=0) >= 4).sum()) for image in images]
    assert table.where("ink", 6) == "digits, column 'ink', row 7"
    assert table.fingerprint == SOURCES.build("sklearn").read().fingerprint != ""


@pytest.mark.parametrize(
    ("dataset", "rows", "columns", "targets"),
    [
        ("iris", 150, 5, ["species"]),
        ("wine", 178, 14, ["cultivar"]),
        ("breast_cancer", 569, 31, ["diagnosis"]),
        ("diabetes", 442, 11, ["progression"]),
        ("linnerud", 20, 6, ["Weight", "Waist", "Pulse"]),
    ],
)
def test_embedded_sets_have_features_and_targets(dataset, rows, columns, targets):
    frame = SOURCES.build("sklearn", dataset=dataset).read().frame
    assert frame.shape == (rows, columns)
    assert frame.columns[-len(targets) :] == targets


def test_unknown_embedded_set_is_refused():
    with pytest.raises(ConfigError, match=r"^source.sklearn.dataset: must be one of digits, iris, .*'irs'"):
        SOURCES.build("sklearn", dataset="irs")


def test_reading_and_splitting_need_no_torch():
    code = "import sys, mtl_cli.data.sources.table, mtl_cli.data.splits as s; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0


def test_where_names_the_file_of_any_row():
    frame = pl.DataFrame({"a": list("abcde")})
    table = Table(frame, (Part("a.csv", 0, 2, True), Part("empty.csv", 2, 0, True), Part("c.pq", 2, 3, False)))
    assert [table.where("a", i) for i in (0, 1, 2, 4)] == [
        "a.csv, column 'a', row 1 (line 2)",
        "a.csv, column 'a', row 2 (line 3)",
        "c.pq, column 'a', row 1",
        "c.pq, column 'a', row 3",
    ]


def test_a_stretch_of_the_rows_knows_which_of_them_lack_a_column():
    parts = (Part("a", 0, 3, False, "a", frozenset("x")), Part("b", 3, 2, False, "b", frozenset("xy")))

    class Whole(Source):
        def read(self):
            return Table(pl.DataFrame({"x": range(5), "y": [None, None, None, 1, 2]}), parts)

    chunks = list(Whole().chunks(2))
    assert [chunk.column("y").in_source.tolist() for chunk in chunks] == [[False, False], [False, True], [True]]
    assert [chunk.source_of_rows().tolist() for chunk in chunks] == [[0, 0], [0, 1], [1]]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
def test_real_parquet_files_are_read_whole():
    adult = read(path=str(SHARED / "data/adult/adult.parquet"))
    assert adult.frame.shape == (48842, 16)
    assert adult.missing == {
        c: {"null": n} for c, n in (("workclass", 2799), ("occupation", 2809), ("native_country", 857))
    }
    assert adult.fingerprint.startswith("669ef025e868120f")
    tox21 = read(path=str(SHARED / "data/tox21/tox21.parquet"))
    assert tox21.frame.schema["fp"] == pl.Array(pl.UInt8, 1024)


def test_head_of_a_column_names_all_its_files():
    parts = tuple(Part(f"{name}.csv", i, 1, lines=True, renamed={"age": "years"}) for i, name in enumerate("abc"))
    table = Table(pl.DataFrame({"age": ["3", "4", "5"]}), parts)
    assert table.column("age").head == "a.csv to c.csv, column 'years'"
    own = replace(
        table, parts=tuple(replace(p, columns=frozenset({"age"} if p.name != "c.csv" else ())) for p in parts)
    )
    assert own.column("age").head == "a.csv to b.csv, column 'years'"
    assert replace(table, parts=parts[:1]).column("age").head == "a.csv, column 'years'"


@pytest.mark.parametrize("stored", [False, True])
def test_large_ids_are_not_rounded_to_join_files(tmp_path, monkeypatch, stored):
    monkeypatch.chdir(tmp_path)
    ids = [2**60 + 1, 2**60 + 2]
    pl.DataFrame({"user": [1.0, None]}).write_parquet("a.parquet")
    pl.DataFrame({"user": ids}).write_parquet("b.parquet")
    pl.DataFrame({"user": [7, 8]}).write_parquet("small.parquet")

    def read(*names):
        source = SOURCES.build("table", path=[*names])
        return source.stored() if stored else source.read()

    with pytest.raises(DataError) as caught:
        read("a.parquet", "small.parquet", "b.parquet")
    assert str(caught.value) == (
        f"b.parquet, column 'user': holds {ids[0]}, more digits than Float64 keeps, its type in a.parquet. "
        "Store the column in one way."
    )
    assert read("a.parquet", "small.parquet").height == 4


def test_wrong_separator_is_named_where_cells_are_quoted():
    expected = "x.csv: one column found with separator ',', got header 'a;b'. Set data.sep=\";\"."
    assert error_of('a;b\n1;"x"\n') == expected
    assert error_of('"a";"b"\n1;"x"\n').startswith("x.csv: one column found with separator ','")
    assert read_text('"a;\nb",c\n1,"x"\n').frame.columns == ["a;\nb", "c"]


def test_tilde_before_no_user_is_part_of_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~$x.csv").write_text("photo\n~$a.png\n")
    assert SOURCES.build("table", path="~$x.csv").read().frame["photo"].to_list() == ["~$a.png"]
    with pytest.raises(DataError, match=r"^~nobody_here/x.csv: no such file"):
        SOURCES.build("table", path="~nobody_here/x.csv").read()
    table = Table(pl.DataFrame({"photo": ["~$a.png"]}), (Part("p/x.csv", 0, 1, lines=True, folder="p"),))
    assert table.resolve_paths("photo").to_list() == ["p/~$a.png"]
