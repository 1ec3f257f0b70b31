"""Numbers that are not finite, from the command line: training stops or skips, and what is kept is finite."""

import json
import re

import pytest

from mtl_cli.run.checkpoint import load

RUN = ["--config-dir", "conf", "task=base", "hydra.run.dir=run"]
# An input whose square is no 32-bit number, not scaled: the losses of the batch with row 4 are infinite
HUGE = [0.1, 0.5, 0.9, 1e30, 0.7, 0.2, 0.6, 0.8]


def _finite(run):
    files = list((run / "checkpoints").glob("*.pt"))
    return [name for file in files for name, value in load(file)["model"].items() if not value.isfinite().all()] == []


def _status(run):
    status = json.loads((run / "status.json").read_text())
    return status["state"], status.get("exit_code")


def test_exploding_training_stops_and_keeps_the_last_finite_state(cli, base, tmp_path):  # LOO-02
    base(ya=[1.0, 2.0, 3.0, 1e30, 2.5, 0.5, 1.2, 2.2])
    ended = cli(
        *RUN, "optimizer=sgd", "optimizer.lr=1e9", "trainer.max_epochs=50", "trainer.checkpoint.every_n_steps=1"
    )
    assert ended.code == 1
    assert re.fullmatch(r"(epoch \d+, )?step \d+: .* not finite.*\n", ended.err), ended.err
    assert _status(tmp_path / "run") == ("failed", 1)
    assert not (tmp_path / "run/summary.json").exists()
    assert _finite(tmp_path / "run")


def test_batch_that_cannot_be_learned_from_stops_and_is_named(cli, base, tmp_path):  # LOO-02
    base(x1=HUGE)
    ended = cli(*RUN, "data.scale=none")
    assert ended.code == 1
    assert re.fullmatch(r"epoch 1, step \d: the training loss of .*a.* is not finite, in .*\bid 4\b.*\n", ended.err)
    assert _status(tmp_path / "run") == ("failed", 1)
    assert not (tmp_path / "run/summary.json").exists()


def test_steps_that_are_not_finite_are_skipped_counted_and_told(cli, base, tmp_path, records):  # LOO-02
    base(x1=HUGE)
    ended = cli(*RUN, "data.scale=none", "trainer.on_nonfinite=skip")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads((tmp_path / "run/summary.json").read_text())["skipped_steps"] == 2
    assert [record["skipped"] for record in records(tmp_path / "run", "train")] == [1, 2]
    assert "epoch 1: 1 of 2 steps skipped\n" in ended.out
    assert _finite(tmp_path / "run")


def test_epoch_with_predictions_that_overflow_is_never_the_best_and_told_so(cli, base, tmp_path):
    base(val={"x1": [1e6, -1e6, 1e6, -1e6]})
    ended = cli(*RUN, "+tasks.a.transform=log1p", "data.scale=none")
    assert (ended.code, ended.err) == (0, "")
    assert "no mean, for predictions of a are not finite, or too large to score\n" in ended.out
    told = "val: predictions of task 'a' are not finite, or too large to score: it has no r2, rmse, mae, pearson"
    assert f"{told}; so there is no mean.\n" in ended.out
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["best"], summary["metrics"]["val/mean"], summary["metrics"]["val/worst"]) == (None, None, None)
    assert summary["metrics"]["val/loss"] > 0


def test_nothing_left_to_skip_stops(cli, base, tmp_path):  # LOO-02
    base(x1=HUGE)
    ended = cli(*RUN, "data.scale=none", "trainer.on_nonfinite=skip", "data.batch_size=8")
    assert ended.code == 1
    assert ended.err.startswith("epoch 1: none of 1 steps had finite losses and gradients: all skipped. ")
    assert _status(tmp_path / "run") == ("failed", 1)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_last_batch_of_one_row_and_batches_of_one_row(cli, base, tmp_path, norm):  # MOD-01
    base()
    for size in (7, 1):
        ended = cli(*RUN[:-1], f"hydra.run.dir=run{size}", f"data.batch_size={size}", f"encoder.norm={norm}")
        assert (ended.code, ended.err) == (0, "")
        assert json.loads((tmp_path / f"run{size}/summary.json").read_text())["steps"] == 2 * -(-8 // size)
