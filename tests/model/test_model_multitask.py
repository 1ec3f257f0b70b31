"""The model of the first lesson: Linear + ReLU that all tasks share, and one linear head for each."""

import copy
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from worlds import encoder_world, inputs

import mtl_cli
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.conv import Conv
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.model.sharing.separate import SeparateModels
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, InputSpec


class ByHand(nn.Module):
    """What a reader of the README would write in plain PyTorch."""

    def __init__(self, input_dim, output_dims, shared_dim):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(input_dim, shared_dim), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(shared_dim, outputs) for outputs in output_dims)

    def forward(self, x):
        features = self.shared(x)
        return [head(features) for head in self.heads]


def _with_the_weights_of(model, output_dims):
    by_hand = ByHand(model.input_dim, output_dims, model.shared_dim)
    state = model.state_dict()
    shared = {"shared.0.weight": "sharing.encoder.layers.0.weight", "shared.0.bias": "sharing.encoder.layers.0.bias"}
    copied = {name: state[ours] for name, ours in shared.items()}
    for leaf in ("weight", "bias"):
        for task, rows in enumerate(state[f"heads.blocks.0.{leaf}"].split(list(output_dims))):
            copied[f"heads.{task}.{leaf}"] = rows
    by_hand.load_state_dict(copied)
    return by_hand


@pytest.mark.parametrize("output_dims", [[10, 2], [1], [1, 1, 3, 1]])
def test_model_is_a_shared_linear_relu_and_linear_heads(output_dims):
    model = MultiTaskModel(64, output_dims, 128)
    x = torch.randn(7, 64)
    outputs = model(x)
    assert isinstance(outputs, list)
    assert [output.shape for output in outputs] == [(7, width) for width in output_dims]
    for ours, theirs in zip(outputs, _with_the_weights_of(model, output_dims)(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # one product for all heads rounds otherwise


@pytest.mark.parametrize("hidden", [[[5]], [[5], [], []]])
def test_hidden_layers_of_another_number_of_tasks_are_refused(hidden):
    with pytest.raises(ValueError, match=rf"^hidden: must have an entry for each of 2 tasks, got {len(hidden)}$"):
        MultiTaskModel(4, [1, 2], 3, hidden=hidden)


def test_a_model_without_tasks_is_refused():
    with pytest.raises(ValueError, match=r"^output_dims: must have the number of outputs of each task, got none$"):
        MultiTaskModel(64, [], 8)


@pytest.mark.parametrize("shape", [(64,), (7, 3, 64)])
def test_rows_of_another_number_of_axes_are_refused(shape):
    model = MultiTaskModel(64, [10, 2], 8)
    with pytest.raises(ValueError, match=rf"^x: must have the shape \(rows, 64\), got {re.escape(str(shape))}$"):
        model(torch.randn(shape))


def test_the_model_can_be_exported_for_any_number_of_rows():
    model = MultiTaskModel(64, [10, 2], 8)
    program = torch.export.export(model, (torch.randn(4, 64),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    x = torch.randn(7, 64)
    torch.testing.assert_close(program.module()(x), model(x))


def test_gradients_are_those_of_the_model_by_hand():
    model = MultiTaskModel(6, [3, 1], 5)
    by_hand = _with_the_weights_of(model, [3, 1])
    x = torch.randn(9, 6)
    for module in (model, by_hand):
        sum(output.square().sum() for output in module(x)).backward()
    ours = model.sharing.encoder.layers[0].weight.grad
    torch.testing.assert_close(ours, by_hand.shared[0].weight.grad, rtol=1e-5, atol=1e-5)
    heads = torch.cat([head.weight.grad for head in by_hand.heads])
    torch.testing.assert_close(model.heads.blocks[0].weight.grad, heads, rtol=1e-5, atol=1e-5)


def test_initialisation_has_the_range_of_pytorch():
    weight = MultiTaskModel(100, [4], 400).sharing.encoder.layers[0].weight.detach()
    bound = nn.Linear(100, 400).weight.detach().abs().max()  # 1 / sqrt(100), nearly reached
    assert weight.abs().max() == pytest.approx(float(bound), rel=0.01)
    assert weight.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_outputs_are_the_forward_pass_below_one_another():
    model = MultiTaskModel(6, [3, 1], 5)
    x = torch.randn(4, 6)
    assert torch.equal(model.outputs(x), torch.cat([output.t() for output in model(x)]))
    assert torch.equal(model.outputs(x), model.outputs(inputs(x)))


def test_one_row_alone_gives_what_it_gives_in_a_batch():
    model = MultiTaskModel(6, [3, 1], 5)
    x = torch.randn(4, 6)
    for alone, together in zip(model(x[1:2]), model(x), strict=True):
        torch.testing.assert_close(alone[0], together[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("sharing", "shared", "tasks"),
    [
        (HardSharing, 64 * 128 + 128, (10 * 129, 2 * 129)),
        (SeparateModels, 0, (64 * 128 + 128 + 10 * 129, 64 * 128 + 128 + 2 * 129)),
    ],
)
def test_parameters_are_counted_by_owner(sharing, shared, tasks):
    model = MultiTaskModel(64, [10, 2], 128, sharing=sharing(lambda: MLP(InputSpec(64), 128), ["a", "b"]))
    counts = model.count_parameters()
    assert (counts.shared, counts.tasks) == (shared, tasks)
    assert counts.total == sum(p.numel() for p in model.parameters()) == shared + sum(tasks)


def test_parameters_of_hidden_layers_are_counted_by_owner():
    model = MultiTaskModel(4, [1, 3], 8, hidden=[[6], [6]])
    assert model.count_parameters().tasks == (8 * 6 + 6 + 7, 8 * 6 + 6 + 3 * 7)


@pytest.mark.parametrize("hidden", [None, [[6], [6]], [[], [5]]], ids=["linear", "hidden", "mixed"])
@pytest.mark.parametrize("sharing", [HardSharing, SeparateModels])
def test_private_parameters_of_a_task_do_not_touch_the_others(sharing, hidden):
    architecture = sharing(lambda: MLP(InputSpec(4), 8), ["a", "b"])
    model = MultiTaskModel(4, [2, 3], 8, sharing=architecture, hidden=hidden)
    x = torch.randn(5, 4)
    before = [output.clone() for output in model(x)]
    for owned in model.owners():
        if owned.task == 0:
            with torch.no_grad():
                owned.parameter[owned.start : owned.stop] += 1.0
    after = model(x)
    assert torch.equal(after[1], before[1])
    assert not torch.allclose(after[0], before[0])


def test_model_survives_a_copy_and_a_state_dict():
    model = MultiTaskModel(4, [2, 3], 8, hidden=[[6], []])
    other = MultiTaskModel(4, [2, 3], 8, hidden=[[6], []])
    other.load_state_dict(copy.deepcopy(model).state_dict())
    x = torch.randn(5, 4)
    assert torch.equal(model.outputs(x), other.outputs(x))


def test_categories_reach_the_model():
    spec = InputSpec(2, (3, 4))
    model = MultiTaskModel(2, [2], 8, sharing=HardSharing(lambda: MLP(spec, 8), ["a"]))
    x = torch.zeros(2, 2)
    outputs = model.outputs(Inputs(x, torch.tensor([[1, 2], [1, 3]])))
    assert not torch.allclose(outputs[:, 0], outputs[:, 1])


ROWS, IN, HIDDEN, D, OUT = 5, 6, 7, 8, 4
FLOPS = {  # by hand: two for each multiply-add of a row
    "hard": IN * HIDDEN + HIDDEN * D + OUT * D,
    "separate": 2 * (IN * HIDDEN + HIDDEN * D) + OUT * D,
    "cross_stitch": 2 * (IN * HIDDEN + HIDDEN * D) + 4 * (HIDDEN + D) + OUT * D,
    "mmoe": 8 * (IN * HIDDEN + HIDDEN * D) + 2 * 8 * IN + 2 * 8 * D + OUT * D,
    "film": IN * HIDDEN + 2 * HIDDEN * D + OUT * D,
}


@pytest.mark.parametrize("name", list(FLOPS))
def test_flops_are_those_counted_by_hand_and_by_torch(name):
    maker = EncoderMaker(partial(MLP, hidden=[HIDDEN]), InputSpec(IN), D)
    model = MultiTaskModel(IN, [1, 3], D, sharing=SHARINGS.build(name, maker, ["a", "b"]))
    rows = inputs(torch.randn(ROWS, IN))
    before = torch.get_rng_state()
    assert model.count_flops(rows) == 2 * ROWS * FLOPS[name]
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    with FlopCounterMode(display=False) as counter:
        model.eval()(rows.numeric)
    assert counter.get_total_flops() == 2 * ROWS * FLOPS[name]


def test_counting_flops_does_not_compile():
    model = MultiTaskModel(IN, [1, 3], D)
    model.sharing.compile(backend=lambda *_: pytest.fail("compiled"))
    assert model.count_flops(inputs(torch.randn(ROWS, IN))) == 2 * ROWS * (IN * D + OUT * D)


def test_flops_of_convolutions_count():
    spec, rows = encoder_world("image", rows=3)
    maker = EncoderMaker(partial(Conv, widths=[4], pool="mean", stem_stride=1), spec, D)
    model = MultiTaskModel(0, [1, 3], D, sharing=HardSharing(maker, ["a", "b"]))
    pixels = 9 * 8 * 9  # positions times a 3x3 window
    by_row = pixels * (2 * 4 + 4 * 4 + 4 * 4) + (2 + 3 + 2 + 4 + 2 * 8) * D + OUT * D  # 2 numbers with 3 and 2 bins
    assert model.count_flops(rows) == 2 * 3 * by_row


def test_package_completes_the_names_that_it_imports_when_they_are_used():
    assert {"MultiTaskModel", "load_run", "__version__"} <= set(dir(mtl_cli))
    assert all(hasattr(mtl_cli, name) for name in mtl_cli.__all__)
