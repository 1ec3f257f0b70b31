"""PCGrad against its definition, TorchJD and the reference vectors."""

import itertools

import pytest
import torch
from torch import nn
from torchjd.aggregation import PCGrad as Oracle

from mtl_cli.balancing import backward
from mtl_cli.balancing.pcgrad import PCGrad
from mtl_cli.errors import ConfigError

K_REFERENCE = [[1.0, 0.0, 2.0], [-1.0, 3.0, 0.0], [0.5, -1.0, -1.0]]


def _ours(jacobian, seed=0):
    k = len(jacobian)
    return PCGrad(k, seed=seed).aggregate(jacobian, torch.ones(k), torch.arange(k))


def _projected(jacobian, task, order):
    """The definition, in float64: gradient of a task after it met the others in the given order."""
    gradient = jacobian[task].clone()
    for other in order:
        dot = gradient @ jacobian[other]
        if dot < 0:
            gradient -= dot / jacobian[other].square().sum() * jacobian[other]
    return gradient


def _all_orders(jacobian):
    """Every update that some random orders can give."""
    k = len(jacobian)
    per_task = [
        [_projected(jacobian, i, order) for order in itertools.permutations(j for j in range(k) if j != i)]
        for i in range(k)
    ]
    return torch.stack([torch.stack(choice).sum(0) for choice in itertools.product(*per_task)])


def test_update_is_the_reference_vector():  # reference/methods.md 2.3, measured with TorchJD 0.18
    update, weights = _ours(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
    torch.testing.assert_close(update, torch.tensor([0.5848, 3.8012, 3.8012]), rtol=0, atol=1e-4)
    assert weights.min() >= 1.0


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks_give_the_update_of_torchjd(seed):
    jacobian = torch.randn(2, 7, generator=torch.Generator().manual_seed(seed))
    # 1e-5: the Gramian is float32, then float64
    torch.testing.assert_close(_ours(jacobian)[0], Oracle()(jacobian), rtol=1e-5, atol=1e-5)


def test_some_of_those_pairs_conflict():
    pairs = [torch.randn(2, 7, generator=torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert 5 <= sum(float(a @ b) < 0 for a, b in pairs) <= 15


@pytest.mark.parametrize("seed", range(5))
def test_tasks_without_conflict_give_the_sum_as_torchjd_does(seed):
    jacobian = torch.rand(5, 7, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(_ours(jacobian)[0], jacobian.sum(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(_ours(jacobian)[0], Oracle()(jacobian), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "jacobian",
    [torch.tensor(K_REFERENCE), torch.randn(4, 3, generator=torch.Generator().manual_seed(1))],
    ids=["reference", "four tasks"],
)
def test_every_update_is_that_of_some_order_and_all_orders_come(jacobian):
    possible = _all_orders(jacobian.double()).float()
    distinct = {tuple(round(v, 3) for v in update) for update in possible.tolist()}
    seen = set()
    for seed in range(300 if len(jacobian) == 3 else 60):
        update = _ours(jacobian, seed)[0]
        distance = (possible - update).abs().amax(1).min()
        assert distance < 1e-4
        seen.add(tuple(round(v, 3) for v in update.tolist()))
    assert len(distinct) > 1
    if len(jacobian) == 3:
        assert len(seen) == len(distinct)


def test_updates_of_torchjd_are_among_those_orders():
    jacobian = torch.tensor(K_REFERENCE)
    possible = _all_orders(jacobian.double()).float()
    for _ in range(20):
        assert (possible - Oracle()(jacobian)).abs().amax(1).min() < 1e-4


def test_orders_follow_the_seed_and_change_from_step_to_step():  # BAL-04
    jacobian = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    runs = []
    for seed in (1, 1, 2):
        method = PCGrad(4, seed=seed)
        runs.append(torch.stack([method.aggregate(jacobian, torch.ones(4), torch.arange(4))[0] for _ in range(10)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert len(runs[0].unique(dim=0)) > 1


def test_orders_do_not_touch_the_global_generator():
    before = torch.get_rng_state()
    _ours(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_heads_keep_the_gradient_of_their_own_loss():  # BAL-01
    shared = nn.Parameter(torch.zeros(2))
    heads = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    for parameter in (shared, *heads):
        parameter.grad = torch.zeros_like(parameter)
    losses = torch.stack([shared[0] + 3 * heads[0].sum(), -shared[0] + shared[1] + 5 * heads[1].sum()])
    backward(losses, PCGrad(2), [shared], heads)
    torch.testing.assert_close(shared.grad, torch.tensor([0.5, 1.5]), rtol=0, atol=1e-6)
    assert heads[0].grad.tolist() == [3.0, 3.0, 3.0]
    assert heads[1].grad.tolist() == [5.0]


def test_zero_gradient_conflicts_with_nothing():  # BAL-02
    update, _ = _ours(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert update.tolist() == [1.0, 0.0]


def test_projection_is_on_the_joined_vector_of_all_parameters():  # BAL-04
    p, q = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    p.grad, q.grad = torch.zeros(1), torch.zeros(1)
    backward(torch.stack([(p - q).sum(), (-p + 1.5 * q).sum()]), PCGrad(2), [p, q])
    assert float(p.grad) == pytest.approx(0.48077, abs=1e-5)
    assert float(q.grad) == pytest.approx(0.40385, abs=1e-5)


def test_without_shared_parameters_there_is_nothing_to_project():
    own = nn.Parameter(torch.zeros(2))
    own.grad = torch.zeros(2)
    with pytest.raises(ConfigError) as caught:
        backward(own + 1.0, PCGrad(2), [], [own])
    assert str(caught.value) == (
        "balancing: PCGrad works on shared parameters, and none is trained here. "
        "Use a method that weights losses (balancing=equal), or an architecture that shares (sharing=hard)."
    )
