"""How the CPU threads of a process wait for each other."""

from __future__ import annotations

import os
import sys

_TOLD = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # by the user


def wait_asleep() -> None:
    """Lets threads sleep while they wait for each other, and those of processes that this one starts.

    By default they spin, and where another program is busy they keep a core from the very thread that they wait for: on
    two cores with busy neighbours a step with 4,096 rows in two threads took 280 ms instead of 29, and 18 in one. On a
    quiet machine steps that are large enough for several threads take no longer.

    It is decided when torch is loaded: afterwards nothing happens, nor where the user has said how to wait.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _TOLD):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
