"""What every registered encoder promises: features for each row alone, the same each time, copies in one go."""

import pytest
import torch
from worlds import encoder_world

from mtl_cli.errors import ConfigError
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Block, InputSpec

every_encoder = pytest.mark.parametrize("name", ENCODERS.names())


def _built(name, **changes):
    spec, rows = encoder_world(ENCODERS.load(name).reads, **changes)
    return ENCODERS.build(name, spec, 6).eval(), rows


@every_encoder
def test_features_are_one_row_for_each_row(name):
    encoder, inputs = _built(name, rows=5)
    assert encoder(inputs).shape == (5, 6)
    assert encoder(inputs).isfinite().all()
    assert encoder(inputs).std() > 0


@every_encoder
def test_evaluation_is_the_same_each_time(name):
    encoder, inputs = _built(name)
    assert torch.equal(encoder(inputs), encoder(inputs))


@every_encoder
def test_a_row_knows_nothing_of_the_others(name):
    encoder, inputs = _built(name, rows=6)
    whole = encoder(inputs)
    for index in ([3], [5, 0, 0, 2]):
        alone = encoder(inputs.rows(torch.tensor(index)))
        torch.testing.assert_close(alone, whole[index], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder(inputs.part(2, 5)), whole[2:5], rtol=1e-5, atol=1e-6)


@every_encoder
def test_gradient_reaches_every_parameter(name):
    encoder, inputs = _built(name, rows=8)
    (encoder.train()(inputs) + 0.5).square().sum().backward()  # what starts at 0 is to be reached too
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_encoder
def test_copies_computed_together_are_the_copies_alone(name):
    spec, inputs = encoder_world(ENCODERS.load(name).reads, rows=4)
    encoders = [ENCODERS.build(name, spec, 6).eval() for _ in range(3)]
    stack = type(encoders[0]).stack(encoders).eval()
    together = stack(inputs)
    torch.testing.assert_close(together, torch.stack([e(inputs) for e in encoders]), rtol=1e-5, atol=1e-5)
    together.square().sum().backward()
    assert sum(p.numel() for p in stack.parameters()) == 3 * sum(p.numel() for p in encoders[0].parameters())
    assert all(p.shape[0] == 3 and p.grad is not None for p in stack.parameters())


@every_encoder
def test_empty_batch_gives_no_features(name):
    encoder, inputs = _built(name, rows=3)
    assert encoder(inputs.rows(torch.empty(0, dtype=torch.int64))).shape == (0, 6)


@every_encoder
def test_inputs_that_it_does_not_read_are_refused_with_the_encoder_that_does(name):
    reads = ENCODERS.load(name).reads
    other = (
        Block("photo", "image", (4, 4, 1), mean=(0.0,), std=(1.0,)) if reads != "image" else Block("t", "text", (), 9)
    )
    with pytest.raises(
        ConfigError, match=rf"encoder: does not read column '{other.name}', an input of type {other.type}"
    ):
        ENCODERS.build(name, InputSpec(2, blocks=(other,)), 6)
    if reads is not None:
        with pytest.raises(ConfigError, match=rf"encoder: reads one.* of type {reads}, and the data have none"):
            ENCODERS.build(name, InputSpec(2), 6)
