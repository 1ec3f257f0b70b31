"""Dynamic weight average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import LossBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import Positive


@BALANCINGS.register("dwa")
class DWA(LossBalancing):
    """More weight for tasks whose loss falls slowly from epoch to epoch: DWA (Liu et al. 2019).

    With r_k the mean loss of task k in the last epoch divided by that in the epoch before, the weights are
    K softmax(r / temperature). They sum to K, and all are 1 in the first two epochs. A task that has not two
    means yet, or whose older mean is 0, has r_k = 1, as if its loss had not changed; one without labels in an epoch
    keeps its means.

    Args:
        num_tasks: K.
        temperature: The larger, the more alike the weights.

    Shape:
        losses (k,) -> weights (k,), positive, with sum k.

    Example:
        >>> method = DWA(2)
        >>> method.after_epoch({"a": 1.0, "b": 1.0})
        >>> method.after_epoch({"a": 1.0, "b": 0.5})
        >>> method.weights(torch.ones(2), torch.arange(2))
        tensor([1.1244, 0.8756])
    """

    linear: ClassVar[bool] = True

    def __init__(self, num_tasks: int, *, temperature: Positive = 2.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.means: Tensor
        self.register_buffer("means", torch.full((num_tasks, 2), torch.nan))  # of the last epoch but one, and the last

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        older, newer = self.means[tasks].unbind(1)
        rates = torch.where(older.isnan() | newer.isnan() | (older == 0), 1.0, newer / older)
        return len(losses) * torch.softmax(rates / self.temperature, 0)

    def after_epoch(self, losses: Mapping[str, float | None]) -> None:
        for task, loss in enumerate(losses.values()):
            if loss is not None:
                self.means[task] = torch.tensor([self.means[task, 1], loss])
