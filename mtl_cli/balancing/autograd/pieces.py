"""The losses of some rows of a batch, and how their gradients are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class TaskGradients(NamedTuple):
    """The gradients of single tasks where they are known without a graph, for features common to all tasks.

    Args:
        features: (B, D), what the heads of a piece read.
        gradients: Gives the gradients (k, B, D) of the losses, weighted by a tensor (k,), by the features, and adds
            those of each head to ``parameter.grad``.
        into_encoder: Goes on from a gradient (B, D) by the features: adds to ``parameter.grad`` of the encoder.
        jacobian: Goes on from (k, B, D), a task at a time: writes into (k, *shape) for each shared parameter.
    """

    features: Tensor
    gradients: Callable[[Tensor], Tensor]
    into_encoder: Callable[[Tensor], None]
    jacobian: Callable[[Tensor, Mapping[nn.Parameter, Tensor]], None]


class PieceLosses(NamedTuple):
    """Losses of some rows, and how their gradients are found.

    Args:
        losses: (K,), with a graph unless ``backward`` or ``by_task``, whichever the method needs, is given.
        sums: (K,), the weighted sums of the row losses.
        backward: Adds the gradient of the losses weighted by a tensor (K,) to ``parameter.grad``.
        by_task: The gradients of each of the K tasks.
    """

    losses: Tensor
    sums: Tensor
    backward: Callable[[Tensor], None] | None = None
    by_task: TaskGradients | None = None

    def add_gradient(self, weights: Tensor) -> None:
        """Adds the gradient of the losses weighted by ``weights`` (K,) to ``parameter.grad``."""
        if self.backward is None:
            torch.autograd.backward(self.losses, weights)
        else:
            self.backward(weights)

    def only(self, present: Tensor) -> PieceLosses:
        """Losses and gradients of some tasks alone.

        Args:
            present: Their positions (k,).
        """
        losses, backward, by_task = self.losses[present], self.backward, self.by_task

        def of_all(weights: Tensor, like: Tensor = self.sums) -> Tensor:
            return torch.zeros_like(like).index_copy(0, present, weights)

        if backward is not None:
            everyone = backward
            backward = lambda weights: everyone(of_all(weights))  # noqa: E731
        if by_task is not None:
            gradients = by_task.gradients
            by_task = by_task._replace(gradients=lambda weights: gradients(of_all(weights))[present])
        return PieceLosses(losses, self.sums, backward, by_task)
