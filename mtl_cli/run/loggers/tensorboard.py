"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from mtl_cli.registry import LOGGERS
from mtl_cli.run.loggers.base import Logger, RunFacts
from mtl_cli.run.settings import settings_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@LOGGERS.register("tensorboard")
class TensorBoard(Logger):
    """Event files in RUN/tensorboard: ``tensorboard --logdir runs``, or the folder of a sweep.

    Args:
        run: The run.
        flush_secs: Seconds until numbers are on the disk at the latest.

    Example:
        >>> TensorBoard.requires
        'tensorboard'
    """

    requires: ClassVar[str] = "tensorboard"

    def __init__(self, run: RunFacts, *, flush_secs: int = 30) -> None:
        super().__init__(run)
        self._flush_secs = flush_secs
        self._writer: SummaryWriter | None = None

    def open(self, known: str | None, step: int) -> str:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step: what a killed process may have written beyond the last step that it noted
        self._writer = SummaryWriter(
            str(self.run.folder / "tensorboard"), purge_step=None if known is None else step + 1,
            flush_secs=self._flush_secs,
        )  # fmt: skip
        if known is None:
            texts = {
                "config": settings_text(self.run.config),
                "overrides": "\n".join(self.run.overrides),
                "facts": settings_text(self.run.facts),
            }
            for name, text in texts.items():
                self._writer.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()), 0)
        return "tensorboard"

    def send(self, numbers: Mapping[str, float], step: int) -> None:
        if self._writer is None:
            raise RuntimeError("not open")
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self, state: str) -> None:  # noqa: ARG002  files know no state
        if self._writer is not None:
            self._writer.close()
