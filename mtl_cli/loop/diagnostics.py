"""How the gradients of the tasks relate: a look that leaves training as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing import GradientBalancing
from mtl_cli.data.batches import Epoch, Rows
from mtl_cli.loop.pieces import pieces
from mtl_cli.loop.step import Learner

_VALUES_AT_ONCE = 2**24  # of gradients, where only their lengths are asked for
_NOISE = float(np.finfo(np.float32).eps)  # of a Gramian of float32 gradients


class _Gramian(GradientBalancing):
    """Keeps the products of the gradients, and makes no update of them."""

    gramian: Tensor

    def direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, None]:  # noqa: ARG002
        self.gramian = (jacobian @ jacobian.t()).cpu().double()
        return torch.zeros_like(jacobian[0]), None


def look(learner: Learner, rows: Rows, epoch: Epoch, step: int, names: Sequence[str]) -> dict[str, Any]:
    """The gradients of the tasks on the shared parameters, for the batch of the step that comes next.

    They are those of each task's plain loss, the mean over its labelled rows: before task weights, ``loss_scale`` and
    balancing. Dropout draws what the step will draw. It costs a forward pass and the gradients of all tasks.

    Args:
        learner: What is trained, with shared parameters.
        rows: The training rows.
        epoch: The epoch's batches.
        step: Which of them, from 0.
        names: K task names.

    Returns:
        Flat, for the tasks with labels in the batch: ``norm/a``, ``loss/a``; for pairs ``cosine/a/b``,
        ``similarity/a/b`` (of lengths, 2 |a| |b| / (|a|^2 + |b|^2), 1 if equal) and, where labels are missing,
        ``overlap/a/b`` (rows with labels of both among those with a label of either); ``conflicting``, the share of
        pairs with a cosine below 0; ``condition``, the largest singular value of the gradients over the smallest. What
        is not defined (no second task, a zero gradient) is None.
    """
    counts = epoch.counts[step]
    present = np.flatnonzero(counts > 0)
    if not len(present):
        return {}
    gramian, losses = _gramian(learner, rows, epoch, step, present)
    tasks = [names[task] for task in present.tolist()]
    found: dict[str, Any] = {f"loss/{task}": loss for task, loss in zip(tasks, losses, strict=True)}
    return found | relations(tasks, gramian) | _overlaps(tasks, present, rows, epoch, step)


def gradient_norms(learner: Learner, rows: Rows, epoch: Epoch, step: int) -> tuple[Tensor, tuple[int, ...]]:
    """The lengths of the gradients on the shared parameters, of the batch of the step that comes next; as in ``look``.

    Returns:
        Those of the k tasks with labels in the batch (k,), in task order; the positions of the other tasks.
    """
    counts = epoch.counts[step]
    present = np.flatnonzero(counts > 0)
    width = sum(parameter.numel() for parameter in learner.parameters.shared)
    some = max(_VALUES_AT_ONCE // width, 1)
    squares = [np.zeros(0)]
    for first in range(0, len(present), some):
        gramian, _ = _gramian(learner, rows, epoch, step, present[first : first + some])
        squares.append(gramian.diagonal())
    return torch.from_numpy(np.sqrt(np.concatenate(squares))), tuple(np.flatnonzero(counts == 0).tolist())


def relations(tasks: Sequence[str], gramian: np.ndarray) -> dict[str, float | None]:
    """What the products of the tasks' gradients say; see ``look``.

    Args:
        tasks: k names.
        gramian: (k, k) float64, the products.

    Example:
        >>> found = relations(["a", "b"], np.array([[4.0, -2.0], [-2.0, 4.0]]))
        >>> found["norm/a"], found["cosine/a/b"], found["similarity/a/b"], found["conflicting"]
        (2.0, -0.5, 1.0, 1.0)
        >>> round(found["condition"], 4)
        1.7321
    """
    squares = gramian.diagonal()
    lengths = np.sqrt(squares)
    found: dict[str, float | None] = {f"norm/{task}": float(n) for task, n in zip(tasks, lengths, strict=True)}
    cosines = []
    for i, j in combinations(range(len(tasks)), 2):
        pair, known = f"{tasks[i]}/{tasks[j]}", lengths[i] > 0 and lengths[j] > 0
        cosine = float(np.clip(gramian[i, j] / (lengths[i] * lengths[j]), -1, 1)) if known else None
        found[f"cosine/{pair}"] = cosine
        found[f"similarity/{pair}"] = float(2 * lengths[i] * lengths[j] / (squares[i] + squares[j])) if known else None
        cosines += [] if cosine is None else [cosine]
    found["conflicting"] = sum(cosine < 0 for cosine in cosines) / len(cosines) if cosines else None
    values = np.linalg.eigvalsh(gramian) if len(tasks) > 1 and np.isfinite(gramian).all() else np.zeros(1)
    known = values[0] > len(tasks) * _NOISE * values[-1]  # a smaller one is the rounding of float32
    found["condition"] = float(np.sqrt(values[-1] / values[0])) if known else None
    return found


def _gramian(
    learner: Learner, rows: Rows, epoch: Epoch, step: int, present: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """Products (k, k) of the gradients of tasks with labels, by their positions (k,), and their losses."""
    scale = torch.zeros_like(epoch.scale[step])
    scale[present] = torch.from_numpy(1 / epoch.counts[step][present]).to(scale)
    tasks = torch.from_numpy(present).to(scale.device)
    looking = _Gramian()
    observer = replace(learner, balancing=looking)
    accumulator = observer.accumulator(tasks)
    with unchanged(learner):
        for piece in pieces(observer, rows, epoch, step):
            found = observer.losses(piece, scale, cut=accumulator.cut).only(tasks)
            accumulator.add(found)
        batch = accumulator.finish()
    return looking.gramian.numpy(), batch.losses.tolist()


def _overlaps(tasks: Sequence[str], present: np.ndarray, rows: Rows, epoch: Epoch, step: int) -> dict[str, float]:
    if rows.labelled is None:
        return {}
    start, stop = epoch.bounds[step]
    labelled = rows.labelled[epoch.order[start:stop].cpu().numpy()][:, present] > 0
    return {
        f"overlap/{tasks[i]}/{tasks[j]}": float(
            (labelled[:, i] & labelled[:, j]).sum() / (labelled[:, i] | labelled[:, j]).sum()
        )
        for i, j in combinations(range(len(tasks)), 2)
    }


@contextmanager
def unchanged(learner: Learner) -> Iterator[None]:
    """Generators and buffers of the model are afterwards what they were; gradients are 0, as before every step."""
    device = learner.parameters.values.device
    buffers = [(buffer, buffer.clone()) for buffer in learner.model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    learner.parameters.zero_gradient()
