"""BALANCING = mathematics on losses (K,) and Jacobians (K, P). It knows no model; ``autograd`` does the plumbing."""

from mtl_cli.balancing.autograd import backward
from mtl_cli.balancing.base import Balancing, GradientBalancing, GramianBalancing, LossBalancing

__all__ = ["Balancing", "GradientBalancing", "GramianBalancing", "LossBalancing", "backward"]
