"""What a run is computed on: the device, its CPU threads and the precision."""

from __future__ import annotations

import os

import torch
from torch import nn

from mtl_cli.errors import ConfigError, Problem
from mtl_cli.processes import local_rank, local_size, size
from mtl_cli.schema import RunConfig

# Below this many multiply-adds per step a second thread gains little, and with a busy neighbour it costs time.
MANY_OPERATIONS = 200_000_000


def choose_device(config: RunConfig) -> torch.device:
    """The device that the configuration asks for.

    Raises:
        ConfigError: This machine or this build of PyTorch does not have it.
    """
    name = config.trainer.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and size() > 1:  # each process of a machine has its own
        name = f"cuda:{local_rank()}"
    device = torch.device(name)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type, True)
    if not there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(Problem("trainer.device", f"there is no device '{name}' here", "Write trainer.device=cpu."))
    return device


def choose_threads(config: RunConfig, model: nn.Module) -> int:
    """CPU threads: as given, or by the work of a step and the cores this process may use, nothing that varies.

    Several processes on a machine divide its cores among them. ``OMP_NUM_THREADS`` is the most there are. What is
    frozen counts as what is trained: whoever loads the model of a run knows nothing of freezing.
    """
    if config.trainer.threads != "auto":
        return config.trainer.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get("OMP_NUM_THREADS", "")
    cores = max(min(cores // local_size(), int(most) if most.isdecimal() else cores), 1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    operations = 3 * config.data.batch_size * parameters // size()
    return cores if operations >= MANY_OPERATIONS else 1


def autocast_type(config: RunConfig) -> torch.dtype | None:
    """Data type of mixed precision, or None."""
    return torch.bfloat16 if config.trainer.precision == "bf16-mixed" else None
