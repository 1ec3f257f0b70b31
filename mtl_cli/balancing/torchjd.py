"""Bridge to the aggregators of TorchJD."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from mtl_cli.balancing.base import GradientBalancing
from mtl_cli.errors import ConfigError, Problem, did_you_mean
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import GradientsOn, UpdateScale


@BALANCINGS.register("torchjd")
class TorchJD(GradientBalancing):
    """Any aggregator of the package TorchJD that keeps no state (Quinton & Rey 2024, 'Jacobian Descent').

    For what only TorchJD has (Krum, TrimmedMean, ...), and to compare. Where this package has the method itself, it is
    faster, and its state is part of the checkpoint. Random choices are those of PyTorch's global generator.

    Args:
        num_tasks: K.
        aggregator: Name of a class of ``torchjd.aggregation``.
        options: Its arguments.
        normalize_to: ``sum`` or ``mean`` rescales the update to the length of the gradients' sum or mean.
        gradients_on: ``features`` balances the gradients of the features that all heads read, not of the shared
            parameters.

    Raises:
        ConfigError: TorchJD is not installed, it has no such aggregator, the arguments do not fit, or the aggregator
            keeps state, which could not be resumed.

    Shape:
        Jacobian (k, P) -> update (P,); there are no weights. How long the update is depends on the aggregator.

    Example:
        >>> jacobian = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> TorchJD(2, aggregator="MGDA").aggregate(jacobian, torch.ones(2), torch.arange(2))[0].round()
        tensor([0., 1., 1.])
    """

    needs_shared: ClassVar[bool] = True
    requires: ClassVar[str] = "torchjd"

    def __init__(
        self,
        num_tasks: int,  # noqa: ARG002
        *,
        aggregator: str = "Mean",
        options: dict[str, Any] = {},  # noqa: B006  read only; the literal documents the default
        normalize_to: UpdateScale = "none",
        gradients_on: GradientsOn = "parameters",
    ) -> None:
        super().__init__(normalize_to, gradients_on)
        self._aggregator = _build(aggregator, options)

    def direction(self, jacobian: Tensor, losses: Tensor, tasks: Tensor) -> tuple[Tensor, None]:  # noqa: ARG002
        alive = jacobian.any(1)
        whole = self.all_have(alive, tasks)
        if not whole and not bool(alive.any()):
            return torch.zeros_like(jacobian[0]), None
        update: Tensor = self._aggregator(jacobian if whole else jacobian[alive])
        return update, None


def _build(name: str, options: dict[str, Any]) -> Any:
    try:
        from torchjd import Stateful, aggregation
    except ImportError as error:
        hint = 'Install it: pip install "mtl-train[torchjd]".'
        raise ConfigError(Problem("balancing.torchjd", f"needs the package torchjd ({error})", hint)) from error
    classes = {
        key: value
        for key, value in vars(aggregation).items()
        if isinstance(value, type) and issubclass(value, aggregation.Aggregator) and not key.endswith("Aggregator")
    }
    where = "balancing.aggregator"
    if name not in classes:
        raise ConfigError(Problem(where, f"TorchJD has no aggregator '{name}'", did_you_mean(name, classes)))
    if issubclass(classes[name], Stateful):
        ours = {own.replace("_", ""): own for own in BALANCINGS.names()}.get(name.lower())
        hint = f"Use balancing={ours}." if ours else "Choose one that keeps no state."
        raise ConfigError(Problem(where, f"{name} of TorchJD keeps state that cannot be resumed", hint))
    try:
        return classes[name](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            Problem("balancing.options", f"do not fit {name} of TorchJD, got {options} ({error})")
        ) from error
    except ImportError as error:
        raise ConfigError(Problem(where, f"{name} of TorchJD needs more packages ({error})")) from error
