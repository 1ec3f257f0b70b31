"""Steps that are remembered until somebody asks whether their numbers are finite."""

import numpy as np
import torch
from worlds import CPU

from mtl_cli.loop.recent_steps import RecentSteps


def test_first_bad_step_is_found_among_many():
    recent = RecentSteps(3, CPU, size=10)
    for step in range(10):
        recent.add(torch.tensor([1.0, np.inf if step == 6 else 1.0, np.nan if step >= 6 else 1.0]))
    assert recent.first_bad() == (6, [1, 2])
