"""Every architecture with every encoder: it works, or is refused with a reason and what works instead."""

import json
from dataclasses import replace

import pytest
import torch
from worlds import REFUSED_PAIRS, SMALL_ENCODERS, encoder_world

from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.findings import as_json
from mtl_cli.registry import ENCODERS, SHARINGS

NAMES, D = ["a", "b", "c"], 4
# Between towers without tables only what hands features on is shared, which the first task does not read.
WITHOUT_COMMON_LAYER = {("aitm", "fm"), ("aitm", "graph")}
every_encoder = pytest.mark.parametrize("encoder", ENCODERS.names())
every_pair = pytest.mark.parametrize(
    ("sharing", "encoder"), [(s, e) for s in SHARINGS.names() for e in ENCODERS.names() if (s, e) not in REFUSED_PAIRS]
)


def _maker(encoder, positions="rows"):
    spec, rows = encoder_world(ENCODERS.load(encoder).reads, rows=5)
    build = lambda spec, width: ENCODERS.build(encoder, spec, width, **SMALL_ENCODERS.get(encoder, {}))  # noqa: E731
    return EncoderMaker(build, replace(spec, positions=positions), D), rows


@every_pair
def test_pair_gives_features_that_train_every_parameter(sharing, encoder):
    maker, rows = _maker(encoder)
    model = SHARINGS.build(sharing, maker, NAMES)
    with torch.no_grad():  # away from the zeros that some start from
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    features = model(rows)
    assert features.shape in [(5, D), (3, 5, D)]
    assert features.isfinite().all()
    penalty = model.penalty()
    (features.tanh() + 0.5).square().mul(torch.linspace(1, 2, D)).sum().add(
        0.0 if penalty is None else penalty
    ).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused or sharing == "ltb"
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval()(rows)
    json.dumps(as_json(model.report(NAMES)), allow_nan=False)


@every_pair
def test_every_task_has_a_gradient_at_the_last_layer_that_all_share(sharing, encoder):
    maker, rows = _maker(encoder)
    model = SHARINGS.build(sharing, maker, NAMES)
    layer = model.last_layer()
    owned = {owner.parameter for owner in model.owners() if owner.task is not None}
    assert bool(layer) == model.shares
    assert not owned.intersection(layer)
    if not layer or (sharing, encoder) in WITHOUT_COMMON_LAYER:
        return
    assert any(sum(size > 1 for size in parameter.shape) > 1 for parameter in layer)
    features = model(rows).expand(len(NAMES), -1, D)
    for own in features:
        found = torch.autograd.grad(own.square().sum(), layer, retain_graph=True, materialize_grads=True)
        assert sum(gradient.norm() for gradient in found) > 0


@every_pair
def test_pair_trains_in_mixed_precision(sharing, encoder):
    maker, rows = _maker(encoder)
    model = SHARINGS.build(sharing, maker, NAMES)
    with torch.autocast("cpu", torch.bfloat16):
        features = model(rows)
    features.float().square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_pair
def test_pair_reads_each_row_alone_and_the_same_each_time(sharing, encoder):
    maker, rows = _maker(encoder)
    model = SHARINGS.build(sharing, maker, NAMES).eval()
    whole = model(rows)
    assert torch.equal(model(rows), whole)
    alone = model(rows.rows(torch.tensor([3, 1])))
    torch.testing.assert_close(alone, whole[..., [3, 1], :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sharing", "encoder"), sorted(REFUSED_PAIRS))
def test_pair_that_cannot_work_is_refused_with_what_can(sharing, encoder):
    with pytest.raises(ConfigError, match=r"sharing: .* Use sharing="):
        SHARINGS.build(sharing, _maker(encoder)[0], NAMES)


@every_encoder
def test_stages_one_after_another_are_the_encoder(encoder):
    maker, rows = _maker(encoder)
    made: Encoder = maker()
    x = None
    for index, width in enumerate([*made.inner_widths, D]):
        x = made.stage(index, x, rows)
        assert x.shape[1] == width
    torch.testing.assert_close(x, made(rows), rtol=1e-5, atol=1e-6)


@every_encoder
def test_stages_of_copies_and_of_slices_are_those_of_each_copy(encoder):
    maker, rows = _maker(encoder)
    copies = [maker() for _ in range(2)]
    stack = type(copies[0]).stack(copies)
    x, alone = None, [None, None]
    for index in range(len(copies[0].inner_widths) + 1):
        x = stack.stage(index, x, rows)
        before, alone = alone, [c.stage(index, a, rows) for c, a in zip(copies, alone, strict=True)]
        torch.testing.assert_close(x, torch.stack(alone), rtol=1e-4, atol=1e-5)
        if index:
            same = [copies[0].stage(index, a, rows) for a in before]
            slices = copies[0].stage_of_slices(index, torch.stack(before), rows)
            torch.testing.assert_close(slices, torch.stack(same), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sharing", [name for name in SHARINGS.names() if (name, "sequence") not in REFUSED_PAIRS])
@pytest.mark.parametrize("positions", ["tokens", "both"])
def test_features_of_tokens_come_from_every_architecture(sharing, positions):
    maker, rows = _maker("sequence", positions)
    tokens = len(rows.ragged("forms").values)
    features = SHARINGS.build(sharing, maker, NAMES)(rows)
    assert features.shape[-2:] == (tokens + (5 if positions == "both" else 0), D)
    assert features.isfinite().all()
