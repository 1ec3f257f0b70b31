"""Trackers get what metrics.jsonl gets; whatever happens to them, training goes on."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from mtl_cli import registry
from mtl_cli.errors import UserError
from mtl_cli.run.loggers import Followers

QUICK = ["task=digits", "only=[digit,even]", "encoder.hidden=[]", "shared_dim=8", "trainer.max_epochs=2"]
PLUGIN = '''
"""A tracker that writes down what it is told, and fails while a file ``down`` is there."""

import json
from pathlib import Path

from mtl_cli.registry import LOGGERS
from mtl_cli.run.loggers import Logger


@LOGGERS.register("diary")
class Diary(Logger):
    """Writes down what it is told.

    Args:
        run: The run.
        book: The file.
    """

    def __init__(self, run, *, book: str = "book.jsonl") -> None:
        super().__init__(run)
        self.book = book

    def note(self, **what):
        if Path("down").exists():
            raise ConnectionError("the server is down")
        with open(self.book, "a") as file:
            file.write(json.dumps({"run": self.run.folder.name, **what}) + "\\n")

    def open(self, known, step):
        self.note(opened=known, config=dict(self.run.config), overrides=self.run.overrides, facts=dict(self.run.facts))
        return f"id of {self.run.folder.name}"

    def send(self, numbers, step):
        self.note(step=step, numbers=dict(numbers))

    def close(self, state):
        self.note(closed=state)
'''


@pytest.fixture
def diary(cli, write, tmp_path, monkeypatch):
    """A command line that knows a tracker of the user's own, and what that tracker was told."""
    write({"my_plugins/__init__.py": "", "my_plugins/diary.py": PLUGIN})
    write({"conf/logger/diary.yaml": "# @package logger.diary\nname: diary\nbook: book.jsonl\n"})
    monkeypatch.syspath_prepend(str(tmp_path))

    def told():
        return [json.loads(line) for line in Path("book.jsonl").read_text().splitlines()]

    told.run = lambda *more: cli("--config-dir", "conf", "plugins=[my_plugins.diary]", *QUICK, *more)
    yield told
    registry.LOGGERS._classes.pop("diary", None)


def _numbers(run):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if isinstance(v, int | float) and k != "step"} for line in lines]


def test_a_tracker_is_told_what_metrics_jsonl_says_and_the_test_numbers(diary):
    # LOG-04: with the overrides applied, versions and seed
    ended = diary.run("logger=diary", "hydra.run.dir=run", "optimizer.lr=0.5", "extra=note")
    assert (ended.code, ended.err) == (0, "")
    first, *sent, last = diary()
    assert (first["opened"], first["config"]["optimizer"]["lr"], first["config"]["extra"]) == (None, 0.5, "note")
    assert first["config"] == yaml.safe_load(Path("run/config.yaml").read_text())
    assert "optimizer.lr=0.5" in first["overrides"]
    assert first["facts"]["versions"]["python"]
    assert first["facts"]["seed"] == 0
    assert last["closed"] == "done"
    *during, final = [one["numbers"] for one in sent]
    assert during == _numbers("run")
    summary = json.loads(Path("run/summary.json").read_text())["metrics"]
    assert final == {key: value for key, value in summary.items() if key.startswith("test/")}
    assert "test/digit/accuracy" in final


def test_a_resumed_run_goes_on_in_the_same_tracker_run_and_says_nothing_twice(diary):
    assert diary.run("logger=diary", "hydra.run.dir=run").code == 0
    again = diary.run("resume=run", "trainer.max_epochs=3", "logger=diary")
    assert (again.code, again.err) == (0, "")
    opened = [one["opened"] for one in diary() if "opened" in one]
    assert opened == [None, "id of run"]
    epochs = [one["numbers"]["epoch"] for one in diary() if "epoch" in one.get("numbers", {})]
    assert epochs == [1, 1, 2, 2, 3, 3]


def test_an_outage_stops_no_training_and_loses_nothing(diary):
    # LOG-01
    Path("down").touch()
    ended = diary.run("logger=diary", "hydra.run.dir=run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("logger diary does not work (ConnectionError: the server is down)") == 1
    assert "logger diary: 4 of 4 records are not there" in ended.out
    assert json.loads(Path("run/status.json").read_text())["state"] == "done"
    Path("down").unlink()
    assert diary.run("resume=run", "logger=diary", "trainer.max_epochs=3").code == 0
    sent = [one["numbers"] for one in diary() if "epoch" in one.get("numbers", {})]
    assert sent == _numbers("run")


@pytest.mark.parametrize(
    ("broken", "code"), [(KeyboardInterrupt(), 130), (OSError("no route"), 1), (UserError("no key"), 2)], ids=repr
)
@pytest.mark.parametrize("begun", [False, True], ids=["new", "resumed"])
def test_a_run_that_is_done_stays_so_whatever_ends_its_trackers(diary, monkeypatch, broken, code, begun):
    def close(*_):
        raise broken

    if begun:
        assert diary.run("hydra.run.dir=run").code == 0
    monkeypatch.setattr(Followers, "close", close)
    how = ["resume=run", "trainer.max_epochs=3"] if begun else ["hydra.run.dir=run"]
    assert diary.run(*how, "logger=diary").code == code
    assert json.loads(Path("run/status.json").read_text())["state"] == "done"
    assert json.loads(Path("run/summary.json").read_text())["epochs"] == 2 + begun


def test_jobs_of_a_sweep_are_runs_of_their_own(diary):
    ended = diary.run("-m", "logger=diary", "seed=0,1", "hydra.sweep.dir=sweep")
    assert (ended.code, ended.err) == (0, "")
    runs = [one["run"] for one in diary() if "opened" in one]
    assert len(set(runs)) == len(runs) == 2
    assert [one["closed"] for one in diary() if "closed" in one] == ["done", "done"]


def test_a_failed_training_is_told(diary):
    assert diary.run("logger=diary", "hydra.run.dir=run", "optimizer=sgd", "optimizer.lr=1e20").code == 1
    assert diary()[-1]["closed"] == "failed"


def test_mistakes_of_trackers_are_found_before_anything_is_done(diary, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("wandb", "mlflow") else found(name))
    wrong = ["logger.diary.book=x", "logger.wandb.mode=offlin", "logger.tensorbord.x=1"]
    ended = diary.run("logger=[wandb,mlflow]", *wrong)
    assert ended.code == 2
    extra = "which is not installed. Install it: pip install"
    mlflow = f"logger.mlflow (configs/logger/mlflow.yaml, line 1): 'mlflow' needs the package mlflow, {extra}"
    assert ended.err.splitlines() == [
        "logger.wandb.mode (command line): must be one of online, offline, got 'offlin'. Did you mean 'offline'?",
        f'logger.wandb (command line): \'wandb\' needs the package wandb, {extra} "mtl-train[wandb]".',
        f'{mlflow} "mtl-train[mlflow]".',
        "logger.diary (command line): is not chosen. Add logger=diary, or logger=[diary,...] for several.",
        "logger.tensorbord (command line): unknown key. Did you mean 'tensorboard'?",
    ]  # fmt: skip
    assert not Path("runs").exists()


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.part"])
def test_package_of_a_tracker_of_ones_own_is_no_extra_of_ours(diary, write, package):
    write(
        {
            "my_plugins/diary.py": PLUGIN.replace(
                "    def __init__", f'    requires = "{package}"\n\n    def __init__', 1
            )
        }
    )
    ended = diary.run("logger=diary")
    where = "logger.diary (conf/logger/diary.yaml, line 1)"
    assert ended.err == f"{where}: 'diary' needs the package {package}, which is not installed.\n"


def test_a_folder_that_a_tracker_left_is_not_taken_for_its_package(diary, tmp_path):
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    (tmp_path / "wandb").mkdir()
    assert "needs the package wandb" in diary.run("logger=wandb").err


# --- with the real packages ---------------------------------------------------------------------------------------


def _needs(package):
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"the package {package} is not installed")


def _series(name):
    return [(line["step"], line[name]) for line in _lines("run") if name in line]


def _lines(run):
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


@_needs("tensorboard")
@pytest.mark.filterwarnings("default")
def test_tensorboard_holds_the_curves_of_a_run_that_was_resumed(cli):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert cli(*QUICK, "logger=tensorboard", "hydra.run.dir=run", "optimizer.lr=0.02").code == 0
    again = cli("resume=run", "trainer.max_epochs=3")
    assert (again.code, again.err) == (0, "")
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    for name in ("val/digit/accuracy", "train/even/loss"):
        wanted = [(step, pytest.approx(value, rel=1e-6)) for step, value in _series(name)]
        assert [(e.step, e.value) for e in events.Scalars(name)] == wanted
        assert len(wanted) == 3
    assert events.Scalars("test/digit/accuracy")
    (config,) = events.Tensors("config/text_summary")
    assert b"lr: 0.02" in config.tensor_proto.string_val[0]


@_needs("mlflow")
@pytest.mark.filterwarnings("default")
def test_mlflow_holds_the_curves_of_a_run_that_was_resumed(cli, write, tmp_path):
    # LOG-01: settings beyond the limits of the tracker
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    more = ["logger=mlflow", f"logger.mlflow.tracking_uri={store}", "hydra.run.dir=run", f"extra={'x' * 7000}"]
    first = cli(*QUICK, *more)
    assert first.code == 0, first.err  # MLflow itself says that it makes a database
    assert first.out.count("logger mlflow: extra are too long for MLflow") == 1
    assert cli("resume=run", "trainer.max_epochs=3").code == 0
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("mtl-train").experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["shared_dim"] == "8"
    assert "extra" not in run.data.params
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"config.yaml", "overrides"}
    for name in ("val/digit/accuracy", "train/even/loss"):
        history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        assert sorted(history) == _series(name)
        assert len(history) == 3
    assert "test/digit/accuracy" in run.data.metrics


@_needs("wandb")
@pytest.mark.filterwarnings("default")
def test_wandb_offline_keeps_the_files_of_a_run_that_was_resumed(cli, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert cli(*QUICK, "logger=wandb", "logger.wandb.mode=offline", "hydra.run.dir=run").code == 0
    again = cli("resume=run", "trainer.max_epochs=3")
    assert (again.code, again.err) == (0, "")
    assert "does not work" not in again.out
    files = sorted(Path("run/wandb").glob("offline-run-*/*.wandb"))
    position = json.loads(Path("run/loggers.json").read_text())["wandb"]
    assert [file.name for file in files] == [f"run-{position['run']}.wandb"] * 2
    assert position["records"] == len(_lines("run")) == 6
    assert b"val/digit/accuracy" in files[0].read_bytes()
