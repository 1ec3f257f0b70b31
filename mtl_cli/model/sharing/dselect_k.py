"""Shared experts, of which each task learns to use few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.gates import GateInputs, GateUse, findings_of_gates, logits, mix
from mtl_cli.model.layers import Linear
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, NonNegative, Positive, PositiveInt, Surroundings


@SHARINGS.register("dselect_k")
class DSelectK(Sharing):
    """DSelect-k (Hazimeh et al. 2021): shared experts, of which each task learns to use at most k.

    A task's gate is a convex combination of k selectors. A selector spells the number of an expert in ceil(log2 E)
    bits, each a smooth step of a learnt number: 0 or 1 outside of (-gamma/2, gamma/2), a cubic between. With all bits
    at 0 or 1, a selector is one expert. The regulariser pulls them there; if E is no power of two, it also keeps
    selectors off the numbers that no expert has.

    Args:
        make_encoder: Makes an expert.
        task_names: K names.
        experts: E, at least 2.
        k: Most experts that a task ends up with.
        gamma: Width of the smooth step.
        entropy: Weight of the regulariser: the entropy of the selectors.
        per_example: Gates read the row; else a task has one gate for all rows.

    Shape:
        Inputs of B rows -> (K, B, D).

    Raises:
        ConfigError: Fewer experts than k, or than 2.

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = DSelectK(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> rows = Inputs(torch.zeros(5, 3), torch.zeros(5, 0, dtype=torch.int64))
        >>> sharing(rows).shape, sharing.gates(rows).sum(1).allclose(torch.tensor(1.0))
        (torch.Size([2, 5, 8]), True)
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        experts: PositiveInt = 8,
        k: PositiveInt = 2,
        gamma: Positive = 1.0,
        entropy: NonNegative = 1e-6,
        per_example: bool = False,
    ) -> None:
        super().__init__()
        problems = _too_few(experts, k)
        if problems:
            raise ConfigError(problems)
        tasks, bits = len(task_names), (experts - 1).bit_length()
        made = [make_encoder() for _ in range(experts)]
        self.experts = type(made[0]).stack(made)
        self._shape, self._gamma, self._entropy = (tasks, k, bits), gamma, entropy
        code = torch.arange(experts).unsqueeze(1) >> torch.arange(bits) & 1
        self.code: Tensor  # (E, bits): the number of each expert
        self.register_buffer("code", code.bool(), persistent=False)
        self._whole = experts == 2**bits
        self._last: Inputs | None = None  # what the regulariser of per-example gates is computed on
        self.use = GateUse(range(tasks), experts, sparse=True)
        self.gate_inputs = GateInputs(make_encoder) if per_example else None
        if self.gate_inputs is not None:
            self.bits = Linear(self.gate_inputs.width, k * bits, tasks)
            self.mixture = Linear(self.gate_inputs.width, k, tasks)
            scales = [(self.bits, gamma / 100), (self.mixture, 0.05)]
            parameters = [(p, scale) for layer, scale in scales for p in layer.parameters()]
        else:
            self.static_bits = nn.Parameter(torch.empty(tasks, k * bits, 1))
            self.static_mixture = nn.Parameter(torch.empty(tasks, k, 1))
            parameters = [(self.static_bits, gamma / 100), (self.static_mixture, 0.05)]
        for parameter, scale in parameters:  # as the authors
            nn.init.uniform_(parameter, -scale, scale)

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:  # noqa: ARG003
        return _too_few(options["experts"], options["k"])

    def forward(self, inputs: Inputs) -> Tensor:
        experts = self.experts(inputs)
        if self.training and self.gate_inputs is not None:
            self._last = inputs
        return mix(self.use(self.gates(inputs).expand(-1, -1, experts.shape[1])), experts)

    def gates(self, inputs: Inputs) -> Tensor:
        """Weights of the experts, (K, E, B), or (K, E, 1) where they are the same for all rows."""
        selectors, mixture = self._selectors(inputs)
        return (mixture.softmax(1).unsqueeze(2) * selectors).sum(1)

    def penalty(self) -> Tensor | None:
        """Entropy of the selectors, and mass on numbers without an expert; per example, of the last batch."""
        if self._last is None and self.gate_inputs is not None:
            return None
        return self._regulariser(self._selectors(self._last)[0])

    def _selectors(self, inputs: Inputs | None) -> tuple[Tensor, Tensor]:
        """The selectors (K, k, E, B) and the logits of their mixture (K, k, B)."""
        if self.gate_inputs is not None:
            read = self.gate_inputs(inputs)
            spelt, mixture = logits(self.bits, read), logits(self.mixture, read)
        else:
            spelt, mixture = self.static_bits, self.static_mixture
        tasks, k, bits = self._shape
        steps = smooth_step(spelt.view(tasks, k, 1, bits, -1), self._gamma)
        return torch.where(self.code.unsqueeze(-1), steps, 1 - steps).prod(3), mixture

    def _regulariser(self, selectors: Tensor) -> Tensor:
        rows = selectors.shape[-1]
        found = self._entropy * -(selectors * (selectors + 1e-6).log()).sum() / rows
        return found if self._whole else found + (1 / selectors.sum(2)).sum() / rows

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        return findings_of_gates([self.use], tasks, list(map(str, range(len(self.code)))))

    def owners(self) -> list[Ownership]:
        common = list(self.experts.parameters())
        if self.gate_inputs is None:
            private = [self.static_bits, self.static_mixture]
        else:
            common += self.gate_inputs.parameters()
            private = [*self.bits.parameters(), *self.mixture.parameters()]
        return [*shared(common), *stacked(private, range(self._shape[0]))]


def _too_few(experts: int, k: int) -> list[Problem]:
    if max(k, 2) <= experts:
        return []
    what = f"must be at least 2 and at least sharing.k ({k}), got {experts}"
    more = f"Write sharing.k={experts}, or sharing.experts={k}."
    return [Problem("sharing.experts", what, "With one expert, use sharing=hard." if experts == 1 else more)]


def smooth_step(z: Tensor, gamma: float) -> Tensor:
    """0 up to -gamma/2, 1 from gamma/2 on, and between them -2 z^3/gamma^3 + 3 z/(2 gamma) + 1/2."""
    z = z.clamp(-gamma / 2, gamma / 2)
    return -2 / gamma**3 * z**3 + 3 / (2 * gamma) * z + 0.5
