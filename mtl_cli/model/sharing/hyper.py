"""One encoder, and a shared parameter matrix that depends on the input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.gates import GateInputs
from mtl_cli.model.layers import Linear, uniform
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, PositiveInt


@SHARINGS.register("hyper")
class HyperSharing(Sharing):
    """The shared parameter matrix is a function of the input, W = f_phi(X), as in a hypernetwork (Ha et al. 2017).

    Every task reads W(x) h(x), where h is one encoder and f_phi a small network that reads the row and puts together
    W(x) = I + sum_r a_r(x) L_r from R learnt (D, D) matrices, so that D * D values per row need not be made (as in
    CondConv, Yang et al. 2019). Its last layer starts at 0: before training it is hard sharing.

    Args:
        make_encoder: Makes the encoder.
        task_names: K names.
        matrices: R, the number of matrices L_r.
        hidden: Widths of the ReLU layers of f_phi.

    Shape:
        Inputs of B rows -> (B, D).

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = HyperSharing(EncoderMaker(MLP, InputSpec(3), 8), ["a", "b"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 8])
    """

    common_features: ClassVar[bool] = True

    def __init__(
        self,
        make_encoder: EncoderMaker,
        task_names: Sequence[str],  # noqa: ARG002  any number of tasks
        *,
        matrices: PositiveInt = 4,
        hidden: list[PositiveInt] = [32],  # noqa: B006  read only; the literal documents the default
    ) -> None:
        super().__init__()
        self.encoder = make_encoder()
        self.inputs = GateInputs(make_encoder)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise([self.inputs.width, *hidden]))
        self.last = Linear([self.inputs.width, *hidden][-1], matrices)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        width = make_encoder.shared_dim
        self.matrices = nn.Parameter(uniform(matrices, width, width, inputs=width))

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.encoder(inputs)
        coefficients = self.coefficients(inputs)  # (B, R)
        turned = features @ self.matrices.flatten(0, 1).t()  # all L_r h in one product: (B, R * D)
        by_matrix = turned.view(turned.shape[0], len(self.matrices), -1)
        return features + torch.bmm(coefficients.unsqueeze(1), by_matrix).squeeze(1)

    def features_from(self) -> nn.Module:
        return self.encoder  # the matrices have no gradient at the start

    def coefficients(self, inputs: Inputs) -> Tensor:
        """A (B, R): what each matrix adds to W for each row."""
        x: Tensor = self.inputs(inputs)
        for layer in self.layers:
            x = torch.relu(layer(x))
        coefficients: Tensor = self.last(x)
        return coefficients
