"""Towers of tasks that come one after another, each reading what the one before has found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.base import stack_with_common_tables
from mtl_cli.model.findings import Finding
from mtl_cli.model.gates import GateUse, Use, findings_of_rows, known_values, told_rows
from mtl_cli.model.layers import Linear, uniform
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Ordered, Sharing, make_encoders
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, NonNegative


@SHARINGS.register("aitm")
class AdaptiveInformationTransfer(Sharing):
    """Adaptive information transfer (Xi et al. 2021, AITM): a task attends to itself and to the task before it.

    For tasks each of which can only happen ``after`` another (click, then purchase). Embeddings are common, the layers
    above each task's own. With h_t what the tower of task t puts out and z the features of the task before,
    p = relu(W z + b), and the features of t are sum_u w_u V u over u in {h_t, p}, with weights w that are the softmax
    of <K u, Q u> / sqrt(D). A task without one before it has z = h. The calibrator adds ``calibrator`` *
    max(p_t - p_before, 0) to the loss of each row of t: a later step is to be the less likely.

    Towers of tasks are stacked into common parameters, which methods that balance gradients do not see: a tower that
    several tasks train gets the sum of their gradients.

    Args:
        make_encoder: Makes towers with their embeddings.
        task_names: K names.
        after: For each task the position of the one before it, or None; by default every task comes after the one
            named before it.
        calibrator: Weight of the calibrator.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = AdaptiveInformationTransfer(EncoderMaker(MLP, InputSpec(3), 8), ["click", "buy"], [None, 0])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    chain: ClassVar[str | None] = "after"

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        after: Sequence[int | None] | None = None,
        *,
        calibrator: NonNegative = 0.6,
    ) -> None:
        super().__init__()
        encoders = make_encoders(make_encoder, task_names)
        self._before = [None, *range(len(encoders) - 1)] if after is None else list(after)
        self._calibrator = calibrator
        self.encoders, self._tables = stack_with_common_tables(encoders)
        self._steps = _by_depth(self._before)
        self.transfers = nn.ModuleList(
            _Transfer(make_encoder.shared_dim, [task for task, _ in step]) for step in self._steps
        )

    def forward(self, inputs: Inputs) -> Tensor:
        features = list(self.encoders(inputs).unbind(0))
        for step, transfer in zip(self._steps, self.transfers, strict=True):
            before = torch.stack([features[earlier] for _, earlier in step])
            changed = transfer(torch.stack([features[task] for task, _ in step]), before)
            for (task, _), own in zip(step, changed, strict=True):
                features[task] = own
        return torch.stack(features)

    def features_from(self) -> nn.Module:
        return self.encoders

    def ordered(self) -> list[Ordered]:
        pairs = [pair for step in self._steps for pair in step] if self._calibrator else []
        return [Ordered(task, earlier, self._calibrator) for task, earlier in pairs]

    def owners(self) -> list[Ownership]:
        """A task that another comes after is trained by both."""
        return [owned._replace(task=None) if owned.task in self._before else owned for owned in self.rows_of_tasks()]

    def rows_of_tasks(self) -> list[Ownership]:
        towers = [p for p in self.encoders.parameters() if all(p is not table for table in self._tables)]
        owned = [*shared(self._tables), *stacked(towers, range(len(self._before)))]
        for step, transfer in zip(self._steps, self.transfers, strict=True):
            owned += stacked(transfer.parameters(), [task for task, _ in step])
        return owned

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        taken: list[list[float | None]] = [[None] * len(tasks) for _ in tasks]
        uses: list[Use] = []
        for task in range(len(tasks)):
            taken[task][task] = 1.0  # of its own, if it has no other
        for step, transfer in zip(self._steps, self.transfers, strict=True):
            use = transfer.use.seen()  # type: ignore[operator, union-attr]
            if use is None:
                return []
            uses.append(use)
            for (task, before), (own, passed) in zip(step, known_values(use.weights), strict=True):
                taken[task][task], taken[task][before] = own, passed
        told = told_rows(uses) if uses else ""
        return [
            Finding(
                name="taken-from-the-task-before",
                title=f"how much each task takes of its own tower and of the task before it{told}",
                meaning="Beside the diagonal: the mean weight of what the task before has found.",
                rows=tasks,
                columns=tasks,
                values=taken,
            ),
            *(findings_of_rows(uses, [tasks[task] for step in self._steps for task, _ in step]) if uses else []),
        ]


class _Transfer(nn.Module):
    """From tasks' own features and those of the tasks before them, (L, B, D) each, to features (L, B, D)."""

    def __init__(self, width: int, tasks: Sequence[int]) -> None:
        super().__init__()
        self.passed = Linear(width, width, len(tasks))
        # V, K, Q; no bias as the authors
        self.attention = nn.Parameter(uniform(len(tasks), width, 3 * width, inputs=width))
        self.use = GateUse(tasks, 2)

    def forward(self, own: Tensor, before: Tensor) -> Tensor:
        read = torch.cat([own, torch.relu(self.passed(before))], 1)  # (L, 2 B, D)
        values, keys, queries = (read @ self.attention).unflatten(1, (2, -1)).chunk(3, -1)  # (L, 2, B, D)
        weights = ((keys * queries).sum(-1, keepdim=True) / math.sqrt(own.shape[-1])).softmax(1)
        self.use(weights.squeeze(-1))
        mixed: Tensor = (weights * values).sum(1)
        return mixed


def _by_depth(before: Sequence[int | None]) -> list[list[tuple[int, int]]]:
    """Pairs of a task and the one before it, those that can be computed together in one list, in order."""
    depth: list[int] = []
    for task in range(len(before)):
        steps, place = 0, before[task]
        while place is not None:
            steps, place = steps + 1, before[place]
            if steps > len(before):
                raise ValueError(f"tasks come after one another in a circle: {list(before)}")
        depth.append(steps)
    deepest = max(depth, default=0)
    return [[(t, b) for t, b in enumerate(before) if b is not None and depth[t] == d] for d in range(1, deepest + 1)]
