"""Outputs to what the user reads."""

import numpy as np
import pytest
import torch

from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.multiclass import Multiclass
from mtl_cli.tasks.ordinal import Ordinal


def test_binary_prediction_is_the_users_label():
    decoded = Binary(classes=["no", "yes"]).decode(torch.tensor([[2.0], [-2.0], [0.0]]))
    assert decoded["pred"].tolist() == ["yes", "no", "no"]
    np.testing.assert_allclose(decoded["prob"][0], [0.1192029, 0.8807971], atol=1e-7)


def test_multiclass_prediction_is_the_users_label():
    decoded = Multiclass(classes=["a", "b", "c"]).decode(torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 0.0]]))
    assert decoded["pred"].tolist() == ["b", "a"]
    np.testing.assert_allclose(decoded["prob"].sum(1), 1.0, atol=1e-12)


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_ordinal_prediction_is_the_class_below_the_first_step_not_taken(label):
    outputs = torch.where(torch.arange(3) < label, 20.0, -20.0).unsqueeze(0)
    decoded = Ordinal(classes=["e", "d", "c", "b"]).decode(outputs)
    assert decoded["pred"].tolist() == [["e", "d", "c", "b"][label]]
    np.testing.assert_allclose(decoded["prob"][0], np.eye(4)[label], atol=1e-8)


def test_ordinal_probabilities_are_never_negative():
    decoded = Ordinal(classes=["e", "d", "c", "b"]).decode(5 * torch.randn(200, 3))  # steps out of order too
    assert not np.signbit(decoded["prob"]).any()  # where steps tie, the difference is 0.0, not -0.0
    np.testing.assert_allclose(decoded["prob"].sum(1), 1.0, atol=1e-12)
