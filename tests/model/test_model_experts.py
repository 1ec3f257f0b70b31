"""Mixtures of experts: their limit cases, their gates, and what they refuse."""

import logging

import pytest
import torch
from worlds import NAN, inputs, make_learner, three_kind_rows, three_kinds

from mtl_cli.data.batches import plan_epoch
from mtl_cli.errors import ConfigError
from mtl_cli.loop.step import train_step
from mtl_cli.model.encoders.base import EncoderMaker
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.gates import Gates, GateUse, findings_of_gates, mix
from mtl_cli.model.sharing.cgc import CustomizedGateControl
from mtl_cli.model.sharing.dselect_k import DSelectK, smooth_step
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.model.sharing.hyper import HyperSharing
from mtl_cli.model.sharing.mmoe import MultiGateMixtureOfExperts
from mtl_cli.model.sharing.ple import ProgressiveLayeredExtraction
from mtl_cli.model.sharing.stem import SharedAndTaskEmbeddings
from mtl_cli.registry import SHARINGS
from mtl_cli.types import Inputs, InputSpec

NAMES = ["a", "b", "c"]
SPEC = InputSpec(4, (3, 5))
MAKE = EncoderMaker(MLP, SPEC, 8)
MIXTURES = ["mmoe", "cgc", "ple", "dselect_k", "adatt", "hyper", "stem"]


def _batch(rows=6):
    return Inputs(torch.randn(rows, 4), torch.stack([torch.randint(3, (rows,)), torch.randint(5, (rows,))], 1))


def _made(cls, make=MAKE, names=NAMES, **options):
    torch.manual_seed(0)
    return cls(make, names, **options)


def _losses(sharing, balancing="equal", missing=0.0, **options):
    """Summed losses of three epochs of training, one row per step."""
    return _trained(make_learner(three_kinds(), sharing=sharing, balancing=balancing, **options), missing)


def _trained(learner, missing=0.0):
    rows, found = three_kind_rows(missing=missing), []
    for epoch in range(3):
        plan = plan_epoch(rows, epoch, batch_size=8, weights=torch.ones(3).numpy(), seed=0)
        found += [train_step(learner, rows, plan, step, 0).sums for step in range(len(plan.bounds))]
    return torch.stack(found)


def test_one_expert_is_hard_sharing_step_by_step():
    mmoe = make_learner(three_kinds(), sharing="mmoe", sharing_options={"experts": 1})
    hard = make_learner(three_kinds())
    with torch.no_grad():
        for name, value in hard.model.state_dict().items():
            mmoe.model.get_parameter(name.replace("encoder", "experts")).copy_(value)
    torch.testing.assert_close(_trained(mmoe), _trained(hard), rtol=1e-4, atol=1e-5)


def test_one_level_of_ple_is_cgc():
    x = _batch()
    options = {"own_experts": 2, "shared_experts": 3, "gate_hidden": [5]}
    one_level = _made(ProgressiveLayeredExtraction, levels=1, **options)
    assert torch.equal(one_level(x), _made(CustomizedGateControl, **options)(x))


@pytest.mark.parametrize(
    ("cls", "options"), [(CustomizedGateControl, {}), (ProgressiveLayeredExtraction, {"levels": 1})], ids=["cgc", "ple"]
)
def test_without_own_experts_it_is_mmoe(cls, options):
    x = _batch()
    without = _made(cls, own_experts=0, shared_experts=4, **options)
    torch.testing.assert_close(without(x), _made(MultiGateMixtureOfExperts, experts=4)(x))


def test_one_gate_gives_all_tasks_the_same_features():
    x = _batch()
    several, one = _made(MultiGateMixtureOfExperts), _made(MultiGateMixtureOfExperts, one_gate=True)
    assert one(x).shape == (6, 8)
    assert all(owned.task is None for owned in one.owners())
    with torch.no_grad():  # every task's gate set to the one gate
        for parameter, common in zip(several.gates.parameters(), one.gates.parameters(), strict=True):
            parameter.copy_(common.expand_as(parameter))
    torch.testing.assert_close(several(x), one(x).expand(3, -1, -1))


def test_hyper_starts_as_hard_sharing_and_then_depends_on_the_input():
    x = _batch()
    hyper = _made(HyperSharing)
    assert torch.equal(hyper(x), _made(HardSharing)(x))
    torch.nn.init.normal_(hyper.last.weight)
    a, h = hyper.coefficients(x), hyper.encoder(x)
    for row in range(6):
        matrix = torch.eye(8) + torch.einsum("r,rij->ij", a[row], hyper.matrices)
        torch.testing.assert_close(hyper(x)[row], matrix @ h[row], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(a[0], a[1])


@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_of_one_task(name):
    features = SHARINGS.build(name, MAKE, ["a"])(_batch())
    assert features.shape in [(6, 8), (1, 6, 8)]


@pytest.mark.parametrize("balancing", ["equal", "pcgrad"])
@pytest.mark.parametrize("name", MIXTURES)
def test_it_learns_with_missing_labels(name, balancing):
    if name == "stem":
        pytest.skip("the rows have no categories")
    losses = _losses(name, balancing, missing=0.3, optimizer_options={"lr": 0.02})
    assert losses.isfinite().all()
    assert losses[-4:].sum() < 0.9 * losses[:4].sum()


@pytest.mark.parametrize("name", MIXTURES)
def test_state_goes_there_and_back(name):
    x = _batch()
    one, other = SHARINGS.build(name, MAKE, NAMES).eval(), SHARINGS.build(name, MAKE, NAMES).eval()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_experts_start_different():
    experts = _made(MultiGateMixtureOfExperts).experts(_batch())
    assert len({tuple(expert.flatten().tolist()) for expert in experts}) == 8


def test_mixing_is_the_weighted_sum():
    gates, experts = torch.rand(3, 4, 5), torch.randn(4, 5, 2)
    torch.testing.assert_close(mix(gates, experts), torch.einsum("keb,ebd->kbd", gates, experts))


def test_gates_of_streams_and_of_common_inputs_agree():
    gates, x = Gates(4, experts=3, tasks=[0, 1], hidden=[5]), torch.randn(6, 4)
    torch.testing.assert_close(gates(x), gates(x.expand(2, -1, -1)))
    torch.testing.assert_close(gates(x).sum(1), torch.ones(2, 6))


def test_ple_reads_its_own_streams():
    """Against the paper's definition, written out for one row at a time."""
    ple, x = _made(ProgressiveLayeredExtraction, levels=2), _batch()
    read, own, common = ple.gate_inputs(x), ple.own[0](x), ple.common[0](x)[0]
    gates, common_gate = ple.gates[0](read), ple.common_gates[0](read)[0]
    streams = [gates[t, 0, :, None] * own[t] + gates[t, 1, :, None] * common for t in range(3)]
    everything = common_gate[3, :, None] * common + sum(common_gate[t, :, None] * own[t] for t in range(3))
    common = torch.relu(everything @ ple.common[1].weight[0].t() + ple.common[1].bias[0])
    last = ple.gates[1](torch.stack(streams))
    for task, stream in enumerate(streams):
        mine = torch.relu(stream @ ple.own[1].weight[task].t() + ple.own[1].bias[task])
        expected = last[task, 0, :, None] * mine + last[task, 1, :, None] * common
        torch.testing.assert_close(ple(x)[task], expected)


@pytest.mark.parametrize(("levels", "heard"), [(1, 0), (2, 1), (3, 2)])
def test_own_experts_of_ple_are_private_in_the_last_level_alone(levels, heard):
    ple = _made(ProgressiveLayeredExtraction, levels=levels)
    private = {owned.parameter for owned in ple.owners() if owned.task is not None}
    own = [all(p in private for p in module.parameters()) for module in ple.own]
    assert own == [False] * heard + [True]


def test_smooth_step():
    z = torch.tensor([-2.0, -0.5, -0.25, 0.0, 0.25, 0.5, 2.0])
    torch.testing.assert_close(smooth_step(z, 1.0), torch.tensor([0.0, 0.0, 0.15625, 0.5, 0.84375, 1.0, 1.0]))


@pytest.mark.parametrize("per_example", [False, True])
def test_dselect_gate_sums_to_one_and_a_decided_one_selects_at_most_k(per_example):
    sharing, x = _made(DSelectK, k=3, per_example=per_example), _batch()
    torch.testing.assert_close(sharing.gates(x).sum(1), torch.ones(3, 6 if per_example else 1))
    with torch.no_grad():
        for parameter in [sharing.static_bits] if not per_example else sharing.bits.parameters():
            parameter.mul_(1e6)
    gates = sharing.gates(x)
    torch.testing.assert_close(gates.sum(1), torch.ones_like(gates[:, 0]))
    assert ((gates > 0).sum(1) <= 3).all()
    assert sharing.experts(x).shape[0] == 8


@pytest.mark.parametrize("per_example", [False, True])
def test_dselect_regulariser_decides_and_stays_on_experts_that_exist(per_example):
    sharing, x = _made(DSelectK, experts=6, k=1, entropy=1.0, per_example=per_example), _batch()
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(sharing.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        sharing(x)
        sharing.penalty().backward()
        optimizer.step()
    torch.testing.assert_close(
        sharing.gates(x).max(1).values, torch.ones(3, 6 if per_example else 1), atol=2e-2, rtol=0
    )


def test_stem_stops_the_gradient_of_other_tasks_experts():
    stem, x = _made(SharedAndTaskEmbeddings), _batch()
    own, common = stem.own(x), stem.common(x)
    gates = stem.gates(stem.own.read(x) + stem.common.read(x))
    torch.testing.assert_close(stem(x), mix(gates, torch.cat([own, common])))
    stem(x)[1].sum().backward()
    for parameter in stem.own.parameters():
        assert [bool(g.any()) for g in parameter.grad] == [False, True, False]
    assert all(parameter.grad.any() for parameter in stem.common.parameters())


def test_what_cannot_work_is_refused_with_what_can():
    with pytest.raises(ConfigError, match=r"no input is a category\. Use sharing=cgc"):
        _made(SharedAndTaskEmbeddings, EncoderMaker(MLP, InputSpec(4), 8))
    with pytest.raises(
        ConfigError, match=r"sharing.experts: must be at least 2 .*, got 1\. With one expert, use sharing=hard"
    ):
        _made(DSelectK, experts=1)


@pytest.mark.parametrize("name", ["mmoe", "cgc", "ple", "dselect_k", "adatt", "stem"])
def test_report_says_how_gates_are_used(name, caplog):
    sharing, x = SHARINGS.build(name, MAKE, NAMES), _batch()
    sharing(x)
    assert not sharing.report(NAMES)
    sharing.eval()(x)
    sharing(x)
    *levels, entropy = sharing.report(NAMES)
    assert len(entropy.columns) == len(levels) == (2 if name in ("ple", "adatt") else 1)
    for number, level in enumerate(levels, start=1):
        assert level.title.startswith("mean weight of each expert")
        assert level.title.endswith(
            f", level {number} (12 rows of each task)" if len(levels) > 1 else "expert (12 rows of each task)"
        )
        torch.testing.assert_close(torch.tensor(level.values).sum(1), torch.ones(3))
    assert (torch.tensor(entropy.values) > 0).all()
    sharing.train().eval()
    assert not sharing.report(NAMES)
    assert not caplog.records


def test_experts_bear_the_names_of_those_they_belong_to():
    named = {"cgc": ["own 0", "shared 0"], "adatt": NAMES, "stem": [*NAMES, "shared"], "mmoe": [*"01234567"]}
    for name, columns in named.items():
        sharing = SHARINGS.build(name, MAKE, NAMES).eval()
        sharing(_batch())
        assert sharing.report(NAMES)[0].columns == columns


def test_one_gate_of_all_tasks_is_one_row():
    sharing = _made(MultiGateMixtureOfExperts, one_gate=True).eval()
    sharing(_batch())
    weights, entropy = sharing.report(NAMES)
    assert weights.rows == entropy.rows == ["all tasks"]
    assert weights.title == "mean weight of each expert (6 rows)"


@pytest.mark.parametrize("name", ["mmoe", "ple", "dselect_k"])
def test_watching_gates_compiles_nothing_anew(name):
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    sharing = SHARINGS.build(name, MAKE, NAMES)
    sharing.compile(backend=backend)
    counts = []
    for training in (False, False, False, True, True):
        sharing.train(training)
        sharing(_batch())
        counts.append(len(compiled))
    torch._dynamo.reset()
    first, second, third, fourth, last = counts
    assert 0 < first == second == third < fourth == last
    assert sharing.report(NAMES)


def test_gates_are_watched_on_the_rows_that_count_for_their_task(caplog):
    """Each of two tasks has an expert of its own in its own rows, and that of the other in the others; one has none."""
    first = torch.tensor([1.0, 1.0, 0.0])
    gates = torch.stack([torch.stack([first, 1 - first]), torch.stack([first, 1 - first]), torch.full((2, 3), NAN)])
    use = GateUse([0, 1, 2], 2).eval()
    use.begin(["rows", "rows", "tokens"])
    use.count_only(torch.tensor([[True, True, False], [False, False, True], [False, False, False]]))
    use(gates)
    weights, entropy, rows = findings_of_gates([use], NAMES, ["0", "1"])
    assert weights.values == [[1.0, 0.0], [0.0, 1.0], [None, None]]
    assert entropy.values == [[pytest.approx(0.0, abs=1e-6)], [pytest.approx(0.0, abs=1e-6)], [None]]
    assert weights.title == "mean weight of each expert (each task's own rows and tokens)"
    assert (rows.columns, rows.values) == (["rows", "tokens"], [[2, None], [1, None], [None, 0]])
    told = "gates without choice: those of 2 of 2 tasks read one expert in every row"
    assert weights.notes == [told] == [record.getMessage() for record in caplog.records]


def test_a_gate_of_all_tasks_is_watched_on_the_rows_of_any_of_them():
    use = GateUse([None], 1).eval()
    use.begin(["rows", "tokens"])
    use.count_only(torch.tensor([[True, False, False], [False, True, False]]))
    use(torch.ones(1, 1, 3))
    assert use.seen().rows.tolist() == [2]
    assert use.seen().units == ("rows and tokens",)
    use.begin(["rows", "rows"])
    assert use.seen() is None


def test_collapse_is_said(caplog):
    sharing = _made(MultiGateMixtureOfExperts, EncoderMaker(MLP, InputSpec(4), 8), experts=3).eval()
    with torch.no_grad():
        sharing.gates.last.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    sharing(inputs(torch.randn(5, 4)))
    with caplog.at_level(logging.WARNING):
        sharing.report(NAMES)
    assert "expert 1 gets more than 95% of every task; the other 2 are of no use" in caplog.text


def test_experts_and_gates_without_use_are_said_and_kept(caplog):
    sharing = _made(MultiGateMixtureOfExperts, EncoderMaker(MLP, InputSpec(4), 8), experts=4).eval()
    with torch.no_grad():
        sharing.gates.last.weight.zero_()
        sharing.gates.last.bias.copy_(
            torch.tensor([[0.0, 1.0, -9.0, 0.0], [1.0, 0.0, -9.0, 0.0], [0.0, 0.0, 0.0, 30.0]])
        )
    sharing(inputs(torch.randn(5, 4)))
    weights, entropy = sharing.report(NAMES)
    assert entropy.values[2] == [pytest.approx(0.0, abs=1e-6)]
    assert weights.notes == [
        "experts without use: 2 of 4 get less than 1% of every task",
        "gates without choice: those of 1 of 3 tasks read one expert in every row",
    ]
    assert [record.getMessage() for record in caplog.records] == weights.notes


def test_experts_that_dselect_k_has_not_chosen_are_no_warning(caplog):
    sharing = _made(DSelectK, experts=8, k=1)
    with torch.no_grad():
        sharing.static_bits.copy_(torch.tensor([[-9.0] * 3, [9.0] * 3, [9.0] * 3]).unsqueeze(2))
    sharing.eval()(_batch())
    assert sharing.report(NAMES)[0].notes == [
        "experts without use: 1, 2, 3, 4, 5, 6 of 8 get less than 1% of every task",
        "gates without choice: those of 3 of 3 tasks read one expert in every row",
    ]
    assert not caplog.records
