"""Models trained side by side are the models trained alone."""

import pytest
import torch
from worlds import CPU, make_learner, three_kind_rows, three_kinds

from mtl_cli.data.batches import Rows, plan_epoch
from mtl_cli.loop.step import train_step


def _train(learner, rows):
    for epoch in range(4):
        plan = plan_epoch(rows, epoch, batch_size=8, weights=torch.ones(rows.targets.shape[1]).numpy(), seed=0)
        for step in range(len(plan.bounds)):
            train_step(learner, rows, plan, step, 0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_each_of_the_separate_models_is_the_model_of_its_task_alone(missing, optimizer):
    """Loss, gradient, optimizer state and rows without a label: nothing of a task reaches another."""
    rows, kinds = three_kind_rows(40, missing=missing), three_kinds()
    options = {"encoder": {"hidden": [6]}, "optimizer": optimizer}
    together = make_learner(kinds, sharing="separate", **options)
    stack, heads = together.model.sharing.encoders, together.model.heads
    start = {name: p.detach().clone() for name, p in stack.named_parameters()}
    first_heads = [p.detach().clone() for p in heads.parameters()]
    _train(together, rows)
    after, row = dict(stack.named_parameters()), 0
    for task, kind in enumerate(kinds):
        alone, own = make_learner([kind], **options), slice(row, row + kind.num_outputs)
        row = own.stop
        with torch.no_grad():
            for name, p in alone.model.sharing.encoder.named_parameters():
                p.copy_(start[name][task])
            for p, all_heads in zip(alone.model.heads.parameters(), first_heads, strict=True):
                p.copy_(all_heads[own])
        _train(alone, Rows(rows.inputs, rows.targets[:, task : task + 1].numpy(), CPU))
        for name, p in alone.model.sharing.encoder.named_parameters():
            torch.testing.assert_close(p, after[name][task], rtol=1e-5, atol=1e-6)
            assert not torch.equal(p, start[name][task])
        for p, all_heads in zip(alone.model.heads.parameters(), heads.parameters(), strict=True):
            torch.testing.assert_close(p, all_heads[own], rtol=1e-5, atol=1e-6)
