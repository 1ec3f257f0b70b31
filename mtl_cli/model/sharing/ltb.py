"""One branch for each task, which learns from which branch to grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.base import run_stages, stage_widths
from mtl_cli.model.findings import Finding, numbered
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing, make_encoders
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, NonNegativeInt, Positive, PositiveInt, Surroundings


@SHARINGS.register("ltb")
class LearningToBranch(Sharing):
    """Learning to branch (Guo et al. 2020): branch i reads one branch of the stage before, chosen by Gumbel-softmax.

    There are K branches at each stage; what task i reads of the last stage is chosen too. In the first steps all
    branches are read alike (their mean, so that the scale does not jump when choosing begins). Then a choice is drawn
    anew with every forward pass, at a temperature that falls as ``temperature / sqrt(1 + step / decay_steps)``; the
    paper counts epochs, an architecture sees steps. In an evaluation once choosing has begun it is the likeliest, and
    after ``search_steps`` what was the likeliest at their end: the paper trains the network that the search has found,
    and a network that changes with every batch learns slowly.

    Args:
        make_encoder: Makes branches.
        task_names: K names.
        temperature: Of the Gumbel-softmax, at the start.
        decay_steps: Steps after which it has fallen by a factor of sqrt(2).
        warmup_steps: Steps without a choice.
        search_steps: Steps until the branches stay as they are, those of the warm-up included, more than these; null:
            never.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = LearningToBranch(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        temperature: Positive = 1.0,
        decay_steps: PositiveInt = 100,
        warmup_steps: NonNegativeInt = 20,
        search_steps: PositiveInt | None = 300,
    ) -> None:
        super().__init__()
        problems = _no_search(warmup_steps, search_steps)
        if problems:
            raise ConfigError(problems)
        encoders = make_encoders(make_encoder, task_names)
        stages = len(stage_widths(encoders[0], make_encoder.shared_dim))
        self._num_tasks = tasks = len(encoders)
        self._temperature, self._decay_steps, self._warmup_steps = temperature, decay_steps, warmup_steps
        self._search_steps = math.inf if search_steps is None else search_steps
        self.encoders = type(encoders[0]).stack(encoders)
        # log-weights (K, K) of child i for parent j after each stage; equal at the start
        self.choices = nn.ParameterList(nn.Parameter(torch.zeros(tasks, tasks)) for _ in range(stages))
        self.steps: Tensor  # so far in training; never read by the host
        self.register_buffer("steps", torch.zeros((), dtype=torch.float32))
        # (stages, K): kept apart from the choices, which an optimizer with momentum moves on without a gradient
        self.settled: Tensor
        self.register_buffer("settled", torch.zeros(stages, tasks, dtype=torch.int64))

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:  # noqa: ARG003
        return _no_search(options["warmup_steps"], options["search_steps"])

    def forward(self, inputs: Inputs) -> Tensor:
        return run_stages(self.encoders, len(self.choices), inputs, self._grow)

    def after_step(self) -> None:
        self.settled.copy_(self._parents())
        self.steps += 1

    def _parents(self) -> Tensor:
        """(stages, K), the branch that each child reads: the likeliest, as long as the search goes on."""
        likeliest = torch.stack(list(self.choices)).argmax(2)
        return torch.where(self.steps < self._search_steps, likeliest, self.settled)

    def _grow(self, index: int, x: Tensor) -> Tensor:
        return (self._picked(index) @ x.flatten(1)).view(x.shape)

    def _picked(self, index: int) -> Tensor:
        choice = self.choices[index]
        found = functional.one_hot(self._parents()[index], self._num_tasks).to(choice.dtype)
        all_alike = choice.softmax(1) * 0 + 1 / self._num_tasks
        chosen = found
        if self.training:
            temperature = self._temperature / (1 + self.steps / self._decay_steps).sqrt()
            noise = -torch.empty_like(choice).exponential_().log()
            soft = ((choice.log_softmax(1) + noise) / temperature).softmax(1)
            drawn = functional.one_hot(soft.argmax(1), self._num_tasks).to(choice.dtype) + soft - soft.detach()
            chosen = torch.where(self.steps < self._search_steps, drawn, found)
        return torch.where(self.steps < self._warmup_steps, all_alike, chosen)

    def owners(self) -> list[Ownership]:
        *inner, last = self.choices
        return [*shared([*self.encoders.parameters(), *inner]), *stacked([last], range(self._num_tasks))]

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        branches = [f"branch {number}" for number in range(self._num_tasks)]
        stages = numbered("stage", len(self.choices))
        choices = []
        for index, (stage, choice) in enumerate(zip(stages, self.choices, strict=True)):
            last = index == len(stages) - 1
            choices.append(
                Finding(
                    name=f"choice-{stage.replace(' ', '-')}",
                    title=f"how likely each {'task' if last else f'branch of {stages[index + 1]}'} is to read each "
                    f"branch of {stage}",
                    meaning="A row is near 1 in one place where the search has come to a choice.",
                    rows=tasks if last else branches,
                    columns=branches,
                    values=choice.softmax(1).tolist(),
                )
            )
        if self.steps < self._warmup_steps:  # nothing was chosen yet
            return choices
        tree = Finding(
            name="branches",
            title="the branch of each stage that each task reads, by its number",
            meaning="Tasks with the same number in a column share that stage.",
            rows=tasks,
            columns=stages,
            values=self._branches(),
        )
        return [tree, *choices]

    def _branches(self) -> list[list[int]]:
        """For each task, the branch of each stage that it reads, found from the last stage back."""
        *inner, last = self._parents().tolist()
        paths = [[branch] for branch in last]
        for parents in reversed(inner):
            paths = [[parents[path[0]], *path] for path in paths]
        return paths


def _no_search(warmup_steps: int, search_steps: int | None) -> list[Problem]:
    if search_steps is None or search_steps > warmup_steps:
        return []
    what = f"must be more than sharing.warmup_steps ({warmup_steps}), or no branch is ever chosen, got {search_steps}"
    return [
        Problem("sharing.search_steps", what, f"Write sharing.warmup_steps={search_steps // 10}, or search longer.")
    ]
