"""Methods that weight losses: exact numbers and limits."""

import math

import pytest
import torch
from torch import nn

from mtl_cli.balancing import Balancing, LossBalancing, backward
from mtl_cli.balancing.autograd import Parameters, PieceLosses, accumulator_for
from mtl_cli.balancing.equal import Equal
from mtl_cli.balancing.fixed import Fixed
from mtl_cli.balancing.uncertainty import Uncertainty
from mtl_cli.errors import ConfigError
from mtl_cli.registry import BALANCINGS

LOSSES = torch.tensor([1.0, 2.0, 4.0])


def _total(method, losses=LOSSES):
    """The number whose gradient is the update."""
    tasks = torch.arange(len(losses))
    penalty = method.penalty(tasks)
    total = (method.weights(losses, tasks) * losses).sum()
    return total if penalty is None else total + penalty


def _gradient(method, losses_of, x):
    x.grad = torch.zeros_like(x)
    for parameter in method.parameters():
        parameter.grad = torch.zeros_like(parameter)
    backward(losses_of(x), method, [x])
    return x.grad.clone()


def test_totals_are_the_reference_values():  # reference/methods.md 2.3: Sum 7, UW 3.5
    assert float(_total(Equal(3))) == 7.0
    assert float(_total(Uncertainty(3)).detach()) == 3.5
    assert float(_total(Fixed(3, weights=[1.0, 0.5, 0.25]))) == 3.0


def test_equal_is_the_gradient_of_the_sum():
    x = nn.Parameter(torch.randn(5))
    jacobian = torch.randn(3, 5)
    assert torch.equal(_gradient(Equal(3), lambda x: jacobian @ x, x), _plain_sum(jacobian, x))


def _plain_sum(jacobian, x):
    (gradient,) = torch.autograd.grad((jacobian @ x).sum(), x)
    return gradient


def test_fixed_without_weights_is_equal():
    x = nn.Parameter(torch.randn(5))
    jacobian = torch.randn(3, 5)
    gradients = [_gradient(method, lambda x: jacobian @ x, x) for method in (Equal(3), Fixed(3))]
    assert torch.equal(*gradients)


def test_fixed_weight_of_zero_takes_a_task_out():
    x = nn.Parameter(torch.zeros(2))
    assert _gradient(Fixed(2, weights=[2.0, 0.0]), lambda x: x, x).tolist() == [2.0, 0.0]


def test_drawn_weights_are_a_list_that_all_seeds_share():
    drawn = [Fixed(3, draw=n).values for n in range(1, 401)]
    torch.manual_seed(5)
    assert torch.equal(Fixed(3, draw=2).values, drawn[1])
    every = torch.stack(drawn)
    assert (every > 0).all()
    torch.testing.assert_close(every.sum(1), torch.full((400,), 3.0))
    torch.testing.assert_close(every.mean(0), torch.ones(3), rtol=0, atol=0.1)
    # Evenly on the simplex: a share of 3 weights has the density 2 (1 - x), so that 1/4 of all are above 1/2.
    torch.testing.assert_close((every > 1.5).float().mean(), torch.tensor(0.25), rtol=0, atol=0.04)
    with pytest.raises(ConfigError, match=r"balancing\.draw: gives weights of its own"):
        Fixed(2, draw=1, weights=[1.0, 2.0])


def test_fixed_weights_go_to_the_tasks_that_are_present():
    method = Fixed(3, weights=[1.0, 2.0, 3.0])
    assert method.weights(torch.ones(2), torch.tensor([0, 2])).tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "balancing.fixed.weights: must be 3 numbers, got [1.0]."),
        ({"a": 1.0}, "balancing.fixed.weights: must be 3 numbers, got {'a': 1.0}."),
        ([1.0, 1.0, -1.0], "balancing.fixed.weights[2]: must be at least 0, got -1.0."),
    ],
    ids=["too few", "by name", "negative"],
)
def test_fixed_refuses_wrong_weights(weights, message):
    with pytest.raises(ConfigError) as caught:
        Fixed(3, weights=weights)
    assert str(caught.value) == message


@pytest.mark.parametrize("loss", [0.01, 1.0, 30.0])
def test_uncertainty_learns_the_logarithm_of_the_loss(loss):  # BAL-07
    method = Uncertainty(1)
    losses = torch.tensor([loss])
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        _total(method, losses).backward()
        optimizer.step()
    assert float(method.log_variance.detach()) == pytest.approx(math.log(loss), abs=1e-3)
    assert float(_total(method, losses).detach()) == pytest.approx(0.5 * (1 + math.log(loss)), abs=1e-5)


def test_uncertainty_total_may_be_negative():  # BAL-07: -1.8026 at loss 0.01
    method = Uncertainty(1, initial=math.log(0.01))
    assert float(_total(method, torch.tensor([0.01])).detach()) == pytest.approx(-1.8026, abs=1e-4)


def test_uncertainty_gradients_are_those_of_the_formula():
    method = Uncertainty(2, initial=0.3)
    x = nn.Parameter(torch.tensor([1.0, -2.0]))
    gradient = _gradient(method, lambda x: x.square(), x)
    expected = 0.5 * math.exp(-0.3) * 2 * torch.tensor([1.0, -2.0])
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)
    by_s = 0.5 - 0.5 * math.exp(-0.3) * torch.tensor([1.0, 4.0])
    torch.testing.assert_close(method.log_variance.grad, by_s, rtol=1e-6, atol=1e-7)


class Geometric(LossBalancing):
    """Geometric mean: its weights depend on the losses of the whole batch."""

    def weights(self, losses, tasks):  # noqa: ARG002
        return losses.log().mean().exp() / (len(losses) * losses)


def test_method_whose_weights_depend_on_the_losses_sees_the_whole_batch():
    x = nn.Parameter(torch.tensor([1.0, 3.0]))
    x.grad = torch.zeros(2)
    accumulator = accumulator_for(Geometric(), Parameters([x]), torch.arange(2))
    for share in (0.25, 0.75):
        losses = share * x.square()
        accumulator.add(PieceLosses(losses, losses.detach()))
    batch = accumulator.finish()
    (expected,) = torch.autograd.grad(x.square().log().mean().exp(), x)
    torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=0)
    assert batch.losses.tolist() == [1.0, 9.0]
    torch.testing.assert_close(batch.weights, torch.tensor([1.5, 1 / 6]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["equal", "pcgrad"])
def test_gradients_are_added_to_those_that_are_there(name):
    x, own = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    found = []
    for before in (0.0, 10.0):
        x.grad, own.grad = torch.full((2,), before), torch.full((2,), before)
        backward(torch.stack([x[0] + own[0], x[1] - x[0] + own[1]]), BALANCINGS.build(name, 2), [x], [own])
        found.append(torch.cat([x.grad, own.grad]))
    assert torch.equal(found[0] + 10.0, found[1])


def test_nothing_added_is_a_mistake_of_the_caller():
    with pytest.raises(RuntimeError, match="finish"):
        accumulator_for(Equal(1), Parameters([]), torch.arange(1)).finish()


def test_method_that_works_on_neither_losses_nor_gradients_is_a_mistake_of_its_author():
    class Neither(Balancing):
        pass

    with pytest.raises(TypeError, match="Neither is neither a LossBalancing nor a GradientBalancing"):
        accumulator_for(Neither(), Parameters([]), torch.arange(1))
