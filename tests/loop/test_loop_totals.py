"""What the steps of training add up to."""

import numpy as np
import torch
from worlds import CPU

from mtl_cli.loop.recent_steps import RecentSteps
from mtl_cli.loop.totals import Totals


def test_sums_do_not_depend_on_when_steps_are_added_up():
    steps = [(torch.randn(3), *torch.rand(2, 3 - bool(n % 3)), (1,) if n % 3 else ()) for n in range(20)]
    found = []
    for every in (1, 7, 20):
        recent, totals = RecentSteps(3, CPU), Totals(3, [""])
        totals.count(np.ones(3), np.ones(1, np.int64))
        for number, step in enumerate(steps, 1):
            recent.add(*step)
            if number % every == 0 or number == 20:
                totals.add(recent.take(), [1.0] * 3)
        found.append((totals.mean_losses(), totals.weights.state(), totals.gradient_norms.state()))
    losses, (sums, counts), (lengths, _) = found[0]
    assert np.allclose(losses, sum(of_step.double() for of_step, *_ in steps))
    assert counts == [20, 7, 20]
    for place, total in ((1, sums), (2, lengths)):
        assert np.isclose(total[1], sum(float(step[place][1]) for step in steps if not step[3]))
    assert found[1:] == found[:1] * 2


def test_an_epoch_begins_with_nothing_and_the_rows_of_each_source_go_on():
    totals = Totals(2, ["small", "large"])
    recent = RecentSteps(2, CPU)
    recent.add(torch.tensor([6.0, 0.0]), torch.tensor([1.0]), torch.tensor([2.0]), (1,))
    totals.count(np.array([3.0, 0.0]), np.array([1, 2]))
    totals.add(recent.take(), [1.0, 1.0])
    totals.skipped = 1
    assert totals.mean_losses() == [2.0, None]
    assert totals.rows_by_source() == {"small": 1, "large": 2}
    totals.begin_epoch()
    assert totals.state() == {**Totals(2, ["small", "large"]).state(), "drawn": [1, 2]}


def test_state_of_an_earlier_version_is_gone_on_with():
    totals = Totals(2, [""])
    old = {"sums": [6.0, 1.0], "counts": [3.0, 0.0], "weight_sums": [4.0, 9.0], "weight_counts": [2.0, 3.0]}
    totals.load_state({**old, "drawn": [5]})
    assert (totals.mean_losses(), totals.weights.means(), totals.skipped) == ([2.0, None], [2.0, 3.0], 0)
    assert totals.gradient_norms.empty
