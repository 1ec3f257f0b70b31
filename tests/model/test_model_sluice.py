"""Sluice networks: their limit cases, and their penalty and mixtures written out."""

from functools import partial
from itertools import combinations

import pytest
import torch
from torch import nn
from worlds import SMALL_ENCODERS, encoder_world, inputs

from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.layers import Conv2d, Linear
from mtl_cli.model.sharing.cross_stitch import CrossStitch
from mtl_cli.model.sharing.separate import SeparateModels
from mtl_cli.model.sharing.sluice import SluiceNetwork
from mtl_cli.registry import ENCODERS
from mtl_cli.types import InputSpec

NAMES = ["a", "b", "c"]
SAME = EncoderMaker(partial(MLP, hidden=[8]), InputSpec(5), 8)
NARROWER = EncoderMaker(partial(MLP, hidden=[6]), InputSpec(5), 8)


def _features(make, maker):
    torch.manual_seed(5)
    return make(maker, NAMES)(inputs(torch.linspace(-1, 1, 30).view(6, 5)))


@pytest.mark.parametrize("maker", [SAME, NARROWER], ids=["equal widths", "other widths"])
def test_without_mixing_it_is_separate(maker):
    sluice = partial(SluiceNetwork, alpha=1.0, beta=1.0)
    torch.testing.assert_close(_features(sluice, maker), _features(SeparateModels, maker), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_with_one_subspace_and_the_last_layer_it_is_cross_stitch(alpha):
    sluice = partial(SluiceNetwork, subspaces=1, alpha=alpha, beta=1.0)
    stitched = _features(partial(CrossStitch, alpha=alpha), SAME)
    torch.testing.assert_close(_features(sluice, SAME), stitched, rtol=1e-5, atol=1e-6)


def test_subspaces_and_layers_are_mixed_as_in_the_paper():
    made = []

    def build(spec, width):
        made.append(SAME.build(spec, width))
        return made[-1]

    sluice, x = SluiceNetwork(EncoderMaker(build, InputSpec(5), 8), NAMES), inputs(torch.randn(7, 5))
    with torch.no_grad():
        for p in [*sluice.mixes, sluice.betas]:
            p.normal_()
    hidden, layers = [None] * 3, []
    for stage in range(2):
        put_out = [encoder.stage(stage, h, x) for encoder, h in zip(made, hidden, strict=True)]
        parts = [part for h in put_out for part in h.split(4, 1)]  # task by task, its two subspaces
        mixed = [sum(sluice.mixes[stage][i, j] * parts[j] for j in range(6)) for i in range(6)]
        hidden = [torch.cat(mixed[2 * task : 2 * task + 2], 1) for task in range(3)]
        layers.append(hidden)
    expected = [sum(sluice.betas[t, stage] * layers[stage][t] for stage in range(2)) for t in range(3)]
    torch.testing.assert_close(sluice(x), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("subspaces", [2, 4])
def test_penalty_is_that_of_the_paper(subspaces):
    sluice = SluiceNetwork(SAME, NAMES, subspaces=subspaces, orthogonality=0.5)
    expected = 0.0
    for layer in sluice.encoders.layers:
        for weight in layer.weight:
            for one, other in combinations(weight.chunk(subspaces), 2):  # G is transposed: columns are units
                expected += (one @ other.t()).square().sum()
    torch.testing.assert_close(sluice.penalty(), 0.5 * expected, rtol=1e-4, atol=1e-5)


def test_penalty_makes_subspaces_orthogonal():
    sluice = SluiceNetwork(EncoderMaker(MLP, InputSpec(16), 8), NAMES, orthogonality=1.0)
    weight, before = sluice.encoders.layers[0].weight, sluice.penalty().item()
    for _ in range(100):
        (slope,) = torch.autograd.grad(sluice.penalty(), weight)
        with torch.no_grad():
            weight -= 0.1 * slope
    assert sluice.penalty().item() < 0.01 * before
    assert weight.norm(dim=-1).min() > 0.2  # turned away from each other, not made small


@pytest.mark.parametrize("options", [{"subspaces": 1}, {"orthogonality": 0.0}])
def test_nothing_to_penalise(options):
    assert SluiceNetwork(SAME, NAMES, **options).penalty() is None


@pytest.mark.parametrize("name", ENCODERS.names())
def test_weights_of_layers_alone_have_subspaces(name):
    encoder = ENCODERS.load(name)
    maker = EncoderMaker(partial(encoder, **SMALL_ENCODERS.get(name, {})), encoder_world(encoder.reads)[0], 8)
    sluice = SluiceNetwork(maker, NAMES)
    layers = [n for n, module in sluice.encoders.named_modules() if isinstance(module, Linear | Conv2d)]
    assert sluice._matrices == [f"{layer}.weight" for layer in layers]
    assert (sluice.penalty() is None) == (name in ("fm", "graph"))  # tables and nothing else


def test_layers_of_an_encoder_from_outside_have_subspaces_with_a_bias_or_without():
    class Own(Encoder):
        def __init__(self, spec, shared_dim):
            super().__init__()
            self.table, self.norm = nn.Embedding(7, 6), nn.LayerNorm(6)
            self.first, self.last = nn.Linear(6, 4, bias=False), nn.Linear(4 + spec.numeric_dim, shared_dim)

        def forward(self, inputs):
            embedded = self.norm(self.table(inputs.categorical[:, 0]))
            return self.last(torch.cat([self.first(embedded), inputs.numeric], 1))

    sluice = SluiceNetwork(EncoderMaker(Own, InputSpec(5, (7,)), 8), NAMES)
    shapes = [sluice.encoders.get_parameter(name).shape for name in sluice._matrices]
    assert shapes == [(3, 4, 6), (3, 8, 9)]


def test_start_is_as_in_the_paper():
    sluice = SluiceNetwork(EncoderMaker(partial(MLP, hidden=[8, 8]), InputSpec(5), 8), NAMES)
    torch.testing.assert_close(sluice.mixes[0].diagonal(), torch.full((6,), 0.9))
    torch.testing.assert_close(sluice.mixes[0].sum(1), torch.ones(6))
    torch.testing.assert_close(sluice.betas, torch.tensor([[0.05, 0.05, 0.9]]).expand(3, -1))


def test_width_that_subspaces_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"sharing\.subspaces: 3 do not divide the width 8 of a layer\. Choose"):
        SluiceNetwork(SAME, NAMES, subspaces=3)
