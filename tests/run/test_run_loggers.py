"""Trackers whose servers fail: the packages are stood in for, since what they do then is what counts."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from mtl_cli.run import RunFolder
from mtl_cli.run.loggers import RunFacts
from mtl_cli.run.loggers.following import PAUSE, Followers
from mtl_cli.run.loggers.mlflow import MLflow
from mtl_cli.run.loggers.wandb import WandB


class _Server:
    """MLflow's client and its server, which may refuse."""

    def __init__(self, *refused):
        self.refused, self.runs, self.steps = set(refused), [], []

    def __call__(self, _uri):
        return self

    def get_experiment_by_name(self, _name):
        return SimpleNamespace(experiment_id="1")

    def create_run(self, *_, **__):
        self.runs.append(f"run {len(self.runs)}")
        return SimpleNamespace(info=SimpleNamespace(run_id=self.runs[-1]))

    def update_run(self, run, **_):
        assert run in self.runs

    def get_run(self, _run):
        if "params" in self.refused:
            raise ConnectionError("no answer")
        return SimpleNamespace(data=SimpleNamespace(params={}))

    def log_artifact(self, _run, _path):
        if "files" in self.refused:
            raise PermissionError("no access to the bucket")

    def log_batch(self, _run, metrics=(), **_):
        self.steps += [metric[-1] for metric in metrics]

    def set_terminated(self, _run, _state):
        pass


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Followers of a run, with MLflow alone, whose package is stood in for."""

    def start(server, clock):
        def module(name, **content):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
            vars(sys.modules[name]).update(content)

        module("mlflow")
        module("mlflow.tracking", MlflowClient=server)
        module("mlflow.exceptions", MlflowException=ConnectionError)
        module("mlflow.entities", Metric=lambda *values: values, Param=lambda *values: values)
        logger = MLflow(RunFacts(tmp_path / "run", {"seed": 0}, (), {}))
        return Followers(RunFolder(tmp_path / "run"), [], {"mlflow": logger}, clock)

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    (tmp_path / "run").mkdir()
    return start


def test_mlflow_goes_on_in_the_run_that_a_failed_try_made(follow):
    server, now = _Server("params"), [0.0]
    followers = follow(server, lambda: now[0])
    for step in range(3):
        now[0] += PAUSE
        followers.follow({"step": step, "loss": 1.0})
    server.refused.clear()
    followers.close("done")
    assert (server.runs, server.steps) == (["run 0"], [0, 1, 2])


def test_mlflow_has_the_numbers_though_its_store_of_files_refuses(follow, caplog):
    server = _Server("files")
    followers = follow(server, lambda: 0.0)
    for step in range(3):
        followers.follow({"step": step, "loss": 1.0})
    followers.close("done")
    assert (server.runs, server.steps) == (["run 0"], [0, 1, 2])
    why = "PermissionError: no access to the bucket"
    assert [record.getMessage() for record in caplog.records] == [
        f"logger mlflow: config.yaml and overrides are not there ({why}); the run's folder has them."
    ]


def test_wandb_tries_again_with_the_same_name_of_the_run(tmp_path, monkeypatch):
    tried = []

    def init(**given):
        tried.append(given["id"])
        raise ConnectionError("no answer")

    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    vars(sys.modules["wandb"]).update(init=init, Settings=dict)
    logger = WandB(RunFacts(tmp_path, {}, (), {}))
    for known in (None, None, "earlier"):
        with pytest.raises(ConnectionError):
            logger.open(known, -1)
    assert tried[0] == tried[1] != tried[2] == "earlier"


def test_what_was_sent_before_the_log_was_cut_back_is_not_missing(follow, caplog, tmp_path):
    """A hard kill takes back records that the tracker has; it is down when the run goes on."""
    (tmp_path / "run/loggers.json").write_text('{"mlflow": {"run": "run 0", "records": 12, "step": 11}}')
    server = _Server("params")
    server.runs.append("run 0")
    followers = follow(server, lambda: 0.0)
    for step in range(10):
        followers.follow({"step": step, "loss": 1.0})
    followers.close("done")
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("logger mlflow does not work (ConnectionError: no answer).")


@pytest.mark.parametrize("position", ['{"records": null}', '{"step": "3"}', "7"])
def test_damaged_position_starts_a_new_run_in_the_tracker(follow, caplog, tmp_path, position):
    (tmp_path / "run/loggers.json").write_text(f'{{"mlflow": {position}}}')
    server = _Server()
    followers = follow(server, lambda: 0.0)
    followers.follow({"step": 0, "loss": 1.0})
    followers.close("done")
    assert (server.runs, server.steps) == (["run 0"], [0])
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{tmp_path}/run/loggers.json: cannot be used (")
