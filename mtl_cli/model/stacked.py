"""Models of several runs as one: each with weights of its own, on rows of its own."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.heads import Heads
from mtl_cli.model.model import MultiTaskModel
from mtl_cli.model.sharing.hard import HardSharing


def likeness(model: MultiTaskModel) -> Hashable | None:
    """Equal for models that ``stack_models`` can compute together; None for a model that it cannot take.

    Example:
        >>> likeness(MultiTaskModel(4, [1, 2], 8)) == likeness(MultiTaskModel(4, [1, 2], 8))
        True
        >>> likeness(MultiTaskModel(4, [1, 2], 8)) == likeness(MultiTaskModel(4, [1, 2], 9))
        False
    """
    sharing = model.sharing
    if type(sharing) is not HardSharing or sharing._compiled_call_impl is not None:
        return None
    heads = model.heads if isinstance(model.heads, Heads) and model.heads.written_out else None
    encoder = sharing.encoder.likeness() if type(sharing.encoder) is MLP else None
    return None if encoder is None or heads is None else (encoder, tuple(heads.output_dims))


def smallest_product(model: MultiTaskModel) -> int:
    """Multiplications for each row in the smallest matrix product of a step, of a model that has a likeness.

    0 if a layer is one number wide: alone it is no matrix, but a vector, whose products are added up otherwise.

    Example:
        >>> smallest_product(MultiTaskModel(4, [1, 2], 8)), smallest_product(MultiTaskModel(1, [1, 2], 8))
        (24, 0)
    """
    encoder, heads = model.sharing.get_submodule("encoder"), model.heads
    shapes = [layer.get_parameter("weight").shape for layer in encoder.get_submodule("layers").children()]
    if len(encoder.get_buffer("offsets")):  # of the first layer the columns that read categories
        categories = len(encoder.get_buffer("offsets")) * encoder.get_parameter("embedding").shape[1]
        shapes.append(torch.Size((shapes[0][0], categories)))
    if any(1 in shape for shape in shapes):
        return 0
    shapes += [block.get_parameter("weight").shape for block in heads.get_submodule("blocks").children()]
    return min(shape.numel() for shape in shapes)


def stack_models(
    models: Sequence[MultiTaskModel],
    places: Mapping[nn.Parameter, slice],
    values: Tensor,
    gradient: Tensor,
    generators: Sequence[torch.Generator],
) -> MultiTaskModel:
    """One model that computes what R models that are alike do, each with its row of ``values``.

    Its ``sharing.with_backward`` takes Inputs with a leading axis R and gives features (R, B, D), its
    ``heads.with_backward`` outputs (R, O, B); their backward passes add to ``gradient``.

    Args:
        models: R models in training.
        places: Where in a row each parameter of the first model is.
        values: (R, P), all parameters.
        gradient: (R, P).
        generators: What each model draws its dropout from.
    """
    stack = copy.deepcopy(models[0])
    for name, parameter in models[0].named_parameters():
        owner, _, leaf = name.rpartition(".")
        place, shape = places[parameter], (len(models), *parameter.shape)
        rows = nn.Parameter(values[:, place].view(shape))
        rows.grad = gradient[:, place].view(shape)
        setattr(stack.get_submodule(owner), leaf, rows)
    encoders = [model.sharing.get_submodule("encoder") for model in models]
    stack.sharing.get_submodule("encoder").side_by_side(encoders, generators)  # type: ignore[operator]
    return stack.train()
