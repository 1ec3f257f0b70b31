"""Run folders that others use, move, fill up or take away while a run is in them."""

import csv
import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from mtl_cli.cli import entrypoint
from mtl_cli.commands import evaluate, predict
from mtl_cli.commands.entry import run
from mtl_cli.loop import checkpointing
from mtl_cli.loop import trainer as loop
from mtl_cli.run import RunFolder
from mtl_cli.run.checkpoint import load

QUICK = ["task=digits", "experiment=smoke", "encoder.hidden=[]", "shared_dim=16", "hydra.run.dir=run"]


def _at_step(monkeypatch, number, what):
    """Does something right before a step of the training, counted from 1."""
    step, count = loop.train_step, iter(range(1, 10**6))

    def counting(*arguments, **options):
        if next(count) == number:
            what()
        return step(*arguments, **options)

    monkeypatch.setattr(loop, "train_step", counting)


def test_a_copied_and_a_moved_run_are_the_run(cli, customers, tmp_path, capsys):
    line = ["--config-dir", "conf", "task=customers"]
    assert cli(*line, "hydra.run.dir=old/run").code == 0
    assert cli(*line, "hydra.run.dir=unbroken", "trainer.max_epochs=3").code == 0
    shutil.copytree("old/run", "copied")
    Path("old/run").rename("moved")
    Path("old").rmdir()
    said = []
    for name in ("copied", "moved"):
        assert run(evaluate.evaluate, [name]) == 0
        assert run(predict.predict, [name, "--data", "customers.csv", "--out", f"{name}.csv"]) == 0
        shown = capsys.readouterr()
        said.append((shown.out.replace(name, "RUN"), shown.err))
        ended = cli(f"resume={name}", "trainer.max_epochs=3")
        assert (ended.code, ended.err) == (0, "")
        assert (tmp_path / name / "metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()
    assert said[0] == said[1]
    assert "not the numbers of summary.json" not in said[0][1]
    assert Path("copied.csv").read_bytes() == Path("moved.csv").read_bytes()
    assert not Path("old").exists()


@pytest.mark.parametrize("launcher", ["basic", "stacked"])
def test_two_sweeps_in_one_folder_share_the_work(cli, tmp_path, launcher):
    # SWP-05: what the other sweep works on is left to it, and told; it is no failure that others would stop for
    sweep = ["-m", *QUICK[:-1], "trainer.max_epochs=1", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"]
    assert cli(*sweep, "seed=0").code == 0
    (job,) = [folder for folder in (tmp_path / "sweep").iterdir() if folder.is_dir()]
    shutil.move(job, tmp_path / "kept")
    busy = tmp_path / "sweep" / job.name
    with RunFolder.claim(busy) as other:  # as the other sweep has it in its first moments
        other.write_config(
            (tmp_path / "kept/config.yaml").read_text(), (tmp_path / "kept/overrides").read_text().split("\n")
        )
        other.set_status("running")
        before = {path: path.read_bytes() for path in busy.rglob("*") if path.is_file()}
        ended = cli(*sweep, "seed=0,1", "stop_on_failure=true")
        assert ended.code == 1
        left = rf"job left to another process: \S*{job.name}: is in use by process {os.getpid()} on host \S+ since "
        assert re.search(left, ended.out)
        told = "1 job is in use by another process and not done yet. "
        assert ended.err == f"{told}The same command again takes over what that one leaves.\n"
        assert {path: path.read_bytes() for path in busy.rglob("*") if path.is_file()} == before
    with (tmp_path / "sweep/leaderboard.csv").open() as file:
        assert sorted(row["status"] for row in csv.DictReader(file)) == ["done", "running"]
    ended = cli(*sweep, "seed=0,1")  # the other one died: its job is taken over
    assert (ended.code, ended.err) == (0, "")
    assert "2 jobs: 2 done" in ended.out


def test_a_job_that_another_process_has_finished_meanwhile_is_no_failure(cli, tmp_path):
    sweep = ["-m", *QUICK[:-1], "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    assert cli(*sweep, "seed=0").code == 0
    (job,) = [folder for folder in (tmp_path / "sweep").iterdir() if folder.is_dir()]
    run = RunFolder(job)
    run.set_status("running")
    with RunFolder.claim(job, resume=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(entrypoint, "leave_to_another", _finishing(run, entrypoint.leave_to_another))
        ended = cli(*sweep, "seed=0")
    assert (ended.code, ended.err) == (0, "")


def _finishing(run, then):
    def left(*given):
        then(*given)
        run.set_status("done")

    return left


def test_run_whose_folder_is_removed_stops_and_does_not_bring_it_back(cli, tmp_path, monkeypatch):
    _at_step(monkeypatch, 25, lambda: shutil.rmtree(tmp_path / "run"))
    ended = cli(*QUICK)
    assert ended.code == 1
    assert re.fullmatch(
        r"\S*run/\S+: cannot be written, got 'No such file or directory'\. "
        r"Check the free space and the permissions there\.\n",
        ended.err,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "number"), [("replace", errno.ENOSPC), ("fsync", errno.EDQUOT), ("open", errno.EROFS)],
    ids=["full", "quota", "read-only"],
)  # fmt: skip
def test_disk_that_refuses_in_the_second_epoch_costs_that_epoch_only(cli, tmp_path, monkeypatch, call, number):
    line = [*QUICK, "trainer.max_epochs=3"]
    assert cli(*line, "hydra.run.dir=unbroken").code == 0
    real = getattr(os, call)

    def refuse(*arguments, **options):
        if call == "open" and not (len(arguments) > 1 and arguments[1] & (os.O_WRONLY | os.O_RDWR)):
            return real(*arguments, **options)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        _at_step(patch, 30, lambda: patch.setattr(os, call, refuse))
        ended = cli(*line)
    run_folder = tmp_path / "run"
    assert ended.code == 1
    assert re.fullmatch(
        rf"\S*run/\S+: cannot be written, got '{os.strerror(number)}'\. "
        r"Check the free space and the permissions there\.\n",
        ended.err,
    )
    assert load(run_folder / "checkpoints/last.pt")["progress"]["epoch"] == 1
    assert not (run_folder / "summary.json").exists()
    assert json.loads((run_folder / "status.json").read_text())["state"] in ("running", "failed")
    ended = cli(*line, "resume=auto")  # once there is room again
    assert (ended.code, ended.err) == (0, "")
    assert (run_folder / "metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()
    assert [path.name for path in run_folder.rglob(".*")] == []


@pytest.mark.parametrize("lost", [["best"], ["best", "last"]])
def test_checkpoint_that_breaks_at_the_very_end_does_not_cost_the_training(cli, tmp_path, monkeypatch, lost):
    real, kept = checkpointing.load, {}

    def damaged(path, *arguments):
        if path.stem in lost:
            kept[path] = kept.get(path) or path.read_bytes()
            path.write_bytes(b"")
        return real(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "load", damaged)
        ended = cli(*QUICK)
    run_folder = tmp_path / "run"
    assert ended.code == (2 if "last" in lost else 0)
    assert "best.pt: cannot be read as a checkpoint (the file is empty)" in ended.out
    status = json.loads((run_folder / "status.json").read_text())
    if "last" not in lost:
        assert "weights of the last epoch, 2 (the best checkpoint cannot be read)" in ended.out
        assert json.loads((run_folder / "summary.json").read_text())["weights"] == "last"
        return
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert not (run_folder / "summary.json").exists()
    for path, data in kept.items():  # the disk was mended
        path.write_bytes(data)
    ended = cli(*QUICK, "resume=auto")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads((run_folder / "summary.json").read_text())["weights"] == "best"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to tell which file is synced")
def test_new_checkpoint_is_on_the_disk_before_an_old_one_goes(cli, tmp_path, monkeypatch):
    events = []
    fsync, replace, unlink = os.fsync, os.replace, Path.unlink

    def synced(descriptor):
        events.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        return fsync(descriptor)

    def replaced(source, target):
        events.append(("replace", Path(target)))
        return replace(source, target)

    def removed(path, **options):
        if path.suffix == ".pt":
            events.append(("unlink", path))
        return unlink(path, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", removed)
    line = [*QUICK, "trainer.max_epochs=4", "trainer.checkpoint.save_top_k=2", "trainer.checkpoint.monitor=val/loss"]
    assert cli(*line).code == 0
    gone = [place for place, (what, _) in enumerate(events) if what == "unlink"]
    assert gone
    for place in gone:
        written = [p for p in range(place) if events[p][0] == "replace" and events[p][1].name.startswith("epoch-")]
        last = written[-1]
        name, folder = events[last][1].name, events[last][1].parent.resolve()
        assert name != events[place][1].name
        assert any(e[0] == "fsync" and e[1].name.startswith(f".{name}.") for e in events[:last])
        assert ("fsync", folder) in [(e[0], e[1].resolve()) for e in events[last:place]]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to tell which file is synced")
def test_every_file_of_a_run_is_on_the_disk_with_its_name_and_folder(cli, tmp_path, monkeypatch):
    # What a power cut may take: bytes that were not synced, and names in a folder that was not synced after them
    files, folders, fsync, replace = {}, {}, os.fsync, os.replace
    moment = iter(range(10**6))

    def synced(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        (folders if path.is_dir() else files)[path] = next(moment)
        return fsync(descriptor)

    def replaced(source, target):
        files[Path(target).absolute()] = files.pop(Path(source).absolute())
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    assert cli(*QUICK[:-1], "hydra.run.dir=new/run").code == 0
    run_folder = tmp_path / "new/run"
    for path in run_folder.rglob("*"):
        if path.is_file() and path.name != "train.log":  # a log may lose its last lines
            assert files[path] < folders[path.parent], path
    for folder in (run_folder / "checkpoints", run_folder, tmp_path / "new"):
        assert folder.parent in folders, folder


def test_the_working_folder_may_be_the_run(cli, tmp_path):
    ended = cli(*QUICK[:-1], "hydra.run.dir=.")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


def test_a_sweep_whose_folder_cannot_be_made_is_one_message(cli):
    name = "a" * 300
    ended = cli("-m", *QUICK[:-1], f"hydra.sweep.dir={name}", "seed=0,1")
    assert (ended.code, ended.err) == (2, f"{name}: cannot be made, got 'File name too long'. Choose another folder.\n")
