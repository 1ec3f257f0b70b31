"""Epochs, evaluation, checkpoints, early stopping: everything around the step."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from mtl_cli.balancing.unsaved import Unsaved
from mtl_cli.data.batches import Epoch, Rows, count_steps, plan_epoch
from mtl_cli.data.mixing import Mixing
from mtl_cli.errors import RunError, TrainingError, listed
from mtl_cli.loop.diagnostics import gradient_norms, look
from mtl_cli.loop.evaluate import Evaluation, evaluate, mean_losses
from mtl_cli.loop.finite import LossWatch, Snapshot, Tally, rows_without_finite_loss, state_is_finite
from mtl_cli.loop.monitor import Best, EarlyStopping
from mtl_cli.loop.passes import ValidationBatches
from mtl_cli.loop.progress import Limits, Progress
from mtl_cli.loop.step import Learner, NotFinite, StepResult, train_step
from mtl_cli.processes import STOP, TIME_OVER
from mtl_cli.registry import describe_component, from_outside
from mtl_cli.report_text import format_number
from mtl_cli.run import RunFolder
from mtl_cli.run.checkpoint import checksum, load
from mtl_cli.seeding import rng_state, set_rng_state
from mtl_cli.steps import Clock, Steps, run_alone
from mtl_cli.tasks import Task

log = logging.getLogger(__name__)
_SHOWN_ROWS = 8  # of those without a finite loss


@dataclass(frozen=True)
class Schedule:
    """When to do what.

    Args:
        batch_size: Rows of an optimizer step.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether a smaller last batch is left out.
        seed: The run's seed.
        evaluate_every: Epochs between evaluations.
        save_every_steps: Steps between checkpoints inside an epoch, or None; the end of an epoch always has one.
        mixing: Shares of the sources.
        skip_nonfinite: Whether a step whose losses or gradients are not finite is left out; else training stops.
        diagnostics_every: Steps between looks at the gradients of the tasks, or 0.
    """

    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    evaluate_every: int = 1
    save_every_steps: int | None = None
    mixing: Mixing = Mixing()  # noqa: RUF009  frozen
    skip_nonfinite: bool = False
    diagnostics_every: int = 0

    def steps(self, rows: Rows, epoch: int) -> int:
        """Optimizer steps of epoch ``epoch`` (from 0) over some rows."""
        return count_steps(rows, epoch, batch_size=self.batch_size, drop_last=self.drop_last, mixing=self.mixing)

    def total_steps(self, rows: Rows, epochs: int) -> int:
        """Optimizer steps of the first epochs."""
        if self.mixing.method != "annealed":  # else each epoch may have another length
            return epochs * self.steps(rows, 0)
        return sum(self.steps(rows, epoch) for epoch in range(epochs))


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
        every = trainer.schedule.save_every_steps
        due = every is not None and number % every == 0
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
        best: Keeps the best checkpoints.
        early_stopping: Ends training early.
        interrupted: Asked after every step: the number of a signal to stop for, or None.
        name_rows: What the user calls some of the training rows; None: their numbers, from 1.
        bar: Whether to show a progress bar, on a terminal.
        clock: The time that training takes.
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
        best: Best,
        early_stopping: EarlyStopping,
        interrupted: Callable[[], int | None] = lambda: None,
        name_rows: Callable[[Sequence[int]], list[str]] | None = None,
        bar: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self._clock = clock
        self.learner, self.tasks, self.train, self.val = learner, tasks, train, val
        self.folder, self.limits, self.schedule = folder, limits, schedule
        self.best, self.early_stopping = best, early_stopping
        self._interrupted, self._name_rows, self._bar = interrupted, name_rows or _numbers, bar
        self.progress = Progress()
        self.metrics = folder.log("metrics.jsonl")
        self.diagnostics = folder.log("diagnostics.jsonl")
        self._weights = np.array([task.weight for task in tasks])
        # Of this epoch, up to the step that was last looked at; the counts of labels are of all steps.
        self._sums, self._counts = np.zeros(len(tasks)), np.zeros(len(tasks))
        self._balancing_weights, self._norms = Tally(len(tasks)), Tally(len(tasks))
        # What is shipped keeps nothing else than its state dict.
        self._unsaved = Unsaved(learner.balancing) if from_outside(type(learner.balancing)) else None
        self._watch = LossWatch(len(tasks), train.targets.device)
        self._skipped_in_epoch = 0
        self.validation = ValidationBatches(val, schedule.batch_size, self._weights, schedule.seed)
        self._looks = schedule.diagnostics_every > 0 and bool(learner.parameters.shared)
        self._measures = bool(learner.parameters.shared) and not learner.balancing.measures_gradients
        if schedule.diagnostics_every and not self._looks:
            log.warning(
                "trainer.diagnostics_every: no parameter is shared as a whole and trained, there are no gradients to "
                "compare"
            )
        self.drawn = np.zeros(len(train.origins.names), np.int64)  # rows trained on, of each source
        self._session_start = clock()
        self._seconds_before = 0.0
        self._broken_down: tuple[str, ...] = ()  # tasks for want of which the last evaluation has no mean

    def fit(self) -> None:
        """Trains to the limits.

        Raises:
            Interrupted: A signal came; the state is saved.
            TrainingError: A loss is not finite; the last checkpoint is from before.
        """
        run_alone(self.steps())

    def steps(self) -> Steps[None]:
        """``fit``, for whoever makes the steps: of one training, or of several together."""
        self._session_start, self._seconds_before = self._clock(), self.progress.seconds
        if self.learner.processes.size > 1:
            self._refuse_drift(self.state())
        self.learner.model.train()
        disable = None if self._bar else True
        with tqdm(
            total=self.total_steps(), initial=self.progress.step, unit="step", disable=disable, mininterval=0.2
        ) as bar:
            try:
                while not self.progress.finished:
                    self.train.draw(self.schedule.seed, self.progress.epoch)
                    epoch = plan_epoch(
                        self.train, self.progress.epoch, batch_size=self.schedule.batch_size, weights=self._weights,
                        seed=self.schedule.seed, shuffle=self.schedule.shuffle, drop_last=self.schedule.drop_last,
                        mixing=self.schedule.mixing,
                    )  # fmt: skip
                    yield from self._run_epoch(epoch, bar)
            finally:
                self.train.let_go()

    def evaluate(self, rows: Rows, *, curves: bool = False) -> Evaluation:
        """Metrics of the present weights on some rows; with ``curves`` also what a report draws of the predictions."""
        return evaluate(self.learner, rows, self.tasks, curves=curves)

    def mean_losses(self, rows: Rows) -> dict[str, float | None]:
        """Loss of each task with the present weights on some rows."""
        return mean_losses(self.learner, rows, self.tasks)

    def save(self, *names: str) -> None:
        """Writes the whole state as a checkpoint, under one or more names in this order.

        Raises:
            TrainingError: It cannot be written, or the processes that train do not have the same state.
        """
        state = self.state()
        self._refuse_drift(state)
        self._warn_of_what_is_lost()
        with self.learner.processes.alike():
            self.folder.write_checkpoint(state, *names)

    def _warn_of_what_is_lost(self) -> None:
        """Once, of what a method of the user's has learnt and no checkpoint holds."""
        names = [] if self._unsaved is None else self._unsaved.changed()
        if names:
            self._unsaved = None
            log.warning(
                "%s: what it keeps in %s is no buffer: no checkpoint holds it, and resume begins it anew. Keep it with "
                "register_buffer.",
                describe_component(self.learner.balancing), ", ".join(f"self.{name}" for name in names),
            )  # fmt: skip

    def _refuse_drift(self, state: Mapping[str, Any]) -> None:
        """Makes sure that all processes train the same: each makes every update by itself."""
        trained = {key: state[key] for key in ("model", "balancing", "loss_scale", "optimizers")}
        trained["rng"] = state["rng"]["torch"]
        self.learner.processes.refuse_difference(
            lambda: checksum(trained),
            f"step {self.progress.step}: weights, or what goes with them",
            "All processes need the same versions of everything and the same type of processor. Nothing was saved; "
            "resume goes on from the last checkpoint.",
        )

    def state(self) -> dict[str, Any]:
        """All that is needed to go on as if never stopped."""
        self.progress.seconds = self.seconds()
        return {
            "tasks": [task.name for task in self.tasks],
            "model": dict(self.learner.model.state_dict()),
            "balancing": dict(self.learner.balancing.state_dict()),
            "loss_scale": None if self.learner.loss_scale is None else dict(self.learner.loss_scale.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in self.learner.optimizers],
            "progress": vars(self.progress).copy(),
            "sums": self._sums.tolist(),
            "counts": self._counts.tolist(),
            "balancing_weights": self._balancing_weights.state(),
            "gradient_norms": self._norms.state(),
            "drawn": self.drawn.tolist(),
            "skipped_in_epoch": self._skipped_in_epoch,
            "lr": self._lr(),
            "best": self.best.entries,
            "outdated": self.best.outdated,
            "early_stopping": self.early_stopping.state(),
            "monitors": self._monitors(),
            "metrics_size": self.metrics.size(),
            "diagnostics_size": self.diagnostics.size(),
            "rng": rng_state(),
        }

    def load(self, name: str) -> None:
        """Goes back to a checkpoint: weights, optimizer, balancing, position, generators, best scores, metrics log.

        Raises:
            RunError: The checkpoint is unusable, or of another model.
        """
        state = self.load_weights(name)
        try:
            self.learner.balancing.load_state_dict(state["balancing"])
            if self.learner.loss_scale is not None:
                self.learner.loss_scale.load_state_dict(state["loss_scale"])
            for optimizer, saved in zip(self.learner.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.progress = Progress.of_checkpoint(state["progress"])
            self._load_scores(state)
            self._sums = np.array(state["sums"], float)
            self._counts = np.array(state["counts"], float)
            # An earlier version wrote the sums of the weights and the steps, and no lengths of gradients.
            weights = state.get("balancing_weights") or [state["weight_sums"], state["weight_counts"]]
            self._balancing_weights.load_state(weights)
            if "gradient_norms" in state:
                self._norms.load_state(state["gradient_norms"])
            self.drawn = np.array(state["drawn"], np.int64)
            self._skipped_in_epoch = int(state.get("skipped_in_epoch", 0))
            size, looks = int(state["metrics_size"]), int(state.get("diagnostics_size", 0))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(f"{self.folder.checkpoint(name)}: does not fit this configuration ({error}).") from error
        self.metrics.truncate(size)
        self.diagnostics.truncate(looks)
        set_rng_state(state["rng"])
        before, now = state.get("lr"), self._lr()
        if before is not None and before != now:
            log.warning(
                "learning rate at step %d: %.3g before, %.3g now; the schedule spans %d steps now",
                self.progress.step, before, now, self.learner.scheduler.total_steps,
            )  # fmt: skip
        self._keep_best_by_epoch()

    def _keep_best_by_epoch(self) -> None:
        """Where one was kept before and several are now, the best gets the checkpoint that all of several have."""
        if not self.best.several or not self.best.entries:
            return
        best, own = self.folder.checkpoint("best"), f"epoch-{self.best.entries[0][1]}"
        if self.folder.checkpoint(own).exists() or not best.exists():
            return
        with suppress(RunError):  # damaged: said where it is needed
            state = load(best)
            if state["progress"]["step"] == self.best.entries[0][2]:  # else of an epoch that is trained once more
                self.folder.write_checkpoint(state, own)

    def _monitors(self) -> dict[str, str]:
        """The numbers that decide what is best and when to stop."""
        return {"checkpoint": self.best.monitor.number, "early_stopping": self.early_stopping.monitor.number}

    def _load_scores(self, state: Mapping[str, Any]) -> None:
        """What was best so far, and how long ago; scores of another number than now cannot be compared with it."""
        self.best.load_entries(state["best"], state.get("outdated", ()))
        self.early_stopping.load_state(state["early_stopping"])
        now = self._monitors()
        before = {**now, **state.get("monitors", {})}  # what an earlier version wrote does not say it
        changed = [key for key in now if before[key] != now[key]]
        if "checkpoint" in changed:
            self.best.begin_anew()
        if "early_stopping" in changed:
            self.early_stopping.begin_anew()
        if changed:
            told = ", ".join(f"trainer.{key}.monitor ({before[key]} before, {now[key]} now)" for key in changed)
            log.warning("%s: the scores so far are of another number and count no more", told)

    def load_weights(self, name: str) -> dict[str, Any]:
        """Loads the model's weights alone; returns the whole checkpoint."""
        path = self.folder.checkpoint(name)
        state = load(path)
        if state.get("tasks") != [task.name for task in self.tasks]:
            raise RunError(f"{path}: was trained on tasks {state.get('tasks')}, not on {[t.name for t in self.tasks]}.")
        try:
            self.learner.model.load_values(state["model"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path}: does not fit this model ({error}).") from error
        return state

    def _run_epoch(self, epoch: Epoch, bar: Any) -> Steps[None]:
        progress = self.progress
        for step in range(progress.step_in_epoch, len(epoch.bounds)):
            yield from self._step(epoch, step)
            progress.step_in_epoch, progress.step = step + 1, progress.step + 1
            bar.update()
            last = step + 1 == len(epoch.bounds)
            out = self._out_of_budget()
            if last or out:
                break
            self._pause(epoch)
        self._end_epoch(epoch, out)
        bar.set_postfix(epoch=progress.begun, best=self.best.score, refresh=False)

    def _step(self, epoch: Epoch, step: int) -> Steps[None]:
        self.train.reach(epoch, step)
        if self._measures and step == 0 and self._will_evaluate(epoch):
            self._norms.add([gradient_norms(self.learner, self.train, epoch, step)])
        if self._looks and self.progress.step % self.schedule.diagnostics_every == 0:
            self._look(epoch, step)
        before = Snapshot(self.learner) if self.schedule.skip_nonfinite else None
        try:
            sums, weights, norms = yield Step(self, epoch, step)
        except NotFinite as reason:
            if before is None:
                raise
            before.restore()
            self._skip(epoch, step, reason)
            return
        self._watch.add(sums, weights, norms, epoch.unbalanced[step])
        self._counts += epoch.counts[step]
        self.drawn += epoch.drawn[step]
        self.progress.rows += epoch.bounds[step][1] - epoch.bounds[step][0]

    def _will_evaluate(self, epoch: Epoch) -> bool:
        """Whether the end of this epoch, as far as is known at its beginning, has an evaluation."""
        number, limits = self.progress.epoch + 1, self.limits
        out = limits.steps is not None and self.progress.step + len(epoch.bounds) >= limits.steps
        return number % self.schedule.evaluate_every == 0 or number == limits.epochs or out

    def _look(self, epoch: Epoch, step: int) -> None:
        """Logs how the gradients of the tasks relate before this step."""
        found = look(self.learner, self.train, epoch, step, [task.name for task in self.tasks])
        if found:
            self.diagnostics.append({"epoch": self.progress.epoch + 1, "step": self.progress.step, **found})

    def _skip(self, epoch: Epoch, step: int, reason: NotFinite) -> None:
        self._watch.add(None)
        if not self._skipped_in_epoch and reason.by_weights:
            log.warning("%s: %s; step skipped", self._place(step), self._bad_weights())
        elif not self._skipped_in_epoch:
            what = f"the training loss of {self._names(reason.tasks)}" if reason.tasks else "the gradient"
            log.warning("%s: %s is not finite%s; step skipped", self._place(step), what, self._batch(epoch, step))
        self._skipped_in_epoch += 1
        self.progress.skipped += 1

    def _pause(self, epoch: Epoch) -> None:
        """Between two steps of an epoch: stop for a signal, or save if it is time."""
        signal = self._stop_signal()
        every = self.schedule.save_every_steps
        due = every is not None and self.progress.step % every == 0
        if signal is not None or due:
            self._check_losses(epoch)
            self._check_weights()
            self.save("last")
        elif self._watch.full:
            self._check_losses(epoch)
        if signal is not None:
            raise Interrupted(signal)

    def _stop_signal(self) -> int | None:
        """The signal that training is to stop for, in all processes after the same step; None: it goes on."""
        own, processes = self._interrupted(), self.learner.processes
        return processes.largest(own or 0) if processes.anyone(STOP, own is not None) else None

    def _end_epoch(self, epoch: Epoch, out: bool) -> None:
        """All of its steps are made, or (``out``) no more are allowed.

        One that is cut short stays open: what is evaluated and kept here is extra, and training that is allowed more
        later goes on within it, with everything that it has added up.
        """
        progress = self.progress
        self._check_losses(epoch)
        losses = self._mean_losses()
        self._check_skipped()
        whole = progress.step_in_epoch == len(epoch.bounds)
        if whole:
            progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        self._log_training(losses)
        self._name_zero_gradients()
        if whole:
            self._sums[:] = self._counts[:] = 0
            self._balancing_weights.clear()
            self._norms.clear()
            self._skipped_in_epoch = 0
            self.learner.balancing.after_epoch(self._as_balanced(losses))
        progress.finished = out or progress.epoch == self.limits.epochs
        due = whole and progress.epoch % self.schedule.evaluate_every == 0
        names: list[str] = []
        removed: list[str] = []
        if due or progress.finished:
            self._import_scorers()
            evaluation = self.evaluate(self.val)
            self._check_evaluation(evaluation)
            kept, dropped = self._log_evaluation(evaluation, losses)
            if due and self.early_stopping.should_stop(evaluation) and not progress.finished:
                progress.finished = True
                log.info(
                    "stopped: no better %s for %d evaluations",
                    self.early_stopping.monitor.name,
                    self.early_stopping.waited,
                )
            names = self._best_names() if kept else []
            removed = [f"epoch-{number}" for number in dropped] + ([] if self.best.entries else ["best"])
        if out and not self._out_of_steps():
            log.info("stopped in epoch %d, step %d: trainer.max_time is over", progress.begun, progress.step)
        self._check_weights()
        self.save(*names, "last")
        for name in removed:  # after what takes its place is written
            self.folder.remove_checkpoint(name)
        signal = self._stop_signal()
        if signal is not None and not progress.finished:
            raise Interrupted(signal)

    def _name_zero_gradients(self) -> None:
        """Tasks that the method had to leave out of a step of this epoch, once."""
        tasks = self.learner.balancing.take_without_gradient()
        if tasks:
            log.warning(
                "epoch %d: the gradient of %s on the shared parameters was zero in some step; it had no weight there",
                self.progress.begun, self._names(tasks),
            )  # fmt: skip

    def _best_names(self) -> list[str]:
        """The checkpoints that the present state, which is one of the best, is to be kept as."""
        of_epoch = [f"epoch-{self.progress.begun}"] if self.best.several else []
        return of_epoch + (["best"] if self.best.entries[0][1] == self.progress.begun else [])

    def _log_training(self, losses: Mapping[str, float | None]) -> None:
        """The epoch's mean loss of each task; its mean weight over the steps in which it had labels.

        The length of its gradient is the mean over these too if the method needs the gradients; else it is that of the
        epoch's first batch.
        """
        record: dict[str, Any] = {"split": "train", "epoch": self.progress.begun, "step": self.progress.step}
        record.update({f"train/{name}/loss": value for name, value in losses.items()})
        known = [task.weight * value for task in self.tasks if (value := losses[task.name]) is not None]
        record["train/loss"] = sum(known) if known else None
        names = [task.name for task in self.tasks]
        if not self._balancing_weights.empty:
            means = self._balancing_weights.means()
            record.update({f"train/{name}/weight": mean for name, mean in zip(names, means, strict=True)})
        if not self._norms.empty:
            means = self._norms.means()
            record.update({f"train/{name}/gradient_norm": mean for name, mean in zip(names, means, strict=True)})
        record.update({f"rows/{source}": count for source, count in self.rows_by_source().items()})
        if self.schedule.skip_nonfinite:
            record["skipped"] = self.progress.skipped
        record["lr"] = self.learner.optimizers[0].lr * self.learner.scheduler.factor(self.progress.step - 1)
        self.metrics.append(record)

    def _log_evaluation(self, evaluation: Evaluation, losses: Mapping[str, float | None]) -> tuple[bool, list[int]]:
        progress, monitor = self.progress, self.best.monitor
        self.metrics.append({"split": "val", "epoch": progress.begun, "step": progress.step, **evaluation.flat("val")})
        score = monitor.value(evaluation)
        if evaluation.broken_down and evaluation.broken_down != self._broken_down:
            what = "epoch %d: no mean, for predictions of %s are not finite, or too large to score"
            log.warning(what, progress.begun, ", ".join(evaluation.broken_down))
        self._broken_down = evaluation.broken_down
        kept, dropped = self.best.add(score, progress.begun, progress.step)
        mark = " *" if self.best.entries and self.best.entries[0][2] == progress.step else ""
        total = sum(task.weight * (losses[task.name] or 0.0) for task in self.tasks)
        shown = [
            f"{name} {metric} {format_number(evaluation.tasks[name][metric])}"
            for name, metric in evaluation.primary.items()
        ]
        if len(shown) > 6:
            shown = [f"worst {format_number(evaluation.worst)}", f"{len(shown)} tasks"]
        note = (
            f" ({len(self.tasks) - len(evaluation.undefined)} of {len(self.tasks)} tasks)"
            if evaluation.undefined
            else ""
        )
        log.info(
            "epoch %d: train loss %.4f | val loss %s | %s %s%s%s | %s",
            progress.begun, total, format_number(evaluation.loss), monitor.name, format_number(score), note, mark,
            ", ".join(shown),
        )  # fmt: skip
        return kept, dropped

    def rows_by_source(self) -> dict[str, int]:
        """Rows trained on so far, of each source; empty where there is one source."""
        names = self.train.origins.names
        return {} if names == ("",) else dict(zip(names, self.drawn.tolist(), strict=True))

    def _mean_losses(self) -> dict[str, float | None]:
        """Mean loss of each task over this epoch's rows."""
        sums, counts = self._sums.tolist(), self._counts
        return {t.name: sums[i] / counts[i] if counts[i] else None for i, t in enumerate(self.tasks)}

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

    def _check_losses(self, epoch: Epoch) -> None:
        """Looks at the steps since the last look: adds them up, or stops at the first loss that was not finite."""
        found = self._watch.first_bad()
        if found is not None:
            self._blame_balancing()
            step = self.progress.step_in_epoch - self._watch.count + found[0]
            raise TrainingError(
                f"{self._place(step)}: the training loss of {self._names(found[1])} is not finite"
                f"{self._batch(epoch, step)}. "
                "Lower optimizer.lr, set trainer.gradient_clip_val, or look for extreme values in the data."
            )
        self._watch.add_up(self._sums, self._balancing_weights, self._norms, self._factors())
        self._watch.clear()

    def _check_weights(self) -> None:
        """A checkpoint must not hold what the last update has spoilt."""
        if not state_is_finite(self.learner):
            self._blame_balancing()
            raise TrainingError(
                f"step {self.progress.step}: a weight, or what the optimizer remembers of it, is not finite. "
                "Lower optimizer.lr, or set trainer.gradient_clip_val."
            )

    def _blame_balancing(self) -> None:
        """Stops with the cause if balancing made weights that are not finite of losses that were."""
        step = self._watch.first_bad_weights()
        if step is not None:
            number = self.progress.step - self._watch.count + step + 1
            raise TrainingError(
                f"step {number}: {self._bad_weights()}. Look at what it divides by, or takes a root or logarithm of."
            )

    def _bad_weights(self) -> str:
        return f"{describe_component(self.learner.balancing)} gave weights that are not finite for losses that are"

    def _check_skipped(self) -> None:
        skipped, steps = self._skipped_in_epoch, self.progress.step_in_epoch
        if skipped and skipped == steps:
            raise TrainingError(
                f"epoch {self.progress.epoch + 1}: none of {steps} steps had finite losses and gradients: all skipped. "
                "Lower optimizer.lr, set trainer.gradient_clip_val, or look for extreme values in the data."
            )
        if skipped:
            log.warning("epoch %d: %d of %d steps skipped", self.progress.epoch + 1, skipped, steps)

    def _place(self, step: int) -> str:
        """Epoch and step, from 1, for messages; ``step`` counts from 0 in the epoch that is under way."""
        number = self.progress.step - self.progress.step_in_epoch + step + 1
        return f"epoch {self.progress.epoch + 1}, step {number}"

    def _names(self, tasks: Sequence[int]) -> str:
        return ", ".join(self.tasks[task].name for task in tasks)

    def _batch(self, epoch: Epoch, step: int) -> str:
        """The rows to look at: those without a finite loss, if there are weights to ask; else all of the batch."""
        start, stop = epoch.bounds[step]
        index = epoch.order[start:stop]
        if not self.schedule.skip_nonfinite and self.folder.checkpoint("last").exists():
            self.load_weights("last")  # the present ones are spoilt, and training ends here
        if bool(self.learner.parameters.values.isfinite().all()):
            self.train.reach(epoch, step)
            guilty = rows_without_finite_loss(self.learner, self.train, index)
            if guilty:
                return f", at {listed(self._name_rows(guilty), _SHOWN_ROWS)}"
        return f", in the batch of {listed(self._name_rows(index.tolist()), _SHOWN_ROWS)}"

    def _check_evaluation(self, evaluation: Evaluation) -> None:
        """A last update that diverged shows in the validation loss alone; what is on the disk is from before it."""
        if evaluation.diverged:
            self._blame_balancing()
            place = f"epoch {self.progress.begun}, step {self.progress.step}"
            raise TrainingError(
                f"{place}: the validation loss of {', '.join(evaluation.diverged)} is not finite. "
                "Lower optimizer.lr, or set trainer.gradient_clip_val."
            )

    def _lr(self) -> float:
        """The learning rate of the next step."""
        return self.learner.optimizers[0].lr * self.learner.scheduler.factor(self.progress.step)

    def _out_of_budget(self) -> bool:
        seconds = self.limits.seconds
        if self._out_of_steps() or seconds is None:
            return self._out_of_steps()
        return self.learner.processes.anyone(TIME_OVER, self.seconds() >= seconds)

    def _out_of_steps(self) -> bool:
        return self.limits.steps is not None and self.progress.step >= self.limits.steps

    @property
    def epochs(self) -> float:
        """Passes over the training rows; a limit may end training within one."""
        progress = self.progress
        if not progress.step_in_epoch:
            return progress.epoch
        return progress.epoch + progress.step_in_epoch / self.schedule.steps(self.train, progress.epoch)

    def seconds(self) -> float:
        """The time that ``steps`` has taken, validations and checkpoints included, over all resumes."""
        return self._seconds_before + self._clock() - self._session_start

    def _import_scorers(self) -> None:
        """Imports what scores need, outside of the time: the first training of a process would pay for all others."""
        modules = {task.kind.scored_by for task in self.tasks} - {"", *sys.modules}
        if modules:
            start = self._clock()
            for module in modules:
                importlib.import_module(module)
            self._session_start += self._clock() - start

    def total_steps(self) -> int | None:
        """Steps until training ends, as far as the limits tell."""
        epochs = self.limits.epochs
        by_epochs = None if epochs is None else self.schedule.total_steps(self.train, epochs)
        known = [steps for steps in (by_epochs, self.limits.steps) if steps is not None]
        return min(known) if known else None


def _numbers(rows: Sequence[int]) -> list[str]:
    return [f"row {row + 1}" for row in rows]
