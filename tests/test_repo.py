"""Rules about the sources themselves."""

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mtl_cli"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
# Lower rows never import higher ones.
ROWS = [
    {
        "errors",
        "notation",
        "overriding",
        "paths",
        "processes",
        "report_text",
        "seeding",
        "spelling",
        "steps",
        "threads",
        "types",
    },
    {"registry", "schema"},
    {"data", "tasks", "model", "balancing", "optim", "run"},
    {"loop"},
    {"build"},
    {"job", "helper", "results_text", "together", "trained", "warm_start", "exported"},
    {"sweep"},
    {"report"},
    {"cli", "commands", "composition", "__main__"},
]
SIBLINGS = ROWS[2]  # these never import each other
ROW = {part: number for number, row in enumerate(ROWS) for part in row}
HYDRA = {
    "composition/files.py",
    "composition/flags.py",
    "composition/messages.py",
    "composition/overrides.py",
    "composition/values.py",
    "cli/command.py",
    "cli/composed.py",
    "cli/entrypoint.py",
    "cli/hydra_callback.py",
    "cli/hydra_launcher.py",
    "cli/single_run.py",
    "cli/stacked_jobs.py",
}  # hydra and omegaconf are known here only
every_source = pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])


@functools.cache
def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _part(module):
    """The part of the package that a dotted module name lies in; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def _imports(path):
    """Dotted names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mtl_cli":
                yield from (f"mtl_cli.{alias.name}" for alias in node.names)
            else:
                yield node.module


# What the standard library has since Python 3.11 or later, by module; 3.10 is supported.
NEWER = {
    "typing": {
        "Self", "Never", "LiteralString", "Required", "NotRequired", "Unpack", "TypeVarTuple", "assert_never",
        "assert_type", "reveal_type", "dataclass_transform", "override", "TypeAliasType", "TypeIs", "ReadOnly",
    },
    "enum": {"StrEnum", "verify"},
    "datetime": {"UTC"},
    "itertools": {"batched"},
    "contextlib": {"chdir"},
    "asyncio": {"TaskGroup", "timeout"},
    "hashlib": {"file_digest"},
    "tomllib": set(),
    "warnings": {"deprecated"},
}  # fmt: skip


@every_source
def test_nothing_newer_than_the_oldest_python_is_imported(path):
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module in NEWER:
            assert not {alias.name for alias in node.names} & NEWER[node.module], ast.unparse(node)
        elif isinstance(node, ast.Import):
            assert "tomllib" not in {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in NEWER:
            assert node.attr not in NEWER[node.value.id], ast.unparse(node)
        assert not isinstance(node, getattr(ast, "TryStar", ())), f"line {node.lineno}"
        assert not (isinstance(node, ast.Name) and node.id in ("ExceptionGroup", "BaseExceptionGroup"))


def _own_part(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def test_top_level_holds_what_belongs_there():
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("no clone: git says what is of the repository")
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    visible = {line.split("/")[0] for line in listed.splitlines() if not line.startswith(".")}
    assert visible == {"LICENSE", "Makefile", "README.md", "configs", "mtl_cli", "pyproject.toml", "tests"}


def test_every_part_has_its_place():
    parts = {_own_part(path) for path in SOURCES} - {"__init__"}
    assert parts == set(ROW)


@every_source
def test_imports_go_down(path):
    own = _own_part(path)
    if own == "__init__":  # the front door of the library, which opens on demand
        return
    for module in _imports(path):
        part = _part(module) if module.split(".")[0] == "mtl_cli" else None
        if part is None or part not in ROW or part == own:  # __version__ is a name of the package itself
            continue
        assert ROW[part] <= ROW[own], f"{own} imports {module}, which is above it"
        assert part not in SIBLINGS or own not in SIBLINGS, f"{own} imports its sibling {module}"


@every_source
def test_sweeps_know_runs_and_nothing_of_training(path):
    if _own_part(path) == "sweep":
        parts = {_part(m) for m in _imports(path) if m.startswith("mtl_cli.")}
        assert parts <= {"sweep", "run"} | ROWS[0] | ROWS[1]


@every_source
def test_autograd_of_balancing_is_in_one_place(path):
    place = path.relative_to(PACKAGE).parts[:2]
    if place[0] == "balancing" and place != ("balancing", "autograd"):
        used = {node.attr for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)}
        assert not used & {"autograd", "backward", "grad"}


@every_source
def test_hydra_and_omegaconf_stay_at_the_entrance(path):
    foreign = {module.split(".")[0] for module in _imports(path)} & {"hydra", "omegaconf"}
    assert not foreign or path.relative_to(PACKAGE).as_posix() in HYDRA


@every_source
def test_no_left_over_notes_and_no_bare_except(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TO" + r"DO|FIX" + r"ME|XXX)\b", text)
    bare = [n.lineno for n in ast.walk(_tree(path)) if isinstance(n, ast.ExceptHandler) and n.type is None]
    assert not bare


@every_source
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(_tree(path))


def test_package_itself_loads_nothing():
    code = "import sys, mtl_cli; print([m for m in sys.modules if m.startswith('mtl_cli.')], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_command_line_starts_without_pytorch():
    code = "import sys, mtl_cli.cli; print([m for m in ('torch', 'sklearn', 'polars', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT / "configs")) for path in CONFIGS])
def test_configuration_runs_no_code(path):
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if "_target_" in line]
    allowed = ["_target_: mtl_cli.cli.hydra_callback.SweepCallback"] if path == ROOT / "configs" / "config.yaml" else []
    assert lines == allowed


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT / "configs")) for path in CONFIGS])
def test_configuration_file_says_what_it_is(path):
    first = next(line for line in path.read_text(encoding="utf-8").splitlines() if line != "# @package _global_")
    assert re.match(r"# \S", first)


def test_test_modules_have_names_of_their_own():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
    assert not list((ROOT / "tests").rglob("__init__.py"))
