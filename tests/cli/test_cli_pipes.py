"""Output that nobody reads any more, as after ``| head``, or that what it goes to does not take."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_cli.cli.console import RunLog, log, show_log
from mtl_cli.commands.entry import flush_output, run, say

FULL = Path("/dev/full")
MTL = [sys.executable, "-m", "mtl_cli.cli"]


def _run_unread(folder, arguments, *, buffered):
    """Runs a command whose output goes into a closed pipe."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PYTHONUNBUFFERED", None)
    if not buffered:
        environment["PYTHONUNBUFFERED"] = "1"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [*MTL, *arguments],
            cwd=folder,
            env=environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("buffered", [True, False])
def test_training_goes_on_without_a_console(tmp_path, buffered):
    ended = _run_unread(tmp_path, ["task=digits", "trainer.max_steps=5", "hydra.run.dir=run"], buffered=buffered)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "done"
    assert "run folder: " in (tmp_path / "run/train.log").read_text()
    assert (tmp_path / "run/checkpoints/last.pt").exists()


@pytest.mark.parametrize(("flags", "code"), [(["--cfg", "job"], 141), (["--info"], 0)])
def test_what_only_shows_something_ends_quietly(tmp_path, flags, code):
    ended = _run_unread(tmp_path, ["task=digits", *flags], buffered=False)
    assert (ended.returncode, ended.stderr) == (code, "")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_the_console_is_told_once_and_stops_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with FULL.open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        show_log()
        for epoch in (1, 2):
            log.info("epoch %d", epoch)
        say("leaderboard", sys.stdout)
        flush_output()
    told = "note: standard output cannot be written, got 'No space left on device'. Lines are missing there.\n"
    assert sys.stderr.getvalue() == told


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_train_log_does_not_hide_what_ended_the_training():
    def train():
        with RunLog(FULL):
            log.info("epoch 1")
            raise ValueError("the true reason")

    with pytest.raises(ValueError, match="the true reason"):
        train()


def _log(text):
    show_log()
    log.info(text)


@pytest.mark.parametrize("show", [_log, lambda text: run(lambda _: print(text), [])], ids=["mtl-train", "others"])
def test_signs_that_a_terminal_lacks_are_shown_as_escapes(monkeypatch, show):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="latin-1", write_through=True))
    show("价格: 0.5 ± 0.1")
    assert shown.getvalue() == b"\\u4ef7\\u683c: 0.5 \xb1 0.1\n"


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_command_whose_results_the_disk_does_not_take_says_so():
    code = "from mtl_cli.commands.entry import leave, run; leave(run(lambda argv: print('result'), []))"
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (
        1, "note: standard output cannot be written, got 'No space left on device'. Lines are missing there.\n"
    )  # fmt: skip
