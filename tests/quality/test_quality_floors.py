"""Quality floors of the shipped defaults on real data, mean over three seeds, on test rows. Minutes: make test-slow."""

import json
from pathlib import Path

import polars as pl
import pytest

from mtl_cli.cli import run_command

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
ADULT = """# @package _global_
data:
  source: table
  path: {path}/adult/adult.parquet
  exclude: [education, fnlwgt]
  split: {{column: split}}
tasks:
  income: {{kind: binary, target: income_over_50k}}
  education: {{kind: ordinal, target: education_num}}
  hours: {{kind: regression, target: hours_per_week}}
"""
PARKINSONS = """# @package _global_
data:
  source: table
  path: {path}/parkinsons_telemonitoring/parkinsons_telemonitoring.parquet
  exclude: [subject, split_by_subject]
  split: {{column: split_random}}
tasks:
  motor_UPDRS: {{kind: regression}}
  total_UPDRS: {{kind: regression}}
trainer: {{max_epochs: 100}}
"""


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def means(folder, arguments):
    """Mean over seeds 0, 1, 2 of every number of the summaries."""
    assert run_command(["-m", *arguments, "seed=0,1,2", f"hydra.sweep.dir={folder}"]) == 0
    summaries = [json.loads(path.read_text())["metrics"] for path in folder.glob("*/summary.json")]
    assert len(summaries) == 3
    return {key: sum(s[key] for s in summaries) / 3 for key in summaries[0]}


def write_task(folder, name, text):
    (folder / "conf/task").mkdir(parents=True)
    (folder / f"conf/task/{name}.yaml").write_text(text.format(path=SHARED))
    return ["--config-dir", str(folder / "conf"), f"task={name}"]


@pytest.mark.slow
def test_digits(tmp_path):
    assert means(tmp_path / "sweep", ["task=digits"])["test/digit/accuracy"] >= 0.97


@pytest.mark.slow
@real_data
def test_adult(tmp_path):
    found = means(tmp_path / "sweep", write_task(tmp_path, "census", ADULT))
    assert found["test/income/auroc"] >= 0.908
    assert found["test/hours/r2"] >= 0.25
    assert found["test/education/qwk"] >= 0.58


@pytest.mark.slow
@real_data
@pytest.mark.parametrize(("split", "floor"), [("split_random", 0.83), ("split_scaffold", 0.755)])
def test_tox21(tmp_path, split, floor):
    arguments = ["task=tox21", f"data.path={SHARED}/tox21/tox21.parquet", f"data.split.column={split}"]
    assert means(tmp_path / "sweep", arguments)["test/mean"] >= floor


@pytest.mark.slow
@real_data
def test_omniglot_alphabets(tmp_path):
    arguments = ["task=omniglot_alphabets", f"extra.folder={SHARED}/omniglot_alphabets"]
    assert means(tmp_path / "sweep", arguments)["test/mean"] >= 0.70


@pytest.mark.slow
@real_data
def test_multi_mnist(tmp_path):
    """Two overlapping digits; a network with one hidden layer has 0.922 and 0.909."""
    found = means(tmp_path / "sweep", ["task=multi_mnist", f"data.path={SHARED}/multi_mnist/multi_mnist.npz"])
    assert found["test/left/accuracy"] >= 0.95
    assert found["test/right/accuracy"] >= 0.95


@pytest.mark.slow
@real_data
def test_amazon_sport_phone(tmp_path):
    """Hits among the first ten of 100 candidates; ranking them by popularity has 0.473 and 0.540."""
    arguments = ["task=amazon_sport_phone", f"extra.folder={SHARED}/amazon_sport_phone"]
    found = means(tmp_path / "sweep", arguments)
    assert found["test/sport/hr@10"] >= 0.50
    assert found["test/phone/hr@10"] >= 0.57


@pytest.mark.slow
@real_data
def test_school(tmp_path):
    """Explained variance over all test pupils; ridge regressions that share nothing or all have 0.333 and 0.342."""
    path = SHARED / "school/school.parquet"
    test = pl.read_parquet(path).filter(pl.col("split_0") == "test")
    assert run_command(["-m", "task=school", f"data.path={path}", "seed=0,1,2", "hydra.sweep.dir=sweep"]) == 0
    explained = []
    for summary in Path("sweep").glob("*/summary.json"):
        metrics = json.loads(summary.read_text())["metrics"]
        errors = sum(
            n * metrics[f"test/school_{school}/rmse"] ** 2 for school, n in test.group_by("school").len().rows()
        )
        explained.append(1 - errors / (test["score"].var(ddof=0) * test.height))
    assert len(explained) == 3
    assert sum(explained) / 3 >= 0.379


@pytest.mark.slow
@real_data
def test_ud_multilingual(tmp_path):
    """Mean accuracy of parts of speech over eight languages; a window logistic regression for each has 0.939."""
    arguments = ["task=ud_multilingual", f"extra.folder={SHARED}/ud_multilingual"]
    assert means(tmp_path / "sweep", arguments)["test/mean"] >= 0.945


@pytest.mark.slow
@real_data
def test_numbers_that_turn_are_learnt_by_their_embeddings(tmp_path):
    """Recordings of people whom their age and the time of the recording tell apart: boosting has r2 0.956, mlp 0.88."""
    arguments = [*write_task(tmp_path, "parkinsons", PARKINSONS), "encoder=tabular"]
    assert means(tmp_path / "sweep", arguments)["test/mean"] >= 0.956
