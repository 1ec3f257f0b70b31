"""How the CPU threads of a process wait for each other."""

from __future__ import annotations

import os
import sys

_TOLD = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # by the user
_SPINS = 2000


def wait_briefly() -> None:
    """Lets threads that wait for each other go to sleep soon, and those of processes that this one starts.

    By default they spin for milliseconds, and where another program is busy they keep a core from the very thread that
    they wait for: on two cores with busy neighbours a step with 4,096 rows in two threads took 280 ms instead of 29,
    and 18 in one. Threads that sleep at once have to be woken for every operation of a step, 60 us each on a virtual
    machine. So those of GNU's library, which torch has on Linux, spin 20 to 90 us, about the time between two
    operations (10 to 45 ns a turn); those of other libraries sleep.

    It is decided when torch is loaded: afterwards nothing happens, nor where the user has said how to wait.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _TOLD):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)
