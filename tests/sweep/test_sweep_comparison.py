"""Seeds are folded, methods compared with the tasks trained apart, and the answer says what the numbers say."""

import json
import random
from dataclasses import replace

import pytest
from scipy.stats import t

from mtl_cli.run import RunFolder
from mtl_cli.sweep import JobRecord, collect, format_table, write
from mtl_cli.sweep.comparison import (
    Estimate,
    baseline,
    delta,
    delta_m,
    estimate,
    labels,
    learning_problems,
    mean_ranks,
    methods,
    paired,
    pareto,
    relative_change,
)
from mtl_cli.sweep.method_table import as_json, method_columns, methods_title
from mtl_cli.sweep.payoff import answer, chosen, is_clear, rows_needed, t_95, verdicts
from mtl_cli.sweep.table import ranked, text


def _record(sharing, seed, a, b=0.5, fraction=1.0, rows=1000, parameters=100, balancing="equal", **more):
    """A finished job with two tasks: ``a`` (higher is better) and ``b`` (lower is better)."""
    settings = {
        "sharing.name": sharing, "seed": seed, "balancing.name": balancing, "data.split.train_fraction": fraction,
    } | ({"sharing.experts": 4} if sharing == "mmoe" else {})  # fmt: skip
    fields = {
        "status": "done",
        "metrics": {"test/a/auroc": a, "test/b/rmse": b, "test/mean": a, "val/mean": 0.1},
        "primary": {"a": "auroc", "b": "rmse"},
        "higher_is_better": {"a": True, "b": False},
        "settings": settings, "train_rows": rows, "parameters": parameters, "seconds": 1.0, "rows_per_second": 10.0,
        "data_fingerprint": "x",
    }  # fmt: skip
    return JobRecord(f"{sharing}-{seed}-{fraction}-{balancing}", **{**fields, **more})


@pytest.fixture
def records():
    """Hard sharing against separate, three seeds each: 10 % better on ``a``, 20 % better on ``b``."""
    apart = [_record("separate", seed, a=0.5 + seed / 100, b=1.0, parameters=300) for seed in range(3)]
    shared = [_record("hard", seed, a=1.1 * (0.5 + seed / 100), b=0.8) for seed in range(3)]
    return [*shared, *apart]


def test_jobs_that_differ_in_their_seed_alone_are_one_method(records):
    hard, separate = methods(records)
    assert [job.settings["seed"] for job in hard.jobs] == [0, 1, 2]
    assert hard.task("a").mean == pytest.approx(0.561)
    assert hard.task("a").std == pytest.approx(0.011)
    assert hard.task("a").error == pytest.approx(0.011 / 3**0.5)
    assert separate.task("b") == Estimate(1.0, 0.0, 3)


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        (0.91234, 0.004, "0.9123 ± 0.0040"),
        (3.21e-06, 1e-07, "3.21e-06 ± 1e-07"),
        (1234567.89, 234567.89, "1234568 ± 234568"),
        (-4.08e65, 5.7e65, "-4.08e+65 ± 5.7e+65"),
    ],
)
def test_numbers_of_any_size_are_told_whole_in_the_table(mean, std, told):
    half = std / 2**0.5  # of two seeds
    records = [_record("hard", seed, a=0.5, b=mean + half * (2 * seed - 1)) for seed in range(2)]
    (row,) = (line for line in format_table(records).splitlines() if line.lstrip().startswith("1 "))
    assert told in row


def test_a_seed_that_was_run_twice_counts_once(records):
    again = [replace(job, job=f"again-{job.job}") for job in records]
    (hard, separate) = methods([*records, *again])
    assert (len(hard.jobs), len(separate.jobs)) == (3, 3)
    failed_first = replace(records[0], job="0", status="failed", metrics={})
    assert [job.status for job in methods([failed_first, records[0]])[0].jobs] == ["done"]


def test_delta_m_is_the_mean_relative_change_above_0_for_better(records):
    hard, separate = methods(records)
    assert baseline(hard, [hard, separate]) is separate
    assert baseline(separate, [hard, separate]) is None
    found = delta(hard, separate)
    assert found.mean == pytest.approx(15.0)  # (10 % + 20 %) / 2
    assert found.std == pytest.approx(0.0, abs=1e-9)
    assert [(a.settings["seed"], b.settings["seed"]) for a, b in paired(hard, separate)] == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": 900}, "no finished job of separate is on the same rows with the same settings"),
        ({"data_fingerprint": "another"}, None),
        ({"status": "failed", "data_fingerprint": None}, "separate has no finished job"),
        (
            {"settings": {"sharing.name": "separate", "balancing.name": "equal", "optimizer.lr": 1.0}},
            "no finished job of separate is on the same rows with the same settings",
        ),
    ],
    ids=["fewer rows", "other data", "failed", "another learning rate"],
)
def test_an_unfair_comparison_is_not_made_and_the_reason_told(change, told):
    ours, theirs = methods([_record("hard", 0, 0.6), _record("separate", 0, 0.5, **change)])
    assert baseline(ours, [ours, theirs]) is None
    assert answer([ours, theirs]) == (told and f"Does sharing pay? Not known: {told}.")


def _with_fractions():
    """Hard sharing against separate with 10, 30 and 100 % of the training rows, two seeds each."""
    points = ((0.1, 100, 0.4), (0.3, 300, 0.6), (1.0, 1000, 0.8))
    apart = [_record("separate", n, a - 0.1 - n / 100, fraction=f, rows=r) for f, r, a in points for n in (0, 1)]
    return [*apart, *(_record("hard", n, a + n / 100, fraction=f, rows=r) for f, r, a in points for n in (0, 1))]


@pytest.mark.parametrize("lost", ["separate", "hard"])
@pytest.mark.parametrize("failed", [False, True], ids=["absent", "failed"])
def test_without_a_pair_at_the_largest_fraction_the_answer_is_of_the_next_and_says_so(lost, failed):
    def is_lost(job):
        return job.settings["sharing.name"] == lost and job.settings["data.split.train_fraction"] == 1.0

    jobs = [replace(job, status="failed") if is_lost(job) else job for job in _with_fractions()]
    jobs = [job for job in jobs if failed or not is_lost(job)]
    first, _, head, *_ = answer(methods(jobs)).splitlines()
    why = f"{lost} has no finished job with 100 % of the training rows"
    assert first.startswith(
        f"Does sharing pay? With 30 % of the training rows ({why}): No clear difference in scores ("
    )
    assert head == "sharing=hard against separate (2 seeds):"


def test_without_any_pair_the_question_is_answered_by_the_reason():
    alone = [job for job in _with_fractions() if job.settings["sharing.name"] == "hard"]
    assert answer(methods(alone)) is None  # nobody has asked
    failed = replace(_record("separate", 0, 0.5, fraction=0.1), status="failed", data_fingerprint=None)
    why = "separate has no finished job with 100 % of the training rows"
    assert answer(methods([*alone, failed])) == f"Does sharing pay? Not known: {why}."


def test_a_method_without_a_finished_job_is_compared_with_nothing(records):
    failed = [replace(job, status="failed") if job.settings["sharing.name"] == "hard" else job for job in records]
    found = methods(failed)
    assert [(method.sharing, baseline(method, found)) for method in found] == [("hard", None), ("separate", None)]


def test_a_job_that_failed_asks_nothing_of_other_data():
    jobs = [job for job in _of_two_tasks() if job.settings["sharing.name"] == "hard"]
    apart = next(job for job in _of_two_tasks() if job.job.startswith("park-separate"))
    told = answer(methods([*jobs, replace(apart, status="failed", data_fingerprint=None)]))
    assert told.splitlines() == ["Does sharing pay?", "  task=park  Not known: separate has no finished job."]


def test_a_setting_that_is_not_a_number_is_equal_in_all_jobs():
    def jobs(lost=()):
        made = [_with(job, tasks__a__missing_label=float("nan")) for job in _with_fractions()]
        return [replace(job, status="failed") if job.settings["sharing.name"] in lost else job for job in made]

    assert answer(methods(jobs())) == answer(methods(_with_fractions()))
    assert answer(methods(jobs(lost=["separate"]))).startswith("Does sharing pay? Not known: separate has no finished")


@pytest.mark.parametrize("fraction", ["half", 2, None])
def test_a_fraction_that_is_none_is_not_asked_about(fraction):
    wrong = replace(_record("hard", 0, 0.5, fraction=fraction), status="failed", data_fingerprint=None)
    told = answer(methods([*_with_fractions(), wrong]))
    assert told == answer(methods(_with_fractions()))


def test_a_method_without_a_baseline_is_named_below_those_that_have_one(records):
    faster = replace(records[0], job="fast", settings={**records[0].settings, "optimizer.lr": 1.0})
    other = [replace(job, settings={**job.settings, "optimizer.lr": 0.1}) for job in records]
    told = answer(methods([*other, faster])).splitlines()
    why = "no finished job of separate is on the same rows with the same settings"
    assert told[-1] == f"not compared, for {why}: hard, optimizer.lr=1.0"


def test_a_baseline_of_other_seeds_gives_no_delta_and_the_reason(records):
    jobs = [job for job in records if (job.settings["sharing.name"] == "hard") == (job.settings["seed"] == 0)]
    assert answer(methods(jobs)).startswith("Does sharing pay? Not known: it has no seed in common with separate.")


def test_a_balancing_method_that_separate_cannot_have_is_compared_with_equal_weights():
    found = methods([_record("hard", 0, 0.6, balancing="pcgrad"), _record("separate", 0, 0.5)])
    assert baseline(found[0], found) is found[1]
    found += methods([_record("separate", 0, 0.5, balancing="fixed")])
    assert baseline(found[0], found) is found[1]


def test_a_metric_without_a_number_or_a_baseline_of_0_gives_no_delta():
    ours = _record("hard", 0, 0.6)
    assert delta_m(ours, _record("separate", 0, 0.0)) is None
    assert delta_m(ours, _record("separate", 0, None)) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "why", "way_out"),
    [
        (None, None, "hard and separate have no score of a", True),
        (0.6, 0.0, "the score of a is 0 for separate", True),
        (None, 0.5, "hard has no score of a", False),
        (0.6, None, "separate has no score of a", False),
    ],
)
def test_a_task_without_a_change_is_named_and_the_others_are_told(ours, theirs, why, way_out):
    told = answer(methods([_record("hard", 0, ours, b=0.7), _record("separate", 0, theirs)]))
    hint = " Without it there is an answer: tasks.a.auxiliary=true." if way_out else ""
    assert told.startswith(f"Does sharing pay? Not known: {why}.{hint}\n")
    assert f"scores      delta-m is not known: {why}\n" in told
    assert " b -40.00 %: one seed" in told


def test_a_task_whose_name_is_no_key_of_the_command_line_is_set_in_the_file():
    def job(sharing):
        metrics = {"test/ja nein/auroc": None, "test/b/rmse": 0.5}
        return _record(sharing, 0, 0.5, metrics=metrics, primary={"ja nein": "auroc", "b": "rmse"})

    first, *_ = answer(methods([job("hard"), job("separate")])).splitlines()
    assert first.endswith(" Without it there is an answer: set auxiliary: true in the file.")


def test_without_a_score_of_any_task_no_task_is_to_be_left_out():
    jobs = [_record(sharing, 0, None, b=None) for sharing in ("hard", "separate")]
    assert answer(methods(jobs)).startswith("Does sharing pay? Not known: hard and separate have no score of a, b.\n")
    other = [_record("hard", 1, 0.6), _record("separate", 0, 0.5)]
    assert answer(methods(other)).startswith("Does sharing pay? Not known: it has no seed in common with separate.\n")


def test_scores_by_different_metrics_are_not_compared():
    metrics = {"test/a/auroc": 0.6, "test/a/accuracy": 0.5}
    ours, theirs = (JobRecord("", "done", metrics=metrics, primary={"a": metric}) for metric in ("auroc", "accuracy"))
    assert relative_change(ours, theirs, "a") is None
    assert relative_change(ours, replace(theirs, primary={}), "a") is None


@pytest.mark.parametrize("metric", ["r2", "d2", "qwk", "pearson"])
def test_of_a_share_the_difference_counts_also_around_0(metric):
    ours, theirs = (
        JobRecord("", "done", metrics={f"test/a/{metric}": value}, primary={"a": metric}) for value in (-0.09, 0.0)
    )
    assert relative_change(ours, theirs, "a") == pytest.approx(-9.0)


def test_ranks_are_by_task_and_shared_by_equals():
    found = methods(
        [_record("hard", 0, 0.9, b=0.5), _record("mmoe", 0, 0.9, b=0.1), _record("separate", 0, 0.1, b=0.3)]
    )
    assert mean_ranks(found) == {0: (1.5 + 3) / 2, 1: (1.5 + 1) / 2, 2: (3 + 2) / 2}


def test_a_task_without_any_number_has_no_say_in_ranks_and_is_named():
    jobs = [_record(name, seed, a, b=None) for name, a in (("hard", 0.9), ("mmoe", 0.5)) for seed in (0, 1)]
    assert mean_ranks(methods(jobs)) == {0: 1.0, 1: 2.0}
    assert "\nno job has a score for b: mean and mean rank are of the other tasks\n" in format_table(jobs)
    # a number that one method lacks is another matter: the others' task counts
    jobs[:2] = [_record("hard", seed, 0.9, b=0.5) for seed in (0, 1)]
    assert mean_ranks(methods(jobs)) == {0: 1.0}
    assert "no job has" not in format_table(jobs)


def test_methods_without_any_number_have_no_rank():
    assert mean_ranks(methods([_record(name, 0, None, b=None) for name in ("hard", "mmoe")])) == {}


def test_a_mean_over_other_tasks_than_the_others_has_no_rank():
    jobs = [_record(name, seed, a) for name, a in (("hard", 0.6), ("separate", 0.5)) for seed in (0, 1)]
    jobs += [_record("mmoe", 0, 0.9, b=None), _record("mmoe", 1, 0.9)]  # higher for what seed 0 leaves out
    among = methods(jobs)
    assert [(m["method"]["sharing"], m["pareto"]) for m in as_json(among)] == [
        ("hard", True), ("separate", False), ("mmoe", False),
    ]  # fmt: skip
    assert method_columns(among)[0].cells == [1, 2, None]
    assert "\nsharing=mmoe: no rank, for it has no score for b, which others have\n" in format_table(jobs)
    # where the labels of a seed's split allow no number, nobody has one, and the means are alike
    for job in jobs:
        if job.settings["seed"] == 0:
            job.metrics["test/b/rmse"] = None
    assert method_columns(methods(jobs))[0].cells == [1, 2, 3]


def test_the_front_holds_what_nobody_beats_at_once():
    found = methods(
        [_record("hard", 0, 0.9), _record("mmoe", 0, 0.95, parameters=200), _record("separate", 0, 0.8, parameters=300)]
    )
    assert pareto(found) == {0, 1}


def test_labels_hold_what_differs_and_options_of_the_same_component_only():
    one = _record("mmoe", 0, 0.5)
    other = _record("mmoe", 0, 0.5, settings={**one.settings, "sharing.experts": 8})
    assert labels(methods([one, _record("hard", 0, 0.5)])) == [{"sharing": "mmoe"}, {"sharing": "hard"}]
    assert labels(methods([one, other])) == [{"sharing.experts": "4"}, {"sharing.experts": "8"}]


def test_columns_without_text_are_those_of_numbers(records):
    numeric = {column.name for column in method_columns(methods(records)) if column.is_numeric}
    assert numeric.issuperset({"rank", "a/auroc", "mean", "delta-m %", "val mean", "seconds"})
    assert numeric.isdisjoint({"sharing", "jobs", "pareto"})


def test_labels_are_written_as_in_yaml():
    found = methods([_with(_record("hard", 0, 0.5), trainer__compile=value) for value in (True, None, 4)])
    assert labels(found) == [{"trainer.compile": text} for text in ("true", "null", "4")]


def _of_two_tasks():
    """Sharing pays for digits and not for park; scores of park are higher all over."""
    found = []
    for task, level, gain in (("digits", 0.5, 1.1), ("park", 0.8, 0.9)):
        for sharing in ("hard", "separate"):
            for seed in range(3):
                job = _record(sharing, seed, (level + seed / 100) * (gain if sharing == "hard" else 1), parameters=300)
                settings = {**job.settings, "data.path": f"{task}.csv", "tasks.a.kind": "binary", "data.id": task}
                given = [f"task={task}", f"sharing={sharing}", f"seed={seed}", "trainer.max_epochs=2"]
                more = {"job": f"{task}-{job.job}", "data_fingerprint": task, "score": 0.5, "mode": "max"}
                found.append(replace(job, settings=settings, overrides=given, **more))
    return found


def test_a_sweep_over_the_task_is_labelled_by_what_was_swept():
    assert labels(methods(_of_two_tasks())) == [
        {"task": task, "sharing": sharing} for task in ("digits", "park") for sharing in ("hard", "separate")
    ]


def test_overrides_that_do_not_tell_methods_apart_are_no_labels():
    one, two = _record("hard", 0, 0.5), _record("mmoe", 0, 0.5)  # from the files of two sweeps, not from overrides
    one, two = (replace(job, settings={**job.settings, "optimizer.lr": 0.001}) for job in (one, two))
    given = [replace(one, overrides=["optimizer.lr=1e-3"]), replace(two, overrides=["optimizer.lr=0.001"])]
    assert labels(methods(given)) == [{"sharing": "hard"}, {"sharing": "mmoe"}]
    some = [(one, 8), (two, 8), (one, 16)]  # of two the same was swept
    some = [replace(j, overrides=[f"x={n}"], settings={**j.settings, "x": n}) for j, n in some]
    assert labels(methods(some)) == [{"sharing": j.settings["sharing.name"], "x": str(j.settings["x"])} for j in some]
    default = replace(one, overrides=["shared_dim=8"], settings={**one.settings, "shared_dim": 8})
    wider = replace(one, settings={**one.settings, "shared_dim": 16})
    assert labels(methods([default, wider])) == [{"shared_dim": "8"}, {"shared_dim": "16"}]


def test_each_data_set_has_an_answer_of_its_own():
    lines = answer(methods(_of_two_tasks())).splitlines()
    assert lines[0] == "Does sharing pay?"
    assert lines[1].startswith("  task=digits  Yes: hard scores better (mean change +5.00 %")
    assert lines[2].startswith("  task=park    No: the tasks score better apart (mean change -5.00 %")
    assert "task=digits: sharing=hard against separate (3 seeds):" in lines
    assert "task=park: sharing=hard against separate (3 seeds):" in lines


def test_methods_are_ranked_among_those_of_their_data():
    found = as_json(methods(_of_two_tasks()))
    assert [(m["problem"], m["method"]["sharing"], m["mean_rank"]) for m in found] == [
        ("task=digits", "hard", 1.25), ("task=digits", "separate", 1.75),
        ("task=park", "separate", 1.25), ("task=park", "hard", 1.75),
    ]  # fmt: skip
    rank, task, *_ = method_columns(methods(_of_two_tasks()))
    assert (rank.cells, task.cells) == ([1, 2, 1, 2], ["digits", "digits", "park", "park"])
    title = "Methods, ranked by mean test score over the seeds for each data set and set of tasks"
    assert format_table(_of_two_tasks()).startswith(f"{title}:\n")
    assert {place for place, _ in ranked(_of_two_tasks())} == {None}  # single jobs of different data are not compared


def test_one_task_has_nothing_to_share_unless_another_is_there_to_help():
    def jobs(**settings):
        made = [_record(s, seed, 0.5, primary={"a": "auroc"}) for s in ("hard", "separate") for seed in (0, 1)]
        return methods([replace(job, settings={**job.settings, **settings}) for job in made])

    assert answer(jobs()).startswith("Does sharing pay? There is nothing to share: a is the only task.\n")
    helped = jobs(**{"tasks.a.kind": "binary", "tasks.helper.auxiliary": True})
    assert answer(helped).startswith("Does sharing pay? No clear difference in scores")


def test_a_key_that_other_methods_alone_were_given_is_in_no_name(records):
    given = [replace(job, overrides=[f"sharing={job.settings['sharing.name']}"]) for job in records]
    weighted = _record("hard", 0, 0.6, balancing="fixed")
    weighted = replace(weighted, overrides=["sharing=hard", "experiment=fixed_weights"])
    lines = answer(methods([*given, weighted])).splitlines()
    assert "sharing=hard against separate (3 seeds):" in lines
    assert "sharing=hard, experiment=fixed_weights against separate (1 seed):" in lines


def test_problems_are_named_by_their_tasks_or_data_where_no_setting_tells_them_apart():
    def found(**other):
        one, two = (_record(sharing, 0, 0.5, fraction=f) for sharing, f in (("hard", 0.1), ("mmoe", 0.2)))
        three, four = (_record(sharing, 0, 0.5, fraction=f) for sharing, f in (("hard", 0.2), ("mmoe", 0.1)))
        return [p.name for p in learning_problems(methods([one, two, replace(three, **other), replace(four, **other)]))]

    assert found() == [""]
    assert found(primary={"b": "rmse"}) == ["a, b", "b"]
    assert found(data_fingerprint="other data") == ["a, b (data x)", "a, b (data other da)"]


def test_a_problem_is_named_by_its_task_where_that_tells_it_apart():
    jobs = _of_two_tasks()
    longer = [replace(job, overrides=[f"shared_dim={len(job.overrides[0])}", *job.overrides]) for job in jobs]
    assert [problem.name for problem in learning_problems(methods(longer))] == ["task=digits", "task=park"]


def test_the_methods_are_told_of_best_first(records):
    others = [_record(name, seed, a) for name, a in (("mtan", None), ("mmoe", 0.4)) for seed in range(3)]
    shown = [line for line in answer(methods([*others, *records])).splitlines() if line.startswith("sharing=")]
    assert shown == [f"sharing={name} against separate (3 seeds):" for name in ("hard", "mmoe", "mtan")]


def test_more_parameters_are_no_reason_to_share():
    jobs = [_record(name, 0, 0.5, parameters=n) for name, n in (("hard", 600), ("separate", 300))]
    alike = [replace(job, settings={**job.settings, "seed": seed}) for job in jobs for seed in range(3)]
    told = answer(methods(alike)).splitlines()
    assert told[0].startswith("Does sharing pay? No clear difference in scores (hard: mean change +0.00 %). ")
    assert "  parameters  100 % more (600 against 300)" in told


def test_without_a_count_of_parameters_nothing_is_said_of_them(records):
    for lost in ("hard", "separate"):
        jobs = [replace(job, parameters=None) if job.settings["sharing.name"] == lost else job for job in records]
        told = answer(methods(jobs))
        assert told.startswith("Does sharing pay? Yes")
        assert "parameters" not in told


def test_the_answer_when_sharing_pays(records):
    assert answer(methods(records)).splitlines() == [
        "Does sharing pay? Yes: hard scores better (mean change +15.00 %).",
        "",
        "sharing=hard against separate (3 seeds):",
        "  parameters  67 % fewer (100 against 300)",
        "  scores      delta-m +15.00 % ± 0.00: better",
        "              a +10.00 % ± 0.00: better",
        "              b +20.00 % ± 0.00: better",
    ]


@pytest.mark.parametrize(
    ("scores", "first_line"),
    [
        ([0.4, 0.41, 0.42], "Does sharing pay? No: the tasks score better apart"),
        (
            [0.4, 0.5, 0.62],
            "Does sharing pay? No clear difference in scores (hard: mean change +0.67 %), with 67 % fewer parameters. "
            "More seeds may tell: seed=0,1,2,3,4,5.",
        ),
        (
            [0.6],
            "Does sharing pay? One seed only (hard: mean change +10.00 %), which cannot tell. More seeds may tell: ",
        ),
    ],
)
def test_the_answer_when_it_does_not_or_cannot_be_told(scores, first_line):
    apart = [_record("separate", seed, 0.5, parameters=300) for seed in range(len(scores))]
    found = answer(methods([*apart, *(_record("hard", seed, a) for seed, a in enumerate(scores))]))
    assert found.startswith(first_line)


def _with_rate(sharing, lr, seed, val, test):
    made = _record(sharing, seed, test + seed / 1000, parameters=300)
    settings = {**made.settings, "optimizer.lr": lr}
    return replace(made, job=f"{made.job}-{lr}", settings=settings, metrics={**made.metrics, "val/mean": val})


def test_the_first_line_is_of_what_did_best_on_validation_rows():
    rates = {0.1: (0.90, 0.93, 0.86), 0.02: (0.70, 0.70, 0.72)}  # by the rate: val of both, test apart, test of hard
    jobs = [_with_rate("separate", lr, seed, val, apart) for seed in range(3) for lr, (val, apart, _) in rates.items()]
    jobs += [_with_rate("hard", lr, seed, val, shared) for seed in range(3) for lr, (val, _, shared) in rates.items()]
    first = answer(methods(jobs)).splitlines()[0]
    assert first.startswith("Does sharing pay? No: the tasks score better apart (mean change ")
    assert "hard, optimizer.lr=0.1" in first


def test_the_tasks_apart_may_do_best_with_other_settings():
    of = {
        ("hard", 0.1): (0.8, 0.8),
        ("separate", 0.1): (0.6, 0.6),
        ("hard", 0.02): (0.7, 0.7),
        ("separate", 0.02): (0.9, 0.9),
    }
    jobs = [_with_rate(sharing, lr, seed, *of[sharing, lr]) for seed in range(3) for sharing, lr in of]
    told = answer(methods(jobs))
    first = "mean change -5.55 %, hard, optimizer.lr=0.1 against separate, optimizer.lr=0.02"
    assert told.startswith(f"Does sharing pay? No: the tasks score better apart ({first}).")
    fewer = [job for job in jobs if job.settings != {**job.settings, "sharing.name": "hard", "optimizer.lr": 0.02}]
    for given in (told, answer(methods(fewer))):
        assert "\nsharing=hard, optimizer.lr=0.1 against separate with the same settings (3 seeds):\n" in given


def _with_val(sharing, val, test, fraction=1.0):
    made = [_record(sharing, seed, test + seed / 1000, fraction=fraction) for seed in range(3)]
    return [replace(job, metrics={**job.metrics, "val/mean": val}) for job in made]


def test_what_does_best_on_validation_rows_is_held_against_the_tasks_apart_on_as_many_rows():
    jobs = [*_with_val("hard", 0.9, 0.6), *_with_val("separate", 0.8, 0.5), *_with_val("separate", 0.95, 0.7, 0.1)]
    jobs += _with_val("mmoe", 0.85, 0.7)
    assert answer(methods(jobs)).startswith("Does sharing pay? Yes: hard scores better (mean change +9.98 %")


@pytest.mark.parametrize("parameters", [100, 50], ids=["settings", "parameters"])
def test_test_rows_do_not_choose_among_equals_on_validation_rows(parameters):
    for lucky in ("hard", "ple"):  # the luckier one on test rows changes nothing
        jobs = [*_with_val("separate", 0.8, 0.5), *_with_val("hard", 0.9, 0.6 + 0.1 * (lucky == "hard"))]
        ple = _with_val("ple", 0.9, 0.6 + 0.1 * (lucky == "ple"))
        jobs += [replace(job, parameters=parameters) for job in ple]
        assert f"Yes: {'hard' if parameters == 100 else 'ple'} scores better" in answer(methods(jobs))


@pytest.mark.parametrize("way", [1, -1])
def test_of_baselines_that_are_equal_on_validation_rows_neither_place_nor_test_rows_choose(way):
    runs = [
        ("hard", 0.1, 0.8, 0.6),
        ("separate", 0.1, 0.8, 0.5),
        ("separate", 0.3, 0.9, 0.7),
        ("separate", 0.2, 0.9, 0.5),
    ]
    jobs = [_with_rate(sharing, lr, seed, val, test) for sharing, lr, val, test in runs for seed in range(3)]
    among = methods(jobs)[::way]
    assert chosen(verdicts(among), among).base.settings["optimizer.lr"] == 0.2


def test_a_method_without_a_validation_score_is_not_the_one_to_tell_of():
    jobs = [*_with_val("hard", 0.9, 0.6), *_with_val("separate", 0.8, 0.5), *_with_val("mmoe", None, 0.9)]
    assert answer(methods(jobs)).startswith("Does sharing pay? Yes: hard scores better")


def test_jobs_of_other_data_are_no_seeds_of_the_same_method(records):
    changed = [replace(job, job=f"{job.job}-new", data_fingerprint="y") for job in records if job.settings["seed"] == 2]
    before = [job for job in records if job.settings["seed"] < 2]
    found = methods([*before, *changed])
    assert sorted((m.sharing, m.done[0].data_fingerprint, len(m.done)) for m in found) == [
        ("hard", "x", 2), ("hard", "y", 1), ("separate", "x", 2), ("separate", "y", 1),
    ]  # fmt: skip
    assert {problem.name for problem in learning_problems(found)} == {"a, b (data x)", "a, b (data y)"}


def _with(job, **settings):
    settings = {key.replace("__", "."): value for key, value in settings.items()}
    return replace(job, job=f"{job.job}-{sorted(settings.items())}", settings={**job.settings, **settings})


def test_the_same_data_at_two_places_are_one(records):
    shared = [_with(job, data__path="help.csv") for job in records if job.settings["sharing.name"] == "hard"]
    apart = [_with(job, data__path="../help.csv") for job in records if job.settings["sharing.name"] == "separate"]
    failed = replace(_with(apart[0], seed=9), status="failed", data_fingerprint=None)
    found = methods([*shared, *apart, failed])
    assert labels(found) == [{"sharing": "hard"}, {"sharing": "separate"}]
    assert [len(method.jobs) for method in found] == [3, 4]
    assert delta(*found).mean == pytest.approx(15.0)
    changed = [replace(job, data_fingerprint="y") for job in apart]
    assert len(learning_problems(methods([*shared, *changed]))) == 2


def test_the_same_files_given_for_other_splits_are_other_data(records):
    whole, parts = {"data__path": ["a.csv", "b.csv"]}, {"data__train": "a.csv", "data__val": "b.csv"}
    other = [_with(job, **parts) for job in records if job.settings["seed"] == 0]
    assert len(methods([*(_with(job, **whole) for job in records), *other])) == 4
    places = [{"data__path": "a.csv", "data__train": None}, {"data__path": None, "data__train": "a.csv"}]
    assert len(methods([_with(job, **own) for job in records for own in places])) == 4
    sources = [{"data__sources__x__path": "x.csv", "data__sources__y__path": f"{f}y.csv"} for f in ("", "copy/")]
    assert len(methods([_with(job, **own) for job in records for own in sources])) == 2


def test_a_table_of_images_at_another_place_has_other_images(records):
    inputs = [{"name": "photo", "type": "image"}]
    places = ("small/list.csv", "large/list.csv")
    assert len(methods([_with(j, data__path=p, data__inputs=inputs) for j in records for p in places])) == 4


@pytest.mark.parametrize(
    "key", ["trainer.diagnostics_every", "trainer.checkpoint.every_n_steps", "stop_on_failure", "extra.note"]
)
def test_what_changes_no_number_makes_no_method(records, key):
    apart = [_with(job, **{key: 7}) for job in records if job.settings["sharing.name"] == "separate"]
    found = methods([job if job.settings["sharing.name"] == "hard" else apart.pop(0) for job in records])
    assert baseline(found[0], found) is found[1]


def test_splits_that_are_drawn_by_the_seed_are_seeds_of_one_method(records):
    def split(job, seed):
        return replace(job, job=f"{job.job}-{seed}", settings={**job.settings, "data.split.seed": seed})

    drawn = [split(job, job.settings["seed"]) for job in records]
    assert [len(method.done) for method in methods(drawn)] == [3, 3]
    assert len(learning_problems(methods(drawn))) == 1
    crossed = [split(job, seed) for job in records for seed in (0, 1)]
    assert [len(method.done) for method in methods(crossed)] == [3, 3, 3, 3]


def test_splits_whose_number_of_rows_depends_on_the_seed_are_compared_by_the_seeds_that_both_have(records):
    def drawn(job):
        seed = job.settings["seed"]
        return replace(job, settings={**job.settings, "data.split.seed": seed}, train_rows=[1001, 1007, 998][seed])

    hard, separate = methods([drawn(job) for job in records[1:]])  # hard has no seed 0
    assert baseline(hard, [hard, separate]) is separate
    assert delta(hard, separate).n == 2
    (other,) = methods([replace(drawn(job), train_rows=900) for job in records[1:3]])
    assert baseline(other, [other, separate]) is None


def test_scores_of_other_rows_are_not_ranked_together(records):
    split = [replace(job, job=f"{job.job}-1", settings={**job.settings, "data.split.seed": 1}) for job in records]
    untested = [
        replace(
            job,
            job=f"{job.job}-v",
            metrics={key.replace("test/", "val/"): value for key, value in job.metrics.items()},
            settings={**job.settings, "data.split.test": 0},
        )
        for job in records
    ]
    assert [len(problem.methods) for problem in learning_problems(methods([*records, *split, *untested]))] == [2, 2, 2]


def _by_metrics(**more):
    """Two methods with a higher score each by another metric, two seeds each; ``more`` is of the second."""
    jobs = [_record("hard", seed, 0.7) for seed in (0, 1)]
    by_accuracy = [_record("mmoe", seed, 0.6, primary={"a": "accuracy", "b": "rmse"}, **more) for seed in (0, 1)]
    for job in by_accuracy:
        job.metrics["test/a/accuracy"] = job.metrics.pop("test/a/auroc")
    return [replace(job, score=0.5, monitor="mean", mode="max") for job in (*jobs, *by_accuracy)]


def test_scores_by_other_metrics_are_neither_ranked_together_nor_in_one_column():
    among = methods(_by_metrics())
    assert [problem.name for problem in learning_problems(among)] == ["sharing=hard", "sharing=mmoe"]
    table = {column.name: [*map(text, column.cells)] for column in method_columns(among)}
    assert (table["rank"], table["pareto"]) == (["", ""], ["", ""])  # each is the only one of its kind
    assert (table["a/auroc"], table["a/accuracy"]) == (["0.7000 ± 0.0000", ""], ["", "0.6000 ± 0.0000"])
    assert {place for place, _ in ranked(_by_metrics())} == {None}


def test_problems_of_the_same_tasks_and_data_are_named_by_their_metrics():
    one, two = methods(_by_metrics())
    others = methods([replace(job, settings={**job.settings, "x": 1}) for job in (*two.jobs, *one.jobs)])
    crossed = [one, two, replace(others[0], settings=one.settings), replace(others[1], settings=two.settings)]
    assert [problem.name for problem in learning_problems(crossed)] == ["a/auroc, b/rmse", "a/accuracy, b/rmse"]


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_five_in_a_hundred_differences_that_are_none_are_called_clear(n):
    draw = random.Random(n)
    samples = [[draw.gauss(0, 1) for _ in range(n)] for _ in range(4000)]
    false = sum(is_clear(estimate(sample)) for sample in samples) / len(samples)
    assert false == pytest.approx(0.05, abs=0.012)  # more than three standard errors of the share


@pytest.mark.parametrize("n", range(2, 60))
def test_what_is_clear_is_so_by_students_t(n):
    assert t_95(n) == pytest.approx(t.ppf(0.975, n - 1), abs=0.01)


def test_two_equal_differences_say_no_more_than_one():
    assert not is_clear(Estimate(1.0, 0.0, 2))
    assert is_clear(Estimate(1.0, 0.0, 3))


def test_the_rows_that_give_the_baselines_score_are_read_off_the_curve():
    points = ((0.1, 100, 0.4), (0.3, 300, 0.6), (1.0, 1000, 0.8))
    shared = [_record("hard", 0, a, fraction=f, rows=rows) for f, rows, a in points]
    apart = [_record("separate", 0, a - 0.1, fraction=f, rows=rows) for f, rows, a in points]
    found = methods([*shared[::-1], *apart])  # in whatever order they were trained
    (verdict,) = [v for v in verdicts(found) if v.method.settings["data.split.train_fraction"] == 1.0]
    rows, at_most = rows_needed(verdict.method, verdict.base, found)
    assert not at_most
    assert rows == pytest.approx((300 * 1000) ** 0.5)  # half way between 0.6 and 0.8, over the logarithm
    assert "data        about 548 rows (55 %) for the mean score that separate has with 1,000" in answer(found)


def test_a_score_that_is_never_reached_and_one_that_always_is():
    def found(gain):
        points = ((0.1, 100, 0.4), (1.0, 1000, 0.5))
        return methods(
            [
                _record(s, 0, a + gain * (s == "hard"), fraction=f, rows=r)
                for s in ("hard", "separate")
                for f, r, a in points
            ]
        )

    assert "does not reach the mean score" in answer(found(-0.1))
    assert "at most 100 rows (10 %)" in answer(found(+0.2))


def _with_level(level, seeds, fraction=1.0):
    """Jobs whose scores are ``level`` by sharing, and far higher with seeds above 0 where the tasks are apart."""
    scores = {(s, n): level[s] + 0.2 * (n > 0) * (s == "separate") for s in seeds for n in seeds[s]}
    rows = round(1000 * fraction)
    return [_record(s, n, a, fraction=fraction, rows=rows) for (s, n), a in scores.items()]


def test_claims_that_stand_together_are_of_the_same_seeds():
    seeds = {"hard": [0], "separate": [0, 1, 2]}
    level = {"hard": 0.55, "separate": 0.5}
    jobs = [*_with_level({"hard": 0.45, "separate": 0.4}, seeds, 0.1), *_with_level(level, seeds)]
    told = answer(methods(jobs))
    assert "a +10.00 %: one seed, better" in told
    data = "about 316 rows (32 %) for the mean score that separate has with 1,000, by the means;"
    assert f"data        {data} with as many" in told  # of seed 0; the mean of three it does not reach
    seeds["hard"] = [0, 1, 2]
    three = [*_with_level({"hard": 0.1, "separate": 0.1}, seeds, 0.1), *_with_level(level, {**seeds, "hard": [0]})]
    assert "data        about " in answer(methods(three))
    lucky = [_record("hard", seed, 0.45 + 2.0 * (seed > 0), fraction=0.1, rows=100) for seed in range(3)]
    assert "data        about " in answer(methods([*lucky, *_with_level(level, {**seeds, "hard": [0]})]))


def test_a_score_that_is_not_reached_without_a_clear_difference_says_so():
    points = ((0.1, 100, 0.4), (1.0, 1000, 0.5))
    jobs = [
        _record(s, 0, a - 0.1 * (s == "hard"), fraction=f, rows=r) for s in ("hard", "separate") for f, r, a in points
    ]
    what = (
        "does not reach the mean score that separate has with 1,000 rows, by the means; with as many for both, scores"
    )
    assert f"{what} do not differ clearly" in answer(methods(jobs))
    told = answer(methods([job for job in jobs if job.job != "hard-0-0.1-equal"]))
    assert (
        "data        not known: it has no score with another fraction of the training rows for the same seeds" in told
    )


@pytest.mark.parametrize(("count", "gain", "told"), [(60, 1.1, True), (10, 1.1, False), (60, 1.0, False)])
def test_of_many_tasks_some_are_called_better_by_chance(count, gain, told):
    tasks = {f"t{number}": "auroc" for number in range(count)}

    def job(sharing, seed):
        value = (0.5 + seed / 100) * (gain if sharing == "hard" else 1)
        metrics = {f"test/{task}/auroc": value for task in tasks}
        return _record(sharing, seed, 0.5, metrics=metrics, primary=tasks, higher_is_better={})

    found = answer(methods([job(sharing, seed) for sharing in ("hard", "separate") for seed in range(3)]))
    line = "\n              (of 60 tasks without a difference about 3 would be called better or worse by chance)"
    assert (line in found) == told


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"a": 0.6, "b": 0.49, "c": 0.48}, "(a alone decides the sign: without it -3.00 %)"),
        ({"a": 0.6, "b": 0.51, "c": 0.48}, "(a alone decides the sign: without it -1.00 %)"),
        ({"a": 0.51, "b": 0.51, "c": 0.485}, None),  # without a or without b: near 0 every task decides
        ({"a": 0.6, "b": 0.51, "c": 0.52}, None),
        ({"a": 0.6, "b": 0.45}, None),  # both are seen
    ],
)
def test_one_task_that_decides_whether_sharing_pays_is_named(scores, told):
    def job(sharing, seed):
        metrics = {f"test/{task}/auroc": value if sharing == "hard" else 0.5 for task, value in scores.items()}
        primary = dict.fromkeys(scores, "auroc")
        return _record(sharing, seed, 0.5, metrics=metrics, primary=primary, higher_is_better={})

    found = answer(methods([job(sharing, seed) for sharing in ("hard", "separate") for seed in range(2)]))
    assert "delta-m +" in found
    assert found.partition("alone decides")[1] == ("alone decides" if told else "")
    assert (told or "") in found


@pytest.mark.parametrize(("count", "gain", "told"), [(40, 1.1, True), (10, 1.1, False), (40, 1.0, False)])
def test_of_many_methods_some_are_called_better_by_chance(count, gain, told):
    def job(sharing, seed, **settings):
        value = (0.5 + seed / 100) * (gain if sharing == "hard" else 1)
        return _record(sharing, seed, value, **settings)

    jobs = [job("separate", seed) for seed in range(3)]
    jobs += [job("hard", seed, balancing=f"method{number}") for number in range(count) for seed in range(3)]
    line = "\n\nof 40 methods without a difference about 2 would be called better or worse by chance"
    assert (line in answer(methods(jobs))) == told


def test_ranks_over_different_seeds_are_told_of(records):
    assert "ranks compare" not in format_table(records)
    assert "\nranks compare means over different seeds (all methods have 1, 2)\n" in format_table(records[1:])
    apart = [job for job in records if (job.settings["sharing.name"] == "hard") == (job.settings["seed"] == 0)]
    assert "\nranks compare means over different seeds (none is common to all methods)\n" in format_table(apart)


def test_a_failed_seed_is_seen_and_the_rest_is_compared(records):
    failed = JobRecord("hard-9", "failed", settings={**records[0].settings, "seed": 9}, error="boom")
    told = format_table([*records, failed])
    assert "3 done, 1 failed" in told
    assert "hard-9: boom" in told
    assert "+15.00 ± 0.00" in told


def test_the_table_of_methods_says_what_they_cost(records):
    table = {column.name: column.cells for column in method_columns(methods(records))}
    assert list(table)[-7:] == ["delta-m %", "val mean", "mean rank", "parameters", "seconds", "rows/s", "pareto"]
    assert [table[name] for name in ("parameters", "seconds", "rows/s")] == [[100, 300], [1.0, 1.0], [10, 10]]
    assert [*map(text, table["val mean"])] == ["0.1000 ± 0.0000"] * 2
    counted = method_columns(methods([replace(job, flops_per_row=8) for job in records]))
    assert next(column.cells for column in counted if column.name == "flops/row") == [8, 8]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_how_the_jobs_of_a_method_ended_is_told_in_one_order(records, status):
    first = replace(records[0], status=status)
    (table, *_) = (c.cells for c in method_columns(methods([first, *records[1:]])) if c.name == "jobs")
    assert table == [f"2 done, 1 {status}", "3 done"]


def test_the_title_of_methods_says_what_they_are_ranked_by(records):
    assert methods_title(methods(records)) == "Methods, ranked by mean test score over the seeds"
    on_val = [replace(job, metrics={"val/mean": 0.5, "val/a/auroc": 0.5, "val/b/rmse": 0.5}) for job in records]
    assert methods_title(methods(on_val)) == "Methods, ranked by mean validation score over the seeds"
    assert methods_title(methods([replace(job, status="failed") for job in records])) == "Methods"


def test_the_files_of_a_sweep_hold_methods_and_jobs(tmp_path, records):
    for record in records:
        with RunFolder.claim(tmp_path / record.job) as run:
            config = {"sharing": {"name": record.settings["sharing.name"]}, "seed": record.settings["seed"]}
            run.write_config(json.dumps(config), [])
            run.set_status("done")
            run.write_json(
                "summary.json",
                {
                    "tasks": ["a", "b"], "monitor": "mean", "mode": "max", "best": None, "metrics": record.metrics,
                    "primary": record.primary, "higher_is_better": record.higher_is_better, "seconds": 1.0,
                    "parameters": {"total": record.parameters}, "rows": {"train": 1000}, "data_fingerprint": "x",
                },
            )  # fmt: skip
    write(tmp_path, collect(tmp_path))
    told = json.loads((tmp_path / "leaderboard.json").read_text())
    assert [(m["method"], m["done"]) for m in told["methods"]] == [
        ({"sharing": "hard"}, 3),
        ({"sharing": "separate"}, 3),
    ]
    assert told["methods"][0]["delta_m_percent"]["mean"] == pytest.approx(15.0)
    assert len(told["jobs"]) == 6
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert markdown.startswith("```\nDoes sharing pay? Yes")
    assert "## Methods, ranked by mean test score over the seeds\n\n| rank | sharing |" in markdown
    assert "| 1 | hard | 3 done | 0.5610 ± 0.0110 |" in markdown
    header, first, *_ = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert float(first.split(",")[header.split(",").index("delta-m %")]) == pytest.approx(15.0)
