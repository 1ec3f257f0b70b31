"""What all methods need of the batch of a step: its losses, added up over its pieces and over the processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from mtl_cli.balancing.autograd.pieces import PieceLosses
from mtl_cli.processes import ProcessGroup


def detached(tensor: Tensor) -> Tensor:
    """The numbers without their graph; most have none, and are spared the call."""
    return tensor.detach() if tensor.requires_grad else tensor


class Parameters(NamedTuple):
    """The trained parameters of a model, all with ``grad`` set, and where their gradients are kept.

    Args:
        shared: Those that all tasks share.
        private: Those of single tasks.
        last_layer: Those of the shared ones that a method which observes the last layer is shown the gradients of;
            empty: all of them.
        gradients: Vectors that all of ``parameter.grad`` are views of; needed by several processes.
        memory: Gives memory for so many gradients of the shared parameters (rows, P); None: fresh memory.
    """

    shared: Sequence[nn.Parameter]
    private: Sequence[nn.Parameter] = ()
    last_layer: Sequence[nn.Parameter] = ()
    gradients: Sequence[Tensor] = ()
    memory: Callable[[int], Tensor] | None = None


class BalancedBatch(NamedTuple):
    """What is known of a batch when its gradient is in place.

    Args:
        losses: (k,), of the tasks that the method sees.
        sums: (K,), the weighted sums of the row losses.
        weights: (k,), of the losses or gradients, where the method has them.
        norms: (k,), the lengths of the tasks' gradients by all shared parameters, if the method ``measures_gradients``.
    """

    losses: Tensor
    sums: Tensor
    weights: Tensor | None
    norms: Tensor | None


class GradientAccumulator:
    """Adds up the gradients of one step, whose batch may come in several pieces.

    The losses of the pieces add up to the losses of the batch, and so do those of several processes: a method sees
    losses and gradients of the whole batch. Gradients end in ``parameter.grad``.

    What all methods have in common is here. A subclass for each way of working finds the gradients of a piece in
    ``_add_gradients``, and puts the gradient of the batch in place in ``_balance``.

    Args:
        parameters: What is trained.
        tasks: Positions of the tasks whose losses the method sees in this step, (k,) int64.
        processes: Those that work on the batch.
    """

    def __init__(self, parameters: Parameters, tasks: Tensor, processes: ProcessGroup) -> None:
        self._parameters, self._tasks, self._processes = parameters, tasks, processes
        self._losses: Tensor | None = None  # (k,), of the pieces so far
        self._sums: Tensor | None = None  # (K,), of the pieces so far

    def cut(self, features: Tensor, num_tasks: int) -> Tensor:  # noqa: ARG002
        """Between encoder and heads: the features that the heads of a piece are to read.

        Args:
            features: (B, D) or (K, B, D).
            num_tasks: K.

        Returns:
            The features themselves; for a method on gradients (K, B, D) that end there.
        """
        return features

    def add(self, piece: PieceLosses, share: float = 1.0) -> None:
        """Takes one piece.

        Args:
            piece: Its losses (k,), of the tasks that the method sees.
            share: Of the rows of the batch, those of the piece.
        """
        self._add_gradients(piece, share)
        losses = detached(piece.losses)
        self._losses = losses if self._losses is None else self._losses + losses
        self._sums = piece.sums if self._sums is None else self._sums + piece.sums

    def finish(self) -> BalancedBatch:
        """Puts the gradient of the batch in place."""
        if self._losses is None or self._sums is None:
            raise RuntimeError("finish() before add()")
        losses, sums = self._processes.add_up_losses(self._losses, self._sums)
        weights, norms = self._balance(losses)
        return BalancedBatch(losses, sums, weights, norms)

    def _add_gradients(self, piece: PieceLosses, share: float) -> None:
        """Finds of a piece's gradients what can be found before the losses of the whole batch are known."""
        raise NotImplementedError

    def _balance(self, losses: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Puts the gradient in place, given the losses (k,) of the whole batch: the weights and the norms, if any."""
        raise NotImplementedError
