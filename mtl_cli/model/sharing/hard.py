"""One encoder for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mtl_cli.model.backward import Backward, Jacobian, by_autograd, with_backward
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs


@SHARINGS.register("hard")
class HardSharing(Sharing):
    """Shared feature extraction: every head reads the same features (Caruana 1997, 'Multitask Learning').

    Shape:
        Inputs of B rows -> (B, D).

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = HardSharing(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 8])
    """

    common_features: ClassVar[bool] = True

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> None:  # noqa: ARG002  any number of tasks
        super().__init__()
        self.encoder = make_encoder()

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.encoder(inputs)
        return features

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        if self._compiled_call_impl is not None:
            return by_autograd(self, inputs)
        return with_backward(self.encoder, inputs)

    def with_jacobian(self, inputs: Inputs) -> tuple[Tensor, Backward, Jacobian] | None:
        own = getattr(self.encoder, "with_jacobian", None)  # a subclass may have put any module in its place
        return None if own is None or self._compiled_call_impl is not None else own(inputs)
