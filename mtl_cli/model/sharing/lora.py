"""A shared encoder whose weights each task changes by a matrix of low rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.layers import uniform
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing._template import Template
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, Positive, PositiveInt


@SHARINGS.register("lora")
class LowRankAdaptation(Sharing):
    """Low-rank adaptation by task: W + (alpha / rank) B_t A_t for every weight matrix W of one shared encoder.

    ``variant: lora`` is Hu et al. 2022 with a pair (A_t, B_t) for each task; ``variant: mtl_lora`` is Yang et al. 2024:
    sum_i softmax(w_t / temperature)_i B^i Lambda_t A, where a task owns only w_t and Lambda_t. W itself is trained
    too. B starts at 0: training starts from hard sharing. A parameter with more axes than two counts as the matrix of
    its first axis by all others.

    Args:
        make_encoder: Makes the encoder.
        task_names: K names.
        variant: lora or mtl_lora.
        rank: Width between A and B.
        alpha: Scale; divided by the rank.
        up_projections: Number of shared B^i of mtl_lora.
        temperature: Of the softmax of mtl_lora.

    Shape:
        Inputs of B rows -> (K, B, D).

    Raises:
        ConfigError: The encoder has no weight matrix.

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = LowRankAdaptation(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"], rank=2)
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        variant: Literal["lora", "mtl_lora"] = "lora",
        rank: PositiveInt = 8,
        alpha: Positive = 8.0,
        up_projections: PositiveInt = 3,
        temperature: Positive = 1.0,
    ) -> None:
        super().__init__()
        encoder = make_encoder()
        self._num_tasks = tasks = len(task_names)
        self.base = type(encoder).stack([encoder])  # of one
        self.template = Template(encoder, type(encoder).stack([encoder]), tasks)
        self._matrices = [name for name, p in self.base.named_parameters() if p.dim() > 2]
        shapes = [self.base.get_parameter(name).flatten(2).shape[1:] for name in self._matrices]
        scale = alpha / rank
        self.changes = nn.ModuleList(
            _OwnChange(tasks, rows, columns, rank, scale)
            if variant == "lora"
            else _SharedChange(
                tasks, rows, columns, rank, scale, up_projections=up_projections, temperature=temperature
            )
            for rows, columns in shapes
        )
        if not shapes:
            what = "changes weight matrices, and this encoder has none"
            raise ConfigError(Problem("sharing", what, "Use sharing=film, or another encoder."))

    def forward(self, inputs: Inputs) -> Tensor:
        changes = dict(zip(self._matrices, self.changes, strict=True))
        parameters = {}
        for name, value in self.base.named_parameters():
            own = value.expand(self._num_tasks, *value.shape[1:])
            # layers view their weights as one long matrix, so that they must be laid out in full
            parameters[name] = own + changes[name]().view(own.shape) if name in changes else own.contiguous()
        features: Tensor = self.template(parameters, inputs)
        return features

    def owners(self) -> list[Ownership]:
        own = [p for change in self.changes for p in change.of_tasks()]  # type: ignore[operator]
        common = [p for p in self.parameters() if all(p is not q for q in own)]
        return [*shared(common), *stacked(own, range(self._num_tasks))]

    def numbered(self) -> list[str]:
        return self._matrices

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        found = []
        with torch.no_grad():
            for name, change in zip(self._matrices, self.changes, strict=True):
                length = self.base.get_parameter(name).norm().clamp(min=1e-12)
                found.append((change().flatten(1).norm(dim=1) / length).tolist())
        return [
            Finding(
                name="relative-change",
                title="length of each task's change of each weight matrix, relative to the matrix",
                meaning="0: the task uses the shared matrix as it is; the larger, the more it has made it its own.",
                rows=self._matrices,
                columns=tasks,
                values=found,
            )
        ]


class _OwnChange(nn.Module):
    """(alpha / rank) B_t A_t: (K, rows, columns)."""

    def __init__(self, tasks: int, rows: int, columns: int, rank: int, scale: float) -> None:
        super().__init__()
        self._scale = scale
        self.a = nn.Parameter(uniform(tasks, rank, columns, inputs=columns))
        self.b = nn.Parameter(torch.zeros(tasks, rows, rank))

    def of_tasks(self) -> list[nn.Parameter]:
        """What a task owns a row of."""
        return [self.a, self.b]

    def forward(self) -> Tensor:
        return self._scale * self.b @ self.a


class _SharedChange(nn.Module):
    """(alpha / rank) sum_i softmax(w_t / temperature)_i B^i Lambda_t A: (K, rows, columns)."""

    def __init__(
        self, tasks: int, rows: int, columns: int, rank: int, scale: float, *, up_projections: int, temperature: float
    ) -> None:
        super().__init__()
        self._scale, self._temperature = scale, temperature
        self.a = nn.Parameter(uniform(1, rank, columns, inputs=columns)[0])
        self.b = nn.Parameter(torch.zeros(up_projections, rows, rank))
        self.inner = nn.Parameter(torch.eye(rank).repeat(tasks, 1, 1))
        self.mix = nn.Parameter(torch.randn(tasks, up_projections))  # equal ones would keep all B^i equal for ever

    def of_tasks(self) -> list[nn.Parameter]:
        """What a task owns a row of."""
        return [self.mix, self.inner]

    def forward(self) -> Tensor:
        mix = (self.mix / self._temperature).softmax(1)
        up = (mix @ self.b.flatten(1)).view(-1, *self.b.shape[1:])
        return self._scale * up @ self.inner @ self.a
