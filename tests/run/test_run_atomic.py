"""Files appear whole or not at all."""

import errno
import json
import os

import pytest

from mtl_cli.errors import TrainingError
from mtl_cli.run import write_bytes, write_json, write_text


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def _full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_writes_the_content_and_leaves_nothing_else(tmp_path):
    write_bytes(tmp_path / "a", b"\x00\xff")
    write_text(tmp_path / "b", "größe\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_text("utf-8") == "größe\n"
    assert _names(tmp_path) == ["a", "b"]


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_json_keeps_the_order_and_says_null_for_what_is_not_finite(tmp_path):
    write_json(tmp_path / "a.json", {"z": float("nan"), "a": [1, float("-inf"), (2.5, "é")]})
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == {"z": None, "a": [1, None, [2.5, "é"]]}
    assert text.startswith('{\n  "z": null,\n  "a"')
    assert text.endswith("}\n")


@pytest.mark.parametrize("call", ["replace", "fsync", "open"])
def test_a_refused_write_keeps_the_old_file_and_names_path_and_reason(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    write_text(path, "old")
    monkeypatch.setattr(os, call, _full)
    with pytest.raises(TrainingError) as error:
        write_text(path, "new")
    monkeypatch.undo()
    assert str(error.value) == (
        f"{path}: cannot be written, got 'No space left on device'. Check the free space and the permissions there."
    )
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.json"]


def test_an_interrupt_keeps_the_old_file(tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert _names(tmp_path) == ["a"]


def test_what_json_cannot_say_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a", 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a", {"x": object()})
    assert (tmp_path / "a").read_text() == "1\n"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TrainingError) as error:
        write_text(tmp_path / "no" / "a", "x")
    assert str(error.value).startswith(f"{tmp_path}/no/a: cannot be written, got 'No such file or directory'.")


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:  # the first is the file's, the second the folder's
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"
    assert len(calls) == 2
