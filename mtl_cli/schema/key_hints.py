"""What messages add to a problem once all are found: the right name of an unknown key, and where a key was set."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mtl_cli.errors import Problem

#: Where a key path was set, in words; None if nobody set it.
Origin = Callable[[str], str | None]

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


def with_known_name(problem: Problem, raw: Mapping[str, Any]) -> Problem:
    """Points from an unknown key to ours, where it is another tool's name or that of a task, or says there is none."""
    if problem.what != "unknown key":
        return problem
    if problem.where.rpartition(".")[2] == "num_workers":
        how = "rows are sliced in memory, or read ahead by one thread, which changes no result"
        return replace(problem, hint=f"There are no workers: {how}. trainer.threads sets the CPU threads.")
    near = difflib.get_close_matches(problem.where, _OTHER_NAMES, n=1, cutoff=0.85)
    if near and not problem.hint.startswith("Did"):
        return replace(problem, hint=f"Did you mean '{_OTHER_NAMES[near[0]]}'?")
    tasks = raw.get("tasks")
    if "." not in problem.where and isinstance(tasks, Mapping) and problem.where in tasks:
        return replace(problem, hint=f"Did you mean 'tasks.{problem.where}'?")
    return problem


def with_sweep_hint(problem: Problem, only: Any) -> Problem:
    """Says of a word for groups of tasks that it is for sweeps, where a single run is given it as ``only``."""
    if problem.where != "only" or only not in ("auto", "every_pair", "every_subset"):
        return problem
    what = f"'{only}' stands for groups of tasks, for a sweep with one task file"
    hint = f"Write: mtl-train -m experiment=which_tasks_together task=NAME hydra.sweeper.params.only={only}"
    return Problem("only", what, hint)


def with_origin(problem: Problem, origin: Origin) -> Problem:
    """The problem with the place where its key was set."""
    place = origin(problem.where)
    return problem if place is None else replace(problem, where=f"{problem.where} ({place})")
