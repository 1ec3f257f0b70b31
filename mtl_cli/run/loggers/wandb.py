"""Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mtl_cli.registry import LOGGERS
from mtl_cli.run.loggers.base import Logger, RunFacts


@LOGGERS.register("wandb")
class WandB(Logger):
    """A run of Weights & Biases; its files lie in RUN/wandb.

    Args:
        run: The run.
        project: Where the runs are listed.
        entity: User or team; null: that of the login.
        run_name: Name of the run; null: that of its folder.
        group: What runs are grouped by; null: the folder that the run folder is in, so that a sweep is a group.
        tags: Words to find the run by.
        mode: ``online``; ``offline``: files only, for ``wandb sync``; null: what the environment says (WANDB_MODE).

    Example:
        >>> WandB.requires
        'wandb'
    """

    requires: ClassVar[str] = "wandb"

    def __init__(
        self,
        run: RunFacts,
        *,
        project: str = "mtl-train",
        entity: str | None = None,
        run_name: str | None = None,
        group: str | None = None,
        tags: list[str] = [],  # noqa: B006  read only; the literal documents the default
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        super().__init__(run)
        self._project, self._entity, self._tags, self._mode = project, entity, tags, mode
        self._name, self._group = run_name or run.folder.name, group or run.folder.parent.name
        self._identity = secrets.token_hex(4)  # of this run's first call of `open`, and of those after it failed
        self._run: Any = None

    def open(self, known: str | None, step: int) -> str:  # noqa: ARG002
        import wandb

        identity = known or self._identity
        self._run = wandb.init(
            project=self._project, entity=self._entity, name=self._name, group=self._group, tags=self._tags,
            id=identity, resume="allow", dir=str(self.run.folder), mode=self._mode, reinit="create_new",
            config={**self.run.config, "overrides": list(self.run.overrides), "facts": dict(self.run.facts)},
            settings=wandb.Settings(console="off", init_timeout=30),
            allow_val_change=True,
        )  # fmt: skip
        for file in ("config.yaml", "overrides"):
            self._run.save(str(self.run.folder / file), base_path=str(self.run.folder), policy="now")
        return identity

    def send(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self, state: str) -> None:
        self._run.finish(exit_code=int(state != "done"))
