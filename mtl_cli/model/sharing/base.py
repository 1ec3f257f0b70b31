"""What a sharing architecture is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from mtl_cli.errors import Problem
from mtl_cli.model.backward import Backward, Jacobian, by_autograd
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import VmapStack
from mtl_cli.model.findings import Finding
from mtl_cli.model.gates import GateInputs, Gates
from mtl_cli.model.ownership import Ownership, shared
from mtl_cli.overriding import restore_general
from mtl_cli.types import Inputs, Surroundings


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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        faster = {"with_backward": "with_backward", "with_jacobian": "with_jacobian"}
        restore_general(cls, Sharing, faster, of=("forward",))

    @classmethod
    def misfits(cls, options: Mapping[str, Any], around: Surroundings) -> list[Problem]:  # noqa: ARG003
        """What cannot work, as far as it is known before any data are read: told with all mistakes of a configuration.

        A class that has such a check has it in its own class body. What only data tell is left to the constructor.

        Args:
            options: Those of the constructor, defaults filled in.
            around: What it will have to do with.
        """
        return []

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
        """What is added to the loss of a step, a tensor () of one value; None: nothing.

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

    def numbered(self) -> list[str]:
        """What the numbers in the names of its parameters count, in their order; nothing that may be another elsewhere.

        Parameters of two models mean the same only where these are the same.
        """
        return []

    def last_layer(self) -> list[nn.Parameter]:
        """The last layer that tasks share, of all copies or experts: where GradNorm compares their gradients.

        It is that of the module in ``features_from`` that was made last, gates left aside; where tasks share no layer
        (but tables of embeddings, or components of weights), the last parameter that they share and that is no vector.
        """
        alone = {owned.parameter for owned in self.owners() if owned.task is not None}
        for whole in (self.features_from(), self):
            modules = list(_without_gates(whole))
            layers = [own for module in modules for _, own in layers_of(module)]
            layers = [layer for layer in layers if all(p.requires_grad and p not in alone for p in layer)]
            if layers:
                return layers[-1]
            common = [p for module in modules for p in module.parameters(recurse=False)]
            common = [p for p in common if p.requires_grad and p not in alone]
            if common:
                return ([p for p in common if sum(size > 1 for size in p.shape) > 1] or common)[-1:]
        return []

    def features_from(self) -> nn.Module:
        """The module whose layers' features all tasks read."""
        return self

    def owners(self) -> list[Ownership]:
        """Who owns each parameter; all are shared unless an architecture says otherwise. Complete and disjoint."""
        return shared(self.parameters())

    def rows_of_tasks(self) -> list[Ownership]:
        """Whose each parameter is, whoever trains it: what a run that starts from this one carries over by task.

        As ``owners``, unless rows that are made for one task are trained by others too. Complete and disjoint.
        """
        return self.owners()


def _without_gates(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all within it, but gates."""
    if not isinstance(module, GateInputs | Gates):
        yield module
        for child in module.children():
            yield from _without_gates(child)


def layers_of(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """The layer that a module is, or those that a stack under ``vmap`` has, and its parameters, stacked if it is."""
    if isinstance(module, VmapStack):
        of_one = module.values_of_one(dict(module.named_parameters()))
        for name, part in module.encoder.named_modules():
            if _is_layer(part):
                own = (".".join(filter(None, [name, leaf])) for leaf, _ in part.named_parameters(recurse=False))
                yield part, [parameter for leaf in own if isinstance(parameter := of_one[leaf], nn.Parameter)]
    elif _is_layer(module):
        yield module, list(module.parameters(recurse=False))


def _is_layer(module: nn.Module) -> bool:
    """Whether it has a weight of more axes than its bias, which a normalisation has not."""
    own = dict(module.named_parameters(recurse=False))
    return "weight" in own and own["weight"].dim() > (own["bias"].dim() if "bias" in own else 1)


def make_encoders(make_encoder: EncoderMaker, task_names: Sequence[str]) -> list[Encoder]:
    """One encoder for each task."""
    return [make_encoder() for _ in task_names]
