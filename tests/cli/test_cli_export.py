"""mtl-export: a file that needs no mtl-train gives the numbers of mtl-predict, and says what they mean."""

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from worlds import SMALL_ENCODERS, encoder_world, make_learner, make_tasks, three_kinds

from mtl_cli import exported, load_run
from mtl_cli.build import build_source
from mtl_cli.commands import export as command
from mtl_cli.commands.entry import run
from mtl_cli.data import FeatureOptions, Features
from mtl_cli.data.scaling import Scaler
from mtl_cli.data.table import Part, Table
from mtl_cli.model.gates import GateUse
from mtl_cli.registry import ENCODERS, SHARINGS

TASKS = ("churned", "income", "segment", "size")


@pytest.fixture
def export(capsys):
    """Runs mtl-export: exit code, standard output, standard error."""

    def call(*arguments):
        capsys.readouterr()
        return (run(command.export, [str(argument) for argument in arguments]), *capsys.readouterr())

    return call


@pytest.fixture
def train(cli, customers):
    """Trains on the customers, with dropout, into ``run``."""

    def call(*overrides):
        options = ["encoder.dropout=0.5", "trainer.max_epochs=1", "hydra.run.dir=run", *overrides]
        ended = cli("--config-dir", "conf", "task=customers", *options)
        assert ended.code == 0, ended.err

    return call


@pytest.mark.filterwarnings("default")  # torch.export warns of itself
def test_the_file_gives_the_numbers_of_the_run_for_any_number_of_rows(train, export):
    # EXP-01, EXP-03
    train("sharing=mmoe")
    code, out, err = export("run", "--out", "model.pt2")
    assert (code, err) == (0, "")
    names = ", ".join(TASKS)
    assert out.startswith(f"model.pt2 and model.json: the best weights (epoch 1), outputs {names}; largest difference")
    trained = load_run("run")
    (table,) = build_source(trained.config, "customers.csv").chunks(1000, verbatim=(), converted=())
    inputs, _ = trained.features.transform(table)
    program = torch.export.load("model.pt2").module()
    predicted = trained.predict("customers.csv")
    for rows in (slice(0, 120), slice(5, 6)):
        outputs = program(inputs.numeric[rows], inputs.categorical[rows], {})
        assert tuple(outputs) == TASKS
        assert {name: o.shape[1] for name, o in outputs.items()} == {"churned": 1, "income": 1, "segment": 3, "size": 2}
        for task in trained.tasks:
            for suffix, values in task.kind.columns(outputs[task.name].detach()).items():
                wanted = predicted[f"{task.name}_{suffix}"][rows]
                if wanted.dtype == pl.String:
                    assert values.tolist() == wanted.to_list()
                else:
                    np.testing.assert_allclose(values, wanted.to_numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("default")
def test_a_program_of_a_run_in_bfloat16_computes_in_float32_which_is_told(train, export):
    train("trainer.precision=bf16-mixed")
    code, _, err = export("run", "--out", "model.pt2")
    assert (code, err) == (
        0,
        "note: the run predicts in bfloat16 (trainer.precision=bf16-mixed), and the program computes in float32: its "
        "outputs differ from those of mtl-predict by about 1%.\n",
    )
    assert json.loads(Path("model.json").read_text())["precision"] == "float32"


RAGGED = ("text", "tokens")
PAIRS = [
    *((sharing, "mlp") for sharing in SHARINGS.names()),
    *(
        ("hard", encoder)
        for encoder in ENCODERS.names()
        if encoder != "mlp" and ENCODERS.load(encoder).reads not in RAGGED
    ),
]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("sharing", "encoder"), PAIRS)
def test_every_architecture_and_every_encoder_is_exported(tmp_path, monkeypatch, sharing, encoder):
    spec, _ = encoder_world(ENCODERS.load(encoder).reads)
    learner = make_learner(
        three_kinds()[:2], spec=spec, sharing=sharing, encoder_name=encoder, encoder=SMALL_ENCODERS.get(encoder)
    )
    learner.parameters.values += 0.2 * torch.randn_like(learner.parameters.values)  # away from zeros at the start
    tasks = make_tasks(learner)
    trained = SimpleNamespace(
        features=SimpleNamespace(spec=spec),
        tasks=tasks,
        config=SimpleNamespace(tasks=[task.name for task in tasks]),
        model=learner.model.eval(),
    )
    monkeypatch.setattr(exported, "description", lambda _: {})
    assert exported.export(trained, tmp_path / "model.pt2") <= exported.TOLERANCE
    assert (tmp_path / "model.pt2").exists()


@pytest.mark.filterwarnings("default")
def test_what_is_beside_the_file_is_enough_to_use_it(train, export):
    # EXP-03: without this package, from the JSON alone
    train("tasks.income.transform=none")
    assert export("run", "--out", "model.pt2")[0] == 0
    script = """
import sys
sys.modules["mtl_cli"] = None
import json, torch
said, extra = json.load(open("model.json")), {"mtl.json": ""}
program = torch.export.load("model.pt2", extra_files=extra).module()
assert json.loads(extra["mtl.json"]) == said
numeric = torch.zeros(2, said["inputs"]["numeric"]["shape"][1])
for column, kept in zip(said["inputs"]["numeric"]["columns"], said["preprocessing"]["numeric"]):
    scaler = kept["scaler"]
    cell = {"age": 40.0, "visits": 3.0}[column["name"]]
    numeric[0, column["first"]] = (cell - scaler["mean"][0]) / scaler["std"][0]
codes = [kept["values"].index("b") + 1 for kept in said["preprocessing"]["categorical"]]
outputs = program(numeric, torch.tensor([codes, codes]), {})
by_task = {one["task"]: one for one in said["outputs"]}
income, segment = by_task["income"], by_task["segment"]
found = {"income": outputs["income"][0, 0].item() * income["state"]["std"] + income["state"]["mean"]}
found |= dict(zip(segment["classes"], outputs["segment"][0].softmax(0).tolist()))
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    row = load_run("run").predict(pl.DataFrame({"customer": ["x"], "age": ["40"], "visits": ["3"], "city": ["b"]}))
    assert found["income"] == pytest.approx(row["income_pred"][0], rel=1e-4)
    assert [found[c] for c in "ABC"] == pytest.approx([row[f"segment_prob_{c}"][0] for c in "ABC"], abs=1e-5)
    said = json.loads(Path("model.json").read_text())
    assert all(one["formula"] for one in said["outputs"])
    frame = pl.DataFrame(
        {"day": ["2024-01-01", "2024-01-02"], "c": ["a", None], "d": ["a", "b"], "photo": np.eye(4).reshape(2, 2, 4)}
    )
    features = Features.fit(Table(frame, (Part("a.csv", 0, 2, lines=True),)), FeatureOptions(), np.arange(2), {})
    said = exported.description(replace(load_run("run"), features=features))
    inputs, (image,) = said["inputs"], said["preprocessing"]["blocks"]
    assert [column["type"] for column in inputs["numeric"]["columns"]] == ["date"]
    assert "dates as days since 1970-01-01" in inputs["numeric"]["values"]
    assert inputs["categorical"]["missing"] == [2, 0]
    assert "numbers in their shortest form (7.0 is `7`), truth values as `true`" in inputs["categorical"]["codes"]
    assert "takes for the category that it spells otherwise: `1.0` for `1`;" in inputs["categorical"]["codes"]
    photo = inputs["blocks"]["photo"]
    assert (photo["type"], photo["shape"]) == ("image", ["rows", 2, 4, 1])
    assert "those of files from 0 to 255: the program scales them. Files are turned upright" in photo["values"]
    assert not {"mean", "std"} & image.keys()  # nobody scales them once more


def test_numbers_by_rank_and_quantiles_are_what_the_file_says(train, export):
    train("data.scale=quantile", "tasks.income.kind=quantile")
    assert export("run", "--out", "model.pt2")[0] == 0
    said = json.loads(Path("model.json").read_text())
    rank = "rank among `quantiles` from 0 to 1 (linear between two of them, of equal ones the middle)"
    assert rank in said["inputs"]["numeric"]["values"]
    scaler = Scaler.from_json(
        {**said["preprocessing"]["numeric"][0]["scaler"], "mode": [3], "quantiles": [[1, 2, 2, 2, 2, 6]]}
    )
    expected = [statistics.NormalDist().inv_cdf(share) for share in (0.1, 0.5, 0.9)]
    assert scaler.transform(np.array([[1.5], [2.0], [4.0]]))[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    income = next(one for one in said["outputs"] if one["task"] == "income")
    assert (income["options"]["quantiles"], income["outputs"]) == (None, 3)
    assert income["formula"].endswith("These are the `quantiles`; null: 0.1, 0.5, 0.9")


@pytest.mark.parametrize(("more", "texts"), [([], ["", "?"]), (["data.missing=null"], [""])])
def test_the_file_says_which_cells_are_empty(train, customers, more, texts):
    Path("customers.csv").write_text(customers["customers.csv"].replace("?", "" if more else "?"))
    train(*more)
    empty = exported.description(load_run("run"))["inputs"]["empty"]
    assert empty["texts"] == texts
    assert "no value, NaN, or one of these texts" in empty["values"]


def test_a_file_that_gives_other_numbers_is_not_kept(train, export, monkeypatch):
    train()
    monkeypatch.setattr(exported, "_largest_difference", lambda *_: 0.5)
    code, _, err = export("run", "--out", "model.pt2")
    assert (code, err) == (
        1, "model.pt2: not written: the exported program gives other numbers than the model, by 0.5.\n",
    )  # fmt: skip
    assert not list(Path().glob("model.*"))


def test_a_file_that_gives_no_numbers_is_not_kept(train, export, monkeypatch):
    train()

    def broken(*rows):
        outputs = exported.Program(load_run("run"))(*rows)
        return outputs | {"income": outputs["income"] * float("nan")}

    monkeypatch.setattr(torch.export, "load", lambda _: SimpleNamespace(module=lambda: broken))
    code, _, err = export("run", "--out", "model.pt2")
    assert (code, err) == (
        1, "model.pt2: not written: the exported program gives other numbers than the model, by nan.\n",
    )  # fmt: skip
    assert not list(Path().glob("model.*"))


@pytest.mark.filterwarnings("default")  # torch.export warns of itself
def test_the_run_that_is_exported_stays_as_it_is(train):
    train("sharing=mmoe")
    trained = load_run("run")
    assert exported.export(trained, Path("model.pt2")) < 1e-5
    uses = [module for module in trained.model.modules() if isinstance(module, GateUse)]
    assert not any(module.training for module in trained.model.modules())
    assert uses
    assert all(use.seen() is None for use in uses)


def test_mistakes_are_told_at_once(train, export):
    train()
    Path("model.json").touch()
    assert export("run", "--out", "model.onnx", "--checkpoint", "bset") == (
        2, "", "--checkpoint: run has no 'bset'. Did you mean 'best'?\n--out: must end with .pt2, got 'model.onnx'.\n",
    )  # fmt: skip
    for name in ("model.pt2", "model.PT2"):
        code, _, err = export("run", "--out", name)
        assert (code, err) == (
            2, "--out: there is a file 'model.json' already. Add --overwrite, or choose another name.\n",
        )  # fmt: skip
    assert export("run", "--out", "absent/model.pt2")[2] == "--out: there is no folder 'absent'. Make it first.\n"
    for name in ("", ".", "/"):
        assert export("run", "--out", name)[::2] == (2, f"--out: must end with .pt2, got '{name}'.\n")
