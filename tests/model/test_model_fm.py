"""The factorization machine against its formula."""

import itertools

import torch

from mtl_cli.model.encoders.fm import FactorizationMachine
from mtl_cli.types import Inputs, InputSpec

SPEC = InputSpec(2, (5, 3))


def _inputs(rows=4):
    categorical = torch.stack([torch.randint(1, 5, (rows,)), torch.randint(1, 3, (rows,))], 1)
    return Inputs(torch.randn(rows, 2), categorical)


def test_features_are_the_products_of_all_pairs_and_the_sum_of_the_weights():
    encoder, inputs = FactorizationMachine(SPEC, 6), _inputs()
    encoder.table.data.normal_()
    encoder.intercept.data.normal_()
    features = encoder(inputs)
    for row in range(4):
        rows = [encoder.table[inputs.categorical[row, 0]], encoder.table[5 + inputs.categorical[row, 1]]]
        rows += [inputs.numeric[row, i] * encoder.table[8 + i] for i in range(2)]
        pairs = sum(a[:-1] * b[:-1] for a, b in itertools.combinations(rows, 2))
        expected = torch.cat([pairs, 8 * (sum(r[-1:] for r in rows) + encoder.intercept[0])])
        torch.testing.assert_close(features[row], expected)


def test_user_and_item_alone_are_matrix_factorization_with_biases():
    encoder = FactorizationMachine(InputSpec(0, (4, 6)), 3, weight_scale=1.0)
    encoder.table.data.normal_()
    encoder.intercept.data.normal_()
    features = encoder(Inputs(torch.zeros(1, 0), torch.tensor([[2, 5]])))
    user, item = encoder.table[2], encoder.table[4 + 5]
    torch.testing.assert_close(
        features[0], torch.cat([user[:2] * item[:2], user[2:] + item[2:] + encoder.intercept[0]])
    )


def test_missing_and_unknown_categories_are_no_input():
    encoder = FactorizationMachine(InputSpec(0, (4, 6), missing=(False, True)), 3, weight_scale=1.0)
    encoder.table.data.normal_()
    encoder.intercept.data.normal_()
    codes = torch.tensor([[3, 0], [3, 5], [0, 0]])
    features = encoder(Inputs(torch.zeros(3, 0), codes))
    base = encoder.intercept.item()
    alone = [0.0, 0.0, (encoder.table[3, -1] + base).item()]
    assert features.tolist() == [alone, alone, [0.0, 0.0, base]]


def test_one_feature_is_the_sum_of_the_weights_alone():
    encoder = FactorizationMachine(InputSpec(0, (4,)), 1, weight_scale=1.0)
    encoder.table.data.normal_()
    encoder.intercept.data.normal_()
    assert encoder(Inputs(torch.zeros(1, 0), torch.tensor([[3]]))).tolist() == [
        [(encoder.table[3, -1] + encoder.intercept).item()]
    ]


def test_stacked_encoders_give_what_each_gives():
    encoders = [FactorizationMachine(SPEC, 6) for _ in range(3)]
    inputs = _inputs()
    stacked = FactorizationMachine.stack(encoders)(inputs)
    assert stacked.shape == (3, 4, 6)
    for one, features in zip(encoders, stacked, strict=True):
        torch.testing.assert_close(features, one(inputs))
