"""The Jacobian (k, P) of the losses of k tasks: the gradients of several parameters, side by side in each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def write_row(gradients: Sequence[Tensor], row: Tensor) -> None:
    """Writes gradients into a row (P,); that of a table of embeddings may be sparse."""
    torch.cat([gradient.to_dense().flatten() for gradient in gradients], out=row)


def by_parameter(jacobian: Tensor, parameters: Sequence[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """The part (k, *shape) of the rows (k, P) that belongs to each parameter, a view."""
    parts = jacobian.split([p.numel() for p in parameters], 1)
    return {p: part.unflatten(1, p.shape) for p, part in zip(parameters, parts, strict=True)}
