"""What is not finite: a step that is taken back, parameters that are spoilt, and the rows to blame."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mtl_cli.data.batches import Rows
from mtl_cli.loop.step import Learner


class Snapshot:
    """All that a step may change before the optimizer does: what a step that is taken back needs.

    Args:
        learner: What is trained.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        # The parameters, the method's too, only the optimizer changes.
        self._balancing = [
            (module, name, buffer.clone())
            for module in learner.balancing.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        self._scale = None if learner.loss_scale is None else copy.deepcopy(learner.loss_scale.state_dict())
        self._buffers = [(buffer, buffer.clone()) for buffer in learner.model.buffers()]
        device = learner.parameters.values.device
        self._cuda = device if device.type == "cuda" else None
        self._random = torch.get_rng_state()
        self._cuda_random = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)

    def restore(self) -> None:
        """Puts everything back, the generators included."""
        for module, name, value in self._balancing:  # put back, not loaded: a method may have made it larger
            setattr(module, name, value)
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
            inputs, labels = rows.gather(row)
            outputs = learner.model.outputs(inputs)
            sums, _ = learner.objective.sums_and_gradient(outputs, labels, complete=False)
            if not bool(sums.isfinite().all()):
                found.append(int(row))
    learner.model.train()
    return found
