"""Losses, gradients and weights that are not finite: where they came first, and steps that are left out."""

import re

import numpy as np
import pytest
import torch
from worlds import inputs, make_learner, make_rows, make_trainer, three_kind_rows, three_kinds

from mtl_cli.balancing import GradientBalancing, LossBalancing
from mtl_cli.errors import TrainingError
from mtl_cli.registry import BALANCINGS
from mtl_cli.run import RunFolder
from mtl_cli.tasks.binary import Binary

DROPOUT = {"encoder": {"hidden": [6], "dropout": 0.3}}
POISON = 13  # a row
SEEDS = {False: 0, True: 1}  # with which its batch is, or is not, the first of the first epoch


@pytest.fixture
def folder(tmp_path):
    with RunFolder.claim(tmp_path / "run") as folder:
        folder.set_status("running")
        yield folder


def _rows(poisoned=True):
    """Rows of which one has an input that overflows."""
    rows = three_kind_rows(32)
    values = rows.inputs.numeric.clone()
    values[POISON, 0] = 3e38 if poisoned else 0.0
    return make_rows(inputs(values), rows.labels.targets.numpy())


def _trained(folder, learner, rows, **options):
    trainer = make_trainer(folder, learner, rows, val=three_kind_rows(16), batch_size=8, **options)
    torch.manual_seed(0)
    trainer.fit()
    return trainer


def test_loss_that_is_not_finite_stops_long_before_the_end_of_the_epoch(folder):
    rows = make_rows(inputs(torch.randn(3000, 5)), np.ones((3000, 3), np.float32))
    learner = make_learner(three_kinds())
    trainer = make_trainer(folder, learner, rows, batch_size=2, epochs=1)
    learner.parameters.values.fill_(np.nan)
    with pytest.raises(
        TrainingError, match=r"^epoch 1, step 1: the training loss of task0, task1, task2 is not finite"
    ):
        trainer.fit()
    assert trainer.progress.step == 256


def test_bad_row_is_named_once_there_is_a_checkpoint(folder):  # LOO-02
    learner = make_learner(three_kinds())
    _trained(folder, learner, three_kind_rows(32), epochs=1)
    kept = folder.checkpoint("last").read_bytes()
    trainer = make_trainer(folder, learner, _rows(), val=three_kind_rows(16), batch_size=8, epochs=2)
    trainer.checkpoints.load("last")
    trainer.progress.finished = False  # the limit was raised
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    step = r"epoch 2, step [5-8]: the training loss of task\S*(, task\d)* is not finite"
    assert re.match(rf"{step}, at row {POISON + 1}\. Lower", str(caught.value))
    assert folder.checkpoint("last").read_bytes() == kept


@pytest.mark.parametrize("save_every_steps", [None, 2])
def test_weights_that_the_last_update_spoilt_are_never_saved(folder, save_every_steps):
    options = {"optimizer": "sgd", "optimizer_options": {"lr": 1e38}}
    learner = make_learner(three_kinds(), **options)
    learner.parameters.values.mul_(1e3)
    trainer = make_trainer(
        folder, learner, three_kind_rows(16), batch_size=8, epochs=1, steps=2, evaluate_every=5,
        save_every_steps=save_every_steps,
    )  # fmt: skip
    with pytest.raises(TrainingError, match="not finite"):
        trainer.fit()
    assert folder.checkpoints() == []


def test_optimizer_that_overflowed_is_never_saved(folder):
    """A gradient of 1e30 is finite, its square is not: Adam would stand still for ever."""
    learner = make_learner(three_kinds(), optimizer="adam")
    learner.optimizers[0].buffers["exp_avg_sq" if "exp_avg_sq" in learner.optimizers[0].buffers else "v"].fill_(np.inf)
    trainer = make_trainer(folder, learner, three_kind_rows(16), epochs=1)
    with pytest.raises(TrainingError, match=r"step 2: a weight, or what the optimizer remembers of it, is not finite"):
        trainer.fit()
    assert folder.checkpoints() == []


@pytest.mark.parametrize(
    ("balancing", "options"), [*((name, {}) for name in BALANCINGS.names()), ("coba", {"warmup": 1})]
)
@pytest.mark.parametrize("first", [False, True])
def test_skipped_step_leaves_everything_untouched(tmp_path, balancing, options, first, caplog):
    """Leaving a poisoned batch out by its numbers is leaving it out by hand, bit for bit, dropout included."""
    ends = []
    for name, rows in (("skip", _rows()), ("by hand", _rows(poisoned=False))):
        with RunFolder.claim(tmp_path / name) as folder:
            learner = make_learner(
                three_kinds(), balancing=balancing, balancing_options=options, loss_scale="initial", **DROPOUT
            )
            trainer = make_trainer(
                folder, learner, rows, val=three_kind_rows(16), batch_size=8, epochs=2, skip_nonfinite=name == "skip",
                seed=SEEDS[first],
            )  # fmt: skip
            if name == "by hand":
                _leave_out(trainer)
            torch.manual_seed(0)
            trainer.fit()
            state = trainer.checkpoints.state()
            ends.append([learner.parameters.values.clone(), *state["balancing"].values(), state["rng"]["torch"]])
            assert trainer.progress.skipped == 2
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    told = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage() and "at row" in r.getMessage()]
    assert [re.sub(r"step \d+|loss of [^ ]*(, task\d)*", "?", text) for text in told] == [
        f"epoch {epoch}, ?: the training ? is not finite, at row {POISON + 1}; step skipped" for epoch in (1, 2)
    ]


def _leave_out(trainer):
    """Passes over the batch with the row."""
    step = trainer._step

    def without(epoch, number):
        start, stop = epoch.bounds[number]
        if POISON in epoch.order[start:stop].tolist():
            trainer._recent.add(torch.zeros(3))
            trainer.progress.skipped += 1
        else:
            yield from step(epoch, number)

    trainer._step = without


def test_epoch_of_which_every_step_is_skipped_ends_the_run(folder):
    learner = make_learner(three_kinds())
    trainer = make_trainer(folder, learner, three_kind_rows(32), batch_size=8, skip_nonfinite=True)
    learner.parameters.values.fill_(np.nan)
    with pytest.raises(TrainingError, match=r"^epoch 1: none of 4 steps had finite losses and gradients: all skipped"):
        trainer.fit()
    assert folder.checkpoints() == []


@pytest.mark.parametrize(("before", "fails"), [(100, False), (0, True)])
def test_limit_after_a_skipped_step_ends_the_run_only_if_no_step_was_good(folder, before, fails):
    """A single bad step that ends an epoch before its time is no epoch without a good one."""
    learner = make_learner(three_kinds())
    trainer = make_trainer(folder, learner, _rows(), batch_size=8, steps=before + 1, epochs=99, skip_nonfinite=True)
    trainer.progress.step = before
    learner.parameters.values.fill_(np.nan)
    if fails:
        with pytest.raises(TrainingError, match=r"^epoch 1: none of 1 steps had finite losses and gradients: all skip"):
            trainer.fit()
    else:
        trainer._checks.check_weights = trainer._checks.check_evaluation = lambda *_: None
        trainer.fit()
        assert trainer.progress.finished


def test_gradients_too_large_for_float32_are_no_fault_of_the_method(folder, caplog):
    """Losses and gradients are finite, products of the gradients are not."""
    learner = make_learner([Binary(), Binary()], balancing="pcgrad")
    values = torch.randn(32, 5)
    values[POISON] = 1e24
    labels = np.tile(np.arange(32.0, dtype=np.float32)[:, None] % 2, 2)
    rows, good = make_rows(inputs(values), labels), make_rows(inputs(torch.randn(16, 5)), labels[:16])
    trainer = make_trainer(folder, learner, rows, val=good, batch_size=8, epochs=1, skip_nonfinite=True)
    trainer.fit()
    assert trainer.progress.skipped == 1
    assert "step 3: the gradient is not finite" in caplog.text
    assert "balancing" not in caplog.text


class Spoiling(LossBalancing):
    """Gives weights that are not finite from some step on, always in the same memory or not."""

    def __init__(self, good, *, same=False):
        super().__init__()
        self.left, self.memory = good, torch.ones(3) if same else None

    def weights(self, losses, tasks):  # noqa: ARG002
        self.left -= 1
        value = torch.full_like(losses, 1.0 if self.left >= 0 else np.nan)
        return value if self.memory is None else self.memory.copy_(value)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("good", [0, 1, 255, 256, 399])  # they are read after 256 steps, and 399 is the last
def test_weights_that_balancing_spoilt_are_told_as_the_cause(folder, good, same):
    rows = make_rows(inputs(torch.randn(800, 5)), np.ones((800, 3), np.float32))
    learner = make_learner(three_kinds())
    learner.balancing = Spoiling(good, same=same)
    with pytest.raises(TrainingError) as caught:
        make_trainer(folder, learner, rows, batch_size=2, epochs=1).fit()
    assert str(caught.value).startswith(
        f"step {good + 1}: {__name__}.Spoiling gave weights that are not finite for losses that are. "
    )


def test_losses_that_came_first_are_told_although_balancing_made_weights_of_them(folder):
    learner = make_learner(three_kinds(), balancing="dwa")
    learner.parameters.values.fill_(np.nan)
    with pytest.raises(TrainingError, match=r"^epoch 1, step 1: the training loss of"):
        make_trainer(folder, learner, three_kind_rows(32), epochs=1).fit()


def test_step_skipped_for_its_weights_says_so(folder, caplog):
    learner = make_learner(three_kinds())
    learner.balancing = Spoiling(3)
    trainer = make_trainer(folder, learner, three_kind_rows(32), epochs=1, skip_nonfinite=True)
    trainer.fit()
    assert trainer.progress.skipped == 1
    assert "epoch 1, step 4: test_loop_failures.Spoiling gave weights that are not finite" in caplog.text


class SpoiltUpdate(GradientBalancing):
    """Gives an update that is not finite."""

    def direction(self, jacobian, losses, tasks):  # noqa: ARG002
        return jacobian.sum(0) * np.nan, None


def test_update_of_the_first_step_that_is_not_finite_is_blamed_on_the_method(folder):
    learner = make_learner(three_kinds())
    learner.balancing = SpoiltUpdate()
    with pytest.raises(TrainingError, match=r"^test_loop_failures.SpoiltUpdate gave an update that is not finite for "):
        make_trainer(folder, learner, three_kind_rows(32), epochs=1).fit()
