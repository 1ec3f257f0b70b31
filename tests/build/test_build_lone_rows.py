"""A layer that takes statistics over rows is told before training that it would meet a row alone."""

import numpy as np
import pytest
import torch
from torch import nn
from worlds import inputs, make_learner, make_rows, three_kinds

from mtl_cli.build import build_mixing, refuse_lone_rows
from mtl_cli.data.batches import Origins
from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders.base import Encoder
from mtl_cli.schema import validate

LAYER = "'sharing.encoder.norm' is a BatchNorm1d, which takes statistics over several"


class _Normalised(Encoder):
    """Batch norm over rows, or over rows and ``positions``."""

    def __init__(self, positions=0):
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 8), nn.BatchNorm1d(8)
        self.positions = positions

    def forward(self, inputs):
        x = self.linear(inputs.numeric)
        return self.norm(x.unsqueeze(2).expand(-1, -1, self.positions)).mean(2) if self.positions else self.norm(x)


def _refuse(count, *, positions=0, balancing="equal", sources=None, freeze=(), trainer=None, **data):
    """Whether ``count`` training rows are refused."""
    learner = make_learner(three_kinds(), balancing=balancing)
    learner.model.sharing.encoder = _Normalised(positions)
    learner.model.freeze(freeze)
    config = validate({
        "data": {"source": "table", "path": "people.csv", **data}, "tasks": {"a": {"kind": "regression"}},
        "encoder": {"name": "mlp"}, "sharing": {"name": "hard"}, "balancing": {"name": balancing},
        "optimizer": {"name": "adamw"}, "scheduler": {"name": "constant"}, "trainer": trainer or {},
    })  # fmt: skip
    origins = None if sources is None else Origins(("x", "y"), np.array([0] * sources + [1] * (count - sources)))
    rows = make_rows(inputs(torch.randn(count, 5)), np.zeros((count, 3), np.float32), origins=origins)
    before = [buffer.clone() for buffer in learner.model.buffers()]
    try:
        refuse_lone_rows(config, learner, rows, build_mixing(config, rows))
    finally:
        assert all(torch.equal(*pair) for pair in zip(learner.model.buffers(), before, strict=True))
        assert not learner.model.sharing.encoder.norm._forward_pre_hooks


@pytest.mark.parametrize(
    ("count", "options", "what", "hint"),
    [
        pytest.param(
            9, {"batch_size": 4}, "4 leaves one row for the last batch of an epoch (9 training rows)",
            "Write data.drop_last=true or data.batch_size=5, or use", id="last batch",
        ),
        pytest.param(
            9, {"batch_size": 1}, "1 gives a layer one row at a time",
            "Write data.batch_size=3, or use", id="one by one",
        ),
        pytest.param(
            1, {"batch_size": 4, "drop_last": True},
            "4 leaves one row for the last batch of an epoch (1 training row)", "Use", id="one row in all",
        ),
        pytest.param(
            10, {"batch_size": 4, "mixing": "round_robin", "sources": 3},
            "4 leaves one row for the last batch of a source (10 training rows)",
            "Write data.drop_last=true or data.batch_size=5, or use", id="source",
        ),
        pytest.param(
            9, {"batch_size": 2, "trainer": {"accumulate_grad_batches": 3}},
            "2 leaves one row for a part of a step, as trainer.accumulate_grad_batches=3 or balancing=equal cuts it",
            "Write data.drop_last=true or data.batch_size=3, or use", id="accumulation",
        ),
        pytest.param(
            9, {"batch_size": 3, "balancing": "modo", "drop_last": True},
            "3 leaves one row for a part of a step, as trainer.accumulate_grad_batches=1 or balancing=modo cuts it",
            "Write data.batch_size=4, or use", id="samples",
        ),
    ],
)  # fmt: skip
def test_batch_of_one_row_is_refused_with_what_helps(count, options, what, hint):
    with pytest.raises(ConfigError) as refused:
        _refuse(count, **options)
    assert str(refused.value) == f"data.batch_size: {what}, and {LAYER}. {hint} LayerNorm or GroupNorm."


@pytest.mark.parametrize(
    ("count", "options"),
    [
        pytest.param(9, {"batch_size": 4, "drop_last": True}, id="dropped"),
        pytest.param(9, {"batch_size": 5}, id="other size"),
        pytest.param(9, {"batch_size": 4, "trainer": {"max_steps": 2}}, id="never reached"),
        pytest.param(9, {"batch_size": 4, "positions": 3}, id="positions"),
        pytest.param(9, {"batch_size": 4, "freeze": ["encoder"]}, id="frozen"),
    ],
)
def test_what_meets_no_row_alone_is_let_through(count, options):
    _refuse(count, **options)
