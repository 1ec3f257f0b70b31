"""The command line in this process: its exit code and what it printed, with nothing left over for the next test."""

import json
import logging
import random
import signal
import sys
from typing import NamedTuple

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from worlds import BASE, BASE_TRAIN, BASE_VAL, base_table

from mtl_cli.cli import run_command


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _globals():
    loggers = [logging.getLogger(name) for name in (None, "mtl_cli", "hydra")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate, logger.disabled) for logger in loggers]
    hydra, context, tf32 = (
        GlobalHydra.instance().hydra,
        HydraConfig.instance().cfg,
        torch.get_float32_matmul_precision(),
    )
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    argv, path, modules = sys.argv, sys.path[:], set(sys.modules)
    yield
    for logger, held, level, propagate, disabled in before:
        logger.handlers[:], logger.level, logger.propagate, logger.disabled = held, level, propagate, disabled
    for name in list(logging.root.manager.loggerDict):  # some versions of Hydra switch off every logger there is
        if name.startswith("mtl_cli."):
            logging.getLogger(name).disabled = False
    GlobalHydra.instance().hydra = hydra
    HydraConfig.instance().cfg = context
    torch.set_float32_matmul_precision(tf32)
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled(), warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.argv, sys.path[:] = argv, path
    for name in set(sys.modules) - modules:
        if name.split(".")[0] == "my_plugins":
            del sys.modules[name]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(*arguments):
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def write(tmp_path):
    """Writes files below the working folder: ``write({"conf/task/mine.yaml": text})``."""

    def write_all(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")

    return write_all


@pytest.fixture
def base(write):
    """Writes the two files of BASE, with other values in some columns, and a task file: ``task=base``."""

    def write_base(text=BASE, val=None, **columns):
        extra = {name: [""] * 4 for name in columns if name not in ("ya", "yb")} | (val or {})
        files = {"train.csv": base_table(BASE_TRAIN, **columns), "val.csv": base_table(BASE_VAL, **extra)}
        write({**files, "conf/task/base.yaml": text})

    return write_base


CUSTOMERS = """\
# @package _global_
data:
  source: table
  path: customers.csv
  id: customer
  missing: ["", "?"]
  batch_size: 16
shared_dim: 16
encoder: {hidden: [16]}
tasks:
  churned: {kind: binary}
  income: {kind: regression, target: income_eur, transform: log1p}
  segment: {kind: multiclass, weight: 0.5}
  size: {kind: ordinal, classes: [S, M, L]}
trainer: {max_epochs: 2}
"""


@pytest.fixture
def customers(write):
    """A table with holes everywhere and a task file for it: ``--config-dir conf task=customers``."""
    draw = random.Random(0)
    lines = ["customer,age,city,visits,churned,income_eur,segment,size"]
    for i in range(120):
        age, visits = draw.randint(18, 80), draw.randint(0, 9)
        cells = [age, draw.choice("abc"), visits, "no" if visits > 4 else "yes", 900 + 20 * age]
        cells += ["ABC"[visits % 3], "SML"[age // 27 - (age > 80)]]
        holes = [draw.choice(["", "?"]) if draw.random() < 0.15 else str(cell) for cell in cells]
        lines.append(",".join([f"c{i:03}", *holes]))
    files = {"customers.csv": "\n".join(lines) + "\n", "conf/task/customers.yaml": CUSTOMERS}
    write(files)
    return files


@pytest.fixture
def records():
    """The lines of a run's metrics.jsonl, of one split if it is named."""

    def read(run, split=None):
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if split in (None, line["split"])]

    return read
