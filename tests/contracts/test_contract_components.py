"""What every registered component promises: it loads, and its source, class, docstring and YAML agree."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

from mtl_cli.registry import ALL, BALANCINGS, KINDS, REQUIRED, SHARINGS, SOURCES, Registry, options_of

CONFIGS = Path(__file__).parents[2] / "configs"
COMPONENTS = [(registry, name) for registry in ALL for name in registry.names()]
every_component = pytest.mark.parametrize(
    ("registry", "name"), COMPONENTS, ids=[f"{registry.group}-{name}" for registry, name in COMPONENTS]
)
GROUPS = [registry for registry in ALL if registry not in (SOURCES, KINDS)]  # these two are keys of data and of a task
GROUP_FILES = [(registry, path) for registry in GROUPS for path in sorted((CONFIGS / registry.group).glob("*.yaml"))]
# YAML values that differ from the constructor's default on purpose.
EXCEPTIONS = {
    ("encoder", "mlp", "hidden"): [256],  # default for training, the constructor's is the bare layer
    ("encoder", "mlp", "dropout"): 0.1,  # default for training, the constructor's is the bare layer
    ("balancing", "fixed", "weights"): {},  # by task name in a configuration, a list in the constructor
}


def _unloaded(registry):
    """The same registry before anything was imported: it reads the sources."""
    return Registry(registry.group, registry._variable, registry._location)


def _read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_there_are_components_of_every_kind():
    assert all(registry.names() for registry in ALL)


@every_component
def test_component_loads_from_a_file_of_its_name(registry, name):
    cls = registry.load(name)
    assert Path(inspect.getfile(cls)).stem == name


@every_component
def test_options_read_from_the_source_are_those_of_the_class(registry, name):
    from_source = _unloaded(registry).options(name)
    assert from_source == options_of(registry.load(name)) == registry.options(name)
    assert list(from_source) == list(options_of(registry.load(name)))


@every_component
def test_summary_read_from_the_source_is_that_of_the_class(registry, name):
    cls = registry.load(name)
    summary = _unloaded(registry).summary(name)
    assert summary == registry.summary(name) == cls.__doc__.strip().splitlines()[0]
    assert summary.endswith((".", "):", ")", ","))


@pytest.mark.parametrize(
    ("registry", "attribute", "needed"),
    [
        (KINDS, "metrics", True),
        (SHARINGS, "shares", False),
        (SHARINGS, "chain", False),
        (BALANCINGS, "needs_shared", False),
    ],
    ids=["metrics", "shares", "chain", "needs_shared"],
)
def test_flags_read_from_the_source_are_those_of_the_class(registry, attribute, needed):
    for name in registry.names():
        own = attribute in vars(registry.load(name))
        assert own or not needed
        if own:
            assert _unloaded(registry).literal(name, attribute) == getattr(registry.load(name), attribute)


@every_component
def test_docstring_explains_every_option(registry, name):
    doc = inspect.cleandoc(registry.load(name).__doc__)
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", doc + "\n", re.MULTILINE)
    explained = re.findall(r"^    (\w+): \S", section[1], re.MULTILINE) if section else []
    missing = set(registry.options(name)) - set(explained)
    assert not missing, f"Args of {registry.load(name).__name__} leave out {sorted(missing)}"
    parameters = inspect.signature(inspect.unwrap(registry.load(name).__init__)).parameters
    invented = set(explained) - set(parameters)
    assert not invented, f"Args of {registry.load(name).__name__} explain {sorted(invented)}, which do not exist"


@every_component
def test_docstring_shows_shape_or_example(registry, name):
    doc = inspect.cleandoc(registry.load(name).__doc__)
    assert re.search(r"^(Shape|Example):$", doc, re.MULTILINE) or registry is SOURCES


@pytest.mark.parametrize(
    ("registry", "name"),
    [(registry, name) for registry in GROUPS for name in registry.names()],
    ids=[f"{registry.group}-{name}" for registry in GROUPS for name in registry.names()],
)
def test_yaml_holds_every_option_with_its_default(registry, name):
    given = _read(CONFIGS / registry.group / f"{name}.yaml")
    assert given.pop("name") == name
    defaults = {key: option.default for key, option in registry.options(name).items() if option.default is not REQUIRED}
    for key in defaults:
        defaults[key] = EXCEPTIONS.get((registry.group, name, key), defaults[key])
    assert given == defaults


def test_exceptions_are_needed():
    for (group, name, key), value in EXCEPTIONS.items():
        registry = next(registry for registry in ALL if registry.group == group)
        assert registry.options(name)[key].default != value


@pytest.mark.parametrize(
    ("registry", "path"), GROUP_FILES, ids=[f"{registry.group}-{path.stem}" for registry, path in GROUP_FILES]
)
def test_yaml_of_a_group_names_a_component_and_says_what_it_is(registry, path):
    assert _read(path)["name"] == path.stem
    assert path.stem in registry.names()
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_every_option_of_the_table_source_stands_in_its_yaml():
    given = _read(CONFIGS / "task" / "table.yaml")["data"]
    assert given.pop("source") == "table"
    assert given == {key: option.default for key, option in SOURCES.options("table").items()}


@pytest.mark.parametrize("name", KINDS.names())
def test_every_option_of_a_kind_is_named_in_the_yaml_for_users(name):
    text = (CONFIGS / "task" / "table.yaml").read_text(encoding="utf-8")
    entry = re.search(rf"^#   {name} .*\n(#     .*\n)*", text, re.MULTILINE)
    assert entry is not None
    assert all(f"{option}:" in entry[0] for option in KINDS.options(name)), entry[0]


@pytest.mark.parametrize("name", KINDS.names())
def test_primary_metric_of_a_kind_is_better_when_higher(name):
    assert next(iter(KINDS.load(name).metrics.values())) is True
