"""Every test starts from the same generators and one thread, and leaves PyTorch's global switches as they were."""

import gc
import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# --doctest-modules would import every conftest.py once more, and two of one name cannot be.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# Examples are the same ones every time, however long a busy machine takes for one.
settings.register_profile(
    "same", deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("same")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1  # many tests wait for a process or the disk


def pytest_collection_finish():
    gc.freeze()  # thousands of tests, which the garbage collector would look through again and again


@pytest.fixture(autouse=True)
def _same_start():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # setting it loads PyTorch's compiler: seconds
        torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
