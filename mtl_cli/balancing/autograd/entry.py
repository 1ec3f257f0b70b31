"""The way in: what adds up the gradients of a batch for a method, whatever it works on, and the same in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mtl_cli.balancing.autograd.accumulator import GradientAccumulator, Parameters
from mtl_cli.balancing.autograd.combining import FeatureAccumulator, JacobianAccumulator
from mtl_cli.balancing.autograd.pieces import PieceLosses
from mtl_cli.balancing.autograd.weighting import ObservingAccumulator, WeightingAccumulator
from mtl_cli.balancing.base import Balancing, GradientBalancing, LossBalancing
from mtl_cli.processes import ALONE, ProcessGroup


def accumulator_for(
    balancing: Balancing, parameters: Parameters, tasks: Tensor, processes: ProcessGroup = ALONE
) -> GradientAccumulator:
    """What adds up the gradients of one step for a method.

    Args:
        balancing: The method.
        parameters: What is trained.
        tasks: Positions of the tasks whose losses the method sees in this step, (k,) int64.
        processes: Those that work on the batch.

    Raises:
        ConfigError: The method looks at gradients of shared parameters, and none is trained.
    """
    return maker_for(balancing)(parameters, tasks, processes)


def maker_for(balancing: Balancing) -> Callable[[Parameters, Tensor, ProcessGroup], GradientAccumulator]:
    """What makes the accumulator of each step for a method, found once. It takes the rest of ``accumulator_for``."""
    if isinstance(balancing, LossBalancing):
        return partial(WeightingAccumulator if balancing.observes == "nothing" else ObservingAccumulator, balancing)
    if isinstance(balancing, GradientBalancing):
        on_features = balancing.gradients_on == "features"
        return partial(FeatureAccumulator if on_features else JacobianAccumulator, balancing)
    raise TypeError(f"{type(balancing).__name__} is neither a LossBalancing nor a GradientBalancing")


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
    accumulator = accumulator_for(balancing, Parameters(shared, private), tasks)
    accumulator.add(PieceLosses(losses, losses.detach()))
    return accumulator.finish().weights
