"""Mistakes in components of one's own, from the command line: exit code 2, and who made them."""

import sys

import pytest

from mtl_cli.commands.entry import run
from mtl_cli.commands.evaluate import evaluate
from mtl_cli.registry import BALANCINGS, ENCODERS, OPTIMIZERS

QUICK = ["--config-dir", "conf", "task=digits", "hydra.run.dir=run", "plugins=[my_plugins.own]", "balancing=own"]
OWN = '''
import torch
from mtl_cli.balancing import LossBalancing
from mtl_cli.registry import BALANCINGS, ENCODERS


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


NORMALISED = '''
from torch import nn
from mtl_cli.model.encoders.base import Encoder
from mtl_cli.registry import ENCODERS


@ENCODERS.register("own")
class Own(Encoder):
    """An encoder with batch norm."""

    def __init__(self, spec, shared_dim):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(spec.numeric_dim, shared_dim), nn.BatchNorm1d(shared_dim))

    def forward(self, inputs):
        return self.layers(inputs.numeric)
'''


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.batch_size=1",
            "data.batch_size: 1 gives a layer one row at a time, and 'sharing.encoder.layers.1' is a BatchNorm1d, "
            "which takes statistics over several. Write data.batch_size=2, or use LayerNorm or GroupNorm.\n",
        ),
        (
            "sharing=separate",
            "encoder 'own' (my_plugins.norm.Own): 'sharing.encoders.layers.1' is a BatchNorm1d that keeps statistics, "
            "and copies of an encoder, which are computed together, cannot each keep their own. Use LayerNorm or "
            "GroupNorm, sharing=hard, or give the encoder a `stack` of its own.\n",
        ),
        ("trainer.max_steps=1", ""),
    ],
)
def test_encoder_with_batch_norm_trains_or_is_refused_before_it_does(cli, base, write, tmp_path, override, message):
    base()
    files = {"my_plugins/__init__.py": "", "my_plugins/norm.py": NORMALISED}
    write({**files, "conf/encoder/own.yaml": "name: own\n"})
    sys.path.insert(0, str(tmp_path))
    plugin = ["plugins=[my_plugins.norm]", "encoder=own", "hydra.run.dir=run"]
    try:
        ended = cli("--config-dir", "conf", "task=base", *plugin, override)
    finally:
        ENCODERS._classes.pop("own", None)
    assert (ended.code, ended.err) == (2 if message else 0, message)


BY_NAME = '''
import torch
from mtl_cli.balancing import LossBalancing
from mtl_cli.registry import BALANCINGS
from mtl_cli.types import PerTask


@BALANCINGS.register("own")
class Own(LossBalancing):
    """Weights by name."""

    def __init__(self, num_tasks, *, numbers: PerTask):
        super().__init__()
        self.register_buffer("numbers", torch.tensor(numbers))

    def weights(self, losses, tasks):
        return self.numbers[tasks]
'''


def test_option_for_each_task_goes_to_the_task_that_it_names(cli, base, write, tmp_path, records):
    base()  # declares a before b, and b is trained as the first
    write({"my_plugins/__init__.py": "", "my_plugins/own.py": BY_NAME, "conf/balancing/own.yaml": "name: own\n"})
    sys.path.insert(0, str(tmp_path))
    chosen = ["plugins=[my_plugins.own]", "balancing=own", "+balancing.numbers={a: 2, b: 3}", "hydra.run.dir=run"]
    try:
        ended = cli("--config-dir", "conf", "task=base", "trainer.max_epochs=1", *chosen)
    finally:
        BALANCINGS._classes.pop("own", None)
    assert (ended.code, ended.err) == (0, "")
    (record,) = records(tmp_path / "run", "train")
    assert (record["train/a/weight"], record["train/b/weight"]) == (2.0, 3.0)


PLAIN_DESCENT = '''
from mtl_cli.optim import Optimizer
from mtl_cli.registry import OPTIMIZERS


@OPTIMIZERS.register("own")
class Own(Optimizer):
    """Plain gradient descent."""

    def __init__(self, flat, *, lr: float = 0.1):
        super().__init__(flat, lr, ())

    def update(self, views, counts, lr):
        for values, gradient in views:
            values.sub_(gradient, alpha=lr)
'''


def test_optimizer_without_weight_decay_trains_what_a_method_learns(cli, base, write, tmp_path, records):
    base()
    files = {"my_plugins/__init__.py": "", "my_plugins/descent.py": PLAIN_DESCENT}
    write({**files, "conf/optimizer/own.yaml": "name: own\nlr: 0.1\n"})
    sys.path.insert(0, str(tmp_path))
    chosen = ["plugins=[my_plugins.descent]", "optimizer=own", "balancing=uncertainty", "hydra.run.dir=run"]
    try:
        ended = cli("--config-dir", "conf", "task=base", "trainer.max_epochs=2", *chosen)
    finally:
        OPTIMIZERS._classes.pop("own", None)
    assert (ended.code, ended.err) == (0, "")
    first, second = records(tmp_path / "run", "train")
    assert first["train/a/weight"] != second["train/a/weight"]


WITH_DEFAULT = '''
import torch
from mtl_cli.balancing import LossBalancing
from mtl_cli.registry import BALANCINGS


@BALANCINGS.register("own")
class Own(LossBalancing):
    """All weights alike."""

    def __init__(self, num_tasks, *, weight: float = {default}):
        super().__init__()
        self.weight = weight

    def weights(self, losses, tasks):
        return torch.full_like(losses, self.weight)
'''


@pytest.fixture
def edited(cli, base, write, tmp_path):
    """A run, and a sweep of one job, with a method whose default weight was 2; its code now says 4.0625."""
    base()
    sys.path.insert(0, str(tmp_path))
    files = {"my_plugins/__init__.py": "", "conf/balancing/own.yaml": "name: own\n"}
    write({**files, "my_plugins/own.py": WITH_DEFAULT.replace("{default}", "2.0")})
    given = ["--config-dir", "conf", "task=base", "plugins=[my_plugins.own]", "balancing=own"]
    assert cli(*given, "trainer.max_epochs=1", "hydra.run.dir=run").code == 0
    assert cli("-m", *given, "+balancing.weight=1", "trainer.max_epochs=1", "hydra.sweep.dir=sweep").code == 0
    write({"my_plugins/own.py": WITH_DEFAULT.replace("{default}", "4.0625")})
    del sys.modules["my_plugins.own"]
    yield given
    BALANCINGS._classes.pop("own", None)


def test_run_goes_on_with_the_options_that_it_began_with_and_says_that_a_plugin_was_edited(
    cli, edited, tmp_path, records
):
    ended = cli(*edited, "trainer.max_epochs=2", "resume=run")
    assert ended.code == 2
    assert "run: was made with another balancing.weight (2.0 -> 4.0625)." in ended.err
    ended = cli("resume=run", "trainer.max_epochs=2")
    told = "the code of my_plugins.own has changed since the run last trained"
    assert (ended.code, ended.err, told in ended.out) == (0, "", True)
    assert [record["train/a/weight"] for record in records(tmp_path / "run", "train")] == [2.0, 2.0]
    ended = cli("resume=run", "trainer.max_epochs=3")  # the code is as it was for the last epoch
    assert (ended.code, told in ended.out) == (0, False)


@pytest.mark.parametrize(
    "command", ["+balancing.weight=2 resume=run", "-m +balancing.weight=1 hydra.sweep.dir=sweep"], ids=["run", "sweep"]
)
def test_what_is_done_already_is_said_to_be_of_code_that_was_edited(cli, edited, command):
    ended = cli(*edited, "trainer.max_epochs=1", *command.split())
    assert ended.code == 0
    assert "the code of my_plugins.own has changed since it was trained, if only in a comment: its num" in ended.out


def test_evaluation_says_that_a_plugin_was_edited(edited, capsys):
    capsys.readouterr()
    assert run(evaluate, ["run"]) == 0
    told = (
        "note: the code of my_plugins.own has changed since the training, if only in a comment: the numbers may differ."
    )
    assert told in capsys.readouterr().err
