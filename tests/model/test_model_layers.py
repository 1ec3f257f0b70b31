"""Layers with copies are the plain layers side by side."""

import pytest
import torch
from torch.nn import functional

from mtl_cli.model.layers import LayerNorm, Linear


@pytest.mark.parametrize("own_inputs", [False, True], ids=["common", "per copy"])
def test_copies_of_a_linear_layer_are_separate_linear_layers(own_inputs):
    layer = Linear(4, 5, copies=3)
    x = torch.randn(3, 7, 4) if own_inputs else torch.randn(7, 4)
    expected = [functional.linear(x[i] if own_inputs else x, layer.weight[i], layer.bias[i]) for i in range(3)]
    torch.testing.assert_close(layer(x), torch.stack(expected), rtol=1e-6, atol=1e-6)


def test_copies_of_a_layer_norm_are_separate_layer_norms():
    layer = LayerNorm(5, copies=3)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(3, 7, 5)
    expected = [functional.layer_norm(x[i], (5,), layer.weight[i], layer.bias[i]) for i in range(3)]
    torch.testing.assert_close(layer(x), torch.stack(expected), rtol=1e-6, atol=1e-6)


def test_plain_layers_are_those_of_pytorch():
    x = torch.randn(7, 4)
    linear, norm = Linear(4, 5), LayerNorm(4)
    assert torch.equal(linear(x), functional.linear(x, linear.weight, linear.bias))
    assert torch.equal(norm(x), functional.layer_norm(x, (4,), norm.weight, norm.bias))
