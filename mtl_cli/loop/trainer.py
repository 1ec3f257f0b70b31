"""THE LOOP: epochs of steps, and between them evaluations, checkpoints, and the reasons to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from mtl_cli.data.batches import Epoch, Rows
from mtl_cli.loop.checkpointing import Checkpoints
from mtl_cli.loop.diagnostics import gradient_norms, look
from mtl_cli.loop.evaluate import Evaluation, evaluate, import_scorers, mean_losses
from mtl_cli.loop.failures import FiniteChecks, row_numbers
from mtl_cli.loop.finite import Snapshot
from mtl_cli.loop.monitor import Scores, checkpoint_of
from mtl_cli.loop.passes import ValidationBatches
from mtl_cli.loop.progress import Limits, Progress, Stopwatch
from mtl_cli.loop.recent_steps import RecentSteps
from mtl_cli.loop.schedule import Schedule
from mtl_cli.loop.step import Learner, NotFinite, StepResult, train_step
from mtl_cli.loop.totals import Totals
from mtl_cli.loop.training_log import TrainingLog
from mtl_cli.processes import STOP, TIME_OVER
from mtl_cli.run import RunFolder
from mtl_cli.steps import Clock, Steps, run_alone
from mtl_cli.tasks import Task

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Training was asked to stop and has saved its state.

    Args:
        signal: Number of the signal that asked.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass(frozen=True)
class Step:
    """A step that a trainer wants to be made.

    Args:
        trainer: Whose.
        epoch: The epoch's batches.
        index: Which of them, from 0.
    """

    trainer: Trainer
    epoch: Epoch
    index: int

    @property
    def quiet(self) -> bool:
        """Whether the trainer, unless asked to stop, only counts before the next step: it keeps and draws nothing."""
        trainer, number = self.trainer, self.trainer.progress.step + 1
        due = trainer.schedule.saves_after(number)
        last = self.index + 1 == len(self.epoch.bounds) or number == trainer.limits.steps
        return not (due or last or trainer.limits.seconds is not None or trainer.schedule.diagnostics_every)

    def make(self) -> StepResult:
        """Makes it, alone."""
        trainer = self.trainer
        return train_step(
            trainer.learner, trainer.train, self.epoch, self.index, trainer.progress.step, trainer.validation,
            only_finite=trainer.schedule.skip_nonfinite,
        )  # fmt: skip


class Trainer:
    """Trains a learner and leaves checkpoints and metrics in a run folder.

    Args:
        learner: What is trained.
        tasks: K tasks, in the learner's order.
        train: Training rows.
        val: Validation rows.
        folder: The run folder, claimed.
        limits: How long to train.
        schedule: When to do what.
        scores: Decide which checkpoints are kept, and end training early.
        interrupted: Asked after every step and before every batch of an evaluation: the number of a signal to stop for,
            or None.
        name_rows: What the user calls some of the training rows.
        bar: Whether to show a progress bar, on a terminal.
        clock: The time that training takes.

    Attributes:
        progress: Where training stands.
        totals: What its steps have added up to.
        stopwatch: The time that it has taken.
        metrics: metrics.jsonl.
        diagnostics: diagnostics.jsonl.
        checkpoints: Where all of this, and the learner, is saved and loaded.
        validation: Batches of validation rows, for methods that balance by them.
    """

    def __init__(
        self,
        learner: Learner,
        tasks: Sequence[Task],
        train: Rows,
        val: Rows,
        folder: RunFolder,
        limits: Limits,
        schedule: Schedule,
        scores: Scores,
        *,
        interrupted: Callable[[], int | None] = lambda: None,
        name_rows: Callable[[Sequence[int]], list[str]] = row_numbers,
        bar: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self.learner, self.tasks, self.train, self.val = learner, tasks, train, val
        self.folder, self.limits, self.schedule, self.scores = folder, limits, schedule, scores
        self._interrupted, self._bar = interrupted, bar
        self._at_risk = False  # an epoch is evaluated whose last steps are in no checkpoint
        self._weights = np.array([task.weight for task in tasks])
        self.progress, self.stopwatch = Progress(), Stopwatch(clock)
        self.totals = Totals(len(tasks), train.origins.names)
        self.validation = ValidationBatches(val, schedule.batch_size, self._weights, schedule.seed)
        self.metrics = folder.log("metrics.jsonl")
        self.diagnostics = folder.log("diagnostics.jsonl")
        self.checkpoints = Checkpoints(
            folder, [task.name for task in tasks], learner=learner, progress=self.progress, totals=self.totals,
            scores=scores, metrics=self.metrics, diagnostics=self.diagnostics,
        )  # fmt: skip
        self._recent = RecentSteps(len(tasks), train.device)
        self._made: list[int] = []  # those of them that were not left out, by their place in the epoch
        # A step that is left out leaves good weights; those of one that is not are spoilt.
        good_weights = None if schedule.skip_nonfinite else self.checkpoints.load_last_weights
        self._checks = FiniteChecks(learner, tasks, train, self._recent, self.progress, name_rows, good_weights)
        self._training_log = TrainingLog(self.metrics, tasks, self.progress, skips=schedule.skip_nonfinite)
        shares = bool(learner.parameters.shared)
        self._looks = schedule.diagnostics_every > 0 and shares
        self._measures = shares and not learner.balancing.measures_gradients
        if schedule.diagnostics_every and not self._looks:
            log.warning(
                "trainer.diagnostics_every: no parameter is shared as a whole and trained, there are no gradients to "
                "compare"
            )

    def fit(self) -> None:
        """Trains to the limits.

        Raises:
            Interrupted: A signal came; the state is saved.
            TrainingError: A loss is not finite; the last checkpoint is from before.
        """
        run_alone(self.steps())

    def steps(self) -> Steps[None]:
        """``fit``, for whoever makes the steps: of one training, or of several together."""
        self.stopwatch.start(self.progress.seconds)
        if self.learner.processes.size > 1:
            self.checkpoints.refuse_drift()
        self.learner.model.train()
        disable = None if self._bar else True
        with tqdm(
            total=self.total_steps(), initial=self.progress.step, unit="step", disable=disable, mininterval=0.2
        ) as bar:
            try:
                while not self.progress.finished:
                    self.train.draw(self.schedule.seed, self.progress.epoch)
                    epoch = self.schedule.plan(self.train, self.progress.epoch, self._weights)
                    yield from self._run_epoch(epoch, bar)
            finally:
                self.train.let_go()
        self._remove_outdated()

    def _run_epoch(self, epoch: Epoch, bar: Any) -> Steps[None]:
        progress, steps = self.progress, len(epoch.bounds)
        out, progress.ending = progress.ending and self._out_of_budget(), False  # gone on with within its evaluation
        while progress.step_in_epoch < steps and not out:
            yield from self._step(epoch, progress.step_in_epoch)
            progress.step_in_epoch, progress.step = progress.step_in_epoch + 1, progress.step + 1
            bar.update()
            out = self._out_of_budget()
            if progress.step_in_epoch < steps and not out:
                self._pause(epoch)
        self._end_epoch(epoch, out)
        bar.set_postfix(epoch=progress.begun, best=self.scores.best.score, refresh=False)

    def _step(self, epoch: Epoch, step: int) -> Steps[None]:
        self.train.reach(epoch, step)
        self._look_at_gradients(epoch, step)
        before = Snapshot(self.learner) if self.schedule.skip_nonfinite else None
        try:
            sums, weights, norms = yield Step(self, epoch, step)
        except NotFinite as reason:
            if before is None:
                raise
            before.restore()
            self._skip(epoch, step, reason)
            return
        self._recent.add(sums, weights, norms, epoch.inactive[step])
        self._made.append(step)
        self.progress.rows += epoch.bounds[step][1] - epoch.bounds[step][0]

    def _look_at_gradients(self, epoch: Epoch, step: int) -> None:
        """Before a step: how long they are, for an epoch with an evaluation; how they relate, if that was asked for."""
        if self._measures and step == 0 and self._will_evaluate(epoch):
            self.totals.gradient_norms.add([gradient_norms(self.learner, self.train, epoch, step)])
        if self._looks and self.progress.step % self.schedule.diagnostics_every == 0:
            found = look(self.learner, self.train, epoch, step, [task.name for task in self.tasks])
            if found:
                self.diagnostics.append({"epoch": self.progress.epoch + 1, "step": self.progress.step, **found})

    def _skip(self, epoch: Epoch, step: int, reason: NotFinite) -> None:
        self._recent.add(None)
        if not self.totals.skipped:
            self._checks.warn_of_skipped(epoch, step, reason)
        self.totals.skipped += 1
        self.progress.skipped += 1

    def _pause(self, epoch: Epoch) -> None:
        """Between two steps of an epoch: stop for a signal, or save if it is time."""
        signal = self._stop_signal()
        if signal is not None or self.schedule.saves_after(self.progress.step):
            self._add_up(epoch)
            self._checks.check_weights()
            self._save("last")
        elif self._recent.full:
            self._add_up(epoch)
        if signal is not None:
            raise Interrupted(signal)

    def _end_epoch(self, epoch: Epoch, out: bool) -> None:
        """All of its steps are made, or (``out``) no more are allowed.

        One that is cut short stays open: what is evaluated and kept here is extra, and training that is allowed more
        later goes on within it, with everything that it has added up.
        """
        progress = self.progress
        self._add_up(epoch)
        whole = progress.step_in_epoch == len(epoch.bounds)
        self._checks.check_skipped(self.totals.skipped, whole=whole)
        due = whole and self.schedule.evaluates_after(progress.epoch + 1)
        progress.finished = out or (whole and self.limits.epochs_reached(progress.epoch + 1))
        # Before all that follows: a checkpoint that is written meanwhile is of an epoch whose end is still to come.
        evaluation = self._evaluate_steps() if due or progress.finished else None
        losses = dict(zip([task.name for task in self.tasks], self.totals.mean_losses(), strict=True))
        if whole:
            progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        self._training_log.write_epoch(losses, self.totals, self.learner.lr(progress.step - 1))
        self._training_log.warn_without_gradient(self.learner.balancing.take_without_gradient())
        if whole:
            self.totals.begin_epoch()
            self.learner.balancing.after_epoch(self._as_balanced(losses))
        kept, removed = ([], []) if evaluation is None else self._judge(evaluation, losses, may_stop=due)
        if out and not self.limits.steps_reached(progress.step):
            log.info("stopped in epoch %d, step %d: trainer.max_time is over", progress.begun, progress.step)
        self._checks.check_weights()
        self._save("last", *kept)  # in this order: what was not written any more is written when training goes on
        for name in removed:  # after what takes its place is written
            self.folder.remove_checkpoint(name)
        signal = self._stop_signal()
        if signal is not None and not progress.finished:
            raise Interrupted(signal)

    def _remove_outdated(self) -> None:
        """No score takes the place of another monitor's any more where a training that goes on has nothing to train."""
        best = self.scores.best
        for name in [checkpoint_of(epoch) for epoch in best.outdated] + ([] if best.entries else ["best"]):
            self.folder.remove_checkpoint(name)

    def _evaluate_steps(self) -> Evaluation:
        """Evaluates the weights after the latest step of an epoch, or stops for a signal that comes meanwhile."""
        with self.stopwatch.paused():  # the first training of a process would pay for all others
            import_scorers(self.tasks)
        self._at_risk = True
        evaluation = self.evaluate(self.val)
        self._at_risk = False
        return evaluation

    def _save_if_asked_to_stop(self) -> None:
        """Before a batch of such an evaluation: whoever asks to stop may not wait until it ends.

        Training goes on with it. The last one goes on at once: it is sooner done than begun anew.

        Raises:
            Interrupted: A signal came; the state is saved.
        """
        if not self._at_risk or not (signal := self.learner.processes.largest(self._interrupted() or 0)):
            return
        self._checks.check_weights()
        self.progress.ending = True
        self._save("last")
        self.progress.ending = self._at_risk = False
        if not self.progress.finished:
            raise Interrupted(signal)

    def _judge(
        self, evaluation: Evaluation, losses: Mapping[str, float | None], *, may_stop: bool
    ) -> tuple[list[str], list[str]]:
        """Takes the score of an epoch; gives the checkpoints to keep of it besides the last, and those to remove."""
        progress, best, stopping = self.progress, self.scores.best, self.scores.early_stopping
        self._checks.check_evaluation(evaluation)
        self._training_log.write_evaluation(evaluation)
        kept, dropped = best.add(best.monitor.value(evaluation), progress.begun, progress.step)
        self._training_log.show_evaluation(evaluation, losses, best)
        if may_stop and stopping.should_stop(evaluation) and not progress.finished:
            progress.finished = True
            log.info("stopped: no better %s for %d evaluations", stopping.monitor.name, stopping.waited)
        names = best.checkpoints(progress.begun) if kept else []
        return names, [checkpoint_of(epoch) for epoch in dropped] + ([] if best.entries else ["best"])

    def _add_up(self, epoch: Epoch) -> None:
        """Adds the latest steps to the totals, or stops at the first loss that was not finite."""
        self._checks.check_losses(epoch)
        for step in self._made:
            self.totals.count(epoch.counts[step], epoch.drawn[step])
        self._made.clear()
        self.totals.add(self._recent.take(), self._factors())

    def _save(self, *names: str) -> None:
        self.progress.seconds = self.stopwatch.seconds()
        self.checkpoints.save(*names)

    def _as_balanced(self, losses: Mapping[str, float | None]) -> dict[str, float | None]:
        """Mean losses in the scale in which balancing sees them; None of tasks that it does not see."""
        return {
            task.name: None if (loss := losses[task.name]) is None or task.weight == 0 else factor * loss
            for task, factor in zip(self.tasks, self._factors(), strict=True)
        }

    def _factors(self) -> list[float]:
        """What balancing sees the loss of each task times."""
        scale = self.learner.loss_scale
        factors = [1.0] * len(self.tasks) if scale is None else scale.known().tolist()
        return [task.weight * factor for task, factor in zip(self.tasks, factors, strict=True)]

    def _stop_signal(self) -> int | None:
        """The signal that training is to stop for, in all processes after the same step; None: it goes on."""
        own, processes = self._interrupted(), self.learner.processes
        return processes.largest(own or 0) if processes.anyone(STOP, own is not None) else None

    def _out_of_budget(self) -> bool:
        if self.limits.steps_reached(self.progress.step):
            return True
        if self.limits.seconds is None:
            return False
        return self.learner.processes.anyone(TIME_OVER, self.stopwatch.seconds() >= self.limits.seconds)

    def _will_evaluate(self, epoch: Epoch) -> bool:
        """Whether the end of this epoch, as far as is known at its beginning, has an evaluation."""
        number = self.progress.epoch + 1
        out = self.limits.steps_reached(self.progress.step + len(epoch.bounds))
        return self.schedule.evaluates_after(number) or number == self.limits.epochs or out

    def evaluate(self, rows: Rows, *, curves: bool = False) -> Evaluation:
        """Metrics of the present weights on some rows; with ``curves`` also what a report draws of the predictions."""
        return evaluate(self.learner, rows, self.tasks, curves=curves, before_batch=self._save_if_asked_to_stop)

    def mean_losses(self, rows: Rows) -> dict[str, float | None]:
        """Loss of each task with the present weights on some rows."""
        return mean_losses(self.learner, rows, self.tasks)

    @property
    def epochs(self) -> float:
        """Passes over the training rows; a limit may end training within one."""
        progress = self.progress
        if not progress.step_in_epoch:
            return progress.epoch
        return progress.epoch + progress.step_in_epoch / self.schedule.steps(self.train, progress.epoch)

    def total_steps(self) -> int | None:
        """Steps until training ends, as far as the limits tell."""
        epochs = self.limits.epochs
        by_epochs = None if epochs is None else self.schedule.total_steps(self.train, epochs)
        known = [steps for steps in (by_epochs, self.limits.steps) if steps is not None]
        return min(known) if known else None
