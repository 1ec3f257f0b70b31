"""Speed of the product's own loop, as ratios to hand-written PyTorch loops in the same process.

    make bench                        all workloads
    python tests/benchmarks/bench.py w1 start
    python tests/benchmarks/bench.py w1 w3 w4 w6 --device cuda
    LIBMTL=FOLDER python tests/benchmarks/bench.py w4    against LibMTL too; the folder is a clone of its repository

Every contender trains the same model (one Linear + ReLU encoder, one linear head per task) with the same loss,
optimizer, batch size and a new order of rows each epoch, in float32. Rounds are interleaved and their order is
reversed every other round, so that a drifting machine hits all alike; the ratio is the median of the rounds' ratios.
The product writes its line of metrics after an epoch, but no checkpoint: no other loop waits for the disk. The losses
after the last round are printed: contenders that do the same work agree to about 1 %. All contenders of a workload have
the same number of CPU threads: as many as ``trainer.threads=auto`` chooses for it, or ``--threads``.
"""

# ruff: noqa: E402  # how threads wait is said before torch is loaded

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

from mtl_cli.threads import wait_briefly

wait_briefly()  # as the commands do, for all contenders

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mtl_cli.loop.trainer import Interrupted
from mtl_cli.run import RunFolder
from mtl_cli.schema import validate

ROUNDS = 5
SWEEP_ROUNDS = 2  # of a minute each
WIDTH, SHARED, EXPERT = 128, 256, 128
# Each task: name, kind, number of outputs. 200,704 = 784 * 256 = 49 * 4096 rows: no partial batch.
MIXED = [("r0", "regression", 1), ("r1", "regression", 1), ("b0", "binary", 1), ("c0", "multiclass", 10)]
FIFTY = [(f"r{i}", "regression", 1) for i in range(50)]
WORKLOADS = {
    "w1": (200_704, 256, MIXED, {"DataLoader": 5.0, "slicing": 2.0}),
    "w1b": (200_704, 4096, MIXED, {"DataLoader": 16.0}),
    "w2": (51_200, 256, FIFTY, {"DataLoader, packed targets": 8.0, "slicing": 8.0}),
    "w3": (25_600, 256, MIXED, {"DataLoader": 3.5, "slicing": 2.5}),
}
EXPERTS = {"w3": 8}  # a mixture of so many experts, each 128 wide, instead of one shared encoder
Tasks = list[tuple[str, str, int]]


def make_data(rows: int, tasks: Tasks) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Inputs (rows, 128) and learnable targets, from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, WIDTH, generator=generator)
    targets = {}
    for name, kind, outputs in tasks:
        signal = torch.tanh(x @ torch.randn(WIDTH, outputs, generator=generator) / WIDTH**0.5)
        signal += 0.1 * torch.randn(signal.shape, generator=generator)
        targets[name] = {
            "regression": lambda s: (s[:, 0] - s[:, 0].mean()) / s[:, 0].std(),  # as the product standardises targets
            "binary": lambda s: (s[:, 0] > 0).float(),
            "multiclass": lambda s: s.argmax(1),
        }[kind](signal)
    return x, targets


class Plain(nn.Module):
    """The model as a tutorial writes it."""

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH, SHARED), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(SHARED, outputs) for name, _, outputs in tasks})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.encoder(x)
        return {name: head(features) for name, head in self.heads.items()}


class PlainMixture(nn.Module):
    """A multi-gate mixture of experts as a tutorial writes it: a loop over experts, a loop over tasks."""

    def __init__(self, tasks: Tasks, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, EXPERT), nn.ReLU()) for _ in range(experts))
        self.gates = nn.ModuleDict({name: nn.Linear(WIDTH, experts) for name, *_ in tasks})
        self.heads = nn.ModuleDict({name: nn.Linear(EXPERT, outputs) for name, _, outputs in tasks})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.stack([expert(x) for expert in self.experts], 1)
        mixed = {name: (gate(x).softmax(1).unsqueeze(2) * features).sum(1) for name, gate in self.gates.items()}
        return {name: head(mixed[name]) for name, head in self.heads.items()}


def plain_loss(tasks: Tasks, outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(())
    for name, kind, _ in tasks:
        output, target = outputs[name], targets[name]
        if kind == "regression":
            total = total + functional.mse_loss(output.squeeze(1), target)
        elif kind == "binary":
            total = total + functional.binary_cross_entropy_with_logits(output.squeeze(1), target)
        else:
            total = total + functional.cross_entropy(output, target)
    return total


class Loop:
    """A hand-written loop; ``batches`` gives inputs and targets."""

    def __init__(self, tasks: Tasks, experts: int, batches: Callable[[], object], device: str) -> None:
        torch.manual_seed(0)
        self.tasks, self.batches = tasks, batches
        self.model = (PlainMixture(tasks, experts) if experts else Plain(tasks)).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.last = 0.0

    def epoch(self) -> None:
        total, steps = torch.zeros(()), 0
        for x, targets in self.batches():
            self.optimizer.zero_grad()
            loss = plain_loss(self.tasks, self.model(x), targets)
            loss.backward()
            self.optimizer.step()
            total, steps = total + loss.detach(), steps + 1
        self.last = float(total) / steps


Targets = dict[str, torch.Tensor]


def loader_loop(x: torch.Tensor, targets: Targets, tasks: Tasks, batch: int, experts: int, device: str) -> Loop:
    names = [name for name, *_ in tasks]
    loader = DataLoader(TensorDataset(x, *targets.values()), batch_size=batch, shuffle=True)

    def batches() -> Iterator[tuple[torch.Tensor, Targets]]:
        for rows, *labels in loader:
            yield rows.to(device), {name: own.to(device) for name, own in zip(names, labels, strict=True)}

    return Loop(tasks, experts, batches, device)


def packed_loop(x: torch.Tensor, targets: Targets, tasks: Tasks, batch: int, experts: int, device: str) -> Loop:
    names = [name for name, *_ in tasks]
    loader = DataLoader(TensorDataset(x, torch.stack(list(targets.values()), 1)), batch_size=batch, shuffle=True)

    def batches() -> Iterator[tuple[torch.Tensor, Targets]]:
        for rows, labels in loader:
            yield rows.to(device), dict(zip(names, labels.to(device).unbind(1), strict=True))

    return Loop(tasks, experts, batches, device)


def slicing_loop(x: torch.Tensor, targets: Targets, tasks: Tasks, batch: int, experts: int, device: str) -> Loop:
    x, targets = x.to(device), {name: target.to(device) for name, target in targets.items()}

    def batches() -> Iterator[tuple[torch.Tensor, Targets]]:
        order = torch.randperm(len(x), device=device)
        for start in range(0, len(x), batch):
            index = order[start : start + batch]
            yield x[index], {name: target[index] for name, target in targets.items()}

    return Loop(tasks, experts, batches, device)


class TorchJDLoop(Loop):
    """The loop of TorchJD's documentation: ``mtl_backward`` on common features, then the aggregator."""

    def __init__(
        self, tasks: Tasks, batches: Callable[[], object], device: str, aggregator: str, **options: object
    ) -> None:
        from torchjd import aggregation

        super().__init__(tasks, 0, batches, device)
        self.aggregator = getattr(aggregation, aggregator)(**options)

    def epoch(self) -> None:
        from torchjd.autojac import jac_to_grad, mtl_backward

        total, steps = torch.zeros(()), 0
        for x, targets in self.batches():
            self.optimizer.zero_grad()
            features = self.model.encoder(x)
            losses = [
                plain_loss([task], {task[0]: self.model.heads[task[0]](features)}, targets) for task in self.tasks
            ]
            mtl_backward(losses, features=features)
            jac_to_grad(self.model.encoder.parameters(), self.aggregator)
            self.optimizer.step()
            total, steps = total + sum(loss.detach() for loss in losses), steps + 1
        self.last = float(total) / steps


class LibMTLLoop:
    """LibMTL's own trainer on a CPU (it asks for a GPU), without metrics; ``LIBMTL`` names the folder of its package.

    Its release on the package index runs with no torch of today, the one in its repository does.
    """

    def __init__(self, tasks: Tasks, batches: Callable[[], object], steps: int, weighting: str) -> None:
        from LibMTL.loss import AbsLoss
        from LibMTL.trainer import Trainer

        class Loss(AbsLoss):
            def __init__(self, task: tuple[str, str, int]) -> None:
                super().__init__()
                self.task = task

            def compute_loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
                name = self.task[0]
                return plain_loss([self.task], {name: prediction}, {name: target})

        class OnCPU(Trainer):
            def _prepare_model(self, *arguments: object) -> None:
                self.device = torch.device("cpu")
                super()._prepare_model(*arguments)

        class Encoder(nn.Sequential):
            def __init__(self) -> None:
                super().__init__(nn.Linear(WIDTH, SHARED), nn.ReLU())

        torch.manual_seed(0)
        none = SimpleNamespace(update_fun=lambda *_: None, score_fun=lambda: [0.0], reinit=lambda: None)
        given = {
            name: {"metrics": ["none"], "metrics_fn": none, "loss_fn": Loss((name, kind, width)), "weight": [1]}
            for name, kind, width in tasks
        }
        heads = nn.ModuleDict({name: nn.Linear(SHARED, width) for name, _, width in tasks})
        self.batches, self.steps = batches, steps
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer = OnCPU(
                given, weighting, "HPS", Encoder, heads, False, False, {"optim": "adam", "lr": 1e-3}, None,
                weight_args=LIBMTL_OPTIONS.get(weighting, {}), arch_args={},
            )  # fmt: skip
        self.trainer.optimizer = torch.optim.AdamW(self.trainer.model.parameters(), lr=1e-3)  # not one of its choices
        self.last = 0.0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[object]:
        return iter(self.batches())

    def epoch(self) -> None:
        test = list(itertools.islice(self.batches(), 1))  # one batch: it has to be given some
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer.train(self, test, 1)
        self.last = float(self.trainer.model.train_loss_buffer.sum())


def find_libmtl() -> bool:
    """Whether LibMTL can be imported: without its models of images and graphs, which need packages of their own."""
    sys.path.append(os.environ.get("LIBMTL", ""))
    for name in ("LibMTL.model", "torch_geometric"):
        sys.modules[name] = ModuleType(name)
    try:
        import LibMTL  # noqa: F401
    except ImportError:
        return False
    return True


class Product:
    """The product's own loop: from a configuration and a Parquet file through the trainer, evaluation off."""

    def __init__(
        self,
        x: torch.Tensor,
        targets: dict[str, torch.Tensor],
        tasks: Tasks,
        batch: int,
        experts: int,
        threads: int | str,
        device: str,
        balancing: str = "equal",
        sharing: str = "hard",
        shared: int = SHARED,
    ) -> None:
        import polars as pl

        from mtl_cli.job import set_up

        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        split = ["train"] * len(x)
        val = 256  # a few rows again as validation rows, which are never looked at here
        columns = {name: torch.cat([t, t[:val]]).numpy() for name, t in targets.items()}
        inputs = torch.cat([x, x[:val]]).numpy()
        block = {"x": pl.Array(pl.Float32, WIDTH)}
        frame = pl.DataFrame({"x": inputs, **columns, "split": split + ["val"] * val}, schema_overrides=block)
        frame.write_parquet(folder / "data.parquet")
        config = validate(
            {
                "data": {
                    "source": "table", "path": str(folder / "data.parquet"), "inputs": ["x"], "scale": "none",
                    "batch_size": batch, "split": {"column": "split"},
                },
                "shared_dim": EXPERT if experts else shared,
                "tasks": {name: {"kind": kind} for name, kind, _ in tasks},
                "encoder": {"name": "mlp"},
                "sharing": {"name": "mmoe", "experts": experts} if experts else {"name": sharing},
                "balancing": {"name": balancing},
                "optimizer": {"name": "adamw"}, "scheduler": {"name": "constant"},
                "trainer": {"max_epochs": 1_000_000, "check_val_every_n_epoch": 1_000_000, "threads": threads,
                            "device": device, "early_stopping": {"patience": None}},
            }
        )  # fmt: skip
        self._claimed = RunFolder.claim(folder / "run")
        self.trainer = set_up(config, self._claimed, self._after_epoch).trainer
        # Asked to stop after each epoch, as by a signal, it would save what the next epoch finds in memory anyway.
        self.trainer.checkpoints.save = lambda *_: None
        self.last = 0.0

    def _after_epoch(self) -> int | None:
        return 15 if self.trainer.progress.step_in_epoch == 0 else None

    def epoch(self) -> None:
        with contextlib.suppress(Interrupted):
            self.trainer.fit()
        self.last = self.trainer.metrics.read()[-1]["train/loss"]


def on(device: str) -> str:
    """Where it runs: the CPU threads are those of the product that was made last."""
    return f"{torch.get_num_threads()} thread(s)" if device == "cpu" else torch.cuda.get_device_name(device)


def run(workload: str, threads: int | str, device: str) -> None:
    rows, batch, tasks, bars = WORKLOADS[workload]
    experts = EXPERTS.get(workload, 0)
    x, targets = make_data(rows, tasks)
    contenders = {
        "product": Product(x, targets, tasks, batch, experts, threads, device),
        "slicing": slicing_loop(x, targets, tasks, batch, experts, device),
        "DataLoader": loader_loop(x, targets, tasks, batch, experts, device),
    }
    if any("packed" in name for name in bars):
        contenders["DataLoader, packed targets"] = packed_loop(x, targets, tasks, batch, experts, device)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.epoch()  # warm-up
    for turn in range(ROUNDS):
        for name in list(contenders) if turn % 2 == 0 else list(contenders)[::-1]:
            start = time.perf_counter()
            contenders[name].epoch()
            seconds[name].append(time.perf_counter() - start)
    width = EXPERT if experts else SHARED
    print(f"\n{workload}: {rows:,} x {WIDTH} rows, D {width}, {len(tasks)} tasks, batch {batch}, {on(device)}")
    for name in contenders:
        ratios = [other / own for other, own in zip(seconds[name], seconds["product"], strict=True)]
        speed = rows / statistics.median(seconds[name])
        reached = name in bars and statistics.median(ratios) >= bars[name]
        bar = f"  bar {bars[name]:g}x {'reached' if reached else 'MISSED'}" if name in bars else ""
        print(
            f"  {name:28} {speed:12,.0f} rows/s   product is {statistics.median(ratios):6.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f})   train loss {contenders[name].last:.4f}{bar}"
        )


# Ours: TorchJD's aggregator, its arguments, the bar with four tasks (rows/s over those of its loop); LibMTL's name.
BALANCING = {
    "equal": ("Sum", {}, 0.0, "EW"),
    "pcgrad": ("PCGrad", {}, 2.5, "PCGrad"),
    "mgda": ("MGDA", {}, 2.5, "MGDA"),
    "upgrad": ("UPGrad", {}, 2.5, "UPGrad"),
    "cagrad": ("CAGrad", {"c": 0.5}, 4.0, "CAGrad"),
    "nash_mtl": ("NashMTL", {"n_tasks": ...}, 15.0, "Nash_MTL"),
}
LIBMTL_OPTIONS = {  # the defaults of its command line
    "MGDA": {"mgda_gn": "none"},
    "UPGrad": {"UPGrad_norm_eps": 1e-4, "UPGrad_reg_eps": 1e-4},
    "CAGrad": {"calpha": 0.5, "rescale": 1},
    "Nash_MTL": {"update_weights_every": 1, "optim_niter": 20, "max_norm": 1.0},
}


def balance(threads: int | str, count: int, device: str) -> None:
    """Methods on gradients of ``count`` tasks against TorchJD's and LibMTL's own loops and against equal weights."""
    rows, batch = 12_800, 256
    tasks = [(f"{name}{i}", kind, outputs) for i, (name, kind, outputs) in zip(range(count), itertools.cycle(MIXED))]
    x, targets = make_data(rows, tasks)
    batches = loader_loop(x, targets, tasks, batch, 0, device).batches
    equal = Product(x, targets, tasks, batch, 0, threads, device, "equal")
    print(f"\nw4: {rows:,} x {WIDTH} rows, D {SHARED}, {count} tasks, batch {batch}, {on(device)}")
    libmtl = device == "cpu" and find_libmtl()
    if not libmtl:
        print("  (without LibMTL: the variable LIBMTL names no folder that holds it)")
    for name, (aggregator, options, bar, weighting) in BALANCING.items():
        options = {option: count if value is ... else value for option, value in options.items()}
        theirs = TorchJDLoop(tasks, batches, device, aggregator, **options)
        contenders = [Product(x, targets, tasks, batch, 0, threads, device, name), theirs, equal]
        contenders += [LibMTLLoop(tasks, batches, rows // batch, weighting)] if libmtl else []
        seconds: list[list[float]] = [[] for _ in contenders]
        for turn in range(ROUNDS + 1):
            for i in range(len(contenders))[:: 1 if turn % 2 else -1]:
                began = time.perf_counter()
                contenders[i].epoch()
                if turn:  # the first one warms up
                    seconds[i].append(time.perf_counter() - began)
        steps = [1e6 * statistics.median(each) / (rows / batch) for each in seconds]
        to_theirs, to_equal, *to_libmtl = (
            [other / ours for ours, other in zip(seconds[0], others, strict=True)] for others in seconds[1:]
        )
        ratio = statistics.median(to_theirs)
        verdict = f"  bar {bar:g}x {'reached' if ratio >= bar else 'MISSED'}"
        print(
            f"  {name:9}{steps[0]:6.0f} us/step, {1 / statistics.median(to_equal):4.2f}x of equal; "
            f"TorchJD {steps[1]:7.0f}: {ratio:6.2f}x ({min(to_theirs):.2f} to {max(to_theirs):.2f})"
            + "".join(f", LibMTL {steps[3]:7.0f}: {statistics.median(found):6.2f}x" for found in to_libmtl)
            + f", train loss {', '.join(f'{c.last:.4f}' for c in contenders if c is not equal)}"
            + (verdict if bar and count == len(MIXED) else "")
        )


def separate(threads: int | str, device: str) -> None:
    """Eight small models side by side (sharing=separate) against the same eight, each trained by a run of its own."""
    rows, batch, shared, bar = 12_800, 256, 64, 2.0
    tasks = [(f"r{i}", "regression", 1) for i in range(8)]
    x, targets = make_data(rows, tasks)
    options = {"threads": threads, "device": device, "shared": shared}
    together = Product(x, targets, tasks, batch, 0, sharing="separate", **options)
    alone = [Product(x, {task[0]: targets[task[0]]}, [task], batch, 0, **options) for task in tasks]
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 1):
        for i in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            for product in alone if i else [together]:
                product.epoch()
            if turn:  # the first one warms up
                seconds[i].append(time.perf_counter() - began)
    ratios = [apart / side for side, apart in zip(*seconds, strict=True)]
    print(
        f"\nseparate: {len(tasks)} models, {rows:,} x {WIDTH} rows, D {shared}, batch {batch}, {on(device)}: "
        f"side by side {statistics.median(seconds[0]):.3f} s/epoch, one after another "
        f"{statistics.median(seconds[1]):.3f}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to "
        f"{max(ratios):.2f})  bar {bar:g}x {'reached' if statistics.median(ratios) >= bar else 'MISSED'}  "
        f"train loss {together.last:.4f}, {sum(product.last for product in alone):.4f}"
    )


SWEEP = ["seed=0,1", "optimizer.lr=0.001,0.003", "optimizer.weight_decay=0.01,0.1", "tasks.r0.weight=1,2"]


def sweep(device: str) -> None:
    """A sweep of 16 jobs as one model against the same jobs one after the other, from the shell, all included."""
    import polars as pl

    rows, width, bar = 20_480, 64, 3.0
    x, targets = make_data(rows, MIXED)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "conf" / "task").mkdir(parents=True)
        columns = {name: target.numpy() for name, target in targets.items()}
        block = {"x": pl.Array(pl.Float32, width)}
        frame = pl.DataFrame({"x": x[:, :width].numpy(), **columns}, schema_overrides=block)
        frame.write_parquet(folder / "data.parquet")
        kinds = ", ".join(f"{name}: {{kind: {kind}}}" for name, kind, _ in MIXED)
        (folder / "conf/task/mine.yaml").write_text(
            "# @package _global_\ndata: {source: table, path: data.parquet}\nshared_dim: 64\n"
            f"encoder: {{hidden: [], dropout: 0}}\ntrainer: {{max_epochs: 5}}\ntasks: {{{kinds}}}\n"
        )
        command = [sys.executable, "-m", "mtl_cli.cli", "-m", "--config-dir", "conf", "task=mine"]
        command.append(f"trainer.device={device}")
        launchers = ["stacked", "basic"]
        for values, jobs in ((SWEEP[:2], 4), (SWEEP, 16)):
            seconds: dict[str, list[float]] = {launcher: [] for launcher in launchers}
            for turn in range(SWEEP_ROUNDS):
                for launcher in launchers if turn % 2 == 0 else launchers[::-1]:
                    own = [*values, f"hydra/launcher={launcher}", f"hydra.sweep.dir={launcher}-{jobs}-{turn}"]
                    began = time.perf_counter()
                    subprocess.run([*command, *own], cwd=folder, check=True, stdout=subprocess.DEVNULL)
                    seconds[launcher].append(time.perf_counter() - began)
            stacked, basic = (statistics.median(seconds[launcher]) for launcher in launchers)
            ratios = [apart / side for side, apart in zip(*seconds.values(), strict=True)]
            ratio = statistics.median(ratios)
            reached = f"  bar {bar:g}x {'reached' if ratio >= bar else 'MISSED'}" if jobs == 16 else ""
            print(
                f"w6: {rows:,} x {width} rows, D 64, 5 epochs, {jobs} jobs: stacked {stacked:.2f} s, one after the "
                f"other {basic:.2f} s: {ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f}){reached}"
            )


def start() -> None:
    """From the shell to the first training step, against a bare ``import torch``."""
    import polars as pl

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "conf" / "task").mkdir(parents=True)
        values = np.random.default_rng(0).normal(size=(1000, 5))
        pl.DataFrame(values, schema=["a", "b", "c", "y", "z"]).write_csv(folder / "data.csv")
        (folder / "conf/task/mine.yaml").write_text(
            "# @package _global_\ndata: {source: table, path: data.csv}\n"
            "tasks: {y: {kind: regression}, z: {kind: regression}}\n"
        )
        script = (
            "import sys, os, mtl_cli.cli as cli\n"
            "class Finder:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'mtl_cli.loop.trainer':\n"
            "            sys.meta_path.remove(self)\n"
            "            import mtl_cli.loop.step as step\n"
            "            original = step.train_step\n"
            "            def once(*args, **options):\n"
            "                original(*args, **options); os._exit(0)\n"
            "            step.train_step = once\n"
            "        return None\n"
            "sys.meta_path.insert(0, Finder())\n"
            "cli.main(sys.argv[1:])\n"
        )
        product = [sys.executable, "-c", script, "--config-dir", "conf", "task=mine"]
        bare = [sys.executable, "-c", "import torch"]
        # The packages that it imports were compiled when they were installed, and the product is in its first run.
        compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        seconds: dict[str, list[float]] = {"product": [], "bare": []}
        for turn in range(ROUNDS + 1):
            for name, command in (("bare", bare), ("product", product))[:: 1 if turn % 2 else -1]:
                began = time.perf_counter()
                subprocess.run(command, cwd=folder, env=compiled, check=True, capture_output=True)
                if turn:
                    seconds[name].append(time.perf_counter() - began)
        ratios = [p / b for p, b in zip(seconds["product"], seconds["bare"], strict=True)]
        ratio = statistics.median(ratios)
        print(
            f"\nstart: shell to first training step {statistics.median(seconds['product']):.2f} s, bare import torch "
            f"{statistics.median(seconds['bare']):.2f} s: {ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})  "
            f"bar 1.5x {'reached' if ratio <= 1.5 else 'MISSED'}"
        )


def read(rows: int) -> None:
    """A CSV file of 50 numeric columns to a checked table, and on to scaled inputs, against polars and a tensor."""
    import polars as pl

    from mtl_cli.data import FeatureOptions, Features
    from mtl_cli.registry import SOURCES

    def plain(path: str) -> None:
        torch.from_numpy(pl.read_csv(path).cast(pl.Float32).to_numpy(order="c").copy())

    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch) / "data.csv")
        values = np.random.default_rng(0).normal(size=(rows, 50)).round(4)
        pl.DataFrame(values, [f"x{i}" for i in range(50)]).write_csv(path)
        seconds: dict[str, list[float]] = {"polars": [], "table": [], "inputs": []}
        for turn in range(ROUNDS + 1):
            times = [time.perf_counter()]
            plain(path)
            times.append(time.perf_counter())
            table = SOURCES.build("table", path=path).read()
            times.append(time.perf_counter())
            Features.fit(table, FeatureOptions(), np.arange(rows), {}).transform(table)
            times.append(time.perf_counter())
            if turn:
                for name, part in zip(seconds, np.diff(times), strict=True):
                    seconds[name].append(float(part))
    ratios = [t / p for t, p in zip(seconds["table"], seconds["polars"], strict=True)]
    ratio, whole = statistics.median(ratios), statistics.median(seconds["table"]) + statistics.median(seconds["inputs"])
    print(
        f"\nread: {rows:,} x 50 CSV to a table {statistics.median(seconds['table']):.2f} s, polars and a tensor copy "
        f"{statistics.median(seconds['polars']):.2f} s: {ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})  "
        f"bar 2x {'reached' if ratio <= 2 else 'MISSED'}; to scaled inputs {whole:.2f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        nargs="*",
        default=[*WORKLOADS, "w4", "w6", "separate", "start", "read"],
        help=f"of {', '.join(WORKLOADS)}, w4, w6, separate, start, read",
    )
    parser.add_argument(
        "--threads", type=lambda given: given if given == "auto" else int(given), default="auto", help="of the CPU"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda: of all but start and read")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of read")
    arguments = parser.parse_args()
    for what in arguments.what:
        if what == "start":
            start()
        elif what == "separate":
            separate(arguments.threads, arguments.device)
        elif what == "read":
            read(arguments.rows)
        elif what == "w6":
            sweep(arguments.device)
        elif what == "w4":
            for count in (2, 4, 5, 10):
                balance(arguments.threads, count, arguments.device)
        else:
            run(what, arguments.threads, arguments.device)
