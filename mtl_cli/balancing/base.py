"""What a balancing method is: losses (and gradients) of K tasks to one update."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Balancing(nn.Module, ABC):
    """Base of all methods. All state is in parameters and buffers, hence in ``state_dict``.

    A constructor takes ``(num_tasks, *, options)``. Losses are given for the tasks that have labels in this step
    only (k of K); ``tasks`` (k,) int64 says which, so that state kept per task stays untouched for the others.
    Parameters of a method are trained with the model's optimizer, without weight decay; row i belongs to task i.
    """

    @functools.cached_property
    def has_parameters(self) -> bool:
        """Whether the method learns anything itself."""
        return any(True for _ in self.parameters())


class LossBalancing(Balancing):
    """A method that combines the losses into one number, whose gradient is the update."""

    #: The weights do not depend on the losses of this step, so that a batch may be worked off in pieces.
    linear: ClassVar[bool] = False

    @abstractmethod
    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        """Weight of each loss, shape (k,), differentiable in the method's own parameters only."""

    def penalty(self, tasks: Tensor) -> Tensor | None:  # noqa: ARG002
        """What is added to the weighted sum, a tensor of one value, or None."""
        return None


class GradientBalancing(Balancing):
    """A method that combines the tasks' gradients on the shared parameters.

    Heads and other parameters of one task get that task's own gradient.
    """

    #: A shipped method says so in its own class body too, where it can be read without importing it.
    needs_shared: ClassVar[bool] = True

    @abstractmethod
    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:
        """Weights w (k,) of the gradients: the update is the sum of w_i g_i.

        Shape:
            gramian (k, k) with entries g_i . g_j in float64 on the CPU, losses (k,), tasks (k,).
        """

    def aggregate(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor | None]:
        """The update (P,) from the Jacobian (k, P), and the weights (k,) where the method has them."""
        gramian = (jacobian @ jacobian.t()).double().cpu()
        weights = self.combine(gramian, losses, tasks).to(jacobian)
        return weights @ jacobian, weights
