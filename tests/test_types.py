"""The rows of a batch can be picked in any order, and more than once."""

import pytest
import torch

from mtl_cli.types import Inputs


@pytest.mark.parametrize("columns", [0, 2])
def test_rows_may_be_picked_more_often_than_there_are(columns):
    codes = torch.arange(3 * columns).view(3, columns)
    picked = Inputs(torch.arange(6.0).view(3, 2), codes).rows(torch.tensor([2, 0, 2, 1, 1]))
    assert picked.numeric.tolist() == [[4, 5], [0, 1], [4, 5], [2, 3], [2, 3]]
    assert picked.categorical.tolist() == codes[[2, 0, 2, 1, 1]].tolist()
