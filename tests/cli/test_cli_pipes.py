"""Output that nobody reads any more, as after ``| head``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_what_only_shows_something_ends_quietly(tmp_path):
    ended = _run_unread(tmp_path, ["task=digits", "--cfg", "job"], buffered=False)
    assert (ended.returncode, ended.stderr) == (141, "")
