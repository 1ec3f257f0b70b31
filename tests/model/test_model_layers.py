"""Layers with copies are the plain layers side by side; dropout drops what it says."""

import pytest
import torch
from torch.nn import functional

from mtl_cli.model.layers import LayerNorm, Linear, dropout, dropout_factors


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


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_keeps_the_mean_and_drops_its_share(share, dtype):
    """200,000 draws: the share of zeros within five standard errors, the kept ones all one over the share kept."""
    torch.manual_seed(0)
    x = torch.ones(200_001, dtype=dtype)
    found = dropout(x, share, training=True)
    zeros = float((found == 0).double().mean())
    assert abs(zeros - share) < 5 * (share * (1 - share) / len(x)) ** 0.5
    assert found.dtype == dtype
    assert found[found != 0].unique().tolist() == pytest.approx(
        [1 / (1 - share)], rel=1e-2 if dtype.itemsize == 2 else 2e-4
    )


def test_dropout_draws_are_independent_of_their_neighbours():
    """Four draws come from one random number: they must know nothing of each other."""
    torch.manual_seed(0)
    zeros = (dropout_factors(torch.ones(100_000, 4), 0.5) == 0).double()
    assert torch.corrcoef(zeros.t()).fill_diagonal_(0).abs().max() < 0.016  # five standard errors


def test_dropout_of_a_share_too_small_to_draw_still_drops():
    torch.manual_seed(0)
    assert (dropout_factors(torch.ones(1_000_000), 1e-9) == 0).any()


def test_dropout_is_the_identity_outside_training():
    x = torch.ones(3)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_dropout_draws_from_the_generator_it_is_given():
    first, second = (dropout_factors(torch.ones(50), 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(second)
