"""The fixed part of the configuration, and ``validate``: all mistakes at once, before any data is loaded.

Nor is PyTorch, unless the architecture has a check of its own (``Sharing.misfits``): its class is imported for that.

The options of components (encoder, sharing, ...) are not listed here: their constructors say them.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal

from mtl_cli.errors import ConfigError, Problem, did_you_mean, nearest, shown
from mtl_cli.registry import (
    BALANCINGS,
    ENCODERS,
    KINDS,
    LOGGERS,
    OPTIMIZERS,
    REQUIRED,
    SCHEDULERS,
    SHARINGS,
    SOURCES,
    Option,
    Registry,
    conform,
    conform_mapping,
    mistakes_in_components,
    options_of,
)
from mtl_cli.types import (
    AtLeastOne,
    NonNegative,
    NonNegativeInt,
    Plain,
    Positive,
    PositiveInt,
    ProperFraction,
    Seed,
    Share,
    Surroundings,
    TaskNames,
)

TASK_NAME = re.compile(r"[^\W\d][\w \-+]*")
RESERVED_TASK_NAMES = ("loss", "mean", "worst")
Origin = Callable[[str], str | None]


@dataclass(frozen=True)
class SplitOptions:
    """How to split the rows; the keys of ``data.split``.

    Args:
        method: ``files``: the files say it; ``column``: a column says it; ``random``; ``stratified``: random with every
            value of ``stratify`` in proportion; ``group``: random, with all rows of one value of ``group`` together.
            ``auto``: the first of files, column, group, stratified, random for which there is what it needs.
        column: Column that holds train/val/test (also training, valid, validation, dev, testing; case is ignored).
        group: Column whose equal values must not be torn apart, such as a patient.
        stratify: Column whose values are to be spread evenly, such as a rare label.
        val: Fraction of the rows (of the groups with ``group``) for validation.
        test: The same for the test rows; 0 for none.
        seed: Seed of the drawing; other than the training seed, so that all seeds of a study share their rows.
        train_fraction: Share of the training rows to train on, drawn with ``seed``; a smaller share is part of a larger
            one. Validation and test rows stay the same, so that runs with different shares can be compared.
    """

    method: Literal["auto", "files", "column", "random", "stratified", "group"] = "auto"
    column: str | None = None
    group: str | None = None
    stratify: str | None = None
    val: ProperFraction = 0.1
    test: ProperFraction = 0.1
    seed: NonNegativeInt = 0
    train_fraction: Share = 1.0


@dataclass(frozen=True)
class ImageOptions:
    """How image files become inputs; the keys of ``data.image``. Transparent pixels show a white ground.

    Args:
        size: [height, width] that every file is resized to; null: as stored, all of one size.
        channels: 1: grey, 3: colours; null: colours if some training image has them (of 1,000 from all over the rows).
        root: Folder that relative paths start from; null: the folder of the file that holds them.
        on_bad: ``error``: a damaged or absent image ends the run before training; ``skip``: its row is left out for
            every task.
    """

    size: list[PositiveInt] | None = None
    channels: Literal[1, 3] | None = None
    root: str | None = None
    on_bad: Literal["error", "skip"] = "error"


@dataclass(frozen=True)
class TextOptions:
    """How texts and tokens become bags of hashed features; the keys of ``data.text``.

    Args:
        ids: How many numbers there are for the features; two that share one cannot be told apart.
        min_count: Features that the training rows have so many times get a number of their own, the most frequent ones
            if there are more than ``ids``, and all others one together; null: a feature's number is its hash, which
            any feature has, and shares by chance.
        by: Column whose values tell features apart: in rows with another value (a language, say) the same word is
            another feature. Rows without a value are as without ``by``. ``source`` where ``source_as_input``. In rows
            with a value that no training row has, all features are new: ``unknown`` and ``missing_inputs`` hold for it.
        affix: Longest beginning and end of a token that is a feature, in letters.
        words: Longest run of words of a text that is a feature: 1: words alone, 2: pairs as well.
        pieces: [shortest, longest] pieces of the words of a text, in letters; null: none.
        lowercase: Whether texts are read in lower case.
    """

    ids: PositiveInt = 65536
    min_count: PositiveInt | None = None
    by: str | None = None
    affix: NonNegativeInt = 4
    words: PositiveInt = 2
    pieces: list[PositiveInt] | None = field(default_factory=lambda: [3, 5])
    lowercase: bool = True


@dataclass(frozen=True)
class FeatureOptions:
    """What is read and how it is scaled; keys of ``data``.

    Args:
        inputs: ``"*"``, or a list of column names, globs and ``{name: ..., type: TYPE}``.
        exclude: Names and globs of columns that are no inputs.
        allow_inputs: Targets and other columns with a role of their own that may be inputs all the same.
        scale: Numbers: ``standard``: (x - mean) / std; ``quantile``: by rank to a standard normal;
            ``none``: as they are.
        missing_inputs: ``indicator``: a missing number becomes 0 and sets an extra 0/1 input of its column;
            ``mean``: it becomes the mean of the training rows; ``error``: every missing input cell is refused.
        bins: Bins that each single numeric column is cut into, for encoders that embed numbers (Gorishniy et al. 2022);
            0: none; ``auto``: 48 for up to 32 such columns, none beyond.
        min_count: Categories in fewer training rows than this count as unknown.
        unknown: What becomes of a category that no training row has, in other splits and files: ``other``: all such
            share the code of the unknown, and are counted; ``error``: the first is named.
        image: How image files become inputs.
        text: How texts and tokens become inputs.
    """

    inputs: str | list[Any] = "*"
    exclude: list[str] = field(default_factory=list)
    allow_inputs: list[str] = field(default_factory=list)
    scale: Literal["standard", "quantile", "none"] = "standard"
    missing_inputs: Literal["indicator", "mean", "error"] = "indicator"
    bins: NonNegativeInt | Literal["auto"] = "auto"
    min_count: PositiveInt = 1
    unknown: Literal["other", "error"] = "other"
    image: ImageOptions = field(default_factory=ImageOptions)
    text: TextOptions = field(default_factory=TextOptions)


@dataclass(frozen=True)
class MixingOptions:
    """How the rows of several sources are mixed; keys of ``data``. n is the number of training rows of a source.

    Args:
        mixing: Share of each source in an epoch: ``proportional``: n; ``uniform``: equal; ``temperature``:
            n^(1/temperature) (Arivazhagan et al. 2019); ``annealed``: n^a, where a falls from 1 in the first epoch to
            0.2 in the last (Stickland and Murray 2019). Their rows are mixed in each batch. ``round_robin``: equal
            shares, each batch of one source, in turns.
        temperature: Of ``temperature``: 1 is proportional, infinity would be uniform.
        anneal_epochs: Of ``annealed``: epochs until the shares stay as they are; null: ``trainer.max_epochs``.
        epoch: Rows of an epoch: ``total``: as many as all sources have; ``longest``: as many as it takes to go once
            through that source for which it takes longest; or a number.
        source_as_input: Whether the name of a row's source is an input, the category ``source``.
    """

    mixing: Literal["proportional", "uniform", "temperature", "annealed", "round_robin"] = "proportional"
    temperature: AtLeastOne = 5.0
    anneal_epochs: PositiveInt | None = None
    epoch: Literal["total", "longest"] | PositiveInt = "total"
    source_as_input: bool = False


@dataclass(frozen=True)
class DataOptions(MixingOptions, FeatureOptions):
    """The keys of ``data`` that every source has.

    Args:
        in_memory: ``true``: the data are read whole; ``false``: they stay in their Parquet files, from where training
            reads them ahead, again in each epoch; ``auto``: that, if they would take more than half of the memory that
            is free.
        shuffle_buffer: Of data that stay in their files: least number of rows that are shuffled together, row groups
            being read whole. As many are read ahead.
    """

    in_memory: Literal["auto"] | bool = "auto"
    shuffle_buffer: PositiveInt = 65536
    id: str | None = None
    split: SplitOptions = field(default_factory=SplitOptions)
    batch_size: PositiveInt = 256
    shuffle: bool = True
    drop_last: bool = False


@dataclass(frozen=True)
class RankingOptions:
    """Lists of candidates to rank: the keys of ``ranking`` of a binary task. Adds ``ndcg@k`` (primary) and ``hr@k``.

    Args:
        group: Column whose equal values make a list, within a source; rows without a value are in none.
        k: Places that count.
    """

    group: str
    k: PositiveInt = 10


@dataclass(frozen=True)
class TaskOptions:
    """The keys of a task that every kind has."""

    kind: str
    target: str | list[str] | None = None
    weight: NonNegative = 1.0
    hidden: list[PositiveInt] = field(default_factory=list)
    missing_label: Plain | list[Plain] | None = None
    mask_by: dict[str, Plain | list[Plain]] | None = None
    sample_weight: str | None = None
    metrics: list[str] | None = None
    source: str | list[str] | None = None
    ranking: RankingOptions | None = None
    labelled: bool = True
    auxiliary: bool = False
    product_of: list[str] | None = None
    after: str | None = None


@dataclass(frozen=True)
class EarlyStoppingOptions:
    """When to stop before the limits."""

    monitor: str | None = None
    patience: PositiveInt | None = None
    min_delta: NonNegative = 0.0


@dataclass(frozen=True)
class CheckpointOptions:
    """Which checkpoints to keep."""

    monitor: str | None = None
    save_top_k: int = 1
    every_n_steps: PositiveInt | None = None


@dataclass(frozen=True)
class TrainerOptions:
    """The loop."""

    max_epochs: PositiveInt | None = 50
    max_steps: PositiveInt | None = None
    max_time: str | float | None = None
    precision: Literal[32, "bf16-mixed"] = 32
    gradient_clip_val: Positive | None = None
    accumulate_grad_batches: PositiveInt = 1
    check_val_every_n_epoch: PositiveInt = 1
    device: str = "auto"
    threads: PositiveInt | Literal["auto"] = "auto"
    diagnostics_every: NonNegativeInt = 0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    compile: bool = False
    deterministic: bool = True
    early_stopping: EarlyStoppingOptions = field(default_factory=EarlyStoppingOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)


@dataclass(frozen=True)
class Component:
    """A registered component and its options, all of them, defaults filled in."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class SourceConfig:
    """Where rows come from.

    Args:
        component: The source and its options.
        split: How its rows are split.
        rename: New names of columns, by their name in the files.
    """

    component: Component
    split: SplitOptions
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskConfig:
    """A task: its common options, and its kind with the kind's options."""

    common: TaskOptions
    kind: Component

    def targets(self, name: str) -> list[str]:
        """The label column, or several that make up the label: as given, or the task's name; none without labels."""
        if not self.common.labelled:
            return []
        target = self.common.target or name
        return [target] if isinstance(target, str) else target

    @property
    def sources(self) -> tuple[str, ...] | None:
        """Names of the sources that label it; None: every source that has its target column."""
        given = self.common.source
        return (given,) if isinstance(given, str) else None if given is None else tuple(given)


@dataclass(frozen=True)
class RunConfig:
    """A configuration that was checked as a whole.

    Args:
        sources: Where the rows come from: by the names in ``data.sources``; one source alone has none, ``""``.
        tasks: The tasks that are trained.
        left_out: Tasks that ``only`` leaves out; their labels are no inputs all the same, so that subsets compare.
        loss_scale: ``none``, or ``initial``: each task's loss is divided by its first value before it is weighted.
        loggers: Trackers that the metrics go to as well, by name.
    """

    data: DataOptions
    sources: Mapping[str, SourceConfig]
    input_dim: int | None
    shared_dim: int
    tasks: Mapping[str, TaskConfig]
    left_out: Mapping[str, TaskConfig]
    encoder: Component
    sharing: Component
    balancing: Component
    loss_scale: str
    optimizer: Component
    scheduler: Component
    trainer: TrainerOptions
    monitor: str
    seed: int
    resume: str | None
    init_from: str | None
    freeze: tuple[str, ...]
    dry_run: bool
    loggers: Mapping[str, Component] = field(default_factory=dict)


_TOP: dict[str, Option] = {
    "input_dim": Option(PositiveInt | None, None),
    "shared_dim": Option(PositiveInt, 128),
    "only": Option(list[str] | None, None),
    "trainer": Option(TrainerOptions, TrainerOptions()),
    "monitor": Option(str, "mean"),
    "seed": Option(Seed, 0),
    "resume": Option(str | None, None),
    "init_from": Option(str | None, None),
    "freeze": Option(str | list[str], []),
    "dry_run": Option(bool, False),
    "stop_on_failure": Option(bool, False),
    "plugins": Option(list[str], []),
    "extra": Option(Any, None),
}
_COMPONENTS: dict[str, Registry[Any]] = {
    "encoder": ENCODERS,
    "sharing": SHARINGS,
    "balancing": BALANCINGS,
    "optimizer": OPTIMIZERS,
    "scheduler": SCHEDULERS,
}
_COMMON: dict[str, dict[str, Option]] = {  # keys of a group that are not the component's own
    "balancing": {"loss_scale": Option(Literal["none", "initial"], "none")},
}
_OTHER_NAMES = {  # what people of other tools write first
    "epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "trainer.epochs": "trainer.max_epochs",
    "lr": "optimizer.lr",
    "learning_rate": "optimizer.lr",
    "trainer.lr": "optimizer.lr",
    "trainer.learning_rate": "optimizer.lr",
    "optimizer.learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "batch_size": "data.batch_size",
    "trainer.batch_size": "data.batch_size",
    "grad_accum": "trainer.accumulate_grad_batches",
    "trainer.grad_accum": "trainer.accumulate_grad_batches",
    "dropout": "encoder.dropout",
    "hidden_dim": "shared_dim",
    "optim": "optimizer",
    "schedule": "scheduler",
    "loop": "trainer",
    "loggers": "logger",
    "trainer.logger": "logger",
    "tracker": "logger",
}


def validate(raw: Mapping[str, Any], origin: Origin = lambda _: None) -> RunConfig:
    """Checks a whole configuration.

    Args:
        raw: Plain mappings, lists and values, as composed.
        origin: Where a key path was set (``command line``, ``conf/task/mine.yaml, line 7``), for the messages.

    Returns:
        The configuration with every default filled in.

    Raises:
        ConfigError: Every mistake, each with its key path, origin, value and the nearest known name.
    """
    found: list[Problem] = []
    _load_plugins(raw.get("plugins"), found)
    top, problems = conform_mapping(raw, _TOP, "", ignore=("data", "tasks", "logger", *_COMPONENTS))
    found += [_groups_of_tasks(problem, raw.get("only")) for problem in problems]
    components = {key: _component(raw.get(key), registry, key, found) for key, registry in _COMPONENTS.items()}
    common = _common(raw.get("balancing"), "balancing", found)
    loggers = _loggers(raw.get("logger"), found)
    data, sources = _data(raw.get("data"), found)
    tasks = _tasks(raw.get("tasks"), found)
    _check_together(raw, top, components, tasks, found)
    _check_sources(raw.get("data"), top, data, tasks, found)
    encoder = components["encoder"]
    if isinstance(data, DataOptions) and data.in_memory is False and encoder is not None:
        why = why_whole(sources, tasks, encoder.name)
        found += [] if why is None else [Problem("data.in_memory", f"cannot be false: {why[0]}", why[1])]
    if found:
        raise ConfigError([with_origin(_renamed(p, raw), origin) for p in _distinct(found)])
    only = top["only"]
    kept = {name: task for name, task in tasks.items() if only is None or name in only}
    return RunConfig(
        data=data, sources=sources, input_dim=top["input_dim"], shared_dim=top["shared_dim"], tasks=kept,
        left_out={name: task for name, task in tasks.items() if name not in kept}, trainer=top["trainer"],
        monitor=top["monitor"], seed=top["seed"], resume=top["resume"], dry_run=top["dry_run"],
        init_from=top["init_from"], freeze=_listed(top["freeze"]), loss_scale=common["loss_scale"], loggers=loggers,
        **{key: component for key, component in components.items() if component is not None},
    )  # fmt: skip


def seconds(text: str | float) -> float:
    """Time as a number of seconds, or ``HH:MM:SS``, ``DD:HH:MM:SS``.

    Raises:
        ValueError: Neither.

    Example:
        >>> seconds("01:30:00"), seconds(90)
        (5400.0, 90.0)
    """
    if isinstance(text, int | float):
        return float(text)
    parts = [int(part) for part in text.split(":")]
    if len(parts) not in (3, 4) or any(part < 0 for part in parts):
        raise ValueError(text)
    return float(sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False)))


def check_device(name: str, where: str) -> list[Problem]:
    """What is wrong with the name of a device; whether it is there is seen later.

    Example:
        >>> check_device("gpu", "--device")
        [Problem(where='--device', what="must be auto, cpu, cuda, cuda:N or mps, got 'gpu'", hint='')]
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        return []
    return [Problem(where, f"must be auto, cpu, cuda, cuda:N or mps, got '{name}'")]


def why_whole(
    sources: Mapping[str, SourceConfig], tasks: Mapping[str, TaskConfig], encoder: str
) -> tuple[str, str] | None:
    """Why data have to be read whole, and what to do about it; None if they can be streamed.

    Example:
        >>> source = SourceConfig(Component("table", {"path": "a.csv"}), SplitOptions())
        >>> why_whole({"": source}, {}, "mlp")[0]
        'a.csv is no Parquet file'
    """
    if "" not in sources:
        return "several sources (data.sources) are read whole", "Join them into one table (data.source=table)."
    name, options = sources[""].component.name, sources[""].component.options
    if name != "table":
        return f"data.source={name} is read whole", "Write its rows as a Parquet file, for data.source=table."
    given = [options[key] for key in ("path", "train", "val", "test") if options.get(key) is not None]
    files = [file for value in given for file in ([value] if isinstance(value, str) else value)]
    other = next((file for file in files if not file.lower().endswith((".parquet", ".pq"))), None)
    if other is not None:
        return f"{other} is no Parquet file", _as_parquet(other)
    if options.get("decimal", ".") != "." or options.get("thousands") is not None:
        what = "data.decimal and data.thousands say how numbers are written as text, which is decided over all rows"
        return what, "Write the Parquet file with numbers as numbers."
    tokens = [task for task, config in tasks.items() if _class_flag(KINDS, config.kind.name, "per_token", False)]
    if tokens:
        return f"task '{tokens[0]}' labels tokens, which are read whole", "Write data.in_memory=true."
    if _class_flag(ENCODERS, encoder, "reads_links", False):
        what = f"encoder={encoder} reads what all training rows tie together"
        return what, "Write data.in_memory=true, or use another encoder."
    return None


def _as_parquet(file: str) -> str:
    """How a table in another format becomes a Parquet file, without being read whole."""
    path = PurePath(file)
    suffix = next((s for s in reversed(path.suffixes) if s not in (".gz", ".zst")), "")
    readers = dict.fromkeys((".jsonl", ".ndjson"), "scan_ndjson('{}')") | dict.fromkeys(
        (".arrow", ".feather"), "scan_ipc('{}')"
    )
    text = "scan_csv('{}', infer_schema=False" + (", separator='\\t')" if suffix == ".tsv" else ")")
    reader = readers.get(suffix, text).format(file)
    target = path.parent / f"{path.name.removesuffix(''.join(path.suffixes))}.parquet"
    return f"Write it as Parquet once: polars.{reader}.sink_parquet('{target}')."


def task_metrics(tasks: Mapping[str, TaskConfig]) -> dict[str, dict[str, bool | None]]:
    """For each task the metrics it reports, and whether higher is better (None: neither)."""
    found = {}
    for name, task in tasks.items():
        known = _known_metrics(task.kind.name, task.common.ranking)
        found[name] = {metric: known[metric] for metric in task.common.metrics or known}
    return found


def _known_metrics(kind: str, ranking: RankingOptions | None) -> dict[str, bool | None]:
    """Metrics that a task can report: of the lists that it ranks, if it does, and of its kind."""
    listed = {} if ranking is None else {f"ndcg@{ranking.k}": True, f"hr@{ranking.k}": True}
    return {**listed, **KINDS.literal(kind, "metrics")}


def is_higher_better(monitor: str, tasks: Mapping[str, TaskConfig] = MappingProxyType({})) -> bool:
    """Whether a higher value of what is monitored is better.

    Args:
        monitor: A name as ``monitor_names`` has them.
        tasks: The tasks, whose kinds say it; of one that is not known the name of the metric does.

    Example:
        >>> is_higher_better("mean"), is_higher_better("val/loss"), is_higher_better("val/income/rmse")
        (True, False, False)
    """
    *_, task, metric = ["", *monitor.split("/")]
    better: dict[str, bool | None] = {"loss": False}
    for kind in KINDS.names():
        better |= KINDS.literal(kind, "metrics")
    if task in tasks:
        better |= task_metrics({task: tasks[task]})[task]
    return better.get(metric) is not False


def best_by(monitor: str, of_checkpoint: str | None) -> str:
    """What makes an epoch the best, and is the score of its run: in a sweep the jobs are ranked, and searched, by it.

    Args:
        monitor: The run's ``monitor``.
        of_checkpoint: ``trainer.checkpoint.monitor``, which goes first.

    Example:
        >>> best_by("mean", None), best_by("mean", "val/loss")
        ('mean', 'val/loss')
    """
    return of_checkpoint or monitor


def monitor_names(tasks: Mapping[str, TaskConfig]) -> list[str]:
    """Everything that ``monitor`` may be."""
    names = ["mean", "worst", "loss", "val/mean", "val/worst", "val/loss"]
    return names + [
        f"val/{task}/{metric}"
        for task, metrics in task_metrics(tasks).items()
        for metric in ("loss", *(m for m, better in metrics.items() if better is not None))
    ]


def _load_plugins(plugins: Any, found: list[Problem]) -> None:
    for module in plugins if isinstance(plugins, list) else []:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            hint = "Is it installed, or on PYTHONPATH?"
            found.append(Problem("plugins", f"cannot import '{module}' ({error})", hint))
        except Exception as error:  # whatever a module of the user's may raise
            found.append(Problem("plugins", f"cannot import '{module}' ({type(error).__name__}: {error})"))


def _component(node: Any, registry: Registry[Any], where: str, found: list[Problem]) -> Component | None:
    if isinstance(node, str):  # `encoder: mlp` inside a file instead of a choice in its defaults list
        hint = f"In a file, write it in the defaults list: `- override /{where}: {node}`. "
        hint += f"On the command line: {where}={node}."
        found.append(Problem(where, f"must be a mapping with a name, got {shown(node)}", hint))
        return None
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        found.append(
            Problem(where, f"must be a mapping with a name, got {shown(node)}", did_you_mean("", registry.names()))
        )
        return None
    return _named(node, str(node["name"]), registry, where, f"{where}.name", ("name", *_COMMON.get(where, {})), found)


def _loggers(node: Any, found: list[Problem]) -> dict[str, Component]:
    """The trackers that were chosen, each below its name as the files of the group ``logger`` put it."""
    if node in (None, {}, []):
        return {}
    if not isinstance(node, Mapping):
        hint = "In a file, write it in the defaults list: `- override /logger: [tensorboard]`."
        found.append(Problem("logger", f"must be a mapping from names to options, got {node!r}", hint))
        return {}
    loggers = {}
    for name, options in node.items():
        where = f"logger.{name}"
        if name not in LOGGERS.names():
            found.append(replace(LOGGERS.unknown(name, where), what="unknown key"))
        elif not isinstance(options, Mapping) or options.get("name") != name:
            found.append(Problem(where, "is not chosen", f"Add logger={name}, or logger=[{name},...] for several."))
        elif component := _named(options, name, LOGGERS, where, f"{where}.name", ("name",), found):
            found += _missing_package(component, LOGGERS, where)
            loggers[name] = component
    return loggers


def _common(node: Any, where: str, found: list[Problem]) -> dict[str, Any]:
    """The keys that every component of a group has."""
    given = {key: node[key] for key in _COMMON[where] if key in node} if isinstance(node, Mapping) else {}
    values, problems = conform_mapping(given, _COMMON[where], where)
    found += problems
    return values


def _named(
    node: Mapping[str, Any],
    name: str,
    registry: Registry[Any],
    where: str,
    where_name: str,
    ignore: tuple[str, ...],
    found: list[Problem],
) -> Component | None:
    if name not in registry.names():
        found.append(registry.unknown(name, where_name))
        return None
    options, problems = conform_mapping(node, registry.options(name), where, ignore=ignore)
    found += [_with_owners(problem, registry) for problem in problems]
    return Component(name, options)


def _with_owners(problem: Problem, registry: Registry[Any]) -> Problem:
    """Names the components that have the option which one of their group does not have."""
    key = problem.where.rpartition(".")[2]
    owners = [name for name in registry.names() if problem.what == "unknown key" and key in registry.options(name)]
    if not owners:
        return problem
    return replace(problem, hint=f"{problem.hint} It is an option of {registry.group}={', '.join(owners)}.")


def _data(node: Any, found: list[Problem]) -> tuple[Any, Any]:
    if not isinstance(node, Mapping):
        found.append(
            Problem("data", f"must be a mapping, got {shown(node)}", "It needs at least `source` (table or sklearn).")
        )
        return None, None
    common = options_of(DataOptions)
    if node.get("sources") is not None:
        return _several(node, common, found)
    own, known = _source_options(node.get("source"), "data.source", found)
    values, problems = conform_mapping(node, {**common, **known}, "data", ignore=("source", "sources"))
    found += problems
    if problems or own is None:
        return None, None
    data = DataOptions(**{k: v for k, v in values.items() if k in common})
    name = str(node["source"])
    return data, {"": SourceConfig(Component(name, {k: values[k] for k in own}), data.split)}


def _source_options(
    name: Any, where: str, found: list[Problem]
) -> tuple[Mapping[str, Option] | None, Mapping[str, Option]]:
    """The options of a source (None if there is no such source), and those that may be meant."""
    if isinstance(name, str) and name in SOURCES.names():
        return SOURCES.options(name), SOURCES.options(name)
    what = "must be given" if name is None else f"unknown source {name!r}"
    found.append(Problem(where, what, did_you_mean(str(name), SOURCES.names())))
    return None, {key: option for source in SOURCES.names() for key, option in SOURCES.options(source).items()}


def _several(node: Mapping[str, Any], common: Mapping[str, Option], found: list[Problem]) -> tuple[Any, Any]:
    """``data.sources``: what all share stands in ``data``, what a source has for itself in its own mapping."""
    before = len(found)
    if node.get("source") is not None:
        what, hint = (
            f"cannot be given together with data.sources, got {shown(node['source'])}",
            "Write it in each source.",
        )
        found.append(Problem("data.source", what, hint))
    values, problems = conform_mapping(node, common, "data", ignore=("source", "sources"))
    for problem in problems:
        key = problem.where.removeprefix("data.")
        ours = problem.what == "unknown key" and any(key in SOURCES.options(name) for name in SOURCES.names())
        found.append(replace(problem, hint=f"Write it in each source: data.sources.NAME.{key}.") if ours else problem)
    named = node["sources"]
    if not isinstance(named, Mapping) or not named:
        hint = "Example: sources: {books: {path: books.csv}, movies: {path: movies.csv}}."
        found.append(Problem("data.sources", f"must be a mapping from names to options, got {shown(named)}", hint))
        return None, None
    sources = {}
    for name, options in named.items():
        where = f"data.sources.{name}"
        if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
            rule = "Allowed: letters, digits, _, -, + and spaces, not starting with a digit."
            found.append(Problem(where, f"cannot be the name of a source, got {shown(name)}", rule))
        elif not isinstance(options, Mapping):
            hint = f"Example: {name}: {{path: {name}.csv}}."
            found.append(Problem(where, f"must be a mapping of options, got {shown(options)}", hint))
        elif (source := _one_of_several(options, node.get("split"), where, found)) is not None:
            sources[name] = source
    if len(found) > before:
        return None, None
    return DataOptions(**values), sources


def _one_of_several(
    options: Mapping[str, Any], common_split: Any, where: str, found: list[Problem]
) -> SourceConfig | None:
    kind = options.get("source", "table")
    own, known = _source_options(kind, f"{where}.source", found)
    extra = {"rename": Option(dict[str, str], {}), "split": Option(SplitOptions, SplitOptions())}
    values, problems = conform_mapping(options, {**known, **extra}, where, ignore=("source",))
    if not problems and isinstance(common_split, Mapping):  # the source's own keys win over those of data.split
        split, wrong = conform({**common_split, **options.get("split", {})}, SplitOptions, f"{where}.split")
        values["split"] = split if not wrong else SplitOptions()  # said of data.split already
    found += problems
    if problems or own is None:
        return None
    return SourceConfig(Component(str(kind), {k: values[k] for k in own}), values["split"], values["rename"])


def _tasks(node: Any, found: list[Problem]) -> dict[str, TaskConfig]:
    if isinstance(node, list) and node:
        before = len(found)
        node = _tasks_from_list(node, found)
        if not node and len(found) > before:
            return {}
    if not isinstance(node, Mapping) or not node:
        what = (
            "no task is declared"
            if node in (None, {}, [])
            else f"must be a mapping from task names to options, got {shown(node)}"
        )
        found.append(Problem("tasks", what, "Example: tasks: {income: {kind: binary}}."))
        return {}
    tasks = {}
    for name, options in node.items():
        where = f"tasks.{name}"
        if not _is_plain(name):
            found.append(_no_text(where, name))
        elif not TASK_NAME.fullmatch(str(name)) or name in RESERVED_TASK_NAMES:
            reserved = ", ".join(RESERVED_TASK_NAMES)
            rule = f"letters, digits, _, -, + and spaces, not starting with a digit, and not {reserved}"
            found.append(
                Problem(
                    where,
                    f"cannot be the name of a task, got {shown(name)}",
                    f"Allowed: {rule}. The column goes into `target`.",
                )
            )
        elif not isinstance(options, Mapping):
            found.append(
                Problem(
                    where, f"must be a mapping of options, got {shown(options)}", f"Example: {name}: {{kind: binary}}."
                )
            )
        elif (task := _task(options, where, [other for other in node if other != name], found)) is not None:
            tasks[name] = task
    return tasks


def _is_plain(name: Any) -> bool:
    """Whether the name of a task is text or a number: quotes would not make a name of a number."""
    return isinstance(name, str | int | float) and not isinstance(name, bool)


def _no_text(where: str, name: Any) -> Problem:
    """A task's name that YAML does not read as text."""
    why = " (what YAML makes of on, off, yes, no)" if isinstance(name, bool) else ""
    return Problem(where, f"the name of a task must be text, got {shown(name)}{why}", "Write it in quotes.")


def _tasks_from_list(items: list[Any], found: list[Problem]) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for i, item in enumerate(items):
        name = item.get("name") if isinstance(item, Mapping) else None
        if name is not None and not _is_plain(name):
            found.append(_no_text(f"tasks[{i}].name", name))
        elif name is None:
            hint = "Example: {name: income, kind: binary}."
            found.append(Problem(f"tasks[{i}]", f"must be a mapping with a name, got {shown(item)}", hint))
        elif name in tasks:
            first = [it.get("name") for it in items].index(name)
            found.append(Problem(f"tasks[{i}]", f"the name '{name}' is taken by tasks[{first}]"))
        else:
            tasks[name] = {key: value for key, value in item.items() if key != "name"}
    return tasks


def _task(options: Mapping[str, Any], where: str, others: list[Any], found: list[Problem]) -> TaskConfig | None:
    common = options_of(TaskOptions)
    kind = options.get("kind")
    if not isinstance(kind, str) or kind not in KINDS.names():
        what = "must be given" if kind is None else f"unknown kind {kind!r}"
        hint = did_you_mean(str(kind), KINDS.names())
        if kind is None and (near := nearest(where.removeprefix("tasks."), map(str, others))):
            hint = f"{hint} Or is it another task? {near}"  # a misspelt name makes a task of its own
        elif kind is None and options.get("type") is not None:
            hint = f"Did you write 'type' for it? {hint}"
        found.append(Problem(f"{where}.kind", what, hint))
        known = {**{k: o for name in KINDS.names() for k, o in KINDS.options(name).items()}, **common}
        _, problems = conform_mapping({k: v for k, v in options.items() if k != "kind"}, known, where, ignore=("kind",))
        found += [p for p in problems if p.what == "unknown key"]
        return None
    own = KINDS.options(kind)
    values, problems = conform_mapping(options, {**common, **own}, where)
    found += problems
    if problems:
        return None
    problems = [*_check_metrics(values["metrics"], kind, values["ranking"], where), *_check_labels(values, kind, where)]
    found += problems
    if problems:
        return None
    if not values["labelled"]:
        values["classes"] = values["classes"] or [0, 1]  # no label tells them
    return TaskConfig(TaskOptions(**{k: values[k] for k in common}), Component(kind, {k: values[k] for k in own}))


def _check_metrics(metrics: list[str] | None, kind: str, ranking: RankingOptions | None, where: str) -> list[Problem]:
    known = _known_metrics(kind, ranking)
    where = f"{where}.metrics"
    if metrics is None:
        return []
    if not metrics:
        return [Problem(where, "names no metric, got []", "Write null for all.")]
    found = [
        Problem(where, f"'{kind}' has no metric '{name}'", did_you_mean(name, known))
        for name in metrics
        if name not in known
    ]
    found += [Problem(where, f"names '{name}' twice") for name in dict.fromkeys(metrics) if metrics.count(name) > 1]
    if not found and known[metrics[0]] is not True:
        first = ", ".join(name for name, better in known.items() if better)
        what = f"the first is the primary one, which `mean` averages: it must be better when higher, got '{metrics[0]}'"
        found.append(Problem(where, what, f"Put one of these first: {first}."))
    return found


def _check_labels(values: Mapping[str, Any], kind: str, where: str) -> list[Problem]:
    found = []
    target = values["target"]
    if isinstance(target, list):
        if not _class_flag(KINDS, kind, "several_columns", False):
            several = ", ".join(k for k in KINDS.names() if _class_flag(KINDS, k, "several_columns", False))
            hint = f"Only {several} takes several columns."
            found.append(Problem(f"{where}.target", f"'{kind}' takes one column, got {target}", hint))
        elif len(set(target)) != len(target) or len(target) < 2:
            found.append(Problem(f"{where}.target", f"must be two or more different columns, got {target}"))
    found += _check_unlabelled(values, kind, where)
    if values["sample_weight"] is not None and _class_flag(KINDS, kind, "per_token", False):
        found.append(Problem(f"{where}.sample_weight", f"'{kind}' takes no weights: all tokens count alike"))
    if values["mask_by"] is not None and not values["mask_by"]:
        found.append(Problem(f"{where}.mask_by", "names no column, got {}", "Write null for no mask."))
    markers = values["missing_label"] if isinstance(values["missing_label"], list) else [values["missing_label"]]
    classes = {str(name) for name in values.get("classes") or []}
    found += [
        Problem(f"{where}.missing_label", f"{marker!r} is one of the task's classes", "Take it out of `classes`.")
        for marker in markers
        if marker is not None and str(marker) in classes
    ]
    return found


_NEEDS_COLUMN = ("target", "missing_label", "mask_by", "sample_weight", "source", "ranking")


def _check_unlabelled(values: Mapping[str, Any], kind: str, where: str) -> list[Problem]:
    """A task without labels is a factor of a product, and has none of the keys that say what to do with labels."""
    if values["labelled"]:
        return []
    if kind != "binary":
        hint = "Only a factor of a task with `product_of` can go without labels."
        return [Problem(f"{where}.labelled", f"must be true for kind {kind}, got false", hint)]
    hint = "Take one of the two out."
    return [
        Problem(f"{where}.{key}", "cannot be given with labelled: false", hint)
        for key in _NEEDS_COLUMN
        if values[key] is not None
    ]


def _check_chains(
    sharing: Component | None, balancing: Component | None, declared: Mapping[str, TaskConfig],
    kept: Mapping[str, TaskConfig], found: list[Problem],
) -> None:  # fmt: skip
    """Tasks that are made of others, or come after others, and what can be done with them."""
    factors = set()
    for name, task in declared.items():
        if task.common.product_of is not None:
            factors.update(task.common.product_of)
            found += _check_product(name, task, declared)
        if task.common.after is not None:
            found += _check_after(name, task.common.after, declared)
    for name, task in kept.items():
        if not task.common.labelled and name not in factors:
            hint = "Write labelled: true, or name it in the `product_of` of another task."
            found.append(Problem(f"tasks.{name}.labelled", "is false, and no task is a product of it", hint))
        others = {"product_of": task.common.product_of or [], "after": [task.common.after] if task.common.after else []}
        for key, names in others.items():
            for other in names:
                if other in declared and other not in kept:
                    hint = f"Keep '{other}' too, or leave '{name}' out."
                    found.append(Problem("only", f"leaves out '{other}', which tasks.{name}.{key} names", hint))
    if sharing is None:
        return
    chain = _class_flag(SHARINGS, sharing.name, "chain", None)
    if chain is not None and not any(getattr(task.common, chain) is not None for task in kept.values()):
        example = {"product_of": "buy: {kind: binary, product_of: [click, conversion]}",
                   "after": "buy: {kind: binary, after: click}"}[chain]  # fmt: skip
        hint = f"Example: tasks: {{{example}, ...}}. Without such a task, use sharing=hard."
        found.append(Problem("sharing", f"'{sharing.name}' needs a task with `{chain}`, and there is none", hint))
    fitting = [name for name in SHARINGS.names() if _class_flag(SHARINGS, name, "chain", None) == "after"]
    for name, task in kept.items():
        if task.common.after is not None and chain != "after":
            hint = f"Use sharing={' or sharing='.join(fitting)}, or leave the key out."
            found.append(Problem(f"tasks.{name}.after", f"sharing '{sharing.name}' knows no order of tasks", hint))
        if task.common.product_of is None:
            continue
        where = f"tasks.{name}.product_of"
        if not _shares(sharing):
            what = f"trains its factors together, and sharing '{sharing.name}' trains every task alone"
            found.append(Problem(where, what, "Use sharing=esmm or sharing=hard."))
        if balancing is not None and balancing.options.get("gradients_on") == "features":
            what = "has no features of its own, whose gradient balancing.gradients_on=features would take"
            found.append(Problem(where, what, "Write balancing.gradients_on=parameters."))


def _check_product(name: str, task: TaskConfig, declared: Mapping[str, TaskConfig]) -> list[Problem]:
    where, factors = f"tasks.{name}.product_of", task.common.product_of or []
    if task.kind.name != "binary":
        return [Problem(where, f"needs kind binary, got {task.kind.name}", "It is a product of probabilities.")]
    found = []
    if len(factors) < 2 or len(set(factors)) < len(factors):
        found.append(Problem(where, f"must name two or more different tasks, got {factors}"))
    for factor in dict.fromkeys(factors):
        if factor == name:
            found.append(Problem(where, f"names the task itself, got {factors}"))
        elif factor not in declared:
            found.append(
                Problem(where, f"no task '{factor}'", did_you_mean(factor, [n for n in declared if n != name]))
            )
        elif declared[factor].kind.name != "binary":
            what = f"names '{factor}', of kind {declared[factor].kind.name}"
            found.append(Problem(where, what, "A factor is a probability: of kind binary."))
        elif declared[factor].common.product_of is not None:
            own = ", ".join(n for n in declared[factor].common.product_of or [] if n != name)
            found.append(Problem(where, f"names '{factor}', a product itself", f"Name its factors instead: {own}."))
    if task.common.hidden:
        hint = "Give them to its factors."
        found.append(Problem(f"tasks.{name}.hidden", f"a product has no head, got {task.common.hidden}", hint))
    if not task.common.labelled:
        found.append(Problem(f"tasks.{name}.labelled", "a product needs labels: they train its factors, got false"))
    if task.common.after is not None:
        found.append(
            Problem(f"tasks.{name}.after", "a product has no features that could follow those of another task")
        )
    return found


def _check_after(name: str, before: str, declared: Mapping[str, TaskConfig]) -> list[Problem]:
    where = f"tasks.{name}.after"
    if before not in declared:
        return [Problem(where, f"no task '{before}'", did_you_mean(before, [n for n in declared if n != name]))]
    for task in (name, before):
        if declared[task].kind.name != "binary":
            what = f"needs kind binary of both tasks, and '{task}' is of kind {declared[task].kind.name}"
            return [Problem(where, what, "What comes after something else has a probability that is lower.")]
    if declared[before].common.product_of is not None:
        hint = f"Name one of its factors: {', '.join(declared[before].common.product_of or [])}."
        return [Problem(where, f"names '{before}', a product, which has no features to pass on", hint)]
    path = [name]
    following: str | None = before
    while following is not None and following in declared and following not in path:
        path.append(following)
        following = declared[following].common.after
    if following == name:
        circle = " after ".join([*path, name])
        return [Problem(where, f"goes round in a circle: {circle}", "The first task of a chain has no `after`.")]
    return []


def _check_together(
    raw: Mapping[str, Any], top: Mapping[str, Any], components: Mapping[str, Component | None],
    tasks: Mapping[str, TaskConfig], found: list[Problem],
) -> None:  # fmt: skip
    """Rules between keys. A rule is skipped where one of its keys is wrong already."""
    declared = raw.get("tasks")
    if isinstance(declared, list):
        declared = _tasks_from_list(declared, [])
    names = list(declared) if isinstance(declared, Mapping) else list(tasks)
    only = top.get("only")
    if isinstance(only, list):
        found += [
            Problem("only", f"no task '{name}'", did_you_mean(str(name), names)) for name in only if name not in names
        ]
        if not only:
            found.append(Problem("only", "leaves no task, got []", "Write only=null for all tasks."))
    for key, component in components.items():
        if component is not None:
            found += _unknown_tasks(component, _COMPONENTS[key], key, names)
            found += _missing_package(component, _COMPONENTS[key], key)
    trainer = top.get("trainer")
    if isinstance(trainer, TrainerOptions):
        _check_trainer(trainer, components.get("scheduler"), found)
    if len(tasks) == len(names) and not any(problem.where == "only" for problem in found):
        kept = {n: t for n, t in tasks.items() if not isinstance(only, list) or n in only}
        if kept and all(task.common.auxiliary for task in kept.values()):
            what, hint = "is true for all tasks, and there is none to judge by", "Write false for those you care for."
            found.append(Problem(f"tasks.{next(iter(kept))}.auxiliary", what, hint))
        if kept and all(task.common.weight == 0 for task in kept.values()):
            what, hint = "is 0 for all tasks, and nothing would be trained", "Write a weight above 0 for some."
            found.append(Problem(f"tasks.{next(iter(kept))}.weight", what, hint))
        wanted = {"monitor": top.get("monitor")}
        if isinstance(trainer, TrainerOptions):
            wanted["trainer.early_stopping.monitor"] = trainer.early_stopping.monitor
            wanted["trainer.checkpoint.monitor"] = trainer.checkpoint.monitor
        for where, name in wanted.items():
            if isinstance(name, str) and name not in monitor_names(kept):
                found.append(
                    Problem(where, f"there is no number '{name}' to monitor", did_you_mean(name, monitor_names(kept)))
                )
    if isinstance(top.get("init_from"), str) and top.get("resume") not in (None, "auto"):
        what = "cannot be given together with resume, which takes the run's own weights"
        found.append(Problem("init_from", what, "Leave one of the two out."))
    sharing, balancing = components.get("sharing"), components.get("balancing")
    if len(tasks) == len(names) and not any(problem.where == "only" for problem in found):
        _check_chains(sharing, balancing, tasks, kept, found)
    if sharing is not None and balancing is not None and not _shares(sharing) and _needs_shared(balancing):
        hint = "Use balancing=equal, or a sharing with shared parameters (sharing=hard)."
        what = f"'{balancing.name}' needs gradients of shared parameters, and sharing '{sharing.name}' has none"
        found.append(Problem("balancing", what, hint))
    elif balancing is not None and _needs_shared(balancing) and "shared" in _listed(top.get("freeze")):
        hint = "Use a method that weights losses, such as balancing=equal, or freeze less."
        what = f"'{balancing.name}' needs gradients of shared parameters, and freeze=[shared] leaves none to train"
        found.append(Problem("balancing", what, hint))
    elif sharing is not None and balancing is not None and balancing.options.get("gradients_on") == "features":
        _check_features(sharing, trainer, found)
    wrong = {problem.where for problem in found}
    if sharing is not None and not _wrong_options("sharing", wrong):
        complete = len(tasks) == len(names) > 0 and "only" not in wrong
        with_head = sum(task.common.product_of is None for task in kept.values()) if complete else None
        shared_dim = None if "shared_dim" in wrong else top.get("shared_dim")
        encoder = None if _wrong_options("encoder", wrong) else components.get("encoder")
        found += _misfits(sharing, encoder, with_head, shared_dim)


def _wrong_options(key: str, wrong: Iterable[str]) -> bool:
    """Whether some option of a component is among the keys that have a problem."""
    return any(where.startswith(f"{key}.") for where in wrong)


def _misfits(sharing: Component, encoder: Component | None, tasks: int | None, shared_dim: int | None) -> list[Problem]:
    """What an architecture itself cannot work with. Only for one that has such a check are classes imported."""
    if not SHARINGS.has_own(sharing.name, "misfits"):
        return []
    with mistakes_in_components():
        if encoder is None:
            around = Surroundings(None, "", {}, tasks, shared_dim)
        else:
            around = Surroundings(ENCODERS.load(encoder.name), encoder.name, encoder.options, tasks, shared_dim)
        found: list[Problem] = SHARINGS.load(sharing.name).misfits(sharing.options, around)
    return found


def _listed(value: Any) -> tuple[str, ...]:
    """An option that is one text or a list of them."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def _check_features(sharing: Component, trainer: Any, found: list[Problem]) -> None:
    """What balancing the gradients of common features asks of the rest."""
    if not _class_flag(SHARINGS, sharing.name, "common_features", False):
        fitting = [n for n in SHARINGS.names() if _class_flag(SHARINGS, n, "common_features", False)]
        hint = f"Write balancing.gradients_on=parameters, or use sharing={' or '.join(fitting)}."
        found.append(
            Problem("balancing.gradients_on", f"'features' are not the same for all tasks with '{sharing.name}'", hint)
        )
    if isinstance(trainer, TrainerOptions) and trainer.accumulate_grad_batches > 1:
        hint = "Write balancing.gradients_on=parameters, or trainer.accumulate_grad_batches=1."
        found.append(Problem("balancing.gradients_on", "'features' need all rows of a step at once", hint))


def _check_trainer(trainer: TrainerOptions, scheduler: Component | None, found: list[Problem]) -> None:
    if trainer.max_epochs is None and trainer.max_steps is None and trainer.max_time is None:
        found.append(
            Problem("trainer", "never ends: max_epochs, max_steps and max_time are all null", "Set one of them.")
        )
    if trainer.max_time is not None:
        try:
            positive = seconds(trainer.max_time) > 0
        except ValueError:
            positive = False
        if not positive:
            what = f"must be seconds or HH:MM:SS, got {shown(trainer.max_time)}"
            found.append(Problem("trainer.max_time", what, "Example: 01:30:00."))
    if trainer.checkpoint.save_top_k < -1:
        found.append(
            Problem("trainer.checkpoint.save_top_k", f"must be at least -1 (all), got {trainer.checkpoint.save_top_k}")
        )
    warmup = scheduler.options.get("warmup_steps", 0) if scheduler is not None else 0
    if trainer.max_steps is not None and isinstance(warmup, int) and warmup >= trainer.max_steps:
        what = f"must be less than trainer.max_steps ({trainer.max_steps}), got {warmup}"
        found.append(Problem("scheduler.warmup_steps", what))
    found += check_device(trainer.device, "trainer.device")


def _check_sources(
    node: Any, top: Mapping[str, Any], data: Any, tasks: Mapping[str, TaskConfig], found: list[Problem]
) -> None:
    """Rules of several sources. A rule is skipped where one of its keys is wrong already."""
    named = node.get("sources") if isinstance(node, Mapping) else None
    names = [str(name) for name in named] if isinstance(named, Mapping) else []
    for task, config in tasks.items():
        if config.common.ranking is not None and config.kind.name != "binary":
            found.append(Problem(f"tasks.{task}.ranking", f"needs kind binary, got {config.kind.name}"))
        where = f"tasks.{task}.source"
        if config.sources is not None and named is None:
            found.append(Problem(where, "needs data.sources, got none", "All rows come from one source: leave it out."))
        elif config.sources == ():
            found.append(Problem(where, "is an empty list", "Write null for every source that has the target column."))
        elif config.sources is not None:
            strangers = [source for source in config.sources if source not in names]
            found += [Problem(where, f"no source '{name}'", did_you_mean(name, names)) for name in strangers]
    if not isinstance(data, DataOptions):
        return
    if data.unknown == "error" and data.min_count > 1:
        what = f"is 'error', where data.min_count={data.min_count} makes categories of training rows unknown"
        found.append(Problem("data.unknown", what, "Write data.min_count=1, or data.unknown=other."))
    if data.source_as_input and named is None:
        found.append(Problem("data.source_as_input", "needs data.sources, got none", "Write false."))
    trainer = top.get("trainer")
    unlimited = isinstance(trainer, TrainerOptions) and trainer.max_epochs is None
    if data.mixing == "annealed" and data.anneal_epochs is None and unlimited:
        found.append(Problem("data.anneal_epochs", "must be given where trainer.max_epochs is null, got null"))


def _unknown_tasks(component: Component, registry: Registry[Any], where: str, names: list[str]) -> list[Problem]:
    """Options that name tasks, in a list or as the keys of a mapping, may name declared ones only."""
    found = []
    for key, option in registry.options(component.name).items():
        value = component.options.get(key)
        if is_per_task(option.annotation) and isinstance(value, Mapping | list):
            found += [
                Problem(
                    f"{where}.{key}.{name}" if isinstance(value, Mapping) else f"{where}.{key}",
                    f"no task '{name}'",
                    did_you_mean(str(name), names),
                )
                for name in value
                if name not in names
            ]
    return found


def _missing_package(component: Component, registry: Registry[Any], where: str) -> list[Problem]:
    """A component may say what optional package it needs."""
    package = _class_flag(registry, component.name, "requires", None)
    if package is None:
        return []
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:  # none: a mere folder of that name, such as trackers leave behind
        return []
    hint = f'Install it: pip install "mtl-train[{package}]".'
    return [Problem(where, f"'{component.name}' needs the package {package}, which is not installed", hint)]


def is_per_task(annotation: Any) -> bool:
    """Whether an option's type is, or may be, a list of task names or a mapping from them."""
    members = getattr(annotation, "__args__", ())
    metadata = getattr(annotation, "__metadata__", ())
    return any(isinstance(m, TaskNames) for m in metadata) or any(is_per_task(m) for m in members)


def _shares(sharing: Component) -> bool:
    return bool(_class_flag(SHARINGS, sharing.name, "shares", True))


def _needs_shared(balancing: Component) -> bool:
    return bool(_class_flag(BALANCINGS, balancing.name, "needs_shared", False))


def _class_flag(registry: Registry[Any], name: str, attribute: str, default: Any) -> Any:
    try:
        return registry.literal(name, attribute)
    except AttributeError:
        return default


def _renamed(problem: Problem, raw: Mapping[str, Any]) -> Problem:
    """Points to our name where the key is what another tool calls it, or says why there is none."""
    if problem.what == "unknown key" and problem.where.rpartition(".")[2] == "num_workers":
        how = "rows are sliced in memory, or read ahead by one thread, which changes no result"
        return replace(problem, hint=f"There are no workers: {how}. trainer.threads sets the CPU threads.")
    if problem.what == "unknown key" and not problem.hint.startswith("Did"):
        near = difflib.get_close_matches(problem.where, _OTHER_NAMES, n=1, cutoff=0.85)
        if near:
            return replace(problem, hint=f"Did you mean '{_OTHER_NAMES[near[0]]}'?")
    if (
        problem.what == "unknown key"
        and "." not in problem.where
        and isinstance(raw.get("tasks"), Mapping)
        and problem.where in raw["tasks"]
    ):
        return replace(problem, hint=f"Did you mean 'tasks.{problem.where}'?")
    return problem


def with_origin(problem: Problem, origin: Origin) -> Problem:
    """The problem with the place where its key was set."""
    place = origin(problem.where)
    return problem if place is None else replace(problem, where=f"{problem.where} ({place})")


def _groups_of_tasks(problem: Problem, only: Any) -> Problem:
    """What to do with a word for groups of tasks, where it was not in a sweep or stands for none yet."""
    if problem.where != "only" or only not in ("auto", "every_pair", "every_subset"):
        return problem
    what = f"'{only}' stands for groups of tasks, for a sweep with one task file"
    hint = f"Write: mtl-train -m experiment=which_tasks_together task=NAME hydra.sweeper.params.only={only}"
    return Problem("only", what, hint)


def _distinct(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


__all__ = [
    "REQUIRED",
    "Component",
    "DataOptions",
    "FeatureOptions",
    "MixingOptions",
    "RunConfig",
    "SourceConfig",
    "SplitOptions",
    "TaskConfig",
    "TrainerOptions",
    "best_by",
    "conform",
    "is_higher_better",
    "is_per_task",
    "seconds",
    "task_metrics",
    "validate",
    "why_whole",
    "with_origin",
]
