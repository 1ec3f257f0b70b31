"""One encoder for each task: the single-task baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mtl_cli.model.backward import Backward, by_autograd, with_backward
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.ownership import Ownership, stacked
from mtl_cli.model.sharing.base import Sharing, make_encoders
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs


@SHARINGS.register("separate")
class SeparateModels(Sharing):
    """Nothing is shared: K single-task models, trained in one run on the same batches.

    This is what sharing is measured against. The K encoders are computed as one batched operation.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = SeparateModels(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    shares: ClassVar[bool] = False

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> None:
        super().__init__()
        encoders = make_encoders(make_encoder, task_names)
        self._num_tasks = len(encoders)
        self.encoders = type(encoders[0]).stack(encoders)

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.encoders(inputs)
        return features

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        if self._compiled_call_impl is not None:
            return by_autograd(self, inputs)
        return with_backward(self.encoders, inputs)

    def owners(self) -> list[Ownership]:
        return stacked(self.parameters(), range(self._num_tasks))
