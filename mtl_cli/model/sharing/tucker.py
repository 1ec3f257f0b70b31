"""Weights of all tasks as one tensor in Tucker form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_cli.errors import Problem
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.sharing._factored import AxisFactor, FactoredSharing, axis_rank, rank_misfits, task_rank, unit_rows
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Fraction, PositiveInt, Surroundings


@SHARINGS.register("tucker")
class TuckerSharing(FactoredSharing):
    """The weights (out, in, K) of every matrix are a core times a factor for each axis: S x1 U1 x2 U2 x3 U3.

    DMTRL-Tucker (Yang & Hospedales 2017), started at random, with the spread that fresh encoders have; biases are each
    task's own. A task owns its row of U3. At full rank it can be any set of single-task models. Axes of more than
    8,192 are left whole.

    Args:
        make_encoder: Makes encoders; they say how large the weights are.
        task_names: K names.
        rank: Components of the task axis, at most K; null: half of the tasks, rounded up.
        share: Components of the other two axes, as a share of their width; 0 means one.

    Shape:
        Inputs of B rows -> (K, B, D).

    Raises:
        ConfigError: ``rank`` is more than the number of tasks.

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = TuckerSharing(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b", "c"])
        >>> sharing(Inputs(torch.zeros(5, 3), torch.zeros(5, 0, dtype=torch.int64))).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        rank: PositiveInt | None = None,
        share: Fraction = 0.5,
    ) -> None:
        super().__init__()
        starts, components = self.take_apart(make_encoder, task_names), task_rank(rank, len(task_names))
        self.cores, self.tasks = nn.ParameterList(), nn.ParameterList()
        self.outputs, self.inputs = nn.ModuleList(), nn.ModuleList()
        for start in starts:
            _, rows, columns = start.shape
            r1, r2 = axis_rank(rows, share), axis_rank(columns, share)
            spread = start.square().mean().sqrt() * (rows / r1 * columns / r2) ** 0.5
            self.cores.append(nn.Parameter(torch.randn(r1, r2, components) * spread))
            self.outputs.append(AxisFactor(rows, r1))
            self.inputs.append(AxisFactor(columns, r2))
            self.tasks.append(nn.Parameter(unit_rows(len(task_names), components)))

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:
        return rank_misfits(options["rank"], around.tasks)

    def matrices(self) -> list[Tensor]:
        found = []
        for core, outputs, inputs, tasks in zip(self.cores, self.outputs, self.inputs, self.tasks, strict=True):
            cores = (tasks @ core.flatten(0, 1).t()).view(-1, *core.shape[:2])  # (K, r1, r2)
            found.append(inputs.along_columns(outputs.along_rows(cores)))  # type: ignore[operator]
        return found

    def task_factors(self) -> list[nn.Parameter]:
        return list(self.tasks)

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        return self.report_factors(list(self.tasks), tasks)
