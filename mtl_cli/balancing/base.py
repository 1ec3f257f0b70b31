"""What a balancing method is: losses (and gradients) of K tasks to one update."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem, TrainingError
from mtl_cli.overriding import restore_general
from mtl_cli.registry import describe_component, expect_shape
from mtl_cli.types import GradientsOn, UpdateScale

T = TypeVar("T", bound="Balancing")


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
        """Losses (K,) on a batch of validation rows, another in each step, NaN where none counts: a forward pass."""

    def validation_gradient(self, weights: Tensor) -> Tensor:
        """Gradient of those, weighted by ``weights`` (K,), tasks without labels left out: forward and backward."""


class Balancing(nn.Module, ABC):
    """Base of all methods. All state is in parameters and buffers, hence in ``state_dict``.

    A constructor takes ``(num_tasks, *, options)``. Losses are given for the tasks that have labels in this step and a
    weight above 0 only (k of K); ``tasks`` (k,) int64 says which, so that state kept per task stays untouched for the
    others. Tasks are numbered as they are trained, those that are alike side by side, not as they are declared: an
    option that has a number for each task is a ``PerTask``, one that picks tasks a ``TaskList``. A configuration names
    tasks there, and the constructor is given K numbers, or the positions.
    Parameters of a method are trained with the model's optimizer, without weight decay or clipping, as they are no
    weights of the model; row i belongs to task i, and one that cannot be divided into rows for K tasks belongs to all.
    A buffer whose size is known only with the first gradient is registered with 0 columns, (K, 0); it takes the size
    of what is loaded into it.

    Besides its own mathematics a method may override what the loop calls in this order: ``before_step``, (the pass of
    the step,) ``after_step``, and at the end of an epoch ``after_epoch``.
    """

    #: ``before_step`` and ``after_step`` are called, with more passes over the data to ask for.
    extra_passes: ClassVar[bool] = False

    #: Independent parts that the rows of a step are cut into, for methods that compare gradients of several batches.
    samples: ClassVar[int] = 1

    #: It looks at the gradients of single tasks on shared parameters. A shipped method says so in its own class body
    #: too, where it can be read without importing it.
    needs_shared: ClassVar[bool] = False

    #: Whether ``tasks.NAME.weight`` counts. False: the update on the shared parameters has the same direction whatever
    #: the losses are multiplied by.
    heeds_weights: ClassVar[bool] = True

    @property
    def heads_heed_weights(self) -> bool:
        """Whether ``tasks.NAME.weight`` counts for heads and other parameters of single tasks."""
        return self.heeds_weights

    @property
    def measures_gradients(self) -> bool:
        """Whether its steps need each task's gradient by all shared parameters: its length is known then."""
        return False

    @functools.cached_property
    def has_parameters(self) -> bool:
        """Whether the method learns anything itself."""
        return any(True for _ in self.parameters())

    def seed_draws(self, seed: int) -> None:
        """For the constructor of a method that draws: a generator of its own, whose state is part of the checkpoint."""
        self.generator_state: Tensor
        self.register_buffer("generator_state", torch.Generator().manual_seed(seed).get_state())
        self._seed = seed

    def draw_as_run(self, seed: int) -> None:
        """Before training: with the same option ``seed``, runs of another seed draw other numbers.

        Else a mean over seeds would leave out the chance that the method itself brings.
        """
        if "generator_state" in self._buffers:
            own = torch.Generator().manual_seed((self._seed + seed) % 2**63)
            self.generator_state.copy_(own.get_state())

    @contextlib.contextmanager
    def draws(self) -> Iterator[torch.Generator]:
        """That generator, on the CPU; the next draws go on where these end."""
        generator = torch.Generator()
        generator.set_state(self.generator_state)
        yield generator
        self.generator_state.copy_(generator.get_state())

    def _apply(self: T, *how: Any, **also: Any) -> T:
        """Moves to another device all but the generator's state, which an accelerator would have to hand back."""
        moved: T = super()._apply(*how, **also)
        state = self._buffers.get("generator_state")
        if state is not None:
            self._buffers["generator_state"] = state.cpu()
        return moved

    def before_step(self, passes: Passes, tasks: Tensor) -> None:
        """Called before the gradients of a step are computed, if ``extra_passes``."""

    def after_step(self, passes: Passes, losses: Tensor, tasks: Tensor) -> None:
        """Called when the parameters were updated, with the losses (k,) from before, if ``extra_passes``."""

    def after_epoch(self, losses: Mapping[str, float | None]) -> None:
        """Called after each epoch with every task's mean loss over its rows, in task order; None where none counts.

        Raises:
            TrainingError: The method cannot go on with such losses.
        """

    def take_without_gradient(self) -> list[int]:
        """Tasks that it had to leave out of some step since the last call, because their gradient was zero."""
        return []

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and saved is not None and 0 in buffer.shape and buffer.dim() == saved.dim():
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class LossBalancing(Balancing):
    """A method that combines the losses into one number, whose gradient is the update."""

    #: The weights do not depend on the losses of this step, so that a batch may be worked off in pieces. They are then
    #: asked for once per step, before ``observe``; else when the losses of the whole batch are known, after it. A
    #: subclass that overrides ``weights`` says it anew.
    linear: ClassVar[bool] = False

    #: Gradients of each task that ``observe`` is shown: on the last shared layer (``Sharing.last_layer``), or on all
    #: shared parameters.
    observes: ClassVar[Literal["nothing", "last layer", "shared"]] = "nothing"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.observes != "nothing":
            cls.needs_shared = True
        restore_general(cls, LossBalancing, {"linear": "linear"}, of=("weights",))

    @property
    def measures_gradients(self) -> bool:
        return self.observes == "shared"

    @abstractmethod
    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        """Weight of each loss, shape (k,), differentiable in the method's own parameters only."""

    def penalty(self, tasks: Tensor) -> Tensor | None:  # noqa: ARG002
        """What is added to the weighted sum, a tensor () of one value, or None."""
        return None

    def observe(self, gradients: Tensor, losses: Tensor, tasks: Tensor) -> None:
        """Shown the gradient of each task (k, P) on what ``observes`` names, and the losses (k,) of the whole batch."""


class GradientBalancing(Balancing):
    """A method that combines the tasks' gradients on the shared parameters.

    Heads and other parameters of one task get that task's own gradient, unless the method has ``own_weights``. A task
    whose gradient is zero is treated like one without labels: it has weight 0, and its state stays as it is. Where it
    is zero in some of the ``samples`` only, the state stays too, and gives the weight. Methods differ in how long their
    update is (some are like the sum of the gradients, some like their mean, some do not grow with them), and with it in
    the learning rate that suits them.

    Args:
        normalize_to: ``sum`` or ``mean`` makes every update as long as the sum or the mean of the gradients.
        gradients_on: ``features`` takes the gradients of the features that all heads read instead of the shared
            parameters, which needs one backward pass through the encoder instead of one for each task. Only methods
            that make sense there have it as an option.
    """

    needs_shared: ClassVar[bool] = True

    def __init__(self, normalize_to: UpdateScale = "none", gradients_on: GradientsOn = "parameters") -> None:
        super().__init__()
        self.normalize_to, self.gradients_on = normalize_to, gradients_on
        self._looked = False  # whether an update is finite
        self._without_gradient: set[int] = set()  # tasks whose gradient was zero, until they are asked for

    @property
    def measures_gradients(self) -> bool:
        return self.gradients_on == "parameters"

    def take_without_gradient(self) -> list[int]:
        taken, self._without_gradient = sorted(self._without_gradient), set()
        return taken

    def own_weights(self, losses: Tensor, tasks: Tensor) -> Tensor | None:  # noqa: ARG002
        """Weights (k,), above 0, of the losses (k,) of a batch in the gradients of heads and other private parameters.

        None: each has its own gradient. Where a subclass overrides it, the pieces of a batch wait, with their graphs,
        until the losses of the whole batch are known.
        """
        return None

    @property
    def weighs_own(self) -> bool:
        """Whether a task's private parameters get another gradient than that of its loss."""
        return type(self).own_weights is not GradientBalancing.own_weights

    @property
    def heads_heed_weights(self) -> bool:
        return self.heeds_weights or not self.weighs_own

    @abstractmethod
    def direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor | None]:
        """The method's update (P,), and the weights (k,) of the gradients where it has them.

        Shape:
            jacobian (k, P); with ``samples`` (S, k, P), one for each part of the step's rows that has any, each of them
            an estimate of the whole. losses (k,), tasks (k,).
        """

    def feature_direction(
        self, gradients: Tensor, features: Tensor, losses: Tensor, tasks: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The same for the features (B, D) and their gradients (k, B, D)."""
        update, weights = self._checked_direction(gradients.flatten(1), losses, tasks)
        return update.view_as(features), weights

    def aggregate(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor | None]:
        """``direction``, as long as ``normalize_to`` says."""
        update, weights = self._checked_direction(jacobian, losses, tasks)
        return self._rescaled(jacobian if jacobian.dim() == 2 else self.pick(jacobian), update, weights)

    def aggregate_features(
        self, gradients: Tensor, features: Tensor, losses: Tensor, tasks: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """``feature_direction``, as long as ``normalize_to`` says."""
        return self._rescaled(gradients, *self.feature_direction(gradients, features, losses, tasks))

    def all_have(self, gradient: Tensor, tasks: Tensor) -> bool:
        """Whether all tasks (k,) have a gradient that is not zero, by a tensor (k,) of bool; notes those without."""
        if bool(gradient.all()):
            return True
        self._without_gradient.update(tasks[~gradient.to(tasks.device)].tolist())
        return False

    def pick(self, jacobians: Tensor) -> Tensor:
        """What the update of a method with ``samples`` is made of: (S, k, P) to (k, P). By default their mean."""
        return jacobians.mean(0)

    def _checked_direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor | None]:
        found = self.direction(jacobian, losses, tasks)
        if not isinstance(found, tuple) or len(found) != 2:
            what = f"its direction gives a {type(found).__name__}, must be the update and the weights or None"
            raise ConfigError(Problem(describe_component(self), what, "Write: return update, None."))
        update, weights = found
        expect_shape(self, "update", update, jacobian.shape[-1:])
        if not self._looked:  # once: later it would make every step wait for the device
            self._looked = bool(update.isfinite().all())
            # Of gradients whose squares are too large for float32 no method makes an update.
            if not self._looked and bool(jacobian.square().sum().isfinite()) and bool(losses.isfinite().all()):
                who = describe_component(self)
                raise TrainingError(f"{who} gave an update that is not finite for losses and gradients that are.")
        if weights is not None:
            expect_shape(self, "weights", weights, losses.shape)
        return update, weights

    def _rescaled(self, gradients: Tensor, update: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.normalize_to == "none":
            return update, weights
        length = gradients.sum(0).norm() / (len(gradients) if self.normalize_to == "mean" else 1)
        norm = update.norm()
        factor = torch.where(norm > 0, length / norm, 0.0)
        return update * factor, None if weights is None else weights * factor


class GramianBalancing(GradientBalancing):
    """A method that needs of the gradients only their products with one another."""

    @abstractmethod
    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:
        """Weights w (k,) of the gradients, in float64: the update is the sum of w_i g_i.

        Shape:
            gramian (k, k) with entries g_i . g_j in float64 on the CPU, none of the gradients zero; losses (k,), tasks
            (k,). With ``samples`` the products are those of the first and the second sample: not symmetric.
        """

    def kept(self, tasks: Tensor) -> Tensor:
        """Weights (k,) in float64 by what the method keeps of each task; by default equal ones, which sum to 1.

        Asked for, after ``combine`` for the others, where some of these tasks have a gradient in some ``samples`` only
        (labels, say, in one part of the step's rows): their products would be 0 by chance, and tell nothing of them.
        """
        return torch.full((len(tasks),), 1 / len(tasks), dtype=torch.float64)

    def direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor | None]:
        if jacobian.dim() == 2:
            products = (jacobian @ jacobian.t()).cpu().double()
            gramian = (products + products.t()) / 2  # g_i . g_j and g_j . g_i need not be rounded alike
            alive = known = gramian.diagonal() > 0
        else:
            gramian = (jacobian[0] @ jacobian[min(1, len(jacobian) - 1)].t()).cpu().double()
            there = (torch.linalg.vector_norm(jacobian, dim=2) > 0).cpu()  # (S, k)
            alive, known = there.any(0), there[:2].all(0)
            jacobian = self.pick(jacobian)
        if not bool(gramian.isfinite().all()):  # of the gradients, so that no weights are to blame
            return torch.full_like(jacobian[0], torch.nan), None
        weights = self._weights(gramian, alive, known, losses, tasks).to(jacobian)
        return weights @ jacobian, weights

    def _weights(self, gramian: Tensor, alive: Tensor, known: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:
        """Weights (k,): ``combine`` for the tasks that are ``known`` by their products; 0 for those not ``alive``."""
        if self.all_have(alive, tasks) and bool(known.all()):
            return self._combined(gramian, losses, tasks)
        weights = torch.zeros(len(tasks), dtype=gramian.dtype)
        if bool(known.any()):
            weights[known] = self._combined(gramian[known][:, known], losses[known], tasks[known])
        if bool((alive & ~known).any()):
            weights[alive] = self.kept(tasks[alive])
        return weights

    def _combined(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:
        weights = self.combine(gramian, losses, tasks)
        expect_shape(self, "weights", weights, losses.shape)
        return weights
