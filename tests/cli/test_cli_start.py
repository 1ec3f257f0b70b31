"""Starting up: quick where nothing is trained, the same by every way in, and complete in a wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import mtl_cli
from mtl_cli.commands import evaluate
from mtl_cli.commands.entry import run

ROOT = Path(__file__).parents[2]
# What a command line ends with, and whether it made the process load the heavy parts.
SNIPPET = """
import sys
from mtl_cli.cli import run_command
code = run_command(sys.argv[1:])
heavy = {"torch", "sklearn", "polars"} & set(sys.modules)
print(f"{code} {sorted(heavy)}", file=sys.stderr)
"""


def _python(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "out", "last"),
    [
        pytest.param(["--help"], "Groups and their choices (group=choice):", "0 []", id="help"),
        pytest.param(["task=digits", "--cfg", "job"], "shared_dim: 128\n", "0 []", id="configuration"),
        pytest.param(["task=digits", "sed=1"], "", "2 []", id="mistake"),
        pytest.param(["task=digits", "seed=-1", "balancing=pcgrad", "sharing=separate"], "", "2 []", id="several"),
    ],
)
def test_nothing_heavy_is_loaded_without_training(tmp_path, arguments, out, last):
    ended = _python("-c", SNIPPET, *arguments, cwd=tmp_path)
    assert ended.stderr.splitlines()[-1] == last
    assert out in ended.stdout
    assert list(tmp_path.iterdir()) == []


LOADED = """
import sys
import mtl_cli.loop.trainer as trainer
from mtl_cli.cli import run_command

def first_step(*arguments, **options):
    print("at the first step", sorted({"sklearn", "scipy", "torch._dynamo"} & set(sys.modules)), file=sys.stderr)
    trainer.train_step = step
    return step(*arguments, **options)

step, trainer.train_step = trainer.train_step, first_step
code = run_command(sys.argv[1:])
print("in the end", code, sorted({"torch._dynamo", "torch._inductor"} & set(sys.modules)), file=sys.stderr)
"""


def test_metrics_are_not_loaded_before_the_first_step_and_compilers_never(tmp_path):
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "data.csv").write_text("a,y\n" + "".join(f"{i},{i * i % 7}\n" for i in range(60)))
    (tmp_path / "conf/task/mine.yaml").write_text(
        "# @package _global_\ndata: {source: table, path: data.csv}\ntasks: {y: {kind: regression}}\n"
    )
    ended = _python("-c", LOADED, "--config-dir", "conf", "task=mine", "trainer.max_steps=1", cwd=tmp_path)
    assert ended.stderr.splitlines() == ["at the first step []", "in the end 0 []"]


LEAVES = """
import atexit, sys, threading, time
from mtl_cli.commands.entry import leave

atexit.register(print, "tidied up")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread ended"))).start()
print("written", end=" ")
leave(3)
"""


def test_a_command_that_ends_waits_for_what_is_to_be_done(tmp_path):
    ended = _python("-c", LEAVES, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "written thread ended\ntidied up\n", "")


def test_version_is_ours(cli, capsys):
    ended = cli("--version")
    assert (ended.code, ended.out.startswith(f"mtl-train {mtl_cli.__version__} (Hydra ")) == (0, True)
    assert run(evaluate.evaluate, ["--version"]) == 0
    assert capsys.readouterr().out == f"mtl-evaluate {mtl_cli.__version__}\n"


def test_help_tells_how_to_begin(cli):
    ended = cli("--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("mtl-train task=NAME [group=choice] [key=value]")
    for group in ("balancing: ", "sharing: ", "task: "):
        assert group in ended.out
    for choice in ("pcgrad", "separate", "digits"):
        assert f" {choice}," in ended.out


def test_printed_configuration_is_the_one_that_is_used(cli):
    ended = cli("task=digits", "seed=3", "tasks.ink.weight=2", "--cfg", "job")
    assert (ended.code, ended.err) == (0, "")
    config = yaml.safe_load(ended.out)
    assert (config["seed"], config["tasks"]["ink"]) == (3, {"kind": "regression", "weight": 2})


def test_flags_may_stand_anywhere(cli, customers, tmp_path):
    ended = cli("task=customers", "--config-dir", "conf", "seed=0,1", "-m", "trainer.max_steps=1", "hydra.sweep.dir=s")
    assert (ended.code, ended.err) == (0, "")
    assert "2 jobs: 2 done" in ended.out


def test_info_needs_no_value(cli):
    ended = cli("--info", "task=digits")
    assert ended.code == 0
    assert "task/digits" in ended.out


def test_a_traceback_is_shown_where_it_is_asked_for(cli, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    ended = cli("task=digits", "sed=1")
    assert ended.code == 2
    assert ended.err.startswith("Traceback (most recent call last)")
    assert ended.err.endswith("\nsed (command line): unknown key. Did you mean 'seed'?\n")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_module_and_exit_code(tmp_path):
    ended = _python("-m", "mtl_cli", "task=digits", "sed=1", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        2, "", "sed (command line): unknown key. Did you mean 'seed'?\n",
    )  # fmt: skip


def test_wheel_holds_the_configuration_and_trains(tmp_path):
    builder = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    built = _python("-c", builder, str(tmp_path), cwd=ROOT)
    if "No module named 'hatchling'" in built.stderr:
        command = ["-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(tmp_path)]
        built = _python(*command, cwd=tmp_path)
        if built.returncode and "hatchling" in built.stderr:
            pytest.skip("the build back end can be neither found nor fetched")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("mtl_train-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"mtl_cli/{name}" for name in configs} <= names
    assert not any(name.startswith(("configs/", "tests/")) for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)
    (tmp_path / "work").mkdir()
    where = "import mtl_cli, sys; print(mtl_cli.__file__); from mtl_cli.cli import main; main(sys.argv[1:])"
    arguments = ["task=digits", "trainer.max_steps=2", "hydra.run.dir=run"]
    ended = _python("-c", where, *arguments, cwd=tmp_path / "work", PYTHONPATH=str(tmp_path / "site"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == str(tmp_path / "site/mtl_cli/__init__.py")
    assert (tmp_path / "work/run/checkpoints/best.pt").exists()
