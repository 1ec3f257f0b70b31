"""Models trained side by side are the models trained alone."""

import pytest
import torch
from worlds import DROPOUT, NAN, SMALL_ENCODERS, encoder_world, make_learner, make_rows, three_kind_rows, three_kinds

from mtl_cli.data.batches import plan_epoch
from mtl_cli.loop.step import train_step
from mtl_cli.registry import ENCODERS, KINDS


def _train(learner, rows):
    for epoch in range(4):
        plan = plan_epoch(rows, epoch, batch_size=8, weights=torch.ones(rows.labels.targets.shape[1]).numpy(), seed=0)
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
        _train(alone, make_rows(rows.inputs, rows.labels.targets[:, task : task + 1].numpy()))
        for name, p in alone.model.sharing.encoder.named_parameters():
            torch.testing.assert_close(p, after[name][task], rtol=1e-5, atol=1e-6)
            assert not torch.equal(p, start[name][task])
        for p, all_heads in zip(alone.model.heads.parameters(), heads.parameters(), strict=True):
            torch.testing.assert_close(p, all_heads[own], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS.names())
@pytest.mark.parametrize("sharing", ["separate", "soft"])
def test_of_a_single_task_it_is_hard_sharing_to_the_last_bit(sharing, encoder):
    """With dropout, and rows without a label."""
    spec, values = encoder_world(ENCODERS.load(encoder).reads, rows=24)
    targets = torch.randn(24, 1)
    targets[::3] = NAN
    options = SMALL_ENCODERS.get(encoder, {}) | DROPOUT.get(encoder, {})
    trained = []
    for name in (sharing, "hard"):
        learner = make_learner(
            [KINDS.build("regression")], sharing=name, encoder_name=encoder, encoder=options, spec=spec, shared_dim=4
        )
        start = learner.parameters.values.clone()
        _train(learner, make_rows(values, targets.numpy()))
        assert not torch.equal(learner.parameters.values, start)
        trained.append(learner.parameters.values)
    exact = encoder != "sequence"  # its hashed features go into their table by another sum
    torch.testing.assert_close(*trained, rtol=0, atol=0 if exact else 1e-6)
