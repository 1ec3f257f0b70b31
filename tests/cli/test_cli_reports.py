"""Bug reports of other tools about logs, monitors, final numbers and sweeps, each named by the behaviour."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from worlds import BASE_VAL, base_table

from mtl_cli.commands import evaluate
from mtl_cli.commands.entry import run

QUICK = ["task=digits", "experiment=smoke", "encoder.hidden=[]", "shared_dim=16"]
LINE = ["--config-dir", "conf", "task=base"]


@pytest.fixture
def train(cli, base):
    """Runs mtl-train on the cases' common problem."""
    base()
    return lambda *arguments: cli(*LINE, *arguments)


def test_log_of_a_run_without_a_terminal_is_a_few_plain_lines(train, cli):
    # LOG-03: no bars, no control characters, and not a line for each of 1000 steps
    ended = train(
        "data.batch_size=1", "trainer.max_epochs=125", "trainer.check_val_every_n_epoch=25", "hydra.run.dir=run"
    )
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 1000
    swept = cli("-m", *LINE, "seed=0,1", "hydra.sweep.dir=sweep")
    for text in (ended.out, swept.out + swept.err, Path("run/train.log").read_text()):
        assert not re.search(r"[\r\x1b\x08]", text)
    assert len([line for line in ended.out.splitlines() if line.startswith("epoch ")]) == 5
    assert ended.out.count("\n") < 60


def test_stored_configuration_trains_the_same_run_again(train, write, cli):
    # LOG-04: overrides are in it, and so are the seed and, beside it, the versions
    assert train("optimizer.lr=0.5", "extra.note=x", "hydra.run.dir=run").code == 0
    text = Path("run/config.yaml").read_text()
    assert re.search(r"^optimizer:\n(  .*\n)*  lr: 0\.5\n", text, re.MULTILINE)
    assert "note: x" in text
    write({"conf/task/again.yaml": f"# @package _global_\n{text}"})
    assert cli("--config-dir", "conf", "task=again", "hydra.run.dir=again").code == 0
    assert Path("again/metrics.jsonl").read_bytes() == Path("run/metrics.jsonl").read_bytes()
    assert Path("again/config.yaml").read_text() == text
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["seed"], {"torch", "python", "mtl-train"} <= summary["versions"].keys()) == (0, True)


def test_logged_validation_numbers_are_of_all_rows(train, capsys):
    # LOG-05: the last batch holds one row, an outlier
    assert train("data.batch_size=3", "trainer.max_epochs=1", "tasks.a.weight=2", "hydra.run.dir=run").code == 0
    lines = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    logged = next(line for line in lines if line["split"] == "val")
    assert run(evaluate.evaluate, ["run", "--split", "val", "--out", "val.json"]) == 0
    found = json.loads(Path("val.json").read_text())["metrics"]
    assert {"val/a/loss", "val/b/loss", "val/loss"} <= found.keys()
    assert {key: logged[key] for key in found} == pytest.approx(found, abs=1e-6)


def test_log_that_cannot_be_written_does_not_stop_the_training(train, monkeypatch):
    # LOG-01: and a configuration of any length is kept as a whole
    import logging

    names = [f"a_column_with_a_long_name_{i}" for i in range(400)]
    rows = ["id,ya,yb," + ",".join(names)]
    rows += [f"{i},{i / 8},{i % 3}," + ",".join(str((i * j) % 7) for j in range(400)) for i in range(8)]
    Path("train.csv").write_text("\n".join(rows) + "\n")
    Path("val.csv").write_text("\n".join(rows) + "\n")
    emit, calls = logging.FileHandler.emit, []

    def failing(self, record):
        calls.append(record)
        if len(calls) > 2:
            try:
                raise OSError(28, "No space left on device")
            except OSError:
                self.handleError(record)
            return
        emit(self, record)

    monkeypatch.setattr(logging.FileHandler, "emit", failing)
    ended = train("input_dim=400", f"data.inputs=[{','.join(names)}]", "hydra.run.dir=run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("Lines are missing there.") == 1
    config = Path("run/config.yaml").read_text()
    assert all(f"- {name}\n" in config for name in names)
    assert json.loads(Path("run/status.json").read_text())["state"] == "done"


def test_there_is_always_a_total_to_monitor_and_others_are_listed(train):
    # CKP-05, CKP-06: and the chosen direction is written down
    assert train("monitor=val/loss", "hydra.run.dir=run").code == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["monitor"], summary["mode"]) == ("val/loss", "min")
    assert train("monitor=val/b/accuracy", "hydra.run.dir=up").code == 0
    assert json.loads(Path("up/summary.json").read_text())["mode"] == "max"
    ended = train("monitor=val/b/accurcy", "hydra.run.dir=no")
    assert ended.code == 2
    assert ended.err == (
        "monitor (command line): there is no number 'val/b/accurcy' to monitor. Did you mean 'val/b/accuracy'?\n"
    )
    ended = train("monitor=eval_loss", "hydra.run.dir=no")
    assert (ended.code, "val/loss" in ended.err, Path("no").exists()) == (2, True, False)


def test_run_without_a_best_epoch_says_so_and_keeps_its_last_weights(train, capsys):
    # CKP-04: one validation row: r2 is never defined
    Path("val.csv").write_text("".join(base_table(BASE_VAL).splitlines(keepends=True)[:2]))
    ended = train("only=[a]", "monitor=val/a/r2", "hydra.run.dir=run")
    assert (ended.code, ended.err) == (0, "")
    assert "weights of the last epoch, 2 (no best checkpoint by val/a/r2)" in ended.out
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["last.pt"]
    assert run(evaluate.evaluate, ["run", "--checkpoint", "best"]) == 2
    assert capsys.readouterr().err == (
        "--checkpoint: run has no 'best'. No evaluation gave a number to judge by, or trainer.checkpoint.save_top_k "
        "is 0. Known: last.\n"
    )


def test_report_names_the_checkpoint_that_its_numbers_are_of(train):
    # CKP-07: other weights, other numbers
    Path("test.csv").write_text(base_table(BASE_VAL).replace("2.9", "0.9"))
    ended = train("data.test=test.csv", "trainer.max_epochs=40", "optimizer.lr=0.1", "hydra.run.dir=run")
    summary = json.loads(Path("run/summary.json").read_text())
    epoch = summary["best"]["epoch"]
    assert epoch < 40
    assert f"weights of epoch {epoch}, the best by mean" in ended.out
    found = {}
    for name in ("best", "last"):
        assert run(evaluate.evaluate, ["run", "--checkpoint", name, "--out", f"{name}.json"]) == 0
        found[name] = json.loads(Path(f"{name}.json").read_text())["metrics"]
    tested = {key: value for key, value in summary["metrics"].items() if key.startswith("test/")}
    assert found["best"] == tested
    assert found["last"] != tested


def test_precision_that_there_is_not_is_refused(train):
    # RES-06: no loss scaler, whose state could be lost
    ended = train("trainer.precision=fp16", "hydra.run.dir=run")
    assert ended.code == 2
    assert re.fullmatch(r"trainer\.precision \(command line\): must be .*bf16-mixed.*, got 'fp16'\..*\n", ended.err)


def test_job_that_diverges_fails_and_the_best_is_among_the_rest(train, cli, tmp_path):
    # SWP-02
    ended = cli("-m", *LINE, "optimizer=sgd", "optimizer.lr=0.01,1e30,0.05", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    assert "3 jobs: 2 done, 1 failed" in ended.out
    with (tmp_path / "sweep/leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["status"]) for row in rows] == [("1", "done"), ("2", "done"), ("", "failed")]
    assert "is not finite" in rows[2]["error"]
    assert (tmp_path / "sweep" / rows[2]["job"] / "train.log").stat().st_size


def test_sweep_may_stop_at_its_first_failure(train, cli, tmp_path):
    # SWP-01: and goes on with what is missing when it is run again without
    line = ["-m", *LINE, "optimizer.lr=0.1,-1,0.01", "hydra.sweep.dir=sweep"]
    ended = cli(*line, "stop_on_failure=true")
    assert (ended.code, ended.err) == (1, "1 job failed; the train.log of each says why.\n")
    assert "job 2: not started, since another one failed (stop_on_failure)" in ended.out
    assert "2 jobs: 1 done, 1 failed" in ended.out
    ended = cli(*line, "stop_on_failure=false")
    assert ended.code == 1
    assert "3 jobs: 2 done, 1 failed" in ended.out
    assert ended.out.count("epoch 1: ") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_whoever_has_read_enough_hears_no_complaint(unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    code = "from mtl_cli.commands.entry import leave, run; leave(run(lambda _: print('a table')))"
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, env=env, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")
