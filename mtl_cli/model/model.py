"""The model that every run trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.flops import FlopCounter
from mtl_cli.model.freezing import freeze, frozen_statistics, not_frozen
from mtl_cli.model.heads import Heads, HeadSpec, ProductHeads
from mtl_cli.model.ownership import NamedRows, Ownership
from mtl_cli.model.sharing import Ordered, Sharing
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.types import Inputs, InputSpec


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters: in all, shared by several tasks, and of each task alone (in task order)."""

    total: int
    shared: int
    tasks: tuple[int, ...]


class MultiTaskModel(nn.Module):
    """A sharing architecture and a head for each task.

    Without ``sharing`` it is the model of the field's first lesson: one Linear + ReLU encoder that all tasks share,
    and one linear head per task. Every other model differs only in the ``sharing`` and ``hidden`` it is given.

    Args:
        input_dim: F, the width of the inputs. (With ``sharing`` it is for information only.)
        output_dims: C of each of the K tasks.
        shared_dim: D, the width of the features that the heads read.
        sharing: How tasks share encoders; None for one shared Linear + ReLU.
        hidden: Widths of the hidden layers of each task's head, K entries; None for linear heads.
        products: Positions of the factors of each task that is a product of others; ``sharing`` knows only the other
            tasks. See ``ProductHeads``.

    Raises:
        ValueError: There is no task, or ``hidden`` is of another number of tasks.

    Attributes:
        with_head: Positions of the tasks that have features and a head: all but products.
        mixed: Whether the loss of some task depends on the features of another.

    Shape:
        ``forward``: (B, F) or Inputs of B rows -> list of K tensors (B, C).

    Example:
        >>> model = MultiTaskModel(64, [10, 2], 128)
        >>> [output.shape for output in model(torch.zeros(5, 64))]
        [torch.Size([5, 10]), torch.Size([5, 2])]
    """

    def __init__(
        self,
        input_dim: int,
        output_dims: Sequence[int],
        shared_dim: int,
        *,
        sharing: Sharing | None = None,
        hidden: Sequence[Sequence[int]] | None = None,
        products: Mapping[int, Sequence[int]] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if not output_dims:
            raise ValueError("output_dims: must have the number of outputs of each task, got none")
        hidden = [()] * len(output_dims) if hidden is None else hidden
        if len(hidden) != len(output_dims):
            raise ValueError(f"hidden: must have an entry for each of {len(output_dims)} tasks, got {len(hidden)}")
        self.with_head = [task for task in range(len(output_dims)) if task not in products]
        names = [str(task) for task in self.with_head]
        self.input_dim, self.shared_dim = input_dim, shared_dim
        self.sharing = sharing or HardSharing(EncoderMaker(MLP, InputSpec(input_dim), shared_dim), names)
        specs = [HeadSpec(output_dims[task], tuple(hidden[task])) for task in self.with_head]
        heads = Heads(shared_dim, specs)
        self.heads: Heads | ProductHeads = ProductHeads(heads, products) if products else heads
        earlier = {pair.earlier for pair in self.ordered()}
        self._products = dict(products)
        self._joint = earlier | {factor for factors in products.values() for factor in factors}
        self.mixed = bool(self._joint)
        self._frozen_rows: set[NamedRows] = set()  # of parameters other rows of which are trained
        self._keeping_statistics: tuple[nn.Module, ...] = ()  # a tuple: no submodules once more

    def forward(self, x: Tensor | Inputs) -> list[Tensor]:
        """Outputs of each task, in task order."""
        return self.heads.split(self.outputs(x))

    def outputs(self, x: Tensor | Inputs, cut: Callable[[Tensor, int], Tensor] | None = None) -> Tensor:
        """Outputs of all tasks below one another, (O, B): what the losses are computed from.

        ``cut`` stands between features and heads where a task's loss depends on its own features alone.
        """
        features = self.features(x)
        if cut is not None and not self.mixed:
            features = cut(features, len(self.with_head))
        outputs: Tensor = self.heads(features)
        return outputs

    def features(self, x: Tensor | Inputs) -> Tensor:
        """What the heads read: (B, D) common to all tasks, or (K, B, D).

        Raises:
            ValueError: A tensor is not of two axes.
        """
        if isinstance(x, Tensor):
            if x.dim() != 2:
                raise ValueError(f"x: must have the shape (rows, {self.input_dim}), got {tuple(x.shape)}")
            x = Inputs(x, torch.empty(x.shape[0], 0, dtype=torch.int64, device=x.device))
        features: Tensor = self.sharing(x)
        return features

    def owners(self) -> list[Ownership]:
        """Who owns each parameter; complete and disjoint. What the loss of another task trains too is shared."""
        owners = self._among_all_tasks([*self.sharing.owners(), *self.heads.owners()])
        return [owned._replace(task=None) if owned.task in self._joint else owned for owned in owners]

    def rows_of_tasks(self) -> list[Ownership]:
        """Whose each parameter is, whoever trains it; see ``Sharing.rows_of_tasks``. A head is always its task's."""
        return self._among_all_tasks([*self.sharing.rows_of_tasks(), *self.heads.owners()])

    def trained(self) -> list[Ownership]:
        """Who owns what is trained: the parameters, and rows of them, that are not frozen."""
        return [o for o in not_frozen(self, self.owners(), self._frozen_rows) if o.parameter.requires_grad]

    def rows_of_heads(self, labelled: Tensor) -> Tensor:
        """The rows that features are made for, (number of tasks with features, B) bool.

        Args:
            labelled: (K, B) bool, the rows with a label of each task; those of a product are its factors' too.
        """
        if not self._products:
            return labelled
        rows = labelled.clone()
        for product, factors in self._products.items():
            rows[list(factors)] |= labelled[product]
        return rows[self.with_head]

    def ordered(self) -> list[Ordered]:
        """Pairs of tasks whose probabilities are to fall from one to the next, see ``Sharing.ordered``."""
        return [
            pair._replace(later=self.with_head[pair.later], earlier=self.with_head[pair.earlier])
            for pair in self.sharing.ordered()
        ]

    def load_values(self, state: Mapping[str, Tensor]) -> None:
        """Takes the values of a checkpoint, all of them or none.

        Raises:
            ValueError: It is of another model: lists what is absent, what is unknown, and what has another shape.

        Example:
            >>> model = MultiTaskModel(2, [1], 3)
            >>> model.load_values({**model.state_dict(), "heads.blocks.0.bias": torch.zeros(2), "x": torch.zeros(1)})
            Traceback (most recent call last):
            ...
            ValueError: unknown: x; of another shape: heads.blocks.0.bias (2, here 1)
        """
        own = self.state_dict()
        lists = {
            "absent": [name for name in own if name not in state],
            "unknown": [str(name) for name in state if name not in own],
            "of another shape": [
                f"{name} ({_shape(state[name])}, here {_shape(value)})"
                for name, value in own.items()
                if name in state and getattr(state[name], "shape", None) != value.shape
            ],
        }
        if any(lists.values()):
            raise ValueError("; ".join(f"{what}: {', '.join(names)}" for what, names in lists.items() if names))
        self.load_state_dict(state)

    def freeze(self, patterns: Sequence[str]) -> None:
        """Takes parameters out of training, for good; see ``mtl_cli.model.freezing.freeze``."""
        self._frozen_rows = freeze(self, self.owners(), patterns)
        self._keeping_statistics = tuple(frozen_statistics(self))
        self.train(self.training)

    def train(self, mode: bool = True) -> MultiTaskModel:
        """Training or evaluation; frozen modules that keep statistics stay as in evaluation."""
        super().train(mode)
        for module in self._keeping_statistics:
            module.training = False  # it alone: dropout in it goes on
        return self

    @torch.no_grad()
    def count_flops(self, x: Inputs) -> int:
        """Floating-point operations of a forward pass of some rows as in evaluation, two for each multiply-add.

        Counted by PyTorch as they are carried out: matrix products and convolutions, which nearly all of the time goes
        into, and neither look-ups of embeddings nor operations on single values.
        """
        training = self.training
        self.eval()
        with FlopCounter() as counter:
            self.heads(
                self.sharing.forward(x._replace(wanted=None))
            )  # not called: a compiled module would be compiled for it
        self.train(training)
        return int(counter.total)

    def count_parameters(self) -> ParameterCounts:
        """How many parameters there are, and whose they are."""
        return self._count(self.owners())

    def count_frozen(self) -> ParameterCounts:
        """How many of them are not trained."""
        every, trained = self.count_parameters(), self._count(self.trained())
        of_tasks = tuple(a - b for a, b in zip(every.tasks, trained.tasks, strict=True))
        return ParameterCounts(every.total - trained.total, every.shared - trained.shared, of_tasks)

    def _among_all_tasks(self, owners: Iterable[Ownership]) -> list[Ownership]:
        """The same owners, whose positions are among the tasks with a head, by their positions among all tasks."""
        return [owned if owned.task is None else owned._replace(task=self.with_head[owned.task]) for owned in owners]

    def _count(self, owners: Iterable[Ownership]) -> ParameterCounts:
        tasks = [0] * len(self.heads.output_dims)
        shared = 0
        for owned in owners:
            if owned.task is None:
                shared += owned.numel
            else:
                tasks[owned.task] += owned.numel
        return ParameterCounts(shared + sum(tasks), shared, tuple(tasks))


def _shape(value: object) -> str:
    """A tensor's shape as people write it."""
    return " x ".join(map(str, value.shape)) or "1" if isinstance(value, Tensor) else f"a {type(value).__name__}"
