"""What a model or a balancing method cannot do, and only they themselves, once built, can tell."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mtl_cli.balancing import Balancing, GradientBalancing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.ownership import find_flaw
from mtl_cli.model.statistics import layers_over_rows
from mtl_cli.optim import FlatParameters
from mtl_cli.registry import describe_component


def check_owners(model: MultiTaskModel) -> None:
    """Refuses an architecture that says of a parameter nothing or too much: what nobody owns is never trained.

    Raises:
        ConfigError: Some row of a parameter has no owner, or two.
    """
    sharing = model.sharing
    flaw = find_flaw(dict(sharing.named_parameters()), sharing.owners(), len(model.with_head))
    if flaw is not None:
        hint = (
            "Each row (axis 0) of each parameter has one owner, as shared and stacked of mtl_cli.model.ownership give."
        )
        raise ConfigError(Problem(describe_component(sharing), f"its owners() is wrong: {flaw}", hint))


def refuse_statistics(model: MultiTaskModel) -> None:
    """Refuses what makes a row's output depend on the other rows of a process.

    Raises:
        ConfigError: Some layer takes statistics over the rows of a batch.
    """
    for found in layers_over_rows(model):
        if not isinstance(found.layer, nn.SyncBatchNorm):
            what = f"{found.description}, whose statistics would be of each process's rows alone"
            hint = "Use LayerNorm or GroupNorm, or train in one process."
            raise ConfigError(Problem("WORLD_SIZE", what, hint))


def refuse_copied_statistics(model: MultiTaskModel) -> None:
    """Refuses copies of an encoder that would have to keep statistics, of which there is one set for all copies.

    Raises:
        ConfigError: Some layer of such copies keeps statistics of what it sees in training.
    """
    for found in layers_over_rows(model):
        if found.encoder is not None and found.layer.running_mean is not None:
            what = f"{found.description} that keeps statistics, and copies of an encoder, which are computed together, "
            what += "cannot each keep their own"
            hint = "Use LayerNorm or GroupNorm, sharing=hard, or give the encoder a `stack` of its own."
            raise ConfigError(Problem(describe_component(found.encoder), what, hint))


def check_buffers(name: str, balancing: Balancing, device: torch.device) -> None:
    """Whether a device can hold what a method remembers.

    Args:
        name: Of the method.
        balancing: The method.
        device: That trains.

    Raises:
        ConfigError: It cannot.
    """
    if device.type == "mps" and any(buffer.dtype == torch.float64 for buffer in balancing.buffers()):
        what = f"'{name}' remembers 64-bit numbers, and trainer.device=mps has none"
        raise ConfigError(Problem("balancing", what, "Use trainer.device=cpu, or another method."))


def check_balancing(name: str, balancing: Balancing, parameters: FlatParameters, labelled: np.ndarray) -> None:
    """What a method on gradients needs and only the model and the training labels can tell.

    Args:
        name: What the method is registered as.
        balancing: The method.
        parameters: The model's.
        labelled: (P, K) bool, whether each training row or token has a label for each task.

    Raises:
        ConfigError: No parameter is shared as a whole and trained, or gradients of features are asked for and no row
            or token has two labels.
    """
    if balancing.needs_shared and not parameters.shared:
        why, hint = "all of them are frozen", "or freeze less"
        if any(segment.task is None for segment in parameters.segments):
            why = "here tasks share only parts of parameters whose other parts are those of one task"
            hint = "or another architecture, such as sharing=hard"
        what = f"'{name}' works on gradients of shared parameters, and {why}"
        raise ConfigError(
            Problem("balancing", what, f"Use a method that weights losses, such as balancing=equal, {hint}.")
        )
    if not isinstance(balancing, GradientBalancing):
        return
    alone = labelled.shape[1] > 1 and not (labelled.sum(1) > 1).any()
    if balancing.gradients_on == "features" and alone:
        what = f"'features': '{name}' needs training rows, or tokens, with labels for two tasks, and there are none"
        hint = "Write balancing.gradients_on=parameters, with which every method takes rows of one task each."
        raise ConfigError(Problem("balancing.gradients_on", what, hint))
