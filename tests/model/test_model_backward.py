"""A backward pass that is written out is the one that autograd finds."""

from functools import partial

import pytest
import torch
from worlds import inputs

from mtl_cli.model import MultiTaskModel
from mtl_cli.model.backward import by_autograd
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.encoders.sequence import SequenceEncoder
from mtl_cli.model.heads import Heads, HeadSpec
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Block, Inputs, InputSpec, Ragged


def _with_zero_gradients(module):
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return module


def _gradients(module):
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def _both(encoder, rows, seed=0):
    """Features and gradients as written out, and as autograd finds them, with the same dropout."""
    found = []
    for run in (encoder.with_backward, lambda x: by_autograd(encoder, x)):
        _with_zero_gradients(encoder)
        torch.manual_seed(seed)
        features, backward = run(rows)
        backward(torch.randn(features.shape, generator=torch.Generator().manual_seed(1)))
        found.append((features, _gradients(encoder)))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": [6, 5]},
        {"hidden": [6], "dropout": 0.4},
        {"hidden": [6], "norm": "layer", "activation": "gelu"},
    ],
    ids=["one layer", "deep", "dropout", "left to autograd"],
)
@pytest.mark.parametrize("categories", [(), (3, 4)], ids=["numbers", "numbers and categories"])
def test_mlp(options, categories):
    torch.manual_seed(0)
    spec = InputSpec(3, categories, edges=((1, (-1.0, 0.0, 2.0)),))
    encoder = MLP(spec, 4, embedding_dim=2, **options)
    codes = torch.stack([torch.randint(0, n, (7,)) for n in categories], 1) if categories else torch.empty(7, 0).long()
    (features, gradients), (expected, autograd) = _both(encoder, Inputs(torch.randn(7, 3), codes))
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(gradients, autograd)
    assert all(g.any() for g in gradients.values())


@pytest.mark.parametrize("positions", ["rows", "tokens", "both"])
@pytest.mark.parametrize("options", [{"feature_dropout": 0.0}, {"feature_dropout": 0.3, "dropout": 0.4, "reach": [2]}])
def test_sequence(options, positions):
    torch.manual_seed(0)
    spec = InputSpec(2, (3,), blocks=(Block("words", "tokens", (3,), 20),), positions=positions)
    encoder = SequenceEncoder(spec, 4, dim=6, **options)
    words = Ragged(torch.randint(10, (5, 3), dtype=torch.int32), torch.tensor([0, 2, 2, 5]))
    rows = Inputs(torch.randn(3, 2), torch.tensor([[0], [2], [1]]), {"words": words})
    (features, gradients), (expected, autograd) = _both(encoder, rows)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(gradients, autograd)
    assert gradients["bag.weight"][:10].any()
    assert not gradients["bag.weight"][10:].any()
    stack = SequenceEncoder.stack([encoder, SequenceEncoder(spec, 4, dim=6, **options)])
    (features, gradients), (expected, autograd) = _both(stack, rows)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(gradients, autograd)
    encoder.bag.weight.requires_grad_(False)
    encoder.bag.weight.grad = None
    encoder.with_backward(rows)[1](torch.ones(expected.shape[1:]))  # a table that is not trained takes no gradient


@pytest.mark.parametrize("categories", [(), (3, 4)], ids=["numbers", "numbers and categories"])
@pytest.mark.parametrize("options", [{}, {"hidden": [6, 5]}, {"hidden": [6], "dropout": 0.4}])
@pytest.mark.parametrize("tasks", [1, 3])
def test_gradients_of_several_tasks_at_once_are_those_of_one_after_another(options, categories, tasks):
    torch.manual_seed(0)
    spec = InputSpec(3, categories, edges=((1, (-1.0, 0.0, 2.0)),))
    encoder = MLP(spec, 4, embedding_dim=2, **options)
    codes = torch.stack([torch.randint(0, n, (7,)) for n in categories], 1) if categories else torch.empty(7, 0).long()
    rows, upstream = Inputs(torch.randn(7, 3), codes), torch.randn(tasks, 7, 4)
    torch.manual_seed(1)
    leaf = encoder(rows)
    torch.manual_seed(1)
    features, _, jacobian = encoder.with_jacobian(rows)
    torch.testing.assert_close(features, leaf.detach())
    into = {p: torch.full((tasks, *p.shape), torch.nan) for p in encoder.parameters()}
    last = {p: torch.full((tasks, *p.shape), torch.nan) for p in encoder.layers[-1].parameters()}
    jacobian(upstream.clone(), into)
    jacobian(upstream.clone(), last)
    for task, one in enumerate(upstream):
        expected = torch.autograd.grad(leaf, list(encoder.parameters()), one, retain_graph=True)
        for parameter, gradient in zip(encoder.parameters(), expected, strict=True):
            torch.testing.assert_close(into[parameter][task], gradient, rtol=1e-5, atol=1e-6)
            assert gradient.any()
    assert all(torch.equal(values, into[parameter]) for parameter, values in last.items())


def test_a_frozen_layer_keeps_its_gradient():
    encoder = MLP(InputSpec(3), 4, hidden=[5])
    encoder.layers[0].weight.requires_grad_(False)
    rows = inputs(torch.randn(6, 3))
    features, backward = encoder.with_backward(rows)
    backward(torch.ones_like(features))
    assert encoder.layers[0].weight.grad is None
    assert encoder.layers[1].weight.grad.any()


def test_gradients_add_up_and_the_second_pass_is_as_good_as_the_first():
    encoder = _with_zero_gradients(MLP(InputSpec(3), 4, hidden=[5]))
    rows = inputs(torch.randn(6, 3))
    for _ in range(2):
        features, backward = encoder.with_backward(rows)
        backward(torch.ones_like(features))
    twice = _gradients(encoder)
    _with_zero_gradients(encoder)
    features, backward = encoder.with_backward(rows)
    backward(torch.ones_like(features))
    torch.testing.assert_close(twice, {name: 2 * g for name, g in _gradients(encoder).items()})


@pytest.mark.parametrize("hidden", [[(), ()], [(5,), ()]], ids=["linear", "mixed"])
@pytest.mark.parametrize("own", [False, True], ids=["common features", "features for each task"])
def test_heads(hidden, own):
    torch.manual_seed(0)
    heads = _with_zero_gradients(Heads(4, [HeadSpec(2, hidden[0]), HeadSpec(3, hidden[1])]))
    features = torch.randn(2, 7, 4) if own else torch.randn(7, 4)
    gradient = torch.randn(5, 7)
    outputs, backward = heads.with_backward(features)
    by_features, gradients = backward(gradient.clone()), _gradients(heads)
    _with_zero_gradients(heads)
    leaf = features.clone().requires_grad_()
    expected = heads(leaf)
    expected.backward(gradient)
    torch.testing.assert_close(outputs, expected.detach())
    torch.testing.assert_close(by_features, leaf.grad)
    torch.testing.assert_close(gradients, _gradients(heads))


def test_a_compiled_encoder_is_left_to_the_compiler():
    model = MultiTaskModel(3, [1], 4)
    assert isinstance(model.sharing, HardSharing)
    model.sharing.compile(backend="eager")
    _with_zero_gradients(model)
    features, backward = model.sharing.with_backward(inputs(torch.randn(6, 3)))
    assert "by_autograd" in backward.__qualname__
    backward(torch.ones_like(features))
    assert all(p.grad.any() for p in model.sharing.parameters())


@pytest.mark.parametrize("categories", [(), (3, 4)], ids=["numbers", "numbers and categories"])
@pytest.mark.parametrize("options", [{}, {"hidden": [6], "dropout": 0.4}], ids=["one layer", "deep"])
def test_copies_of_an_mlp(options, categories):
    torch.manual_seed(0)
    spec = InputSpec(3, categories)
    stack = MLP.stack([MLP(spec, 4, embedding_dim=2, **options) for _ in range(3)])
    codes = torch.stack([torch.randint(0, n, (7,)) for n in categories], 1) if categories else torch.empty(7, 0).long()
    (features, gradients), (expected, autograd) = _both(stack, Inputs(torch.randn(7, 3), codes))
    assert features.shape == (3, 7, 4)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(gradients, autograd)


@pytest.mark.parametrize("name", SHARINGS.names())
def test_every_architecture_has_the_backward_pass_that_autograd_finds(name):
    torch.manual_seed(0)
    maker = EncoderMaker(partial(MLP, hidden=[6]), InputSpec(3, (4,)), 4)
    sharing = SHARINGS.build(name, maker, ["a", "b"])
    rows = Inputs(torch.randn(7, 3), torch.randint(0, 4, (7, 1)))
    (features, gradients), (expected, autograd) = _both(sharing, rows)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(gradients, autograd)


def test_one_gate_for_all():
    torch.manual_seed(0)
    sharing = SHARINGS.build("mmoe", EncoderMaker(MLP, InputSpec(3), 5), ["a", "b"], one_gate=True)
    (features, gradients), (expected, autograd) = _both(sharing, inputs(torch.randn(7, 3)))
    assert features.shape == (7, 5)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(gradients, autograd)
