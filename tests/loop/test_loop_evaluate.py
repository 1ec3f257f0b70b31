"""Metrics of a whole split."""

import importlib

import numpy as np
import pytest
import torch
from worlds import NAN, inputs, make_learner, make_rows, three_kind_rows, three_kinds, two_source_rows

from mtl_cli.data.batches import Ranking
from mtl_cli.loop import evaluate
from mtl_cli.tasks import Task
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.quantile import Quantile
from mtl_cli.tasks.regression import Regression
from mtl_cli.types import Labels

module = importlib.import_module("mtl_cli.loop.evaluate")  # the package exports a function of the same name
NAMES = ["amount", "churn", "segment"]


def _tasks(learner, weights=(1.0, 1.0, 1.0), names=NAMES, auxiliary=()):
    parts = zip(names, learner.objective.kinds, weights, strict=True)
    return [Task(name, kind, weight, name in auxiliary) for name, kind, weight in parts]


def _evaluate(learner, rows, *which, **options):
    return evaluate(learner, rows, _tasks(learner, *which, **options))


class Scripted(Regression):
    """Gives the score that the test wants."""

    def __init__(self, r2):
        super().__init__()
        self._r2 = r2

    def score(self, outputs, targets):  # noqa: ARG002
        return {"r2": self._r2, "rmse": 1.0, "mae": 1.0, "pearson": None}


def test_outputs_that_are_no_numbers_have_no_score():
    learner = make_learner(three_kinds())
    with torch.no_grad():
        learner.model.heads.blocks[0].bias[1] = torch.nan
    found = _evaluate(learner, three_kind_rows(12))
    assert set(found.tasks["churn"].values()) == {None}
    assert found.tasks["segment"]["accuracy"] is not None


def _scripted(scores):
    kinds = [Scripted(score) for score in scores]
    rows = make_rows(inputs(torch.randn(4, 5)), np.ones((4, len(kinds)), np.float32))
    return _evaluate(make_learner(kinds), rows, [1.0] * len(kinds), [f"t{i}" for i in range(len(kinds))])


def test_loss_is_the_mean_over_the_labelled_rows_times_the_weight():
    rows, learner = three_kind_rows(40, missing=0.3), make_learner(three_kinds())
    evaluation = _evaluate(learner, rows, (1.0, 0.5, 2.0))
    outputs = learner.model(rows.inputs.numeric)
    expected = []
    for task, kind in enumerate(learner.objective.kinds):
        known = ~rows.labels.targets[:, task].isnan()
        loss = kind.loss(outputs[task][known].t().unsqueeze(0), rows.labels.targets[known, task].unsqueeze(0)).mean()
        expected.append(float(loss.detach()))
        assert evaluation.tasks[NAMES[task]]["loss"] == pytest.approx(expected[-1], rel=1e-6)
    assert evaluation.loss == pytest.approx(expected[0] + 0.5 * expected[1] + 2.0 * expected[2], rel=1e-6)


@pytest.mark.parametrize("size", [1, 3, 40, 4096])
def test_metrics_do_not_depend_on_the_rows_at_a_time(size, monkeypatch):
    rows, learner = three_kind_rows(40, missing=0.3), make_learner(three_kinds())
    whole = _evaluate(learner, rows).flat("val")
    monkeypatch.setattr(module, "EVALUATION_ROWS", size)
    assert _evaluate(learner, rows).flat("val") == pytest.approx(whole, rel=1e-6)


def test_r2_is_the_known_value_whatever_the_rows_at_a_time(monkeypatch):  # MET-05
    monkeypatch.setattr(module, "EVALUATION_ROWS", 3)
    monkeypatch.setattr(module, "predict", lambda *_: torch.tensor([[2.5, 0.0, 2.0, 8.0]]))
    rows = make_rows(inputs(torch.zeros(4, 5)), np.array([[3.0], [-0.5], [2.0], [7.0]], np.float32))
    evaluation = _evaluate(make_learner([Regression()]), rows, [1.0], ["a"])
    assert evaluation.tasks["a"]["r2"] == pytest.approx(0.94861, abs=5e-6)


def test_labels_that_are_missing_are_left_out_by_task():  # LAB-02
    rows = make_rows(inputs(torch.zeros(2, 5)), np.array([[1.0, NAN], [5.0, 6.0]], np.float32))
    learner = make_learner([Regression(), Regression()])
    outputs = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "predict", lambda *_: outputs)
        evaluation = _evaluate(learner, rows, [1.0, 1.0], ["a", "b"])
    assert evaluation.tasks["a"]["loss"] == 2.0
    assert evaluation.tasks["b"]["loss"] == 4.0
    assert evaluation.loss == 6.0


def test_mean_is_over_the_tasks_whose_metric_is_defined():  # MET-02
    evaluation = _scripted([0.6, None, 0.8])
    assert evaluation.mean == pytest.approx(0.7)
    assert evaluation.worst == 0.6
    assert evaluation.undefined == ("t1",)


def test_mean_and_worst_leave_out_auxiliary_tasks():
    learner, rows = make_learner(three_kinds()), three_kind_rows(40)
    whole = _evaluate(learner, rows)
    found = _evaluate(learner, rows, auxiliary=["churn"])
    rest = [whole.tasks[name][whole.primary[name]] for name in ("amount", "segment")]
    assert (found.mean, found.worst) == (sum(rest) / 2, min(rest))
    assert (found.tasks, found.loss) == (whole.tasks, whole.loss)


def test_mean_of_no_defined_metric_is_undefined():  # MET-02
    evaluation = _scripted([None, None])
    assert (evaluation.mean, evaluation.worst) == (None, None)
    assert evaluation.undefined == ("t0", "t1")


@pytest.mark.parametrize("score", [NAN, float("inf")])
def test_score_that_is_not_finite_is_undefined(score):
    evaluation = _scripted([0.6, score])
    assert evaluation.tasks["t1"]["r2"] is None
    assert evaluation.mean == 0.6
    assert evaluation.undefined == ("t1",)


def _of_amounts(outputs, labels=(0.0, 1.0, 2.0, 3.0), auxiliary=False):
    """Evaluates a number beside one learnt on the scale of its logarithm, where outputs may be too large."""
    kinds = [Regression(), Regression(transform="log1p")]
    targets = torch.tensor([[0.0, 1.0, 2.0, 3.0], labels]).t()
    tasks = [Task("plain", kinds[0]), Task("amount", kinds[1], auxiliary=auxiliary)]
    origins = make_rows(inputs(torch.zeros(4, 5)), targets.numpy()).origins_of_positions(4)
    return module.score(torch.tensor([[0.0, 1.0, 2.0, 4.0], outputs]), Labels(targets), tasks, origins)


@pytest.mark.parametrize("output", [1e4, float("inf")], ids=["overflows", "infinite"])
def test_predictions_that_are_too_large_are_never_left_out_of_the_mean(output):
    found = _of_amounts([0.0, 1.0, 2.0, output])
    assert found.tasks["plain"]["r2"] == pytest.approx(0.8)
    assert (found.mean, found.worst, found.undefined) == (None, None, ())
    assert found.broken_down == ("amount",)
    assert {"r2", "rmse", "mae", "pearson"} <= set(found.spoilt["amount"])
    assert (found.diverged, found.loss is None) == ((("amount",), True) if output == float("inf") else ((), False))


def test_predictions_that_are_too_large_for_labels_without_a_metric_change_no_mean():
    found = _of_amounts([0.0, 1.0, 2.0, 1e4], labels=[1.0] * 4)
    assert (found.mean, found.undefined, found.broken_down) == (pytest.approx(0.8), ("amount",), ())
    assert found.spoilt["amount"] == ("rmse", "mae")


def test_auxiliary_task_that_broke_down_leaves_the_mean_alone():
    found = _of_amounts([0.0, 1.0, 2.0, 1e4], auxiliary=True)
    assert (found.mean, found.broken_down) == (pytest.approx(0.8), ())


def test_task_without_a_label_in_the_split_is_undefined_and_not_counted():
    rows = three_kind_rows(20)
    targets = rows.labels.targets.numpy().copy()
    targets[:, 1] = NAN
    evaluation = _evaluate(make_learner(three_kinds()), make_rows(rows.inputs, targets))
    assert set(evaluation.tasks["churn"]) == {"loss", *Binary.metrics}
    assert set(evaluation.tasks["churn"].values()) == {None}
    losses = [evaluation.tasks[name]["loss"] for name in ("amount", "segment")]
    assert evaluation.loss == pytest.approx(sum(losses))


def test_lists_to_rank_have_the_first_metrics_of_their_task():
    tasks = [Task("stars", Regression()), Task("bought", Binary(classes=["no", "yes"]))]
    targets = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, NAN, 1.0, 0.0]]).t()
    outputs = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 9.0, -1.0, 2.0]])
    origins = make_rows(inputs(torch.zeros(5, 5)), targets.numpy()).origins_of_positions(5)
    found = module.score(outputs, Labels(targets), tasks, origins, {1: Ranking(1, np.array([0, 0, 0, 1, 1]))})
    assert found.primary == {"stars": "r2", "bought": "ndcg@1"}
    assert list(found.tasks["bought"])[:4] == ["loss", "ndcg@1", "hr@1", "auroc"]
    assert found.tasks["bought"]["hr@1"] == 0.5  # a row without a label is in no list
    assert "hr@1" not in found.tasks["stars"]


@pytest.mark.parametrize(("quantiles", "more"), [([0.9], []), ([0.1, 0.9], ["coverage"])])
def test_metric_that_the_options_of_a_kind_do_not_allow_is_not_reported(quantiles, more):
    kind = Quantile(quantiles=quantiles)
    rows = make_rows(inputs(torch.randn(4, 5)), np.arange(4, dtype=np.float32)[:, None])
    found = _evaluate(make_learner([kind]), rows, [1.0], ["q"])
    assert list(found.tasks["q"]) == ["loss", "d2", "pinball", *more]


def test_curves_are_made_where_they_are_asked_for():
    learner, rows = make_learner(three_kinds()), three_kind_rows(20)
    assert _evaluate(learner, rows).curves == {}
    assert list(evaluate(learner, rows, _tasks(learner), curves=True).curves) == NAMES


def test_one_row_is_enough():
    evaluation = _evaluate(make_learner(three_kinds()), three_kind_rows(1))
    assert evaluation.tasks["amount"]["r2"] is None
    assert evaluation.tasks["segment"]["accuracy"] in (0.0, 1.0)


def test_outputs_that_are_not_finite_give_an_undefined_loss():
    learner = make_learner(three_kinds())
    learner.parameters.values.fill_(NAN)
    evaluation = _evaluate(learner, three_kind_rows(20))
    assert evaluation.loss is None
    assert evaluation.tasks["amount"] == {"loss": None, **dict.fromkeys(Regression.metrics)}


def test_evaluation_is_without_dropout_and_leaves_training_as_it_was():
    learner = make_learner(three_kinds(), encoder={"dropout": 0.5})
    rows = three_kind_rows(20)
    learner.model.train()
    before = torch.get_rng_state()
    first, second = _evaluate(learner, rows), _evaluate(learner, rows)
    assert first == second
    assert learner.model.training
    assert torch.equal(torch.get_rng_state(), before)
    learner.model.eval()
    _evaluate(learner, rows)
    assert not learner.model.training


def test_mixed_precision_is_evaluated_as_it_is_trained():
    rows, learner = three_kind_rows(20), make_learner(three_kinds(), autocast=torch.bfloat16)
    learner.model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = learner.model.outputs(rows.inputs).float()
    assert torch.equal(module.predict(learner, rows), expected)
    learner.autocast = None
    assert not torch.equal(module.predict(learner, rows), expected)


def test_flat_names_are_split_task_metric():
    flat = _evaluate(make_learner(three_kinds()), three_kind_rows(20)).flat("test")
    assert {"test/amount/r2", "test/amount/loss", "test/churn/auroc", "test/loss", "test/mean", "test/worst"} <= set(
        flat
    )


def test_primary_metric_is_the_first_of_the_kind():
    evaluation = _evaluate(make_learner(three_kinds()), three_kind_rows(20))
    assert evaluation.primary == {"amount": "r2", "churn": "auroc", "segment": "accuracy"}


def test_tasks_of_several_sources_are_also_given_source_by_source():
    rows = two_source_rows()  # the first task is labelled by `large` alone, the second by `small`, the third by both
    learner = make_learner(three_kinds())
    found = _evaluate(learner, rows)
    assert list(found.by_source) == ["segment@small", "segment@large"]
    for code, source in enumerate(("small", "large")):
        index = np.flatnonzero(rows.origins.codes == code)
        alone = make_rows(rows.inputs.rows(torch.from_numpy(index)), rows.labels.targets.numpy()[index])
        assert found.by_source[f"segment@{source}"] == pytest.approx(_evaluate(learner, alone).tasks["segment"])
    assert found.flat("val")["val/segment@small/accuracy"] == found.by_source["segment@small"]["accuracy"]
    assert found.mean == pytest.approx(np.mean([found.tasks[name][found.primary[name]] for name in NAMES]))


def test_losses_alone_are_those_of_an_evaluation():
    learner, rows = make_learner(three_kinds()), three_kind_rows(missing=0.3)
    evaluation = _evaluate(learner, rows)
    expected = {name: evaluation.tasks[name]["loss"] for name in NAMES}
    assert module.mean_losses(learner, rows, _tasks(learner)) == expected


@pytest.mark.parametrize("size", [5, 4096])
def test_gates_are_watched_on_the_rows_of_their_own_task(size, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_ROWS", size)
    rows, learner = two_source_rows(12, 36), make_learner(three_kinds(), sharing="mmoe", categories=())
    sharing = learner.model.sharing
    with torch.no_grad():
        sharing.gates.last.weight.mul_(5)
        gates = sharing.gates(sharing.gate_inputs(rows.inputs))
    _evaluate(learner, rows)
    weights, entropy, counts = sharing.report(NAMES)
    for task, own in enumerate(~rows.labels.targets.t().isnan()):
        expected = gates[task][:, own].mean(1)
        torch.testing.assert_close(torch.tensor(weights.values[task]), expected)
        assert own.all() or (expected - gates[task].mean(1)).abs().max() > 0.01, "other rows would not tell"
        expected = -(gates[task] * gates[task].log()).sum(0)[own].mean()
        assert entropy.values[task][0] == pytest.approx(expected.item(), rel=1e-5)
    assert counts.values == [[36], [12], [48]]
    assert (counts.rows, counts.columns) == (NAMES, ["rows"])
