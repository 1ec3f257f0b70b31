"""COMPOSITION ROOT: a validated configuration to the objects of a run. The only reader of component nodes."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import nn

from mtl_cli.balancing import Balancing, GradientBalancing
from mtl_cli.balancing.scale import InitialScale
from mtl_cli.data import AnyTable, Features, Source, Splits, Table, split_rows
from mtl_cli.data.batches import Layout, Origins, Ranking, Rows, TokenLabels
from mtl_cli.data.collecting import collecting
from mtl_cli.data.combine import SOURCE_COLUMN, NamedSource, combine, combine_splits, own_column_notes, rename_columns
from mtl_cli.data.labels import label_column, label_roles, row_weights
from mtl_cli.data.memory import free_memory, size_text
from mtl_cli.data.mixing import Mixing
from mtl_cli.data.negatives import Negatives
from mtl_cli.data.sources.table import TableSource
from mtl_cli.data.stored import StoredTable
from mtl_cli.data.streaming import Stream, StreamedRows, open_stream
from mtl_cli.data.token_labels import label_tokens, spread_labels
from mtl_cli.errors import ConfigError, DataError, Problem, UserError, did_you_mean, listed
from mtl_cli.loop import Learner, Objective
from mtl_cli.loop.monitor import Monitor
from mtl_cli.loop.step import compile_trunk
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import VmapStack
from mtl_cli.model.ownership import by_rows, find_flaw
from mtl_cli.model.sharing import Sharing
from mtl_cli.optim import FlatParameters
from mtl_cli.processes import OneProcess, local_rank, local_size, size
from mtl_cli.registry import (
    BALANCINGS,
    ENCODERS,
    KINDS,
    LOGGERS,
    OPTIMIZERS,
    SCHEDULERS,
    SHARINGS,
    SOURCES,
    describe_component,
    expect_shape,
    from_outside,
)
from mtl_cli.run.loggers import Logger, RunFacts
from mtl_cli.schema import (
    Component,
    DataOptions,
    RunConfig,
    TaskConfig,
    TaskOptions,
    is_higher_better,
    is_per_task,
    why_whole,
)
from mtl_cli.seeding import seed_everything
from mtl_cli.tasks import Kind, LabelCounts, Task, target_columns
from mtl_cli.types import Column, Inputs, InputSpec

log = logging.getLogger(__name__)
# Below this many multiply-adds per step a second thread gains little, and with a busy neighbour it costs a multiple:
# the threads wait for each other spinning.
MANY_OPERATIONS = 200_000_000
_MEMORY_SHARE = 0.5  # of what is free: data that would take more are streamed
_MEMORY_PER_BYTE = 2.0  # bytes that a byte of the table takes: the table itself, and inputs of all rows and of splits
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
        targets: (N, T) float32, the numbers of the labels of each task side by side, NaN where a label is missing; or
            (N, T + K) with what each row counts for each task, see ``layout``.
        notes: What the user should know.
        tokens: Labels of the tokens of all rows, if some task has such; ``targets`` holds NaN for that task.
        rankings: The lists that the rows of a task form, by the task's position.
        made: Rows by split and device.
        storage: Where the inputs are, in words, if that was to be decided.
    """

    table: AnyTable
    features: Features
    splits: Splits
    tasks: tuple[Task, ...]
    inputs: Inputs | Stream
    targets: np.ndarray
    notes: tuple[str, ...]
    tokens: TokenLabels | None = None
    rankings: Mapping[int, Ranking] = field(default_factory=dict)
    made: dict[tuple[str, torch.device], Rows] = field(default_factory=dict, repr=False)
    storage: str = ""

    @property
    def spec(self) -> InputSpec:
        """What an encoder has to read, and for which positions it gives features."""
        return model_spec(self.features, self.tasks)

    def labels(self, task: int, split: str) -> np.ndarray:
        """The labels of a task in a split, one for each row or token."""
        return self.labels_of(task, getattr(self.splits, split))

    def labels_of(self, task: int, index: np.ndarray) -> np.ndarray:
        """The labels of a task for some rows, one for each row or token."""
        if self.tokens is None or not self.tasks[task].kind.per_token:
            targets, places = self.targets, index
        else:
            targets, places = self.tokens.targets, self._tokens_of(index)
        labels: np.ndarray = targets[places, self._target_columns[task]]
        return labels

    @cached_property
    def label_counts(self) -> dict[str, dict[str, LabelCounts]]:
        """The labels of each task, by its name, in each split."""
        return {
            task.name: {split: task.kind.counts(self.labels(i, split)) for split in ("train", "val", "test")}
            for i, task in enumerate(self.tasks)
        }

    @cached_property
    def _target_columns(self) -> list[slice]:
        return target_columns([task.kind for task in self.tasks])

    @property
    def layout(self) -> Layout:
        """What stands in the columns of ``targets``."""
        return label_layout(self.tasks, self.targets)

    def rows(self, split: str, device: torch.device) -> Rows:
        """The rows of ``train``, ``val`` or ``test`` on a device; those that were made already if there are any."""
        if (split, device) not in self.made:
            self.made[split, device] = self._make_rows(split, device)
        return self.made[split, device]

    def _make_rows(self, split: str, device: torch.device) -> Rows:
        index = getattr(self.splits, split)
        origins = Origins(self.table.sources, self.table.source_of_rows()[index])
        tokens = self.tokens
        if tokens is not None:
            tokens = tokens._replace(targets=tokens.targets[self._tokens_of(index)])
        rankings = {task: replace(ranking, groups=ranking.groups[index]) for task, ranking in self.rankings.items()}
        if not isinstance(self.inputs, Stream):
            negatives = self._negatives(self.inputs, index) if split == "train" else ()
            inputs = self.inputs.rows(torch.from_numpy(index))
            return Rows(inputs, self.targets[index], device, origins, tokens, rankings, negatives, self.layout)
        labels = self.targets[index]
        if split in self.inputs.held:
            return Rows(self.inputs.held[split], labels, device, origins, rankings=rankings, layout=self.layout)
        return StreamedRows(self.inputs, index, labels, device, origins, rankings, self.layout)

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
            if drawn.user not in names or drawn.item not in names:
                continue
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
                    "state": _plain_state(task.kind),
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


def _plain_state(kind: Kind) -> dict[str, Any]:
    """What a kind has learnt.

    Raises:
        ConfigError: JSON cannot hold it.
    """
    state = kind.state()
    try:
        json.dumps(state)
    except (TypeError, ValueError) as error:
        raise ConfigError(Problem(describe_component(kind), f"its state is no plain JSON: {error}")) from error
    return state


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
        columns: Input columns of another run: if those of the data are the same, they are read as there.

    Raises:
        DataError: The files or columns are not as the configuration says.
        ConfigError: ``input_dim`` is not the width of the data.
    """
    encoder: type[Encoder] = ENCODERS.load(config.encoder.name)
    if not from_outside(encoder):  # which may read them all the same
        _refuse_unread(encoder, config.data)
    table, splits, storage = read_rows(config)
    problems: list[Problem] = []
    fitted: dict[str, _Fitted] = {}
    for name, task in config.tasks.items():
        with collecting(problems, f"tasks.{name}", UserError):
            fitted[name] = _fit_task(name, task, table, splits.train)
    roles = _reserved(config, table)
    reserved = {column: role for column, role in roles.items() if column not in config.data.allow_inputs}
    features, as_numbers = None, table
    with collecting(problems):
        features, as_numbers = Features.fit_reading(table, _with_source(config.data), splits.train, reserved)
    if problems or features is None:
        raise DataError(problems)
    if columns is not None and not features.differences(columns):
        features = features.read_as(columns)
    if config.input_dim not in (None, features.input_dim):
        what = f"is {config.input_dim}, but the data give {features.input_dim} ({features.describe_width()})"
        raise ConfigError(Problem("input_dim", what, "Write input_dim=null to take it from the data."))
    if not from_outside(encoder):
        encoder.blocks_of(replace(features.spec, positions=_positions(own.kind for own in fitted.values())))
    pairs = encoder.linked([column.name for column in features.categorical], config.encoder.options)
    inputs, notes, unreadable = read_inputs(config, as_numbers, features, {"val": splits.val})
    if isinstance(inputs, Stream):
        held = "validation rows in memory" if "val" in inputs.held else "validation rows too"
        storage = f"{storage}; at least {config.data.shuffle_buffer:,} rows are shuffled together, {held}"
    elif pairs:
        rows = splits.train[_affirmed(fitted.values(), splits.train)]
        features = features.with_links(pairs, inputs.categorical.numpy()[rows])
    notes = [*own_column_notes(table, features.optional), *notes]
    names = sorted(fitted, key=lambda name: (config.tasks[name].common.hidden, str(fitted[name].kind.group_key())))
    tasks = tuple(_task(config, name, fitted[name].kind) for name in names)
    labels, tokens = _join_labels(names, fitted, config, table, features.spec, unreadable)
    rankings = find_rankings(config, table, names)
    data = Data(table, features, splits, tasks, inputs, labels, (), tokens, rankings, storage=storage)
    _refuse_untaught(config, data)
    notes += _label_notes(data)
    notes += _chain_notes(config, fitted)
    allowed = [column for column in config.data.allow_inputs if column in roles]
    notes += [
        f"column '{column}' may be an input although it is the {roles[column].removeprefix('the ')}."
        for column in allowed
    ]
    targets = labels[np.setdiff1d(splits.train, unreadable), : _width(tasks)]  # the others are told already
    unlabelled = 0 if tokens is not None else int(np.isnan(targets).all(1).sum())
    if unlabelled:
        rows = "1 training row has" if unlabelled == 1 else f"{unlabelled} training rows have"
        notes = [*notes, f"{rows} no label for any task: {'it teaches' if unlabelled == 1 else 'they teach'} nothing."]
    return replace(data, notes=(*table.notes, *splits.notes, *features.notes, *notes))


def _refuse_unread(encoder: type[Encoder], options: DataOptions) -> None:
    """Refuses inputs whose declared types the encoder does not read, before any file is read.

    Raises:
        ConfigError: There are some.
    """
    given = options.inputs if isinstance(options.inputs, list) else []
    declared = {entry["name"]: str(entry.get("type")) for entry in given if isinstance(entry, Mapping)}
    problems = encoder.unread(declared)
    if problems:
        raise ConfigError(problems)


def _with_source(options: DataOptions) -> DataOptions:
    """With the source among the inputs where it is to be one: a list that names the others need not name it too."""
    if not options.source_as_input or isinstance(options.inputs, str):
        return options
    return replace(options, inputs=[*options.inputs, SOURCE_COLUMN])


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
    mixing = Mixing(data.mixing, data.temperature, data.anneal_epochs or config.trainer.max_epochs or 1, data.epoch)
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
        kind = _new_kind(config.tasks[name])
        kind.load_state(saved["state"])
        tasks.append(_task(config, name, kind))
    return Features.from_json(state["features"]), tuple(tasks)


def encode_labels(
    config: RunConfig, table: AnyTable, tasks: Sequence[Task], spec: InputSpec, without: Sequence[int] = ()
) -> tuple[np.ndarray, TokenLabels | None]:
    """Labels of fitted tasks, as ``Data.targets`` and ``Data.tokens`` hold them.

    Args:
        config: The configuration.
        table: N rows.
        tasks: The tasks, in training order.
        spec: The inputs, one of which holds the tokens that are labelled.
        without: Rows that have no label for any task.

    Raises:
        DataError: Lists, of every task, an absent column or the cells that are no label of it.
    """
    unlabelled = tasks_without_columns(config, table)
    who = _label_columns({k: v for k, v in config.tasks.items() if k not in unlabelled})  # in the user's order
    if table.sources == ("",) or not any(column in table.schema for column in who):
        table.require(list(who), who)
    table = table.with_empty(who)  # one of several sources need not have the labels of all tasks
    problems: list[Problem] = []
    encoded: dict[str, _Fitted] = {}
    for task in tasks:
        with collecting(problems, f"tasks.{task.name}", UserError):
            if task.name in unlabelled:
                encoded[task.name] = _Fitted(task.kind, task.kind.encode(_no_labels(task.name, table)), None)
            else:
                encoded[task.name] = _encode(task.name, config.tasks[task.name], table, task.kind)
    if problems:
        raise DataError(problems)
    return _join_labels([task.name for task in tasks], encoded, config, table, spec, without)


def tasks_without_columns(config: RunConfig, table: AnyTable) -> dict[str, str]:
    """Tasks that a table has labels of no sort for, and the column that it lacks; none if that is so of all tasks."""
    labelled = {name: task for name, task in config.tasks.items() if task.common.labelled}
    lacking = {
        name: task.targets(name)[0]
        for name, task in labelled.items()
        if not KINDS.load(task.kind.name).per_token
        if not any(target in table.schema for target in task.targets(name))
    }
    return lacking if len(lacking) < len(labelled) else {}


def label_layout(tasks: Sequence[Task], labels: np.ndarray) -> Layout:
    """What stands in the columns of labels (N, T) or (N, T + K)."""
    columns = target_columns([task.kind for task in tasks])
    return Layout(tuple(own.start for own in columns), weighted=labels.shape[1] > _width(tasks))


def build_source(config: RunConfig, path: str, name: str | None = None) -> Source:
    """A source of the run, reading another file in the same way (separator, missing markers, decimal sign...).

    Args:
        config: The configuration.
        path: The file.
        name: Which of the run's sources, where they have names.

    Raises:
        ConfigError: There is no such source, or there are several and none is named.
    """
    return name_source(config, _another_file(config.sources[choose_source(config, name)].component, path), name)


def choose_source(config: RunConfig, name: str | None) -> str:
    """The name of a source in ``config.sources``.

    Raises:
        ConfigError: As ``build_source``.
    """
    several = "" not in config.sources
    if name is None and several:
        known = ", ".join(config.sources)
        what = f"must be given: the run has sources with names ({known}), and each reads its files in its own way"
        raise ConfigError(Problem("--source", what, "Name the one that the file is like."))
    if name is not None and (not several or name not in config.sources):
        hint = did_you_mean(name, config.sources) if several else "Leave it out."
        raise ConfigError(Problem("--source", f"the run has no source '{name}'", hint))
    return name or ""


def name_source(config: RunConfig, source: Source, name: str | None) -> Source:
    """Rows that are like those of a source with a name: renamed, and with the source as an input if that is so.

    Raises:
        ConfigError: As ``build_source``.
    """
    chosen = choose_source(config, name)
    if not chosen:
        return source
    return NamedSource(source, chosen, config.sources[chosen].rename, source_column=config.data.source_as_input)


def _another_file(component: Component, path: str) -> Source:
    further: str | None = SOURCES.load(component.name).further_rows
    if further is not None:
        other: Source = SOURCES.build(further, path=path)
        return other
    known = SOURCES.options(component.name)
    options = {**component.options, **dict.fromkeys({"train", "val", "test"} & set(known)), "path": path}
    source: Source = SOURCES.build(component.name, **options)
    return source


def build_learner(
    config: RunConfig,
    data: Data,
    total_steps: int,
    processes: OneProcess = OneProcess(),  # noqa: B008
) -> Learner:
    """The model and all that trains it, initialised from the run's seed: alike in all processes that train it."""
    device = choose_device(config)
    seed_everything(config.seed)
    if device.type == "cuda" and processes.size > 1:
        torch.cuda.set_device(device)
    if device.type == "cuda":  # on a CPU the same threads give the same bytes, and the switch loads the compiler stack
        if config.trainer.deterministic:  # products on a GPU are repeatable only with a workspace of fixed size
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.trainer.deterministic)
    model = build_model(
        config,
        data.spec,
        data.features.input_dim,
        [t.kind.num_outputs for t in data.tasks],
        [t.name for t in data.tasks],
    ).to(device)
    names = [task.name for task in data.tasks]
    balancing = BALANCINGS.build(config.balancing.name, len(names), **_per_task_lists(config.balancing, data.tasks)).to(
        device
    )
    check_owners(model)
    model.freeze(config.freeze)
    if processes.size > 1:
        refuse_statistics(model)
    parameters = FlatParameters(model.owners())
    labels = data.targets[data.splits.train][:, list(data.layout.firsts)]
    check_balancing(config.balancing.name, balancing, parameters, labels)
    optimizers = [OPTIMIZERS.build(config.optimizer.name, parameters, **config.optimizer.options)]
    if balancing.has_parameters:
        own = FlatParameters(by_rows(balancing.parameters(), len(names)))
        options = {**config.optimizer.options, "weight_decay": 0.0}  # decay would pull what a method has learnt to 0
        optimizers.append(OPTIMIZERS.build(config.optimizer.name, own, **options))
    torch.set_num_threads(choose_threads(config, len(parameters.values)))
    learner = Learner(
        model, Objective([t.kind for t in data.tasks], device, model.ordered()), balancing, parameters, optimizers,
        SCHEDULERS.build(config.scheduler.name, total_steps, **config.scheduler.options),
        clip=config.trainer.gradient_clip_val,
        piece=config.data.batch_size if config.trainer.accumulate_grad_batches > 1 else None,
        autocast=autocast_type(config),
        loss_scale=InitialScale(len(names)).to(device) if config.loss_scale == "initial" else None,
        processes=processes,
    )  # fmt: skip
    if config.trainer.compile:
        compile_trunk(learner)
    return learner


def refuse_statistics(model: MultiTaskModel) -> None:
    """Refuses what makes a row's output depend on the other rows of a process.

    Raises:
        ConfigError: Some layer takes statistics over the rows of a batch.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            what = f"'{name}' is a {type(module).__name__}, whose statistics would be of each process's rows alone"
            hint = "Use LayerNorm or GroupNorm, or train in one process."
            raise ConfigError(Problem("WORLD_SIZE", what, hint))


def build_model(
    config: RunConfig, spec: InputSpec, input_dim: int, output_dims: Sequence[int], names: Sequence[str]
) -> MultiTaskModel:
    """The model of a configuration, for data of the given shape."""
    sharing = build_sharing(config, spec, names)
    options = [config.tasks[name].common for name in names]
    products = {
        position: [names.index(factor) for factor in own.product_of]
        for position, own in enumerate(options)
        if own.product_of is not None
    }
    hidden = [own.hidden for own in options]
    return MultiTaskModel(input_dim, output_dims, config.shared_dim, sharing=sharing, hidden=hidden, products=products)


def build_sharing(config: RunConfig, spec: InputSpec, names: Sequence[str]) -> Sharing:
    """The part of the model before the heads, of those of the tasks ``names`` that have a head."""
    build_encoder = partial(ENCODERS.build, config.encoder.name, **config.encoder.options)
    make_encoder = EncoderMaker(build_encoder, spec, config.shared_dim)
    with_head = tasks_with_head(config, names)
    facts: list[Any] = [make_encoder, with_head]
    if SHARINGS.load(config.sharing.name).chain == "after":
        before = [config.tasks[name].common.after if name in config.tasks else None for name in with_head]
        facts.append([None if name is None else with_head.index(name) for name in before])
    sharing: Sharing = SHARINGS.build(config.sharing.name, *facts, **config.sharing.options)
    return sharing


def tasks_with_head(config: RunConfig, names: Sequence[str]) -> list[str]:
    """Those of the tasks that are no products of others."""
    return [name for name in names if name not in config.tasks or config.tasks[name].common.product_of is None]


def check_owners(model: MultiTaskModel) -> None:
    """Refuses an architecture that says of a parameter nothing or too much: what nobody owns is never trained.

    Raises:
        ConfigError: Some row of a parameter has no owner, or two.
    """
    sharing = model.sharing
    flaw = find_flaw(dict(sharing.named_parameters()), sharing.owners(), len(model.with_head))
    if flaw is not None:
        hint = (
            "Each row (axis 0) of each parameter has one owner, as shared and stacked of mtl_cli.model.ownership give."
        )
        raise ConfigError(Problem(describe_component(sharing), f"its owners() is wrong: {flaw}", hint))


@torch.no_grad()
def check_features(model: MultiTaskModel, inputs: Inputs) -> None:
    """Runs an encoder and a sharing architecture that are none of ours on a few rows.

    Args:
        model: The model.
        inputs: B rows.

    Raises:
        ConfigError: They give something else than features of these rows; names who does.
    """
    sharing = model.sharing
    encoders = [module for module in sharing.modules() if isinstance(module, Encoder | VmapStack)]
    kinds = [module.encoder if isinstance(module, VmapStack) else module for module in encoders]
    if not any(from_outside(type(part)) for part in (sharing, *kinds)):
        return
    training = model.training
    model.eval()
    shape = (kinds[0].positions(inputs) if kinds else len(inputs.numeric), model.shared_dim)
    if encoders:
        copies = encoders[0](inputs)
        expect_shape(kinds[0], "features", copies[0] if isinstance(encoders[0], VmapStack) else copies, shape)
    features = sharing.forward(inputs)  # not called: a compiled module would be compiled for it
    own = getattr(features, "ndim", 2) == 3  # features for each task
    expect_shape(sharing, "features", features, (len(model.with_head), *shape) if own else shape)
    model.train(training)


def build_loggers(config: RunConfig, run: RunFacts) -> dict[str, Logger]:
    """The trackers that were chosen, by name; nothing is opened yet."""
    return {name: LOGGERS.build(name, run, **chosen.options) for name, chosen in config.loggers.items()}


def build_monitor(name: str, tasks: Mapping[str, TaskConfig]) -> Monitor:
    """The number of that name, with its direction."""
    return Monitor(name, is_higher_better(name, tasks))


def autocast_type(config: RunConfig) -> torch.dtype | None:
    """Data type of mixed precision, or None."""
    return torch.bfloat16 if config.trainer.precision == "bf16-mixed" else None


def choose_device(config: RunConfig) -> torch.device:
    """The device that the configuration asks for.

    Raises:
        ConfigError: This machine or this build of PyTorch does not have it.
    """
    name = config.trainer.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and size() > 1:  # each process of a machine has its own
        name = f"cuda:{local_rank()}"
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, True)
    if not there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(Problem("trainer.device", f"there is no device '{name}' here", "Write trainer.device=cpu."))
    return device


def check_balancing(name: str, balancing: Balancing, parameters: FlatParameters, labels: np.ndarray) -> None:
    """What a method on gradients needs and only the model and the training labels (N, K) can tell.

    Raises:
        ConfigError: No parameter is shared as a whole and trained, or gradients of features are asked for and no row
            has two labels.
    """
    if balancing.needs_shared and not parameters.shared:
        why, hint = "all of them are frozen", "or freeze less"
        if any(segment.task is None for segment in parameters.segments):
            why = "here tasks share only parts of parameters whose other parts are those of one task"
            hint = "or another architecture, such as sharing=hard"
        what = f"'{name}' works on gradients of shared parameters, and {why}"
        raise ConfigError(
            Problem("balancing", what, f"Use a method that weights losses, such as balancing=equal, {hint}.")
        )
    if not isinstance(balancing, GradientBalancing):
        return
    alone = labels.shape[1] > 1 and not ((~np.isnan(labels)).sum(1) > 1).any()
    if balancing.gradients_on == "features" and alone:
        what = "'features': no training row has labels for two tasks, so that their gradients never meet there"
        raise ConfigError(Problem("balancing.gradients_on", what, "Write balancing.gradients_on=parameters."))


def choose_threads(config: RunConfig, parameters: int) -> int:
    """CPU threads: as given, or by the work of a step and the cores this process may use, nothing that varies.

    Several processes on a machine divide its cores among them. ``OMP_NUM_THREADS`` is the most there are.
    """
    if config.trainer.threads != "auto":
        return config.trainer.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get("OMP_NUM_THREADS", "")
    cores = max(min(cores // local_size(), int(most) if most.isdecimal() else cores), 1)
    operations = 3 * config.data.batch_size * parameters // size()
    return cores if operations >= MANY_OPERATIONS else 1


def streams(config: RunConfig) -> bool:
    """Whether the rows of a configuration stay in their files: by what it says, or by the memory that is free now."""
    try:
        return "" in config.sources and _stay(config, _source(config.sources[""].component))[0] is not None
    except UserError:  # told when they are read
        return False


def _source(component: Component) -> Source:
    source: Source = SOURCES.build(component.name, **component.options)
    return source


def _stay(config: RunConfig, source: Source) -> tuple[StoredTable | None, str]:
    """The rows of the one source if they stay in their files, and why they do or do not, if that was to be decided."""
    wanted = config.data.in_memory
    whole = why_whole(config.sources, config.tasks, config.encoder.name) is not None
    if wanted is True or whole or not isinstance(source, TableSource):
        return None, ""
    table = source.stored()
    if wanted is False:
        return table, "streamed (data.in_memory=false)"
    needed, free = _MEMORY_PER_BYTE * table.height * table.bytes_per_row() * local_size(), free_memory()
    if free is None or needed <= _MEMORY_SHARE * free:
        known = "" if free is None else f" of {size_text(free)} that are free"
        return None, f"in memory: about {size_text(needed)}{known}"
    why = f"in memory they would take about {size_text(needed)}, more than half of the {size_text(free)} that are free"
    if size() > 1:
        what = f"is auto, and rows are not streamed in several processes, each of which holds all: {why}"
        raise ConfigError(Problem("data.in_memory", what, "Write data.in_memory=true, or train in one process."))
    return table, f"streamed: {why}"


def read_rows(config: RunConfig) -> tuple[AnyTable, Splits, str]:
    """All rows and how they are split: each source by itself, then one below the other; and where they are, in words.

    Raises:
        UserError: The problems of all sources, each with the source's own keys.
    """
    tables: dict[str, AnyTable] = {}
    whole: dict[str, Table] = {}
    storage = ""
    splits: dict[str, Splits] = {}
    problems: list[Problem] = []
    several = "" not in config.sources
    for name, given in config.sources.items():
        where = f"data.sources.{name}" if several else "data"
        try:
            source = _source(given.component)
            if several:
                tables[name] = whole[name] = rename_columns(source.read(), given.rename, f"{where}.rename")
            else:
                stored, storage = _stay(config, source)
                tables[name] = stored or source.read()
        except UserError as error:
            problems += [_at(where, problem) for problem in error.problems]
    if problems:
        raise DataError(problems)
    table = combine(whole, source_column=config.data.source_as_input) if several else tables[""]
    _require_columns(config, table, tables)
    for name, own in tables.items():
        where = f"data.sources.{name}" if several else "data"
        try:
            splits[name] = split_rows(own, config.sources[name].split)
        except UserError as error:
            problems += [_at(where, problem) for problem in error.problems]
    if problems:
        raise DataError(problems)
    if not several:
        return table, splits[""], storage
    return table, combine_splits(splits, {name: own.height for name, own in tables.items()}), ""


def _at(where: str, problem: Problem) -> Problem:
    """A problem of a source, with the keys of ``data`` turned into the source's own."""
    return replace(problem, where=re.sub(r"^data\.(?!sources\.)", f"{where}.", problem.where))


class _Fitted(NamedTuple):
    """A kind that knows its labels, the labels (N,) or (N, T), and what rows count (N,) if not 1."""

    kind: Kind
    targets: np.ndarray
    weights: np.ndarray | None


def _labels(name: str, task: TaskConfig, table: AnyTable, *, some: bool = False) -> Column:
    """The label column of a task, with labels from those sources only that label it."""
    if not task.common.labelled:
        return _no_labels(name, table)
    column = label_column(table, task.targets(name), task.common, some=some)
    if task.sources is None:
        return column
    labelling = [table.sources.index(name) for name in task.sources if name in table.sources]
    others = ~np.isin(table.source_of_rows(), labelling)
    values = pl.select(pl.when(pl.Series(~others)).then(column.values).alias(column.name)).to_series()
    return replace(column, values=values)


def _no_labels(name: str, table: AnyTable) -> Column:
    return Column(name, pl.Series(name, [None] * table.height, pl.String), partial(table.where, name))


def _fit_task(name: str, task: TaskConfig, table: AnyTable, train: np.ndarray) -> _Fitted:
    kind = _new_kind(task)
    column = _labels(name, task, table, some=True)
    if kind.per_token:
        column, rows = label_tokens(column)
        train = np.flatnonzero(np.isin(rows, train))
    kind.fit(column, train)
    _check_markers(task.common, kind)
    return _encode(name, task, table, kind)


def _encode(name: str, task: TaskConfig, table: AnyTable, kind: Kind) -> _Fitted:
    column = _labels(name, task, table)
    if kind.per_token:
        return _Fitted(kind, kind.encode(label_tokens(column)[0]), None)
    targets = kind.encode(column)
    flat = kind.num_targets == 1 and getattr(targets, "ndim", 1) == 1
    expect_shape(kind, "labels", targets, (table.height,) if flat else (table.height, kind.num_targets))
    return _Fitted(kind, targets, _weights(task.common, kind, targets, table))


def _join_labels(
    names: Sequence[str],
    fitted: Mapping[str, _Fitted],
    config: RunConfig,
    table: AnyTable,
    spec: InputSpec,
    without: Sequence[int],
) -> tuple[np.ndarray, TokenLabels | None]:
    """The labels of the rows side by side, and those of their tokens."""
    none = np.full(table.height, np.nan, np.float32)
    own = [none if fitted[name].kind.per_token else fitted[name].targets for name in names]
    labels = _side_by_side(own, [fitted[name].weights for name in names], without)
    weighted = any(fitted[name].weights is not None for name in names)
    return labels, _token_labels(names, fitted, config, table, spec, weighted)


def _new_kind(task: TaskConfig) -> Kind:
    kind: Kind = KINDS.build(task.kind.name, **task.kind.options)
    kind.chosen = tuple(task.common.metrics or ())
    return kind


def _weights(options: TaskOptions, kind: Kind, targets: np.ndarray, table: AnyTable) -> np.ndarray | None:
    """What each row counts (N,) for a task, by its label and by its weight; None for 1 each."""
    weights = kind.row_weights(targets)
    if options.sample_weight is None:
        return weights
    labelled = ~np.isnan(targets if targets.ndim == 1 else targets[:, 0])
    own = row_weights(table, options.sample_weight, labelled)
    return own if weights is None else own * weights


def _check_markers(options: TaskOptions, kind: Kind) -> None:
    """What means 'no label' is no class: a class that num_classes counts would have no row."""
    markers = options.missing_label if isinstance(options.missing_label, list) else [options.missing_label]
    found = [marker for marker in markers if marker is not None and str(marker) in kind.classes]
    if found:
        classes = ", ".join(kind.classes[:20])
        what = f"{', '.join(map(repr, found))} means 'no label', and is a class of the task ({classes})"
        raise DataError(Problem("missing_label", what, "Correct num_classes, or list the task's `classes`."))


def _task(config: RunConfig, name: str, kind: Kind) -> Task:
    common = config.tasks[name].common
    return Task(name, kind, common.weight, common.auxiliary)


def _affirmed(fitted: Iterable[_Fitted], rows: np.ndarray) -> np.ndarray:
    """In which of the rows some task's label says that something took place, (rows,) bool."""
    found = np.zeros(len(rows), bool)
    for own in fitted:
        if not own.kind.per_token:
            found |= own.kind.affirms(own.targets[rows])
    return found


def _side_by_side(
    targets: Sequence[np.ndarray], weights: Sequence[np.ndarray | None], without: Sequence[int] = ()
) -> np.ndarray:
    """Labels (N, T), or (N, T + K) if rows count differently, float32; the rows ``without`` have none."""
    rows = len(targets[0])
    labels = np.concatenate([own[:, None] if own.ndim == 1 else own for own in targets], 1)
    labels[list(without)] = np.nan
    if all(own is None for own in weights):
        return labels
    shares = np.stack([np.ones(rows) if own is None else own for own in weights], 1)
    return np.concatenate([labels, shares.astype(np.float32)], 1)


def _width(tasks: Sequence[Task]) -> int:
    """T: the numbers of the labels of all tasks."""
    return sum(task.kind.num_targets for task in tasks)


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
        if np.isnan(data.labels(i, "train")).all()
    ]
    if problems:
        raise DataError(problems)


def _label_notes(data: Data) -> list[str]:
    """Tasks without a label in a split, and classes without a row or token in one."""
    notes = []
    for split in ("train", "val", "test"):
        if not len(getattr(data.splits, split)):
            continue
        for i, task in enumerate(data.tasks):
            own = data.labels(i, split)
            absent = task.kind.unseen(own)
            if np.isnan(own).all():
                so = "its own loss trains nothing" if split == "train" else "it has no score there"
                notes.append(f"task '{task.name}': no {split} row has a label; {so}.")
            elif absent and not task.kind.per_token:
                notes.append(f"task '{task.name}': no {split} row has class {listed(absent, 5)}.")
            elif absent and split == "train":  # elsewhere a few sentences do not have all of the tags that there are
                notes.append(f"task '{task.name}': no token of a train row has class {listed(absent, 5)}.")
    return notes


def _chain_notes(config: RunConfig, fitted: Mapping[str, _Fitted]) -> list[str]:
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


def _token_labels(
    names: Sequence[str],
    fitted: Mapping[str, _Fitted],
    config: RunConfig,
    table: AnyTable,
    spec: InputSpec,
    weighted: bool,
) -> TokenLabels | None:
    """The labels of the tokens of all rows, (M, T) with NaN for tasks that label rows; None if all tasks do.

    Tokens count 1 each: if rows count differently, K columns of ones follow.

    Raises:
        DataError: A task labels tokens, and no input holds tokens, or another number of them.
    """
    own = [name for name in names if fitted[name].kind.per_token]
    if not own:
        return None
    blocks = [block.name for block in spec.blocks if block.type == "tokens"]
    if len(blocks) != 1:
        what = f"labels the tokens of one input column of lists of words, and there are {len(blocks)}"
        raise DataError(Problem(f"tasks.{own[0]}", what, "Name it in data.inputs, as in data.inputs=[forms]."))
    tokens = table.column(blocks[0])
    problems: list[Problem] = []
    columns: dict[str, np.ndarray] = {}
    for name in own:
        with collecting(problems, f"tasks.{name}", UserError):
            columns[name] = spread_labels(fitted[name].targets, _labels(name, config.tasks[name], table), tokens)
    if problems:
        raise DataError(problems)
    count = len(columns[own[0]])
    none = {name: np.full((count, fitted[name].kind.num_targets), np.nan, np.float32) for name in names}
    ones = [np.ones(count) if weighted else None] * len(names)
    labels = _side_by_side([columns.get(name, none[name]) for name in names], ones)
    return TokenLabels(blocks[0], labels, rows_too=len(own) < len(names))


def _require_columns(config: RunConfig, table: AnyTable, tables: Mapping[str, AnyTable]) -> None:
    """Finds columns that the configuration names and that are not there, those of the splits in each source."""
    problems: list[Problem] = []
    everything = {**config.tasks, **config.left_out}
    who = _label_columns(everything)
    who.update({column: "data.allow_inputs" for column in config.data.allow_inputs if column not in who})
    for name, task in everything.items():
        if task.common.ranking is not None:
            who.setdefault(task.common.ranking.group, f"tasks.{name}.ranking.group")
    if config.data.id is not None:
        who[config.data.id] = "data.id"
    if len(tables) == 1:
        split = config.data.split
        for key in ("column", "group", "stratify"):
            who.update({column: f"data.split.{key}" for column in (getattr(split, key),) if column is not None})
    with collecting(problems):
        table.require(list(who), who)
    for name, task in everything.items():
        for source in task.sources or ():
            for target in task.targets(name):
                if target in table.schema and target not in tables[source].schema:
                    with collecting(problems):
                        tables[source].require([target], {target: f"tasks.{name}.target"})
    if problems:
        raise DataError(problems)


def _label_columns(tasks: Mapping[str, TaskConfig]) -> dict[str, str]:
    """Every column that tasks take labels, masks and weights from, and the key that names it."""
    who: dict[str, str] = {}
    for name, task in tasks.items():
        for column in task.targets(name):
            who.setdefault(column, f"tasks.{name}.target")
        for column in task.common.mask_by or {}:
            who.setdefault(column, f"tasks.{name}.mask_by")
        if task.common.sample_weight is not None:
            who.setdefault(task.common.sample_weight, f"tasks.{name}.sample_weight")
    return who


def _reserved(config: RunConfig, table: AnyTable) -> dict[str, str]:
    """Columns that are something else than inputs."""
    given = config.data.inputs if isinstance(config.data.inputs, list) else []
    listed = [entry.get("name") if isinstance(entry, Mapping) else entry for entry in given]
    names = [column for column, kind in table.types.items() if kind == "name" and column not in listed]
    roles: dict[str | None, str] = {**dict.fromkeys(names, "the name of a row"), config.data.id: "the id"}
    for source in config.sources.values():
        roles |= {source.split.column: "the split column", source.split.group: "the group of the split"}
    reserved = {column: role for column, role in roles.items() if column is not None}
    for name, task in {**config.tasks, **config.left_out}.items():
        ranking = task.common.ranking
        # a list's number says nothing; a user that makes the lists is an input all the same
        if ranking is not None and config.data.inputs == "*":
            reserved.setdefault(ranking.group, f"lists of task '{name}'")
    tasks = {name: (task.targets(name), task.common) for name, task in {**config.tasks, **config.left_out}.items()}
    return {**reserved, **label_roles(tasks)}


def _per_task_lists(component: Component, tasks: Sequence[Task]) -> dict[str, Any]:
    """Options by task name turned into lists in task order; a task that is not named in a mapping gets 1.

    A list without names is of all tasks but the auxiliary ones.

    Raises:
        ConfigError: A list names only tasks that are left out.
    """
    options, names = dict(component.options), [task.name for task in tasks]
    main = [i for i, task in enumerate(tasks) if not task.auxiliary]
    for key, option in BALANCINGS.options(component.name).items():
        value = options[key]
        if not is_per_task(option.annotation):
            continue
        if isinstance(value, Mapping):
            options[key] = [float(value.get(name, 1.0)) for name in names]
        else:
            options[key] = [names.index(name) for name in value if name in names] if value else main
            if not options[key]:
                raise ConfigError(Problem(f"balancing.{key}", f"only={list(names)} leaves none of {value}"))
    return options
