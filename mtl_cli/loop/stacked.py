"""Steps of several trainings at once: their parameters are the rows of one matrix, their batches one batched product.

On a CPU each training ends with the very bits that it would have alone if the batch size is a multiple of 32: steps
whose bits would differ, those of very narrow models and of a smaller last batch, are made alone. With another batch
size the last bits of a step may differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_cli.balancing import LossBalancing
from mtl_cli.balancing.autograd import PieceLosses, weigh
from mtl_cli.data.batches import join_labels
from mtl_cli.loop.step import Learner, StepResult, clip, update
from mtl_cli.loop.trainer import Step, Trainer
from mtl_cli.model.stacked import likeness as model_likeness
from mtl_cli.model.stacked import smallest_product, stack_models
from mtl_cli.tasks import likeness as kind_likeness
from mtl_cli.types import Inputs, Labels

# Loops over elements work on so many at once and do the rest one by one, with another last bit; products depend on
# where in a cache line their operands begin.
_LANES = 32
# A batched product of fewer multiplications is added up one by one, in another order than a plain one.
_FEW_MULTIPLICATIONS = 400
_PROGRAMS = 16  # of subsets of the trainings, kept ready


def likeness(trainer: Trainer) -> Hashable | None:
    """Equal for trainings whose steps can be made together; None for one whose steps cannot."""
    learner, balancing = trainer.learner, trainer.learner.balancing
    plain = learner.loss_scale is None and learner.autocast is None and learner.piece is None
    if not plain or trainer.schedule.skip_nonfinite or not weighs_losses(balancing):
        return None
    if trainer.train.changes or trainer.train.labels_tokens or trainer.train.streamed:
        return None
    model = model_likeness(learner.model)
    kinds = tuple(map(kind_likeness, learner.objective.kinds))
    if model is None or None in kinds:
        return None
    device, labels = learner.parameters.values.device, trainer.train.labels
    like = model, kinds, labels.targets.shape[1], labels.shares is None, device
    return like if device.type in ("cpu", "cuda") else None


def weighs_losses(balancing: object) -> bool:
    """Whether a method (or its class) does nothing but weight the losses of the step."""
    method = balancing if isinstance(balancing, type) else type(balancing)
    if not issubclass(method, LossBalancing):
        return False
    return method.observes == "nothing" and not method.extra_passes and method.samples == 1


class Stack:
    """R trainings that are alike. Their parameters move into the rows of one matrix and stay there.

    Args:
        trainers: The trainings, before their first step.
        generators: What each draws its dropout from.
    """

    def __init__(self, trainers: Sequence[Trainer], generators: Sequence[torch.Generator]) -> None:
        self._trainers, self._generators = list(trainers), list(generators)
        like = trainers[0].learner.parameters.values
        self._values = _rows_like(like, len(trainers))
        self._gradient = _rows_like(like, len(trainers))
        for trainer, values, gradient in zip(trainers, self._values, self._gradient, strict=True):
            trainer.learner.parameters.move(values, gradient)
        self._row = {id(trainer): row for row, trainer in enumerate(trainers)}
        self._programs: dict[tuple[int, ...], _Program] = {}
        # Multiplications for each row; on other devices than a CPU no bits are promised.
        self._smallest = smallest_product(trainers[0].learner.model) if like.device.type == "cpu" else None

    def parts(self, steps: Sequence[Step]) -> list[list[Step]]:
        """Those that ``make`` should make together, and those that are better made alone.

        Together: batches with as many rows. Alone: a smaller last batch of an epoch, and any batch of a very narrow
        model, if its bits would differ.
        """
        ordered = sorted(steps, key=_size)
        parts = [list(part) for _, part in groupby(ordered, key=_size)]
        return [some for part in parts for some in ([part] if self._together(part[0]) else [[step] for step in part])]

    def _together(self, step: Step) -> bool:
        size = _size(step)
        if size.rows % _LANES:  # they would differ in either case
            return size.learns and size.rows == step.trainer.schedule.batch_size
        return size.learns and (self._smallest is None or size.rows * self._smallest >= _FEW_MULTIPLICATIONS)

    def make(self, steps: Sequence[Step]) -> list[StepResult]:
        """Makes one step of each of several trainings; gives what each of them is to be sent."""
        rows = tuple(self._row[id(step.trainer)] for step in steps)
        if rows not in self._programs:
            if len(self._programs) == _PROGRAMS:
                self._programs.clear()
            self._programs[rows] = _Program(self._trainers, self._generators, self._values, self._gradient, rows)
        return self._programs[rows].make(steps)


class _Size(NamedTuple):
    rows: int
    complete: bool  # no label is missing
    learns: bool  # some label counts


def _size(step: Step) -> _Size:
    (start, stop), inactive = step.epoch.bounds[step.index], step.epoch.inactive[step.index]
    return _Size(stop - start, step.trainer.train.labelled is None, len(inactive) < step.epoch.scale.shape[1])


def _rows_like(vector: Tensor, rows: int) -> Tensor:
    """(rows, P) zeros, each row at the start of a cache line, as a vector of its own is."""
    length = -(-len(vector) // _LANES) * _LANES
    return vector.new_zeros(rows, length)[:, : len(vector)]


class _Program:
    """The step of some of the trainings: the whole matrix, or copies of some of its rows."""

    def __init__(
        self,
        trainers: Sequence[Trainer],
        generators: Sequence[torch.Generator],
        values: Tensor,
        gradient: Tensor,
        rows: tuple[int, ...],
    ) -> None:
        self._all_values, self._all_gradients = values, gradient
        self._rows: Tensor | None = None
        if rows != tuple(range(len(trainers))):
            self._rows = torch.tensor(rows, device=values.device)
            values, gradient = (_rows_like(matrix[0], len(rows)) for matrix in (values, gradient))
        self._values, self._gradient = values, gradient
        learners = [trainers[row].learner for row in rows]
        self._objective = learners[0].objective
        self._model = stack_models(
            [learner.model for learner in learners],
            learners[0].parameters.places,
            values,
            gradient,
            [generators[row] for row in rows],
        )

    @torch.no_grad()
    def make(self, steps: Sequence[Step]) -> list[StepResult]:
        if self._rows is not None:
            self._values.copy_(self._all_values[self._rows])
        self._gradient.zero_()
        inputs, labels = _gather(steps)
        features, into_sharing = self._model.sharing.with_backward(inputs)
        outputs, into_heads = self._model.heads.with_backward(features)
        sums, slopes = self._sums_and_slopes(outputs, labels, complete=steps[0].trainer.train.labelled is None)
        scales = torch.stack([step.epoch.scale[step.index] for step in steps])  # (R, K)
        losses = sums * scales
        weights = [_balance(step, own) for step, own in zip(steps, losses, strict=True)]
        factors = torch.stack([every for every, _ in weights]) * scales
        per_row = self._objective.per_row(factors.t()).t().unsqueeze(2)  # (R, O, 1)
        into_sharing(into_heads((slopes * per_row).contiguous()))
        if self._rows is not None:
            self._all_gradients.index_copy_(0, self._rows, self._gradient)
        for step in steps:
            step.trainer.learner.parameters.zero_still()
            clip(step.trainer.learner)
            update(step.trainer.learner, step.trainer.progress.step, step.epoch.absent[step.index])
        return [StepResult(own, of_present) for own, (_, of_present) in zip(sums, weights, strict=True)]

    def _sums_and_slopes(self, outputs: Tensor, labels: Labels, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Of outputs (R, O, B) and R * B labels: sums of the row losses (R, K), and their derivative (R, O, B)."""
        runs, rows, size = outputs.shape
        side_by_side = outputs.transpose(0, 1).reshape(rows, -1)
        losses, slopes = self._objective.losses_and_gradient(side_by_side, labels, complete=complete)
        return losses.reshape(-1, runs, size).sum(2).t().contiguous(), slopes.view(rows, runs, size).transpose(0, 1)


def _gather(steps: Sequence[Step]) -> tuple[Inputs, Labels]:
    """Inputs of the batches, with a leading axis R; their labels, one batch below the other."""
    orders = [step.epoch.order[slice(*step.epoch.bounds[step.index])] for step in steps]
    rows = steps[0].trainer.train
    if all(step.trainer.train is rows for step in steps):
        inputs, labels = rows.gather(torch.cat(orders))
        numeric, codes = inputs.numeric, inputs.categorical
    else:
        batches = [step.trainer.train.gather(order) for step, order in zip(steps, orders, strict=True)]
        numeric = torch.cat([inputs.numeric for inputs, _ in batches])
        codes = torch.cat([inputs.categorical for inputs, _ in batches])
        labels = join_labels([labels for _, labels in batches])
    lead = len(steps), len(orders[0])
    codes = codes.view(*lead, -1) if codes.shape[1] else codes.new_empty(*lead, 0)
    return Inputs(numeric.view(*lead, -1), codes), labels


def _balance(step: Step, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the losses (K,) of one training by its balancing method: (K,), and (k,) of those that it sees."""
    learner, inactive = step.trainer.learner, step.epoch.inactive[step.index]
    balancing, tasks, everyone = learner.balancing, learner.objective.tasks(inactive), losses
    if inactive:
        losses = losses[tasks]
    if isinstance(balancing, LossBalancing) and not balancing.has_parameters:
        weights = weigh(balancing, losses, tasks)
    else:
        weights = _balance_and_learn(learner, losses, tasks)
    return (torch.zeros_like(everyone).index_copy(0, tasks, weights) if inactive else weights), weights


def _balance_and_learn(learner: Learner, losses: Tensor, tasks: Tensor) -> Tensor:
    """The weights (k,) of the losses (k,) by a method that learns from them, with the gradient of what it learns."""
    given: list[Tensor] = []
    for optimizer in learner.optimizers[1:]:
        optimizer.flat.zero_gradient()
    accumulator = learner.accumulator(tasks)
    with torch.enable_grad():
        accumulator.add(PieceLosses(losses, losses, given.append))
        accumulator.finish()
    return given[0]
