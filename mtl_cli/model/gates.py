"""Gates: how much of each expert a task gets, row by row."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_cli.model.backward import Backward, by_autograd
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding, Label, numbered
from mtl_cli.model.layers import Linear, category_table, first_rows
from mtl_cli.processes import OneProcess
from mtl_cli.types import Inputs

log = logging.getLogger(__name__)
COLLAPSED = 0.95  # share of one expert, for every task, that is worth a warning
UNUSED = 0.01  # share of an expert, of every task at most, that is worth one
DECIDED = 0.01  # entropy of a gate, of the largest it can have, below which it has chosen one expert
_SHARED = "Tasks with much weight on the same expert share it."
EMBEDDING_DIM = 8  # numbers that stand for one category in what a gate reads


class GateInputs(nn.Module):
    """What gates read of the inputs: the numbers as they are, and an embedding of the categories.

    Where the inputs are more than numbers and categories (images, texts) the gates read the features of a small
    projection of their own: one more copy of the encoder, which knows how to read them.

    Args:
        make_encoder: Makes encoders of the inputs.

    Attributes:
        width: G, the width of what gates read.

    Shape:
        Inputs of B rows -> (B, G).
    """

    def __init__(self, make_encoder: EncoderMaker) -> None:
        super().__init__()
        spec = make_encoder.spec
        self.encoder = make_encoder() if spec.blocks else None
        if self.encoder is not None:
            self.width = make_encoder.shared_dim
            return
        self.width = spec.numeric_dim + len(spec.categories) * EMBEDDING_DIM
        if spec.categories:
            self.offsets: Tensor
            self.register_buffer("offsets", first_rows(spec.categories), persistent=False)
            self.embedding = category_table(spec.categories, EMBEDDING_DIM)

    def forward(self, inputs: Inputs) -> Tensor:
        if self.encoder is not None:
            features: Tensor = self.encoder(inputs)
            return features
        if not inputs.categorical.shape[1]:
            return inputs.numeric
        codes = inputs.categorical + self.offsets
        picked = self.embedding.index_select(0, codes.flatten()).view(codes.shape[0], -1)
        return torch.cat([inputs.numeric, picked], 1)


class Use(NamedTuple):
    """How gates were used.

    Args:
        weights: (K, E), the mean weight of each expert.
        entropy: (K,), the mean entropy of a gate in nats (0: one expert).
        rows: Number of rows that these are the means of.
    """

    weights: Tensor
    entropy: Tensor
    rows: int


class GateUse(nn.Module):
    """Watches gates while a model is evaluated; in training it costs nothing.

    What it has seen is forgotten when a new evaluation begins. It is no part of a checkpoint.

    Args:
        tasks: K.
        experts: E.
        sparse: The gates are meant to choose few experts: that some are not used is worth no warning.
    """

    def __init__(self, tasks: int, experts: int, *, sparse: bool = False) -> None:
        super().__init__()
        self._shape, self._sparse = (tasks, experts + 2), sparse
        self._sums: Tensor  # (K, E + 2), over the rows so far: of the weights and of the entropy, and the rows
        self._forget()

    def train(self, mode: bool = True) -> GateUse:
        """Begins anew where training ends and an evaluation starts."""
        if self.training and not mode:
            self._forget()
        super().train(mode)
        return self

    def forward(self, gates: Tensor) -> Tensor:
        """Takes gates (K, E, B) of some rows and gives them back."""
        if not self.training and not torch.compiler.is_exporting():
            seen = gates.detach().float()
            entropy = -(seen * seen.clamp_min(1e-12).log()).sum((1, 2))
            # All of it is a tensor that stays on the device: a number would be compiled into what is compiled, anew for
            # every batch, and reading it would make the host wait.
            rows = torch.full_like(entropy, seen.shape[2])
            sums = torch.stack([*seen.sum(2).unbind(1), entropy, rows], 1)
            wide = torch.float32 if sums.device.type == "mps" else torch.float64  # there is no more on that device
            self._sums = self._sums.to(sums.device, wide) + sums
        return gates

    def add_up(self, processes: OneProcess, device: torch.device) -> None:
        """Makes what each process has seen what all have seen."""
        sums = self._sums.to(device, copy=True)
        processes.add_up(sums)
        self._sums = sums

    def seen(self) -> Use | None:
        """How the gates were used in the last evaluation; None before the first."""
        sums = self._sums.cpu()
        rows = int(sums[0, -1])
        return Use(sums[:, :-2] / rows, sums[:, -2] / rows, rows) if rows else None

    def notes(self, experts: Sequence[Label]) -> list[str]:
        """What deserves a second look: experts that no task or every task uses, and gates that do not choose.

        It is logged as a warning too, unless the gates are meant to choose few experts.

        Args:
            experts: Names of the E experts.
        """
        use = self.seen()
        if use is None or len(experts) == 1:
            return []
        tasks, count = use.weights.shape
        named = [str(name) if isinstance(name, str) else " ".join(name) for name in experts]
        expert = int(use.weights.min(0).values.argmax())
        if bool((use.weights[:, expert] > COLLAPSED).all()):
            what = f"expert {named[expert]} gets more than {100 * COLLAPSED:g}% of every task"
            found = [f"gates collapsed: {what}; the other {count - 1} are of no use"]
            self._warn(found)
            return found
        found = []
        unused = (use.weights.max(0).values < UNUSED).nonzero().flatten().tolist()
        decided = int((use.entropy < DECIDED * math.log(count)).sum())
        if unused:
            which = ", ".join(named[expert] for expert in unused)
            found.append(f"experts without use: {which} of {count} get less than {100 * UNUSED:g}% of every task")
        if decided:
            found.append(f"gates without choice: those of {decided} of {tasks} tasks read one expert in every row")
        if not self._sparse:
            self._warn(found)
        return found

    def _warn(self, found: Sequence[str]) -> None:
        for text in found:
            log.warning("%s", text)

    def _forget(self) -> None:
        self._sums = torch.zeros(self._shape, dtype=torch.float64)


class Gates(nn.Module):
    """Softmax weights over E experts for each of K tasks, from one linear layer or a small network per task.

    Args:
        width: G, the width of what the gates read.
        experts: E.
        tasks: K.
        hidden: Widths of ReLU layers before the last one.

    Shape:
        (B, G) common to all tasks or (K, B, G) -> (K, E, B), positive, with sum 1 over E.

    Example:
        >>> Gates(3, experts=4, tasks=2)(torch.zeros(5, 3)).sum(1).shape
        torch.Size([2, 5])
    """

    def __init__(self, width: int, *, experts: int, tasks: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b, tasks) for a, b in pairwise([width, *hidden]))
        self.last = Linear([width, *hidden][-1], experts, tasks)
        self.use = GateUse(tasks, experts)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        gates: Tensor = self.use(logits(self.last, x).softmax(1))
        return gates

    def with_backward(self, x: Tensor) -> tuple[Tensor, Backward]:
        """Gates of what all tasks read, without a graph, and their backward pass; written out for linear gates."""
        weight, bias = self.last.weight, self.last.bias
        if len(self.layers) or x.requires_grad or not (weight.requires_grad and bias.requires_grad):
            return by_autograd(self, x)
        with torch.no_grad():
            gates: Tensor = self(x)

        def backward(gradient: Tensor) -> None:
            with torch.no_grad():
                by_weight, by_bias = weight.grad, bias.grad
                if by_weight is None or by_bias is None:
                    raise RuntimeError("parameters must have grad")
                slope = gates * gradient
                slope.addcmul_(gates, slope.sum(1, keepdim=True), value=-1)  # of softmax
                by_weight.view(-1, x.shape[1]).addmm_(slope.reshape(-1, len(x)), x)
                by_bias.add_(slope.sum(2))

        return gates, backward


def logits(layer: Linear, x: Tensor) -> Tensor:
    """Outputs of K layers as (K, outputs, B): a softmax over outputs then runs along contiguous rows."""
    weight, bias = layer.weight, layer.bias
    if x.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(2), weight, x.transpose(1, 2))
    flat = torch.addmm(bias.view(-1, 1), weight.view(-1, weight.shape[2]), x.t())
    return flat.view(*bias.shape, -1)


def mix(gates: Tensor, experts: Tensor) -> Tensor:
    """Sum of the experts weighted by each task's gate, one product per row.

    Shape:
        gates (K, E, B), experts (E, B, D) -> (K, B, D).
    """
    by_row = gates.permute(2, 0, 1).contiguous()  # a strided left factor makes the product ten times slower
    return torch.bmm(by_row, experts.transpose(0, 1)).transpose(0, 1)


def findings_of_gates(
    uses: Sequence[GateUse], tasks: Sequence[str], experts: Sequence[Label], meaning: str = _SHARED
) -> list[Finding]:
    """How much of each expert the tasks take, level by level, and how sure their gates are.

    Args:
        uses: What has watched the gates of each level.
        tasks: K names.
        experts: Names of the E experts of a level.
        meaning: What a reader learns from the weights.
    """
    seen = [use.seen() for use in uses]
    found = [use for use in seen if use is not None]
    if len(found) < len(uses):
        return []
    levels = numbered("level", len(uses)) if len(uses) > 1 else [""]
    findings = []
    for level, watched, use in zip(levels, uses, found, strict=True):
        findings.append(
            Finding(
                name="-".join(["expert-use", *level.split()]),
                title=", ".join(filter(None, ["mean weight of each expert", level])) + f" ({use.rows:,} rows)",
                meaning=meaning,
                rows=tasks,
                columns=experts,
                values=use.weights.tolist(),
                notes=watched.notes(experts),
            )
        )
    most = math.log(len(experts))
    findings.append(
        Finding(
            name="gate-entropy",
            title="mean entropy of each task's gate, in nats",
            meaning=f"0: one expert for a row; {most:.2f}: all {len(experts)} alike.",
            rows=tasks,
            columns=[level or "entropy" for level in levels],
            values=torch.stack([use.entropy for use in found], 1).tolist(),
        )
    )
    return findings
