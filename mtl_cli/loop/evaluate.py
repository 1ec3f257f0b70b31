"""Metrics over a whole split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_cli.data.batches import Rows
from mtl_cli.loop.step import Learner
from mtl_cli.tasks import Kind

EVALUATION_ROWS = 4096  # at a time; only the outputs of a split are held whole


@dataclass(frozen=True)
class Evaluation:
    """What a model scores on a split.

    Args:
        tasks: Metrics of each task by name, its ``loss`` among them; None where a metric is not defined.
        primary: The primary metric's name for each task.
        loss: Sum of the tasks' losses, each times its task weight. (Not what a balancing method minimises.)
        mean: Mean of the primary metrics that are defined, or None.
        worst: The lowest of them, or None.
        undefined: Tasks that ``mean`` leaves out.
        diverged: Tasks that have labels and a loss that is not finite.
    """

    tasks: Mapping[str, Mapping[str, float | None]]
    primary: Mapping[str, str]
    loss: float | None
    mean: float | None
    worst: float | None
    undefined: tuple[str, ...]
    diverged: tuple[str, ...] = ()

    def flat(self, split: str) -> dict[str, float | None]:
        """One mapping with keys ``val/income/auroc``, ``val/loss``, ``val/mean``, ``val/worst``."""
        values = {
            f"{split}/{task}/{name}": value for task, scores in self.tasks.items() for name, value in scores.items()
        }
        return {**values, f"{split}/loss": self.loss, f"{split}/mean": self.mean, f"{split}/worst": self.worst}


def predict(learner: Learner, rows: Rows) -> Tensor:
    """Outputs (O, N) of all rows in order, on the CPU; dropout is off and nothing is kept for a backward pass."""
    training = learner.model.training
    learner.model.eval()
    with torch.inference_mode(), learner.precision():
        parts = [learner.model.outputs(inputs).float().cpu() for inputs, _ in rows.in_order(EVALUATION_ROWS)]
    learner.model.train(training)
    return torch.cat(parts, 1)


def evaluate(
    learner: Learner, rows: Rows, names: Sequence[str], kinds: Sequence[Kind], weights: Sequence[float]
) -> Evaluation:
    """Every metric of every task over all its labelled rows at once, never averaged over batches."""
    outputs, targets = predict(learner, rows), rows.targets.cpu()
    scores: dict[str, dict[str, float | None]] = {}
    diverged = []
    for task, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        own = outputs.split([k.num_outputs for k in kinds])[task]
        known = ~targets[:, task].isnan()
        if not known.any():
            scores[name] = {"loss": None, **dict.fromkeys(kind.metrics)}
            continue
        labels, own = targets[known, task], own[:, known]
        loss = float(kind.loss(own.unsqueeze(0), labels.unsqueeze(0)).double().mean())
        if not math.isfinite(loss):
            diverged.append(name)
        found = {"loss": loss, **kind.score(own.t(), labels)}
        scores[name] = {key: v if v is not None and math.isfinite(v) else None for key, v in found.items()}
    primary = {name: next(iter(kind.metrics)) for name, kind in zip(names, kinds, strict=True)}
    main = {name: scores[name][primary[name]] for name in names}
    defined = [value for value in main.values() if value is not None]
    losses = [scores[name]["loss"] for name in names]
    known_losses = [w * loss for w, loss in zip(weights, losses, strict=True) if loss is not None]
    return Evaluation(
        scores,
        primary,
        sum(known_losses) if known_losses else None,
        sum(defined) / len(defined) if defined else None,
        min(defined) if defined else None,
        tuple(name for name, value in main.items() if value is None),
        tuple(diverged),
    )
