"""Whatever overrides say, a run is finished or an error is clear: no traceback, no hang, nothing half-written."""

import random
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

CONFIGS = Path(__file__).parents[3] / "configs"
GROUPS = ("encoder", "sharing", "balancing", "optimizer", "scheduler", "trainer")
NOT_KEYS = ("hydra", "defaults", "resume", "plugins", "data.text.ids")  # the last: tables of any size
HEAD = "# @package _global_\n"
TASK = """
data: {source: table, path: people.csv, batch_size: 8}
shared_dim: 4
encoder: {hidden: [4]}
tasks:
  income: {kind: regression}
  buys: {kind: binary}
  size: {kind: ordinal}
trainer: {max_epochs: 1, device: cpu, threads: 1}
hydra: {run: {dir: run}}
"""
TASK_KEYS = ("kind", "target", "weight", "hidden", "missing_label", "mask_by", "sample_weight", "metrics", "loss",
             "classes", "class_weight", "label_smoothing", "transform", "ranking", "source", "num_classes")  # fmt: skip
VALUES = [
    "null", "true", "false", "0", "1", "-1", "2", "3", "7", "0.5", "-0.5", "1e-30", "1e30", "1e308", "nan", "inf",
    "-inf", "9223372036854775808", "text", "''", "'?'", "???", "é", "[]", "[1,2]", "[2.5]", "[a,null]", "[[1],[2]]",
    "{}", "{a:1}", "{buys:1,income:2}", "{0:1}", "${seed}", "${nowhere}", "${oc.env:NO}", "1_000", "1:30", "*",
    "age", "city", "income", "buys", "mean", "worst", "val/loss", "val/buys/auroc", "equal", "auto", "mlp", "hard",
    "x=y", "a.b", "a/b",
]  # fmt: skip


def _leaves(node, prefix):
    for key, value in node.items():
        path = f"{prefix}{key}"
        yield path
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")


def _read(file):
    return yaml.safe_load(file.read_text()) or {}


def _main_keys():
    """Every key of the main file and of a task."""
    keys = [k for k in _leaves(_read(CONFIGS / "config.yaml"), "") if not k.startswith(NOT_KEYS)]
    return keys + [f"tasks.{task}.{key}" for task in ("income", "buys", "size") for key in TASK_KEYS]


MAIN = _main_keys()
# Every key of every file of the groups. The number of steps is set below.
KEYS = {
    (group, file.stem): sorted(set(_leaves(_read(file), f"{group}.")) - {"trainer.max_steps"})
    for group in GROUPS
    for file in sorted((CONFIGS / group).glob("*.yaml"))
}


@st.composite
def overrides(draw):
    """Choices of groups, and up to three keys, mostly theirs, with values of right and wrong types; some misspelt."""
    chosen = draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=2, unique_by=lambda choice: choice[0]))
    own = [key for choice in [*chosen, ("trainer", "default")] for key in KEYS[choice]] + MAIN
    every = [key for keys in KEYS.values() for key in keys]
    pairs = []
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(own if draw(st.integers(0, 9)) else every))
        if draw(st.integers(0, 9)) == 9:
            place = draw(st.integers(0, len(key) - 1))
            key = key[:place] + key[place + 1 :]
        pairs.append(f"{draw(st.sampled_from(['', '', '', '+', '++']))}{key}={draw(st.sampled_from(VALUES))}")
    return [*(f"{group}={name}" for group, name in chosen), *pairs]


def _people():
    draw = random.Random(0)
    rows = [[draw.randint(18, 80), draw.choice("abc"), draw.randint(900, 3000)] for _ in range(40)]
    lines = [f"{a},{c},{i},{'yes' if i > 1900 else 'no'},{a // 21}" for a, c, i in rows]
    return "age,city,income,buys,size\n" + "\n".join(lines) + "\n"


@pytest.fixture
def draw_overrides(outcome, fuzz, tmp_path):
    """Runs so many drawn command lines."""
    (tmp_path / "people.csv").write_text(_people())
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/mine.yaml").write_text(HEAD + TASK)

    def run(arguments):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return outcome("--config-dir", "conf", "task=mine", *arguments, "trainer.max_steps=2")

    return lambda examples: fuzz(overrides(), examples, run)


def test_no_override_gives_a_traceback(draw_overrides):
    assert draw_overrides(60) >= {0, 2}


@pytest.mark.slow
def test_no_override_of_thousands_gives_a_traceback(draw_overrides):
    assert draw_overrides(2000) >= {0, 2}
