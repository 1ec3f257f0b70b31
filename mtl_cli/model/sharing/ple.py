"""Levels of shared experts and experts of each task."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.sharing._extraction import Extraction
from mtl_cli.registry import SHARINGS
from mtl_cli.types import NonNegativeInt, PositiveInt


@SHARINGS.register("ple")
class ProgressiveLayeredExtraction(Extraction):
    """Progressive layered extraction (Tang et al. 2020): customized gate control in several levels.

    The shared experts of a level read a mixture of all experts one level below, a task's own experts what that task
    mixed there. Experts above the first level are single ReLU layers of width D.

    Args:
        make_encoder: Makes an expert of the first level.
        task_names: K names.
        levels: Number of levels; 1 is ``cgc``.
        own_experts: Experts of each task alone, in each level.
        shared_experts: Experts of all tasks, in each level.
        gate_hidden: Widths of ReLU layers in each gate; [] makes it linear, as in the paper.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = ProgressiveLayeredExtraction(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        levels: PositiveInt = 2,
        own_experts: NonNegativeInt = 1,
        shared_experts: PositiveInt = 1,
        gate_hidden: list[PositiveInt] = [],  # noqa: B006  read only; the literal documents the default
    ) -> None:
        super().__init__(
            make_encoder, task_names, levels=levels, own=own_experts, common=shared_experts, gate_hidden=gate_hidden
        )
