"""What components from outside the package take by themselves is spelt out, once, in what a run stores."""

from dataclasses import dataclass

import pytest

from mtl_cli.balancing import LossBalancing
from mtl_cli.data.sources.table import TableSource
from mtl_cli.registry import ALL, BALANCINGS, KINDS, LOGGERS, SOURCES
from mtl_cli.run.loggers.base import Logger
from mtl_cli.schema import with_own_options
from mtl_cli.tasks.regression import Regression
from mtl_cli.types import PerTask, Positive


@dataclass
class Inner:
    size: int = 2


class Method(LossBalancing):
    """A method."""

    def __init__(
        self,
        num_tasks,  # noqa: ARG002
        *,
        needed: float,  # noqa: ARG002
        beta: Positive = 0.9,  # noqa: ARG002
        inner: Inner = Inner(),  # noqa: ARG002, B008
        parts: list[Inner] = [Inner(3)],  # noqa: ARG002, B006, B008
        numbers: PerTask = [],  # noqa: ARG002, B006
    ):
        super().__init__()

    def weights(self, losses, tasks):  # noqa: ARG002
        return losses


class Own(Regression):
    """A kind."""

    def __init__(self, *, offset: float = 0.5):
        super().__init__()
        self.offset = offset


class Diary(Logger):
    """A tracker."""

    def __init__(self, run, *, mode: str = "a"):
        super().__init__(run)
        self.mode = mode

    def open(self, known, step):  # noqa: ARG002
        return "diary"

    def send(self, numbers, step): ...

    def close(self, state): ...


class Rows(TableSource):
    """A source."""

    def __init__(self, *, path: str, seed: int = 3):
        super().__init__(path=path)
        self.seed = seed


@pytest.fixture(autouse=True)
def _registered():
    before = {registry.group: dict(registry._classes) for registry in ALL}
    for registry, cls in ((BALANCINGS, Method), (KINDS, Own), (LOGGERS, Diary), (SOURCES, Rows)):
        registry.register("mine")(cls)
    yield
    for registry in ALL:
        registry._classes.clear()
        registry._classes.update(before[registry.group])


SETTINGS = {
    "seed": 0,
    "balancing": {"name": "mine", "needed": 1.0, "beta": 0.5},
    "encoder": {"name": "mlp"},
    "tasks": {"a": {"kind": "mine"}, "b": {"kind": "regression"}},
    "logger": {"mine": {"name": "mine"}},
    "data": {"source": "mine", "path": "a.csv"},
}


def test_defaults_of_components_from_outside_are_spelt_out_and_others_are_left():
    filled = with_own_options(SETTINGS)
    assert filled == {
        **SETTINGS,
        # no `numbers`: no configuration could say []
        "balancing": {"name": "mine", "needed": 1.0, "beta": 0.5, "inner": {"size": 2}, "parts": [{"size": 3}]},
        "tasks": {"a": {"kind": "mine", "offset": 0.5}, "b": {"kind": "regression"}},
        "logger": {"mine": {"name": "mine", "mode": "a"}},
        "data": {"source": "mine", "path": "a.csv", "seed": 3},
    }
    assert list(filled) == list(SETTINGS)
    assert with_own_options(filled) == filled


def test_each_of_several_sources_has_its_own():
    sources = {"a": {"source": "mine", "path": "a.csv", "seed": 1}, "b": {"source": "mine"}, "c": {"path": "c.csv"}}
    assert with_own_options({"data": {"source": None, "sources": sources}})["data"]["sources"] == {
        "a": {"source": "mine", "path": "a.csv", "seed": 1}, "b": {"source": "mine", "seed": 3}, "c": {"path": "c.csv"},
    }  # fmt: skip


@pytest.mark.parametrize("node", [None, "mine", ["mine"], {"name": 3}, {"name": "nobody"}, {}])
def test_mistakes_stay_for_the_check_of_the_configuration(node):
    settings = {"balancing": node, "tasks": node, "logger": node, "data": node}
    assert with_own_options(settings) == settings
