"""The data of a run, and all that is decided from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from mtl_cli.build.feedback import copied_notes, feedback_roles, refuse_foreign_inputs
from mtl_cli.build.labels import (
    Fitted,
    affirmed,
    assemble_labels,
    build_kind,
    build_task,
    fit_task,
    plain_state,
)
from mtl_cli.build.sources import read_rows
from mtl_cli.data import AnyTable, Features, Splits, Table
from mtl_cli.data.batches import Origins, Ranking, Rows, TokenLabels
from mtl_cli.data.collecting import collecting
from mtl_cli.data.combine import SOURCE_COLUMN, own_column_notes
from mtl_cli.data.file_states import file_states
from mtl_cli.data.labels import label_roles
from mtl_cli.data.mixing import Mixing
from mtl_cli.data.negatives import Negatives
from mtl_cli.data.splits import torn_groups
from mtl_cli.data.stored import StoredTable
from mtl_cli.data.streaming import Stream, StreamedRows, open_stream
from mtl_cli.errors import ConfigError, DataError, Problem, UserError, listed
from mtl_cli.model.encoders import Encoder
from mtl_cli.registry import ENCODERS, from_outside
from mtl_cli.schema import EVERY_COLUMN, DataOptions, RunConfig, input_entries
from mtl_cli.tasks import Kind, LabelCounts, Task, first_columns, target_columns
from mtl_cli.tasks.ranking import ranking_metrics
from mtl_cli.types import Inputs, InputSpec, Labels

# Of data.json: another number if what stands in it changes its meaning.
DATA_FORMAT = 1


@dataclass(frozen=True)
class Data:
    """The data of a run, ready for training.

    Args:
        table: The rows as read, or those of the files that they stay in.
        features: How inputs were made.
        splits: Row indices of each split.
        tasks: K tasks with fitted kinds, in training order: tasks that are alike are neighbours.
        inputs: Inputs of all rows, or the way to them.
        labels: Of all rows.
        notes: What the user should know.
        tokens: Labels of the tokens of all rows, if some task has such; in ``labels`` those of that task are missing.
        rankings: The lists that the rows of a task form, by the task's position.
        made: Rows by split and device.
        storage: Where the inputs are, in words, if that was to be decided.
        files: Size and time of the last change of the files that the sources name, as they were before they were read.
    """

    table: AnyTable
    features: Features
    splits: Splits
    tasks: tuple[Task, ...]
    inputs: Inputs | Stream
    labels: Labels
    notes: tuple[str, ...]
    tokens: TokenLabels | None = None
    rankings: Mapping[int, Ranking] = field(default_factory=dict)
    made: dict[tuple[str, torch.device], Rows] = field(default_factory=dict, repr=False)
    storage: str = ""
    files: Mapping[str, list[int]] = field(default_factory=dict)

    @property
    def spec(self) -> InputSpec:
        """What an encoder has to read, and for which positions it gives features."""
        return model_spec(self.features, self.tasks)

    def targets(self, task: int, split: str) -> np.ndarray:
        """The targets (n, T) of a task in a split, of each row or token."""
        return self.targets_of(task, getattr(self.splits, split))

    def targets_of(self, task: int, index: np.ndarray) -> np.ndarray:
        """The targets (n, T) of a task for some rows, of each row or token."""
        if self.tokens is None or not self.tasks[task].kind.per_token:
            labels, places = self.labels, index
        else:
            labels, places = self.tokens.labels, self._tokens_of(index)
        targets: np.ndarray = labels.targets.numpy()[places, self._target_columns[task]]
        return targets

    def labelled(self, split: str) -> np.ndarray:
        """(P, K) bool: whether a row of a split, or a token of those after the rows, has a label for each task."""
        index, firsts = getattr(self.splits, split), first_columns([task.kind for task in self.tasks])
        parts = [self.labels.targets.numpy()[index]]
        if self.tokens is not None:
            parts.append(self.tokens.labels.targets.numpy()[self._tokens_of(index)])
        labelled: np.ndarray = ~np.isnan(np.concatenate(parts)[:, firsts])
        return labelled

    @cached_property
    def label_counts(self) -> dict[str, dict[str, LabelCounts]]:
        """The labels of each task, by its name, in each split."""
        return {
            task.name: {split: task.kind.counts(self.targets(i, split)) for split in ("train", "val", "test")}
            for i, task in enumerate(self.tasks)
        }

    @cached_property
    def _target_columns(self) -> list[slice]:
        return target_columns([task.kind for task in self.tasks])

    def rows(self, split: str, device: torch.device) -> Rows:
        """The rows of ``train``, ``val`` or ``test`` on a device; those that were made already if there are any."""
        if (split, device) not in self.made:
            self.made[split, device] = self._make_rows(split, device)
        return self.made[split, device]

    def _make_rows(self, split: str, device: torch.device) -> Rows:
        index = getattr(self.splits, split)
        places, firsts = torch.from_numpy(index), first_columns([task.kind for task in self.tasks])
        labels, tokens = self.labels.rows(places), self.tokens
        origins = Origins(self.table.sources, self.table.source_of_rows()[index])
        if tokens is not None:
            tokens = tokens._replace(labels=tokens.labels.rows(torch.from_numpy(self._tokens_of(index))))
        rankings = {task: replace(ranking, groups=ranking.groups[index]) for task, ranking in self.rankings.items()}
        if not isinstance(self.inputs, Stream):
            negatives = self._negatives(self.inputs, index) if split == "train" else ()
            return Rows(self.inputs.rows(places), labels, device, origins, tokens, rankings, negatives, firsts)
        if split in self.inputs.held:
            return Rows(self.inputs.held[split], labels, device, origins, rankings=rankings, firsts=firsts)
        return StreamedRows(self.inputs, index, labels, device, origins, rankings, firsts)

    def _tokens_of(self, index: np.ndarray) -> np.ndarray:
        if self.tokens is None or isinstance(self.inputs, Stream):
            raise ValueError("no task labels tokens")
        places: np.ndarray = self.inputs.ragged(self.tokens.block).places(torch.from_numpy(index)).numpy()
        return places

    def _negatives(self, inputs: Inputs, index: np.ndarray) -> list[Negatives]:
        """The drawn rows among the training rows ``index``."""
        names = [column.name for column in self.features.categorical]
        codes, sources = inputs.categorical.numpy()[index], self.table.source_of_rows()
        found = []
        for drawn in self.table.drawn:
            own = sources[index] == sources[drawn.first]
            users = np.where(own, codes[:, names.index(drawn.user)], -1)
            rows = np.flatnonzero((index >= drawn.first) & (index < drawn.first + drawn.rows))
            column = names.index(drawn.item)
            found.append(Negatives.of(rows, column, users, codes[:, column]))
        return found

    def state(self, config: RunConfig) -> dict[str, Any]:
        """All decisions that were made from the data, as plain JSON: what later commands read instead of the data."""
        return {
            "format": DATA_FORMAT,
            "features": self.features.to_json(),
            "tasks": {
                task.name: {
                    "kind": config.tasks[task.name].kind.name,
                    "target": config.tasks[task.name].targets(task.name),
                    "state": plain_state(task.kind),
                }
                for task in self.tasks
            },
            "splits": {name: len(getattr(self.splits, name)) for name in ("train", "val", "test")},
            "split_method": self.splits.method,
            "fingerprint": self.table.fingerprint,
            "converted": list(self.table.converted),
            "folder": str(Path.cwd()),
            "streamed": isinstance(self.inputs, Stream),
            "lacking": {
                source: [column for column in self.features.optional if source in self.table.lacking(column)]
                for source in self.table.sources
            },
        }


def model_spec(features: Features, tasks: Sequence[Task]) -> InputSpec:
    """What an encoder has to read, and for which positions it gives features: rows, tokens, or both."""
    return replace(features.spec, positions=_positions(task.kind for task in tasks))


def _positions(kinds: Iterable[Kind]) -> Literal["rows", "tokens", "both"]:
    per_token = {kind.per_token for kind in kinds}
    if True not in per_token:
        return "rows"
    return "both" if False in per_token else "tokens"


def build_data(config: RunConfig, columns: Features | None = None) -> Data:
    """Reads the data and decides everything that depends on them.

    Args:
        config: The configuration.
        columns: Input columns of another run: those of the data that are the same are read as there.

    Raises:
        DataError: The files or columns are not as the configuration says.
        ConfigError: ``input_dim`` is not the width of the data.
    """
    encoder: type[Encoder] = ENCODERS.load(config.encoder.name)
    if not from_outside(encoder):  # which may read them all the same
        _refuse_unread(encoder, config.data)
    files = file_states(config.sources)
    table, splits, storage = read_rows(config)
    problems: list[Problem] = []
    fitted: dict[str, Fitted] = {}
    for name, task in config.tasks.items():
        with collecting(problems, f"tasks.{name}", UserError):
            fitted[name] = fit_task(name, task, table, splits)
    roles = _reserved(config, table)
    reserved = {column: role for column, role in roles.items() if column not in config.data.allow_inputs}
    features, as_numbers = None, table
    with collecting(problems):
        features, as_numbers = Features.fit_reading(table, _with_source(config.data), splits.train, reserved)
    if problems or features is None:
        raise DataError(problems)
    if columns is not None:
        features = features.read_as(columns)
    if config.input_dim not in (None, features.input_dim):
        what = f"is {config.input_dim}, but the data give {features.input_dim} ({features.describe_width()})"
        raise ConfigError(Problem("input_dim", what, "Write input_dim=null to take it from the data."))
    if not from_outside(encoder):
        encoder.blocks_of(replace(features.spec, positions=_positions(own.kind for own in fitted.values())))
    pairs = encoder.linked([column.name for column in features.categorical], config.encoder.options)
    refuse_foreign_inputs(table, features)
    inputs, notes, unreadable = read_inputs(config, as_numbers, features, {"val": splits.val})
    if isinstance(inputs, Stream):
        held = "validation rows in memory" if "val" in inputs.held else "validation rows too"
        storage = f"{storage}; at least {inputs.buffer:,} rows are shuffled together, {held}"
    elif pairs:
        rows = splits.train[affirmed(fitted.values(), splits.train)]
        features = features.with_links(pairs, inputs.categorical.numpy()[rows])
    notes = [*own_column_notes(table, features.read_of_lacking()), *notes]
    names = sorted(fitted, key=lambda name: (config.tasks[name].common.hidden, *_likely_neighbours(fitted[name].kind)))
    tasks = tuple(build_task(config, name, fitted[name].kind) for name in names)
    labels, tokens = assemble_labels(names, fitted, config, table, features.spec, unreadable)
    rankings = find_rankings(config, table, names)
    data = Data(table, features, splits, tasks, inputs, labels, (), tokens, rankings, storage=storage, files=files)
    _refuse_untaught(config, data)
    rounded = {name: own.rounded for name, own in fitted.items() if own.rounded is not None}
    notes += [*rounded.values(), *_label_notes(config, data, rounded)]
    notes += copied_notes(config, table, features)
    notes += _ranking_notes(config, data)
    notes += _chain_notes(config, fitted)
    allowed = [column for column in config.data.allow_inputs if column in roles]
    notes += [
        f"column '{column}' may be an input although it is the {roles[column].removeprefix('the ')}."
        for column in allowed
    ]
    targets = labels.targets.numpy()[np.setdiff1d(splits.train, unreadable)]  # the others are told already
    unlabelled = 0 if tokens is not None else int(np.isnan(targets).all(1).sum())
    if unlabelled:
        rows = "1 training row has" if unlabelled == 1 else f"{unlabelled} training rows have"
        notes = [*notes, f"{rows} no label for any task: {'it teaches' if unlabelled == 1 else 'they teach'} nothing."]
    return replace(data, notes=(*table.notes, *splits.notes, *features.notes, *notes))


def _likely_neighbours(kind: Kind) -> tuple[str, str, str]:
    """Sorts tasks that are computed together, in the losses or in the heads, next to each other."""
    return type(kind).__name__, str(kind.num_outputs), str(kind.group_key())


def _refuse_unread(encoder: type[Encoder], options: DataOptions) -> None:
    """Refuses inputs whose declared types the encoder does not read, before any file is read.

    Raises:
        ConfigError: There are some.
    """
    entries, _ = input_entries(options.inputs)
    problems = encoder.unread({entry.name: entry.type for entry in entries if entry.type is not None})
    if problems:
        raise ConfigError(problems)


def _with_source(options: DataOptions) -> DataOptions:
    """With the source among the inputs where it is to be one: what names the others need not name it too."""
    entries, _ = input_entries(options.inputs)
    if not options.source_as_input or any(entry.name == EVERY_COLUMN for entry in entries):
        return options
    given = [options.inputs] if isinstance(options.inputs, str) else options.inputs
    return replace(options, inputs=[*given, SOURCE_COLUMN])


def read_inputs(
    config: RunConfig, table: AnyTable, features: Features, hold: Mapping[str, np.ndarray]
) -> tuple[Inputs | Stream, list[str], list[int]]:
    """The inputs of all rows, or the way to them; what the user should know; the rows that have none.

    Args:
        config: The configuration.
        table: N rows.
        features: How inputs are made.
        hold: Rows of splits whose inputs are wanted in memory if the others stay in their files, and if they fit.

    Raises:
        DataError: A cell does not fit.
    """
    skip = config.data.image.on_bad == "skip"
    if isinstance(table, StoredTable):
        return open_stream(table, features, config.data.shuffle_buffer, hold, skip=skip)
    if not isinstance(table, Table):
        raise TypeError(type(table).__name__)
    unreadable: list[int] | None = [] if skip else None
    inputs, notes = features.transform(table, unreadable=unreadable)
    return inputs, notes, unreadable or []


def find_rankings(config: RunConfig, table: AnyTable, names: Sequence[str]) -> dict[int, Ranking]:
    """The lists that the rows of each task with ``ranking`` form, by the position of the task in ``names``.

    A list is the rows of one source with one value in the group's column; rows without a value are in none.
    """
    rankings = {}
    for i, name in enumerate(names):
        options = config.tasks[name].common.ranking
        if options is not None:
            numbers = (table.values(options.group).rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy()
            lists = numbers + table.source_of_rows() * (numbers.max(initial=0) + 1)
            rankings[i] = Ranking(options.k, np.where(numbers < 0, -1, lists))
    return rankings


def build_mixing(config: RunConfig, train: Rows) -> Mixing:
    """How the training rows of the sources are mixed.

    Raises:
        ConfigError: A source would never be seen.
    """
    data = config.data
    mixing = Mixing(data.mixing, data.temperature, data.anneal_epochs, data.epoch)
    counts = mixing.counts(np.array([len(own) for own in train.by_source()]), 0)
    unseen = [name for name, count in zip(train.origins.names, counts, strict=True) if count == 0]
    if unseen:
        what = f"is {data.epoch}, which leaves no row for source {', '.join(unseen)} in an epoch"
        raise ConfigError(Problem("data.epoch", what, "Give more rows, or another data.mixing."))
    return mixing


def load_fitted(config: RunConfig, state: Mapping[str, Any]) -> tuple[Features, tuple[Task, ...]]:
    """The features and tasks, in training order, that ``Data.state`` described.

    Raises:
        KeyError, TypeError, ValueError: It is something else.
    """
    if set(state["tasks"]) != set(config.tasks):
        raise ValueError(f"its tasks are {', '.join(state['tasks'])}, those of config.yaml {', '.join(config.tasks)}")
    tasks = []
    for name, saved in state["tasks"].items():
        kind = build_kind(config.tasks[name])
        kind.load_state(saved["state"])
        tasks.append(build_task(config, name, kind))
    return Features.from_json(state["features"]), tuple(tasks)


def _reserved(config: RunConfig, table: AnyTable) -> dict[str, str]:
    """Columns that are something else than inputs."""
    named = {entry.name for entry in input_entries(config.data.inputs)[0]}
    names = [column for column, kind in table.types.items() if kind == "name" and column not in named]
    roles: dict[str | None, str] = {**dict.fromkeys(names, "the name of a row"), config.data.id: "the id"}
    for source in config.sources.values():
        roles |= {source.split.column: "the split column", source.split.group: "the group of the split"}
    reserved = {column: role for column, role in roles.items() if column is not None}
    for name, task in {**config.tasks, **config.left_out}.items():
        ranking = task.common.ranking
        # a list's number says nothing; a user that makes the lists is an input if it is named
        if ranking is not None and ranking.group not in named:
            reserved.setdefault(ranking.group, f"lists of task '{name}'")
    for column, role in feedback_roles(table).items():
        if column not in named:
            reserved.setdefault(column, role)
    tasks = {name: (task.targets(name), task.common) for name, task in {**config.tasks, **config.left_out}.items()}
    return {**reserved, **label_roles(tasks)}


def _refuse_untaught(config: RunConfig, data: Data) -> None:
    """Finds tasks without a label in training, whose scores and predictions would be those of an untrained head.

    One that counts nothing (``weight: 0``), or is only there to help (``auxiliary``), may be so; and the factors of a
    product, and a product, learn from each other.

    Raises:
        DataError: Every other such task.
    """
    related = {other for task in config.tasks.values() for other in task.common.product_of or []}
    related |= {name for name, task in config.tasks.items() if task.common.product_of}
    problems = [
        Problem(
            f"tasks.{task.name}",
            f"no {'token of a ' * task.kind.per_token}training row has a label for it, so that nothing would train its "
            "head",
            "Leave it out (only=[...]), look at the splits, or write `weight: 0` to train without it.",
        )
        for i, task in enumerate(data.tasks)
        if task.weight > 0 and not task.auxiliary and task.name not in related
        if np.isnan(data.targets(i, "train")).all()
    ]
    if problems:
        raise DataError(problems)


def _label_notes(config: RunConfig, data: Data, rounded: Collection[str]) -> list[str]:
    """Tasks that lack labels in a split, classes without a row or token in one, and labels that are all the same.

    Those of ``rounded`` tasks may be so by rounding alone, which is told.
    """
    notes = []
    for split in ("train", "val", "test"):
        if not len(getattr(data.splits, split)):
            continue
        for i, task in enumerate(data.tasks):
            if not config.tasks[task.name].common.labelled:  # as it is meant
                continue
            own = data.targets(i, split)
            absent = task.kind.unseen(own)
            if np.isnan(own).all():
                so = "its own loss trains nothing" if split == "train" else "it has no score there"
                notes.append(f"task '{task.name}': no {split} row has a label; {so}.")
            elif absent and not task.kind.per_token:
                notes.append(f"task '{task.name}': no {split} row has class {listed(absent, 5)}.")
            elif absent and split == "train":  # elsewhere a few sentences do not have all of the tags that there are
                notes.append(f"task '{task.name}': no token of a train row has class {listed(absent, 5)}.")
            elif split == "train" and _all_the_same(own) and task.name not in rounded:
                notes.append(f"task '{task.name}': all train rows have the same label; there is nothing to tell apart.")
    return notes


def _ranking_notes(config: RunConfig, data: Data) -> list[str]:
    """Lists to rank whose rows are in several splits, and tasks without a list to be ranked in a split."""
    notes: dict[str, None] = {}  # tasks may share their lists
    split_of = np.zeros(data.table.height, np.int8)
    for number, rows in enumerate((data.splits.all_train, data.splits.val, data.splits.test)):
        split_of[rows] = number
    for i, ranking in data.rankings.items():
        task = data.tasks[i]
        options = config.tasks[task.name].common.ranking
        torn, every = torn_groups(ranking.groups, split_of)
        if torn and options is not None:
            what = f"{torn:,} of {every:,} lists of '{options.group}' have rows in several splits"
            notes[f"{what}, each of which ranks its own alone."] = None
        metrics = list(ranking_metrics(ranking.k))
        reported = [metric for metric in metrics if metric in (task.kind.chosen or metrics)]
        for split in ("val", "test") if reported else ():
            rows, targets = getattr(data.splits, split), data.targets(i, split)[:, 0]
            if np.isnan(targets).all() or (targets[ranking.groups[rows] >= 0] > 0).any():
                continue
            what = f"no {split} row of the positive class is in a list, so that there is no {' and no '.join(reported)}"
            note = f"task '{task.name}': {what}."
            if split == "val" and (task.kind.chosen or metrics)[0] in metrics:
                note += " Give val rows lists, or choose the best epoch by trainer.checkpoint.monitor=val/loss."
            notes[note] = None
    return list(notes)


def _all_the_same(targets: np.ndarray) -> bool:
    """Whether targets (n, T), NaN where missing, of which some are known, are all equal."""
    known = targets[~np.isnan(targets).any(axis=1)]
    return bool((known == known[:1]).all())


def _chain_notes(config: RunConfig, fitted: Mapping[str, Fitted]) -> list[str]:
    """Rows in which a product happened, or what comes after something else, without what it takes."""
    notes = []
    for name, own in fitted.items():
        options = config.tasks[name].common
        for other in [*(options.product_of or []), *([options.after] if options.after else [])]:
            count = int(((own.targets == 1) & (fitted[other].targets == 0)).sum())
            if count:
                yes, no = own.kind.classes[1], fitted[other].kind.classes[0]
                why = "whose product it is" if options.product_of else "which it comes after"
                notes.append(f"{count} rows have label {yes} for '{name}' and label {no} for '{other}', {why}.")
    return notes
