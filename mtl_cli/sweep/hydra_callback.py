"""Remembers a sweep's folder, so that its leaderboard can be written whatever happens to the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

#: The folder of the sweep that this process runs, if any.
sweep_dir: Path | None = None


class SweepCallback(Callback):
    """Hydra calls it when a sweep starts."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Notes the folder, absolute: jobs must not depend on the working directory."""
        global sweep_dir
        sweep_dir = Path(config.hydra.sweep.dir).absolute()
