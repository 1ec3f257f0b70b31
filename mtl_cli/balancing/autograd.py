"""The one file that turns losses into gradients by autograd, for every balancing method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_cli.balancing.base import Balancing, GradientBalancing, LossBalancing
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.processes import ALONE, ProcessGroup
from mtl_cli.registry import expect_shape


class ByTask(NamedTuple):
    """The gradients of single tasks where they are known without a graph, for features common to all tasks.

    Args:
        features: (B, D), what the heads of a piece read.
        gradients: Gives the gradients (k, B, D) of the losses by the features, and adds those of each head to
            ``parameter.grad``.
        backward: Goes on from a gradient (B, D) by the features: adds to ``parameter.grad`` of the encoder.
        jacobian: Goes on from (k, B, D), a task at a time: writes into (k, *shape) for each shared parameter.
    """

    features: Tensor
    gradients: Callable[[], Tensor]
    backward: Callable[[Tensor], None]
    jacobian: Callable[[Tensor, Mapping[nn.Parameter, Tensor]], None]


class GradientAccumulator:
    """Adds up the gradients of one step, whose batch may come in several pieces.

    The losses of the pieces add up to the losses of the batch, and so do those of several processes: a method sees
    losses and gradients of the whole batch. Gradients end in ``parameter.grad``.

    Args:
        balancing: The method.
        shared: Parameters that all tasks share, with ``grad`` set.
        private: Parameters of single tasks, with ``grad`` set.
        tasks: Positions of the tasks whose losses it sees in this step, (k,) int64.
        memory: Gives memory for so many gradients of the shared parameters (rows, P); None: fresh memory.
        processes: Those that work on the batch.
        gradients: Vectors that all of ``parameter.grad`` are views of; needed by several processes.
        last_layer: Those of the shared parameters that a method which observes the last layer is shown the gradients
            of; empty: all of them.

    Attributes:
        sums: (K,), the weighted sums of the row losses: of the pieces so far, after ``finish`` of the batch.
        norms: (k,), after ``finish``: the lengths of the tasks' gradients by all shared parameters, if the method
            ``measures_gradients``.
    """

    def __init__(
        self,
        balancing: Balancing,
        shared: Sequence[nn.Parameter],
        private: Sequence[nn.Parameter],
        tasks: Tensor,
        memory: Callable[[int], Tensor] | None = None,
        processes: ProcessGroup = ALONE,
        gradients: Sequence[Tensor] = (),
        last_layer: Sequence[nn.Parameter] = (),
    ) -> None:
        self._last_layer = last_layer
        self.sums: Tensor | None = None
        self.norms: Tensor | None = None
        self._processes, self._gradients = processes, gradients
        self._balancing, self._shared, self._private, self._tasks = balancing, shared, private, tasks
        self._losses: Tensor | None = None  # (k,), of the pieces so far
        self._weights: Tensor | None = None  # (k,), of a linear method: known before the losses
        self._waiting: list[Callable[[Tensor], None]] = []  # backward passes, of other methods
        self._observed: Tensor | None = None  # (k, P), what a method on losses observes, of the pieces so far
        self._features: Tensor | None = None  # of this piece, with the graph of the encoder
        self._leaf: Tensor | None = None  # (K, B, D), where the graph of the heads begins
        self._by_task: ByTask | None = None  # of this piece
        self._rows: Tensor | None = None  # (k, B, D), gradients of this piece at the features
        self._memory = memory
        self._jacobians: Tensor | None = None  # (S, k, P), of the pieces so far, for each sample
        self._pieces = 0
        self._shares: list[float] = []  # of the rows of the batch, those of each sample

    def cut(self, features: Tensor, num_tasks: int) -> Tensor:
        """Between encoder and heads: the features that the heads of a piece are to read.

        A method that needs each task's gradient gets all of them at the features in one pass over the heads, which is
        why the graph is cut here; what goes on through the encoder, task by task, is only the encoder's.

        Args:
            features: (B, D) or (K, B, D).
            num_tasks: K.

        Returns:
            The features themselves; for a method on gradients (K, B, D) that end there.
        """
        if not isinstance(self._balancing, GradientBalancing):
            return features
        leaf = features.detach()
        self._features = features
        self._leaf = (leaf if leaf.dim() == 3 else leaf.expand(num_tasks, *leaf.shape)).requires_grad_()
        return self._leaf

    def add(
        self,
        losses: Tensor,
        backward: Callable[[Tensor], None] | None = None,
        by_task: ByTask | None = None,
        sums: Tensor | None = None,
        share: float = 1.0,
    ) -> None:
        """Takes the losses (k,) of one piece.

        Args:
            losses: With a graph, unless what the method needs instead is given.
            backward: For methods that weight losses: adds the gradient of the losses weighted by a tensor (k,) to
                ``parameter.grad``.
            by_task: For methods that combine or observe gradients: those of each task.
            sums: (K,), the weighted sums of the row losses, if they are to be added up too.
            share: Of the rows of the batch, those of the piece.
        """
        balancing = self._balancing
        if isinstance(balancing, GradientBalancing):
            self._add_gradients(losses, balancing, by_task, share)
        elif isinstance(balancing, LossBalancing):
            if balancing.observes != "nothing":
                self._observe(losses, balancing, by_task)
            backward = backward or partial(torch.autograd.backward, losses)
            if balancing.linear:
                if self._weights is None:
                    self._weights = weigh(balancing, losses.detach(), self._tasks)
                backward(self._weights.detach())
            else:
                self._waiting.append(backward)
        else:
            raise TypeError(f"{type(balancing).__name__} is neither a LossBalancing nor a GradientBalancing")
        losses = losses.detach()
        self._losses = losses if self._losses is None else self._losses + losses
        self.sums = sums if self.sums is None or sums is None else self.sums + sums

    def finish(self) -> tuple[Tensor, Tensor | None]:
        """Puts the combined gradient in place; the losses (k,) of the batch and the weights (k,) if there are any."""
        balancing, tasks, processes = self._balancing, self._tasks, self._processes
        if self._losses is None:
            raise RuntimeError("finish() before add()")
        losses, self.sums = processes.add_up_losses(self._losses, self.sums)
        if isinstance(balancing, GradientBalancing):
            return losses, self._finish_gradients(losses, balancing)
        if not isinstance(balancing, LossBalancing):
            raise TypeError
        if self._observed is not None:
            processes.add_up(self._observed)
            if balancing.measures_gradients:
                self.norms = self._observed.norm(dim=1)
            balancing.observe(self._observed, losses, tasks)
        weights = self._weights
        if weights is None:  # the weights need the losses of the whole batch
            weights = weigh(balancing, losses, tasks)
            for backward in self._waiting:
                backward(weights.detach())
        processes.add_up(*self._gradients)
        if balancing.has_parameters:  # their gradient comes from losses of the whole batch
            penalty = balancing.penalty(tasks)
            total = (weights * losses).sum()
            (total if penalty is None else total + penalty).backward()
        return losses, weights.detach()

    def _add_gradients(
        self, losses: Tensor, balancing: GradientBalancing, by_task: ByTask | None, share: float
    ) -> None:
        if not self._shared:
            name = type(balancing).__name__
            hint = "Use a method that weights losses (balancing=equal), or an architecture that shares (sharing=hard)."
            raise ConfigError(
                Problem("balancing", f"{name} works on shared parameters, and none is trained here", hint)
            )
        self._by_task = by_task
        ends, self._rows = self._ends(losses) if by_task is None else ([], by_task.gradients())
        if balancing.gradients_on == "features":
            return  # one pass through the encoder, when the method has combined the rows
        sample, first = self._pieces % balancing.samples, self._pieces < balancing.samples
        self._pieces += 1
        self._shares[sample : sample + 1] = [share if first else self._shares[sample] + share]
        whole = self._jacobian(losses, balancing.samples)[sample]
        part = whole if first else torch.empty_like(whole)
        if by_task is not None:
            by_task.jacobian(self._rows, _columns(part, self._shared))
        else:
            self._by_autograd(ends, self._rows, part)
        if not first:
            whole += part

    def _jacobian(self, losses: Tensor, samples: int) -> Tensor:
        if self._jacobians is None:
            width = sum(p.numel() for p in self._shared)
            rows = samples * len(losses)
            memory = losses.new_empty(rows, width) if self._memory is None else self._memory(rows)
            self._jacobians = memory.view(samples, len(losses), width)
        return self._jacobians

    def _by_autograd(self, ends: Sequence[Tensor], rows: Tensor, jacobian: Tensor) -> None:
        """One backward pass for each task."""
        parameters = [*self._shared, *self._private]
        for i, (end, row, into) in enumerate(zip(ends, rows, jacobian, strict=True)):
            found = torch.autograd.grad(end, parameters, row, retain_graph=i + 1 < len(rows), allow_unused=True)
            shared, private = found[: len(self._shared)], found[len(self._shared) :]
            whole = [torch.zeros_like(p) if g is None else g for p, g in zip(self._shared, shared, strict=True)]
            _lay_side_by_side(whole, into)
            for parameter, gradient in zip(self._private, private, strict=True):
                if gradient is not None and parameter.grad is not None:
                    parameter.grad += gradient

    def _ends(self, losses: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Where the graph of the shared part ends for each of the k tasks, and the gradients there."""
        if self._leaf is None or self._features is None:
            return [losses] * len(losses), torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
        torch.autograd.backward(losses, torch.ones_like(losses))  # the heads' own gradients are in place with this
        rows = self._leaf.grad
        if rows is None:
            raise RuntimeError("the losses do not depend on the features")
        if len(losses) < len(rows):
            rows = rows[self._tasks]
        if self._features.dim() == 2:
            return [self._features] * len(losses), rows
        return [self._features[task] for task in self._tasks.tolist()], rows

    def _finish_gradients(self, losses: Tensor, balancing: GradientBalancing) -> Tensor | None:
        if balancing.gradients_on == "features":
            features = self._features if self._by_task is None else self._by_task.features
            if features is None or self._rows is None:
                raise RuntimeError("gradients_on=features: cut() must be called for the features")
            rows, _ = self._processes.joined(self._rows.float(), 1)  # solvers need more digits than bfloat16 has
            everywhere, own = self._processes.joined(features.detach().float(), 0)
            found, weights = balancing.aggregate_features(rows, everywhere, losses, self._tasks)
            if self._by_task is None:
                torch.autograd.backward(features, found[own].to(features.dtype))
            else:
                self._by_task.backward(found[own])
            self._processes.add_up(*self._gradients)
            return weights
        if self._jacobians is None:
            raise RuntimeError("finish() before add()")
        if balancing.samples == 1:
            jacobian = self._jacobians[0]
        else:  # each sample an estimate of the whole
            jacobian = self._jacobians[: len(self._shares)]
            jacobian /= jacobian.new_tensor(self._shares).view(-1, 1, 1)
        self._processes.add_up(jacobian, *self._gradients)  # the second: of heads; those of shared parameters follow
        self.norms = (jacobian if jacobian.dim() == 2 else jacobian.mean(0)).norm(dim=1)
        update, weights = balancing.aggregate(jacobian, losses, self._tasks)
        for parameter, part in zip(self._shared, update.split([p.numel() for p in self._shared]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))  # type: ignore[union-attr]
        return weights

    def _observe(self, losses: Tensor, balancing: LossBalancing, by_task: ByTask | None) -> None:
        shared = self._shared
        if balancing.observes == "last layer":
            shared = self._last_layer or shared
        if not shared:
            hint = "Use another method (balancing=equal), or an architecture that shares (sharing=hard)."
            what = f"{type(balancing).__name__} looks at gradients of shared parameters, and none is trained here"
            raise ConfigError(Problem("balancing", what, hint))
        gradients = losses.new_empty(len(losses), sum(p.numel() for p in shared))
        if by_task is not None:
            kept = [(p, p.grad.clone()) for p in self._private if p.grad is not None]
            by_task.jacobian(by_task.gradients(), _columns(gradients, shared))
            for parameter, before in kept:  # heads are trained by the weighted losses alone
                parameter.grad.copy_(before)  # type: ignore[union-attr]
        else:
            for loss, row in zip(losses, gradients, strict=True):
                found = torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True)
                _lay_side_by_side(found, row)
        self._observed = gradients if self._observed is None else self._observed + gradients


def weigh(balancing: LossBalancing, losses: Tensor, tasks: Tensor) -> Tensor:
    """The weights (k,) of the losses (k,) by a method, in the type of the losses.

    Raises:
        ConfigError: The method gives something else.
    """
    weights = balancing.weights(losses, tasks)
    expect_shape(balancing, "weights", weights, losses.shape)
    return weights.to(losses)


def _lay_side_by_side(gradients: Sequence[Tensor], row: Tensor) -> None:
    """Writes gradients into a row (P,); that of a table of embeddings may be sparse."""
    torch.cat([gradient.to_dense().flatten() for gradient in gradients], out=row)


def _columns(jacobian: Tensor, parameters: Sequence[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """The part (k, *shape) of the rows (k, P) that belongs to each parameter."""
    parts = jacobian.split([p.numel() for p in parameters], 1)
    return {p: part.unflatten(1, p.shape) for p, part in zip(parameters, parts, strict=True)}


def backward(
    losses: Tensor,
    balancing: Balancing,
    shared: Sequence[nn.Parameter],
    private: Sequence[nn.Parameter] = (),
    tasks: Tensor | None = None,
) -> Tensor | None:
    """Gradients of one batch into ``parameter.grad``, in place of ``losses.sum().backward()``.

    Where there is none, as after ``optimizer.zero_grad()``, it begins with zeros.

    Args:
        losses: (k,), of the tasks that it sees.
        balancing: The method.
        shared: Parameters that all tasks share.
        private: Parameters of single tasks.
        tasks: Positions of the k tasks; all K in order if None.

    Returns:
        The weights (k,) of the losses or gradients, where the method has them.

    Example:
        >>> from mtl_cli.balancing.pcgrad import PCGrad
        >>> x = nn.Parameter(torch.zeros(2))
        >>> losses = torch.stack([x[0], x[1] - x[0]])
        >>> _ = backward(losses, PCGrad(2), [x])
        >>> x.grad
        tensor([0.5000, 1.5000])
    """
    tasks = torch.arange(len(losses), device=losses.device) if tasks is None else tasks
    for parameter in (*shared, *private):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    accumulator = GradientAccumulator(balancing, shared, private, tasks)
    accumulator.add(losses)
    return accumulator.finish()[1]
