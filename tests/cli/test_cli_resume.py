"""A run that was stopped, however it was stopped, goes on as if nothing had happened."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mtl_cli.cli import run_command
from mtl_cli.run import RunFolder
from mtl_cli.run.checkpoint import load

# State of every sort: dropout's generator, a schedule, weights that a method learns, checkpoints inside an epoch.
LONG = [
    "task=digits", "trainer.max_epochs=8", "trainer.checkpoint.every_n_steps=3", "encoder.dropout=0.3",
    "scheduler=cosine", "balancing=uncertainty", "hydra.run.dir=run", "data.batch_size=256",
    "encoder.hidden=[32]", "shared_dim=32",
]  # fmt: skip
QUICK = ["task=digits", "experiment=smoke", "encoder.hidden=[]", "shared_dim=16", "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The run that nobody stopped."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command(LONG) == 0
    return folder / "run"


def _start(folder, arguments):
    command = [sys.executable, "-m", "mtl_cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, env=environment)


def _wait_for_lines(process, file, count):
    end = time.monotonic() + 60
    while not file.exists() or file.read_text().count("\n") < count:
        assert process.poll() is None, "ended too soon"
        assert time.monotonic() < end
        time.sleep(0.002)


def _stopped_by(number, folder, while_it_stands=lambda _: None):
    """Starts the long run and sends it a signal in its second or third epoch; returns the exit code."""
    process = _start(folder, LONG)
    try:
        _wait_for_lines(process, folder / "run/metrics.jsonl", 3)
        process.send_signal(signal.SIGSTOP)
        while_it_stands(process)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        return process.wait(timeout=60)
    finally:
        process.kill()


def _assert_same(run, unbroken):
    assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    for name in ("best", "last"):
        one, other = (load(folder / "checkpoints" / f"{name}.pt") for folder in (run, unbroken))
        assert one["model"].keys() == other["model"].keys()
        assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items()), name
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run, unbroken)]
    for key in ("metrics", "best", "epochs", "steps", "parameters", "data_fingerprint"):
        assert summaries[0][key] == summaries[1][key], key


def _bytes(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def _status(run):
    return json.loads((run / "status.json").read_text())


def test_killed_run_goes_on_bit_for_bit(cli, tmp_path, unbroken):
    # RES-01, RES-02: nothing could be tidied up by the process itself. SWP-05: until then the folder is its own

    def others_are_refused(process):
        owner = rf"process {process.pid} on host \S+ since \S+"
        hint = r"Wait for it to end, or choose another folder\."
        for arguments in (LONG, [*LONG, "resume=auto"], ["resume=run"]):
            ended = cli(*arguments)
            assert ended.code == 2
            assert re.fullmatch(rf"\S*run: is in use by {owner}\. {hint}\n", ended.err)

    assert _stopped_by(signal.SIGKILL, tmp_path, others_are_refused) == -signal.SIGKILL
    assert _status(tmp_path / "run")["state"] == "running"
    assert not (tmp_path / "run/summary.json").exists()
    ended = cli(*LONG, "resume=auto")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"^resumed after epoch \d+, step \d+$", ended.out, re.MULTILINE)
    _assert_same(tmp_path / "run", unbroken)


def _terminated(tmp_path, cli):
    """Another process gets a SIGTERM."""
    code = _stopped_by(signal.SIGTERM, tmp_path)
    return code, *((tmp_path / f"{name}.txt").read_text() for name in ("out", "err"))


def _control_c(tmp_path, cli):
    """This process gets a SIGINT while it trains."""
    file = tmp_path / "run/metrics.jsonl"

    def press():
        while not file.exists() or file.read_text().count("\n") < 3:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    ended = cli(*LONG)
    thread.join(timeout=10)
    return ended


@pytest.mark.parametrize(
    ("stop", "name", "code"), [(_terminated, "SIGTERM", 143), (_control_c, "SIGINT", 130)], ids=["SIGTERM", "SIGINT"]
)
def test_interrupted_run_says_how_to_go_on(cli, tmp_path, monkeypatch, unbroken, stop, name, code):
    # LOO-07. And: the folder alone is enough, from anywhere
    run = tmp_path / "run"
    ended, out, err = stop(tmp_path, cli)
    assert (ended, err) == (code, "")
    assert (_status(run)["state"], _status(run)["exit_code"]) == ("interrupted", code)
    assert f"\n{name}: finishing the step; once more to stop at once\n" in out
    assert out.endswith(f"\ninterrupted; go on with: mtl-train resume={run}\n")
    assert not (run / "summary.json").exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = cli(f"resume={run}")
    assert (ended.code, ended.err) == (0, "")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    _assert_same(run, unbroken)


def test_stopped_before_the_first_step(tmp_path):
    # LOO-08
    process = _start(tmp_path, LONG)
    while not (tmp_path / "run/status.json").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert (tmp_path / "err.txt").read_text() == ""
    assert not (tmp_path / "run/summary.json").exists()
    assert _status(tmp_path / "run")["state"] == "interrupted"


def test_finished_run_has_nothing_to_do(cli, tmp_path):
    # RES-07
    assert cli(*QUICK).code == 0
    run = tmp_path / "run"
    before = _bytes(run)
    for arguments in (["resume=run"], [*QUICK, "resume=auto"], [*QUICK, "resume=run"]):
        ended = cli(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert re.fullmatch(r".*run: is done, nothing to do\n", ended.out)
        assert _bytes(run) == before


def test_finished_run_trains_on(cli, tmp_path):
    long = [*QUICK[:-1], "trainer.max_epochs=4"]
    assert cli(*long, "hydra.run.dir=unbroken").code == 0
    assert cli(*QUICK).code == 0
    ended = cli("resume=run", "trainer.max_epochs=4")
    assert (ended.code, ended.err) == (0, "")
    assert "resumed after epoch 2, step 40" in ended.out
    _assert_same(tmp_path / "run", tmp_path / "unbroken")
    assert cli("resume=run").out.endswith("run: is done, nothing to do\n")


def test_changes_are_refused(cli, tmp_path):
    assert cli(*QUICK, "trainer.max_epochs=1").code == 0
    run, before = tmp_path / "run", _bytes(tmp_path / "run")
    changes = ["optimizer.lr=0.5", "seed=1", "tasks.ink.weight=2", "trainer.max_epochs=3"]
    allowed = (
        "May change on resume: trainer.max_epochs, trainer.max_steps, trainer.max_time, trainer.early_stopping, "
        "trainer.checkpoint, trainer.device, trainer.threads. For anything else start a new run."
    )
    for arguments, named in (
        (["resume=run"], "run"),
        ([*QUICK, "resume=run"], "run"),
        ([*QUICK, "resume=auto"], str(run)),
    ):
        ended = cli(*arguments, *changes)
        assert ended.code == 2
        assert sorted(ended.err.splitlines()) == [
            f"resume: {named}: was made with another optimizer.lr (0.001 -> 0.5). {allowed}",
            f"resume: {named}: was made with another seed (0 -> 1). {allowed}",
            f"resume: {named}: was made with another tasks.ink.weight (not given -> 2). {allowed}",
        ]
        assert _bytes(run) == before
    ended = cli("resume=run", "only=[digit]")
    assert (ended.code, ended.err) == (2, f"resume: run: was made with another only (null -> ['digit']). {allowed}\n")


def test_key_without_a_value_is_no_override_on_resume(cli, tmp_path):
    assert cli(*QUICK).code == 0
    for wrong in ("encoder=mlp", "experiment=smoke"):
        ended = cli("resume=run", wrong)
        assert (ended.code, ended.err) == (
            2,
            f"command line: '{wrong}' cannot be combined with resume=RUN alone. Write key=value.\n",
        )


def test_folder_that_is_no_run_is_refused(cli, write, tmp_path):
    write({"notes/readme.txt": "", "old/a/status.json": "{}"})
    before = sorted(tmp_path.rglob("*"))
    for arguments in ([], ["task=digits"]):
        for name, message in (
            ("nothing", "nothing: is not a run folder: there is no such folder."),
            ("notes", "notes: is not a run folder (no config.yaml or status.json); it holds: readme.txt."),
            ("notes/readme.txt", "notes/readme.txt: is not a run folder but a file. Name the folder: notes."),
            (
                "old",
                "old: is not a run folder (no config.yaml or status.json); it holds: a. "
                "These below it are runs: a; name one.",
            ),
            ("old/a", "old/a/config.yaml: no such file; it holds: status.json."),
        ):
            ended = cli(*arguments, f"resume={name}")
            assert (ended.code, ended.err) == (2, message + "\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_resume_auto_begins_anew_where_there_is_nothing(cli, tmp_path):
    ended = cli(*QUICK, "resume=auto")
    assert (ended.code, ended.err) == (0, "")
    assert _status(tmp_path / "run")["state"] == "done"


def test_resume_of_a_moved_run(cli, tmp_path):
    assert cli(*QUICK).code == 0
    (tmp_path / "run").rename(tmp_path / "kept")
    assert cli("resume=kept", "trainer.max_epochs=3").code == 0
    assert RunFolder.open(Path("kept")).is_done
