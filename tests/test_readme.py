"""The README tells the truth: its table is that of the registries, its commands and its code run.

To write the table anew after adding a component: python tests/test_readme.py
"""

import ast
import re
import shlex
from pathlib import Path

import pytest

from mtl_cli import registry
from mtl_cli.cli import run_command
from mtl_cli.cli.continuing import MAY_CHANGE
from mtl_cli.commands import evaluate, export, predict, toy
from mtl_cli.commands.entry import run

TESTS = Path(__file__).resolve().parent
README = TESTS.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
TABLE = re.compile(r"(<!-- components: [^\n]*-->\n).*?(<!-- /components -->)", re.DOTALL)


def components_table():
    rows = ["| group | name | what it is |", "| --- | --- | --- |"]
    for group in registry.ALL:
        rows += [f"| {group.group} | `{name}` | {group.summary(name)} |" for name in group.names()]
    return "\n".join(rows) + "\n"


def commands():
    lines = [line.strip() for line in TEXT.splitlines() if line.startswith("    mtl-train")]
    return [line.partition(" #")[0].strip() for line in lines]


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """The files that the README's examples speak of, as the README spells them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
    task = next(text for language, text in blocks if language == "yaml")
    plugin = next(text for language, text in blocks if language == "python" and "register" in text)
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/balancing").mkdir()
    (tmp_path / "my_package").mkdir()
    (tmp_path / "conf/task/churn.yaml").write_text(task)
    (tmp_path / "conf/balancing/inverse.yaml").write_text("name: inverse\nfloor: 0.001\n")
    (tmp_path / "my_package/__init__.py").touch()
    (tmp_path / "my_package/inverse.py").write_text(plugin)
    rows = ["customer_id,age,country,churned,spend_eur,segment"]
    for i in range(200):
        labels = f"{'yes' if i % 3 else 'no'},{'' if i % 5 == 0 else i * 1.5},{'abc'[i % 3]}"
        rows.append(f"{i:04d},{20 + i % 50},{'FR' if i % 2 else 'US'},{labels}")
    (tmp_path / "customers.csv").write_text("\n".join(rows) + "\n")
    for folders in re.findall(r"^    export PYTHONPATH=(\S+)", TEXT, re.MULTILINE):
        monkeypatch.syspath_prepend(folders.replace("$PWD", str(tmp_path)))
    return tmp_path


def test_table_of_components_is_that_of_the_registries():
    assert components_table() in TEXT


@pytest.mark.parametrize("command", [c for c in commands() if "..." not in c])
def test_commands_run(command, own_data, capsys):
    arguments = shlex.split(command)[1:]
    if "-m" not in arguments and "dry_run=true" not in arguments and "--help" not in arguments:
        arguments.append("trainer.max_steps=2")
    elif "-m" in arguments:
        arguments = [a for a in arguments if not a.startswith("trainer.")] + ["trainer.max_steps=2"]
    for origin in (a.partition("=")[2] for a in arguments if a.startswith("init_from=")):
        assert (
            run_command(["--config-dir", "conf", "task=churn", "trainer.max_steps=2", f"hydra.run.dir={origin}"]) == 0
        )
    try:
        assert run_command(arguments) == 0, capsys.readouterr().err
    finally:
        registry.BALANCINGS._classes.pop("inverse", None)


@pytest.mark.filterwarnings("default")  # torch.export warns of itself
def test_commands_after_training_run(own_data):
    training = next(command for command in commands() if "hydra.run.dir=runs/first" in command)
    assert run_command([*shlex.split(training)[1:], "trainer.max_steps=2"]) == 0
    lines = [
        line.partition(" #")[0].split()
        for line in TEXT.splitlines()
        if re.match("    mtl-(predict|evaluate|export)", line)
    ]
    assert len(lines) == 4
    for name, *arguments in lines:
        command = {
            "mtl-predict": predict.predict, "mtl-evaluate": evaluate.evaluate, "mtl-export": export.export,
        }[name]  # fmt: skip
        assert run(command, arguments) == 0
    assert (own_data / "predictions.csv").exists()
    assert (own_data / "metrics.json").exists()
    assert (own_data / "model.pt2").exists()
    names: dict = {}
    exec(_python_with("load_run("), names)
    assert names["predictions"].columns[:2] == ["customer_id", "churned_pred"]


def test_the_toy_runs(own_data):
    lines = [line.partition(" #")[0].split() for line in TEXT.splitlines() if line.startswith("    mtl-toy")]
    assert len(lines) == 1
    assert run(toy.toy, [*lines[0][1:], "--steps", "2"]) == 0
    assert (own_data / "toy.html").exists()


def _is_slow(test):
    return any("mark.slow" in ast.unparse(decorator) for decorator in test.decorator_list)


def test_promises_name_tests_that_are_run():
    promises = TEXT.partition("## What is promised")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in promises.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for promise, named in rows:
        nodes = re.findall(r"`([^`]+)`", named)
        assert nodes, promise
        for node in nodes:
            name, _, function = node.partition("::")
            body = ast.parse((TESTS / name).read_text(encoding="utf-8")).body
            tests = {f.name for f in body if isinstance(f, ast.FunctionDef) and not _is_slow(f)}
            assert not function or function in tests, f"{node}: is none of those that make test runs"
            assert any(test.startswith("test_") for test in tests), node


def test_keys_that_may_change_on_resume_are_listed():
    told = TEXT.partition("On resume these may change:")[2].partition(";")[0]
    assert tuple(re.findall(r"`([^`]+)`", told)) == MAY_CHANGE


def _python_with(call):
    """The example that holds a call."""
    return next(text for text in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if call in text)


def test_library_example_runs():
    names: dict = {}
    exec(_python_with("MultiTaskModel("), names)
    assert [tuple(o.shape) for o in names["outputs"]] == [(5, 10), (5, 2)]


if __name__ == "__main__":
    README.write_text(TABLE.sub(lambda m: m[1] + components_table() + m[2], TEXT), encoding="utf-8")
