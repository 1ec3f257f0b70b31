"""Every method that weights losses: against its formula, TorchJD, and the cases in which the answer is known."""

import itertools
import math

import pytest
import torch
from torch import nn
from torchjd import aggregation, scalarization

from mtl_cli.balancing import LossBalancing, backward
from mtl_cli.balancing._adam import TaskAdam
from mtl_cli.balancing.autograd import Parameters, PieceLosses, accumulator_for
from mtl_cli.errors import ConfigError, TrainingError
from mtl_cli.registry import BALANCINGS

LOSSES = torch.tensor([1.0, 2.0, 4.0])
EVERY = torch.arange(3)
WEIGHTINGS = [name for name in BALANCINGS.names() if issubclass(BALANCINGS.load(name), LossBalancing)]
LOGARITHMIC = ["famo", "gls", "si", "stch"]
every_weighting = pytest.mark.parametrize("name", WEIGHTINGS)


class Fake:
    """Passes that give prepared numbers."""

    def __init__(self, *, losses=None, validation=None, step=0, lr=0.1):
        self._losses, self._validation, self.step, self.lr = losses, validation, step, lr

    def losses(self):
        return self._losses

    def validation_losses(self):
        return self._validation


def _build(name, num_tasks=3, **options):
    return BALANCINGS.build(name, num_tasks, **options)


def _epochs(method, *means):
    for epoch in means:
        method.after_epoch({f"task{i}": loss for i, loss in enumerate(epoch)})


def _learn(method, losses=LOSSES, steps=1500, lr=0.02):
    """Trains what the method learns by gradient at fixed losses."""
    tasks = torch.arange(len(losses))
    optimizer = torch.optim.Adam(method.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        ((method.weights(losses, tasks) * losses).sum() + method.penalty(tasks)).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "oracle", "value"),
    [
        ("uncertainty", scalarization.UW(3), 3.5),
        ("imtl_l", scalarization.IMTLL(3), 7.0),
        ("gls", scalarization.GeometricMean(), 2.0),
        ("famo", scalarization.FAMO(3), 1.1883),
        ("dwa", scalarization.DWA(), 7.0),
        ("equal", scalarization.Sum(), 7.0),
    ],
)
def test_weights_are_the_derivatives_of_torchjds_scalarizer(name, oracle, value):  # reference/methods.md 2.3
    losses = LOSSES.clone().requires_grad_()
    total = oracle(losses)
    assert float(total.detach()) == pytest.approx(value, abs=1e-4)
    (expected,) = torch.autograd.grad(total, losses)
    torch.testing.assert_close(_build(name).weights(LOSSES, EVERY).detach(), expected, rtol=1e-6, atol=0)


def test_imtl_l_learns_the_reciprocal_of_the_losses():
    method = _build("imtl_l")
    _learn(method)
    torch.testing.assert_close(method.weights(LOSSES, EVERY).detach(), 1 / LOSSES, rtol=1e-3, atol=0)


def test_imtl_l_is_uncertainty_with_twice_the_weight():
    a, b = _build("imtl_l", initial=-0.7), _build("uncertainty", initial=0.7)
    torch.testing.assert_close(a.weights(LOSSES, EVERY), 2 * b.weights(LOSSES, EVERY))
    torch.testing.assert_close(a.penalty(EVERY), 2 * b.penalty(EVERY))


def test_dwa_follows_torchjd_over_epochs():
    oracle, method = scalarization.DWA(temperature=1.3), _build("dwa", temperature=1.3)
    generator = torch.Generator().manual_seed(3)
    for epoch in range(5):
        batches = torch.rand(4, 3, generator=generator) + 0.1
        for losses in batches:
            variable = losses.clone().requires_grad_()
            (expected,) = torch.autograd.grad(oracle(variable), variable)
            ours = method.weights(losses, EVERY)
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)
            assert epoch > 1 or ours.tolist() == [1.0] * 3
        oracle.step()
        _epochs(method, batches.mean(0).tolist())


def test_dwa_without_two_means_takes_a_task_as_unchanged():
    method = _build("dwa")
    _epochs(method, [1.0, None, 0.0], [1.0, 5.0, 1.0], [1.0, None, None])
    assert method.weights(LOSSES, EVERY).tolist() == pytest.approx([1.0] * 3)
    assert method.means[1].isnan().tolist() == [True, False]
    assert method.means[2].tolist() == [0.0, 1.0]


def test_rlw_is_the_softmax_of_normal_numbers():
    method = _build("rlw", seed=5)
    drawn = torch.stack([method.weights(LOSSES, EVERY) for _ in range(4000)])
    torch.testing.assert_close(drawn.sum(1), torch.full((4000,), 3.0))
    normal = torch.softmax(torch.randn(4000, 3), 1) * 3
    torch.testing.assert_close(drawn.mean(0), normal.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.std(0), normal.std(0), rtol=0.05, atol=0)
    assert not torch.equal(_build("rlw", seed=6).weights(LOSSES, EVERY), _build("rlw", seed=5).weights(LOSSES, EVERY))


def test_rlw_goes_on_drawing_where_its_state_was_saved():
    first, second = _build("rlw"), _build("rlw")
    first.weights(LOSSES, EVERY)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weights(LOSSES, EVERY), second.weights(LOSSES, EVERY))


def test_rlw_draws_other_numbers_in_a_run_of_another_seed():
    drawn = []
    for seed in (None, 0, 1):
        method = _build("rlw")
        if seed is not None:
            method.draw_as_run(seed)
        drawn.append(method.weights(LOSSES, EVERY))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_si_is_the_sum_of_logarithms():
    losses = LOSSES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(losses.log().sum(), losses)
    torch.testing.assert_close(_build("si").weights(LOSSES, EVERY), expected)


def _stch(mu=1.0):
    """The method after its warm-up, with nadirs (2, 2, 8)."""
    method = _build("stch", mu=mu)
    _epochs(method, *[[9.0, 9.0, 9.0]] * 3, [2.0, 2.0, 8.0])
    return method


@pytest.mark.parametrize("mu", [1.0, 0.1])
def test_stch_is_the_papers_formula_after_the_warm_up(mu):
    losses = LOSSES.clone().requires_grad_()
    total = 3 * mu * torch.logsumexp((losses / torch.tensor([2.0, 2.0, 8.0])).log() / mu, 0)
    (expected,) = torch.autograd.grad(total, losses)
    torch.testing.assert_close(_stch(mu).weights(LOSSES, EVERY), expected, rtol=1e-5, atol=0)


def test_stch_keeps_the_nadir_of_the_last_warm_up_epoch():
    method = _build("stch")
    for epoch in range(4):
        torch.testing.assert_close(method.weights(LOSSES, EVERY), 1 / LOSSES)
        _epochs(method, [2.0 + epoch, None if epoch == 3 else 7.0, 8.0])
    assert method.nadir[[0, 2]].tolist() == [5.0, 8.0]
    assert method.nadir[1].isnan()
    _epochs(method, [1.0, 3.0, 1.0])
    assert method.nadir.tolist() == [5.0, 3.0, 8.0]


def test_stch_with_little_smoothness_serves_the_worst_task_alone():
    weights = _stch(mu=0.01).weights(LOSSES, EVERY)  # relative losses 1/2, 1, 1/2
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.5, 0.0]), rtol=1e-5, atol=1e-9)


def test_famo_follows_torchjd_over_steps():
    method, oracle = _build("famo", weight_decay=0.01), scalarization.FAMO(3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        before, after = torch.rand(2, 3, generator=generator) + 0.05
        variable = before.clone().requires_grad_()
        (expected,) = torch.autograd.grad(oracle(variable), variable)
        torch.testing.assert_close(method.weights(before, EVERY), expected, rtol=1e-4, atol=1e-6)
        oracle.update(after)
        method.after_step(Fake(losses=after), before, EVERY)
    assert method.logits.abs().max() > 0.1


def test_famo_lowers_the_weight_of_the_task_that_improved_most():
    method = _build("famo")
    method.after_step(Fake(losses=torch.tensor([0.1, 1.9, 3.9])), LOSSES, EVERY)
    assert method.logits[0] < method.logits[1:].min()


def test_famo_goes_on_after_losses_that_are_not_finite():
    method = _build("famo")
    method.after_step(Fake(losses=torch.tensor([0.5, math.inf, math.nan])), LOSSES, EVERY)
    assert method.logits.isfinite().all()
    assert method.logits[0] < method.logits[1:].min()


@pytest.mark.parametrize("name", LOGARITHMIC)
def test_losses_that_have_no_logarithm_are_defined_or_refused(name):
    method = _stch() if name == "stch" else _build(name)
    for losses in ([0.0, 1.0, 2.0], [0.0] * 3, [1e-30, 1.0, 1e30], [-1.0, 1.0, 2.0]):
        weights = method.weights(torch.tensor(losses), EVERY)
        assert weights.isfinite().all()
        assert (weights >= 0).all()
    if name == "famo":
        method.after_step(Fake(losses=torch.tensor([0.0, -1.0, 1.0])), torch.tensor([1.0, -1.0, 0.0]), EVERY)
        assert method.logits.isfinite().all()
    with pytest.raises(TrainingError) as caught:
        _epochs(method, [1.0, -0.25, None])
    assert "mean loss of task1 (-0.25) is negative. Use balancing=equal" in str(caught.value)


@every_weighting
def test_a_task_whose_loss_is_zero_leaves_the_update_finite(name):
    x = nn.Parameter(torch.ones(3))
    x.grad = torch.zeros(3)
    method = _build(name)
    for _ in range(5):
        backward(x * torch.tensor([0.0, 1.0, 2.0]), method, [x])
        assert x.grad.isfinite().all()
    assert all(value.isfinite().all() for value in method.state_dict().values() if value.dtype != torch.uint8) or (
        name in ("coba", "dwa", "excess_mtl", "gradnorm", "stch")  # NaN stands for what is not known yet
    )


@every_weighting
def test_equal_losses_and_gradients_give_equal_weights(name):
    if name == "rlw":
        pytest.skip("random")
    x = nn.Parameter(torch.ones(3))
    x.grad = torch.zeros(3)
    method = _build(name)
    for _ in range(4):
        weights = backward(torch.stack([x.sum()] * 3), method, [x])
        _epochs(method, [1.0] * 3)
        torch.testing.assert_close(weights, weights[:1].expand(3))


@every_weighting
def test_order_of_the_tasks_does_not_matter(name):
    if name == "rlw":
        pytest.skip("random")
    jacobian = torch.randn(3, 5, generator=torch.Generator().manual_seed(4)) + 1
    order = [2, 0, 1]
    one, other = _build(name), _build(name)
    for step in range(6):
        found = []
        for method, rows in ((one, jacobian), (other, jacobian[order])):
            x = nn.Parameter(torch.ones(5))
            x.grad = torch.zeros(5)
            found.append(backward((rows @ x).square() / (step + 1), method, [x]))
            _epochs(method, (rows.sum(1).square() / (step + 1)).tolist())
        torch.testing.assert_close(found[1], found[0][order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["si", "stch", "gls"])
def test_multiplying_a_loss_does_not_turn_the_update(name):
    x = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    jacobian = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    directions = []
    for scale in (torch.ones(3), torch.tensor([1.0, 100.0, 0.01])):
        method = _build(name)
        _epochs(method, *[(scale * torch.tensor([1.0, 2.0, 3.0])).tolist()] * 5)
        x.grad = torch.zeros(3)
        backward(scale * (jacobian @ x).square(), method, [x])
        directions.append(x.grad / x.grad.norm())
    torch.testing.assert_close(directions[1], directions[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dwa", "rlw", "gradnorm", "excess_mtl", "coba"])
def test_weights_sum_to_the_tasks_that_are_present(name):
    method = _build(name)
    assert float(method.weights(LOSSES, EVERY).sum()) == pytest.approx(3.0, abs=1e-6)
    assert float(method.weights(LOSSES[:2], torch.tensor([0, 2])).sum()) == pytest.approx(2.0, abs=1e-6)


def test_task_adam_is_pytorchs_and_leaves_absent_tasks_alone():
    values, expected = torch.zeros(3), torch.zeros(2, requires_grad=True)
    adam, oracle = TaskAdam(3, 0.1, 0.01), torch.optim.Adam([expected], lr=0.1, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        gradient = torch.randn(2, generator=generator)
        expected.grad = gradient.clone()
        oracle.step()
        adam.step(values, gradient, torch.tensor([0, 2]))
        torch.testing.assert_close(values[[0, 2]], expected.detach(), rtol=1e-5, atol=1e-6)
    assert values[1] == adam.updates[1] == adam.mean[1] == 0


def _gradnorm(losses, gradients, steps, **options):
    method = _build("gradnorm", len(losses), **options)
    for _ in range(steps):
        method.observe(gradients, losses, torch.arange(len(losses)))
        weights = method.weights(losses, torch.arange(len(losses)))
        assert weights.min() > 0
        assert float(weights.sum()) == pytest.approx(len(losses), abs=1e-6)
    return method, weights


def test_gradnorm_brings_the_gradients_to_one_norm():
    gradients = torch.tensor([[3.0, 4.0], [0.5, 0.0]])  # norms 5 and 0.5: equal at weights in the ratio 1 : 10
    _, weights = _gradnorm(torch.ones(2), gradients, 1500, lr=0.005)
    torch.testing.assert_close(weights, torch.tensor([2 / 11, 20 / 11]), rtol=0.02, atol=0)


def test_gradnorm_asks_for_larger_gradients_of_slow_tasks():
    method = _build("gradnorm", 2, lr=0.005, alpha=1.0)
    method.observe(torch.eye(2), torch.tensor([1.0, 1.0]), torch.arange(2))
    losses = torch.tensor([0.5, 1.0])  # ratios 1/2 and 1: the norms are to be as 1 : 2
    for _ in range(1500):
        method.observe(torch.eye(2), losses, torch.arange(2))
    torch.testing.assert_close(method.weights(losses, torch.arange(2)), torch.tensor([2 / 3, 4 / 3]), rtol=0.02, atol=0)


def test_gradnorm_slope_is_that_of_the_papers_sum():
    gradients, losses = torch.tensor([[3.0, 4.0], [0.5, 0.0], [1.0, 1.0]]), torch.tensor([0.5, 1.0, 3.0])
    first = torch.tensor([2.0, 0.5, 4.0])
    method = _build("gradnorm", lr=0.01)
    method.observe(gradients, first, EVERY)
    logits = method.logits.clone().requires_grad_()
    sizes = 3 * torch.softmax(logits, 0) * gradients.norm(dim=1)
    ratios = losses / first
    target = (sizes.mean() * (ratios / ratios.mean()) ** 1.5).detach()
    (sizes - target).abs().sum().backward()
    before = method.adam.mean.clone()
    method.observe(gradients, losses, EVERY)
    torch.testing.assert_close((method.adam.mean - 0.9 * before) / 0.1, logits.grad, rtol=1e-4, atol=1e-5)


def test_gradnorm_with_a_zero_first_loss_keeps_its_weights_positive():  # BAL-09
    method, _ = _gradnorm(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [2.0]]), 50, lr=0.5)
    assert method.first[0].isnan()  # its first loss is the first that is positive
    method.observe(torch.ones(2, 1), torch.tensor([0.25, 1.0]), torch.arange(2))
    assert method.first.tolist() == [0.25, 1.0]


def test_gradnorm_takes_a_task_without_a_first_loss_as_unchanged():
    method, _ = _gradnorm(torch.tensor([0.0, 1.0]), torch.ones(2, 1), 3)
    assert method.logits.tolist() == [0.0, 0.0]  # one ratio, one norm: nothing to bring together


def test_gradnorm_never_gives_up_a_task():
    _gradnorm(torch.ones(3), torch.tensor([[3.0], [1.0], [0.1]]), 5, lr=200.0)


def test_gradnorm_observes_the_last_shared_layer_and_excess_mtl_all_of_them():
    first, last, bias = (nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (3, 2), (3,)))
    for parameter in (first, last, bias):
        parameter.grad = torch.zeros_like(parameter)
    seen = {}
    for name in ("gradnorm", "excess_mtl"):
        method = _build(name, 2)
        method.observe = lambda gradients, *_, name=name: seen.update({name: gradients.shape})
        out = last @ (first @ torch.ones(2)) + bias
        accumulator = accumulator_for(method, Parameters([first, last, bias], last_layer=[last, bias]), torch.arange(2))
        losses = out[:2].square()
        accumulator.add(PieceLosses(losses, losses.detach()))
        accumulator.finish()
    assert seen == {"gradnorm": (2, 9), "excess_mtl": (2, 13)}


@pytest.mark.parametrize("observed", ["nothing", "last layer", "shared"])
def test_method_that_observes_need_not_say_that_it_needs_shared_parameters(observed):
    own = type("Own", (LossBalancing,), {"observes": observed})
    assert own.needs_shared == (observed != "nothing")


def test_methods_that_observe_refuse_a_model_that_shares_nothing():
    own = nn.Parameter(torch.ones(2))
    own.grad = torch.zeros(2)
    with pytest.raises(ConfigError, match="GradNorm looks at gradients of shared parameters, and none is trained here"):
        backward(own + 1.0, _build("gradnorm", 2), [], [own])


def test_excess_mtl_follows_torchjd():
    """TorchJD's weights sum to 1 and ours to K; its warm-up of one step is our first step, which sets the baseline."""
    method = _build("excess_mtl", step_size=0.3)
    oracle = aggregation.ExcessMTLWeighting(robust_step_size=0.3, n_warmup_steps=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        gradients = torch.randn(3, 6, generator=generator)
        method.observe(gradients, LOSSES, EVERY)
        torch.testing.assert_close(method.weights(LOSSES, EVERY), 3 * oracle(gradients), rtol=1e-4, atol=1e-6)


def test_excess_mtl_measures_a_task_by_its_first_gradient_that_is_not_zero():
    method = _build("excess_mtl", step_size=0.1)
    for gradients in ([[1.0], [0.0]], [[1.0], [1.0]], [[1.0], [1.0]]):
        method.observe(torch.tensor(gradients), torch.ones(2), torch.arange(2))
    assert 0.8 < float(method.weights(torch.ones(2), torch.arange(2))[1]) < 1.0


def test_excess_mtl_keeps_the_weight_of_a_task_that_is_absent():
    method = _build("excess_mtl", step_size=0.3)
    for _ in range(3):
        method.observe(torch.rand(3, 4), LOSSES, EVERY)
    before = method.log_weights.clone()
    method.observe(torch.tensor([[1.0] * 4, [9.0] * 4]), LOSSES[:2], torch.tensor([0, 2]))
    assert method.log_weights[1] == before[1]
    assert method.log_weights[0] != before[0]
    torch.testing.assert_close(method.log_weights.exp().sum(), before.exp().sum())


def _coba(looks, **options):
    method = _build("coba", len(looks[0]), **{"warmup": 3, "history": 10, **options})
    for step, losses in enumerate(looks):
        method.before_step(Fake(validation=torch.tensor(losses), step=step), None)
    return method


def test_coba_leaves_the_weights_alone_in_its_warm_up():
    method = _coba([[1.0, 1.0], [0.1, 2.0]])
    assert method.weights(torch.ones(2), torch.arange(2)).tolist() == [1.0, 1.0]


_MIXED = [[2.0, 1.0, 4.0], [1.6, 0.9, 4.4], [1.5, 0.85, 4.0], [1.1, 0.8, 4.5], [1.0, 0.9, 4.3], [0.8, 0.7, 5.0]]


@pytest.mark.parametrize(
    ("looks", "converges", "floored"),
    [
        (_MIXED, False, False),
        ([[look[0], 0.5 * look[0], 4 - 0.1 * step**2] for step, look in enumerate(_MIXED)], True, False),
        ([[1.0] * 4 + [1 + 0.1 * step] for step in range(6)], True, True),
    ],
    ids=["diverging", "converging", "one task behind"],
)
def test_coba_is_the_formula_written_out(looks, converges, floored):
    method, k = _coba(looks, warmup=3, history=4, tau=2.0), len(looks[0])
    ratios = torch.tensor(looks, dtype=torch.float64) / torch.tensor(looks[0])

    def slope(y):
        x = torch.stack([torch.arange(len(y), dtype=torch.float64), torch.ones(len(y), dtype=torch.float64)], 1)
        return float(torch.linalg.lstsq(x, y.unsqueeze(1)).solution[0])

    ends = range(3, 7)  # looks after the warm-up, each with up to four looks behind it
    slopes = torch.tensor([[slope(ratios[max(0, end - 4) : end, task]) for end in ends] for task in range(k)])
    largest = torch.tensor([slope(ratios[max(0, end - 4) : end].amax(1)) for end in ends])
    relative = torch.softmax(k * slopes[:, -1] / slopes[:, -1].abs().sum(), 0)
    absolute = torch.softmax(-4 * slopes[:, -1] / slopes.abs().sum(1).clamp_min(1e-9), 0)
    factor = min(1.0, 4 * float(torch.softmax(-2.0 * 4 * largest / largest.abs().sum(), 0)[-1]))
    expected = torch.softmax(k * (factor * relative + (1 - factor) * absolute), 0)
    assert (factor == 1.0, bool(expected.min() < 1 / (10 * k))) == (converges, floored)
    if floored:
        expected = 0.9 * expected + 1 / (10 * k)
    torch.testing.assert_close(method.weights(torch.ones(k), torch.arange(k)), k * expected, rtol=1e-4, atol=1e-5)


def test_of_one_look_at_a_task_coba_has_no_slope():
    method = _coba([[1.0, torch.nan], [1.5, 3.0]], warmup=1)  # slopes 0.5 and none, and of the largest loss 0 and 0.5
    relative, absolute = torch.softmax(torch.tensor([2.0, 0.0]), 0), torch.softmax(torch.tensor([-2.0, 0.0]), 0)
    factor = 2 * torch.softmax(torch.tensor([0.0, -5.0 * 2.0]), 0)[1]
    expected = 2 * torch.softmax(2 * (factor * relative + (1 - factor) * absolute), 0)
    torch.testing.assert_close(method.weights(torch.ones(2), torch.arange(2)), expected)


def test_coba_gives_most_to_the_task_that_converges_slowly():
    looks = [[1 - 0.01 * step, 1 - 0.1 * step] for step in range(6)]
    weights = _coba(looks).weights(torch.ones(2), torch.arange(2))
    assert weights[0] > weights[1] > 0.1


def test_coba_looks_at_intervals_and_leaves_out_labels_that_are_missing():
    method = _coba([[1.0, 2.0], [9.0, 9.0], [0.9, math.nan], [9.0, 9.0], [0.8, 1.0]], interval=2)
    assert method.ratios[0, -3:].tolist() == pytest.approx([1.0, 0.9, 0.8])
    assert method.ratios[1, -3:].isnan().tolist() == [False, True, False]
    assert method.slopes[:, -1].tolist() == pytest.approx([-0.1, -0.25])


def test_coba_needs_two_looks_for_a_slope():
    with pytest.raises(ConfigError, match=r"balancing\.coba\.history: must be at least 2, got 1"):
        _build("coba", history=1)


class Quadratic:
    """Two tasks |x - a_k|^2 in training and the first of them in validation, with exact gradients."""

    def __init__(self, centres, goal, lr=0.05):
        self.centres, self.goal, self.lr, self.step = centres, goal, lr, 0
        self.parameters = torch.zeros(centres.shape[1])

    def losses(self):
        return (self.parameters - self.centres).square().sum(1)

    def gradient(self, weights):
        return weights @ (2 * (self.parameters - self.centres))

    def validation_gradient(self, weights):
        self.asked = weights
        return weights[0] * 2 * (self.parameters - self.goal)


class Descent(Quadratic):
    """Three tasks on a path that is the same whatever the weights: down the mean of the losses."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        super().__init__(torch.randn(3, 4, generator=generator), torch.ones(4))

    def validation_losses(self):
        return self.losses() + 0.1

    def gradients(self):
        return 2 * (self.parameters - self.centres)

    def go_on(self):
        self.parameters -= self.lr * self.gradients().mean(0)
        self.step += 1


def _course(name):
    """The weights (steps, K) of a method in eight epochs of two steps, up to a number that is the same for all."""
    method, world, found = _build(name), Descent(), []
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05) if method.has_parameters else None
    for _ in range(16):
        losses = world.losses()
        if method.extra_passes:
            method.before_step(world, EVERY)
        if method.observes != "nothing":
            method.observe(world.gradients(), losses, EVERY)
        weights = method.weights(losses, EVERY)
        if optimizer is not None:
            optimizer.zero_grad()
            ((weights * losses).sum() + method.penalty(EVERY)).backward()
            optimizer.step()
        world.go_on()
        if method.extra_passes:
            method.after_step(world, losses, EVERY)
        if world.step % 2 == 0:
            _epochs(method, losses.tolist())
        found.append(weights.detach())
    course = torch.stack(found)
    return course / course.sum()


def test_no_two_methods_are_one_but_those_that_are_by_their_formulas():
    courses = {name: _course(name) for name in WEIGHTINGS}
    same = {p for p in itertools.combinations(WEIGHTINGS, 2) if torch.allclose(*(courses[n] for n in p), rtol=1e-3)}
    without_weights_or_in_its_warm_up = {("coba", "equal"), ("coba", "fixed"), ("equal", "fixed")}
    assert same == without_weights_or_in_its_warm_up | {("imtl_l", "uncertainty")}  # twice the weights


def test_auto_lambda_follows_the_exact_derivative():
    world = Quadratic(torch.tensor([[1.0, 0.0], [-1.0, 0.3], [0.2, 1.0]]), torch.tensor([1.0, 0.0]))
    method = _build("auto_lambda", primary=[0], initial=0.5, lr=1e-3)
    world.parameters += torch.tensor([0.1, 0.2])
    theta = world.parameters.clone()
    weights = torch.full((3,), 0.5, requires_grad=True)
    ahead = theta - world.lr * (weights @ (2 * (theta - world.centres)))
    (ahead - world.goal).square().sum().backward()
    method.before_step(world, EVERY)
    assert torch.equal(world.parameters, theta)  # put back bit for bit
    assert world.asked.tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(method.adam.mean / 0.1, weights.grad, rtol=1e-3, atol=1e-5)


def test_auto_lambda_raises_the_task_that_helps_and_lowers_the_one_that_harms():
    world = Quadratic(torch.tensor([[1.0, 0.0], [0.9, 0.0], [-2.0, 0.0]]), torch.tensor([1.0, 0.0]))
    method = _build("auto_lambda", primary=[0], lr=0.01)
    for _ in range(20):
        method.before_step(world, EVERY)
    assert method.values[1] > 0.1 > method.values[2]


def test_auto_lambda_counts_every_task_as_primary_if_none_is_named():
    world = Quadratic(torch.eye(3), torch.zeros(3))
    _build("auto_lambda").before_step(world, EVERY)
    assert world.asked.tolist() == [1.0] * 3


def test_auto_lambda_stays_where_the_validation_gradient_is_0():
    world = Quadratic(torch.eye(3), torch.zeros(3), lr=0.0)
    method = _build("auto_lambda")
    method.before_step(world, EVERY)
    assert method.values.tolist() == pytest.approx([0.1] * 3)
    assert world.parameters.tolist() == [0.0] * 3


def test_auto_lambda_refuses_positions_that_there_are_not():
    with pytest.raises(ConfigError, match=r"balancing\.auto_lambda\.primary: must be positions below 3, got \[3\]"):
        _build("auto_lambda", primary=[0, 3])
