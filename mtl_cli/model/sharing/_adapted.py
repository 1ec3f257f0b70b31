"""One shared encoder with something of each task's own after every stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.base import run_stages, stage_widths
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing._own_rows import PaddedRows
from mtl_cli.model.sharing.base import Sharing
from mtl_cli.types import Inputs


class AdaptedStages(Sharing):
    """A shared encoder, and modules whose parameters have one row (axis 0) for each task.

    Shape:
        Inputs of B rows -> (K, B, D).
    """

    shares: ClassVar[bool] = True

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> None:
        super().__init__()
        self._num_tasks = len(task_names)
        self.encoder = make_encoder()
        self.widths = stage_widths(self.encoder, make_encoder.shared_dim)
        self.own = nn.ModuleList()

    @abstractmethod
    def adapt(self, index: int, x: Tensor, tasks: Tensor | None) -> Tensor:
        """What tasks (k,), None for all, make of the output of stage ``index``: (k, B, channels, ...) -> the same."""

    def forward(self, inputs: Inputs) -> Tensor:
        own = self._own_rows(inputs)

        def between(index: int, x: Tensor) -> Tensor:
            if index == 0:
                x = x.expand(self._num_tasks, *x.shape) if own is None else own.take(x)
            return self.adapt(index, x, None if own is None else own.tasks)

        slices = inputs if own is None else own.below_one_another()
        features = run_stages(self.encoder, len(self.widths), inputs, between, slices=slices)
        return features if own is None else own.spread(features)

    def _own_rows(self, inputs: Inputs) -> PaddedRows | None:
        """What the stages after the first are computed on; None: all rows for all tasks."""
        if self.encoder.reads == "tokens":  # their stages put out tokens, of which rows have different numbers
            return None
        return PaddedRows.of(inputs, self._num_tasks, every=False)

    def owners(self) -> list[Ownership]:
        return [*shared(self.encoder.parameters()), *stacked(self.own.parameters(), range(self._num_tasks))]
