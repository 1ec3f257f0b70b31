"""Shared experts and experts of each task, in one level."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.sharing._extraction import Extraction
from mtl_cli.registry import SHARINGS
from mtl_cli.types import NonNegativeInt, PositiveInt


@SHARINGS.register("cgc")
class CustomizedGateControl(Extraction):
    """Customized gate control (Tang et al. 2020): a task's gate mixes its own experts with the shared ones.

    It is ``ple`` with one level; without own experts it is ``mmoe``.

    Args:
        make_encoder: Makes an expert.
        task_names: K names.
        own_experts: Encoders of each task alone.
        shared_experts: Encoders of all tasks.
        gate_hidden: Widths of ReLU layers in each gate; [] makes it linear, as in the paper.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = CustomizedGateControl(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        own_experts: NonNegativeInt = 1,
        shared_experts: PositiveInt = 1,
        gate_hidden: list[PositiveInt] = [],  # noqa: B006  read only; the literal documents the default
    ) -> None:
        super().__init__(
            make_encoder, task_names, levels=1, own=own_experts, common=shared_experts, gate_hidden=gate_hidden
        )
