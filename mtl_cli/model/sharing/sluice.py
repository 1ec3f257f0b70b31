"""One encoder for each task, whose layers' subspaces read each other, and features from all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.base import known_widths, run_stages, stage_widths
from mtl_cli.model.findings import Finding, mixing_by_stage, numbered, parts_of
from mtl_cli.model.layers import Linear, near_identity
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing, layers_of, make_encoders
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Fraction, Inputs, NonNegative, PositiveInt, Surroundings


@SHARINGS.register("sluice")
class SluiceNetwork(Sharing):
    """Sluice networks (Ruder et al. 2019): cross-stitch between subspaces of layers, and a mixture of all layers.

    The channels of each stage are S subspaces side by side. After stage l, subspace i of the K * S that the tasks have
    becomes sum_j A^l_ij x_j. A task's features are sum_l beta_l h^l over its stages. The penalty ``orthogonality`` *
    sum |G_1^T G_2|_F^2, over all pairs of subspaces of the weight of every layer, keeps subspaces from learning the
    same. Layers are what may have a bias for each output; embeddings have no subspaces of outputs.

    The paper's layers are all equally wide. A stage of another width than the features, or one that has positions,
    joins the mixture through its mean over the positions and a linear layer of the task's own.

    Args:
        make_encoder: Makes encoders.
        task_names: K names.
        subspaces: S; 1 is cross_stitch with a mixture of layers.
        alpha: A_ii at the start; the rest of 1 is divided among the other subspaces. 1 / (K * S) is the paper's
            ``balanced``.
        beta: beta of the last stage at the start; the rest of 1 is divided among the others.
        orthogonality: Weight of the penalty in the loss.

    Shape:
        Inputs of B rows -> (K, B, D).

    Raises:
        ConfigError: A stage's width cannot be divided into the subspaces.

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = SluiceNetwork(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],
        *,
        subspaces: PositiveInt = 2,
        alpha: Fraction = 0.9,
        beta: Fraction = 0.9,
        orthogonality: NonNegative = 0.1,
    ) -> None:
        super().__init__()
        encoders = make_encoders(make_encoder, task_names)
        widths = stage_widths(encoders[0], make_encoder.shared_dim)
        problems = _undivided(subspaces, widths)
        if problems:
            raise ConfigError(problems)
        tasks = len(encoders)
        self._num_tasks, self._subspaces, self._orthogonality = tasks, subspaces, orthogonality
        self.encoders = type(encoders[0]).stack(encoders)
        self._matrices = _weights_with_outputs(self.encoders)
        self.mixes = nn.ParameterList(nn.Parameter(near_identity(tasks * subspaces, alpha)) for _ in widths)  # A
        last = torch.full((len(widths),), (1 - beta) / max(len(widths) - 1, 1))
        last[-1] = beta if len(widths) > 1 else 1.0
        self.betas = nn.Parameter(last.repeat(tasks, 1))  # (K, stages)
        self.carry = nn.ModuleList(  # from a stage of another width to the features
            nn.Identity() if width == widths[-1] else Linear(width, widths[-1], tasks) for width in widths[:-1]
        )

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:
        widths = [] if around.shared_dim is None else [around.shared_dim]
        if around.encoder is not None:
            widths += known_widths(around.encoder, around.encoder_options)
        return _undivided(options["subspaces"], widths)

    def forward(self, inputs: Inputs) -> Tensor:
        found: list[Tensor] = []

        def between(index: int, x: Tensor) -> Tensor:
            found.append(self._mix(index, x))
            return found[-1]

        run_stages(self.encoders, len(self.mixes), inputs, between)
        *inner, features = found
        features = self.betas[:, -1, None, None] * features
        for index, (x, carry) in enumerate(zip(inner, self.carry, strict=True)):
            rows: Tensor = self.encoders.placed(x, inputs) if x.dim() == 3 else x.flatten(3).mean(3)  # type: ignore[operator]
            features = features + self.betas[:, index, None, None] * carry(rows)
        return features

    def _mix(self, index: int, x: Tensor) -> Tensor:
        """Every subspace of x (K, B, channels, ...) from all of them."""
        apart = x.unflatten(2, (self._subspaces, -1)).transpose(1, 2)  # (K, S, B, channels / S, ...)
        mixed: Tensor = (self.mixes[index] @ apart.flatten(2).flatten(0, 1)).view(apart.shape)
        return mixed.transpose(1, 2).flatten(2, 3)

    def penalty(self) -> Tensor | None:
        if not self._orthogonality or self._subspaces == 1:
            return None
        found = []
        for name in self._matrices:
            weight = self.encoders.get_parameter(name).flatten(2)  # (K, out, in): G of all subspaces, transposed
            if weight.shape[1] % self._subspaces == 0:
                products = (weight @ weight.transpose(1, 2)).square()
                own = products.unflatten(1, (self._subspaces, -1)).unflatten(3, (self._subspaces, -1))
                found.append(products.sum() - own.diagonal(0, 1, 3).sum())  # each pair of subspaces stands there twice
        return self._orthogonality * torch.stack(found).sum() / 2 if found else None

    def owners(self) -> list[Ownership]:
        *inner, last = self.mixes
        common = [*self.encoders.parameters(), *inner]
        return [*shared(common), *stacked([last, self.betas, *self.carry.parameters()], range(self._num_tasks))]

    def report(self, tasks: Sequence[str]) -> list[Finding]:
        parts = parts_of(tasks, self._subspaces)
        meaning = "A row is what goes on from there; off the blocks of a task's own it comes from other tasks."
        title = "what each subspace of a task takes of the others, stage {}"
        mixes = mixing_by_stage(parts, list(self.mixes), title=title, meaning=meaning)
        stages = Finding(
            name="stages-in-the-features",
            title="how much of each stage a task's features take (beta)",
            meaning="A task with much weight on an early stage needs less depth than the encoder has.",
            rows=tasks,
            columns=numbered("stage", len(self.mixes)),
            values=self.betas.tolist(),
        )
        return [*mixes, stages]


def _weights_with_outputs(stack: nn.Module) -> list[str]:
    """Names of the weights (K, outputs, ...) of the layers in a stack of encoders; a table has a row for each input."""
    layers = [found for module in stack.modules() for found in layers_of(module)]
    weights = {max(own, key=Tensor.dim) for layer, own in layers if hasattr(layer, "bias")}
    return [name for name, parameter in stack.named_parameters() if parameter in weights]


def _undivided(subspaces: int, widths: Sequence[int]) -> list[Problem]:
    uneven = sorted({width for width in widths if width % subspaces})
    if not uneven:
        return []
    what = f"{subspaces} do not divide the width {uneven[0]} of a layer"
    hint = "Choose widths that they divide (shared_dim and those of the encoder), or sharing=cross_stitch."
    return [Problem("sharing.subspaces", what, hint)]
