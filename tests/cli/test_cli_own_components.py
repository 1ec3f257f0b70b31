"""Mistakes in components of one's own, from the command line: exit code 2, and who made them."""

import sys

import pytest

from mtl_cli.commands.entry import run
from mtl_cli.commands.evaluate import evaluate
from mtl_cli.registry import BALANCINGS, ENCODERS, OPTIMIZERS


@pytest.fixture
def own(base, write, tmp_path):
    """Writes code that registers a component called ``own``; gives the arguments that train the base tasks with it."""
    base()
    sys.path.insert(0, str(tmp_path))
    registries = []

    def choose(registry, code):
        registries.append(registry)
        files = {"my_plugins/__init__.py": "", "my_plugins/own.py": code}
        write({**files, f"conf/{registry.group}/own.yaml": "name: own\n"})
        return ["--config-dir", "conf", "task=base", "plugins=[my_plugins.own]", f"{registry.group}=own"]

    yield choose
    for registry in registries:
        registry._classes.pop("own", None)


WITH_MISTAKE = '''
from mtl_cli.balancing import LossBalancing
from mtl_cli.registry import BALANCINGS


@BALANCINGS.register("own")
class Own(LossBalancing):
    """A method of one's own."""

    def __init__(self, num_tasks):
        super().__init__()

    def weights(self, losses, tasks):
        return losses.nothing
'''


def test_error_out_of_an_own_component_names_it_and_leaves_no_run(cli, own, tmp_path):
    ended = cli(*own(BALANCINGS, WITH_MISTAKE), "hydra.run.dir=run")
    assert ended.code == 2
    file = tmp_path / "my_plugins/own.py"
    assert ended.err.startswith(
        f"balancing 'own' (my_plugins.own.Own), {file}, line 14: AttributeError: 'Tensor' object has no"
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
            "encoder 'own' (my_plugins.own.Own): 'sharing.encoders.layers.1' is a BatchNorm1d that keeps statistics, "
            "and copies of an encoder, which are computed together, cannot each keep their own. Use LayerNorm or "
            "GroupNorm, sharing=hard, or give the encoder a `stack` of its own.\n",
        ),
        ("trainer.max_steps=1", ""),
    ],
)
def test_encoder_with_batch_norm_trains_or_is_refused_before_it_does(cli, own, override, message):
    ended = cli(*own(ENCODERS, NORMALISED), override)
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


def test_option_for_each_task_goes_to_the_task_that_it_names(cli, own, tmp_path, records):
    numbers = "+balancing.numbers={a: 2, b: 3}"  # a is declared before b, and b is trained as the first
    ended = cli(*own(BALANCINGS, BY_NAME), numbers, "trainer.max_epochs=1", "hydra.run.dir=run")
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


def test_optimizer_without_weight_decay_trains_what_a_method_learns(cli, own, tmp_path, records):
    chosen = [*own(OPTIMIZERS, PLAIN_DESCENT), "balancing=uncertainty"]
    ended = cli(*chosen, "trainer.max_epochs=2", "hydra.run.dir=run")
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
def edited(cli, own):
    """A run, and a sweep of one job, with a method whose default weight was 2; its code now says 4.0625."""
    given = own(BALANCINGS, WITH_DEFAULT.replace("{default}", "2.0"))
    assert cli(*given, "trainer.max_epochs=1", "hydra.run.dir=run").code == 0
    assert cli("-m", *given, "+balancing.weight=1", "trainer.max_epochs=1", "hydra.sweep.dir=sweep").code == 0
    own(BALANCINGS, WITH_DEFAULT.replace("{default}", "4.0625"))
    del sys.modules["my_plugins.own"]
    return given


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
