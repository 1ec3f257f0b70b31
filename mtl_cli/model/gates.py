"""Gates: how much of each expert a task gets, row by row."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_cli.model.backward import Backward, by_autograd, no_graph
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding, Label, numbered
from mtl_cli.model.layers import Linear, category_table, first_rows
from mtl_cli.processes import ProcessGroup
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
    """How K gates were used.

    Args:
        weights: (K, E), the mean weight of each expert; NaN for a gate without rows.
        entropy: (K,), the mean entropy of a gate in nats (0: one expert).
        rows: (K,) int64, of how many rows these are the means.
        units: What these rows are, K words: rows, or tokens.
    """

    weights: Tensor
    entropy: Tensor
    rows: Tensor
    units: tuple[str, ...]


class GateUse(nn.Module):
    """Watches gates while a model is evaluated; in training it costs nothing.

    A gate is watched on the rows of its own task, those that ``count_only`` names: what it makes of other rows, such as
    those of another source, nobody reads. Without it all rows count. What has been seen is forgotten when a new
    evaluation begins. It is no part of a checkpoint.

    Args:
        tasks: The position of the task of each of K gates; None: all tasks have that gate.
        experts: E.
        sparse: The gates are meant to choose few experts: that some are not used is worth no warning.

    Example:
        >>> use = GateUse([0, 1], 2).eval()
        >>> use.count_only(torch.tensor([[True, False], [True, True]]))
        >>> _ = use(torch.tensor([[[1.0, 0.5], [0.0, 0.5]], [[0.0, 0.5], [1.0, 0.5]]]))
        >>> use.seen().weights, use.seen().rows
        (tensor([[1.0000, 0.0000],
                [0.2500, 0.7500]], dtype=torch.float64), tensor([1, 2]))
    """

    def __init__(self, tasks: Sequence[int | None], experts: int, *, sparse: bool = False) -> None:
        super().__init__()
        self._tasks_of_gates, self._sparse = list(tasks), sparse
        self._shape = (len(self._tasks_of_gates), experts + 2)
        self._units = ("rows",) * len(self._tasks_of_gates)
        self._counted: Tensor | None = None  # (K, B), the rows of the batch that count
        self._sums: Tensor  # (K, E + 2), over the rows so far: of the weights and of the entropy, and the rows
        self._forget()

    def begin(self, units: Sequence[str]) -> None:
        """Begins anew, also where no rows may follow: other processes may have all of them.

        Args:
            units: What the rows of each task are: rows, or tokens.
        """
        of_gates = [units if task is None else [units[task]] for task in self._tasks_of_gates]
        self._units = tuple(" and ".join(dict.fromkeys(own)) for own in of_gates)
        self._forget()

    def count_only(self, rows: Tensor | None) -> None:
        """Says which rows of the batch that comes next count for each task, (number of tasks, B) bool; None: all."""
        if rows is not None and self._tasks_of_gates != list(range(len(rows))):
            rows = torch.stack([rows.any(0) if task is None else rows[task] for task in self._tasks_of_gates])
        self._counted = rows

    def train(self, mode: bool = True) -> GateUse:
        """Begins anew where training ends and an evaluation starts."""
        if self.training and not mode:
            self._forget()
        super().train(mode)
        return self

    def forward(self, gates: Tensor) -> Tensor:
        """Takes gates (K, E, B) of some rows and gives them back."""
        if not self.training:
            seen = gates.detach().float()
            entropy = -(seen * seen.clamp_min(1e-12).log()).sum(1, keepdim=True)
            # All of it is a tensor that stays on the device: a number would be compiled into what is compiled, anew for
            # every batch, and reading it would make the host wait.
            found = torch.cat([seen, entropy, torch.ones_like(entropy)], 1)  # (K, E + 2, B)
            if self._counted is not None:  # filled, not multiplied: what does not count may be anything
                found = found.masked_fill(~self._counted.unsqueeze(1), 0.0)
            sums = found.sum(2)
            wide = torch.float32 if sums.device.type == "mps" else torch.float64  # there is no more on that device
            self._sums = self._sums.to(sums.device, wide) + sums
        return gates

    def add_up(self, processes: ProcessGroup, device: torch.device) -> None:
        """Makes what each process has seen what all have seen."""
        sums = self._sums.to(device, copy=True)
        processes.add_up(sums)
        self._sums = sums

    def seen(self) -> Use | None:
        """How the gates were used in the last evaluation; None before the first."""
        sums = self._sums.cpu()
        rows = sums[:, -1:]
        if not rows.any():
            return None
        return Use(sums[:, :-2] / rows, sums[:, -2] / rows[:, 0], rows[:, 0].long(), self._units)

    def notes(self, experts: Sequence[Label]) -> list[str]:
        """What deserves a second look: experts that no task or every task uses, and gates that do not choose.

        It is logged as a warning too, unless the gates are meant to choose few experts.

        Args:
            experts: Names of the E experts.
        """
        use = self.seen()
        if use is None or len(experts) == 1:
            return []
        weights, entropy = use.weights[use.rows > 0], use.entropy[use.rows > 0]
        tasks, count = weights.shape
        named = [str(name) if isinstance(name, str) else " ".join(name) for name in experts]
        expert = int(weights.min(0).values.argmax())
        if bool((weights[:, expert] > COLLAPSED).all()):
            what = f"expert {named[expert]} gets more than {100 * COLLAPSED:g}% of every task"
            found = [f"gates collapsed: {what}; the other {count - 1} are of no use"]
            self._warn(found)
            return found
        found = []
        unused = (weights.max(0).values < UNUSED).nonzero().flatten().tolist()
        decided = int((entropy < DECIDED * math.log(count)).sum())
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
        tasks: The position of the task of each of K gates; None: all tasks have that gate.
        hidden: Widths of ReLU layers before the last one.

    Shape:
        (B, G) common to all tasks or (K, B, G) -> (K, E, B), positive, with sum 1 over E.

    Example:
        >>> Gates(3, experts=4, tasks=[0, 1])(torch.zeros(5, 3)).sum(1).shape
        torch.Size([2, 5])
    """

    def __init__(self, width: int, *, experts: int, tasks: Sequence[int | None], hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b, len(tasks)) for a, b in pairwise([width, *hidden]))
        self.last = Linear([width, *hidden][-1], experts, len(tasks))
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
        with no_graph():
            gates: Tensor = self(x)

        def backward(gradient: Tensor) -> None:
            with no_graph():
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
                title=", ".join(filter(None, ["mean weight of each expert", level])) + told_rows([use]),
                meaning=meaning,
                rows=tasks,
                columns=experts,
                values=known_values(use.weights),
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
            values=known_values(torch.stack([use.entropy for use in found], 1)),
        )
    )
    return [*findings, *findings_of_rows(found[:1], tasks)]  # those of all levels are the same


def told_rows(uses: Sequence[Use]) -> str:
    """Of how many rows some means are, for the end of a title; ``findings_of_rows`` has those that differ."""
    counts = _counts(uses)
    count, unit = counts[0]
    if len({*counts}) == 1:
        return f" ({count:,} {unit}{' of each task' if len(counts) > 1 else ''})"
    return f" (each task's own {' and '.join(sorted({unit for _, unit in counts}))})"


def findings_of_rows(uses: Sequence[Use], names: Sequence[str]) -> list[Finding]:
    """Of how many rows the means of each gate are, where they differ.

    Args:
        uses: How gates were used.
        names: Names of all these gates.
    """
    counts = _counts(uses)
    if len({*counts}) == 1:
        return []
    units = sorted({unit for _, unit in counts})
    return [
        Finding(
            name="gate-rows",
            title=f"number of {' and '.join(units)} that each task's gate was watched on",
            meaning="Those with a label of the task, or of a product that it is a factor of.",
            rows=names,
            columns=units,
            values=[[count if unit == own else None for unit in units] for count, own in counts],
        )
    ]


def known_values(values: Tensor) -> list[list[float | None]]:
    """The values (rows, columns), None for those of gates that no row counts for."""
    return [[None if math.isnan(value) else value for value in row] for row in values.tolist()]


def _counts(uses: Sequence[Use]) -> list[tuple[int, str]]:
    return [counted for use in uses for counted in zip(use.rows.tolist(), use.units, strict=True)]
