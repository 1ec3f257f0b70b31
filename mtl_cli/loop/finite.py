"""Numbers that are not finite: in which step they came first, and a step that is taken back."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mtl_cli.data.batches import Rows
from mtl_cli.loop.step import Learner


class LossWatch:
    """Remembers the losses of the latest steps, so that nothing has to wait for the device to ask each of them.

    Args:
        num_tasks: K.
        device: Where losses are.
        size: Steps that are remembered.

    Attributes:
        count: Steps since the last ``clear``.

    Example:
        >>> watch = LossWatch(2, torch.device("cpu"), size=3)
        >>> for sums in ([1.0, 2.0], [1.0, float("inf")], [float("nan"), float("nan")]):
        ...     watch.add(torch.tensor(sums))
        >>> watch.full, watch.first_bad()
        (True, (1, [1]))
        >>> watch.clear(); watch.full, watch.first_bad()
        (False, None)
    """

    def __init__(self, num_tasks: int, device: torch.device, size: int = 256) -> None:
        self._losses = torch.zeros(size, num_tasks, device=device)
        self._weights: list[Tensor | None] = []  # as they were given: to copy each would cost every step something
        self.count = 0

    def add(self, sums: Tensor, weights: Tensor | None = None) -> None:
        """Takes the losses (K,) of a step, and the weights (k,) that balancing made of them, if any."""
        self._losses[self.count] = sums
        self._weights.append(weights)
        self.count += 1

    @property
    def full(self) -> bool:
        """Whether it must be cleared before the next step."""
        return self.count == len(self._losses)

    def first_bad(self) -> tuple[int, list[int]] | None:
        """The first step with a loss that is not finite, from 0 since the last ``clear``, and its tasks."""
        bad = ~self._losses[: self.count].isfinite().cpu()
        if not bad.any():
            return None
        step = int(bad.any(1).nonzero()[0])
        return step, bad[step].nonzero().flatten().tolist()

    def first_bad_weights(self) -> int | None:
        """The first step whose losses are finite and whose weights are not, before any other number that is not.

        -1 is the last step before ``clear``.

        Example:
            >>> watch = LossWatch(1, torch.device("cpu"))
            >>> for loss, weight in ((1.0, 1.0), (1.0, float("nan")), (float("nan"), float("nan"))):
            ...     watch.add(torch.tensor([loss]), torch.tensor([weight]))
            >>> watch.first_bad_weights(), watch.first_bad()
            (1, (2, [0]))
        """
        bad = self.first_bad()
        earlier = len(self._weights) - self.count  # of the step before ``clear``
        known = self._weights if bad is None else self._weights[: earlier + bad[0]]
        for place, weights in enumerate(known):
            if weights is not None and not bool(weights.isfinite().all()):
                # A method that always gives the same memory has written later weights over those of this step.
                same = [w for w in self._weights if w is not None and w.data_ptr() == weights.data_ptr()]
                return place - earlier if len(same) == 1 else None
        return None

    def clear(self) -> None:
        """Forgets all steps, but for the weights of the last."""
        self.count = 0
        del self._weights[:-1]


class Snapshot:
    """All that a step may change before the optimizer does: what a step that is taken back needs.

    Args:
        learner: What is trained.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._balancing = copy.deepcopy(learner.balancing.state_dict())
        self._scale = None if learner.loss_scale is None else copy.deepcopy(learner.loss_scale.state_dict())
        self._buffers = [(buffer, buffer.clone()) for buffer in learner.model.buffers()]
        device = learner.parameters.values.device
        self._cuda = device if device.type == "cuda" else None
        self._random = torch.get_rng_state()
        self._cuda_random = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)

    def restore(self) -> None:
        """Puts everything back, the generators included."""
        self._learner.balancing.load_state_dict(self._balancing)
        if self._learner.loss_scale is not None and self._scale is not None:
            self._learner.loss_scale.load_state_dict(self._scale)
        for buffer, value in self._buffers:
            buffer.copy_(value)
        torch.set_rng_state(self._random)
        if self._cuda is not None and self._cuda_random is not None:
            torch.cuda.set_rng_state(self._cuda_random, self._cuda)


def state_is_finite(learner: Learner) -> bool:
    """Whether all parameters and what the optimizers remember of them are finite. Waits for the device."""
    vectors = [v for optimizer in learner.optimizers for v in (optimizer.flat.values, *optimizer.buffers.values())]
    return all(bool(vector.isfinite().all()) for vector in vectors)


def rows_without_finite_loss(learner: Learner, rows: Rows, index: Tensor) -> list[int]:
    """Which of the rows at ``index`` have, each alone, a loss that is not finite with the present weights."""
    found = []
    learner.model.eval()
    with torch.no_grad(), learner.precision():
        for row in index.split(1):
            inputs, targets = rows.gather(row)
            outputs = learner.model.outputs(inputs)
            sums, _ = learner.objective.sums_and_gradient(outputs, targets, complete=False)
            if not bool(sums.isfinite().all()):
                found.append(int(row))
    learner.model.train()
    return found
