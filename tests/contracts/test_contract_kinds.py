"""What every registered kind of task promises. A new kind is tested the moment it is registered."""

import json

import numpy as np
import pytest
import torch
from worlds import column

from mtl_cli.registry import KINDS

every_kind = pytest.mark.parametrize("name", KINDS.names())


def _fitted(name):
    """A kind fitted to a column that any kind can read, and its encoded labels."""
    labels = column([0, 1, 1, 0, None, 1, 0, 1])
    kind = KINDS.build(name)
    kind.fit(labels, np.arange(8))
    return kind, kind.encode(labels)


@every_kind
def test_labels_are_float32_with_nan_where_missing(name):
    _, targets = _fitted(name)
    assert targets.dtype == np.float32
    assert np.isnan(targets).nonzero()[0].tolist() == [4]


@every_kind
def test_state_survives_json(name):
    kind, targets = _fitted(name)
    other = KINDS.build(name)
    other.load_state(json.loads(json.dumps(kind.state())))
    outputs = torch.randn(8, kind.num_outputs)
    assert other.num_outputs == kind.num_outputs
    assert np.array_equal(other.encode(column([1, 0, None])), kind.encode(column([1, 0, None])), equal_nan=True)
    for key, value in kind.decode(outputs).items():
        assert np.array_equal(other.decode(outputs)[key], value)
    known = torch.from_numpy(targets[~np.isnan(targets)])
    assert other.score(outputs[:7], known) == kind.score(outputs[:7], known)


@every_kind
def test_loss_is_one_number_for_each_row_and_never_negative(name):
    kind, targets = _fitted(name)
    known = torch.from_numpy(targets[~np.isnan(targets)]).expand(3, -1)
    loss = kind.loss(torch.randn(3, kind.num_outputs, 7), known)
    assert loss.shape == (3, 7)
    assert loss.min() >= 0


@every_kind
def test_score_gives_every_metric_and_nothing_else(name):
    kind, targets = _fitted(name)
    known = torch.from_numpy(targets[~np.isnan(targets)])
    scores = kind.score(torch.randn(7, kind.num_outputs), known)
    assert list(scores) == list(kind.metrics)
    assert all(value is None or np.isfinite(value) for value in scores.values())
    assert list(kind.score(torch.randn(1, kind.num_outputs), known[:1])) == list(kind.metrics)


@every_kind
def test_prediction_is_one_for_each_row(name):
    kind, _ = _fitted(name)
    decoded = kind.decode(torch.randn(5, kind.num_outputs))
    assert decoded["pred"].shape == (5,)
    if "prob" in decoded:
        assert decoded["prob"].shape == (5, len(kind.classes))


@every_kind
def test_labels_are_counted_and_described(name):
    kind, targets = _fitted(name)
    counts = kind.counts(targets)
    assert (counts.labelled, counts.missing) == (7, 1)
    assert counts.balance
    assert "\n" not in counts.balance
    assert kind.counts(np.full(3, np.nan, np.float32)).balance == "no labels"


@every_kind
def test_group_key_is_the_same_for_the_same_options(name):
    assert _fitted(name)[0].group_key() == _fitted(name)[0].group_key()
    assert hash(_fitted(name)[0].group_key()) == hash(_fitted(name)[0].group_key())
