"""Looks at the gradients of the tasks: right, without effect on training, and once each."""

import logging

import numpy as np
import pytest
import torch
from worlds import inputs, make_learner, make_rows, make_trainer, three_kind_rows, three_kinds

from mtl_cli.data.batches import plan_epoch
from mtl_cli.loop import diagnostics
from mtl_cli.loop.diagnostics import look, relations
from mtl_cli.loop.trainer import Interrupted
from mtl_cli.registry import BALANCINGS, SHARINGS
from mtl_cli.run import RunFolder
from mtl_cli.tasks.regression import Regression

NAMES = ["task0", "task1", "task2"]
SHARING = [n for n in SHARINGS.names() if SHARINGS.load(n).shares and n not in ("esmm", "stem")]  # need categories


def _run(folder, every, **names):
    rows = three_kind_rows(40, missing=0.3)
    learner = make_learner(three_kinds(), encoder={"hidden": [6], "dropout": 0.2}, **names)
    with RunFolder.claim(folder) as run:
        trainer = make_trainer(run, learner, rows, diagnostics_every=every)
        torch.manual_seed(3)
        trainer.fit()
    return trainer


@pytest.mark.parametrize(
    "names",
    [
        *({"balancing": name} for name in BALANCINGS.names()),
        *({"sharing": name} for name in SHARING),
        {"balancing": "upgrad", "loss_scale": "initial"},
        {"autocast": torch.bfloat16},
        {"balancing": "pcgrad", "piece": 3},
    ],
    ids=lambda names: " ".join(map(str, names.values())),
)
def test_training_is_the_same_to_the_bit(tmp_path, names):
    on, off = _run(tmp_path / "on", 2, **names), _run(tmp_path / "off", 0, **names)
    assert torch.equal(on.learner.parameters.values, off.learner.parameters.values)
    assert on.metrics.read() == off.metrics.read()
    for name, value in on.learner.balancing.state_dict().items():
        torch.testing.assert_close(value, off.learner.balancing.state_dict()[name], rtol=0, atol=0, equal_nan=True)
    assert [record["step"] for record in on.diagnostics.read()] == [0, 2, 4, 6, 8]
    assert off.diagnostics.read() == []
    assert all("condition" in record for record in on.diagnostics.read())


@pytest.mark.parametrize("balancing", ["equal", "uncertainty", "mgda"])
@pytest.mark.parametrize("sharing", ["hard", "mmoe"])
def test_numbers_are_those_of_the_plain_losses(balancing, sharing):
    rows = three_kind_rows(24)
    learner = make_learner(three_kinds(), sharing=sharing, balancing=balancing)
    epoch = plan_epoch(rows, 0, batch_size=12, weights=np.array([1.0, 5.0, 0.0]), seed=0)
    found = look(learner, rows, epoch, 1, NAMES)
    batch, labels = rows.gather(epoch.order[12:24])
    gradients = []
    for task, name in enumerate(NAMES):
        scale = torch.zeros(3).index_fill_(0, torch.tensor(task), 1 / 12)
        losses, _ = learner.objective.losses(learner.model.outputs(batch), labels, scale, complete=True)
        parts = torch.autograd.grad(losses[task], learner.parameters.shared, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in parts]).double())
        assert found[f"loss/{name}"] == pytest.approx(float(losses[task].detach()), rel=1e-5)
        assert found[f"norm/{name}"] == pytest.approx(float(gradients[-1].norm()), rel=1e-5)
    conflicts = 0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = gradients[i], gradients[j]
        cosine = float(a @ b / (a.norm() * b.norm()))
        conflicts += cosine < 0
        assert found[f"cosine/task{i}/task{j}"] == pytest.approx(cosine, abs=1e-5)
        similarity = float(2 * a.norm() * b.norm() / (a.norm() ** 2 + b.norm() ** 2))
        assert found[f"similarity/task{i}/task{j}"] == pytest.approx(similarity, rel=1e-5)
    values = torch.linalg.svdvals(torch.stack(gradients))
    assert found["condition"] == pytest.approx(float(values[0] / values[-1]), rel=1e-3)
    assert found["conflicting"] == pytest.approx(conflicts / 3)
    assert not learner.parameters.gradient.any()


def test_tasks_without_labels_in_the_batch_are_not_in_the_record():
    targets = np.ones((4, 3), np.float32)
    targets[:, 1] = np.nan
    targets[0, 2] = np.nan
    rows = make_rows(inputs(torch.randn(4, 5)), targets)
    learner = make_learner([Regression()] * 3)
    found = look(learner, rows, plan_epoch(rows, 0, batch_size=4, weights=np.ones(3), seed=0), 0, NAMES)
    assert not any("task1" in key for key in found)
    assert found["overlap/task0/task2"] == 0.75
    assert -1 <= found["cosine/task0/task2"] <= 1


def test_what_is_not_defined_is_none():
    alone = relations(["a"], np.array([[4.0]]))
    assert alone == {"norm/a": 2.0, "conflicting": None, "condition": None}
    zero = relations(["a", "b"], np.array([[4.0, 0.0], [0.0, 0.0]]))
    assert zero["cosine/a/b"] is None
    assert zero["similarity/a/b"] is None
    assert zero["condition"] is None
    assert zero["norm/b"] == 0.0


def test_a_resumed_run_says_everything_once(tmp_path):
    whole = _run(tmp_path / "whole", 3)
    stops, rows = iter([None, None, None, None, 15]), three_kind_rows(40, missing=0.3)
    with RunFolder.claim(tmp_path / "cut") as run:
        learner = make_learner(three_kinds(), encoder={"hidden": [6], "dropout": 0.2})
        torch.manual_seed(3)
        with pytest.raises(Interrupted):
            make_trainer(run, learner, rows, diagnostics_every=3, interrupted=lambda: next(stops)).fit()
        learner = make_learner(three_kinds(), encoder={"hidden": [6], "dropout": 0.2})
        trainer = make_trainer(run, learner, rows, diagnostics_every=3)
        trainer.diagnostics.append({"step": 5})  # written after the checkpoint by a process that was killed
        trainer.checkpoints.load("last")
        trainer.fit()
    assert trainer.diagnostics.read() == whole.diagnostics.read()
    assert torch.equal(trainer.learner.parameters.values, whole.learner.parameters.values)


def test_nothing_shared_is_said(tmp_path, caplog):
    trainer = _run(tmp_path / "run", 2, sharing="separate")
    assert "no parameter is shared as a whole and trained" in caplog.text
    assert trainer.diagnostics.read() == []


@pytest.mark.parametrize("balancing", ["pcgrad", "gradvac", "cagrad", "mgda", "imtl_g", "nash_mtl", "graddrop", "moco"])
def test_a_task_with_zero_gradient_is_named_once_per_epoch(tmp_path, caplog, balancing):  # BAL-02
    rows = three_kind_rows(40)
    targets = rows.labels.targets[:, [0, 0]].numpy().copy()
    learner = make_learner([Regression(), Regression()], balancing=balancing, optimizer="sgd")
    block = learner.model.heads.blocks[0]
    with torch.no_grad():  # the head reads nothing: no gradient passes it, and its own weights get none
        block.weight[1] = 0.0
        targets[:, 1] = float(block.bias[1])
    with RunFolder.claim(tmp_path / "run") as run, caplog.at_level(logging.WARNING):
        trainer = make_trainer(run, learner, make_rows(rows.inputs, targets), epochs=4)
        trainer.fit()
    named = [
        record for record in caplog.messages if "the gradient of task1 on the shared parameters was zero" in record
    ]
    assert len(named) == 4
    assert trainer.progress.step == 20
    assert learner.parameters.values.isfinite().all()


@pytest.mark.parametrize("loss_scale", ["none", "initial"])
@pytest.mark.parametrize(
    ("balancing", "steps"),
    [("upgrad", 2), ("graddrop", 2), ("modo", 2), ("excess_mtl", 2), ("equal", 1), ("gradnorm", 1)],
)
def test_lengths_of_gradients_are_of_all_steps_or_where_a_method_needs_none_of_the_first(
    tmp_path, balancing, steps, loss_scale
):
    rows = three_kind_rows(24)
    targets = rows.labels.targets.numpy().copy()
    targets[:12, 1] = np.nan
    rows = make_rows(rows.inputs, targets)
    still = {"optimizer": "sgd", "optimizer_options": {"lr": 1e-12}, "loss_scale": loss_scale}
    learner = make_learner(three_kinds(), balancing=balancing, **still)
    epoch = plan_epoch(rows, 0, batch_size=12, weights=np.ones(3), seed=0)
    looks = [look(learner, rows, epoch, step, NAMES) for step in range(steps)]
    with RunFolder.claim(tmp_path / "run") as folder:
        trainer = make_trainer(folder, learner, rows, epochs=1, batch_size=12, weights=[1.0, 5.0, 0.5])
        trainer.fit()
        record = trainer.metrics.read()[0]
    logged = {name: record[f"train/{name}/gradient_norm"] for name in NAMES}
    means = {name: float(np.mean([found[f"norm/{name}"] for found in looks])) for name in NAMES}
    assert logged == pytest.approx(means, rel=1e-4)


@pytest.mark.parametrize("width", [1, 10**9], ids=["a task at a time", "all at once"])
def test_lengths_of_gradients_are_those_of_a_look(monkeypatch, width):
    monkeypatch.setattr(diagnostics, "_VALUES_AT_ONCE", width)
    targets = three_kind_rows(24).labels.targets.numpy().copy()
    targets[:, 1] = np.nan
    rows = make_rows(three_kind_rows(24).inputs, targets)
    learner = make_learner(three_kinds(), sharing="mmoe")
    epoch = plan_epoch(rows, 0, batch_size=24, weights=np.array([1.0, 1.0, 0.0]), seed=0)
    norms, without = diagnostics.gradient_norms(learner, rows, epoch, 0)
    found = look(learner, rows, epoch, 0, NAMES)
    assert norms.tolist() == pytest.approx([found["norm/task0"], found["norm/task2"]], rel=1e-6)
    assert without == (1,)


@pytest.mark.parametrize(
    ("options", "measured"),
    [
        ({"epochs": 4}, [1, 2, 3, 4]),
        ({"epochs": 5, "evaluate_every": 2}, [2, 4, 5]),
        ({"epochs": None, "steps": 16, "evaluate_every": 9}, [4]),  # five steps an epoch
    ],
)
def test_lengths_of_gradients_are_there_for_every_evaluation_and_change_nothing(tmp_path, options, measured):
    rows, ends = three_kind_rows(40, missing=0.3), []
    for measures in (True, False):
        learner = make_learner(three_kinds(), encoder={"hidden": [6], "dropout": 0.2})
        with RunFolder.claim(tmp_path / str(measures)) as run:
            trainer = make_trainer(run, learner, rows, **options)
            trainer._measures = measures
            torch.manual_seed(3)
            trainer.fit()
        ends.append(learner.parameters.values)
        records = [record for record in trainer.metrics.read() if record["split"] == "train"]
        assert [r["epoch"] for r in records if "train/task1/gradient_norm" in r] == (measured if measures else [])
    assert torch.equal(*ends)
