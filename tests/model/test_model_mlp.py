"""The multi-layer perceptron: numbers, categories, copies."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize
from worlds import inputs

from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.types import Inputs, InputSpec


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_encoder_is_linear_layers_each_with_an_activation(activation):
    encoder = MLP(InputSpec(4), 3, hidden=[6, 5], activation=activation)
    x = torch.randn(7, 4)
    expected = x
    for layer in encoder.layers:
        expected = getattr(torch, activation, getattr(functional, activation, None))(
            functional.linear(expected, layer.weight, layer.bias)
        )
    assert [tuple(layer.weight.shape) for layer in encoder.layers] == [(6, 4), (5, 6), (3, 5)]
    assert torch.equal(encoder(inputs(x)), expected)


class Sine(MLP):
    """Has another activation."""

    def __init__(self, *given):
        super().__init__(*given)
        self._activation = torch.sin


class Weighed(MLP):
    """Has a layer whose weight is made of other parameters."""

    def __init__(self, *given):
        super().__init__(*given)
        parametrize.register_parametrization(self.layers[0], "weight", nn.Softplus())


@pytest.mark.parametrize("own", [Sine, Weighed])
def test_what_a_subclass_puts_in_place_of_layers_is_what_is_trained(own):
    encoder, rows = own(InputSpec(4), 3), inputs(torch.randn(7, 4))
    assert encoder.with_jacobian(rows) is None
    features, backward = encoder.with_backward(rows)
    assert torch.equal(features, encoder(rows))
    backward(torch.ones_like(features))
    gradients = [parameter.grad for parameter in encoder.parameters()]
    expected = torch.autograd.grad(encoder(rows).sum(), list(encoder.parameters()))
    torch.testing.assert_close(gradients, list(expected))


def test_norm_comes_before_the_activation():
    encoder = MLP(InputSpec(4), 3, norm="layer")
    x = torch.randn(7, 4)
    layer = encoder.layers[0]
    expected = functional.relu(functional.layer_norm(functional.linear(x, layer.weight, layer.bias), (3,)))
    torch.testing.assert_close(encoder(inputs(x)), expected, rtol=0, atol=1e-6)


def test_categories_are_embedded_column_by_column():
    encoder = MLP(InputSpec(2, (3, 4)), 5, embedding_dim=6)
    nn.init.normal_(encoder.embedding)
    x, codes = torch.randn(4, 2), torch.tensor([[0, 0], [1, 3], [2, 1], [1, 3]])
    first, second = encoder.embedding.split([3, 4])
    joined = torch.cat([x, first[codes[:, 0]], second[codes[:, 1]]], 1)
    layer = encoder.layers[0]
    expected = functional.relu(functional.linear(joined, layer.weight, layer.bias))
    torch.testing.assert_close(encoder(Inputs(x, codes)), expected, rtol=0, atol=1e-6)


def test_numbers_with_edges_are_also_given_bin_by_bin():
    encoder = MLP(InputSpec(3, (), ((2, (-1.0, 0.0, 2.0)), (0, (0.0, 1.0)))), 5)
    x = torch.tensor([[0.25, 7.0, -0.5], [-3.0, 7.0, 1.0], [3.0, 7.0, 9.0]])
    bins = torch.tensor([[0.5, 0.0, 0.25], [1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    layer = encoder.layers[0]
    expected = functional.relu(functional.linear(torch.cat([x, bins], 1), layer.weight, layer.bias))
    torch.testing.assert_close(encoder(inputs(x)), expected, rtol=0, atol=1e-6)


def test_unknown_category_says_nothing_at_the_start():
    encoder = MLP(InputSpec(1, (3, 4, 2)), 5)
    assert encoder.embedding[[0, 3, 7]].abs().max() == 0
    assert encoder.embedding[[1, 2, 4, 5, 6, 8]].abs().min() > 0


def test_categories_alone_are_enough():
    encoder = MLP(InputSpec(0, (3,)), 5)
    features = encoder(Inputs(torch.empty(2, 0), torch.tensor([[1], [2]])))
    assert features.shape == (2, 5)
    assert features.isfinite().all()


def test_dropout_is_off_in_evaluation_and_scales_in_training():
    encoder = MLP(InputSpec(4), 2000, dropout=0.25)
    x = torch.randn(1, 4)
    full = encoder.eval()(inputs(x))
    dropped = encoder.train()(inputs(x))
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], full[kept] / 0.75, rtol=1e-6, atol=0)
    share = 1 - kept.sum() / (full != 0).sum()
    assert share == pytest.approx(0.25, abs=0.05)  # 1,000 units: three deviations are 0.04


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("edges", [(), ((1, (-0.5, 0.0, 1.0)),)], ids=["no bins", "bins"])
@pytest.mark.parametrize(("numbers", "categories"), [(4, ()), (4, (3, 4)), (0, (3, 4))])
def test_stacked_encoders_are_the_encoders_alone(numbers, categories, norm, edges):
    spec = InputSpec(numbers, categories, edges if numbers else ())
    encoders = [MLP(spec, 5, hidden=[6], norm=norm, dropout=0.5) for _ in range(3)]
    for encoder in encoders:
        for parameter in encoder.parameters():
            nn.init.normal_(parameter)
    codes = torch.stack([torch.randint(c, (7,)) for c in categories], 1) if categories else torch.empty(7, 0).long()
    x = Inputs(torch.randn(7, numbers), codes)
    stack = MLP.stack(encoders).eval()
    expected = torch.stack([encoder.eval()(x) for encoder in encoders])
    torch.testing.assert_close(stack(x), expected, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in stack.parameters()) == 3 * sum(p.numel() for p in encoders[0].parameters())


def test_stacked_encoders_drop_units_of_their_own():
    encoder = MLP(InputSpec(4), 200, dropout=0.5)
    first, second = MLP.stack([encoder, encoder]).train()(inputs(torch.randn(1, 4)))
    assert not torch.equal(first == 0, second == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "encoder.mlp.dropout: must be in [0, 1), got 1.0."),
        ({"hidden": [8, 0]}, "encoder.mlp.hidden[1]: must be at least 1, got 0."),
        ({"hidden": 8}, "encoder.mlp.hidden: must be a list, got 8. Write [8]."),
        ({"activation": "rleu"}, "encoder.mlp.activation: must be one of relu, gelu, silu, tanh, got 'rleu'. "
                                 "Did you mean 'relu'?"),
    ],
)  # fmt: skip
def test_wrong_option_is_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        MLP(InputSpec(4), 8, **options)
    assert str(caught.value) == message
