"""Files that are damaged, foreign or hostile: nothing in them runs, nothing of them leaves the folder, and one message
says which file it is and what to do."""

import gzip
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mtl_cli.cli import run_command
from mtl_cli.commands import evaluate, predict, report
from mtl_cli.commands.entry import run
from mtl_cli.data.sources import _files
from mtl_cli.errors import RunError
from mtl_cli.run.checkpoint import load, save
from mtl_cli.trained import load_run

TASK = """\
# @package _global_
data: {source: table, path: rows.csv, id: id, batch_size: 16, bins: 0}
tasks: {y: {kind: regression}, k: {kind: binary}}
shared_dim: 4
trainer: {max_epochs: 1}
"""
LINE = ["--config-dir", "conf", "task=t"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with data, a task file and a finished run."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "conf/task").mkdir(parents=True)
    (folder / "conf/task/t.yaml").write_text(TASK)
    rows = [f"{i},{i % 7 / 7},{'ab'[i % 2]},{i % 5 / 5},{'uv'[i % 3 > 0]}" for i in range(60)]
    (folder / "rows.csv").write_text("id,x,c,y,k\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command([*LINE, "hydra.run.dir=run"]) == 0
    return folder


@pytest.fixture
def here(cli, whole, tmp_path):
    """A copy of it as the working folder."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def commands(cli, capsys):
    """Every way to read a run, each giving the exit code and what was said on stderr."""

    def of_run(main, *arguments):
        capsys.readouterr()
        return run(main, arguments), capsys.readouterr().err

    def library():
        try:
            load_run("run")
        except RunError as error:
            return 2, f"{error}\n"
        return 0, ""

    return {
        "predict": lambda: of_run(predict.predict, "run", "--data", "rows.csv", "--out", "p.csv", "--overwrite"),
        "evaluate": lambda: of_run(evaluate.evaluate, "run"),
        "report": lambda: of_run(report.report, "run"),
        "load_run": library,
        "resume": lambda: cli("resume=run", "trainer.max_epochs=2")[::2],
        "init_from": lambda: cli(*LINE, "init_from=run", "hydra.run.dir=new")[::2],
    }


READERS = {  # what must refuse a file that it cannot do without, that which looks at it most closely first
    "config.yaml": ["predict", "evaluate", "report", "load_run", "resume", "init_from"],
    "data.json": ["predict", "evaluate", "load_run", "resume", "init_from"],
    "checkpoints/best.pt": ["predict", "evaluate", "load_run", "init_from"],
    "status.json": ["report", "resume"],
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_file_is_refused_by_all_that_need_it(here, commands, name):
    # CKP-09, CKP-11 and their whole kind
    file = here / "run" / name
    good = file.read_bytes()
    damages = {"empty": b"", "cut": good[: len(good) // 2], "foreign": b"\x89PNG\r\n\xff\x00", "null": b"null"}
    for how, data in damages.items():
        file.write_bytes(data)
        for command in READERS[name] if how == "empty" else READERS[name][:1]:  # all others read it in the same way
            code, err = commands[command]()
            assert code == 2, (how, command, err)
            assert name.rpartition("/")[2] in err, (how, command, err)
            assert "bug?" not in err
            assert "Traceback" not in err
    assert not (here / "new").exists()
    assert not (here / "p.csv").exists()


def test_flipped_digit_in_the_statistics_is_noticed(here, commands):
    # It would change every prediction a little, and nothing else would tell
    file = here / "run/data.json"
    state = json.loads(file.read_text())
    state["features"]["numeric"][0]["scaler"]["mean"][0] += 0.001
    file.write_text(json.dumps(state))
    for command in READERS["data.json"]:
        code, err = commands[command]()
        assert code == 2
        assert "data.json: is damaged or edited: its checksum differs. Put the file back" in err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: !!python/object/apply:os.system ['touch pwned']\n", "no plain YAML (could not determine a constructor"),
        ("seed: !!python/name:os.system\n", "no plain YAML (could not determine a constructor"),
        ("seed: {a: [1, 2\n", "no plain YAML ("),
        ("[" * 3000, "no plain YAML ("),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{c}: &{c} [{','.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
        ), "it stands for more than 1,000,000 values"),
    ],
    ids=["apply", "name", "broken", "deep", "bomb"],
)  # fmt: skip
def test_configuration_that_is_not_plain_is_refused(here, commands, text, reason):
    # CKP-09: YAML can name code, and stand for more than any memory holds
    (here / "run/config.yaml").write_text(text)
    started = time.monotonic()
    for command in READERS["config.yaml"] if "apply" in text else ["predict", "resume"]:
        code, err = commands[command]()
        assert code == 2, command
        assert f"run/config.yaml: is damaged: {reason}" in err, command
    assert time.monotonic() - started < 60  # seconds on a busy machine; what it must not be is minutes
    assert not (here / "pwned").exists()


@pytest.mark.parametrize("place", [["encoder"], ["tasks", "y"], []])
def test_target_in_a_configuration_is_an_unknown_key(here, commands, place):
    # CKP-09: other tools make the object that it names
    file = here / "run/config.yaml"
    settings = yaml.safe_load(file.read_text())
    node = settings
    for key in place:
        node = node[key]
    node["_target_"] = "os.system"
    file.write_text(yaml.safe_dump(settings))
    for command in ("predict", "resume"):
        code, err = commands[command]()
        assert code == 2
        assert "_target_" in err
        assert "unknown key" in err or "was made with another" in err


def test_interpolation_in_a_stored_configuration_is_text(here, cli, monkeypatch):
    # It is resolved when the run starts; what is added later must not read the environment of whoever resumes
    monkeypatch.setenv("SECRET", "42")
    file = here / "run/config.yaml"
    file.write_text(file.read_text().replace("extra: null", "extra: ${oc.env:SECRET}"))
    assert cli("resume=run", "trainer.max_epochs=2").code == 0
    assert yaml.safe_load(file.read_text())["extra"] == "${oc.env:SECRET}"


def test_checkpoints_that_unpack_to_anything_are_refused(here, commands):
    # CKP-09: a zip bomb, and a tensor of a terabyte over four bytes
    file = here / "run/checkpoints/best.pt"
    with zipfile.ZipFile(file) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    for command in READERS["checkpoints/best.pt"]:
        code, err = commands[command]()
        assert (code, "its content is compressed, as no checkpoint's is" in err) == (2, True), command
    huge = torch.zeros(1).expand(10**6, 10**6)
    torch.save(
        {"format": 1, "mtl_train": "1", "checksum": "0" * 64, "state": {"tasks": ["y", "k"], "model": huge}}, file
    )
    for command in READERS["checkpoints/best.pt"]:
        code, err = commands[command]()
        assert (code, "is damaged: checksum differs" in err) == (2, True), command


@pytest.mark.parametrize("version", [0, 999])
def test_checkpoints_of_another_version_are_refused_by_every_command(here, commands, version):
    # CKP-11
    for name in ("best", "last"):
        file = here / f"run/checkpoints/{name}.pt"
        torch.save({**torch.load(file, weights_only=True), "format": version, "mtl_train": "0.0"}, file)
    age = "a newer" if version else "an older"
    for command in (*READERS["checkpoints/best.pt"], "resume") if version else ("predict", "resume"):
        code, err = commands[command]()
        assert code == 2
        assert f"made by {age} version of mtl-train: format {version}, this one reads 1." in err


def test_checkpoint_of_another_model_is_refused_with_three_lists(here, commands):
    # CKP-10
    for name in ("best", "last"):
        file = here / f"run/checkpoints/{name}.pt"
        state = load(file)
        model = state["model"]
        model["renamed"] = model.pop("heads.blocks.0.bias")
        del model["sharing.encoder.embedding"]
        model["heads.blocks.0.weight"] = torch.zeros(5, 4)
        save(file, state)
    expected = (
        "absent: sharing.encoder.embedding, heads.blocks.0.bias; unknown: renamed; "
        "of another shape: heads.blocks.0.weight (5 x 4, here 2 x 4)"
    )
    for command in (*READERS["checkpoints/best.pt"], "resume"):
        code, err = commands[command]()
        assert code == 2
        assert expected in err


def test_names_in_a_checkpoint_never_lead_out_of_the_folder(here, commands):
    # The epochs of the best scores name files that are removed
    precious = here / "precious.pt"
    precious.touch()
    file = here / "run/checkpoints/last.pt"
    state = load(file)
    state["best"] = [[-9.0, "1/../../../precious", 1]]
    save(file, state)
    code, err = commands["resume"]()
    assert code == 2
    assert "its best scores are not [score, epoch, step], got [-9.0, '1/../../../precious', 1]" in err
    assert precious.exists()


def test_names_of_checkpoints_never_lead_out_of_the_folder(here, capsys):
    shutil.copy(here / "run/checkpoints/best.pt", here / "elsewhere.pt")
    assert run(evaluate.evaluate, ["run", "--checkpoint", "../../elsewhere"]) == 2
    assert "run has no '../../elsewhere'" in capsys.readouterr().err
    for name in ("../../elsewhere", str(here / "elsewhere"), ".hidden"):
        with pytest.raises(RunError, match="the name of a checkpoint is a plain word, got"):
            load_run("run", checkpoint=name)


@pytest.mark.parametrize("name", ["metrics.jsonl", "diagnostics.jsonl", "train.log"])
def test_links_that_would_be_written_through_are_refused(here, commands, name):
    foreign = here / "foreign.txt"
    foreign.write_text("precious\n" * 100)
    (here / "run" / name).unlink(missing_ok=True)
    (here / "run" / name).symlink_to(foreign)
    code, err = commands["resume"]()
    assert (code, err) == (
        2,
        f"run/{name}: is a link, and would be written through. Put the file itself in its place.\n",
    )
    assert foreign.read_text() == "precious\n" * 100


@pytest.mark.parametrize("damage", ["[]", '{"epochs": null}', "{"])
def test_damaged_summary_is_made_anew(here, cli, commands, damage):
    file = here / "run/summary.json"
    good = json.loads(file.read_text())
    file.write_text(damage)
    code, err = commands["report"]()
    assert (code, "summary.json" in err) == (2, True)
    ended = cli("resume=run")
    assert (ended.code, ended.err) == (0, "")
    assert "summary.json: is damaged or missing; it is made anew from the checkpoints" in ended.out
    again = json.loads(file.read_text())
    assert all(again[key] == good[key] for key in ("metrics", "best", "epochs", "steps", "config"))


def test_configuration_edited_after_the_run_is_told(here, commands):
    file = here / "run/config.yaml"
    file.write_text(file.read_text().replace("activation: relu", "activation: tanh"))
    code, err = commands["predict"]()
    assert code == 0
    assert "note: run/config.yaml was changed after the training, and is what counts now." in err


@pytest.mark.parametrize("form", ["gz", "npz", "header"])
def test_data_that_unpack_to_more_than_the_memory_are_refused(here, cli, monkeypatch, form):
    monkeypatch.setattr(_files, "free_memory", lambda: 1_000_000)
    if form == "gz":
        name = "bomb.csv.gz"
        (here / name).write_bytes(gzip.compress(b"id,x,c,y,k\n" + b"1,1,a,1,u\n" * 400_000))
        given, what = [f"data.path={name}"], "unpacks to more than the memory that is free (0.0 GB)"
    elif form == "npz":
        name = "bomb.npz"
        np.savez_compressed(here / name, x=np.zeros(500_000))
        given, what = ["data.source=npz", f"data.path={name}"], "unpacks to more than the memory that is free (0.0 GB)"
    else:
        name = "bomb.npz"  # a header that promises a million times what follows
        header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999999,), }"
        with zipfile.ZipFile(here / name, "w") as archive:
            archive.writestr("x.npy", header.ljust(127) + b"\n")
        given, what = ["data.source=npz", f"data.path={name}"], "array 'x': cannot be read ("
    assert (here / name).stat().st_size < 50_000
    ended = cli(*LINE, *given, "~data.id", "data.bins=auto", "hydra.run.dir=new")
    assert ended.code == 2
    assert what in ended.err
    assert name in ended.err


def test_objects_in_arrays_never_run(here, cli):
    # CKP-09

    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    np.savez(here / "evil.npz", x=np.array([Evil()] * 3, object), y=np.zeros(3))
    ended = cli(*LINE, "data.source=npz", "data.path=evil.npz", "~data.id", "hydra.run.dir=new")
    assert ended.code == 2
    assert "holds Python objects, which are not read" in ended.err
    assert not Path("pwned").exists()
