"""Mistakes in components of one's own, from the command line: exit code 2, and who made them."""

import sys

import pytest

from mtl_cli.registry import BALANCINGS

QUICK = ["--config-dir", "conf", "task=digits", "hydra.run.dir=run", "plugins=[my_plugins.own]", "balancing=own"]
OWN = '''
import torch
from mtl_cli.balancing import LossBalancing
from mtl_cli.registry import BALANCINGS


@BALANCINGS.register("own")
class Own(LossBalancing):
    """A method of one's own."""

    def __init__(self, num_tasks):
        super().__init__()
        self.average = None

    def weights(self, losses, tasks):
        return {weights}
'''


@pytest.fixture
def own(cli, write, tmp_path):
    """Trains with a method whose weights are an expression."""

    def run(weights, *more):
        files = {"my_plugins/__init__.py": "", "my_plugins/own.py": OWN.replace("{weights}", weights)}
        write({**files, "conf/balancing/own.yaml": "name: own\n"})
        sys.path.insert(0, str(tmp_path))
        return cli(*QUICK, *more)

    yield run
    BALANCINGS._classes.pop("own", None)


def test_error_out_of_an_own_component_names_it_and_leaves_no_run(own, tmp_path):
    ended = own("losses.nothing")
    assert ended.code == 2
    file = tmp_path / "my_plugins/own.py"
    assert ended.err.startswith(
        f"balancing 'own' (my_plugins.own.Own), {file}, line 16: AttributeError: 'Tensor' object has no"
    )
    assert not (tmp_path / "run/status.json").exists()
