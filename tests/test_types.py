"""The rows of a batch, with inputs and labels, can be picked in any order, and more than once."""

import pytest
import torch

from mtl_cli.types import Inputs, Labels


@pytest.mark.parametrize("columns", [0, 2])
def test_rows_may_be_picked_more_often_than_there_are(columns):
    codes = torch.arange(3 * columns).view(3, columns)
    picked = Inputs(torch.arange(6.0).view(3, 2), codes).rows(torch.tensor([2, 0, 2, 1, 1]))
    assert picked.numeric.tolist() == [[4, 5], [0, 1], [4, 5], [2, 3], [2, 3]]
    assert picked.categorical.tolist() == codes[[2, 0, 2, 1, 1]].tolist()


def test_labels_are_picked_with_their_shares():
    labels = Labels(torch.arange(6.0).view(3, 2), torch.arange(3.0).view(3, 1))
    for picked, rows in ((labels.rows(torch.tensor([2, 0, 2])), [2, 0, 2]), (labels.part(1, 3), [1, 2])):
        assert picked.targets.tolist() == labels.targets[rows].tolist()
        assert picked.shares.tolist() == labels.shares[rows].tolist()


def test_labels_that_count_alike_have_no_shares():
    labels = Labels(torch.zeros(3, 2))
    picked = [labels.rows(torch.tensor([2, 0])), labels.part(0, 1), labels.to(torch.device("cpu"))]
    assert [own.shares for own in picked] == [None] * 3
