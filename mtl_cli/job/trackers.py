"""The trackers of a run (TensorBoard, MLflow...), from its first record to its end."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_cli.build import build_loggers
from mtl_cli.job.setting_up import Run
from mtl_cli.loop.trainer import Interrupted
from mtl_cli.run import RunFolder, versions
from mtl_cli.run.loggers import Followers, RunFacts
from mtl_cli.schema import RunConfig


class Trackers:
    """Trackers that are told what metrics.jsonl is told, the final numbers, and how a training ended.

    Args:
        config: The configuration, which chooses them.
        folder: The run folder.

    Attributes:
        final: The final numbers, to be set before the end.
    """

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self._config, self._folder = config, folder
        self._followers: Followers | None = None
        self.final: Mapping[str, float | None] = {}

    def follow(self, run: Run) -> None:
        """Opens what was chosen; from now on it gets every record."""
        known = {"seed": run.config.seed, "data_fingerprint": run.data.table.fingerprint, "versions": versions()}
        config, overrides = self._folder.read_settings(), tuple(self._folder.read_overrides())
        facts = RunFacts(self._folder.path.absolute(), config, overrides, known)
        metrics = run.trainer.metrics
        self._followers = Followers(self._folder, metrics.read(), build_loggers(self._config, facts))
        metrics.followed_by(self._followers.follow)
        self._followers.start()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._followers is not None:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            state = "done" if error is None else "interrupted" if stopped else "failed"
            self._followers.close(state, self.final)
