"""Gradient normalization."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtl_cli.balancing._adam import TaskAdam
from mtl_cli.balancing.base import LossBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import NonNegative, Positive

WIDEST = 20.0  # the logits stay within +- this of their mean, so that no weight ever becomes 0


@BALANCINGS.register("gradnorm")
class GradNorm(LossBalancing):
    """Brings the tasks' gradients to one size, larger for tasks that learn slowly: GradNorm (Chen et al. 2018).

    G_k = w_k |g_k| with the gradient g_k on the last shared layer, r_k = (L_k / first L_k) / mean of these. An Adam of
    the method's own lowers sum of |G_k - mean(G) r_k^alpha|, where mean(G) r_k^alpha counts as constant; the weights
    are k softmax(logits), as in LibMTL: positive, with sum k. They are used in the step and changed after it. The first
    loss of a task is its first positive one; until then its ratio is 1.

    The last shared layer is what ``Sharing.last_layer`` says: of all copies or experts, where there are several.

    Args:
        num_tasks: K.
        alpha: How strongly slow tasks are pushed; 0 asks for equal gradient norms.
        lr: Learning rate of the logits.

    Shape:
        losses (k,) -> weights (k,), positive, with sum k.

    Example:
        >>> method = GradNorm(2, lr=0.1)
        >>> method.observe(torch.tensor([[3.0], [1.0]]), torch.ones(2), torch.arange(2))
        >>> method.weights(torch.ones(2), torch.arange(2))
        tensor([0.9003, 1.0997])
    """

    linear: ClassVar[bool] = True
    needs_shared: ClassVar[bool] = True
    observes: ClassVar[Literal["nothing", "last layer", "shared"]] = "last layer"

    def __init__(self, num_tasks: int, *, alpha: NonNegative = 1.5, lr: Positive = 0.025) -> None:
        super().__init__()
        self.alpha = alpha
        self.logits: Tensor
        self.first: Tensor
        self.register_buffer("logits", torch.zeros(num_tasks))
        self.register_buffer("first", torch.full((num_tasks,), torch.nan))
        self.adam = TaskAdam(num_tasks, lr)

    def weights(self, losses: Tensor, tasks: Tensor) -> Tensor:
        return len(losses) * torch.softmax(self.logits[tasks], 0)

    def observe(self, gradients: Tensor, losses: Tensor, tasks: Tensor) -> None:
        first = self.first[tasks]
        first = torch.where(first.isnan() & (losses > 0), losses, first)
        self.first[tasks] = first
        ratios = torch.where(first.isnan(), 1.0, losses.clamp_min(0) / first)
        rates = torch.where(ratios.mean() > 0, ratios / ratios.mean(), 1.0)
        norms, z = gradients.norm(dim=1), torch.softmax(self.logits[tasks], 0)
        sizes = len(losses) * z * norms
        slope = norms * torch.sign(sizes - sizes.mean() * rates**self.alpha)  # of the sum, by each weight
        self.adam.step(self.logits, len(losses) * z * (slope - z @ slope), tasks)
        logits = self.logits[tasks]
        middle = logits.mean()
        self.logits[tasks] = middle + (logits - middle).clamp(-WIDEST, WIDEST)
