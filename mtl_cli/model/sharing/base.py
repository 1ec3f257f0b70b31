"""What a sharing architecture is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from mtl_cli.model.backward import Backward, Jacobian, by_autograd
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.findings import Finding
from mtl_cli.model.ownership import Ownership, shared
from mtl_cli.types import Inputs


class Ordered(NamedTuple):
    """Two binary tasks, of which the later one is to be the less likely.

    Args:
        later: Position of the task that comes after the other.
        earlier: Position of the other.
        weight: Of max(p_later - p_earlier, 0), added to the loss of each labelled row of the later task.
    """

    later: int
    earlier: int
    weight: float


class Sharing(nn.Module, ABC):
    """Inputs to features for each task, made from encoders.

    A constructor takes ``(make_encoder, task_names, *, options)`` and calls ``make_encoder`` as often as it needs
    encoders, each with a fresh initialisation.

    Attributes:
        shares: Whether any parameter is trained by more than one task; methods that balance gradients on the
            shared parameters need it.
        chain: The key of a task, ``product_of`` or ``after``, that the architecture is made for and needs; one made for
            ``after`` is given the position of the task before each task (None: there is none) after the names.
        common_features: Whether the features are (B, D), the same for all tasks; an architecture that says so has it in
            its own class body.
    """

    shares: ClassVar[bool] = True
    chain: ClassVar[str | None] = None
    common_features: ClassVar[bool] = False

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Features: (B, D) common to all tasks, or (K, B, D) with one slice for each task, in their order."""

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        """Features without a graph, and their backward pass."""
        return by_autograd(self, inputs)

    def with_jacobian(self, inputs: Inputs) -> tuple[Tensor, Backward, Jacobian] | None:  # noqa: ARG002
        """Features (B, D) as ``with_backward``, and the gradients of several tasks at once; None: left to autograd."""
        return None

    def penalty(self) -> Tensor | None:
        """What is added to the loss of a step, one number; None: nothing.

        It is computed from the parameters, or is a mean over the rows that were read last in training.

        Its gradient comes on top of what balancing makes of the tasks' losses. Absent tasks are left alone by it, as
        by everything else.
        """
        return None

    def after_step(self) -> None:
        """Called after each step of training, which may have taken several forward passes."""

    def ordered(self) -> list[Ordered]:
        """Pairs of tasks whose probabilities are to fall from one to the next."""
        return []

    def report(self, tasks: Sequence[str]) -> list[Finding]:  # noqa: ARG002
        """What the parameters, and the gates in the last evaluation, now say about sharing.

        It goes into ``sharing.json``, and from there into the report.

        Args:
            tasks: Names of the K tasks.
        """
        return []

    def owners(self) -> list[Ownership]:
        """Who owns each parameter; all are shared unless an architecture says otherwise. Complete and disjoint."""
        return shared(self.parameters())


def make_encoders(make_encoder: EncoderMaker, task_names: Sequence[str]) -> list[Encoder]:
    """One encoder for each task."""
    return [make_encoder() for _ in task_names]
