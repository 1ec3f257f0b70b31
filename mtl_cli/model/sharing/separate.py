"""One encoder for each task: the single-task baseline."""

from __future__ import annotations

from typing import ClassVar

from mtl_cli.model.sharing._copies import Copies
from mtl_cli.registry import SHARINGS


@SHARINGS.register("separate")
class SeparateModels(Copies):
    """Nothing is shared: K single-task models, trained in one run on the same batches.

    This is what sharing is measured against. The K encoders are computed as one batched operation, or, where that costs
    more, each on the rows that its task has labels for.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders import EncoderMaker
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = SeparateModels(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    shares: ClassVar[bool] = False
