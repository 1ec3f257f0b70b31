"""ALL AUTOGRAD OF BALANCING: losses of the pieces of a batch to ``parameter.grad``, whatever the method works on."""

from mtl_cli.balancing.autograd.accumulator import BalancedBatch, GradientAccumulator, Parameters
from mtl_cli.balancing.autograd.entry import accumulator_for, backward, maker_for
from mtl_cli.balancing.autograd.pieces import PieceLosses, TaskGradients
from mtl_cli.balancing.autograd.weighting import weigh

__all__ = [
    "BalancedBatch",
    "GradientAccumulator",
    "Parameters",
    "PieceLosses",
    "TaskGradients",
    "accumulator_for",
    "backward",
    "maker_for",
    "weigh",
]
