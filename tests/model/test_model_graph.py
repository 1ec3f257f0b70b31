"""The graph encoder against its formula with dense matrices."""

import numpy as np
import pytest
import torch

from mtl_cli.model.encoders.fm import FactorizationMachine
from mtl_cli.model.encoders.graph import GraphEncoder
from mtl_cli.types import Inputs, InputSpec, Links

# 3 users, 4 items of one shop and 2 of another (code 0 is the unknown), a column that is in no graph, and a number.
SIZES = (4, 5, 3, 3)
TOOK = (
    Links((0, 1), np.array([[1, 1, 2], [1, 2, 2]])),
    Links((0, 2), np.array([[1, 3], [1, 1]])),
)
SPEC = InputSpec(1, SIZES, links=TOOK)


FIRST = [0, 4, 9, 12]  # of each column's rows in the table


def _dense(table, links, layers):
    """The mean of the layers of all rows, by the definition: powers of D^-1/2 A D^-1/2."""
    ties = torch.zeros(len(table), len(table))
    for codes in links.codes.T:
        a, b = (FIRST[column] + code for column, code in zip(links.columns, codes, strict=True))
        ties[a, b] = ties[b, a] = 1
    degree = ties.sum(1).clamp(min=1)
    ties = ties / torch.outer(degree, degree).sqrt()
    return sum(torch.linalg.matrix_power(ties, power) for power in range(layers + 1)) / (layers + 1) @ table[:, :-1]


def _by_hand(encoder, inputs, layers):
    """Features of rows whose categories are all known, pair by pair."""
    table, number, features = encoder.table, inputs.numeric[:, :1], []
    for row, codes in enumerate(inputs.categorical.tolist()):
        places = [first + code for first, code in zip(FIRST, codes, strict=True)]
        own = [table[place] for place in places] + [number[row] * table[-1]]
        pairs = {(i, j): own[i][:-1] * own[j][:-1] for j in range(5) for i in range(j)}
        for links in TOOK:
            mean = _dense(table, links, layers)
            user, item = links.columns
            pairs[user, item] = mean[places[user]] * mean[places[item]]
        single = 32 * (sum(v[-1:] for v in own) + encoder.intercept[0])
        features.append(torch.cat([sum(pairs.values()), single]))
    return torch.stack(features)


def _filled(layers=3, spec=SPEC):
    encoder = GraphEncoder(spec, 6, layers=layers)
    encoder.table.data.normal_()
    encoder.intercept.data.normal_()
    return encoder


def _inputs(rows=7, least=0):
    codes = torch.stack([torch.randint(least, size, (rows,)) for size in SIZES], 1)
    return Inputs(torch.randn(rows, 1), codes)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_user_and_item_meet_in_the_mean_of_the_powers_of_their_graph(layers):
    encoder, inputs, by_features = _filled(layers), _inputs(least=1), torch.randn(7, 6)
    features, expected = encoder(inputs), _by_hand(encoder, inputs, layers)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    (expected_gradient,) = torch.autograd.grad(expected, encoder.table, by_features)
    features.backward(by_features)
    torch.testing.assert_close(encoder.table.grad, expected_gradient, rtol=1e-4, atol=1e-5)


def test_unknown_user_and_item_have_no_neighbours_and_say_nothing():
    encoder = _filled()
    for graph in encoder.graphs:
        assert 0 not in graph.neighbours.tolist()
        assert 4 not in graph.neighbours.tolist()
    codes = torch.tensor([[0, 2, 0, 1], [0, 0, 0, 1], [2, 0, 0, 0]])
    features = encoder(Inputs(torch.zeros(3, 1), codes))
    expected = torch.zeros(3, 5)
    expected[0] = encoder.table[4 + 2, :-1] * encoder.table[12 + 1, :-1]
    torch.testing.assert_close(features[:, :-1], expected)


def test_without_links_it_is_the_factorization_machine():
    spec = InputSpec(1, SIZES)
    encoder, inputs, plain = _filled(spec=spec), _inputs(), FactorizationMachine(spec, 6, weight_scale=32.0)
    plain.load_state_dict(encoder.state_dict())  # links are no part of it: data.json has them
    assert torch.equal(encoder(inputs), plain(inputs))
    plain.load_state_dict(_filled().state_dict())


def test_copies_go_along_the_links_each_for_itself():
    encoders = [_filled(2) for _ in range(3)]
    stack = GraphEncoder.stack(encoders)
    inputs, by_features = _inputs(), torch.randn(3, 7, 6)
    together = stack(inputs)
    together.backward(by_features)
    for i, encoder in enumerate(encoders):
        features = encoder(inputs)
        features.backward(by_features[i])
        torch.testing.assert_close(together[i], features)
        torch.testing.assert_close(stack.table.grad[i], encoder.table.grad)
