"""Optimizers against torch.optim, and what an absent task means to them."""

import pytest
import torch
from torch import nn

from mtl_cli.errors import ConfigError, RunError
from mtl_cli.optim import FlatParameters
from mtl_cli.registry import OPTIMIZERS

# name, our options, PyTorch's class and options
PAIRS = {
    "adamw": ("adamw", {"lr": 0.05}, torch.optim.AdamW, {"lr": 0.05}),
    "adamw with decay": (
        "adamw",
        {"lr": 0.05, "weight_decay": 0.3, "beta1": 0.8, "beta2": 0.9, "eps": 1e-4},
        torch.optim.AdamW,
        {"lr": 0.05, "weight_decay": 0.3, "betas": (0.8, 0.9), "eps": 1e-4},
    ),
    "adam": ("adam", {"lr": 0.05}, torch.optim.Adam, {"lr": 0.05}),
    "adam with decay": ("adam", {"lr": 0.05, "weight_decay": 0.3}, torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.3}),
    "sgd": ("sgd", {"lr": 0.1}, torch.optim.SGD, {"lr": 0.1}),
    "nesterov of no momentum": ("sgd", {"lr": 0.1, "nesterov": True}, torch.optim.SGD, {"lr": 0.1}),
    "sgd with decay": ("sgd", {"lr": 0.1, "weight_decay": 0.3}, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.3}),
    "momentum": (
        "sgd",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    ),
    "nesterov": (
        "sgd",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
}
STATEFUL = {name: PAIRS[name][:2] for name in ("adamw with decay", "adam", "momentum", "sgd")}


def _world(name, options, rows=3):
    """Shared weights, and private weights of ``rows`` tasks in one parameter."""
    torch.manual_seed(0)
    shared, private = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(rows, 2))
    owners = [(shared, None, 0, 4), *((private, task, task, task + 1) for task in range(rows))]
    flat = FlatParameters(owners)
    return flat, shared, private, OPTIMIZERS.build(name, flat, **options)


def _gradients(steps, size, seed=1):
    return torch.randn(steps, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fused", [False, True], ids=["default", "fused"])
@pytest.mark.parametrize(("name", "ours", "oracle", "theirs"), PAIRS.values(), ids=PAIRS)
def test_updates_are_those_of_pytorch(name, ours, oracle, theirs, fused):
    flat, *_, optimizer = _world(name, ours)
    twin = nn.Parameter(flat.values.clone())
    other = oracle([twin], **theirs, fused=fused)
    for gradient in _gradients(20, len(twin)):
        flat.gradient.copy_(gradient)
        twin.grad = gradient.clone()
        optimizer.step(1.0)
        other.step()
        torch.testing.assert_close(flat.values, twin.data, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("absent", [[], [0]])
@pytest.mark.parametrize(("name", "options"), STATEFUL.values(), ids=STATEFUL)
def test_rows_that_nobody_owns_stay_and_the_others_move_as_without_them(name, options, absent):
    whole, *_, private, other = _world(name, options)
    torch.manual_seed(0)
    shared, part = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(3, 2))
    before = part.detach().clone()
    flat = FlatParameters([(shared, None, 0, 4), (part, 0, 0, 1), (part, 2, 2, 3)])  # row 1 is nobody's
    optimizer = OPTIMIZERS.build(name, flat, **options)
    for gradient in _gradients(5, len(flat.values)):
        for vectors, own in ((whole, other), (flat, optimizer)):
            vectors.gradient.copy_(gradient)
            own.step(1.0, absent)
    assert torch.equal(part[1], before[1])
    torch.testing.assert_close(shared.detach(), whole.values[:4])  # a kernel over fewer values may round otherwise
    torch.testing.assert_close(part[[0, 2]], private[[0, 2]])
    assert not any(buffer[6:8].any() for buffer in optimizer.buffers.values())


@pytest.mark.parametrize(("name", "options"), STATEFUL.values(), ids=STATEFUL)
def test_factor_multiplies_the_learning_rate(name, options):
    halved = _world(name, options)
    small = _world(name, {**options, "lr": options["lr"] / 2})
    for gradient in _gradients(5, len(halved[0].values)):
        for (flat, *_, optimizer), factor in ((halved, 0.5), (small, 1.0)):
            flat.gradient.copy_(gradient)
            optimizer.step(factor)
    assert torch.equal(halved[0].values, small[0].values)


@pytest.mark.parametrize(("name", "options"), STATEFUL.values(), ids=STATEFUL)
def test_absent_task_keeps_its_parameters_and_moments(name, options):
    flat, shared, private, optimizer = _world(name, options)
    flat.gradient.copy_(_gradients(1, len(flat.values))[0])
    optimizer.step(1.0)
    before, buffers = private.detach().clone(), {n: b.clone() for n, b in optimizer.buffers.items()}
    old_shared = shared.detach().clone()
    flat.gradient.copy_(_gradients(1, len(flat.values), 2)[0])  # a gradient that must not be looked at
    optimizer.step(1.0, absent=(1,))
    assert torch.equal(private[1], before[1])
    assert not torch.equal(private[0], before[0])
    assert not torch.equal(private[2], before[2])
    assert not torch.equal(shared, old_shared)
    for buffer_name, buffer in optimizer.buffers.items():
        assert torch.equal(buffer[6:8], buffers[buffer_name][6:8])


@pytest.mark.parametrize(("name", "options"), STATEFUL.values(), ids=STATEFUL)
def test_a_task_that_was_absent_goes_on_as_if_those_steps_had_not_been(name, options):
    flat, _, private, optimizer = _world(name, options)
    twin_flat, _, twin, twin_optimizer = _world(name, options)
    for step, gradient in enumerate(_gradients(12, len(flat.values))):
        flat.gradient.copy_(gradient)
        optimizer.step(1.0, absent=(1,) if step % 3 == 1 else ())
        if step % 3 != 1:  # the twin never hears of the other steps
            twin_flat.gradient.copy_(gradient)
            twin_optimizer.step(1.0)
    torch.testing.assert_close(private[1], twin[1], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(private[0], twin[0])


@pytest.mark.parametrize(("name", "options"), STATEFUL.values(), ids=STATEFUL)
def test_tasks_that_share_nothing_are_absent_by_themselves_also_after_as_many_updates(name, options):
    private = nn.Parameter(torch.randn(2, 2))
    flat = FlatParameters([(private, 0, 0, 1), (private, 1, 1, 2)])
    optimizer = OPTIMIZERS.build(name, flat, **options)
    for absent in (0, 1):  # now each has had one
        before = private[absent].detach().clone()
        flat.gradient.fill_(1.0)
        optimizer.step(1.0, absent=(absent,))
        assert torch.equal(private[absent], before)


@pytest.mark.parametrize(("name", "options"), STATEFUL.values(), ids=STATEFUL)
def test_state_dict_goes_on_bit_for_bit(name, options):
    flat, *_, optimizer = _world(name, options)
    gradients = _gradients(10, len(flat.values))
    for step, gradient in enumerate(gradients[:5]):
        flat.gradient.copy_(gradient)
        optimizer.step(1.0, absent=(2,) if step == 2 else ())
    other_flat, *_, other = _world(name, options)
    other_flat.values.copy_(flat.values)
    other.load_state_dict(optimizer.state_dict())
    for gradient in gradients[5:]:
        for vector, target in ((flat, optimizer), (other_flat, other)):
            vector.gradient.copy_(gradient)
            target.step(1.0)
    assert torch.equal(flat.values, other_flat.values)


def test_state_dict_is_a_copy():
    flat, *_, optimizer = _world("adamw", {})
    state = optimizer.state_dict()
    flat.gradient.fill_(1.0)
    optimizer.step(1.0)
    assert state["buffers"]["exp_avg"].abs().max() == 0


@pytest.mark.parametrize("other", [_world("adam", {}, rows=2)[3], _world("sgd", {})[3]], ids=["model", "optimizer"])
def test_state_of_something_else_is_refused(other):
    with pytest.raises(RunError) as caught:
        _world("adamw", {})[3].load_state_dict(other.state_dict())
    assert str(caught.value) == "optimizer: the saved state is of another optimizer or another model."


def test_nothing_to_train_is_no_error():
    optimizer = OPTIMIZERS.build("adamw", FlatParameters([]))
    optimizer.step(1.0)
    assert len(optimizer.flat.values) == 0


def test_weight_decay_of_zero_gradient_is_decoupled_in_adamw_only():
    results = {}
    for name in ("adamw", "adam"):
        flat, *_, optimizer = _world(name, {"lr": 0.1, "weight_decay": 0.5})
        before = flat.values.clone()
        optimizer.step(1.0)
        results[name] = (before, flat.values)
    before, after = results["adamw"]
    torch.testing.assert_close(after, before * 0.95, rtol=1e-6, atol=0)
    before, after = results["adam"]
    torch.testing.assert_close(after, before - 0.1 * before.sign(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {"lr": 0}, "optimizer.adamw.lr: must be greater than 0, got 0.0."),
        ("adam", {"beta1": 1.0}, "optimizer.adam.beta1: must be in [0, 1), got 1.0."),
        ("sgd", {"momentum": "0.9"}, "optimizer.sgd.momentum: must be a number, got '0.9'."),
    ],
)
def test_wrong_option_is_refused(name, options, message):
    with pytest.raises(ConfigError) as caught:
        OPTIMIZERS.build(name, FlatParameters([]), **options)
    assert str(caught.value).startswith(message)
