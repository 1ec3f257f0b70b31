"""What a configuration asks for is what trains."""

import pytest
import torch

from mtl_cli.build import build_data
from mtl_cli.build.learner import build_learner
from mtl_cli.schema import validate

NAMES = ["a", "b", "c"]


@pytest.fixture
def learner(tmp_path):
    """Makes the learner of three tasks on a small table."""
    path = tmp_path / "rows.csv"
    path.write_text("x,a,b,c\n" + "".join(f"{i},{i},{i % 3},{-i}\n" for i in range(20)))

    def make(balancing, trainer=(), auxiliary=(), **optimizer):
        config = validate({
            "data": {"source": "table", "path": str(path), "batch_size": 6},
            "tasks": {name: {"kind": "regression", "auxiliary": name in auxiliary} for name in NAMES},
            "encoder": {"name": "mlp"}, "sharing": {"name": "hard"}, "balancing": balancing,
            "optimizer": {"name": "adamw", **optimizer}, "scheduler": {"name": "constant"},
            "trainer": {"device": "cpu", **dict(trainer)},
        })  # fmt: skip
        return build_learner(config, build_data(config), 10)

    return make


def test_weights_by_name_go_to_their_tasks_and_1_to_the_others(learner):
    balancing = learner({"name": "fixed", "weights": {"c": 3, "a": 0.5}}).balancing
    assert balancing.weights(torch.ones(3), torch.arange(3)).tolist() == [0.5, 1.0, 3.0]


@pytest.mark.parametrize(
    ("primary", "auxiliary", "expected"),
    [(["c", "b"], [], [0, 1, 1]), ([], [], [1, 1, 1]), ([], ["b"], [1, 0, 1]), (["b"], ["b"], [0, 1, 0])],
)
def test_tasks_that_are_named_are_primary_or_all_but_the_auxiliary_ones(learner, primary, auxiliary, expected):
    class Passes:
        parameters, lr = torch.zeros(2), 0.1

        def gradient(self, weights):  # noqa: ARG002
            return torch.zeros(2)

        def validation_gradient(self, weights):
            self.asked = weights
            return torch.zeros(2)

        def losses(self):
            return torch.zeros(3)

    passes = Passes()
    learner({"name": "auto_lambda", "primary": primary}, auxiliary=auxiliary).balancing.before_step(
        passes, torch.arange(3)
    )
    assert passes.asked.tolist() == expected


def test_what_a_method_learns_is_learnt_by_the_optimizer_without_decay(learner):
    model, method = learner({"name": "uncertainty"}, lr=0.5, weight_decay=0.25).optimizers
    for optimizer, decay in ((model, 0.25), (method, 0.0)):
        before = optimizer.flat.values.fill_(1.0).clone()
        optimizer.step(1.0)  # with gradients of 0
        torch.testing.assert_close(optimizer.flat.values, before * (1 - 0.5 * decay))
    assert len(method.flat.values) == 3


def test_steps_are_clipped_and_cut_as_the_trainer_says(learner):
    plain = learner({"name": "equal"})
    assert (plain.clip, plain.piece, plain.loss_scale) == (None, None, None)
    other = learner(
        {"name": "equal", "loss_scale": "initial"}, {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2}
    )
    assert (other.clip, other.piece, len(other.loss_scale.first)) == (0.5, 6, 3)
