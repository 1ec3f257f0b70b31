"""Several quantiles of a number."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.registry import KINDS
from mtl_cli.tasks._numbers import BACK, Units
from mtl_cli.tasks._scores import quantile_scores
from mtl_cli.tasks.base import Kind
from mtl_cli.types import Column, Range

_LEVELS = 0.1, 0.5, 0.9


@KINDS.register("quantile")
class Quantile(Kind):
    """Quantiles of a number given the inputs: an interval around the prediction (Koenker and Bassett 1978).

    The loss is the mean pinball loss of the quantiles, on a scale standardised as in ``regression``. The first output
    is the lowest quantile, the softplus of each further one the step up to the next, so that quantiles never cross.
    Predictions and metrics are in the user's units; the prediction is the median, or else the quantile nearest to it.

    Args:
        quantiles: Rising numbers between 0 and 1. ``[0.1, 0.5, 0.9]`` is a median and an interval that should hold 80%.
        transform: As in ``regression``: ``none``, ``log1p``, ``log``, ``sqrt`` or ``asinh``. Quantiles are the same
            whatever the transform, it only makes them easier to learn.

    Shape:
        C = number of quantiles.

    Raises:
        ConfigError: ``quantiles`` is empty or does not rise.

    Example:
        >>> kind = Quantile(quantiles=[0.5])
        >>> kind.loss(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[1.0, 1.0]]))  # half of the absolute error
        tensor([[0., 1.]])
    """

    formula: ClassVar[str] = (
        f"back(q * std + mean) for q = outputs[0], then softplus(output) added for each more; {BACK}. "
        f"These are the `quantiles`; null: {', '.join(map(str, _LEVELS))}"
    )
    scored_by: ClassVar[str] = "sklearn.metrics"
    metrics: ClassVar[Mapping[str, bool | None]] = {"d2": True, "pinball": False, "coverage": None}

    def __init__(
        self,
        *,
        quantiles: list[Annotated[float, Range(0, 1, open_low=True, open_high=True)]] | None = None,
        transform: Literal["none", "log1p", "log", "sqrt", "asinh"] = "none",
    ) -> None:
        self.quantiles = list(_LEVELS if quantiles is None else quantiles)
        if not self.quantiles or any(low >= high for low, high in pairwise(self.quantiles)):
            raise ConfigError(
                Problem("kind.quantile.quantiles", f"must be one or more rising numbers, got {quantiles}")
            )
        self._units = Units(transform)

    @property
    def num_outputs(self) -> int:
        return len(self.quantiles)

    @property
    def defined(self) -> Sequence[str]:
        return [metric for metric in self.metrics if metric != "coverage" or len(self.quantiles) > 1]

    def fit(self, column: Column, train: np.ndarray) -> None:
        self._units.fit(column, train)

    def encode(self, column: Column) -> np.ndarray:
        return self._units.encode(column)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return _pinball(self._as_column(outputs), targets.unsqueeze(-2) - self._levels(outputs))

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        levels, error = self._as_column(outputs), targets.unsqueeze(-2) - self._levels(outputs)
        # By each quantile; where the error is 0, the middle of the two slopes, as autograd has it.
        slope = (0.5 - levels - 0.5 * error.sign()).div_(self.num_outputs)
        gradient = _running_sums(slope.flip(-2)).flip(-2)  # an output moves its own quantile and all above
        gradient[..., 1:, :] *= torch.sigmoid(outputs[..., 1:, :])
        return _pinball(levels, error), gradient

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        levels = self._units.decode(self._levels(outputs.double().t()).t().cpu().numpy())
        middle = int(np.argmin(np.abs(np.array(self.quantiles) - 0.5)))
        return {"pred": levels[:, middle], "quantile": levels}

    def columns(self, outputs: Tensor) -> dict[str, np.ndarray]:
        decoded = self.decode(outputs)
        levels = {f"q{100 * q:.10g}": decoded["quantile"][:, i] for i, q in enumerate(self.quantiles)}
        return {"pred": decoded["pred"], **levels}

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return quantile_scores(
            self._units.decode(targets.cpu().numpy()), self.decode(outputs)["quantile"], self.quantiles
        )

    def truth(self, targets: np.ndarray) -> np.ndarray | None:
        return self._units.decode(targets)

    def describe(self, targets: np.ndarray) -> str:
        values = np.quantile(self._units.restore(targets), self.quantiles)
        return ", ".join(f"{100 * q:.10g}%: {value:.4g}" for q, value in zip(self.quantiles, values, strict=True))

    def state(self) -> dict[str, Any]:
        return self._units.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._units.load_state(state)

    def meaning(self) -> Hashable:
        return (type(self), *self.quantiles, self._units.transform)

    def group_key(self) -> Hashable:
        return tuple(self.quantiles)

    def _as_column(self, like: Tensor) -> Tensor:
        """The quantiles (C, 1), filled in on the device of ``like``: a copy from the host would wait for the device."""
        return torch.stack([like.new_full((1,), quantile) for quantile in self.quantiles])

    def _levels(self, outputs: Tensor) -> Tensor:
        """Outputs (..., C, B) to rising quantiles (..., C, B)."""
        steps = functional.softplus(outputs[..., 1:, :])
        return _running_sums(torch.cat([outputs[..., :1, :], steps], -2))


def _pinball(levels: Tensor, error: Tensor) -> Tensor:
    """The mean over the levels (C, 1) of the pinball losses of errors (..., C, B), targets less quantiles."""
    return torch.maximum(levels * error, (levels - 1) * error).mean(-2)


def _running_sums(steps: Tensor) -> Tensor:
    """``cumsum`` along axis -2, which is short. On a GPU that of torch need not give the same bits twice."""
    return torch.stack(list(accumulate(steps.unbind(-2))), -2)
