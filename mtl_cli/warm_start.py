"""``init_from=RUN``: a new run starts from the weights of another one, whose tasks and data may be others.

What is carried over is what means the same: heads and other parameters of one task by the task's name, what reads the
inputs only if it reads the same columns, everything else by name and shape. Columns that are the same are read as the
other run read them (scaling, bins, categories), since that is what its weights expect. Numbers are the same if all are,
as one layer reads them; so are categories; images and texts are one by one.
"""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtl_cli.build import Data, build_sharing, tasks_with_head
from mtl_cli.data.features import Features, SameColumns
from mtl_cli.errors import ConfigError, Problem, listed
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.ownership import Ownership
from mtl_cli.registry import KINDS
from mtl_cli.report_text import text_table
from mtl_cli.schema import RunConfig
from mtl_cli.spelling import Spellings
from mtl_cli.tasks import Kind
from mtl_cli.trained import TrainedRun
from mtl_cli.types import InputSpec

log = logging.getLogger(__name__)
_HEADS_BLOCK = re.compile(r"heads\.(?:heads\.)?blocks\.\d+\.")  # with products or without
_NUMBERED = re.compile(r"sharing\.\w+\.\d+(\.|$)")
_SHOWN = 8  # names that a message lists
_ANOTHER = "another task"  # spaces are allowed in names, so that the name may be taken: it only has to be one more


@dataclass(frozen=True)
class Entry:
    """A parameter, or the rows of it that one task owns.

    Args:
        name: In a checkpoint; with the task where only some rows are meant.
        shape: Of these rows.
        outcome: ``loaded``, or why not.
    """

    name: str
    shape: tuple[int, ...]
    outcome: str

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Start:
    """What a run started from.

    Args:
        run: The other run's folder, absolute.
        checkpoint: Name of the checkpoint.
        epoch: Epochs that its weights were trained for.
        entries: Every parameter of the new model.
        left: Parameters of the other model that the new one has no place for.
        columns: How the input columns differ; none: they are the same, and read as the other run read them.
        notes: What else the user should know.
    """

    run: str
    checkpoint: str
    epoch: int
    entries: tuple[Entry, ...]
    left: tuple[str, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def loaded(self) -> list[Entry]:
        """What was carried over."""
        return [entry for entry in self.entries if entry.outcome == "loaded"]

    def to_json(self) -> dict[str, Any]:
        """For init.json."""
        return {
            "format": 1, "run": self.run, "checkpoint": self.checkpoint, "epoch": self.epoch,
            "parameters": [{"name": e.name, "shape": list(e.shape), "outcome": e.outcome} for e in self.entries],
            "left": list(self.left), "columns": list(self.columns), "notes": list(self.notes),
        }  # fmt: skip

    def describe(self) -> str:
        """The table of what was loaded, and what was not and why."""
        numbers = sum(entry.numel for entry in self.loaded), sum(entry.numel for entry in self.entries)
        rows = [[entry.name, " x ".join(map(str, entry.shape)) or "1", entry.outcome] for entry in self.entries]
        rows += [[name, "", "absent here"] for name in self.left]
        parts = [
            f"started from {self.run} ({self.checkpoint}, epoch {self.epoch}): {len(self.loaded)} of "
            f"{len(self.entries)} parameters loaded ({numbers[0]:,} of {numbers[1]:,} numbers)",
            text_table(["parameter", "shape", "outcome"], rows),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(parts)


class _Key(NamedTuple):
    """A parameter, or those of its rows that a task owns."""

    name: str
    task: str | None
    number: int  # of several such stretches

    def __str__(self) -> str:
        if self.task is None or self.name.startswith("heads."):
            return self.name
        return f"{self.name} ({self.task})"


def start(origin: TrainedRun, config: RunConfig, data: Data, model: MultiTaskModel) -> Start:
    """Copies into ``model`` what ``origin`` has for it.

    Args:
        origin: The run to start from, on any device.
        config: The new run's configuration.
        data: Its data.
        model: Its model, as initialised.

    Raises:
        ConfigError: Nothing fits.
    """
    names = [task.name for task in data.tasks]
    theirs = dict(_pieces(origin.model, [task.name for task in origin.tasks]))
    ours = dict(_pieces(model, names))
    columns = tuple(data.features.differences(origin.features))
    same = data.features.same_as(origin.features)
    reasons = _Reasons(origin, config, data, model, same if columns else None)
    buffers = dict(model.named_buffers())
    entries: list[Entry] = []
    for key, values in ours.items():
        why = reasons.against(key) or _against_shape(values, theirs.get(key))
        if why is None and key.name in buffers:
            why = _against_buffer(key.name, entries)
        if why is None:
            with torch.no_grad():
                values.copy_(theirs[key])
        entries.append(Entry(str(key), tuple(values.shape), why or "loaded"))
    outcomes = dict(zip(ours, entries, strict=True))
    missing = {key.task for key, entry in outcomes.items() if entry.outcome != "loaded"}
    label_notes = _rescale(
        origin, data,
        {key.name: values for key, values in ours.items() if outcomes[key].outcome == "loaded"},
        complete=[] if None in missing else [name for name in names if name not in missing],
    )  # fmt: skip
    left = tuple(str(key) for key in theirs if key not in ours)
    found = Start(
        str(origin.folder.path.resolve()), origin.checkpoint, origin.epoch, tuple(entries), left, columns,
        (*_column_notes(data.features, columns, same), *label_notes, *origin.notes),
    )  # fmt: skip
    if not found.loaded:
        why = "; ".join(dict.fromkeys(entry.outcome for entry in entries))
        what = f"nothing of {origin.folder.path} fits this model ({why})"
        raise ConfigError(Problem("init_from", what, "Choose another run, or leave init_from out."))
    if config.freeze:
        _warn_of_frozen(model, entries)
    return found


class _Reasons:
    """Why parameters that are alike by name and shape must not be carried over."""

    def __init__(
        self, origin: TrainedRun, config: RunConfig, data: Data, model: MultiTaskModel, same: SameColumns | None
    ) -> None:
        self._tasks = {task.name: task.kind for task in origin.tasks}
        self._kinds = {task.name: task.kind for task in data.tasks}
        same_tasks = list(self._tasks) == list(self._kinds)
        self._by_tasks = set() if same_tasks else _depend_on_tasks(config, data)
        self._by_columns = set() if same is None else _depend_on_columns(config, data, same)
        there, here = origin.config.encoder.name, config.encoder.name
        self._encoder = None if there == here else f"encoder {there} there, {here} here"
        self._counts_alike = model.sharing.numbered() == origin.model.sharing.numbered()

    def against(self, key: _Key) -> str | None:
        """The reason, if there is one."""
        if key.task is not None and key.task not in self._tasks:
            return f"no task '{key.task}' there"
        if key.name.startswith("heads.") and key.task is not None:
            return _other_meaning(self._tasks[key.task], self._kinds[key.task])
        if self._encoder is not None:
            return self._encoder
        if key.name in self._by_columns:
            return "reads other columns"
        if not self._counts_alike and _NUMBERED.match(key.name):
            return "the number in its name counts other parts there"
        return "depends on all tasks, and they are others" if key.name in self._by_tasks else None


def _pieces(model: MultiTaskModel, names: Sequence[str]) -> Iterator[tuple[_Key, Tensor]]:
    """Every parameter, then every buffer, of a checkpoint by what it means: rows of a task by the task's name."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    counts: dict[tuple[str, str | None], int] = {}
    for parameter, task, first, stop in model.rows_of_tasks():
        name, owner = known[id(parameter)], None if task is None else names[task]
        if owner is not None and (block := _HEADS_BLOCK.match(name)):  # which one depends on the other tasks
            name = f"heads.{owner}.{name[block.end() :]}"
        number = counts.setdefault((name, owner), 0)
        counts[name, owner] += 1
        yield _Key(name, owner, number), parameter.data[first:stop] if parameter.dim() else parameter.data
    for name, value in model.state_dict().items():
        if name not in known.values():
            yield _Key(name, None, 0), value


def _against_shape(ours: Tensor, theirs: Tensor | None) -> str | None:
    if theirs is None:
        return "absent there"
    if ours.shape != theirs.shape:
        there, here = (" x ".join(map(str, tensor.shape)) for tensor in (theirs, ours))
        return f"shape {there} there, {here} here"
    return None


def _against_buffer(name: str, parameters: Sequence[Entry]) -> str | None:
    """Why a buffer must not be carried over: it says how the parameters beside it came to be what they are."""
    home = name.rpartition(".")[0] + "."
    left = any(entry.outcome != "loaded" for entry in parameters if entry.name.startswith(home))
    return "belongs to parameters that are not loaded" if left else None


def _other_meaning(there: Kind, here: Kind) -> str | None:
    """Why outputs of one task are not those of a task of the same name."""
    if there.meaning() == here.meaning():
        return None
    if type(there) is not type(here):
        return f"kind {_name(there)} there, {_name(here)} here"
    if not _same_classes(there.classes, here.classes):
        return f"other classes there: {listed(there.classes, _SHOWN)}"
    respelt = copy.copy(here)
    respelt.classes = there.classes
    return None if there.meaning() == respelt.meaning() else "other outputs there"


def _name(kind: Kind) -> str:
    return KINDS.name_of(type(kind)) or type(kind).__name__


def _same_classes(there: Sequence[str], here: Sequence[str]) -> bool:
    """Whether the classes are the same, each perhaps in another spelling."""
    spelt = Spellings(there).find([label for label in here if label not in there])
    return [spelt.get(label, label) for label in here] == list(there)


def _depend_on_columns(config: RunConfig, data: Data, same: SameColumns) -> set[str]:
    """Parameters of the sharing architecture that have another shape where the inputs that are not the same are others.

    Each is by name what it is in the other run only if it reads nothing else there: blocks have the same places.
    """
    spec, own = data.spec, [block for block in data.spec.blocks if block.name not in same.blocks]
    others = []
    if not same.numeric:
        others += [
            replace(spec, numeric_dim=spec.numeric_dim + 1),
            replace(spec, edges=tuple((column, edges[:-1]) for column, edges in spec.edges)),
            replace(spec, numeric_dim=spec.numeric_dim + 1, edges=(*spec.edges, (spec.numeric_dim, (0.0, 1.0)))),
        ]
    if not same.categorical:
        others += [
            replace(spec, categories=tuple(size + 1 for size in spec.categories)),
            replace(spec, categories=(*spec.categories, 3), missing=(*spec.missing, False)),
        ]
    if not same.every_block:
        others += [
            replace(spec, blocks=tuple(replace(b, ids=b.ids + 1) if b in own and b.ids else b for b in spec.blocks)),
            replace(spec, blocks=tuple(_one_more_channel(b) if b in own and not b.ids else b for b in spec.blocks)),
            replace(spec, blocks=(*spec.blocks, *(replace(b, name=f"{b.name} again") for b in spec.blocks))),
        ]
    names = [task.name for task in data.tasks]
    return {name for other in others if other != spec for name in _changed(config, data, other, names)}


def _one_more_channel(block: Any) -> Any:
    return replace(
        block, shape=(*block.shape[:-1], block.shape[-1] + 1), mean=(*block.mean, 0.0), std=(*block.std, 1.0)
    )


def _depend_on_tasks(config: RunConfig, data: Data) -> set[str]:
    """Parameters that one more task would change in more than a number of rows for each task."""
    names = [task.name for task in data.tasks]
    return _changed(config, data, data.spec, [*names, _ANOTHER], per_task=len(tasks_with_head(config, names)))


def _changed(
    config: RunConfig, data: Data, spec: InputSpec, names: Sequence[str], per_task: int | None = None
) -> set[str]:
    with torch.random.fork_rng(devices=[]):
        ours = build_sharing(config, data.spec, [task.name for task in data.tasks])
        try:
            other = build_sharing(config, spec, names)
        except ConfigError:  # there are no such inputs for this encoder
            return set()
    prefix, shapes = "sharing.", {name: p.shape for name, p in other.named_parameters()}
    by_rows = {id(owned.parameter) for owned in ours.rows_of_tasks() if owned.task is not None} if per_task else set()
    changed = set()
    for name, parameter in ours.named_parameters():
        expected = parameter.shape
        if per_task and id(parameter) in by_rows:
            expected = torch.Size([expected[0] // per_task * (per_task + 1), *expected[1:]])
        if shapes.get(name) != expected:
            changed.add(prefix + name)
    return changed


def _warn_of_frozen(model: MultiTaskModel, entries: Sequence[Entry]) -> None:
    """Tells of parameters that were not carried over and are not trained either: noise that stays."""
    trained: dict[int, list[Ownership]] = {}
    for part in model.trained():
        trained.setdefault(id(part.parameter), []).append(part)
    stay = [
        f"{entry.name} ({entry.outcome})"
        for entry, owned in zip(entries, model.rows_of_tasks(), strict=False)  # buffers come last, and are of nobody
        if entry.outcome != "loaded" and not any(map(owned.overlaps, trained.get(id(owned.parameter), ())))
    ]
    if stay:
        what = "freeze: these stay as initialised, since they are frozen and were not loaded: %s"
        log.warning(what, listed(stay, _SHOWN))


def _column_notes(features: Features, columns: Sequence[str], same: SameColumns) -> list[str]:
    notes = ["the input columns are read as in that run: scaling, bins and categories of its training rows."]
    if columns:
        parts = ((features.numeric, same.numeric), (features.categorical, same.categorical))
        read = [*(column.name for part, alike in parts if alike for column in part), *same.blocks]
        notes = [f"other input columns than in that run: {listed(columns, _SHOWN, '; ')}."]
        notes += [f"read as in that run: {listed(read, _SHOWN)}."] if read else []
    known = {name: size for name, size in features.vocabularies().items() if name in same.blocks}
    return notes + [
        f"column '{name}': of words and parts of words the {size:,} of its training rows are known, and no others."
        for name, size in known.items()
    ]


def _rescale(origin: TrainedRun, data: Data, loaded: Mapping[str, Tensor], complete: Sequence[str]) -> list[str]:
    """Makes heads that were carried over predict what they did, where labels are scaled by other rows now.

    Args:
        origin: The run that they are of.
        data: The new data.
        loaded: What was carried over; changed in place.
        complete: The tasks that have all that their head reads from that run, too.

    Returns:
        Notes on it.
    """
    before = {task.name: task.kind for task in origin.tasks}
    same: list[str] = []
    heads_only: list[str] = []
    others: list[str] = []
    for name, kind in ((task.name, task.kind) for task in data.tasks):
        weight, bias = (loaded.get(f"heads.{name}.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None:
            continue
        found = kind.from_scale_of(before[name])
        if found is None:
            others.append(name)
        elif found != (1.0, 0.0):
            weight.mul_(found[0])
            bias.mul_(found[0]).add_(found[1])
            (same if name in complete else heads_only).append(name)
    what, notes = "are scaled by the new training rows", []
    for tasks, so in (
        (same, ", and the heads with them: they predict what they did."),
        (heads_only, ", and the heads with them; not all that these read was loaded."),
        (others, ", not as in that run."),
    ):
        if tasks:
            notes.append(f"the labels of {', '.join(tasks)} {what}{so}")
    return notes
