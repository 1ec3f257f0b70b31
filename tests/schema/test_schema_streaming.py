"""Data that cannot stay in their files: the way out that is named works."""

import gzip

import polars as pl
import pytest

from mtl_cli.registry import SOURCES
from mtl_cli.schema import Component, SplitOptions, why_whole
from mtl_cli.schema.config import SourceConfig


def _do_what_is_said(options):
    source = SourceConfig(Component("table", options), SplitOptions())
    _, hint = why_whole({"": source}, {}, "mlp")
    eval(hint.removeprefix("Write it as Parquet once: ").removesuffix("."), {"polars": pl})


@pytest.mark.parametrize(
    ("file", "made", "options", "text"),
    [
        ("sales.2023.csv", "sales.2023", {}, "age,town\n1,Köln\n"),
        ("sales.2024.CSV.gz", "sales.2024", {}, "age,town\n1,Köln\n"),
        ("o'neil.tsv", "o'neil", {}, "age\ttown\n1\tKöln\n"),
        ("a.txt", "a", {"sep": "tab"}, "age\ttown\n1\tKöln\n"),
        ("b.csv", "b", {"sep": ";", "encoding": "latin-1"}, "age;town\n1;Köln\n"),
        ("c.csv", "c", {"header": False, "columns": ["age", "town"]}, "1,Köln\n"),
    ],
)
def test_hint_writes_what_the_file_holds_as_parquet(tmp_path, monkeypatch, file, made, options, text):
    monkeypatch.chdir(tmp_path)
    data = text.encode(options.get("encoding", "utf-8"))
    if file.endswith(".gz"):
        data = gzip.compress(data)
    (tmp_path / file).write_bytes(data)
    _do_what_is_said({"path": file, **options})
    wanted = SOURCES.build("table", path=file, **options).read().frame
    assert pl.read_parquet(tmp_path / f"{made}.parquet").equals(wanted)


def test_lines_of_json_become_parquet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.v2.jsonl").write_text('{"age": 1}\n')
    _do_what_is_said({"path": "a.v2.jsonl"})
    assert pl.read_parquet(tmp_path / "a.v2.parquet")["age"].to_list() == [1]
