"""Heads computed together are the heads computed one by one."""

import pytest
import torch
from torch import nn

from mtl_cli.model.heads import Heads, HeadSpec

SPECS = {
    "one linear": [HeadSpec(3)],
    "alike": [HeadSpec(2), HeadSpec(2), HeadSpec(2)],
    "other widths": [HeadSpec(1), HeadSpec(1), HeadSpec(4), HeadSpec(2), HeadSpec(2), HeadSpec(1)],
    "hidden": [HeadSpec(2, (7,)), HeadSpec(3, (7,)), HeadSpec(3, (7,))],
    "deep": [HeadSpec(1, (7, 5)), HeadSpec(1, (7, 5))],
    "mixed": [HeadSpec(1), HeadSpec(2, (7,)), HeadSpec(2, (7,)), HeadSpec(1), HeadSpec(3, (4, 6))],
}


def _alone(heads, specs, width):
    """The same heads as separate nn modules, one Sequential of nn.Linear for each task."""
    modules = []
    for block in heads.blocks:
        row = 0
        for place, task in enumerate(block.tasks):
            layers = []
            for layer in block.hidden:
                layers += [nn.Linear(layer.weight.shape[2], layer.weight.shape[1]), nn.ReLU()]
                layers[-2].weight.data, layers[-2].bias.data = layer.weight.data[place], layer.bias.data[place]
            stop = row + specs[task].outputs
            layers.append(nn.Linear(([width, *specs[task].hidden])[-1], specs[task].outputs))
            layers[-1].weight.data, layers[-1].bias.data = block.weight.data[row:stop], block.bias.data[row:stop]
            row = stop
            modules.append(nn.Sequential(*layers))
    return modules


@pytest.mark.parametrize("own_features", [False, True], ids=["common", "per task"])
@pytest.mark.parametrize("specs", SPECS.values(), ids=SPECS)
def test_heads_together_are_the_heads_alone(specs, own_features):
    heads = Heads(6, specs)
    features = torch.randn(*((len(specs),) if own_features else ()), 5, 6)
    outputs = heads(features)
    assert outputs.shape == (sum(spec.outputs for spec in specs), 5)
    alone = _alone(heads, specs, 6)
    for task, (ours, head) in enumerate(zip(heads.split(outputs), alone, strict=True)):
        torch.testing.assert_close(ours, head(features[task] if own_features else features), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("own_features", [False, True], ids=["common", "per task"])
@pytest.mark.parametrize("specs", SPECS.values(), ids=SPECS)
def test_a_task_sends_gradients_to_its_own_rows_alone(specs, own_features):
    heads = Heads(6, specs)
    features = torch.randn(*((len(specs),) if own_features else ()), 5, 6)
    for task in range(len(specs)):
        heads.zero_grad()
        heads.split(heads(features))[task].square().sum().backward()
        for owned in heads.owners():
            gradient = owned.parameter.grad
            rows = None if gradient is None else gradient[owned.start : owned.stop]
            if owned.task != task:
                assert rows is None or rows.abs().max() == 0
            elif owned.parameter.dim() == 2:
                assert rows.abs().max() > 0
