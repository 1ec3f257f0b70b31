"""A run that starts from another one takes over what means the same, and says what it did not take and why."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import yaml

from mtl_cli.commands import predict
from mtl_cli.commands.entry import run
from mtl_cli.registry import KINDS
from mtl_cli.run.checkpoint import load
from mtl_cli.tasks.regression import Regression

STILL = ["optimizer.lr=1e-12", "optimizer.weight_decay=0", "trainer.max_steps=1"]  # weights stay where they start
LINE = ["--config-dir", "conf", "task=customers"]


def _model(folder, name="best"):
    return load(folder / "checkpoints" / f"{name}.pt")["model"]


def _outcomes(folder):
    record = json.loads((folder / "init.json").read_text())
    return {entry["name"]: entry["outcome"] for entry in record["parameters"]}, record


def _features(folder):
    return json.loads((folder / "data.json").read_text())["features"]


def _predicted(folder, data):
    out = folder / "predicted.csv"
    assert run(predict.predict, [str(folder), "--data", str(data), "--out", str(out), "--overwrite"]) == 0
    with out.open() as file:
        return list(csv.DictReader(file))


REVIEWS = """\
# @package _global_
defaults:
  - override /encoder: text
data:
  source: table
  path: reviews.csv
  inputs: [{name: review, type: text}]
  text: {ids: 64, min_count: 2, pieces: null, words: 1}
  batch_size: 8
shared_dim: 8
tasks: {good: {kind: binary}}
trainer: {max_epochs: 1}
"""


@pytest.fixture
def old(cli, customers, tmp_path):
    """A trained run on the customers."""
    assert cli(*LINE, "only=[churned,income,segment]", "hydra.run.dir=old").code == 0
    return tmp_path / "old"


@pytest.mark.parametrize("sharing", ["hard", "separate", "mmoe"])
def test_parameters_of_tasks_go_to_the_tasks_of_the_same_name(cli, customers, tmp_path, sharing):
    # CKP-10: what was loaded, what was not and why; tasks in another order, one gone and one new
    line = [*LINE, f"sharing={sharing}"]
    assert cli(*line, "only=[churned,income,segment]", "hydra.run.dir=old").code == 0
    ended = cli(*line, "only=[size,segment,churned]", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    outcomes, record = _outcomes(tmp_path / "new")
    rest = {name: outcome for name, outcome in outcomes.items() if outcome != "loaded"}
    assert rest
    assert set(rest.values()) == {"no task 'size' there"}
    heads = {f"heads.{task}.{part}" for task in ("segment", "churned") for part in ("weight", "bias")}
    assert heads <= outcomes.keys() - rest.keys()
    assert {name for name in record["left"] if name.startswith("heads.")} == {
        "heads.income.weight",
        "heads.income.bias",
    }
    loaded = sum(outcome == "loaded" for outcome in outcomes.values())
    pattern = rf"started from {re.escape(str(tmp_path))}/old \(best, epoch \d\): {loaded} of {len(outcomes)} parameters"
    assert re.search(pattern, ended.out)
    for name, outcome in outcomes.items():
        assert re.search(rf"^{re.escape(name)} .*  {re.escape(outcome)}$", ended.out, re.MULTILINE)
    assert re.search(r"^heads\.income\.weight  +absent here$", ended.out, re.MULTILINE)
    for before, after in zip(*(_predicted(tmp_path / name, "customers.csv") for name in ("old", "new")), strict=True):
        for column in before.keys() & after.keys() - {"customer"}:
            same = pytest.approx(float(before[column]), abs=1e-5) if "prob" in column else before[column]
            assert (float(after[column]) if "prob" in column else after[column]) == same
    assert {"segment_prob_A", "churned_prob_yes"} <= before.keys() & after.keys()


SHOP = """\
# @package _global_
data: {source: table, path: shop.csv, inputs: [item, price], batch_size: 16}
shared_dim: 8
encoder: {hidden: []}
trainer: {max_epochs: 1}
tasks: {%s}
"""


@pytest.fixture
def shop(write):
    """Two tables for ``task=old`` and ``task=new`` with the given tasks; the new one has some of the rows only."""

    def write_shop(old, new):
        rows = [f"i{n % 5},{n % 7},{n % 9},{n % 2},{n % 3 // 2},{n % 4 // 3},{n % 6 // 5}" for n in range(60)]
        header = "item,price,spend,view,click,cart,buy"
        write({
            "shop.csv": "\n".join([header, *rows]) + "\n", "some.csv": "\n".join([header, *rows[:40]]) + "\n",
            "conf/task/old.yaml": SHOP % old, "conf/task/new.yaml": SHOP.replace("shop.csv", "some.csv") % new,
        })  # fmt: skip

    return write_shop


@pytest.mark.parametrize(
    ("sharing", "old", "new"),
    [
        (
            "esmm",
            "click: {kind: binary}, cart: {kind: binary}, buy: {kind: binary, product_of: [click, cart]}",
            "view: {kind: binary}, click: {kind: binary}, buy: {kind: binary, product_of: [view, click]}",
        ),
        (
            "aitm",
            "click: {kind: binary}, cart: {kind: binary, after: click}",
            "view: {kind: binary}, click: {kind: binary, after: view}",
        ),
    ],
)
def test_tasks_that_train_one_another_keep_what_is_theirs(cli, shop, tmp_path, sharing, old, new):
    # CKP-10: factors of a product and tasks before others; click has the place of another task now
    shop(old, new)
    line = ["--config-dir", "conf", f"sharing={sharing}"]
    assert cli(*line, "task=old", "hydra.run.dir=old").code == 0
    ended = cli(*line, "task=new", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    outcomes, _ = _outcomes(tmp_path / "new")
    parts = [name for name in _model(tmp_path / "new") if re.match(r"heads\.|sharing\.encoders\.layers", name)]
    for name in parts:
        start, end = _model(tmp_path / "old")[name], _model(tmp_path / "new")[name]
        assert torch.allclose(end[1], start[0], atol=1e-6), name
        assert not torch.allclose(end[0], start[0], atol=1e-3), name
    assert len(parts) == 4
    assert {outcome for name, outcome in outcomes.items() if "view" in name} == {"no task 'view' there"}


def test_scaled_labels_beside_a_product_are_noticed(cli, shop, tmp_path):
    spend, click, cart = "spend: {kind: regression, weight: 0.5}", "click: {kind: binary}", "cart: {kind: binary}"
    both = "buy: {kind: binary, product_of: [click, cart]}"
    shop(", ".join([click, cart, both, spend]), ", ".join([spend, click]))
    assert cli("--config-dir", "conf", "task=old", "hydra.run.dir=old").code == 0
    ended = cli("--config-dir", "conf", "task=new", "init_from=old", *STILL, "hydra.run.dir=new")
    assert "note: the labels of spend are scaled by the new training rows, and the heads with them" in ended.out
    assert set(_outcomes(tmp_path / "new")[0].values()) == {"loaded"}
    for before, after in zip(*(_predicted(tmp_path / name, "shop.csv") for name in ("old", "new")), strict=True):
        for column in ("spend_pred", "click_prob_1"):
            assert float(after[column]) == pytest.approx(float(before[column]), rel=1e-4)


def test_search_begins_anew_where_its_branches_do(cli, customers, tmp_path):
    # Kept alone, the number of steps says that a search is over which has not begun
    line = [*LINE, "sharing=ltb", "sharing.warmup_steps=0", "sharing.search_steps=2"]
    assert cli(*line, "only=[churned,income,segment]", "hydra.run.dir=old").code == 0
    for folder, only in (("same", "churned,income,segment"), ("fewer", "churned,income")):
        assert cli(*line, f"only=[{only}]", "init_from=old", *STILL, f"hydra.run.dir={folder}").code == 0
    same, fewer = (_outcomes(tmp_path / folder)[0] for folder in ("same", "fewer"))
    assert same["sharing.steps"] == same["sharing.choices.0"] == "loaded"
    assert fewer["sharing.choices.0"] != "loaded"
    assert fewer["sharing.steps"] == "belongs to parameters that are not loaded"
    assert _model(tmp_path / "fewer")["sharing.steps"] == 1


def test_same_columns_in_another_order_are_read_as_before(cli, old, customers, tmp_path):
    # Other rows, other statistics, other categories: the new run begins with the predictions of the old one
    header, *rows = (line.split(",") for line in customers["customers.csv"].splitlines())
    order = [0, 3, 2, 1, *range(4, len(header))]
    some = [row for row in rows if row[2] != "a" and row[1] < "6"]
    shuffled = [",".join(line[i] for i in order) for line in (header, *some)]
    (tmp_path / "customers.csv").write_text("\n".join(shuffled) + "\n")
    ended = cli(*LINE, "only=[churned]", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    assert (
        "note: the input columns are read as in that run: scaling, bins and categories of its training rows."
        in ended.out
    )
    assert set(_outcomes(tmp_path / "new")[0].values()) == {"loaded"}
    for before, after in zip(*(_predicted(folder, "customers.csv") for folder in (old, tmp_path / "new")), strict=True):
        assert float(after["churned_prob_yes"]) == pytest.approx(float(before["churned_prob_yes"]), abs=1e-5)


def test_heads_predict_what_they_did_though_labels_are_scaled_anew(cli, write, tmp_path):
    header, *rows = ["x,y,n,flag", *(f"{i % 9},{(i % 9) ** 2}.5,{i % 5},{i % 2 == 0}" for i in range(90))]
    task = "# @package _global_\ndata: {{source: table, path: {0}.csv}}\ntrainer: {{max_epochs: 3}}\ntasks:\n" \
        "  y: {{kind: regression, transform: log1p}}\n  n: {{kind: count}}\n  flag: {{kind: binary}}\n"  # fmt: skip
    some = [row.replace("True", "yes").replace("False", "no") for row in rows if row[0] < "5"]
    write({
        "all.csv": "\n".join([header, *rows]) + "\n", "some.csv": "\n".join([header, *some]) + "\n",
        "conf/task/all.yaml": task.format("all"), "conf/task/some.yaml": task.format("some"),
    })  # fmt: skip
    assert cli("--config-dir", "conf", "task=all", "hydra.run.dir=old").code == 0
    ended = cli("--config-dir", "conf", "task=some", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (
        "note: the labels of n, y are scaled by the new training rows, and the heads with them: they predict"
        in ended.out
    )
    assert set(_outcomes(tmp_path / "new")[0].values()) == {"loaded"}
    for before, after in zip(*(_predicted(tmp_path / name, "all.csv") for name in ("old", "new")), strict=True):
        for column in ("y_pred", "n_pred"):
            assert float(after[column]) == pytest.approx(float(before[column]), rel=1e-4)
        assert float(after["flag_prob_yes"]) == pytest.approx(float(before["flag_prob_True"]), abs=1e-5)


def test_heads_are_not_said_to_predict_what_they_did_where_what_they_read_is_other(cli, old, customers, tmp_path):
    rows = customers["customers.csv"].replace("visits", "orders").splitlines()[:90]
    (tmp_path / "customers.csv").write_text("\n".join(rows) + "\n")
    ended = cli(*LINE, "only=[churned,income]", "init_from=old", *STILL, "hydra.run.dir=new")
    told = "the labels of income are scaled by the new training rows, and the heads with them; not all that these read"
    assert f"note: {told} was loaded.\n" in ended.out


def test_weights_never_go_to_another_column(cli, old, customers, tmp_path):
    # The shapes are the same: only the name of a column is not
    (tmp_path / "customers.csv").write_text(customers["customers.csv"].replace("visits", "orders"))
    ended = cli(*LINE, "only=[churned]", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    assert "note: other input columns than in that run: 'orders' is not there; 'visits' is not here." in ended.out
    outcomes, record = _outcomes(tmp_path / "new")
    assert outcomes["sharing.encoder.layers.0.weight"] == "reads other columns"
    assert outcomes["sharing.encoder.layers.1.weight"] == outcomes["heads.churned.weight"] == "loaded"
    assert record["columns"] == ["'orders' is not there", "'visits' is not here"]
    before, after = _model(old), _model(tmp_path / "new")
    first, second = "sharing.encoder.layers.0.weight", "sharing.encoder.layers.1.weight"
    assert before[first].shape == after[first].shape
    assert not torch.allclose(before[first], after[first])
    assert torch.allclose(before[second], after[second])


def test_categories_are_taken_over_where_numbers_alone_are_others(cli, old, customers, tmp_path):
    text = re.sub(",b,", ",q,", customers["customers.csv"].replace("visits", "orders"))  # what was b is unknown
    (tmp_path / "customers.csv").write_text(text)
    ended = cli(*LINE, "only=[churned]", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    assert "note: read as in that run: city.\n" in ended.out
    assert "column 'city'" in ended.out
    columns = [_features(folder)["categorical"] for folder in (old, tmp_path / "new")]
    assert columns[0] == columns[1]
    tables = [_model(folder)["sharing.encoder.embedding"] for folder in (old, tmp_path / "new")]
    assert torch.allclose(*tables)


@pytest.mark.parametrize(
    ("inputs", "loaded", "others"),
    [
        (["review", "title"], {"title": 0, "review": 1}, {}),  # without the number, and in another order
        (["remark", "title", "review", "n"], {"title": 0, "review": 1}, {2: "reads other columns"}),
        (["remark", "title", "n"], {"title": 0}, {1: "reads other columns"}),
        (["review", "n"], {}, {0: "reads other columns"}),
    ],
)
def test_texts_are_taken_over_one_by_one_where_others_are_gone_or_new(cli, write, tmp_path, inputs, loaded, others):
    words = ["red", "blue", "green", "old", "new"]
    rows = [f"{words[n % 5]} a,{words[n % 3]} b,{words[n % 4]} c,{n % 7},{n % 2}" for n in range(40)]
    header, other = "title,review,remark,n,good", [row.replace("red", "pink") for row in rows]
    write({
        "reviews.csv": "\n".join([header, *rows]) + "\n", "other.csv": "\n".join([header, *other]) + "\n",
        "conf/task/reviews.yaml": REVIEWS,
    })  # fmt: skip

    def reading(names):
        return "data.inputs=[" + ",".join(n if n == "n" else f"{{name: {n}, type: text}}" for n in names) + "]"

    line = ["--config-dir", "conf", "task=reviews"]
    assert cli(*line, reading(["title", "review", "n"]), "hydra.run.dir=old").code == 0
    ended = cli(*line, reading(inputs), "data.path=other.csv", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    outcomes, _ = _outcomes(tmp_path / "new")
    assert outcomes["sharing.encoder.last.layers.0.weight"] == "reads other columns"
    found = {name: outcome for name, outcome in outcomes.items() if ".bags." in name}
    wanted = dict.fromkeys(loaded.values(), "loaded") | others
    assert found == {f"sharing.encoder.bags.{i}.weight": outcome for i, outcome in wanted.items()}
    folders = (tmp_path / "old", tmp_path / "new")
    before, after = ({block["name"]: block for block in _features(folder)["blocks"]} for folder in folders)
    for name, place in loaded.items():
        assert list(after).index(name) == place
        assert after[name] == before[name]  # the same words have the same numbers
        tables = [_model(folder)[f"sharing.encoder.bags.{place}.weight"] for folder in folders]
        assert torch.allclose(*tables)
    read = [*(["n"] if inputs[-1] == "n" else []), *loaded]
    assert f"note: read as in that run: {', '.join(read)}.\n" in ended.out


def test_images_are_taken_over_where_numbers_are_gone(cli, write, tmp_path):
    draw = np.random.default_rng(0)
    splits = {"train": 30, "valid": 10, "test": 10}
    arrays = {f"x_{split}": draw.integers(0, 255, (rows, 8, 8), dtype=np.uint8) for split, rows in splits.items()}
    arrays |= {f"{name}_{split}": draw.integers(0, 2, rows) for split, rows in splits.items() for name in ("n", "y")}
    np.savez(tmp_path / "x.npz", **arrays)
    arrays["x_train"] //= 2  # other statistics
    np.savez(tmp_path / "darker.npz", **arrays)
    task = {
        "data": {"source": "npz", "split_names": True, "batch_size": 16}, "tasks": {"y": {"kind": "binary"}},
        "trainer": {"max_epochs": 1}, "shared_dim": 8, "encoder": {"widths": [16], "stem_stride": 1},
    }  # fmt: skip
    text = "# @package _global_\ndefaults:\n  - override /encoder: conv\n" + yaml.safe_dump(task)
    write({"conf/task/images.yaml": text})
    line = ["--config-dir", "conf", "task=images"]
    assert cli(*line, "data.path=x.npz", "data.inputs=[x,n]", "hydra.run.dir=old").code == 0
    ended = cli(*line, "data.path=darker.npz", "data.inputs=[x]", "init_from=old", *STILL, "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    outcomes, _ = _outcomes(tmp_path / "new")
    rest = {name for name, outcome in outcomes.items() if outcome != "loaded"}
    assert rest == {"sharing.encoder.last.layers.0.weight"}
    before, after = (_features(tmp_path / folder)["blocks"][0] for folder in ("old", "new"))
    assert (after["mean"], after["std"]) == (before["mean"], before["std"])


@pytest.mark.parametrize(
    ("freeze", "stay"),
    [
        (["encoder"], ["sharing.encoder.layers.0.weight"]),
        (["layers.0"], ["sharing.encoder.layers.0.weight"]),
        (["layers.1"], []),
    ],
)
def test_what_is_frozen_and_was_not_loaded_is_warned_of(cli, old, customers, tmp_path, freeze, stay):
    (tmp_path / "customers.csv").write_text(customers["customers.csv"].replace("visits", "orders"))
    ended = cli(*LINE, "only=[churned]", "init_from=old", f"freeze=[{','.join(freeze)}]", *STILL, "hydra.run.dir=new")
    told = re.findall(r"^freeze: these stay .* frozen and were not loaded: (.*)$", ended.out, re.MULTILINE)
    assert (ended.code, told) == (0, [", ".join(f"{name} (reads other columns)" for name in stay)] if stay else [])


@pytest.mark.parametrize("sharing", ["mmoe", "separate"])
def test_rows_of_a_new_task_that_are_trained_are_not_warned_of(cli, old, customers, tmp_path, sharing):
    line = [*LINE, f"sharing={sharing}", *STILL]
    assert cli(*line, "only=[churned,segment]", "hydra.run.dir=two").code == 0
    ended = cli(*line, "only=[churned,size]", "init_from=two", "freeze=[heads]", "hydra.run.dir=new")
    parts = ", ".join(f"heads.size.{part} (no task 'size' there)" for part in ("weight", "bias"))
    assert re.findall(r"^freeze: .*: (.*)$", ended.out, re.MULTILINE) == [parts]


@pytest.mark.parametrize("numbers", ["piecewise_linear", "periodic"])
def test_what_reads_each_number_never_goes_to_another_column(cli, customers, tmp_path, numbers):
    line = [*LINE, "only=[churned]", "encoder=tabular", f"encoder.numbers={numbers}", "data.bins=4"]
    assert cli(*line, "trainer.max_steps=1", "hydra.run.dir=old").code == 0
    (tmp_path / "customers.csv").write_text(customers["customers.csv"].replace("visits", "orders"))
    assert cli(*line, "init_from=old", *STILL, "hydra.run.dir=new").code == 0
    outcomes, _ = _outcomes(tmp_path / "new")
    embedding = {name for name in outcomes if name.startswith(("sharing.encoder.numbers.", "sharing.encoder.bias"))}
    assert len(embedding) == (2 if numbers == "piecewise_linear" else 3)
    assert {outcomes[name] for name in embedding} == {"reads other columns"}
    assert outcomes["sharing.encoder.last.layers.1.weight"] == "loaded"


def test_head_of_other_classes_is_not_taken(cli, old, customers, tmp_path):
    text = customers["customers.csv"]
    (tmp_path / "customers.csv").write_text(re.sub(r",A,([SML?]?)$", r",Z,\1", text, flags=re.MULTILINE))
    assert cli(*LINE, "only=[segment]", "init_from=old", *STILL, "hydra.run.dir=new").code == 0
    outcomes, _ = _outcomes(tmp_path / "new")
    assert outcomes["heads.segment.weight"] == outcomes["heads.segment.bias"] == "other classes there: A, B, C"


def test_classes_that_are_not_named_are_counted(cli, write, tmp_path):
    task = "# @package _global_\ndata: {source: table, path: x.csv, inputs: [n]}\ntrainer: {max_epochs: 1}\n" \
        "tasks: {digit: {kind: multiclass, classes: [%s]}}\n"  # fmt: skip
    write({
        "x.csv": "\n".join(["n,digit", *(f"{n},{n % 9}" for n in range(90))]) + "\n",
        "conf/task/ten.yaml": task % "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "conf/task/nine.yaml": task % "0, 1, 2, 3, 4, 5, 6, 7, 8",
    })  # fmt: skip
    assert cli("--config-dir", "conf", "task=ten", "hydra.run.dir=old").code == 0
    assert cli("--config-dir", "conf", "task=nine", "init_from=old", *STILL, "hydra.run.dir=new").code == 0
    outcomes, _ = _outcomes(tmp_path / "new")
    assert outcomes["heads.digit.weight"] == "other classes there: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


@pytest.fixture
def _one_quantile():
    @KINDS.register("one_quantile")
    class OneQuantile(Regression):
        """A quantile of a number."""

        def __init__(self, *, tau: float = 0.5) -> None:
            super().__init__()
            self.tau = tau

        def loss(self, outputs, targets):
            error = targets - outputs.squeeze(-2)
            return torch.maximum(self.tau * error, (self.tau - 1) * error)

    yield
    KINDS._classes.pop("one_quantile")


@pytest.mark.usefixtures("_one_quantile")
@pytest.mark.parametrize(("tau", "outcome"), [(0.1, "loaded"), (0.9, "other outputs there")])
def test_head_of_a_kind_of_ones_own_is_taken_if_it_was_made_with_the_same_options(
    cli, customers, tmp_path, tau, outcome
):
    line = [*LINE, "only=[income]", "trainer.max_steps=1", "tasks.income.kind=one_quantile", "~tasks.income.transform"]
    assert cli(*line, "+tasks.income.tau=0.1", "hydra.run.dir=old").code == 0
    assert cli(*line, f"+tasks.income.tau={tau}", "init_from=old", "hydra.run.dir=new").code == 0
    outcomes, _ = _outcomes(tmp_path / "new")
    assert outcomes["heads.income.weight"] == outcome
    assert outcomes["sharing.encoder.layers.1.weight"] == "loaded"


def test_shapes_and_kinds_that_differ_are_told(cli, old, tmp_path):
    changes = ["encoder.hidden=[24]", "tasks.income={kind: quantile, target: income_eur}"]
    assert cli(*LINE, "only=[income]", "init_from=old", *changes, *STILL, "hydra.run.dir=new").code == 0
    outcomes, _ = _outcomes(tmp_path / "new")
    width = _model(old)["sharing.encoder.layers.0.weight"].shape[1]
    assert outcomes == {
        "sharing.encoder.embedding": "loaded",
        "sharing.encoder.layers.0.weight": f"shape 16 x {width} there, 24 x {width} here",
        "sharing.encoder.layers.0.bias": "shape 16 there, 24 here",
        "sharing.encoder.layers.1.weight": "shape 16 x 16 there, 16 x 24 here",
        "sharing.encoder.layers.1.bias": "loaded",
        "heads.income.weight": "kind regression there, quantile here",
        "heads.income.bias": "kind regression there, quantile here",
    }


def test_nothing_that_fits_is_refused_and_leaves_nothing(cli, old, tmp_path):
    # CKP-10: zero matches
    before = sorted(path.name for path in tmp_path.iterdir())
    ended = cli(
        *LINE,
        "only=[size]",
        "init_from=old",
        "shared_dim=7",
        "encoder.hidden=[9]",
        "encoder.embedding_dim=3",
        "hydra.run.dir=new",
    )
    assert ended.code == 2
    assert re.fullmatch(
        r"init_from: nothing of old fits this model \(.*no task 'size' there\)\. .*leave init_from out\.\n", ended.err
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["init_from=nothing"], r"nothing: is not a run folder: there is no such folder\."),
        (["init_from=conf"], r"conf: is not a run folder \(no config\.yaml or status\.json\); it holds: task\."),
        (
            ["init_from=old", "resume=old"],
            r"init_from \(command line\): cannot be given together with resume, which takes the run's own weights\. "
            r"Leave one of the two out\.",
        ),
    ],
)
def test_what_is_no_run_is_refused_before_the_data_are_read(cli, old, tmp_path, given, message):
    (tmp_path / "customers.csv").unlink()
    ended = cli(*LINE, *given, "hydra.run.dir=new")
    assert ended.code == 2
    assert re.fullmatch(f"{message}\n", ended.err)
    assert not (tmp_path / "new").exists()


def test_a_run_to_resume_cannot_start_from_another_one(cli, old):
    ended = cli("resume=old", "init_from=old", "trainer.max_epochs=5")
    assert ended.code == 2
    assert ended.err.startswith("init_from (command line): cannot be given together with resume, ")


def test_it_goes_on_bit_for_bit_though_the_other_run_is_gone(cli, old, tmp_path):
    # RES-01, and the line that SLURM repeats: it starts from the other run once only
    (tmp_path / "customers.csv").write_text((tmp_path / "customers.csv").read_text().replace(",b,", ",q,"))
    line = [*LINE, "only=[churned,size]", "init_from=old", "freeze=[encoder]", "resume=auto"]
    assert cli(*line, "trainer.max_epochs=4", "hydra.run.dir=unbroken").code == 0
    assert cli(*line, "trainer.max_epochs=2", "hydra.run.dir=new").code == 0
    old.rename(tmp_path / "elsewhere")
    ended = cli(*line, "trainer.max_epochs=4", "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    assert "resumed after epoch 2" in ended.out
    assert "started from" not in ended.out
    new, unbroken = tmp_path / "new", tmp_path / "unbroken"
    assert (new / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    for name in ("best", "last"):
        one, other = _model(new, name), _model(unbroken, name)
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    started = _model(tmp_path / "elsewhere")
    for key, value in _model(new, "last").items():
        assert torch.equal(value, started[key]) == key.startswith("sharing.encoder.") or "heads" in key
    same = [part for part in line if not part.startswith(("init_from", "resume"))]
    for again in (["resume=new"], [*same, "resume=new", "hydra.run.dir=new"]):
        ended = cli(*again, "trainer.max_epochs=4")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.endswith("new: is done, nothing to do\n")


def test_frozen_parameters_stand_in_the_table_and_the_summary(cli, old, tmp_path):
    # MOD-03
    ended = cli(*LINE, "init_from=old", "freeze=[encoder]", "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    table = re.search(r"^parameters +number +frozen\n((?:\w+ +[\d,]+ +[\d,]+\n)+)", ended.out, re.MULTILINE)
    rows = {line.split()[0]: [int(n.replace(",", "")) for n in line.split()[1:]] for line in table[1].splitlines()}
    assert rows["shared"][0] == rows["shared"][1] == rows["total"][1] > 0 == rows["churned"][1]
    parameters = json.loads((tmp_path / "new/summary.json").read_text())["parameters"]
    assert (parameters["total"], parameters["frozen"]) == tuple(rows["total"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["freeze=shared", "balancing=pcgrad"],
            r"balancing \(\S.*\): 'pcgrad' needs gradients of shared parameters, and freeze=\[shared\] leaves none "
            r"to train\. Use a method that weights losses, such as balancing=equal, or freeze less\.",
        ),
        (
            ["freeze=[encoder]", "balancing=pcgrad"],
            r"balancing: 'pcgrad' works on gradients of shared parameters, and all of them are frozen\. "
            r"Use a method that weights losses, such as balancing=equal, or freeze less\.",
        ),
        (["freeze=[layrs.0]"], r"freeze: 'layrs\.0' matches no parameter\. Did you mean 'layers\.0'\? Parameters: .*"),
        (["freeze=['*']"], r"freeze: leaves nothing to train: all \d+ parameters are frozen, got \['\*'\]\. .*"),
        (["freeze=3"], r"freeze \(command line\): must be .*"),
    ],
)
def test_freezing_that_cannot_be_is_refused_before_the_first_step(cli, customers, tmp_path, given, message):
    # MOD-03, BAL-10
    ended = cli(*LINE, *given, "hydra.run.dir=new")
    assert ended.code == 2
    assert re.fullmatch(f"{message}\n", ended.err)
    assert not (tmp_path / "new").exists()


def test_dry_run_shows_what_would_be_loaded(cli, old, tmp_path):
    ended = cli(*LINE, "init_from=old", "dry_run=true")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"^started from .*/old \(best, epoch \d\): \d+ of \d+ parameters loaded", ended.out, re.MULTILINE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "customers.csv", "old"]


@pytest.fixture
def tags(write, tmp_path):
    """A command line that tags tokens; the table has a number too."""
    words = ["a", "b", "cc", "dd"]
    rows = [[words[(i + j) % 4] for j in range(1 + i % 3)] for i in range(40)]
    import polars as pl

    frame = pl.DataFrame({"forms": rows, "tags": [[w.upper()[0] for w in row] for row in rows], "year": range(40)})
    frame.write_parquet(tmp_path / "t.parquet")
    task = {
        "data": {"source": "table", "path": "t.parquet", "inputs": ["forms"], "batch_size": 8},
        "tasks": {"tags": {"kind": "tagging"}}, "trainer": {"max_epochs": 1}, "shared_dim": 8,
    }  # fmt: skip
    write(
        {
            "conf/task/tags.yaml": "# @package _global_\ndefaults:\n  - override /encoder: sequence\n"
            + yaml.safe_dump(task)
        }
    )
    return ["--config-dir", "conf", "task=tags", "data.text.ids=64"]


def test_tagging_and_its_tokens_are_taken_over(cli, tags, tmp_path):
    assert cli(*tags, "hydra.run.dir=one").code == 0
    assert cli(*tags, "init_from=one", "hydra.run.dir=two").code == 0
    assert set(_outcomes(tmp_path / "two")[0].values()) == {"loaded"}


@pytest.mark.parametrize(
    ("sharing", "numbered"), [("low_rank", r"\.(vectors|components|factors)\."), ("lora", "changes")]
)
def test_numbers_in_names_must_count_the_same(cli, tags, tmp_path, sharing, numbered):
    line = [*tags, f"sharing={sharing}", "encoder.dim=8", "encoder.reach=[1]"]
    assert cli(*line, "hydra.run.dir=one").code == 0
    assert cli(*line, "init_from=one", "data.inputs=[forms,year]", *STILL, "hydra.run.dir=two").code == 0
    outcomes, _ = _outcomes(tmp_path / "two")
    others = {outcome for name, outcome in outcomes.items() if re.search(numbered, name)}
    assert others <= {"the number in its name counts other parts there", "reads other columns"}
    assert "the number in its name counts other parts there" in others
    assert outcomes["heads.tags.weight"] == "loaded"
    assert cli(*line, "init_from=one", "hydra.run.dir=three").code == 0
    assert set(_outcomes(tmp_path / "three")[0].values()) == {"loaded"}


def test_a_run_whose_texts_are_hardly_known_to_the_other_says_so(cli, write, tmp_path, capsys):
    rows = [f"{' '.join(['suppe', 'brot', 'reis'][n % 2 :])},{n % 2}" for n in range(40)]
    english = [f"{' '.join(['soup', 'bread', 'reis'][: 2 + n % 2])},{n % 2}" for n in range(40)]
    files = {name: "\n".join(["review,good", *lines]) + "\n" for name, lines in (("de", rows), ("en", english))}
    write({"reviews.csv": files["de"], "english.csv": files["en"], "conf/task/reviews.yaml": REVIEWS})
    line = ["--config-dir", "conf", "task=reviews"]
    told = "column 'review': 80 of 100 words and parts of words are unknown from training, and 20 rows have none that"
    first = cli(*line, "hydra.run.dir=old")
    assert (first.code, "unknown from training" in first.out) == (0, False)
    ended = cli(*line, "data.path=english.csv", "init_from=old", "hydra.run.dir=new")
    assert (ended.code, ended.err) == (0, "")
    known = "note: column 'review': of words and parts of words the 3 of its training rows are known, and no others."
    assert known in ended.out
    assert f"english.csv, {told} is known." in ended.out
    assert run(predict.predict, ["old", "--data", "english.csv", "--out", "predicted.csv"]) == 0
    assert f"english.csv, {told} is known." in capsys.readouterr().err


def test_everything_is_refused_that_could_run_code(cli, old, tmp_path):
    # CKP-09
    for name in ("best", "last"):
        path = old / "checkpoints" / f"{name}.pt"
        torch.save({"model": _Evil()}, path)
    ended = cli(*LINE, "init_from=old", "hydra.run.dir=new")
    assert ended.code == 2
    assert "holds Python objects that could run code; refused" in ended.err
    assert not (tmp_path / "pwned.txt").exists()
    assert not (tmp_path / "new").exists()


class _Evil:
    def __reduce__(self):
        return open, ("pwned.txt", "w")
