"""What every registered class promises to its subclasses: its written-out forms, as long as they are of what it is."""

from dataclasses import replace

import pytest
import torch
from worlds import REFUSED_PAIRS, SMALL_ENCODERS, encoder_world

from mtl_cli.balancing import LossBalancing
from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import LoopStack, TableEncoder, run_stages, stage_widths
from mtl_cli.registry import BALANCINGS, ENCODERS, KINDS, SHARINGS

TASKS, D = ["a", "b", "c"], 6
OF_ENCODERS = ("with_backward", "with_jacobian", "stack", "tables", "stage", "stage_of_slices")
OF_SHARINGS = ("with_backward", "with_jacobian")
OF_KINDS = ("loss_and_gradient", "group_key", "meaning", "from_scale_of")
every_encoder = pytest.mark.parametrize("name", ENCODERS.names())
every_sharing = pytest.mark.parametrize("name", SHARINGS.names())
every_kind = pytest.mark.parametrize("name", KINDS.names())


def _held(cls, names):
    return [vars(next(own for own in cls.__mro__ if name in vars(own)))[name] for name in names]


def _empty(cls):
    return type(cls)("Empty", (cls,), {"__doc__": "The same."})


def _with_other_forward(cls):
    class Other(cls):
        def forward(self, inputs):
            return 3 * torch.tanh(super().forward(inputs)) + 1

    return Other


def _gradients(module, run):
    """Of a sum over what a pass gives, by its own backward pass or by autograd."""
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    features, backward = run()
    slope = torch.linspace(-1, 1, features.numel()).view_as(features)
    backward(slope.clone()) if backward else (features * slope).sum().backward()
    return features.detach(), [parameter.grad.clone() for parameter in module.parameters()]


def _is_trained_by_its_forward(module, inputs):
    module.eval()
    own = _gradients(module, lambda: module.with_backward(inputs))
    assert module.with_jacobian(inputs) is None
    torch.testing.assert_close(own, _gradients(module, lambda: (module(inputs), None)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("registry", "forms"), [(ENCODERS, OF_ENCODERS), (SHARINGS, OF_SHARINGS), (KINDS, OF_KINDS)],
    ids=["encoders", "sharings", "kinds"],
)  # fmt: skip
def test_subclass_that_overrides_nothing_keeps_every_form(registry, forms):
    for name in registry.names():
        assert _held(_empty(registry.load(name)), forms) == _held(registry.load(name), forms)


@every_encoder
def test_encoder_with_another_forward_is_trained_by_it(name):
    spec, inputs = encoder_world(ENCODERS.load(name).reads, rows=4)
    other = _with_other_forward(ENCODERS.load(name))
    _is_trained_by_its_forward(other(spec, D, **SMALL_ENCODERS.get(name, {})), inputs)


@every_encoder
def test_copies_of_an_encoder_with_another_forward_compute_it(name):
    spec, inputs = encoder_world(ENCODERS.load(name).reads, rows=4)
    other = _with_other_forward(ENCODERS.load(name))
    encoders = [other(spec, D, **SMALL_ENCODERS.get(name, {})).eval() for _ in range(3)]
    stack = other.stack(encoders).eval()
    assert isinstance(stack, LoopStack)
    alone = torch.stack([encoder(inputs) for encoder in encoders])
    torch.testing.assert_close(stack(inputs), alone, rtol=1e-5, atol=1e-5)
    assert stage_widths(encoders[0], D) == [D]
    torch.testing.assert_close(run_stages(stack, 1, inputs, lambda _, x: x), alone, rtol=1e-5, atol=1e-5)
    (stack.train()(inputs) + 0.5).square().sum().backward()
    assert all(parameter.shape[0] == 3 and parameter.grad.isfinite().all() for parameter in stack.parameters())


@pytest.mark.parametrize("method", ["read", "encode"])
@pytest.mark.parametrize("name", [n for n in ENCODERS.names() if issubclass(ENCODERS.load(n), TableEncoder)])
def test_encoder_of_tables_with_another_step_is_trained_by_it(name, method):
    cls = ENCODERS.load(name)
    other = type("Other", (cls,), {method: lambda self, given: getattr(cls, method)(self, given).sin()})
    spec, inputs = encoder_world(cls.reads, rows=4)
    encoder = other(spec, D, **SMALL_ENCODERS.get(name, {}))
    _is_trained_by_its_forward(encoder, inputs)
    stages = len(stage_widths(encoder, D))
    torch.testing.assert_close(run_stages(encoder, stages, inputs, lambda _, x: x), encoder(inputs))
    stack = other.stack([encoder, encoder]).eval()
    torch.testing.assert_close(stack(inputs), encoder(inputs).expand(2, -1, -1))


@pytest.mark.parametrize(
    "name", [name for name in BALANCINGS.names() if issubclass(BALANCINGS.load(name), LossBalancing)]
)
def test_weights_of_a_subclass_may_depend_on_the_losses_unless_it_says_otherwise(name):
    cls = BALANCINGS.load(name)
    weights = {"weights": lambda _self, losses, _tasks: 1 / losses}
    assert type("Empty", (cls,), {}).linear is cls.linear
    assert type("Other", (cls,), weights).linear is False
    assert type("Linear", (cls,), {**weights, "linear": True}).linear is True


def test_helper_of_an_encoder_is_part_of_what_it_computes():
    mlp = ENCODERS.load("mlp")
    other = type("Other", (mlp,), {"_noise": lambda *_: None})
    assert _held(other, ["with_jacobian"]) == [Encoder.with_jacobian]


def test_mixin_before_an_encoder_counts_and_what_a_class_writes_itself_is_taken():
    class Doubled:
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    mlp = ENCODERS.load("mlp")
    assert _held(type("Mixed", (Doubled, mlp), {}), ["with_backward"]) == [Encoder.with_backward]
    own = {"forward": mlp.forward, "with_backward": mlp.with_backward}
    assert _held(type("Own", (mlp,), own), ["with_backward"]) == [mlp.with_backward]


@every_sharing
def test_architecture_with_another_forward_is_trained_by_it(name):
    other = _with_other_forward(SHARINGS.load(name))
    encoder = next(e for e in ("mlp", "fm", "text") if (name, e) not in REFUSED_PAIRS)
    spec, inputs = encoder_world(ENCODERS.load(encoder).reads, rows=4)
    build = lambda spec, width: ENCODERS.build(encoder, spec, width, **SMALL_ENCODERS.get(encoder, {}))  # noqa: E731
    model = other(EncoderMaker(build, replace(spec, edges=()), D), TASKS)
    _is_trained_by_its_forward(model, inputs)


def test_embeddings_of_tasks_refuse_an_encoder_whose_whole_is_more_than_its_two_steps():
    spec, _ = encoder_world(None, rows=4)
    mlp = ENCODERS.load("mlp")
    own_stack = type("Own", (_with_other_forward(mlp),), {"stack": vars(mlp)["stack"]})
    for cls in (_with_other_forward(mlp), own_stack):
        with pytest.raises(ConfigError, match="this encoder does not only run its layers"):
            SHARINGS.build("stem", EncoderMaker(cls, spec, D), TASKS)
    assert SHARINGS.build("stem", EncoderMaker(_empty(mlp), spec, D), TASKS).own.encode is not None
