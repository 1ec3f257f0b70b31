"""One command line after the other in this process, with the globals put back after each test."""

import contextlib
import io
import json
import os
import signal
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra

from mtl_cli.cli import run_command

SECONDS = 60  # what takes longer hangs


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """Runs a command line and checks that it ends well or with a clear error; gives its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        before = set(Path.cwd().iterdir())
        signal.signal(signal.SIGALRM, lambda *_: os.abort())
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run_command([str(argument) for argument in arguments])
        finally:
            signal.alarm(0)
        new = [path for path in Path.cwd().iterdir() if path not in before]
        _check(code, out.getvalue(), err.getvalue(), new)
        return code, err.getvalue()

    return run


def _check(code, out, err, new):
    assert "Traceback" not in out + err
    assert "a bug?" not in err, err
    states = {file.parent: json.loads(file.read_text())["state"] for path in new for file in path.rglob("status.json")}
    if code == 0:
        assert err == ""
        for run, state in states.items():
            assert state == "done"
            assert all((run / name).exists() for name in ("summary.json", "metrics.jsonl", "checkpoints/last.pt"))
        return
    assert err.strip(), "an error without a word"
    if code == 2:  # nothing was begun
        assert new == [], (err, new)
    else:  # numbers that are not finite: training itself could not go on
        assert code == 1
        assert "not finite" in err or "finite losses" in err, err
        assert set(states.values()) <= {"failed"}
        assert not any((run / "summary.json").exists() for run in states)
