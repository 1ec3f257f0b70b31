"""An embedding table for each task and one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import TableEncoder
from mtl_cli.model.findings import Finding
from mtl_cli.model.gates import Gates, findings_of_gates, mix
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, PositiveInt, Surroundings


@SHARINGS.register("stem")
class SharedAndTaskEmbeddings(Sharing):
    """Shared and task-specific embeddings (Su et al. 2024, STEM): K + 1 tables of categories, each with an expert.

    A category may mean one thing for one task and another for the next, so every task has a table of its own beside
    the shared one. A task's gate reads the sum of its own and the shared embedded row and mixes *all* experts, but the
    experts of other tasks learn nothing from it: the gradient stops there.

    Args:
        make_encoder: Makes an expert with its table: ``encoder=mlp``.
        task_names: K names.
        gate_hidden: Widths of ReLU layers in each gate.

    Shape:
        Inputs of B rows -> (K, B, D).

    Raises:
        ConfigError: No input is a category, or the encoder has no table of them to copy, or copies that compute
            something else than its layers over what they read.

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = SharedAndTaskEmbeddings(EncoderMaker(MLP, InputSpec(3, (5,)), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        gate_hidden: list[PositiveInt] = [64],  # noqa: B006  read only; the literal documents the default
    ) -> None:
        super().__init__()
        self._num_tasks = len(task_names)
        common, own = [make_encoder()], [make_encoder() for _ in task_names]
        if not isinstance(common[0], TableEncoder):
            raise ConfigError(_nothing_to_embed("this encoder has no such table"))
        if not make_encoder.spec.categories:
            raise ConfigError(_nothing_to_embed("no input is a category"))
        self.common, self.own = _stack(common), _stack(own)
        self.gates = Gates(
            self.common.read_dim, experts=self._num_tasks + 1, tasks=range(self._num_tasks), hidden=gate_hidden
        )

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:  # noqa: ARG003
        if around.encoder is None or issubclass(around.encoder, TableEncoder):
            return []
        return [_nothing_to_embed(f"encoder={around.encoder_name} has no such table")]

    def forward(self, inputs: Inputs) -> Tensor:
        read, common_read = self.own.read(inputs), self.common.read(inputs)
        own, common = self.own.encode(read), self.common.encode(common_read)
        gates = self.gates(read + common_read)  # (K, K + 1, B), the tasks' experts first
        # Forward the mixture of all; backward only through the task's own expert and the shared one.
        of_tasks = gates[:, :-1]
        mine = of_tasks.diagonal(0, 0, 1).permute(1, 0).unsqueeze(-1)  # (K, B, 1): each task's weight of its own
        features: Tensor = mix(of_tasks, own.detach()) + mine * (own - own.detach()) + mix(gates[:, -1:], common)
        return features

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        meaning = "A column of a task is its own expert, which others read without teaching it."
        return findings_of_gates([self.gates.use], tasks, [*tasks, "shared"], meaning)

    def owners(self) -> list[Ownership]:
        private = [*self.own.parameters(), *self.gates.parameters()]
        return [*shared(self.common.parameters()), *stacked(private, range(self._num_tasks))]


def _nothing_to_embed(why: str) -> Problem:
    hint = "Use sharing=cgc: shared experts and experts of each task, for any inputs and any encoder."
    return Problem("sharing", f"'stem' gives each task embeddings of its own, and {why}", hint)


def _stack(experts: Sequence[Encoder]) -> TableEncoder:
    stack = type(experts[0]).stack(experts)
    if not isinstance(stack, TableEncoder) or type(stack).forward is not TableEncoder.forward:
        raise ConfigError(_nothing_to_embed("this encoder does not only run its layers over the table's rows"))
    return stack
