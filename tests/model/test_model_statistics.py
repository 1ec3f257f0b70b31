"""Layers that take statistics over the rows of a batch: where they are found, and where copies cannot have them."""

import pytest
import torch
from torch import nn

from mtl_cli.build.model_checks import refuse_copied_statistics
from mtl_cli.errors import ConfigError
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders.base import Encoder, EncoderMaker
from mtl_cli.model.statistics import layers_over_rows
from mtl_cli.registry import SHARINGS
from mtl_cli.types import InputSpec

NAMES = ["a", "b", "c"]
NEED_TABLES = ("esmm", "stem")


class _Normalised(Encoder):
    """A layer and a normalisation."""

    def __init__(self, spec, shared_dim, norm=nn.BatchNorm1d):
        super().__init__()
        self.linear, self.norm = nn.Linear(spec.numeric_dim, shared_dim), norm(shared_dim)

    def forward(self, inputs):
        return self.norm(self.linear(inputs.numeric))


def _without_running(width):
    return nn.BatchNorm1d(width, track_running_stats=False)


def _model(name, norm=nn.BatchNorm1d):
    make_encoder = EncoderMaker(lambda spec, dim: _Normalised(spec, dim, norm), InputSpec(4), 8)
    return MultiTaskModel(4, [1, 2, 3], 8, sharing=SHARINGS.build(name, make_encoder, NAMES))


@pytest.mark.parametrize("name", [name for name in SHARINGS.names() if name not in NEED_TABLES])
def test_architecture_trains_an_encoder_with_statistics_or_refuses_it(name):
    model = _model(name)
    assert len(layers_over_rows(model)) > 0
    if any(found.encoder is not None for found in layers_over_rows(model)):
        with pytest.raises(ConfigError, match="is a BatchNorm1d that keeps statistics, and copies"):
            refuse_copied_statistics(model)
    else:
        refuse_copied_statistics(model)
        torch.stack([output.square().sum() for output in model(torch.randn(6, 4))]).sum().backward()


@pytest.mark.parametrize(
    ("name", "where"), [("separate", "encoders"), ("low_rank", "template"), ("mmoe", "experts"), ("lora", "base")]
)
def test_copies_that_would_keep_statistics_are_refused_with_what_works(name, where):
    with pytest.raises(ConfigError) as refused:
        refuse_copied_statistics(_model(name))
    assert str(refused.value) == (
        f"{_Normalised.__module__}._Normalised: 'sharing.{where}.norm' is a BatchNorm1d that keeps statistics, and "
        "copies of an encoder, which are computed together, cannot each keep their own. Use LayerNorm or GroupNorm, "
        "sharing=hard, or give the encoder a `stack` of its own."
    )


def test_copies_that_keep_no_statistics_train():
    for model in (_model("separate", nn.LayerNorm), _model("separate", _without_running)):
        refuse_copied_statistics(model)
        model(torch.randn(6, 4))


@pytest.mark.parametrize("name", ["separate", "low_rank"])
def test_frozen_copies_stay_as_in_evaluation_and_keep_nothing(name):
    model = _model(name)
    model.freeze(["sharing"])
    refuse_copied_statistics(model)
    model(torch.randn(6, 4))


def test_only_layers_that_mix_rows_are_found():
    norms = [
        nn.BatchNorm1d(3),
        nn.InstanceNorm1d(3),
        nn.InstanceNorm1d(3, track_running_stats=True),
        nn.GroupNorm(1, 3),
    ]
    assert [found.name for found in layers_over_rows(nn.Sequential(*norms))] == ["0", "2"]
