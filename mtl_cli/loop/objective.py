"""Losses of all tasks from the outputs of all tasks, in one autograd node.

This is the one place where a missing label is masked and where the weights of rows and tasks are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtl_cli.tasks import Kind, target_columns


class Group(NamedTuple):
    """Neighbouring tasks that are alike, computed together."""

    kind: Kind
    targets: slice  # rows of the targets (T, B)
    numbers: tuple[int, int] | None  # (k, numbers of a label) of a kind whose labels take several
    outputs: slice  # rows of the outputs (O, B)
    shape: tuple[int, int, int]  # (k, C, -1)


class Objective:
    """The losses of K tasks.

    Args:
        kinds: The kind of each task, in task order; tasks that are alike should be neighbours.
        device: Where outputs and labels are.

    Shape:
        outputs (O, B), labels (B, T) or (B, T + K), scale (K,) -> losses (K,). T is K, but for kinds whose labels take
        several numbers. Targets are NaN where missing; the last K columns, if they are there, are what each row counts.
    """

    def __init__(self, kinds: Sequence[Kind], device: torch.device) -> None:
        self.kinds = list(kinds)
        self.groups: list[Group] = []
        target = row = 0
        for _, run in groupby(kinds, key=lambda kind: (kind.group_key(), kind.num_targets)):
            alike = list(run)
            k, outputs, numbers = len(alike), alike[0].num_outputs, alike[0].num_targets
            targets, rows = slice(target, target + k * numbers), slice(row, row + k * outputs)
            several = (k, numbers) if numbers > 1 else None
            self.groups.append(Group(alike[0], targets, several, rows, (k, outputs, -1)))
            target, row = targets.stop, rows.stop
        self._width = target  # T
        firsts = [columns.start for columns in target_columns(kinds)]
        # The row of the targets that says whether a task has a label; a slice costs nothing where there is no other.
        self._first = slice(None) if target == len(self.kinds) else torch.tensor(firsts, device=device)
        owners = [task for task, kind in enumerate(kinds) for _ in range(kind.num_outputs)]
        self.all_tasks = torch.arange(len(self.kinds), device=device)
        one_each = owners == list(range(len(owners)))
        self._owner = None if one_each else torch.tensor(owners, device=device)  # (O,): the task of each output

    def per_output(self, per_task: Tensor) -> Tensor:
        """Repeats what belongs to a task (axis 0, K) for each of its outputs (axis 0, O)."""
        return per_task if self._owner is None else per_task.index_select(0, self._owner)

    def losses(self, outputs: Tensor, labels: Tensor, scale: Tensor, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Losses (K,), each the weighted sum over its labelled rows times ``scale``, and the sums themselves (K,).

        Args:
            outputs: (O, B).
            labels: (B, T) or (B, T + K).
            scale: (K,): task weight / what the labelled rows of the whole batch count together.
            complete: No label is missing, so that nothing has to be masked.
        """
        losses, sums = _TaskLosses.apply(outputs, labels, scale, self, complete)
        return losses, sums

    def sums_and_gradient(self, outputs: Tensor, labels: Tensor, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Weighted sum of the losses of each task's labelled rows (K,), and its derivative by the outputs (O, B)."""
        values, targets, weights = outputs.float(), labels.t(), None
        if len(targets) > self._width:
            targets, weights = targets[: self._width], targets[self._width :]
        missing = None
        if not complete:
            unknown = targets.isnan()
            missing, targets = unknown[self._first], targets.masked_fill(unknown, 0.0)
        found = []
        for kind, columns, numbers, rows, shape in self.groups:
            own = targets[columns] if numbers is None else targets[columns].unflatten(0, numbers)
            found.append(kind.loss_and_gradient(values[rows].view(shape), own))
        losses = _join([row_losses for row_losses, _ in found])
        gradient = _join([slope.flatten(0, 1) for _, slope in found])
        if missing is not None:  # filled, not multiplied: 0 * inf would be NaN
            losses = losses.masked_fill(missing, 0.0)
            gradient = gradient.masked_fill(self.per_output(missing), 0.0)
        if weights is not None:
            losses, gradient = losses * weights, gradient * self.per_output(weights)
        return losses.sum(1), gradient


class _TaskLosses(torch.autograd.Function):
    """Forward computes the losses and, in closed form where a kind has one, their gradient; backward scales it."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, labels: Tensor, scale: Tensor, objective: Objective, complete: bool
    ) -> tuple[Tensor, Tensor]:
        total, gradient = objective.sums_and_gradient(outputs, labels, complete=complete)
        ctx.save_for_backward(gradient, scale)
        ctx.objective, ctx.dtype = objective, outputs.dtype
        ctx.mark_non_differentiable(total)
        return total * scale, total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        gradient, scale = ctx.saved_tensors
        factor = ctx.objective.per_output(upstream[0] * scale).unsqueeze(1)
        return (gradient * factor).to(ctx.dtype), None, None, None, None


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
