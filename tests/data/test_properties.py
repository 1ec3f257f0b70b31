"""Random tables, written and read back: a cell is what it was, or an error names its file, column and row."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_cli.data import FeatureOptions, Features
from mtl_cli.errors import DataError
from mtl_cli.registry import SOURCES

quick = settings(max_examples=40)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=5).filter(str.strip)
odd = st.sampled_from([
    "NA", "nan", "None", "null", "inf", "-0", "1e400", "1,5", "1.299,99", "007", "+1", " 2 ", "1_000", "٣", "½", "é",
    "\ufeff", '"', "a\nb", "true", "2024-01-01", "12345678901234567890", "0x10", "00.5", "0e5", "-00",
])  # fmt: skip
short = st.text(st.characters(codec="cp1252", exclude_characters="\0\r"), max_size=4)
texts = st.one_of(odd, st.integers().map(str), st.floats(allow_nan=False).map(repr), short)
MARKERS = ["", "?", "NA"]


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@st.composite
def tables(draw, cells):
    """Column names, and rows of cells."""
    columns = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), min_size=1, max_size=6))
    return columns, rows


@quick
@given(
    tables(texts), st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"]), st.booleans(),
)  # fmt: skip
def test_text_tables_come_back_cell_for_cell_in_any_encoding(table, sep, encoding, header):
    columns, rows = table
    if not header:
        columns = [f"c{i}" for i in range(len(columns))]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=sep, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([columns, *rows] if header else rows)
    content = buffer.getvalue().encode(encoding, "replace")
    expected = [[cell.encode(encoding, "replace").decode(encoding) for cell in row] for row in rows]
    Path("x.csv").write_bytes(content)
    options = {"path": "x.csv", "sep": sep, "encoding": encoding, "missing": MARKERS}
    options |= {} if header else {"header": False, "columns": columns}
    names_read = columns if not header else [name.encode(encoding, "replace").decode(encoding) for name in columns]
    if len(set(names_read)) < len(names_read):  # the encoding lacks characters that told them apart
        with pytest.raises(DataError, match=r"^x\.csv: the header has column "):
            SOURCES.build("table", **options).read()
        return
    found = SOURCES.build("table", **options).read()
    assert found.frame.rows() == [tuple(None if cell in MARKERS else cell for cell in row) for row in expected]
    missing = {name: sum(row[i] in MARKERS for row in expected) for i, name in enumerate(found.frame.columns)}
    assert {name: sum(counts.values()) for name, counts in found.missing.items()} == {
        n: m for n, m in missing.items() if m
    }
    pieces = pl.concat([part.frame for part in SOURCES.build("table", **options).chunks(2)])
    assert pieces.equals(found.frame)


numbers = st.one_of(
    st.none(), st.floats(width=64, allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30)
)
typed = st.one_of(
    st.tuples(st.just(pl.Float64), st.lists(numbers, min_size=5, max_size=5)),
    st.tuples(st.just(pl.Int64), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5)),
    st.tuples(st.just(pl.Boolean), st.lists(st.none() | st.booleans(), min_size=5, max_size=5)),
    st.tuples(st.just(pl.String), st.lists(st.none() | texts, min_size=5, max_size=5)),
    st.tuples(
        st.just(pl.List(pl.Float64)),
        st.lists(st.none() | st.lists(st.floats(-9, 9), max_size=2), min_size=5, max_size=5),
    ),
)


@quick
@given(st.lists(typed, min_size=1, max_size=4), st.sampled_from(["parquet", "feather", "jsonl"]))
def test_typed_tables_come_back_value_for_value(columns, suffix):
    frame = pl.DataFrame([pl.Series(f"c{i}", values, dtype) for i, (dtype, values) in enumerate(columns)])
    getattr(frame, {"parquet": "write_parquet", "feather": "write_ipc", "jsonl": "write_ndjson"}[suffix])(f"x.{suffix}")
    found = SOURCES.build("table", path=f"x.{suffix}", missing=["NA"]).read()
    expected = frame.with_columns(pl.when(pl.col(pl.String) != "NA").then(pl.col(pl.String)).name.keep())
    for name in frame.columns:
        assert found.frame[name].to_list() == expected[name].to_list()
    assert found.frame.height == 5


PLACE = re.compile(
    r"^(x\.csv, column '.*', row \d+ \(line \d+\): |x\.csv, column '.*': |data\.inputs: no column)", re.DOTALL
)


@quick
@given(tables(st.one_of(texts.filter(lambda t: "\n" not in t), st.integers(-99, 99).map(str))))
def test_cells_become_the_numbers_that_they_are_or_are_refused_with_their_place(table):
    _, rows = table
    columns = [f"c{i}" for i in range(len(rows[0]))]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    frame.write_csv("x.csv", quote_style="always")
    found = SOURCES.build("table", path="x.csv", missing=[""]).read()
    try:
        features = Features.fit(found, FeatureOptions(scale="none", bins=0), np.arange(len(rows)), {})
        inputs, _ = features.transform(found)
    except DataError as error:
        for problem in error.problems:
            assert PLACE.match(str(problem)), problem
        return
    saved = Features.from_json(json.loads(json.dumps(features.to_json())))
    again, _ = saved.transform(found)
    assert again.numeric.equal(inputs.numeric)
    assert again.categorical.equal(inputs.categorical)
    for place, column in enumerate(features.numeric):
        for row, cell in enumerate(frame[column.name].to_list()):
            expected = 0.0 if cell == "" else float(cell)
            assert inputs.numeric[row, place].item() == np.float32(expected), (column.name, row, cell)
    for place, column in enumerate(features.categorical):
        texts_of_codes = ["?", *column.values, *([""] if column.missing else [])]
        assert [texts_of_codes[code] for code in inputs.categorical[:, place]] == frame[column.name].to_list()
