"""One seed for everything random, and the state of every generator in and out of a checkpoint."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's global generators; orders of rows and splits have their own."""
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def rng_state() -> dict[str, Any]:
    """State of the global generators, as tensors and plain numbers.

    Example:
        >>> before = rng_state(); first = torch.rand(1); set_rng_state(before)
        >>> bool(torch.rand(1) == first)
        True
    """
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, torch.tensor(internal), gauss]}
    if torch.cuda.is_initialized():  # else nothing was drawn there, and asking would take hold of every GPU
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    if "numpy" in sys.modules:
        name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
        keys = torch.from_numpy(keys.astype("int64"))
        state["numpy"] = [name, keys, int(position), int(has_gauss), float(cached)]
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts back what ``rng_state`` gave."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(_numbers(internal)), gauss))
    if torch.cuda.is_initialized():
        for i, of_device in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):  # there may be fewer now
            torch.cuda.set_rng_state(of_device, i)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    if "numpy" in state and "numpy" in sys.modules:
        name, keys, *rest = state["numpy"]
        sys.modules["numpy"].random.set_state((name, _numbers(keys), *rest))


def _numbers(values: torch.Tensor | list[int]) -> list[int]:
    """As a list: checkpoints of older versions hold one."""
    return values.tolist() if isinstance(values, torch.Tensor) else values


class OwnGenerators:
    """The global generators of one run among several in a process: they are the run's while this is entered.

    Example:
        >>> first, second = OwnGenerators(), OwnGenerators()
        >>> for own in (first, second):
        ...     with own:
        ...         seed_everything(0)
        >>> with first:
        ...     numbers = torch.rand(2)
        >>> with second:
        ...     bool((torch.rand(2) == numbers).all())
        True
    """

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None
        self._cpu = torch.Generator()
        self._cuda: list[torch.Generator] = []

    def on(self, device: torch.device) -> torch.Generator:
        """What the run draws from on a device, for those who draw for it while this is not entered."""
        return self._on_gpus()[device.index or 0] if device.type == "cuda" else self._cpu

    def _on_gpus(self) -> list[torch.Generator]:
        """One of each GPU, once something uses one: else nothing was drawn there; see ``rng_state``."""
        if not self._cuda and torch.cuda.is_initialized():
            self._cuda = [torch.Generator(torch.device("cuda", i)) for i in range(torch.cuda.device_count())]
        return self._cuda

    def __enter__(self) -> None:
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        torch.set_rng_state(self._cpu.get_state())
        for i, generator in enumerate(self._on_gpus()):
            torch.cuda.set_rng_state(generator.get_state(), i)

    def __exit__(self, *_: object) -> None:
        self._python = random.getstate()
        self._numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None
        self._cpu.set_state(torch.get_rng_state())
        for i, generator in enumerate(self._on_gpus()):
            generator.set_state(torch.cuda.get_rng_state(i))
