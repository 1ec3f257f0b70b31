"""Tasks that are products of others or come after others: heads, owners, and the two architectures made for them."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from mtl_cli.balancing.autograd import backward
from mtl_cli.balancing.equal import Equal
from mtl_cli.balancing.pcgrad import PCGrad
from mtl_cli.errors import ConfigError
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.encoders.mlp import MLP
from mtl_cli.model.heads import Heads, HeadSpec, ProductHeads, log_odds_of_product
from mtl_cli.model.sharing.aitm import AdaptiveInformationTransfer
from mtl_cli.model.sharing.esmm import EntireSpaceMultiTask
from mtl_cli.model.sharing.hard import HardSharing
from mtl_cli.optim import FlatParameters
from mtl_cli.types import Inputs, InputSpec

SPEC = InputSpec(4, (3, 5))
MAKE = EncoderMaker(partial(MLP, hidden=[6]), SPEC, 8)


def _batch(rows=6):
    return Inputs(torch.randn(rows, 4), torch.stack([torch.randint(3, (rows,)), torch.randint(5, (rows,))], 1))


@pytest.mark.parametrize("factors", [2, 3])
def test_log_odds_of_a_product_are_those_of_the_multiplied_probabilities(factors):
    log_odds = 4 * torch.randn(factors, 100, dtype=torch.float64)
    product = log_odds.sigmoid().prod(0)
    torch.testing.assert_close(log_odds_of_product(log_odds), torch.logit(product), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("a", [-1e4, -90.0, 0.0, 90.0, 1e4])
@pytest.mark.parametrize("b", [-1e4, -90.0, 0.0, 90.0, 1e4])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_loss_of_a_product_is_finite_and_exact_for_any_log_odds(a, b, label):
    """In single precision against double: a sigmoid of 90 rounds to 1, the logarithm of 1 minus that is -inf."""
    found = []
    for dtype in (torch.float32, torch.float64):
        log_odds = torch.tensor([a, b], dtype=dtype, requires_grad=True)
        z = log_odds_of_product(log_odds)
        loss = functional.softplus(z) - label * z
        loss.backward()
        found += [loss.detach().double(), log_odds.grad.double()]
    assert all(value.isfinite().all() for value in found)
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], found[3], rtol=1e-3, atol=1e-6)  # single precision has 4 digits beyond 1e4


def test_product_stands_among_the_outputs_of_all_tasks():
    heads = Heads(4, [HeadSpec(1), HeadSpec(3), HeadSpec(1)])
    both = ProductHeads(heads, {1: [0, 3], 4: [3, 0]})
    features = torch.randn(7, 4)
    click, three, conversion = heads.split(heads(features))
    outputs = both.split(both(features))
    assert [output.shape for output in outputs] == [(7, 1), (7, 1), (7, 3), (7, 1), (7, 1)]
    for position, expected in [(0, click), (2, three), (3, conversion)]:
        assert torch.equal(outputs[position], expected)
    for position in (1, 4):
        torch.testing.assert_close(outputs[position].sigmoid(), click.sigmoid() * conversion.sigmoid())


@pytest.mark.parametrize("hidden", [(), (5,)], ids=["linear", "hidden"])
@pytest.mark.parametrize("own", [False, True], ids=["common features", "features for each task"])
def test_backward_pass_of_products_is_that_of_autograd(own, hidden):
    heads = ProductHeads(Heads(4, [HeadSpec(1, hidden), HeadSpec(3, hidden), HeadSpec(1, hidden)]), {1: [0, 3]})
    features, gradient = torch.randn(3, 7, 4) if own else torch.randn(7, 4), torch.randn(6, 7)
    found = []
    for written_out in (True, False):
        for p in heads.parameters():
            p.grad = torch.zeros_like(p)
        if written_out:
            outputs, into = heads.with_backward(features)
            by_features = into(gradient.clone())
        else:
            leaf = features.clone().requires_grad_()
            outputs = heads(leaf)
            outputs.backward(gradient)
            by_features = leaf.grad
        found.append([outputs.detach(), by_features, *(p.grad for p in heads.parameters())])
    torch.testing.assert_close(found[0], found[1])


def _model(sharing="hard"):
    """click, buy = click * conversion, and a regression of its own."""
    names = ["click", "conversion", "price"]
    made = {
        "hard": lambda: HardSharing(MAKE, names),
        "esmm": lambda: EntireSpaceMultiTask(MAKE, names),
        "aitm": lambda: AdaptiveInformationTransfer(MAKE, names, [None, 0, None]),
    }[sharing]()
    return MultiTaskModel(4, [1, 1, 1, 1], 8, sharing=made, products={1: [0, 2]})


@pytest.mark.parametrize("sharing", ["hard", "esmm", "aitm"])
def test_what_a_product_trains_belongs_to_no_single_task(sharing):
    model = _model(sharing)
    counts = model.count_parameters()
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.tasks[0] == counts.tasks[1] == counts.tasks[2] == 0
    assert counts.tasks[3] >= 9  # the head of the price
    model.outputs(_batch())[1].sum().backward()  # the product alone
    for owned in model.owners():
        gradient = owned.parameter.grad
        if owned.task is not None:
            assert gradient is None or not gradient[owned.start : owned.stop].any()
    assert all(block.weight.grad[[0, 1]].abs().sum(1).min() > 0 for block in model.heads.heads.blocks)


def test_rows_of_a_product_are_those_of_its_factors_too():
    labelled = torch.tensor([[True, False, False], [False, True, False], [False, False, False], [False, False, True]])
    assert _model().rows_of_heads(labelled).tolist() == [
        [True, True, False], [False, True, False], [False, False, True],
    ]  # fmt: skip


@pytest.mark.parametrize("balancing", [Equal, PCGrad])
def test_gradients_of_products_are_whole_with_every_balancing(balancing):
    """With losses that do not conflict both methods sum gradients; a cut between features and heads would lose some."""
    model, x = _model(), _batch(16)
    flat = FlatParameters(model.owners())
    outputs = model.outputs(x, lambda *_: pytest.fail("a product reads features of two tasks"))
    losses = functional.softplus(outputs[:2]).mean(1)  # clicks and products are to become rare: no conflict
    backward(losses, balancing(4), flat.shared, flat.private, torch.tensor([0, 1]))
    found = flat.gradient.clone()
    flat.zero_gradient()
    functional.softplus(model.outputs(x)[:2]).mean(1).sum().backward()
    torch.testing.assert_close(found, flat.gradient, rtol=1e-4, atol=1e-6)


def test_features_are_cut_where_no_task_reads_those_of_another():
    seen = []
    model = MultiTaskModel(4, [1, 1], 8, sharing=HardSharing(MAKE, ["a", "b"]))
    model.outputs(_batch(), lambda features, tasks: seen.append(tasks) or features)
    assert seen == [2]


def test_esmm_has_one_table_and_towers_of_its_own():
    sharing, x = EntireSpaceMultiTask(MAKE, ["a", "b"]), _batch()
    assert sharing.encoders.embedding.shape == (8, 8)
    for task in range(2):
        tower = MAKE()
        with torch.no_grad():
            tower.embedding.copy_(sharing.encoders.embedding)
            for own, stacked in zip(tower.layers.parameters(), sharing.encoders.layers.parameters(), strict=True):
                own.copy_(stacked[task])
        torch.testing.assert_close(sharing(x)[task], tower(x), rtol=1e-5, atol=1e-6)


def test_esmm_without_embeddings_is_refused():
    with pytest.raises(ConfigError, match=r"sharing: 'esmm' has the embeddings .* none here\. Use sharing=hard"):
        EntireSpaceMultiTask(EncoderMaker(MLP, InputSpec(4), 8), ["a", "b"])


def _by_hand(aitm, x, before):
    """The paper's formulas, task by task: 1 / sqrt(D) attention over a task's own features and what is passed on."""
    features = list(aitm.encoders(x))
    for step, transfer in zip(aitm._steps, aitm.transfers, strict=True):
        for i, (task, earlier) in enumerate(step):
            assert before[task] == earlier
            passed = torch.relu(features[earlier] @ transfer.passed.weight[i].t() + transfer.passed.bias[i])
            values, keys, queries = transfer.attention[i].split(8, 1)
            scores = [((u @ keys) * (u @ queries)).sum(1) / 8**0.5 for u in (features[task], passed)]
            weights = torch.stack(scores).softmax(0)
            features[task] = weights[0, :, None] * (features[task] @ values) + weights[1, :, None] * (passed @ values)
    return torch.stack(features)


@pytest.mark.parametrize(
    "before", [[None, 0, 1], [1, None, 1], [2, 0, None], [None, None, 0]], ids=["chain", "fork", "other order", "apart"]
)
def test_aitm_is_that_of_the_paper(before):
    aitm, x = AdaptiveInformationTransfer(MAKE, ["a", "b", "c"], before), _batch()
    torch.testing.assert_close(aitm(x), _by_hand(aitm, x, before), rtol=1e-4, atol=1e-5)
    assert sorted((p.later, p.earlier) for p in aitm.ordered()) == [
        (t, b) for t, b in enumerate(before) if b is not None
    ]


def test_aitm_says_how_much_a_task_takes_of_the_one_before():
    names = ["a", "b", "c"]
    aitm = AdaptiveInformationTransfer(MAKE, names, [2, None, 1]).eval()
    assert aitm.report(names) == []  # nothing has been evaluated
    aitm(_batch())
    (taken,) = aitm.report(names)
    assert taken.title.endswith("(6 rows of each task)")
    (own, none, of_c), b, (nothing, of_b, c) = taken.values
    assert (none, nothing, b) == (None, None, [None, 1.0, None])
    assert own + of_c == pytest.approx(1.0)
    assert c + of_b == pytest.approx(1.0)
    with torch.no_grad():
        for transfer in aitm.transfers:
            transfer.attention.zero_()
    aitm.train().eval()
    aitm(_batch())
    assert aitm.report(names)[0].values[0] == [0.5, None, 0.5]  # equal scores


def test_aitm_counts_the_rows_of_the_task_that_takes():
    aitm = AdaptiveInformationTransfer(MAKE, ["a", "b", "c"], [2, None, 1]).eval()
    for transfer in aitm.transfers:
        transfer.use.count_only(torch.tensor([[True] * 6, [True] * 6, [True, True] + [False] * 4]))
    aitm(_batch())
    taken, rows = aitm.report(["a", "b", "c"])
    assert taken.title.endswith("(each task's own rows)")
    assert dict(zip(rows.rows, rows.values, strict=True)) == {"c": [2], "a": [6]}


def test_aitm_of_tasks_without_an_order_is_towers_alone():
    aitm, x = AdaptiveInformationTransfer(MAKE, ["a", "b"], [None, None]), _batch()
    assert torch.equal(aitm(x), aitm.encoders(x))
    assert aitm.ordered() == []


def test_aitm_in_a_circle_is_refused():
    with pytest.raises(ValueError, match="in a circle"):
        AdaptiveInformationTransfer(MAKE, ["a", "b"], [1, 0])


def test_without_calibrator_nothing_is_ordered():
    assert AdaptiveInformationTransfer(MAKE, ["a", "b"], calibrator=0.0).ordered() == []


def test_last_task_of_a_chain_owns_its_tower_and_what_leads_to_it():
    aitm = AdaptiveInformationTransfer(MAKE, ["a", "b", "c"])
    model = MultiTaskModel(4, [1, 1, 1], 8, sharing=aitm)
    tasks = model.count_parameters().tasks
    tower = sum(p[0].numel() for p in aitm.encoders.layers.parameters())
    step = sum(p[0].numel() for p in aitm.transfers[1].parameters())
    assert tasks == (0, 0, tower + step + 9)
