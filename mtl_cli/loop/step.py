"""One training step. It knows no method, kind or architecture by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mtl_cli.balancing import Balancing
from mtl_cli.balancing.autograd import GradientAccumulator
from mtl_cli.balancing.scale import InitialScale
from mtl_cli.data.batches import Epoch, Rows
from mtl_cli.loop.objective import Objective
from mtl_cli.loop.passes import StepPasses, ValidationBatches
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
        loss_scale: Scales the losses before balancing sees them, or None.
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
    loss_scale: InitialScale | None = None

    def losses(
        self,
        inputs: Inputs,
        targets: Tensor,
        scale: Tensor,
        *,
        complete: bool,
        cut: Callable[[Tensor, int], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], None] | None]:
        """Losses (K,) of some rows and their plain sums (K,); see ``Objective.losses``.

        Where the balancing method only weights losses they have no graph, and come with the function that adds the
        gradient of their weighted sum to ``parameter.grad``: no graph for what is known in closed form. ``cut`` stands
        between the encoder and the heads where they have one, see ``GradientAccumulator.cut``.
        """
        if self.balancing.needs_shared or self.autocast is not None:
            with self.precision():
                outputs = self.model.outputs(inputs, cut)
            return *self.objective.losses(outputs, targets, scale, complete=complete), None
        features, into_sharing = self.model.sharing.with_backward(inputs)
        outputs, into_heads = self.model.heads.with_backward(features)
        sums, gradient = self.objective.sums_and_gradient(outputs, targets, complete=complete)

        def backward(weights: Tensor) -> None:
            into_sharing(into_heads(self.objective.by_outputs(gradient, weights * scale)))

        return sums * scale, sums, backward

    def precision(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        device = self.parameters.values.device.type
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)


class NotFinite(Exception):
    """A loss or a gradient of a step is not finite.

    Args:
        tasks: Positions of the tasks whose loss is not; none if it is a gradient alone.
    """

    def __init__(self, tasks: list[int]) -> None:
        super().__init__(f"losses of tasks {tasks}" if tasks else "a gradient")
        self.tasks = tasks


def train_step(
    learner: Learner,
    rows: Rows,
    epoch: Epoch,
    step: int,
    global_step: int,
    validation: ValidationBatches | None = None,
    *,
    only_finite: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Trains on batch ``step`` of the epoch.

    Args:
        learner: What is trained.
        rows: The training rows.
        epoch: The epoch's batches.
        step: Which of them, from 0.
        global_step: Optimizer steps before this one, for the schedule.
        validation: Batches of validation rows, for methods that balance by them.
        only_finite: Look, before the optimizers do anything, whether losses and gradients are finite.

    Returns:
        Weighted sum of the row losses of each task (K,), and the weights (k,) that balancing gave the tasks with
        labels, if any.
        Both are on the device: reading them is what would make the host wait.

    Raises:
        NotFinite: With ``only_finite``; the optimizers have done nothing, balancing and the generators have.
    """
    absent, scale = epoch.absent[step], epoch.scale[step]
    if len(absent) == len(scale):  # no label at all: as if the step had not been
        return torch.zeros_like(scale), None
    present = torch.tensor([t for t in range(len(scale)) if t not in absent], device=scale.device) if absent else None
    tasks = learner.objective.all_tasks if present is None else present
    balancing, passes = learner.balancing, None
    if balancing.extra_passes or learner.loss_scale is not None:
        batch = partial(_pieces, learner, rows, epoch, step)
        passes = StepPasses(learner, batch, scale, tasks, global_step, validation)
        scale = passes.scale
        balancing.before_step(passes, tasks)
    for optimizer in learner.optimizers:
        optimizer.flat.zero_gradient()
    accumulator = GradientAccumulator(balancing, learner.parameters.shared, learner.parameters.private, tasks)
    sums: Tensor | None = None
    for inputs, targets in _pieces(learner, rows, epoch, step):
        losses, piece_sums, backward = learner.losses(
            inputs, targets, scale, complete=rows.labelled is None, cut=accumulator.cut
        )
        if present is not None:
            losses, backward = losses[present], backward and _only(present, backward, scale)
        accumulator.add(losses, backward)
        sums = piece_sums if sums is None else sums + piece_sums
    if sums is None:
        raise ValueError("a step without rows")
    batch_losses, weights = accumulator.finish()
    penalty = learner.model.sharing.penalty()
    if penalty is not None and penalty.requires_grad:  # not of frozen parameters
        penalty.backward()
    clip(learner)
    if only_finite:
        _refuse_what_is_not_finite(sums, [optimizer.flat.gradient for optimizer in learner.optimizers])
    update(learner, global_step, absent)
    if passes is not None:
        balancing.after_step(passes, batch_losses, tasks)
    return sums, weights


def clip(learner: Learner) -> None:
    """Makes the gradient as long as is allowed, if it is longer."""
    if learner.clip is not None:
        norm = learner.parameters.gradient_norm()
        learner.parameters.gradient.mul_((learner.clip / (norm + 1e-6)).clamp(max=1.0))


def update(learner: Learner, global_step: int, absent: Sequence[int]) -> None:
    """Lets all optimizers do their step."""
    factor = learner.scheduler.factor(global_step)
    for optimizer in learner.optimizers:
        optimizer.step(factor, absent)


def _refuse_what_is_not_finite(sums: Tensor, gradients: list[Tensor]) -> None:
    bad = (~sums.isfinite()).nonzero().flatten().tolist()
    if bad or not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise NotFinite(bad)


def _only(present: Tensor, backward: Callable[[Tensor], None], like: Tensor) -> Callable[[Tensor], None]:
    """The backward pass of all tasks (K,) as one of those that are present (k,)."""
    return lambda weights: backward(torch.zeros_like(like).index_copy(0, present, weights))


def _pieces(learner: Learner, rows: Rows, epoch: Epoch, step: int) -> Iterator[tuple[Inputs, Tensor]]:
    start, stop = epoch.bounds[step]
    part = -(-(stop - start) // learner.balancing.samples)
    size = min(learner.piece or part, part)
    for first in range(start, stop, size):
        yield rows.gather(epoch.order[first : min(first + size, stop)])
