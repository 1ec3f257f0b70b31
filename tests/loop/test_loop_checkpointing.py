"""Checkpoints: what they refuse, and what they cannot hold."""

import os

import pytest
import torch
from worlds import make_learner, make_rows, make_trainer, three_kind_rows, three_kinds

from mtl_cli.balancing import LossBalancing
from mtl_cli.errors import RunError
from mtl_cli.job.resuming import go_on
from mtl_cli.loop.monitor import Monitor
from mtl_cli.run import RunFolder
from mtl_cli.run.checkpoint import load
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.regression import Regression


@pytest.fixture
def folder(tmp_path):
    with RunFolder.claim(tmp_path / "run") as folder:
        folder.set_status("running")
        yield folder


def test_checkpoint_of_other_tasks_is_refused(folder):
    rows = three_kind_rows(8)
    make_trainer(folder, make_learner(three_kinds()), rows, epochs=1).fit()
    pair = make_rows(rows.inputs, rows.labels.targets.numpy()[:, :2].copy())
    other = make_trainer(folder, make_learner([Regression(), Binary(classes=["no", "yes"])]), pair)
    with pytest.raises(RunError) as caught:
        other.checkpoints.load("last")
    assert str(caught.value) == (
        f"{folder.checkpoint('last')}: was trained on tasks ['task0', 'task1', 'task2'], not on ['task0', 'task1']."
    )


@pytest.mark.parametrize("world", [{"shared_dim": 9}, {"optimizer": "sgd"}, {"balancing": "uncertainty"}])
def test_checkpoint_of_another_configuration_is_refused(folder, world):
    rows = three_kind_rows(8)
    make_trainer(folder, make_learner(three_kinds()), rows, epochs=1).fit()
    with pytest.raises(RunError):
        make_trainer(folder, make_learner(three_kinds(), **world), rows).checkpoints.load("last")


def test_a_checkpoint_that_a_killed_process_left_is_removed_when_training_goes_on(folder):
    rows = three_kind_rows(8)
    trainer = make_trainer(folder, make_learner(three_kinds()), rows, epochs=4, keep=2)
    trainer.fit()
    kept = folder.checkpoints()
    assert len(kept) == 4
    left = next(f"epoch-{epoch}" for epoch in range(1, 5) if f"epoch-{epoch}" not in kept)
    folder.write_checkpoint(trainer.checkpoints.state(), left)
    make_trainer(folder, make_learner(three_kinds()), rows, epochs=4, keep=2).checkpoints.load("last")
    assert folder.checkpoints() == kept


class Killed(BaseException):
    """Stands for SIGKILL."""


def _killed_after(folder, writes, monkeypatch, **options):
    """Trains with scores that become ever better, and is killed after so many checkpoint files."""
    left, replace = [None] * writes, os.replace

    def until_killed(source, target):
        replace(source, target)
        if str(target).endswith(".pt") and (left.pop() or not left):
            raise Killed

    trainer = make_trainer(folder, make_learner(three_kinds()), three_kind_rows(8), epochs=4, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "value", lambda *_: -float(trainer.progress.step))
        patch.setattr(os, "replace", until_killed)
        with pytest.raises(Killed):
            trainer.fit()


def _steps(folder):
    return {name: load(folder.checkpoint(name))["progress"]["step"] for name in folder.checkpoints()}


@pytest.mark.parametrize("keep", [1, 2])
def test_a_kill_between_the_checkpoints_of_an_epoch_leaves_none_that_is_not_the_best(folder, monkeypatch, keep):
    rows, files = three_kind_rows(8), 2 if keep == 1 else 3
    for writes in range(2 * files, 3 * files):  # of epoch 3 none, and then all but the last one
        _killed_after(folder, writes, monkeypatch, keep=keep)
        done = 2 if writes == 2 * files else 3
        again = make_trainer(folder, make_learner(three_kinds()), rows, epochs=done, keep=keep)
        go_on(again)
        assert again.progress.finished
        kept = {f"epoch-{epoch}": epoch for epoch in (done - 1, done)} if keep == 2 else {}
        assert _steps(folder) == {"best": done, "last": done, **kept}
        assert again.scores.best.entries[0][1:] == [done, done]


def test_a_best_checkpoint_of_an_epoch_that_is_not_the_best_does_not_stand_for_it(folder):
    # An earlier version wrote it before last.pt, and was killed between the two
    rows = three_kind_rows(16)
    trainer = make_trainer(folder, make_learner(three_kinds()), rows, epochs=2, save_every_steps=1)
    trainer.fit()
    state = trainer.checkpoints.state()
    state["best"] = [[0.5, 1, 2]]
    state["progress"] |= {"epoch": 1, "step_in_epoch": 1, "step": 3}
    folder.write_checkpoint(trainer.checkpoints.state(), "best")
    folder.write_checkpoint(state, "last")
    make_trainer(folder, make_learner(three_kinds()), rows, epochs=2).checkpoints.load("last")
    assert folder.checkpoints() == ["last"]


@pytest.mark.parametrize("options", [{"monitor": "mean"}, {"keep": 0}], ids=["another monitor", "none kept"])
def test_what_was_kept_by_other_settings_does_not_outlive_a_run_that_has_nothing_left_to_train(folder, options):
    rows = three_kind_rows(8)
    make_trainer(folder, make_learner(three_kinds()), rows, epochs=2, keep=2).fit()
    again = make_trainer(folder, make_learner(three_kinds()), rows, epochs=2, **options)
    go_on(again)
    again.fit()
    assert folder.checkpoints() == ["last"]


class Forgetting(LossBalancing):
    """Keeps an average where no checkpoint finds it."""

    def __init__(self):
        super().__init__()
        self.average, self.constant, self.steps = None, torch.ones(3), 0
        self.register_buffer("kept", torch.zeros(3))

    def weights(self, losses, tasks):  # noqa: ARG002
        self.average = losses if self.average is None else 0.9 * self.average + 0.1 * losses
        self.steps += 1
        self.kept += losses
        return self.constant


def test_state_that_no_checkpoint_holds_is_told_once(folder, caplog):
    learner = make_learner(three_kinds())
    learner.balancing = Forgetting()
    make_trainer(folder, learner, three_kind_rows(32), epochs=3).fit()
    told = [r.getMessage() for r in caplog.records if "register_buffer" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(
        "test_loop_checkpointing.Forgetting: what it keeps in self.average, self.steps is no buffer: "
    )


def test_time_before_is_kept_where_the_last_checkpoint_is_damaged(folder):
    times = iter(range(0, 10**6, 10))
    rows, clock = three_kind_rows(8), lambda: next(times)
    make_trainer(folder, make_learner(three_kinds()), rows, epochs=2, clock=clock).fit()
    folder.checkpoint("last").write_bytes(b"")
    taken = load(folder.checkpoint("best"))["progress"]["seconds"]
    go_on(make_trainer(folder, make_learner(three_kinds()), rows, epochs=3))
    assert load(folder.checkpoint("last"))["progress"]["seconds"] == taken > 0
