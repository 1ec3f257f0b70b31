"""The shipped task files read their real data sets as they say."""

import re
from pathlib import Path

import polars as pl
import pytest
import yaml

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
@pytest.mark.parametrize(("task", "split"), [("adult", "split"), ("tox21", "split_random")])
def test_a_table_of_real_data_takes_one_short_file(cli, task, split):
    text = (CONFIGS / f"task/{task}.yaml").read_text()
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 25
    path = SHARED / task / f"{task}.parquet"
    ended = cli(f"task={task}", f"data.path={path}", "dry_run=true", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    for name, options in yaml.safe_load(text)["tasks"].items():
        column = pl.read_parquet(path).filter(pl.col(split) == "train")[options.get("target", name)]
        missing = f" ({column.null_count():,} missing)" if column.null_count() else ""
        line = rf"^{name} +{options['kind']} +{column.count():,}{re.escape(missing)} "
        assert re.search(line, ended.out, re.MULTILINE), line


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
def test_one_task_for_each_school(cli):
    frame = pl.read_parquet(SHARED / "school/school.parquet")
    tasks = yaml.safe_load((CONFIGS / "task/school.yaml").read_text())["tasks"]
    assert list(tasks) == [f"school_{number}" for number in sorted(frame["school"].unique())]
    assert [options["mask_by"]["school"] for options in tasks.values()] == list(range(len(tasks)))
    ended = cli("task=school", f"data.path={SHARED}/school/school.parquet", "dry_run=true", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert "not in data.inputs" in ended.out  # the school itself is not read: the heads know it


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
def test_one_task_for_each_language(cli):
    line = ["task=ud_multilingual", f"extra.folder={SHARED}/ud_multilingual", "dry_run=true", "hydra.run.dir=run"]
    ended = cli(*line, "encoder.dim=8")  # narrow: its checkpoint would have 300 MB
    assert ended.code == 0, ended.err
    for language in yaml.safe_load((CONFIGS / "task/ud_multilingual.yaml").read_text())["tasks"]:
        frame = pl.read_parquet(SHARED / f"ud_multilingual/{language}.parquet").filter(pl.col("split") == "train")
        words = f"{frame['upos'].list.len().sum():,}"
        assert re.search(rf"^{language} +tagging +{words} \(", ended.out, re.MULTILINE), (language, words)
