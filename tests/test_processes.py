"""Two processes that train together end as one process does: every method and architecture, one step after another."""

import json
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from pair import worlds
from torch import nn
from torch.distributed import HashStore
from worlds import start_pair

from mtl_cli import build
from mtl_cli.build.model_checks import refuse_statistics
from mtl_cli.errors import ConfigError, DataError
from mtl_cli.model import MultiTaskModel
from mtl_cli.processes import ALONE, DistributedGroup, Ending, Meeting, check
from mtl_cli.schema import validate

PAIR = Path(__file__).with_name("pair.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two found."""
    folder = tmp_path_factory.mktemp("pair")
    pair = start_pair([sys.executable, str(PAIR), str(folder)], folder)
    try:
        codes = [process.wait(timeout=240) for process in pair]
    finally:
        for process in pair:
            process.kill()
            process.wait()
    assert codes == [0, 0], [(folder / f"err{rank}.txt").read_text() for rank in range(2)]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("world", [name for name, _ in worlds()])
def test_losses_weights_and_state_are_those_of_one_process(found, world):
    # DST-01: in the first batch one process has no label of a task, and of another there is none at all
    for own in found:
        gaps = own["training"][world]
        assert max(gaps["losses"], gaps["weights"]) < 1e-6
        assert gaps["state"] < 1e-5  # some methods keep quotients of small differences


@pytest.mark.parametrize("count", ["1", "5", "12"])
def test_evaluation_counts_every_row_once(found, count):
    # DST-02
    assert [own["scores"][count] for own in found] == [0, 0]
    assert [own["announced"][count] for own in found] == [{"1": 1, "5": 2, "12": 3}[count]] * 2  # they may agree there


@pytest.mark.parametrize("count", ["1", "5", "12"])
def test_what_is_said_of_gates_is_of_all_rows(found, count):
    assert max(own["gates"][count] for own in found) < 1e-6


def test_look_at_the_gradients_is_that_of_one_process(found):
    assert max(own["look"] for own in found) < 1e-5


def test_dropout_is_drawn_by_each_process_and_leaves_the_generators_alike(found):
    assert min(own["draws"] for own in found) > 0


def test_replicas_that_differ_are_noticed_by_all(found):
    for own in found:
        assert own["drift"] == "TrainingError: weights: not the same in process 1 as in process 0. Hint."


def test_what_fails_in_one_process_fails_in_all(found):
    assert [own["failure"] for own in found] == ["RunError: process 1: no file", "DataError: no file"]


def test_all_stop_for_what_is_not_finite_in_one_process(found):
    assert [own["not finite"] for own in found] == [[0], [0]]


def test_all_hear_of_a_wish_at_the_same_step(found):
    assert [own["wishes"] for own in found] == [[2, 2], [2, 2]]


def test_all_hear_the_largest_number(found):
    assert [own["largest"] for own in found] == [1, 1]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_disjoint_and_complete(count, size):
    parts = [DistributedGroup(rank, size).own_part(10, 10 + count) for rank in range(size)]
    assert [row for start, stop in parts for row in range(start, stop)] == list(range(10, 10 + count))
    assert ALONE.own_part(3, 8) == (3, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"WORLD_SIZE": "0"},
            "WORLD_SIZE: must be at least 1, got 0. torchrun sets it; unset it for a training ",
        ),
        ({"RANK": "2"}, "RANK: must be below WORLD_SIZE, which is 2, got 2. The first process is 0."),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT: must be a whole number, got 'abc'."),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT: must be at most 65535, got 65536."),
        ({"MASTER_ADDR": ""}, "WORLD_SIZE: is 2, for a training in so many processes, and MASTER_ADDR is not set."),
    ],
)
def test_what_torchrun_would_not_set_is_refused(monkeypatch, given, message):
    own = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {**own, **given}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        check()
    assert str(refused.value).startswith(message)


@pytest.fixture
def meeting(monkeypatch):
    """The meeting of the first of two processes, at a store that knows nothing of the other."""
    met = import_module("torch.distributed.rendezvous")
    monkeypatch.setattr(met, "rendezvous", lambda *_, **__: iter([(HashStore(), 0, 2)]))
    monkeypatch.setattr("mtl_cli.processes._FAREWELL", timedelta(seconds=0.05))
    monkeypatch.setattr("mtl_cli.processes._LEAVING", timedelta(seconds=0.05))
    return Meeting()


def test_one_that_failed_waits_a_while_for_the_first_and_hears_how_it_ended(meeting):
    assert meeting.wait_for_end(failed=True) is None
    meeting.end(Ending(2, "no file"))
    assert meeting.wait_for_work() is None
    assert meeting.wait_for_end(failed=True) == Ending(2, "no file")


@pytest.mark.parametrize(("told", "order"), [("no space", ["leave", "wait", "leave"]), ("", ["wait", "leave"])])
def test_the_first_does_not_wait_for_those_who_wait_for_it_in_a_step(meeting, monkeypatch, told, order):
    made = []
    monkeypatch.setattr(meeting, "leave", lambda: made.append("leave"))
    monkeypatch.setattr(meeting, "_are_there", lambda *_: made.append("wait"))
    meeting.end(Ending(1, told))
    assert made == order


def test_layers_with_statistics_over_a_batch_are_refused():
    model = MultiTaskModel(3, [1], 4)
    refuse_statistics(model)
    model.sharing.encoder.norm = nn.BatchNorm1d(4)
    with pytest.raises(ConfigError) as refused:
        refuse_statistics(model)
    assert str(refused.value) == (
        "WORLD_SIZE: 'sharing.encoder.norm' is a BatchNorm1d, whose statistics would be of each process's rows alone. "
        "Use LayerNorm or GroupNorm, or train in one process."
    )


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ("2", "data.in_memory: is auto, and rows are not streamed in several processes, each of which holds all: "),
        ("1", ""),
    ],
)
def test_rows_that_do_not_fit_into_memory_are_refused(monkeypatch, tmp_path, processes, message):
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"x": [0.5, 1.5] * 4, "y": [1.0, 2.0] * 4}).write_parquet("rows.parquet")
    parts = {"encoder": "mlp", "sharing": "hard", "balancing": "equal", "optimizer": "adamw", "scheduler": "constant"}
    chosen = {"trainer": {}, **{part: {"name": name} for part, name in parts.items()}}
    data = {"source": "table", "path": "rows.parquet"}
    config = validate({"data": data, "tasks": {"y": {"kind": "regression"}}, **chosen})
    monkeypatch.setattr("mtl_cli.build.sources.free_memory", lambda: 1)
    if not message:
        assert build.streams(config)
        return
    with pytest.raises(DataError) as refused:
        build.read_rows(config)
    assert str(refused.value).startswith(message)
    assert str(refused.value).endswith("Write data.in_memory=true, or train in one process.")


def test_processes_of_a_machine_divide_its_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    config = SimpleNamespace(trainer=SimpleNamespace(threads="auto"), data=SimpleNamespace(batch_size=256))
    small, large = (nn.Linear(1000, width, bias=False, device="meta") for width in (1000, 10_000))
    assert build.choose_threads(config, large) == 8
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert build.choose_threads(config, large) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert build.choose_threads(config, large) == 3
    assert build.choose_threads(config, small) == 1
