"""The leaderboard shows every job: the best first, and what went wrong with the rest."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mtl_cli.errors import RunError, TrainingError
from mtl_cli.run import RunFolder
from mtl_cli.sweep import JobRecord, collect, format_table, how_jobs_ended, write
from mtl_cli.sweep.comparison import methods
from mtl_cli.sweep.leaderboard import whole_json

ROOT = Path(__file__).parents[2]


def _summary(score, mode="max", **metrics):
    return {
        "format": 1,
        "tasks": ["digit", "even"],
        "monitor": "mean",
        "mode": mode,
        "best": {"epoch": 3, "step": 120, "score": score},
        "metrics": {f"{split}/{task}/accuracy": 0.9 for split in ("val", "test") for task in ("digit", "even")}
        | {"test/mean": 0.123456789, "val/mean": score, **metrics},
        "primary": {"even": "accuracy", "digit": "accuracy"},
        "parameters": {"total": 123456, "shared": 1, "tasks": {}},
        "seconds": 99.0,  # with all that the first job of a sweep pays for the others
        "train_seconds": 3.25,
    }


def _job(path, state="done", overrides=(), summary=None, **extra):
    with RunFolder.claim(path) as run:
        run.write_config("{}\n", list(overrides))
        run.set_status(state, **extra)
        if summary is not None:
            run.write_json("summary.json", summary)


@pytest.fixture
def sweep(tmp_path):
    """Two finished jobs, one failed, one killed, one that had just begun, and two damaged in different ways."""
    _job(tmp_path / "a", overrides=["task=digits", "sharing=hard", "hydra.x=1"], summary=_summary(0.8))
    _job(tmp_path / "b", overrides=["task=digits", "sharing=mmoe", "+n=4"], summary=_summary(0.9))
    with RunFolder.claim(tmp_path / "c") as run:
        run.set_status("failed", error="trainer.lr: must be positive,\n  got -1.", exit_code=2)
    _job(tmp_path / "d", "running", ["task=digits", "sharing=ple"])
    _job(tmp_path / "e", "done", ["task=digits", "sharing=ple"])
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "train.log").touch()
    _job(tmp_path / "g", "done", ["task=digits"], {"metrics": 3})
    (tmp_path / "plots").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "leaderboard.csv").touch()
    return tmp_path


def test_every_job_is_a_record_whatever_became_of_it(sweep):
    records = {record.job: record for record in collect(sweep)}
    assert [(job, record.status) for job, record in records.items()] == [
        ("a", "done"),
        ("b", "done"),
        ("c", "failed"),
        ("d", "interrupted"),
        ("e", "damaged"),
        ("f", "interrupted"),
        ("g", "damaged"),
    ]
    best = records["b"]
    assert best.overrides == ["task=digits", "sharing=mmoe", "+n=4"]
    assert (best.score, best.mean, best.seconds, best.parameters, best.error) == (0.9, 0.123456789, 3.25, 123456, None)
    assert (best.monitor, best.mode, best.primary) == ("mean", "max", {"digit": "accuracy", "even": "accuracy"})
    assert best.metrics["test/digit/accuracy"] == 0.9
    assert records["c"].error == "trainer.lr: must be positive,; got -1."
    assert records["d"].error is None
    assert records["e"].error == f"{sweep}/e/summary.json: no such file; it holds: config.yaml, overrides, status.json."
    assert records["f"].error is None
    assert records["g"].error == (
        f"{sweep}/g/summary.json: is damaged: AttributeError 'int' object has no attribute 'items'."
    )
    assert how_jobs_ended(list(records.values())) == "7 jobs: 2 done, 2 interrupted, 1 failed, 2 damaged"


@pytest.mark.parametrize("tasks", ["{a: {kind: binary}, h: {kind: binary}}", "[{name: a, kind: binary}, {name: h}]"])
def test_a_job_was_trained_on_its_auxiliary_tasks_too_however_they_are_written(tmp_path, tasks):
    summary = {**_summary(0.9), "tasks": ["a"], "primary": {"a": "accuracy"}, "metrics": {"test/a/accuracy": 0.9}}
    _job(tmp_path / "x", summary=summary)
    (tmp_path / "x/config.yaml").write_text(f"tasks: {tasks}\n")
    (method,) = methods(collect(tmp_path))
    assert method.trained_on == {"a", "h"}


def test_a_job_whose_process_lives_is_running(tmp_path):
    with RunFolder.claim(tmp_path / "a") as run:
        run.set_status("running")
        assert [record.status for record in collect(tmp_path)] == ["running"]
    assert [record.status for record in collect(tmp_path)] == ["interrupted"]


def test_a_job_that_has_just_begun_is_running_and_one_that_lost_its_status_damaged(tmp_path):
    with RunFolder.claim(tmp_path / "a"):
        (tmp_path / "a/train.log").touch()
        assert [record.status for record in collect(tmp_path)] == ["running"]
    (tmp_path / "a/checkpoints").mkdir()
    (lost,) = collect(tmp_path)
    assert lost.error == f"{tmp_path}/a/status.json: no such file; it holds: checkpoints, train.log."


def test_a_sweep_folder_must_exist(tmp_path):
    with pytest.raises(RunError) as error:
        collect(tmp_path / "no")
    assert str(error.value) == f"{tmp_path}/no: is not a sweep's folder: there is no such folder."


def test_the_csv_has_the_best_first_and_full_precision(sweep):
    write(sweep, collect(sweep))
    with (sweep / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("rank", "job", "status", "sharing", "n", "test/digit/accuracy", "test/even/accuracy"),
        *("test/mean", "score", "parameters", "seconds", "error"),
    ]
    assert [(row["rank"], row["job"]) for row in rows] == [
        *(("1", "b"), ("2", "a")),
        *(("", job) for job in "cdefg"),
    ]
    assert (rows[0]["sharing"], rows[0]["n"], rows[1]["n"]) == ("mmoe", "4", "")
    assert rows[0]["test/mean"] == "0.123456789"
    assert rows[2]["error"] == "trainer.lr: must be positive,; got -1."


def test_the_json_has_everything(sweep):
    write(sweep, collect(sweep))
    content = json.loads((sweep / "leaderboard.json").read_text())
    assert content["format"] == 1
    assert content["summary"] == "7 jobs: 2 done, 2 interrupted, 1 failed, 2 damaged"
    assert [(job["rank"], job["job"]) for job in content["jobs"]][:3] == [(1, "b"), (2, "a"), (None, "c")]
    assert content["jobs"][0]["metrics"]["test/mean"] == 0.123456789
    assert content["jobs"][0]["overrides"] == ["task=digits", "sharing=mmoe", "+n=4"]


def test_the_json_is_the_same_for_any_terminal(tmp_path):
    text = whole_json([JobRecord("价格", "failed", error="±")])
    assert text.isascii()
    assert json.loads(text)["jobs"][0]["job"] == "价格"


def test_the_markdown_has_four_digits_and_no_broken_rows(tmp_path):
    record = JobRecord(
        "a", "done", ["x=a|b"], {"test/t/r2": 0.98765}, 0.5, primary={"t": "r2"}, mode="max", monitor="mean"
    )
    write(tmp_path, [record, JobRecord("b", "failed", ["x=c"], error="one | two")])
    assert (tmp_path / "leaderboard.md").read_text() == (
        "## Jobs, ranked by validation score (mean)\n\n"
        "| rank | job | status | x | test/t/r2 | test/mean | score | parameters | seconds | error |\n"
        "| ---: | :--- | :--- | :--- | ---: | ---: | ---: | ---: | ---: | :--- |\n"
        "| 1 | a | done | a\\|b | 0.9877 |  | 0.5000 |  |  |  |\n"
        "|  | b | failed | c |  |  |  |  |  | one \\| two |\n"
        "\n"
        "2 jobs: 1 done, 1 failed\n"
    )


def test_the_terminal_shows_the_table_the_errors_and_the_count(sweep):
    lines = format_table(collect(sweep)).splitlines()
    assert lines[:4] == [
        "Jobs, ranked by validation score (mean):",
        "rank  job  status       sharing  n  test/digit/accuracy  test/even/accuracy  test/mean   score"
        "  parameters  seconds",
        "   1  b    done         mmoe     4               0.9000              0.9000     0.1235  0.9000"
        "      123456    3.250",
        "   2  a    done         hard                     0.9000              0.9000     0.1235  0.8000"
        "      123456    3.250",
    ]
    assert lines[9] == "c: trainer.lr: must be positive,; got -1."
    assert lines[-1] == "7 jobs: 2 done, 2 interrupted, 1 failed, 2 damaged"


def test_a_wide_table_stays_in_the_terminal_and_says_what_is_missing():
    primary = {f"task_with_a_name_{i}": "accuracy" for i in range(12)}
    records = [
        JobRecord(
            f"job-{'x' * 60}-{i}", "done", [f"a.very.long.key=value{i}"],
            {f"val/{task}/accuracy": 0.5 + i / 9 for task in primary}, 0.5, primary=primary, mode="max",
        )
        for i in range(2)
    ]  # fmt: skip
    _, *lines = format_table(records).splitlines()
    assert max(map(len, lines[:3])) <= 140
    assert lines[1].split()[1] == "job-xxxxxxxxxxxx…xxxxxxxxxxxxx-0"
    assert "a.very.long.key" in lines[0]
    assert lines[3] == "(the same in all rows: status done, score 0.5000)"
    assert lines[4].startswith("(not shown, see leaderboard.md: val/task_with_a_name_")
    assert lines[4].endswith("val/task_with_a_name_11/accuracy)")


def test_what_was_swept_stays_and_what_is_the_same_goes_first():
    primary = {f"task_{i}": "accuracy" for i in range(5)}
    records = [
        JobRecord(
            f"balancing.weights.{'x' * 30}-{i}", "done", [f"balancing.weights.even={i}", f"balancing.weights.ink={-i}"],
            {f"test/task_{n}/accuracy": i / 9 for n in range(5)}, i / 9, i / 9, primary=primary, mode="max",
            parameters=51084, flops_per_row=101376, seconds=float(i),
        )
        for i in range(3)
    ]  # fmt: skip
    _, *lines = format_table(records).splitlines()
    assert max(map(len, lines)) <= 140
    header = lines[0].split()
    assert header[:5] == ["rank", "job", "balancing.weights.even", "balancing.weights.ink", "test/task_0/accuracy"]
    assert header[-3:] == ["test/mean", "score", "seconds"]
    assert lines[4] == "(the same in all rows: status done, parameters 51084, flops/row 101376)"
    assert lines[5].startswith("(not shown, see leaderboard.md: test/task_")
    # and with more keys than a terminal is wide for, costs make room for the last of them
    keys = [f"trainer.long_key_{n}" for n in range(4)]
    wide = [replace(record, overrides=[f"{key}={i}" for key in keys]) for i, record in enumerate(records)]
    header = format_table(wide).splitlines()[1].split()
    assert [name for name in header if name.startswith("trainer")] == keys
    assert "seconds" not in header


def test_no_jobs_is_no_table():
    assert format_table([]) == "0 jobs"
    assert how_jobs_ended([JobRecord("a", "done")]) == "1 job: 1 done"


def test_jobs_computed_on_different_things_are_told_of():
    one, two = (JobRecord(str(n), "done", computed_on=f"cpu with {n} CPU threads") for n in (1, 2))
    assert how_jobs_ended([one, one]) == "2 jobs: 2 done"
    assert how_jobs_ended([one, two]) == (
        "2 jobs: 2 done; computed on cpu with 1 CPU threads and on cpu with 2 CPU threads: "
        "that alone may change the last digits"
    )


def _order(*records):
    return [line.split()[:2] for line in format_table(list(records)).splitlines()[2 : len(records) + 2]]


def _scored(job, score, mode="min", monitor="val/loss"):
    return JobRecord(job, "done", score=score, mode=mode, monitor=monitor)


def test_a_lower_score_comes_first_if_that_is_better():
    assert _order(_scored("a", 0.5), _scored("b", 0.1), _scored("c", 0.3)) == [["1", "b"], ["2", "c"], ["3", "a"]]


def test_a_job_without_a_finite_score_has_no_rank():
    records = (_scored("a", None), _scored("b", float("nan")), _scored("c", 0.3), JobRecord("aa", "failed"))
    assert _order(*records) == [["1", "c"], ["a", "done"], ["b", "done"], ["aa", "failed"]]


def test_a_job_whose_mean_leaves_out_a_task_that_others_have_has_no_rank():
    def job(name, score, monitor="mean", **numbers):
        metrics = {f"val/{task}/r2": value for task, value in numbers.items()}
        return replace(_scored(name, score, "max", monitor), metrics=metrics, primary=dict.fromkeys(numbers, "r2"))

    whole, part = job("a", 0.5, x=0.5, y=0.5, z=None), job("b", 0.9, x=0.9, y=None, z=None)
    assert _order(whole, part) == [["1", "a"], ["b", "done"]]
    of_x = [replace(record, monitor="val/x/r2") for record in (whole, part)]
    assert _order(*of_x) == [["1", "b"], ["2", "a"]]


def test_scores_of_different_kinds_are_not_ranked():
    assert _order(_scored("b", 0.1), _scored("a", 0.5, "max", "mean")) == [["a", "done"], ["b", "done"]]


def test_scores_of_other_validation_rows_are_not_ranked():
    def job(name, score, **split):
        return replace(_scored(name, score), settings={f"data.split.{key}": value for key, value in split.items()})

    assert _order(job("a", 0.5, seed=0), job("b", 0.1, seed=1)) == [["a", "done"], ["b", "done"]]
    fewer = job("b", 0.1, seed=0, train_fraction=0.1)  # to train on fewer rows changes nothing of those
    assert _order(job("a", 0.5, seed=0), fewer) == [["1", "b"], ["2", "a"]]


def test_without_a_test_split_the_validation_scores_are_shown_and_called_so():
    record = JobRecord("a", "done", metrics={"val/t/auroc": 0.7}, primary={"t": "auroc"})
    assert "val/t/auroc" in format_table([record])
    with_test = JobRecord("b", "done", metrics={"val/t/auroc": 0.7, "test/t/auroc": 0.6}, primary={"t": "auroc"})
    _, header, first, second, _ = format_table([record, with_test]).splitlines()
    assert "test/t/auroc" in header
    assert "val/t/auroc" not in header
    assert first.split() == ["a", "done"]
    assert second.split() == ["b", "done", "0.6000"]


def test_a_refused_write_keeps_the_old_leaderboard(sweep, monkeypatch):
    write(sweep, [])
    before = (sweep / "leaderboard.json").read_text()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TrainingError, match=r"leaderboard\.json: cannot be written, got 'No space left on device'"):
        write(sweep, collect(sweep))
    assert (sweep / "leaderboard.json").read_text() == before


def test_neither_hydra_nor_omegaconf_is_loaded():
    code = "import sys, mtl_cli.sweep; sys.exit(bool({'hydra', 'omegaconf', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_mistake_that_jobs_have_in_common_is_told_once():
    failed = [JobRecord(f"seed-{i}", "failed", error="data.path: there is no file 'a.csv'.") for i in range(3)]
    told = format_table([*failed, JobRecord("seed-3", "failed", error="RuntimeError: other")])
    assert told.endswith(
        "\n3 jobs: data.path: there is no file 'a.csv'.\nseed-3: RuntimeError: other\n4 jobs: 4 failed"
    )
