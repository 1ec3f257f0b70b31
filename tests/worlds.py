"""Small worlds that tests share: columns, rows of labels, and a learner without a configuration file."""

import gc
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from mtl_cli.balancing.scale import InitialScale
from mtl_cli.data.batches import Origins, Rows
from mtl_cli.data.mixing import Mixing
from mtl_cli.loop import Learner, Objective
from mtl_cli.loop.monitor import Best, EarlyStopping, Monitor, Scores
from mtl_cli.loop.progress import Limits
from mtl_cli.loop.schedule import Schedule
from mtl_cli.loop.trainer import Trainer
from mtl_cli.model import MultiTaskModel
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.ownership import by_rows
from mtl_cli.optim import FlatParameters
from mtl_cli.registry import BALANCINGS, ENCODERS, OPTIMIZERS, SCHEDULERS, SHARINGS
from mtl_cli.run import MetricsLog, RunFolder
from mtl_cli.run.checkpoint import load
from mtl_cli.tasks import Task
from mtl_cli.tasks.binary import Binary
from mtl_cli.tasks.multiclass import Multiclass
from mtl_cli.tasks.regression import Regression
from mtl_cli.types import Block, Column, Inputs, InputSpec, Labels, Links, Ragged

BASE_TRAIN = [  # id, x1, x2, x3, x4, ya, yb
    (1, 0.1, 0.2, 0.3, 0.4, 1.0, 0), (2, 0.5, 0.1, 0.0, 0.2, 2.0, 1), (3, 0.9, 0.8, 0.7, 0.1, 3.0, 2),
    (4, 0.3, 0.3, 0.2, 0.9, 1.5, 0), (5, 0.7, 0.4, 0.1, 0.6, 2.5, 1), (6, 0.2, 0.9, 0.5, 0.3, 0.5, 2),
    (7, 0.6, 0.6, 0.6, 0.6, 1.2, 0), (8, 0.8, 0.0, 0.4, 0.5, 2.2, 1),
]  # fmt: skip
BASE_VAL = [
    (101, 0.4, 0.2, 0.1, 0.8, 1.1, 0), (102, 0.1, 0.7, 0.9, 0.2, 2.1, 1), (103, 0.5, 0.5, 0.3, 0.1, 2.9, 2),
    (104, 0.2, 0.1, 0.8, 0.7, 1.4, 0),
]  # fmt: skip
BASE = """\
# @package _global_
input_dim: 4
shared_dim: 8
data: {source: table, train: train.csv, val: val.csv, id: id, inputs: [x1, x2, x3, x4], missing: [""], batch_size: 4}
optimizer: {lr: 0.01}
tasks:
  a: {kind: regression, target: ya}
  b: {kind: multiclass, target: yb, num_classes: 3}
trainer: {max_epochs: 2}
seed: 0
"""

CPU = torch.device("cpu")
NAN = float("nan")


def column(values, name="y", dtype=None):
    """A column of people.csv; rows are counted from 1 in messages."""
    return Column(name, pl.Series(name, values, dtype), lambda row: f"people.csv, column '{name}', row {row + 1}")


def every_row(values):
    """Indices of all rows."""
    return np.arange(len(values))


def inputs(numeric):
    """Inputs without categories."""
    return Inputs(numeric, torch.empty(len(numeric), 0, dtype=torch.int64))


def make_labels(targets, shares=None):
    """Labels from arrays (N, T) and (N, K)."""
    arrays = [None if own is None else np.ascontiguousarray(own, dtype=np.float32) for own in (targets, shares)]
    return Labels(*(None if own is None else torch.from_numpy(own) for own in arrays))


def make_rows(inputs, targets, *, shares=None, device=CPU, **options):
    """Rows from inputs and the arrays of their labels."""
    return Rows(inputs, make_labels(targets, shares), device, **options)


def three_kinds():
    """Kinds of a number, yes/no and one of three classes, ready for encoded labels."""
    return [Regression(), Binary(classes=["no", "yes"]), Multiclass(classes=["a", "b", "c"])]


def three_kind_rows(n=32, width=5, missing=0.0, seed=0):
    """Rows whose labels for ``three_kinds`` are functions of the inputs; a share of the labels is missing."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, width)).astype(np.float32)
    score = x @ generator.normal(size=(width, 2))
    targets = np.stack([score[:, 0], score[:, 1] > 0, np.digitize(score[:, 0], [-1.0, 1.0])], 1).astype(np.float32)
    targets[generator.random(targets.shape) < missing] = np.nan
    return make_rows(inputs(torch.from_numpy(x)), targets)


def two_source_rows(small=12, large=36, seed=0):
    """Rows of two sources: ``small`` has no label for the first of the three kinds, ``large`` none for the second."""
    rows = three_kind_rows(small + large, seed=seed)
    codes = np.random.default_rng(seed).permutation(np.repeat([0, 1], [small, large]))
    targets = rows.labels.targets.numpy().copy()
    targets[codes == 0, 0] = targets[codes == 1, 1] = np.nan
    return make_rows(rows.inputs, targets, origins=Origins(("small", "large"), codes))


def make_learner(
    kinds,
    *,
    input_dim=5,
    shared_dim=8,
    categories=(),
    sharing="hard",
    balancing="equal",
    optimizer="adamw",
    scheduler="constant",
    encoder=None,
    encoder_name="mlp",
    spec=None,
    device=CPU,
    sharing_options=None,
    balancing_options=None,
    optimizer_options=None,
    total_steps=100,
    seed=0,
    loss_scale="none",
    freeze=(),
    hidden=None,
    **learner_options,
):
    """A learner from registered names, put together as mtl_cli.build does it; ``encoder`` are options of one."""
    torch.manual_seed(seed)
    spec, names = spec or InputSpec(input_dim, categories), [f"task{i}" for i in range(len(kinds))]
    make_encoder = EncoderMaker(partial(ENCODERS.load(encoder_name), **(encoder or {})), spec, shared_dim)
    model = MultiTaskModel(
        input_dim,
        [k.num_outputs for k in kinds],
        shared_dim,
        sharing=SHARINGS.build(sharing, make_encoder, names, **(sharing_options or {})),
        hidden=hidden,
    ).to(device)
    method = BALANCINGS.build(balancing, len(kinds), **(balancing_options or {})).to(device)
    options = optimizer_options or {}
    model.freeze(freeze)
    parameters = FlatParameters(model.trained())
    optimizers = [OPTIMIZERS.build(optimizer, parameters, **options)]
    if any(True for _ in method.parameters()):
        own = FlatParameters(by_rows(method.parameters(), len(kinds)))
        optimizers.append(OPTIMIZERS.build(optimizer, own, **{**options, "weight_decay": 0.0}))
    schedule = SCHEDULERS.build(scheduler, total_steps)
    scale = InitialScale(len(kinds)).to(device) if loss_scale == "initial" else None
    return Learner(
        model, Objective(kinds, device), method, parameters, optimizers, schedule, loss_scale=scale, **learner_options
    )


class ValidationLosses:
    """Passes of a method that give validation losses; by all the others nothing moves."""

    lr, step = 0.1, 0

    def __init__(self, losses):
        self.given, self.parameters = losses, losses.new_zeros(1)

    def validation_losses(self):
        return self.given

    def losses(self):
        return torch.zeros_like(self.given)

    def gradient(self, _):
        return torch.zeros_like(self.parameters)

    validation_gradient = gradient


def settle(method, tasks, device=CPU):
    """Shows a method two epochs and two batches of validation rows, with other losses of each task.

    One that waits for them then works with what it has seen of a task. ``tasks`` are numbers: of a method for tasks 0
    and 2 alone, [0, 2].
    """
    first = torch.tensor([1.0 + task for task in tasks], device=device)
    for losses in (first, first * torch.tensor([0.5 + 0.2 * task for task in tasks], device=device)):
        if method.extra_passes:
            method.before_step(ValidationLosses(losses), torch.arange(len(tasks), device=device))
        method.after_epoch({f"task{task}": loss for task, loss in zip(tasks, losses.tolist(), strict=True)})
    return method


def make_settled_learner(kinds, *, tasks=None, balancing="equal", balancing_options=None, device=CPU, **options):
    """A learner whose method works with what it has seen of the tasks; ``tasks`` are their numbers (``settle``)."""
    chosen = AT_ONCE.get(balancing, {}) | (balancing_options or {})
    learner = make_learner(kinds, balancing=balancing, balancing_options=chosen, device=device, **options)
    settle(learner.balancing, tasks or range(len(kinds)), device)
    return learner


def make_tasks(learner, weights=None):
    """The learner's tasks with names task0, task1, ..."""
    kinds = learner.objective.kinds
    return [Task(f"task{i}", kind, (weights or [1.0] * len(kinds))[i]) for i, kind in enumerate(kinds)]


def make_trainer(
    folder,
    learner,
    rows,
    *,
    val=None,
    epochs=2,
    steps=None,
    batch_size=8,
    monitor="val/loss",
    keep=1,
    patience=None,
    weights=None,
    interrupted=lambda: None,
    save_every_steps=None,
    evaluate_every=1,
    seed=0,
    mixing=Mixing(),  # noqa: B008  frozen
    skip_nonfinite=False,
    diagnostics_every=0,
    clock=time.monotonic,
):
    """A trainer with names task0, task1, ... in a claimed run folder."""
    watched = Monitor(monitor, monitor in ("mean", "worst"))
    return Trainer(
        learner, make_tasks(learner, weights), rows, rows if val is None else val, folder,
        Limits(epochs, steps, None),
        Schedule(
            batch_size, True, False, seed, evaluate_every, save_every_steps, mixing, skip_nonfinite, diagnostics_every
        ),
        Scores(Best(watched, keep), EarlyStopping(watched, patience, 0.0)), interrupted=interrupted, clock=clock,
    )  # fmt: skip


def encoder_world(reads, rows=5, seed=0):
    """A spec with numbers in bins, two linked categories and a block of the type that an encoder reads; rows."""
    draw = torch.Generator().manual_seed(seed)
    numeric = torch.randn(rows, 2, generator=draw)
    codes = torch.randint(3, (rows, 2), generator=draw)
    blocks, values = (), {}
    if reads == "image":
        blocks = (Block("photo", "image", (9, 8, 2), mean=(100.0, 90.0), std=(70.0, 60.0)),)
        values["photo"] = torch.randint(256, (rows, 9, 8, 2), generator=draw, dtype=torch.uint8)
    lengths = (torch.arange(rows) * 3 + 2) % 5  # none among them
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    if reads == "text":
        blocks = (Block("review", "text", (), 20), Block("title", "text", (), 30))
        for block in blocks:
            values[block.name] = Ragged(
                torch.randint(20, (int(starts[-1]),), generator=draw, dtype=torch.int32), starts
            )
    if reads == "tokens":
        blocks = (Block("forms", "tokens", (3,), 20),)
        values["forms"] = Ragged(torch.randint(20, (int(starts[-1]), 3), generator=draw, dtype=torch.int32), starts)
    links = Links((0, 1), np.array([[1, 1, 2], [1, 3, 3]]))
    edges = ((0, (-1.5, -0.2, 0.3, 2.0)), (1, (-1.0, 0.5, 1.0)))
    return InputSpec(2, (3, 4), edges, blocks, links=(links,)), Inputs(numeric, codes, values)


# Options that make small encoders without dropout, with more than one stage where they can have several.
SMALL_ENCODERS = {
    "conv": {"widths": [4, 2]},
    "mlp": {"hidden": [6]},
    "sequence": {"dim": 6, "reach": [1, 2], "dropout": 0.0, "feature_dropout": 0.0},
    "tabular": {"dim": 3, "frequencies": 2, "hidden": [6], "dropout": 0.0},
    "text": {"dim": 6, "hidden": [8], "dropout": 0.0, "feature_dropout": 0.0},
}
# Options with which they draw in every step.
DROPOUT = {
    "conv": {"dropout": 0.3, "shift": 1, "rotate": 10.0, "zoom": 0.1},
    "mlp": {"dropout": 0.3},
    "sequence": {"dropout": 0.3, "feature_dropout": 0.2},
    "tabular": {"dropout": 0.3},
    "text": {"dropout": 0.3, "feature_dropout": 0.2},
}
# Options of methods that weigh all tasks alike until they have seen some epochs or validation losses, and need but two.
AT_ONCE = {"coba": {"warmup": 2, "history": 4}, "stch": {"warmup_epochs": 1}}
# Architectures that cannot work with an encoder, and say so.
REFUSED_PAIRS = {("esmm", "fm"), ("esmm", "graph")} | {
    ("stem", name) for name in ("conv", "fm", "graph", "sequence", "text")
}


def base_table(rows, **columns):
    """A CSV file of ``BASE``, with other values in some columns or further ones."""
    names = ["id", "x1", "x2", "x3", "x4", "ya", "yb"]
    values = {name: [row[i] for row in rows] for i, name in enumerate(names)} | columns
    lines = zip(*values.values(), strict=True)
    return "\n".join([",".join(values), *(",".join(map(str, line)) for line in lines)]) + "\n"


def state_of(run, name="last"):
    """The state in a run's checkpoint, without the time that it took."""
    state = load(run / f"checkpoints/{name}.pt")
    state["progress"].pop("seconds")
    return state


def same_state(a, b):
    """Whether two states hold the same values, to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_state, a, b))
    return a == b


HOSTILE = "<script>alert('x')</script>"


def write_run(path, sharing="hard", seed=0, accuracy=0.9, task="digit", state="done", tasks=None):
    """The files of a run, as training leaves them, with made-up numbers of one task; ``tasks`` are all of them."""
    helper = {"helper": {"auxiliary": True}}  # that the task was trained with
    config = {"sharing": {"name": sharing}, "seed": seed, "extra": HOSTILE, "tasks": helper}
    with RunFolder.claim(path) as folder:
        folder.write_config(json.dumps(config), [f"sharing={sharing}"])
        folder.set_status(state)
        log = MetricsLog(path / "metrics.jsonl")
        for epoch in (1, 2, 3):
            log.append(
                {"split": "train", "epoch": epoch, f"train/{task}/loss": 1 / epoch, f"train/{task}/weight": epoch}
            )
            val = {f"val/{task}/loss": 1.1 / epoch, f"val/{task}/accuracy": accuracy, "val/mean": accuracy}
            log.append({"split": "val", "epoch": epoch, **val})
        if state == "done":
            folder.write_json(
                "summary.json",
                {
                    "tasks": tasks or [task], "monitor": "mean", "mode": "max",
                    "best": {"epoch": 3, "step": 9, "score": accuracy},
                    "metrics": {f"test/{task}/accuracy": accuracy, f"test/{task}/loss": 0.4, "test/mean": accuracy},
                    "primary": {task: "accuracy"}, "higher_is_better": {task: True}, "seconds": 1.5, "epochs": 3,
                    "steps": 9, "rows_per_second": 1234.5, "rows": {"train": 100, "val": 10, "test": 10},
                    "parameters": {"total": 30, "shared": 20, "tasks": {task: 10}}, "data_fingerprint": "x",
                    "device": "cpu", "threads": 2,
                },
            )  # fmt: skip


def held_bytes():
    """Bytes of all tensors and arrays that something in this process holds, but for what torch.export traced with."""
    gc.collect()
    held = {id(value): value for owner in gc.get_objects() for value in gc.get_referents(owner)}
    return sum(value.nbytes for value in held.values() if type(value) in (torch.Tensor, torch.nn.Parameter, np.ndarray))


def wait_for_lines(process, file, count, seconds=60):
    """Waits until a process has written so many lines of a file."""
    end = time.monotonic() + seconds
    while not file.exists() or file.read_text().count("\n") < count:
        assert process.poll() is None, "ended too soon"
        assert time.monotonic() < end
        time.sleep(0.002)


def _free_port():
    """One that is free until it is taken: none of those from 32768 on, which the system gives to whoever asks."""
    for port in range(20_000 + os.getpid() % 10_000, 32_768):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port below 32768 is free")


def start_pair(command, folder, **options):
    """Two processes of one run, as torchrun would start them; they print to out0.txt, err0.txt, out1.txt, err1.txt."""
    own = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    own["PYTHONPATH"] = str(Path(__file__).parents[1])
    pair = []
    for rank in map(str, range(2)):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **own, "RANK": rank, "LOCAL_RANK": rank}
        with (folder / f"out{rank}.txt").open("w") as out, (folder / f"err{rank}.txt").open("w") as err:
            pair.append(start(command, cwd=folder, stdout=out, stderr=err, env=environment, **options))
    return pair


def start(command, **options):
    """A process that hears Ctrl-C: a shell's background job is born deaf to it, and so would be its children."""
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, preexec_fn=hears, **options)
