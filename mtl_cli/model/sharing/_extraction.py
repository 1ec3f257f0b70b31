"""What cgc and ple are made of: experts of each task and of all, in one or more levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.gates import GateInputs, Gates, findings_of_gates, mix
from mtl_cli.model.layers import Linear
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.types import Inputs


class Extraction(Sharing):
    """Levels of experts. In each, every task mixes its own experts with those that all tasks share.

    The first level's experts are encoders. An expert of a later level is a ReLU layer: a task's own experts read what
    that task mixed one level below, the shared ones read the shared mixture of *all* experts below. The last level
    gives no shared mixture.

    What a task's own experts find reaches all tasks through the shared mixture, except in the last level. So they are
    trained by all tasks, and count as shared, below it.

    Args:
        make_encoder: Makes an expert of the first level.
        task_names: K names.
        levels: Number of levels.
        own: Experts of each task in each level, m; may be 0.
        common: Experts of all tasks in each level, s, at least 1.
        gate_hidden: Widths of ReLU layers in each gate.

    Shape:
        Inputs of B rows -> (K, B, D).
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        levels: int,
        own: int,
        common: int,
        gate_hidden: Sequence[int],
    ) -> None:
        super().__init__()
        tasks, width = len(task_names), make_encoder.shared_dim
        self._num_tasks, self._num_own, self._num_common, self._levels = tasks, own, common, levels
        made = [make_encoder() for _ in range(common)]
        stack = type(made[0]).stack
        self.common = nn.ModuleList([stack(made)])
        self.own = nn.ModuleList([stack([make_encoder() for _ in range(tasks * own)])] if own else [])
        self.gate_inputs = GateInputs(make_encoder)
        widths = [self.gate_inputs.width] + [width] * (levels - 1)
        self.gates = nn.ModuleList(
            Gates(w, experts=own + common, tasks=range(tasks), hidden=gate_hidden) for w in widths
        )
        self.common_gates = nn.ModuleList(
            Gates(w, experts=tasks * own + common, tasks=[None], hidden=gate_hidden) for w in widths[:-1]
        )
        for _ in range(levels - 1):
            self.common.append(Linear(width, width, common))
            if own:
                self.own.append(Linear(width, width, tasks * own))

    def forward(self, inputs: Inputs) -> Tensor:
        read = self.gate_inputs(inputs)
        features, found = self._level(
            0, self.common[0](inputs), self.own[0](inputs) if self._num_own else None, read, read
        )
        for level in range(1, self._levels):
            below, task_below = found, features
            common = torch.relu(self.common[level](below))
            own = None
            if self._num_own:
                own = torch.relu(self.own[level](task_below.repeat_interleave(self._num_own, 0)))
            features, found = self._level(level, common, own, task_below, below)
        return features

    def _level(
        self, level: int, common: Tensor, own: Tensor | None, read: Tensor, common_read: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mixtures of each task (K, B, D) and of all experts (B, D), the latter empty in the last level."""
        gates = self.gates[level](read)  # (K, m + s, B), own experts first
        features = mix(gates[:, self._num_own :], common)
        if own is not None:
            theirs = own.unflatten(0, (self._num_tasks, self._num_own))
            features = features + (gates[:, : self._num_own].unsqueeze(-1) * theirs).sum(1)
        if level == self._levels - 1:
            return features, features.new_empty(0)
        everything = common if own is None else torch.cat([own, common])
        return features, mix(self.common_gates[level](common_read), everything)[0]

    def features_from(self) -> nn.Module:
        return self.common

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        experts = [*(f"own {i}" for i in range(self._num_own)), *(f"shared {i}" for i in range(self._num_common))]
        uses = [gates.use for gates in self.gates if isinstance(gates, Gates)]
        meaning = "A task relies on its own experts, or on those that it shares with all tasks."
        return findings_of_gates(uses, tasks, experts, meaning)

    def owners(self) -> list[Ownership]:
        tasks = range(self._num_tasks)
        common = [*self.common.parameters(), *self.gate_inputs.parameters(), *self.common_gates.parameters()]
        private: list[nn.Parameter] = []
        for level in range(self._levels):
            # A task's mixture feeds its own experts of the next level, and these the shared mixture there.
            (common if level < self._levels - 2 and self._num_own else private).extend(self.gates[level].parameters())
            if self._num_own:
                (common if level < self._levels - 1 else private).extend(self.own[level].parameters())
        return [*shared(common), *stacked(private, tasks)]
