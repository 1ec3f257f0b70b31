"""The gradient of a batch for methods that combine the gradients of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mtl_cli.balancing.autograd.accumulator import GradientAccumulator, Parameters
from mtl_cli.balancing.autograd.jacobian import by_parameter, write_row
from mtl_cli.balancing.autograd.pieces import PieceLosses
from mtl_cli.balancing.base import GradientBalancing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.processes import ProcessGroup


class CombiningAccumulator(GradientAccumulator):
    """What methods on gradients have in common: the graph is cut between the encoder and the heads.

    A method that needs each task's gradient gets all of them at the features in one pass over the heads. What goes on
    through the encoder, task by task, is only the encoder's.

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
        self._features: Tensor | None = None  # of this piece, with the graph of the encoder
        self._leaf: Tensor | None = None  # (K, B, D), where the graph of the heads begins

    def cut(self, features: Tensor, num_tasks: int) -> Tensor:
        leaf = features.detach()
        self._features = features
        self._leaf = (leaf if leaf.dim() == 3 else leaf.expand(num_tasks, *leaf.shape)).requires_grad_()
        return self._leaf

    def _at_features(self, losses: Tensor, leaf: Tensor) -> Tensor:
        """The gradients (k, B, D) of the losses (k,) by the features; those of the heads are in place with this."""
        torch.autograd.backward(losses, torch.ones_like(losses))
        rows = leaf.grad
        if rows is None:
            raise RuntimeError("the losses do not depend on the features")
        return rows[self._tasks] if len(losses) < len(rows) else rows


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

    def _add_gradients(self, piece: PieceLosses, share: float) -> None:
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

    def _balance(self, losses: Tensor) -> tuple[Tensor | None, Tensor]:
        if self._balancing.samples == 1:
            jacobian = self._jacobians[0]
        else:  # each sample an estimate of the whole
            jacobian = self._jacobians[: len(self._shares)]
            jacobian /= jacobian.new_tensor(self._shares).view(-1, 1, 1)
        shared, gradients = self._parameters.shared, self._parameters.gradients
        self._processes.add_up(jacobian, *gradients)  # the second: of heads; those of shared parameters follow
        norms = (jacobian if jacobian.dim() == 2 else jacobian.mean(0)).norm(dim=1)
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
            piece.by_task.jacobian(piece.by_task.gradients(), by_parameter(jacobian, self._parameters.shared))

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
                    parameter.grad += gradient

    def _ends(self, losses: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Where the graph of the shared part ends for each of the k tasks, and the gradients there."""
        if self._leaf is None or self._features is None:
            return [losses] * len(losses), torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
        rows = self._at_features(losses, self._leaf)
        if self._features.dim() == 2:
            return [self._features] * len(losses), rows
        return [self._features[task] for task in self._tasks.tolist()], rows


class FeatureAccumulator(CombiningAccumulator):
    """For methods on the gradients (k, B, D) of the features, of a batch that comes in one piece.

    One pass goes through the encoder, when the method has combined them.
    """

    _rows: Tensor  # (k, B, D), the gradients
    _read: Tensor  # (B, D), the features that the heads have read
    _into_encoder: Callable[[Tensor], None]  # goes on from a gradient (B, D)

    def _add_gradients(self, piece: PieceLosses, share: float) -> None:  # noqa: ARG002
        if piece.by_task is not None:
            self._read, gradients, self._into_encoder, _ = piece.by_task
            self._rows = gradients()
            return
        if self._leaf is None or self._features is None:
            raise RuntimeError("gradients_on=features: cut() must be called for the features")
        self._rows = self._at_features(piece.losses, self._leaf)
        features = self._read = self._features
        self._into_encoder = lambda gradient: torch.autograd.backward(features, gradient.to(features.dtype))

    def _balance(self, losses: Tensor) -> tuple[Tensor | None, None]:
        rows, _ = self._processes.joined(self._rows.float(), 1)  # solvers need more digits than bfloat16 has
        features, own = self._processes.joined(self._read.detach().float(), 0)
        update, weights = self._balancing.aggregate_features(rows, features, losses, self._tasks)
        self._into_encoder(update[own])
        self._processes.add_up(*self._parameters.gradients)
        return weights, None
