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


def test_weights_of_the_step_before_the_last_look_are_looked_at_with_the_losses_that_they_made():
    recent, one, bad = RecentSteps(1, CPU), torch.ones(1), torch.tensor([np.nan])
    recent.add(one, one)
    recent.add(one, bad)
    recent.take()
    assert recent.first_bad_weights() == -1
    recent.add(one, one)
    recent.take()
    recent.add(one, one)
    recent.add(one, bad)
    assert recent.first_bad_weights() == 1
