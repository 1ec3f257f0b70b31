"""The metrics file survives kills, and a resumed run says nothing twice."""

import errno
import json
import os
from pathlib import Path

import pytest

from mtl_cli.errors import RunError, TrainingError
from mtl_cli.run import MetricsLog


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


def test_records_come_back_in_order(log):
    assert (log.read(), log.size()) == ([], 0)
    records = [{"epoch": 1, "split": "val", "val/größe/mae": 0.5}, {"epoch": 2, "ok": True, "none": None}]
    for record in records:
        log.append(record)
    assert log.read() == records
    assert log.size() == log.path.stat().st_size


def test_what_is_not_finite_is_null_on_the_disk(log):
    log.append({"a": float("nan"), "b": float("inf")})
    assert log.path.read_text() == '{"a": null, "b": null}\n'


@pytest.mark.parametrize("value", [{"b": 1}, [1], object()])
def test_a_nested_value_is_refused_naming_its_key(log, value):
    name = type(value).__name__
    with pytest.raises(TypeError, match=rf"^metrics record: a must be text, a number or None, got {name}$"):
        log.append({"a": value})
    assert not log.path.exists()


def test_a_torn_last_line_is_ignored_and_never_glued_to_the_next(log):
    log.append({"epoch": 1})
    with log.path.open("ab") as file:
        file.write(b'{"epoch": 2, "val/lo')
    assert log.read() == [{"epoch": 1}]
    fresh = MetricsLog(log.path)
    fresh.append({"epoch": 2})
    assert fresh.read() == [{"epoch": 1}, {"epoch": 2}]


def test_a_file_that_is_one_torn_line_starts_anew(log):
    log.path.write_bytes(b'{"ep')
    log.append({"epoch": 1})
    assert log.read() == [{"epoch": 1}]


@pytest.mark.parametrize("line", ['{"epoch": 2, "va', "[1]", "\x00\x00", ""])
def test_a_damaged_line_in_the_middle_is_named(log, line):
    log.path.write_text('{"epoch": 1}\n' + line + '\n{"epoch": 3}\n')
    with pytest.raises(RunError) as error:
        log.read()
    assert str(error.value) == (f"{log.path}, line 2: is damaged: no JSON object, got {line!r}. Remove that line.")


def test_rows_after_the_checkpoint_are_cut(log):
    log.truncate(0)  # nothing there yet
    log.append({"epoch": 1})
    size = log.size()
    log.append({"epoch": 2})
    log.truncate(size)
    log.truncate(size)
    log.append({"epoch": 2, "again": True})
    assert log.read() == [{"epoch": 1}, {"epoch": 2, "again": True}]


def test_a_file_that_is_not_the_checkpoints_is_refused(log):
    log.append({"epoch": 1})
    hint = "The file and the checkpoint are not of the same run; put the right file back, or start a new run."
    with pytest.raises(RunError) as error:
        log.truncate(500)
    assert str(error.value) == (
        f"{log.path}: is shorter than the checkpoint remembers: 500 bytes expected, got 13. {hint}"
    )
    with pytest.raises(RunError) as error:
        log.truncate(5)
    assert str(error.value) == f"{log.path}: has no end of a line after byte 5. {hint}"
    assert log.read() == [{"epoch": 1}]


def test_each_record_is_one_system_call(log, monkeypatch):
    calls, real = [], os.write
    monkeypatch.setattr(os, "write", lambda *args: calls.append(args[1]) or real(*args))
    log.append({"a": 1})
    log.append({"a": 2})
    assert [json.loads(call) for call in calls] == [{"a": 1}, {"a": 2}]


def test_a_line_cut_short_by_a_full_disk_is_taken_back(log, monkeypatch):
    log.append({"epoch": 1})
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:5]))
    with pytest.raises(TrainingError) as error:
        log.append({"epoch": 2})
    assert str(error.value) == (
        f"{log.path}: cannot be written, got 'No space left on device'. Check the free space and the permissions there."
    )
    monkeypatch.undo()
    assert log.path.read_text() == '{"epoch": 1}\n'


def test_other_refusals_of_the_system_name_the_file(log, monkeypatch):
    log.append({"a": 1})

    def refuse(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "truncate", refuse)
    for call in (log.size, lambda: log.truncate(0)):
        with pytest.raises(TrainingError, match=r"metrics\.jsonl: cannot be written, got 'Input/output error'"):
            call()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to tell which file is synced")
def test_what_a_checkpoint_may_rely_on_is_on_the_disk_with_its_name(log, monkeypatch):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    log.append({"epoch": 1})
    log.size()
    assert synced == [log.path.resolve(), log.path.parent.resolve()]
    log.append({"epoch": 2})
    log.size()
    assert synced[2:] == [log.path.resolve()]  # its name is there for good
