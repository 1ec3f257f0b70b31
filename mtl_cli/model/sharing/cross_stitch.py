"""One encoder for each task, which read mixtures of each other's layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.base import run_stages, stage_widths
from mtl_cli.model.findings import Finding, mixing_by_stage
from mtl_cli.model.layers import near_identity
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing, make_encoders
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Fraction, Inputs


@SHARINGS.register("cross_stitch")
class CrossStitch(Sharing):
    """Cross-stitch networks (Misra et al. 2016): after each stage l, x_i becomes sum_j A^l_ij x_j.

    All encoders are shared in effect, since every task reads them; only the last mixture's row i serves task i alone.

    Args:
        make_encoder: Makes encoders.
        task_names: K names.
        alpha: A_ii at the start; the rest of 1 is divided among the other tasks. 1 starts as ``separate``.
        channel_wise: One A for each channel instead of one for all.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = CrossStitch(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        alpha: Fraction = 0.9,
        channel_wise: bool = False,
    ) -> None:
        super().__init__()
        encoders = make_encoders(make_encoder, task_names)
        widths = stage_widths(encoders[0], make_encoder.shared_dim)
        tasks = len(encoders)
        start = near_identity(tasks, alpha)
        self._num_tasks = tasks
        self.encoders = type(encoders[0]).stack(encoders)
        self.mixes = nn.ParameterList(  # A (K, K), or (K, K, channels)
            nn.Parameter(start.unsqueeze(2).repeat(1, 1, width) if channel_wise else start.clone()) for width in widths
        )

    def forward(self, inputs: Inputs) -> Tensor:
        return run_stages(self.encoders, len(self.mixes), inputs, self._mix)

    def _mix(self, index: int, x: Tensor) -> Tensor:
        mix = self.mixes[index]
        if mix.dim() == 3:
            return torch.einsum("ijc,jbc...->ibc...", mix, x)
        mixed: Tensor = (mix @ x.flatten(1)).view(x.shape)
        return mixed

    def owners(self) -> list[Ownership]:
        *inner, last = self.mixes
        return [*shared([*self.encoders.parameters(), *inner]), *stacked([last], range(self._num_tasks))]

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        means = [mix.mean(2) if mix.dim() == 3 else mix for mix in self.mixes]
        over = ", mean over channels" if self.mixes[0].dim() == 3 else ""
        meaning = "A row is what the task goes on with; beside the diagonal it comes from other tasks' encoders."
        return mixing_by_stage(
            tasks, means, title=f"what each task takes of the others, stage {{}}{over}", meaning=meaning
        )
