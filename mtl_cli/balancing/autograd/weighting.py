"""The gradient of a batch for methods that weight its losses."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_cli.balancing.autograd.accumulator import GradientAccumulator, Parameters, detached
from mtl_cli.balancing.autograd.jacobian import by_parameter, write_row
from mtl_cli.balancing.autograd.pieces import PieceLosses, TaskGradients
from mtl_cli.balancing.base import LossBalancing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.processes import ProcessGroup
from mtl_cli.registry import expect_shape


def weigh(balancing: LossBalancing, losses: Tensor, tasks: Tensor) -> Tensor:
    """The weights (k,) of the losses (k,) by a method, in the type of the losses.

    Raises:
        ConfigError: The method gives something else.
    """
    weights = balancing.weights(losses, tasks)
    expect_shape(balancing, "weights", weights, losses.shape)
    return weights.to(losses)


class WeightingAccumulator(GradientAccumulator):
    """For methods that weight losses: one backward pass for each piece, of its weighted losses.

    A method whose weights do not depend on the losses is asked for them with the first piece, and each piece goes
    backward at once; for the others all pieces wait until the losses of the whole batch are known.
    """

    def __init__(
        self, balancing: LossBalancing, parameters: Parameters, tasks: Tensor, processes: ProcessGroup
    ) -> None:
        super().__init__(parameters, tasks, processes)
        self._balancing = balancing
        self._weights: Tensor | None = None  # (k,), of a linear method
        self._waiting: list[PieceLosses] = []  # of another one

    def _add_gradients(self, piece: PieceLosses, share: float) -> None:  # noqa: ARG002
        if not self._balancing.linear:
            self._waiting.append(piece)
            return
        if self._weights is None:
            self._weights = weigh(self._balancing, detached(piece.losses), self._tasks)
        piece.add_gradient(detached(self._weights))

    def _balance(self, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        balancing, weights = self._balancing, self._weights
        if weights is None:
            weights = weigh(balancing, losses, self._tasks)
            for piece in self._waiting:
                piece.add_gradient(detached(weights))
        self._processes.add_up(*self._parameters.gradients)
        if balancing.has_parameters:  # their gradient comes from losses of the whole batch
            total, penalty = (weights * losses).sum(), balancing.penalty(self._tasks)
            if penalty is not None:
                expect_shape(balancing, "penalty", penalty, ())
                total = total + penalty
            total.backward()
        return detached(weights), None


class ObservingAccumulator(WeightingAccumulator):
    """For methods that are shown the gradient of each task on shared parameters before they weight the losses.

    Raises:
        ConfigError: Nothing that is shared is trained.
    """

    _observed: Tensor  # (k, P), of the pieces so far

    def __init__(
        self, balancing: LossBalancing, parameters: Parameters, tasks: Tensor, processes: ProcessGroup
    ) -> None:
        super().__init__(balancing, parameters, tasks, processes)
        last_layer = parameters.last_layer if balancing.observes == "last layer" else ()
        self._shown = last_layer or parameters.shared  # those whose gradients the method is shown
        if not self._shown:
            hint = "Use another method (balancing=equal), or an architecture that shares (sharing=hard)."
            what = f"{type(balancing).__name__} looks at gradients of shared parameters, and none is trained here"
            raise ConfigError(Problem("balancing", what, hint))

    def _add_gradients(self, piece: PieceLosses, share: float) -> None:
        found = self._by_autograd(piece.losses) if piece.by_task is None else self._by_task(piece.losses, piece.by_task)
        self._observed = found if self._losses is None else self._observed + found
        super()._add_gradients(piece, share)

    def _balance(self, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        self._processes.add_up(self._observed)
        norms = self._observed.norm(dim=1) if self._balancing.measures_gradients else None
        self._balancing.observe(self._observed, losses, self._tasks)
        return super()._balance(losses)[0], norms

    def _by_autograd(self, losses: Tensor) -> Tensor:
        """The gradients (k, P) of the losses (k,), whose graph is kept."""
        gradients = self._empty_rows(losses)
        for loss, row in zip(losses, gradients, strict=True):
            write_row(torch.autograd.grad(loss, self._shown, retain_graph=True, materialize_grads=True), row)
        return gradients

    def _by_task(self, losses: Tensor, by_task: TaskGradients) -> Tensor:
        """The same without a graph. The heads, which the weighted losses alone train, keep their gradients."""
        gradients = self._empty_rows(losses)
        kept = [(p, p.grad.clone()) for p in self._parameters.private if p.grad is not None]
        by_task.jacobian(by_task.gradients(torch.ones_like(losses)), by_parameter(gradients, self._shown))
        for parameter, before in kept:
            parameter.grad.copy_(before)  # type: ignore[union-attr]
        return gradients

    def _empty_rows(self, losses: Tensor) -> Tensor:
        return losses.new_empty(len(losses), sum(p.numel() for p in self._shown))
