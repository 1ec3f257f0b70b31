"""State that no checkpoint holds: told for components of one's own, and kept by none that is shipped."""

from functools import partial

import pytest
import torch
from torch import nn
from worlds import (
    REFUSED_PAIRS,
    SMALL_ENCODERS,
    encoder_world,
    make_learner,
    make_trainer,
    three_kind_rows,
    three_kinds,
)

from mtl_cli.balancing.equal import Equal
from mtl_cli.errors import ConfigError
from mtl_cli.loop.unsaved import Unsaved, unregistered, watch
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import LoopStack, VmapStack
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.optim import Scheduler
from mtl_cli.optim.optimizers.sgd import SGD
from mtl_cli.registry import BALANCINGS, ENCODERS, OPTIMIZERS, SHARINGS
from mtl_cli.run import RunFolder
from mtl_cli.types import InputSpec

D = 6


def _own(component):
    """The same as a component of the user's own."""
    component.__class__ = type("Own", (type(component),), {"__module__": __name__})
    return component


def _use(module, inputs):
    """Training, and an evaluation."""
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(2):
        features, backward = module.train().with_backward(inputs)
        backward(torch.ones_like(features))
        if isinstance(module, SHARINGS.load("hard").__base__):
            module.penalty()
            module.after_step()
    module.eval()(inputs)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_shipped_encoders_keep_nothing_elsewhere(name):
    spec, inputs = encoder_world(ENCODERS.load(name).reads)
    unsaved = Unsaved(ENCODERS.build(name, spec, D))
    _use(unsaved.component, inputs)
    assert unsaved.changed() == []


@pytest.mark.parametrize("name", SHARINGS.names())
def test_shipped_architectures_keep_nothing_elsewhere(name):
    encoder = next(own for own in ("mlp", "fm") if (name, own) not in REFUSED_PAIRS)
    spec, inputs = encoder_world(ENCODERS.load(encoder).reads)
    build = lambda spec, width: ENCODERS.build(encoder, spec, width, **SMALL_ENCODERS.get(encoder, {}))  # noqa: E731
    unsaved = Unsaved(SHARINGS.build(name, EncoderMaker(build, spec, D), ["a", "b", "c"]))
    _use(unsaved.component, inputs)
    unsaved.component.report(["a", "b", "c"])
    assert unsaved.changed() == []


@pytest.mark.parametrize(("group", "name"), [(r.group, name) for r in (BALANCINGS, OPTIMIZERS) for name in r.names()])
def test_shipped_methods_and_optimizers_keep_nothing_elsewhere(tmp_path, group, name):
    learner = make_learner(three_kinds(), **{group: name})
    for component in (learner.balancing, *learner.optimizers):
        _own(component)
    watched = watch(learner)
    assert len(watched) >= 2
    with RunFolder.claim(tmp_path / "run") as folder:
        folder.set_status("running")
        make_trainer(folder, learner, three_kind_rows(32), val=three_kind_rows(8, seed=1), epochs=2).fit()
    assert [message for own in watched if (message := own.message())] == []


class Counting(MLP):
    """Counts how often it is called."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        return super().forward(inputs)


class Annealing(HardSharing):
    """Counts its steps."""

    def __init__(self, *given):
        super().__init__(*given)
        self.steps = torch.zeros(())

    def after_step(self):
        self.steps += 1


class Momentum(SGD):
    """Keeps what it could give up at the end."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.last = None

    def update(self, views, counts, lr):
        self.last = views[0][1].clone()
        super().update(views, counts, lr)


class Keeping(Momentum):
    """The same with the state."""

    def state_dict(self):
        return {**super().state_dict(), "last": self.last}


class Wrapping(SGD):
    """Leaves the update to an optimizer of PyTorch."""

    def __init__(self, flat, *, lr, momentum):
        super().__init__(flat, lr=lr)
        self.inner = torch.optim.SGD([flat.values], lr=lr, momentum=momentum)

    def update(self, views, counts, lr):  # noqa: ARG002
        self.inner.param_groups[0]["lr"] = lr
        self.flat.values.grad = self.flat.gradient
        self.inner.step()


def _learner(optimizer, sharing="hard"):
    learner = make_learner(three_kinds(), sharing=sharing)
    learner.optimizers[:] = [optimizer(learner.parameters, lr=0.1)]
    return learner


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (Momentum, ["last"]),
        (Keeping, []),
        (partial(Wrapping, momentum=0.9), ["inner"]),
        (partial(Wrapping, momentum=0.0), []),  # it has no state
    ],
)
def test_optimizers_are_told_unless_they_write_their_state_themselves(tmp_path, optimizer, told):
    learner = _learner(optimizer)
    watched = watch(learner)
    with RunFolder.claim(tmp_path / "run") as folder:
        folder.set_status("running")
        make_trainer(folder, learner, three_kind_rows(32), epochs=1).fit()
    assert [name for own in watched for name in own.changed()] == told
    messages = [own.message() for own in watched if own.changed()]
    assert len(messages) == len(told)
    for name, message in zip(told, messages, strict=True):
        assert f": what it keeps in self.{name} is none of its buffers: " in message
        assert message.startswith(f"{__name__}.{'Wrapping' if name == 'inner' else 'Momentum'}: ")


def test_schedule_that_counts_for_itself_is_told():
    class Halving(Scheduler):
        """Halves its factor whenever it is asked."""

        def __init__(self):
            super().__init__(10, 0)
            self.now = 1.0

        def after_warmup(self, progress):  # noqa: ARG002
            self.now /= 2
            return self.now

    learner = make_learner(three_kinds())
    learner.scheduler = Halving()
    (watched,) = watch(learner)
    learner.lr(0)
    assert "Halving: what it keeps in self.now changes: no checkpoint holds it; resume, and" in watched.message()


def test_architecture_and_encoder_are_told_once_with_their_names(tmp_path, caplog):
    learner = make_learner(three_kinds())
    learner.model.sharing = Annealing(EncoderMaker(Counting, InputSpec(5), 8), ["task0", "task1", "task2"])
    with RunFolder.claim(tmp_path / "run") as folder:
        folder.set_status("running")
        make_trainer(folder, learner, three_kind_rows(32), epochs=3).fit()
    told = [r.getMessage().partition(" is no buffer: ")[0] for r in caplog.records if "buffer" in r.getMessage()]
    assert told == [
        f"{__name__}.Annealing: what it keeps in self.steps",
        f"{__name__}.Counting: what it keeps in self.calls",
    ]


@pytest.mark.parametrize("stack", [VmapStack, LoopStack])
def test_encoder_that_copies_are_made_of_is_looked_at_too(stack):
    learner = make_learner(three_kinds())
    learner.model.sharing.encoder = stack([Counting(InputSpec(5), 8) for _ in range(3)])
    watched = watch(learner)
    learner.model.sharing.encoder(three_kind_rows(4).inputs)
    assert [name for own in watched for name in own.changed()] == ["calls"]


def test_copies_of_an_encoder_without_parameters_are_refused():
    class Forgotten(Encoder):
        """Has its only layer in a list."""

        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(3, 4)]

        def forward(self, inputs):
            return self.layers[0](inputs.numeric)

    with pytest.raises(
        ConfigError, match="Forgotten: has no parameters, and tasks are to have copies of it that differ"
    ):
        SHARINGS.build("separate", Forgotten, ["a", "b"])


class Listing(MLP):
    """Has its layers in plain containers."""

    def __init__(self, spec, shared_dim, *, registered=False):
        super().__init__(spec, shared_dim)
        own = nn.Linear(spec.numeric_dim, shared_dim)
        self.mine = [{"a": own}]
        self.known = (self.layers[0], self.layers[0].weight)
        self.gates = {"b": nn.Parameter(torch.ones(3))}
        if registered:
            self.same, self.gate = own, self.gates["b"]


def test_layers_in_a_list_are_told_unless_they_are_part_of_the_encoder():
    model = HardSharing(EncoderMaker(Listing, InputSpec(3), 4), ["a"])
    assert [message.partition(":")[2].partition(". Put")[0] for message in unregistered(model)] == [
        " layers or parameters in self.mine, self.gates are no part of it: they are neither trained nor saved"
    ]
    assert unregistered(HardSharing(lambda: Listing(InputSpec(3), 4, registered=True), ["a"])) == []
    assert unregistered(make_learner(three_kinds(), sharing="separate").model) == []
    assert Unsaved(Equal(2)).message() is None


def test_features_that_an_evaluation_left_are_looked_at_too():
    method = Equal(2)
    unsaved = Unsaved(method)
    with torch.inference_mode():
        method.last = torch.ones(2)
    assert unsaved.changed() == ["last"]
