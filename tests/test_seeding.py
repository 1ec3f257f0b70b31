"""One seed for everything random."""

import random

import numpy as np
import pytest
import torch

from mtl_cli.seeding import OwnGenerators, rng_state, seed_everything, set_rng_state


@pytest.fixture(autouse=True)
def _own_generators():
    state = rng_state()
    yield
    set_rng_state(state)


def _draw():
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        torch.rand(3).tolist(),
    )


def test_same_seed_draws_the_same():
    draws = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        draws.append(_draw())
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**62])
def test_large_seeds_will_do(seed):
    seed_everything(seed)
    assert len(_draw()) == 5


def test_state_brings_every_generator_back():
    seed_everything(3)
    _draw()  # leaves half a pair of normal numbers behind
    state = rng_state()
    first = _draw()
    set_rng_state(state)
    assert _draw() == first


def test_state_survives_a_checkpoint(tmp_path):
    from mtl_cli.run.checkpoint import load, save

    save(tmp_path / "x.pt", {"rng": rng_state()})
    first = _draw()
    set_rng_state(load(tmp_path / "x.pt")["rng"])
    assert _draw() == first


def test_state_is_that_of_an_apple_gpu_too(monkeypatch):
    of_gpu = [torch.tensor([1], dtype=torch.uint8)]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: of_gpu[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", of_gpu.append)
    state = rng_state()
    of_gpu.append(torch.tensor([2], dtype=torch.uint8))
    set_rng_state(state)
    assert of_gpu[-1].tolist() == [1]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    set_rng_state(state)  # gone on with elsewhere
    assert len(of_gpu) == 3


def test_run_that_uses_no_gpu_leaves_them_alone(monkeypatch):
    """One of a sweep that is trained on the processor of a machine that has two."""

    def touched(*_):
        raise AssertionError("takes hold of a GPU")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("get_rng_state", "set_rng_state", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    own = OwnGenerators()
    for _ in range(2):
        with own:
            torch.rand(1)
