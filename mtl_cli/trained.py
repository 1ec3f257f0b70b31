"""A run after its training: its model and its preprocessing, rebuilt from the run folder alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mtl_cli.build import (
    DATA_FORMAT,
    Data,
    autocast_type,
    build_model,
    build_source,
    choose_device,
    choose_source,
    choose_threads,
    encode_labels,
    find_rankings,
    load_fitted,
    model_spec,
    name_source,
    place_as_trained,
    read_inputs,
    read_rows,
    tasks_without_columns,
    tasks_without_weights,
)
from mtl_cli.data import AnyTable, Features, Source, Splits, Table
from mtl_cli.data.batches import Origins, Rows, join_labels
from mtl_cli.data.input_columns import Findings
from mtl_cli.data.sources.table import FrameSource
from mtl_cli.data.table import Part
from mtl_cli.errors import ConfigError, DataError, Problem, RunError, listed
from mtl_cli.loop.evaluate import Evaluation, forward, rows_at_once, score
from mtl_cli.loop.progress import Progress
from mtl_cli.model import MultiTaskModel
from mtl_cli.registry import SOURCES
from mtl_cli.run import RunFolder, digest, told_of_edits
from mtl_cli.run.checkpoint import load
from mtl_cli.schema import RunConfig, check_device, validate
from mtl_cli.tasks import LabelCounts, Task, first_columns, target_columns
from mtl_cli.types import InputSpec, Labels

ROW = "row"  # the column that numbers the rows of predictions where there is no id
_INTO_FRAMES = {"pandas": "Call polars.from_pandas on it.", "pyarrow": "Call polars.from_arrow on it."}
_NUMBER_OF_THREADS = threading.RLock()  # of PyTorch's: whoever changes it holds this until it is as it was
_SHOWN = 10  # tasks that a run is described by
_ROWS = 65_536  # of a table at a time, at most
_CELLS = 4_000_000  # what they hold, or is predicted of them: wide tables, images and many classes need no more memory


@dataclass(frozen=True)
class Evaluated:
    """The numbers of a model on some rows.

    Args:
        evaluation: The metrics.
        rows: How many rows there were.
        counts: Labels of each task among them.
        changed: Whether the run's own data are no longer those of the training.
        notes: What the user should know.
        left_out: Tasks whose columns are not there, as ``notes`` say.
    """

    evaluation: Evaluation
    rows: int
    counts: dict[str, LabelCounts]
    changed: bool
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(repr=False)  # what data.json says alone fills pages
class TrainedRun:
    """A trained model that reads tables as its training did. Made by ``load_run``.

    While it computes, PyTorch has as many threads as in training (``trainer.threads``), so that numbers are those of
    the training to the last digit; before and after it has as many as the caller wants.

    Args:
        folder: The run folder.
        config: Its configuration.
        features: How inputs are made, with the statistics of the training rows.
        tasks: Tasks in training order, their kinds fitted.
        model: The model in evaluation mode, on the device that computes.
        checkpoint: Name of the checkpoint whose weights it has.
        epoch: Epochs that these weights were trained for.
        state: What data.json says.
        notes: What the user should know about the run.

    Attributes:
        findings: What was replaced in the rows that ``predict``, ``predictions`` or ``evaluate_file`` was called for
            last. It grows while predictions are read.
    """

    folder: RunFolder
    config: RunConfig
    features: Features
    tasks: tuple[Task, ...]
    model: MultiTaskModel
    checkpoint: str
    epoch: int
    state: dict[str, Any]
    notes: tuple[str, ...] = ()
    findings: Findings = field(default_factory=Findings, init=False)

    def __repr__(self) -> str:
        names = listed(list(self.config.tasks), _SHOWN)
        return f"<TrainedRun {self.folder.path}: {self.checkpoint} weights (epoch {self.epoch}), tasks {names}>"

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    @property
    def spec(self) -> InputSpec:
        """What the model reads, and for which positions it gives outputs."""
        return model_spec(self.features, self.tasks)

    def reading(self, options: Mapping[str, str | None], source: str | None = None) -> TrainedRun:
        """The same run for files that are written otherwise than its own.

        Args:
            options: ``sep``, ``encoding``, ``decimal`` and ``thousands``; None: as in training.
            source: Which of the run's sources the files are like, where they have names.

        Raises:
            ConfigError: The run's source does not read such files; or as ``build_source``.
        """
        given: dict[str, str | None] = {key: value for key, value in options.items() if value is not None}
        if not given:
            return self
        name = choose_source(self.config, source)
        own = self.config.sources[name]
        known = SOURCES.options(own.component.name)
        if not set(given) <= set(known):
            what = f"cannot be given: the run's source '{own.component.name}' reads files without such signs"
            raise ConfigError([Problem(f"--{key}", what, "Leave it out.") for key in given])
        if "decimal" in given:  # the run's own sign between groups may be the decimal sign of these files
            given = {"thousands": None, **given}
        component = replace(own.component, options={**own.component.options, **given})
        config = replace(self.config, sources={**self.config.sources, name: replace(own, component=component)})
        # Training decides which columns hold such numbers; where it read no such signs, all that hold numbers may.
        tasks = [task.name for task in self.tasks if not task.kind.classes]
        numbers = {column.name for column in self.features.numeric}
        numbers.update(target for task in tasks for target in config.tasks[task].targets(task))
        numbers.update(weight for task in config.tasks.values() if (weight := task.common.sample_weight) is not None)
        converted = sorted(numbers.union(self.state["converted"]))
        return replace(self, config=config, state={**self.state, "converted": converted})

    def predict(
        self, data: str | Path | pl.DataFrame, *, id: str | None = None, source: str | None = None
    ) -> pl.DataFrame:
        """Predicts every row of a table. What was replaced in it, such as unknown categories, ``findings`` says.

        Args:
            data: A file of any format that training reads, or a frame. Labels and other columns may be there or not.
            id: Column to copy into the result; None for the run's own (``data.id``), and ``""`` for row numbers from 1.
            source: Which of the run's sources the rows are like, where they have names.

        Returns:
            One row per row, in order: the id or row number, and for each task ``TASK_pred`` and ``TASK_prob_CLASS``;
            for a task that labels tokens, lists of these. Rows whose image cannot be read have no prediction.

        Raises:
            DataError: Absent columns, or cells that are not what their column holds.
            ConfigError: There is no such source, or one of several must be named.
            TypeError: The data are neither a file nor a frame of polars.
        """
        if isinstance(data, pl.DataFrame):
            rows = self._in_memory(data, source)
        elif isinstance(data, str | os.PathLike):
            rows = build_source(self.config, os.fspath(data), source)
        else:
            raise _neither_file_nor_frame(data)
        try:
            return pl.concat(self.predictions(rows, id=id))
        except DataError as error:
            raise DataError([_numbering_rows(problem) for problem in error.problems]) from None

    def predictions(self, source: Source, *, id: str | None = None) -> Iterator[pl.DataFrame]:
        """What ``predict`` gives, some rows at a time; at least one frame. ``findings`` counts what was replaced."""
        self.findings = Findings()
        return self._predictions(source, id, self.findings)

    def _predictions(self, source: Source, id: str | None, findings: Findings) -> Iterator[pl.DataFrame]:
        name = self.config.data.id if id is None else id or None
        where = "data.id" if id is None else "id"
        first = 0
        for chunk in self._chunks(source, {} if name is None else {name: where}, findings, verbatim=True):
            count = len(chunk.rows)
            numbers = np.arange(first + 1, first + count + 1)
            ids = pl.Series(ROW, numbers) if name is None else _ids(chunk.table, name)
            frame = pl.DataFrame([ids, *self._columns(chunk, ids.name)])
            if chunk.unreadable:
                readable = pl.Series(~np.isin(np.arange(count), chunk.unreadable))
                frame = frame.with_columns(pl.when(readable).then(pl.exclude(ids.name)))
            yield frame
            first += count

    def evaluate_file(self, path: str | Path, *, source: str | None = None) -> Evaluated:
        """Metrics over all rows of a labelled file. Its outputs and labels are held whole, its inputs are not.

        Args:
            path: The file.
            source: Which of the run's sources it is like, where they have names.

        Raises:
            DataError: Absent columns or bad cells, labels that the training rows do not have among them.
            ConfigError: There is no such source, or one of several must be named.
        """
        path, self.findings = os.fspath(path), Findings()
        findings = self.findings
        ranked = [
            (task.name, ranking) for task in self.tasks if (ranking := self.config.tasks[task.name].common.ranking)
        ]
        lists = {ranking.group: f"tasks.{name}.ranking.group" for name, ranking in ranked}
        kinds = [task.kind for task in self.tasks]
        groups, outputs, parts, count = [], [], [], 0
        lacking, left_out = list[str](), tuple[str, ...]()
        own: dict[str, list[np.ndarray]] = {task.name: [] for task in self.tasks}
        for chunk in self._chunks(build_source(self.config, path, source), lists, findings):
            labels, tokens = encode_labels(self.config, chunk.table, self.tasks, self.spec, chunk.unreadable)
            lacking, left_out = self._lacking(chunk.table, path)
            rows = Rows(chunk.rows.inputs, labels, self.device, tokens=tokens, firsts=first_columns(kinds))
            outputs.append(chunk.outputs)
            parts.append(rows.labels_in_order(rows_at_once(rows.inputs)))
            groups.append(chunk.table.frame.select(list(lists)))
            for task, columns in zip(self.tasks, target_columns(kinds), strict=True):
                of_task = tokens.labels if tokens is not None and task.kind.per_token else labels
                own[task.name].append(of_task.targets.numpy()[:, columns])
            count += len(rows)
        if count == 0:
            raise DataError(Problem(path, "holds no rows", "Give it rows with labels."))
        joined = join_labels(parts)
        origins = Origins(("",), np.zeros(len(joined.targets), np.int64))
        whole = Table(pl.concat(groups), (Part(path, 0, count, lines=False),))
        rankings = find_rankings(self.config, whole, [task.name for task in self.tasks])
        counts = {task.name: task.kind.counts(np.concatenate(own[task.name])) for task in self.tasks}
        with self._own_threads():
            evaluation = score(torch.cat(outputs, 1), joined, self.tasks, origins, rankings)
        return Evaluated(evaluation, count, counts, False, (*lacking, *findings.notes()), left_out)

    def evaluate_split(self, split: str | None) -> tuple[str, Evaluated]:
        """Metrics over the rows of a split of the run's own data: what the training computed, again.

        Args:
            split: ``train``, ``val`` or ``test``; None for test if there are such rows, else val.

        Raises:
            DataError: The data are not where they were or cannot be read, or the split has no rows.
        """
        table, splits = self._own_rows()
        split = split or ("test" if len(splits.test) else "val")
        if len(getattr(splits, split)) == 0:
            raise DataError(Problem("--split", f"there are no {split} rows ({splits.method})", "Use val or train."))
        notes = []
        changed = table.fingerprint != self.state["fingerprint"]
        if changed:
            notes.append(
                f"{table.files}: changed since the training (another fingerprint): the numbers are not those of the "
                f"training, and rows of {split} may have been trained on."
            )
        elif others := self.features.changed_files(table):
            changed = True
            notes += [
                f"{table.column(column).head}: image files changed since the training (other sizes): the numbers are "
                "not those of the training."
                for column in others
            ]
        lacking, left_out = self._lacking(table, table.files)
        inputs, found, unreadable = read_inputs(self.config, table, self.features, {split: getattr(splits, split)})
        labels, tokens = encode_labels(self.config, table, self.tasks, self.spec, unreadable)
        rankings = find_rankings(self.config, table, [task.name for task in self.tasks])
        data = Data(table, self.features, splits, self.tasks, inputs, labels, (), tokens, rankings)
        rows = data.rows(split, self.device)
        origins = rows.origins_of_positions(rows_at_once(rows.inputs))
        with self._own_threads():
            in_order = rows.labels_in_order(rows_at_once(rows.inputs))
            evaluation = score(self._forward(rows), in_order, self.tasks, origins, rows.rankings)
        counts = {task.name: task.kind.counts(data.targets(i, split)) for i, task in enumerate(self.tasks)}
        return split, Evaluated(evaluation, len(rows), counts, changed, (*notes, *lacking, *found), left_out)

    def _lacking(self, table: AnyTable, name: str) -> tuple[list[str], tuple[str, ...]]:
        """What a table of that name lacks of the columns that say what labels are and what they count.

        Returns:
            Notes on it, and the tasks that are left out for it.
        """
        left_out = tasks_without_columns(self.config, table)
        alike = {t: column for t, column in tasks_without_weights(self.config, table).items() if t not in left_out}
        so = "all its labelled rows are evaluated and count alike in its loss"
        return [
            *(f"task '{task}': not evaluated, no column '{column}' in {name}." for task, column in left_out.items()),
            *(f"task '{task}': no column '{column}' in {name}; {so}." for task, column in alike.items()),
        ], tuple(left_out)

    def _in_memory(self, frame: pl.DataFrame, source: str | None) -> Source:
        """The rows of a frame, which are read as those of the run's files are."""
        reader = self.config.sources[choose_source(self.config, source)].component
        signs = {key: reader.options[key] for key in FrameSource.signs if key in reader.options}
        return name_source(self.config, FrameSource(frame, **signs), source)

    def _chunks(
        self, source: Source, columns: Mapping[str, str], findings: Findings, *, verbatim: bool = False
    ) -> Iterator[_Chunk]:
        """Some rows after another, each time with what the model says of them.

        Args:
            source: The rows.
            columns: Columns that must be there besides the inputs, and who names them.
            findings: Counts what is replaced in them.
            verbatim: Whether the columns are wanted as they stand in the file, too.
        """
        features = self.features
        at_once = rows_at_once(features.spec)
        cells = max(features.spec.cells, sum(task.kind.num_outputs for task in self.tasks), 1)
        count = max(min(_ROWS, _CELLS // cells) // at_once, 1) * at_once
        as_written = tuple(columns) if verbatim else ()
        chunks = source.chunks(count, verbatim=as_written, converted=tuple(self.state["converted"]))
        for table in chunks:
            findings.files |= dict.fromkeys(table.notes)
            lacking = self.state.get("lacking", {}).get(table.sources[0])  # None: a run of an older version
            may_lack = features.optional if lacking is None else lacking
            needed = {c: who for c, who in features.columns.items() if c not in may_lack} | {**columns}
            table.require(needed, needed)
            # What its source did not have in training is not read of a file either.
            table = table.without([column for column in lacking or () if column not in columns])
            unreadable = self._unreadable()
            inputs, _ = self.features.transform(table, findings, unreadable=unreadable)
            rows = Rows(inputs, Labels(torch.empty(table.frame.height, 0)), self.device)
            findings.unreadable += [table.row(row) for row in unreadable or ()]
            yield _Chunk(table, rows, self._forward(rows), unreadable or [])

    def _forward(self, rows: Rows) -> Tensor:
        """Outputs (O, positions) of all rows, in order."""
        if len(rows) == 0:
            return torch.zeros(sum(task.kind.num_outputs for task in self.tasks), 0)
        batches = (inputs for inputs, _ in rows.in_order(rows_at_once(rows.inputs)))
        with self._own_threads():
            return forward(self.model, batches, autocast_type(self.config))

    @contextmanager
    def _own_threads(self) -> Iterator[None]:
        """Has PyTorch compute with the threads of the training.

        A thread of the process that computes for the first time meanwhile begins with their number, and would restore
        it as its caller's, for all that come later. So where the number has to be changed, one waits for the other.
        """
        own = choose_threads(self.config, self.model)
        with ExitStack() as left:
            left.enter_context(_NUMBER_OF_THREADS)
            callers = torch.get_num_threads()
            if callers == own:
                left.close()
            else:
                torch.set_num_threads(own)
                left.callback(torch.set_num_threads, callers)
            yield

    def _unreadable(self) -> list[int] | None:
        return [] if self.config.data.image.on_bad == "skip" else None

    def _columns(self, chunk: _Chunk, taken: str) -> list[pl.Series]:
        """Prediction columns, in the order of the configuration's tasks."""
        own = dict(zip(self.tasks, chunk.outputs.split([t.kind.num_outputs for t in self.tasks]), strict=True))
        block = next((block.name for block in self.spec.blocks if block.type == "tokens"), None)
        counts = None if block is None else chunk.rows.inputs.ragged(block).lengths().cpu().numpy()
        of_rows, of_tokens = _places(self.spec.positions, counts, len(chunk.rows), rows_at_once(chunk.rows.inputs))
        columns: dict[str, pl.Series] = {}
        for task in sorted(self.tasks, key=lambda task: list(self.config.tasks).index(task.name)):
            outputs = own[task].t()[of_tokens if task.kind.per_token else of_rows]
            for suffix, values in task.kind.columns(outputs).items():
                name = wanted = f"{task.name}_{suffix}"
                number = 2
                while name in columns or name == taken:
                    name, number = f"{wanted}_{number}", number + 1
                series = pl.Series(name, values, pl.String if values.dtype == object else None)
                columns[name] = _lists(series, counts) if task.kind.per_token and counts is not None else series
        return list(columns.values())

    def _own_rows(self) -> tuple[AnyTable, Splits]:
        with telling_where(self.state, ", or name --data"):
            table, splits, _ = read_rows(self.config)
        return table, splits


class _Chunk(NamedTuple):
    """Some rows, and what the model says of them."""

    table: Table
    rows: Rows  # without labels
    outputs: Tensor  # (O, positions)
    unreadable: list[int]  # rows that have no inputs


def _places(
    positions: str, counts: np.ndarray | None, rows: int, size: int
) -> tuple[slice | np.ndarray, slice | np.ndarray]:
    """Where the outputs of the rows and those of their tokens stand, of ``size`` rows at a time."""
    if positions != "both" or counts is None:
        return slice(None), slice(None)
    kinds = [np.repeat([False, True], [len(part), part.sum()]) for part in np.split(counts, range(size, rows, size))]
    token = np.concatenate(kinds)
    return np.flatnonzero(~token), np.flatnonzero(token)


def _lists(values: pl.Series, counts: np.ndarray) -> pl.Series:
    """Values of tokens as a list for each row."""
    rows = pl.DataFrame({"row": np.arange(len(counts))})
    tokens = pl.DataFrame({"row": np.repeat(np.arange(len(counts)), counts), "value": values})
    lists = tokens.group_by("row", maintain_order=True).agg("value")
    joined = rows.join(lists, on="row", how="left", maintain_order="left")["value"]
    return joined.fill_null([]).alias(values.name)


def load_run(path: str | Path, *, checkpoint: str | None = None, device: str | None = None) -> TrainedRun:
    """Loads a run for prediction; it may have been moved or copied, and its data are not needed.

    Args:
        path: The run folder.
        checkpoint: ``best``, ``last`` or another name in its ``checkpoints``; None for the one that the final numbers
            of the run are of: best, or last if there is no best.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; None for that of the run.

    Raises:
        RunError: It is no run folder, has no such checkpoint, or a file in it is damaged, foreign or of another
            version.
        ConfigError: There is no such device, or not here.
    """
    if device is not None and (problems := check_device(device, "device")):
        raise ConfigError(problems)
    folder = RunFolder.open(path)
    name = checkpoint or choose_checkpoint(folder)
    config = _read_config(folder)
    state, features, tasks = _read_state(config, folder)
    if device is not None:
        config = replace(config, trainer=replace(config.trainer, device=device))
    outputs = [task.kind.num_outputs for task in tasks]
    with torch.random.fork_rng(devices=[]):  # the weights come from the checkpoint: no draw of the caller's is used up
        model = build_model(
            config, model_spec(features, tasks), features.input_dim, outputs, [task.name for task in tasks]
        )
    file = folder.checkpoint(name)
    saved = load(file)
    if saved.get("tasks") != [task.name for task in tasks]:
        what = f"was trained on tasks {saved.get('tasks')}, and the run is of {[task.name for task in tasks]}"
        raise RunError(Problem(str(file), what, "Is it of another run?"))
    try:
        model.load_values(saved["model"])
        epoch = Progress.of_checkpoint(saved["progress"]).begun
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            Problem(str(file), f"does not fit the model of the run ({reason})", "Is it of another run?")
        ) from None
    try:
        model = model.to(choose_device(config)).eval()
    except ConfigError as error:
        raise ConfigError(
            [replace(p, where="device", hint="Choose another one: cpu.") for p in error.problems]
        ) from None
    place_as_trained(config, model)
    notes = (*_unfinished(folder, epoch), *_edited(config, folder))
    return TrainedRun(folder, config, features, tasks, model, name, epoch, state, notes)


def _neither_file_nor_frame(data: object) -> TypeError:
    """Says what to make a frame of."""
    given = type(data)
    if isinstance(data, pl.LazyFrame):
        hint = "Call .collect() on it."
    else:
        hint = _INTO_FRAMES.get(given.__module__.partition(".")[0], "Make it a frame with polars.DataFrame.")
    return TypeError(
        f"data: must be the name of a file or a polars.DataFrame, got {given.__module__}.{given.__qualname__}. {hint}"
    )


def _numbering_rows(problem: Problem) -> Problem:
    """Says of a column of ids that it is not needed."""
    if problem.where not in ("data.id", "id"):
        return problem
    return replace(problem, hint=f'{problem.hint} Or number the rows with id="".'.strip())


@contextmanager
def telling_where(state: Mapping[str, Any], otherwise: str = "") -> Iterator[None]:
    """Says of data that are not there in which folder the training read them: their paths may start from there.

    Args:
        state: What data.json holds.
        otherwise: What else the user may do.
    """
    try:
        yield
    except DataError as error:
        hint = f"The training read it from the folder {state['folder']}: run the command there{otherwise}."
        told = [replace(p, hint=f"{p.hint} {hint}".strip()) if "looked for" in p.what else p for p in error.problems]
        raise DataError(told) from None


def stored_features(config: RunConfig, folder: RunFolder) -> Features:
    """The input columns of a run, as its data.json describes them.

    Raises:
        RunError: The file is damaged, or of another version or run.
    """
    return _read_state(config, folder)[1]


def _read_state(config: RunConfig, folder: RunFolder) -> tuple[dict[str, Any], Features, tuple[Task, ...]]:
    """data.json, and what it describes."""
    try:
        state = folder.read_sealed("data.json", DATA_FORMAT)
        features, tasks = load_fitted(config, state)
    except RunError as error:
        raise RunError([replace(p, where=str(folder.path / "data.json")) for p in error.problems]) from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"is not what this version of mtl-train writes ({type(error).__name__}: {error})"
        raise RunError(Problem(str(folder.path / "data.json"), what, "Train again.")) from None
    return state, features, tasks


def choose_checkpoint(folder: RunFolder) -> str:
    """The checkpoint that stands for the run: best, or last if there is none.

    Raises:
        RunError: The run has no checkpoint.
    """
    for name in ("best", "last"):
        if folder.checkpoint(name).exists():
            return name
    raise RunError(folder.lacks_model())


def _ids(table: Table, name: str) -> pl.Series:
    ids = table.as_written.get(name, table.frame[name])
    if ids.dtype.is_nested() or ids.dtype in (pl.Binary, pl.Object):
        raise DataError(Problem(f"{table.files}, column '{name}'", f"cannot be an id, got type {ids.dtype}"))
    return ids


def _read_config(folder: RunFolder) -> RunConfig:
    file = folder.path / "config.yaml"
    try:
        return validate(folder.read_settings(), lambda _: str(file))
    except ConfigError as error:
        raise RunError(error.problems) from None


def _edited(config: RunConfig, folder: RunFolder) -> Sequence[str]:
    told = told_of_edits(folder, config.plugins, "the training, if only in a comment: the numbers may differ")
    return () if told is None else [f"{told}."]


def _unfinished(folder: RunFolder, epoch: int) -> Sequence[str]:
    try:
        state = folder.status["state"]
        summary = folder.read_json("summary.json") if state == "done" else {}
    except RunError as error:
        return [str(error)]
    config = summary.get("config") if isinstance(summary, dict) else None
    if config not in (None, digest(folder.read_settings())):
        return [f"{folder.path / 'config.yaml'} was changed after the training, and is what counts now."]
    return () if state == "done" else [f"the run has not finished (it is {state}): weights of epoch {epoch}."]
