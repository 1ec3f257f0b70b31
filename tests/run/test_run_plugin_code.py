"""A run remembers the code of plugins that it was made with."""

import sys

import pytest

from mtl_cli.errors import RunError
from mtl_cli.run import RunFolder, changed_code, record_code

MODULES = {"__init__.py": "", "layers.py": "WIDTH = 1\n", "own.py": "from my_plugins import layers\n"}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The folder of a plugin, which is loaded, and that of a run."""
    (tmp_path / "my_plugins").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "my_plugins" / name).write_text(text)
    (tmp_path / "run").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("my_plugins.own")
    yield tmp_path / "my_plugins", RunFolder(tmp_path / "run")
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_plugins"]:
        del sys.modules[name]


@pytest.mark.parametrize("edited", ["own", "layers"])
def test_edited_module_of_the_package_of_a_plugin_is_named(plugin, edited):
    code, run = plugin
    record_code(run, ["my_plugins.own"])
    assert changed_code(run, ["my_plugins.own"]) == []
    with (code / f"{edited}.py").open("a") as file:
        file.write("# edited\n")
    assert changed_code(run, ["my_plugins.own"]) == [f"my_plugins.{edited}"]
    record_code(run, ["my_plugins.own"])
    assert changed_code(run, ["my_plugins.own"]) == []


def test_module_that_is_not_loaded_now_is_not_compared(plugin):
    code, run = plugin
    record_code(run, ["my_plugins.own"])
    (code / "layers.py").write_text("WIDTH = 2\n")
    del sys.modules["my_plugins.layers"]
    assert changed_code(run, ["my_plugins.own"]) == []


def test_run_without_plugins_has_no_file_of_them(plugin):
    _, run = plugin
    record_code(run, [])
    assert list(run.path.iterdir()) == []
    assert changed_code(run, ["my_plugins.own"]) == []


def test_damage_of_what_is_remembered_is_noticed(plugin):
    _, run = plugin
    record_code(run, ["my_plugins.own"])
    file = run.path / "plugins.json"
    file.write_text(file.read_text().replace("my_plugins.own", "my_plugins.oww"))
    with pytest.raises(RunError, match=r"plugins\.json: is damaged or edited: its checksum differs"):
        changed_code(run, ["my_plugins.own"])
