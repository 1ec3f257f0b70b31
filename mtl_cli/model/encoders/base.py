"""What an encoder is, and how copies of one are computed together."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_type_hints

import torch
from torch import Tensor, nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.model.backward import Backward, Jacobian, by_autograd
from mtl_cli.overriding import is_own_form, restore_general
from mtl_cli.registry import ENCODERS, describe_component
from mtl_cli.types import Block, Inputs, InputSpec


class Encoder(nn.Module, ABC):
    """Inputs (B rows) to features (B, D).

    A constructor takes ``(spec: InputSpec, shared_dim: int, *, options)``. Each row is encoded on its own: the
    training loop may cut a batch into pieces that fit the processor's cache. The inputs are left as they are, and
    nothing is drawn in evaluation.

    An encoder may be a chain of stages, between which an architecture can look and mix; one stage, the whole, is the
    default. Stages run one after another are the encoder, also on a stack of copies.

    A subclass of an encoder that overrides what the encoder computes inherits neither the faster forms of that nor the
    stages: of those that it does not write itself, all are made from its own ``forward``.

    Attributes:
        reads: The type of ``Inputs.blocks`` that it reads besides numbers and categories (``image``), or None.
        most_blocks: How many columns of that type it can read.
        costly: Whether encoding a row costs much more than calling an encoder once more: copies of it then leave out
            rows that nobody wants of them on a CPU, instead of being computed at once.
        takes_rows_of_copies: Whether what ``stack`` makes takes rows of its own for each copy, see there.
        reads_links: Whether it reads links of the training rows, see ``linked``: these have to be in memory then.
        inner_widths: Channels of the outputs of all stages but the last, whose output is the features.
    """

    reads: ClassVar[str | None] = None
    most_blocks: ClassVar[int] = 1_000_000
    costly: ClassVar[bool] = False
    takes_rows_of_copies: ClassVar[bool] = False
    reads_links: ClassVar[bool] = False
    inner_widths: Sequence[int] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        copies = {"stack": "_stack_one_by_one", "tables": "tables"}
        faster = {"with_backward": "with_backward", "with_jacobian": "with_jacobian", **copies}
        restore_general(cls, Encoder, faster, of=("forward", "stage", "stage_of_slices", "placed"))

    @classmethod
    def blocks_of(cls, spec: InputSpec) -> tuple[Block, ...]:
        """The blocks of the inputs, which are all of the type that this encoder reads.

        Raises:
            ConfigError: There are none, too many, or others; names the encoders that read them.
        """
        problems = cls.unread({block.name: block.type for block in spec.blocks})
        found = len(spec.blocks) - len(problems)
        if cls.reads is not None and not problems and not 1 <= found <= cls.most_blocks:
            names = ", ".join(f"'{block.name}'" for block in spec.blocks) or "none"
            need = "one" if cls.most_blocks == 1 else "one or more"
            what = f"reads {need} input of type {cls.reads}, and the data have {names}"
            problems.append(Problem("encoder", what, "Choose the columns with data.inputs, or another encoder."))
        if spec.positions != "rows" and cls.reads != "tokens":
            what = "gives features of rows, and some task labels the tokens of its rows"
            problems.append(Problem("encoder", what, "Use encoder=sequence."))
        if problems:
            raise ConfigError(problems)
        return spec.blocks

    @classmethod
    def unread(cls, columns: Mapping[str, str]) -> list[Problem]:
        """A problem for each column that has to be read by an encoder, and by another one than this.

        Args:
            columns: Their types, by name.
        """
        known = get_args(get_type_hints(Block)["type"])
        return [_unread(name, kind) for name, kind in columns.items() if kind in known and kind != cls.reads]

    @classmethod
    def widths_by(cls, options: Mapping[str, Any]) -> Sequence[int]:  # noqa: ARG003
        """Those of ``inner_widths`` that the options of the constructor tell. What a class says holds for it alone."""
        return ()

    @classmethod
    def linked(cls, categories: Sequence[str], options: Mapping[str, Any]) -> list[tuple[str, str]]:  # noqa: ARG003
        """Pairs of categorical columns whose links it reads from ``spec.links``, one ``Links`` for each pair.

        A link is a category of the one column and a category of the other that stand in a training row in which the
        label of some task says that something took place, see ``Kind.affirms``.

        Args:
            categories: The categorical columns.
            options: Those of the constructor.

        Raises:
            ConfigError: They name a column that is not there.
        """
        return []

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Features (B, D) of the rows."""

    def stage(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        """Runs one stage.

        Args:
            index: Which, from 0.
            x: What the stage before put out; None for the first.
            inputs: The rows; a later stage may read them again (a mask, say).

        Shape:
            x (B, channels, ...) -> (B, channels, ...); a stack (copies, B, channels, ...) -> the same.
        """
        if index or x is not None:
            raise IndexError(f"{type(self).__name__} has one stage, got {index}")
        features: Tensor = self(inputs)
        return features

    def stage_of_slices(self, index: int, x: Tensor, inputs: Inputs) -> Tensor:
        """Runs a stage after the first on K slices, as K * B rows unless an encoder overrides it.

        Args:
            index: Which stage.
            x: What the stage before put out.
            inputs: The rows: B that all slices have in common, or K * B.

        Shape:
            x (K, B, channels, ...) -> (K, B, channels, ...).
        """
        rows_given = inputs.numeric.shape[0]  # not len(): that would be one number of rows for ever in an export
        if rows_given != len(x) * x.shape[1]:
            inputs = inputs.rows(torch.arange(rows_given, device=x.device).repeat(len(x)))
        rows: Tensor = self.stage(index, x.flatten(0, 1), inputs).unflatten(0, (len(x), -1))
        return rows

    def placed(self, x: Tensor, inputs: Inputs) -> Tensor:  # noqa: ARG002  where a stage stands at other positions
        """What an inner stage puts out, at the positions on axis -2 that the features stand at: tokens to their rows.

        Shape:
            x (..., positions of the stage, channels) -> (..., B, channels); axes of an image's height and width stay.
        """
        return x

    def positions(self, inputs: Inputs) -> int:
        """For how many positions there are features: for the rows, unless an encoder gives them to tokens."""
        return len(inputs.numeric)

    def places(self, inputs: Inputs, rows: Tensor) -> Tensor:  # noqa: ARG002  where tokens are what has features
        """Which of the positions are those of some rows, in the order in which the rows alone would have them."""
        return rows

    def tables(self) -> list[str]:
        """Names of the parameters that are embeddings of categories, words or tokens.

        Copies of the other layers may have them in common, see ``stack_with_common_tables``: an encoder that has some
        computes its copies in a module of its own kind (``stacked_copy``).
        """
        return []

    def with_backward(self, inputs: Inputs) -> tuple[Tensor, Backward]:
        """Features without a graph, and their backward pass."""
        return by_autograd(self, inputs)

    def with_jacobian(self, inputs: Inputs) -> tuple[Tensor, Backward, Jacobian] | None:  # noqa: ARG002
        """The same, and the gradients of several tasks at once; None for an encoder that leaves them to autograd."""
        return None

    @classmethod
    def stack(cls, encoders: Sequence[Encoder]) -> nn.Module:
        """One module that computes all the encoders at once: inputs to (number of encoders, B, D).

        Its parameters are the encoders' own, stacked on axis 0. This general form runs any encoder under
        ``vmap``; an encoder with a faster batched form overrides it.

        Where the class says ``takes_rows_of_copies``, the module also takes rows of its own for each copy: numeric
        (copies, B, F) and categorical (copies, B, number of columns), without blocks.
        """
        return VmapStack(encoders)

    @classmethod
    def _stack_one_by_one(cls, encoders: Sequence[Encoder]) -> nn.Module:
        """The form for subclasses of an encoder with a ``stack`` of its own: its layers need not run under ``vmap``."""
        return LoopStack(encoders)


class TableEncoder(Encoder):
    """An encoder of numbers and categories, in two steps: what it reads of a row, and layers over that."""

    @property
    @abstractmethod
    def read_dim(self) -> int:
        """Width of what ``read`` gives."""

    @abstractmethod
    def read(self, inputs: Inputs) -> Tensor:
        """What the first layer reads: numbers, and embeddings; (B, read_dim), of copies (copies, B, read_dim)."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Features from what ``read`` gives."""

    def forward(self, inputs: Inputs) -> Tensor:
        return self.encode(self.read(inputs))


@dataclass(frozen=True)
class EncoderMaker:
    """Makes encoders of one class and size, each with a fresh initialisation.

    Args:
        build: An encoder for given inputs and width.
        spec: What the inputs are.
        shared_dim: D, the width of the features.

    Example:
        >>> from mtl_cli.model.encoders.mlp import MLP
        >>> EncoderMaker(MLP, InputSpec(3), 8)()(Inputs(torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64))).shape
        torch.Size([2, 8])
    """

    build: Callable[[InputSpec, int], Encoder]
    spec: InputSpec
    shared_dim: int

    def __call__(self) -> Encoder:
        """A new encoder."""
        return self.build(self.spec, self.shared_dim)


def _unread(name: str, kind: str) -> Problem:
    readers = [known for known in ENCODERS.names() if getattr(ENCODERS.load(known), "reads", None) == kind]
    left_out = f"leave the column out of data.inputs, or by data.exclude=[{name}] if that is all columns"
    hint = f"Use encoder={' or encoder='.join(readers)}, or {left_out}."
    return Problem("encoder", f"does not read column '{name}', an input of type {kind}", hint)


def stacked_copy(encoders: Sequence[Encoder]) -> nn.Module:
    """The first encoder with the parameters of all stacked on axis 0, for layers that compute copies at once."""
    stack = copy.deepcopy(encoders[0])
    for name, parameter in list(stack.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        values = torch.stack([e.get_parameter(name).detach() for e in encoders])
        setattr(stack.get_submodule(owner), leaf, nn.Parameter(values, parameter.requires_grad))
    return stack


def stack_with_common_tables(encoders: Sequence[Encoder]) -> tuple[nn.Module, list[nn.Parameter]]:
    """Copies of an encoder in one module, as ``Encoder.stack`` makes it, that have the first one's tables in common.

    Returns:
        The module, and the tables among its parameters.
    """
    stack, tables = type(encoders[0]).stack(encoders), []
    for name in encoders[0].tables():
        owner, _, leaf = name.rpartition(".")
        table = encoders[0].get_parameter(name)
        tables.append(nn.Parameter(table.detach().clone(), table.requires_grad))
        setattr(stack.get_submodule(owner), leaf, tables[-1])
    return stack, tables


class VmapStack(nn.Module):
    """Copies of one encoder, computed together by ``torch.func.vmap`` over stacked parameters.

    Args:
        encoders: Encoders of one class and size; their values are copied. Buffers must be constants, equal in all.

    Shape:
        Inputs of B rows -> (number of encoders, B, D).
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        super().__init__()
        # The skeleton gives the computation only; kept out of the module tree, so that its values are no parameters.
        self._skeleton = [copy.deepcopy(encoders[0]).to("meta")]
        places = {parameter: i for i, parameter in enumerate(encoders[0].parameters())}
        named = encoders[0].named_parameters(remove_duplicate=False)  # tied weights have several names
        self._places = {name: places[parameter] for name, parameter in named}
        if not self._places:
            what = "has no parameters, and tasks are to have copies of it that differ"
            hint = "Layers in a list belong into an nn.ModuleList; one encoder for all tasks is sharing=hard."
            raise ConfigError(Problem(describe_component(encoders[0]), what, hint))
        self.stacked = nn.ParameterList(
            nn.Parameter(torch.stack([e.get_parameter(name).detach() for e in encoders]), parameter.requires_grad)
            for name, parameter in encoders[0].named_parameters()
        )
        self._constants = {name: f"constant{i}" for i, (name, _) in enumerate(encoders[0].named_buffers())}
        for name, own in self._constants.items():
            value = encoders[0].get_buffer(name)
            if not all(torch.equal(encoder.get_buffer(name), value) for encoder in encoders):
                what = (
                    f"its buffer '{name}' differs between the copies that tasks have of it, which are computed together"
                )
                hint = "Draw it from torch.Generator().manual_seed(0), or give the encoder a `stack` of its own."
                raise ConfigError(Problem(describe_component(encoders[0]), what, hint))
            self.register_buffer(own, value, persistent=False)

    @property
    def encoder(self) -> Encoder:
        """What all copies are, without values."""
        return self._skeleton[0]

    @property
    def kept_out(self) -> list[nn.Module]:
        """What it computes with and has not in its module tree, in the same mode."""
        return [self._skeleton[0].train(self.training)]

    def forward(self, inputs: Inputs) -> Tensor:
        skeleton = self._skeleton[0].train(self.training)
        constants = self._named_constants()

        def one(parameters: dict[str, Tensor]) -> Any:
            return torch.func.functional_call(skeleton, {**constants, **parameters}, (inputs,))

        return self._each(one)

    def stage(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        """Runs one stage of every copy; see ``Encoder.stage``."""
        skeleton = _Stage(self._skeleton[0].train(self.training))
        constants = self._named_constants()

        def one(parameters: dict[str, Tensor], x: Tensor | None = None) -> Any:
            named = {f"encoder.{name}": value for name, value in {**constants, **parameters}.items()}
            return torch.func.functional_call(skeleton, named, (index, x, inputs))

        return self._each(one) if x is None else self._each(one, x)

    def placed(self, x: Tensor, inputs: Inputs) -> Tensor:
        """See ``Encoder.placed``, which reads no parameters."""
        return self._skeleton[0].placed(x, inputs)

    def values_of_one(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters and buffers by the names that the encoder has for them, see ``values_of_one``."""
        own = {**{name: f"stacked.{place}" for name, place in self._places.items()}, **self._constants}
        return {name: values[stacked] for name, stacked in own.items() if stacked in values}

    def _named_constants(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(own) for name, own in self._constants.items()}

    def _each(self, one: Callable[..., Any], *slices: Tensor) -> Tensor:
        features: Tensor = torch.func.vmap(one, randomness="different")(self._named_parameters(), *slices)
        return features

    def _named_parameters(self) -> dict[str, Tensor]:
        """The stacked values by the names that one encoder has for them."""
        return {name: self.stacked[place] for name, place in self._places.items()}


class LoopStack(VmapStack):
    """The same, computed one copy after another."""

    def _each(self, one: Callable[..., Any], *slices: Tensor) -> Tensor:
        parameters = {name: values.unbind(0) for name, values in self._named_parameters().items()}
        copies = range(len(self.stacked[0]))
        own = [{name: values[copy] for name, values in parameters.items()} for copy in copies]
        return torch.stack([one(own[copy], *(given[copy] for given in slices)) for copy in copies])


class _Stage(nn.Module):
    """One stage of an encoder as a call, which is what ``functional_call`` needs."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, index: int, x: Tensor | None, inputs: Inputs) -> Tensor:
        return self.encoder.stage(index, x, inputs)


def values_of_one(stack: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters and buffers of a stack, by the names that one of its encoders has for them."""
    return stack.values_of_one(values) if isinstance(stack, VmapStack) else dict(values)


def known_widths(encoder: type[Encoder], options: Mapping[str, Any]) -> Sequence[int]:
    """Those of the ``inner_widths`` of an encoder that are known before it is made; see ``Encoder.widths_by``."""
    return encoder.widths_by(options) if "widths_by" in vars(encoder) else ()


def stage_widths(encoder: Encoder, shared_dim: int) -> list[int]:
    """Channels of the output of each stage."""
    # Of an encoder that overrides more than the stages, those that it inherits are no parts.
    staged = is_own_form(type(encoder), Encoder, "stage", of=("forward",))
    return [*(encoder.inner_widths if staged else ()), shared_dim]


def run_stages(
    encoder: nn.Module,
    stages: int,
    inputs: Inputs,
    between: Callable[[int, Tensor], Tensor],
    *,
    slices: Inputs | None = None,
) -> Tensor:
    """Runs an encoder or a stack of copies stage by stage, with something between.

    Args:
        encoder: An ``Encoder``, or what its ``stack`` made.
        stages: Their number, as ``stage_widths`` says; one is the whole.
        inputs: The rows.
        between: ``(index, output of that stage)`` to what the next stage reads; after the last stage too.
        slices: ``encoder`` is a single one, and ``between`` gives it slices (K, B, channels, ...) of these rows, see
            ``Encoder.stage_of_slices``.

    Shape:
        Inputs of B rows -> what ``between`` made of the last stage.
    """
    x: Tensor | None = None
    for index in range(stages):
        if stages == 1:
            x = encoder(inputs)
        elif index and slices is not None:
            x = encoder.stage_of_slices(index, x, slices)  # type: ignore[operator]
        else:
            x = encoder.stage(index, x, inputs)  # type: ignore[operator]
        x = between(index, x)
    if x is None:
        raise ValueError("an encoder has at least one stage")
    return x
