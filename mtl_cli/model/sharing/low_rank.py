"""The shared parameter matrix: each task's weights are combinations of a few shared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_cli.errors import Problem
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.sharing._factored import FactoredSharing, rank_misfits, task_rank, unit_rows
from mtl_cli.registry import SHARINGS
from mtl_cli.types import NonNegative, PositiveInt, Surroundings


@SHARINGS.register("low_rank")
class LowRankSharing(FactoredSharing):
    """W_t = sum_r S_tr L_r for every weight matrix: few shared matrices L_r, and a row of S for each task.

    GO-MTL (Kumar & Daume 2012), layer by layer as DMTRL-LAF (Yang & Hospedales 2017); biases are each task's own.
    With as many components as tasks it can be any set of single-task models.

    Args:
        make_encoder: Makes encoders; the L_r start as fresh ones.
        task_names: K names.
        rank: R, the number of shared matrices, at most K; null: half of the tasks, rounded up.
        sparsity: Weight of sum |S_tr| in the loss; it sorts tasks into overlapping groups.

    Shape:
        Inputs of B rows -> (K, B, D).

    Raises:
        ConfigError: ``rank`` is more than the number of tasks.

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = LowRankSharing(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b", "c"], rank=2)
        >>> sharing(Inputs(torch.zeros(5, 3), torch.zeros(5, 0, dtype=torch.int64))).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        rank: PositiveInt | None = None,
        sparsity: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        starts, components = self.take_apart(make_encoder, task_names), task_rank(rank, len(task_names))
        self._sparsity = sparsity
        self.components = nn.ParameterList(nn.Parameter(start[:components].clone()) for start in starts)  # L
        rows = [unit_rows(len(task_names), components) for _ in starts]
        self.mixes = nn.Parameter(torch.stack(rows, 1))  # S (K, matrices, R)

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:
        return rank_misfits(options["rank"], around.tasks)

    def matrices(self) -> list[Tensor]:
        return [
            (self.mixes[:, i] @ component.flatten(1)).view(-1, *component.shape[1:])
            for i, component in enumerate(self.components)
        ]

    def task_factors(self) -> list[nn.Parameter]:
        return [self.mixes]

    def penalty(self) -> Tensor | None:
        return self._sparsity * self.mixes.abs().sum() if self._sparsity else None

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        return self.report_factors(self.mixes.unbind(1), tasks)
