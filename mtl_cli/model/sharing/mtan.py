"""A shared encoder that each task attends to, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.base import run_stages, stage_widths
from mtl_cli.model.layers import LayerNorm, Linear
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs


@SHARINGS.register("mtan")
class MultiTaskAttention(Sharing):
    """Multi-task attention network (Liu et al. 2019): each task masks the shared features of every stage.

    With p_l the output of stage l of the shared encoder, a_t = sigmoid(MLP([p_l ; f_t of l-1])) * p_l, and f_t of l is
    a linear layer with ReLU on a_t. The paper takes u_l from the middle of a block and p_l from its end; a stage has
    only an end. Where it has batch normalisation we have layer normalisation: a row's features depend on no other row.

    Args:
        make_encoder: Makes the encoder.
        task_names: K names.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = MultiTaskAttention(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> None:
        super().__init__()
        self._num_tasks = len(task_names)
        self.encoder = make_encoder()
        widths = stage_widths(self.encoder, make_encoder.shared_dim)
        self.attention = nn.ModuleList(
            _Attention(before, width, self._num_tasks) for before, width in zip([0, *widths], widths, strict=False)
        )

    def forward(self, inputs: Inputs) -> Tensor:
        own: Tensor | None = None

        def between(index: int, x: Tensor) -> Tensor:
            nonlocal own
            if own is not None and index == len(self.attention) - 1:
                own = self.encoder.placed(own, inputs)
            own = self.attention[index](x.expand(self._num_tasks, *x.shape), own)
            return x

        run_stages(self.encoder, len(self.attention), inputs, between)
        if own is None:
            raise RuntimeError("an encoder without stages")
        return own

    def owners(self) -> list[Ownership]:
        return [*shared(self.encoder.parameters()), *stacked(self.attention.parameters(), range(self._num_tasks))]


class _Attention(nn.Module):
    """Shared features (K, B, C, ...) and the task's of the stage before to the task's of this stage."""

    def __init__(self, before: int, width: int, tasks: int) -> None:
        super().__init__()
        self.squeeze, self.norm = Linear(before + width, width, tasks), LayerNorm(width, tasks)
        self.mask, self.block = Linear(width, width, tasks), Linear(width, width, tasks)

    def forward(self, x: Tensor, own: Tensor | None) -> Tensor:
        read = x if own is None else torch.cat([x, _resized(own, x.shape[3:])], 2)
        last = read.movedim(2, -1)  # channels last: the same layers at every position
        inner = torch.relu(self.norm(self.squeeze(last.flatten(1, -2))))
        attended = torch.sigmoid(self.mask(inner)) * x.movedim(2, -1).flatten(1, -2)
        return torch.relu(self.block(attended)).view(*last.shape[:-1], -1).movedim(-1, 2)


def _resized(x: Tensor, positions: Sequence[int]) -> Tensor:
    """(K, B, C, ...) averaged to as many positions as the next stage has."""
    if tuple(x.shape[3:]) == tuple(positions):
        return x
    if not positions:
        return x.flatten(3).mean(3)
    for axis, outputs in enumerate(positions, start=3):
        x = (x.movedim(axis, -1) @ _windows(x, x.shape[axis], outputs)).movedim(-1, axis)
    return x


def _windows(x: Tensor, inputs: int, outputs: int) -> Tensor:
    """Adaptive average pooling of an axis, as a product with (inputs, outputs): PyTorch's does not repeat on a GPU."""
    output, position = torch.arange(outputs, device=x.device), torch.arange(inputs, device=x.device).unsqueeze(1)
    start, end = output * inputs // outputs, -(-(output + 1) * inputs // outputs)
    return ((position >= start) & (position < end)).to(x.dtype) / (end - start)
