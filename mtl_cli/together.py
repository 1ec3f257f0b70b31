"""Several runs trained as one: which runs can be, and the driver that makes their steps at once.

Every run stays a training of its own, with its own folder, optimizer, schedule, generators, checkpoints and early
stopping; what they have in common are the rows, read once, and the arithmetic of each step.
"""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from mtl_cli.build import Data, build_data, streams
from mtl_cli.data import Features, Table
from mtl_cli.loop.stacked import Stack, likeness, weighs_losses
from mtl_cli.loop.step import StepResult
from mtl_cli.loop.trainer import Step
from mtl_cli.registry import BALANCINGS, KINDS
from mtl_cli.schema import DataOptions, RunConfig, TaskConfig
from mtl_cli.seeding import OwnGenerators
from mtl_cli.steps import Clock, OwnTime, Steps
from mtl_cli.tasks import Kind

log = logging.getLogger(__name__)
T = TypeVar("T")
Interrupted = Callable[[], int | None]
# The keys of `data` that say in which order rows are visited: runs may differ in them and read the same rows.
_ORDER = {
    key: getattr(DataOptions(), key)
    for key in ("mixing", "temperature", "anneal_epochs", "epoch", "batch_size", "shuffle", "drop_last")
}


def why_alone(config: RunConfig) -> str | None:
    """Why a run cannot be trained together with others; None if it can."""
    encoder, trainer = config.encoder, config.trainer
    hidden = [name for name, task in config.tasks.items() if task.common.hidden]
    reasons = {
        f"encoder={encoder.name} (only mlp)": encoder.name != "mlp",
        "encoder.activation (only relu)": encoder.options.get("activation", "relu") != "relu",
        "encoder.norm (only none)": encoder.options.get("norm", "none") != "none",
        f"sharing={config.sharing.name} (only hard)": config.sharing.name != "hard",
        f"balancing={config.balancing.name} (only methods that weight losses without further passes)": (
            not weighs_losses(BALANCINGS.load(config.balancing.name))
        ),
        "balancing.loss_scale": config.loss_scale != "none",
        f"tasks.{', '.join(hidden)}.hidden": bool(hidden),
        "product_of": any(task.common.product_of is not None for task in config.tasks.values()),
        "freeze": bool(config.freeze),
        "data.source=interactions (rows are drawn anew in each epoch)": any(
            source.component.name == "interactions" for source in config.sources.values()
        ),
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches > 1,
        f"trainer.precision={trainer.precision}": trainer.precision != 32,
        "trainer.compile": trainer.compile,
        "dry_run": config.dry_run,
        "trainer.on_nonfinite=skip": trainer.on_nonfinite == "skip",
        "trainer.max_time": trainer.max_time is not None,
        f"trainer.device={trainer.device}": trainer.device == "mps",
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds) or None


def why_kin_alone(config: RunConfig) -> str | None:
    """The same of what all runs of one ``kinship`` have in common, for which their files are looked at."""
    silent = [name for name, task in config.tasks.items() if KINDS.load(task.kind.name).group_key is Kind.group_key]
    reasons = [f"tasks.{name}.kind={config.tasks[name].kind.name} (it has no group_key)" for name in silent]
    if streams(config):
        reasons.append(f"data.in_memory={str(config.data.in_memory).lower()} (the data are streamed)")
    return ", ".join(reasons) or None


def kinship(config: RunConfig) -> Hashable:
    """Equal for runs that may be alike: those that differ in numbers that the shape of a step does not depend on."""
    trainer = config.trainer
    encoder = {key: value for key, value in config.encoder.options.items() if key != "dropout"}
    sources = {name: (source.component, source.rename) for name, source in config.sources.items()}
    kinds = {name: task.kind.name for name, task in config.tasks.items()}
    machine = trainer.device, trainer.threads, trainer.deterministic
    data = sources, config.data.in_memory, config.data.batch_size
    return repr((encoder, config.shared_dim, data, kinds, machine))


class SharedData:
    """Data of several runs: what only differs in the order of the rows, or in the weights of tasks, is read once.

    All of them have the data as the first of them found them. Rows that are streamed, or drawn anew in each epoch, are
    not kept: each run goes through them in its own way.

    Args:
        only_last: Keep the data of the last run alone, for runs one after the other.
    """

    def __init__(self, *, only_last: bool = False) -> None:
        self._only_last = only_last
        self._known: dict[str, Data] = {}

    def read(self, config: RunConfig, columns: Features | None) -> Data:
        """The data of a run, as ``build_data`` gives them.

        Raises:
            UserError: The data cannot be used.
        """
        unweighted = (_unweighted(tasks) for tasks in (config.tasks, config.left_out))
        as_there = None if columns is None else columns.to_json()
        reads = config.encoder.name, {key: v for key, v in config.encoder.options.items() if key != "dropout"}
        key = repr((replace(config.data, **_ORDER), config.sources, *unweighted, config.input_dim, reads, as_there))
        data = self._known.get(key)
        if data is None:
            if self._only_last:
                self._known.clear()  # first: both need not fit into memory
            data = build_data(config, columns)
            if isinstance(data.table, Table) and not data.table.drawn:
                self._known[key] = data
        tasks = [replace(task, weight=config.tasks[task.name].common.weight) for task in data.tasks]
        return replace(data, tasks=tuple(tasks))


def _unweighted(tasks: Mapping[str, TaskConfig]) -> dict[str, TaskConfig]:
    return {name: replace(task, common=replace(task.common, weight=1.0)) for name, task in tasks.items()}


@dataclass
class Outcome(Generic[T]):
    """How a training ended: with a value, or with an error."""

    value: T | None = None
    error: BaseException | None = None


def run_together(
    trainings: Sequence[Callable[[Interrupted, Clock], Steps[T]]], interrupted: Interrupted
) -> list[Outcome[T]]:
    """Makes the steps of all trainings at once as far as they are alike; gives how each of them ended.

    One that fails, ends or is stopped leaves the others alone; a ``KeyboardInterrupt`` in the midst of one stops all.

    Args:
        trainings: Give the trainings, which are to stop when what they are given says so, and to take their time from
            a clock. Each runs in a context of its own (``contextvars``), with generators of its own.
        interrupted: The number of a signal that asked to stop, or None.
    """
    asked = _Asked(interrupted)
    members = [_Member(training, asked) for training in trainings]
    try:
        for member in members:
            if asked() is None:
                member.start()
            else:  # its folder does not even exist: the same sweep again begins it
                member.outcome.error = KeyboardInterrupt()
        _drive(members, asked)
    except KeyboardInterrupt as stop:
        for member in members:
            with suppress(
                KeyboardInterrupt
            ):  # once more: this one is done with at once, the others are still to say so
                member.fail(stop)
    return [member.outcome for member in members]


class _Asked:
    """Whether a signal has come; none has for a member without its generators, which it would save."""

    def __init__(self, interrupted: Interrupted) -> None:
        self._interrupted = interrupted
        self._unheard = False

    def __call__(self) -> int | None:
        return None if self._unheard else self._interrupted()

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Signals that come while it is open are heard later."""
        self._unheard = True
        try:
            yield
        finally:
            self._unheard = False


class _Member(Generic[T]):
    """One of the trainings."""

    def __init__(self, training: Callable[[Interrupted, Clock], Steps[T]], asked: _Asked) -> None:
        self.generators, self.clock = OwnGenerators(), OwnTime()
        self.outcome: Outcome[T] = Outcome()
        self.step: Step | None = None  # that it waits for
        self._asked = asked
        self._training, self._context = training(asked, self.clock), contextvars.copy_context()

    def start(self) -> None:
        self._go_on(next, self._training)

    def send(self, result: StepResult, *, quiet: bool) -> None:
        """Tells the result of the step; ``quiet``: nothing is drawn or kept after it."""
        self._go_on(self._training.send, result, quiet=quiet)

    def fail(self, error: BaseException) -> None:
        """What it waits for went wrong."""
        if self.step is not None:
            self._go_on(self._training.throw, error)

    def make_alone(self) -> StepResult:
        """Makes the step that it waits for."""
        if self.step is None:
            raise RuntimeError("waits for no step")
        with self.generators:
            return self.step.make()

    def _go_on(self, how: Callable[..., Any], *args: Any, quiet: bool = False) -> None:
        self.step = None
        self.clock.start()
        try:
            with self._asked.unheard() if quiet else self.generators:
                self.step = self._context.run(how, *args)
        except StopIteration as end:
            self.outcome.value = end.value
        except BaseException as error:
            self.outcome.error = error
            # One with a cause is the end of a training that was asked to stop, and what was thrown in is known.
            if isinstance(error, KeyboardInterrupt) and error.__cause__ is None and error not in args:
                raise
        finally:
            self.clock.stop()


def _drive(members: Sequence[_Member[T]], asked: _Asked) -> None:
    waiting = [member for member in members if member.step is not None]
    stacks = [(_stack(group), group) for group in _alike(waiting)]
    totals = [member.step.trainer.total_steps() for member in waiting if member.step is not None]
    total = None if None in totals else sum(steps for steps in totals if steps is not None)
    done = sum(member.step.trainer.progress.step for member in waiting if member.step is not None)
    with tqdm(total=total, initial=done, unit="step", disable=None, mininterval=0.2) as bar:
        while stacks:
            for stack, group in stacks:
                steps = {id(member.step): member for member in group if member.step is not None}
                wanted = [member.step for member in steps.values() if member.step is not None]
                for part in _parts(stack, wanted, group):
                    _make(part, [steps[id(step)] for step in part], stack, asked)
                bar.update(len(wanted))
            left = [(stack, [member for member in group if member.step is not None]) for stack, group in stacks]
            stacks = [(stack, group) for stack, group in left if group]


def _parts(stack: Stack | None, steps: Sequence[Step], members: Sequence[_Member[T]]) -> list[list[Step]]:
    """Which of the steps to make together; none if that cannot be told, and none of the members has one any more."""
    if stack is None:
        return [[step] for step in steps]
    try:
        return stack.parts(steps)
    except Exception as error:
        for member in members:
            member.fail(error)
        return []


def _make(part: Sequence[Step], members: Sequence[_Member[T]], stack: Stack | None, asked: _Asked) -> None:
    began = time.monotonic()
    try:
        alone = stack is None or len(part) == 1
        results = [members[0].make_alone()] if alone or stack is None else stack.make(part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        for member in members:
            member.fail(error)
        return
    share = (time.monotonic() - began) / len(members)
    for step, member, result in zip(part, members, results, strict=True):
        member.clock.add(share)
        member.send(result, quiet=step.quiet and asked() is None)


def _alike(members: Sequence[_Member[T]]) -> list[list[_Member[T]]]:
    """Those whose steps can be made together; each of the others by itself."""
    groups: dict[Hashable, list[_Member[T]]] = {}
    for member in members:
        try:
            key = None if member.step is None else likeness(member.step.trainer)
        except Exception as error:
            member.fail(error)
            continue
        groups.setdefault(id(member) if key is None else key, []).append(member)
    return list(groups.values())


def _stack(members: Sequence[_Member[T]]) -> Stack | None:
    """What makes the steps of several at once; None if there is one alone, or if it cannot be built (memory)."""
    trainers = [member.step.trainer for member in members if member.step is not None]
    if len(trainers) < 2:
        return None
    device = trainers[0].train.device
    try:
        return Stack(trainers, [member.generators.on(device) for member in members])
    except Exception as error:
        told = "%d jobs cannot be trained together, and make their steps in turn: %s: %s"
        log.warning(told, len(trainers), type(error).__name__, error)
        return None
