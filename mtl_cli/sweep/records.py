"""What became of each job of a sweep, read from the jobs' folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_cli.errors import Problem, RunError
from mtl_cli.run import RunFolder, digest, flatten, is_locked, is_run_folder
from mtl_cli.schema import with_tasks_by_name

STATUSES = ("done", "running", "interrupted", "failed", "changed", "damaged")


@dataclass(frozen=True)
class JobRecord:
    """One job of a sweep.

    Args:
        job: Name of its folder.
        status: done, running, interrupted, failed, changed (done, but its numbers are not of the configuration that
            stands in its folder, or that the sweep asks for, or not of the data that there are now), or damaged (its
            files cannot be read).
        overrides: What set it apart on the command line.
        metrics: Final numbers by flat key (``test/digit/accuracy``); None where a number was not finite.
        score: The monitored validation score of the best epoch; None if there is none.
        mean: ``test/mean``; None without a test split.
        seconds: Time of training (``train_seconds``): what comes before it is paid by the first job of a sweep for all.
        parameters: Number of parameters of the model.
        flops_per_row: FLOPs of a forward pass in matrix products and convolutions; None in runs of older versions.
        error: What went wrong, on one line.
        monitor: What ``score`` is.
        mode: ``max`` if a higher score is better, ``min`` if a lower one is.
        primary: The metric that stands for each task, in the order of the tasks.
        higher_is_better: The direction of each of them.
        settings: The job's whole configuration, flat: ``{"optimizer.lr": 0.001, ...}``.
        train_rows: Rows that it was trained on.
        rows_per_second: Training rows per second of training time.
        data_fingerprint: Of the data that it was trained on.
        computed_on: Device and number of CPU threads, in words.
    """

    job: str
    status: str
    overrides: list[str] = field(default_factory=list)
    metrics: dict[str, float | None] = field(default_factory=dict)
    score: float | None = None
    mean: float | None = None
    seconds: float | None = None
    parameters: int | None = None
    flops_per_row: int | None = None
    error: str | None = None
    monitor: str | None = None
    mode: str | None = None
    primary: dict[str, str] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    train_rows: int | None = None
    rows_per_second: float | None = None
    data_fingerprint: str | None = None
    computed_on: str | None = None

    def value(self, task: str, split: str | None = None) -> float | None:
        """The primary metric of a task on a split; None: the test split if it has one, else the validation split."""
        if split is None:
            split = "test" if f"test/{task}/{self.primary[task]}" in self.metrics else "val"
        return self.metrics.get(f"{split}/{task}/{self.primary[task]}")


def collect(sweep_dir: Path | str) -> list[JobRecord]:
    """Reads every job below a sweep's folder, by name. A job that cannot be read is a record too.

    Args:
        sweep_dir: Folder with one run folder per job. Folders with nothing of a run in them are left out.

    Raises:
        RunError: There is no such folder.
    """
    sweep_dir = Path(sweep_dir)
    if not sweep_dir.is_dir():
        raise RunError(Problem(str(sweep_dir), "is not a sweep's folder: there is no such folder"))
    folders = sorted(entry for entry in sweep_dir.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [_record(folder) for folder in folders if is_run_folder(folder)]


def how_jobs_ended(records: Sequence[JobRecord]) -> str:
    """How the jobs ended, on one line; and on what, where that may have made their numbers differ.

    Example:
        >>> how_jobs_ended([JobRecord("a", "done"), JobRecord("b", "failed"), JobRecord("c", "done")])
        '3 jobs: 2 done, 1 failed'
    """
    counts = [(status, sum(record.status == status for record in records)) for status in STATUSES]
    parts = [f"{count} {status}" for status, count in counts if count]
    told = f"{len(records)} job{'' if len(records) == 1 else 's'}" + (f": {', '.join(parts)}" if parts else "")
    places = sorted({record.computed_on for record in records if record.computed_on})
    if len(places) > 1:
        told += f"; computed on {' and on '.join(places)}: that alone may change the last digits"
    return told


def computed_on(summary: Mapping[str, Any]) -> str | None:
    """What a run was computed on, from its summary; None in runs of older versions.

    Example:
        >>> computed_on({"device": "cpu", "threads": 2})
        'cpu with 2 CPU threads'
    """
    device, threads = summary.get("device"), summary.get("threads")
    if device is None or threads is None:
        return None
    return f"{device} with {threads} CPU thread{'' if threads == 1 else 's'}"


def _record(folder: Path) -> JobRecord:
    run = RunFolder(folder)
    overrides: list[str] = []
    try:
        overrides = run.read_overrides() if (folder / "overrides").exists() else []
        config = run.read_settings() if (folder / "config.yaml").exists() else None
        settings = flatten(with_tasks_by_name(config)) if config else {}
        # The lock first: a job that ends between the two looks is then seen as done, not as interrupted.
        alive = is_locked(folder)
        status = {"state": "running"} if _is_just_begun(folder) else run.status
        state = "interrupted" if status["state"] == "running" and not alive else str(status["state"])
        # A stopped or failed job has numbers only if it got that far; a finished one without them is damaged.
        with_summary = state == "done" or (folder / "summary.json").exists()
        summary = run.read_json("summary.json") if with_summary else {}
        numbers = _numbers(summary) if with_summary else {}
    except RunError as error:
        return JobRecord(folder.name, "damaged", overrides, error=_one_line(str(error)))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        what = f"{folder / 'summary.json'}: is damaged: {type(error).__name__} {error}."
        return JobRecord(folder.name, "damaged", overrides, error=_one_line(what))
    message = status.get("error") if state != "done" else None
    told = _one_line(str(message)) if message else None
    if state == "done" and summary.get("config") not in (None, digest(config)):
        state, told = "changed", "config.yaml was changed after the run: its numbers are of another configuration"
    return JobRecord(folder.name, state, overrides, settings=settings, error=told, **numbers)


def _is_just_begun(folder: Path) -> bool:
    """Whether a run has not come to say how it stands: its log and its configuration are written first."""
    return not any((folder / name).exists() for name in ("status.json", "summary.json", "checkpoints"))


def _numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that a summary gives. Any error here means that it is no summary."""
    metrics = {str(key): _number(value) for key, value in summary["metrics"].items()}
    total = summary.get("parameters", {}).get("total")
    mode = summary.get("mode")
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
    primary = {str(task): str(metric) for task, metric in summary.get("primary", {}).items()}
    # In the order of the tasks, as the user wrote them.
    order = [task for task in summary.get("tasks", []) if task in primary]
    return {
        "metrics": metrics,
        "score": _number((summary.get("best") or {}).get("score")),
        "mean": metrics.get("test/mean"),
        "seconds": _number(summary.get("train_seconds", summary.get("seconds"))),
        "parameters": None if total is None else int(total),
        "flops_per_row": summary.get("flops_per_row"),
        "monitor": str(summary.get("monitor")),
        "mode": mode,
        "primary": {task: primary[task] for task in order},
        "higher_is_better": {str(t): bool(up) for t, up in summary.get("higher_is_better", {}).items()},
        "train_rows": summary.get("rows", {}).get("train"),
        "rows_per_second": _number(summary.get("rows_per_second")),
        "data_fingerprint": summary.get("data_fingerprint"),
        "computed_on": computed_on(summary),
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
