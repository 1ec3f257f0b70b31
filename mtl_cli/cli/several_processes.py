"""What several processes, as ``torchrun`` starts them, do not do."""

from __future__ import annotations

import os
import sys

from mtl_cli import processes
from mtl_cli.commands.entry import say
from mtl_cli.errors import ConfigError, Problem
from mtl_cli.schema import RunConfig


def check_processes(*, sweeps: bool) -> None:
    """Looks at what ``torchrun`` has set, before anything is composed.

    Raises:
        ConfigError: This process cannot find the others; or there are others, and the command is a sweep.
    """
    processes.check()
    if sweeps and processes.size() > 1:
        what = f"is a sweep, and torchrun starts {processes.size()} processes for one run"
        hint = "Start each job with torchrun, or all with a launcher: mtl-train -m ... hydra/launcher=joblib."
        raise ConfigError(Problem("-m", what, hint))


def check_for_processes(config: RunConfig) -> None:
    """Looks for what a configuration asks for and several processes do not do; tells of several that are strangers.

    Raises:
        ConfigError: Every such value.
    """
    if processes.size() == 1:
        _tell_of_tasks_of_slurm()
        return
    problems = []
    if config.data.in_memory is False:
        what = "is false, and rows are not streamed in several processes, each of which holds all"
        problems.append(Problem("data.in_memory", what, "Write data.in_memory=true, or train in one process."))
    if config.trainer.device not in ("auto", "cpu", "cuda"):
        what = f"is {config.trainer.device} for each of {processes.size()} processes"
        problems.append(Problem("trainer.device", what, "Write cuda: each takes the GPU of its number; or cpu."))
    if problems:
        raise ConfigError(problems)


def _tell_of_tasks_of_slurm() -> None:
    """``srun`` starts a command several times, and does not say so where ``torchrun`` would."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if tasks.isdigit() and int(tasks) > 1:
        what = f"SLURM_STEP_NUM_TASKS is {tasks}: srun starts so many processes, and each trains a run of its own"
        hint = f"One run in all of them is one task: torchrun --no-python --nproc-per-node {tasks} mtl-train ..."
        say(f"note: {what}. {hint}", sys.stderr)
