"""What every registered balancing method promises. A new method is tested the moment it is registered."""

import copy

import pytest
import torch
from torch import nn
from worlds import AT_ONCE, settle

from mtl_cli.balancing import GradientBalancing, LossBalancing, backward
from mtl_cli.balancing.autograd import Parameters, PieceLosses, accumulator_for
from mtl_cli.registry import BALANCINGS

WITHOUT_WEIGHTS = ("graddrop", "torchjd")  # their update is no combination of the gradients by one number each
every_method = pytest.mark.parametrize("name", BALANCINGS.names())
JACOBIANS = {
    "one row zero": [[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0], [0.5, -1.0, 2.0, 0.0]],
    "all zero": [[0.0] * 4] * 3,
    "parallel": [[1.0, 2.0, 0.0, -1.0], [2.0, 4.0, 0.0, -2.0], [0.5, 1.0, 0.0, -0.5]],
    "opposed": [[1.0, 2.0, 0.0, -1.0], [-1.0, -2.0, 0.0, 1.0], [1.0, 2.0, 0.0, -1.0]],
    "conflicting": [[1.0, 2.0, 0.0, -1.0], [-2.0, 1.0, 1.0, 3.0], [0.5, -1.0, 2.0, 0.0]],
    "orthogonal": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
    "scales 1e-8 to 1e8": [[1e8, -2e8, 0.0, 1e8], [-1e-8, 2e-8, 1e-8, 0.0], [1.0, 1.0, 1.0, 1.0]],
}


def _fresh(name, tasks):
    return BALANCINGS.build(name, len(tasks), **AT_ONCE.get(name, {}))


def _settled(name, tasks):
    """A method for some tasks that has seen what it waits for."""
    return settle(_fresh(name, tasks), tasks)


class Linear(nn.Module):
    """Losses whose gradients on the shared vector are the rows of a matrix; each task has a private number too."""

    def __init__(self, jacobian):
        super().__init__()
        self.jacobian = torch.tensor(jacobian)
        self.shared = nn.Parameter(torch.zeros(self.jacobian.shape[1]))
        self.private = nn.ParameterList(nn.Parameter(torch.tensor(1.0)) for _ in jacobian)
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def losses(self):
        own = torch.stack(list(self.private))
        return self.jacobian @ self.shared + own.square() + 1.0

    def step(self, method, tasks=None):
        """One backward pass on some of the tasks; gives the shared gradient."""
        for parameter in [*self.parameters(), *method.parameters()]:
            parameter.grad = torch.zeros_like(parameter)
        losses = self.losses()
        tasks = torch.arange(len(losses)) if tasks is None else torch.tensor(tasks)
        backward(losses[tasks], method, [self.shared], list(self.private), tasks)
        return self.shared.grad


@every_method
@pytest.mark.parametrize("jacobian", JACOBIANS.values(), ids=JACOBIANS)
def test_update_is_finite(name, jacobian):
    world, method = Linear(jacobian), _settled(name, range(3))
    assert world.step(method).isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in [*world.private, *method.parameters()])


@every_method
def test_gradients_that_are_not_there_yet_are_those_that_begin_with_zeros(name):
    found = []
    for absent in (False, True):
        world, method = Linear(JACOBIANS["conflicting"]), _fresh(name, range(3))
        if absent:
            world.zero_grad()  # as optimizers do
        backward(world.losses(), method, [world.shared], list(world.private))
        found.append([parameter.grad for parameter in world.parameters()])
    for begun, there in zip(*found, strict=True):
        assert begun.equal(there)


@every_method
@pytest.mark.parametrize("jacobian", JACOBIANS.values(), ids=JACOBIANS)
def test_weights_are_finite_and_one_for_each_task(name, jacobian):
    world, method = Linear(jacobian), _settled(name, range(3))
    weights = backward(world.losses(), method, [world.shared], list(world.private))
    if weights is None:
        assert name in WITHOUT_WEIGHTS
        return
    assert weights.shape == (3,)
    assert weights.isfinite().all()
    assert not weights.requires_grad
    if isinstance(method, GradientBalancing):
        assert not weights[~world.jacobian.any(1)].any()  # of tasks without a gradient


@every_method
def test_one_task_alone_gets_the_direction_of_its_gradient(name):
    world = Linear([[3.0, -4.0, 0.0]])
    gradient = world.step(_settled(name, [0]))
    torch.testing.assert_close(gradient / gradient.norm(), torch.tensor([0.6, -0.8, 0.0]), rtol=0, atol=1e-6)


@every_method
def test_twenty_steps_with_a_task_whose_loss_is_constant_stay_finite(name):  # BAL-02
    world, method = Linear([[1.0, 0.0], [0.0, 0.0]]), _settled(name, range(2))
    for _ in range(20):
        gradient = world.step(method).clone()
        assert gradient.isfinite().all()
        assert gradient[0] > 0
        with torch.no_grad():
            world.shared -= 0.1 * gradient


@every_method
def test_a_method_says_whether_weights_of_tasks_turn_its_update_and_that_of_heads(name):
    shared, heads = [], []
    for weight in (1.0, 10.0):
        world, method = Linear(JACOBIANS["conflicting"]), _fresh(name, range(3))
        losses, weights = world.losses, torch.tensor([1.0, weight, 1.0])
        world.losses = lambda losses=losses, weights=weights: losses() * weights
        shared.append(torch.stack([world.step(method).clone() for _ in range(3)]))
        heads.append(torch.stack([parameter.grad for parameter in world.private]).unsqueeze(0))
    for steps, heeds in ((shared, method.heeds_weights), (heads, method.heads_heed_weights)):
        cosines = torch.cosine_similarity(*steps, dim=1)
        assert (float(cosines.min()) < 0.9999) == heeds, cosines


class Passes:
    """Passes over three losses w_i . x, and over the same ones in validation."""

    lr, step = 0.1, 0

    def __init__(self):
        self.jacobian, self.parameters = torch.tensor(JACOBIANS["conflicting"]), torch.ones(4)
        self.given = []

    def _give(self, value):
        self.given.append((value, value.clone()))
        return value

    def losses(self):
        return self._give(self.jacobian @ self.parameters + 5.0)

    def gradient(self, weights):
        return self._give(weights @ self.jacobian)

    validation_losses, validation_gradient = losses, gradient


@every_method
def test_what_a_method_is_given_is_left_as_it_is(name):
    method, passes = BALANCINGS.build(name, 3), Passes()
    losses, tasks, jacobian = torch.tensor([1.0, 2.0, 4.0]), torch.arange(3), torch.tensor(JACOBIANS["conflicting"])
    samples = torch.stack([jacobian] * method.samples)
    gradients, features = torch.randn(3, 5, 2), torch.randn(5, 2)
    given = [losses, tasks, jacobian, samples, gradients, features, passes.jacobian, passes.parameters]
    passes.given += [(value, value.clone()) for value in given]
    for _ in range(2):  # the second finds a state
        if method.extra_passes:
            method.before_step(passes, tasks)
        if isinstance(method, GradientBalancing):
            method.aggregate(jacobian if method.samples == 1 else samples, losses, tasks)
        else:
            if method.observes != "nothing":
                method.observe(jacobian, losses, tasks)
            method.weights(losses, tasks)
            method.penalty(tasks)
        if method.extra_passes:
            method.after_step(passes, losses, tasks)
        method.after_epoch({"a": 1.0, "b": 2.0, "c": None})
    if "gradients_on" in BALANCINGS.options(name):
        BALANCINGS.build(name, 3, gradients_on="features").aggregate_features(gradients, features, losses, tasks)
    assert all(torch.equal(value, before) for value, before in passes.given)


@every_method
def test_absent_task_leaves_the_update_of_a_run_without_it(name):  # LAB-01
    present = [0, 2]
    jacobian = JACOBIANS["conflicting"]
    world, alone = Linear(jacobian), Linear([jacobian[task] for task in present])
    method, method_alone = _settled(name, range(3)), _settled(name, present)
    for _ in range(3):
        torch.testing.assert_close(world.step(method, present), alone.step(method_alone), rtol=0, atol=1e-7)
    assert world.private[1].grad == 0


@every_method
def test_absent_task_keeps_its_state(name):
    world, method = Linear(JACOBIANS["conflicting"]), _settled(name, range(3))
    world.step(method)
    before = copy.deepcopy(method.state_dict())
    world.step(method, [0, 2])
    for parameter in method.parameters():
        assert parameter.shape[0] == 3, "row i of a method's parameter belongs to task i"
        assert parameter.grad[1].abs().max() == 0
    for key, value in method.state_dict().items():
        if value.dim() and value.shape[0] == 3:
            untouched = before[key][1] if value.shape == before[key].shape else torch.zeros_like(value[1])
            torch.testing.assert_close(value[1], untouched, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", [name for name in BALANCINGS.names() if BALANCINGS.load(name).samples > 1])
def test_task_with_labels_in_one_part_of_a_step_keeps_its_state_and_its_weight(name):
    method = _settled(name, range(3))
    jacobian, tasks = torch.tensor(JACOBIANS["conflicting"]), torch.arange(3)
    samples = torch.stack([jacobian] * method.samples)
    method.aggregate(samples, torch.ones(3), tasks)
    before = copy.deepcopy(method.state_dict())
    kept = float(method.kept(tasks)[1])
    assert kept > 0
    for part in range(method.samples):
        sparse = samples.clone()
        sparse[:, 1] = 0.0
        sparse[part, 1] = method.samples * jacobian[1]
        weights = method.aggregate(sparse, torch.ones(3), tasks)[1]
        assert float(weights[1]) == pytest.approx(kept)
    for key, value in method.state_dict().items():
        assert value[1] == before[key][1]
        assert not value.equal(before[key]), "the others move on"
    assert method.take_without_gradient() == []


@every_method
def test_state_dict_brings_the_next_step_back_bit_for_bit(name):
    jacobian = torch.randn(4, 6).tolist()
    first = _settled(name, range(4))
    for _ in range(3):
        Linear(jacobian).step(first)
        with torch.no_grad():
            for parameter in first.parameters():
                parameter -= 0.1 * parameter.grad
    second = _fresh(name, range(4))
    second.load_state_dict(first.state_dict())
    again = torch.get_rng_state()  # part of every checkpoint
    steps = [Linear(jacobian).step(first).clone() for _ in range(5)]
    torch.set_rng_state(again)
    assert all(torch.equal(step, Linear(jacobian).step(second)) for step in steps)


@every_method
def test_rows_that_have_a_label_for_one_task_each_train_every_task(name):  # no two tasks ever have a row in common
    world, method = Linear(JACOBIANS["conflicting"]), _settled(name, range(3))
    for step in range(6):
        gradient = world.step(method, [step % 3])
        own = world.jacobian[step % 3]
        assert gradient @ own > 0
        torch.testing.assert_close(gradient / gradient.norm(), own / own.norm(), rtol=0, atol=1e-5)
        others = [float(p.grad) for task, p in enumerate(world.private) if task != step % 3]
        assert others == [0.0, 0.0]


@every_method
def test_pieces_of_a_batch_give_the_gradient_of_the_batch(name):
    torch.manual_seed(1)
    x, labels = torch.randn(12, 5), torch.randn(12, 3)
    shared, private = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(4, 3))
    gradients = []
    for pieces in (1, 2, 4) if BALANCINGS.load(name).samples == 1 else (1, 1):  # else pieces are what it compares
        method = _settled(name, range(3))
        everything = [shared, private, *method.parameters()]
        for parameter in everything:
            parameter.grad = torch.zeros_like(parameter)
        accumulator = accumulator_for(method, Parameters([shared], [private]), torch.arange(3))
        for rows, targets in zip(x.chunk(pieces), labels.chunk(pieces), strict=True):
            losses = ((rows @ shared).tanh() @ private - targets).square().sum(0) / 12
            accumulator.add(PieceLosses(losses, losses.detach()))
        batch = accumulator.finish()
        gradients.append([batch.losses, batch.sums, *(parameter.grad.clone() for parameter in everything)])
    for pieces in gradients[1:]:
        for whole, part in zip(gradients[0], pieces, strict=True):
            torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)


@every_method
def test_sparse_gradients_of_a_table_of_embeddings_give_what_dense_ones_give(name):
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(1)
        table, heads, method = nn.Embedding(7, 4, sparse=sparse), nn.Linear(4, 3), _settled(name, range(3))
        everything = [*table.parameters(), *heads.parameters(), *method.parameters()]
        for _ in range(3):
            for parameter in everything:
                parameter.grad = torch.zeros_like(parameter)
            losses = (heads(table(torch.tensor([0, 5, 5, 2]))) - torch.randn(4, 3)).square().mean(0)
            backward(losses, method, list(table.parameters()), list(heads.parameters()))
        gradients.append([parameter.grad for parameter in everything])
    for dense, sparse in zip(*gradients, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=1e-6)


@every_method
def test_private_parameters_keep_the_gradient_of_their_own_loss(name):  # BAL-01
    world, method = Linear(JACOBIANS["conflicting"]), _settled(name, range(3))
    losses, tasks = world.losses(), torch.arange(3)
    weights = backward(losses, method, [world.shared], list(world.private))
    if isinstance(method, GradientBalancing):
        weights = method.own_weights(losses.detach(), tasks) if method.weighs_own else torch.ones(3)
    for i, parameter in enumerate(world.private):
        assert float(parameter.grad) == pytest.approx(2.0 * float(weights[i]), rel=1e-6)


@every_method
def test_method_says_in_its_source_whether_it_needs_shared_parameters(name):
    cls = BALANCINGS.load(name)
    looks = getattr(cls, "observes", "nothing") != "nothing"
    assert getattr(cls, "needs_shared", False) == (issubclass(cls, GradientBalancing) or looks)
    assert issubclass(cls, GradientBalancing) != issubclass(cls, LossBalancing)
