"""The gradient of a batch for methods that combine the gradients of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_cli.balancing.autograd.accumulator import GradientAccumulator, Parameters
from mtl_cli.balancing.autograd.jacobian import by_parameter, write_row
from mtl_cli.balancing.autograd.pieces import PieceLosses
from mtl_cli.balancing.base import GradientBalancing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.processes import ProcessGroup
from mtl_cli.registry import expect_shape


class Cut(NamedTuple):
    """Where the graph of a piece is cut.

    Args:
        features: With the graph of the encoder.
        leaf: (K, B, D), where the graph of the heads begins.
    """

    features: Tensor
    leaf: Tensor


class CombiningAccumulator(GradientAccumulator):
    """What methods on gradients have in common: the graph is cut between the encoder and the heads.

    A method that needs each task's gradient gets all of them at the features in one pass over the heads. What goes on
    through the encoder, task by task, is only the encoder's. Pieces go backward at once, unless the method weights the
    losses for the parameters of single tasks: then all wait until the losses of the whole batch are known. A subclass
    finds the gradients of a piece in ``_take``, and puts the gradient of the batch in place in ``_combine``.

    Raises:
        ConfigError: Nothing that is shared is trained.
    """

    def __init__(
        self, balancing: GradientBalancing, parameters: Parameters, tasks: Tensor, processes: ProcessGroup
    ) -> None:
        super().__init__(parameters, tasks, processes)
        if not parameters.shared:
            name = type(balancing).__name__
            hint = "Use a method that weights losses (balancing=equal), or an architecture that shares (sharing=hard)."
            raise ConfigError(
                Problem("balancing", f"{name} works on shared parameters, and none is trained here", hint)
            )
        self._balancing = balancing
        self._cut: Cut | None = None  # of this piece
        self._waiting: list[tuple[PieceLosses, float, Cut | None]] = []
        self._own_weights: Tensor | None = None  # (k,), of the losses for the parameters of single tasks

    def cut(self, features: Tensor, num_tasks: int) -> Tensor:
        leaf = features.detach()
        leaf = (leaf if leaf.dim() == 3 else leaf.expand(num_tasks, *leaf.shape)).requires_grad_()
        self._cut = Cut(features, leaf)
        return leaf

    def _add_gradients(self, piece: PieceLosses, share: float) -> None:
        if self._balancing.weighs_own:
            self._waiting.append((piece, share, self._cut))
        else:
            self._take(piece, share)

    def _balance(self, losses: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weights = self._balancing.own_weights(losses, self._tasks)
        if weights is not None:
            expect_shape(self._balancing, "own_weights", weights, losses.shape)
        self._own_weights = weights
        while self._waiting:
            piece, share, self._cut = self._waiting.pop(0)
            self._take(piece, share)
        return self._combine(losses)

    def _take(self, piece: PieceLosses, share: float) -> None:
        """Finds the gradients of a piece; those of the parameters of single tasks are in place then."""
        raise NotImplementedError

    def _combine(self, losses: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """As ``_balance``, when all pieces are taken."""
        raise NotImplementedError

    def _at_features(self, losses: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradients (k, B, D) of the losses (k,) by the features; those of the heads are in place with this.

        Args:
            losses: The losses.
            backward: Goes backward through the heads from the losses weighted by a tensor (k,).
        """
        if self._own_weights is None:
            return backward(torch.ones_like(losses))
        weights = self._own_weights.to(losses)
        return backward(weights) / weights.view(-1, 1, 1)

    def _by_heads(self, losses: Tensor, leaf: Tensor) -> Callable[[Tensor], Tensor]:
        """How to go backward through the graph of the heads."""

        def backward(weights: Tensor) -> Tensor:
            torch.autograd.backward(losses, weights)
            rows = leaf.grad
            if rows is None:
                raise RuntimeError("the losses do not depend on the features")
            return rows[self._tasks] if len(losses) < len(rows) else rows

        return backward


class JacobianAccumulator(CombiningAccumulator):
    """For methods on the Jacobian (k, P) of the shared parameters, or on one for each of their ``samples``.

    The pieces go to the samples in turn.
    """

    _jacobians: Tensor  # (S, k, P), of the pieces so far, for each sample

    def __init__(
        self, balancing: GradientBalancing, parameters: Parameters, tasks: Tensor, processes: ProcessGroup
    ) -> None:
        super().__init__(balancing, parameters, tasks, processes)
        self._pieces = 0
        self._shares: list[float] = []  # of the rows of the batch, those of each sample

    def _take(self, piece: PieceLosses, share: float) -> None:
        samples = self._balancing.samples
        sample, first = self._pieces % samples, self._pieces < samples
        if self._pieces == 0:
            self._jacobians = self._memory(piece.losses, samples)
        self._pieces += 1
        jacobian = self._jacobians[sample]
        if first:
            self._shares.append(share)
            self._write_jacobian(piece, jacobian)
        else:
            self._shares[sample] += share
            part = torch.empty_like(jacobian)
            self._write_jacobian(piece, part)
            jacobian += part

    def _combine(self, losses: Tensor) -> tuple[Tensor | None, Tensor]:
        shared, gradients = self._parameters.shared, self._parameters.gradients
        parts = self._jacobians[: len(self._shares)]
        self._processes.add_up(parts, *gradients)  # the second: of heads; those of shared parameters follow
        norms = (parts[0] if len(parts) == 1 else parts.sum(0)).norm(dim=1)
        if self._balancing.samples == 1:
            jacobian = parts[0]
        else:  # each sample an estimate of the whole
            jacobian = parts.div_(parts.new_tensor(self._shares).view(-1, 1, 1))
        update, weights = self._balancing.aggregate(jacobian, losses, self._tasks)
        for parameter, part in zip(shared, update.split([p.numel() for p in shared]), strict=True):
            parameter.grad.add_(part.view_as(parameter))  # type: ignore[union-attr]
        return weights, norms

    def _memory(self, losses: Tensor, samples: int) -> Tensor:
        width, rows = sum(p.numel() for p in self._parameters.shared), samples * len(losses)
        given = self._parameters.memory
        memory = losses.new_empty(rows, width) if given is None else given(rows)
        return memory.view(samples, len(losses), width)

    def _write_jacobian(self, piece: PieceLosses, jacobian: Tensor) -> None:
        """Writes the gradients of a piece into (k, P); those of the parameters of single tasks are in place then."""
        if piece.by_task is None:
            self._by_autograd(piece.losses, jacobian)
        else:
            rows = self._at_features(piece.losses, piece.by_task.gradients)
            piece.by_task.jacobian(rows, by_parameter(jacobian, self._parameters.shared))

    def _by_autograd(self, losses: Tensor, jacobian: Tensor) -> None:
        """One backward pass for each task."""
        shared, private = self._parameters.shared, self._parameters.private
        parameters = [*shared, *private]
        ends, rows = self._ends(losses)
        for i, (end, row, into) in enumerate(zip(ends, rows, jacobian, strict=True)):
            found = torch.autograd.grad(end, parameters, row, retain_graph=i + 1 < len(rows), allow_unused=True)
            of_shared, of_private = found[: len(shared)], found[len(shared) :]
            write_row([torch.zeros_like(p) if g is None else g for p, g in zip(shared, of_shared, strict=True)], into)
            for parameter, gradient in zip(private, of_private, strict=True):
                if gradient is not None and parameter.grad is not None:
                    parameter.grad += gradient if self._own_weights is None else gradient * self._own_weights[i]

    def _ends(self, losses: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Where the graph of the shared part ends for each of the k tasks, and the gradients there."""
        if self._cut is None:
            return [losses] * len(losses), torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
        features, leaf = self._cut
        rows = self._at_features(losses, self._by_heads(losses, leaf))
        if features.dim() == 2:
            return [features] * len(losses), rows
        return [features[task] for task in self._tasks.tolist()], rows


class FeatureAccumulator(CombiningAccumulator):
    """For methods on the gradients (k, B, D) of the features, of a batch that comes in one piece.

    One pass goes through the encoder, when the method has combined them.
    """

    _rows: Tensor  # (k, B, D), the gradients
    _read: Tensor  # (B, D), the features that the heads have read
    _into_encoder: Callable[[Tensor], None]  # goes on from a gradient (B, D)

    def _take(self, piece: PieceLosses, share: float) -> None:  # noqa: ARG002
        if piece.by_task is not None:
            self._read, gradients, self._into_encoder, _ = piece.by_task
            self._rows = self._at_features(piece.losses, gradients)
            return
        if self._cut is None:
            raise RuntimeError("gradients_on=features: cut() must be called for the features")
        features, leaf = self._cut
        self._rows = self._at_features(piece.losses, self._by_heads(piece.losses, leaf))
        self._read = features
        self._into_encoder = lambda gradient: torch.autograd.backward(features, gradient.to(features.dtype))

    def _combine(self, losses: Tensor) -> tuple[Tensor | None, None]:
        rows, _ = self._processes.joined(self._rows.float(), 1)  # solvers need more digits than bfloat16 has
        features, own = self._processes.joined(self._read.detach().float(), 0)
        update, weights = self._balancing.aggregate_features(rows, features, losses, self._tasks)
        self._into_encoder(update[own])
        self._processes.add_up(*self._parameters.gradients)
        return weights, None
