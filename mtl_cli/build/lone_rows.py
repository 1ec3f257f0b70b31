"""Batches of one row, which a layer that takes statistics over the rows of a batch cannot be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

import torch
from torch import Tensor, nn

from mtl_cli.data.batches import Rows, batch_sizes
from mtl_cli.data.mixing import Mixing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.loop import Learner
from mtl_cli.loop.diagnostics import unchanged
from mtl_cli.loop.pieces import piece_sizes
from mtl_cli.model.statistics import LayerOverRows, layers_over_rows
from mtl_cli.schema import RunConfig

_TRIED = 64  # larger batch sizes that a hint is looked for among


def refuse_lone_rows(config: RunConfig, learner: Learner, rows: Rows, mixing: Mixing) -> None:
    """Refuses a training some of whose batches, or pieces of one, have one row, if a layer cannot take it alone.

    Raises:
        ConfigError: It would break off; names keys with which it does not.
    """
    layers = layers_over_rows(learner.model)
    if not layers:
        return
    options, count = config.data, len(rows)
    batches = _reached(config, rows, mixing, options.batch_size, options.drop_last)
    if 1 not in _pieces(config, learner, batches):
        return
    found = _breaks_alone(layers, learner, rows)
    if found is None:
        return
    if options.batch_size == 1:
        what = "1 gives a layer one row at a time"
    elif 1 in batches:
        last = "of a source" if mixing.method == "round_robin" else "of an epoch"
        drawn = "1 training row" if count == 1 else f"{count:,} training rows"
        what = f"{options.batch_size} leaves one row for the last batch {last} ({drawn})"
    else:
        accumulated, name = config.trainer.accumulate_grad_batches, config.balancing.name
        cut = f"trainer.accumulate_grad_batches={accumulated} or balancing={name}"
        what = f"{options.batch_size} leaves one row for a part of a step, as {cut} cuts it"
    what += f", and {found.description}, which takes statistics over several"
    settings = " or ".join(_other_settings(config, learner, rows, mixing))
    hint = f"Write {settings}, or use LayerNorm or GroupNorm." if settings else "Use LayerNorm or GroupNorm."
    raise ConfigError(Problem("data.batch_size", what, hint))


def _other_settings(config: RunConfig, learner: Learner, rows: Rows, mixing: Mixing) -> list[str]:
    """Keys and values with which no row is alone, as far as there are some."""

    def helps(batch_size: int, drop_last: bool) -> bool:
        batches = _reached(config, rows, mixing, batch_size, drop_last)
        return 1 not in _pieces(config, learner, batches, batch_size)

    own = config.data.batch_size
    larger = next((n for n in range(own + 1, own + _TRIED) if helps(n, config.data.drop_last)), None)
    dropping = ["data.drop_last=true"] if not config.data.drop_last and helps(own, True) else []
    return [*dropping, *([] if larger is None else [f"data.batch_size={larger}"])]


def _reached(config: RunConfig, rows: Rows, mixing: Mixing, batch_size: int, drop_last: bool) -> set[int]:
    """Numbers of rows of the batches that training comes to."""
    trainer = config.trainer
    annealed = mixing.anneal_epochs if mixing.method == "annealed" else None
    epochs = annealed or 1  # the others are as the last of these
    size = batch_size * trainer.accumulate_grad_batches
    sizes = chain.from_iterable(
        batch_sizes(rows, epoch, batch_size=size, drop_last=drop_last, mixing=mixing)
        for epoch in range(min(epochs, trainer.max_epochs or epochs))
    )
    return set(islice(sizes, trainer.max_steps))


def _pieces(config: RunConfig, learner: Learner, batches: set[int], batch_size: int | None = None) -> set[int]:
    """Numbers of rows of the pieces of batches."""
    most = (batch_size or config.data.batch_size) if config.trainer.accumulate_grad_batches > 1 else None
    return {piece for size in batches for piece in piece_sizes(size, most, learner.balancing.samples)}


class _Alone(Exception):
    """A layer over rows has one number for each channel."""


def _breaks_alone(layers: Sequence[LayerOverRows], learner: Learner, rows: Rows) -> LayerOverRows | None:
    """The first layer that a single row, with all that it has (positions, say), is not enough for."""
    met: list[LayerOverRows] = []

    def watch(found: LayerOverRows) -> torch.utils.hooks.RemovableHandle:
        def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            if given[0].numel() == given[0].shape[1]:
                met.append(found)
                raise _Alone

        return found.layer.register_forward_pre_hook(look)

    handles = [watch(found) for found in layers]
    try:
        with unchanged(learner), torch.no_grad(), learner.precision():
            learner.model.sharing.forward(rows.example(1))  # not called: a compiled module would be compiled for it
    except _Alone:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return met[0] if met else None
