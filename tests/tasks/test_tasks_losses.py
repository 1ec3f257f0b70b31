"""The loss of every kind: closed forms against autograd, tasks together against tasks alone, and where it is least."""

import pytest
import torch
from torch.nn import functional

from mtl_cli.tasks import Kind, count, likeness
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.count import Count
from mtl_cli.tasks.multiclass import Multiclass
from mtl_cli.tasks.ordinal import Ordinal
from mtl_cli.tasks.regression import Regression

KINDS = {
    "mse": (Regression(loss="mse"), 0),
    "mae": (Regression(loss="mae"), 0),
    "huber": (Regression(loss="huber"), 0),
    "narrow huber": (Regression(loss="huber", huber_delta=0.25), 0),
    "binary": (Binary(classes=["no", "yes"]), 2),
    "multiclass": (Multiclass(classes=["a", "b", "c", "d"]), 4),
    "ordinal": (Ordinal(classes=["low", "mid", "high", "top"]), 4),
    "ordinal of two": (Ordinal(classes=["low", "high"]), 2),
}
each_kind = pytest.mark.parametrize(("kind", "classes"), KINDS.values(), ids=KINDS)


def _batch(kind, classes, tasks, rows=9):
    outputs = 2 * torch.randn(tasks, kind.num_outputs, rows, dtype=torch.float64)
    shape = (tasks, rows)
    return outputs, torch.randint(classes, shape).double() if classes else torch.randn(*shape, dtype=torch.float64)


@each_kind
@pytest.mark.parametrize("tasks", [1, 3])
def test_closed_form_gradient_is_that_of_autograd(kind, classes, tasks):
    outputs, targets = _batch(kind, classes, tasks)
    rows, gradient = kind.loss_and_gradient(outputs, targets)
    expected_rows, expected = Kind.loss_and_gradient(kind, outputs, targets)
    assert rows.shape == (tasks, 9)
    assert gradient.shape == outputs.shape
    torch.testing.assert_close(rows, expected_rows, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


@each_kind
def test_gradient_leaves_outputs_and_targets_as_they_are(kind, classes):
    outputs, targets = _batch(kind, classes, 2)
    before = outputs.clone(), targets.clone()
    kind.loss_and_gradient(outputs, targets)
    assert torch.equal(outputs, before[0])
    assert torch.equal(targets, before[1])


@each_kind
def test_alike_tasks_together_lose_what_each_loses_alone(kind, classes):
    outputs, targets = _batch(kind, classes, 3)
    together = kind.loss(outputs, targets)
    alone = torch.cat([kind.loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@each_kind
def test_loss_of_a_row_does_not_depend_on_the_others(kind, classes):
    outputs, targets = _batch(kind, classes, 1)
    torch.testing.assert_close(
        kind.loss(outputs, targets)[:, 4:5], kind.loss(outputs[..., 4:5], targets[:, 4:5]), rtol=0, atol=1e-12
    )


def _perfect(kind, classes, targets):
    """Outputs that say nothing but the target."""
    if not classes:
        return targets.unsqueeze(1)
    if isinstance(kind, Multiclass):
        return 60 * functional.one_hot(targets.long(), classes).double().transpose(1, 2)
    steps = torch.arange(kind.num_outputs).unsqueeze(1)
    return torch.where(targets.unsqueeze(1) > steps, 60.0, -60.0).double()


@each_kind
def test_perfect_prediction_has_the_least_loss(kind, classes):
    outputs, targets = _batch(kind, classes, 2)
    perfect = kind.loss(_perfect(kind, classes, targets), targets)
    assert perfect.max() < 1e-12
    assert (kind.loss(outputs, targets) > perfect).all()


@each_kind
def test_gradient_of_a_perfect_prediction_is_zero(kind, classes):
    _, targets = _batch(kind, classes, 2)
    _, gradient = kind.loss_and_gradient(_perfect(kind, classes, targets), targets)
    assert gradient.abs().max() < 1e-12


@each_kind
def test_extreme_outputs_give_finite_losses_and_gradients(kind, classes):
    _, targets = _batch(kind, classes, 1)
    outputs = torch.full((1, kind.num_outputs, 9), 1e4) * torch.tensor([1.0, -1.0, 1.0] * 3)
    rows, gradient = kind.loss_and_gradient(outputs, targets.float())
    assert rows.isfinite().all()
    assert gradient.isfinite().all()


def test_regression_losses_are_those_of_pytorch():
    outputs, targets = _batch(Regression(), 0, 2)
    prediction = outputs.squeeze(1)
    expected = {
        "mse": functional.mse_loss(prediction, targets, reduction="none"),
        "mae": functional.l1_loss(prediction, targets, reduction="none"),
        "huber": functional.huber_loss(prediction, targets, reduction="none", delta=0.7),
    }
    for name, loss in expected.items():
        actual = Regression(loss=name, huber_delta=0.7).loss(outputs, targets)
        torch.testing.assert_close(actual, loss, rtol=0, atol=1e-12)


def test_multiclass_loss_is_the_cross_entropy_of_pytorch():
    kind = KINDS["multiclass"][0]
    outputs, targets = _batch(kind, 4, 1)
    expected = functional.cross_entropy(outputs[0].t(), targets[0].long(), reduction="none")
    torch.testing.assert_close(kind.loss(outputs, targets)[0], expected, rtol=0, atol=1e-12)


def test_multiclass_label_smoothing_is_that_of_pytorch():
    kind = Multiclass(classes=["a", "b", "c", "d"], label_smoothing=0.1)
    outputs, targets = _batch(kind, 4, 1)
    options = {"label_smoothing": 0.1, "reduction": "none"}
    expected = functional.cross_entropy(outputs[0].t(), targets[0].long(), **options)
    torch.testing.assert_close(kind.loss(outputs, targets)[0], expected, rtol=0, atol=1e-12)


def test_binary_label_smoothing_aims_at_both_classes_alike():
    kind = Binary(classes=["no", "yes"], label_smoothing=0.2)
    outputs, targets = _batch(kind, 2, 1)
    expected = functional.binary_cross_entropy_with_logits(outputs.squeeze(1), 0.1 + 0.8 * targets, reduction="none")
    torch.testing.assert_close(kind.loss(outputs, targets), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_focal_loss_counts_a_row_less_the_surer_its_class_is(name, gamma):
    plain, classes = KINDS[name]
    focal = type(plain)(classes=plain.classes, loss="focal", focal_gamma=gamma)
    outputs, targets = _batch(plain, classes, 2)
    entropy = plain.loss(outputs, targets)
    expected = (1 - torch.exp(-entropy)) ** gamma * entropy  # the cross-entropy is -log of the class's probability
    torch.testing.assert_close(focal.loss(outputs, targets), expected, rtol=0, atol=1e-12)


def test_ordinal_loss_is_the_mean_over_the_steps():
    kind = Ordinal(classes=["low", "mid", "high"])
    outputs = torch.tensor([[[0.3], [-0.2]]], dtype=torch.float64)
    above = torch.tensor([1.0, 0.0], dtype=torch.float64)  # the middle class is above the first step alone
    expected = functional.binary_cross_entropy_with_logits(outputs[0, :, 0], above)
    actual = kind.loss(outputs, torch.tensor([[1.0]], dtype=torch.float64))
    torch.testing.assert_close(actual, expected.view(1, 1), rtol=0, atol=1e-12)


def test_tasks_with_other_losses_are_not_computed_together():
    keys = [likeness(Regression(loss=loss)) for loss in ("mse", "mae", "huber")]
    keys += [likeness(kind) for kind in (Regression(loss="huber", huber_delta=2.0), Binary(), Count())]
    for kind in (Binary, Multiclass):
        keys += [likeness(kind(classes=["a", "b"], label_smoothing=smoothing)) for smoothing in (0.0, 0.1, 0.2)]
        keys += [likeness(kind(classes=["a", "b"], loss="focal", focal_gamma=gamma)) for gamma in (1.0, 2.0)]
    assert len(set(keys)) == len(keys) - 1  # Binary() and the one without smoothing
    assert likeness(Regression(transform="log1p")) == likeness(Regression())


def test_subclass_with_a_loss_of_its_own_is_not_computed_with_its_base():
    class Cubic(Regression):
        def loss(self, outputs, targets):
            return (outputs.squeeze(-2) - targets).abs() ** 3

    assert likeness(Cubic()) != likeness(Regression())


def test_another_class_of_the_same_name_is_not_computed_with_it():
    class Count(count.Count):
        pass

    assert likeness(Count()) == likeness(Count()) != likeness(count.Count())
    assert Count().meaning() == Count().meaning() != count.Count().meaning()
