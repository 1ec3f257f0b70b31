"""A sweep ends with a leaderboard whatever becomes of its jobs, and is never done twice."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from mtl_cli import build, together
from mtl_cli.build import sources
from mtl_cli.cli import entrypoint
from mtl_cli.cli.hydra_launcher import OneByOneLauncher
from mtl_cli.errors import TrainingError
from mtl_cli.loop.checkpointing import Checkpoints

QUICK = [
    "task=digits",
    "only=[digit]",
    "trainer.max_steps=2",
    "encoder.hidden=[]",
    "shared_dim=16",
    "hydra.sweep.dir=sweep",
]


def _jobs(folder):
    """Folder of each job by the override that sets it apart."""
    found = {}
    for job in folder.iterdir():
        if job.is_dir():
            own = [o for o in (job / "overrides").read_text().splitlines() if f"{o}\n" not in "\n".join(QUICK) + "\n"]
            found[" ".join(own)] = job
    return found


def _started(folder):
    return {key: json.loads((job / "status.json").read_text())["started"] for key, job in _jobs(folder).items()}


def _board(folder):
    return list(csv.DictReader((folder / "leaderboard.csv").read_text().splitlines()))


def test_leaderboard_ends_a_sweep(cli, tmp_path):
    ended = cli("-m", *QUICK, "sharing=hard,separate", "optimizer.lr=0.01,0.1")
    assert (ended.code, ended.err) == (0, "")
    sweep = tmp_path / "sweep"
    jobs = _jobs(sweep)
    assert set(jobs) == {f"sharing={name} optimizer.lr={lr}" for name in ("hard", "separate") for lr in (0.01, 0.1)}
    for job in jobs.values():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", job.name)
        assert (job / "checkpoints/best.pt").exists()
    rows = _board(sweep)
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for row in rows:
        summary = json.loads((sweep / row["job"] / "summary.json").read_text())
        assert float(row["score"]) == summary["best"]["score"]
        assert float(row["test/digit/accuracy"]) == summary["metrics"]["test/digit/accuracy"]
        assert int(row["parameters"]) == summary["parameters"]["total"]
    board = json.loads((sweep / "leaderboard.json").read_text())
    assert [job["job"] for job in board["jobs"]] == [row["job"] for row in rows]
    assert "| rank | job |" in (sweep / "leaderboard.md").read_text()
    assert "4 jobs: 4 done\n" in ended.out
    assert ended.out.endswith(f"\n\nsweep folder: {sweep}\n")


def test_one_failing_job_stops_no_other(cli, tmp_path):
    # SWP-01
    ended = cli("-m", *QUICK, "optimizer.lr=0.1,-1,0.01")
    assert ended.code == 1
    sweep = tmp_path / "sweep"
    jobs = _jobs(sweep)
    states = {key: json.loads((job / "status.json").read_text()) for key, job in jobs.items()}
    assert {key: status["state"] for key, status in states.items()} == {
        "optimizer.lr=0.1": "done", "optimizer.lr=-1": "failed", "optimizer.lr=0.01": "done",
    }  # fmt: skip
    failed = jobs["optimizer.lr=-1"]
    message = "optimizer.lr (command line): must be greater than 0, got -1.0."
    assert states["optimizer.lr=-1"]["exit_code"] == 2
    assert (failed / "train.log").read_text() == f"{message}\n"
    assert [(row["status"], row["rank"], bool(row["score"])) for row in _board(sweep)] == [
        ("done", "1", True), ("done", "2", True), ("failed", "", False),
    ]  # fmt: skip
    assert message in _board(sweep)[2]["error"]
    assert f"{failed.name}: " in ended.out
    assert "3 jobs: 2 done, 1 failed" in ended.out
    assert "Traceback" not in ended.out + ended.err
    assert ended.err.splitlines()[-1] == "1 job failed; the train.log of each says why."


@pytest.mark.parametrize("launcher", ["basic", "stacked"])
def test_jobs_that_would_go_on_with_one_another_are_refused(cli, tmp_path, launcher):
    given = ["trainer.max_steps=1,2", "hydra.sweep.subdir=${optimizer.name}", f"hydra/launcher={launcher}"]
    ended = cli("-m", *(key for key in QUICK if "max_steps" not in key), *given)
    assert ended.code == 1
    told = f"hydra.sweep.subdir: gives jobs 0 and 1 one folder, {tmp_path / 'sweep/adamw'}."
    assert told in ended.out
    assert json.loads((tmp_path / "sweep/adamw/summary.json").read_text())["steps"] == 1


def test_failed_training_has_its_traceback_in_its_own_log(cli, tmp_path):
    ended = cli("-m", *QUICK, "optimizer=sgd", "optimizer.lr=0.1,1e20", "trainer.max_steps=9")
    assert ended.code == 1
    states = {job: json.loads((job / "status.json").read_text()) for job in _jobs(tmp_path / "sweep").values()}
    (failed,) = (job for job, status in states.items() if status["state"] == "failed")
    assert "optimizer.lr-1e" in failed.name
    log = (failed / "train.log").read_text()
    assert log.count("Traceback (most recent call last)") == 1
    assert "is not finite" in log
    assert states[failed]["exit_code"] == 1
    assert "Traceback" not in ended.err


def test_a_column_that_is_not_there_fails_its_job_alone(cli, customers, tmp_path):
    common = ["--config-dir", "conf", "task=customers", "trainer.max_steps=1", "hydra.sweep.dir=sweep"]
    ended = cli("-m", *common, "tasks.churned.target=churned,chruned")
    assert ended.code == 1
    failed = next(job for job in (tmp_path / "sweep").iterdir() if "chruned" in job.name)
    message = "tasks.churned.target: no column 'chruned' in customers.csv. Did you mean 'churned'?"
    assert message in (failed / "train.log").read_text()
    assert json.loads((failed / "status.json").read_text())["state"] == "failed"


def test_repeated_sweep_does_what_is_missing_only(cli, tmp_path):
    sweep = tmp_path / "sweep"
    assert cli("-m", *QUICK, "optimizer.lr=0.1,-1").code == 1
    first = _started(sweep)
    again = cli("-m", *QUICK, "optimizer.lr=0.1,-1,0.01")
    assert again.code == 1
    second = _started(sweep)
    assert second["optimizer.lr=0.1"] == first["optimizer.lr=0.1"]
    assert (_jobs(sweep)["optimizer.lr=-1"] / "train.log").read_text().count("must be greater than 0") == 2
    assert second.keys() == {"optimizer.lr=0.1", "optimizer.lr=-1", "optimizer.lr=0.01"}
    assert f"done already: {_jobs(sweep)['optimizer.lr=0.1']}" in again.out
    third = cli("-m", *QUICK, "optimizer.lr=0.1,0.01")
    assert third.code == 0
    assert _started(sweep) == second
    assert "3 jobs: 2 done, 1 failed" in third.out


def _pressing(save):
    """Ctrl-C while a checkpoint is written."""

    def press(self, *names):
        save(self, *names)
        os.kill(os.getpid(), signal.SIGINT)

    return press


def test_edited_configuration_is_not_taken_for_a_finished_job(cli, customers, write, tmp_path):
    common = ["--config-dir", "conf", "task=customers", "trainer.max_steps=1", "hydra.sweep.dir=sweep"]
    assert cli("-m", *common, "seed=0,1").code == 0
    write({"conf/task/customers.yaml": customers["conf/task/customers.yaml"].replace("weight: 0.5", "weight: 0.25")})
    before = {job.name: (job / "summary.json").read_bytes() for job in (tmp_path / "sweep").iterdir() if job.is_dir()}
    ended = cli("-m", *common, "seed=0,1,2")
    assert ended.code == 1
    assert ended.out.count("job failed") == 2
    assert ended.out.count("\n2 jobs: was made with another tasks.segment.weight (0.5 -> 0.25)\n") == 1
    assert ended.err == "2 jobs failed; why is told above.\n"
    # and its numbers have no rank among those of the new configuration
    assert [row["status"] for row in _board(tmp_path / "sweep")] == ["done", "changed", "changed"]
    assert "3 jobs: 1 done, 2 changed" in ended.out
    # nor does the refusal mark it as failed, which would have it trained again the next time
    assert cli("-m", *common, "seed=0").code == 1
    after = {job.name: job for job in (tmp_path / "sweep").iterdir() if job.is_dir()}
    assert len(after) == 3
    for name, summary in before.items():
        assert (after[name] / "summary.json").read_bytes() == summary
        assert json.loads((after[name] / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("edited", ["weight", "data"])
def test_an_interrupted_job_that_cannot_go_on_is_told_why_and_not_to_do_the_same_again(
    cli, customers, write, tmp_path, monkeypatch, edited
):
    common = ["--config-dir", "conf", "-m", "task=customers", "seed=0,1", "hydra.sweep.dir=sweep"]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", _pressing(Checkpoints.save))
        assert cli(*common, "trainer.max_epochs=2").code == 130
    if edited == "weight":
        write(
            {"conf/task/customers.yaml": customers["conf/task/customers.yaml"].replace("weight: 0.5", "weight: 0.25")}
        )
        why = "was made with another tasks.segment.weight (0.5 -> 0.25)"
    else:
        write({"customers.csv": customers["customers.csv"].replace("c000", "d000")})
        why = "the data have changed since the run began"
    ended = cli(*common, "trainer.max_epochs=2")
    assert (ended.code, ended.err) == (1, "1 job failed; why is told above.\n")
    name = "seed-0-task-customers-trainer.max_epochs-2"
    assert re.search(rf"^{name}\S*: {re.escape(why)}", ended.out, re.MULTILINE)
    assert "2 jobs: 1 done, 1 interrupted" in ended.out
    assert "to go on:" not in ended.out


def test_edited_data_are_not_taken_for_those_of_a_finished_job(cli, customers, write, tmp_path, monkeypatch):
    common = ["--config-dir", "conf", "-m", "task=customers", "trainer.max_steps=1", "hydra.sweep.dir=sweep"]
    assert cli(*common, "seed=0,1").code == 0
    read_rows, reads = sources.read_rows, []
    monkeypatch.setattr(sources, "read_rows", lambda config: reads.append(1) or read_rows(config))
    for touch in (lambda: None, lambda: os.utime("customers.csv", ns=(1, 1))):  # as a copy of it
        touch()
        ended = cli(*common, "seed=0,1")
        assert (ended.code, ended.out.count("done already")) == (0, 2)
    assert len(reads) == 1  # of all jobs together

    rows = customers["customers.csv"]
    write({"customers.csv": rows.replace("c000", "d000")})  # as long as before
    ended = cli(*common, "seed=0,1,2")
    assert ended.code == 1
    assert ended.out.count("job failed") == 2
    what = r"the data have changed since the run began \(fingerprint \w{12} -> \w{12}\)"
    assert len(re.findall(rf"resume: \S+: {what}\. Put customers\.csv back as they were, or start a", ended.out)) == 2
    assert len(re.findall(rf"^2 jobs: {what}$", ended.out, re.MULTILINE)) == 1
    assert sorted(row["status"] for row in _board(tmp_path / "sweep")) == ["changed", "changed", "done"]
    write({"customers.csv": rows.replace("churned", "")})  # nor are data that cannot be read
    assert cli(*common, "seed=0").code == 1

    write({"customers.csv": rows})
    ended = cli(*common, "seed=0,1")
    assert (ended.code, ended.out.count("done already")) == (0, 2)
    (tmp_path / "customers.csv").unlink()  # a run whose data are not here is what it is
    assert cli(*common, "seed=0,1").code == 0


def _edit(write, files, **trainer):
    """The task file with other options of the trainer."""
    text = files["conf/task/customers.yaml"].replace("trainer: {max_epochs: 2}", f"trainer: {json.dumps(trainer)}")
    write({"conf/task/customers.yaml": text})


def _epochs(folder):
    return [json.loads((job / "summary.json").read_text())["epochs"] for job in folder.iterdir() if job.is_dir()]


def test_a_finished_job_that_is_to_train_longer_goes_on(cli, customers, write, tmp_path):
    common = ["--config-dir", "conf", "-m", "task=customers", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert cli(*common).code == 0
    _edit(write, customers, max_epochs=3)
    ended = cli(*common)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("changed since the run began: trainer.max_epochs (2 -> 3)\n") == 2
    assert ended.out.count("resumed after epoch 2") == 2
    assert _epochs(tmp_path / "sweep") == [3, 3]
    assert cli(*common, "trainer.max_epochs=1").code == 0  # another override is another job, as its folder's name says
    assert sorted(_epochs(tmp_path / "sweep")) == [1, 1, 3, 3]
    # what was trained does not depend on these
    _edit(write, customers, max_epochs=3, threads=1, diagnostics_every=5, on_nonfinite="skip")
    again = cli(*common)
    assert (again.code, again.out.count("done already")) == (0, 2)


@pytest.mark.parametrize("launcher", ["basic", "stacked"])
def test_a_failed_job_goes_on_from_its_last_checkpoint(cli, customers, tmp_path, monkeypatch, launcher):
    common = ["--config-dir", "conf", "-m", "task=customers", "seed=0,1", f"hydra/launcher={launcher}"]
    assert cli(*common, "hydra.sweep.dir=whole").code == 0
    save = Checkpoints.save

    def full_disk(self, *names):
        if self._progress.epoch == 2:
            raise TrainingError("no space left on device")
        save(self, *names)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full_disk)
        assert cli(*common, "hydra.sweep.dir=sweep").code == 1
    ended = cli(*common, "hydra.sweep.dir=sweep")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("resumed after epoch 1") == 2
    for job in (tmp_path / "sweep").glob("seed*"):
        one, other = (json.loads((tmp_path / s / job.name / "summary.json").read_text()) for s in ("sweep", "whole"))
        assert one["metrics"] == other["metrics"]


def test_a_failed_job_that_cannot_be_gone_on_with_is_begun_again(cli, customers, write, tmp_path, monkeypatch):
    common = ["--config-dir", "conf", "-m", "task=customers", "seed=0,1,2", "hydra.sweep.dir=sweep"]

    def fail(*_):
        raise TrainingError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "load_weights", fail)
        assert cli(*common).code == 1
    for job in (tmp_path / "sweep").glob("seed-0*/checkpoints/*.pt"):
        job.write_bytes(b"damaged")
    for config in (tmp_path / "sweep").glob("seed-1*/config.yaml"):
        config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.002"))
    ended = cli(*common)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("cannot be read as a checkpoint (it is no PyTorch file). Use another") == 1
    assert ended.out.count("It is begun again.\n") == 1
    assert ended.out.count("resumed after epoch 2") == 1
    write({"customers.csv": customers["customers.csv"].replace("c000", "d000")})
    for status in (tmp_path / "sweep").glob("seed-0*/status.json"):
        status.write_text(status.read_text().replace('"done"', '"failed"'))
    again = cli(*common[:4], "seed=0", common[-1])
    assert (again.code, again.err) == (0, "")
    assert "the data have changed since the run began" in again.out


def test_a_failed_job_whose_disk_gives_nothing_keeps_what_it_has(cli, customers, tmp_path, monkeypatch):
    common = ["--config-dir", "conf", "-m", "task=customers", "seed=0", "hydra.sweep.dir=sweep"]

    def fail(error):
        def raising(*_, **__):
            raise error

        return raising

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "load_weights", fail(TrainingError("no space left on device")))
        assert cli(*common).code == 1
    before = {path: path.read_bytes() for path in (tmp_path / "sweep").glob("seed*/checkpoints/*.pt")}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail(OSError(errno.EIO, "Input/output error")))
        ended = cli(*common)
    assert (ended.code, ended.out.count("It is begun again")) == (1, 0)
    assert "last.pt: cannot be read, got 'Input/output error'." in ended.out
    assert before == {path: path.read_bytes() for path in before}
    assert cli(*common).out.count("resumed after epoch 2") == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"max_epochs": 1}, "trainer.max_epochs (2 -> 1)"),
        ({"max_epochs": 3, "max_steps": 100}, "trainer.max_epochs (2 -> 3)"),
        ({"max_epochs": 2, "early_stopping": {"patience": 1}}, "trainer.early_stopping.patience (null -> 1)"),
        ({"max_epochs": 2, "checkpoint": {"monitor": "val/loss"}}, "trainer.checkpoint.monitor (null -> val/loss)"),
    ],
)
def test_a_finished_job_that_would_have_ended_otherwise_is_none_of_the_sweep(
    cli, customers, write, tmp_path, options, what
):
    common = ["--config-dir", "conf", "-m", "task=customers", "hydra.sweep.dir=sweep"]
    assert cli(*common).code == 0
    _edit(write, customers, **options)
    ended = cli(*common)
    assert ended.code == 1
    assert f"was made with another {what}" in ended.out
    assert [row["status"] for row in _board(tmp_path / "sweep")] == ["changed"]
    assert _epochs(tmp_path / "sweep") == [2]


def test_a_job_that_stopped_early_is_done_until_it_may_wait_longer(cli, customers, write, tmp_path):
    common = ["--config-dir", "conf", "-m", "task=customers", "hydra.sweep.dir=sweep"]
    _edit(write, customers, max_epochs=4, early_stopping={"patience": 1, "min_delta": 1000.0})
    assert cli(*common).code == 0
    assert _epochs(tmp_path / "sweep") == [2]
    assert "done already" in cli(*common).out
    _edit(write, customers, max_epochs=4, early_stopping={"patience": 2, "min_delta": 1000.0})
    assert cli(*common).code == 0
    assert _epochs(tmp_path / "sweep") == [3]


def test_a_signal_in_the_last_moments_of_a_job_stops_the_sweep_after_it(cli, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", _pressing(Checkpoints.save))
        ended = cli("-m", *QUICK, "seed=0,1,2")
    assert ended.code == 130
    assert "1 job: 1 done" in ended.out
    assert list(_jobs(tmp_path / "sweep")) == ["seed=0"]
    assert cli("-m", *QUICK, "seed=0,1,2").code == 0
    assert [row["status"] for row in _board(tmp_path / "sweep")] == ["done"] * 3


def test_names_of_jobs_suit_every_disk(cli, tmp_path):
    ended = cli("-m", *QUICK, "only=[even],[digit,even]", 'extra="a b/c=d - ü:*?"')
    assert (ended.code, ended.err) == (0, "")
    names = [job.name for job in (tmp_path / "sweep").iterdir() if job.is_dir()]
    assert len(names) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) and len(name) < 100 for name in names), names


def test_interpolation_in_a_sweep_is_each_jobs_own(cli, tmp_path):
    # SWP-07
    ended = cli("-m", *QUICK, "shared_dim=8,16", "encoder.hidden=['${shared_dim}']")
    assert (ended.code, ended.err) == (0, "")
    assert "2 jobs: 2 done" in ended.out


@pytest.fixture
def compositions(monkeypatch):
    """Counts how often Hydra composes a job of a sweep from all files."""
    calls, real = [], ConfigLoaderImpl.load_sweep_config

    def counting(self, *arguments, **options):
        calls.append(arguments)
        return real(self, *arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counting)
    return calls


GRID = [
    "seed=0,1", "optimizer.lr=1e-2", "sharing=hard,separate", "encoder.hidden=['${shared_dim}']",
    "extra=null,'a=b ${seed}'",
]  # fmt: skip


def test_jobs_are_configured_as_hydra_would_and_composed_once_for_each_choice_of_files(
    cli, tmp_path, monkeypatch, compositions
):
    seen = {"own": [], "hydra": []}
    for how, configs in seen.items():
        with monkeypatch.context() as patch:
            patch.setattr(
                entrypoint,
                "job_by_itself",
                lambda job, of=configs: of.append((job.number, job.settings, job.overrides)),
            )
            patch.setattr(entrypoint, "run_alone", lambda _: None)
            if how == "hydra":
                patch.delattr(OneByOneLauncher, "setup")
                patch.delattr(OneByOneLauncher, "launch")
            compositions.clear()
            assert cli("-m", *QUICK, *GRID).code == 0
            assert len(compositions) == {"own": 2, "hydra": 2 * 8}[how]  # Hydra: once more before it launches them
    assert len(seen["own"]) == 8
    assert seen["own"] == seen["hydra"]


def test_one_run_is_composed_once_and_a_file_may_say_that_it_is_a_sweep(cli, tmp_path, monkeypatch):
    calls, real = [], ConfigLoaderImpl.load_configuration
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_configuration", lambda *given, **options: calls.append(1) or real(*given, **options)
    )
    assert cli("task=digits", "experiment=smoke", "trainer.max_steps=1", "hydra.run.dir=run").code == 0
    assert len(calls) == 1
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/two.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweep: {dir: two}, sweeper: {params: {seed: '0,1'}}}\n"
    )
    ended = cli("--config-dir", "conf", "task=digits", "experiment=two", "trainer.max_steps=1")
    assert (ended.code, ended.err) == (0, "")
    assert "2 jobs: 2 done" in ended.out


def test_mistake_in_the_grid_is_found_before_the_first_job(cli, tmp_path):
    ended = cli("-m", *QUICK, "sharing=hard,hrad")
    assert (ended.code, ended.err) == (
        2, "sharing (command line): there is no sharing 'hrad'. Did you mean 'hard'?\n",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_processes_of_the_same_second_have_folders_of_their_own(tmp_path):
    # SWP-05
    command = [sys.executable, "-m", "mtl_cli", "task=digits", "experiment=smoke", "trainer.max_steps=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert errors == [b""] * len(processes)
    statuses = [json.loads(file.read_text()) for file in tmp_path.rglob("status.json")]
    assert sorted(status["pid"] for status in statuses) == sorted(process.pid for process in processes)
    assert {status["state"] for status in statuses} == {"done"}


def test_grid_of_fixed_weights_is_a_sweep_by_an_experiment_file(cli, tmp_path):
    grid = [o for o in QUICK if not o.startswith("only")]
    ended = cli("-m", "experiment=fixed_weights", *grid)
    assert (ended.code, ended.err) == (0, "")
    found = []
    for row in _board(tmp_path / "sweep"):
        config = yaml.safe_load((tmp_path / "sweep" / row["job"] / "config.yaml").read_text())
        found.append((config["balancing"]["name"], *config["balancing"]["weights"].values()))
    assert sorted(found) == [("fixed", 1, even, ink) for even in (0.3, 1, 3) for ink in (0.3, 1, 3)]


def test_random_search_over_fixed_weights_is_a_sweep_for_any_tasks(cli, tmp_path):
    shorter = [*(o for o in QUICK if not o.startswith("only")), "balancing.draw=1,2", "seed=0"]
    ended = cli("-m", "experiment=fixed_weights_search", *shorter, "trainer.diagnostics_every=1")
    assert (ended.code, ended.err) == (0, "")
    found = {}
    for row in _board(tmp_path / "sweep"):
        run = tmp_path / "sweep" / row["job"]
        balancing = yaml.safe_load((run / "config.yaml").read_text())["balancing"]
        log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found[balancing["draw"]] = [value for key, value in log[0].items() if key.endswith("/weight")]
        looks = [json.loads(line) for line in (run / "diagnostics.jsonl").read_text().splitlines()]
        assert [look["step"] for look in looks] == list(range(len(looks)))
        assert any(key.startswith("cosine/") for key in looks[0])
    assert sorted(found) == [1, 2]
    assert found[1] != found[2]
    assert all(sum(weights) == pytest.approx(len(weights)) for weights in found.values())


@pytest.mark.parametrize("given", [["seed=5"], ["seed=5,6"]])
def test_the_command_line_wins_over_what_an_experiment_sweeps(cli, tmp_path, given):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/seeds.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 0,1,2\n      shared_dim: 8,16\n"
    )
    sweep = tmp_path / "sweep"
    arguments = [
        "-m",
        "--config-dir",
        "conf",
        "experiment=seeds",
        *(o for o in QUICK if not o.startswith("shared_dim")),
        *given,
    ]
    assert cli(*arguments).code == 0
    jobs = json.loads((sweep / "leaderboard.json").read_text())["jobs"]
    seeds = [int(seed) for seed in given[0].partition("=")[2].split(",")]
    found = sorted((job["settings"]["seed"], job["settings"]["shared_dim"]) for job in jobs)
    assert found == [(seed, width) for seed in seeds for width in (8, 16)]


def test_an_experiment_sweeps_over_keys_that_no_file_lists(cli, tmp_path):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/weights.yaml").write_text(
        '# @package _global_\nhydra: {sweeper: {params: {tasks.ink.weight: "0.5,2", sharing: "hard,separate"}}}\n'
    )
    assert cli("-m", "--config-dir", "conf", "experiment=weights", *QUICK, "seed=0").code == 0
    jobs = json.loads((tmp_path / "sweep/leaderboard.json").read_text())["jobs"]
    found = sorted((job["settings"]["sharing.name"], job["settings"]["tasks.ink.weight"]) for job in jobs)
    assert found == [(sharing, weight) for sharing in ("hard", "separate") for weight in (0.5, 2.0)]


def test_jobs_that_read_the_same_rows_read_them_once_and_end_as_alone(cli, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(together, "build_data", lambda *given: read.append(1) or build.build_data(*given))
    line = [o for o in QUICK if not o.startswith("hydra.sweep.dir")]
    assert cli("-m", *line, "seed=0,1", "sharing=hard,separate", "hydra.sweep.dir=one").code == 0
    assert len(read) == 1
    assert cli("-m", *line, "data.split.seed=0,1", "seed=0,1", "hydra.sweep.dir=two").code == 0
    assert len(read) == 3
    assert cli(*line, "seed=1", "sharing=separate", "hydra.run.dir=alone").code == 0
    (job,) = (
        file.parent
        for file in (tmp_path / "one").glob("*/overrides")
        if {"seed=1", "sharing=separate"} <= {*file.read_text().split()}
    )
    assert (job / "metrics.jsonl").read_bytes() == (tmp_path / "alone/metrics.jsonl").read_bytes()


def test_sweep_without_a_task_is_one_message_and_leaves_nothing(cli, tmp_path):
    ended = cli("-m", "seed=0,1")
    assert ended.code == 2
    assert ended.err.startswith("task: must be chosen. Known: ")
    assert (ended.err.count("\n"), ended.out, list(tmp_path.iterdir())) == (1, "", [])


def test_failed_job_is_told_in_our_words_alone(cli):
    ended = cli("-m", "task=digits", "experiment=smoke", "optimizer=sgd", "optimizer.lr=1e12,0.1")
    assert (ended.code, ended.err) == (1, "1 job failed; the train.log of each says why.\n")
    assert "Traceback" not in ended.out
    assert "2 jobs: 1 done, 1 failed" in ended.out


def test_which_tasks_together_trains_every_group_and_answers(cli, tmp_path):
    quick = [o for o in QUICK if not o.startswith("only")]
    ended = cli("-m", "experiment=which_tasks_together", *quick, "seed=0")
    assert (ended.code, ended.err) == (0, "")
    assert "7 jobs: 7 done" in ended.out
    assert "Which tasks together? " in ended.out
    board = json.loads((tmp_path / "sweep/leaderboard.json").read_text())
    trained = sorted(job["settings"]["only"] for job in board["jobs"])
    assert trained == sorted(
        [["digit"], ["even"], ["ink"], ["digit", "even"], ["digit", "ink"], ["even", "ink"], ["digit", "even", "ink"]]
    )
    (found,) = board["which_tasks_together"]
    assert [one["models"] for one in found["groupings"]] in ([1], [1, 2], [1, 3], [1, 2, 3])
    assert len(found["groups"]) == 7


def test_which_tasks_together_may_be_asked_of_some_tasks(cli, tmp_path):
    quick = [o for o in QUICK if not o.startswith("only")]
    ended = cli("-m", "experiment=which_tasks_together", *quick, "seed=0", "only=[ink,digit]")
    assert (ended.code, ended.err) == (0, "")
    assert "Which tasks together? " in ended.out
    board = json.loads((tmp_path / "sweep/leaderboard.json").read_text())
    assert sorted(job["settings"]["only"] for job in board["jobs"]) == [["digit"], ["digit", "ink"], ["ink"]]


@pytest.mark.parametrize("key", ["monitor", "trainer.checkpoint.monitor", "trainer.early_stopping.monitor"])
def test_groups_of_tasks_that_the_monitor_cannot_judge_are_refused_before_any_is_trained(cli, tmp_path, key):
    quick = [o for o in QUICK if not o.startswith("only")]
    ended = cli("-m", "experiment=which_tasks_together", *quick, f"{key}=val/ink/r2")
    what = f"{key}: is 'val/ink/r2', a number of task 'ink', and 3 of the 7 groups of tasks are without it."
    assert (ended.code, ended.err) == (2, f"{what} Write {key}=mean.\n")
    assert not (tmp_path / "sweep").exists()


def test_an_experiment_that_sweeps_says_so_where_it_is_one_run(cli):
    line = [o for o in QUICK if not o.startswith("hydra")]
    ended = cli("experiment=compare_sharing", *line, "hydra.run.dir=run")
    assert ended.code == 0
    assert ended.err == (
        "note: experiment=compare_sharing sweeps over sharing, seed with -m, and this is one run without it. "
        f"Write: mtl-train -m {' '.join(['experiment=compare_sharing', *line])}\n"
    )


@pytest.mark.parametrize("line", [["only=every_pair"], ["-m", "experiment=which_tasks_together", "task=digits,adult"]])
def test_groups_of_tasks_need_a_sweep_and_one_task_file(cli, line):
    ended = cli(*line, *(o for o in QUICK if not o.startswith(("only", "task" if "-m" in line else "only"))))
    word = "every_pair" if "-m" not in line else "auto"
    assert ended.code == (1 if "-m" in line else 2)
    told = f"'{word}' stands for groups of tasks, for a sweep with one task file. Write: mtl-train -m "
    assert told in ended.err + ended.out


def test_groups_without_a_task_to_serve_are_not_trained(cli, write, tmp_path):
    text = "# @package _global_\ndefaults: [digits]\ntasks: {ink: {auxiliary: true}}\n"
    write({"conf/task/helped.yaml": text})
    quick = [o for o in QUICK if not o.startswith(("only", "task"))]
    ended = cli("-m", "--config-dir", "conf", "task=helped", "experiment=which_tasks_together", *quick, "seed=0")
    assert (ended.code, ended.err) == (0, "")
    assert "6 jobs: 6 done" in ended.out  # all but ink alone
    assert "Which tasks together? " in ended.out


def test_a_sweep_that_is_repeated_makes_a_damaged_summary_anew(cli, tmp_path):
    assert cli("-m", *QUICK, "seed=0,1").code == 0
    (first, _) = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    whole = json.loads((first / "summary.json").read_text())
    (first / "summary.json").unlink()
    ended = cli("-m", *QUICK, "seed=0,1")
    assert ended.code == 0
    assert "2 jobs: 2 done" in ended.out
    assert json.loads((first / "summary.json").read_text())["metrics"] == whole["metrics"]


def test_a_sweep_says_how_to_go_on_with_all_of_it(cli, tmp_path):
    ended = cli("-m", *QUICK, "seed=0", "optimizer.lr=0.001,-1")
    assert ended.code == 1
    told = f"to go on: the same command with hydra.sweep.dir={tmp_path / 'sweep'}, which leaves alone what is done"
    assert told in ended.out
