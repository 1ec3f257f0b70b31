"""Losses of all tasks at once: masks, weights, gradients."""

import numpy as np
import pytest
import torch
from worlds import CPU, NAN, make_rows, three_kinds

from mtl_cli.data.batches import plan_epoch
from mtl_cli.loop import Objective
from mtl_cli.model.sharing import Ordered
from mtl_cli.tasks import Kind
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.regression import Regression
from mtl_cli.types import Labels


def _scale(targets, weights=None):
    counts = (~targets.isnan()).sum(0)
    weights = torch.ones(targets.shape[1]) if weights is None else torch.tensor(weights)
    return torch.where(counts > 0, weights / counts.clamp(min=1), 0.0)


def _losses(kinds, outputs, targets, weights=None):
    objective = Objective(kinds, CPU)
    complete = not bool(targets.isnan().any())
    return objective.losses(outputs, Labels(targets), _scale(targets, weights), complete=complete)


def test_loss_is_the_mean_over_the_labelled_rows():  # LAB-02
    outputs = torch.tensor([[1.0, 3.0], [2.0, 4.0]])  # row by row: predictions (1, 2) and (3, 4)
    targets = torch.tensor([[1.0, NAN], [5.0, 6.0]])
    losses, sums = _losses([Regression(), Regression()], outputs, targets)
    assert losses.tolist() == [2.0, 4.0]
    assert sums.tolist() == [4.0, 4.0]


def _by_hand(kinds, outputs, targets, weights):
    """The definition, one task at a time, by autograd."""
    row, losses = 0, []
    for task, kind in enumerate(kinds):
        own = outputs[row : row + kind.num_outputs]
        row += kind.num_outputs
        known = ~targets[:, task].isnan()
        labels = targets[known, task]
        rows = kind.loss(own[:, known].unsqueeze(0), labels.unsqueeze(0))
        losses.append(weights[task] * rows.mean() if known.any() else own.sum() * 0.0)
    return torch.stack(losses)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_losses_and_gradients_are_those_of_the_tasks_one_by_one(missing):
    kinds = [*three_kinds(), Regression(loss="huber"), Regression(loss="huber"), *three_kinds()[1:]]
    width = sum(kind.num_outputs for kind in kinds)
    outputs = torch.randn(width, 11, requires_grad=True)
    targets = torch.randint(2, (11, len(kinds))).float()
    targets[torch.rand(targets.shape) < missing] = NAN
    weights = [1.0, 0.5, 2.0, 0.0, 1.0, 3.0, 1.0]
    upstream = torch.tensor([1.0, -1.0, 0.5, 2.0, 1.0, 1.0, 3.0])
    losses, _ = _losses(kinds, outputs, targets, weights)
    (gradient,) = torch.autograd.grad((losses * upstream).sum(), outputs)
    expected = _by_hand(kinds, outputs, targets, weights)
    (expected_gradient,) = torch.autograd.grad((expected * upstream).sum(), outputs)
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


class Pinball(Regression):
    """A kind of one's own, of which the loss is all that it says."""

    def __init__(self, tau):
        super().__init__()
        self.tau = tau

    def loss(self, outputs, targets):
        error = targets - outputs.squeeze(-2)
        return torch.maximum(self.tau * error, (self.tau - 1) * error)


def test_tasks_whose_kind_does_not_say_what_its_loss_depends_on_have_their_own():
    kinds = [Regression(), Pinball(0.1), Pinball(0.9), Regression(), Regression()]
    outputs, targets = torch.randn(5, 7), torch.randn(7, 5)
    leaf = outputs.clone().requires_grad_()
    losses, _ = _losses(kinds, leaf, targets)
    expected = _by_hand(kinds, outputs, targets, [1.0] * 5)
    torch.testing.assert_close(losses, expected)
    by_hand = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    (expected,) = torch.autograd.grad(_by_hand(kinds, by_hand, targets, [1.0] * 5).sum(), by_hand)
    torch.testing.assert_close(gradient, expected)
    assert [group.shape[0] for group in Objective(kinds, CPU).groups] == [1, 1, 1, 2]


def test_a_key_of_its_own_lets_tasks_of_a_kind_be_computed_together():
    class Keyed(Pinball):
        def group_key(self):
            return self.tau

    assert Pinball(0.1).group_key() is Kind.group_key(Pinball(0.1)) is None
    assert [group.shape[0] for group in Objective([Keyed(t) for t in (0.1, 0.1, 0.9)], CPU).groups] == [2, 1]


def test_gradients_of_single_tasks_can_be_had_in_one_batch():
    kinds = three_kinds()
    outputs = torch.randn(5, 6, requires_grad=True)
    targets = torch.tensor([[0.3, 1.0, 2.0]] * 6)
    losses, _ = _losses(kinds, outputs, targets)
    (batched,) = torch.autograd.grad(losses, outputs, torch.eye(3), retain_graph=True, is_grads_batched=True)
    single = torch.stack([torch.autograd.grad(loss, outputs, retain_graph=True)[0] for loss in losses])
    assert torch.equal(batched, single)


def test_missing_labels_have_no_gradient_even_where_outputs_are_not_finite():
    outputs = torch.zeros(5, 3)
    outputs[:, 1] = torch.tensor([torch.inf, -torch.inf, NAN, torch.inf, NAN])
    outputs.requires_grad_()
    targets = torch.tensor([[1.0, 0.0, 2.0], [NAN, NAN, NAN], [0.0, NAN, 1.0]])
    losses, sums = _losses(three_kinds(), outputs, targets)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert sums.isfinite().all()
    assert outputs.grad.isfinite().all()
    assert outputs.grad[:, 1].abs().max() == 0
    assert outputs.grad[1, 2] == 0
    assert outputs.grad[0, 2] == 0  # labelled, and perfect
    assert outputs.grad[2:, 2].abs().max() > 0


def test_absent_task_has_zero_loss_and_zero_gradient():
    outputs = torch.randn(5, 3, requires_grad=True)
    targets = torch.tensor([[1.0, NAN, 2.0]] * 3)
    losses, sums = _losses(three_kinds(), outputs, targets)
    losses.sum().backward()
    assert losses[1] == 0
    assert sums[1] == 0
    assert outputs.grad[1].abs().max() == 0
    assert outputs.grad[0].abs().max() > 0


def test_labels_are_left_as_they_are():
    targets = torch.tensor([[1.0, NAN, 2.0], [0.5, 1.0, NAN]])
    before = targets.clone()
    _losses(three_kinds(), torch.randn(5, 2), targets)
    assert torch.equal(targets.isnan(), before.isnan())
    assert torch.equal(targets.nan_to_num(), before.nan_to_num())


def test_task_weight_is_applied_once():
    targets = np.array([[1.0, NAN], [5.0, 6.0]], dtype=np.float32)
    rows = make_rows(_no_inputs(2), targets)
    epoch = plan_epoch(rows, 0, batch_size=2, weights=np.array([3.0, 0.5]), seed=0, shuffle=False)
    outputs = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    losses, sums = Objective([Regression(), Regression()], CPU).losses(
        outputs, rows.labels, epoch.scale[0], complete=False
    )
    assert losses.tolist() == [6.0, 2.0]
    assert sums.tolist() == [4.0, 4.0]  # what is logged is raw


def _no_inputs(rows):
    from worlds import inputs

    return inputs(torch.zeros(rows, 1))


def test_half_precision_outputs_get_half_precision_gradients():
    outputs = torch.randn(5, 3).bfloat16().requires_grad_()
    losses, _ = _losses(three_kinds(), outputs, torch.tensor([[1.0, 0.0, 2.0]] * 3))
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert outputs.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("weighted", [False, True], ids=["rows alike", "rows weighted"])
def test_excess_of_a_later_task_is_in_the_gradient_of_its_loss_and_not_in_the_loss(weighted):
    kinds = [Binary(classes=["no", "yes"]), Regression(), Binary(classes=["no", "yes"])]
    outputs = torch.randn(3, 9, dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.5, 1.0], [NAN, 1.0, 0.0]] * 3)
    targets[4, 2] = NAN  # no label of the later task: no excess either
    known = ~targets.isnan()
    shares = torch.rand(9, 3) if weighted else torch.ones(9, 3)
    labels = Labels(targets, shares if weighted else None)
    plain = Objective(kinds, CPU)
    ordered = Objective(kinds, CPU, [Ordered(later=2, earlier=0, weight=0.6)])
    weights = torch.tensor([0.5, 1.0, 3.0])

    def objective(outputs):
        excess = (outputs[2].sigmoid() - outputs[0].sigmoid()).clamp(min=0)
        return 3.0 * 0.6 * (excess * shares[:, 2] * known[:, 2]).sum()

    leaf = outputs.clone().requires_grad_()
    (extra,) = torch.autograd.grad(objective(leaf), leaf)
    sums, gradient = plain.sums_and_gradient(outputs, labels, complete=False)
    expected = plain.by_outputs(gradient, weights) + extra
    with_excess, more = ordered.sums_and_gradient(outputs, labels, complete=False)
    assert extra.abs().max() > 0.1
    torch.testing.assert_close(with_excess, sums)
    torch.testing.assert_close(ordered.by_outputs(more, weights), expected.float(), rtol=1e-5, atol=1e-6)
    leaf = outputs.float().requires_grad_()
    losses, _ = ordered.losses(leaf, labels, torch.ones(3), complete=False)
    (losses * weights).sum().backward()
    torch.testing.assert_close(leaf.grad, expected.float(), rtol=1e-5, atol=1e-6)
