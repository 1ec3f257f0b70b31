"""How long an update is: what the YAML of a method on gradients says of it holds."""

import math
import re
from pathlib import Path

import pytest
import torch

from mtl_cli.balancing import GradientBalancing, GramianBalancing
from mtl_cli.registry import BALANCINGS

CONFIGS = Path(__file__).parents[2] / "configs" / "balancing"
METHODS = [n for n in BALANCINGS.names() if issubclass(BALANCINGS.load(n), GradientBalancing)]
JACOBIAN = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))  # nearly orthogonal gradients
LOSSES = torch.tensor([0.5, 1.0, 2.0])


def _length(name, jacobian, **options):
    method = BALANCINGS.build(name, len(jacobian), **options)
    return float(method.aggregate(jacobian.clone(), LOSSES[: len(jacobian)], torch.arange(len(jacobian)))[0].norm())


def _of_sum(jacobian):
    return float(jacobian.sum(0).norm())


def _of_mean(jacobian):
    return float(jacobian.mean(0).norm())


def _around(jacobian, c):
    return (1 - c) * _of_mean(jacobian), (1 + c) * _of_mean(jacobian)


def _nash(jacobian):
    return min(1.0, math.sqrt(len(jacobian) * float((jacobian @ jacobian.T).norm())))


def _averages(jacobian):
    return len(jacobian) * float((jacobian / LOSSES[:, None]).norm(dim=1).max())


SAID = {  # the words: between what and what the length is then
    "Update as long as a sum": lambda j, _: (_of_sum(j) / 2, _of_sum(j) * 2),
    "Update about as long as a mean": lambda j, _: (_of_mean(j) / 2, _of_mean(j) * 2),
    "Update of the order of the mean": lambda j, _: (_of_mean(j) / 2, _of_sum(j)),
    "Update 1 - c to 1 + c times as long as the mean": lambda j, options: _around(j, options["c"].default),
    "Update at most as long as the mean": lambda j, _: (0, _of_mean(j)),
    "Update at most as long as the longest gradient": lambda j, _: (0, float(j.norm(dim=1).max())),
    "Update at most as long as the largest loss": lambda *_: (0, float(LOSSES.max())),
    "Update a sum of K averages, each as long as the longest": lambda j, _: (0, _averages(j)),
    "Update sqrt(K |M|) long, cut to max_norm": lambda j, _: (_nash(j), _nash(j)),
    "Update longer, the shorter the gradients are": None,  # the test of powers below
    "Update as the aggregator says": None,
}
# Gradients s times as long make the update s^power times as long.
POWERS = [(name, {}, 1.0) for name in METHODS if name not in ("fairgrad", "moco", "nash_mtl")] + [
    ("fairgrad", {}, -1 / 3),
    ("fairgrad", {"alpha": 1.0}, 0.0),
    ("fairgrad", {"alpha": 0.5}, 1 / 3),
    ("moco", {}, 0.0),
    ("nash_mtl", {}, 0.0),
    ("nash_mtl", {"max_norm": 0.0}, 1.0),
]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_update_is_as_long_as_its_yaml_says(name, scale):
    comment = re.match(r"(?:#.*\n)+", (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))[0]
    text = " ".join(line.removeprefix("# ") for line in comment.splitlines())
    said = [words for words in SAID if words in text]
    assert len(said) == 1, text
    if SAID[said[0]] is not None:
        least, most = SAID[said[0]](JACOBIAN * scale, BALANCINGS.options(name))
        assert least * (1 - 1e-4) <= _length(name, JACOBIAN * scale) <= most * (1 + 1e-4)


@pytest.mark.parametrize(("name", "options", "power"), POWERS)
def test_length_of_an_update_goes_with_a_power_of_the_length_of_the_gradients(name, options, power):
    ratio = _length(name, 2 * JACOBIAN, **options) / _length(name, JACOBIAN, **options)
    assert ratio == pytest.approx(2**power, rel=0.01)  # the weights of modo move a little with that length


@pytest.mark.parametrize("normalize_to", ["none", "sum", "mean"])
@pytest.mark.parametrize("name", [n for n in METHODS if issubclass(BALANCINGS.load(n), GramianBalancing)])
def test_weights_that_are_told_are_those_of_the_gradients_in_the_update(name, normalize_to):
    method = BALANCINGS.build(name, 3, normalize_to=normalize_to)
    update, weights = method.aggregate(JACOBIAN.clone(), LOSSES, torch.arange(3))
    torch.testing.assert_close(weights @ JACOBIAN, update, rtol=1e-4, atol=1e-5)


def test_an_update_of_upgrad_may_be_shorter_than_the_mean():
    jacobian = torch.tensor([[1.0, 0.0], [-5.0, 8.66]])  # the long gradient is shortened, and the short one adds little
    assert _length("upgrad", jacobian) == pytest.approx(4.56, abs=0.01)
    assert _of_mean(jacobian) == pytest.approx(4.77, abs=0.01)
