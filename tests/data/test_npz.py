"""NumPy archives: arrays to columns, and everything that other tools write into them."""

import numpy as np
import pytest

from mtl_cli.data import FeatureOptions, Features, SplitOptions, split_rows
from mtl_cli.errors import ConfigError, DataError
from mtl_cli.registry import SOURCES

X = np.arange(8 * 4, dtype=np.float32).reshape(8, 4)
YA, YB = np.linspace(0, 1, 8), np.arange(8) % 3


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Writes an archive in the working folder and reads it as a source."""
    monkeypatch.chdir(tmp_path)

    def write(content, archive="m.npz", **options):
        np.savez(archive, **content)
        return SOURCES.build("npz", **(options or {"path": archive})).read()

    return write


def test_arrays_become_columns(save):
    letters = np.array(list("abcdefgh"))
    table = save(
        {"X": X, "ya": YA, "yb": YB, "name": letters, "old": letters.astype("S1"), "x": np.zeros((8, 5, 6, 3))}
    )
    assert table.frame.columns == ["X", "ya", "yb", "name", "old", "x"]
    assert np.array_equal(table.frame["X"].to_numpy(), X)
    assert table.frame["ya"].to_numpy().tolist() == YA.tolist()
    assert table.frame["name"].to_list() == list("abcdefgh")
    assert table.frame["old"].to_list() == list("abcdefgh")
    assert table.frame["x"].dtype.shape == (5, 6, 3)


def test_nan_is_a_missing_label(save):
    table = save({"y": np.array([1.0, np.nan])})
    assert table.frame["y"].to_list() == [1.0, None]
    assert table.missing == {"y": {"NaN": 1}}


def test_objects_are_named_and_never_unpickled(save):  # DAT-16
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    with pytest.raises(DataError, match=r"m.npz, array 'X': holds Python objects, which are not read"):
        save({"X": np.array([Bomb()] * 8, dtype=object), "ya": YA})


def test_arrays_of_unequal_length_are_named_with_their_lengths(save):  # DAT-16
    with pytest.raises(DataError, match=r"m.npz: the arrays differ in length: 'X' 8, 'ya' 7"):
        save({"X": X, "ya": YA[:7]})
    assert save({"X": X, "ya": YA[:7]}, path="m.npz", arrays=["X"]).frame.columns == ["X"]


def test_float64_is_read_as_float32_is(save):  # DAT-16
    inputs = []
    for dtype in (np.float64, np.float32):
        table = save({"X": X.astype(dtype), "image": (X.reshape(8, 2, 2) / 7).astype(dtype)})
        features = Features.fit(table, FeatureOptions(), np.arange(8), {})
        inputs.append(features.transform(table)[0])
    assert inputs[0].numeric.equal(inputs[1].numeric)
    assert inputs[0].blocks["image"].equal(inputs[1].blocks["image"])


def test_absent_file_names_the_path_tried(save, tmp_path):  # DAT-16
    np.savez("m1.npz", X=X)
    with pytest.raises(DataError, match=rf"m1: no such file, looked for {tmp_path}/m1\."):
        SOURCES.build("npz", path="m1").read()


def test_absent_array_lists_those_there_are(save):  # DAT-16
    with pytest.raises(DataError, match=r"data.arrays: there is no array 'YA' in m.npz. Did you mean 'ya'\?"):
        save({"X": X, "ya": YA}, path="m.npz", arrays=["YA"])
    table = save({"X": X, "ya": YA})
    with pytest.raises(DataError, match=r"tasks.b.target: no column 'yb' in m.npz. Known: X, ya"):
        table.require(["yb"], {"yb": "tasks.b.target"})


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 2), complex), np.float64(3), np.zeros((2, 2, 2, 2, 2)), np.array([["a"]])]
)
def test_what_no_column_can_hold_is_refused(save, bad):
    with pytest.raises(DataError, match=r"m.npz, array 'z': must hold numbers or text with one entry for each row"):
        save({"z": bad})


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "25s", "ms", "us", "ns"])
def test_dates_of_any_unit_are_dates(save, unit):
    dates = np.array(["2023-07-04", "2024-01-01", "NaT"], dtype=f"datetime64[{unit}]")
    found = save({"when": dates}).frame["when"]
    assert found.dtype.is_temporal()
    assert np.array_equal(found.to_numpy().astype("datetime64[ns]"), dates.astype("datetime64[ns]"), equal_nan=True)


def test_dates_finer_than_a_column_holds_are_refused(save):
    with pytest.raises(DataError, match=r"m.npz, array 'when': .* of datetime64\[ps\]"):
        save({"when": np.array(["2024-01-01"], dtype="datetime64[ps]")})


def test_bytes_that_are_no_text_are_named(save):
    with pytest.raises(DataError, match=r"m.npz, array 'old': must hold UTF-8 text, got byte 0xff\. Save it as text"):
        save({"old": np.array([b"a", b"\xff"])})


def test_long_numbers_are_numbers(save):
    assert save({"x": np.array([0.5, 2], np.longdouble)}).frame["x"].to_list() == [0.5, 2.0]


def test_damaged_archive_is_named(save, tmp_path):
    save({"X": X})
    whole = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("x,y\n")
    np.save("one.npy", X)
    for name in ("half.npz", "text.npz"):
        with pytest.raises(DataError, match=rf"{name}: cannot be read as .npz"):
            SOURCES.build("npz", path=name).read()
    with pytest.raises(DataError, match=r"one.npy: is one array without a name"):
        SOURCES.build("npz", path="one.npy").read()


def test_names_may_say_the_split(save):
    arrays = {
        f"{column}_{split}": np.full(n, n) for column in "xy" for split, n in (("train", 3), ("valid", 2), ("test", 1))
    }
    table = save(arrays, path="m.npz", split_names=True)
    assert table.frame["x"].to_list() == [3, 3, 3, 2, 2, 1]
    splits = split_rows(table, SplitOptions())
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == ([0, 1, 2], [3, 4], [5])
    with pytest.raises(DataError, match=r"do not end in a split: z. Name them"):
        save({**arrays, "z": YA}, path="m.npz", split_names=True)


def test_two_spellings_of_a_split_for_one_column_are_refused(save):
    arrays = {"x_train": YA, "x_val": YA[:1], "x_valid": YA[1:2], "y_train": YA, "y_dev": YA[:1]}
    message = (
        "m.npz: arrays 'x_val' and 'x_valid' are both the val rows of column 'x'. "
        "Leave one of them out with data.arrays."
    )
    with pytest.raises(DataError) as caught:
        save(arrays, path="m.npz", split_names=True)
    assert str(caught.value) == message
    kept = save(arrays, path="m.npz", split_names=True, arrays=["x_train", "x_valid", "y_train", "y_dev"])
    assert kept.frame["x"].to_list() == [*YA, YA[1]]


def test_files_may_say_the_split(save):
    np.savez("val.npz", X=X[:2], y=YB[:2])
    table = save({"X": X, "y": YB}, "train.npz", train="train.npz", val="val.npz")
    assert table.given_split.to_list() == ["train"] * 8 + ["val"] * 2
    np.savez("val.npz", X=X[:2, :3], y=YB[:2])
    with pytest.raises(DataError, match=r"val.npz, column 'X': has type Array"):
        save({"X": X, "y": YB}, "train.npz", train="train.npz", val="val.npz")
    with pytest.raises(ConfigError, match=r"data.path: must be given, got null"):
        SOURCES.build("npz")


def test_names_and_files_do_not_both_say_the_split(save):
    with pytest.raises(ConfigError, match=r"^data.split_names: cannot be given with data.train: files and names"):
        save({"x_train": X}, "train.npz", train="train.npz", split_names=True)


def test_further_rows_need_no_labels_and_are_of_no_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def further(content, **options):
        np.savez("new.npz", **content)
        source = SOURCES.load("npz").further_rows("new.npz", {"arrays": None, "split_names": False, **options})
        return source.read().frame

    assert further({"x": X, "other": X[:3]}, arrays=["x", "y"]).columns == ["x"]
    with pytest.raises(DataError, match=r"^data.arrays: there is no array 'x' in new.npz. Did you mean 'xs'\?$"):
        further({"xs": X}, arrays=["x"])
    assert further({"x": X, "id": YB}, split_names=True).columns == ["x", "id"]
    assert further({"x": X}, split_names=True, arrays=["x_train", "x_valid", "y_train"]).columns == ["x"]
    assert further({"x_valid": X[:2], "x_test": X[:3]}, split_names=True).height == 5  # as those of the training are
