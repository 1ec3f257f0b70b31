"""Who owns what."""

import pytest
import torch
from torch import nn

from mtl_cli.build.model_checks import check_owners
from mtl_cli.errors import ConfigError
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.ownership import Ownership, by_rows, find_flaw, shared, stacked
from mtl_cli.model.sharing import Sharing
from mtl_cli.types import InputSpec


def test_shared_parameters_are_owned_whole():
    weight, scale = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.tensor(1.0))
    assert shared([weight, scale]) == [Ownership(weight, None, 0, 3), Ownership(scale, None, 0, 1)]
    assert [owned.numel for owned in shared([weight, scale])] == [12, 1]


def test_stacked_parameters_are_divided_in_order():
    weight = nn.Parameter(torch.zeros(6, 4))
    owned = stacked([weight], [2, 0])
    assert [(o.task, o.start, o.stop, o.numel) for o in owned] == [(2, 0, 3, 12), (0, 3, 6, 12)]


@pytest.mark.parametrize(("start", "stop", "numel"), [(0, 1, 10), (1, 4, 30)])
def test_numel_counts_the_owned_rows(start, stop, numel):
    assert Ownership(nn.Parameter(torch.zeros(4, 2, 5)), 0, start, stop).numel == numel


@pytest.mark.parametrize(
    ("shape", "tasks"),
    [((3,), [0, 1, 2]), ((3, 2), [0, 1, 2]), ((6, 2), [None]), ((), [None]), ((1,), [None]), ((4,), [None])],
)
def test_parameters_without_a_row_for_each_task_are_of_all(shape, tasks):
    owned = by_rows([nn.Parameter(torch.zeros(shape))], 3)
    assert [o.task for o in owned] == tasks
    assert sum(o.numel for o in owned) == owned[0].parameter.numel()


class Scaled(Sharing):
    """An encoder, and a scale for each task, whose owner is up to the test."""

    def __init__(self, owners):
        super().__init__()
        make_encoder = EncoderMaker(MLP, InputSpec(3), 4)
        self.encoder, self.scale = make_encoder(), nn.Parameter(torch.ones(5, 4))
        self._owners = owners

    def forward(self, inputs):
        return self.encoder(inputs) * self.scale[0]

    def owners(self):
        return self._owners(self)


@pytest.mark.parametrize(
    ("owners", "flaw"),
    [
        (lambda own: shared(own.encoder.parameters()), "nobody owns rows 0 to 4 of 'scale'"),
        (lambda own: stacked(own.parameters(), [0, 1]), "nobody owns row 4 of 'scale'"),
        (lambda own: [*shared(own.parameters()), *stacked([own.scale], [0])], "two own rows 0 to 4 of 'scale'"),
        (lambda own: [Ownership(own.scale, 2, 0, 5), *shared(own.encoder.parameters())], "the tasks are 0 to 1, got 2"),
        (lambda own: shared([*own.parameters(), nn.Linear(1, 1).bias]), "it names a parameter that is none of its own"),
    ],
)  # fmt: skip
def test_an_architecture_whose_parameters_have_not_one_owner_each_is_refused(owners, flaw):
    sharing = Scaled(owners)
    with pytest.raises(ConfigError) as caught:
        check_owners(MultiTaskModel(3, [1, 1], 4, sharing=sharing))
    assert str(caught.value).startswith(f"{__name__}.Scaled: its owners() is wrong: {flaw}. Each row (axis 0)")


def test_rows_may_have_their_owners_in_any_order():
    weight, scale = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.tensor(1.0))
    owners = [*shared([scale]), *stacked([weight], [1, 0])]
    assert find_flaw({"weight": weight, "scale": scale}, owners[::-1], 2) is None
