"""One command line after the other in this process: whatever is drawn, it ends well or with a clear error."""

import contextlib
import io
import json
import signal
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings

from mtl_cli.cli import run_command

SECONDS = 60  # of processor time: what takes longer hangs, on a busy machine too


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """Runs a command line and checks that it ends well or with a clear error; gives its exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        before = set(Path.cwd().iterdir())
        previous = signal.signal(signal.SIGPROF, _hangs)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run_command([str(argument) for argument in arguments])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, previous)
        new = [path for path in Path.cwd().iterdir() if path not in before]
        _check(code, out.getvalue(), err.getvalue(), new)
        return code, err.getvalue()

    return run


@pytest.fixture
def fuzz():
    """Draws so many examples, always the same ones, and tells all that went wrong: ``fuzz(strategy, 100, run)``."""

    def draw(strategy, examples, run):
        wrong, codes = [], set()

        @settings(max_examples=examples, phases=[Phase.generate])
        @given(strategy)
        def each(drawn):
            try:
                codes.add(run(drawn)[0])
            except Exception as error:
                wrong.append((drawn, f"{type(error).__name__}: {error}"))

        each()
        assert not wrong, "\n\n".join(f"{drawn!r}\n{what}" for drawn, what in wrong)
        return codes

    return draw


def _hangs(*_):
    raise TimeoutError(f"hangs: more than {SECONDS} s of processor time")


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
