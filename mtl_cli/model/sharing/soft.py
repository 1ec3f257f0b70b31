"""One encoder for each task, held together by a penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.sharing._copies import Copies
from mtl_cli.registry import SHARINGS
from mtl_cli.types import NonNegative


@SHARINGS.register("soft")
class SoftSharing(Copies):
    """Soft parameter sharing: K encoders, and a penalty on how much they differ.

    The penalty is ``strength`` times, with ``tie: l2``, sum_t |theta_t - mean|^2 (Evgeniou & Pontil 2004) or, with
    ``tie: trace_norm``, the sum of the singular values of [vec theta_1 ... vec theta_K] of each parameter (Yang &
    Hospedales 2017, 'Trace Norm Regularised Deep Multi-Task Learning'). Strength 0 is ``separate``; a large one is one
    model.

    Args:
        make_encoder: Makes encoders.
        task_names: K names.
        tie: l2 or trace_norm.
        strength: Weight of the penalty in the loss.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = SoftSharing(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    shares: ClassVar[bool] = False  # the penalty ties copies that are each trained by one task's loss

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        tie: Literal["l2", "trace_norm"] = "l2",
        strength: NonNegative = 0.01,
    ) -> None:
        super().__init__(make_encoder, task_names)
        self._trace_norm, self._strength = tie == "trace_norm", strength

    def penalty(self) -> Tensor | None:
        if not self._strength:
            return None
        stacks = [p.flatten(1) if p.dim() > 1 else p.unsqueeze(1) for p in self.encoders.parameters()]  # (K, values)
        if self._trace_norm:
            parts = [_TraceNorm.apply(stack) for stack in stacks]
        else:
            parts = [(stack - stack.mean(0)).square().sum() for stack in stacks]
        return self._strength * torch.stack(parts).sum()

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        rows = [p.detach().reshape(self._num_tasks, -1) for p in self.encoders.parameters()]
        flat = torch.cat(rows, 1).cpu().double()
        lengths = flat.norm(dim=1).clamp(min=1e-12)
        return [
            Finding(
                name="distance-of-encoders",
                title="distance of the tasks' encoders, relative to their lengths (geometric mean)",
                meaning="0: the tasks have the same encoder; 1.41: two encoders with nothing in common.",
                rows=tasks,
                columns=tasks,
                values=(torch.cdist(flat, flat) / (lengths[:, None] * lengths).sqrt()).tolist(),
            )
        ]


class _TraceNorm(torch.autograd.Function):
    """Sum of the singular values of a matrix with few rows, by way of the products of the rows.

    ``svdvals`` of three rows of 16,384 numbers takes twenty times as long. The derivative is (W W^T)^(-1/2) W.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        on_mps = matrix.device.type == "mps"  # where there is no double precision
        wide = (matrix.cpu() if on_mps else matrix).double()
        squares, vectors = torch.linalg.eigh(wide @ wide.t())
        lengths = squares.clamp_min(0).sqrt()
        known = lengths > 1e-7 * lengths[-1]  # of what has no length there is no direction
        inverse = torch.where(known, 1 / lengths.clamp_min(1e-300), 0.0)
        ctx.save_for_backward((vectors * inverse @ vectors.t()).to(matrix), matrix)
        norm: Tensor = lengths.sum().to(matrix)
        return norm

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Tensor:
        root, matrix = ctx.saved_tensors
        slope: Tensor = upstream[0] * (root @ matrix)
        return slope
