"""Checkpoints come back exactly, damage is noticed, and nothing in a file ever runs."""

import collections
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl_cli import __version__
from mtl_cli.errors import RunError, TrainingError
from mtl_cli.run import checkpoint

ROOT = Path(__file__).parents[2]
OTHER = "Use another checkpoint, or train again."


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


class Pwn:
    """Makes pwned.txt if anybody unpickles it."""

    def __reduce__(self):
        return (os.system, ("touch pwned.txt",))


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "checkpoints" / "last.pt"


def _message(path):
    with pytest.raises(RunError) as error:
        checkpoint.load(path)
    return str(error.value)


def _rewrite(path, **changes):
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.view(-1).tolist() == b.view(-1).tolist()
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


def test_a_state_comes_back_exactly(path):
    state = {
        "epoch": 3,
        "score": 0.1 + 0.2,
        "none": None,
        "flag": True,
        "name": "größe",
        "big": 2**127 + 1,
        "rng": {"python": random.getstate(), "torch": torch.get_rng_state()},
        "tensors": [torch.randn(3, 4).to(kind) for kind in (torch.float32, torch.float64, torch.bfloat16, torch.bool)],
        "odd": (torch.tensor(5), torch.zeros(0, 3), torch.arange(6).reshape(2, 3).T.contiguous()),
        "optimizer": {
            "state": {0: {"step": torch.tensor(1.0)}},
            "param_groups": [{"params": [0], "betas": (0.9, 0.99)}],
        },
    }
    checkpoint.save(path, state)
    assert _same(checkpoint.load(path), state)
    assert _names(path.parent) == ["last.pt"]


def test_real_modules_and_optimizers_can_be_saved(path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    checkpoint.save(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    loaded = checkpoint.load(path)
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    assert _same(dict(model.state_dict()), loaded["model"])


def test_the_file_says_its_format_and_version(path):
    checkpoint.save(path, {"a": 1})
    content = torch.load(path, weights_only=True)
    assert (content["format"], content["mtl_train"], content["state"]) == (1, __version__, {"a": 1})


def test_a_view_does_not_bring_the_whole_table_along(path):
    checkpoint.save(path, {"row": torch.zeros(1000, 100)[3]})
    assert path.stat().st_size < 10_000


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1, object()]}}, "state.a.b[1]: {only}, got builtins.object"),
        ({"a": np.float64(1)}, "state.a: {only}, got numpy.float64"),
        ({"a": np.zeros(2)}, "state.a: {only}, got numpy.ndarray"),
        ({"a": Path("x")}, "state.a: {only}, got pathlib.PosixPath"),
        ({"a": {1}}, "state.a: {only}, got builtins.set"),
        ({"a": Pair(1, 2)}, f"state.a: {{only}}, got {Pair.__module__}.Pair"),
        ({"a": {(1, 2): 3}}, "state.a: a checkpoint's keys must be text or int, got (1, 2)"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "state.a: a checkpoint holds only plain dense tensors, got Tensor"),
    ],
)
def test_what_could_not_be_read_back_is_refused_naming_its_place(path, state, message):
    only = "a checkpoint holds only tensors, int, float, str, bool, None, and dict, list or tuple of them"
    with pytest.raises(TypeError) as error:
        checkpoint.save(path, state)
    assert str(error.value) == message.format(only=only)
    assert not path.exists()


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_refused_write_keeps_the_old_checkpoint(path, monkeypatch, call):
    def full(*args):
        raise OSError(28, "No space left on device")

    checkpoint.save(path, {"epoch": 1})
    monkeypatch.setattr(os, call, full)
    with pytest.raises(TrainingError) as error:
        checkpoint.save(path, {"epoch": 2})
    monkeypatch.undo()
    assert str(error.value) == (
        f"{path}: cannot be written, got 'No space left on device'. Check the free space and the permissions there."
    )
    assert checkpoint.load(path) == {"epoch": 1}
    assert _names(path.parent) == ["last.pt"]


def test_a_disk_that_fills_up_at_any_byte_keeps_the_old_checkpoint(path):
    code = """
import resource, signal, sys, torch
from pathlib import Path
from mtl_cli.errors import TrainingError
from mtl_cli.run import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
checkpoint.save(path, {"epoch": 1, "w": torch.zeros(3000)})
for limit in range(1, path.stat().st_size, 1999):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        checkpoint.save(path, {"epoch": 2, "w": torch.zeros(3000)})
        sys.exit("written in spite of the limit")
    except TrainingError as error:
        if str(error).split(". ")[0] != f"{path}: cannot be written, got 'File too large'":
            sys.exit(str(error))
    if checkpoint.load(path)["epoch"] != 1 or len(list(path.parent.iterdir())) != 1:
        sys.exit("the old checkpoint was touched")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_file_lists_the_checkpoints_there(path):
    assert _message(path) == f"{path}: no such file. Checkpoints there: none."
    checkpoint.save(path.with_name("best.pt"), {})
    checkpoint.save(path.with_name("epoch3.pt"), {})
    assert _message(path) == f"{path}: no such file. Checkpoints there: best.pt, epoch3.pt."
    assert _message(path.parent) == f"{path.parent}: is a folder, not a checkpoint."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"config: 1\nseed: 2\ntasks: 3\n", "it is no PyTorch file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "it is no PyTorch file"),
        (pickle.dumps({"state": 1}), "it is no PyTorch file"),
    ],
)
def test_what_is_no_checkpoint_is_refused(path, content, reason):
    path.parent.mkdir()
    path.write_bytes(content)
    assert _message(path) == f"{path}: cannot be read as a checkpoint ({reason}). {OTHER}"


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(path, part):
    checkpoint.save(path, {"w": torch.randn(500)})
    os.truncate(path, int(path.stat().st_size * part))
    assert _message(path) == f"{path}: cannot be read as a checkpoint (it is cut short). {OTHER}"


def test_a_file_that_unpacks_to_more_than_it_is_is_not_read(path):
    checkpoint.save(path, {"w": torch.zeros(500)})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():  # one of them is enough
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name.endswith("/data/0") else zipfile.ZIP_STORED)
    reason = "its content is compressed, as no checkpoint's is"
    assert _message(path) == f"{path}: cannot be read as a checkpoint ({reason}). {OTHER}"


def test_a_tensor_that_claims_to_be_larger_than_its_memory_is_not_unfolded(path):
    checkpoint.save(path, {"weight": torch.zeros(1)})
    content = torch.load(path, weights_only=True)
    content["state"]["weight"] = content["state"]["weight"].expand(2**40)  # 4 TB in a file of a kilobyte
    torch.save(content, path)
    with pytest.raises(RunError, match="is damaged: checksum differs"):
        checkpoint.load(path)


def test_another_programs_torch_file_is_refused(path):
    path.parent.mkdir()
    for foreign in ({"model": torch.zeros(2)}, torch.zeros(2), {"state": {}}):
        torch.save(foreign, path)
        assert _message(path) == (
            f"{path}: cannot be read as a checkpoint (it has no format number: made by another program). {OTHER}"
        )
    checkpoint.save(path, {})
    _rewrite(path, format="one")
    assert _message(path) == f"{path}: cannot be read as a checkpoint (its format is no whole number). {OTHER}"


def test_one_flipped_bit_in_a_weight_is_noticed(path):
    weights = torch.randn(500)
    checkpoint.save(path, {"w": weights})
    data = bytearray(path.read_bytes())
    data[data.index(weights.numpy().tobytes()) + 1001] ^= 1
    path.write_bytes(data)
    assert _message(path) == f"{path}: is damaged: checksum differs. {OTHER}"


def test_no_flipped_bit_anywhere_changes_the_state_unnoticed(path):
    state = {"epoch": 3, "score": 0.5, "w": torch.arange(8.0)}
    checkpoint.save(path, state)
    good = path.read_bytes()
    for place in range(0, len(good), 13):
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            loaded = checkpoint.load(path)
        except RunError:
            continue
        assert _same(loaded, state), place


def test_a_changed_plain_value_is_noticed(path):
    checkpoint.save(path, {"epoch": 3, "w": torch.zeros(2)})
    for state in (
        {"epoch": 4, "w": torch.zeros(2)},
        {"w": torch.zeros(2), "epoch": 3},
        {"epoch": 3},
        [],
        {"epoch": torch.Size([1])},
    ):
        _rewrite(path, state=state)
        assert _message(path) == f"{path}: is damaged: checksum differs. {OTHER}"


def test_another_format_is_refused_naming_both(path):
    checkpoint.save(path, {"a": 1})
    _rewrite(path, format=999, mtl_train="9.0")
    assert _message(path) == (
        f"{path}: made by a newer version of mtl-train: format 999, this one reads 1. "
        "It was written by mtl-train 9.0. Update mtl-train."
    )
    _rewrite(path, format=0, mtl_train="0.0.1")
    assert _message(path) == (
        f"{path}: made by an older version of mtl-train: format 0, this one reads 1. "
        "It was written by mtl-train 0.0.1. Train again."
    )


@pytest.mark.parametrize("kind", ["archive", "state", "legacy", "0", "2", "4", "5"])
def test_code_in_a_file_is_refused_and_never_runs(path, kind):
    path.parent.mkdir()
    if kind == "archive":
        torch.save(Pwn(), path)
    elif kind == "state":
        checkpoint.save(path, {"w": torch.zeros(2)})
        _rewrite(path, state={"w": Pwn()})
    elif kind == "legacy":
        torch.save({"w": Pwn()}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"w": Pwn()}, protocol=int(kind)))
    assert _message(path) == (
        f"{path}: holds Python objects that could run code; refused. Use only checkpoints that mtl-train wrote."
    )
    assert list(Path.cwd().rglob("pwned.txt")) == []


def test_running_out_of_memory_is_not_called_damage(path, monkeypatch):
    def load(*args, **kwargs):
        raise MemoryError

    checkpoint.save(path, {})
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        checkpoint.load(path)


def test_a_file_that_may_not_be_read_is_named(path, monkeypatch):
    def load(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    checkpoint.save(path, {})
    monkeypatch.setattr(torch, "load", load)
    assert _message(path) == f"{path}: cannot be read, got 'Permission denied'."
