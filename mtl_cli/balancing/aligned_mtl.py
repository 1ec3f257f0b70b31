"""Independent component alignment."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mtl_cli.balancing._solvers import NOISE
from mtl_cli.balancing.base import GramianBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, UpdateScale


@BALANCINGS.register("aligned_mtl")
class AlignedMTL(GramianBalancing):
    """Makes the gradients orthogonal and equally long, changing them as little as can be (Senushkin et al. 2023).

    With the Gramian M = V L V', the weights are B w with B = sqrt(l) V L^(-1/2) V' over the eigenvalues that are not 0,
    and w = 1/k. LibMTL has w = 1, TorchJD 1/k.

    Args:
        num_tasks: K.
        scale: l: the ``min`` of those eigenvalues, their ``median``, or their mean (``rmse``, as in the authors' code).
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Shape:
        gramian (k, k) -> weights (k,); the update is as long as a mean of orthogonal gradients of length sqrt(l).

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> AlignedMTL(2).aggregate(jacobian, torch.ones(2), torch.arange(2))[0]
        tensor([0.2133, 0.9673, 0.9673])
    """

    needs_shared: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        scale: Literal["min", "median", "rmse"] = "min",
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._scale = scale

    def combine(self, gramian: Tensor, losses: Tensor, tasks: Tensor) -> Tensor:  # noqa: ARG002
        values, vectors = np.linalg.eigh(gramian.numpy())
        kept = values > len(values) * NOISE * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        lower_median = values[(len(values) - 1) // 2]
        scale = {"min": values[0], "median": lower_median, "rmse": values.mean()}[self._scale]
        mean = np.full(len(gramian), 1 / len(gramian))
        return torch.from_numpy(vectors @ (np.sqrt(scale / values) * (vectors.T @ mean)))
