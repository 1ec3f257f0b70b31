"""Whatever a small file holds, a run is finished or an error is clear: no traceback, nothing half-written."""

import datetime
import decimal
import random
import shutil

import polars as pl
import pytest
from hypothesis import strategies as st

TASK = """# @package _global_
data: {source: table, path: PATH, batch_size: 8}
shared_dim: 4
encoder: {hidden: [4]}
tasks:
  income: {kind: regression}
  buys: {kind: binary}
  size: {kind: multiclass}
trainer: {max_steps: 2, max_epochs: 1, device: cpu, threads: 1}
hydra: {run: {dir: run}}
"""
PIECES = [
    b"", b",", b"\n", b"\r\n", b'"', b'""', b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc3\xa9", "\u2028".encode(), b" ",
    b"nan", b"inf", b"-inf", b"1e400", b"1e38", b"NA", b"?", b"-", b"1,5", b"0x10", b"1_0", b"true", b"2020-01-01",
    b"99999999999999999999", b"income", b"age,age", b"'", b"\t", b";", b"a" * 300,
]  # fmt: skip
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"]
VALUES = {
    "numbers": [0, 1, 2, 3],
    "reals": [0.5, float("nan"), float("inf"), -1e308],
    "logical": [True, False],
    "words": ["a", "b", "", "é"],
    "dates": [datetime.date(2020, 1, 1), datetime.date(1, 1, 1)],
    "times": [datetime.datetime(2020, 1, 1, 12), datetime.datetime(1969, 1, 1)],
    "spans": [datetime.timedelta(days=1), datetime.timedelta(0)],
    "decimals": [decimal.Decimal("1.50"), decimal.Decimal("-2.25")],
    "lists": [[1, 2], [], [3]],
    "lists of words": [["a"], ["b", "c"], []],
    "records": [{"x": 1}, {"x": 2}],
    "bytes": [b"a", b"\xff"],
    "nothing": [None],
}


def _csv():
    draw = random.Random(0)
    rows = [[draw.randint(18, 80), draw.choice("abc"), draw.randint(900, 3000)] for _ in range(40)]
    lines = [f"{a},{c},{i},{'yes' if i > 1900 else 'no'},{'SML'[a // 30]}" for a, c, i in rows]
    return ("age,city,income,buys,size\n" + "\n".join(lines) + "\n").encode()


@st.composite
def damaged_csv(draw):
    """A table in some encoding with pieces put in, in place of others, or cut off; often in the first lines."""
    data = bytearray(_csv().decode().encode(draw(st.sampled_from(ENCODINGS))) if draw(st.booleans()) else _csv())
    for _ in range(draw(st.integers(0, 4))):
        end = len(data) if draw(st.booleans()) else min(len(data), 60)
        place, gone = draw(st.integers(0, end)), draw(st.sampled_from([0, 0, 1, 3, 30]))
        data[place : place + gone] = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 7)) == 0 else data)


KINDS = ["multiclass", "ordinal", "multilabel", "tagging", "count", "quantile"]


@st.composite
def odd_frame(draw):
    """A table whose columns are of any type, with nulls."""
    rows = draw(st.sampled_from([0, 1, 2, 12, 40]))
    columns = {}
    for name in ("age", "city", "income", "buys", "size"):
        values = VALUES[draw(st.sampled_from(sorted(VALUES)))]
        nulls = draw(st.sampled_from([0, 0, 3, 2]))
        columns[name] = [None if nulls and i % nulls == 0 else values[i % len(values)] for i in range(rows)]
    return pl.DataFrame(columns)


# A good table, draws of others, and how they are written.
FILES = {
    "table.csv": (_csv(), damaged_csv(), lambda path, data: path.write_bytes(data)),
    "table.parquet": (pl.read_csv(_csv()), odd_frame(), lambda path, frame: frame.write_parquet(path)),
}


@pytest.fixture
def draw_files(outcome, fuzz, tmp_path):
    """Trains on a good file, and on so many drawn ones; all exit codes."""
    (tmp_path / "conf/task").mkdir(parents=True)

    def draw(name, examples):
        (tmp_path / "conf/task/mine.yaml").write_text(TASK.replace("PATH", name))
        good, strategy, write = FILES[name]

        def run(drawn):
            content, kind = drawn
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            write(tmp_path / name, content)
            return outcome("--config-dir", "conf", "task=mine", f"tasks.size.kind={kind}")

        code, _ = run((good, "multiclass"))
        return {code} | fuzz(st.tuples(strategy, st.sampled_from(KINDS)), examples, run)

    return draw


@pytest.mark.parametrize("name", FILES)
def test_no_file_gives_a_traceback(draw_files, name):
    assert draw_files(name, 21) >= {0, 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_no_file_of_thousands_gives_a_traceback(draw_files, name):
    assert draw_files(name, 1000) >= {0, 2}
