"""The fixed keys of a configuration as dataclasses: what they are called, their types and their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mtl_cli.types import (
    AtLeastOne,
    NonNegative,
    NonNegativeInt,
    Plain,
    Positive,
    PositiveInt,
    ProperFraction,
    Share,
)

MissingInputs = Literal["indicator", "mean", "error"]
MixingMethod = Literal["proportional", "uniform", "temperature", "annealed", "round_robin"]


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
            one. Validation and test rows stay the same, and so do the classes of the tasks, so that runs with different
            shares can be compared.
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
        inputs: ``"*"``, or a list of column names, globs and ``{name: ..., type: TYPE}``: numeric, date (ISO 8601; with
            an offset the moment in UTC), category, text or image.
        exclude: Names and globs of columns that are no inputs.
        allow_inputs: Targets and other columns with a role of their own that may be inputs all the same.
        scale: Numbers: ``standard``: (x - mean) / std; ``quantile``: by rank to a standard normal;
            ``none``: as they are.
        missing_inputs: ``indicator``: a missing number becomes 0 after scaling (of scaled numbers the mean of the
            training rows, with ``quantile`` the median), and sets an extra 0/1 input of its column; ``mean``: the same
            alone, of unscaled numbers the mean; ``error``: every missing input cell is refused.
        bins: Bins that each single numeric column is cut into, for encoders that read them (Gorishniy et al. 2022);
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
    missing_inputs: MissingInputs = "indicator"
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
        anneal_epochs: Of ``annealed``: epochs until the shares stay; null: ``trainer.max_epochs`` as the run begins.
        epoch: Rows of an epoch: ``total``: as many as all sources have; ``longest``: as many as it takes to go once
            through that source for which it takes longest; or a number.
        source_as_input: Whether the name of a row's source is an input, the category ``source``.
    """

    mixing: MixingMethod = "proportional"
    temperature: AtLeastOne = 5.0
    anneal_epochs: PositiveInt | None = None
    epoch: Literal["total", "longest"] | PositiveInt = "total"
    source_as_input: bool = False


@dataclass(frozen=True)
class DataOptions(MixingOptions, FeatureOptions):
    """The keys of ``data`` that every source has.

    Args:
        in_memory: ``true``: the data are read whole; ``false``: they stay in their Parquet files, from where training
            reads them ahead, again in each epoch; ``auto``: that, if they and what is made of them (pixels of image
            files, features of texts) would take more than half of the memory that is free.
        shuffle_buffer: Of data that stay in their files: least number of rows that are shuffled together, row groups
            being read whole. As many are read ahead. ``auto``: 65,536, or fewer if their inputs take more than 512 MiB.
        id: Column that names a row; never an input.
        split: How the rows are split.
        batch_size: Rows of a step, of all processes together.
        shuffle: Whether each epoch has a new order of the rows.
        drop_last: Whether a last batch that is smaller than ``batch_size`` is left out.
    """

    in_memory: Literal["auto"] | bool = "auto"
    shuffle_buffer: PositiveInt | Literal["auto"] = "auto"
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
    """The keys of a task that every kind has.

    Args:
        kind: What it predicts, by the name of a registered kind.
        target: Column with the labels, or several that make up the label together; null: the task's name.
        weight: Factor on its loss; 0: the loss is reported, and trains nothing.
        hidden: Widths of the hidden layers of its head; empty: a linear head.
        missing_label: Values of the target that mean "no label", beside cells that are missing (``data.missing``).
        mask_by: Other columns, each with the value, or one of several, that it must hold for the label to count.
        sample_weight: Column of numbers from 0: what each row counts in the loss. A row with 0 has no label. Not
            where each token has a label.
        metrics: What is reported of the kind's metrics, the primary one first; null: all.
        source: With ``data.sources``, the ones whose rows have labels; null: all that have the target column.
        ranking: The lists that its rows form, of a binary task.
        labelled: Whether it has labels of its own; false: it is trained as a factor of a product alone.
        auxiliary: Whether it is trained for the others' sake: means over tasks and comparisons leave it out.
        product_of: The binary tasks whose probabilities multiply to its own.
        after: The binary task that has to happen before it.
    """

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
    """When to stop before the limits; the keys of ``trainer.early_stopping``.

    Args:
        monitor: The number that is watched; null: that of the run.
        patience: Evaluations without improvement after which to stop; null: never.
        min_delta: An improvement must be larger than this.
    """

    monitor: str | None = None
    patience: PositiveInt | None = None
    min_delta: NonNegative = 0.0


@dataclass(frozen=True)
class CheckpointOptions:
    """Which checkpoints to keep besides the last; the keys of ``trainer.checkpoint``.

    Args:
        monitor: What the best epochs are chosen by; null: the number of the run.
        save_top_k: How many of the best to keep; 0: none, -1: all.
        every_n_steps: Steps after which the last one is saved inside an epoch too; null: at the end of an epoch only.
    """

    monitor: str | None = None
    save_top_k: int = 1
    every_n_steps: PositiveInt | None = None


@dataclass(frozen=True)
class TrainerOptions:
    """The loop; the keys of ``trainer``. The first of the three limits that is reached ends it.

    Args:
        max_epochs: Most passes over the training rows; null: no limit.
        max_steps: Most optimizer steps.
        max_time: Longest time, in seconds or as ``HH:MM:SS`` or ``DD:HH:MM:SS``.
        precision: Of the forward pass.
        gradient_clip_val: Longest gradient of the model allowed (2-norm over all its parameters).
        accumulate_grad_batches: Batches of an optimizer step.
        check_val_every_n_epoch: Epochs between evaluations.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        threads: CPU threads; ``auto``: one for small steps, else all cores or ``OMP_NUM_THREADS``.
        diagnostics_every: Steps between looks at the tasks' gradients; 0: none.
        on_nonfinite: What a loss or gradient that is not finite does: it stops the run, or its step is skipped.
        compile: Whether PyTorch compiles the model.
        deterministic: Whether the same run gives the same bytes on the same machine.
        early_stopping: When to stop before the limits.
        checkpoint: Which checkpoints to keep.
    """

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
