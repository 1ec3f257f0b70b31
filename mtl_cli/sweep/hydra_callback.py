"""What is done when a sweep starts: its folder is remembered, and the command line wins over an experiment's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from mtl_cli.sweep import hydra_launcher
from mtl_cli.sweep.jobs import override_values

#: The folder of the sweep that this process runs, if any: its leaderboard is written whatever happens to the jobs.
sweep_dir: Path | None = None


class SweepCallback(Callback):
    """Hydra calls it when a sweep starts."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Notes the folder, absolute: jobs must not depend on the working directory.

        Values that an experiment sweeps over (``hydra.sweeper.params``) are dropped where the command line gives the
        key: Hydra would run one job for each of them, all with the command line's value.
        """
        global sweep_dir
        sweep_dir = Path(config.hydra.sweep.dir).absolute()
        params = config.hydra.sweeper.get("params")
        given = override_values(list(config.hydra.overrides.task))
        for key in [key for key in params or {} if str(key).lstrip("+") in given]:
            with read_write(config.hydra), open_dict(config.hydra):
                del params[key]

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002
        """Keeps a failed job from Hydra, which would print a line of its own; its failure is recorded already.

        Only where jobs run in this process one after the other: else whoever started them must be told.
        """
        basic = "hydra._internal.core_plugins.basic_"
        swept = str(config.hydra.sweeper.get("_target_")).startswith(f"{basic}sweeper")
        launched = str(config.hydra.launcher.get("_target_")).startswith((f"{basic}launcher", hydra_launcher.MODULE))
        if swept and launched and job_return.status == JobStatus.FAILED and config.hydra.mode == RunMode.MULTIRUN:
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None
