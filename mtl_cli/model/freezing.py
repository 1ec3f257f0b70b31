"""Parameters that are not trained: which ones a pattern means, and modules that then keep their statistics."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence

from torch import nn

from mtl_cli.errors import ConfigError, Problem, listed
from mtl_cli.model.encoders.base import Encoder, VmapStack
from mtl_cli.model.ownership import NamedRows, Ownership, named_rows

#: What a pattern may be besides a name: all that no single task owns, rows of parameters too, and all of every encoder.
WORDS = ("shared", "encoder")
_SHOWN = 20  # names that a message lists


def freeze(model: nn.Module, owners: Iterable[Ownership], patterns: Sequence[str]) -> set[NamedRows]:
    """Takes parameters out of training: they ask for no gradient, so that no optimizer ever has them.

    Args:
        model: The model.
        owners: Who owns its parameters; complete.
        patterns: ``shared``, ``encoder``, or what stands in a parameter's name between dots (``layers.0``, ``heads``),
            with ``*`` and ``?`` for any characters.

    Returns:
        Of parameters that are frozen in part: the rows that are. Such parameters ask for a gradient as others do; who
        trains them must leave these rows alone.

    Raises:
        ConfigError: A pattern matches nothing, or nothing is left to train; names what there is.

    Example:
        >>> from mtl_cli.model.ownership import shared, stacked
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
        >>> first, last = model
        >>> sorted(freeze(model, [*shared(first.parameters()), *stacked(last.parameters(), [None, 0])], ["shared"]))
        [NamedRows(name='1.bias', start=0, stop=1), NamedRows(name='1.weight', start=0, stop=1)]
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """
    names, parts = dict(model.named_parameters()), list(owners)
    frozen = frozen_rows(model, parts, patterns)
    trained = {owned.parameter for owned in not_frozen(model, parts, frozen)}
    for parameter in names.values():
        if parameter not in trained:
            parameter.requires_grad_(False)
    return {rows for rows in frozen if names[rows.name] in trained}


def not_frozen(model: nn.Module, owners: Sequence[Ownership], frozen: Collection[NamedRows]) -> list[Ownership]:
    """The owners of all rows but those that are ``frozen``."""
    named = named_rows(owners, dict(model.named_parameters()))
    return [owned for owned, rows in zip(owners, named, strict=True) if rows not in frozen]


def frozen_rows(model: nn.Module, owners: Iterable[Ownership], patterns: Sequence[str]) -> set[NamedRows]:
    """What patterns take out of training, of whole parameters and of parts; it stays as it is. See ``freeze``.

    Raises:
        ConfigError: As ``freeze``.
    """
    names = dict(model.named_parameters())
    parts = dict(zip(named_rows(owners := list(owners), names), owners, strict=True))
    encoders = _of_encoders(model)
    words = {
        "shared": {rows for rows, owned in parts.items() if owned.task is None},
        "encoder": {rows for rows, owned in parts.items() if id(owned.parameter) in encoders},
    }
    known = [word for word, meant in words.items() if meant]
    problems: list[Problem] = []
    frozen: set[NamedRows] = set()
    for pattern in patterns:
        expression = re.compile(rf"(?:.*\.)?{fnmatch.translate(pattern)[:-2]}(?:\..*)?\Z", re.DOTALL)
        found = {rows for rows in parts if expression.match(rows.name)} | words.get(pattern, set())
        if not found and re.match(r"heads\.(?!blocks)", pattern):  # as other places name the head of a task
            what = f"'{pattern}' names one head: heads of tasks are computed together and are frozen together"
            problems.append(Problem("freeze", what, "Write freeze=[heads]."))
        elif not found:
            problems.append(Problem("freeze", f"'{pattern}' matches no parameter", _hint(pattern, list(names), known)))
        frozen |= found
    trained = {rows.name for rows in parts if rows not in frozen}
    if not problems and patterns and not trained:
        what = f"leaves nothing to train: all {len(names)} parameters are frozen, got {list(patterns)}"
        problems.append(Problem("freeze", what, "Leave the heads out of it, as in freeze=[encoder]."))
    if problems:
        raise ConfigError(problems)
    return frozen


def frozen_statistics(model: nn.Module) -> list[nn.Module]:
    """Modules that must stay as they are in training: frozen ones that keep statistics of what they have seen.

    A module is frozen if it, or one around it, has parameters and all of them are frozen. Statistics are buffers that
    are part of a checkpoint. Dropout and augmentation have none, and go on.
    """
    found: dict[int, nn.Module] = {}
    for outer in model.modules():
        parameters = list(outer.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            found |= {id(inner): inner for inner in outer.modules() if _keeps_statistics(inner)}
    return list(found.values())


def _keeps_statistics(module: nn.Module) -> bool:
    """Whether there are some in the module itself, or in what it computes with and has not in its module tree."""
    persistent = {name for name, _ in module.named_buffers(recurse=False)} - module._non_persistent_buffers_set
    kept_out = (part for whole in getattr(module, "kept_out", ()) for part in whole.modules())
    return bool(persistent) or any(map(_keeps_statistics, kept_out))


def _of_encoders(model: nn.Module) -> set[int]:
    encoders = [module for module in model.modules() if isinstance(module, Encoder | VmapStack)]
    return {id(parameter) for module in encoders for parameter in module.parameters()}


def _hint(pattern: str, names: Sequence[str], words: Sequence[str]) -> str:
    parts = {
        ".".join(levels[i:j])
        for levels in (n.split(".") for n in names)
        for i in range(len(levels))
        for j in range(i + 1, len(levels) + 1)
    }
    near = difflib.get_close_matches(pattern, sorted(parts.union(words)), n=1, cutoff=0.6)
    known = f"Parameters: {listed(names, _SHOWN)}{'; or ' if words else ''}{', '.join(words)}."
    return f"Did you mean '{near[0]}'? {known}" if near else known
