"""When training does what."""

import numpy as np
import pytest
import torch
from worlds import inputs, make_rows

from mtl_cli.data.batches import Origins
from mtl_cli.data.mixing import Mixing
from mtl_cli.loop.schedule import Schedule


def _sources(*sizes):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    targets = np.zeros((len(codes), 1), np.float32)
    return make_rows(inputs(torch.zeros(len(codes), 1)), targets, origins=Origins(tuple("abc"[: len(sizes)]), codes))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("mixing", ["proportional", "round_robin", "annealed"])
def test_steps_of_a_run_are_the_batches_of_its_epochs(mixing, drop_last):
    rows = _sources(5, 40)
    mixing = Mixing(mixing, anneal_epochs=3, epoch="longest")
    schedule = Schedule(batch_size=7, shuffle=True, drop_last=drop_last, seed=0, mixing=mixing)
    batches = [len(schedule.plan(rows, epoch, np.ones(1)).bounds) for epoch in range(4)]
    assert [schedule.steps(rows, epoch) for epoch in range(4)] == batches
    assert schedule.total_steps(rows, 4) == sum(batches)
    assert (len(set(batches)) > 1) == (mixing.method == "annealed")


def test_batches_are_those_of_the_seed_the_order_and_the_weights():
    rows = _sources(9)
    plan = Schedule(batch_size=3, shuffle=True, drop_last=False, seed=0).plan(rows, 1, np.array([6.0]))
    assert plan.scale.tolist() == [[2.0]] * 3
    again, other = (
        Schedule(batch_size=3, shuffle=True, drop_last=False, seed=seed).plan(rows, 1, np.ones(1)) for seed in (0, 1)
    )
    assert torch.equal(plan.order, again.order)
    assert not torch.equal(plan.order, other.order)
    as_they_are = Schedule(batch_size=3, shuffle=False, drop_last=False, seed=0).plan(rows, 1, np.ones(1))
    assert as_they_are.order.tolist() == list(range(9))


def test_evaluations_and_checkpoints_come_after_whole_multiples():
    schedule = Schedule(3, shuffle=True, drop_last=False, seed=0, evaluate_every=2, save_every_steps=3)
    assert [schedule.evaluates_after(epochs) for epochs in (1, 2, 3, 4)] == [False, True, False, True]
    assert [schedule.saves_after(steps) for steps in (1, 3, 5, 6)] == [False, True, False, True]
    assert not Schedule(3, shuffle=True, drop_last=False, seed=0).saves_after(3)
