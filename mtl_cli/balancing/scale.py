"""``loss_scale: initial``, which every balancing method can be combined with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class InitialScale(nn.Module):
    """Divides the loss of each task by its first value, so that all tasks start at their weight whatever their unit.

    What the method sees is scaled; what is printed, logged and monitored is not. A task whose first value is not
    positive is not divided.

    Args:
        num_tasks: K.

    Attributes:
        first: (K,) first losses, before task weights; NaN for tasks that had no labels so far.

    Example:
        >>> scale = InitialScale(2)
        >>> scale.factor(torch.arange(2), lambda: torch.tensor([4.0, 0.5]))
        tensor([0.2500, 2.0000])
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.first: Tensor
        self.register_buffer("first", torch.full((num_tasks,), torch.nan))
        self._complete = False  # known to the host, so that only the first steps wait for the device

    def factor(self, tasks: Tensor, losses: Callable[[], Tensor]) -> Tensor:
        """The factor on each loss (K,).

        Args:
            tasks: (k,) tasks with labels in this step.
            losses: Gives their losses (k,), neither weighted nor scaled; called only if one of them is seen for the
                first time.
        """
        if not self._complete:
            first = self.first[tasks]
            if bool(first.isnan().any()):
                self.first[tasks] = torch.where(first.isnan(), losses(), first)
            self._complete = not bool(self.first.isnan().any())
        return self.known()

    def known(self) -> Tensor:
        """The factor on each loss (K,) as far as the first losses are known; 1 where not."""
        return torch.where(self.first > 0, 1 / self.first, 1.0)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        self._complete = False
        super()._load_from_state_dict(state_dict, prefix, *rest)
