"""The features that an encoder and an architecture of one's own give, looked at before they are trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.loop.unsaved import unregistered
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import Encoder
from mtl_cli.model.encoders.base import VmapStack, run_stages, stage_widths
from mtl_cli.registry import describe_component, expect_shape, from_outside
from mtl_cli.types import Inputs, Ragged

log = logging.getLogger(__name__)


@torch.no_grad()
def check_features(model: MultiTaskModel, inputs: Inputs) -> None:
    """Runs an encoder and a sharing architecture that are none of ours on a few rows, and looks for lost layers.

    Features that are others each time, or with other rows beside them, are told: no evaluation could be repeated.

    Args:
        model: The model.
        inputs: B rows.

    Raises:
        ConfigError: They give something else than features of these rows, or change the rows; names who does.
    """
    sharing = model.sharing
    encoders = [module for module in sharing.modules() if isinstance(module, Encoder | VmapStack)]
    kinds = [module.encoder if isinstance(module, VmapStack) else module for module in encoders]
    if not any(from_outside(type(part)) for part in (sharing, *kinds)):
        return
    training = model.training
    model.eval()
    for message in unregistered(model):
        log.warning("%s", message)
    shape = (kinds[0].positions(inputs) if kinds else len(inputs.numeric), model.shared_dim)
    if encoders and from_outside(type(kinds[0])):
        _check_encoder(kinds[0], encoders[0], inputs, shape)
    features = _given_by(sharing, sharing.forward, inputs)  # not called: a compiled module would be compiled for it
    own = getattr(features, "ndim", 2) == 3  # features for each task
    expect_shape(sharing, "features", features, (len(model.with_head), *shape) if own else shape)
    if from_outside(type(sharing)):
        _tell_of_other_features(sharing, sharing.forward, inputs, features)
    model.train(training)


def _check_encoder(encoder: Encoder, module: nn.Module, inputs: Inputs, shape: tuple[int, int]) -> None:
    """Whether an encoder gives features of a shape, and its stages the same.

    Args:
        encoder: The encoder.
        module: It, or a stack of its copies.
        inputs: The rows.
        shape: (positions, D).
    """
    features = _given_by(encoder, module, inputs)
    of_copies = isinstance(module, VmapStack) or getattr(features, "shape", ())[1:] == shape
    expect_shape(encoder, "features", features[0] if of_copies else features, shape)
    widths = stage_widths(encoder, shape[1])
    staged = features if len(widths) == 1 else run_stages(module, len(widths), inputs, lambda _, x: x)
    if not torch.allclose(staged, features, rtol=1e-3, atol=1e-4, equal_nan=True):
        what = "gives other features by its stages, one after another, than by its forward"
        raise ConfigError(Problem(describe_component(encoder), what, "Override both, or none."))
    _tell_of_other_features(encoder, module.forward, inputs, features)


def _contents(inputs: Inputs) -> list[Tensor]:
    """The tensors that hold the inputs."""
    blocks = (block if isinstance(block, Ragged) else (block,) for block in inputs.blocks.values())
    return [inputs.numeric, inputs.categorical, *chain.from_iterable(blocks)]


def _given_by(who: object, forward: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
    """The features of some rows, from what must not write into them: each evaluation would read others."""
    before = [values.clone() for values in _contents(inputs)]
    features = forward(inputs)
    same = (((now == then) | (then != then)).all() for now, then in zip(_contents(inputs), before, strict=True))
    if not all(map(bool, same)):
        what = "changes the rows that it is given, in place: an evaluation would read others each time"
        raise ConfigError(Problem(describe_component(who), what, "Let it work on what it makes of them."))
    return features


def _tell_of_other_features(who: object, forward: Callable[[Inputs], Tensor], inputs: Inputs, features: Tensor) -> None:
    """Says so where rows get other features (..., B, D) in a second evaluation, or without some of the other rows."""
    rows = len(inputs.numeric)
    some = rows // 2 if features.shape[-2] == rows else 0  # features of tokens stand elsewhere
    if not _alike(forward(inputs), features):
        what, hint = (
            "when it is asked again, in evaluation too",
            "Let it draw, or keep what it saw, only where self.training.",
        )
    elif some > 1 and not _alike(forward(inputs.part(0, some)), features):
        what, hint = "with other rows beside them", "Compute each row by itself; BatchNorm may look at others."
    else:
        return
    told = f"gives other features of the same rows {what}, so that its numbers and predictions cannot be repeated"
    log.warning("%s: %s. %s", describe_component(who), told, hint)


def _alike(some: Tensor, features: Tensor) -> bool:
    """Whether the features of the first rows are those that they have among all."""
    return torch.allclose(some, features[..., : some.shape[-2], :], rtol=1e-3, atol=1e-4, equal_nan=True)
