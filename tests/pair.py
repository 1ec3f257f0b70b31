"""One of two processes that train small worlds together, each of which this process also trains alone.

Usage: python pair.py FOLDER (with what torchrun sets in the environment). Each writes what it found into the folder:
for each world the largest difference to the training alone, of losses and of weights, relative to the largest of them.
"""

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from worlds import NAN, make_learner, make_rows, make_settled_learner, make_tasks, three_kind_rows, three_kinds

from mtl_cli.data.batches import plan_epoch
from mtl_cli.errors import DataError, MTLError
from mtl_cli.loop import train_step
from mtl_cli.loop.diagnostics import look
from mtl_cli.loop.passes import ValidationBatches
from mtl_cli.loop.step import NotFinite
from mtl_cli.processes import ALONE, STOP, TIME_OVER, Meeting
from mtl_cli.registry import BALANCINGS, SHARINGS
from mtl_cli.types import Inputs

NAMES = ["task0", "task1", "task2"]
DRAWS = ("ltb",)  # architectures that draw at random for every batch
evaluation = import_module("mtl_cli.loop.evaluate")  # its function has the module's name in the package


def rows(missing=True, weighted=False):
    """Eleven rows: of the first batch of five the second process has no label of task 1, and nobody has task 2's."""
    found = three_kind_rows(11)
    targets = found.labels.targets.numpy().copy()
    if missing:
        targets[2:5, 1] = targets[:5, 2] = NAN
        targets[7, 0] = NAN
    shares = np.linspace(0.5, 2, targets.size).reshape(targets.shape) if weighted else None
    return make_rows(Inputs(found.inputs.numeric, torch.arange(11).unsqueeze(1) % 4), targets, shares=shares)


def learner_of(**options):
    return make_settled_learner(three_kinds(), categories=(4,), **options)


def _plan(data, batch_size=5, weights=(1.0, 1.0, 1.0)):
    return plan_epoch(data, 0, batch_size=batch_size, weights=np.array(weights), seed=0, shuffle=False)


def train(processes, missing=True, weighted=False, batch_size=5, **options):
    """An epoch without shuffling, the last batch a single row; the losses of all steps and the weights."""
    data = rows(missing, weighted)
    learner = learner_of(optimizer="sgd", optimizer_options={"lr": 0.05}, **options)
    learner = replace(learner, processes=processes)
    weights = np.array([1.0, 2.0, 0.5])
    validation = ValidationBatches(data, 4, weights, 0)
    plan = _plan(data, batch_size, weights)
    losses = [train_step(learner, data, plan, step, step, validation).sums for step in range(len(plan.bounds))]
    state = {key: value for key, value in learner.balancing.state_dict().items() if value.is_floating_point()}
    return {
        "losses": torch.cat(losses),
        "weights": torch.cat([optimizer.flat.values for optimizer in learner.optimizers]),
        "state": torch.cat([torch.zeros(1), *(value.flatten() for value in state.values())]),
    }


def difference(options, processes):
    alone, together, gaps = train(ALONE, **options), train(processes, **options), {}
    for name, one in alone.items():
        other = together[name]
        assert torch.equal(one.isnan(), other.isnan())
        one, other = one.nan_to_num().double(), other.nan_to_num().double()
        gaps[name] = float((one - other).abs().max() / one.abs().max().clamp_min(1e-3))
    return gaps


def look_difference(processes):
    """How far the diagnostics of a step are from those of one process."""
    data, learner, plan = rows(), learner_of(), _plan(rows())
    alone = look(learner, data, plan, 1, NAMES)
    together = look(replace(learner, processes=processes), data, plan, 1, NAMES)
    assert alone.keys() == together.keys()
    return max(abs(alone[key] - together[key]) for key in alone)


def score_difference(processes, count):
    """Whether the metrics of some rows, evaluated two at a time, are those of one process: 0 if they are."""
    learner = make_learner(three_kinds())
    found = [
        evaluation.evaluate(who, three_kind_rows(count), make_tasks(who)).flat("val")
        for who in (learner, replace(learner, processes=processes))
    ]
    return float(found[0] != found[1])


def announced(processes, count):
    """How often an evaluation of some rows, two at a time, announces a batch in this process."""
    calls, learner = [], replace(make_learner(three_kinds()), processes=processes)
    evaluation.evaluate(learner, three_kind_rows(count), make_tasks(learner), before_batch=lambda: calls.append(1))
    return len(calls)


def gate_difference(processes, count):
    """How far what is said of gates after such an evaluation is from what one process says.

    There is an evaluation of all rows before it: a process without rows in the second one had some in the first.
    """
    learner = learner_of(sharing="mmoe")
    found = []
    for who in (learner, replace(learner, processes=processes)):
        for rows in (12, count):
            evaluation.evaluate(who, _first(rows), make_tasks(who))
        found.append([value for told in learner.model.sharing.report(NAMES) for row in told.values for value in row])
    one, other = found
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _first(count):
    """Some of the rows, all of them labelled."""
    whole = three_kind_rows(count)
    return make_rows(Inputs(whole.inputs.numeric, torch.arange(count).unsqueeze(1) % 4), whole.labels.targets.numpy())


def draw_difference(processes):
    """With dropout: how far the weights are from those of one process, and whether generators are those of the other.

    Twice the same must be the same.
    """
    one, other = (train(processes, encoder={"dropout": 0.5})["weights"] for _ in range(2))
    assert torch.equal(one, other)
    processes.refuse_difference(lambda: str((one.tolist(), torch.get_rng_state().tolist())), "all of it", "")
    return float((one - train(ALONE, encoder={"dropout": 0.5})["weights"]).abs().max())


def tasks_not_finite(processes):
    """The tasks whose loss is named where a row of the second process alone has a label that is infinite."""
    data, learner = rows(missing=False), replace(learner_of(), processes=processes)
    data.labels.targets[4, 0] = float("inf")
    try:
        train_step(learner, data, _plan(data), 0, 0, only_finite=True)
    except NotFinite as error:
        return error.tasks
    return None


def steps_until_all_know(processes, wish):
    """How many steps it takes until this process knows what the second one wishes for."""
    for step in range(10):
        if processes.anyone(wish, processes.rank == 1):
            return step
        processes.add_up_losses(torch.zeros(3), torch.zeros(3))
    return None


def told(processes, act):
    """The message with which something fails in this process."""
    try:
        act()
    except MTLError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fail_in_second(processes):
    with processes.alike():
        if processes.rank == 1:
            raise DataError("no file")


def worlds():
    for name in BALANCINGS.names():
        yield f"balancing {name}", {"balancing": name}
        if "gradients_on" in BALANCINGS.options(name):
            options = {"balancing": name, "balancing_options": {"gradients_on": "features"}}
            yield f"balancing {name} on features", {**options, "missing": False}
    for name in SHARINGS.names():
        if SHARINGS.load(name).chain is None and name not in DRAWS:
            yield f"sharing {name}", {"sharing": name}
    yield "a penalty on rows", {"sharing": "dselect_k", "sharing_options": {"per_example": True, "experts": 5}}
    yield "in pieces", {"balancing": "uncertainty", "piece": 3}
    yield "gradients in pieces", {"balancing": "pcgrad", "piece": 3}
    yield "scaled and clipped", {"loss_scale": "initial", "clip": 0.1}
    yield "no label missing", {"missing": False}
    yield "a row at a time", {"batch_size": 1}
    yield "rows that count differently", {"weighted": True}
    yield "rows that count differently, a row at a time", {"weighted": True, "batch_size": 1, "balancing": "upgrad"}


def main():
    torch.set_num_threads(1)
    evaluation.EVALUATION_ROWS = 2  # at a time, in this process
    processes = Meeting().join()
    found = {
        "training": {name: difference(options, processes) for name, options in worlds()},
        "look": look_difference(processes),
        "scores": {str(count): score_difference(processes, count) for count in (1, 5, 12)},
        "announced": {str(count): announced(processes, count) for count in (1, 5, 12)},
        "gates": {str(count): gate_difference(processes, count) for count in (1, 5, 12)},
        "draws": draw_difference(processes),
        "drift": told(processes, lambda: processes.refuse_difference(lambda: str(processes.rank), "weights", "Hint.")),
        "failure": told(processes, lambda: fail_in_second(processes)),
        "not finite": tasks_not_finite(processes),
        "wishes": [steps_until_all_know(processes, wish) for wish in (STOP, TIME_OVER)],
        "largest": processes.largest(processes.rank),
    }
    Path(sys.argv[1], f"{processes.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
