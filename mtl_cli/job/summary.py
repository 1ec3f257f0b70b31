"""The end of a run: its best weights are evaluated, and the numbers go into summary.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from mtl_cli.build import Data, choose_device
from mtl_cli.errors import RunError
from mtl_cli.job.setting_up import Run
from mtl_cli.loop import Trainer
from mtl_cli.loop.evaluate import Evaluation
from mtl_cli.loop.monitor import Best
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.findings import as_json
from mtl_cli.report_text import format_number
from mtl_cli.results_text import results_table, undefined_notes
from mtl_cli.run import versions
from mtl_cli.schema import RunConfig, task_metrics

log = logging.getLogger(__name__)


def evaluate_and_record(run: Run, train_seconds: float) -> dict[str, Any]:
    """Evaluates the weights that a training ended with, logs the metrics, and writes curves.json and sharing.json.

    Args:
        run: The run, trained.
        train_seconds: The time that its training has taken.

    Returns:
        What summary.json says, but for ``seconds`` and ``config``; see ``summary_record``.
    """
    weights = _load_final_weights(run.trainer)
    evaluations = _evaluate(run)
    shown = "test" if "test" in evaluations else "val"
    run.folder.write_json("curves.json", {"format": 1, "split": shown, "tasks": evaluations[shown].curves})
    told = _describe_weights(run.trainer, weights)
    log.info("\n%s\n%s", told, results_table(run.config, evaluations[shown], shown))
    for split, evaluation in evaluations.items():
        labels = {name: counts[split] for name, counts in run.data.label_counts.items()}
        for note in undefined_notes(run.config, evaluation, labels, split):
            log.warning("%s", note)
    _write_findings(run)  # before the pass that counts FLOPs: gates tell of the last rows that they have seen
    return summary_record(run, weights, evaluations, train_seconds=train_seconds, flops_per_row=run.flops_per_row())


def summary_record(
    run: Run, weights: str, evaluations: Mapping[str, Evaluation], *, train_seconds: float, flops_per_row: int
) -> dict[str, Any]:
    """What summary.json says of a trained run: a pure function, which changes nothing of the run.

    Numbers that are not finite are null there::

        format            1
        tasks             names of the tasks, in order
        monitor, mode     what "best" was chosen by (``mean``, ``val/loss``...) and "max" or "min"
        best              {"epoch": 3, "step": 120, "score": 0.91}; null if no evaluation gave a number, or none is kept
        weights           which were evaluated, "best" or "last"
        metrics           flat: "val/TASK/METRIC", "val/mean", "val/loss", the same under "test/"
        primary           metric that stands for each task but auxiliary ones: {"digit": "accuracy"}
        higher_is_better  the direction of each of them: {"digit": true}
        parameters        {"total": 1, "shared": 1, "tasks": {"digit": 1}, "frozen": 0}
        flops_per_row     of a forward pass, in matrix products and convolutions
        labelled          labels of each task on each split: {"train": {"digit": 1}, "val": ..., "test": ...}
        rows              {"train": 1, "val": 1, "test": 1}
        rows_seen         rows trained on, of each source: {"books": 1}; {} for one source
        epochs, steps     done in all, resumed parts included
        skipped_steps     of them left out because a loss or gradient was not finite (trainer.on_nonfinite=skip)
        train_seconds     time from the first step to the last, validations and checkpoints included, resumed parts too
        rows_per_second   rows trained on over train_seconds
        seed, data_fingerprint, versions, device, threads, processes
        data_files        size and time of the last change (ns) of the files that were read: {"mine.csv": [2048, 17...]}

    What ends the run adds::

        seconds           from reading the data to the final numbers, of the process that ended the run
                          (both times: for a job of a stacked sweep its share of what was done for several jobs at once)
        config            checksum of config.yaml as it was when the run began or went on

    Args:
        run: The run.
        weights: Which weights were evaluated, ``best`` or ``last``.
        evaluations: What they score on each split.
        train_seconds: The time that training has taken.
        flops_per_row: Of a forward pass.
    """
    config, data, trainer = run.config, run.data, run.trainer
    best, progress = trainer.scores.best, trainer.progress
    splits = ("train", "val", "test")
    primary = _primary_metrics(config, evaluations["val"])
    better = task_metrics(config.tasks)
    return {
        "format": 1,
        "tasks": list(config.tasks),
        "monitor": best.monitor.name,
        "mode": "max" if best.monitor.higher_is_better else "min",
        "best": _best_record(best),
        "weights": weights,
        "metrics": {key: value for split, e in evaluations.items() for key, value in e.flat(split).items()},
        "primary": primary,
        "higher_is_better": {task: better[task][metric] for task, metric in primary.items()},
        "parameters": _parameters_record(trainer.learner.model, data),
        "flops_per_row": flops_per_row,
        "labelled": {
            split: {name: counts[split].labelled for name, counts in data.label_counts.items()} for split in splits
        },
        "rows": {split: len(getattr(data.splits, split)) for split in splits},
        "rows_seen": trainer.totals.rows_by_source(),
        "epochs": trainer.epochs,
        "steps": progress.step,
        "skipped_steps": progress.skipped,
        "train_seconds": round(train_seconds, 3),
        "rows_per_second": round(progress.rows / train_seconds, 1) if train_seconds > 0 and progress.rows else None,
        "seed": config.seed,
        "data_fingerprint": data.table.fingerprint,
        "data_files": data.files,
        "versions": versions(),
        "device": str(choose_device(config)),
        "threads": torch.get_num_threads(),
        "processes": trainer.learner.processes.size,
    }


def _load_final_weights(trainer: Trainer) -> str:
    """Loads the best weights or, where there are none that can be read, the last; returns the checkpoint's name."""
    if trainer.scores.best.entries and trainer.folder.checkpoint("best").exists():
        try:
            trainer.checkpoints.load_weights("best")
            return "best"
        except RunError as error:
            log.warning("%s The final numbers are of the last weights.", error)
    trainer.checkpoints.load_weights("last")
    return "last"


def _evaluate(run: Run) -> dict[str, Evaluation]:
    """What the weights score on val, and on test if it has rows; with the curves of the last of them."""
    trainer, data = run.trainer, run.data
    tested = len(data.splits.test) > 0
    evaluations = {"val": trainer.evaluate(trainer.val, curves=not tested)}
    if tested:
        evaluations["test"] = trainer.evaluate(data.rows("test", choose_device(run.config)), curves=True)
    return evaluations


def _describe_weights(trainer: Trainer, weights: str) -> str:
    best = trainer.scores.best
    if weights == "best":
        score = f"{best.monitor.name} ({format_number(best.score)} on val)"
        return f"weights of epoch {best.entries[0][1]}, the best by {score}"
    why = "the best checkpoint cannot be read" if best.entries else f"no best checkpoint by {best.monitor.name}"
    return f"weights of the last epoch, {trainer.progress.begun} ({why})"


def _write_findings(run: Run) -> None:
    """Writes what the architecture has found out about the tasks to sharing.json, if it reports anything."""
    model = run.trainer.learner.model
    findings = model.sharing.report([run.trainer.tasks[position].name for position in model.with_head])
    if findings:
        run.folder.write_json("sharing.json", as_json(findings))


def _best_record(best: Best) -> dict[str, Any] | None:
    if not best.entries:
        return None
    score, epoch, step = best.entries[0]
    return {"epoch": epoch, "step": step, "score": score}


def _primary_metrics(config: RunConfig, evaluation: Evaluation) -> dict[str, str]:
    """The metric that stands for each task but auxiliary ones."""
    return {task: metric for task, metric in evaluation.primary.items() if not config.tasks[task].common.auxiliary}


def _parameters_record(model: MultiTaskModel, data: Data) -> dict[str, Any]:
    counts = model.count_parameters()
    return {
        "total": counts.total,
        "shared": counts.shared,
        "tasks": dict(zip([task.name for task in data.tasks], counts.tasks, strict=True)),
        "frozen": model.count_frozen().total,
    }
