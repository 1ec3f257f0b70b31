"""Common embeddings below towers of each task, for tasks that are factors of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.backward import Backward, by_autograd, with_backward
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import stack_with_common_tables
from mtl_cli.model.ownership import Ownership, shared, stacked
from mtl_cli.model.sharing.base import Sharing, make_encoders
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, Surroundings


@SHARINGS.register("esmm")
class EntireSpaceMultiTask(Sharing):
    """Entire space multi-task model (Ma et al. 2018): embeddings in common, all layers above each task's own.

    It is made for a task that is the product of others (``tasks.NAME.product_of``), pCTCVR = pCTR * pCVR: the click
    and the click with conversion have labels in every row, and the conversion is learnt through the product, in the
    rows without a click too. The product itself has no features and no head; see ``model.heads``.

    Args:
        make_encoder: Makes towers with their embeddings.
        task_names: K names, of the tasks that have a head.

    Shape:
        Inputs of B rows -> (K, B, D).

    Raises:
        ConfigError: There is no embedding that tasks could have in common.

    Example:
        >>> import torch
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> from mtl_cli.types import InputSpec
        >>> sharing = EntireSpaceMultiTask(EncoderMaker(MLP, InputSpec(3, (5,)), 8), ["click", "conversion"])
        >>> sharing(Inputs(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))).shape
        torch.Size([2, 2, 8])
    """

    chain: ClassVar[str | None] = "product_of"

    def __init__(self, make_encoder: EncoderMaker, task_names: Sequence[str]) -> None:
        super().__init__()
        encoders = make_encoders(make_encoder, task_names)
        self._num_tasks = len(encoders)
        self.encoders, self._tables = stack_with_common_tables(encoders)
        if not self._tables:
            raise ConfigError(_nothing_in_common("there are none here"))

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:  # noqa: ARG003
        if around.encoder is None or around.encoder.tables is not Encoder.tables:
            return []
        return [_nothing_in_common(f"encoder={around.encoder_name} names none below its layers")]

    def forward(self, inputs: Inputs) -> Tensor:
        features: Tensor = self.encoders(inputs)
        return features

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        if self._compiled_call_impl is not None:
            return by_autograd(self, inputs)
        return with_backward(self.encoders, inputs)

    def owners(self) -> list[Ownership]:
        own = [p for p in self.encoders.parameters() if all(p is not table for table in self._tables)]
        return [*shared(self._tables), *stacked(own, range(self._num_tasks))]


def _nothing_in_common(why: str) -> Problem:
    what = f"'esmm' has the embeddings of categories, words or tokens in common, and {why}"
    return Problem("sharing", what, "Use sharing=hard, where products work as well.")
