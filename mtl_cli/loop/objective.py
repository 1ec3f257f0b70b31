"""Losses of all tasks from the outputs of all tasks, in one autograd node.

This is the one place where a missing label is masked and where shares of positions and weights of tasks are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtl_cli.model.sharing import Ordered
from mtl_cli.registry import expect_shape, from_outside
from mtl_cli.tasks import Kind, first_columns, likeness
from mtl_cli.types import Labels

_KEPT = 1024  # sets of tasks whose positions are kept on the device


class Group(NamedTuple):
    """Neighbouring tasks that are alike, computed together."""

    kind: Kind
    numbers: tuple[int, int] | None  # (k, numbers of a label) of a kind whose labels take several
    shape: tuple[int, int, int]  # (k, C, -1)
    foreign: bool  # its kind is none of ours


class Objective:
    """The losses of K tasks.

    Args:
        kinds: The kind of each task, in task order; tasks that are alike should be neighbours.
        device: Where outputs and labels are.
        ordered: Pairs of binary tasks. The weighted excess of the later one's probability counts in the gradient of its
            loss, but not in the loss that is reported: it is of no label.

    Shape:
        outputs (O, B), labels of B positions, scale (K,) -> losses (K,).
    """

    def __init__(self, kinds: Sequence[Kind], device: torch.device, ordered: Sequence[Ordered] = ()) -> None:
        self.kinds = list(kinds)
        self.groups: list[Group] = []
        # Of each group, in their order: rows of the targets (T, B), and of the outputs (O, B).
        self._targets: list[int] = []
        self._outputs: list[int] = []
        for _, run in groupby(kinds, key=lambda kind: likeness(kind) or id(kind)):
            alike = list(run)
            k, outputs, numbers = len(alike), alike[0].num_outputs, alike[0].num_targets
            several = (k, numbers) if numbers > 1 else None
            self.groups.append(Group(alike[0], several, (k, outputs, -1), from_outside(type(alike[0]))))
            self._targets.append(k * numbers)
            self._outputs.append(k * outputs)
        firsts = first_columns(kinds)
        # The row of the targets that says whether a task has a label; a slice costs nothing where there is no other.
        self._first = slice(None) if sum(self._targets) == len(firsts) else torch.tensor(firsts, device=device)
        owners = [task for task, kind in enumerate(kinds) for _ in range(kind.num_outputs)]
        self.all_tasks = torch.arange(len(self.kinds), device=device)
        self._some: dict[tuple[int, ...], Tensor] = {}  # positions of the tasks of a step, by those left out of it
        # Of each pair the row of the outputs of either task, and the weight.
        self._ordered = [(owners.index(pair.later), owners.index(pair.earlier), pair.weight) for pair in ordered]
        self._earlier = torch.tensor([earlier for _, earlier, _ in self._ordered], dtype=torch.int64, device=device)
        owners += [pair.later for pair in ordered]
        one_each = owners == list(range(len(owners)))
        self._owner = None if one_each else torch.tensor(owners, device=device)  # the task of each row of a gradient

    def tasks(self, without: tuple[int, ...]) -> Tensor:
        """Positions (k,) of all tasks but some, on the device.

        They are kept: to copy them there in each step would make the host wait for the device.
        """
        if not without:
            return self.all_tasks
        if without not in self._some:
            if len(self._some) == _KEPT:
                self._some.clear()
            others = [task for task in range(len(self.kinds)) if task not in without]
            self._some[without] = torch.tensor(others, device=self.all_tasks.device)
        return self._some[without]

    def labelled(self, labels: Labels) -> Tensor:
        """Whether each task has a label at each position, (K, B) bool."""
        return ~labels.targets.t()[self._first].isnan()

    def by_outputs(self, gradient: Tensor, weights: Tensor) -> Tensor:
        """Derivative of the sum of the tasks' losses times ``weights`` (K,) by the outputs, (O, B).

        Args:
            gradient: What ``sums_and_gradient`` gave.
            weights: (K,).
        """
        scaled = gradient * self.per_row(weights).unsqueeze(1)
        if not self._ordered:
            return scaled
        outputs = sum(self._outputs)
        return scaled[:outputs].index_add(0, self._earlier, scaled[outputs:])

    def per_row(self, per_task: Tensor) -> Tensor:
        """Repeats what belongs to a task (axis 0, K) for each of its rows of a gradient (axis 0)."""
        return per_task if self._owner is None else per_task.index_select(0, self._owner)

    def losses(self, outputs: Tensor, labels: Labels, scale: Tensor, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Losses (K,), each the weighted sum over its labelled rows times ``scale``, and the sums themselves (K,).

        Args:
            outputs: (O, B).
            labels: Of B positions.
            scale: (K,): task weight / what the labelled rows of the whole batch count together.
            complete: No label is missing, so that nothing has to be masked.
        """
        losses, sums = _TaskLosses.apply(outputs, labels, scale, self, complete)
        return losses, sums

    def sums_and_gradient(self, outputs: Tensor, labels: Labels, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Weighted sum of the losses of each task's labelled rows (K,), and derivatives of it, for ``by_outputs``.

        The derivatives are those of a task's sum by its own outputs, (O, B), and below them, for each ordered pair,
        that of the later task's sum by the earlier one's output.
        """
        losses, gradient = self.losses_and_gradient(outputs, labels, complete=complete)
        return losses.sum(1), gradient

    def losses_and_gradient(self, outputs: Tensor, labels: Labels, *, complete: bool) -> tuple[Tensor, Tensor]:
        """Weighted loss of each row (K, B), 0 where it has no label, and the derivatives of its sum."""
        values, targets, missing = outputs.float(), labels.targets.t(), None
        if not complete:
            unknown = targets.isnan()
            missing, targets = unknown[self._first], targets.masked_fill(unknown, 0.0)
        found = []
        parts = zip(
            self.groups, targets.split_with_sizes(self._targets), values.split_with_sizes(self._outputs), strict=True
        )
        for (kind, numbers, shape, foreign), own, rows in parts:
            labels_of_kind = own if numbers is None else own.unflatten(0, numbers)
            row_losses, slope = kind.loss_and_gradient(rows.view(shape), labels_of_kind)
            if foreign:
                expect_shape(kind, "loss of each row", row_losses, (shape[0], values.shape[1]))
                expect_shape(kind, "derivative of the loss", slope, (*shape[:2], values.shape[1]))
            found.append((row_losses, slope))
        losses = _join([row_losses for row_losses, _ in found])
        gradient = _join([slope.flatten(0, 1) for _, slope in found])
        if self._ordered:
            gradient = self._with_excess(gradient, values)
        if missing is not None:  # filled, not multiplied: 0 * inf would be NaN
            losses = losses.masked_fill(missing, 0.0)
            gradient = gradient.masked_fill(self.per_row(missing), 0.0)
        if labels.shares is not None:
            shares = labels.shares.t()
            losses, gradient = losses * shares, gradient * self.per_row(shares)
        return losses, gradient

    def _with_excess(self, gradient: Tensor, outputs: Tensor) -> Tensor:
        """Adds the derivatives of weight * max(p_later - p_earlier, 0) by either output."""
        gradient, below = gradient.clone(), []
        for later, earlier, weight in self._ordered:
            p, q = outputs[later].sigmoid(), outputs[earlier].sigmoid()
            over = weight * (p > q)
            gradient[later] += over * p * (1 - p)
            below.append(-over * q * (1 - q))
        return torch.cat([gradient, torch.stack(below)])


class _TaskLosses(torch.autograd.Function):
    """Forward computes the losses and, in closed form where a kind has one, their gradient; backward scales it."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, labels: Labels, scale: Tensor, objective: Objective, complete: bool
    ) -> tuple[Tensor, Tensor]:
        total, gradient = objective.sums_and_gradient(outputs, labels, complete=complete)
        ctx.save_for_backward(gradient, scale)
        ctx.objective, ctx.dtype = objective, outputs.dtype
        ctx.mark_non_differentiable(total)
        return total * scale, total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        gradient, scale = ctx.saved_tensors
        return ctx.objective.by_outputs(gradient, upstream[0] * scale).to(ctx.dtype), None, None, None, None


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
