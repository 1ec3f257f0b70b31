"""A run that torchrun starts in several processes: one folder, one voice, the numbers of one process."""

import json
import logging
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest
import torch
from torch.distributed import DistNetworkError
from worlds import BASE, start_pair, wait_for_lines

from mtl_cli.cli.command import _lead
from mtl_cli.commands.entry import run as run_command_of
from mtl_cli.commands.predict import predict
from mtl_cli.helper import help_the_first
from mtl_cli.run.checkpoint import load

ROOT = Path(__file__).resolve().parents[2]
LINE = [
    "--config-dir", "conf", "task=base", "optimizer=sgd", "optimizer.lr=0.05", "encoder.dropout=0",
    "data.shuffle=false",
]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mtl_cli.cli"]


def _numbers(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    assert all(line.keys() == other.keys() for line, other in zip(lines[::2], lines[2::2], strict=False))
    return [*lines, summary["metrics"]]


def _assert_close(run, alone):
    for one, other in zip(_numbers(run), _numbers(alone), strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert one[key] == (pytest.approx(value, abs=1e-6, rel=1e-6) if isinstance(value, float) else value), key
    states = [load(folder / "checkpoints/last.pt")["model"] for folder in (run, alone)]
    for name, value in states[1].items():
        assert torch.allclose(states[0][name], value, rtol=1e-5, atol=1e-6), name


def _training_pair(folder, *arguments):
    """Two processes in the middle of a long training."""
    pair = start_pair([sys.executable, "-m", "mtl_cli", *LINE, "hydra.run.dir=two", *arguments], folder)
    wait_for_lines(pair[0], folder / "two/metrics.jsonl", 3, seconds=120)
    pair[1].send_signal(signal.SIGSTOP)  # the first one waits for it
    return pair


def _told(folder):
    return [(folder / name).read_text() for name in ("err0.txt", "out1.txt", "err1.txt")]


def test_torchrun_trains_what_one_process_trains(base, cli, tmp_path):
    # DST-01: no label of b in the second process in the first step
    base(yb=[0, 1, "", "", 0, 1, 2, 0])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*TORCHRUN, *LINE, "hydra.run.dir=two"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder: ") == 1
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"conf", "train.csv", "val.csv", "two"}
    assert cli(*LINE, "hydra.run.dir=one").code == 0
    _assert_close(tmp_path / "two", tmp_path / "one")
    two, one = ({path.relative_to(run) for path in run.rglob("*")} for run in (tmp_path / "two", tmp_path / "one"))
    assert two == one


def test_a_signal_to_one_process_stops_all_at_the_same_step_and_one_process_goes_on(base, cli, tmp_path):
    base()
    pair = _training_pair(tmp_path, "trainer.max_epochs=60", "data.batch_size=1")
    try:
        pair[1].send_signal(signal.SIGTERM)
        pair[1].send_signal(signal.SIGCONT)
        codes = [process.wait(timeout=120) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert codes == [143, 143], _told(tmp_path)
    assert _told(tmp_path) == ["", "", ""]
    status = json.loads((tmp_path / "two/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", 143)
    assert load(tmp_path / "two/checkpoints/last.pt")["progress"]["epoch"] < 60
    assert cli("resume=two").code == 0
    assert cli(*LINE, "hydra.run.dir=one", "trainer.max_epochs=60", "data.batch_size=1").code == 0
    _assert_close(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_message(base, tmp_path):
    base()
    pair = _training_pair(tmp_path, "trainer.max_epochs=5000", "data.batch_size=1")
    try:
        pair[1].kill()
        code = pair[0].wait(timeout=120)
    finally:
        for process in pair:
            process.kill()
            process.wait()
    told = (tmp_path / "err0.txt").read_text()
    assert code == 1, told
    assert told.startswith("process 0: one of the 2 processes of this training is gone, or has not answered for 10")
    assert told.count("\n") == 1  # no warning of PyTorch's that the other did not say farewell
    assert json.loads((tmp_path / "two/status.json").read_text())["state"] == "failed"
    assert load(tmp_path / "two/checkpoints/last.pt")["progress"]["epoch"] >= 1


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_meet_are_told_where(rank, monkeypatch, capsys):
    def refuse(*_, **__):
        raise DistNetworkError("Failed to listen. port: 29500, message: address already in use\nMore")

    monkeypatch.setattr(import_module("torch.distributed.rendezvous"), "rendezvous", refuse)
    own = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mtl_cli.helper.signal.signal", lambda *_: None)
    monkeypatch.setattr(logging.getLogger("mtl_cli"), "propagate", True)  # as before, after the test
    code = help_the_first() if rank == "1" else _lead([])
    assert (code, capsys.readouterr().err) == (
        2,
        ("process 1: " if rank == "1" else "") + "MASTER_ADDR, MASTER_PORT: the 2 processes do not meet at "
        "127.0.0.1:29500 (Failed to listen. port: 29500, message: address already in use). Each "
        "needs the same free port, of the machine of the first; torchrun --standalone finds one itself.\n",
    )


@pytest.fixture
def first_of_two(monkeypatch):
    """As torchrun would start the first of two processes; nothing is waited for."""
    own = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)


def test_what_several_processes_do_not_do_is_refused(first_of_two, base, cli, tmp_path):
    base(BASE + "hydra: {run: {dir: two}}\n")
    assert cli("-m", *LINE, "seed=0,1").err == (
        "-m: is a sweep, and torchrun starts 2 processes for one run. Start each job with torchrun, or all with a "
        "launcher: mtl-train -m ... hydra/launcher=joblib.\n"
    )
    for name in ("train", "val"):
        pl.read_csv(f"{name}.csv").write_parquet(f"{name}.parquet")
    stored = ["data.train=train.parquet", "data.val=val.parquet", "data.in_memory=false"]
    ended = cli(*LINE, *stored, "trainer.device=cuda:1")
    assert (ended.code, ended.err) == (
        2,
        "data.in_memory: is false, and rows are not streamed in several processes, each of which holds all. "
        "Write data.in_memory=true, or train in one process.\n"
        "trainer.device: is cuda:1 for each of 2 processes. Write cuda: each takes the GPU of its number; or cpu.\n",
    )
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(("tasks", "world", "told"), [("2", "1", True), ("1", "1", False), ("2", "2", False)])
def test_tasks_of_srun_that_train_by_themselves_are_told_so(first_of_two, base, cli, monkeypatch, tasks, world, told):
    base()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    monkeypatch.setenv("WORLD_SIZE", world)
    note = (
        "note: SLURM_STEP_NUM_TASKS is 2: srun starts so many processes, and each trains a run of its own. "
        "One run in all of them is one task: torchrun --no-python --nproc-per-node 2 mtl-train ...\n"
    )
    assert cli(*LINE, "dry_run=true").err == (note if told else "")


def test_rows_are_predicted_once_however_many_processes_are_started(base, cli, tmp_path, monkeypatch):
    # DST-02
    base()
    assert cli(*LINE, "hydra.run.dir=one").code == 0
    rows = (tmp_path / "val.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join([*rows, rows[1].replace("101", "105")]) + "\n")
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run_command_of(predict, ["one", "--data", "new.csv", "--out", f"{rank}.csv"]) == 0
    assert not (tmp_path / "1.csv").exists()
    assert pl.read_csv(tmp_path / "0.csv")["id"].to_list() == [101, 102, 103, 104, 105]
