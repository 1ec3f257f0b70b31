"""The residual network over images: what it reads, and how it moves images in training."""

import pytest
import torch
from worlds import encoder_world

from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders.conv import Conv, _moved
from mtl_cli.types import Block, Inputs, InputSpec


@pytest.mark.parametrize("pool", ["flatten", "mean"])
@pytest.mark.parametrize("stem_stride", [1, 2, 3])
def test_any_size_and_stride_fit(pool, stem_stride):
    spec, inputs = encoder_world("image")
    encoder = Conv(spec, 6, pool=pool, stem_stride=stem_stride, widths=[4, 12, 6, 5])
    assert encoder(inputs).shape == (5, 6)


def test_pixels_are_standardised_with_the_statistics_of_training():
    spec, inputs = encoder_world("image")
    encoder = Conv(spec, 6)
    seen = []
    encoder.stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(inputs)
    expected = (inputs.blocks["photo"].double() - torch.tensor([100.0, 90.0])) / torch.tensor([70.0, 60.0])
    torch.testing.assert_close(seen[0].double(), expected.permute(0, 3, 1, 2), rtol=0, atol=1e-6)


def test_images_move_in_training_only_and_by_the_run_s_random_state():
    spec, inputs = encoder_world("image")
    encoder = Conv(spec, 6, shift=2)
    torch.manual_seed(1)
    first, second = encoder(inputs), encoder(inputs)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(encoder(inputs), first)
    assert torch.equal(encoder.eval()(inputs), Conv.forward(encoder.eval(), inputs))


def test_moved_by_nothing_is_the_same_image():
    images = torch.rand(3, 2, 5, 7)
    torch.testing.assert_close(_moved(images, 0, 0.0, 0.0), images, rtol=0, atol=1e-5)


def test_shift_moves_the_content_by_at_most_that_many_pixels(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))  # the largest of every movement
    images = torch.rand(2, 1, 6, 8)
    torch.testing.assert_close(_moved(images, 2, 0.0, 0.0)[:, :, :-2, :-2], images[:, :, 2:, 2:], rtol=0, atol=1e-5)


def test_rotation_by_a_quarter_turns_a_square(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))
    images = torch.rand(2, 1, 5, 5)
    turned = _moved(images, 0, torch.pi / 2, 0.0)
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), rtol=0, atol=1e-5)


def _small(shape=(8, 8, 1)):
    return InputSpec(0, blocks=(Block("photo", "image", shape, mean=(0.0,), std=(1.0,)),))


@pytest.mark.parametrize(
    ("options", "channels"),
    [({"widths": [8, 8, 8]}, 8), ({"widths": [16, 32, 4]}, 4), ({"widths": [16, 16, 2, 16]}, 2)],
)
def test_a_pixel_that_is_normalised_alone_is_refused(options, channels):
    message = (
        f"encoder.widths: leave one pixel of an image of 8x8 at {channels} channels, which their normalisation makes "
        f"the same for all images, got {options['widths']}. Write fewer, or 16 and more channels there, or "
        "encoder.stem_stride=1."
    )
    with pytest.raises(ConfigError) as told:
        Conv(_small(), 6, **options)
    assert str(told.value) == message
    with pytest.raises(ConfigError, match=r"got \[8\]\. Write fewer, or 16 and more channels there\.$"):
        Conv(_small((1, 1, 1)), 6, widths=[8], stem_stride=1)


@pytest.mark.parametrize(
    "options",
    [{"widths": [8, 8, 8], "stem_stride": 1}, {"widths": [8, 8]}, {"widths": [8, 8, 16]}, {"widths": [8, 8, 12]}],
)
def test_features_of_small_images_tell_them_apart(options):
    encoder = Conv(_small(), 6, **options)
    rows = Inputs(torch.empty(9, 0), torch.empty(9, 0, dtype=torch.int64), {"photo": torch.randn(9, 8, 8, 1)})
    assert float(encoder(rows).detach().std(0).max()) > 0.01


def test_more_than_one_image_column_is_refused():
    spec, _ = encoder_world("image")
    second = spec.blocks[0].__class__("other", "image", (9, 8, 2), mean=(0.0, 0.0), std=(1.0, 1.0))
    with pytest.raises(ConfigError, match=r"encoder: reads one input of type image.* 'photo', 'other'"):
        Conv(InputSpec(0, blocks=(*spec.blocks, second)), 6)


def test_network_without_blocks_is_refused():
    with pytest.raises(ConfigError, match=r"^encoder\.widths: must name one width or more, got \[\]\.$"):
        Conv(encoder_world("image")[0], 6, widths=[])


def test_large_values_of_float_images_are_read_as_they_are():
    spec, inputs = encoder_world("image")
    encoder = Conv(spec, 6).eval()
    as_float = Inputs(inputs.numeric, inputs.categorical, {"photo": inputs.blocks["photo"].float()})
    assert torch.equal(encoder(as_float), encoder(inputs))
