"""A shared encoder whose channels each task scales and shifts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import Finding, numbered
from mtl_cli.model.sharing._adapted import AdaptedStages
from mtl_cli.registry import SHARINGS


@SHARINGS.register("film")
class FiLM(AdaptedStages):
    """Feature-wise linear modulation by task (Perez et al. 2018): after each stage, h becomes gamma_t * h + beta_t.

    Gamma starts at 1 and beta at 0: training starts from hard sharing.

    Args:
        make_encoder: Makes the encoder.
        task_names: K names.

    Shape:
        Inputs of B rows -> (K, B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import Inputs, InputSpec
        >>> sharing = FiLM(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> None:
        super().__init__(make_encoder, task_names)
        self.own.extend(_Modulation(len(task_names), width) for width in self.widths)

    def adapt(self, index: int, x: Tensor, tasks: Tensor | None) -> Tensor:
        modulated: Tensor = self.own[index](x, tasks)
        return modulated

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        gammas = [own.get_parameter("gamma").detach() - 1 for own in self.own]
        betas = [own.get_parameter("beta").detach() for own in self.own]
        meaning = "0: the task reads the stage as all tasks do; the larger, the more it has made it its own."
        return [
            Finding(
                name=f"{name}-moved",
                title=f"how far each task has moved the {what} of each stage from {start} ({name}, root mean square)",
                meaning=meaning,
                rows=tasks,
                columns=numbered("stage", len(moved)),
                values=torch.stack([one.square().mean(1).sqrt() for one in moved], 1).tolist(),
            )
            for name, what, start, moved in (("gamma", "scale", 1, gammas), ("beta", "shift", 0, betas))
        ]


class _Modulation(nn.Module):
    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(tasks, width))
        self.beta = nn.Parameter(torch.zeros(tasks, width))

    def forward(self, x: Tensor, tasks: Tensor | None) -> Tensor:
        gamma, beta = (p if tasks is None else p.index_select(0, tasks) for p in (self.gamma, self.beta))
        shape = (len(gamma), 1, -1) + (1,) * (x.dim() - 3)
        return torch.addcmul(beta.view(shape), gamma.view(shape), x)
