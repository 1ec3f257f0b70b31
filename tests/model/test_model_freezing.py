"""Frozen parameters do not change, whatever architecture, optimizer and balancing method there are."""

import copy
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from worlds import DROPOUT, encoder_world, make_learner, three_kind_rows, three_kinds

from mtl_cli.balancing.autograd import Parameters, accumulator_for
from mtl_cli.data.batches import plan_epoch
from mtl_cli.errors import ConfigError
from mtl_cli.loop.passes import StepPasses, ValidationBatches
from mtl_cli.loop.pieces import pieces
from mtl_cli.loop.step import train_step
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import VmapStack
from mtl_cli.model.model import ParameterCounts
from mtl_cli.model.ownership import named_rows
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.model.statistics import layers_over_rows
from mtl_cli.registry import BALANCINGS, ENCODERS, SHARINGS
from mtl_cli.types import InputSpec

PULLING = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9, "weight_decay": 0.1}}  # decay and drift


def _values(learner):
    """Of all that is owned, by names."""
    owners = learner.model.owners()
    named = named_rows(owners, dict(learner.model.named_parameters()))
    return {
        rows: owned.parameter.detach()[rows.start : rows.stop].clone()
        for rows, owned in zip(named, owners, strict=True)
    }


def _frozen(learner):
    trained = named_rows(learner.model.trained(), dict(learner.model.named_parameters()))
    return _values(learner).keys() - trained


def _train(learner, steps=3, missing=0.0):
    rows = three_kind_rows(24, missing=missing)
    learner.model.train()
    epoch = plan_epoch(rows, 0, batch_size=8, weights=[1.0] * 3, seed=0, shuffle=True)
    validation = ValidationBatches(rows, 8, np.ones(3), 0)
    for step in range(steps):
        train_step(learner, rows, epoch, step, step, validation)


def _check(learner, missing=0.0):
    """Trains, and looks at all that is owned; returns what is frozen of it."""
    frozen = _frozen(learner)
    before = _values(learner)
    _train(learner, missing=missing)
    after = _values(learner)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert frozen
    assert not frozen & changed
    assert changed
    return frozen


@pytest.mark.parametrize("sharing", [name for name in SHARINGS.names() if name not in ("esmm", "stem")])  # categories
@pytest.mark.parametrize("pattern", ["shared", "encoder", "heads"])
def test_frozen_parameters_do_not_change(sharing, pattern):
    # MOD-03: no weight decay, no momentum
    options = {"sharing": sharing, "encoder": {"hidden": [6]}, **PULLING}
    there = make_learner(three_kinds(), **options)
    encoders = any(isinstance(module, Encoder | VmapStack) for module in there.model.modules())
    common = any(owned.task is None for owned in there.model.owners())
    if not {"shared": common, "encoder": encoders, "heads": True}[pattern]:
        with pytest.raises(ConfigError, match=f"^freeze: '{pattern}' matches no parameter") as error:
            make_learner(three_kinds(), freeze=[pattern], **options)
        assert f"Did you mean '{pattern}'" not in str(error.value)
        return
    frozen = _check(make_learner(three_kinds(), freeze=[pattern], **options), missing=0.2)
    if pattern == "shared":
        counts = make_learner(three_kinds(), freeze=[pattern], **options).model.count_frozen()
        assert counts == ParameterCounts(there.model.count_parameters().shared, counts.total, (0, 0, 0))
        assert counts.total == sum(value.numel() for rows, value in _values(there).items() if rows in frozen)


def test_shared_rows_of_stacked_towers_do_not_count_for_clipping():
    options = {"sharing": "aitm", "optimizer": "sgd", "optimizer_options": {"lr": 1.0}}
    learner = make_learner(three_kinds(), freeze=["shared"], clip=0.05, **options)
    before = learner.parameters.values.clone()
    _train(learner, steps=1)
    assert float((learner.parameters.values - before).norm()) == pytest.approx(0.05, rel=1e-3)


def test_no_look_ahead_moves_shared_rows_of_stacked_towers():
    learner = make_learner(three_kinds(), sharing="aitm", freeze=["shared"], balancing="auto_lambda", **PULLING)
    rows = three_kind_rows(8)
    epoch = plan_epoch(rows, 0, batch_size=8, weights=[1.0] * 3, seed=0)
    passes = StepPasses(learner, partial(pieces, learner, rows, epoch, 0), epoch, 0, torch.arange(3), 0, None)
    gradient = passes.gradient(torch.ones(3))
    assert learner.parameters.still
    assert not any(gradient[stretch].any() for stretch in learner.parameters.still)
    assert gradient.any()
    _check(learner)


def test_copy_of_a_model_knows_what_is_frozen():
    model = make_learner(three_kinds(), sharing="aitm", freeze=["shared"]).model
    assert copy.deepcopy(model).count_frozen() == model.count_frozen() != ParameterCounts(0, 0, (0, 0, 0))


@pytest.mark.parametrize("balancing", [name for name in BALANCINGS.names() if name != "torchjd"])
def test_every_balancing_method_trains_what_is_left_of_the_shared_parameters(balancing):
    # BAL-10: partly frozen
    options = (
        {"weights": [1.0, 2.0, 3.0]} if balancing == "fixed" else {"primary": [0]} if balancing == "auto_lambda" else {}
    )
    learner = make_learner(
        three_kinds(), balancing=balancing, balancing_options=options, freeze=["layers.0"], encoder={"hidden": [6]}
    )
    assert {rows.name for rows in _check(learner)} == {
        "sharing.encoder.layers.0.weight", "sharing.encoder.layers.0.bias",
    }  # fmt: skip


def test_method_on_gradients_needs_something_to_balance():
    # BAL-10: fully frozen; the library says it too
    learner = make_learner(three_kinds(), balancing="pcgrad", freeze=["encoder"])
    with pytest.raises(ConfigError, match="none is trained here"):
        accumulator_for(learner.balancing, Parameters(learner.parameters.shared), torch.arange(3))


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        ("layers.0", ["sharing.encoder.layers.0.weight", "sharing.encoder.layers.0.bias"]),
        ("layers.*.bias", ["sharing.encoder.layers.0.bias", "sharing.encoder.layers.1.bias"]),
        ("heads", ["heads.blocks.0.weight", "heads.blocks.0.bias"]),
        ("sharing.encoder.layers.1.weight", ["sharing.encoder.layers.1.weight"]),
    ],
)
def test_pattern_is_what_stands_between_dots(pattern, frozen):
    learner = make_learner(three_kinds(), encoder={"hidden": [6]}, freeze=[pattern])
    assert [name for name, p in learner.model.named_parameters() if not p.requires_grad] == frozen
    counts = learner.model.count_frozen()
    assert counts.total == sum(learner.model.get_parameter(name).numel() for name in frozen)
    assert counts.total + len(learner.parameters.values) == learner.model.count_parameters().total


def test_pattern_that_matches_nothing_lists_the_names():
    # MOD-03: a misspelt pattern; part of a word is no name
    for pattern, near in (("layrs.0", "layers.0"), ("encode", "encoder")):
        with pytest.raises(ConfigError) as error:
            make_learner(three_kinds(), freeze=[pattern])
        assert str(error.value) == (
            f"freeze: '{pattern}' matches no parameter. Did you mean '{near}'? Parameters: "
            "sharing.encoder.layers.0.weight, sharing.encoder.layers.0.bias, heads.blocks.0.weight, "
            "heads.blocks.0.bias; or shared, encoder."
        )


@pytest.mark.parametrize("pattern", ["heads.task1", "heads.task1.weight"])
def test_head_of_one_task_cannot_be_frozen(pattern):
    with pytest.raises(ConfigError) as error:
        make_learner(three_kinds(), freeze=[pattern])
    assert str(error.value) == (
        f"freeze: '{pattern}' names one head: heads of tasks are computed together and are frozen together. "
        "Write freeze=[heads]."
    )


def test_everything_cannot_be_frozen():
    with pytest.raises(ConfigError, match=re.escape("freeze: leaves nothing to train: all 4 parameters are frozen")):
        make_learner(three_kinds(), freeze=["shared", "heads"])


class _Normalised(Encoder):
    """Batch norm with parameters and without, and dropout."""

    def __init__(self, spec, shared_dim):
        super().__init__()
        parts = [nn.Linear(spec.numeric_dim, shared_dim), nn.BatchNorm1d(shared_dim), nn.Dropout(0.5)]
        self.parts = nn.Sequential(*parts, nn.BatchNorm1d(shared_dim, affine=False))
        self.register_buffer("constant", torch.ones(1))  # in a checkpoint, as what counts as statistics

    def forward(self, inputs):
        return self.parts(inputs.numeric)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_encoder_keeps_its_statistics_and_its_dropout(frozen):
    # MOD-03: code that switches all to training again later
    sharing = HardSharing(EncoderMaker(_Normalised, InputSpec(5), 8), ["a"])
    model = MultiTaskModel(5, [1], 8, sharing=sharing)
    model.freeze(["encoder"] if frozen else ["parts.0"])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    model.train()
    model(torch.randn(16, 5))
    assert all(torch.equal(value, model.get_buffer(name)) for name, value in before.items()) == frozen
    assert sharing.encoder.parts[2].training


@pytest.mark.parametrize("sharing", ["hard", "separate"])
@pytest.mark.parametrize("name", DROPOUT)
def test_frozen_encoder_without_statistics_draws_as_in_training(name, sharing):
    # Its constants are buffers, too: no reason to switch dropout and augmentation off
    spec, rows = encoder_world(ENCODERS.load(name).reads)
    make = EncoderMaker(partial(ENCODERS.load(name), **DROPOUT[name]), spec, 6)
    model = MultiTaskModel(2, [1, 1], 6, sharing=SHARINGS.build(sharing, make, ["a", "b"]))
    model.freeze(["encoder"])
    assert all(module.training for module in model.modules())
    assert not torch.equal(model.sharing(rows), model.sharing(rows))


def test_frozen_copies_keep_statistics_that_stand_beside_their_tree():
    make = EncoderMaker(_Normalised, InputSpec(5), 8)
    model = MultiTaskModel(5, [1, 1], 8, sharing=SHARINGS.build("separate", make, ["a", "b"]))
    assert layers_over_rows(model)
    model.freeze(["encoder"])
    assert not layers_over_rows(model)
