"""The encoder of tables: embeddings of numbers against their formulas."""

import math

import pytest
import torch
from torch.nn import functional

from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.encoders.tabular import TabularEncoder
from mtl_cli.types import Inputs, InputSpec

SPEC = InputSpec(3, (4,), ((2, (-1.0, 0.0, 2.0)), (0, (0.0, 1.0, 1.5, 3.0))))
ROWS = Inputs(
    torch.tensor([[0.25, 1.0, -0.5], [-3.0, 0.0, 1.0], [3.0, 1.0, 9.0]]), torch.tensor([[1], [3], [0]])
)  # the middle number is 0 or 1: no bins


def _features(encoder, embedded):
    """What the layers make of the numbers, their embeddings and the category."""
    categories = encoder.last.embedding[ROWS.categorical[:, 0]]
    layer = encoder.last.layers[0]
    return torch.relu(functional.linear(torch.cat([ROWS.numeric, *embedded, categories], 1), layer.weight, layer.bias))


def test_periodic_numbers_are_sines_and_cosines_of_learnt_frequencies():
    encoder = TabularEncoder(SPEC, 5, numbers="periodic", dim=4, frequencies=2, frequency_std=1.0, hidden=[]).eval()
    encoder.bias.data.normal_()
    embedded = []
    for column, place in enumerate((2, 0)):
        angle = 2 * math.pi * ROWS.numeric[:, place, None] * encoder.numbers.frequencies[column, 0]
        waves = torch.cat([torch.sin(angle), torch.cos(angle)], 1)
        embedded.append(torch.relu(waves @ encoder.numbers.weight[column] + encoder.bias[column]))
    torch.testing.assert_close(encoder(ROWS), _features(encoder, embedded))


def test_piecewise_linear_numbers_are_how_far_they_came_through_each_bin():
    encoder = TabularEncoder(SPEC, 5, numbers="piecewise_linear", dim=4, hidden=[]).eval()
    encoder.bias.data.normal_()
    first, second = encoder.numbers.weight.split([2, 3])  # no weights for bins that a column does not have
    through = torch.tensor([[0.5, 0.0], [1.0, 0.5], [1.0, 1.0]])
    other = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    embedded = [
        torch.relu(through @ first + encoder.bias[0]),
        torch.relu(other @ second + encoder.bias[1]),
    ]
    torch.testing.assert_close(encoder(ROWS), _features(encoder, embedded))


@pytest.mark.parametrize("numbers", ["periodic", "piecewise_linear"])
def test_copies_are_the_encoders_alone(numbers):
    encoders = [TabularEncoder(SPEC, 5, numbers=numbers, dim=4, frequencies=3).eval() for _ in range(3)]
    together = TabularEncoder.stack(encoders).eval()(ROWS)
    torch.testing.assert_close(together, torch.stack([encoder(ROWS) for encoder in encoders]))


def test_waves_learn_in_a_few_steps_what_turns_twice():
    """The reason for embeddings: sin(2 pi x) on [-1.5, 1.5], to which a plain layer of 64 hardly begins to bend."""
    x = torch.linspace(-1.5, 1.5, 256).unsqueeze(1)
    rows, y = Inputs(x, torch.empty(256, 0, dtype=torch.int64)), torch.sin(2 * math.pi * x)
    spec = InputSpec(1, (), ((0, (-1.5, 0.0, 1.5)),))
    left = {}
    for name, encoder in {
        "plain": MLP(InputSpec(1), 64),
        "periodic": TabularEncoder(spec, 64, numbers="periodic", frequency_std=1.0, hidden=[], dropout=0.0),
    }.items():
        head = torch.nn.Linear(64, 1)
        optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            loss = functional.mse_loss(head(encoder(rows)), y)
            loss.backward()
            optimizer.step()
        left[name] = loss.item()
    assert left["periodic"] < 0.01
    assert left["plain"] > 0.1


def test_table_without_bins_is_refused_with_the_key_that_makes_them():
    with pytest.raises(ConfigError) as caught:
        TabularEncoder(InputSpec(3, (4,)), 5)
    assert str(caught.value) == (
        "encoder: tabular embeds the numbers that data.bins cuts into bins, and there are none. "
        "Set data.bins=48 (auto cuts no column where they are more than 32), or use encoder=mlp."
    )
