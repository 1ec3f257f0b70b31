"""What a checkpoint holds: how training is saved, and how it goes back to what was saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mtl_cli.errors import RunError
from mtl_cli.loop.monitor import Scores, checkpoint_of, is_of_an_epoch
from mtl_cli.loop.progress import Progress
from mtl_cli.loop.step import Learner
from mtl_cli.loop.totals import Totals
from mtl_cli.loop.unsaved import watch
from mtl_cli.run import RunFolder
from mtl_cli.run.checkpoint import checksum, load
from mtl_cli.run.metrics_log import MetricsLog
from mtl_cli.seeding import rng_state, set_rng_state

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a training in its run folder.

    Args:
        folder: The run folder, claimed.
        tasks: Names of the K tasks, in the learner's order.
        learner: What is trained. It is saved and loaded, like all that follows.
        progress: Where training stands.
        totals: What its steps have added up to.
        scores: What its evaluations have scored.
        metrics: metrics.jsonl; its size is saved, and loading cuts it back to that.
        diagnostics: diagnostics.jsonl, in the same way.
    """

    def __init__(
        self,
        folder: RunFolder,
        tasks: Sequence[str],
        *,
        learner: Learner,
        progress: Progress,
        totals: Totals,
        scores: Scores,
        metrics: MetricsLog,
        diagnostics: MetricsLog,
    ) -> None:
        self._folder, self._tasks = folder, list(tasks)
        self._learner, self._progress, self._totals, self._scores = learner, progress, totals, scores
        self._metrics, self._diagnostics = metrics, diagnostics
        self._unsaved = watch(learner)  # what is shipped keeps nothing else than its state dict

    def save(self, *names: str) -> None:
        """Writes the whole state as a checkpoint, under one or more names in this order.

        Raises:
            TrainingError: It cannot be written, or the processes that train do not have the same state.
        """
        state = self.state()
        self._refuse_drift(state)
        self._warn_of_what_is_lost()
        with self._learner.processes.alike():
            self._folder.write_checkpoint(state, *names)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on as if never stopped."""
        learner = self._learner
        return {
            "tasks": self._tasks,
            "model": dict(learner.model.state_dict()),
            "balancing": dict(learner.balancing.state_dict()),
            "loss_scale": None if learner.loss_scale is None else dict(learner.loss_scale.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in learner.optimizers],
            "progress": vars(self._progress).copy(),
            **self._totals.state(),
            "lr": learner.lr(self._progress.step),
            **self._scores.state(),
            "metrics_size": self._metrics.size(),
            "diagnostics_size": self._diagnostics.size(),
            "rng": rng_state(),
        }

    def load(self, name: str) -> None:
        """Goes back to a checkpoint: weights, optimizer, balancing, position, generators, best scores, metrics log.

        Raises:
            RunError: The checkpoint is unusable, or of another model.
        """
        state = self.load_weights(name)
        try:
            self._load_learner(state)
            self._progress.load_state(state["progress"])
            self._scores.load_state(state)
            self._totals.load_state(state)
            size, looks = int(state["metrics_size"]), int(state.get("diagnostics_size", 0))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(f"{self._folder.checkpoint(name)}: does not fit this configuration ({error}).") from error
        self._metrics.truncate(size)
        self._diagnostics.truncate(looks)
        set_rng_state(state["rng"])
        self._warn_of_another_lr(state.get("lr"))
        self._complete_the_best(state)
        self._remove_what_nobody_keeps()

    def load_weights(self, name: str) -> dict[str, Any]:
        """Loads the model's weights alone; returns the whole checkpoint.

        Raises:
            RunError: The checkpoint is unusable, or of another model.
        """
        path = self._folder.checkpoint(name)
        state = load(path)
        if state.get("tasks") != self._tasks:
            raise RunError(f"{path}: was trained on tasks {state.get('tasks')}, not on {self._tasks}.")
        try:
            self._learner.model.load_values(state["model"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path}: does not fit this model ({error}).") from error
        return state

    def load_last_weights(self) -> None:
        """Loads the weights of the last checkpoint, if there is one."""
        if self._folder.checkpoint("last").exists():
            self.load_weights("last")

    def refuse_drift(self) -> None:
        """Makes sure that all processes have the same state, for each makes every update by itself.

        Raises:
            TrainingError: They do not.
        """
        self._refuse_drift(self.state())

    def _refuse_drift(self, state: Mapping[str, Any]) -> None:
        trained = {key: state[key] for key in ("model", "balancing", "loss_scale", "optimizers")}
        trained["rng"] = state["rng"]["torch"]
        self._learner.processes.refuse_difference(
            lambda: checksum(trained),
            f"step {self._progress.step}: weights, or what goes with them",
            "All processes need the same versions of everything and the same type of processor. Nothing was saved; "
            "resume goes on from the last checkpoint.",
        )

    def _warn_of_what_is_lost(self) -> None:
        """Once, of what a component of the user's has learnt and no checkpoint holds."""
        messages = {unsaved: unsaved.message() for unsaved in self._unsaved}
        for message in dict.fromkeys(filter(None, messages.values())):  # copies of an encoder say the same
            log.warning("%s", message)
        self._unsaved = [unsaved for unsaved, message in messages.items() if message is None]

    def _load_learner(self, state: Mapping[str, Any]) -> None:
        """All of the learner but the model's weights."""
        self._learner.balancing.load_state_dict(state["balancing"])
        if self._learner.loss_scale is not None:
            self._learner.loss_scale.load_state_dict(state["loss_scale"])
        for optimizer, saved in zip(self._learner.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def _warn_of_another_lr(self, before: float | None) -> None:
        """Of a schedule that is not the one with which the checkpoint was written."""
        now = self._learner.lr(self._progress.step)
        if before is not None and before != now:
            log.warning(
                "learning rate at step %d: %.3g before, %.3g now; the schedule spans %d steps now",
                self._progress.step, before, now, self._learner.scheduler.total_steps,
            )  # fmt: skip

    def _remove_what_nobody_keeps(self) -> None:
        """Checkpoints of epochs that a process was killed before it could remove, or that are trained once more."""
        best = self._scores.best
        kept = {checkpoint_of(epoch) for epoch in (*(entry[1] for entry in best.entries), *best.outdated)}
        for name in self._folder.checkpoints():
            if is_of_an_epoch(name) and name not in kept:
                self._folder.remove_checkpoint(name)

    def _complete_the_best(self, state: Mapping[str, Any]) -> None:
        """Gives the best, and the epoch that this checkpoint is of if it is kept, all of their checkpoints.

        They may lack some: a process was killed after it had written last.pt and before it could write them, or one
        was kept before and several are now.
        """
        best = self._scores.best
        for place, (_, epoch, step) in enumerate(best.entries):
            if step == self._progress.step:
                self._put_right(best.checkpoints(epoch), step, state)
            elif place == 0:
                self._put_right(best.checkpoints(epoch), step)

    def _put_right(self, names: Sequence[str], step: int, state: Mapping[str, Any] | None = None) -> None:
        """Makes checkpoints those of a step, from its ``state`` or else from one of them; others do not stand for it.

        A damaged one stays where there is nothing to make it from: that is told where it is needed.
        """
        steps = {name: self._step_of(name) for name in names}
        for name in [name for name in names if steps[name] != step]:
            if state is None and step in steps.values():
                state = load(self._folder.checkpoint(next(good for good in names if steps[good] == step)))
            if state is not None:
                self._folder.write_checkpoint(dict(state), name)
            elif steps[name] is not None:
                self._folder.remove_checkpoint(name)

    def _step_of(self, name: str) -> int | None:
        """The step that a checkpoint is of; None if there is none that can be read."""
        with suppress(RunError):
            return int(load(self._folder.checkpoint(name))["progress"]["step"])
        return None
