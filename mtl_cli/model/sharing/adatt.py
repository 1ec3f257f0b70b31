"""Experts of each task, which all tasks may read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding, parts_of
from mtl_cli.model.gates import GateInputs, Gates, findings_of_gates, mix
from mtl_cli.model.layers import Linear
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, PositiveInt


@SHARINGS.register("adatt")
class AdaptiveTaskToTask(Sharing):
    """Adaptive task-to-task fusion (Li et al. 2023, AdaTT-sp): every gate reads the experts of all tasks.

    In each level a task gets the mixture of all experts by its gate, plus a learnt linear mixture of its own experts.
    Experts of the first level are encoders; later ones are ReLU layers that read what their task got one level below.
    As every task hears every expert, all experts count as shared; the gates of the last level belong to their tasks.

    Args:
        make_encoder: Makes an expert of the first level.
        task_names: K names.
        levels: Number of levels.
        own_experts: Experts of each task in each level, m.
        gate_hidden: Widths of ReLU layers in each gate; [] makes it linear, as in the paper.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = AdaptiveTaskToTask(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        levels: PositiveInt = 2,
        own_experts: PositiveInt = 1,
        gate_hidden: list[PositiveInt] = [],  # noqa: B006  read only; the literal documents the default
    ) -> None:
        super().__init__()
        tasks, width = len(task_names), make_encoder.shared_dim
        self._num_tasks, self._num_own = tasks, own_experts
        count = tasks * own_experts
        made = [make_encoder() for _ in range(count)]
        self.experts = nn.ModuleList([type(made[0]).stack(made)])
        self.experts.extend(Linear(width, width, count) for _ in range(levels - 1))
        self.gate_inputs = GateInputs(make_encoder)
        widths = [self.gate_inputs.width] + [width] * (levels - 1)
        self.gates = nn.ModuleList(Gates(w, experts=count, tasks=range(tasks), hidden=gate_hidden) for w in widths)
        self.residual = nn.ParameterList(  # (K, m): of a task's own experts, the mean at the start
            nn.Parameter(torch.full((tasks, own_experts), 1 / own_experts)) for _ in range(levels)
        )

    def forward(self, inputs: Inputs) -> Tensor:
        read: Tensor = self.gate_inputs(inputs)
        experts = self.experts[0](inputs)
        for level, gates in enumerate(self.gates):
            if level:
                experts = torch.relu(self.experts[level](read.repeat_interleave(self._num_own, 0)))
            own = experts.unflatten(0, (self._num_tasks, self._num_own))
            read = mix(gates(read), experts) + (self.residual[level][..., None, None] * own).sum(1)
        return read

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        uses = [gates.use for gates in self.gates if isinstance(gates, Gates)]
        meaning = "Beside the diagonal: what a task takes of the experts of others."
        return findings_of_gates(uses, tasks, parts_of(tasks, self._num_own), meaning)

    def owners(self) -> list[Ownership]:
        private = [*self.gates[-1].parameters(), self.residual[-1]]
        common = [*self.experts.parameters(), *self.gate_inputs.parameters()]
        common += [*self.gates[:-1].parameters(), *self.residual[:-1]]
        return [*shared(common), *stacked(private, range(self._num_tasks))]
