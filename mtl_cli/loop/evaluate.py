"""Metrics over a whole split."""

from __future__ import annotations

import importlib
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_cli.data.batches import Origins, Ranking, Rows
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.loop.step import Learner
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.gates import GateUse
from mtl_cli.registry import describe_component
from mtl_cli.tasks import Kind, Task, target_columns
from mtl_cli.tasks.ranking import ranking_metrics, ranking_scores
from mtl_cli.types import Inputs, InputSpec, Labels

EVALUATION_ROWS = 4096  # at a time; only the outputs of a split are held whole
EVALUATION_BLOCKS = 256  # the same for images and texts, whose features are many times larger than the rows


@dataclass(frozen=True)
class Evaluation:
    """What a model scores on a split.

    Args:
        tasks: Metrics of each task by name, its ``loss`` among them; None where a metric is not defined.
        primary: The primary metric's name for each task.
        auxiliary: Tasks that are trained for the others' sake: ``mean``, ``worst`` and ``undefined`` leave them out.
        loss: Sum of the tasks' losses, each times its task weight; None if one that has labels is not finite. (Not
            what a balancing method minimises.)
        mean: Mean of the primary metrics that are defined; None if there is none, or predictions have spoilt one: the
            mean of the others would be the better for it.
        worst: The lowest of them, or None in the same way.
        undefined: Tasks that ``mean`` leaves out, because their labels allow no primary metric.
        spoilt: Metrics, or ``loss``, that the labels of a task allow and its predictions do not: they overflow.
        by_source: Metrics of a task that several sources label, for the rows of each, by ``stars@books``. They are for
            reading: ``mean`` and the others are of whole tasks.
        curves: What a report draws of each task's predictions, if that was asked for.
    """

    tasks: Mapping[str, Mapping[str, float | None]]
    primary: Mapping[str, str]
    loss: float | None
    mean: float | None
    worst: float | None
    undefined: tuple[str, ...]
    spoilt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()
    by_source: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def diverged(self) -> tuple[str, ...]:
        """Tasks that have labels and a loss that is not finite."""
        return tuple(name for name, lacking in self.spoilt.items() if "loss" in lacking)

    @property
    def broken_down(self) -> tuple[str, ...]:
        """Tasks for want of whose primary metric, which their predictions have spoilt, there is no ``mean``."""
        return tuple(
            name
            for name, lacking in self.spoilt.items()
            if self.primary[name] in lacking and name not in self.auxiliary
        )

    def flat(self, split: str) -> dict[str, float | None]:
        """One mapping with keys ``val/income/auroc``, ``val/loss``, ``val/mean``, ``val/worst``."""
        values = {
            f"{split}/{task}/{name}": value
            for task, scores in {**self.tasks, **self.by_source}.items()
            for name, value in scores.items()
        }
        return {**values, f"{split}/loss": self.loss, f"{split}/mean": self.mean, f"{split}/worst": self.worst}


def predict(learner: Learner, rows: Rows, before_batch: Callable[[], None] = lambda: None) -> Tensor:
    """Outputs (O, positions) of all rows in order, batch by batch, on the CPU.

    Dropout is off and nothing is kept for a backward pass. Several processes divide the batches among them: the batches
    are those of one process, and so is every bit of the outputs.

    Args:
        learner: What predicts.
        rows: The rows.
        before_batch: Called before each batch, in all processes as often.
    """
    size = rows_at_once(rows.inputs)
    count = -(-len(rows) // size)
    first, last = learner.processes.own_part(0, count)
    uses = [module for module in learner.model.modules() if isinstance(module, GateUse)]
    units = ["tokens" if learner.objective.kinds[task].per_token else "rows" for task in learner.model.with_head]
    for use in uses:
        use.begin(units)
    most = -(-count // learner.processes.size)
    batches = _announced(_watched(learner, uses, islice(rows.in_order(size), first, last)), most, before_batch)
    if first < last:
        own = forward(learner.model, batches, learner.autocast)
    else:
        deque(batches, maxlen=0)
        own = torch.empty(sum(kind.num_outputs for kind in learner.objective.kinds), 0)
    if learner.processes.size > 1:
        for use in uses:
            use.add_up(learner.processes, learner.parameters.values.device)
    return learner.processes.joined(own, 1)[0]


def _watched(learner: Learner, uses: Sequence[GateUse], batches: Iterable[tuple[Inputs, Labels]]) -> Iterator[Inputs]:
    """The inputs of batches; what watches gates is told which rows have labels of which task."""
    for inputs, labels in batches:
        if uses:
            counted = learner.model.rows_of_heads(learner.objective.labelled(labels))
            for use in uses:
                use.count_only(counted)
        yield inputs
    for use in uses:
        use.count_only(None)


def _announced(batches: Iterable[Inputs], count: int, announce: Callable[[], None]) -> Iterator[Inputs]:
    """Batches, each of which is announced; where there are fewer than ``count``, those that lack are announced too."""
    for batch in batches:
        announce()
        count -= 1
        yield batch
    for _ in range(count):
        announce()


def forward(model: MultiTaskModel, batches: Iterable[Inputs], autocast: torch.dtype | None) -> Tensor:
    """Outputs (O, N) of one or more batches on the model's device, one after another, on the CPU."""
    training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for inputs in batches:
            mixed = nullcontext() if autocast is None else torch.autocast(inputs.numeric.device.type, autocast)
            with mixed:
                parts.append(model.outputs(inputs).float().cpu())
    model.train(training)
    return torch.cat(parts, 1)


def rows_at_once(read: Inputs | InputSpec) -> int:
    """How many rows of such inputs are evaluated together; the same number gives the same bits again."""
    return EVALUATION_BLOCKS if read.blocks else EVALUATION_ROWS


def evaluate(
    learner: Learner,
    rows: Rows,
    tasks: Sequence[Task],
    *,
    curves: bool = False,
    before_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Every metric of every task over all its labelled rows at once, never averaged over batches.

    Args:
        learner: What predicts.
        rows: The rows.
        tasks: The tasks of the learner.
        curves: Also what a report draws of the predictions.
        before_batch: See ``predict``.
    """
    labels = rows.labels_in_order(rows_at_once(rows.inputs))
    origins = rows.origins_of_positions(rows_at_once(rows.inputs))
    outputs = predict(learner, rows, before_batch)
    return score(outputs, labels, tasks, origins, rows.rankings, curves=curves)


def import_scorers(tasks: Sequence[Task]) -> None:
    """Imports what the scores of the tasks need, which ``evaluate`` would have to wait for the first time."""
    for module in {task.kind.scored_by for task in tasks} - {"", *sys.modules}:
        importlib.import_module(module)


def mean_losses(learner: Learner, rows: Rows, tasks: Sequence[Task]) -> dict[str, float | None]:
    """The loss of each task over all its labelled rows, as ``evaluate`` gives it, without any metric.

    Metrics load scikit-learn, which takes as long as a third of the start.
    """
    labels = rows.labels_in_order(rows_at_once(rows.inputs))
    found: dict[str, float | None] = {}
    for task, part in zip(tasks, _by_task(predict(learner, rows), labels, tasks), strict=True):
        loss = _mean_loss(task.kind, *part) if part.known.any() else math.nan
        found[task.name] = loss if math.isfinite(loss) else None
    return found


def score(
    outputs: Tensor,
    labels: Labels,
    tasks: Sequence[Task],
    origins: Origins,
    rankings: Mapping[int, Ranking] = MappingProxyType({}),
    *,
    curves: bool = False,
) -> Evaluation:
    """Every metric of every task, and of each source that labels it; of lists to rank, by the task's position, too.

    The loss is the mean by what the rows count, as in training; in metrics all rows count alike.

    Shape:
        outputs (O, N), labels of N positions; both on the CPU.
    """
    scores: dict[str, dict[str, float | None]] = {}
    by_source: dict[str, dict[str, float | None]] = {}
    primary: dict[str, str] = {}
    spoilt: dict[str, tuple[str, ...]] = {}
    drawn: dict[str, Mapping[str, object]] = {}
    codes = torch.from_numpy(origins.codes)
    parts = _by_task(outputs, labels, tasks)
    for position, (task, (own, targets, shares, known)) in enumerate(zip(tasks, parts, strict=True)):
        name, kind, ranking = task.name, task.kind, rankings.get(position)
        reported = kind.chosen or (*(() if ranking is None else ranking_metrics(ranking.k)), *kind.defined)
        primary[name] = reported[0]
        if not known.any():
            scores[name] = {"loss": None, **dict.fromkeys(reported)}
            continue
        scores[name] = _scores(kind, own, targets, shares, known, ranking, reported)
        if None in scores[name].values():
            lacking = [metric for metric, value in scores[name].items() if value is None]
            allowed = _scores(kind, _any_outputs(own), targets, shares, known, ranking, reported)
            if found := tuple(metric for metric in lacking if allowed[metric] is not None):
                spoilt[name] = found
        if curves and (shown := kind.curves(own[:, known].t(), targets[known])):
            drawn[name] = shown
        sources = [code for code in range(len(origins.names)) if (known & (codes == code)).any()]
        for code in sources if len(sources) > 1 else ():
            part = known & (codes == code)
            by_source[f"{name}@{origins.names[code]}"] = _scores(kind, own, targets, shares, part, ranking, reported)
    main = {task.name: scores[task.name][primary[task.name]] for task in tasks if not task.auxiliary}
    undefined = tuple(n for n, value in main.items() if value is None and primary[n] not in spoilt.get(n, ()))
    counted = _all_known([value for name, value in main.items() if name not in undefined])
    losses = _all_known(
        [
            None if (loss := scores[task.name]["loss"]) is None else task.weight * loss
            for task, part in zip(tasks, parts, strict=True)
            if part.known.any()
        ]
    )
    return Evaluation(
        scores,
        primary,
        sum(losses) if losses else None,
        sum(counted) / len(counted) if counted else None,
        min(counted) if counted else None,
        undefined,
        spoilt,
        tuple(task.name for task in tasks if task.auxiliary),
        by_source,
        drawn,
    )


def _scores(
    kind: Kind,
    outputs: Tensor,
    targets: Tensor,
    shares: Tensor | None,
    rows: Tensor,
    ranking: Ranking | None,
    reported: Sequence[str],
) -> dict[str, float | None]:
    """Loss and metrics of outputs (C, N) for the targets (N,) or (N, T) of some rows, none of them missing.

    None where not finite or not defined. The loss is the mean by the shares (N,).
    """
    loss = _mean_loss(kind, outputs, targets, shares, rows)
    outputs, targets = outputs[:, rows], targets[rows]
    if not bool(outputs.isfinite().all()):  # what is made of such numbers may look like a score
        return {"loss": loss if math.isfinite(loss) else None, **dict.fromkeys(reported)}
    measured = _measured(kind, outputs.t(), targets)
    if ranking is not None:
        measured |= ranking_scores(outputs[0].numpy(), targets.numpy(), ranking.groups[rows.numpy()], ranking.k)
    found = {"loss": loss, **{metric: measured[metric] for metric in reported}}
    return {key: v if v is not None and math.isfinite(v) else None for key, v in found.items()}


def _any_outputs(outputs: Tensor) -> Tensor:
    """Outputs (C, N) that differ from row to row and are all moderate: what they have no score by, no labels allow."""
    return torch.linspace(-1.0, 1.0, outputs.numel()).view(outputs.shape[1], outputs.shape[0]).t()


def _all_known(values: Sequence[float | None]) -> list[float]:
    """The values, or none of them if one is missing."""
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def _measured(kind: Kind, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
    """What a kind scores, as plain numbers.

    Raises:
        ConfigError: It is not a number, or None, for each of its metrics.
    """
    measured = kind.score(outputs, targets)
    if not isinstance(measured, dict):
        what = f"its score gives a {type(measured).__name__}, must be a dict of its metrics"
        raise ConfigError(Problem(describe_component(kind), what))
    for metric in kind.metrics:
        if metric not in measured:
            raise ConfigError(Problem(describe_component(kind), f"its score gives no '{metric}', got {list(measured)}"))
        value = measured[metric]
        if value is not None and not isinstance(value, int | float):
            what = f"its score gives a {type(value).__name__} as '{metric}', must be a number (float) or None"
            raise ConfigError(Problem(describe_component(kind), what))
    # A float of NumPy's is one of Python's, and yet none that a checkpoint holds.
    return {metric: None if (value := measured[metric]) is None else float(value) for metric in kind.metrics}


def _mean_loss(kind: Kind, outputs: Tensor, targets: Tensor, shares: Tensor | None, rows: Tensor) -> float:
    losses = kind.loss(outputs[:, rows].unsqueeze(0), targets[rows].t().unsqueeze(0)).squeeze(0).double()
    return float(losses.mean() if shares is None else (losses * shares[rows]).sum() / shares[rows].double().sum())


class _Part(NamedTuple):
    """What belongs to one task."""

    outputs: Tensor  # (C, N)
    targets: Tensor  # (N,) or (N, T)
    shares: Tensor | None  # (N,)
    known: Tensor  # (N,) bool


def _by_task(outputs: Tensor, labels: Labels, tasks: Sequence[Task]) -> list[_Part]:
    kinds = [task.kind for task in tasks]
    columns, parts = target_columns(kinds), outputs.split([kind.num_outputs for kind in kinds])
    found = []
    for position, kind in enumerate(kinds):
        targets = labels.targets[:, columns[position]]
        known = ~targets[:, 0].isnan()
        shares = None if labels.shares is None else labels.shares[:, position]
        found.append(_Part(parts[position], targets[:, 0] if kind.num_targets == 1 else targets, shares, known))
    return found
