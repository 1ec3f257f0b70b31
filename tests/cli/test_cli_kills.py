"""Runs killed by SIGKILL, over and over, in the middle of anything, end as the run that nobody killed: bit for bit.

RES-01, RES-02. The kills come at random moments and in every state that the files of a run pass through; see zygote.py.
"""

import itertools
import random

import pytest
from kills import STREAMED, World, Zygote

# State of every sort: dropout's generator, weights that a method learns, several checkpoints.
STATEFUL = [
    "balancing=uncertainty", "sharing=mmoe", "encoder.dropout=0.3", "scheduler=cosine", "data.mixing=uniform",
    "trainer.checkpoint.every_n_steps=4", "trainer.checkpoint.save_top_k=2",
]  # fmt: skip
SHARINGS = ["hard", "mmoe", "cross_stitch"]
BALANCINGS = ["uncertainty", "famo", "nash_mtl", "pcgrad"]
SETTINGS = [
    ["encoder.dropout=0.3", "scheduler=cosine", "trainer.checkpoint.every_n_steps=3"],
    ["trainer.accumulate_grad_batches=2", "trainer.early_stopping.patience=1", "data.mixing=temperature"],
    ["trainer.precision=bf16-mixed", "encoder.dropout=0.2", "trainer.max_steps=14", "data.shuffle=false"],
    ["trainer.on_nonfinite=skip", "balancing.loss_scale=initial", "data.mixing=round_robin", "optimizer=sgd"],
    ["scheduler=linear", "trainer.check_val_every_n_epoch=2", "trainer.checkpoint.save_top_k=-1"],
]  # fmt: skip


@pytest.fixture(scope="module")
def zygote():
    """One for all tests of this file: its imports take seconds."""
    process = Zygote()
    yield process
    process.close()


def _number(events, name, count):
    """Number of the ``count``-th event of a name, both from 1."""
    return [number for number, event in enumerate(events, start=1) if event == name][count - 1]


def _fault_points(events):
    """The states in which a write of a checkpoint, of metrics or of the status can be torn, by name."""
    last = "run/checkpoints/last.pt"
    return {
        "status said, no more": {"event": _number(events, "replace run/status.json", 1) + 2},
        "configuration written, no more": {"event": _number(events, "replace run/config.yaml", 1) + 2},
        "in the first line of metrics": {"event": _number(events, "write run/metrics.jsonl", 1), "half": True},
        "between the first last and best": {"event": _number(events, f"replace {last}", 1) + 2},
        "before the temporary file": {"event": _number(events, f"open {last} (temporary)", 2)},
        "half a temporary file": {"event": _number(events, f"flush {last} (temporary)", 3), "half": True},
        "between fsync and rename": {"event": _number(events, f"replace {last}", 2)},
        "between rename and fsync of the folder": {"event": _number(events, f"replace {last}", 2) + 1},
        "between metrics and checkpoint": {"event": _number(events, "write run/metrics.jsonl", 4) + 1},
        "between checkpoint and summary": {"event": _number(events, "open run/summary.json (temporary)", 1)},
        "between summary and status": {"event": _number(events, "replace run/summary.json", 1) + 2},
    }


def _kill_at_points_and_later(zygote, folder, points, events, moments, arguments=()):
    """Kills a run at each fault point, then before some early changes of a file, then at some random moments.

    Returns how many kills took effect: all at points and changes; not those at moments when a run had ended.
    """
    world = World(zygote, folder, [*STATEFUL, *arguments, "trainer.max_epochs=2"])
    draw, known, took_effect = random.Random(0), _fault_points(world.events), 0
    for point in points or known:
        early = [{"event": draw.randint(1, 25), "half": draw.random() < 0.5} for _ in range(events)]
        late = [{"seconds": draw.uniform(0.1, 0.8) * world.ended.seconds} for _ in range(moments)]
        took_effect += world.kill_and_compare([known[point], *early, *late])
    return took_effect


def test_killed_while_it_writes_and_again_at_any_moment(zygote, tmp_path):
    points = ["in the first line of metrics", "half a temporary file"]
    assert _kill_at_points_and_later(zygote, tmp_path, points, events=4, moments=1) >= 10


def test_killed_while_its_rows_are_streamed(zygote, tmp_path):
    points = ["half a temporary file", "between rename and fsync of the folder"]
    assert _kill_at_points_and_later(zygote, tmp_path, points, events=0, moments=2, arguments=STREAMED) >= 2


def test_killed_while_a_finished_run_is_given_more_epochs(zygote, tmp_path):
    world = World(zygote, tmp_path, ["trainer.max_epochs=2"], finished=["trainer.max_epochs=1"])
    new_limits = _number(world.events, "replace run/config.yaml", 1) + 1  # they stand there, nothing was trained
    assert world.kill_and_compare([{"event": new_limits}]) == 1
    assert len((tmp_path / "here/run/metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_killed_in_every_sort_of_write(zygote, tmp_path):
    assert _kill_at_points_and_later(zygote, tmp_path, None, events=1, moments=1) >= 22


@pytest.mark.slow
def test_killed_in_every_sort_of_write_while_its_rows_are_streamed(zygote, tmp_path):
    options = [*STREAMED, "data.epoch=21"]
    assert _kill_at_points_and_later(zygote, tmp_path, None, events=0, moments=2, arguments=options) >= 11


@pytest.mark.slow
def test_killed_before_every_change_of_a_file(zygote, tmp_path):
    # Nothing is drawn here: these are all the states that the files of this run pass through
    world = World(zygote, tmp_path, [*STATEFUL, "trainer.max_epochs=2"])
    for number, event in enumerate(world.events, start=1):
        torn = event.startswith(("write", "pwrite", "flush"))
        for half in (False, True)[: 1 + torn]:
            assert world.kill_and_compare([{"event": number, "half": half}]) == 1, event


@pytest.mark.slow
@pytest.mark.parametrize(("sharing", "balancing"), list(itertools.product(SHARINGS, BALANCINGS)))
def test_killed_many_times_with_every_sort_of_state(zygote, tmp_path, sharing, balancing):
    number = SHARINGS.index(sharing) * len(BALANCINGS) + BALANCINGS.index(balancing)
    world = World(zygote, tmp_path, [f"sharing={sharing}", f"balancing={balancing}", *SETTINGS[number % len(SETTINGS)]])
    draw, took_effect = random.Random(number), 0
    while took_effect < 12:
        at_event = {"event": draw.randint(1, len(world.events)), "half": draw.random() < 0.5}
        later = {"event": draw.randint(1, len(world.events) // 2), "half": draw.random() < 0.5}
        at_time = [{"seconds": draw.uniform(0.1, 1.0) * world.ended.seconds} for _ in range(2)]
        took_effect += world.kill_and_compare([at_event, at_time[0], later, at_time[1]])
