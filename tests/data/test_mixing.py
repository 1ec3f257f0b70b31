"""Rows of each source in an epoch, to the row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_cli.data.mixing import Mixing

SIZES = np.array([100, 900])


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"method": "proportional"}, [100, 900]),
        ({"method": "proportional", "epoch": "longest"}, [100, 900]),
        ({"method": "proportional", "epoch": 50}, [5, 45]),
        ({"method": "uniform"}, [500, 500]),
        ({"method": "uniform", "epoch": "longest"}, [900, 900]),
        ({"method": "uniform", "epoch": 7}, [4, 3]),
        ({"method": "temperature", "temperature": 2.0}, [250, 750]),
        ({"method": "temperature", "temperature": 2.0, "epoch": "longest"}, [300, 900]),
        ({"method": "temperature", "temperature": 1.0}, [100, 900]),
        ({"method": "round_robin"}, [500, 500]),
        ({"method": "round_robin", "epoch": "longest"}, [900, 900]),
    ],
)
def test_counts(options, counts):
    assert Mixing(**options).counts(SIZES, 0).tolist() == counts
    assert Mixing(**options).counts(SIZES, 5).tolist() == counts
    assert Mixing(**options).drawn_before(SIZES, 5).tolist() == [5 * count for count in counts]


def test_rows_that_do_not_come_out_even_go_where_most_is_left():
    assert Mixing(epoch=10).counts(np.array([12, 38, 50]), 0).tolist() == [1, 4, 5]


def test_annealed_shares_go_from_proportional_to_nearly_uniform():
    # PALs (Stickland and Murray 2019), section 4.1: exponent 1 - 0.8 (e - 1) / (E - 1) for epochs e = 1..E
    mixing = Mixing("annealed", anneal_epochs=5)
    assert mixing.shares(SIZES, 0).tolist() == [0.1, 0.9]
    for epoch, exponent in ((1, 0.8), (2, 0.6), (4, 0.2), (9, 0.2)):
        assert mixing.shares(SIZES, epoch)[1] == pytest.approx(900**exponent / (100**exponent + 900**exponent))
    counts = [mixing.counts(SIZES, epoch) for epoch in range(6)]
    assert [count.sum() for count in counts] == [1000] * 6
    assert mixing.drawn_before(SIZES, 6).tolist() == np.sum(counts, axis=0).tolist()
    assert Mixing("annealed", anneal_epochs=1).counts(SIZES, 0).tolist() == [100, 900]


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=140),
    st.sampled_from(["proportional", "uniform", "temperature", "annealed", "round_robin"]),
    st.floats(1, 20),
    st.one_of(st.just("total"), st.just("longest"), st.integers(1, 10**7)),
    st.integers(0, 20),
)
def test_counts_add_up_and_follow_the_shares(sizes, method, temperature, rows, epoch):
    sizes = np.array(sizes)
    mixing = Mixing(method, temperature, 10, rows)
    counts = mixing.counts(sizes, epoch)
    shares = mixing.shares(sizes, epoch)
    if rows == "longest":
        assert (counts >= sizes - 1).all()
        assert (counts == sizes).any()
    else:
        assert counts.sum() == (sizes.sum() if rows == "total" else rows)
        assert np.abs(counts - shares * counts.sum()).max() < 1 + 1e-6
    if method == "proportional" and rows == "total":
        assert counts.tolist() == sizes.tolist()
