"""Losses of all tasks from the outputs of all tasks, in one autograd node.

This is the one place where a missing label is masked and where the weights of rows and tasks are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtl_cli.tasks import Kind


class Group(NamedTuple):
    """Neighbouring tasks that are alike, computed together."""

    kind: Kind
    tasks: slice  # rows of the targets (K, B)
    outputs: slice  # rows of the outputs (O, B)
    shape: tuple[int, int, int]  # (k, C, -1)


class Objective:
    """The losses of K tasks.

    Args:
        kinds: The kind of each task, in task order; tasks that are alike should be neighbours.
        device: Where outputs and labels are.

    Shape:
        outputs (O, B), targets (B, K) with NaN where missing, scale (K,) -> losses (K,).
    """

    def __init__(self, kinds: Sequence[Kind], device: torch.device) -> None:
        self.kinds = list(kinds)
        self.groups: list[Group] = []
        task = row = 0
        for _, run in groupby(kinds, key=lambda kind: kind.group_key()):
            alike = list(run)
            outputs = alike[0].num_outputs
            rows = slice(row, row + len(alike) * outputs)
            self.groups.append(Group(alike[0], slice(task, task + len(alike)), rows, (len(alike), outputs, -1)))
            task, row = task + len(alike), rows.stop
        owners = [task for task, kind in enumerate(kinds) for _ in range(kind.num_outputs)]
        self.all_tasks = torch.arange(len(self.kinds), device=device)
        one_each = owners == list(range(len(owners)))
        self._owner = None if one_each else torch.tensor(owners, device=device)  # (O,): the task of each output

    def per_output(self, per_task: Tensor) -> Tensor:
        """Repeats what belongs to a task (axis 0, K) for each of its outputs (axis 0, O)."""
        return per_task if self._owner is None else per_task.index_select(0, self._owner)

    def losses(self, outputs: Tensor, targets: Tensor, scale: Tensor, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Losses (K,), each the sum over its labelled rows times ``scale``, and the plain sums (K,).

        Args:
            outputs: (O, B).
            targets: (B, K).
            scale: (K,): task weight / number of labelled rows in the whole batch.
            complete: No label is missing, so that nothing has to be masked.
        """
        losses, sums = _TaskLosses.apply(outputs, targets, scale, self, complete)
        return losses, sums

    def sums_and_gradient(self, outputs: Tensor, targets: Tensor, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Sum of the losses of each task's labelled rows (K,), and its derivative by the outputs (O, B)."""
        values, targets = outputs.float(), targets.t()
        missing = None if complete else targets.isnan()
        if missing is not None:
            targets = targets.masked_fill(missing, 0.0)
        found = [
            kind.loss_and_gradient(values[rows].view(shape), targets[tasks]) for kind, tasks, rows, shape in self.groups
        ]
        losses = _join([row_losses for row_losses, _ in found])
        gradient = _join([slope.flatten(0, 1) for _, slope in found])
        if missing is not None:  # filled, not multiplied: 0 * inf would be NaN
            losses = losses.masked_fill(missing, 0.0)
            gradient = gradient.masked_fill(self.per_output(missing), 0.0)
        return losses.sum(1), gradient


class _TaskLosses(torch.autograd.Function):
    """Forward computes the losses and, in closed form where a kind has one, their gradient; backward scales it."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, targets: Tensor, scale: Tensor, objective: Objective, complete: bool
    ) -> tuple[Tensor, Tensor]:
        total, gradient = objective.sums_and_gradient(outputs, targets, complete=complete)
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
