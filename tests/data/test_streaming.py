"""Rows that stay in their Parquet files: the same decisions and the same inputs as of rows in memory."""

import datetime
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from worlds import CPU, make_labels, make_rows

from mtl_cli.data import FeatureOptions, Features
from mtl_cli.data.batches import plan_epoch
from mtl_cli.data.memory import free_memory
from mtl_cli.data.mixing import Mixing
from mtl_cli.data.sources._parquet import row_groups
from mtl_cli.data.streaming import Stream, StreamedRows, input_bytes, open_stream
from mtl_cli.errors import DataError
from mtl_cli.registry import SOURCES
from mtl_cli.schema import ImageOptions, TextOptions
from mtl_cli.types import Ragged

ROWS = 61
TARGETS = {"y": "target of task 'y'"}


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _frame(rows=ROWS, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=rows)
    holed = [None if i % 7 == 3 else float(v) for i, v in enumerate(x)]
    lists = [None if i % 11 == 5 else [float(v), i / 3, 1.0] for i, v in enumerate(x)]
    pixels = draw.integers(0, 255, (rows, 2, 3), dtype=np.uint8)
    return pl.DataFrame(
        {
            "y": x * 2,
            "number": holed,
            "nan": [float("nan") if i % 5 == 1 else v for i, v in enumerate(x)],
            "whole": draw.integers(-50, 50, rows),
            "flag": x > 0,
            "typed": [f"{v:.3f}" for v in x],
            "code": [f"{i % 9:03}" for i in range(rows)],
            "city": ["" if i % 13 == 0 else "abcd"[i % 4] for i in range(rows)],
            "rare": ["x" if i else "once" for i in range(rows)],
            "day": [datetime.date(2024, 1, 1) + datetime.timedelta(days=i % 40) for i in range(rows)],
            "list": lists,
            "words": [["one", "two", "three"][: i % 4] for i in range(rows)],
            "review": [f"word{i % 5} and {i}" for i in range(rows)],
            "constant": [3.0] * rows,
            "photo": pl.Series(pixels, dtype=pl.Array(pl.UInt8, (2, 3))),
        }
    )


def _source(group=7, files=("a.parquet",), **options):
    """A table source over files that hold the rows between them."""
    frame = _frame()
    cuts = np.linspace(0, frame.height, len(files) + 1).astype(int)
    for name, start, stop in zip(files, cuts, cuts[1:], strict=False):
        frame[start:stop].write_parquet(name, row_group_size=group)
    return SOURCES.build("table", path=list(files), **options)


def _options(**options):
    text = TextOptions(min_count=2, by="city")
    return FeatureOptions(inputs=["*", {"name": "review", "type": "text"}], text=text, **options)


def _parts(inputs):
    """All tensors of inputs, by name."""
    found = {"numeric": inputs.numeric, "categorical": inputs.categorical}
    for name, block in inputs.blocks.items():
        found |= {f"{name}.{i}": t for i, t in enumerate(block if isinstance(block, Ragged) else (block,))}
    return found


def _assert_equal(one, other):
    one, other = _parts(one), _parts(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize(
    ("files", "scale"), [(("a.parquet",), "standard"), (("a.parquet", "b.parquet", "c.parquet"), "none")]
)
def test_what_is_decided_is_what_is_decided_in_memory(files, scale, monkeypatch):
    monkeypatch.setattr("mtl_cli.data.stored._PIECE_ROWS", 8)  # several stretches
    source, train = _source(files=files), np.arange(2, ROWS, 2)
    whole, stored = source.read(), source.stored()
    assert (stored.height, list(stored.schema)) == (ROWS, whole.frame.columns)
    assert stored.fingerprint == whole.fingerprint
    ours, theirs = (Features.fit(t, _options(scale=scale), train, TARGETS) for t in (stored, whole))
    mine, other = ours.to_json(), theirs.to_json()
    for a, b in zip([*mine["numeric"], *mine["blocks"]], [*other["numeric"], *other["blocks"]], strict=True):
        for key in ("scaler", "mean", "std"):  # of lists and images sums are made in parts
            one, two = a.pop(key, None), b.pop(key, None)
            assert (one is None) == (two is None)
            if isinstance(one, dict):
                assert all(np.allclose(one[k], two[k], rtol=1e-12, atol=0) for k in two)
            elif one is not None:
                assert np.allclose(one, two, rtol=1e-12, atol=0)
    assert mine == other
    numbers = {column.name for column in theirs.numeric}
    assert numbers == {"number", "nan", "whole", "flag", "typed", "day", "list", "constant"}


def test_missing_are_the_cells_that_are_so_in_memory(monkeypatch):
    monkeypatch.setattr("mtl_cli.data.stored._PIECE_ROWS", 8)
    source = _source(
        files=("a.parquet", "b.parquet"), missing=["", "a", "3", f"{_frame()['whole'][2]}.0", "2024-01-02"]
    )
    whole, stored = source.read(), source.stored()
    found = {name: dict(stored.facts(name).markers) for name in stored.schema}
    assert {name: markers for name, markers in found.items() if markers} == whole.missing
    assert {"whole", "city", "day", "constant"} <= whole.missing.keys()
    for name in stored.schema:
        assert stored.values(name).equals(whole.values(name))


def test_scalars_have_the_very_statistics_of_rows_in_memory():
    source, train = _source(), np.arange(1, ROWS, 3)
    options = FeatureOptions(exclude=["list", "photo", "review"], scale="quantile", bins=5)
    ours, theirs = (Features.fit(t, options, train, TARGETS) for t in (source.stored(), source.read()))
    assert ours.to_json() == theirs.to_json()


def test_quantiles_of_lists_are_refused(monkeypatch):
    monkeypatch.setattr("mtl_cli.data.stored._PIECE_ROWS", 8)
    with pytest.raises(DataError, match=r"'quantile' needs all rows of a column of lists at once.*'list'"):
        Features.fit(_source().stored(), _options(scale="quantile"), np.arange(ROWS), TARGETS)


def _world(split, *, group=7, buffer=16, files=("a.parquet",)):
    """Rows of a split that stay in their files, and the same in memory."""
    source = _source(group, files)
    whole, stored = source.read(), source.stored()
    features = Features.fit(whole, _options(), np.arange(ROWS), TARGETS)
    inputs, notes = features.transform(whole)
    stream, found, bad = open_stream(stored, features, buffer, {"held": np.array([0, 9, 60])}, skip=False)
    assert sorted(found) == sorted(notes) or len(files) > 1  # else each file has a note of its own
    assert bad == []
    _assert_equal(stream.held["held"], inputs.rows(torch.tensor([0, 9, 60])))
    targets = np.arange(len(split), dtype=np.float32).reshape(-1, 1)
    targets[::5] = np.nan
    in_memory = make_rows(inputs.rows(torch.from_numpy(split)), targets)
    return StreamedRows(stream, split, make_labels(targets), CPU), in_memory


def _plan(rows, epoch=0, batch_size=5, *, shuffle=True, seed=3, **options):
    return plan_epoch(rows, epoch, batch_size=batch_size, weights=np.ones(1), seed=seed, shuffle=shuffle, **options)


SPLIT = np.array([i for i in range(ROWS) if i % 6])


@pytest.mark.parametrize(
    ("group", "buffer", "files", "shuffle"),
    [
        (7, 16, ["a.parquet"], True),  # several row groups in a window
        (7, 16, ["a.parquet", "b.parquet"], False),
        (61, 3, ["a.parquet"], True),  # parts of a row group
        (2, 100, ["a.parquet"], True),  # one window
        (7, 1, ["a.parquet", "b.parquet"], True),  # windows smaller than a batch
    ],
)
def test_batches_hold_the_rows_of_the_plan(group, buffer, files, shuffle):
    streamed, whole = _world(SPLIT, group=group, buffer=buffer, files=files)
    for number in range(2):
        epoch = _plan(streamed, number, shuffle=shuffle)
        assert sorted(epoch.order.tolist()) == list(range(len(SPLIT)))
        assert (epoch.order.tolist() == list(range(len(SPLIT)))) == (not shuffle)
        for step, (start, stop) in enumerate(epoch.bounds):
            streamed.reach(epoch, step)
            for part in (epoch.order[start:stop], epoch.order[start : start + 2]):
                (inputs, labels), (expected, same) = streamed.gather(part), whole.gather(part)
                _assert_equal(inputs, expected)
                assert torch.equal(labels.targets.nan_to_num(-1), same.targets.nan_to_num(-1))
    streamed.let_go()


def test_epochs_of_a_number_of_rows_go_on_where_the_one_before_has_stopped():
    streamed, whole = _world(SPLIT)
    mixing, seen = Mixing(epoch=17), []
    for number in range(6):  # two rounds: a batch may hold the end of one and the beginning of the next
        epoch = _plan(streamed, number, mixing=mixing)
        seen += epoch.order.tolist()
        for step, (start, stop) in enumerate(epoch.bounds):
            streamed.reach(epoch, step)
            rows = epoch.order[start:stop]
            _assert_equal(streamed.gather(rows)[0], whole.gather(rows)[0])
    assert sorted(seen[: len(SPLIT)]) == sorted(seen[len(SPLIT) : 2 * len(SPLIT)]) == list(range(len(SPLIT)))
    streamed.let_go()


def test_the_order_is_of_seed_and_epoch_and_mixes_row_groups():
    rows, again = _world(SPLIT)[0], _world(SPLIT)[0]
    orders = [_plan(rows, epoch, seed=seed).order.tolist() for epoch, seed in [(0, 3), (1, 3), (0, 4)]]
    assert orders == [_plan(again, epoch, seed=seed).order.tolist() for epoch, seed in [(0, 3), (1, 3), (0, 4)]]
    assert len({tuple(order) for order in orders}) == 3
    groups = [{int(SPLIT[row]) // 7 for row in orders[0][start : start + 6]} for start in (0, 6, 12)]
    assert all(len(found) > 1 for found in groups)


def test_going_on_in_the_middle_reads_the_window_that_it_is_in_and_none_before(monkeypatch):
    rows = _world(SPLIT)[0]
    epoch = _plan(rows)
    read = []
    load = StreamedRows.load
    monkeypatch.setattr(StreamedRows, "load", lambda self, chunk: (read.append(chunk), load(self, chunk))[1])
    step = len(epoch.bounds) - 2
    rows.reach(epoch, step)
    rows.gather(epoch.order[slice(*epoch.bounds[step])])
    rows.let_go()
    place = next(i for i, window in enumerate(epoch.windows) if window.stop > epoch.bounds[step][0])
    assert place > 0
    late = [chunk for window in epoch.windows[place:] for chunk in window.chunks]
    assert set(read[: len(epoch.windows[place].chunks)]) == set(epoch.windows[place].chunks)
    assert set(read) <= set(late)


def test_the_next_window_is_read_while_this_one_is_trained_on():
    rows = _world(SPLIT)[0]
    epoch = _plan(rows)
    rows.reach(epoch, 0)
    expected = rows._reader._expected
    assert list(expected) == [window.chunks for window in epoch.windows[:2]]
    expected[epoch.windows[1].chunks].result(timeout=20)  # comes without being asked for
    rows.let_go()
    assert rows._reader._expected == {}


def test_rows_that_were_not_read_are_never_given():
    rows = _world(SPLIT)[0]
    epoch = _plan(rows)
    rows.reach(epoch, 0)
    with pytest.raises(IndexError):
        rows.gather(epoch.order[-3:])
    rows.let_go()


@pytest.mark.parametrize("size", [4, 50, 1000])
def test_all_rows_in_order(size):
    streamed, whole = _world(SPLIT)
    ours, theirs = list(streamed.in_order(size)), list(whole.in_order(size))
    assert len(ours) == len(theirs)
    for (inputs, labels), (expected, same) in zip(ours, theirs, strict=True):
        _assert_equal(inputs, expected)
        assert torch.equal(labels.targets.nan_to_num(-1), same.targets.nan_to_num(-1))
    (ours, _), (theirs, _) = (rows.labels_in_order(size) for rows in (streamed, whole))
    assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1))


def test_a_file_that_changes_meanwhile_is_an_error():
    rows = _world(SPLIT)[0]
    epoch = _plan(rows)
    rows.reach(epoch, 0)
    rows.let_go()
    os.utime("a.parquet", (1, 1))
    with pytest.raises(DataError, match=r"a\.parquet: was changed while it was being read"):
        rows.reach(epoch, len(epoch.bounds) - 1)


def test_a_cell_that_does_not_fit_is_found_before_training():
    frame = _frame().with_columns(whole=pl.when(pl.col("y") > pl.col("y").quantile(0.9)).then(1e300).otherwise(1.0))
    frame.write_parquet("a.parquet", row_group_size=7)
    features = Features.fit(_source_of("b.parquet", _frame()).read(), _options(), np.arange(ROWS), TARGETS)
    row = int(np.flatnonzero(frame["whole"] > 2)[0])
    with pytest.raises(DataError, match=f"a.parquet, column 'whole', row {row + 1}: must be finite"):
        open_stream(SOURCES.build("table", path="a.parquet").stored(), features, 8, {}, skip=False)


def _source_of(name, frame):
    frame.write_parquet(name)
    return SOURCES.build("table", path=name)


def test_validation_rows_that_do_not_fit_are_not_held(monkeypatch):
    source = _source()
    features = Features.fit(source.read(), _options(), np.arange(ROWS), TARGETS)
    for free, held in ((10**9, {"val"}), (100, set()), (0, set()), (None, {"val"})):
        monkeypatch.setattr("mtl_cli.data.streaming.free_memory", lambda free=free: free)
        stream, _, _ = open_stream(source.stored(), features, 16, {"val": np.arange(30)}, skip=False)
        assert set(stream.held) == held


@pytest.mark.parametrize("group", [1, 5, 20, 1000])
def test_row_groups_are_those_that_were_written(group):
    frame = pl.concat([_frame(seed=seed) for seed in range(2)])
    frame.write_parquet("x.parquet", row_group_size=group, statistics=True)
    whole, rest = divmod(frame.height, group)
    assert row_groups(Path("x.parquet")) == [group] * whole + [rest] * (rest > 0)


@pytest.mark.parametrize("damage", ["", "short", "cut", "other"])
def test_a_damaged_file_is_named(damage):
    _frame().write_parquet("x.parquet")
    raw = Path("x.parquet").read_bytes()
    Path("x.parquet").write_bytes({"": b"", "short": raw[:7], "cut": raw[:-20], "other": b"y" * 200}[damage])
    with pytest.raises(DataError, match=r"x\.parquet"):
        SOURCES.build("table", path="x.parquet").stored()


def test_files_that_do_not_go_together_are_named():
    _frame().write_parquet("a.parquet")
    _frame().drop("city").write_parquet("b.parquet")
    _frame().head(0).write_parquet("c.parquet")
    with pytest.raises(DataError) as caught:
        SOURCES.build("table", path=["a.parquet", "b.parquet", "c.parquet", "d.parquet"]).stored()
    assert "d.parquet: no such file" in str(caught.value)
    with pytest.raises(DataError) as caught:
        SOURCES.build("table", path=["a.parquet", "b.parquet", "c.parquet"]).stored()
    assert "b.parquet: must have the columns of a.parquet, but lacks 'city'" in str(caught.value)


def test_empty_files_among_others_are_read_as_in_memory():
    frame = _frame()
    untyped = pl.DataFrame({name: [] for name in frame.columns})  # as other tools store no rows
    for name, part in {"a": frame.head(0), "b": frame[:30], "c": untyped, "d": frame[30:]}.items():
        part.write_parquet(f"{name}.parquet")
    files = [f"{name}.parquet" for name in "abcd"]
    source, train = SOURCES.build("table", path=files), np.arange(0, ROWS, 2)
    whole, stored = source.read(), source.stored()
    assert (stored.height, stored.fingerprint) == (ROWS, whole.fingerprint)
    assert stored.bytes_per_row() > 100
    ours, theirs = (Features.fit(table, _options(), train, TARGETS).to_json() for table in (stored, whole))
    assert ours["categorical"] == theirs["categorical"]
    for name in ("whole", "city", "words"):
        assert stored.values(name).equals(whole.frame[name])
    assert [stored.where("city", row) for row in (0, 30)] == [whole.where("city", row) for row in (0, 30)]
    for split in ({"train": files, "val": "d.parquet"}, {"train": "b.parquet", "val": ["a.parquet", "d.parquet"]}):
        of_splits = SOURCES.build("table", **split)
        assert of_splits.stored().given_split.equals(of_splits.read().given_split)


@pytest.mark.parametrize("read", ["read", "stored"])
def test_a_split_whose_files_are_all_empty_is_refused(read):
    _frame().write_parquet("a.parquet")
    _frame().head(0).write_parquet("b.parquet")
    source = SOURCES.build("table", train=["a.parquet", "b.parquet"], val="b.parquet")
    with pytest.raises(DataError, match=r"^b\.parquet: holds no rows\. Leave data\.val out, or give it rows\.$"):
        getattr(source, read)()


def test_large_row_groups_are_cut_and_small_ones_put_together():
    _frame().write_parquet("a.parquet", row_group_size=10)
    table = SOURCES.build("table", path="a.parquet").stored()
    cut = [stretch.rows for stretch in table.stretches(1, 4)]
    assert sum(cut) == ROWS
    assert max(cut) <= 4
    assert [stretch.rows for stretch in table.stretches(25)] == [20, 20, 21]
    for stretch in table.stretches(1, 4):
        expected = _frame()["y"][stretch.first : stretch.first + stretch.rows]
        assert table.read(stretch, ["y"]).frame["y"].to_list() == expected.to_list()
    assert table.read(table.stretches(1)[2]).where("y", 3) == "a.parquet, column 'y', row 24"


def _machine(root, files):
    for name, text in {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return free_memory(root)


def test_free_memory_is_what_the_tightest_limit_leaves(tmp_path):
    assert _machine(tmp_path / "0", {}) == 8000 * 1024
    two = {
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
        "sys/fs/cgroup/pod/box/memory.current": "10\n",
        "sys/fs/cgroup/pod/memory.max": "5000\n",
        "sys/fs/cgroup/pod/memory.current": "3000\n",
        "sys/fs/cgroup/pod/memory.stat": "anon 100\ninactive_file 700\n",
    }
    assert _machine(tmp_path / "2", two) == 2700
    one = {
        "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu:/\n",  # the path is the host's
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "6000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 50\n",
    }
    assert _machine(tmp_path / "1", one) == 5050


def test_stream_reads_some_rows_of_a_stretch():
    source = _source()
    features = Features.fit(source.read(), _options(), np.arange(ROWS), TARGETS)
    stream = Stream(source.stored(), features, 16, {})
    stretch = stream.stretches()[1]
    some = features.transform(source.read())[0].rows(torch.tensor([stretch.first + 1, stretch.first + 4]))
    _assert_equal(stream.read(stretch, np.array([1, 4])), some)


def _photos(on_bad):
    """Twelve image files, listed in a Parquet file; and what reads them."""
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for i in range(12):
        Image.fromarray(np.full((2, 2), 20 * i + 9, np.uint8)).save(f"{i}.png")
    source = _source_of("a.parquet", pl.DataFrame({"photo": [f"{i}.png" for i in range(12)]}))
    options = FeatureOptions(inputs=[{"name": "photo", "type": "image"}], image=ImageOptions(on_bad=on_bad))
    return source.stored(), Features.fit(source.read(), options, np.arange(12), {})


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize("change", ["gone", "damaged", "larger"])
def test_an_image_that_changes_meanwhile_is_an_error(on_bad, change):
    table, features = _photos(on_bad)
    if on_bad == "skip":
        Path("4.png").unlink()
    stream, _, bad = open_stream(table, features, 4, {}, skip=on_bad == "skip")
    assert bad == ([4] if on_bad == "skip" else [])
    split = np.array([1, 4, 7, 10])
    rows = StreamedRows(stream, split, make_labels(np.zeros((4, 1), np.float32)), CPU)
    (inputs, _), *_ = rows.in_order(4)
    expected = [29, 0 if bad else 89, 149, 209]
    assert inputs.blocks["photo"][:, 0, 0, 0].tolist() == expected
    if change == "gone":
        Path("7.png").unlink()
    elif change == "damaged":
        Path("7.png").write_bytes(Path("7.png").read_bytes()[:40])
    else:
        pytest.importorskip("PIL.Image").new("L", (3, 3)).save("7.png")
    with pytest.raises(DataError) as told:
        list(rows.in_order(4))
    (problem,) = told.value.problems
    assert problem.where == "a.parquet, column 'photo', row 8"
    assert "'7.png'" in problem.what
    assert problem.hint == "It was otherwise at the start. Put it back as it was, and go on with resume."


def _bytes(inputs):
    return sum(tensor.nbytes for tensor in _parts(inputs).values())


def test_what_inputs_take_is_known_from_the_first_rows():
    source = _source()
    options = replace(_options(), inputs=["*", {"name": "review", "type": "text"}], exclude=["y"])
    features = Features.fit(source.read(), options, np.arange(ROWS), {})
    actual = _bytes(features.transform(source.read())[0]) / ROWS
    assert input_bytes(source.stored(), options) == pytest.approx(actual, rel=0.15)
    flags = _source_of("b.parquet", pl.DataFrame({f"x{i}": [True, False] for i in range(100)})).stored()
    assert input_bytes(flags, FeatureOptions()) == 400
    assert input_bytes(flags, FeatureOptions(inputs=["nowhere"])) == 0  # an error that is told when rows are read
    assert input_bytes(_source_of("c.parquet", _frame().head(0)).stored(), options) == 0


def test_image_files_count_with_their_pixels():
    table, _ = _photos("error")
    options = FeatureOptions(inputs=[{"name": "photo", "type": "image"}])
    assert input_bytes(table, options) == 4
    Path("0.png").unlink()  # told when all are read
    assert input_bytes(table, options) == 4
    large = replace(options, image=ImageOptions(size=[20, 30], channels=3))
    assert input_bytes(table, large) == 20 * 30 * 3
    for name in range(12):
        Path(f"{name}.png").unlink(missing_ok=True)
    assert input_bytes(table, options) == 0


def test_rows_that_are_large_are_shuffled_by_the_bytes_that_they_take(monkeypatch):
    table, features = _photos("error")
    assert open_stream(table, features, "auto", {}, skip=False)[0].buffer == 65_536
    monkeypatch.setattr("mtl_cli.data.streaming._WINDOW_BYTES", 4 * 5)
    assert open_stream(table, features, "auto", {}, skip=False)[0].buffer == 5
    assert open_stream(table, features, 7, {}, skip=False)[0].buffer == 7
