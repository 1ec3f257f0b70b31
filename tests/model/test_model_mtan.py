"""Multi-task attention: how a task's features come to the size of the next stage."""

import pytest
import torch
from torch.nn import functional

from mtl_cli.model.sharing.mtan import _resized


@pytest.mark.parametrize(("there", "here"), [((9, 8), (5, 4)), ((7, 7), (3, 7)), ((10,), (4,)), ((6, 4), ())])
def test_features_are_averaged_as_adaptive_pooling_does(there, here):
    x = torch.randn(2, 3, 4, *there)
    pool = {0: lambda x, _: x.flatten(2).mean(2), 1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d}
    expected = pool[len(here)](x.flatten(0, 1), here).unflatten(0, (2, 3))
    torch.testing.assert_close(_resized(x, here), expected)
