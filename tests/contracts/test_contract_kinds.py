"""What every registered kind of task promises."""

import json

import numpy as np
import pytest
import torch
from worlds import CPU, NAN, column, inputs, make_labels, make_learner, make_rows

from mtl_cli.errors import DataError
from mtl_cli.loop import Objective, evaluate
from mtl_cli.registry import KINDS
from mtl_cli.schema import Component, TaskConfig, TaskOptions, is_higher_better
from mtl_cli.tasks import Kind, Task, likeness

LABELS = [0, 1, 1, 0, None, 1, 0, 1]  # a column that any kind can read
# Options that change the loss, beside the defaults of every kind.
VARIANTS = [
    *((name, {}) for name in KINDS.names()),
    ("regression", {"loss": "mae"}),
    ("regression", {"loss": "huber", "huber_delta": 0.3}),
    ("regression", {"transform": "sqrt"}),
    ("binary", {"label_smoothing": 0.2}),
    ("binary", {"loss": "focal"}),
    ("binary", {"loss": "focal", "focal_gamma": 0.5}),
    ("binary", {"class_weight": "balanced"}),
    ("multiclass", {"label_smoothing": 0.1}),
    ("tagging", {"label_smoothing": 0.1}),
    ("multiclass", {"loss": "focal"}),
    ("multiclass", {"loss": "focal", "focal_gamma": 0.5}),
    ("multiclass", {"class_weight": {"0": 3.0}}),
    ("ordinal", {"class_weight": "balanced"}),
    ("quantile", {"quantiles": [0.5]}),
    ("quantile", {"quantiles": [0.05, 0.3, 0.7, 0.95]}),
]
every_kind = pytest.mark.parametrize("name", KINDS.names())
every_variant = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=["-".join([name, *map(str, options.values())]) for name, options in VARIANTS]
)


def _fit(name, labels=LABELS, **options):
    kind = KINDS.build(name, **options)
    kind.fit(column(labels), np.arange(len(labels)))
    return kind, kind.encode(column(labels))


def _known(targets):
    """The labels that are there, as a metric reads them: (n,) or (n, T)."""
    return torch.from_numpy(targets[~np.isnan(targets.reshape(len(targets), -1)[:, 0])])


def _batch(name, options, tasks=2):
    """A fitted kind, outputs (k, C, B) and targets (k, B) or (k, T, B) in double precision."""
    kind, targets = _fit(name, **options)
    labels = _known(targets).double().t().expand(tasks, *_known(targets).t().shape)
    return kind, 2 * torch.randn(tasks, kind.num_outputs, 7, dtype=torch.float64), labels


def _with_other_loss(name):
    class Other(KINDS.load(name)):
        def loss(self, outputs, targets):
            return super().loss(outputs, targets).square() + 1

    return Other


def _rows(kind, targets):
    return make_rows(inputs(torch.randn(len(targets), 5)), targets.reshape(len(targets), -1), firsts=[0])


def _best_outputs(kind, targets):
    """Outputs (C, B) that minimise the loss of each row, found by descent."""
    targets = targets.double().t().unsqueeze(0)
    outputs = torch.zeros(1, kind.num_outputs, targets.shape[-1], dtype=torch.float64)
    optimizer = torch.optim.Adam([outputs], lr=1.0)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.985**step
        outputs.grad = kind.loss_and_gradient(outputs, targets)[1]
        optimizer.step()
    return outputs[0]


@every_kind
def test_labels_are_float32_with_nan_where_missing(name):
    kind, targets = _fit(name)
    assert targets.dtype == np.float32
    assert targets.shape == ((8,) if kind.num_targets == 1 else (8, kind.num_targets))
    missing = np.isnan(targets.reshape(8, -1))
    assert missing.all(1).nonzero()[0].tolist() == missing.any(1).nonzero()[0].tolist() == [4]


@every_variant
def test_state_survives_json(name, options):
    kind, targets = _fit(name, **options)
    other = KINDS.build(name, **options)
    other.load_state(json.loads(json.dumps(kind.state())))
    outputs = torch.randn(8, kind.num_outputs)
    assert (other.num_outputs, other.num_targets) == (kind.num_outputs, kind.num_targets)
    again = column([1, 0, None])
    assert np.array_equal(other.encode(again), kind.encode(again), equal_nan=True)
    for key, value in kind.decode(outputs).items():
        assert np.array_equal(other.decode(outputs)[key], value)
    known = _known(targets)
    assert other.score(outputs[:7], known) == kind.score(outputs[:7], known)
    weights = kind.row_weights(targets)
    assert (other.row_weights(targets) is None) if weights is None else (other.row_weights(targets) == weights).all()


@every_variant
def test_loss_is_one_number_for_each_row_and_never_negative(name, options):
    kind, outputs, targets = _batch(name, options, tasks=3)
    loss = kind.loss(outputs.float(), targets.float())
    assert loss.shape == (3, 7)
    assert loss.min() >= 0


@every_variant
def test_gradient_is_that_of_autograd(name, options):
    kind, outputs, targets = _batch(name, options)
    before = outputs.clone(), targets.clone()
    rows, gradient = kind.loss_and_gradient(outputs, targets)
    assert torch.equal(outputs, before[0])
    assert torch.equal(targets, before[1])
    expected_rows, expected = Kind.loss_and_gradient(kind, outputs, targets)
    assert gradient.shape == outputs.shape
    torch.testing.assert_close(rows, expected_rows, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


@every_variant
def test_gradient_is_the_slope_of_the_loss(name, options):
    kind, outputs, targets = _batch(name, options, tasks=1)
    gradient, step = kind.loss_and_gradient(outputs, targets)[1], 1e-6
    for i in range(kind.num_outputs):
        shift = torch.zeros_like(outputs)
        shift[:, i] = step
        slope = (kind.loss(outputs + shift, targets) - kind.loss(outputs - shift, targets)) / (2 * step)
        torch.testing.assert_close(slope, gradient[:, i], rtol=0, atol=1e-6)


@every_variant
def test_subclass_with_another_loss_is_trained_by_it(name, options):
    kind, outputs, targets = _batch(name, options)
    other = _with_other_loss(name)(**options)
    other.load_state(kind.state())
    rows, gradient = other.loss_and_gradient(outputs, targets)
    mean, slope = kind.loss_and_gradient(outputs, targets)
    torch.testing.assert_close(rows, mean.square() + 1)
    torch.testing.assert_close(gradient, 2 * mean.unsqueeze(1) * slope)
    assert likeness(other) is None


@every_kind
def test_meaning_of_a_subclass_that_decodes_otherwise_is_what_it_was_made_with(name):
    cls = KINDS.load(name)
    kind, same = _fit(name)[0], type("Same", (cls,), {})()
    other = type("Other", (cls,), {"decode": lambda self, outputs: cls.decode(self, -outputs)})()
    for own in (same, other):
        own.load_state(kind.state())
        before = own.meaning()
        assert before != kind.meaning()
        own.made_with = {"power": 2}
        assert (own.meaning() == before) == (own is same)


@every_variant
def test_extreme_outputs_give_finite_losses_and_gradients(name, options):
    kind, outputs, targets = _batch(name, options)
    for size in (1e4, -1e4):
        rows, gradient = kind.loss_and_gradient(torch.full_like(outputs.float(), size), targets.float())
        assert rows.isfinite().all()
        assert gradient.isfinite().all()


@every_variant
def test_row_without_a_label_contributes_nothing(name, options):
    kind, targets = _fit(name, **options)
    outputs = torch.randn(kind.num_outputs, 8)
    outputs[:, 4] = NAN
    outputs.requires_grad_()
    rows = _rows(kind, targets)
    losses, sums = Objective([kind], CPU).losses(outputs, rows.labels, torch.tensor([1 / 7]), complete=False)
    losses.sum().backward()
    known = [0, 1, 2, 3, 5, 6, 7]
    expected = kind.loss(outputs[:, known].detach().unsqueeze(0), _known(targets).t().unsqueeze(0))
    torch.testing.assert_close(sums, expected.sum(1), rtol=1e-6, atol=1e-6)
    assert outputs.grad.isfinite().all()
    assert outputs.grad[:, 4].abs().max() == 0


@every_variant
def test_task_without_a_label_has_no_loss_and_no_gradient(name, options):
    kind, targets = _fit(name, **options)
    outputs = torch.randn(kind.num_outputs + 1, 8, requires_grad=True)
    nothing = np.full_like(targets.reshape(8, -1), np.nan)
    both = make_labels(np.concatenate([nothing, np.ones((8, 1), np.float32)], 1))
    other = KINDS.build("regression")
    losses, _ = Objective([kind, other], CPU).losses(outputs, both, torch.tensor([0.0, 1 / 8]), complete=False)
    losses.sum().backward()
    assert losses[0] == 0
    assert outputs.grad[:-1].abs().max() == 0
    assert outputs.grad[-1].abs().min() > 0


@every_variant
def test_weights_of_rows_are_those_of_a_weighted_mean(name, options):
    kind, targets = _fit(name, **options)
    weights = np.random.default_rng(0).uniform(0.1, 5.0, (8, 1))
    rows = make_rows(inputs(torch.randn(8, 5)), targets.reshape(8, -1), shares=weights, firsts=[0])
    evaluation = evaluate(make_learner([kind]), rows, [Task("a", kind)])
    learner = make_learner([kind])
    losses = kind.loss(learner.model(rows.inputs.numeric)[0].t().unsqueeze(0)[..., [0, 1, 2, 3, 5, 6, 7]].detach(),
                       _known(targets).t().unsqueeze(0))[0]  # fmt: skip
    expected = np.average(losses.numpy(), weights=weights[[0, 1, 2, 3, 5, 6, 7], 0])
    assert evaluation.tasks["a"]["loss"] == pytest.approx(expected, rel=1e-5)
    outputs = learner.model.outputs(rows.inputs).detach()
    scale = torch.tensor([1 / rows.counts.sum()])
    loss, _ = learner.objective.losses(outputs, rows.labels, scale, complete=False)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@every_variant
def test_perfect_prediction_has_the_best_scores(name, options):
    kind, targets = _fit(name, **options)
    known = _known(targets)
    perfect, chance = (
        kind.score(_best_outputs(kind, known).t(), known),
        kind.score(torch.randn(7, kind.num_outputs), known),
    )
    primary = next(iter(kind.metrics))
    assert kind.metrics[primary] is True
    assert 0.98 <= perfect[primary] <= 1.0
    for metric, higher in kind.metrics.items():
        if higher is not None:
            assert (perfect[metric] >= chance[metric]) if higher else (perfect[metric] <= chance[metric])


@every_kind
def test_score_gives_every_metric_and_nothing_else(name):
    kind, targets = _fit(name)
    known = _known(targets)
    scores = kind.score(torch.randn(7, kind.num_outputs), known)
    assert list(scores) == list(kind.metrics)
    assert all(value is None or np.isfinite(value) for value in scores.values())
    assert list(kind.score(torch.randn(1, kind.num_outputs), known[:1])) == list(kind.metrics)


@every_kind
@pytest.mark.parametrize("rows", [[0], [0, 3, 6], [1, 2]], ids=["one row", "one class", "the other class"])
def test_split_with_one_value_is_scored_without_a_warning(name, rows):  # MET-01, MET-05
    kind, targets = _fit(name)
    labels = torch.from_numpy(targets[rows])
    scores = kind.score(torch.randn(len(rows), kind.num_outputs), labels)
    assert all(value is None or np.isfinite(value) for value in scores.values())
    evaluation = evaluate(make_learner([kind]), _rows(kind, targets[rows]), [Task("a", kind)])
    assert np.isfinite(evaluation.tasks["a"]["loss"])
    assert kind.counts(targets[rows]).labelled == len(rows)


@every_kind
def test_constant_labels_are_refused_with_a_reason_or_learnt(name):
    labels = ["1"] * 6
    if "classes" in KINDS.options(name):
        with pytest.raises(DataError, match=r"column 'y': .* two"):
            _fit(name, labels)
        return
    kind, targets = _fit(name, labels)
    outputs = torch.zeros(1, kind.num_outputs, 6)
    rows, gradient = kind.loss_and_gradient(outputs, torch.from_numpy(targets).t().unsqueeze(0))
    assert rows.isfinite().all()
    assert gradient.isfinite().all()
    kind.score(outputs[0].t(), torch.from_numpy(targets))


@every_kind
def test_classes_are_found_in_all_training_rows_and_all_else_is_learnt_from_those_trained_on(name):
    few = np.array([0, 3, 4, 6])  # one class alone
    kind, alone = KINDS.build(name), KINDS.build(name)
    kind.find_classes(column(LABELS), np.arange(len(LABELS)))
    kind.fit(column(LABELS), few)
    assert kind.classes == _fit(name)[0].classes
    if not kind.classes:
        alone.fit(column(LABELS), few)
        assert kind.state() == alone.state() != _fit(name)[0].state()


@every_kind
def test_prediction_is_one_for_each_row(name):
    kind, _ = _fit(name)
    decoded = kind.decode(torch.randn(5, kind.num_outputs))
    assert decoded["pred"].shape == (5,)
    if "prob" in decoded:
        assert decoded["prob"].shape == (5, len(kind.classes))


@every_kind
def test_labels_are_counted_and_described(name):
    kind, targets = _fit(name)
    counts = kind.counts(targets)
    assert (counts.labelled, counts.missing) == (7, 1)
    assert counts.balance
    assert "\n" not in counts.balance
    assert kind.counts(np.full_like(targets, np.nan)).balance == "no labels"
    assert kind.unseen(targets) == kind.unseen(np.full_like(targets, np.nan)) == []


@every_kind
def test_chosen_metrics_are_reported_in_their_order(name):
    kind, targets = _fit(name)
    kind.chosen = tuple(reversed(kind.metrics))
    evaluation = evaluate(make_learner([kind]), _rows(kind, targets), [Task("a", kind)])
    assert list(evaluation.tasks["a"]) == ["loss", *reversed(kind.metrics)]
    assert evaluation.primary == {"a": list(kind.metrics)[-1]}


@every_variant
def test_tasks_of_one_group_have_one_loss(name, options):
    """Equal keys let tasks be computed together, by the kind of the first of them."""
    kind, outputs, targets = _batch(name, options)
    assert hash(likeness(kind)) == hash(likeness(_fit(name, **options)[0]))
    others = [_fit(name, **options)[0] for options in [o for n, o in VARIANTS if n == name]]
    if "classes" not in KINDS.options(name):
        others += [_fit(name, ["7", "0", "3", "12"], **options)[0]]
    alike = [other for other in others if likeness(other) == likeness(kind) is not None]
    assert alike
    for other in alike:
        assert torch.equal(other.loss(outputs, targets), kind.loss(outputs, targets))
    alone = torch.cat([kind.loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(kind.loss(outputs, targets), alone, rtol=0, atol=1e-12)


@every_kind
def test_a_metric_has_one_direction_in_all_kinds(name):
    # a search is told it by the metric's name alone
    for metric, better in KINDS.literal(name, "metrics").items():
        if better is not None:
            assert is_higher_better(f"val/mine/{metric}") is better
    assert not is_higher_better("val/mine/loss")


def test_direction_of_a_metric_is_what_the_kind_of_its_task_says(monkeypatch):  # CKP-05
    monkeypatch.setattr(KINDS, "literal", lambda kind, _: {"score": kind == "binary"})
    tasks = {name: TaskConfig(TaskOptions(name), Component(name, {})) for name in ("binary", "regression")}
    assert is_higher_better("val/binary/score", tasks)
    assert not is_higher_better("val/regression/score", tasks)


@every_kind
def test_labels_that_are_missing_or_say_no_affirm_nothing(name):
    kind, targets = _fit(name)
    own = kind.affirms(targets)
    assert own.dtype == bool
    known = [label is not None for label in LABELS]
    has_a_no = name in ("binary", "count")
    assert kind.per_token or own.tolist() == ([label == 1 for label in LABELS] if has_a_no else known)
