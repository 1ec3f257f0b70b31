"""The factor on the learning rate, step by step."""

import math

import pytest

from mtl_cli.registry import SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_warmup_rises_in_equal_steps_to_one(name):
    schedule = SCHEDULERS.build(name, 20, warmup_steps=4)
    assert [schedule.factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_first_step_without_warmup_has_the_whole_rate(name):
    assert SCHEDULERS.build(name, 20).factor(0) == 1.0


@pytest.mark.parametrize("name", SCHEDULERS.names())
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 5), (20, 20), (0, 0)])
def test_short_runs_have_a_factor_too(name, total, warmup):
    schedule = SCHEDULERS.build(name, total, warmup_steps=warmup)
    factors = [schedule.factor(step) for step in range(30)]
    assert all(0 <= factor <= 1 for factor in factors)


def test_constant_stays():
    assert {SCHEDULERS.build("constant", 10).factor(step) for step in range(50)} == {1.0}


@pytest.mark.parametrize(
    ("name", "middle"), [("cosine", lambda p: 0.5 * (1 + math.cos(math.pi * p))), ("linear", lambda p: 1 - p)]
)
@pytest.mark.parametrize("least", [0.0, 0.1])
def test_decay_falls_to_the_least_factor_at_the_end_and_stays(name, middle, least):
    schedule = SCHEDULERS.build(name, 24, warmup_steps=4, min_factor=least)
    expected = [least + (1 - least) * middle((step - 4) / 20) for step in range(4, 25)]
    assert [schedule.factor(step) for step in range(4, 25)] == pytest.approx(expected, abs=1e-12)
    assert schedule.factor(24) == pytest.approx(least, abs=1e-12)
    assert schedule.factor(1000) == schedule.factor(24)
    assert schedule.factor(23) > schedule.factor(24)
