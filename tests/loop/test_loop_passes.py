"""More passes in a step, the scale of losses, and what balancing gets and leaves in the metrics."""

import json

import numpy as np
import pytest
import torch
from worlds import NAN, make_learner, make_rows, make_trainer, three_kind_rows, three_kinds

from mtl_cli.balancing.scale import InitialScale
from mtl_cli.data.batches import own_piece, plan_epoch
from mtl_cli.loop import train_step
from mtl_cli.loop.passes import StepPasses, ValidationBatches
from mtl_cli.registry import BALANCINGS
from mtl_cli.run import RunFolder
from mtl_cli.tasks.regression import Regression

DROPOUT = {"hidden": [6], "dropout": 0.5}


def _plan(rows, weights=(1.0, 1.0, 1.0), size=8):
    return plan_epoch(rows, 0, batch_size=size, weights=np.array(weights), seed=0)


def _passes(learner, rows, step=0, **options):
    epoch = _plan(rows)
    tasks = torch.tensor([t for t in range(3) if t not in epoch.absent[step]])

    def batch():
        start, stop = epoch.bounds[step]
        size = learner.piece or stop - start
        for first in range(start, stop, size):
            yield own_piece(learner.processes, rows, epoch, first, min(first + size, stop))

    validation = ValidationBatches(rows, 8, np.ones(3), 0)
    return StepPasses(learner, batch, epoch, step, tasks, step, validation, **options), epoch


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_losses_and_gradient_are_those_of_the_step(missing):
    rows = three_kind_rows(24, missing=missing)
    learner = make_learner(three_kinds(), optimizer="sgd", piece=3)
    passes, epoch = _passes(learner, rows)
    losses = passes.losses()
    gradient = passes.gradient(torch.ones(len(losses)))
    sums = train_step(learner, rows, epoch, 0, 0).sums
    torch.testing.assert_close(losses, (sums * epoch.scale[0])[torch.from_numpy(epoch.counts[0] > 0)])
    torch.testing.assert_close(gradient, learner.parameters.gradient, rtol=1e-5, atol=1e-6)


def test_a_gradient_of_the_step_before_is_in_no_pass():
    rows = three_kind_rows(24)
    learner = make_learner(three_kinds(), optimizer="sgd")
    passes, _ = _passes(learner, rows)
    for gradient in (passes.gradient, passes.validation_gradient):
        found = []
        for before in (0.0, 7.0):
            learner.parameters.gradient.fill_(before)
            found.append(gradient(torch.ones(3)))
        assert torch.equal(*found)


def test_the_first_loss_of_a_task_is_looked_for_in_a_step_without_another():  # and nothing warns of it
    rows = three_kind_rows(16)
    targets = rows.labels.targets.numpy().copy()
    targets[:, 2] = NAN
    learner = make_learner(three_kinds(), optimizer="sgd", loss_scale="initial")
    epoch = _plan(make_rows(rows.inputs, targets))
    sums = train_step(learner, make_rows(rows.inputs, targets), epoch, 0, 0).sums
    torch.testing.assert_close(learner.loss_scale.first, torch.tensor([*(sums[:2] / 8).tolist(), NAN]), equal_nan=True)


@pytest.mark.parametrize("batch", [0, 1])
def test_each_sample_of_a_batch_is_an_estimate_of_the_whole(monkeypatch, batch):
    rows = three_kind_rows(10)
    learner, seen = make_learner(three_kinds(), balancing="modo", optimizer="sgd"), []
    original = learner.balancing.aggregate
    monkeypatch.setattr(learner.balancing, "aggregate", lambda j, *rest: seen.append(j.clone()) or original(j, *rest))
    epoch = _plan(rows, size=5)
    start, stop = epoch.bounds[batch]
    expected = []
    for part in (epoch.order[start : start + 3], epoch.order[start + 3 : stop]):  # 3 and 2 rows
        inputs, labels = rows.gather(part)
        outputs = learner.model.outputs(inputs)
        losses, _ = learner.objective.losses(outputs, labels, torch.full((3,), 1 / len(part)), complete=True)
        rows_of = [torch.autograd.grad(loss, learner.parameters.shared, retain_graph=True) for loss in losses]
        expected.append(torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows_of]))
    train_step(learner, rows, epoch, batch, 0)
    torch.testing.assert_close(seen[0], torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_length_of_a_gradient_is_that_of_the_whole_batch_however_many_samples_a_method_takes():
    rows = three_kind_rows(10, missing=0.2)
    found = []
    for balancing in ("upgrad", "modo", "sdmgrad"):  # 5 rows; 3 and 2; 2, 2 and 1
        learner = make_learner(three_kinds(), balancing=balancing, optimizer="sgd")
        found.append(train_step(learner, rows, _plan(rows, size=5), 1, 0).norms)
    for norms in found[1:]:
        torch.testing.assert_close(norms, found[0], rtol=1e-5, atol=1e-7)


def test_every_pass_of_a_step_draws_the_dropout_of_the_step():
    rows = three_kind_rows(24)
    learner = make_learner(three_kinds(), encoder=DROPOUT, optimizer="sgd")
    passes, epoch = _passes(learner, rows)
    one, two = passes.losses(), passes.losses()
    passes.validation_losses()
    sums = train_step(learner, rows, epoch, 0, 0).sums
    assert torch.equal(one, two)
    torch.testing.assert_close(one, sums * epoch.scale[0])
    assert not torch.allclose(passes.losses(), one)  # the parameters have moved
    assert learner.model.training


def test_validation_batches_visit_every_row_and_say_which_labels_are_missing():
    rows = three_kind_rows(20)
    targets = rows.labels.targets.numpy().copy()
    targets[:, 1] = NAN
    batches = ValidationBatches(make_rows(rows.inputs, targets), 8, np.ones(3), 0)
    seen = []
    for step in range(3):
        plan, batch = batches.at(step)
        seen += plan.order[slice(*plan.bounds[batch])].tolist()
    assert sorted(seen) == list(range(20))
    assert batches.at(3)[0].order.tolist() != batches.at(0)[0].order.tolist()
    passes, _ = _passes(make_learner(three_kinds()), make_rows(rows.inputs, targets))
    assert passes.validation_losses().isnan().tolist() == [False, True, False]
    assert passes.validation_gradient(torch.ones(3)).isfinite().all()


def test_validation_rows_are_read_no_more_at_once_than_those_of_the_step(monkeypatch):
    rows, found = three_kind_rows(24, missing=0.3), []
    for piece in (None, 3):
        learner, read = make_learner(three_kinds(), piece=piece), []
        original = learner.losses
        monkeypatch.setattr(learner, "losses", lambda p, *a, f=original, n=read, **k: n.append(p.own) or f(p, *a, **k))
        passes, _ = _passes(learner, rows)
        found.append([passes.validation_losses(), passes.validation_gradient(torch.tensor([1.0, 0.5, 2.0]))])
        assert read == ([8, 8] if piece is None else [3, 3, 2, 3, 3, 2])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_methods_that_need_validation_rows_say_so_without_them():
    rows = three_kind_rows(16)
    with pytest.raises(RuntimeError, match="CoBa needs validation rows in every step"):
        train_step(make_learner(three_kinds(), balancing="coba"), rows, _plan(rows), 0, 0)


def test_initial_scale_is_each_tasks_first_loss_and_stays():
    scale = InitialScale(3)
    asked = []

    def losses(*values):
        return lambda: asked.append(values) or torch.tensor(values)

    assert scale.factor(torch.tensor([0, 2]), losses(4.0, 0.0)).tolist() == [0.25, 1.0, 1.0]  # 0 divides nothing
    assert scale.factor(torch.tensor([0, 1]), losses(9.0, 0.5)).tolist() == [0.25, 2.0, 1.0]
    assert scale.factor(torch.arange(3), losses(1.0, 1.0, 1.0)).tolist() == [0.25, 2.0, 1.0]
    assert len(asked) == 2
    other = InitialScale(3)
    other.load_state_dict(scale.state_dict())
    assert other.factor(torch.arange(3), losses(1.0, 1.0, 1.0)).tolist() == [0.25, 2.0, 1.0]
    other.load_state_dict({"first": torch.tensor([4.0, torch.nan, torch.nan])})  # of a step before the others came
    assert other.factor(torch.arange(3), losses(9.0, 0.5, 0.1)).tolist() == pytest.approx([0.25, 2.0, 10.0])


@pytest.mark.parametrize("piece", [None, 3])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1000.0, 1.0, 0.001), (2.0, 0.0, 1.0)])
def test_losses_start_at_the_weight_of_their_task_with_initial_scale(piece, weights):
    rows = three_kind_rows(24, missing=0.2)
    seen = []
    learner = make_learner(three_kinds(), optimizer="sgd", loss_scale="initial", piece=piece, balancing="si")
    original = learner.balancing.weights
    learner.balancing.weights = lambda losses, tasks: seen.append(losses) or original(losses, tasks)
    epoch = _plan(rows, weights)
    sums = train_step(learner, rows, epoch, 0, 0).sums
    torch.testing.assert_close(learner.loss_scale.first, sums / torch.from_numpy(epoch.counts[0]).float())
    torch.testing.assert_close(seen[0], torch.tensor([weight for weight in weights if weight]))
    assert learner.loss_scale._complete  # no step waits for the device any more


def test_only_methods_that_ask_for_more_passes_are_called_before_and_after_a_step():
    rows = three_kind_rows(16)
    for asks in (False, True):
        learner, called = make_learner(three_kinds(), loss_scale="initial"), []
        learner.balancing.extra_passes = asks
        learner.balancing.before_step = lambda *_, called=called: called.append("before")
        learner.balancing.after_step = lambda *_, called=called: called.append("after")
        train_step(learner, rows, _plan(rows), 0, 0)
        assert called == (["before", "after"] if asks else [])


def _trained(tmp_path, rows, *, weights=None, epochs=2, learner=None, **world):
    learner = make_learner(three_kinds(), **world) if learner is None else learner
    with RunFolder.claim(tmp_path) as folder:
        trainer = make_trainer(folder, learner, rows, epochs=epochs, weights=weights)
        trainer.fit()
        return trainer, [r for r in trainer.metrics.read() if r["split"] == "train"]


def test_losses_in_the_metrics_are_not_scaled(tmp_path):
    rows = three_kind_rows(24)
    still = {"optimizer": "sgd", "optimizer_options": {"lr": 1e-12}}
    records = [
        _trained(tmp_path / scale, rows, loss_scale=scale, **still)[1][0] for scale in ("none", "initial")
    ]  # weights that do not move
    for key in ("train/task0/loss", "train/loss"):
        assert records[1][key] == pytest.approx(records[0][key], rel=1e-5)


def test_weight_in_the_metrics_is_the_mean_over_the_steps_with_labels(tmp_path):
    rows = three_kind_rows(24, missing=0.0)
    targets = rows.labels.targets.numpy().copy()
    targets[:, 1] = NAN
    targets[3, 1] = 1.0  # in one of three steps only
    targets[:, 2] = NAN
    learner = make_learner(three_kinds(), balancing="rlw")
    drawn = {0: [], 1: []}
    original = learner.balancing.weights

    def weights(losses, tasks):
        found = original(losses, tasks)
        for task, weight in zip(tasks.tolist(), found.tolist(), strict=True):
            drawn[task].append(weight)
        return found

    learner.balancing.weights = weights
    _, records = _trained(tmp_path / "run", make_rows(rows.inputs, targets), epochs=1, learner=learner)
    assert (len(drawn[0]), len(drawn[1])) == (3, 1)
    assert records[0]["train/task0/weight"] == pytest.approx(np.mean(drawn[0]))
    assert records[0]["train/task1/weight"] == pytest.approx(drawn[1][0])
    assert records[0]["train/task2/weight"] is None


@pytest.mark.parametrize("balancing", BALANCINGS.names())
def test_metrics_hold_the_loss_and_the_weight_of_every_task(tmp_path, balancing):
    _, records = _trained(tmp_path / "run", three_kind_rows(16, missing=0.2), epochs=1, balancing=balancing)
    for task in range(3):
        assert np.isfinite(records[0][f"train/task{task}/loss"])
        # GradDrop keeps or drops single values: its update is no weighted sum. TorchJD tells no weights.
        assert balancing in ("graddrop", "torchjd") or np.isfinite(records[0][f"train/task{task}/weight"])


def test_task_with_one_label_in_eight_counts_as_much_as_another(tmp_path):  # BAL-13
    """A loss is the mean over labelled rows, so the number of labels is no weight; a weight is in no metric."""
    rows = three_kind_rows(16)
    targets = np.stack([rows.labels.targets[:, 0].numpy()] * 2, 1)
    targets[np.arange(16) % 8 != 0, 1] = NAN
    rows = make_rows(rows.inputs, targets)
    still = {"optimizer": "sgd", "optimizer_options": {"lr": 1e-12}}
    found = []
    for weights in ([1.0, 1.0], [1.0, 10.0]):
        learner = make_learner([Regression(), Regression()], **still)
        trainer, _ = _trained(tmp_path / str(weights[1]), rows, weights=weights, epochs=1, learner=learner)
        found.append(trainer.evaluate(rows))
    assert found[1].tasks == found[0].tasks
    assert found[0].loss == pytest.approx(sum(scores["loss"] for scores in found[0].tasks.values()))
    assert found[1].loss == pytest.approx(found[0].tasks["task0"]["loss"] + 10 * found[0].tasks["task1"]["loss"])


def test_means_of_the_epoch_reach_the_method_in_the_scale_of_its_losses(tmp_path):
    learner = make_learner(three_kinds(), optimizer="sgd", optimizer_options={"lr": 1e-12}, loss_scale="initial")
    told = []
    learner.balancing.after_epoch = told.append
    _, records = _trained(tmp_path / "run", three_kind_rows(8), weights=[1.0, 2.0, 3.0], epochs=1, learner=learner)
    assert list(told[0]) == ["task0", "task1", "task2"]
    assert list(told[0].values()) == pytest.approx([1.0, 2.0, 3.0])  # one batch an epoch, and it is the first
    assert json.dumps(records[0])
