"""What encoders, architectures, methods and kinds of one's own give is looked at once, and who gives it is named."""

from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from worlds import inputs, make_learner, three_kinds

from mtl_cli.balancing import GradientBalancing, GramianBalancing, LossBalancing, backward
from mtl_cli.build import build_data, check_features
from mtl_cli.data import Source, Table
from mtl_cli.data.batches import Origins
from mtl_cli.data.table import Part
from mtl_cli.errors import ConfigError, DataError
from mtl_cli.loop import Objective
from mtl_cli.loop.evaluate import score
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.sharing import Sharing
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.model.sharing.mmoe import MultiGateMixtureOfExperts
from mtl_cli.model.sharing.separate import SeparateModels
from mtl_cli.optim import Scheduler
from mtl_cli.schema import validate
from mtl_cli.tasks import Task
from mtl_cli.tasks.regression import Regression
from mtl_cli.types import InputSpec, Labels

ROWS = inputs(torch.zeros(4, 3))


class Wide(Encoder):
    """Gives ``more`` features than the heads read."""

    more = 1

    def __init__(self, spec, shared_dim):
        super().__init__()
        self.layer = nn.Linear(spec.numeric_dim, shared_dim + self.more)

    def forward(self, inputs):
        return self.layer(inputs.numeric)


class Fitting(Wide):
    """Gives as many as they read."""

    more = 0


class Two(Sharing):
    """Gives features of two tasks, whatever there is."""

    def __init__(self, make_encoder, task_names):  # noqa: ARG002
        super().__init__()
        self.encoder = make_encoder()

    def forward(self, inputs):
        return torch.stack([self.encoder(inputs)] * 2)


class Listing(Two):
    """Gives no tensor."""

    def forward(self, inputs):
        return [self.encoder(inputs)]


def _model(encoder, sharing):
    architecture = sharing(EncoderMaker(encoder, InputSpec(3), 8), ["a", "b", "c"])
    return MultiTaskModel(3, [1, 1, 1], 8, sharing=architecture)


@pytest.mark.parametrize(
    ("encoder", "sharing", "message"),
    [
        (Wide, HardSharing, "Wide: gives (4, 9) as features, must be (4, 8)."),
        (Wide, SeparateModels, "Wide: gives (4, 9) as features, must be (4, 8)."),
        (Fitting, Two, "Two: gives (2, 4, 8) as features, must be (3, 4, 8)."),
        (Fitting, Listing, "Listing: gives a list as features, must have shape (4, 8)."),
    ],
)
def test_features_of_another_shape_are_refused(encoder, sharing, message):
    with pytest.raises(ConfigError) as caught:
        check_features(_model(encoder, sharing), ROWS)
    assert str(caught.value) == f"{__name__}.{message}"


@pytest.mark.parametrize("sharing", [HardSharing, SeparateModels])
def test_features_that_fit_are_looked_at_and_nothing_is_changed(sharing):
    model = _model(Fitting, sharing)
    before = torch.get_rng_state()
    check_features(model, ROWS)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


class Halving(Fitting):
    """Scales the rows that it is given where they stand."""

    def forward(self, inputs):
        return super().forward(inputs._replace(numeric=inputs.numeric.mul_(0.5)))


class Drawing(Fitting):
    """Draws in evaluation, too."""

    def forward(self, inputs):
        features = super().forward(inputs)
        return features + torch.rand_like(features)


class Centred(Fitting):
    """Looks at the other rows of the batch."""

    def forward(self, inputs):
        features = super().forward(inputs)
        return features - features.mean(0)


class Unsure(HardSharing):
    """Draws in evaluation, too."""

    def forward(self, inputs):
        return torch.nn.functional.dropout(super().forward(inputs))


def _counted():
    return inputs(torch.arange(12.0).view(4, 3))


@pytest.mark.parametrize("sharing", [HardSharing, Two])
def test_encoder_that_changes_its_inputs_is_refused(sharing):
    with pytest.raises(ConfigError) as caught:
        check_features(_model(Halving, sharing), _counted())
    assert str(caught.value) == (
        f"{__name__}.Halving: changes the rows that it is given, in place: an evaluation would read others each time. "
        "Let it work on what it makes of them."
    )


@pytest.mark.parametrize(
    ("encoder", "sharing", "told"),
    [
        (
            Drawing,
            HardSharing,
            "Drawing: gives other features of the same rows when it is asked again, in evaluation too",
        ),
        (MLP, Unsure, "Unsure: gives other features of the same rows when it is asked again, in evaluation too"),
        (Centred, HardSharing, "Centred: gives other features of the same rows with other rows beside them"),
        (type("Own", (MLP,), {"__module__": __name__}), HardSharing, None),
    ],
)
def test_features_that_are_others_each_time_are_told(caplog, encoder, sharing, told):
    check_features(_model(encoder, sharing), _counted())
    messages = [record.getMessage().partition(", so that")[0] for record in caplog.records]
    assert messages == ([] if told is None else [f"{__name__}.{told}"])


class Experts(MultiGateMixtureOfExperts):
    """The shipped one under another name: its encoders are copies that are computed together."""


@pytest.mark.parametrize("encoder", [MLP, Fitting, type("Own", (MLP,), {"__module__": __name__})])
def test_copies_of_an_encoder_that_are_computed_together_fit(encoder):
    check_features(_model(encoder, Experts), ROWS)


@pytest.mark.parametrize("sharing", [HardSharing, SeparateModels])
def test_stages_that_are_not_the_encoder_are_refused(sharing):
    def stage(self, index, x, inputs):
        return 2 * MLP.stage(self, index, x, inputs)

    own = type("Own", (MLP,), {"stage": stage, "__module__": __name__})
    with pytest.raises(ConfigError) as caught:
        check_features(_model(partial(own, hidden=[4]), sharing), ROWS)
    assert str(caught.value) == (
        f"{__name__}.Own: gives other features by its stages, one after another, than by its forward. Override both, "
        "or none."
    )


class Weighting(LossBalancing):
    """Gives ``given`` as weights."""

    def __init__(self, given, linear):
        super().__init__()
        self.given, self.linear = given, linear

    def weights(self, losses, tasks):  # noqa: ARG002
        return self.given


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("shape", [(), (2,), (3, 1)])
def test_weights_of_another_shape_are_refused(shape, linear):
    x = nn.Parameter(torch.ones(3))
    with pytest.raises(ConfigError) as caught:
        backward(x * 1.0, Weighting(torch.ones(shape), linear), [x])
    assert str(caught.value) == f"{__name__}.Weighting: gives {shape} as weights, must be (3,)."


class Penalised(LossBalancing):
    """Learns a number of each task, and gives ``given`` of them as penalty."""

    def __init__(self, given):
        super().__init__()
        self.own, self.given = nn.Parameter(torch.zeros(3)), given

    def weights(self, losses, tasks):  # noqa: ARG002
        return self.own.exp()

    def penalty(self, tasks):
        return self.given(self.own[tasks])


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (lambda own: own.flatten()[:3], "gives (3,) as penalty, must be ()."),
        (lambda own: 0.5, "gives a float as penalty, must have shape ()."),  # noqa: ARG005
    ],
)
def test_penalty_that_is_no_tensor_of_one_number_is_refused(given, what):
    x = nn.Parameter(torch.ones(3))
    with pytest.raises(ConfigError) as caught:
        backward(x * 1.0, Penalised(given), [x])
    assert str(caught.value) == f"{__name__}.Penalised: {what}"


class Combining(GradientBalancing):
    """Gives ``given`` as direction."""

    def __init__(self, given):
        super().__init__()
        self.given = given

    def direction(self, jacobian, losses, tasks):  # noqa: ARG002
        return self.given


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ((torch.ones(2, 3), None), "gives (2, 3) as update, must be (3,)."),
        ((torch.ones(3), torch.ones(3)), "gives (3,) as weights, must be (2,)."),
        (torch.ones(3), "its direction gives a Tensor, must be the update and the weights or None. Write: return "),
    ],
)
def test_direction_of_another_shape_is_refused(given, what):
    x = nn.Parameter(torch.ones(3))
    x.grad = torch.zeros(3)
    with pytest.raises(ConfigError) as caught:
        backward(torch.stack([x.sum(), x[0]]), Combining(given), [x])
    assert str(caught.value).startswith(f"{__name__}.Combining: {what}")


class Products(GramianBalancing):
    """Gives its products for weights."""

    def combine(self, gramian, losses, tasks):  # noqa: ARG002
        return gramian


def test_weights_by_the_products_of_another_shape_are_refused():
    x = nn.Parameter(torch.ones(3))
    x.grad = torch.zeros(3)
    with pytest.raises(ConfigError) as caught:
        backward(torch.stack([x.sum(), x[0]]), Products(), [x])
    assert str(caught.value) == f"{__name__}.Products: gives (2, 2) as weights, must be (2,)."


class Mean(Regression):
    """Gives one loss for all rows."""

    def loss(self, outputs, targets):
        return (outputs.squeeze(1) - targets).abs().mean()


def test_loss_of_another_shape_is_refused():
    with pytest.raises(ConfigError) as caught:
        Mean().loss_and_gradient(torch.ones(1, 1, 4), torch.ones(1, 4))
    assert str(caught.value) == f"{__name__}.Mean: gives () as loss of each row, must be (1, 4)."


class Wrong(Regression):
    """Gives what the test wants."""

    def __init__(self, **given):
        super().__init__()
        self._given = given

    def score(self, outputs, targets):
        return self._given["score"](super().score(outputs, targets))

    def loss_and_gradient(self, outputs, targets):
        return self._given["slope"](*super().loss_and_gradient(outputs, targets))

    def encode(self, column):
        return self._given["labels"](super().encode(column))

    def state(self):
        return self._given["state"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda _: None, "its score gives a NoneType, must be a dict of its metrics."),
        (lambda _: {"r2": 1.0}, "its score gives no 'rmse', got ['r2']."),
        (lambda found: {**found, "r2": "0.5"}, "its score gives a str as 'r2', must be a number (float) or None."),
        (lambda found: {**found, "mae": torch.ones(())}, "its score gives a Tensor as 'mae', must be a number"),
    ],
)  # fmt: skip
def test_scores_that_are_none_are_refused(change, what):
    parts = torch.zeros(1, 4), Labels(torch.arange(4.0)[:, None]), [Task("a", Wrong(score=change))]
    with pytest.raises(ConfigError) as caught:
        score(*parts, Origins(("",), np.zeros(4, np.int64)))
    assert str(caught.value).startswith(f"{__name__}.Wrong: {what}")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda losses, slope: (losses.mean(), slope), "gives () as loss of each row, must be (1, 4)."),
        (lambda losses, slope: (losses, slope[0]), "gives (1, 4) as derivative of the loss, must be (1, 1, 4)."),
    ],
)  # fmt: skip
def test_losses_and_derivatives_of_another_shape_are_refused(change, what):
    objective = Objective([Wrong(slope=change)], torch.device("cpu"))
    with pytest.raises(ConfigError) as caught:
        objective.sums_and_gradient(torch.zeros(1, 4), Labels(torch.ones(4, 1)), complete=True)
    assert str(caught.value) == f"{__name__}.Wrong: {what}"


def _config(folder):
    (folder / "rows.csv").write_text("x,y\n" + "".join(f"{i},{i % 7}\n" for i in range(20)))
    return validate({
        "data": {"source": "table", "path": str(folder / "rows.csv"), "inputs": ["x"]},
        "tasks": {"y": {"kind": "regression"}}, "encoder": {"name": "mlp"}, "sharing": {"name": "hard"},
        "balancing": {"name": "equal"}, "optimizer": {"name": "adamw"}, "scheduler": {"name": "constant"},
        "trainer": {},
    })  # fmt: skip


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"labels": list}, "gives a list as labels, must have shape (20,)."),
        ({"labels": lambda labels: labels[1:]}, "gives (19,) as labels, must be (20,)."),
        ({"labels": lambda labels: labels, "state": {"a": np.ones(2)}}, "its state is no plain JSON: Object of"),
    ],
)  # fmt: skip
def test_labels_and_states_of_another_form_are_refused(tmp_path, monkeypatch, given, what):
    config = _config(tmp_path)
    monkeypatch.setattr("mtl_cli.build.labels.build_kind", lambda _: Wrong(**given))
    with pytest.raises((ConfigError, DataError)) as caught:
        build_data(config)
    assert f"{__name__}.Wrong: {what}" in str(caught.value)


class Scaled(Regression):
    """Learns one number more, and may forget it."""

    def __init__(self, kept):
        super().__init__()
        self._kept, self.most = kept, 1.0

    def fit(self, column, train):
        super().fit(column, train)
        self.most = float(column.values.max())

    def decode(self, outputs):
        return {"pred": np.minimum(super().decode(outputs)["pred"], self.most)}

    def state(self):
        return {**super().state(), "most": self.most}

    def load_state(self, state):
        super().load_state(state)
        self.most = state["most"] if self._kept else 1.0


@pytest.mark.parametrize("kept", [True, False])
def test_kind_that_forgets_what_it_has_learnt_is_refused(tmp_path, monkeypatch, kept):
    config = _config(tmp_path)
    monkeypatch.setattr("mtl_cli.build.labels.build_kind", lambda _: Scaled(kept))
    if kept:
        assert build_data(config).state(config)["tasks"]["y"]["state"]["most"] == 6.0
        return
    with pytest.raises(DataError) as caught:
        build_data(config)
    assert str(caught.value) == (
        f"tasks.y: {__name__}.Scaled: one with the same state() gives other pred. state() has to hold all that fit "
        "learns: whatever loads the run has nothing else."
    )


def test_numbers_of_numpy_are_scores_and_factors_that_a_checkpoint_holds():
    kind = Wrong(score=lambda found: {**found, "r2": np.float64(0.5), "pearson": None})
    parts = torch.zeros(1, 4), Labels(torch.arange(4.0)[:, None]), [Task("a", kind)]
    found = score(*parts, Origins(("",), np.zeros(4, np.int64))).tasks["a"]
    assert (found["r2"], found["pearson"]) == (0.5, None)
    schedule = type("Own", (Scheduler,), {"after_warmup": lambda *_: np.float64(0.5)})(10, 0)
    assert {type(found["r2"]), type(schedule.factor(6))} == {float}


def test_weights_of_another_precision_are_taken():
    x = nn.Parameter(torch.ones(3))
    x.grad = torch.zeros(3)
    backward(x * 1.0, Weighting(torch.arange(3.0, dtype=torch.float64), linear=False), [x])
    assert x.grad.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("given", [None, float("nan"), -1.0, torch.ones(())])
def test_factors_that_are_no_numbers_from_zero_are_refused(given):
    schedule = type("Own", (Scheduler,), {"after_warmup": lambda *_: given, "__module__": __name__})(10, 2)
    assert schedule.factor(0) == pytest.approx(1 / 3)
    with pytest.raises(ConfigError) as caught:
        schedule.factor(6)
    assert str(caught.value) == (
        f"{__name__}.Own: gives {given!r} as the factor at progress 0.5, must be a number from 0."
    )


def test_shipped_components_are_not_run_once_more(monkeypatch):
    model = make_learner(three_kinds()).model
    monkeypatch.setattr(type(model.sharing), "forward", None)
    check_features(model, ROWS)


def test_predictions_of_another_shape_are_refused(tmp_path, monkeypatch):
    def decode(self, outputs):
        return {"pred": Regression.decode(self, outputs)["pred"][:, None]}

    monkeypatch.setattr(
        "mtl_cli.build.labels.build_kind",
        lambda _: type("Own", (Regression,), {"decode": decode, "__module__": __name__})(),
    )
    with pytest.raises(DataError) as caught:
        build_data(_config(tmp_path))
    what = "gives (20, 1) as column 'pred' of predictions, must be (20,)."
    assert str(caught.value) == f"tasks.y: {__name__}.Own: {what}"


ROWS_OF_SOURCE = pl.DataFrame({"x": [*range(20)], "y": [*range(20)]})


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (ROWS_OF_SOURCE, "its read gives a DataFrame, must be a Table. See mtl_cli.data.table."),
        (
            Table(ROWS_OF_SOURCE, (Part("mine", 0, 7, lines=False),)),
            "the parts of its Table hold 7 rows, and the frame has 20. See mtl_cli.data.table.",
        ),
        (Table(ROWS_OF_SOURCE, (Part("mine", 0, 20, lines=False),)), None),
    ],
)
def test_rows_of_another_form_are_refused(tmp_path, monkeypatch, given, what):
    own = type("Own", (Source,), {"read": lambda _: given, "__module__": __name__})
    monkeypatch.setattr("mtl_cli.build.sources._source", lambda _: own())
    config = _config(tmp_path)
    if what is None:
        assert len(build_data(config).rows("train", torch.device("cpu"))) == 16
        return
    with pytest.raises(DataError) as caught:
        build_data(config)
    assert str(caught.value) == f"{__name__}.Own: {what}"


def test_source_without_a_path_reads_no_other_file():
    own = type("Own", (Source,), {"read": lambda _: None, "__module__": __name__})
    with pytest.raises(ConfigError, match="Own: it has no option 'path', so that it reads no other file"):
        own.further_rows("new.csv", {})
