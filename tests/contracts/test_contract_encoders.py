"""What every registered encoder promises: features for each row alone, the same each time, copies in one go."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from worlds import SMALL_ENCODERS, encoder_world

from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import VmapStack, known_widths, stack_with_common_tables
from mtl_cli.registry import ENCODERS, SHARINGS
from mtl_cli.types import Block, Inputs, InputSpec

WITH_COPIES = ("separate", "soft", "low_rank", "tucker", "tensor_train", "lora")  # an encoder for each task
WITH_SLICES = ("film", "adapter")  # one encoder, and slices of its stages for each task
every_encoder = pytest.mark.parametrize("name", ENCODERS.names())


def _built(name, **changes):
    spec, rows = encoder_world(ENCODERS.load(name).reads, **changes)
    return ENCODERS.build(name, spec, 6).eval(), rows


@every_encoder
def test_features_are_one_row_for_each_row(name):
    encoder, inputs = _built(name, rows=5)
    assert encoder(inputs).shape == (5, 6)
    assert encoder(inputs).isfinite().all()
    assert encoder(inputs).std() > 0


@every_encoder
def test_evaluation_is_the_same_each_time(name):
    encoder, inputs = _built(name)
    assert torch.equal(encoder(inputs), encoder(inputs))


@every_encoder
def test_a_row_knows_nothing_of_the_others(name):
    encoder, inputs = _built(name, rows=6)
    whole = encoder(inputs)
    for index in ([3], [5, 0, 0, 2]):
        alone = encoder(inputs.rows(torch.tensor(index)))
        torch.testing.assert_close(alone, whole[index], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder(inputs.part(2, 5)), whole[2:5], rtol=1e-5, atol=1e-6)


@every_encoder
def test_widths_that_options_tell_are_those_of_its_stages(name):
    options = {key: option.default for key, option in ENCODERS.options(name).items()} | SMALL_ENCODERS.get(name, {})
    spec, _ = encoder_world(ENCODERS.load(name).reads)
    known, widths = known_widths(ENCODERS.load(name), options), ENCODERS.build(name, spec, 6, **options).inner_widths
    assert list(known) == list(widths)[len(widths) - len(known) :]


@every_encoder
def test_gradient_reaches_every_parameter(name):
    encoder, inputs = _built(name, rows=8)
    (encoder.train()(inputs) + 0.5).square().sum().backward()  # what starts at 0 is to be reached too
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_encoder
def test_copies_computed_together_are_the_copies_alone(name):
    spec, inputs = encoder_world(ENCODERS.load(name).reads, rows=4)
    encoders = [ENCODERS.build(name, spec, 6).eval() for _ in range(3)]
    stack = type(encoders[0]).stack(encoders).eval()
    together = stack(inputs)
    torch.testing.assert_close(together, torch.stack([e(inputs) for e in encoders]), rtol=1e-5, atol=1e-5)
    together.square().sum().backward()
    assert sum(p.numel() for p in stack.parameters()) == 3 * sum(p.numel() for p in encoders[0].parameters())
    assert all(p.shape[0] == 3 and p.grad is not None for p in stack.parameters())


@pytest.mark.parametrize("positions", ["rows", "tokens", "both"])
@pytest.mark.parametrize("sharing", [*WITH_COPIES, *WITH_SLICES])
@every_encoder
def test_copies_may_leave_out_what_nobody_wants_and_nothing_else(name, sharing, positions):
    encoder = ENCODERS.load(name)
    if positions != "rows" and encoder.reads != "tokens":
        pytest.skip("gives features to rows")
    spec, inputs = encoder_world(encoder.reads, rows=7)
    make = EncoderMaker(encoder, replace(spec, positions=positions), 6)
    copies = SHARINGS.build(sharing, make, ["a", "b", "c", "d"])
    wanted = torch.tensor([[1, 0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0, 1], [0] * 7, [0, 0, 0, 0, 0, 1, 1]]) > 0
    alone = make()
    wanted_positions = torch.zeros(4, alone.positions(inputs), dtype=torch.bool)
    for own, rows in zip(wanted_positions, wanted, strict=True):
        own[alone.places(inputs, rows.nonzero().flatten())] = True
    features, gradients = [], []
    slope = torch.randn(*wanted_positions.shape, 6, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    copies.eval()  # without dropout, whose draws are of the rows that are computed
    for rows in (inputs, inputs._replace(wanted=wanted)):
        for parameter in copies.parameters():
            parameter.grad = torch.zeros_like(parameter)
        out, backward = copies.with_backward(rows)
        backward(slope * wanted_positions.unsqueeze(2))
        torch.testing.assert_close(copies(rows), out)
        features.append(out)
        gradients.append([parameter.grad for parameter in copies.parameters()])
    torch.testing.assert_close(features[1][wanted_positions], features[0][wanted_positions], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    left_out = not features[1][~wanted_positions].any()
    own_copies = encoder.costly or vars(encoder).get("takes_rows_of_copies", False)
    assert left_out == (own_copies if sharing in WITH_COPIES else encoder.reads != "tokens")


@pytest.mark.parametrize("stacked", ["stack", "vmap"])
@every_encoder
def test_frozen_parameters_are_frozen_in_copies_too(name, stacked):
    spec, _ = encoder_world(ENCODERS.load(name).reads, rows=4)
    encoders = [ENCODERS.build(name, spec, 6) for _ in range(2)]
    frozen = {parameter for encoder in encoders for parameter in [next(encoder.parameters())]}
    for parameter in frozen:
        parameter.requires_grad_(False)
    stack = type(encoders[0]).stack(encoders) if stacked == "stack" else VmapStack(encoders)
    flags = [parameter.requires_grad for parameter in encoders[0].parameters()]
    assert [parameter.requires_grad for parameter in stack.parameters()] == flags
    if stacked == "stack" and encoders[0].tables():
        encoders[0].get_parameter(encoders[0].tables()[0]).requires_grad_(False)
        assert not stack_with_common_tables(encoders)[1][0].requires_grad


def test_buffers_whose_names_are_alike_are_apart_in_copies():
    class Two(Encoder):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)
            self.a = nn.Module()
            self.a.register_buffer("b", torch.full((1,), 2.0))
            self.register_buffer("a_b", torch.full((1,), 5.0))

        def forward(self, inputs):
            return self.layer(inputs.numeric) * self.a.b + self.a_b

    encoders = [Two() for _ in range(2)]
    rows = Inputs(torch.randn(3, 2), torch.empty(3, 0, dtype=torch.int64))
    torch.testing.assert_close(VmapStack(encoders)(rows), torch.stack([encoder(rows) for encoder in encoders]))


class Tied(Encoder):
    """Two layers with one weight."""

    costly = True

    def __init__(self, spec, shared_dim):
        super().__init__()
        self.read = nn.Linear(spec.numeric_dim, shared_dim)
        self.first, self.second = nn.Linear(shared_dim, shared_dim), nn.Linear(shared_dim, shared_dim)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.second(torch.relu(self.first(self.read(inputs.numeric))))


def test_tied_weights_are_tied_in_copies():
    encoders = [Tied(InputSpec(2), 3) for _ in range(2)]
    rows = Inputs(torch.randn(4, 2), torch.empty(4, 0, dtype=torch.int64))
    stack = VmapStack(encoders)
    together, alone = stack(rows), torch.stack([encoder(rows) for encoder in encoders])
    torch.testing.assert_close(together, alone)
    for features in (together, alone):
        features.square().sum().backward()
    for place, parameters in enumerate(zip(*(encoder.parameters() for encoder in encoders), strict=True)):
        torch.testing.assert_close(stack.stacked[place].grad, torch.stack([p.grad for p in parameters]))


@pytest.mark.parametrize("sharing", sorted(set(SHARINGS.names()) - {"esmm", "stem"}))
def test_every_architecture_takes_encoders_with_tied_weights(sharing):
    rows = Inputs(torch.randn(6, 2), torch.empty(6, 0, dtype=torch.int64), wanted=torch.eye(3, 6) > 0)
    model = SHARINGS.build(sharing, EncoderMaker(Tied, InputSpec(2), 4), ["a", "b", "c"])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    features, backward = model.with_backward(rows)
    backward(torch.ones_like(features))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(isinstance(parameter, nn.Parameter) for parameter in model.last_layer())
    named = {id(parameter) for parameter in model.parameters()}
    assert {id(owned.parameter) for owned in model.owners()} == named


@every_encoder
def test_empty_batch_gives_no_features(name):
    encoder, inputs = _built(name, rows=3)
    assert encoder(inputs.rows(torch.empty(0, dtype=torch.int64))).shape == (0, 6)


@every_encoder
def test_inputs_that_it_does_not_read_are_refused_with_the_encoder_that_does(name):
    reads = ENCODERS.load(name).reads
    other = (
        Block("photo", "image", (4, 4, 1), mean=(0.0,), std=(1.0,)) if reads != "image" else Block("t", "text", (), 9)
    )
    with pytest.raises(
        ConfigError, match=rf"encoder: does not read column '{other.name}', an input of type {other.type}"
    ):
        ENCODERS.build(name, InputSpec(2, blocks=(other,)), 6)
    if reads is not None:
        with pytest.raises(ConfigError, match=rf"encoder: reads one.* of type {reads}, and the data have none"):
            ENCODERS.build(name, InputSpec(2), 6)
