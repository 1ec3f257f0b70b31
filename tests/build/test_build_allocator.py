"""What a step frees is there for the next one."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from mtl_cli.build.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("refused")
    sys.exit()
def step():
    first = torch.ones(int(sys.argv[2]) * 2**18)
    return [first + n for n in range(4)]
for _ in range(8):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4)
"""


def _count(how, megabytes=4):
    command = [sys.executable, "-c", COUNT, how, str(megabytes)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back that soon")
@pytest.mark.parametrize("megabytes", [4, 40])
def test_a_step_takes_no_pages_from_the_system_again(monkeypatch, megabytes):
    kept = _count("keep", megabytes)
    if kept == "refused":
        pytest.skip("not glibc, or malloc is set by the environment")
    _, _, version = os.confstr("CS_GNU_LIBC_VERSION").partition(" ")
    if megabytes > 32 and tuple(map(int, version.split("."))) < (2, 35):
        pytest.skip("this glibc keeps no block of more than 32 MB")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")  # where malloc begins: later it goes by what it has seen
    # Thousands, or a dozen where the system's pages are huge.
    assert 3 * float(kept) < float(_count("as it is", megabytes))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone")
def test_the_environment_has_the_last_word(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert _count("keep") == "refused"
