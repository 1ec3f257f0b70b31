"""Architectures that look inside encoders: stages, mixtures between them, and weights made from factors."""

from functools import partial

import pytest
import torch
from torch import nn
from worlds import NAN, inputs, make_learner, make_rows, make_trainer, three_kind_rows, three_kinds, two_source_rows

from mtl_cli.data.mixing import Mixing
from mtl_cli.errors import ConfigError
from mtl_cli.model.encoders import Encoder, EncoderMaker
from mtl_cli.model.encoders.base import VmapStack
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.sharing.cross_stitch import CrossStitch
from mtl_cli.model.sharing.lora import LowRankAdaptation
from mtl_cli.model.sharing.low_rank import LowRankSharing
from mtl_cli.model.sharing.ltb import LearningToBranch
from mtl_cli.model.sharing.separate import SeparateModels
from mtl_cli.model.sharing.soft import SoftSharing
from mtl_cli.model.sharing.tensor_train import TensorTrainSharing
from mtl_cli.model.sharing.tucker import TuckerSharing
from mtl_cli.registry import SHARINGS
from mtl_cli.run import RunFolder
from mtl_cli.types import Inputs, InputSpec

NAMES = ["a", "b", "c"]
ANY_INPUTS = [name for name in SHARINGS.names() if name not in ("esmm", "stem")]  # which need categories
SPEC = InputSpec(5)
MLP_MAKER = EncoderMaker(partial(MLP, hidden=[6]), SPEC, 8)


class Waves(Encoder):
    """Two stages, the first with positions behind the channels, as convolutions have; no batched form of its own."""

    inner_widths = (4,)

    def __init__(self, spec, shared_dim):  # noqa: ARG002
        super().__init__()
        self.first = nn.Conv1d(1, 4, 2)
        self.last = nn.Linear(16, shared_dim)

    def forward(self, inputs):
        return self.stage(1, self.stage(0, None, inputs), inputs)

    def stage(self, index, x, inputs):
        if index == 0:
            return torch.tanh(self.first(inputs.numeric.unsqueeze(1)))
        return torch.tanh(self.last(x.flatten(1)))


WAVES_MAKER = EncoderMaker(Waves, SPEC, 8)
both_encoders = pytest.mark.parametrize("maker", [MLP_MAKER, WAVES_MAKER], ids=["mlp", "encoder from outside"])


def _recorded(maker, made):
    def build(spec, shared_dim):
        made.append(maker.build(spec, shared_dim))
        return made[-1]

    return EncoderMaker(build, maker.spec, maker.shared_dim)


def _trained(folder, sharing, change=lambda _: None, *, steps=6, **options):
    """A learner with one architecture after some training, and its losses."""
    with RunFolder.claim(folder / sharing) as claimed:
        learner = make_learner(three_kinds(), sharing=sharing, encoder={"hidden": [6]}, **options)
        change(learner.model.sharing)
        trainer = make_trainer(claimed, learner, three_kind_rows(), epochs=None, steps=steps)
        trainer.fit()
    return learner.model, (folder / sharing / "metrics.jsonl").read_text()


@both_encoders
def test_stages_one_after_another_are_the_encoder(maker):
    encoder, x = maker(), inputs(torch.randn(7, 5))
    hidden = encoder.stage(0, None, x)
    assert hidden.shape[:2] == (7, encoder.inner_widths[0])
    assert torch.equal(encoder.stage(1, hidden, x), encoder(x))


@pytest.mark.parametrize(("make", "stack"), [(MLP_MAKER, MLP.stack), (MLP_MAKER, VmapStack), (WAVES_MAKER, VmapStack)])
def test_stages_of_a_stack_are_the_stages_of_each_copy(make, stack):
    encoders, x = [make() for _ in range(3)], inputs(torch.randn(7, 5))
    stacked = stack(encoders)
    hidden = stacked.stage(0, None, x)
    alone = torch.stack([encoder.stage(0, None, x) for encoder in encoders])
    torch.testing.assert_close(hidden, alone, rtol=1e-5, atol=1e-6)
    expected = torch.stack([encoder.stage(1, h, x) for encoder, h in zip(encoders, alone, strict=True)])
    torch.testing.assert_close(stacked.stage(1, hidden, x), expected, rtol=1e-5, atol=1e-6)


@both_encoders
@pytest.mark.parametrize("name", ["film", "adapter", "lora"])
def test_architectures_that_start_from_hard_sharing(name, maker):
    outputs = []
    for sharing in ("hard", name):
        torch.manual_seed(5)
        outputs.append(SHARINGS.build(sharing, maker, NAMES)(inputs(torch.linspace(-1, 1, 30).view(6, 5))))
    torch.testing.assert_close(outputs[1], outputs[0].expand(3, -1, -1), rtol=1e-5, atol=1e-6)


@both_encoders
@pytest.mark.parametrize("channel_wise", [False, True])
def test_cross_stitch_without_mixing_is_separate(maker, channel_wise):
    outputs = []
    for make in (SeparateModels, partial(CrossStitch, alpha=1.0, channel_wise=channel_wise)):
        torch.manual_seed(5)
        outputs.append(make(maker, NAMES)(inputs(torch.linspace(-1, 1, 30).view(6, 5))))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)


def test_cross_stitch_mixes_what_each_stage_puts_out():
    made = []
    sharing = CrossStitch(_recorded(WAVES_MAKER, made), NAMES, alpha=0.6)
    x = inputs(torch.randn(7, 5))
    mix = torch.full((3, 3), 0.2).fill_diagonal_(0.6)
    hidden = [encoder.stage(0, None, x) for encoder in made]
    hidden = [sum(mix[i, j] * hidden[j] for j in range(3)) for i in range(3)]
    last = [encoder.stage(1, h, x) for encoder, h in zip(made, hidden, strict=True)]
    expected = torch.stack([sum(mix[i, j] * last[j] for j in range(3)) for i in range(3)])
    torch.testing.assert_close(sharing(x), expected, rtol=1e-5, atol=1e-6)


def test_cross_stitch_held_at_no_mixing_trains_as_separate():
    learner = make_learner(three_kinds(), sharing="cross_stitch", encoder={"hidden": [6]})
    for mix in learner.model.sharing.mixes:
        mix.data = torch.eye(3)
        mix.requires_grad_(False)
    alone = make_learner(three_kinds(), sharing="separate", encoder={"hidden": [6]})
    rows = three_kind_rows()
    for _ in range(5):
        for model in (learner, alone):
            for p in model.model.parameters():
                p.grad = None
            losses, *_ = model.objective.losses(
                model.model.outputs(rows.inputs), rows.labels, torch.full((3,), 1 / 32), complete=True
            )
            losses.sum().backward()
            with torch.no_grad():
                for p in model.model.parameters():
                    if p.requires_grad:
                        p -= 0.1 * p.grad
    x = inputs(torch.randn(4, 5))
    torch.testing.assert_close(learner.model.outputs(x), alone.model.outputs(x), rtol=1e-4, atol=1e-5)


def test_soft_sharing_without_strength_trains_as_separate(tmp_path):
    separate, losses = _trained(tmp_path, "separate")
    soft, other_losses = _trained(tmp_path, "soft", lambda sharing: setattr(sharing, "_strength", 0.0))
    assert other_losses == losses
    for p, q in zip(soft.parameters(), separate.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("tie", ["l2", "trace_norm"])
def test_penalty_of_soft_sharing_is_what_it_says(tie):
    sharing = SoftSharing(MLP_MAKER, NAMES, tie=tie, strength=0.5)
    expected = 0.0
    for p in sharing.encoders.parameters():
        flat = p.detach().flatten(1)
        if tie == "l2":
            expected += sum((flat[i] - flat[j]).square().sum() for i in range(3) for j in range(i)) / 3
        else:
            expected += torch.linalg.matrix_norm(flat.t(), "nuc")
    torch.testing.assert_close(sharing.penalty(), 0.5 * expected, rtol=1e-4, atol=1e-5)


def test_trace_norm_has_the_gradient_that_autograd_finds():
    sharing = SoftSharing(MLP_MAKER, NAMES, tie="trace_norm", strength=0.5)
    sharing.penalty().backward()
    for parameter in sharing.encoders.parameters():
        twin = parameter.detach().double().requires_grad_()
        (0.5 * torch.linalg.svdvals(twin.flatten(1)).sum()).backward()
        torch.testing.assert_close(parameter.grad.double(), twin.grad, rtol=1e-4, atol=1e-6)


def test_trace_norm_of_equal_copies_has_a_gradient():
    sharing = SoftSharing(MLP_MAKER, NAMES, tie="trace_norm", strength=0.5)
    with torch.no_grad():
        for parameter in sharing.encoders.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    sharing.penalty().backward()
    for parameter in sharing.encoders.parameters():
        flat = parameter.detach().flatten(1)
        along = flat / flat[0].norm() / 3**0.5  # of a matrix of rank 1
        torch.testing.assert_close(parameter.grad.flatten(1), 0.5 * along, rtol=1e-4, atol=1e-6)


def test_strong_tie_pulls_the_copies_together():
    distances = []
    for strength in (0.0, 100.0):
        torch.manual_seed(0)
        sharing = SoftSharing(MLP_MAKER, NAMES, strength=strength)
        optimizer = torch.optim.SGD(sharing.parameters(), lr=1e-3)
        for _ in range(50):
            optimizer.zero_grad()
            penalty = sharing.penalty()
            loss = (sharing(inputs(torch.ones(2, 5))) - torch.arange(3.0).view(3, 1, 1)).square().mean()
            (loss if penalty is None else loss + penalty).backward()
            optimizer.step()
        distances.append(torch.tensor(sharing.report(NAMES)[0].values).max())
    assert distances[1] < 0.02 * distances[0]


def test_low_rank_at_full_rank_can_be_any_single_models():
    made = []
    for maker in (MLP_MAKER, WAVES_MAKER):
        made.clear()
        separate = SeparateModels(_recorded(maker, made), NAMES)
        singles = type(made[0]).stack(made)
        named = dict(singles.named_parameters())
        x = inputs(torch.randn(7, 5))
        expected = separate(x)
        for make in (LowRankSharing, TuckerSharing, TensorTrainSharing):
            options = {"rank": 3} if make is LowRankSharing else {"rank": 3, "share": 1.0}
            sharing = make(maker, NAMES, **options)
            with torch.no_grad():
                for name, vector in zip(sharing._vectors, sharing.vectors, strict=True):
                    vector.copy_(named[name])
                for i, name in enumerate(sharing._shapes):
                    _set_matrix(sharing, i, named[name].flatten(2))
            torch.testing.assert_close(sharing(x), expected, rtol=1e-4, atol=1e-5)


def _set_matrix(sharing, i, weights):
    """Factors whose product is ``weights`` (3, out, in)."""
    if isinstance(sharing, LowRankSharing):
        sharing.components[i].copy_(weights.view_as(sharing.components[i]))
        sharing.mixes[:, i] = torch.eye(3)
        return
    sharing.tasks[i].copy_(torch.eye(3))
    sharing.outputs[i].factor.copy_(torch.eye(weights.shape[1]))
    if isinstance(sharing, TuckerSharing):
        sharing.inputs[i].factor.copy_(torch.eye(weights.shape[2]))
        sharing.cores[i].copy_(weights.permute(1, 2, 0))
    else:
        sharing.middles[i].copy_(weights.permute(1, 2, 0))


@pytest.mark.parametrize("name", ["low_rank", "tucker", "tensor_train"])
def test_factored_weights_start_with_the_spread_of_fresh_encoders(name):
    maker = EncoderMaker(partial(MLP, hidden=[64]), InputSpec(40), 50)
    fresh = [p.flatten(2) for p in MLP.stack([maker() for _ in range(4)]).parameters() if p.dim() > 2]
    for weights, like in zip(SHARINGS.build(name, maker, list("abcd")).matrices(), fresh, strict=True):
        assert weights.std().item() == pytest.approx(like.std().item(), rel=0.15)


@pytest.mark.parametrize("name", ["tucker", "tensor_train"])
def test_the_words_of_a_long_table_get_no_factor(name):
    table = 9_000
    maker = EncoderMaker(partial(MLP, embedding_dim=4), InputSpec(2, (table,)), 6)
    sharing = SHARINGS.build(name, maker, list("abcd"))
    assert sum(p.numel() for p in sharing.parameters()) < 4 * table * 4
    assert sharing.matrices()[0].shape == (4, table, 4)
    rows = Inputs(torch.zeros(3, 2), torch.tensor([[0], [5], [table - 1]]))
    assert sharing(rows).shape == (4, 3, 6)


@pytest.mark.parametrize("name", ["low_rank", "tucker", "tensor_train"])
def test_rank_above_the_number_of_tasks_is_refused(name):
    with pytest.raises(ConfigError, match=r"sharing\.rank: must be at most the number of tasks \(3\), got 4"):
        SHARINGS.build(name, MLP_MAKER, NAMES, rank=4)


def test_fewer_components_have_fewer_parameters():
    maker = EncoderMaker(partial(MLP, hidden=[64]), InputSpec(40), 50)
    sizes = [
        sum(p.numel() for p in SHARINGS.build(name, maker, list("abcd"), **options).parameters())
        for name, options in [("low_rank", {"rank": 1}), ("low_rank", {"rank": 4}), ("separate", {})]
    ]
    assert sizes[0] < 0.3 * sizes[2] < sizes[1]


def test_sparsity_is_the_sum_of_absolute_mixes():
    sharing = LowRankSharing(MLP_MAKER, NAMES, sparsity=0.1)
    assert sharing.penalty().item() == pytest.approx(0.1 * sharing.mixes.abs().sum().item())
    assert LowRankSharing(MLP_MAKER, NAMES).penalty() is None


@pytest.mark.parametrize("variant", ["lora", "mtl_lora"])
def test_lora_adds_the_product_of_its_matrices(variant):
    made = []
    sharing = LowRankAdaptation(_recorded(MLP_MAKER, made), NAMES, variant=variant, rank=2, alpha=3.0, temperature=0.5)
    for p in sharing.changes.parameters():
        nn.init.normal_(p)
    x = inputs(torch.randn(7, 5))
    for task in range(3):
        encoder = MLP_MAKER()
        encoder.load_state_dict(made[0].state_dict())
        with torch.no_grad():
            for layer, change in zip(encoder.layers, sharing.changes, strict=True):
                if variant == "lora":
                    added = change.b[task] @ change.a[task]
                else:
                    mix = (change.mix[task] / 0.5).softmax(0)
                    added = sum(m * b @ change.inner[task] @ change.a for m, b in zip(mix, change.b, strict=True))
                layer.weight += 1.5 * added
        torch.testing.assert_close(sharing(x)[task], encoder(x), rtol=1e-4, atol=1e-5)


def test_branches_read_the_parent_that_they_chose():
    made = []
    sharing = LearningToBranch(_recorded(WAVES_MAKER, made), NAMES, warmup_steps=0).eval()
    with torch.no_grad():
        sharing.choices[0][[0, 1, 2], [2, 2, 0]] = 1.0
        sharing.choices[1][[0, 1, 2], [1, 0, 2]] = 1.0
    x = inputs(torch.randn(7, 5))
    hidden = [made[parent].stage(0, None, x) for parent in (2, 2, 0)]
    last = [encoder.stage(1, h, x) for encoder, h in zip(made, hidden, strict=True)]
    torch.testing.assert_close(sharing(x), torch.stack([last[1], last[0], last[2]]), rtol=1e-5, atol=1e-6)
    tree, first, second = sharing.report(NAMES)
    assert tree.values == [[2, 1], [2, 0], [0, 2]]  # by task, from the first stage on
    assert [[row.index(max(row)) for row in choice.values] for choice in (first, second)] == [[2, 2, 0], [1, 0, 2]]
    assert (first.rows, second.rows) == (["branch 0", "branch 1", "branch 2"], NAMES)


def test_branches_are_read_alike_first_and_chosen_later():
    sharing = LearningToBranch(MLP_MAKER, NAMES, warmup_steps=1)
    x = inputs(torch.randn(7, 5))
    features = sharing(x)
    torch.testing.assert_close(features[0], features[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sharing.eval()(x), features)  # an evaluation is of the network that is trained
    assert "branches" not in [finding.name for finding in sharing.report(NAMES)]
    sharing.train().after_step()
    chosen = [sharing(x) for _ in range(8)]
    assert any(not torch.allclose(f[0], f[1]) for f in chosen)


@pytest.mark.parametrize("options", [{}, {"piece": 3}, {"balancing": "famo"}], ids=["plain", "pieces", "more passes"])
def test_branches_count_steps_whatever_passes_these_take(tmp_path, options):
    model, _ = _trained(tmp_path, "ltb", steps=5, **options)
    assert model.sharing.steps == 5


@both_encoders
@pytest.mark.parametrize("name", ANY_INPUTS)
@pytest.mark.parametrize("names", [["a"], NAMES], ids=["one task", "three tasks"])
def test_gradient_reaches_every_parameter_and_state_survives(name, names, maker):
    sharing = SHARINGS.build(name, maker, names)
    with torch.no_grad():  # away from the zeros that some start from
        for p in sharing.parameters():
            p += 0.3 * torch.randn_like(p)
    x = inputs(torch.randn(32, 5))
    penalty = sharing.penalty()
    sharing(x).tanh().square().mul(torch.linspace(1, 2, 8)).sum().add(0.0 if penalty is None else penalty).backward()
    still = [n for n, p in sharing.named_parameters() if p.grad is None or not p.grad.any()]
    if len(names) > 1:  # a choice among one has no slope
        assert still == ([n for n in still if name == "ltb" and n.startswith("choices")])
    other = SHARINGS.build(name, maker, names)
    other.load_state_dict(sharing.state_dict())
    torch.testing.assert_close(other.eval()(x), sharing.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("balancing", ["equal", "pcgrad"])
@pytest.mark.parametrize("name", ANY_INPUTS)
def test_architecture_trains_with_missing_labels_and_balancing(tmp_path, name, balancing):
    if balancing == "pcgrad" and not SHARINGS.load(name).shares:
        pytest.skip("has no shared parameters, and is refused")
    learner = make_learner(three_kinds(), sharing=name, balancing=balancing, seed=1)
    given = three_kind_rows(missing=0.3)
    targets = given.labels.targets.numpy().copy()
    targets[:, 2] = NAN  # a task without labels: nothing of its own may move
    rows = make_rows(given.inputs, targets)
    before = {p: p.detach().clone() for p in learner.model.parameters()}
    with RunFolder.claim(tmp_path / "run") as folder:
        make_trainer(folder, learner, rows, val=three_kind_rows(), epochs=1).fit()
    for owned in learner.model.owners():
        now, then = (v.reshape(1) if v.dim() == 0 else v for v in (owned.parameter.detach(), before[owned.parameter]))
        if owned.task == 2:
            assert torch.equal(now[owned.start : owned.stop], then[owned.start : owned.stop])
    assert any(not torch.equal(p, v) for p, v in before.items())


def test_a_search_that_would_end_before_it_begins_is_refused():
    with pytest.raises(ConfigError, match=r"search_steps: must be more than sharing\.warmup_steps \(20\)"):
        LearningToBranch(MLP_MAKER, NAMES, search_steps=10)


def test_branches_stay_after_the_search():
    sharing = LearningToBranch(MLP_MAKER, NAMES, warmup_steps=1, search_steps=3)
    x = inputs(torch.randn(7, 5))
    with torch.no_grad():
        for choice in sharing.choices:
            choice[[0, 1, 2], [2, 0, 2]] = 0.1
    searched = []
    for _ in range(3):
        searched.append(sharing(x))
        sharing.after_step()
    assert any(not torch.equal(searched[0], features) for features in searched)
    settled = [sharing(x) for _ in range(3)]
    assert all(torch.equal(features, sharing.eval()(x)) for features in settled)
    settled[0].sum().backward()
    assert not any(choice.grad.any() for choice in sharing.choices)
    tree = sharing.report(NAMES)[0].values
    with torch.no_grad():  # as momentum may
        for choice in sharing.choices:
            choice.neg_()
    sharing.after_step()
    assert torch.equal(sharing(x), settled[0])
    assert sharing.report(NAMES)[0].values == tree


@pytest.mark.parametrize("name", ANY_INPUTS)
def test_architecture_trains_on_several_sources_with_tasks_of_their_own(tmp_path, name):
    """Rows of one source have no label for the first task, those of the other none for the second."""
    learner, rows = make_learner(three_kinds(), sharing=name, optimizer_options={"lr": 0.02}), two_source_rows()
    with RunFolder.claim(tmp_path / "run") as folder:
        trainer = make_trainer(folder, learner, rows, epochs=6, mixing=Mixing("round_robin"))
        before = trainer.mean_losses(rows)
        trainer.fit()
        after = trainer.mean_losses(rows)
    assert sum(after.values()) < 0.95 * sum(before.values())
    assert all(p.isfinite().all() for p in learner.model.parameters())
