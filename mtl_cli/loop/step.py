"""One training step. It knows no method, kind or architecture by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_cli.balancing import Balancing
from mtl_cli.balancing.autograd import GradientAccumulator
from mtl_cli.data.batches import Epoch, Rows
from mtl_cli.loop.objective import Objective
from mtl_cli.model import MultiTaskModel
from mtl_cli.optim import FlatParameters, Optimizer, Scheduler
from mtl_cli.types import Inputs


@dataclass
class Learner:
    """Everything that a step changes.

    Args:
        model: The model.
        objective: Outputs to losses.
        balancing: Losses to an update.
        parameters: The model's, flat.
        optimizers: Of the model's parameters, and of the balancing method's if it has any.
        scheduler: Factor on the learning rate.
        clip: Longest gradient allowed, or None.
        piece: Most rows to work on at once (gradients of the pieces add up), or None for the whole batch.
        autocast: Data type of mixed precision, or None.
    """

    model: MultiTaskModel
    objective: Objective
    balancing: Balancing
    parameters: FlatParameters
    optimizers: list[Optimizer]
    scheduler: Scheduler
    clip: float | None = None
    piece: int | None = None
    autocast: torch.dtype | None = None

    def precision(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        device = self.parameters.values.device.type
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)


def train_step(learner: Learner, rows: Rows, epoch: Epoch, step: int, global_step: int) -> tuple[Tensor, Tensor | None]:
    """Trains on batch ``step`` of the epoch.

    Args:
        learner: What is trained.
        rows: The training rows.
        epoch: The epoch's batches.
        step: Which of them, from 0.
        global_step: Optimizer steps before this one, for the schedule.

    Returns:
        Sum of the row losses of each task (K,), and the weights (K or fewer,) that balancing gave, if it gave any.
        Both are on the device: reading them is what would make the host wait.
    """
    absent, scale = epoch.absent[step], epoch.scale[step]
    if len(absent) == len(scale):  # no label at all: as if the step had not been
        return torch.zeros_like(scale), None
    present = torch.tensor([t for t in range(len(scale)) if t not in absent], device=scale.device) if absent else None
    for optimizer in learner.optimizers:
        optimizer.flat.zero_gradient()
    tasks = torch.arange(len(scale), device=scale.device) if present is None else present
    accumulator = GradientAccumulator(learner.balancing, learner.parameters.shared, learner.parameters.private, tasks)
    sums = torch.zeros_like(scale)
    for inputs, targets in _pieces(learner, rows, epoch, step):
        with learner.precision():
            outputs = learner.model.outputs(inputs)
        losses, piece_sums = learner.objective.losses(outputs, targets, scale, complete=rows.labelled is None)
        accumulator.add(losses if present is None else losses[present])
        sums += piece_sums
    _, weights = accumulator.finish()
    if learner.clip is not None:
        norm = learner.parameters.gradient_norm()
        learner.parameters.gradient.mul_((learner.clip / (norm + 1e-6)).clamp(max=1.0))
    factor = learner.scheduler.factor(global_step)
    for optimizer in learner.optimizers:
        optimizer.step(factor, absent)
    return sums, weights


def _pieces(learner: Learner, rows: Rows, epoch: Epoch, step: int) -> Iterator[tuple[Inputs, Tensor]]:
    start, stop = epoch.bounds[step]
    size = learner.piece or stop - start
    for first in range(start, stop, size):
        yield rows.gather(epoch.order[first : min(first + size, stop)])
