"""Memory does not grow with the length of a run."""

import os
from pathlib import Path

import pytest
from worlds import make_learner, make_trainer, three_kind_rows, three_kinds

from mtl_cli.run import RunFolder

PAGE = os.sysconf("SC_PAGE_SIZE")


def _resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _growth(tmp_path, epochs, since):
    seen = []
    learner = make_learner(three_kinds(), sharing="mmoe", balancing="uncertainty")
    with RunFolder.claim(tmp_path / "run") as folder:
        trainer = make_trainer(
            folder, learner, three_kind_rows(), epochs=epochs, interrupted=lambda: seen.append(_resident())
        )
        trainer.fit()
    calls = len(seen) // epochs
    return max(seen[-calls:]) - max(seen[: since * calls])


def test_memory_of_a_later_epoch_is_that_of_an_early_one(tmp_path):  # LOO-06
    assert _growth(tmp_path, 40, since=10) < 4e6


@pytest.mark.slow
def test_memory_of_200_epochs(tmp_path):  # LOO-06
    assert _growth(tmp_path, 200, since=10) < 4e6
