"""What a balancing method is: losses (and gradients) of K tasks to one update."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn


class Passes(Protocol):
    """More passes than the one of the step, for methods that set ``extra_passes``. Each costs what it says.

    Losses are those of the k tasks of the step, in the scale in which ``weights`` sees them. All passes of one step
    draw the same dropout masks as the step itself, so that their differences come from the parameters alone.

    Attributes:
        parameters: Every trained value of the model, one vector; a method may write into it and must put it back.
        lr: Learning rate of this step.
        step: Steps before this one in the whole run.
    """

    parameters: Tensor
    lr: float
    step: int

    def losses(self) -> Tensor:
        """Losses (k,) of the step's batch with the present parameters: a forward pass."""

    def gradient(self, weights: Tensor) -> Tensor:
        """Gradient of the losses weighted by ``weights`` (k,), like ``parameters``: a forward and a backward pass."""

    def validation_losses(self) -> Tensor:
        """Losses (K,) on a batch of validation rows, another one in each step, NaN without labels: a forward pass."""

    def validation_gradient(self, weights: Tensor) -> Tensor:
        """Gradient of those, weighted by ``weights`` (K,), tasks without labels left out: forward and backward."""


class Balancing(nn.Module, ABC):
    """Base of all methods. All state is in parameters and buffers, hence in ``state_dict``.

    A constructor takes ``(num_tasks, *, options)``. Losses are given for the tasks that have labels in this step
    only (k of K); ``tasks`` (k,) int64 says which, so that state kept per task stays untouched for the others.
    Parameters of a method are trained with the model's optimizer, without weight decay; row i belongs to task i.
    A buffer whose size is known only with the first gradient is registered with 0 columns, (K, 0); it takes the size
    of what is loaded into it.

    Besides its own mathematics a method may override what the loop calls in this order: ``before_step``, (the pass of
    the step,) ``after_step``, and at the end of an epoch ``after_epoch``.
    """

    #: ``before_step`` and ``after_step`` are called, with more passes over the data to ask for.
    extra_passes: ClassVar[bool] = False

    #: It looks at the gradients of single tasks on shared parameters. A shipped method says so in its own class body
    #: too, where it can be read without importing it.
    needs_shared: ClassVar[bool] = False

    @functools.cached_property
    def has_parameters(self) -> bool:
        """Whether the method learns anything itself."""
        return any(True for _ in self.parameters())

    def before_step(self, passes: Passes, tasks: Tensor) -> None:
        """Called before the gradients of a step are computed, if ``extra_passes``."""

    def after_step(self, passes: Passes, losses: Tensor, tasks: Tensor) -> None:
        """Called when the parameters were updated, with the losses (k,) from before, if ``extra_passes``."""

    def after_epoch(self, losses: Mapping[str, float | None]) -> None:
        """Called after each epoch with every task's mean loss over its rows, in task order; None without labels.

        Raises:
            TrainingError: The method cannot go on with such losses.
        """

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and saved is not None and 0 in buffer.shape and buffer.dim() == saved.dim():
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class LossBalancing(Balancing):
    """A method that combines the losses into one number, whose gradient is the update."""

    #: The weights do not depend on the losses of this step, so that a batch may be worked off in pieces. They are then
    #: asked for once per step, before ``observe``; else when the losses of the whole batch are known, after it.
    linear: ClassVar[bool] = False

    #: Gradients of each task that ``observe`` is shown: on the last shared layer, or on all shared parameters. The
    #: last layer: the shared parameters from the last weight matrix on, in the order of the model.
    observes: ClassVar[Literal["nothing", "last layer", "shared"]] = "nothing"

    @abstractmethod
    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        """Weight of each loss, shape (k,), differentiable in the method's own parameters only."""

    def penalty(self, tasks: Tensor) -> Tensor | None:  # noqa: ARG002
        """What is added to the weighted sum, a tensor of one value, or None."""
        return None

    def observe(self, gradients: Tensor, losses: Tensor, tasks: Tensor) -> None:
        """Shown the gradient of each task (k, P) on what ``observes`` names, and the losses (k,) of the whole batch."""


class GradientBalancing(Balancing):
    """A method that combines the tasks' gradients on the shared parameters.

    Heads and other parameters of one task get that task's own gradient.
    """

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
