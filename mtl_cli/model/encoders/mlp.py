"""Multi-layer perceptron over numbers and categories."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_cli.model.backward import Backward, Jacobian, no_graph
from mtl_cli.model.encoders.base import Encoder, TableEncoder, stacked_copy
from mtl_cli.model.layers import (
    LayerNorm,
    Linear,
    add_linear_gradients,
    category_table,
    dropout,
    dropout_factors,
    first_rows,
    linear,
)
from mtl_cli.registry import ENCODERS
from mtl_cli.types import Inputs, InputSpec, PositiveInt, ProperFraction


class Draws(NamedTuple):
    """Dropout of one copy among several that draw for themselves: its share, and its generator."""

    share: float
    generator: torch.Generator


_ACTIVATIONS = {"relu": torch.relu_, "gelu": functional.gelu, "silu": functional.silu, "tanh": torch.tanh}
_relu_backward = torch.ops.aten.threshold_backward.grad_input


@ENCODERS.register("mlp")
class MLP(TableEncoder):
    """Linear layers, each followed by an activation; categories come in through one embedding table.

    A number that comes with edges is also given as its piecewise-linear encoding: how far it has come through each bin,
    0 to 1 (Gorishniy et al. 2022, 'On Embeddings for Numerical Features in Tabular Deep Learning').

    Args:
        spec: What the inputs are.
        shared_dim: D, the width of the last layer.
        hidden: Widths of the layers before it; [] makes a single Linear + activation.
        activation: relu, gelu, silu or tanh, after every layer.
        dropout: Share of each layer's outputs (the last one's too) set to 0 in training.
        norm: ``layer`` normalises each layer's outputs before the activation.
        embedding_dim: Numbers that stand for one category of a categorical column.

    Shape:
        numeric (B, F), categorical (B, number of columns) -> (B, D).

    Example:
        >>> encoder = MLP(InputSpec(3, (5,)), 8, hidden=[16])
        >>> encoder(Inputs(torch.zeros(2, 3), torch.tensor([[0], [4]]))).shape
        torch.Size([2, 8])
    """

    takes_rows_of_copies: ClassVar[bool] = True

    def __init__(
        self,
        spec: InputSpec,
        shared_dim: int,
        *,
        hidden: list[PositiveInt] = [],  # noqa: B006  read only; the literal documents the default
        activation: Literal["relu", "gelu", "silu", "tanh"] = "relu",
        dropout: ProperFraction = 0.0,
        norm: Literal["none", "layer"] = "none",
        embedding_dim: PositiveInt = 8,
    ) -> None:
        super().__init__()
        self.blocks_of(spec)
        self._dropout, self._activation, self.inner_widths = dropout, _ACTIVATIONS[activation], tuple(hidden)
        self._draws: list[Draws] | None = None
        bins = [(column, low, high) for column, e in spec.edges for low, high in pairwise(e)]
        self.bin_column: Tensor
        self.bin_low: Tensor
        self.bin_width: Tensor
        self.register_buffer("bin_column", torch.tensor([b[0] for b in bins], dtype=torch.int64), persistent=False)
        self.register_buffer("bin_low", torch.tensor([b[1] for b in bins]), persistent=False)
        self.register_buffer("bin_width", torch.tensor([b[2] - b[1] for b in bins]), persistent=False)
        widths = [spec.numeric_dim + len(bins) + len(spec.categories) * embedding_dim, *hidden, shared_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(LayerNorm(b) for b in widths[1:] if norm == "layer")
        # What every step asks, as plain values: of tensors and modules the answer takes a microsecond.
        self._plain = activation == "relu" and norm == "none"
        self._has_bins, self._has_categories = bool(bins), bool(spec.categories)
        self.offsets: Tensor
        self.register_buffer("offsets", first_rows(spec.categories), persistent=False)
        if spec.categories:
            self.embedding = category_table(spec.categories, embedding_dim)

    @property
    def read_dim(self) -> int:
        return self.layers[0].get_parameter("weight").shape[-1]

    def read(self, inputs: Inputs) -> Tensor:
        return self._read(inputs)[0]

    def encode(self, x: Tensor) -> Tensor:
        for index in range(len(self.layers)):
            x = self._layer(index, x)
        return x

    def stage(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        """A layer with its normalisation, activation and dropout; the first also reads the inputs."""
        return self._layer(index, self.read(inputs) if x is None else x)

    def tables(self) -> list[str]:
        return ["embedding"] if self._has_categories else []

    def _layer(self, index: int, x: Tensor) -> Tensor:
        x = self.layers[index](x)
        if len(self.norms):
            x = self.norms[index](x)
        x = self._activation(x)  # relu in place: the layer's output is nobody else's
        return dropout(x, self._dropout, self.training)

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        """Written out for relu without normalisation: the default and the fastest."""
        own = self.with_jacobian(inputs)
        return super().with_backward(inputs) if own is None else own[:2]

    def with_jacobian(self, inputs: Inputs) -> tuple[Tensor, Backward, Jacobian] | None:
        parameters = self._written_out()
        if parameters is None:
            return None
        with no_graph():
            return self._relu_with_jacobian(inputs, parameters)

    @cached_property
    def _plain_layers(self) -> list[Linear] | None:
        """The layers, if they are plain and relu follows them, whatever the constructor of a subclass has put there."""
        plain = [layer for layer in self.layers if type(layer) is Linear]
        relu = self._plain and self._activation is torch.relu_
        return plain if relu and len(plain) == len(self.layers) else None

    def _written_out(self) -> list[tuple[nn.Parameter, nn.Parameter]] | None:
        """Weight and bias of each layer, if the passes that are written out below are those of this encoder."""
        if self._plain_layers is None or (self._has_categories and not self.embedding.requires_grad):
            return None
        found = []
        for layer in self._plain_layers:
            weight, bias = layer.weight, layer.bias
            if not weight.requires_grad or not bias.requires_grad:
                return None
            found.append((weight, bias))
        return found

    def _relu_with_jacobian(
        self, inputs: Inputs, parameters: Sequence[tuple[nn.Parameter, nn.Parameter]]
    ) -> tuple[Tensor, Backward, Jacobian]:
        x, codes = self._read(inputs)
        kept: list[tuple[Tensor, Tensor, Tensor | None]] = []  # of each layer: input, output, dropout's factors
        for weight, bias in parameters:
            y = linear(x, weight, bias).relu_()
            noise = self._noise(y) if self.training else None
            kept.append((x, y, noise))
            x = y if noise is None else y * noise

        def backward(gradient: Tensor) -> None:
            with no_graph():
                for (weight, bias), (x, y, noise) in zip(reversed(parameters), reversed(kept), strict=True):
                    if noise is not None:
                        gradient = gradient * noise
                    _relu_backward(gradient, y, 0, grad_input=gradient)
                    add_linear_gradients(gradient, x, weight, bias)
                    if weight is not parameters[0][0]:
                        gradient = gradient @ weight
                    elif codes is not None:  # of the input only the embeddings need it
                        table = self.embedding
                        embedded = gradient @ weight[..., -codes.shape[-1] * table.shape[-1] :]
                        if codes.dim() == 3:
                            for own, copy, rows in zip(table.grad, codes, embedded, strict=True):  # type: ignore[arg-type]
                                own.index_add_(0, copy.flatten(), rows.reshape(-1, own.shape[-1]))
                            continue
                        if embedded.dim() > table.dim():  # copies of layers that have one table in common
                            embedded = embedded.sum(0)
                        rows = embedded.reshape(*table.shape[:-2], codes.numel(), table.shape[-1])
                        table.grad.index_add_(-2, codes.flatten(), rows)  # type: ignore[union-attr]

        def jacobian(gradients: Tensor, into: Mapping[nn.Parameter, Tensor]) -> None:
            with no_graph():
                tasks = len(gradients)  # a single encoder, not a stack: the leading axis is that of the tasks
                for (weight, bias), (x, y, noise) in zip(reversed(parameters), reversed(kept), strict=True):
                    if weight not in into:
                        return
                    if noise is not None:
                        gradients = gradients * noise
                    _relu_backward(gradients, y, 0, grad_input=gradients)
                    torch.bmm(gradients.transpose(1, 2), x.expand(tasks, *x.shape), out=into[weight])
                    torch.sum(gradients, 1, out=into[bias])
                    if weight is not parameters[0][0]:
                        gradients = gradients @ weight
                    elif codes is not None and self.embedding in into:
                        table = into[self.embedding]
                        rows = (gradients @ weight[:, -codes.shape[1] * table.shape[-1] :]).view(
                            tasks, codes.numel(), -1
                        )
                        table.zero_().index_add_(1, codes.flatten(), rows)

        return x, backward, jacobian

    def _noise(self, y: Tensor) -> Tensor | None:
        """Dropout's factors on a layer's output; None without dropout."""
        if self._draws is None:
            return dropout_factors(y, self._dropout) if self._dropout else None
        if not any(draws.share for draws in self._draws):
            return None
        return torch.stack(
            [
                dropout_factors(own, share, generator) if share else torch.ones_like(own)
                for own, (share, generator) in zip(y, self._draws, strict=True)
            ]
        )

    def _read(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """What the first layer reads, and the rows of the embedding table in it (B, columns)."""
        x = inputs.numeric
        if self._has_bins:
            through = (x.index_select(-1, self.bin_column) - self.bin_low) / self.bin_width
            x = torch.cat([x, through.clamp(0.0, 1.0)], -1)
        if not inputs.categorical.shape[-1]:
            return x, None
        codes = inputs.categorical + self.offsets
        if codes.dim() == 3:  # copies that read rows of their own
            picked = torch.stack(
                [t.index_select(0, own.flatten()) for t, own in zip(self.embedding, codes, strict=True)]
            )
            picked = picked.view(*codes.shape[:2], -1)
            return torch.cat([x, picked], -1) if x.shape[-1] else picked, codes
        # One copy: table (rows, dim) -> (B, columns * dim). Stacked: (copies, rows, dim) -> (copies, B, ...).
        lead = self.embedding.shape[:-2]
        width = codes.shape[1] * self.embedding.shape[-1]
        picked = self.embedding.index_select(-2, codes.flatten()).view(*lead, codes.shape[0], width)
        if not x.shape[-1]:
            return picked, codes
        lead = lead or x.shape[:-2]  # copies may have the table, or what stands before it, in common
        return torch.cat([x.expand(*lead, *x.shape[-2:]), picked.expand(*lead, *picked.shape[-2:])], -1), codes

    def likeness(self) -> Hashable | None:
        """Equal for encoders that ``side_by_side`` can compute together; None if this one cannot be."""
        if self._written_out() is None:
            return None
        return (
            tuple(tuple(parameter.shape) for parameter in self.parameters()),
            tuple(self.bin_column.tolist()),
            tuple(self.offsets.tolist()) if self._has_categories else (),
        )

    def side_by_side(self, encoders: Sequence[MLP], generators: Sequence[torch.Generator]) -> None:
        """Makes this one, whose parameters are those of R encoders on axis 0, compute what each does on its own rows.

        Args:
            encoders: R encoders that are alike.
            generators: What each draws its dropout from.

        Shape:
            numeric (R, B, F), categorical (R, B, number of columns) -> (R, B, D).
        """
        self._draws = [Draws(encoder._dropout, own) for encoder, own in zip(encoders, generators, strict=True)]
        for name in ("bin_low", "bin_width"):
            own = [encoder.get_buffer(name) for encoder in encoders]
            if not all(torch.equal(values, own[0]) for values in own):
                setattr(self, name, torch.stack(own).unsqueeze(1))

    @classmethod
    def widths_by(cls, options: Mapping[str, Any]) -> Sequence[int]:
        return tuple(options["hidden"])

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        return stacked_copy(encoders)
