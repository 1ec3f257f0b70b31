"""Runs that are killed by SIGKILL and go on, and what must be the same as in a run that nobody killed."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import polars as pl

from mtl_cli.run.checkpoint import checksum, load
from mtl_cli.trained import load_run

TASK = """\
# @package _global_
data:
  sources:
    shop: {source: table, path: shop.csv}
    street: {source: table, path: street.csv}
  id: id
  batch_size: 8
shared_dim: 8
encoder: {hidden: [8]}
tasks:
  spend: {kind: regression}
  stays: {kind: binary}
  segment: {kind: multiclass, source: shop}
trainer: {max_epochs: 3, device: cpu, threads: 1}
hydra: {run: {dir: run}}
"""


#: The small task with the rows of the first source alone, which stay in a Parquet file of nine row groups.
STREAMED = [
    "data.sources=null", "+data.source=table", "+data.path=shop.parquet", "tasks.segment.source=null",
    "data.in_memory=false", "data.shuffle_buffer=9", "data.batch_size=4",
]  # fmt: skip


class Killed(NamedTuple):
    """How a process ended: exit code (negative: by that signal), seconds, and what it did to files."""

    code: int
    seconds: float
    events: list[str]


class Zygote:
    """Runs command lines as processes of their own; see zygote.py."""

    def __init__(self):
        one = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**environment, **one},
        )  # fmt: skip
        assert self._answer() == {"ready": True}

    def run(self, folder, arguments, **kill):
        """Runs ``mtl-train arguments`` in a folder; ``kill``: seconds, or event and half."""
        self._process.stdin.write(json.dumps({"folder": str(folder), "arguments": list(arguments), **kill}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        unnamed = [re.sub(r"\.([\w.]+)\.\d+-[0-9a-f]{8}\.mtl-tmp$", r"\1 (temporary)", e) for e in answer["events"]]
        return Killed(answer["code"], answer["seconds"], unnamed)

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=20)

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, "the zygote is gone"
        return json.loads(line)


def write_small_task(folder, rows=36):
    """Two sources with holes and a task file for them: ``--config-dir conf task=small``."""
    draw = random.Random(0)
    for name, seen in (("shop", rows), ("street", rows // 2)):
        lines = ["id,age,visits,city,spend,stays" + (",segment" if name == "shop" else "")]
        for i in range(seen):
            age, visits = draw.randint(18, 80), draw.randint(0, 9)
            cells = [f"{name}{i}", age, visits, draw.choice("abc"), age * 3 + visits, int(visits > 4)]
            cells += ["xyz"[i % 3]] if name == "shop" else []
            holed = [cells[0], *("" if draw.random() < 0.05 else cell for cell in cells[1:])]
            lines.append(",".join(map(str, holed)))
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        cells = pl.read_csv(folder / f"{name}.csv", infer_schema=False)
        cells.write_parquet(folder / f"{name}.parquet", row_group_size=4)
    (folder / "conf/task").mkdir(parents=True)
    (folder / "conf/task/small.yaml").write_text(TASK)


class World:
    """A command line, what it leaves when nobody stops it, and the same with kills.

    Args:
        zygote: What runs it.
        folder: An empty folder.
        arguments: Overrides of the small task.
        finished: Overrides of a run that came to its end before, in the same folder.
    """

    def __init__(self, zygote, folder, arguments, finished=None):
        self.line = self._line(arguments)
        self._finished = None if finished is None else self._line(finished)
        self._zygote, self._here = zygote, folder / "here"
        self._new()
        self.ended = zygote.run(self._here, self.line)
        assert self.ended.code == 0, (self._here / "err.txt").read_text()
        self.unbroken = self._here.rename(folder / "unbroken")
        assert_finished(self.unbroken / "run")
        self._predictions = predictions(self.unbroken)

    @property
    def events(self):
        """What the run that nobody stopped did to files."""
        return self.ended.events

    def kill_and_compare(self, kills):
        """Kills a new run in each of these ways in turn, then lets it end; returns how many took effect."""
        folder, took_effect = self._new(), 0
        for kill in kills:
            ended = self._zygote.run(folder, self.line, **kill)
            if ended.code == 0:
                break
            self._assert_quiet(folder, ended, kills, -signal.SIGKILL)
            took_effect += 1
        ended = self._zygote.run(folder, self.line)
        self._assert_quiet(folder, ended, kills, 0)
        assert_finished(folder / "run")
        assert_same(folder / "run", self.unbroken / "run", kills)
        assert predictions(folder) == self._predictions, kills
        return took_effect

    def _new(self):
        """Always the same folder: its name stands in data.json."""
        shutil.rmtree(self._here, ignore_errors=True)
        self._here.mkdir()
        write_small_task(self._here)
        if self._finished:
            self._assert_quiet(self._here, self._zygote.run(self._here, self._finished), self._finished, 0)
        return self._here

    @staticmethod
    def _line(arguments):
        return ["--config-dir", "conf", "task=small", *arguments, "resume=auto"]

    @staticmethod
    def _assert_quiet(folder, ended, kills, code):
        errors = (folder / "err.txt").read_text()
        assert (ended.code, errors) == (code, ""), (kills, (folder / "out.txt").read_text())


def assert_finished(run):
    """A run that is done, with nothing left over of anything."""
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert {path.name for path in run.rglob(".*")} == set()
    for line in (run / "metrics.jsonl").read_bytes().splitlines():
        json.loads(line)


def assert_same(run, unbroken, why=None):
    """All files of two runs, bit for bit; times, process numbers and the log aside."""
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names == {path.relative_to(unbroken).as_posix() for path in unbroken.rglob("*") if path.is_file()}, why
    for name in sorted(names - {"train.log", "status.json"}):
        one, other = run / name, unbroken / name
        if name == "summary.json":
            assert _without_times(one) == _without_times(other), why
        elif name.endswith(".pt"):
            states = [load(path) for path in (one, other)]
            for state in states:  # weights, optimizer, balancing, generators, position: all but the time it took
                state["progress"] = {**state["progress"], "seconds": 0.0}
            assert [key for key in states[1] if checksum(states[0][key]) != checksum(states[1][key])] == [], (name, why)
        else:
            assert one.read_bytes() == other.read_bytes(), (name, why)


def predictions(folder):
    """What a run predicts for all rows that it was trained on, as CSV: every digit of every number."""
    run, config = load_run(folder / "run"), (folder / "run/config.yaml").read_text()
    sources = ("shop", "street") if "street.csv" in config else (None,)  # one of STREAMED has the shop's rows alone
    return [run.predict(folder / f"{source or 'shop'}.csv", source=source).write_csv() for source in sources]


def _without_times(path):
    summary = json.loads(path.read_text())
    summary["data_files"] = {name: size for name, (size, _) in summary["data_files"].items()}
    return {key: summary[key] for key in summary.keys() - {"seconds", "train_seconds", "rows_per_second"}}
