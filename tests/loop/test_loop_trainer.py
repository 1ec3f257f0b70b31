"""Epochs, checkpoints, budgets: a run can be stopped at any step and goes on as if nothing had happened."""

import json
import sys
import types
from functools import partial

import numpy as np
import pytest
import torch
from worlds import (
    AT_ONCE,
    NAN,
    inputs,
    make_learner,
    make_rows,
    make_trainer,
    three_kind_rows,
    three_kinds,
    two_source_rows,
)

from mtl_cli.data.mixing import Mixing
from mtl_cli.errors import TrainingError
from mtl_cli.job.resuming import go_on
from mtl_cli.loop.evaluate import Evaluation
from mtl_cli.loop.trainer import Interrupted
from mtl_cli.model import MultiTaskModel
from mtl_cli.registry import BALANCINGS, SHARINGS
from mtl_cli.run import RunFolder
from mtl_cli.run.checkpoint import load

NAMES = ["task0", "task1", "task2"]
# Every method with hard sharing, every architecture with equal weights. Left out: ltb, which draws its branches anew
# with every batch, and stem and esmm, which need categories.
PAIRS = [
    *(("hard", balancing) for balancing in BALANCINGS.names()),
    *((sharing, "equal") for sharing in SHARINGS.names() if sharing not in ("hard", "ltb", "stem", "esmm")),
]
# By their formulas a task that is perfect takes all the weight.
RELATIVE = ("famo", "gls", "stch")
DROPOUT = {"encoder": {"hidden": [6], "dropout": 0.3}}
WORLDS = {
    "dropout and adamw": DROPOUT,
    "uncertainty": {**DROPOUT, "balancing": "uncertainty", "scheduler": "cosine"},
    "pcgrad": {**DROPOUT, "balancing": "pcgrad", "optimizer": "adam"},
    "momentum": {**DROPOUT, "optimizer": "sgd", "optimizer_options": {"lr": 0.05, "momentum": 0.9}, "clip": 0.5},
    "separate": {**DROPOUT, "sharing": "separate", "balancing": "uncertainty"},
}
each_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


@pytest.fixture
def claim(tmp_path):
    """Claims run folders below tmp_path by name, again and again as a resumed run does."""
    held = []

    def claim(name="run"):
        for folder in held:
            folder.release()
        held.clear()
        path = tmp_path / name
        held.append(RunFolder.claim(path, resume=path.exists()))
        held[0].set_status("running")
        return held[0]

    yield claim
    for folder in held:
        folder.release()


def _trainer(folder, world, rows, *, seed=0, **options):
    torch.manual_seed(100 + seed)  # what a new process has drawn before is not the same
    trainer = make_trainer(folder, make_learner(three_kinds(), **world), rows, **options)
    torch.manual_seed(seed)
    return trainer


def _after(trainer):
    """All that a run leaves: weights, state of optimizers and method, metrics."""
    state = trainer.checkpoints.state()
    values = [optimizer.flat.values.clone() for optimizer in trainer.learner.optimizers]
    buffers = [b for o in state["optimizers"] for b in o["buffers"].values()]
    method = [*state["balancing"].values(), *(state["loss_scale"] or {}).values()]
    return [*values, *buffers, *method], trainer.metrics.path.read_bytes(), state["best"]


def _assert_same(ours, theirs):
    for a, b in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]


def _records(folder, split=None):
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if split in (None, line["split"])]


@each_world
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(claim, world):
    rows = three_kind_rows(20, missing=0.2)
    whole = _trainer(claim("whole"), world, rows, epochs=2)
    whole.fit()
    first = _trainer(claim(), world, rows, epochs=1)
    first.fit()
    second = _trainer(claim(), world, rows, epochs=2, seed=9)
    second.checkpoints.load("last")
    second.progress.finished = False  # the limit was raised
    second.fit()
    _assert_same(_after(second), _after(whole))


@each_world
@pytest.mark.parametrize("stop", [2, 3], ids=["inside an epoch", "at its end"])
def test_training_stopped_by_a_signal_goes_on_bit_for_bit(claim, world, stop):
    rows = three_kind_rows(20, missing=0.2)  # three steps an epoch
    whole = _trainer(claim("whole"), world, rows, epochs=2)
    whole.fit()
    asked = []

    def interrupted():
        return 15 if first.progress.step >= stop and not asked.append(1) else None

    first = _trainer(claim(), world, rows, epochs=2, interrupted=interrupted)
    with pytest.raises(Interrupted) as caught:
        first.fit()
    assert caught.value.signal == 15
    assert first.progress.step == stop
    second = _trainer(claim(), world, rows, epochs=2, seed=9)
    second.checkpoints.load("last")
    assert (second.progress.epoch, second.progress.step_in_epoch, second.progress.ending) == (0, stop, stop == 3)
    second.fit()
    _assert_same(_after(second), _after(whole))


class Killed(BaseException):
    """Stands for SIGKILL."""


EVALUATIONS = {
    "one": ({"epochs": 3}, 1, (0, 3)),
    "the last": ({"epochs": 2}, 2, (1, 3)),
    "of a cut epoch": ({"epochs": None, "steps": 5}, 2, (1, 2)),
}


@each_world
@pytest.mark.parametrize(("limits", "number", "place"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_a_signal_in_an_evaluation_saves_the_steps_at_once(claim, monkeypatch, world, limits, number, place):
    monkeypatch.setattr(sys.modules["mtl_cli.loop.evaluate"], "EVALUATION_ROWS", 8)
    rows = three_kind_rows(20, missing=0.2)  # three steps an epoch, and three batches an evaluation
    whole = _trainer(claim("whole"), world, rows, diagnostics_every=2, patience=2, **limits)
    whole.fit()
    seen, outputs = [], MultiTaskModel.outputs

    def watched(model, inputs):
        seen.append(1)
        if len(seen) == 3 * number:  # SIGKILL comes in the third batch, the signal came in the first
            raise Killed
        return outputs(model, inputs)

    def interrupted():
        return 15 if len(seen) > 3 * number - 3 else None

    first = _trainer(claim(), world, rows, interrupted=interrupted, diagnostics_every=2, patience=2, **limits)
    monkeypatch.setattr(first.learner.model, "outputs", partial(watched, first.learner.model))
    with pytest.raises(Interrupted if number == 1 else Killed):
        first.fit()
    assert len(seen) == (1 if number == 1 else 6)
    assert first.metrics.size() == load(first.folder.checkpoint("last"))["metrics_size"]
    second = _trainer(claim(), world, rows, seed=9, diagnostics_every=2, patience=2, **limits)
    go_on(second)
    assert (second.progress.epoch, second.progress.step_in_epoch) == place
    second.fit()
    _assert_same(_after(second), _after(whole))
    assert second.diagnostics.size() == whole.diagnostics.size()
    assert second.checkpoints.state()["early_stopping"] == whole.checkpoints.state()["early_stopping"]


@pytest.mark.parametrize("loss_scale", ["none", "initial"])
@pytest.mark.parametrize("balancing", BALANCINGS.names())
def test_every_method_goes_on_bit_for_bit_from_inside_an_epoch(claim, balancing, loss_scale):
    if loss_scale == "initial" and balancing not in ("famo", "stch", "coba", "pcgrad"):
        pytest.skip("one method of each sort will do")
    options = AT_ONCE.get(balancing)
    world = {**DROPOUT, "balancing": balancing, "balancing_options": options, "loss_scale": loss_scale}
    rows = three_kind_rows(20, missing=0.2)  # three steps an epoch
    whole = _trainer(claim("whole"), world, rows, epochs=4)
    whole.fit()
    first = _trainer(claim(), world, rows, epochs=4, interrupted=lambda: 15 if first.progress.step == 8 else None)
    with pytest.raises(Interrupted):
        first.fit()
    second = _trainer(claim(), world, rows, epochs=4, seed=9)
    second.checkpoints.load("last")
    assert (second.progress.epoch, second.progress.step_in_epoch) == (2, 2)
    second.fit()
    _assert_same(_after(second), _after(whole))


def test_training_that_a_limit_ended_inside_an_epoch_goes_on_there_bit_for_bit(claim):
    world = {**DROPOUT, "balancing": "dwa"}  # which takes the mean losses of whole epochs
    rows = three_kind_rows(20, missing=0.2)  # three steps an epoch
    whole = _trainer(claim("whole"), world, rows, epochs=4)
    whole.fit()
    first = _trainer(claim(), world, rows, epochs=4, steps=8)
    first.fit()
    assert (first.progress.finished, first.progress.epoch, first.progress.step_in_epoch) == (True, 2, 2)
    assert first.epochs == 2 + 2 / 3
    assert [(r["epoch"], r["step"]) for r in _records(first.folder, "val")] == [(1, 3), (2, 6), (3, 8)]
    second = _trainer(claim(), world, rows, epochs=4, seed=9)
    second.checkpoints.load("last")
    second.progress.finished = False  # the limit was raised
    second.fit()
    assert second.scores.early_stopping.state() == whole.scores.early_stopping.state()
    for ours, theirs in zip(_after(second)[0], _after(whole)[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert [record for record in _records(second.folder) if record["step"] != 8] == _records(whole.folder)


@pytest.mark.parametrize("epoch_rows", ["total", "longest", 25])
@pytest.mark.parametrize("method", ["proportional", "uniform", "temperature", "annealed", "round_robin"])
def test_training_on_several_sources_goes_on_bit_for_bit_and_counts_their_rows(claim, method, epoch_rows):
    rows, mixing = two_source_rows(), Mixing(method, temperature=2.0, anneal_epochs=3, epoch=epoch_rows)
    world = DROPOUT
    whole = _trainer(claim("whole"), world, rows, epochs=3, mixing=mixing)
    whole.fit()
    sizes = np.array([12, 36])
    for record in (r for r in whole.metrics.read() if r["split"] == "train"):
        assert [record["rows/small"], record["rows/large"]] == mixing.drawn_before(sizes, record["epoch"]).tolist()
    small, large = mixing.drawn_before(sizes, 3).tolist()
    assert whole.totals.rows_by_source() == {"small": small, "large": large}
    stop = whole.schedule.steps(rows, 0) + 2  # inside the second epoch
    first = _trainer(
        claim(), world, rows, epochs=3, mixing=mixing, interrupted=lambda: 15 if first.progress.step == stop else None
    )
    with pytest.raises(Interrupted):
        first.fit()
    second = _trainer(claim(), world, rows, epochs=3, mixing=mixing, seed=9)
    second.checkpoints.load("last")
    assert (second.progress.epoch, second.progress.step_in_epoch) == (1, 2)
    second.fit()
    _assert_same(_after(second), _after(whole))
    assert second.totals.drawn.tolist() == whole.totals.drawn.tolist()


class PowerCut(Exception):
    """The process is gone at once."""


@each_world
def test_training_that_died_goes_on_from_the_last_checkpoint_bit_for_bit(claim, world):
    rows = three_kind_rows(20, missing=0.2)
    whole = _trainer(claim("whole"), world, rows, epochs=2)
    whole.fit()

    def die():
        if first.progress.step == 5:
            raise PowerCut

    first = _trainer(claim(), world, rows, epochs=2, save_every_steps=2, interrupted=die)
    with pytest.raises(PowerCut):
        first.fit()
    second = _trainer(claim(), world, rows, epochs=2, seed=9)
    second.metrics.append({"split": "train", "epoch": 2, "written after": "the checkpoint"})
    second.checkpoints.load("last")
    assert second.progress.step == 4
    second.fit()
    _assert_same(_after(second), _after(whole))


def test_same_seed_gives_the_same_run(claim):
    runs = []
    for name in ("one", "two"):
        trainer = _trainer(claim(name), WORLDS["pcgrad"], three_kind_rows(20), epochs=2)
        trainer.fit()
        runs.append(_after(trainer))
    _assert_same(*runs)


@pytest.mark.parametrize(("sharing", "balancing"), PAIRS)
def test_thirty_two_rows_are_learnt_by_heart(claim, sharing, balancing):
    few = three_kind_rows(32)
    often = torch.arange(32).repeat(8)  # eight times each, so that few checkpoints are written
    rows = make_rows(few.inputs.rows(often), few.labels.targets[often].numpy())
    learner = make_learner(
        three_kinds(), shared_dim=64, sharing=sharing, balancing=balancing, encoder={"hidden": [64]},
        optimizer_options={"lr": 0.02, "weight_decay": 0.0}, scheduler="cosine", total_steps=160,
    )  # fmt: skip
    trainer = make_trainer(claim(), learner, rows, epochs=20, batch_size=32, evaluate_every=20)
    trainer.fit()
    evaluation = trainer.evaluate(few)
    gradients = getattr(BALANCINGS.load(balancing), "needs_shared", False)  # they may favour tasks with small gradients
    assert evaluation.loss < (0.2 if gradients else 0.1 if balancing in RELATIVE else 0.05)
    assert evaluation.tasks["task0"]["r2"] > (0.98 if gradients else 0.99)
    assert evaluation.tasks["task1"]["accuracy"] == 1.0
    assert evaluation.tasks["task2"]["accuracy"] == 1.0


def test_loss_that_is_not_finite_names_its_task_and_keeps_the_checkpoint(claim):
    folder, rows = claim(), three_kind_rows(32)
    trainer = _trainer(folder, {}, rows, epochs=1, batch_size=32)
    trainer.fit()
    kept = folder.checkpoint("last").read_bytes()
    with torch.no_grad():
        trainer.learner.model.heads.blocks[0].bias[1] = NAN  # the head of task1 alone
    trainer.progress.finished = False
    trainer.limits = trainer.limits.__class__(3, None, None)
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    assert str(caught.value) == (
        "epoch 2, step 2: the training loss of task1 is not finite, in the batch of row 6, row 27, row 2, row 11, "
        "row 8, row 25, row 14, row 24 and 24 more. "
        "Lower optimizer.lr, set trainer.gradient_clip_val, or look for extreme values in the data."
    )
    assert folder.checkpoint("last").read_bytes() == kept
    assert len(_records(folder, "train")) == 1


def test_loss_that_is_not_finite_is_noticed_before_a_checkpoint_inside_the_epoch(claim):
    folder, rows = claim(), three_kind_rows(32)
    trainer = _trainer(folder, {}, rows, epochs=1, batch_size=8, save_every_steps=2)
    trainer.learner.parameters.values.fill_(NAN)
    with pytest.raises(TrainingError, match="epoch 1, step 1: the training loss of task0, task1, task2 is not finite"):
        trainer.fit()
    assert not folder.checkpoint("last").exists()


def test_last_update_that_diverges_is_no_finished_run(claim):
    folder, rows = claim(), three_kind_rows(32)
    options = {"optimizer": "sgd", "optimizer_options": {"lr": 1e30}}
    trainer = _trainer(folder, options, rows, epochs=1, batch_size=32)  # one step: its own loss is from before it
    with pytest.raises(TrainingError, match=r"epoch 1, step 1: the validation loss of .*task0.* is not finite"):
        trainer.fit()
    assert not folder.checkpoint("last").exists()


def test_metrics_hold_the_raw_mean_loss_of_the_epoch(claim):
    folder, rows = claim(), three_kind_rows(20, missing=0.3)
    trainer = _trainer(
        folder, {"optimizer": "sgd", "optimizer_options": {"lr": 1e-12}}, rows, epochs=2, weights=[1.0, 0.5, 2.0]
    )
    expected = trainer.evaluate(rows)  # weights that do not move: the mean of the epoch is that of the split
    trainer.fit()
    assert [(r["split"], r["epoch"], r["step"]) for r in _records(folder)] == [
        ("train", 1, 3), ("val", 1, 3), ("train", 2, 6), ("val", 2, 6),
    ]  # fmt: skip
    for record in _records(folder, "train"):
        for name in NAMES:
            assert record[f"train/{name}/loss"] == pytest.approx(expected.tasks[name]["loss"], rel=1e-5)
        assert record["train/loss"] == pytest.approx(expected.loss, rel=1e-5)
        assert record["lr"] == 1e-12
    assert _records(folder, "val")[0]["val/loss"] == pytest.approx(expected.loss, rel=1e-5)


def test_uncertainty_logs_raw_losses_and_its_weights(claim):  # BAL-07
    folder = claim()
    world = {"balancing": "uncertainty", "optimizer": "sgd", "optimizer_options": {"lr": 1e-12}}
    trainer = _trainer(folder, world, three_kind_rows(20), epochs=1)
    expected = trainer.evaluate(trainer.val)
    trainer.fit()
    record = _records(folder, "train")[0]
    assert [record[f"train/{name}/weight"] for name in NAMES] == pytest.approx([0.5] * 3)
    assert record["train/loss"] == pytest.approx(expected.loss, rel=1e-5)


def test_task_without_any_training_label_has_no_loss(claim):
    rows = three_kind_rows(20)
    targets = rows.labels.targets.numpy().copy()
    targets[:, 1] = NAN
    folder = claim()
    _trainer(folder, {}, make_rows(rows.inputs, targets), epochs=1).fit()
    record = _records(folder, "train")[0]
    assert record["train/task1/loss"] is None
    assert record["train/loss"] == pytest.approx(record["train/task0/loss"] + record["train/task2/loss"])
    assert _records(folder, "val")[0]["val/task1/auroc"] is None


@pytest.mark.parametrize("targets", [NAN, [[1.0] * 3] * 4 + [[NAN] * 3] * 4], ids=["no row", "half of the rows"])
def test_batches_without_a_label_are_passed_over(claim, targets):  # LAB-13
    labels = np.full((8, 3), targets, np.float32) if targets is NAN else np.array(targets, np.float32)
    trainer = _trainer(claim(), {"balancing": "pcgrad"}, make_rows(inputs(torch.randn(8, 5)), labels), batch_size=2)
    trainer.fit()
    assert trainer.learner.parameters.values.isfinite().all()
    assert trainer.progress.step == 8


def _script(trainer, scores):
    """Replays validation losses, one for each evaluation."""
    left = list(scores)
    trainer.evaluate = lambda _: _evaluation(left.pop(0))


def _evaluation(loss):
    scores = {"loss": loss, "r2": 0.5}
    return Evaluation(dict.fromkeys(NAMES, scores), dict.fromkeys(NAMES, "r2"), loss, 0.5, 0.5, ())


def _epoch_of(folder, name):
    return load(folder.checkpoint(name))["progress"]["epoch"]


def test_best_checkpoint_is_that_of_the_best_epoch(claim):
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(8), epochs=4)
    _script(trainer, [0.5, 0.2, 0.3, 0.2])
    trainer.fit()
    assert _epoch_of(folder, "best") == 2
    assert _epoch_of(folder, "last") == 4
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == ["best.pt", "last.pt"]


@pytest.mark.parametrize("undefined", [None, NAN], ids=["none", "nan"])
def test_undefined_first_score_does_not_keep_the_best_away(claim, undefined):  # CKP-04
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(8), epochs=3)
    _script(trainer, [undefined, 0.5, 0.4])
    trainer.fit()
    assert _epoch_of(folder, "best") == 3
    assert trainer.scores.best.score == 0.4


def test_scores_that_are_never_defined_leave_the_last_checkpoint_alone(claim):  # CKP-04
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(8), epochs=3)
    _script(trainer, [None] * 3)
    trainer.fit()
    assert not folder.checkpoint("best").exists()
    assert _epoch_of(folder, "last") == 3


def test_several_best_checkpoints_are_kept_and_the_worse_removed(claim):
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(8), epochs=5, keep=2)
    _script(trainer, [0.5, 0.3, 0.4, 0.6, 0.1])
    trainer.fit()
    names = sorted(path.name for path in (folder.path / "checkpoints").iterdir())
    assert names == ["best.pt", "epoch-2.pt", "epoch-5.pt", "last.pt"]
    assert _epoch_of(folder, "best") == _epoch_of(folder, "epoch-5") == 5


def test_more_best_checkpoints_than_before_have_that_of_the_best_so_far(claim):
    first = _trainer(claim(), {}, three_kind_rows(8), epochs=3)
    _script(first, [0.5, 0.1, 0.3])
    first.fit()
    second = _resumed(claim, epochs=5, keep=3)
    _script(second, [0.4, 0.2])
    second.fit()
    names = sorted(path.name for path in (second.folder.path / "checkpoints").iterdir())
    assert names == ["best.pt", "epoch-2.pt", "epoch-4.pt", "epoch-5.pt", "last.pt"]
    assert _epoch_of(second.folder, "epoch-2") == _epoch_of(second.folder, "best") == 2


def test_no_best_checkpoint_is_kept_if_none_is_wanted(claim):
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(8), epochs=2, keep=0)
    _script(trainer, [0.5, 0.3])
    trainer.fit()
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == ["last.pt"]


def test_training_stops_early_and_says_where(claim):
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(8), epochs=10, patience=2)
    _script(trainer, [0.5, 0.4, 0.45, None, 0.1])
    trainer.fit()
    assert trainer.progress.epoch == 4
    assert trainer.progress.finished
    assert _epoch_of(folder, "best") == 2


def test_patience_goes_on_after_resuming(claim):
    first = _trainer(claim(), {}, three_kind_rows(8), epochs=2, patience=2)
    _script(first, [0.4, 0.45])
    first.fit()
    second = _trainer(claim(), {}, three_kind_rows(8), epochs=10, patience=2)
    second.checkpoints.load("last")
    second.progress.finished = False
    _script(second, [0.5])
    second.fit()
    assert second.progress.epoch == 3
    assert second.scores.best.entries == [[0.4, 1, 1]]


def _resumed(claim, **options):
    """A trainer that goes on from what the last one in the folder has left."""
    trainer = _trainer(claim(), {}, three_kind_rows(8), **options)
    trainer.checkpoints.load("last")
    trainer.progress.finished = False
    return trainer


@pytest.mark.parametrize("loss", [9.0, None], ids=["a number", "none"])
def test_scores_of_another_monitor_are_not_compared(claim, caplog, loss):
    first = _trainer(claim(), {}, three_kind_rows(8), epochs=3, keep=2, patience=5, monitor="mean")
    _script(first, [0.4, 0.3, 0.5])
    first.fit()
    assert (first.scores.best.entries, first.scores.early_stopping.waited) == ([[0.5, 1, 1], [0.5, 2, 2]], 2)
    second = _resumed(claim, epochs=4, keep=2, patience=5)
    assert [record.message for record in caplog.records if "another number" in record.message] == [
        "trainer.checkpoint.monitor (val/mean before, val/loss now), trainer.early_stopping.monitor (val/mean before, "
        "val/loss now): the scores so far are of another number and count no more"
    ]
    second.checkpoints.save("last")  # a stop before the first evaluation
    third = _resumed(claim, epochs=4, keep=2, patience=5)
    assert (third.scores.best.entries, third.scores.best.outdated) == ([], [1, 2])
    assert third.scores.early_stopping.waited == 0
    _script(third, [loss])
    third.fit()
    names = sorted(path.name for path in (third.folder.path / "checkpoints").iterdir())
    assert names == (["last.pt"] if loss is None else ["best.pt", "epoch-4.pt", "last.pt"])
    assert third.scores.best.entries == ([] if loss is None else [[9.0, 4, 4]])
    assert loss is None or _epoch_of(third.folder, "best") == 4


def test_another_name_of_the_monitor_or_a_checkpoint_that_names_none_changes_nothing(claim):
    first = _trainer(claim(), {}, three_kind_rows(8), epochs=2, monitor="mean")
    _script(first, [0.4, 0.5])
    first.fit()
    assert _resumed(claim, monitor="val/mean").scores.best.entries == [[0.5, 1, 1]]
    folder = claim()
    state = load(folder.checkpoint("last"))
    del state["monitors"], state["outdated"]  # as earlier versions wrote it
    folder.write_checkpoint(state, "last")
    assert _resumed(claim, monitor="val/loss").scores.best.entries == [[0.5, 1, 1]]


def test_steps_are_a_limit_inside_an_epoch(claim):
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(20), epochs=None, steps=4)
    trainer.fit()
    assert (trainer.progress.step, trainer.progress.begun, trainer.progress.rows) == (4, 2, 28)
    assert [r["step"] for r in _records(folder, "val")] == [3, 4]


def test_what_scores_import_is_no_time_of_the_training(claim, tmp_path, monkeypatch):
    (tmp_path / "scores_of_the_test.py").write_text("import clock_of_the_test\nclock_of_the_test.now += 100.0\n")
    clock = types.ModuleType("clock_of_the_test")
    clock.now = 0.0
    monkeypatch.setitem(sys.modules, "clock_of_the_test", clock)
    monkeypatch.syspath_prepend(tmp_path)
    kinds = three_kinds()
    kinds[1].scored_by = "scores_of_the_test"
    trainer = make_trainer(claim(), make_learner(kinds), three_kind_rows(32), epochs=2, clock=lambda: clock.now)
    trainer.fit()
    assert clock.now == 100.0
    assert trainer.stopwatch.seconds() == 0.0
    del sys.modules["scores_of_the_test"]


def test_seconds_are_a_limit(claim):
    trainer = _trainer(claim(), {}, three_kind_rows(20), epochs=None)
    trainer.limits = trainer.limits.__class__(None, None, 1e-9)
    trainer.fit()
    assert trainer.progress.step == 1
    assert trainer.progress.seconds > 0


def test_evaluations_can_be_rarer_and_the_last_epoch_always_has_one(claim):
    folder = claim()
    _trainer(folder, {}, three_kind_rows(8), epochs=5, evaluate_every=2).fit()
    assert [r["epoch"] for r in _records(folder, "val")] == [2, 4, 5]
    assert [r["epoch"] for r in _records(folder, "train")] == [1, 2, 3, 4, 5]


def test_steps_of_an_epoch_are_counted(claim):
    trainer = _trainer(claim(), {}, three_kind_rows(20))
    assert trainer.schedule.steps(trainer.train, 0) == 3


def test_weights_of_the_best_epoch_can_be_loaded_alone(claim):
    folder = claim()
    trainer = _trainer(folder, {}, three_kind_rows(20), epochs=3)
    real = trainer.evaluate
    losses = [0.5, 0.1, 0.3]
    seen = []

    def evaluate(rows):
        seen.append(real(rows).loss)
        return _evaluation(losses[len(seen) - 1])

    trainer.evaluate = evaluate
    trainer.fit()
    trainer.checkpoints.load_weights("best")
    assert real(trainer.val).loss == seen[1]
    assert trainer.progress.epoch == 3
