"""A shared encoder with a small bottleneck of each task's own after every stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.layers import Linear, linear
from mtl_cli.model.sharing._adapted import AdaptedStages
from mtl_cli.registry import SHARINGS
from mtl_cli.types import PositiveInt


@SHARINGS.register("adapter")
class Adapters(AdaptedStages):
    """Adapters by task (Houlsby et al. 2019): after each stage, h becomes h + W_up relu(W_down h).

    W_up starts at 0: training starts from hard sharing.

    Args:
        make_encoder: Makes the encoder.
        task_names: K names.
        reduction: How many times narrower than the stage the bottleneck is (at least one unit wide).

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = Adapters(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"], reduction=4)
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str], *, reduction: PositiveInt = 16) -> None:
        super().__init__(make_encoder, task_names)
        self.own.extend(_Bottleneck(width, max(1, width // reduction), len(task_names)) for width in self.widths)

    def adapt(self, index: int, x: Tensor, tasks: Tensor | None) -> Tensor:
        added: Tensor = self.own[index](x, tasks)
        return added


class _Bottleneck(nn.Module):
    def __init__(self, width: int, inner: int, tasks: int) -> None:
        super().__init__()
        self.down, self.up = Linear(width, inner, tasks), Linear(inner, width, tasks)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, tasks: Tensor | None) -> Tensor:
        last = x.movedim(2, -1)  # channels last: a linear layer at every position
        down, up = (
            [p if tasks is None else p.index_select(0, tasks) for p in (layer.weight, layer.bias)]
            for layer in (self.down, self.up)
        )
        added = linear(torch.relu(linear(last.flatten(1, -2), *down)), *up)
        changed: Tensor = x + added.view(last.shape).movedim(-1, 2)
        return changed
