"""Which epoch is best, and when to stop."""

import pytest

from mtl_cli.loop.evaluate import Evaluation
from mtl_cli.loop.monitor import Best, EarlyStopping, Monitor, Scores

NAN = float("nan")
HIGH, LOW = Monitor("mean", True), Monitor("val/loss", False)


def _replay(monitor, scores, keep=1):
    best = Best(monitor, keep)
    answers = [best.add(score, epoch + 1, 10 * (epoch + 1)) for epoch, score in enumerate(scores)]
    return best, answers


def _evaluation(value):
    return Evaluation({"a": {"loss": value, "r2": value}}, {"a": "r2"}, value, value, value, ())


def _stops(stopping, values):
    """The evaluation (from 1) after which it stops, or None."""
    return next((i + 1 for i, value in enumerate(values) if stopping.should_stop(_evaluation(value))), None)


@pytest.mark.parametrize("undefined", [None, NAN], ids=["none", "nan"])
def test_undefined_first_score_does_not_block_the_best(undefined):  # CKP-04
    best, answers = _replay(LOW, [undefined, 0.5, 0.4])
    assert best.entries == [[0.4, 3, 30]]
    assert answers == [(False, []), (True, []), (True, [2])]


@pytest.mark.parametrize("undefined", [None, NAN], ids=["none", "nan"])
def test_undefined_later_score_is_never_better(undefined):  # LOO-03
    best, _ = _replay(LOW, [0.5, undefined, undefined])
    assert best.entries == [[0.5, 1, 10]]


@pytest.mark.parametrize("undefined", [None, NAN], ids=["none", "nan"])
def test_scores_that_are_all_undefined_give_no_best(undefined):  # CKP-04
    best, _ = _replay(HIGH, [undefined] * 3)
    assert best.entries == []
    assert best.score is None


@pytest.mark.parametrize(
    ("monitor", "scores", "epoch"), [(HIGH, [0.2, 0.8, 0.5], 2), (LOW, [0.5, 0.2, 0.3], 2)], ids=["accuracy", "rmse"]
)
def test_best_follows_the_direction(monitor, scores, epoch):  # CKP-05
    best, _ = _replay(monitor, scores)
    assert best.entries[0][1] == epoch


def test_equal_score_does_not_replace_the_earlier_epoch():
    best, answers = _replay(HIGH, [0.5, 0.5])
    assert best.entries == [[0.5, 1, 10]]
    assert not answers[1][0]


def test_best_two_are_kept_and_the_others_dropped():
    best, answers = _replay(HIGH, [0.1, 0.3, 0.2, 0.05, 0.4], keep=2)
    assert best.entries == [[0.4, 5, 50], [0.3, 2, 20]]
    assert [kept for kept, _ in answers] == [True, True, True, False, True]
    assert [dropped for _, dropped in answers] == [[], [], [1], [4], [3]]


def test_all_or_none_can_be_kept():
    best, answers = _replay(HIGH, [0.1, 0.3, 0.2], keep=-1)
    assert [entry[1] for entry in best.entries] == [2, 3, 1]
    assert answers == [(True, [])] * 3
    best, answers = _replay(HIGH, [0.1, 0.3], keep=0)
    assert best.entries == []
    assert answers == [(False, [])] * 2


def test_of_an_epoch_that_was_cut_short_and_gone_on_with_the_better_score_counts():
    best, _ = _replay(HIGH, [0.5, 0.2], keep=2)
    assert best.add(0.4, 1, 15) == (False, [])
    assert best.entries == [[0.5, 1, 10], [0.2, 2, 20]]
    assert best.add(0.3, 2, 25) == (True, [])
    assert best.entries == [[0.5, 1, 10], [0.3, 2, 25]]


@pytest.mark.parametrize(
    ("keep", "of_best", "of_other"),
    [(1, ["best"], []), (2, ["epoch-2", "best"], ["epoch-1"]), (-1, ["epoch-2", "best"], ["epoch-1"])],
)
def test_of_several_each_has_a_checkpoint_by_its_epoch(keep, of_best, of_other):
    best, _ = _replay(HIGH, [0.1, 0.3], keep)
    assert (best.checkpoints(2), best.checkpoints(1)) == (of_best, of_other)


@pytest.mark.parametrize(
    ("entries", "outdated"),
    [
        ([[0.5, 1]], []),
        ([[0.5, 1, 10, 3]], []),
        ([["0.5", 1, 10]], []),
        ([[0.5, "../../1", 10]], []),
        ([[0.5, 1, 10.0]], []),
        ([], [1, "../../1"]),
    ],
)
def test_what_names_no_epoch_is_not_loaded(entries, outdated):
    best = Best(HIGH, 2)
    with pytest.raises(ValueError, match=r"its (best scores|outdated epochs) are no"):
        best.load_entries(entries, outdated)
    assert (best.entries, best.outdated) == ([], [])


def test_where_none_is_kept_any_more_the_next_score_removes_what_was():
    best = Best(HIGH, 0)
    best.load_entries([[0.5, 3, 30], [0.4, 1, 10]], [2])
    assert best.score is None
    assert best.add(0.6, 4, 40) == (False, [2, 3, 1])


def test_an_epoch_that_is_kept_again_by_another_monitor_is_not_removed():
    best = Best(HIGH, 2)
    best.load_entries([[0.9, 2, 20], [0.8, 3, 25]])  # the third was cut short
    best.begin_anew()
    assert best.add(0.5, 3, 30) == (True, [2])
    best.load_entries([[0.7, 1, 10], [0.6, 2, 20]], [3])
    assert best.add(0.5, 3, 30) == (False, [3, 3])  # outdated, and not good enough


def _scores(best, stopping):
    return Scores(Best(best, 1), EarlyStopping(stopping, 2, 0.0))


@pytest.mark.parametrize(
    ("best", "stopping", "told"),
    [
        (HIGH, HIGH, None),
        (LOW, HIGH, "trainer.checkpoint.monitor (val/mean before, val/loss now)"),
        (HIGH, LOW, "trainer.early_stopping.monitor (val/mean before, val/loss now)"),
    ],
)
def test_scores_of_another_number_are_forgotten_and_told_of(best, stopping, told, caplog):
    before, now = _scores(HIGH, HIGH), _scores(best, stopping)
    before.best.add(0.5, 1, 10)
    before.early_stopping.should_stop(_evaluation(0.5))
    now.load_state(before.state())
    assert (now.best.entries, now.best.outdated) == (([], [1]) if best is LOW else ([[0.5, 1, 10]], []))
    assert now.early_stopping.best == (None if stopping is LOW else 0.5)
    assert [r.getMessage() for r in caplog.records] == (
        [f"{told}: the scores so far are of another number and count no more"] if told else []
    )


@pytest.mark.parametrize(
    ("values", "stop"),
    [
        ([0.1, 0.2, 0.2, 0.1], 4),
        ([0.5, 0.4, 0.6, 0.5, 0.4], 5),
        ([0.1, 0.2, 0.3, 0.4], None),
        ([None, None, 0.1], 2),
        ([None, 0.1, 0.2, 0.3], None),
        ([NAN, 0.1, 0.05, 0.2, 0.1, 0.1], 6),
        ([0.5, None, NAN], 3),
    ],
)
def test_training_stops_after_two_evaluations_without_improvement(values, stop):
    assert _stops(EarlyStopping(HIGH, 2, 0.0), values) == stop


def test_improvement_must_be_larger_than_the_least_delta():
    assert _stops(EarlyStopping(LOW, 2, 0.1), [1.0, 0.95, 0.9]) == 3
    assert _stops(EarlyStopping(LOW, 2, 0.1), [1.0, 0.95, 0.85, 0.80, 0.70]) is None


def test_without_patience_nothing_stops():
    assert _stops(EarlyStopping(HIGH, None, 0.0), [0.5] * 50) is None


def test_patience_survives_a_checkpoint():
    first, second = EarlyStopping(HIGH, 3, 0.0), EarlyStopping(HIGH, 3, 0.0)
    assert _stops(first, [0.5, 0.4, 0.4]) is None
    second.load_state(first.state())
    assert _stops(second, [0.45]) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("mean", 0.3), ("val/mean", 0.3), ("worst", 0.1), ("val/loss", 2.0), ("val/a/r2", 0.5)]
)
def test_monitor_reads_its_number(name, value):
    evaluation = Evaluation({"a": {"loss": 1.5, "r2": 0.5}}, {"a": "r2"}, 2.0, 0.3, 0.1, ())
    assert Monitor(name, True).value(evaluation) == value
