"""What stops training because it is not finite, and how the user is told: the step, the tasks, the rows, the cause."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

from mtl_cli.data.batches import Epoch, Rows
from mtl_cli.errors import TrainingError, listed
from mtl_cli.loop.evaluate import Evaluation
from mtl_cli.loop.finite import rows_without_finite_loss, state_is_finite
from mtl_cli.loop.progress import Progress
from mtl_cli.loop.recent_steps import RecentSteps
from mtl_cli.loop.step import Learner, NotFinite
from mtl_cli.registry import describe_component
from mtl_cli.tasks import Task

log = logging.getLogger(__name__)
_SHOWN_ROWS = 8  # of those without a finite loss


def row_numbers(rows: Sequence[int]) -> list[str]:
    """What rows are called whose user has no names for them."""
    return [f"row {row + 1}" for row in rows]


class FiniteChecks:
    """Looks whether the numbers of a training are finite, and says where the first came from that is not.

    Args:
        learner: What is trained.
        tasks: K tasks, in the learner's order.
        rows: The training rows.
        recent: The steps that were not looked at yet.
        progress: Where training stands.
        name_rows: What the user calls some of the training rows.
        load_good_weights: Called before the rows of a bad batch are looked at: loads the weights of the last
            checkpoint, if there is one. None where the present weights are good.
    """

    def __init__(
        self,
        learner: Learner,
        tasks: Sequence[Task],
        rows: Rows,
        recent: RecentSteps,
        progress: Progress,
        name_rows: Callable[[Sequence[int]], list[str]],
        load_good_weights: Callable[[], None] | None,
    ) -> None:
        self._learner, self._tasks, self._rows = learner, tasks, rows
        self._recent, self._progress = recent, progress
        self._name_rows, self._load_good_weights = name_rows, load_good_weights

    def check_losses(self, epoch: Epoch) -> None:
        """The losses of the steps that were not looked at yet.

        Raises:
            TrainingError: One is not finite.
        """
        found = self._recent.first_bad()
        if found is not None:
            self._blame_balancing()
            step = self._progress.step_in_epoch - self._recent.count + found[0]
            raise TrainingError(
                f"{self._place(step)}: the training loss of {self._names(found[1])} is not finite"
                f"{self._batch(epoch, step)}. "
                "Lower optimizer.lr, set trainer.gradient_clip_val, or look for extreme values in the data."
            )

    def check_weights(self) -> None:
        """What a checkpoint is to hold, which the last update may have spoilt.

        Raises:
            TrainingError: A value is not finite.
        """
        if not state_is_finite(self._learner):
            self._stop_diverged(f"step {self._progress.step}: a weight, or what the optimizer remembers of it,")

    def check_evaluation(self, evaluation: Evaluation) -> None:
        """An evaluation: that the last update diverged shows in the validation loss alone.

        Raises:
            TrainingError: A loss is not finite.
        """
        if evaluation.diverged:
            place = f"epoch {self._progress.begun}, step {self._progress.step}"
            self._stop_diverged(f"{place}: the validation loss of {', '.join(evaluation.diverged)}")

    def check_skipped(self, skipped: int, *, whole: bool) -> None:
        """How many steps of the epoch under way were skipped; warns if it is some of them.

        Args:
            skipped: How many.
            whole: Whether all steps of the epoch are made, and not only those that a limit allowed.

        Raises:
            TrainingError: It is all steps of an epoch, or of the training.
        """
        number, steps = self._progress.epoch + 1, self._progress.step_in_epoch
        if skipped and skipped == (steps if whole else self._progress.step):
            raise TrainingError(
                f"epoch {number}: none of {steps} steps had finite losses and gradients: all skipped. "
                "Lower optimizer.lr, set trainer.gradient_clip_val, or look for extreme values in the data."
            )
        if skipped:
            log.warning("epoch %d: %d of %d steps skipped", number, skipped, steps)

    def warn_of_skipped(self, epoch: Epoch, step: int, reason: NotFinite) -> None:
        """Says why a step (from 0, in the epoch that is under way) was skipped."""
        if reason.by_weights:
            log.warning("%s: %s; step skipped", self._place(step), self._bad_weights())
        else:
            what = f"the training loss of {self._names(reason.tasks)}" if reason.tasks else "the gradient"
            log.warning("%s: %s is not finite%s; step skipped", self._place(step), what, self._batch(epoch, step))

    def _stop_diverged(self, what: str) -> NoReturn:
        """Stops because of what an update has spoilt, with the place and the thing as the subject of the sentence."""
        self._blame_balancing()
        raise TrainingError(f"{what} is not finite. Lower optimizer.lr, or set trainer.gradient_clip_val.")

    def _blame_balancing(self) -> None:
        """Stops with the cause if balancing made weights that are not finite of losses that were."""
        step = self._recent.first_bad_weights()
        if step is not None:
            number = self._progress.step - self._recent.count + step + 1
            raise TrainingError(
                f"step {number}: {self._bad_weights()}. Look at what it divides by, or takes a root or logarithm of."
            )

    def _bad_weights(self) -> str:
        return f"{describe_component(self._learner.balancing)} gave weights that are not finite for losses that are"

    def _place(self, step: int) -> str:
        """Epoch and step, from 1, for messages; ``step`` counts from 0 in the epoch that is under way."""
        number = self._progress.step - self._progress.step_in_epoch + step + 1
        return f"epoch {self._progress.epoch + 1}, step {number}"

    def _names(self, tasks: Sequence[int]) -> str:
        return ", ".join(self._tasks[task].name for task in tasks)

    def _batch(self, epoch: Epoch, step: int) -> str:
        """The rows to look at: those without a finite loss, if there are weights to ask; else all of the batch."""
        start, stop = epoch.bounds[step]
        index = epoch.order[start:stop]
        if self._load_good_weights is not None:
            self._load_good_weights()
        if bool(self._learner.parameters.values.isfinite().all()):
            self._rows.reach(epoch, step)
            guilty = rows_without_finite_loss(self._learner, self._rows, index)
            if guilty:
                return f", at {listed(self._name_rows(guilty), _SHOWN_ROWS)}"
        return f", in the batch of {listed(self._name_rows(index.tolist()), _SHOWN_ROWS)}"
