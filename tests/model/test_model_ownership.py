"""Who owns what."""

import pytest
import torch
from torch import nn

from mtl_cli.model.ownership import Ownership, shared, stacked


def test_shared_parameters_are_owned_whole():
    weight, scale = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.tensor(1.0))
    assert shared([weight, scale]) == [Ownership(weight, None, 0, 3), Ownership(scale, None, 0, 1)]
    assert [owned.numel for owned in shared([weight, scale])] == [12, 1]


def test_stacked_parameters_are_divided_in_order():
    weight = nn.Parameter(torch.zeros(6, 4))
    owned = stacked([weight], [2, 0])
    assert [(o.task, o.start, o.stop, o.numel) for o in owned] == [(2, 0, 3, 12), (0, 3, 6, 12)]


@pytest.mark.parametrize(("start", "stop", "numel"), [(0, 1, 10), (1, 4, 30)])
def test_numel_counts_the_owned_rows(start, stop, numel):
    assert Ownership(nn.Parameter(torch.zeros(4, 2, 5)), 0, start, stop).numel == numel
