"""Several processes that train one run together, as ``torchrun`` starts them.

All of them do the same, each with its share of the rows of a step: sums over rows are added up over the processes, so
that every one of them makes the same update. The first (rank 0) reads the command line, writes the run folder and
speaks; the others do what it says. A store of keys, which ``torchrun`` keeps, is where it says it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from mtl_cli.errors import ConfigError, Problem, RunError, TrainingError, UserError

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT = timedelta(minutes=10)  # that a process waits for the others in a step
_FAREWELL = timedelta(seconds=20)  # that one which failed waits to hear how the first has ended
_LEAVING = timedelta(seconds=2)  # that the first waits until the others have heard that it has ended
_GLANCES = 0.02, 0.1  # seconds between looks for what another process has to tell: the first two, and at most
_LAST_PORT = 65_535
_UNSET = "torchrun sets it; unset it for a training in one process."
_NOTHING: AbstractContextManager[None] = nullcontext()
#: What processes may wish for, see ``ProcessGroup.anyone``.
STOP, TIME_OVER = 0, 1


def size() -> int:
    """How many processes there are."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is, from 0."""
    return _number("RANK", 0) if size() > 1 else 0


def local_rank() -> int:
    """Which of those on this machine this is, from 0."""
    return _number("LOCAL_RANK", 0) if size() > 1 else 0


def local_size() -> int:
    """How many of them are on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1) if size() > 1 else 1


def check() -> None:
    """Whether what ``torchrun`` sets is there.

    Raises:
        ConfigError: There are several processes, and this one cannot find the others; or a number is none.
    """
    count = size()
    if count == 0:
        raise ConfigError(Problem("WORLD_SIZE", "must be at least 1, got 0", _UNSET))
    if count == 1:
        return
    for number in (rank, local_rank, local_size):
        number()
    absent = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        what = f"is {count}, for a training in so many processes, and {', '.join(absent)} {verb} not set"
        hint = "Start them with torchrun --no-python --nproc-per-node 2 mtl-train ..., or unset WORLD_SIZE."
        raise ConfigError(Problem("WORLD_SIZE", what, hint))
    problems = []
    if rank() >= count:
        what = f"must be below WORLD_SIZE, which is {count}, got {rank()}"
        problems.append(Problem("RANK", what, "The first process is 0."))
    if _number("MASTER_PORT", 0) > _LAST_PORT:
        what = f"must be at most {_LAST_PORT}, got {os.environ['MASTER_PORT']}"
        problems.append(Problem("MASTER_PORT", what))
    if problems:
        raise ConfigError(problems)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdigit():
        raise ConfigError(Problem(name, f"must be a whole number, got '{text}'", _UNSET))
    return int(text or default)


class ProcessLost(TrainingError):
    """Another process is gone, or does not answer."""


class ProcessGroup:
    """The processes that train a run together; here one alone: all rows are its own, and every sum is complete.

    Attributes:
        rank: Which process this is, from 0.
        size: How many there are.
    """

    rank = 0
    size = 1

    def own_part(self, start: int, stop: int) -> tuple[int, int]:
        """This process's part of what lies between ``start`` and ``stop``: from where to where. It may be empty."""
        return start, stop

    def add_up(self, *tensors: Tensor) -> None:
        """Makes each tensor the sum of those of all processes."""

    def add_up_losses(self, losses: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over all processes of the losses (k,) of a step and of its sums (K,); with them go the wishes."""
        return losses, sums

    def joined(self, part: Tensor, axis: int) -> tuple[Tensor, slice]:  # noqa: ARG002
        """The parts of all processes side by side, and where this process's is."""
        return part, slice(None)

    def draws(self, training: bool) -> AbstractContextManager[None]:  # noqa: ARG002
        """While it is open, random numbers are of this process's rows; afterwards all processes draw the same ones."""
        return _NOTHING

    def anyone(self, wish: int, mine: bool) -> bool:  # noqa: ARG002
        """Whether some process wishes for something. All hear of it at the same step.

        Args:
            wish: ``STOP`` or ``TIME_OVER``.
            mine: Whether this one does; told to the others with the losses of the next step.
        """
        return mine

    def largest(self, number: int) -> int:
        """The largest number of all processes."""
        return number

    def alike(self) -> AbstractContextManager[None]:
        """What is done within fails in all processes if it fails in one."""
        return _NOTHING

    def refuse_difference(self, digest: Callable[[], str], what: str, hint: str) -> None:
        """Makes sure that all processes hold the same.

        Args:
            digest: Gives a checksum of it.
            what: What it is.
            hint: What to do if it is not the same.

        Raises:
            TrainingError: It is not.
        """


#: A process that trains alone. It has no state, so that all may share it.
ALONE = ProcessGroup()


class DistributedGroup(ProcessGroup):
    """Several processes, which add up and compare through ``torch.distributed``.

    Args:
        rank: Which of them this process is, from 0.
        size: How many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._wishes = [0.0, 0.0]
        self._known = [0.0, 0.0]  # how many wish for each
        self._told: Tensor | None = None  # the same from the latest step, on the device

    def own_part(self, start: int, stop: int) -> tuple[int, int]:
        count = stop - start
        return start + count * self.rank // self.size, start + count * (self.rank + 1) // self.size

    def add_up(self, *tensors: Tensor) -> None:
        from torch import distributed

        for tensor in tensors:
            if tensor.numel():
                with self._answered():
                    distributed.all_reduce(tensor)

    def add_up_losses(self, losses: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        if self._told is not None:  # of the step before: the device is through with it, and the host need not wait
            self._known = self._told.tolist()
        parts = [losses, sums, losses.new_tensor(self._wishes)]
        message = torch.cat(parts)
        self.add_up(message)
        losses, sums, self._told = message.split([len(part) for part in parts])
        return losses, sums

    def joined(self, part: Tensor, axis: int) -> tuple[Tensor, slice]:
        import torch

        lengths = torch.zeros(self.size, dtype=torch.int64, device=part.device)
        lengths[self.rank] = part.shape[axis]
        self.add_up(lengths)
        counts: list[int] = lengths.tolist()
        shape, start = list(part.shape), sum(counts[: self.rank])
        shape[axis] = sum(counts)
        whole = part.new_zeros(shape)
        whole.narrow(axis, start, counts[self.rank]).copy_(part)
        self.add_up(whole)
        return whole, slice(start, start + counts[self.rank])

    def draws(self, training: bool) -> AbstractContextManager[None]:
        return self._own_draws() if training else _NOTHING

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        import torch

        seed = int(torch.randint(2**62, ())) + self.rank  # the first is drawn alike everywhere
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield

    def anyone(self, wish: int, mine: bool) -> bool:
        self._wishes[wish] = float(mine)
        return self._known[wish] > 0

    def largest(self, number: int) -> int:
        numbers: list[int] = self._all(number)
        return max(numbers)

    @contextmanager
    def alike(self) -> Iterator[None]:
        error: Exception | None = None
        try:
            yield
        except Exception as own:
            error = own
        try:
            told = self._all(None if error is None else (str(error), isinstance(error, UserError)))
        except ProcessLost as lost:
            raise error or lost from None
        if error is not None:
            raise error
        for number, failure in enumerate(told):
            if failure is not None:
                text, theirs = f"process {number}: {failure[0]}", failure[1]
                raise RunError(text) if theirs else TrainingError(text)

    def refuse_difference(self, digest: Callable[[], str], what: str, hint: str) -> None:
        found = self._all(digest())
        others = [str(number) for number, theirs in enumerate(found) if theirs != found[0]]
        if others:
            raise TrainingError(f"{what}: not the same in process {', '.join(others)} as in process 0. {hint}")

    def _all(self, mine: Any) -> list[Any]:
        """What each process says, in order."""
        from torch import distributed

        found: list[Any] = [None] * self.size
        with self._answered():
            distributed.all_gather_object(found, mine)
        return found

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            minutes, reason = TIMEOUT.seconds // 60, _reason(error).partition(". ")[0]  # what follows guesses at causes
            raise ProcessLost(
                f"process {self.rank}: one of the {self.size} processes of this training is gone, or has not answered "
                f"for {minutes} minutes ({reason}). What it said itself tells why; resume goes on from the "
                "last checkpoint."
            ) from error


def _reason(error: RuntimeError) -> str:
    """What PyTorch says of a failure, without the line of its source."""
    first = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"^\[[^]]*\] ", "", first)[:200].rstrip(".")


class Work(NamedTuple):
    """What the first process has begun.

    Args:
        folder: The run folder.
        resume: Whether the run goes on.
    """

    folder: str
    resume: bool


class Ending(NamedTuple):
    """How the command of the first process has ended.

    Args:
        code: Its exit code.
        text: What it told of an error.
    """

    code: int
    text: str


class Meeting:
    """Where the first process tells the others what to do, and how it has ended.

    Raises:
        ConfigError: They do not meet.
    """

    def __init__(self) -> None:
        from torch.distributed.rendezvous import rendezvous

        try:
            self._store, self._rank, self._size = next(rendezvous("env://", timeout=TIMEOUT))
        except RuntimeError as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            what = f"the {size()} processes do not meet at {place} ({_reason(error)})"
            hint = "Each needs the same free port, of the machine of the first; torchrun --standalone finds one itself."
            raise ConfigError(Problem("MASTER_ADDR, MASTER_PORT", what, hint)) from error
        self._began = False

    def begin(self, work: Work) -> DistributedGroup:
        """Tells the others to begin, and joins them."""
        self._began = True
        self._store.set("work", json.dumps(work))
        group = self.join()
        with group.alike():  # the others have read the configuration
            return group

    def join(self) -> DistributedGroup:
        """The group of this process and the others."""
        import torch
        from torch import distributed
        from torch.distributed.distributed_c10d import PrefixStore

        store = PrefixStore("group", self._store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=self._rank, world_size=self._size, timeout=TIMEOUT)
        return DistributedGroup(self._rank, self._size)

    def end(self, ending: Ending) -> None:
        """Tells the others that the first process is done, and leaves them."""
        with contextlib.suppress(RuntimeError):  # nobody is there any more
            if not self._began:
                self._store.set("work", "null")
            self._store.set("end", json.dumps(ending))
            if ending.text:  # of an error that the others may not have met: they wait for this process in a step
                self.leave()
            self._are_there([f"left {other}" for other in range(1, self._size)], _LEAVING)  # it may be the store's host
        self.leave()

    def wait_for_work(self) -> Work | None:
        """What the first process begins; None if it has ended without beginning anything."""
        found = self._get("work", None)
        return None if found is None else Work(*found)

    def wait_for_end(self, *, failed: bool) -> Ending | None:
        """How the first process has ended; None if it is gone or, to one that ``failed``, does not say for a while."""
        found = self._get("end", _FAREWELL if failed else None)
        with contextlib.suppress(RuntimeError):
            self._store.set(f"left {self._rank}", "")
        return None if found is None else Ending(*found)

    def leave(self) -> None:
        """Leaves the others: those who wait for this process in a step see that it is gone."""
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()

    def _get(self, key: str, patience: timedelta | None) -> Any:
        try:
            return json.loads(self._store.get(key)) if self._are_there([key], patience) else None
        except RuntimeError:  # the store is gone, and with it whoever kept it
            return None

    def _are_there(self, keys: list[str], patience: timedelta | None) -> bool:
        """Waits for keys; whether they came in time. The store's own wait writes a warning where they do not."""
        began, (pause, longest) = time.monotonic(), _GLANCES
        while not self._store.check(keys):
            if patience is not None and time.monotonic() - began > patience.total_seconds():
                return False
            time.sleep(pause)
            pause = min(1.5 * pause, longest)
        return True
