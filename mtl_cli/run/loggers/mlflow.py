"""MLflow tracking."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from mtl_cli.registry import LOGGERS
from mtl_cli.run.loggers.base import Logger, RunFacts
from mtl_cli.run.settings import flatten

log = logging.getLogger(__name__)
_LONGEST_VALUE, _LONGEST_KEY, _BATCH = 500, 250, 100  # the limits of all MLflow servers since 1.0
_STATES = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


@LOGGERS.register("mlflow")
class MLflow(Logger):
    """A run of MLflow: settings as parameters, numbers as metrics, config.yaml and overrides among its files.

    A server that does not answer costs three tries of at most 10 seconds each time, unless the environment sets
    MLFLOW_HTTP_REQUEST_MAX_RETRIES and MLFLOW_HTTP_REQUEST_TIMEOUT.

    Args:
        run: The run.
        experiment: Where the runs are listed.
        tracking_uri: Address of a server, or ``sqlite:///mlflow.db``; null: what the environment says
            (MLFLOW_TRACKING_URI), else MLflow's own default, a database where the command is run.
        run_name: Name of the run; null: that of its folder.
        tags: Name and value of further tags.

    Example:
        >>> MLflow.requires
        'mlflow'
    """

    requires: ClassVar[str] = "mlflow"

    def __init__(
        self,
        run: RunFacts,
        *,
        experiment: str = "mtl-train",
        tracking_uri: str | None = None,
        run_name: str | None = None,
        tags: dict[str, str] = {},  # noqa: B006  read only; the literal documents the default
    ) -> None:
        super().__init__(run)
        self._experiment, self._uri, self._tags = experiment, tracking_uri, tags
        self._name = run_name or run.folder.name
        self._client: Any = None
        self._run = ""

    def open(self, known: str | None, step: int) -> str:  # noqa: ARG002
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(self._uri)
        known = known or self._run or None  # made by an earlier call, which failed after that
        if known is None:
            group = self.run.folder.parent.name  # of a sweep: its folder
            facts = {f"mtl.{key}": str(value) for key, value in flatten(dict(self.run.facts)).items()}
            tags = {"mtl.folder": str(self.run.folder), "mtl.group": group, **facts, **self._tags}
            self._run = self._client.create_run(self._experiment_id(), run_name=self._name, tags=tags).info.run_id
        else:
            self._run = known
            self._client.update_run(known, status="RUNNING")
        self._send_settings()
        self._send_files()
        return self._run

    def send(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow names allow letters, digits and _-. :/, and a server refuses the whole batch for one other sign.
        found = [Metric(_plain(name), value, now, step) for name, value in numbers.items()]
        for start in range(0, len(found), _BATCH):
            self._client.log_batch(self._run, metrics=found[start : start + _BATCH])

    def close(self, state: str) -> None:
        self._client.set_terminated(self._run, _STATES[state])

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment))
            except MlflowException:  # another job of the sweep was faster
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _send_files(self) -> None:
        """The files of a run often lie elsewhere than its numbers, which are to arrive without them too."""
        try:
            for file in ("config.yaml", "overrides"):
                self._client.log_artifact(self._run, str(self.run.folder / file))
        except Exception as error:  # whatever a store of files may raise
            why = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:300]}"
            log.warning("logger mlflow: config.yaml and overrides are not there (%s); the run's folder has them.", why)

    def _send_settings(self) -> None:
        """Settings as parameters; those that do not fit are named once, config.yaml has them all."""
        from mlflow.entities import Param

        there = self._client.get_run(self._run).data.params
        settings = {_plain(key): str(value) for key, value in flatten(dict(self.run.config)).items()}
        long = [k for k, v in settings.items() if len(v) > _LONGEST_VALUE or len(k) > _LONGEST_KEY]
        changed = [k for k, v in settings.items() if k in there and there[k] != v and k not in long]
        new = [Param(k, v) for k, v in settings.items() if k not in there and k not in long]
        for start in range(0, len(new), _BATCH):
            self._client.log_batch(self._run, params=new[start : start + _BATCH])
        for names, why in ((long, "are too long for MLflow"), (changed, "have changed, which MLflow does not allow")):
            if names:
                log.warning("logger mlflow: %s %s; config.yaml among the run's files has them.", ", ".join(names), why)


def _plain(name: str) -> str:
    """A name with the signs that MLflow allows; others become _.

    Example:
        >>> _plain("val/stars@books/rmse"), _plain("val/digit/accuracy")
        ('val/stars_books/rmse', 'val/digit/accuracy')
    """
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in name)
