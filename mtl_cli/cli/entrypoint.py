"""What Hydra calls for every job: of a command that is no sweep the only one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mtl_cli import composition
from mtl_cli.cli import session
from mtl_cli.cli.composed import composed_job, given_overrides
from mtl_cli.cli.console import show_log
from mtl_cli.cli.job_folder import clear_away
from mtl_cli.cli.single_run import run_single
from mtl_cli.cli.sweep_jobs import is_held_back, job_by_itself, leave_to_another, tell_failure
from mtl_cli.errors import InUseError
from mtl_cli.steps import run_alone
from mtl_cli.sweep import job_name

_HYDRA_VERSION = tuple(int(part) for part in hydra.__version__.split(".")[:2])
_VERSION_BASE: dict[str, Any] = {} if _HYDRA_VERSION >= (1, 4) else {"version_base": "1.3"}

OmegaConf.register_new_resolver("mtl.pid", os.getpid, replace=True)
OmegaConf.register_new_resolver(
    "mtl.job_name", lambda overrides: job_name(composition.as_written(composition.unresolved(overrides))), replace=True
)


@hydra.main(config_path=str(composition.config_dir()), config_name="config", **_VERSION_BASE)
def run_job(composed: DictConfig) -> float | None:
    """One job; gives its score, which a sweeper that searches goes by."""
    context = HydraConfig.get()
    show_log()  # of a launcher that runs jobs in processes of their own
    folder = Path(context.runtime.output_dir)
    if context.mode == RunMode.MULTIRUN and is_held_back(composed.get("stop_on_failure"), context.job.num):
        clear_away(folder)
        return None
    try:
        job = composed_job(composed)
        return run_single(job) if job.number is None else run_alone(job_by_itself(job))
    except Exception as error:
        if context.mode != RunMode.MULTIRUN:
            session.current().error = error  # raised by the command: Hydra would print a line of its own first
            return None
        if isinstance(error, InUseError):
            leave_to_another(folder, error)
            return None
        tell_failure(folder, given_overrides(), error, keep=composed.get("dry_run") is not True)
        raise
    finally:
        clear_away(folder)
