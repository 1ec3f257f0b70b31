"""What the product promises on a GPU: what it does on a CPU, the same bytes each time, and steps that never wait.

Everything but the last bits is compared with the CPU: float32 products are summed in another order there, which moves
a gradient by about 1e-6 of its size. Gradient descent hands that on as it is, and a few small steps add it up.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from worlds import (
    BASE,
    BASE_TRAIN,
    BASE_VAL,
    CPU,
    DROPOUT,
    NAN,
    REFUSED_PAIRS,
    SMALL_ENCODERS,
    base_table,
    column,
    encoder_world,
    inputs,
    make_learner,
    make_rows,
    make_settled_learner,
    make_tasks,
    make_trainer,
    same_state,
    state_of,
    three_kind_rows,
    three_kinds,
)

from mtl_cli.data.batches import plan_epoch
from mtl_cli.loop import evaluate, train_step
from mtl_cli.loop.passes import ValidationBatches
from mtl_cli.loop.trainer import Interrupted
from mtl_cli.processes import ALONE, DistributedGroup, Meeting
from mtl_cli.registry import BALANCINGS, ENCODERS, KINDS, OPTIMIZERS, SHARINGS
from mtl_cli.run import RunFolder

GPU = torch.device("cuda")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    # A product in the backward pass of a process whose first backward pass was on the CPU; a run has one device only.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS, but there was no current CUDA context"),
    pytest.mark.filterwarnings("ignore:Please use the new API settings to control TF32"),  # the old ones are in 2.6 too
]
ROOT = Path(__file__).parents[1]
DRAWS = ("ltb",)  # architectures that draw on the device in every step: other numbers on another device
FRAGILE = {"sdmgrad": 1e-3}  # methods whose solver, between nearly parallel gradients, makes more of the last bits
PAIRS = [(s, e) for s in SHARINGS.names() for e in ENCODERS.names() if (s, e) not in REFUSED_PAIRS]
VARIANTS = [
    *((name, {}) for name in KINDS.names()),
    ("regression", {"loss": "huber", "huber_delta": 0.3}),
    ("binary", {"loss": "focal"}),
    ("multiclass", {"loss": "focal"}),
    ("multiclass", {"label_smoothing": 0.1}),
    ("quantile", {"quantiles": [0.5]}),
]


@pytest.fixture(autouse=True)
def _as_the_product_sets_it(monkeypatch):
    """``trainer.deterministic=true``, and convolutions in float32 as on a CPU, not in TF32."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _kinds():
    """``three_kinds``, and two quantiles of a number."""
    return [*three_kinds(), KINDS.build("quantile", quantiles=[0.2, 0.8])]


def _rows(encoder, device, missing=0.3, n=32):
    """What an encoder reads, and rows with labels for ``_kinds``; the first batch of 16 has none of the second task."""
    spec, values = encoder_world(ENCODERS.load(encoder).reads, rows=n)
    draw = np.random.default_rng(0)
    targets = np.stack([draw.normal(size=n), draw.integers(2, size=n), draw.integers(3, size=n), draw.normal(size=n)])
    targets = targets.T.astype(np.float32)
    targets[draw.random(targets.shape) < missing] = NAN
    targets[:16, 1] = NAN
    return spec, make_rows(values, targets, device=device)


def _train(device, encoder="mlp", steps=4, missing=0.3, **options):
    """A few steps of gradient descent from the same weights; the learner."""
    spec, rows = _rows(encoder, device, missing)
    options = {"optimizer": "sgd", "optimizer_options": {"lr": 0.05}, "clip": 1.0, **options}
    own = SMALL_ENCODERS.get(encoder)
    learner = make_settled_learner(
        _kinds(), encoder_name=encoder, encoder=own, spec=spec, device=device, shared_dim=4, **options
    )
    _steps(learner, rows, steps)
    return learner


def _steps(learner, rows, count):
    weights = np.ones(len(learner.objective.kinds))
    plan = plan_epoch(rows, 0, batch_size=16, weights=weights, seed=0, shuffle=False)
    validation = ValidationBatches(rows, 8, weights, 0)
    for step in range(count):
        train_step(learner, rows, plan, step % len(plan.bounds), step, validation)


def _values(learner):
    return [optimizer.flat.values.detach().cpu() for optimizer in learner.optimizers]


def _assert_close(ours, theirs, rtol=1e-3, atol=2e-5):
    for own, other in zip(_values(ours), _values(theirs), strict=True):
        assert own.isfinite().all()
        torch.testing.assert_close(own, other, rtol=rtol, atol=atol)


def _assert_trained(learner):
    """Where the weights are, that they are finite, and that the steps have moved them."""
    assert learner.parameters.values.device.type == GPU.type
    assert all(values.isfinite().all() for values in _values(learner))
    assert learner.parameters.gradient.any()


@pytest.mark.parametrize(("sharing", "encoder"), PAIRS)
def test_every_architecture_with_every_encoder_trains_as_on_the_cpu(sharing, encoder):
    learner = _train(GPU, encoder, sharing=sharing)
    _assert_trained(learner)
    if sharing not in DRAWS:
        _assert_close(learner, _train(CPU, encoder, sharing=sharing))


@pytest.mark.parametrize("encoder", ENCODERS.names())
@pytest.mark.parametrize("sharing", ["separate", "soft"])
def test_rows_that_nobody_wants_may_be_left_out_there_too(sharing, encoder):
    _assert_close(*(_train(device, encoder, sharing=sharing, missing=0.7) for device in (GPU, CPU)))


@pytest.mark.parametrize("loss_scale", ["none", "initial"])
@pytest.mark.parametrize("sharing", ["hard", "mmoe"])
@pytest.mark.parametrize("balancing", BALANCINGS.names())
def test_every_balancing_method_trains_as_on_the_cpu(balancing, sharing, loss_scale):
    world = {"balancing": balancing, "sharing": sharing, "loss_scale": loss_scale}
    learner = _train(GPU, steps=6, **world)
    _assert_trained(learner)
    other = _train(CPU, steps=6, **world)
    _assert_close(learner, other, atol=FRAGILE.get(balancing, 2e-5))
    for name, value in other.balancing.state_dict().items():  # moving averages, shares, generators
        own = learner.balancing.state_dict()[name].cpu()
        torch.testing.assert_close(own, value, rtol=1e-3, atol=1e-4, equal_nan=True)


FEATURES = [name for name in BALANCINGS.names() if "gradients_on" in BALANCINGS.options(name)]


@pytest.mark.parametrize("encoder", ["mlp", "sequence"])
@pytest.mark.parametrize("balancing", FEATURES)
def test_gradients_of_features_are_balanced_as_on_the_cpu(balancing, encoder):
    options = {"gradients_on": "features"}
    world = {"encoder": encoder, "missing": 0.2, "balancing": balancing, "balancing_options": options}
    _assert_close(*(_train(device, **world) for device in (GPU, CPU)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
def test_every_optimizer_steps_as_on_the_cpu(optimizer):
    # A first step of Adam is as long for a gradient that is nearly zero as for any other: hence the tolerance.
    options = {"lr": 0.01, "weight_decay": 0.1} | ({"momentum": 0.9} if optimizer == "sgd" else {})
    world = {"optimizer": optimizer, "optimizer_options": options, "clip": 0.5, "scheduler": "cosine", "steps": 8}
    _assert_close(*(_train(device, sharing="ple", **world) for device in (GPU, CPU)), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_kind_trains_and_is_scored_as_on_the_cpu(name, options):
    labels = [0, 1, 1, 0, None, 1, 0, 1] * 4
    found = []
    for device in (GPU, CPU):
        kind = KINDS.build(name, **options)
        kind.fit(column(labels), np.arange(len(labels)))
        targets = kind.encode(column(labels)).reshape(len(labels), -1)
        numeric = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(0))
        rows = make_rows(inputs(numeric), targets, device=device, firsts=[0])
        learner = make_learner([kind], optimizer="sgd", optimizer_options={"lr": 0.05}, device=device)
        _steps(learner, rows, 6)
        found.append((learner, evaluate(learner, rows, make_tasks(learner)).tasks["task0"]))
    (ours, scores), (theirs, expected) = found
    _assert_trained(ours)
    _assert_close(ours, theirs)
    assert scores.keys() == expected.keys()
    assert scores["loss"] == pytest.approx(expected["loss"], rel=1e-4)


# Mixed precision ------------------------------------------------------------------------------------------------------


def _assert_near(half, whole, start):
    """The way from the start is nearly the one that float32 takes: bfloat16 has three digits."""
    (half,), (whole,), (start,) = (_values(learner) for learner in (half, whole, start))
    way, expected = half - start, whole - start
    assert half.isfinite().all()
    assert torch.nn.functional.cosine_similarity(way, expected, 0) > 0.85  # 0.92 on a CPU for the worst pair
    assert 0.9 < way.norm() / expected.norm() < 1.1


@pytest.mark.parametrize(("sharing", "encoder"), PAIRS)
def test_bf16_trains_nearly_as_float32(sharing, encoder):
    half = _train(GPU, encoder, sharing=sharing, autocast=torch.bfloat16)
    _assert_trained(half)
    if sharing not in DRAWS:
        _assert_near(half, _train(GPU, encoder, sharing=sharing), _train(GPU, encoder, sharing=sharing, steps=0))


@pytest.mark.parametrize("balancing", BALANCINGS.names())
def test_bf16_clipping_and_pieces_go_with_every_method(balancing):
    piece = 8 if BALANCINGS.load(balancing).samples == 1 else None
    learner = _train(GPU, balancing=balancing, autocast=torch.bfloat16, clip=0.05, piece=piece)
    _assert_trained(learner)
    assert learner.parameters.gradient_norm() < 0.05001


# The same bytes -------------------------------------------------------------------------------------------------------


def _trainer(folder, encoder, *, seed=0, interrupted=lambda: None, epochs=3, **world):
    spec, rows = _rows(encoder, GPU)
    torch.manual_seed(100 + seed)  # what a new process has drawn before is not the same
    own = SMALL_ENCODERS.get(encoder, {}) | DROPOUT.get(encoder, {})
    learner = make_learner(
        _kinds(), encoder_name=encoder, encoder=own, spec=spec, device=GPU, shared_dim=4, seed=0, **world
    )
    torch.manual_seed(seed)
    return make_trainer(folder, learner, rows, epochs=epochs, interrupted=interrupted)


def _after(trainer):
    """All that a run leaves: weights, state of optimizers, method and generators, metrics."""
    state = trainer.checkpoints.state()
    method = [value.cpu() for value in state["balancing"].values()]
    buffers = [b.cpu() for o in state["optimizers"] for b in o["buffers"].values()]
    return [*_values(trainer.learner), *buffers, *method, *state["rng"]["cuda"]], trainer.metrics.path.read_bytes()


def _assert_same(ours, theirs):
    for a, b in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert ours[1] == theirs[1]


WORLDS = [
    *((encoder, "hard", "equal") for encoder in ENCODERS.names()),
    *(("mlp", sharing, "uncertainty") for sharing in SHARINGS.names()),
    *(("mlp", "hard", balancing) for balancing in ("pcgrad", "gradnorm", "famo", "rlw", "graddrop", "coba")),
]


@pytest.mark.parametrize(("encoder", "sharing", "balancing"), WORLDS)
def test_a_run_gives_the_same_bytes_twice_and_when_it_was_stopped(tmp_path, encoder, sharing, balancing):
    world = {"sharing": sharing, "balancing": balancing}
    ended = []
    for name in ("one", "two"):
        with RunFolder.claim(tmp_path / name) as folder:
            trainer = _trainer(folder, encoder, **world)
            trainer.fit()
            ended.append(_after(trainer))
    _assert_same(*ended)
    with RunFolder.claim(tmp_path / "cut") as folder:
        folder.set_status("running")
        stopped = _trainer(folder, encoder, interrupted=lambda: 15 if stopped.progress.step == 6 else None, **world)
        with pytest.raises(Interrupted):
            stopped.fit()
    with RunFolder.claim(tmp_path / "cut", resume=True) as folder:
        again = _trainer(folder, encoder, seed=9, **world)
        again.checkpoints.load("last")
        assert (again.progress.epoch, again.progress.step_in_epoch) == (1, 2)
        again.fit()
        _assert_same(_after(again), ended[0])


# Speed and memory -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("balancing", ["equal", "fixed", "uncertainty", "imtl_l", "dwa"])
def test_nothing_in_a_step_waits_for_the_gpu(tmp_path, balancing, missing):
    rows = _on(GPU, three_kind_rows(80, missing=missing))
    if missing:
        targets = rows.labels.targets.cpu().numpy()
        targets[::2, 0] = targets[16:40, 1] = NAN
        rows = make_rows(rows.inputs, targets, device=GPU)
    learner = make_learner(
        three_kinds(), balancing=balancing, encoder={"hidden": [6], "dropout": 0.2}, device=GPU, clip=1.0
    )

    def between_steps():
        watched = trainer.progress.epoch == 1 and 1 <= trainer.progress.step_in_epoch < 9  # 10 steps in an epoch
        torch.cuda.set_sync_debug_mode("error" if watched else "default")

    try:
        with RunFolder.claim(tmp_path / "run") as folder:
            trainer = make_trainer(folder, learner, rows, epochs=3, interrupted=between_steps)
            trainer.fit()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.progress.step == 30


def _on(device, rows):
    return make_rows(rows.inputs, rows.labels.targets.cpu().numpy(), device=device)


@pytest.mark.parametrize("balancing", ["equal", "upgrad", "moco"])
def test_memory_of_a_later_epoch_is_that_of_an_early_one_on_the_gpu(tmp_path, balancing):
    seen = []
    learner = make_learner(three_kinds(), sharing="mmoe", balancing=balancing, device=GPU)
    rows = _on(GPU, three_kind_rows(missing=0.2))
    with RunFolder.claim(tmp_path / "run") as folder:
        trainer = make_trainer(
            folder, learner, rows, epochs=30, interrupted=lambda: seen.append(torch.cuda.memory_allocated())
        )
        trainer.fit()
    calls = len(seen) // 30
    assert max(seen[-calls:]) <= max(seen[: 5 * calls])


# Several processes ----------------------------------------------------------------------------------------------------


def test_sums_over_processes_go_through_nccl(monkeypatch):
    """One process that adds up with itself: as many GPUs as processes are needed for more."""
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    meeting = Meeting()
    try:
        processes = meeting.join()
        assert isinstance(processes, DistributedGroup)
        found = []
        for own in (processes, ALONE):
            learner = _train(GPU, sharing="mmoe", balancing="upgrad", processes=own)
            found.append((learner, _train(GPU, balancing="uncertainty", processes=own)))
        for ours, theirs in zip(*found, strict=True):
            _assert_close(ours, theirs, rtol=0, atol=0)
        part = torch.arange(6.0, device=GPU).view(2, 3)
        whole, place = processes.joined(part, 1)
        assert torch.equal(whole, part)
        assert (place.start, place.stop) == (0, 3)
        processes.refuse_difference(lambda: "same", "weights", "")
    finally:
        torch.distributed.destroy_process_group()


# The command line -----------------------------------------------------------------------------------------------------

TASKS = {
    "streamed": """\
data: {source: table, path: people.parquet, id: id, in_memory: false, batch_size: 16, shuffle_buffer: 40}
encoder: {dropout: 0.0}
tasks:
  spend: {kind: regression}
  stays: {kind: binary}
""",
    "sources": """\
data:
  sources:
    books: {path: people.csv, rename: {stays: liked}}
    movies: {path: others.csv, rename: {spend: price}}
  mixing: uniform
  batch_size: 16
encoder: {dropout: 0.0}
tasks:
  spend: {kind: regression, source: books}
  liked: {kind: binary}
  price: {kind: quantile}
  stays: {kind: binary, source: movies}
""",
    "text": """\
defaults: [{override /encoder: text}, _self_]
data: {source: table, path: people.csv, id: id, inputs: [age, {name: words, type: text}], batch_size: 16}
encoder: {dropout: 0.0, feature_dropout: 0.0}
tasks:
  spend: {kind: regression}
  stays: {kind: binary}
""",
    "images": """\
defaults: [{override /encoder: conv}, _self_]
data: {source: npz, path: images.npz, inputs: [{name: image, type: image}], batch_size: 16}
tasks:
  level: {kind: regression}
  bright: {kind: binary}
""",
    "tagging": """\
defaults: [{override /encoder: sequence}, _self_]
encoder: {dim: 16, dropout: 0.0, feature_dropout: 0.0}
data:
  {source: conllu, train: train.conllu, val: val.conllu, columns: [form, upos], inputs: [form], id: sent_id,
   batch_size: 8}
tasks:
  upos: {kind: tagging}
""",
}
WORDS = {"the": "DET", "cats": "NOUN", "cat": "NOUN", "sleep": "VERB"}


@pytest.fixture
def files(tmp_path):
    """Data and task files for the command line."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 3))
    people = pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(200)],
            "age": x[:, 0],
            "words": [("good fine " if v > 0 else "bad poor ") * (1 + i % 3) for i, v in enumerate(x[:, 1])],
            "city": ["abcd"[i % 4] for i in range(200)],
            "spend": x[:, 0] * 3 + x[:, 2],
            "stays": [None if i % 7 == 0 else int(v > 0) for i, v in enumerate(x[:, 1])],
        }
    )
    people.write_parquet(tmp_path / "people.parquet", row_group_size=20)
    people.write_csv(tmp_path / "people.csv")
    people[:90].write_csv(tmp_path / "others.csv")
    pixels = draw.integers(0, 256, (80, 8, 8, 1), dtype=np.uint8)
    level = pixels.mean((1, 2, 3))
    np.savez(tmp_path / "images.npz", image=pixels, level=level, bright=(level > np.median(level)).astype(np.int64))
    for name, count in (("train", 40), ("val", 30)):
        sentences = [draw.choice(list(WORDS), draw.integers(1, 6)) for _ in range(count)]
        lines = []
        for number, sentence in enumerate(sentences):
            lines.append(f"# sent_id = {name}{number}")
            lines += [f"{i}\t{word}\t_\t{WORDS[word]}\t_\t_\t0\troot\t_\t_" for i, word in enumerate(sentence, 1)]
            lines.append("")
        (tmp_path / f"{name}.conllu").write_text("\n".join(lines) + "\n")
    (tmp_path / "train.csv").write_text(base_table(BASE_TRAIN))
    (tmp_path / "val.csv").write_text(base_table(BASE_VAL))
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/base.yaml").write_text(BASE)
    for name, text in TASKS.items():
        (tmp_path / f"conf/task/{name}.yaml").write_text(f"# @package _global_\n{text}shared_dim: 16\n")
    return tmp_path


def _call(folder, *arguments, module="mtl_cli.cli"):
    """A command line in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("CUBLAS_WORKSPACE_CONFIG", None)  # the product sees to it
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def _run(folder, *arguments, module="mtl_cli.cli"):
    ended = _call(folder, *arguments, module=module)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return ended.stdout


def _summary(run):
    return json.loads((run / "summary.json").read_text())


def _numbers(run):
    return {key: value for key, value in _summary(run)["metrics"].items() if value is not None}


ON_GPU = f"trainer.device={GPU}"
DEVICES = {"there": GPU, "here": CPU}
DIGITS = ["task=digits", "trainer.max_epochs=2", "hydra.run.dir=run"]


def test_digits_are_learnt_and_the_run_is_evaluated_on_either_device(tmp_path):
    ended = _call(tmp_path, *DIGITS, ON_GPU)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"device {GPU}," in ended.stdout
    assert _summary(tmp_path / "run")["device"] == str(GPU)
    numbers = _numbers(tmp_path / "run")
    assert numbers["test/digit/accuracy"] > 0.85
    for out, device in DEVICES.items():
        arguments = ["run", "--device", device, "--out", f"{out}.json"]
        _run(tmp_path, *arguments, module="mtl_cli.commands.evaluate")
        found = json.loads((tmp_path / f"{out}.json").read_text())
        same = {key: value for key, value in found["metrics"].items() if key in numbers}
        assert same == pytest.approx({key: numbers[key] for key in same}, abs=1e-4)
        assert "test/digit/accuracy" in same


def test_auto_takes_the_gpu_and_a_dry_run_ends_well(tmp_path):
    assert f"device {GPU}," in _run(tmp_path, *DIGITS, "trainer.device=auto", "dry_run=true")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    ended = _call(tmp_path, *DIGITS, "trainer.device=cuda:99")
    assert ended.returncode == 2
    assert "trainer.device: there is no device 'cuda:99' here" in ended.stderr


def test_two_runs_of_the_command_line_leave_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        _run(tmp_path, *DIGITS, ON_GPU, "encoder.dropout=0.3", f"hydra.run.dir={name}")
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    assert same_state(state_of(one), state_of(two))


def test_a_run_that_goes_on_later_leaves_the_bytes_of_one_without_a_break(tmp_path):
    _run(tmp_path, *DIGITS, ON_GPU, "encoder.dropout=0.3")
    _run(tmp_path, *DIGITS, ON_GPU, "encoder.dropout=0.3", "hydra.run.dir=cut", "trainer.max_epochs=1")
    _run(tmp_path, "resume=cut", "trainer.max_epochs=2")
    whole, cut = tmp_path / "run", tmp_path / "cut"
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()
    assert same_state(state_of(whole), state_of(cut))


@pytest.mark.parametrize(("first", "then"), [(GPU, CPU), (CPU, GPU)], ids=["there", "back"])
def test_a_run_goes_on_and_is_used_on_the_other_device(files, first, then):
    line = ["--config-dir", "conf", "task=base", "hydra.run.dir=run"]
    _run(files, *line, f"trainer.device={first}")
    for out, device in DEVICES.items():
        arguments = ["run", "--data", "val.csv", "--device", device, "--out", f"{out}.csv"]
        _run(files, *arguments, module="mtl_cli.commands.predict")
    ours, theirs = (pl.read_csv(files / f"{out}.csv") for out in DEVICES)
    assert ours.columns == theirs.columns
    for name in ours.columns:
        if ours[name].dtype == pl.Float64:
            assert ours[name].to_numpy() == pytest.approx(theirs[name].to_numpy(), abs=1e-5)
        else:
            assert ours[name].to_list() == theirs[name].to_list()
    _run(files, "run", "--out", "model.pt2", module="mtl_cli.commands.export")
    _run(files, "resume=run", f"trainer.device={then}", "trainer.max_epochs=4")
    assert (_summary(files / "run")["device"], _summary(files / "run")["epochs"]) == (str(then), 4)
    _run(files, *line[:3], "init_from=run", f"trainer.device={then}", "hydra.run.dir=new")
    assert _summary(files / "new")["device"] == str(then)


@pytest.mark.parametrize("task", TASKS)
def test_inputs_of_every_sort_train_as_on_the_cpu(files, task):
    common = ["--config-dir", "conf", f"task={task}", "optimizer=sgd", "optimizer.lr=0.02", "trainer.max_epochs=2"]
    for run, device in DEVICES.items():
        _run(files, *common, f"trainer.device={device}", f"hydra.run.dir={run}")
    ours, theirs = (_numbers(files / run) for run in DEVICES)
    losses = {key: value for key, value in theirs.items() if key.endswith("/loss")}
    assert losses
    assert {key: ours[key] for key in losses} == pytest.approx(losses, rel=5e-3)  # images: products in TF32


@pytest.mark.parametrize("options", [["trainer.precision=bf16-mixed"], ["trainer.diagnostics_every=5"]])
def test_digits_are_learnt_with_what_a_trainer_may_do_besides(tmp_path, options):
    extra = ["sharing=mmoe", "balancing=uncertainty", "trainer.on_nonfinite=skip", "trainer.accumulate_grad_batches=2"]
    _run(tmp_path, *DIGITS, ON_GPU, *extra, *options)
    assert _numbers(tmp_path / "run")["test/digit/accuracy"] > 0.7


def test_a_compiled_model_trains_as_one_that_is_not(tmp_path):
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("there is no C compiler here, which PyTorch's compiler needs")
    for compiled in ("false", "true"):
        small = ["encoder.dropout=0", "optimizer=sgd", "optimizer.lr=0.05", f"trainer.compile={compiled}"]
        ended = _call(tmp_path, *DIGITS, ON_GPU, *small, f"hydra.run.dir=compile-{compiled}")
        assert ended.returncode == 0, ended.stderr[-4000:]
    ours, theirs = (state_of(tmp_path / f"compile-{compiled}")["model"] for compiled in ("true", "false"))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)


def test_jobs_trained_as_one_are_those_trained_alone(tmp_path):
    jobs = ["task=digits", "encoder.dropout=0,0.2", "seed=0,1", "optimizer=sgd", "optimizer.lr=0.05", "-m"]
    small = ["trainer.max_epochs=2", "shared_dim=16", "encoder.hidden=[16]", "data.batch_size=64", ON_GPU]
    _run(tmp_path, *jobs, *small, "hydra.sweep.dir=alone")
    told = _run(tmp_path, *jobs, *small, "hydra.sweep.dir=stacked", "hydra/launcher=stacked")
    assert "4 jobs are trained together: " in told
    for alone in (path for path in (tmp_path / "alone").iterdir() if path.is_dir()):
        ours, theirs = state_of(tmp_path / "stacked" / alone.name)["model"], state_of(alone)["model"]
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)
