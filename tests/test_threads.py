"""How the CPU threads of a process wait for each other."""

import os
import subprocess
import sys

import pytest

from mtl_cli.threads import wait_briefly

LOADED = "from mtl_cli.threads import wait_briefly; wait_briefly(); import torch"
SAY = """
import os
def say():
    print(os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"])
    return 0
"""
COMMANDS = {  # what each way into the product does first, without torch
    "mtl-train": "from mtl_cli.cli import command; command.run_command = lambda _: say(); command.main([])",
    "others": "from mtl_cli.commands.entry import run; run(lambda _: say(), [])",
}


def _python(code, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | variables)


@pytest.mark.skipif(sys.platform != "linux", reason="other libraries of threads show nothing of themselves")
def test_threads_spin_briefly():
    shown = _python(LOADED, OMP_DISPLAY_ENV="VERBOSE").stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("not the threads of GNU")
    assert "GOMP_SPINCOUNT = '2000'" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_of_every_command(command):
    said = _python(f"{SAY}\n{COMMANDS[command]}")
    assert said.stdout == "PASSIVE 2000\n", said.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "5"), ("KMP_BLOCKTIME", "0")]
)
def test_the_environment_has_the_last_word(monkeypatch, name, value):
    monkeypatch.delitem(sys.modules, "torch")
    for other in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    wait_briefly()
    assert dict(os.environ) == before
