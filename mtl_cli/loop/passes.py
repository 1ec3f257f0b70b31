"""More passes over the data than the one of a step, for balancing methods that ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing.autograd import PieceLosses
from mtl_cli.data.batches import Epoch, Piece, Rows, plan_epoch
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.loop.pieces import pieces

if TYPE_CHECKING:
    from mtl_cli.loop.step import Learner


@dataclass
class ValidationBatches:
    """Batches of validation rows, one for each step of training: a pure function of the step, with nothing to save.

    Args:
        rows: The validation rows.
        batch_size: Rows of a batch.
        weights: (K,) task weights.
        seed: The run's seed.
    """

    rows: Rows
    batch_size: int
    weights: np.ndarray
    seed: int
    _plans: dict[int, Epoch] = field(default_factory=dict)

    def at(self, step: int) -> tuple[Epoch, int]:
        """The plan of a pass over all validation rows, and the batch in it that belongs to ``step``.

        Raises:
            ConfigError: The validation rows are not in memory: whether they are may differ from start to start, and the
                batches with it.
        """
        if self.rows.streamed:
            what = f"looks at validation rows in each step, and all {len(self.rows):,} of them do not fit into memory"
            raise ConfigError(Problem("balancing", what, "Give fewer (data.split.val), or use another method."))
        number, batch = divmod(step, -(-len(self.rows) // self.batch_size))
        if number not in self._plans:
            plan = plan_epoch(
                self.rows, number, batch_size=self.batch_size, weights=self.weights, seed=self.seed + 1, shuffle=True
            )
            self._plans = {number: plan}
        return self._plans[number], batch


class StepPasses:
    """The passes that a method may ask for in one step; see ``mtl_cli.balancing.base.Passes``.

    Args:
        learner: What is trained.
        pieces: Gives this process's rows of the step's batch, piece by piece.
        epoch: The epoch's batches.
        batch: Which of them is the step's, from 0.
        tasks: Positions of the tasks that balancing sees (k,).
        step: Steps before this one in the whole run.
        validation: Batches of validation rows, if the method asks for them.

    Attributes:
        scale: (K,) factor on each row's loss, after ``learner.loss_scale``.
    """

    def __init__(
        self,
        learner: Learner,
        pieces: Callable[[], Iterator[Piece]],
        epoch: Epoch,
        batch: int,
        tasks: Tensor,
        step: int,
        validation: ValidationBatches | None,
    ) -> None:
        self.parameters = learner.parameters.values
        self.lr = learner.lr(step)
        self.step, self.scale = step, epoch.scale[batch]
        self._learner, self._pieces, self._tasks, self._validation = learner, pieces, tasks, validation
        device = self.parameters.device
        self._cuda = [device] if device.type == "cuda" else []
        self._random = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in self._cuda]
        if learner.loss_scale is not None:
            labelled = learner.objective.tasks(epoch.absent[batch])
            unweighted = partial(self._unweighted_losses, labelled, epoch.counts[batch])
            self.scale = self.scale * learner.loss_scale.factor(labelled, unweighted)

    def losses(self) -> Tensor:
        """Losses (k,) of the step's batch with the present parameters."""
        return self._losses_of(self.scale, self._tasks)

    def _unweighted_losses(self, tasks: Tensor, counts: np.ndarray) -> Tensor:
        """Losses (k,) of the step's batch for tasks whose labels count ``counts`` (K,), before weights of tasks."""
        scale = np.divide(1, counts, out=np.zeros_like(counts), where=counts > 0)
        return self._losses_of(torch.from_numpy(scale).to(self.scale), tasks)

    def _losses_of(self, scale: Tensor, tasks: Tensor) -> Tensor:
        """Losses (k,) of the step's batch for some tasks, with another factor (K,) on each row's loss."""
        with torch.no_grad(), self._same_dropout():
            losses = torch.stack([self._learner.losses(piece, scale).losses for piece in self._pieces()]).sum(0)
        self._learner.processes.add_up(losses)
        return losses[tasks]

    def gradient(self, weights: Tensor) -> Tensor:
        """Gradient of the losses weighted by ``weights`` (k,)."""
        every = torch.zeros_like(self.scale).index_copy(0, self._tasks, weights)
        self._learner.parameters.zero_gradient()
        with self._same_dropout():
            for piece in self._pieces():
                self._learner.losses(piece, self.scale).add_gradient(every)
        return self._whole_gradient()

    def validation_losses(self) -> Tensor:
        """Losses (K,) on a batch of validation rows, NaN without labels or with weight 0."""
        rows, plan, batch = self._validation_batch()
        with torch.no_grad(), self._evaluating():
            losses = torch.stack([found.losses for found in self._in_pieces(rows, plan, batch)]).sum(0)
        self._learner.processes.add_up(losses)
        return torch.where(plan.scale[batch] > 0, losses, torch.nan)

    def validation_gradient(self, weights: Tensor) -> Tensor:
        """Gradient of those losses weighted by ``weights`` (K,)."""
        self._learner.parameters.zero_gradient()
        with self._evaluating():
            for found in self._in_pieces(*self._validation_batch()):
                found.add_gradient(weights)
        return self._whole_gradient()

    def _whole_gradient(self) -> Tensor:
        self._learner.parameters.zero_still()
        gradient = self._learner.parameters.gradient.clone()
        self._learner.processes.add_up(gradient)
        return gradient

    def _validation_batch(self) -> tuple[Rows, Epoch, int]:
        """The validation rows, the plan of a pass over them, and the batch in it that is the step's."""
        if self._validation is None:
            raise RuntimeError(f"{type(self._learner.balancing).__name__} needs validation rows in every step")
        return self._validation.rows, *self._validation.at(self.step)

    def _in_pieces(self, rows: Rows, plan: Epoch, batch: int) -> Iterator[PieceLosses]:
        """Losses (K,) of this process's rows of a batch, 0 where none counts, as many rows at once as in a step."""
        learner, scale = self._learner, plan.scale[batch]
        if learner.loss_scale is not None:
            scale = scale * learner.loss_scale.known()
        for piece in pieces(learner, rows, plan, batch):
            yield learner.losses(piece, scale)

    @contextmanager
    def _same_dropout(self) -> Iterator[None]:
        host, cuda = self._random
        with torch.random.fork_rng(self._cuda):
            torch.set_rng_state(host)
            for device, state in zip(self._cuda, cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self._learner.model.eval()
        yield
        self._learner.model.train()
