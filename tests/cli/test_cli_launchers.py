"""Jobs that other launchers start, and searches: nothing of a sweep's promises depends on who runs its jobs."""

import csv
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["task=digits", "only=[digit]", "trainer.max_steps=2", "encoder.hidden=[]", "shared_dim=16"]


def _is_installed(package):
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _needs(package):
    return pytest.mark.skipif(not _is_installed(package), reason=f"the package {package} is not installed")


def _sweep(folder, *arguments):
    """A sweep as a process of its own, as launchers need it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    environment["HOME"] = str(folder)  # where ray leaves a token
    command = [sys.executable, "-m", "mtl_cli", "-m", *QUICK, "hydra.sweep.dir=sweep", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def _board(folder):
    return list(csv.DictReader((folder / "sweep/leaderboard.csv").read_text().splitlines()))


@pytest.mark.parametrize(
    ("choice", "extra", "package"),
    [
        ("hydra/launcher=joblib", "joblib", "hydra-joblib-launcher"),
        ("hydra/launcher=submitit_local", "submitit", "hydra-submitit-launcher"),
        ("hydra/launcher=ray", "ray", "hydra-ray-launcher"),
        ("hydra/sweeper=optuna", "optuna", "hydra-optuna-sweeper"),
    ],
)
def test_an_absent_plugin_is_named_with_its_extra(cli, choice, extra, package):
    if _is_installed(package):
        pytest.skip(f"{package} is installed")
    group, _, name = choice.partition("=")
    ended = cli("-m", *QUICK, choice, "seed=0,1")
    assert (ended.code, ended.err) == (
        2,
        f"{group}: '{name}' needs the package {package}, which is not installed. "
        f'Install it: pip install "mtl-train[{extra}]".\n',
    )


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("joblib", marks=_needs("hydra-joblib-launcher")),
        pytest.param("submitit_local", marks=_needs("hydra-submitit-launcher")),
        pytest.param("ray", marks=_needs("hydra-ray-launcher")),
    ],
)
def test_jobs_in_processes_of_their_own_end_in_the_same_leaderboard(tmp_path, launcher):
    # SWP-01: and one that fails costs no other its result
    (tmp_path / "conf/task").mkdir(parents=True)
    text = (ROOT / "configs/task/digits.yaml").read_text()
    (tmp_path / "conf/task/mine.yaml").write_text(text)
    own = ["--config-dir", "conf", "task=mine", f"hydra/launcher={launcher}"]
    done = _sweep(tmp_path, *own, "optimizer.lr=0.1,-1,0.01", "seed=0")
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "1 job failed; the train.log of each says why."
    assert "Traceback" not in done.stderr
    rows = _board(tmp_path)
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert "optimizer.lr (command line): must be greater than 0, got -1.0." in rows[2]["error"]
    assert all(row["test/digit/accuracy"] for row in rows[:2])
    here = {json.loads((tmp_path / "sweep" / row["job"] / "status.json").read_text())["pid"] for row in rows[:2]}
    assert os.getpid() not in here
    again = _sweep(tmp_path, *own, "optimizer.lr=0.1,0.01", "seed=0")
    assert again.returncode == 0, again.stderr
    assert _board(tmp_path) == rows


@_needs("hydra-optuna-sweeper")
def test_a_search_maximises_and_outlives_trials_without_a_number(tmp_path):
    # SWP-02
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler.seed=1", "optimizer=sgd"]
    done = _sweep(tmp_path, *search, "trainer.max_steps=9", "optimizer.lr=choice(0.00001,0.1,1e20)")
    assert done.returncode == 1, done.stderr
    rows = _board(tmp_path)
    states = {row["optimizer.lr"]: row["status"] for row in rows}
    assert states["1e+20"] == "failed"
    assert set(states.values()) == {"done", "failed"}
    best = max((row for row in rows if row["score"]), key=lambda row: float(row["score"]))
    found = (tmp_path / "sweep/optimization_results.yaml").read_text()
    assert f"optimizer.lr: {best['optimizer.lr']}" in found
    assert f"best_value: {float(best['score'])}" in found
