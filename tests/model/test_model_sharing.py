"""Sharing architectures: what they have in common, and what each promises."""

import pytest
import torch
from torch import nn
from worlds import inputs

from mtl_cli.errors import ConfigError
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders.base import Encoder, EncoderMaker, VmapStack
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.model.sharing.separate import SeparateModels
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, InputSpec

NAMES = ["a", "b", "c"]
SPEC = InputSpec(4, (3, 5))


class Gated(Encoder):
    """An encoder from outside, without a batched form of its own."""

    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.value, self.gate = nn.Linear(4, width), nn.Linear(4, width, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs):
        return self.dropout(self.scale * self.value(inputs.numeric) * torch.sigmoid(self.gate(inputs.numeric)))


def _batch(rows=6):
    return Inputs(torch.randn(rows, 4), torch.stack([torch.randint(3, (rows,)), torch.randint(5, (rows,))], 1))


def _recorded(make, made):
    def make_encoder():
        made.append(make())
        return made[-1]

    return make_encoder


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("name", SHARINGS.names())
def test_features_are_finite_and_of_the_promised_shape(name, rows):
    sharing = SHARINGS.build(name, EncoderMaker(MLP, SPEC, 8), NAMES)
    features = sharing(_batch(rows))
    assert features.shape in [(rows, 8), (3, rows, 8)]
    assert features.isfinite().all()


@pytest.mark.parametrize("hidden", [None, [[6], [6], []]], ids=["linear", "hidden"])
@pytest.mark.parametrize("make", [lambda: MLP(SPEC, 8, hidden=[6], norm="layer"), lambda: Gated(8)])
@pytest.mark.parametrize("name", SHARINGS.names())
def test_every_parameter_value_has_exactly_one_owner(name, make, hidden):
    if name in ("esmm", "stem") and not isinstance(make(), MLP):
        pytest.skip("needs the embeddings of an mlp")
    sharing = SHARINGS.build(name, EncoderMaker(lambda *_: make(), SPEC, 8), NAMES)
    model = MultiTaskModel(4, [1, 2, 3], 8, sharing=sharing, hidden=hidden)
    owned_times = {p: torch.zeros(p.shape) for p in model.parameters()}
    for owned in model.owners():
        values = owned_times[owned.parameter]
        (values if values.dim() else values.view(1))[owned.start : owned.stop] += 1
    assert all((times == 1).all() for times in owned_times.values())


@pytest.mark.parametrize("name", SHARINGS.names())
def test_an_architecture_says_whether_it_shares(name):
    model = MultiTaskModel(4, [1, 2, 3], 8, sharing=SHARINGS.build(name, EncoderMaker(MLP, SPEC, 8), NAMES))
    assert SHARINGS.load(name).shares == (model.count_parameters().shared > 0)


@pytest.mark.parametrize("name", SHARINGS.names())
def test_private_parameters_are_not_trained_by_other_tasks(name):
    sharing = SHARINGS.build(name, EncoderMaker(MLP, SPEC, 8), NAMES)
    sharing(_batch()).expand(3, -1, -1)[[0, 2]].square().sum().backward()
    for owned in sharing.owners():
        if owned.task == 1 and owned.parameter.grad is not None:
            assert not owned.parameter.grad[owned.start : owned.stop].any()


@pytest.mark.parametrize("name", SHARINGS.names())
def test_shared_parameters_are_heard_by_several_tasks(name):
    sharing = SHARINGS.build(name, EncoderMaker(MLP, SPEC, 8), NAMES)
    common = [owned.parameter for owned in sharing.owners() if owned.task is None]
    features = sharing(_batch()).expand(3, -1, -1)
    heard = torch.zeros(len(common))
    for task in range(3 if common else 0):
        found = torch.autograd.grad(features[task].square().sum(), common, retain_graph=True, allow_unused=True)
        heard += torch.tensor([float(g is not None and bool(g.any())) for g in found])
    assert (heard >= 2).all() or name == "hyper"  # whose f_phi starts at 0


def test_a_subclass_of_hard_sharing_may_put_any_module_in_place_of_the_encoder():
    class Bounded(HardSharing):
        def __init__(self, *given):
            super().__init__(*given)
            self.encoder = nn.Sequential(self.encoder, nn.Tanh())

    rows, sharing = inputs(torch.randn(5, 3)), Bounded(EncoderMaker(MLP, InputSpec(3), 4), ["a", "b"])
    features, backward = sharing.with_backward(rows)
    assert torch.equal(features, sharing.encoder[0](rows).tanh())
    backward(torch.ones_like(features))
    assert sharing.encoder[0].layers[0].weight.grad.abs().max() > 0
    assert sharing.with_jacobian(rows) is None


def test_hard_sharing_is_one_encoder():
    made = []
    sharing = HardSharing(_recorded(lambda: MLP(SPEC, 8), made), NAMES)
    x = _batch()
    assert len(made) == 1
    assert torch.equal(sharing(x), made[0](x))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: MLP(SPEC, 8, hidden=[5], dropout=0.3), id="mlp"),
        pytest.param(lambda: MLP(SPEC, 8, norm="layer", activation="gelu"), id="mlp with norm"),
        pytest.param(lambda: Gated(8, dropout=0.3), id="encoder from outside"),
    ],
)
def test_separate_models_are_single_models(make):
    made = []
    sharing = SeparateModels(_recorded(make, made), NAMES).eval()
    x = _batch()
    expected = torch.stack([encoder.eval()(x) for encoder in made])
    torch.testing.assert_close(sharing(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: MLP(SPEC, 8), lambda: Gated(8)], ids=["mlp", "encoder from outside"])
def test_separate_models_get_the_gradients_of_single_models(make):
    made = []
    sharing = SeparateModels(_recorded(make, made), NAMES)
    x = _batch()
    (sharing(x).square().sum((1, 2)) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    for weight, encoder in zip([1.0, 2.0, 3.0], made, strict=True):
        (weight * encoder(x).square().sum()).backward()
    for stacked, *alone in zip(sharing.parameters(), *(e.parameters() for e in made), strict=True):
        torch.testing.assert_close(stacked.grad, torch.stack([p.grad for p in alone]), rtol=1e-4, atol=1e-5)


def test_separate_models_start_different():
    features = SeparateModels(lambda: MLP(SPEC, 8), NAMES)(_batch())
    assert not torch.allclose(features[0], features[1])


def test_general_stack_drops_units_of_its_own_for_each_copy():
    encoder = Gated(500, dropout=0.5)
    stack = VmapStack([encoder, encoder])
    first, second = stack.train()(inputs(torch.randn(1, 4)))
    assert not torch.equal(first == 0, second == 0)
    first, second = stack.eval()(inputs(torch.randn(1, 4)))
    torch.testing.assert_close(first, second)


def test_general_stack_has_the_parameters_and_nothing_else():
    stack = VmapStack([Gated(8), Gated(8)])
    assert sum(p.numel() for p in stack.parameters()) == 2 * sum(p.numel() for p in Gated(8).parameters())
    assert all(p.shape[0] == 2 for p in stack.parameters())


def test_general_stack_refuses_buffers_that_differ():
    class Counting(Gated):
        def __init__(self, width):
            super().__init__(width)
            self.register_buffer("count", torch.rand(()))

    with pytest.raises(
        ConfigError,
        match=r"its buffer 'count' differs between the copies that tasks have of it.* a `stack` of its own\.",
    ):
        VmapStack([Counting(8), Counting(8)])
