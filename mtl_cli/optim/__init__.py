"""Optimizers and learning-rate schedules by name, over parameters held as one flat vector.

They are ours and not ``torch.optim``'s because importing that loads PyTorch's compiler stack (a second at every
start), and because the parameters of a task without labels in a step must stay untouched.
"""

from mtl_cli.optim.base import Optimizer, Scheduler
from mtl_cli.optim.flat import FlatParameters, begin_as_in_a_vector

__all__ = ["FlatParameters", "Optimizer", "Scheduler", "begin_as_in_a_vector"]
