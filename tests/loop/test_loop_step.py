"""One training step: the same as by hand, in pieces, and with tasks that have no labels."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from worlds import NAN, inputs, make_learner, make_rows, make_settled_learner, three_kind_rows, three_kinds

from mtl_cli.data.batches import plan_epoch
from mtl_cli.errors import ConfigError
from mtl_cli.loop import train_step
from mtl_cli.loop.diagnostics import gradient_norms
from mtl_cli.loop.passes import ValidationBatches
from mtl_cli.loop.step import compile_trunk
from mtl_cli.processes import DistributedGroup, ProcessGroup
from mtl_cli.registry import BALANCINGS, OPTIMIZERS
from mtl_cli.tasks.regression import Regression
from mtl_cli.types import Inputs

every_method = pytest.mark.parametrize("balancing", BALANCINGS.names())


def _plan(rows, batch_size=8, weights=None, epoch=0, **options):
    weights = np.ones(rows.labels.targets.shape[1]) if weights is None else np.array(weights)
    return plan_epoch(rows, epoch, batch_size=batch_size, weights=weights, seed=0, **options)


def _step(learner, rows, epoch, step, number):
    """One step; the rows themselves validate."""
    validation = ValidationBatches(rows, 8, np.ones(len(learner.objective.kinds)), 0)
    return train_step(learner, rows, epoch, step, number, validation)


def _values(learner):
    return [optimizer.flat.values.clone() for optimizer in learner.optimizers]


class ByHand(nn.Module):
    """The hand-written model of the three kinds."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(5, 8)
        self.amount, self.churn, self.segment = nn.Linear(8, 1), nn.Linear(8, 1), nn.Linear(8, 3)

    def copy(self, model):
        state = model.state_dict()
        rows = zip(*(state[f"heads.blocks.0.{leaf}"].split([1, 1, 3]) for leaf in ("weight", "bias")), strict=True)
        layer = model.sharing.encoder.layers[0]
        with torch.no_grad():
            self.shared.weight.copy_(layer.weight)
            self.shared.bias.copy_(layer.bias)
            for head, (weight, bias) in zip((self.amount, self.churn, self.segment), rows, strict=True):
                head.weight.copy_(weight)
                head.bias.copy_(bias)

    def losses(self, x, targets):
        features = torch.relu(self.shared(x))
        found = []
        for head, loss, column in (
            (self.amount, lambda out, y: functional.mse_loss(out[:, 0], y), 0),
            (self.churn, lambda out, y: functional.binary_cross_entropy_with_logits(out[:, 0], y), 1),
            (self.segment, lambda out, y: functional.cross_entropy(out, y.long()), 2),
        ):
            known = ~targets[:, column].isnan()
            found.append(loss(head(features[known]), targets[known, column]))
        return torch.stack(found)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_training_is_the_loop_that_one_would_write_by_hand(missing):
    weights = torch.tensor([1.0, 0.5, 2.0])
    rows = three_kind_rows(40, missing=missing)
    learner = make_learner(three_kinds(), optimizer_options={"lr": 0.01, "weight_decay": 0.1})
    model = ByHand()
    model.copy(learner.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    steps = 0
    for number in range(6):
        epoch = _plan(rows, weights=weights.tolist(), epoch=number)
        for step, (start, stop) in enumerate(epoch.bounds):
            assert epoch.absent[step] == ()
            x, labels = rows.gather(epoch.order[start:stop])
            optimizer.zero_grad()
            losses = model.losses(x.numeric, labels.targets)
            (weights * losses).sum().backward()
            optimizer.step()
            sums = _step(learner, rows, epoch, step, steps).sums
            ours = sums / torch.from_numpy(epoch.counts[step]).float()
            torch.testing.assert_close(ours, losses.detach(), rtol=1e-6, atol=1e-6)
            steps += 1
    assert steps == 30
    torch.testing.assert_close(learner.model.sharing.encoder.layers[0].weight, model.shared.weight, rtol=0, atol=1e-5)


@every_method
def test_pieces_of_a_batch_make_the_step_of_the_batch(balancing):
    rows = three_kind_rows(32, missing=0.3)
    results = []
    for piece in (None, 5, 16) if BALANCINGS.load(balancing).samples == 1 else (None, 16):
        learner = make_settled_learner(three_kinds(), balancing=balancing, optimizer="sgd", piece=piece)
        sums = _step(learner, rows, _plan(rows, 16), 0, 0).sums
        results.append([sums, *_values(learner)])
    for other in results[1:]:
        for whole, pieces in zip(results[0], other, strict=True):
            torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)


WITHOUT_SHARED = [name for name in BALANCINGS.names() if not BALANCINGS.load(name).needs_shared]


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
@pytest.mark.parametrize(
    ("sharing", "balancing"),
    [*(("hard", name) for name in BALANCINGS.names()), *(("separate", name) for name in WITHOUT_SHARED)],
)
def test_steps_without_labels_of_a_task_are_the_steps_of_a_run_without_that_task(
    balancing, optimizer, sharing
):  # LAB-01
    targets = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    targets[:, 1] = np.nan
    targets[0, 1] = 1.0  # the first batch, which is not visited, has a label
    x = inputs(torch.randn(12, 5))
    rows, rows_alone = make_rows(x, targets), make_rows(x, np.delete(targets, 1, 1))
    names = {"balancing": balancing, "optimizer": optimizer, "sharing": sharing}
    learner = make_settled_learner([Regression()] * 3, **names)
    alone = make_settled_learner([Regression()] * 2, tasks=[0, 2], **names)
    _copy_tasks(learner, alone, [0, 2])
    before = _of_task(learner, 1)
    for step in (1, 2):
        _step(learner, rows, _plan(rows, 4, shuffle=False), step, step)
        _step(alone, rows_alone, _plan(rows_alone, 4, shuffle=False), step, step)
    close = 1e-6 if balancing == "auto_lambda" else 1e-7  # it divides differences by small numbers
    for ours, theirs in ((0, 0), (2, 1)):
        torch.testing.assert_close(_of_task(learner, ours), _of_task(alone, theirs), rtol=0, atol=close)
    torch.testing.assert_close(_of_task(learner, None), _of_task(alone, None), rtol=0, atol=close)
    assert torch.equal(_of_task(learner, 1), before)


def _of_task(learner, task):
    """All values that a task (None: all tasks) owns, the balancing method's among them."""
    parts = [
        optimizer.flat.values[s.start : s.stop]
        for optimizer in learner.optimizers
        for s in optimizer.flat.segments
        if s.task == task
    ]
    return torch.cat([*parts, torch.empty(0)]).clone()


def _copy_tasks(learner, alone, tasks):
    for optimizer, other in zip(learner.optimizers, alone.optimizers, strict=True):
        for task, position in [(None, None), *((t, i) for i, t in enumerate(tasks))]:
            pairs = [[s for s in o.flat.segments if s.task == t] for o, t in ((optimizer, task), (other, position))]
            for source, target in zip(*pairs, strict=True):
                other.flat.values[target.start : target.stop] = optimizer.flat.values[source.start : source.stop]


@every_method
def test_steps_with_a_task_of_weight_zero_are_the_steps_of_a_run_without_that_task(balancing):
    targets = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    x = inputs(torch.randn(12, 5))
    learner, alone = (
        make_settled_learner([Regression()] * len(tasks), tasks=tasks, balancing=balancing, optimizer="sgd")
        for tasks in ([0, 1, 2], [0, 2])
    )
    _copy_tasks(learner, alone, [0, 2])
    before = _of_task(learner, 1)
    for step in range(3):
        found = []
        for own, labels, weights in ((learner, targets, [1.0, 0.0, 0.5]), (alone, targets[:, [0, 2]], [1.0, 0.5])):
            rows = make_rows(x, labels)
            validation = ValidationBatches(rows, 8, np.array(weights), 0)
            found.append(train_step(own, rows, _plan(rows, 4, weights), step, step, validation))
        torch.testing.assert_close(found[0].sums[[0, 2]], found[1].sums)
        torch.testing.assert_close(found[0].weights, found[1].weights)
        assert found[0].sums[1] > 0  # its loss is reported
    for ours, theirs in ((0, 0), (2, 1), (None, None)):
        torch.testing.assert_close(_of_task(learner, ours), _of_task(alone, theirs), rtol=0, atol=1e-6)
    assert torch.equal(_of_task(learner, 1), before)


def test_batch_whose_labels_all_have_weight_zero_trains_nothing_and_has_its_loss():
    rows = three_kind_rows(8)
    targets = rows.labels.targets.numpy().copy()
    targets[4:, :2] = NAN
    rows = make_rows(rows.inputs, targets)
    learner = make_learner(three_kinds(), balancing="famo")
    epoch = _plan(rows, 4, [1.0, 1.0, 0.0], shuffle=False)
    assert len(_step(learner, rows, epoch, 0, 0).weights) == 2
    before = _values(learner)[0]
    found = _step(learner, rows, epoch, 1, 1)
    assert (found.weights, found.sums.tolist()[:2]) == (None, [0.0, 0.0])
    assert found.sums[2] > 0
    assert torch.equal(_values(learner)[0], before)


@every_method
@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
def test_batch_without_any_label_changes_nothing(balancing, optimizer):  # LAB-13
    rows = three_kind_rows(12)
    targets = rows.labels.targets.numpy().copy()
    targets[4:8] = NAN
    rows = make_rows(rows.inputs, targets)
    learner = make_learner(three_kinds(), balancing=balancing, optimizer=optimizer)
    epoch = _plan(rows, 4, shuffle=False)
    _step(learner, rows, epoch, 0, 0)
    before, state = _values(learner), [o.state_dict() for o in learner.optimizers]
    sums = _step(learner, rows, epoch, 1, 1).sums
    assert sums.tolist() == [0.0, 0.0, 0.0]
    assert all(torch.equal(a, b) for a, b in zip(before, _values(learner), strict=True))
    assert all(a["updates"] == o.state_dict()["updates"] for a, o in zip(state, learner.optimizers, strict=True))


@every_method
def test_missing_labels_never_reach_a_gradient(balancing):
    rows = three_kind_rows(32, missing=0.6)
    learner = make_settled_learner(three_kinds(), balancing=balancing)
    for step in range(4):
        _step(learner, rows, _plan(rows), step, step)
    assert all(values.isfinite().all() for values in _values(learner))


def test_gradient_is_cut_to_the_longest_allowed():
    rows = three_kind_rows(16)
    long, short = (make_learner(three_kinds(), clip=clip, optimizer="sgd") for clip in (None, 0.1))
    for learner in (long, short):
        _step(learner, rows, _plan(rows, 16), 0, 0)
    whole = long.parameters.gradient
    assert whole.norm() > 0.1
    torch.testing.assert_close(short.parameters.gradient, whole * 0.1 / whole.norm(), rtol=1e-4, atol=0)


def test_what_balancing_learns_is_no_part_of_the_gradient_that_is_cut():
    rows = three_kind_rows(16)
    long, short = (make_learner(three_kinds(), balancing="uncertainty", clip=clip) for clip in (None, 0.1))
    for learner in (long, short):
        _step(learner, rows, _plan(rows, 16), 0, 0)
    whole = long.parameters.gradient
    torch.testing.assert_close(short.parameters.gradient, whole * 0.1 / whole.norm(), rtol=1e-4, atol=0)
    own, uncut = (learner.optimizers[1].flat.gradient for learner in (short, long))
    assert torch.equal(own, uncut)
    assert own.any()


@pytest.mark.parametrize(
    ("sharing", "balancing", "options"),
    [
        ("soft", "equal", {"strength": 5.0}),
        ("soft", "equal", {"strength": 5.0, "tie": "trace_norm"}),
        ("sluice", "equal", {"orthogonality": 5.0}),
        ("dselect_k", "equal", {"entropy": 5.0, "experts": 4}),
        ("dselect_k", "upgrad", {"entropy": 5.0, "experts": 4, "per_example": True}),
        ("low_rank", "upgrad", {"sparsity": 5.0}),
    ],
    ids=["soft", "trace norm", "sluice", "dselect_k", "per example", "low_rank"],
)
def test_penalty_of_an_architecture_is_trained_beside_the_losses(sharing, balancing, options):
    rows, gradients = three_kind_rows(8), []
    without = {key: 0.0 if value == 5.0 else value for key, value in options.items()}
    for given in (without, options):
        learner = make_learner(
            three_kinds(), sharing=sharing, sharing_options=given, balancing=balancing, optimizer="sgd",
            optimizer_options={"lr": 1e-12},
        )  # fmt: skip
        _step(learner, rows, _plan(rows), 0, 0)
        gradients.append(learner.parameters.gradient.clone())
    learner.parameters.zero_gradient()
    learner.model.sharing.penalty().backward()
    assert learner.parameters.gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradients[1] - gradients[0], learner.parameters.gradient, rtol=1e-4, atol=1e-5)


def test_penalty_of_absent_tasks_does_not_count_for_clipping():
    rows = three_kind_rows(16)
    targets = rows.labels.targets.numpy().copy()
    targets[:, 1:] = NAN
    rows = make_rows(rows.inputs, targets)
    steps = []
    for clip in (None, 0.05):
        options = {"sharing_options": {"strength": 5.0}, "optimizer": "sgd", "optimizer_options": {"lr": 1.0}}
        learner = make_learner(three_kinds(), sharing="soft", clip=clip, **options)
        before = learner.parameters.values.clone()
        _step(learner, rows, _plan(rows, 16), 0, 0)
        steps.append(learner.parameters.values - before)
    whole, cut = steps
    assert whole.norm() > 0.05
    torch.testing.assert_close(cut, whole * 0.05 / whole.norm(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (0.5, "a float as penalty, must have shape ()"),
        (torch.ones(2, requires_grad=True), "(2,) as penalty, must be ()"),
    ],
)
def test_penalty_of_an_architecture_that_is_no_tensor_of_one_number_is_refused(given, what):
    rows, learner = three_kind_rows(8), make_learner(three_kinds())
    learner.model.sharing.penalty = lambda: given
    with pytest.raises(
        ConfigError, match=re.escape(f"sharing 'hard' (mtl_cli.model.sharing.hard.HardSharing): gives {what}.")
    ):
        _step(learner, rows, _plan(rows), 0, 0)


class InThread(DistributedGroup):
    """One of several processes that are threads of this one; ``board`` is where they lay what they add up."""

    def __init__(self, rank, board, barrier):
        super().__init__(rank, len(board))
        self._board, self._barrier = board, barrier

    def add_up(self, *tensors):
        for tensor in tensors:
            self._board[self.rank] = tensor.clone()
            self._barrier.wait(60)
            tensor.copy_(torch.stack(self._board).sum(0))
            self._barrier.wait(60)

    def draws(self, training):  # the generators are those of all threads
        return ProcessGroup.draws(self, training)


def test_penalty_on_rows_counts_those_of_a_batch_smaller_than_the_processes_once():
    rows = three_kind_rows(5)  # the last batch has two rows for three processes, the one before it one for each
    options = {"per_example": True, "experts": 6, "entropy": 0.1}
    board, barrier = [None] * 3, Barrier(3)

    def trained(learner):
        epoch = _plan(rows, batch_size=3)
        for step in range(2):
            _step(learner, rows, epoch, step, step)
        return learner.parameters.values

    learners = [make_learner(three_kinds(), sharing="dselect_k", sharing_options=options) for _ in range(4)]
    threads = [replace(learner, processes=InThread(rank, board, barrier)) for rank, learner in enumerate(learners[1:])]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(trained, threads))
    alone = trained(learners[0])
    for together in found:
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_short_gradient_is_not_cut():
    rows = three_kind_rows(16)
    free, wide = (make_learner(three_kinds(), clip=clip) for clip in (None, 1e6))
    for learner in (free, wide):
        _step(learner, rows, _plan(rows, 16), 0, 0)
    assert torch.equal(free.parameters.values, wide.parameters.values)


def test_schedule_and_method_parameters_share_the_rate():
    rows = three_kind_rows(16)
    learner = make_learner(three_kinds(), balancing="uncertainty", optimizer="sgd", scheduler="linear", total_steps=10)
    before = _values(learner)
    _step(learner, rows, _plan(rows, 16), 0, 10)  # the rate is 0 at the end
    assert all(torch.equal(a, b) for a, b in zip(before, _values(learner), strict=True))


@every_method
def test_half_precision_trains(balancing):
    rows = three_kind_rows(32)
    learner = make_learner(three_kinds(), balancing=balancing, autocast=torch.bfloat16, optimizer_options={"lr": 0.02})
    losses = []
    for number in range(10):
        epoch = _plan(rows, 32, epoch=number)
        losses.append(float(_step(learner, rows, epoch, 0, number).sums.sum()))
    assert losses[-1] < losses[0]
    assert learner.parameters.values.dtype == torch.float32


@every_method
def test_categories_norm_and_dropout_train_with_every_method(balancing):
    rows = three_kind_rows(32)
    codes = torch.stack([torch.randint(3, (32,)), torch.randint(4, (32,))], 1)
    rows = make_rows(Inputs(rows.inputs.numeric, codes), rows.labels.targets.numpy())
    encoder = {"hidden": [6], "norm": "layer", "dropout": 0.2, "activation": "gelu"}
    learner = make_learner(three_kinds(), categories=(3, 4), encoder=encoder, balancing=balancing)
    before = learner.model.sharing.encoder.embedding.detach().clone()
    _step(learner, rows, _plan(rows, 32), 0, 0)
    assert not torch.equal(learner.model.sharing.encoder.embedding, before)
    assert all(values.isfinite().all() for values in _values(learner))


@every_method
def test_clipping_pieces_and_half_precision_go_together(balancing):
    rows = three_kind_rows(32, missing=0.2)
    piece = 8 if BALANCINGS.load(balancing).samples == 1 else None
    learner = make_learner(
        three_kinds(), balancing=balancing, optimizer="sgd", clip=0.05, piece=piece, autocast=torch.bfloat16
    )
    before = _values(learner)[0]
    for number in range(3):
        _step(learner, rows, _plan(rows, 16), number % 2, number)
        assert 0 < learner.parameters.gradient_norm() < 0.05001
    assert all(values.isfinite().all() for values in _values(learner))
    assert not torch.equal(before, _values(learner)[0])


@pytest.mark.parametrize("balancing", ["equal", "upgrad", "gradnorm"])
def test_a_compiled_trunk_makes_the_same_step(balancing):
    rows = three_kind_rows(40)  # the last batch is smaller: the trunk is compiled anew for it
    found = []
    for compiled in (False, True):
        learner = make_learner(three_kinds(), balancing=balancing, optimizer="sgd", encoder={"hidden": [6]})
        if compiled:
            compile_trunk(learner, backend="aot_eager")  # the compiler's own autograd, without its code generation
        for number in range(3):
            _step(learner, rows, _plan(rows, 16), number, number)
            gradient_norms(learner, rows, _plan(rows, 16), number)  # goes backward once for each task
        found.append(_values(learner)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
