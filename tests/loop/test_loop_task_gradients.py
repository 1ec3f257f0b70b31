"""Steps of methods that combine gradients: as autograd finds them, and as TorchJD's documented loop makes them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchjd.aggregation import IMTLG, MGDA, AlignedMTL, ConFIG, DualProj, FairGrad, PCGrad, Sum, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward
from torchjd.linalg import DualConeProjector
from worlds import make_learner, make_rows, three_kind_rows, three_kinds

from mtl_cli.data.batches import plan_epoch
from mtl_cli.loop import train_step
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.registry import BALANCINGS
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.regression import Regression

METHODS = [n for n in BALANCINGS.names() if BALANCINGS.load(n).needs_shared]
ONE_SAMPLE = [n for n in METHODS if BALANCINGS.load(n).samples == 1]
ON_FEATURES = [n for n in METHODS if "gradients_on" in BALANCINGS.options(n)]


def _plan(rows, batch_size, epoch=0):
    return plan_epoch(rows, epoch, batch_size=batch_size, weights=np.ones(rows.labels.targets.shape[1]), seed=0)


def _train(rows, steps=3, **names):
    learner = make_learner(three_kinds(), optimizer="sgd", encoder={"hidden": [6], "dropout": 0.2}, **names)
    torch.manual_seed(7)  # of dropout
    weights = [train_step(learner, rows, _plan(rows, 16), step, step).weights for step in range(steps)]
    return learner.parameters.values, weights


def _same(rows, monkeypatch, **names):
    own, weights = _train(rows, **names)
    monkeypatch.setattr(HardSharing, "with_jacobian", lambda *_: None)
    autograd, expected = _train(rows, **names)
    torch.testing.assert_close(own, autograd, rtol=0, atol=2e-6)
    for found, other in zip(weights, expected, strict=True):
        assert (found is None) == (other is None)
        if found is not None:
            torch.testing.assert_close(found, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("balancing", METHODS)
def test_step_without_a_graph_is_the_step_by_autograd(balancing, missing, monkeypatch):
    rows = three_kind_rows(48, missing=missing)
    _same(rows, monkeypatch, balancing=balancing)


@pytest.mark.parametrize("balancing", ON_FEATURES)
def test_the_same_for_gradients_of_features(balancing, monkeypatch):
    _same(three_kind_rows(48), monkeypatch, balancing=balancing, balancing_options={"gradients_on": "features"})


@pytest.mark.parametrize("balancing", ONE_SAMPLE)
def test_the_same_in_pieces(balancing, monkeypatch):
    _same(three_kind_rows(48), monkeypatch, balancing=balancing, piece=5)


def test_the_same_without_the_labels_of_a_task(monkeypatch):
    rows = three_kind_rows(48)
    targets = rows.labels.targets.numpy().copy()
    targets[1:, 1] = np.nan  # some step has the label, the others none
    _same(make_rows(rows.inputs, targets), monkeypatch, balancing="upgrad")


@pytest.mark.parametrize("balancing", ["gradnorm", "excess_mtl", "upgrad"])
@pytest.mark.parametrize("options", [{"hidden": [(4,)] * 3}, {"freeze": ["heads"]}], ids=["hidden", "frozen"])
def test_the_same_with_heads_that_leave_their_gradient_to_autograd(balancing, options, monkeypatch):
    _same(three_kind_rows(48), monkeypatch, balancing=balancing, **options)


def test_gradients_of_all_tasks_take_the_same_memory_in_every_step():
    rows = three_kind_rows(48)
    learner = make_learner(three_kinds(), balancing="upgrad")
    first = learner.parameters.jacobian(3)
    for step in range(3):
        train_step(learner, rows, _plan(rows, 16), step, step)
    assert learner.parameters.jacobian(3).data_ptr() == first.data_ptr()
    assert first.shape == (3, sum(p.numel() for p in learner.model.sharing.parameters()))


class Quadratic(DualConeProjector):
    """The quadratic problem of TorchJD's projections, by trying every set of active constraints (three tasks)."""

    def __call__(self, U, G):
        matrix = (G / G.trace()).double() + 1e-4 * torch.eye(len(G), dtype=torch.float64)
        return torch.stack([self._one(matrix, u.double()) for u in U.reshape(-1, len(G))]).reshape(U.shape).to(G)

    def _one(self, matrix, u):
        k = len(matrix)
        found = []
        for code in range(2**k):
            free = [i for i in range(k) if code >> i & 1]
            v = u.clone()
            if free:
                held = [i for i in range(k) if i not in free]
                right = -matrix[free][:, held] @ u[held] if held else torch.zeros(len(free), dtype=u.dtype)
                v[free] = torch.linalg.solve(matrix[free][:, free], right)
            if (v >= u - 1e-12).all():
                found.append((float(v @ matrix @ v), v))
        return min(found, key=lambda pair: pair[0])[1]


# Ours, TorchJD's, tasks. With two tasks nothing about the order of projections is left to chance.
PARITY = {
    "pcgrad": (PCGrad(), 2),
    "mgda": (MGDA(epsilon=1e-6, max_iters=100), 2),
    "imtl_g": (IMTLG(), 3),
    "aligned_mtl": (AlignedMTL(), 3),
    "config": (ConFIG(), 3),
    "fairgrad": (FairGrad(alpha=2.0), 3),
    "upgrad": (UPGrad(projector=Quadratic()), 3),
    "dualproj": (DualProj(projector=Quadratic()), 3),
    "equal": (Sum(), 3),
}


@pytest.mark.parametrize("name", PARITY)
def test_parameters_after_training_are_those_of_torchjds_loop(name):
    aggregator, tasks = PARITY[name]
    kinds, losses = [Regression(), Binary(classes=["no", "yes"]), Regression()][:tasks], []
    for kind in kinds:
        binary = isinstance(kind, Binary)
        losses.append(functional.binary_cross_entropy_with_logits if binary else functional.mse_loss)
    rows = three_kind_rows(80)
    rows = make_rows(rows.inputs, rows.labels.targets[:, [0, 1, 0]][:, :tasks].numpy())
    learner = make_learner(kinds, balancing=name, optimizer="sgd", optimizer_options={"lr": 0.05})
    encoder, heads = nn.Linear(5, 8), nn.ModuleList(nn.Linear(8, 1) for _ in kinds)
    block, layer = learner.model.heads.blocks[0], learner.model.sharing.encoder.layers[0]
    with torch.no_grad():
        encoder.weight.copy_(layer.weight)
        encoder.bias.copy_(layer.bias)
        for head, weight, bias in zip(heads, block.weight, block.bias, strict=True):
            head.weight.copy_(weight)
            head.bias.fill_(bias)
    before = encoder.weight.detach().clone()
    optimizer = torch.optim.SGD([*encoder.parameters(), *heads.parameters()], lr=0.05)
    for number in range(4):
        epoch = _plan(rows, 16, number)
        for step, (start, stop) in enumerate(epoch.bounds):
            x, labels = rows.gather(epoch.order[start:stop])
            optimizer.zero_grad()
            features = torch.relu(encoder(x.numeric))
            found = [f(head(features)[:, 0], y) for f, head, y in zip(losses, heads, labels.targets.t(), strict=True)]
            mtl_backward(found, features=features)
            jac_to_grad(encoder.parameters(), aggregator)
            optimizer.step()
            train_step(learner, rows, epoch, step, 5 * number + step)
    torch.testing.assert_close(layer.weight, encoder.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(block.weight, torch.cat([head.weight for head in heads]), rtol=0, atol=1e-5)
    assert not torch.equal(before, encoder.weight)
