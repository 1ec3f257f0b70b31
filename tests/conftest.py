"""Every test starts from the same generators and one thread, and leaves PyTorch's global switches as they were."""

import gc
import os

import pytest
import torch

# --doctest-modules would import every conftest.py once more, and two of one name cannot be.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    return (os.cpu_count() or 1) + 1  # many tests wait for a process or the disk


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
