"""Encoders of K tasks whose weight matrices are made from a few factors, most of them shared."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing._template import Template
from mtl_cli.model.sharing.base import Sharing, make_encoders
from mtl_cli.types import Inputs


class FactoredSharing(Sharing):
    """Every weight matrix of the K encoders comes from factors; their vectors (biases, scales) are each task's own.

    So is what the encoders come with frozen.

    A parameter with more axes than two counts as the matrix of its first axis by all others.

    A constructor makes its factors from what ``take_apart`` gives.

    Shape:
        Inputs of B rows -> (K, B, D).
    """

    def take_apart(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> list[Tensor]:
        """Makes K encoders, and keeps all of them but the weight matrices.

        Args:
            make_encoder: Makes the encoders whose initialisation the factors start from.
            task_names: K names.

        Returns:
            The matrices (K, out, in), for each of which ``matrices`` is to give one made from factors.

        Raises:
            ConfigError: There are none.
        """
        encoders: list[Encoder] = make_encoders(make_encoder, task_names)
        stack = type(encoders[0]).stack(encoders)
        named = {name: nn.Parameter(p.detach().clone(), p.requires_grad) for name, p in stack.named_parameters()}
        self.template = Template(encoders[0], stack, len(encoders))
        self._num_tasks = len(encoders)
        self._shapes = {name: value.shape for name, value in named.items() if value.dim() > 2 and value.requires_grad}
        self._vectors = [name for name in named if name not in self._shapes]
        self.vectors = nn.ParameterList(named[name] for name in self._vectors)
        if not self._shapes:
            what = "combines weight matrices, and this encoder trains none"
            raise ConfigError(Problem("sharing", what, "Use sharing=hard, or another encoder."))
        return [named[name].detach().flatten(2) for name in self._shapes]

    @abstractmethod
    def matrices(self) -> list[Tensor]:
        """The weights of all tasks, one (K, out, in) for each matrix of the encoder."""

    @abstractmethod
    def task_factors(self) -> list[nn.Parameter]:
        """Factors with one row (axis 0) for each task."""

    def forward(self, inputs: Inputs) -> Tensor:
        parameters: dict[str, Tensor] = dict(zip(self._vectors, self.vectors, strict=True))
        for (name, shape), weights in zip(self._shapes.items(), self.matrices(), strict=True):
            parameters[name] = weights.reshape(shape)
        features: Tensor = self.template(parameters, inputs)
        return features

    def owners(self) -> list[Ownership]:
        own = [*self.vectors, *self.task_factors()]
        common = [p for p in self.parameters() if all(p is not q for q in own)]
        return [*shared(common), *stacked(own, range(self._num_tasks))]

    def numbered(self) -> list[str]:
        return [*self._vectors, *self._shapes]

    def report_factors(self, factors: Sequence[Tensor], tasks: Sequence[str]) -> list[Finding]:
        """Each task's factors (K, R) by matrix, and how alike tasks are: mean absolute cosine of two tasks' factors."""
        alike = []
        for rows in factors:
            unit = nn.functional.normalize(rows.detach().float(), dim=1)
            cosines = (unit @ unit.t()).abs()
            pairs = max(self._num_tasks * (self._num_tasks - 1), 1)
            alike.append(float((cosines.sum() - cosines.diagonal().sum()) / pairs) if self._num_tasks > 1 else 1.0)
        strength = Finding(
            name="likeness-of-factors",
            title="how alike the factors of the tasks are in each weight matrix (mean absolute cosine)",
            meaning="1: all tasks have the same matrix but for its scale; 0: they use different components.",
            rows=list(self._shapes),
            columns=["likeness"],
            values=[[value] for value in alike],
        )
        each = [
            Finding(
                name=f"factors-{name}",
                title=f"factors of the tasks, {name}",
                meaning="How much of each shared component a task's matrix holds; tasks with like rows share it.",
                rows=tasks,
                columns=list(map(str, range(rows.shape[1]))),
                values=rows.tolist(),
            )
            for name, rows in zip(self._shapes, factors, strict=True)
        ]
        return [strength, *each]


def task_rank(rank: int | None, tasks: int) -> int:
    """The number of shared components: as given, or half of the tasks, rounded up.

    Raises:
        ConfigError: More than there are tasks: that shares nothing.
    """
    problems = rank_misfits(rank, tasks)
    if problems:
        raise ConfigError(problems)
    return rank or -(-tasks // 2)


def rank_misfits(rank: int | None, tasks: int | None) -> list[Problem]:
    """What is wrong with a number of shared components, as far as the number of tasks is known."""
    if rank is None or tasks is None or rank <= tasks:
        return []
    what = f"must be at most the number of tasks ({tasks}), got {rank}"
    return [Problem("sharing.rank", what, "A full rank shares nothing already; see sharing=separate.")]


def unit_rows(tasks: int, rank: int) -> Tensor:
    """Random positive rows (tasks, rank) of length 1: mixing independent matrices with them keeps their spread."""
    return nn.functional.normalize(torch.rand(tasks, rank) + 1e-3, dim=1)


_LONGEST = 8192


def axis_rank(width: int, share: float) -> int:
    """What a factor makes of an axis: ``share`` of its width, rounded up and at least 1; all of it without a factor."""
    return max(1, math.ceil(share * width)) if width <= _LONGEST else width


class AxisFactor(nn.Module):
    """The factor (width, rank) of an axis of a weight tensor, with orthonormal columns at the start.

    An axis of more than 8,192, that of the words in a table of embeddings say, is left whole and has none: the factor
    would be larger than all that it is to save.

    Args:
        width: Of the axis.
        rank: As ``axis_rank`` has it.
    """

    factor: nn.Parameter | None

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        whole = width > _LONGEST
        start = None if whole else nn.Parameter(torch.linalg.qr(torch.randn(width, rank))[0])
        self.register_parameter("factor", start)

    def along_rows(self, x: Tensor) -> Tensor:
        """(..., rank, columns) -> (..., width, columns)."""
        return x if self.factor is None else self.factor @ x

    def along_columns(self, x: Tensor) -> Tensor:
        """(..., rows, rank) -> (..., rows, width)."""
        return x if self.factor is None else x @ self.factor.t()
