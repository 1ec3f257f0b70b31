"""``hydra/launcher=stacked``: jobs trained as one model leave what each of them leaves alone, to the last bit."""

import json
import os
import signal

import pytest
import yaml
from worlds import same_state, state_of

import mtl_cli.loop.trainer
import mtl_cli.together
from mtl_cli.loop.stacked import Stack

SMALL = ["task=digits", "shared_dim=16", "encoder.hidden=[16]", "data.batch_size=64", "trainer.max_epochs=2"]
STACKED = "hydra/launcher=stacked"
WHEN = {"seconds", "train_seconds", "rows_per_second"}


def _files(job):
    return sorted(path.relative_to(job).as_posix() for path in job.rglob("*"))


def _jobs(sweep):
    return {job.name: job for job in sweep.iterdir() if job.is_dir()}


def _assert_same(stacked, basic):
    assert _files(stacked) == _files(basic)
    for name in ("metrics.jsonl", "config.yaml", "overrides", "data.json"):
        assert (stacked / name).read_bytes() == (basic / name).read_bytes(), name
    if (basic / "diagnostics.jsonl").exists():
        assert (stacked / "diagnostics.jsonl").read_bytes() == (basic / "diagnostics.jsonl").read_bytes()
    for path in (stacked / "checkpoints").iterdir():
        assert same_state(state_of(stacked, path.stem), state_of(basic, path.stem)), path.name
    own, other = (json.loads((job / "summary.json").read_text()) for job in (stacked, basic))
    assert {k: v for k, v in own.items() if k not in WHEN} == {k: v for k, v in other.items() if k not in WHEN}


@pytest.fixture
def count_steps(monkeypatch):
    """How many trainings each step was made for."""
    made = []
    make = Stack.make
    monkeypatch.setattr(Stack, "make", lambda self, steps: (made.append(len(steps)), make(self, steps))[1])
    return made


SWEEPS = {
    "numbers": ["seed=0,1", "optimizer.lr=0.001,0.01", "tasks.even.weight=3"],
    "dropout and decay": ["encoder.dropout=0,0.2", "optimizer.weight_decay=0.1", "trainer.gradient_clip_val=null,0.5"],
    "methods": ["balancing=uncertainty,dwa", "optimizer=adamw,sgd", "optimizer.lr=0.05"],
    "rows": ["data.split.train_fraction=0.3,1", "data.split.seed=0,1", "seed=3"],
    "lengths": ["trainer.max_epochs=1,3", "trainer.early_stopping.patience=1,null", "optimizer.lr=0.3"],
    "diagnostics": ["trainer.diagnostics_every=7", "encoder.dropout=0.1,0.3", "seed=0,1"],
    "schedules": ["scheduler=cosine,linear", "trainer.checkpoint.every_n_steps=5,7", "trainer.max_steps=20"],
}


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_every_file_is_that_of_the_job_alone(cli, tmp_path, sweep, count_steps):
    assert cli("-m", *SMALL, *sweep, "hydra.sweep.dir=basic").code == 0
    assert not count_steps
    ended = cli("-m", *SMALL, *sweep, STACKED, "hydra.sweep.dir=stacked")
    assert (ended.code, ended.err) == (0, "")
    basic, stacked = _jobs(tmp_path / "basic"), _jobs(tmp_path / "stacked")
    assert stacked.keys() == basic.keys()
    for name, job in stacked.items():
        _assert_same(job, basic[name])
    assert max(count_steps) == len(stacked)
    assert f"{len(stacked)} jobs are trained together: " in ended.out
    for job in stacked.values():  # each log is the job's own
        log = (job / "train.log").read_text()
        assert log.count("run folder: ") == 1
        assert str(job) in log


def test_table_with_holes_categories_and_sample_weights(cli, customers, tmp_path, count_steps):
    common = ["--config-dir", "conf", "task=customers", "data.batch_size=32", "encoder.hidden=[16]", "data.bins=4"]
    common += ["tasks.segment.class_weight=balanced", "seed=0,1", "data.split.train_fraction=0.7,1"]
    assert cli("-m", *common, "hydra.sweep.dir=basic").code == 0
    assert cli("-m", *common, STACKED, "hydra.sweep.dir=stacked").code == 0
    assert max(count_steps) == 4  # also those whose bins are of other rows
    for name, job in _jobs(tmp_path / "stacked").items():
        _assert_same(job, tmp_path / "basic" / name)


def test_jobs_that_cannot_be_stacked_run_as_usual_and_are_told(cli, tmp_path, count_steps):
    quick = [*SMALL, "trainer.max_steps=2", "hydra.sweep.dir=sweep", STACKED]
    ended = cli("-m", *quick, "sharing=hard,separate", "balancing=equal,pcgrad", "seed=0,1")
    told = [line for line in ended.out.splitlines() if "is trained alone" in line]
    assert [line.partition(": ")[2] for line in told] == [
        "balancing=pcgrad (only methods that weight losses without further passes)",
        "balancing=pcgrad (only methods that weight losses without further passes)",
        "sharing=separate (only hard)",
        "sharing=separate (only hard)",
    ]
    assert ended.code == 1  # pcgrad has nothing to work on in separate models
    assert "8 jobs: 6 done, 2 failed" in ended.out
    assert set(count_steps) == {2}
    alone = cli("-m", *quick, "shared_dim=8,12", "hydra.sweep.dir=alone")
    assert alone.out.count("is trained alone: no other job of this sweep has its shape") == 2


def test_failing_jobs_cost_no_other_its_result(cli, tmp_path, count_steps):
    common = ["hydra.sweep.dir=sweep", "optimizer=sgd", STACKED]
    ended = cli("-m", *SMALL, *common, "optimizer.lr=0.1,1e20,-1,0.05")
    assert (ended.code, ended.err) == (1, "2 jobs failed; the train.log of each says why.\n")
    assert "4 jobs: 2 done, 2 failed" in ended.out
    assert "Traceback" not in ended.out
    jobs = {yaml.safe_load((j / "overrides").read_text().split()[-1].partition("=")[2]): j
            for j in _jobs(tmp_path / "sweep").values()}  # fmt: skip
    assert "must be greater than 0" in (jobs[-1] / "train.log").read_text()
    (diverged,) = (job for lr, job in jobs.items() if lr not in (0.1, -1, 0.05))
    assert "is not finite" in json.loads((diverged / "status.json").read_text())["error"]
    assert (diverged / "train.log").read_text().count("Traceback (most recent call last)") == 1
    assert cli("-m", *SMALL, "optimizer=sgd", "optimizer.lr=0.1,0.05", "hydra.sweep.dir=basic").code == 0
    for name, job in _jobs(tmp_path / "basic").items():
        _assert_same(tmp_path / "sweep" / name, job)
    started = [json.loads((job / "status.json").read_text())["started"] for job in (jobs[0.1], jobs[0.05])]
    count_steps.clear()
    assert cli("-m", *SMALL, *common, "optimizer.lr=0.1,1e20,0.05,0.2,0.3").code == 1
    again = [json.loads((job / "status.json").read_text())["started"] for job in (jobs[0.1], jobs[0.05])]
    assert again == started  # what is done is not done again
    assert max(count_steps) == 3


def test_stopped_jobs_go_on_together_or_alone(cli, tmp_path, monkeypatch):
    sweep = [*SMALL, "seed=0,1,2", STACKED]
    assert cli("-m", *sweep, "hydra.sweep.dir=whole").code == 0
    make, made = Stack.make, []

    def stop_after_some(self, steps):
        made.append(1)
        if len(made) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(Stack, "make", stop_after_some)
        ended = cli("-m", *sweep, "hydra.sweep.dir=cut")
    assert ended.code == 128 + signal.SIGTERM
    assert "3 jobs: 3 interrupted" in ended.out
    first, *others = sorted(_jobs(tmp_path / "cut").values())
    assert all(state_of(job, "last")["progress"]["step"] == 8 for job in (first, *others))
    assert cli(f"resume={first}").code == 0
    assert cli("-m", *sweep, "hydra.sweep.dir=cut").code == 0
    for name, job in _jobs(tmp_path / "cut").items():
        _assert_same(job, tmp_path / "whole" / name)


def test_jobs_that_a_signal_in_the_evaluation_of_one_stops_are_all_saved_before_theirs(cli, tmp_path, monkeypatch):
    sweep = [*SMALL, "seed=0,1,2", STACKED]
    assert cli("-m", *sweep, "hydra.sweep.dir=whole").code == 0
    evaluate, begun, scored = mtl_cli.loop.trainer.evaluate, [], []

    def stop(*given, **options):
        if not begun:
            os.kill(os.getpid(), signal.SIGTERM)
        begun.append(1)
        scored.append(evaluate(*given, **options))
        return scored[-1]

    with monkeypatch.context() as patch:
        patch.setattr(mtl_cli.loop.trainer, "evaluate", stop)
        ended = cli("-m", *sweep, "hydra.sweep.dir=cut")
    assert (ended.code, len(begun), scored) == (128 + signal.SIGTERM, 3, [])
    for job in _jobs(tmp_path / "cut").values():
        progress = state_of(job, "last")["progress"]
        assert (progress["epoch"], progress["ending"]) == (0, True)
    assert cli("-m", *sweep, "hydra.sweep.dir=cut").code == 0
    for name, job in _jobs(tmp_path / "cut").items():
        _assert_same(job, tmp_path / "whole" / name)


def test_a_second_signal_stops_at_once_and_is_recorded(cli, monkeypatch):
    make = Stack.make

    def stop(self, steps):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return make(self, steps)

    monkeypatch.setattr(Stack, "make", stop)
    ended = cli("-m", *SMALL, "seed=0,1", STACKED, "hydra.sweep.dir=cut")
    assert ended.code == 130
    assert "2 jobs: 2 interrupted" in ended.out


def test_rows_are_read_once_and_groups_have_a_limit(cli, monkeypatch, count_steps):
    read, build = [], mtl_cli.together.build_data
    monkeypatch.setattr(mtl_cli.together, "build_data", lambda *given: (read.append(1), build(*given))[1])
    few = [*SMALL, "trainer.max_steps=2", STACKED, "hydra.launcher.max_jobs=2", "hydra.sweep.dir=sweep"]
    ended = cli("-m", *few, "seed=0,1,2,3", "data.batch_size=64")
    assert ended.code == 0
    assert (len(read), set(count_steps)) == (2, {2})
    assert ended.out.count("2 jobs are trained together") == 2


@pytest.mark.parametrize(("most", "sizes", "alone"), [(3, {2}, 0), (2, {2}, 0), (1, set(), 4)])
def test_a_limit_parts_jobs_evenly_and_is_told_of_those_that_it_leaves_alone(cli, count_steps, most, sizes, alone):
    limit = f"hydra.launcher.max_jobs={most}"
    ended = cli("-m", *SMALL, "trainer.max_steps=2", STACKED, limit, "seed=0,1,2,3", "hydra.sweep.dir=sweep")
    assert (ended.code, set(count_steps)) == (0, sizes)
    assert ended.out.count(f"is trained alone: {limit}\n") == alone


def test_jobs_that_are_one_more_than_the_limit_leave_one_alone_with_the_reason(cli, count_steps):
    limit = "hydra.launcher.max_jobs=2"
    ended = cli("-m", *SMALL, "trainer.max_steps=2", STACKED, limit, "seed=0,1,2", "hydra.sweep.dir=sweep")
    assert (ended.code, set(count_steps)) == (0, {2})
    assert ended.out.count("is trained alone: hydra.launcher.max_jobs=2\n") == 1


@pytest.mark.parametrize("most", [0, -1])
def test_a_limit_below_one_is_refused(cli, tmp_path, most):
    ended = cli("-m", *SMALL, "seed=0,1", STACKED, f"hydra.launcher.max_jobs={most}", "hydra.sweep.dir=sweep")
    assert (ended.code, ended.err) == (2, f"hydra.launcher.max_jobs: must be at least 1, got {most}.\n")
    assert not (tmp_path / "sweep").exists()


def test_jobs_of_other_files_and_values_are_composed_as_hydra_does(cli, tmp_path):
    common = [*SMALL, "trainer.max_steps=2", "optimizer=adam,sgd", "extra={a: 1},[1]", "tasks.even.weight=1,2"]
    common += ["hydra.sweep.subdir=${hydra.job.num}-${optimizer.name}-${hydra.job.override_dirname}"]
    common += ["hydra.job.config.override_dirname.exclude_keys=[task,extra,trainer.max_steps,data.batch_size]"]
    assert cli("-m", *common, "hydra.sweep.dir=basic").code == 0
    assert cli("-m", *common, STACKED, "hydra.sweep.dir=stacked").code == 0
    basic, stacked = _jobs(tmp_path / "basic"), _jobs(tmp_path / "stacked")
    assert len(basic) == 8
    assert stacked.keys() == basic.keys()
    for name, job in stacked.items():
        assert (job / "config.yaml").read_text() == (basic[name] / "config.yaml").read_text()
        assert (job / "overrides").read_text() == (basic[name] / "overrides").read_text()
