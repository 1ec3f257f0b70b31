"""One training step. It knows no method, kind or architecture by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_cli.balancing import Balancing
from mtl_cli.balancing.autograd import (
    BalancedBatch,
    GradientAccumulator,
    Parameters,
    PieceLosses,
    TaskGradients,
    maker_for,
)
from mtl_cli.balancing.scale import InitialScale
from mtl_cli.data.batches import Epoch, Piece, Rows
from mtl_cli.loop.objective import Objective
from mtl_cli.loop.passes import StepPasses, ValidationBatches
from mtl_cli.loop.pieces import pieces
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.backward import Backward, Jacobian
from mtl_cli.optim import FlatParameters, Optimizer, Scheduler
from mtl_cli.processes import ALONE, ProcessGroup
from mtl_cli.registry import expect_shape
from mtl_cli.types import Labels


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
        processes: Those that make each step together; this one works on its share of every piece.
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
    processes: ProcessGroup = ALONE

    def lr(self, step: int) -> float:
        """The learning rate of the model's parameters after ``step`` steps."""
        return self.optimizers[0].lr * self.scheduler.factor(step)

    def accumulator(self, tasks: Tensor) -> GradientAccumulator:
        """What adds up the gradients of a step for the tasks (k,) that balancing sees."""
        make, parameters = self._accumulating
        return make(parameters, tasks, self.processes)

    @cached_property
    def _accumulating(self) -> tuple[Callable[[Parameters, Tensor, ProcessGroup], GradientAccumulator], Parameters]:
        """What adds up gradients, and for which parameters, found once."""
        flat, last = self.parameters, self.model.sharing.last_layer()
        return maker_for(self.balancing), Parameters(flat.shared, flat.private, last, (flat.gradient,), flat.jacobian)

    def losses(self, piece: Piece, scale: Tensor, *, cut: Callable[[Tensor, int], Tensor] | None = None) -> PieceLosses:
        """Losses of some rows; see ``Objective.losses``.

        What is known in closed form has no graph. ``cut`` stands between the encoder and the heads where they have one,
        see ``GradientAccumulator.cut``.
        """
        if self.processes.size == 1:  # every row is its own: a small step is spared the context
            return self._losses(piece, scale, cut)
        with self.processes.draws(self.model.training):
            return self._losses(piece, scale, cut)

    def _losses(self, piece: Piece, scale: Tensor, cut: Callable[[Tensor, int], Tensor] | None) -> PieceLosses:
        (inputs, labels, complete, *_), common = piece, None
        if self.autocast is None and self.balancing.needs_shared and not self.model.mixed:
            common = self.model.sharing.with_jacobian(inputs)
        if common is not None:
            return self._losses_by_task(*common, labels, scale, complete=complete)
        if self.balancing.needs_shared or self.autocast is not None:
            with self.precision():
                outputs = self.model.outputs(inputs, cut)
            return PieceLosses(*self.objective.losses(outputs, labels, scale, complete=complete))
        features, into_sharing = self.model.sharing.with_backward(inputs)
        outputs, into_heads = self.model.heads.with_backward(features)
        sums, gradient = self.objective.sums_and_gradient(outputs, labels, complete=complete)

        def backward(weights: Tensor) -> None:
            into_sharing(into_heads(self.objective.by_outputs(gradient, weights * scale)))

        return PieceLosses(sums * scale, sums, backward)

    def _losses_by_task(
        self,
        features: Tensor,
        into_sharing: Backward,
        jacobian: Jacobian,
        labels: Labels,
        scale: Tensor,
        *,
        complete: bool,
    ) -> PieceLosses:
        outputs, into_heads = self.model.heads.with_backward(features.expand(len(scale), *features.shape))
        sums, gradient = self.objective.sums_and_gradient(outputs, labels, complete=complete)

        def gradients(weights: Tensor) -> Tensor:
            return into_heads(self.objective.by_outputs(gradient, weights * scale))

        def backward(weights: Tensor) -> None:
            into_sharing(gradients(weights).sum(0))

        return PieceLosses(sums * scale, sums, backward, TaskGradients(features, gradients, into_sharing, jacobian))

    def precision(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        device = self.parameters.values.device.type
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)


def compile_trunk(learner: Learner, backend: str = "inductor") -> None:
    """Compiles the encoders with their sharing, which is all of the model but its heads.

    Args:
        learner: What is trained.
        backend: Of ``torch.compile``.
    """
    from torch._functorch import config

    # Methods on gradients, and the looks at gradients of any run, go backward once for each task: nothing may be given
    # away the first time.
    config.donated_buffer = False
    learner.model.sharing.compile(backend=backend)


class NotFinite(Exception):
    """A loss or a gradient of a step is not finite.

    Args:
        tasks: Positions of the tasks whose loss is not; none if it is a gradient alone.
        by_weights: All losses are finite, and the weights that balancing made of them are not.
    """

    def __init__(self, tasks: list[int], *, by_weights: bool = False) -> None:
        super().__init__(f"losses of tasks {tasks}" if tasks else "a gradient")
        self.tasks, self.by_weights = tasks, by_weights


class StepResult(NamedTuple):
    """What a step of training found.

    Args:
        sums: (K,), the weighted sum of the row losses of each task.
        weights: (k,), what balancing gave, if anything, to the tasks that it sees: those with labels and a weight
            above 0.
        norms: (k,), the lengths of their gradients by the shared parameters, if balancing needed these.
    """

    sums: Tensor
    weights: Tensor | None = None
    norms: Tensor | None = None


def train_step(
    learner: Learner,
    rows: Rows,
    epoch: Epoch,
    batch: int,
    step: int,
    validation: ValidationBatches | None = None,
    *,
    only_finite: bool = False,
) -> StepResult:
    """Trains on one batch of an epoch.

    Args:
        learner: What is trained.
        rows: The training rows.
        epoch: The epoch's batches.
        batch: Which of them, from 0.
        step: Steps before this one in the whole run.
        validation: Batches of validation rows, for methods that balance by them.
        only_finite: Look, before the optimizers do anything, whether losses and gradients are finite.

    Returns:
        What it found, on the device: reading it is what would make the host wait.

    Raises:
        NotFinite: With ``only_finite``; the optimizers have done nothing, balancing and the generators have.
    """
    absent, inactive, scale = epoch.absent[batch], epoch.inactive[batch], epoch.scale[batch]
    if inactive and len(inactive) == len(scale):  # no label that counts: as if the step had not been
        return StepResult(_sums(learner, rows, epoch, batch))
    tasks = learner.objective.tasks(inactive)
    balancing, passes = learner.balancing, None
    if balancing.extra_passes or learner.loss_scale is not None:
        same_pieces = partial(pieces, learner, rows, epoch, batch)
        passes = StepPasses(learner, same_pieces, epoch, batch, tasks, step, validation)
        scale = passes.scale
        if balancing.extra_passes:
            balancing.before_step(passes, tasks)
    for optimizer in learner.optimizers:
        optimizer.flat.zero_gradient()
    accumulator = learner.accumulator(tasks)
    own = 0  # rows of the last piece
    for piece in pieces(learner, rows, epoch, batch):
        own = piece.own
        found = learner.losses(piece, scale, cut=accumulator.cut)
        if inactive:
            found = found.only(tasks)
        accumulator.add(found, piece.fraction)
    balanced = accumulator.finish()
    sharing = learner.model.sharing
    _add_penalty(learner, sharing.penalty(), own, absent)
    learner.parameters.zero_still()
    clip(learner)
    if only_finite:
        _refuse_what_is_not_finite(balanced, [optimizer.flat.gradient for optimizer in learner.optimizers])
    update(learner, step, absent)
    if passes is not None and balancing.extra_passes:
        balancing.after_step(passes, balanced.losses, tasks)
    sharing.after_step()
    return StepResult(balanced.sums, balanced.weights, balanced.norms)


@torch.no_grad()
def _sums(learner: Learner, rows: Rows, epoch: Epoch, batch: int) -> Tensor:
    """Weighted sums of the row losses of each task (K,) of a batch that trains nothing."""
    scale = epoch.scale[batch]
    if len(epoch.absent[batch]) == len(scale):
        return torch.zeros_like(scale)
    sums = torch.stack([learner.losses(piece, scale).sums for piece in pieces(learner, rows, epoch, batch)]).sum(0)
    learner.processes.add_up(sums)
    return sums


def _add_penalty(learner: Learner, penalty: Tensor | None, rows: int, absent: Sequence[int]) -> None:
    """Adds the gradient of what the architecture asks for besides the losses, if it does.

    It may be a mean over the ``rows`` of this process that were read last: several processes add theirs up. What it
    asks of the parameters of ``absent`` tasks, which stay as they are, must not count for clipping.
    """
    if penalty is None:
        return
    expect_shape(learner.model.sharing, "penalty", penalty, ())
    if not penalty.requires_grad:  # frozen parameters
        return
    if learner.processes.size == 1:
        penalty.backward()
    else:
        _add_penalty_of_all(learner, penalty, rows)
    if absent and learner.clip is not None:
        learner.parameters.zero_gradient(absent)


def _add_penalty_of_all(learner: Learner, penalty: Tensor, rows: int) -> None:
    """Adds the mean of the gradients of all processes, by the rows that each has read."""
    gradient = learner.parameters.gradient
    of_losses, every = gradient.clone(), gradient.new_tensor([float(rows)])
    learner.processes.add_up(every)
    gradient.zero_()
    (penalty * (rows / every[0])).backward()
    learner.processes.add_up(gradient)
    gradient += of_losses


def clip(learner: Learner) -> None:
    """Makes the gradient by the model's parameters as long as is allowed, if it is longer."""
    if learner.clip is not None:
        norm = learner.parameters.gradient_norm()
        learner.parameters.gradient.mul_((learner.clip / (norm + 1e-6)).clamp(max=1.0))


def update(learner: Learner, step: int, absent: Sequence[int]) -> None:
    """Lets all optimizers do their step."""
    factor = learner.scheduler.factor(step)
    for optimizer in learner.optimizers:
        optimizer.step(factor, absent)


def _refuse_what_is_not_finite(balanced: BalancedBatch, gradients: list[Tensor]) -> None:
    bad, weights = (~balanced.sums.isfinite()).nonzero().flatten().tolist(), balanced.weights
    if bad or not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise NotFinite(bad, by_weights=not bad and weights is not None and not bool(weights.isfinite().all()))
