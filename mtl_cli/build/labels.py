"""The labels of all tasks: from columns of the rows to numbers side by side."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mtl_cli.data import AnyTable, Splits
from mtl_cli.data.batches import TokenLabels
from mtl_cli.data.collecting import collecting
from mtl_cli.data.labels import label_column, row_weights
from mtl_cli.data.token_labels import label_tokens, spread_targets
from mtl_cli.errors import ConfigError, DataError, Problem, UserError, listed
from mtl_cli.registry import KINDS, describe_component, expect_shape, from_outside
from mtl_cli.schema import RunConfig, TaskConfig, TaskOptions
from mtl_cli.tasks import Kind, Task
from mtl_cli.types import Column, InputSpec, Labels

_LOOKED_AT = 64  # labels by which a kind is compared with itself
_SHOWN = 5  # names in a message
_ROUNDED = 0.01  # of the deviation of the labels: what is off by more, scores tell


class Fitted(NamedTuple):
    """A kind that knows its labels, their targets (N,) or (N, T), and what rows count (N,) if not 1 each."""

    kind: Kind
    targets: np.ndarray
    shares: np.ndarray | None
    rounded: str | None = None  # a note on digits that its targets have lost


def fit_task(name: str, task: TaskConfig, table: AnyTable, splits: Splits) -> Fitted:
    """Has a task's kind learn its labels from the training rows, and encodes those of all rows.

    Its classes are those of all training rows: with a share of them the task is the same, on fewer rows.

    Raises:
        DataError: A cell is no label of the task.
    """
    kind = build_kind(task)
    column = _labels(name, task, table, some=True)
    found_in, train = splits.all_train, splits.train
    if kind.per_token:
        column, rows = label_tokens(column)
        found_in, train = (np.flatnonzero(np.isin(rows, own)) for own in (found_in, train))
    kind.find_classes(column, found_in)
    kind.fit(column, train)
    _check_markers(task.common, kind)
    fitted = _encode(name, task, table, kind)
    if from_outside(type(kind)):
        _check_state(task, column, fitted)
    return fitted._replace(rounded=_rounded(name, column, fitted, splits))


def _rounded(name: str, column: Column, fitted: Fitted, splits: Splits) -> str | None:
    """A note on numbers that lose digits as targets, for the first split whose scores would be of other labels."""
    known = ~np.isnan(fitted.targets)
    of_rows = known.ndim == 1 and known.any() and not fitted.kind.per_token
    kept = fitted.kind.truth(fitted.targets[known]) if of_rows else None
    if kept is None:
        return None
    labels, targets = column.values.cast(pl.Float64, strict=False), np.zeros(len(known))
    targets[known] = kept
    stored = pl.Series(targets)
    if column.values.dtype == pl.String or column.values.dtype.is_integer():
        whole = column.values.cast(pl.Int64, strict=False)
        if whole.null_count() == column.values.null_count():  # of long numbers the difference is exact, they are not
            labels, stored = whole, stored.round().cast(pl.Int64, strict=False)
    for split in ("train", "val", "test"):
        rows = getattr(splits, split)
        rows = rows[known[rows]]
        if not len(rows):
            continue
        own = labels.gather(rows)
        deviation = (own - own[0]).cast(pl.Float64).to_numpy().std()
        error = np.abs((own - stored.gather(rows)).cast(pl.Float64).to_numpy()).mean()
        if error > _ROUNDED * deviation > 0:
            return (
                f"task '{name}': {split} labels are rounded by {error:.3g} on average, beside a deviation of "
                f"{deviation:.3g}: 32-bit numbers on the scale of the training labels do not hold their digits. Name "
                "extreme labels in `missing_label`, take a `transform`, or subtract what all labels have in common."
            )
    return None


def _encode(name: str, task: TaskConfig, table: AnyTable, kind: Kind) -> Fitted:
    column = _labels(name, task, table)
    if kind.per_token:
        return Fitted(kind, kind.encode(label_tokens(column)[0]), None)
    targets = kind.encode(column)
    flat = kind.num_targets == 1 and getattr(targets, "ndim", 1) == 1
    expect_shape(kind, "labels", targets, (table.height,) if flat else (table.height, kind.num_targets))
    return Fitted(kind, targets, _shares(task.common, kind, targets, table))


def _check_state(task: TaskConfig, column: Column, fitted: Fitted) -> None:
    """Whether the state of a kind is all that it has learnt, by the first labels that there are.

    Raises:
        ConfigError: With the same state it is another one.
    """
    kind, again = fitted.kind, build_kind(task)
    again.load_state(json.loads(json.dumps(plain_state(kind))))
    labels = np.asarray(fitted.targets, np.float32)
    rows = np.flatnonzero(~np.isnan(labels.reshape(len(labels), -1)[:, 0]))[:_LOOKED_AT]
    some = Column(column.name, column.values.gather(rows), lambda row: column.where(int(rows[row])))
    targets = torch.from_numpy(labels[rows])
    outputs = torch.linspace(-2, 2, len(rows) * kind.num_outputs).view(len(rows), kind.num_outputs)

    def given(own: Kind) -> dict[str, Any]:
        loss = own.loss(outputs.t().unsqueeze(0), targets.t().unsqueeze(0))
        columns = own.columns(outputs)
        for name, values in columns.items():
            expect_shape(own, f"column '{name}' of predictions", values, (len(outputs),))
        return {"loss": loss, "labels": own.encode(some), **columns}

    if again.num_outputs == kind.num_outputs:
        here, there = given(kind), given(again)
        others = [what for what, values in here.items() if not _same(values, there.get(what))]
    else:
        others = ["outputs"]
    if others:
        what = f"one with the same state() gives other {listed(others, _SHOWN)}"
        hint = "state() has to hold all that fit learns: whatever loads the run has nothing else."
        raise ConfigError(Problem(describe_component(kind), what, hint))


def _same(value: Any, other: Any) -> bool:
    a, b = np.asarray(value), np.asarray(other)
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is NaN


def plain_state(kind: Kind) -> dict[str, Any]:
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


def encode_labels(
    config: RunConfig, table: AnyTable, tasks: Sequence[Task], spec: InputSpec, without: Sequence[int] = ()
) -> tuple[Labels, TokenLabels | None]:
    """Labels of fitted tasks, as ``Data.labels`` and ``Data.tokens`` hold them.

    ``tasks_without_columns`` have none, and in ``tasks_without_weights`` every row counts 1.

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
    config = _without_weights(config, tasks_without_weights(config, table))
    who = label_columns({k: v for k, v in config.tasks.items() if k not in unlabelled})  # in the user's order
    if table.sources == ("",) or not any(column in table.schema for column in who):
        table.require(list(who), who)
    table = table.with_empty(who)  # one of several sources need not have the labels of all tasks
    problems: list[Problem] = []
    encoded: dict[str, Fitted] = {}
    for task in tasks:
        with collecting(problems, f"tasks.{task.name}", UserError):
            if task.name in unlabelled:
                encoded[task.name] = Fitted(task.kind, task.kind.encode(_no_labels(task.name, table)), None)
            else:
                encoded[task.name] = _encode(task.name, config.tasks[task.name], table, task.kind)
    if problems:
        raise DataError(problems)
    return assemble_labels([task.name for task in tasks], encoded, config, table, spec, without)


def assemble_labels(
    names: Sequence[str],
    fitted: Mapping[str, Fitted],
    config: RunConfig,
    table: AnyTable,
    spec: InputSpec,
    without: Sequence[int],
) -> tuple[Labels, TokenLabels | None]:
    """The labels of the rows for all tasks, and those of their tokens; the rows ``without`` have none."""
    none = np.full(table.height, np.nan, np.float32)
    own = [none if fitted[name].kind.per_token else fitted[name].targets for name in names]
    labels = _side_by_side(own, [fitted[name].shares for name in names], without)
    return labels, _token_labels(names, fitted, config, table, spec)


def _token_labels(
    names: Sequence[str],
    fitted: Mapping[str, Fitted],
    config: RunConfig,
    table: AnyTable,
    spec: InputSpec,
) -> TokenLabels | None:
    """The labels of the tokens of all rows, missing for tasks that label rows; None if all tasks do.

    Tokens count 1 each, which is written out where the labels of the rows have shares.

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
            columns[name] = spread_targets(fitted[name].targets, _labels(name, config.tasks[name], table), tokens)
    if problems:
        raise DataError(problems)
    count = len(columns[own[0]])
    none = {name: np.full((count, fitted[name].kind.num_targets), np.nan, np.float32) for name in names}
    with_shares = any(fitted[name].shares is not None for name in names)
    ones = [np.ones(count) if with_shares else None] * len(names)
    labels = _side_by_side([columns.get(name, none[name]) for name in names], ones)
    return TokenLabels(blocks[0], labels, rows_too=len(own) < len(names))


def _side_by_side(
    targets: Sequence[np.ndarray], shares: Sequence[np.ndarray | None], without: Sequence[int] = ()
) -> Labels:
    """Labels of the targets (N,) or (N, T) and the shares (N,) of each task; the rows ``without`` have none."""
    joined = np.concatenate([own[:, None] if own.ndim == 1 else own for own in targets], 1)
    joined[list(without)] = np.nan
    if all(own is None for own in shares):
        return Labels(_tensor(joined))
    ones = np.ones(len(joined))
    return Labels(_tensor(joined), _tensor(np.stack([ones if own is None else own for own in shares], 1)))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def tasks_without_columns(config: RunConfig, table: AnyTable) -> dict[str, str]:
    """Tasks that a table has labels of no sort for, and the column that it lacks; none if that is so of all tasks.

    It may be one of those that say which labels count (``mask_by``).
    """
    labelled = {name: task for name, task in config.tasks.items() if task.common.labelled}
    lacking = {}
    for name, task in labelled.items():
        targets, masks = task.targets(name), task.common.mask_by or {}
        absent = [] if any(target in table.schema for target in targets) else targets[:1]
        absent += [column for column in masks if column not in table.schema]
        if absent and not KINDS.load(task.kind.name).per_token:
            lacking[name] = absent[0]
    return lacking if len(lacking) < len(labelled) else {}


def tasks_without_weights(config: RunConfig, table: AnyTable) -> dict[str, str]:
    """Tasks whose rows have weights that a table lacks, and the column. No metric but the loss depends on them."""
    columns = {name: task.common.sample_weight for name, task in config.tasks.items()}
    return {name: column for name, column in columns.items() if column is not None and column not in table.schema}


def _without_weights(config: RunConfig, names: Collection[str]) -> RunConfig:
    """The configuration with rows that count 1 each in the tasks of these names."""
    tasks = {
        name: replace(task, common=replace(task.common, sample_weight=None)) if name in names else task
        for name, task in config.tasks.items()
    }
    return replace(config, tasks=tasks)


def label_columns(tasks: Mapping[str, TaskConfig]) -> dict[str, str]:
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


def build_kind(task: TaskConfig) -> Kind:
    """The kind of a task, which has not seen any label."""
    kind: Kind = KINDS.build(task.kind.name, **task.kind.options)
    kind.chosen, kind.made_with = tuple(task.common.metrics or ()), task.kind.options
    return kind


def build_task(config: RunConfig, name: str, kind: Kind) -> Task:
    """A task of the run, with its kind."""
    common = config.tasks[name].common
    return Task(name, kind, common.weight, common.auxiliary)


def _shares(options: TaskOptions, kind: Kind, targets: np.ndarray, table: AnyTable) -> np.ndarray | None:
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
        raise DataError(Problem("missing_label", what, "Take it out of the one or out of the other."))


def affirmed(fitted: Iterable[Fitted], rows: np.ndarray) -> np.ndarray:
    """In which of the rows some task's label says that something took place, (rows,) bool."""
    found = np.zeros(len(rows), bool)
    for own in fitted:
        if not own.kind.per_token:
            found |= own.kind.affirms(own.targets[rows])
    return found
