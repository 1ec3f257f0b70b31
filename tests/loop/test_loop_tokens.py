"""Tasks that label tokens, alone and beside tasks that label rows: the loss is a mean over labelled positions."""

import numpy as np
import pytest
import torch
from worlds import CPU, NAN, encoder_world, make_labels, make_rows, make_tasks

from mtl_cli.data.batches import TokenLabels, plan_epoch
from mtl_cli.loop import Learner, Objective
from mtl_cli.loop.evaluate import evaluate
from mtl_cli.loop.step import train_step
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.optim import FlatParameters
from mtl_cli.registry import BALANCINGS, ENCODERS, OPTIMIZERS, SCHEDULERS, SHARINGS
from mtl_cli.tasks.multiclass import Multiclass
from mtl_cli.tasks.tagging import Tagging

CLASSES = ["a", "b", "c"]


def world(positions, sharing="hard", n=23):
    """Rows of tokens whose first feature says their label; a task of rows counts tokens."""
    spec, inputs = encoder_world("tokens", rows=n)
    spec = spec.__class__(spec.numeric_dim, spec.categories, (), spec.blocks, positions)
    tokens = inputs.blocks["forms"]
    labels = (tokens.values[:, 0] % 3).float().numpy()
    labels[::7] = NAN
    per_row = (tokens.lengths() > 2).float().numpy()
    both = positions == "both"
    kinds = [Multiclass(classes=CLASSES), Tagging(classes=CLASSES)] if both else [Tagging(classes=CLASSES)]
    none = np.full(n, NAN, np.float32)
    token_targets = np.stack([np.full(len(labels), NAN, np.float32), labels] if both else [labels], 1)
    of_tokens = TokenLabels("forms", make_labels(token_targets), both)
    rows = make_rows(inputs, np.stack([per_row, none] if both else [none], 1), tokens=of_tokens)
    torch.manual_seed(0)
    options = {"dropout": 0.0, "feature_dropout": 0.0, "dim": 16}
    names = [f"task{i}" for i in range(len(kinds))]
    make_encoder = EncoderMaker(lambda spec, width: ENCODERS.build("sequence", spec, width, **options), spec, 8)
    architecture = SHARINGS.build(sharing, make_encoder, names)
    model = MultiTaskModel(3, [k.num_outputs for k in kinds], 8, sharing=architecture)
    parameters = FlatParameters(model.owners())
    optimizer = OPTIMIZERS.build("adamw", parameters, lr=0.02)
    balancing = BALANCINGS.build("equal", len(kinds))
    learner = Learner(
        model, Objective(kinds, CPU), balancing, parameters, [optimizer], SCHEDULERS.build("constant", 10)
    )
    return learner, rows, labels, per_row


def plan(rows, tasks, epoch=0):
    return plan_epoch(rows, epoch, batch_size=6, weights=np.ones(tasks), seed=0)


@pytest.mark.parametrize("positions", ["tokens", "both"])
def test_gates_are_watched_on_labelled_tokens(positions):
    learner, rows, labels, per_row = world(positions, "mmoe")
    evaluate(learner, rows, make_tasks(learner))
    weights, _, *own = learner.model.sharing.report(["size", "tag"][-len(learner.objective.kinds) :])
    tokens = int((~np.isnan(labels)).sum())
    if positions == "tokens":
        assert weights.title == f"mean weight of each expert ({tokens} tokens)"
        assert not own
    else:
        assert weights.title == "mean weight of each expert (each task's own rows and tokens)"
        assert own[0].values == [[len(per_row), None], [None, tokens]]


@pytest.mark.parametrize("sharing", ["hard", "separate"])
@pytest.mark.parametrize("positions", ["tokens", "both"])
def test_loss_of_a_step_is_the_mean_over_its_labelled_tokens(positions, sharing):
    learner, rows, labels, per_row = world(positions, sharing)
    task = len(learner.objective.kinds) - 1
    epoch = plan(rows, task + 1)
    index = epoch.order[slice(*epoch.bounds[1])]
    places = rows.inputs.blocks["forms"].places(index).numpy()
    known = ~np.isnan(labels[places])
    with torch.no_grad():
        outputs = learner.model(rows.inputs.rows(index))
    own = outputs[task][len(index) :] if positions == "both" else outputs[task]
    expected = torch.nn.functional.cross_entropy(own[known], torch.from_numpy(labels[places][known]).long())
    sums = train_step(learner, rows, epoch, 1, 0).sums
    assert epoch.counts[1, task] == known.sum()
    assert sums[task].item() / epoch.counts[1, task] == pytest.approx(expected.item(), rel=1e-5)
    if positions == "both":
        expected = torch.nn.functional.cross_entropy(outputs[0][:6], torch.from_numpy(per_row[index]).long())
        assert sums[0].item() / epoch.counts[1, 0] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("positions", ["tokens", "both"])
def test_tokens_and_rows_are_learnt(positions):
    learner, rows, labels, _ = world(positions)
    kinds = learner.objective.kinds
    for number in range(40):
        epoch = plan(rows, len(kinds), number)
        for step in range(len(epoch.bounds)):
            train_step(learner, rows, epoch, step, 0)
    found = evaluate(learner, rows, make_tasks(learner))
    assert found.worst > 0.95
    assert kinds[-1].counts(labels).labelled == int((~np.isnan(labels)).sum())


def test_evaluation_joins_the_positions_of_its_batches_in_order(monkeypatch):
    learner, rows, _, _ = world("both")
    whole = evaluate(learner, rows, make_tasks(learner))
    monkeypatch.setitem(evaluate.__globals__, "EVALUATION_BLOCKS", 4)
    pieces = evaluate(learner, rows, make_tasks(learner))
    assert whole.flat("val") == pytest.approx(pieces.flat("val"), rel=1e-5)
