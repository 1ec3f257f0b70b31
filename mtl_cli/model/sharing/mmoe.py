"""Several shared encoders, mixed for each task by a gate of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_cli.model.backward import Backward, by_autograd, no_graph, with_backward
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.gates import GateInputs, Gates, findings_of_gates, mix
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, PositiveInt


@SHARINGS.register("mmoe")
class MultiGateMixtureOfExperts(Sharing):
    """Multi-gate mixture of experts (Ma et al. 2018): y_t = h_t(sum_k softmax(W_t x)_k e_k(x)).

    The experts are encoders and belong to all tasks; a gate belongs to its task. A task's tower is its head
    (``tasks.NAME.hidden``). Gates read the numbers and an embedding of the categories.

    Args:
        make_encoder: Makes an expert, each with its own initialisation.
        task_names: K names.
        experts: E, the number of experts; 1 is hard sharing.
        one_gate: One gate for all tasks, which then read the same features (OMoE of the same paper).
        gate_hidden: Widths of ReLU layers in each gate; [] makes it linear, as in the paper.

    Shape:
        Inputs of B rows -> (K, B, D), with ``one_gate`` (B, D).

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = MultiGateMixtureOfExperts(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"], experts=4)
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        experts: PositiveInt = 8,
        one_gate: bool = False,
        gate_hidden: list[PositiveInt] = [],  # noqa: B006  read only; the literal documents the default
    ) -> None:
        super().__init__()
        made = [make_encoder() for _ in range(experts)]
        self.experts = type(made[0]).stack(made)
        self.gate_inputs = GateInputs(make_encoder)
        self._gates_of: list[int | None] = [None] if one_gate else [*range(len(task_names))]
        self.gates = Gates(self.gate_inputs.width, experts=experts, tasks=self._gates_of, hidden=gate_hidden)

    def forward(self, inputs: Inputs) -> Tensor:
        mixed = mix(self.gates(self.gate_inputs(inputs)), self.experts(inputs))
        return mixed[0] if self._gates_of == [None] else mixed

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        """The experts, the gates and their mixture written out."""
        if self._compiled_call_impl is not None:
            return by_autograd(self, inputs)
        gates, into_gates = self.gates.with_backward(self.gate_inputs(inputs))
        experts, into_experts = with_backward(self.experts, inputs)
        by_row, rows = gates.permute(2, 0, 1).contiguous(), experts.transpose(0, 1)  # (B, K, E), (B, E, D)
        one_gate = self._gates_of == [None]
        mixed = torch.bmm(by_row, rows).transpose(0, 1)

        def backward(gradient: Tensor) -> None:
            with no_graph():
                of_row = (gradient.unsqueeze(0) if one_gate else gradient).transpose(0, 1).contiguous()  # (B, K, D)
                into_gates(torch.bmm(of_row, rows.transpose(1, 2)).permute(1, 2, 0))
                into_experts(torch.bmm(by_row.transpose(1, 2), of_row).transpose(0, 1))

        return mixed[0] if one_gate else mixed, backward

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        of = ["all tasks"] if self._gates_of == [None] else tasks
        return findings_of_gates([self.gates.use], of, list(map(str, range(self.gates.last.bias.shape[1]))))

    def owners(self) -> list[Ownership]:
        common = [*self.experts.parameters(), *self.gate_inputs.parameters()]
        return [*shared(common), *stacked(self.gates.parameters(), self._gates_of)]
