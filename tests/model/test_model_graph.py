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


def _dense(table, layers):
    """The mean of the layers, by the definition: powers of D^-1/2 A D^-1/2."""
    nodes, first = len(table), [0, 4, 9, 12]
    ties = torch.zeros(nodes, nodes, dtype=torch.float64)
    for links in TOOK:
        for u, i in links.codes.T:
            a, b = first[links.columns[0]] + u, first[links.columns[1]] + i
            ties[a, b] = ties[b, a] = 1
    degree = ties.sum(1).clamp(min=1)
    ties = ties / torch.outer(degree, degree).sqrt()
    mean = sum(torch.linalg.matrix_power(ties, power) for power in range(layers + 1)) / (layers + 1)
    mean[12:] = torch.eye(nodes, dtype=torch.float64)[12:]  # the other column, and the number
    return torch.cat([mean @ table[:, :-1].double(), table[:, -1:].double()], 1).float()


def _filled(layers=3, spec=SPEC):
    encoder = GraphEncoder(spec, 6, layers=layers)
    encoder.table.data.normal_()
    encoder.intercept.data.normal_()
    return encoder


def _inputs(rows=7):
    codes = torch.stack([torch.randint(size, (rows,)) for size in SIZES], 1)
    return Inputs(torch.randn(rows, 1), codes)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_vectors_are_the_mean_of_the_powers_of_the_normalised_graph(layers):
    encoder = _filled(layers)
    torch.testing.assert_close(encoder.rows(), _dense(encoder.table.detach(), layers))


def test_features_are_those_of_the_factorization_machine_on_these_vectors():
    encoder, inputs = _filled(), _inputs()
    plain = FactorizationMachine(SPEC, 6, weight_scale=32.0)
    plain.table.data = encoder.rows().detach()
    plain.intercept.data = encoder.intercept.data
    torch.testing.assert_close(encoder(inputs), plain(inputs))


def test_gradient_is_that_of_the_dense_graph():
    encoder, by_rows = _filled(), torch.randn(16, 6)
    encoder.rows().backward(by_rows)
    table = encoder.table.detach().clone().requires_grad_()
    _dense(table, 3).backward(by_rows)
    torch.testing.assert_close(encoder.table.grad, table.grad)


def test_unknown_user_and_item_have_no_neighbours_and_say_nothing():
    encoder = _filled()
    assert encoder.neighbours.tolist().count(0) == encoder.neighbours.tolist().count(4) == 0
    codes = torch.tensor([[0, 2, 0, 1], [0, 0, 0, 1]])
    features = encoder(Inputs(torch.zeros(2, 1), codes))
    item, other = encoder.rows()[4 + 2], encoder.rows()[12 + 1]
    torch.testing.assert_close(features[0, :-1], item[:-1] * other[:-1])
    torch.testing.assert_close(features[1, :-1], torch.zeros(5))


def test_without_links_it_is_the_factorization_machine():
    spec = InputSpec(1, SIZES)
    encoder, inputs, plain = _filled(spec=spec), _inputs(), FactorizationMachine(spec, 6, weight_scale=32.0)
    plain.load_state_dict(encoder.state_dict())  # links are no part of it: data.json has them
    assert torch.equal(encoder(inputs), plain(inputs))


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
