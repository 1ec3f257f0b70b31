"""All parameters as one vector."""

import torch
from torch import nn

from mtl_cli.model import MultiTaskModel
from mtl_cli.optim import FlatParameters, begin_as_in_a_vector


def _flat(model):
    return FlatParameters(model.owners())


def test_values_do_not_change_and_parameters_become_views():
    model = MultiTaskModel(3, [2, 1], 4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flat = _flat(model)
    assert len(flat.values) == sum(p.numel() for p in model.parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    flat.values.zero_()
    assert all(parameter.abs().max() == 0 for parameter in model.parameters())


def test_backward_fills_the_flat_gradient():
    model = MultiTaskModel(3, [2, 1], 4)
    flat = _flat(model)
    model.outputs(torch.ones(2, 3)).sum().backward()
    assert torch.equal(flat.gradient, torch.cat([p.grad.flatten() for p in flat.shared + flat.private]))
    assert flat.gradient.abs().max() > 0
    torch.testing.assert_close(flat.gradient_norm(), flat.gradient.norm())
    flat.zero_gradient()
    assert all(p.grad.abs().max() == 0 for p in model.parameters())


def test_views_stay_tied_after_loading_a_state_dict():
    model, other = MultiTaskModel(3, [2, 1], 4), MultiTaskModel(3, [2, 1], 4)
    flat = _flat(model)
    model.load_state_dict(other.state_dict())
    expected = torch.cat([p.detach().flatten() for p in flat.shared + flat.private])
    assert torch.equal(flat.values, expected)
    assert torch.equal(model.heads.blocks[0].weight, other.heads.blocks[0].weight)
    flat.values.fill_(2.0)
    assert float(model.heads.blocks[0].weight.detach().min()) == 2.0


def test_vectors_that_it_moves_to_have_its_values_and_no_gradient():
    model = MultiTaskModel(3, [2, 1], 4)
    flat = _flat(model)
    before, rows = flat.values.clone(), torch.ones(4, len(flat.values))
    flat.move(rows[1], rows[2])
    assert torch.equal(rows, torch.stack([torch.ones_like(before), before, 0 * before, torch.ones_like(before)]))
    rows[1:3] = 7.0
    assert all((p == 7.0).all() and (p.grad == 7.0).all() for p in model.parameters())


def test_gradients_of_tasks_lie_in_the_same_memory_in_every_step():
    flat = _flat(MultiTaskModel(3, [2, 1], 4))
    first = flat.jacobian(2)
    assert first.shape == (2, sum(p.numel() for p in flat.shared))
    assert flat.jacobian(2).data_ptr() == flat.jacobian(1).data_ptr() == first.data_ptr()
    assert flat.jacobian(3).shape[0] == 3


def test_segments_follow_the_owners_and_are_complete():
    model = MultiTaskModel(3, [2, 1], 4)
    segments = _flat(model).segments
    assert [(s.stop - s.start, s.task) for s in segments] == [(16, None), (8, 0), (4, 1), (2, 0), (1, 1)]
    assert [s.start for s in segments[1:]] == [s.stop for s in segments[:-1]]


def test_parameters_are_shared_or_private():
    model = MultiTaskModel(3, [2, 1], 4)
    flat = _flat(model)
    assert {id(p) for p in flat.shared} == {id(p) for p in model.sharing.parameters()}
    assert {id(p) for p in flat.private} == {id(p) for p in model.heads.parameters()}


def test_frozen_parameters_stay_out():
    model = MultiTaskModel(3, [2], 4)
    model.sharing.requires_grad_(False)
    flat = _flat(model)
    assert len(flat.values) == 2 * 4 + 2
    assert flat.shared == []


def test_rows_that_nobody_owns_are_no_segments_and_share_nothing():
    weight, whole = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(2))
    flat = FlatParameters([(weight, None, 1, 2), (weight, None, 3, 4), (whole, None, 0, 2)])
    assert [(s.start, s.stop) for s in flat.segments] == [(3, 6), (9, 14)]
    assert flat.still == [slice(0, 3), slice(6, 9)]
    assert [flat.shared[0] is whole, flat.private[0] is weight] == [True, True]
    flat.gradient.fill_(1.0)
    flat.zero_still()
    assert float(flat.gradient.sum()) == 8
    assert not weight.grad[[0, 2]].any()


def test_scalar_parameters_fit_in():
    scale = nn.Parameter(torch.tensor(3.0))
    flat = FlatParameters([(scale, None, 0, 1)])
    (scale * 2).backward()
    assert flat.values.tolist() == [3.0]
    assert flat.gradient.tolist() == [2.0]


def test_no_parameters_make_an_empty_vector():
    flat = FlatParameters([])
    assert len(flat.values) == 0
    assert float(flat.gradient_norm()) == 0.0


def test_parameters_begin_as_in_a_vector_each_in_its_own_memory():
    model, other = MultiTaskModel(3, [2, 1], 5), MultiTaskModel(3, [2, 1], 5)
    still = model.get_parameter("heads.blocks.0.bias").requires_grad_(False), other.get_parameter("heads.blocks.0.bias")
    still[1].requires_grad_(False)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    begin_as_in_a_vector(owned.parameter for owned in model.owners())
    flat = _flat(other)
    assert all(map(torch.equal, model.parameters(), before))
    for parameter, like in zip(model.parameters(), other.parameters(), strict=True):
        assert parameter.data_ptr() % 64 == like.data_ptr() % 64
        assert parameter.untyped_storage().nbytes() < parameter.nbytes + 64
    assert {place.start % 16 for place in flat.places.values()} != {0}
    turned = nn.Parameter(torch.arange(6.0).view(2, 3).t())
    begin_as_in_a_vector([turned])
    assert turned.is_contiguous()
    assert turned.tolist() == [[0, 3], [1, 4], [2, 5]]
