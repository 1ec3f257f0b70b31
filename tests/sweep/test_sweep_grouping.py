"""The best grouping is found among all, chosen on validation rows and told on test rows."""

from dataclasses import replace
from itertools import combinations

import pytest

from mtl_cli.sweep import JobRecord, format_table
from mtl_cli.sweep.comparison import methods
from mtl_cli.sweep.grouping import answer, as_json, groups_to_train, studies

ALONE = {**dict.fromkeys("abdef", 0.5), "c": 2.0}  # c is an error: lower is better


def _job(group, seed, val, test, parameters=100):
    metric = {t: "rmse" if t == "c" else "auroc" for t in group}
    metrics = {f"val/{t}/{metric[t]}": v for t, v in val.items()} | {
        f"test/{t}/{metric[t]}": v for t, v in test.items()
    }
    return JobRecord(
        f"{'-'.join(group)}-{seed}", "done", metrics=metrics, primary={t: metric[t] for t in group},
        higher_is_better={t: metric[t] == "auroc" for t in group}, settings={"only": list(group), "seed": seed},
        parameters=parameters, score=1.0, monitor="mean", mode="max",
    )  # fmt: skip


def _sweep(gain, groups, seeds=3, test_gain=None):
    """Jobs in which task t of a group changes by ``gain(group, t)`` per cent, better above 0."""

    def values(group, seed, of):
        noise = 1 + seed / 1000
        return {t: ALONE[t] * noise * (1 + (of(group, t) if t != "c" else -of(group, t)) / 100) for t in group}

    return [
        _job(group, seed, values(group, seed, gain), values(group, seed, test_gain or gain))
        for group in groups
        for seed in range(seeds)
    ]


def _friends(group, task):
    """a and b help each other, c is hurt by and hurts both."""
    return 10.0 * ("c" not in group and len(group) == 2) - 5.0 * ("c" in group and len(group) > 1)


EVERY = groups_to_train("every_subset", "abc")


def _study(among):
    (found,) = studies(among)
    return found


def test_the_best_grouping_for_each_number_of_models():
    found = _study(methods(_sweep(_friends, EVERY)))
    one, two = found.groupings()  # a third model gains nothing
    assert one.groups == (("a", "b", "c"),)
    assert one.change.mean == pytest.approx(-5.0)
    assert two.groups == (("a", "b"), ("c",))
    assert two.change.mean == pytest.approx(20 / 3)
    assert two.change.n == 3
    assert two.tasks["c"].mean == 0
    assert two.parameters == 200
    assert found.parameters_apart() == 300


def test_a_task_may_be_served_by_a_model_that_was_trained_on_more():
    def helper(group, task):  # c helps a and b, and is hurt itself
        return 8.0 if "c" in group and task != "c" else -20.0 * (task == "c" and len(group) > 1)

    two = _study(methods(_sweep(helper, EVERY))).groupings()[1]
    assert (two.groups, two.models) == ((("a", "b"), ("c",)), (("a", "b", "c"), ("c",)))
    assert str(two) == "a+b (trained with c) | c"


def test_groupings_are_chosen_on_validation_rows_and_told_on_test_rows():
    told = _sweep(_friends, EVERY, test_gain=lambda group, _: -1.0 * (len(group) > 1))
    two = _study(methods(told)).groupings()[1]
    assert two.groups == (("a", "b"), ("c",))
    assert two.chosen_by == pytest.approx(20 / 3)
    assert two.change.mean == pytest.approx(-2 / 3)
    first = answer(methods(told)).splitlines()[0]
    assert first.startswith(
        "Which tasks together? No grouping is clearly better than each task alone (a+b | c: -0.67 %"
    )
    assert first.endswith(" One model for all has 67 % fewer parameters: -1.00 % ± 0.00, worse.")


def test_more_seeds_are_wanted_where_they_may_tell():
    def noisy(group, task, seed):
        return (4.0 - 3.0 * seed) * (len(group) == 2 and "c" not in group)

    jobs = [
        _job(group, seed, *[{t: ALONE[t] * (1 + noisy(group, t, s) / 100) for t in group} for s in (0, seed)])
        for group in EVERY
        for seed in range(3)
    ]
    told = answer(methods(jobs)).splitlines()[0]
    assert told.startswith("Which tasks together? No grouping is clearly better than each task alone (a+b | c: +0.67 %")
    assert told.endswith(" More seeds may tell: seed=0,1,2,3,4,5.")
    apart = answer(methods(_sweep(lambda group, _: -5.0 * (len(group) > 1), EVERY))).splitlines()[0]
    assert "each alone, what the others are compared with" in apart
    assert "More seeds" not in apart
    assert "which cannot tell. More seeds may tell: seed=0,1,2,3,4." in answer(
        methods(_sweep(_friends, EVERY, seeds=1))
    )


def test_pairs_predict_larger_groups():
    pairs = groups_to_train("every_pair", "abc")[:-1]

    def gain(group, task):
        return {"ab": 4.0, "ac": 2.0, "bc": 6.0}.get("".join(group), 0.0)

    one = _study(methods(_sweep(gain, pairs))).groupings()[0]
    assert (one.untrained, one.parameters) == ((("a", "b", "c"),), None)
    assert one.chosen_by == pytest.approx((3 + 5 + 4) / 3)  # each task: the mean over its two pairs
    told = answer(methods(_sweep(gain, pairs)))
    assert "a (trained with b) | b+c: +5.33 % ± 0.00, better than each alone." in told
    assert "  1 model   a+b+c: +4.00 %, predicted from pairs on validation rows\n" in told
    alike = answer(methods(_sweep(lambda group, _: 5.0 * (len(group) == 2), pairs)))
    assert "Predicted from pairs: a+b+c (+5.00 % on validation rows). Train it to know: only=[a,b,c]." in alike


def test_without_all_pairs_nothing_is_predicted():
    found = _study(methods(_sweep(_friends, [("a",), ("b",), ("c",), ("a", "b"), ("b", "c")]))).groupings()
    assert [(one.groups, one.untrained) for one in found] == [((("a", "b"), ("c",)), ())]


def test_what_to_train_is_what_was_not_trained():
    def helped(group, task):  # a, b and c help each other; d has most of all together
        pair = 5.0 if "d" not in group else -5.0
        return {1: 0.0, 2: pair, 4: 10.0 if task == "d" else -20.0}[len(group)]

    told = answer(methods(_sweep(helped, groups_to_train("every_pair", "abcd"))))
    grouping = "a+b+c | d (trained with a+b+c)"
    what = f"Predicted from pairs: {grouping} (+6.25 % on validation rows). Train it to know: only=[a,b,c]."
    assert told.startswith(f"Which tasks together? {what}\n")

    friends = [*combinations("abc", 2), *combinations("def", 2)]

    def parted(group, _):
        return 0.0 if len(group) == 1 else 5.0 if group in friends else -5.0

    told = answer(methods(_sweep(parted, groups_to_train("every_pair", "abcdef"))))
    assert "Predicted from pairs: a+b+c | d+e+f (" in told
    assert "Train them to know: only=[a,b,c],[d,e,f]." in told


@pytest.mark.parametrize("seed", range(5))
def test_no_way_to_share_out_the_tasks_is_better(seed):
    import random

    draw = random.Random(seed)
    values = {(group, task): draw.uniform(-9, 9) if len(group) > 1 else 0.0 for group in EVERY for task in group}
    found = _study(methods(_sweep(lambda group, task: values[tuple(group), task], EVERY, seeds=1))).groupings()
    for grouping in found:  # every choice of that many trained models, each task taking the best that has it
        chosen = combinations(EVERY, len(grouping.groups))
        best = max(
            sum(max(values[model, t] for model in models if t in model) for t in "abc") / 3
            for models in chosen
            if set("abc") <= {t for model in models for t in model}
        )
        assert grouping.chosen_by == pytest.approx(best)
    assert max(g.chosen_by for g in found) == pytest.approx(
        sum(max(values[group, t] for group in EVERY if t in group) for t in "abc") / 3
    )


def test_the_answer_and_the_numbers_stand_in_the_leaderboard():
    jobs = _sweep(_friends, EVERY)
    told = format_table(jobs)
    assert "Which tasks together? a+b | c: +6.67 % ± 0.00, better than each alone." in told
    assert "7 groups of 3 tasks trained, 3 seeds each." in told
    assert "  2 models  a+b | c: +6.67 % ± 0.00, better, 200 parameters" in told
    assert "a +10.00 % ± 0.00: better" in told
    (found,) = as_json(methods(jobs))
    assert [one["groups"] for one in found["groupings"]][1] == [["a", "b"], ["c"]]
    assert len(found["groups"]) == 7
    assert not any(line.lstrip().startswith("1 ") for line in told.splitlines()[:9])  # no ranks over different tasks


def test_sweeps_over_something_else_are_no_study():
    assert studies(methods(_sweep(_friends, [("a",), ("b",)]))) == []
    assert studies(methods(_sweep(_friends, [("a", "b")]))) == []
    assert answer([]) is None
    assert as_json([]) == []


@pytest.mark.parametrize("failed", [False, True], ids=["absent", "failed"])
def test_tasks_that_were_not_trained_alone_are_named(failed):
    def lost(*groups):
        jobs = _sweep(_friends, EVERY)
        gone = [job for job in jobs if tuple(job.settings["only"]) in groups]
        kept = [job for job in jobs if job not in gone]
        return [*kept, *(replace(job, status="failed", primary={}, metrics={}) for job in gone)] if failed else kept

    told = answer(methods(lost(("c",))))
    assert told == "Which tasks together? Not known: c was not trained alone. Train it to know: only=[c]."
    assert as_json(methods(lost(("c",))))[0]["not_trained_alone"] == ["c"]
    told = answer(methods(lost(("a",), ("c",))))
    assert told == "Which tasks together? Not known: a, c were not trained alone. Train them to know: only=[a],[c]."
    assert "Which tasks together? " in format_table(lost(("b",)))
    told = answer(methods(lost(("b", "c"))))
    assert told.startswith("Which tasks together? a+b | c: +6.67 % ± 0.00, better than each alone.\n\n6 groups of ")
    assert told.endswith("\nWithout a finished job, and so in none of them: b+c") == failed


def test_a_group_that_was_trained_under_another_name_is_not_called_unfinished():
    declared = {f"tasks.{task}.weight": 1.0 for task in "abc"}
    jobs = [replace(job, settings={**job.settings, **declared}) for job in _sweep(_friends, EVERY)]
    settings = {**jobs[-1].settings, "only": None}  # all of them, as before
    again = replace(jobs[-1], job="again", settings=settings, status="failed", primary={}, metrics={})
    assert answer(methods([*jobs, again])) == answer(methods(jobs))


def test_each_data_set_and_setting_has_a_study_of_its_own():
    jobs = [
        replace(job, job=f"{name}-{job.job}", settings={**job.settings, "sharing.name": name}, data_fingerprint=name)
        for name, gain in (("hard", _friends), ("mmoe", lambda group, task: -_friends(group, task)))
        for job in _sweep(gain, EVERY)
    ]
    told = answer(methods(jobs))
    assert "Which tasks together, sharing=hard? a+b | c: +6.67 % ± 0.00, better than each alone." in told
    assert "Which tasks together, sharing=mmoe? " in told
    assert [one["study"] for one in as_json(methods(jobs))] == ["sharing=hard", "sharing=mmoe"]


def test_a_helper_is_part_of_the_model_and_serves_nobody():
    def gain(group, _):
        return 5.0 * ("h" in group) - 2.0 * (len(set(group) - {"h"}) > 1)

    jobs = []
    for group in [("a",), ("b",), ("a", "b"), ("a", "h"), ("b", "h"), ("a", "b", "h")]:
        for job in _sweep(gain, [tuple(t for t in group if t != "h")]):
            better = {key: value * (1.05 if "h" in group else 1) for key, value in job.metrics.items()}
            more = {"job": f"{'-'.join(group)}-{job.settings['seed']}", "metrics": better}
            jobs.append(replace(job, settings={**job.settings, "only": list(group)}, **more))
    found = _study(methods(jobs))
    assert found.tasks == ("a", "b")
    two = found.groupings()[-1]
    assert (two.groups, two.models) == ((("a",), ("b",)), (("a", "h"), ("b", "h")))
    assert two.tasks["a"].mean == pytest.approx(5.0)
    assert str(two) == "a (trained with h) | b (trained with h)"


@pytest.mark.parametrize(
    ("val", "test", "told"),
    [
        ([6.3, 6.3, 6.3], [16.0, 20.0, 24.0], "a+b | c: +13.33 % ± 2.67, better than each alone."),
        ([2.3, 6.3, 10.3], [20.0, 20.0, 20.0], "a+b+c: +3.00 % ± 0.00, better than each alone."),
    ],
    ids=["steady", "noisy"],
)
def test_groupings_that_choose_alike_are_told_by_the_spread_on_validation_rows(val, test, told):
    def changed(group, seed, pair):
        together = {"a": 6.0, "b": 6.0, "c": 3.0}  # c is the worse for it, by 3 %
        by = together if len(group) == 3 else dict.fromkeys(group, pair[seed] if group == ("a", "b") else 0.0)
        return {task: ALONE[task] * (1 + by[task] / 100) for task in group}

    jobs = [_job(g, seed, *(changed(g, seed, pair) for pair in (val, test))) for g in EVERY for seed in range(3)]
    assert answer(methods(jobs)).startswith(f"Which tasks together? {told}\n")


def test_a_trained_grouping_with_a_task_that_has_no_test_score_is_not_predicted():
    records = _sweep(_friends, EVERY)
    for record in records:
        record.metrics.update({key: None for key in record.metrics if key.startswith("test/b/")})
    among = methods(records)
    grouping = _study(among).groupings()[1]
    assert (grouping.untrained, grouping.without_score, grouping.change) == ((), ["b"], None)
    told = answer(among)
    assert "predicted" not in told.lower()
    assert "Train it to know" not in told
    what = "a+b | c is chosen, +6.67 % on validation rows; no test score, or one of 0 alone, for b."
    assert told.startswith(f"Which tasks together? Not known on test rows: {what}\n")
    assert as_json(among)[0]["groupings"][1]["without_test_score"] == ["b"]


def test_a_grouping_whose_tasks_share_no_seed_says_so():
    kept = {("a",): [0], ("b",): [1]}
    jobs = [j for j in _sweep(_friends, EVERY) if j.settings["seed"] in kept.get(tuple(j.settings["only"]), [0, 1, 2])]
    told = answer(methods(jobs))
    what = "a+b | c is chosen, +6.67 % on validation rows; no seed in common to all tasks."
    assert told.startswith(f"Which tasks together? Not known on test rows: {what}\n")


def test_names_that_are_no_plain_words_are_quoted_where_they_are_to_be_typed():
    def named(groups, gain):
        jobs = _sweep(gain, groups)
        return [replace(job, **_renamed(job)) for job in jobs]

    def _renamed(job):
        only = [{"a": "ja nein"}.get(task, task) for task in job.settings["only"]]
        metrics = {key.replace("/a/", "/ja nein/"): value for key, value in job.metrics.items()}
        primary = dict(zip(only, job.primary.values(), strict=True))
        return {"settings": {**job.settings, "only": only}, "metrics": metrics, "primary": primary}

    told = answer(methods(named([g for g in EVERY if g != ("a",)], _friends)))
    assert told.endswith("Not known: ja nein was not trained alone. Train it to know: 'only=[\"ja nein\"]'.")
    told = answer(methods(named(EVERY[:-1], lambda group, _: 5.0 * (len(group) == 2))))
    assert "Train it to know: 'only=[\"ja nein\",b,c]'." in told
