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
        self.owner = torch.tensor(owners, device=device)  # (O,): the task of each output

    def losses(self, outputs: Tensor, targets: Tensor, scale: Tensor, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Losses (K,), each the sum over its labelled rows times ``scale``, and the plain sums (K,).

        Args:
            outputs: (O, B).
            targets: (B, K).
            scale: (K,): task weight / number of labelled rows in the whole batch.
            complete: No label is missing, so that nothing has to be masked.
        """
        losses, sums = _TaskLosses.apply(outputs, targets.t(), scale, self, complete)
        return losses, sums


class _TaskLosses(torch.autograd.Function):
    """Forward computes the losses and, in closed form where a kind has one, their gradient; backward scales it."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, targets: Tensor, scale: Tensor, objective: Objective, complete: bool
    ) -> tuple[Tensor, Tensor]:
        values = outputs.float()
        missing = None if complete else targets.isnan()
        if missing is not None:
            targets = targets.masked_fill(missing, 0.0)
        sums, gradients = [], []
        for kind, tasks, rows, shape in objective.groups:
            row_losses, gradient = kind.loss_and_gradient(values[rows].view(shape), targets[tasks])
            if missing is not None:  # filled, not multiplied: 0 * inf would be NaN
                row_losses = row_losses.masked_fill(missing[tasks], 0.0)
                gradient = gradient.masked_fill(missing[tasks].unsqueeze(1), 0.0)
            sums.append(row_losses.sum(1))
            gradients.append(gradient.flatten(0, 1))
        total = torch.cat(sums)
        ctx.save_for_backward(torch.cat(gradients), scale, objective.owner)
        ctx.dtype = outputs.dtype
        ctx.mark_non_differentiable(total)
        return total * scale, total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        gradient, scale, owner = ctx.saved_tensors
        factor = (upstream[0] * scale)[owner].unsqueeze(1)
        return (gradient * factor).to(ctx.dtype), None, None, None, None
