"""The batches of an epoch."""

import numpy as np
import pytest
import torch
from worlds import NAN, inputs, make_rows

from mtl_cli.data.batches import Origins, batch_sizes, count_steps, permutation, plan_epoch
from mtl_cli.data.mixing import Mixing


def _rows(n=10, targets=None):
    targets = np.zeros((n, 2), dtype=np.float32) if targets is None else np.array(targets, dtype=np.float32)
    return make_rows(inputs(torch.arange(len(targets)).float().unsqueeze(1)), targets)


def _plan(rows, epoch=0, *, batch_size=3, weights=(1.0, 1.0), seed=0, **options):
    return plan_epoch(rows, epoch, batch_size=batch_size, weights=np.array(weights), seed=seed, **options)


def _sizes(epoch):
    return [stop - start for start, stop in epoch.bounds]


def test_each_row_comes_once_in_batches_of_three_three_three_and_one():
    epoch = _plan(_rows())
    assert _sizes(epoch) == [3, 3, 3, 1]
    assert epoch.order.sort().values.tolist() == list(range(10))


def test_smaller_last_batch_can_be_dropped():
    assert _sizes(_plan(_rows(), drop_last=True)) == [3, 3, 3]
    assert _sizes(_plan(_rows(9), drop_last=True)) == [3, 3, 3]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_dropping_never_leaves_an_epoch_without_a_batch(n):
    assert _sizes(_plan(_rows(n), drop_last=True)) == [n]


def test_order_differs_between_epochs_and_seeds_and_is_the_same_again():
    orders = [tuple(_plan(_rows(50), epoch, seed=seed).order.tolist()) for epoch in range(3) for seed in range(3)]
    assert len(set(orders)) == 9
    assert orders == [tuple(_plan(_rows(50), e, seed=s).order.tolist()) for e in range(3) for s in range(3)]


def test_order_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    _plan(_rows())
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_come_as_they_are_without_shuffling():
    assert _plan(_rows(), 5, shuffle=False).order.tolist() == list(range(10))


def test_rows_that_are_mostly_of_other_tasks_say_which_task_they_are_of():
    rows = _rows(targets=[[1, NAN], [NAN, 1], [1, NAN], [NAN, NAN]])
    own = torch.tensor([[True, False, True, False], [False, True, False, False]])
    order = torch.tensor([2, 0, 1])
    assert torch.equal(rows.gather(order)[0].wanted, own[:, order])
    assert torch.equal(torch.cat([batch.wanted for batch, _ in rows.in_order(3)], 1), own)
    for targets in ([[1, 1], [NAN, 1], [1, NAN]], [[1, 1], [1, 1]]):  # all at once costs no more
        assert make_rows(rows.inputs.part(0, len(targets)), np.array(targets)).inputs.wanted is None


@pytest.mark.parametrize("seed", [0, 2**31, 2**63 - 1, 10**30])
def test_any_seed_will_do(seed):
    assert len(_plan(_rows(), 7, seed=seed).order) == 10


def test_no_two_orders_are_one():
    orders = {tuple(permutation(50, seed, lap, 0).tolist()) for seed in range(40) for lap in range(10)}
    assert len(orders) == 400


def test_labels_are_counted_batch_by_batch():
    targets = [[1.0, NAN], [1.0, NAN], [1.0, 2.0], [NAN, 2.0], [NAN, NAN], [NAN, 2.0], [1.0, 2.0]]
    epoch = _plan(_rows(targets=targets), weights=(1.0, 3.0), shuffle=False)
    assert epoch.counts.tolist() == [[3.0, 1.0], [0.0, 2.0], [1.0, 1.0]]
    torch.testing.assert_close(epoch.scale, torch.tensor([[1 / 3, 3.0], [0.0, 1.5], [1.0, 3.0]]))
    assert epoch.absent == ((), (0,), ())


def test_a_task_of_weight_0_has_labels_and_no_say():
    targets = [[1.0, NAN], [1.0, 2.0], [NAN, 2.0]]
    epoch = _plan(_rows(targets=targets), batch_size=1, weights=(0.0, 2.0), shuffle=False)
    assert epoch.absent == ((1,), (), (0,))
    assert epoch.inactive == ((0, 1), (0,), (0,))
    assert epoch.scale.tolist() == [[0.0, 0.0], [0.0, 2.0], [0.0, 2.0]]


def test_complete_labels_need_no_counting():
    rows = _rows(5)
    assert rows.labelled is None
    epoch = _plan(rows, weights=(1.0, 2.0))
    assert epoch.counts.tolist() == [[3.0, 3.0], [2.0, 2.0]]
    torch.testing.assert_close(epoch.scale, torch.tensor([[1 / 3, 2 / 3], [0.5, 1.0]]))
    assert epoch.absent == ((), ())


def test_counts_follow_the_order():
    targets = np.full((40, 2), NAN, dtype=np.float32)
    targets[:20, 0] = 1.0
    targets[5:, 1] = 1.0
    rows = _rows(targets=targets)
    epoch = _plan(rows, batch_size=7, drop_last=True)
    for (start, stop), counts in zip(epoch.bounds, epoch.counts, strict=True):
        targets = rows.labels.targets[epoch.order[start:stop]]
        assert (~targets.isnan()).sum(0).tolist() == counts.tolist()


def test_rows_are_gathered_with_their_labels():
    rows = _rows(targets=[[i, -i] for i in range(6)])
    x, labels = rows.gather(torch.tensor([4, 1]))
    assert x.numeric.flatten().tolist() == [4.0, 1.0]
    assert labels.targets.tolist() == [[4.0, -4.0], [1.0, -1.0]]


def test_rows_in_order_come_whole():
    rows = _rows(10)
    parts = list(rows.in_order(4))
    assert [len(labels.targets) for _, labels in parts] == [4, 4, 2]
    assert torch.cat([x.numeric for x, _ in parts]).flatten().tolist() == list(map(float, range(10)))


METHODS = ["proportional", "uniform", "temperature", "annealed", "round_robin"]


def _sources(*sizes):
    """Rows of several sources, interleaved; the input is the row's number."""
    codes = np.concatenate([np.full(size, code) for code, size in enumerate(sizes)])
    codes = np.random.default_rng(0).permutation(codes)
    targets = np.where(np.arange(len(sizes)) == codes[:, None], 1.0, np.nan).astype(np.float32)
    names = tuple("abc"[: len(sizes)])
    return make_rows(inputs(torch.arange(len(codes)).float().unsqueeze(1)), targets, origins=Origins(names, codes))


def _of_several(rows, epoch, mixing, **options):
    return _plan(rows, epoch, batch_size=7, weights=np.ones(len(rows.origins.names)), mixing=mixing, **options)


@pytest.mark.parametrize("epoch_rows", ["total", "longest", 31])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_no_row_of_a_source_comes_again_before_all_of_them_have_come(method, epoch_rows, shuffle):
    rows = _sources(5, 20, 40)
    mixing = Mixing(method, temperature=3.0, anneal_epochs=4, epoch=epoch_rows)
    seen = [[] for _ in range(3)]
    for epoch in range(6):
        plan = _of_several(rows, epoch, mixing, shuffle=shuffle)
        codes = rows.origins.codes[plan.order.numpy()]
        assert plan.drawn.sum(0).tolist() == mixing.counts(np.array([5, 20, 40]), epoch).tolist()
        assert plan.drawn.tolist() == [np.bincount(codes[a:b], minlength=3).tolist() for a, b in plan.bounds]
        assert len(plan.bounds) == count_steps(rows, epoch, batch_size=7, drop_last=False, mixing=mixing)
        for code in range(3):
            seen[code] += plan.order.numpy()[codes == code].tolist()
    for code, members in enumerate(rows.by_source()):
        times = np.bincount(seen[code], minlength=len(rows))[members]
        assert times.max() - times.min() <= 1
        assert times.sum() == mixing.drawn_before(np.array([5, 20, 40]), 6)[code]


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_of_several_sources_is_a_function_of_seed_and_number(method):
    rows, mixing = _sources(5, 20, 40), Mixing(method, anneal_epochs=4)
    orders = [tuple(_of_several(rows, e, mixing, seed=s).order.tolist()) for e in range(3) for s in range(3)]
    assert len(set(orders)) == 9
    assert orders == [tuple(_of_several(rows, e, mixing, seed=s).order.tolist()) for e in range(3) for s in range(3)]


def test_in_turns_each_batch_is_of_one_source():
    rows = _sources(10, 30)
    plan = _of_several(rows, 0, Mixing("round_robin", epoch="longest"))
    assert plan.drawn.tolist() == [[7, 0], [0, 7]] * 4 + [[2, 0], [0, 2]]
    assert plan.absent == ((1,), (0,)) * 5
    dropped = _of_several(rows, 0, Mixing("round_robin", epoch="longest"), drop_last=True)
    assert dropped.drawn.tolist() == [[7, 0], [0, 7]] * 4


def test_without_shuffling_sources_are_evenly_spread():
    plan = _of_several(_sources(10, 30), 0, Mixing(), shuffle=False)
    assert all(abs(own - total / 4) <= 1 for own, total in zip(plan.drawn[:, 0], plan.drawn.sum(1), strict=True))


@pytest.mark.parametrize("method", ["proportional", "round_robin", "annealed"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_sizes_of_batches_are_known_without_a_plan(method, drop_last):
    rows, mixing = _sources(5, 12), Mixing(method, anneal_epochs=3, epoch="longest")
    for epoch in range(3):
        known = batch_sizes(rows, epoch, batch_size=4, drop_last=drop_last, mixing=mixing)
        assert known == _sizes(_plan(rows, epoch, batch_size=4, drop_last=drop_last, mixing=mixing))
        assert len(known) == count_steps(rows, epoch, batch_size=4, drop_last=drop_last, mixing=mixing)
