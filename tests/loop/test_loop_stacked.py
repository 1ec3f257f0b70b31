"""Steps of several trainings at once are the steps of each alone."""

import time
from functools import partial

import numpy as np
import pytest
import torch
from worlds import make_learner, make_rows, make_trainer, three_kind_rows, three_kinds

import mtl_cli.together
from mtl_cli.loop.stacked import Stack, likeness
from mtl_cli.loop.trainer import Interrupted
from mtl_cli.run import RunFolder
from mtl_cli.seeding import OwnGenerators
from mtl_cli.together import run_together

RUNS = 3


def _trainers(folder, rows, batch_size, *, categories=(), hidden=(), dropout=0.0, shared_dim=24, **options):
    trainers, generators = [], []
    for run in range(RUNS):
        generators.append(OwnGenerators())
        with generators[-1]:
            learner = make_learner(
                three_kinds(), shared_dim=shared_dim, categories=categories, seed=run, clip=0.5 if run == 1 else None,
                encoder={"hidden": list(hidden), "dropout": dropout * (run > 0)},
                optimizer_options={"lr": 0.001 * (run + 1)}, **options,
            )  # fmt: skip
        claimed = RunFolder.claim(folder / str(run))
        weights = [1.0, 0.5 + run, 0.0]
        trainers.append(make_trainer(claimed, learner, rows, batch_size=batch_size, seed=run, weights=weights))
    return trainers, generators


def _results(trainers):
    values = torch.stack([trainer.learner.parameters.values for trainer in trainers])
    return values, [trainer.metrics.read() for trainer in trainers]


def _alone_and_together(tmp_path, rows, batch_size, **options):
    alone, generators = _trainers(tmp_path / "alone", rows, batch_size, **options)
    for trainer, own in zip(alone, generators, strict=True):
        with own:
            trainer.fit()
    together, _ = _trainers(tmp_path / "together", rows, batch_size, **options)
    assert len({likeness(trainer) for trainer in together}) == 1
    seeded = [_seeded(trainer, run) for run, trainer in enumerate(together)]
    outcomes = run_together(seeded, lambda: None)
    assert [outcome.error for outcome in outcomes] == [None] * RUNS
    return _results(alone), _results(together)


def _seeded(trainer, run):
    """The training, with generators as they are after the learner of that run was made."""

    def steps(*_):
        make_learner(three_kinds(), shared_dim=24, seed=run)
        yield from trainer.steps()

    return steps


@pytest.mark.parametrize("batch_size", [32, 96])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("balancing", ["equal", "uncertainty", "gls"])
def test_bits_are_those_of_each_alone(tmp_path, batch_size, missing, balancing):
    rows = three_kind_rows(250, missing=missing)  # with a last batch of another size
    alone, together = _alone_and_together(tmp_path, rows, batch_size, hidden=(17,), balancing=balancing)
    assert torch.equal(alone[0], together[0])
    assert alone[1] == together[1]


@pytest.mark.parametrize(
    "narrow", [{"shared_dim": 1}, {"shared_dim": 2}, {"hidden": (1,)}, {"hidden": (2,)}, {"hidden": (2, 3)}], ids=str
)
def test_bits_of_very_narrow_models_are_those_of_each_alone(tmp_path, narrow):
    alone, together = _alone_and_together(tmp_path, three_kind_rows(224), 64, **narrow)
    assert torch.equal(alone[0], together[0])
    assert alone[1] == together[1]


def test_categories_and_other_rows_for_each(tmp_path):
    draw = np.random.default_rng(0)
    rows = three_kind_rows(160)
    rows.inputs = rows.inputs._replace(categorical=torch.from_numpy(draw.integers(0, (4, 9), (160, 2))))
    alone, together = _alone_and_together(tmp_path, rows, 32, categories=(4, 9), optimizer="adam")
    assert torch.equal(alone[0], together[0])
    assert alone[1] == together[1]


def test_other_batch_sizes_agree_to_the_last_digits(tmp_path):
    alone, together = _alone_and_together(tmp_path, three_kind_rows(70), 7)
    torch.testing.assert_close(alone[0], together[0], rtol=1e-4, atol=1e-6)


def test_batches_without_any_label_are_no_steps(tmp_path):
    rows = three_kind_rows(128)
    targets = rows.labels.targets.numpy().copy()
    targets[20:] = np.nan
    rows = make_rows(rows.inputs, targets)
    alone, together = _alone_and_together(tmp_path, rows, 32)
    assert torch.equal(alone[0], together[0])
    assert alone[1] == together[1]


@pytest.mark.parametrize(
    "options",
    [
        {"balancing": "pcgrad"}, {"balancing": "gradnorm"}, {"balancing": "famo"}, {"sharing": "separate"},
        {"loss_scale": "initial"}, {"piece": 8}, {"encoder": {"activation": "gelu"}}, {"encoder": {"norm": "layer"}},
    ],
    ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items()),
)  # fmt: skip
def test_what_cannot_be_stacked_is_not(tmp_path, options):
    trainer = make_trainer(RunFolder.claim(tmp_path / "run"), make_learner(three_kinds(), **options), three_kind_rows())
    assert likeness(trainer) is None


def test_a_training_that_ends_leaves_the_others_alone(tmp_path, monkeypatch):
    sizes, make = [], Stack.make
    monkeypatch.setattr(Stack, "make", lambda self, steps: (sizes.append(len(steps)), make(self, steps))[1])
    rows = three_kind_rows(64)
    trainers, _ = _trainers(tmp_path, rows, 32)
    trainers[1].limits = type(trainers[1].limits)(1, None, None)

    def breaks_off(*_):
        steps = trainers[2].steps()
        result = yield next(steps)
        for _ in range(2):
            result = yield steps.send(result)
        raise ZeroDivisionError

    outcomes = run_together([lambda *_: trainers[0].steps(), lambda *_: trainers[1].steps(), breaks_off], lambda: None)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), type(None), ZeroDivisionError]
    assert [trainer.progress.epoch for trainer in trainers[:2]] == [2, 1]
    assert sizes == [3, 3, 2]  # the fourth step is made by the first training alone


def test_what_cannot_be_stacked_for_want_of_memory_is_made_in_turn(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("no more memory")

    monkeypatch.setattr(Stack, "__init__", refuse)
    alone, together = _alone_and_together(tmp_path, three_kind_rows(64), 32)
    assert torch.equal(alone[0], together[0])
    assert alone[1] == together[1]
    told = "3 jobs cannot be trained together, and make their steps in turn: RuntimeError: no more memory"
    assert caplog.messages == [told]


def _refused(*_):
    raise ZeroDivisionError


@pytest.mark.parametrize(("place", "failed"), [("likeness", 1), ("parts", 3)])
def test_trainings_whose_place_cannot_be_told_fail_by_themselves(tmp_path, monkeypatch, place, failed):
    trainers, _ = _trainers(tmp_path, three_kind_rows(64), 32)
    if place == "parts":
        monkeypatch.setattr(Stack, "parts", _refused)
    else:
        told = mtl_cli.together.likeness
        monkeypatch.setattr(mtl_cli.together, "likeness", lambda t: _refused() if t is trainers[0] else told(t))
    other = make_trainer(RunFolder.claim(tmp_path / "other"), make_learner(three_kinds()), three_kind_rows(64))
    outcomes = run_together([partial(_steps, trainer) for trainer in (*trainers, other)], lambda: None)
    assert [type(outcome.error) for outcome in outcomes] == [ZeroDivisionError] * failed + [type(None)] * (4 - failed)


@pytest.mark.parametrize("saved", [False, True], ids=["at once", "asked"])
def test_a_second_signal_within_one_training_stops_all(tmp_path, saved):
    trainers, _ = _trainers(tmp_path, three_kind_rows(64), 32)

    def pressed(*_):
        yield next(trainers[1].steps())
        raise KeyboardInterrupt from (Interrupted(2) if saved else None)

    trainings = [partial(_steps, trainers[0]), pressed, partial(_steps, trainers[2])]
    outcomes = run_together(trainings, lambda: None)
    other = type(None) if saved else KeyboardInterrupt
    assert [type(outcome.error) for outcome in outcomes] == [other, KeyboardInterrupt, other]


def test_a_third_signal_keeps_no_other_training_from_its_end(tmp_path):
    trainers, _ = _trainers(tmp_path, three_kind_rows(64), 32)
    ended = []

    def training(number, *_):
        try:
            yield from trainers[number].steps()
        finally:
            ended.append(number)
            raise KeyboardInterrupt  # pressed while it says how it ended

    def pressed(*_):
        yield next(trainers[2].steps())
        raise KeyboardInterrupt

    run_together([partial(training, 0), partial(training, 1), pressed], lambda: None)
    assert ended == [0, 1]


def _steps(trainer, *_):
    return trainer.steps()


def test_the_time_of_a_step_is_shared_by_those_that_it_is_made_for(tmp_path, monkeypatch):
    make = Stack.make
    monkeypatch.setattr(Stack, "make", lambda self, steps: (time.sleep(0.15), make(self, steps))[1])
    trainers, _ = _trainers(tmp_path, three_kind_rows(64), 32)
    clocks = []

    def training(trainer, _, clock):
        clocks.append(clock)
        yield from trainer.steps()
        return clock()

    began = time.monotonic()
    ended = run_together([partial(training, trainer) for trainer in trainers], lambda: None)
    whole = time.monotonic() - began
    took = [outcome.value for outcome in ended]
    assert len({*clocks}) == len(trainers)
    assert min(took) >= 4 * 0.15 / len(trainers)  # two epochs of two steps
    assert sum(took) <= whole  # where each of them took the time of all before
