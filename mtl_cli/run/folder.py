"""The folder of one run: what is in it, who may write to it, and how far the run came.

* config.yaml: the resolved configuration
* overrides: the command line's overrides, one per line
* status.json: state, process, times; the last error if there was one
* metrics.jsonl: one object per split and evaluation
* diagnostics.jsonl: how the gradients of the tasks relate, one object per look (trainer.diagnostics_every)
* summary.json: final numbers (see ``summary_record`` of mtl_cli.job.summary)
* data.json: what was learned from the training data (columns, categories, classes)
* plugins.json: checksums of the code of plugins, if there are any
* init.json: what the weights started from, if they did from another run's (``init_from``)
* train.log: the log
* curves.json: confusion, calibration, predicted and true numbers on the test rows, for the report
* sharing.json: what the architecture has found out about the tasks, if it reports anything
* loggers.json: how far trackers are that were asked for; tensorboard/, wandb/: their files
* checkpoints/last.pt to go on from, checkpoints/best.pt to use
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from mtl_cli.errors import DiskError, Problem, RunError, listed
from mtl_cli.run.atomic import TEMPORARY_SUFFIX, sync_folder, write_bytes, write_json, write_text
from mtl_cli.run.clock import now
from mtl_cli.run.lock import FolderLock
from mtl_cli.run.metrics_log import MetricsLog, SeenLog
from mtl_cli.run.settings import digest, parse_settings

State = Literal["running", "done", "failed", "interrupted"]

FORMAT = 1
STATUS = "status.json"
CONFIG = "config.yaml"
OVERRIDES = "overrides"
CHECKPOINTS = "checkpoints"
SEAL = "checksum"
_WRITTEN_IN_PLACE = (
    "metrics.jsonl",
    "diagnostics.jsonl",
    "train.log",
)  # all others are replaced whole, and a link with them
_REPORTS = frozenset({"report.html", "plots"})  # what mtl-report writes by itself: may stay where a run begins anew
OURS = frozenset(
    {
        CONFIG,
        OVERRIDES,
        STATUS,
        "metrics.jsonl",
        "diagnostics.jsonl",
        "summary.json",
        "data.json",
        "sharing.json",
        "init.json",
        "plugins.json",
        "train.log",
        CHECKPOINTS,
        "tensorboard",
        "wandb",
        "loggers.json",
        "curves.json",
    }
)
_RESERVED = frozenset({"format", "state", "pid", "host", "started", "updated"})
_WRITTEN_OUT = 300  # seconds: no file system keeps a change of a folder to itself for longer
_SHOWN = 8  # names that a message lists


class RunFolder:
    r"""A run's folder: claimed by the one process that trains in it, or opened by any number of readers.

    Use ``RunFolder.claim`` or ``RunFolder.open``. A claimed folder is a context manager that releases it.

    Args:
        path: The folder.
        lock: The lock on it; None for readers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as scratch:
        ...     with RunFolder.claim(Path(scratch) / "run") as run:
        ...         run.write_config("seed: 0\n", ["seed=0"])
        ...         run.set_status("done")
        ...     reader = RunFolder.open(Path(scratch) / "run")
        ...     print(reader.is_done, reader.read_overrides())
        True ['seed=0']
    """

    def __init__(self, path: Path, lock: FolderLock | None = None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, path: Path | str, *, resume: bool = False) -> RunFolder:
        """Takes a folder for one training and keeps every other process out until ``release``.

        Args:
            path: The folder; made with its parents if it does not exist (not with ``resume``).
            resume: Go on with the run that the folder holds, whatever its state.

        Raises:
            RunError: Another process is in it; or it holds a run (without ``resume``), no run (with ``resume``) or
                files that are not a run's; or it cannot be made or locked.
        """
        path = Path(path)
        if not resume:
            _make(path)
        elif not path.is_dir():
            raise RunError(Problem(str(path), "cannot be resumed: there is no such folder"))
        lock = FolderLock(path)
        try:
            if resume:
                _refuse_without_run(path)
            else:
                _refuse_run(path)
                _refuse_foreign_files(path)
                _sync_parents(path)
            _remove_leftovers(path)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock)

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Opens a run for reading; it may be finished or in progress.

        Raises:
            RunError: The path is no run folder; says what is there instead.
        """
        path = Path(path)
        if not path.exists():
            raise RunError(Problem(str(path), "is not a run folder: there is no such folder"))
        if not path.is_dir():
            hint = f"Name the folder: {path.parent.parent if path.suffix == '.pt' else path.parent}."
            raise RunError(Problem(str(path), "is not a run folder but a file", hint))
        if not _has_any(path, (STATUS, CONFIG)):
            what = f"is not a run folder (no {CONFIG} or {STATUS}); {_contents(path)}"
            raise RunError(Problem(str(path), what, _hint_of_runs_below(path)))
        return cls(path)

    def release(self) -> None:
        """Lets other processes claim the folder. A second call does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def status(self) -> dict[str, Any]:
        """What status.json says.

        Raises:
            RunError: There is none, or it is damaged.
        """
        status = self.read_json(STATUS)
        if not isinstance(status, dict) or status.get("state") not in get_args(State):
            raise RunError(Problem(str(self.path / STATUS), "is damaged: it names no state of a run"))
        return status

    def set_status(self, state: State, **extra: Any) -> None:
        """Writes status.json: the state, this process and the time. When the run first started is kept.

        Only the process that claimed the folder should call it.

        Args:
            state: How the run stands.
            extra: More to say (``error``, ``exit_code``); what an earlier call said is forgotten.

        Raises:
            TrainingError: The file cannot be written.
            ValueError: The state is unknown, or ``extra`` uses one of the keys written here.
        """
        if state not in get_args(State):
            raise ValueError(f"state must be one of {', '.join(get_args(State))}, got {state!r}")
        if clash := sorted(_RESERVED & extra.keys()):
            raise ValueError(f"extra must not use the reserved keys {', '.join(clash)}")
        time = now()
        known = {"format": FORMAT, "state": state, "pid": os.getpid(), "host": socket.gethostname()}
        write_json(self.path / STATUS, {**known, "started": self._started() or time, "updated": time, **extra})

    @property
    def is_done(self) -> bool:
        """Whether the run came to its end.

        Raises:
            RunError: status.json is missing or damaged.
        """
        return bool(self.status["state"] == "done")

    def checkpoint(self, name: str) -> Path:
        """The file of a checkpoint: ``last``, ``best``.

        Example:
            >>> RunFolder(Path("runs/a")).checkpoint("best").as_posix()
            'runs/a/checkpoints/best.pt'

        Raises:
            RunError: It is no plain name: it could lead out of the folder.
        """
        if name != Path(name).name or name.startswith("."):
            raise RunError(Problem(str(self.path), f"the name of a checkpoint is a plain word, got {name!r}"))
        return self.path / CHECKPOINTS / f"{name}.pt"

    def checkpoints(self) -> list[str]:
        """The names of the checkpoints that there are."""
        return sorted(path.stem for path in (self.path / CHECKPOINTS).glob("*.pt") if path.is_file())

    def lacks_model(self) -> Problem:
        """What to say where a model is wanted and there is no checkpoint."""
        with contextlib.suppress(RunError):  # it says so itself where it is read
            if self.is_done:
                return Problem(str(self.path), "has no checkpoint any more, so that there is no model", "Train again.")
        hint = f"Go on with it: mtl-train resume={self.path}."
        return Problem(str(self.path), "has no checkpoint yet, so that there is no model", hint)

    def write_checkpoint(self, state: dict[str, Any], *names: str) -> None:
        """Writes a training's state as a checkpoint, under one or more names in this order.

        Raises:
            TrainingError: A file cannot be written.
        """
        from mtl_cli.run.checkpoint import save

        first, *others = (self.checkpoint(name) for name in names)
        save(first, state, *others)

    def remove_checkpoint(self, name: str) -> None:
        """Removes a checkpoint, if it is there."""
        self.checkpoint(name).unlink(missing_ok=True)

    def log(self, name: str) -> MetricsLog:
        """The file ``name`` of the run, one record a line."""
        return MetricsLog(self.path / name)

    def write_config(self, yaml_text: str, overrides: list[str]) -> None:
        """Writes the resolved configuration and the overrides that led to it.

        Raises:
            TrainingError: A file cannot be written.
        """
        write_text(self.path / CONFIG, yaml_text)
        write_text(self.path / OVERRIDES, "".join(f"{override}\n" for override in overrides))

    def read_config(self) -> str:
        """The text of config.yaml.

        Raises:
            RunError: There is none, or it cannot be read.
        """
        return self._read_text(CONFIG)

    def read_settings(self) -> dict[str, Any]:
        """The configuration as plain mappings and values. Nothing in it is resolved or run.

        Raises:
            RunError: There is none, or it is damaged.
        """
        try:
            return parse_settings(self.read_config())
        except ValueError as error:
            raise RunError(Problem(str(self.path / CONFIG), f"is damaged: {error}")) from None

    def read_overrides(self) -> list[str]:
        """The overrides, in the order of the command line.

        Raises:
            RunError: The file is missing or cannot be read.
        """
        return [line for line in self._read_text(OVERRIDES).splitlines() if line]

    def write_json(self, name: str, obj: object) -> None:
        """Writes ``obj`` as the file ``name`` of the run; NaN and infinity become null.

        Raises:
            TrainingError: The file cannot be written.
        """
        write_json(self.path / name, obj)

    def read_json(self, name: str) -> Any:
        """What the JSON file ``name`` of the run says.

        Raises:
            RunError: There is none, or it is damaged.
        """
        text = self._read_text(name)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(Problem(str(self.path / name), f"is damaged: no JSON ({error})")) from error

    def write_sealed(self, name: str, obj: dict[str, Any]) -> None:
        """Writes ``obj`` as JSON with a checksum of it: a flipped bit in a number would go unnoticed.

        Raises:
            TrainingError: The file cannot be written.
        """
        self.write_json(name, {**obj, SEAL: digest(obj)})

    def read_sealed(self, name: str, format: int) -> dict[str, Any]:
        """What ``write_sealed`` wrote.

        Args:
            name: The file.
            format: The number that its ``format`` must be.

        Raises:
            RunError: There is none, or it is damaged, edited, or of another version.
        """
        obj = self.read_json(name)
        if not isinstance(obj, dict):
            raise RunError(Problem(str(self.path / name), "is damaged: it holds no mapping"))
        if obj.get("format") != format:
            what = f"has format {obj.get('format')!r}, this version of mtl-train reads {format}"
            hint = "Use the version of mtl-train that made the run, or train again."
            raise RunError(Problem(str(self.path / name), what, hint))
        seal = obj.pop(SEAL, None)
        if seal != digest(obj):
            how = "is missing" if seal is None else "differs"
            hint = "Put the file back as the training wrote it, or train again."
            raise RunError(Problem(str(self.path / name), f"is damaged or edited: its checksum {how}", hint))
        return obj

    def refuse_other_data(self, before: str, found: str, files: str) -> None:
        """Finds that the data are not those that the run has trained on.

        Args:
            before: Their fingerprint then.
            found: Their fingerprint now.
            files: Where they are, for the message.

        Raises:
            RunError: They have changed.
        """
        if before != found:
            what = f"the data have changed since the run began (fingerprint {before[:12]} -> {found[:12]})"
            hint = f"Put {files} back as they were, or start a new run."
            raise RunError(Problem(f"resume: {self.path}", what, hint))

    def description(self) -> dict[str, bytes]:
        """The files that say what the run is and how far it came, by name; for ``put_back``."""
        names = (STATUS, CONFIG, OVERRIDES, "data.json", "plugins.json")
        return {name: (self.path / name).read_bytes() for name in names if (self.path / name).is_file()}

    def put_back(self, description: Mapping[str, bytes]) -> None:
        """Writes what ``description`` gave, for a resumption that was refused.

        Raises:
            TrainingError: A file cannot be written.
        """
        for name, data in description.items():
            write_bytes(self.path / name, data)

    def clear(self) -> None:
        """Removes what a run wrote, and nothing else: the folder may be used as if it were new."""
        for name in sorted(OURS):
            path = self.path / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _started(self) -> str | None:
        try:
            started = self.status.get("started")
        except RunError:
            return None
        return started if isinstance(started, str) else None

    def _read_text(self, name: str) -> str:
        path = self.path / name
        try:
            return path.read_text("utf-8")
        except FileNotFoundError as error:
            raise RunError(Problem(str(path), f"no such file; {_contents(self.path)}")) from error
        except OSError as error:
            raise DiskError.of_reading(path, error) from error
        except UnicodeDecodeError as error:
            raise RunError(Problem(str(path), "is damaged: no UTF-8 text")) from error


class SeenRunFolder(RunFolder):
    """A run's folder as one sees it who helps to train the run and leaves all writing to another process."""

    def set_status(self, state: State, **extra: Any) -> None: ...

    def write_checkpoint(self, state: dict[str, Any], *names: str) -> None: ...

    def remove_checkpoint(self, name: str) -> None: ...

    def log(self, name: str) -> MetricsLog:
        return SeenLog(self.path / name)

    def write_config(self, yaml_text: str, overrides: list[str]) -> None: ...

    def write_json(self, name: str, obj: object) -> None: ...

    def put_back(self, description: Mapping[str, bytes]) -> None: ...

    def clear(self) -> None: ...


def is_run_folder(path: Path) -> bool:
    """Whether there is a file of a run in ``path``, even if the run was stopped before it said anything."""
    return _has_any(path, (*sorted(OURS - {CHECKPOINTS, "tensorboard", "wandb"}), ".hydra"))


def folder_error(path: Path | str, error: OSError) -> DiskError:
    """The error for a folder that the operating system refused to make.

    Example:
        >>> print(folder_error("runs/a", OSError(30, "Read-only file system")))
        runs/a: cannot be made, got 'Read-only file system'. Choose another folder.
    """
    file = isinstance(error, FileExistsError)
    what = "is a file, not a folder" if file else f"cannot be made, got '{error.strerror or error}'"
    return DiskError(Problem(str(path), what, "Choose another folder."))


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise folder_error(path, error) from error


def _sync_parents(path: Path) -> None:
    """Makes a new folder survive a power cut, whoever made it and its parents; a parent may be closed to us.

    A parent that has not changed for a while holds what was made in it for good, and was there before.
    """
    for folder in path.resolve().parents:
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _WRITTEN_OUT:
                return
            sync_folder(folder)


def _refuse_run(path: Path) -> None:
    """Refuses a folder that holds a run. The caller has the lock, so that no process is alive in it."""
    if not _has_any(path, (STATUS, f"{CHECKPOINTS}/last.pt", f"{CHECKPOINTS}/best.pt")):
        return
    try:
        state = RunFolder(path).status["state"]
    except RunError:
        held = f"a run whose {STATUS} is missing or damaged"
    else:
        held = {
            "done": "a finished run (done)",
            "failed": "a failed run",
            "interrupted": "an interrupted run",
            "running": "an interrupted run (its process is gone)",
        }[state]
    if (path / CHECKPOINTS / "last.pt").exists():
        hint = f"Go on with it by resume={path}, or choose another folder."
    else:
        hint = "It has no checkpoint to go on from; choose another folder, or remove this one."
    raise RunError(Problem(str(path), f"holds {held}", hint))


def _refuse_without_run(path: Path) -> None:
    links = [name for name in _WRITTEN_IN_PLACE if (path / name).is_symlink()]
    if links:
        hint = "Put the file itself in its place."
        raise RunError(Problem(str(path / links[0]), "is a link, and would be written through", hint))
    if not (path / STATUS).exists():
        what = f"cannot be resumed: it holds no run (no {STATUS}); {_contents(path)}"
        raise RunError(Problem(str(path), what, _hint_of_runs_below(path)))


def _refuse_foreign_files(path: Path) -> None:
    foreign = [name for name in _visible(path) if name not in OURS | _REPORTS]
    if foreign:
        what = f"holds files that are not a run's: {listed(foreign, _SHOWN)}"
        raise RunError(Problem(str(path), what, "Choose a new or empty folder."))


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files of a process that was killed while it wrote; a checkpoint's can be large."""
    for folder in (path, path / CHECKPOINTS):
        for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _has_any(path: Path, names: Iterable[str]) -> bool:
    return any((path / name).exists() for name in names)


def _visible(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _contents(path: Path) -> str:
    names = _visible(path)
    return f"it holds: {listed(names, _SHOWN)}" if names else "it is empty"


def _hint_of_runs_below(path: Path) -> str:
    runs = [name for name in _visible(path) if (path / name / STATUS).exists()]
    return f"These below it are runs: {listed(runs, _SHOWN)}; name one." if runs else ""
