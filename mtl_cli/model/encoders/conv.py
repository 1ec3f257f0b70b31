"""Small residual network over images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders.base import Encoder, stacked_copy
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.layers import Conv2d, GroupNorm, dropout
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Inputs, InputSpec, NonNegative, NonNegativeInt, PositiveInt, ProperFraction


@ENCODERS.register("conv")
class Conv(Encoder):
    """Residual network over one image column (He et al. 2016, 'Identity Mappings'), with GroupNorm.

    GroupNorm needs no statistics of other rows and is the same in training and evaluation, unlike BatchNorm.
    The image is standardised per channel; a 3x3 convolution and one residual block per width follow, each block from
    the second on at half the resolution. Numbers and categories of the row join before the last, linear layer.

    Args:
        spec: What the inputs are; one image column.
        shared_dim: D, the width of the last layer.
        widths: Channels of each block, one or more.
        stem_stride: Stride of the first convolution; 2 halves the resolution at once, and the time by four.
        pool: ``flatten`` keeps where in the image a feature is; ``mean`` forgets it, for large images of one thing.
        dropout: Share of the pooled features and of the outputs set to 0 in training.
        shift: Most pixels that a training image is moved by at random, in both directions.
        rotate: Most degrees that it is turned by.
        zoom: Most that it is enlarged or reduced by, as a fraction of its size.
        embedding_dim: Numbers that stand for one category of a categorical column.

    Shape:
        image (B, H, W, channels) uint8 or float32 -> (B, D).

    Raises:
        ConfigError: ``widths`` is empty, or leaves nothing of an image that small; or the data have no image column, or
            more than one.

    Example:
        >>> from mtl_cli.types import Block
        >>> image = Block("x", "image", (36, 36, 1), mean=(30.0,), std=(70.0,))
        >>> encoder = Conv(InputSpec(0, blocks=(image,)), 8)
        >>> rows = Inputs(torch.empty(2, 0), torch.empty(2, 0, dtype=torch.int64), {"x": torch.zeros(2, 36, 36, 1)})
        >>> encoder(rows).shape
        torch.Size([2, 8])
    """

    reads: ClassVar[str] = "image"
    costly: ClassVar[bool] = True
    most_blocks: ClassVar[int] = 1

    def __init__(
        self,
        spec: InputSpec,
        shared_dim: int,
        *,
        widths: list[PositiveInt] = [16, 32, 64],  # noqa: B006  read only; the literal documents the default
        stem_stride: PositiveInt = 2,
        pool: Literal["flatten", "mean"] = "flatten",
        dropout: ProperFraction = 0.0,
        shift: NonNegativeInt = 0,
        rotate: NonNegative = 0.0,
        zoom: ProperFraction = 0.0,
        embedding_dim: PositiveInt = 8,
    ) -> None:
        super().__init__()
        if not widths:
            raise ConfigError(Problem("encoder.widths", "must name one width or more, got []"))
        (image,) = self.blocks_of(spec)
        self._image, self._flatten, self._dropout = image.name, pool == "flatten", dropout
        self.inner_widths = tuple(widths)
        self._move = (shift, math.radians(rotate), zoom)
        height, width, channels = image.shape
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(image.mean), persistent=False)
        self.register_buffer("std", torch.tensor(image.std), persistent=False)
        self.stem = Conv2d(channels, widths[0], 3, stem_stride)
        strides = [1] + [2] * (len(widths) - 1)
        self.blocks = nn.ModuleList(
            _Residual(a, b, stride) for a, b, stride in zip([widths[0], *widths], widths, strides, strict=False)
        )
        self.norm = GroupNorm(widths[-1])
        height, width = -(-height // stem_stride), -(-width // stem_stride)
        for outputs, stride in zip(widths, strides, strict=True):
            height, width = -(-height // stride), -(-width // stride)
            if height * width == 1 and GroupNorm.groups(outputs) == outputs:
                raise ConfigError(_constant(image.shape, widths, outputs, stem_stride))
        pooled = widths[-1] * (height * width if self._flatten else 1)
        inner = InputSpec(spec.numeric_dim + pooled, spec.categories, spec.edges)
        self.last = MLP(inner, shared_dim, dropout=dropout, embedding_dim=embedding_dim)

    def forward(self, inputs: Inputs) -> Tensor:
        x = self._stem(inputs)
        for block in self.blocks:
            x = block(x)
        return self._last(x, inputs)

    def stage(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        """A block, the first with the convolution before it; then the pooling and the last layer."""
        beside = self._stem(inputs) if x is None else self._beside(x)
        return self._last(beside, inputs) if index == len(self.blocks) else self._apart(self.blocks[index](beside))

    def stage_of_slices(self, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        return super().stage_of_slices(index, x, inputs._replace(blocks={}))  # the image is not read again

    def tables(self) -> list[str]:
        return [f"last.{name}" for name in self.last.tables()]

    def _stem(self, inputs: Inputs) -> Tensor:
        pixels = inputs.blocks[self._image]
        if not isinstance(pixels, Tensor):
            raise TypeError("an image column is one tensor")
        x = ((pixels - self.mean) / self.std).permute(0, 3, 1, 2)  # as small as it is stored until here
        if self.training and any(self._move):
            x = _moved(x, *self._move)
        convolved: Tensor = self.stem(x)
        return convolved

    def _last(self, x: Tensor, inputs: Inputs) -> Tensor:
        x = self._apart(torch.relu(self.norm(x)))
        x = x.flatten(-3) if self._flatten else x.mean((-2, -1))
        x = dropout(x, self._dropout, self.training)
        numeric = inputs.numeric.expand(*x.shape[:-1], inputs.numeric.shape[1])
        features: Tensor = self.last(Inputs(torch.cat([numeric, x], -1), inputs.categorical))
        return features

    def _apart(self, x: Tensor) -> Tensor:
        """Copies that stand side by side in the channels, (B, E * C, ...), as (E, B, C, ...)."""
        return x if self.stem.weight.dim() == 4 else x.unflatten(1, (len(self.stem.weight), -1)).transpose(0, 1)

    def _beside(self, x: Tensor) -> Tensor:
        return x if self.stem.weight.dim() == 4 else x.transpose(0, 1).flatten(1, 2)

    @classmethod
    def widths_by(cls, options: Mapping[str, Any]) -> Sequence[int]:
        return tuple(options["widths"])

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        return stacked_copy(encoders)


class _Residual(nn.Module):
    """x + two 3x3 convolutions of the normalised x; a 1x1 convolution carries x where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(inputs), GroupNorm(outputs)
        self.conv1 = Conv2d(inputs, outputs, 3, stride)
        self.conv2 = Conv2d(outputs, outputs, 3)
        self.skip = Conv2d(inputs, outputs, 1, stride) if inputs != outputs or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        normal = torch.relu(self.norm1(x))
        inner = self.conv2(torch.relu(self.norm2(self.conv1(normal))))
        summed: Tensor = inner + (x if self.skip is None else self.skip(normal))
        return summed


def _constant(shape: Sequence[int], widths: Sequence[int], narrow: int, stem_stride: int) -> Problem:
    """Tells of a GroupNorm with one number in each group, of which it makes 0 whatever it is."""
    what = (
        f"leave one pixel of an image of {shape[0]}x{shape[1]} at {narrow} channels, which their normalisation makes "
    )
    what += f"the same for all images, got {list(widths)}"
    larger = "" if stem_stride == 1 else ", or encoder.stem_stride=1"
    return Problem("encoder.widths", what, f"Write fewer, or 16 and more channels there{larger}.")


def _moved(x: Tensor, shift: int, angle: float, zoom: float) -> Tensor:
    """Each image (B, channels, H, W) shifted, turned and zoomed by random amounts of its own."""
    rows, _, height, width = x.shape
    draw = torch.rand(4, rows, 1, 1, dtype=x.dtype, device=x.device) * 2 - 1  # part of the run's random state
    turn, scale = draw[0] * angle, 1 + draw[1] * zoom
    # The grid of grid_sample runs from -1 to 1 over the pixels' centres, x before y.
    across = torch.linspace(-1, 1, width, device=x.device).view(1, 1, width)
    down = torch.linspace(-1, 1, height, device=x.device).view(1, height, 1)
    cos, sin, aspect = torch.cos(turn) * scale, torch.sin(turn) * scale, (height - 1) / max(width - 1, 1)
    to_x = cos * across - sin * aspect * down + draw[2] * 2 * shift / max(width - 1, 1)
    to_y = sin / aspect * across + cos * down + draw[3] * 2 * shift / max(height - 1, 1)
    grid = torch.stack(torch.broadcast_tensors(to_x, to_y), -1)
    moved: Tensor = functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return moved
