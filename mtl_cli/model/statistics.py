"""Layers that take statistics over the rows of a batch: in training a row's output depends on the other rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from mtl_cli.model.encoders.base import Encoder


class LayerOverRows(NamedTuple):
    """A layer that takes statistics over the rows of a batch.

    Args:
        name: Where it is in the model.
        layer: It.
        encoder: The encoder that it is part of and whose copies are computed together, or None.
    """

    name: str
    layer: _NormBase
    encoder: Encoder | None

    @property
    def description(self) -> str:
        """What messages call it."""
        return f"'{self.name}' is a {type(self.layer).__name__}"


def layers_over_rows(model: nn.Module) -> list[LayerOverRows]:
    """Those of a model in training, also in encoders that it keeps out of its tree; none that stay as in evaluation.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))
        >>> [found.description for found in layers_over_rows(model)], layers_over_rows(model.eval())
        (["'1' is a BatchNorm1d"], [])
    """
    return list(_layers(model, "", None))


def _layers(model: nn.Module, prefix: str, encoder: Encoder | None) -> Iterator[LayerOverRows]:
    for name, module in model.named_modules(prefix=prefix):
        if isinstance(module, _NormBase) and module.training and _is_over_rows(module):
            yield LayerOverRows(name, module, encoder)
        for inner in getattr(module, "kept_out", ()):
            yield from _layers(inner, name, inner if isinstance(inner, Encoder) else encoder)


def _is_over_rows(layer: _NormBase) -> bool:
    """Whether its statistics are those of several rows: those that instance normalisation keeps are, too."""
    return isinstance(layer, _BatchNorm) or layer.running_mean is not None
