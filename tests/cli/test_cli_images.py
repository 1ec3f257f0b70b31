"""Images in files, from the folder to the prediction; each a bug report of other tools."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mtl_cli import load_run
from mtl_cli.commands import evaluate, predict
from mtl_cli.commands.entry import run
from mtl_cli.data import Features

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
RUN = ["--config-dir", "conf", "task=turn", "hydra.run.dir=run"]
ANGLES = ("0", "90", "180", "270")
FOLDERS = """\
# @package _global_
defaults: [{override /encoder: conv}, _self_]
shared_dim: 8
encoder: {widths: [8], stem_stride: 1}
data: {source: image_folder, train: train, val: test, id: file, batch_size: 8}
optimizer: {lr: 0.02}
tasks:
  label: {kind: multiclass}
trainer: {max_epochs: 12}
"""
LISTED = """\
# @package _global_
defaults: [{override /encoder: conv}, _self_]
shared_dim: 8
encoder: {widths: [4]}
data: {source: table, train: photos/list.csv, val: photos/list.csv, id: id, inputs: [{name: photo, type: image}]}
tasks:
  dark: {kind: binary}
  number: {kind: regression}
trainer: {max_epochs: 1}
"""


def _arrow(angle):
    """A bright edge on one of the four sides."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:2] = 255
    return Image.fromarray(np.rot90(pixels, int(angle) // 90).copy())


def _folders(root, angles, each):
    for angle in angles:
        (Path(root) / angle).mkdir(parents=True)
        for i in range(each):
            _arrow(angle).save(Path(root) / angle / f"{i}.png")


@pytest.mark.parametrize("left", ["absent", "empty"])
def test_class_without_a_test_folder_shifts_no_label(cli, write, capsys, left):  # DAT-19
    write({"conf/task/turn.yaml": FOLDERS})
    _folders("train", ANGLES, 4)
    _folders("test", ("0", "90", "270"), 2)
    if left == "empty":
        Path("test/180").mkdir()
    ended = cli(*RUN)
    assert ended.code == 0, ended.err
    assert "note: task 'label': no val row has class 180." in ended.out
    assert json.loads(Path("run/summary.json").read_text())["metrics"]["val/label/accuracy"] == 1.0
    assert json.loads(Path("run/data.json").read_text())["tasks"]["label"]["state"]["classes"] == ["0", "90", "180", "270"]  # fmt: skip  # noqa: E501
    assert run(evaluate.evaluate, ["run", "--data", "test", "--out", "m.json"]) == 0
    assert json.loads(Path("m.json").read_text())["metrics"]["data/label/accuracy"] == 1.0
    Path("test/0/2.avif").touch()
    capsys.readouterr()
    assert run(predict.predict, ["run", "--data", "test", "--out", "p.csv"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "note: test: 1 file left out, as no images: 1 .avif."
    table = pl.read_csv("p.csv", infer_schema=False)
    assert table["file"].to_list() == [f"{angle}/{i}.png" for angle in ("0", "270", "90") for i in range(2)]
    assert table["label_pred"].to_list() == [file.split("/")[0] for file in table["file"]]
    Path("test/0").rename("test/45")
    capsys.readouterr()
    assert run(evaluate.evaluate, ["run", "--data", "test", "--out", "m.json", "--overwrite"]) == 2
    err = capsys.readouterr().err
    assert "test, column 'label', row 3 (45/0.png): class '45' is not among the classes 0, 90, 180, 270" in err


def test_what_is_no_class_is_told_and_a_count_that_differs_lists_the_names(cli, write):  # DAT-20
    write(
        {"conf/task/turn.yaml": FOLDERS.replace("val: test", "val: train").replace("max_epochs: 12", "max_epochs: 1")}
    )
    for name in (".ipynb_checkpoints", "a", "b", "__MACOSX"):
        Path("train", name).mkdir(parents=True)
    for name in "ab":
        _arrow("0").save(f"train/{name}/1.png")
    ended = cli(*RUN, "+tasks.label.num_classes=2")
    assert ended.code == 0, ended.err
    assert "note: train: left out, as no class with images: .ipynb_checkpoints, __MACOSX." in ended.out
    Path("train/c").mkdir()
    _arrow("0").save("train/c/1.png")
    refused = cli(*RUN[:-1], "hydra.run.dir=b", "+tasks.label.num_classes=2")
    assert refused.code == 2
    assert "a, b, c" in refused.err


@pytest.fixture
def listed(write):
    """Six images in a table beside them, the fourth cut to half its bytes."""
    rows = "id,photo,dark,number\n" + "".join(f"p{i},img/{i}.jpg,{i % 2},{i}\n" for i in range(6))
    write({"conf/task/turn.yaml": LISTED, "photos/list.csv": rows})
    Path("photos/img").mkdir()
    for i in range(6):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(f"photos/img/{i}.jpg")
    whole = Path("photos/img/3.jpg").read_bytes()
    Path("photos/img/3.jpg").write_bytes(whole[: len(whole) // 2])


def test_damaged_image_is_named_or_left_out_and_marked(cli, listed, capsys, tmp_path, monkeypatch):  # DAT-17
    refused = cli(*RUN)
    assert refused.code == 2
    where = "photos/list.csv, column 'photo', row 4 (line 5): the image 'photos/img/3.jpg' cannot be read ("
    assert where in refused.err
    hint = "Mend it, leave its row out, or train with data.image.on_bad=skip, which leaves out all such rows."
    assert hint in refused.err
    ended = cli(*RUN, "data.image.on_bad=skip")
    assert ended.code == 0, ended.err
    assert (
        "2 rows are left out for every task, their image cannot be read: photos/list.csv, column 'photo'" in ended.out
    )
    assert "no label for any task" not in ended.out
    monkeypatch.chdir(tmp_path / "photos")  # paths are relative to their file, wherever the command is run
    assert run(predict.predict, ["../run", "--data", "list.csv", "--out", "p.csv"]) == 0
    assert capsys.readouterr().err == (
        "note: 1 row has no inputs, as its image cannot be read: list.csv row 4 (line 5).\n"
    )
    table = pl.read_csv("p.csv", infer_schema=False)
    assert table["id"].to_list() == [f"p{i}" for i in range(6)]
    assert [cell is None for cell in table["dark_pred"]] == [i == 3 for i in range(6)]
    assert table.row(3) == ("p3", *[None] * (table.width - 1))


def test_few_images_are_decoded_at_once_for_predictions(cli, listed, monkeypatch):
    assert cli(*RUN, "data.image.on_bad=skip").code == 0
    trained, decoded = load_run("run"), []
    transform = Features.transform

    def counting(features, table, *args, **kwargs):
        decoded.append(table.height)
        return transform(features, table, *args, **kwargs)

    monkeypatch.setattr(Features, "transform", counting)
    rows = pl.DataFrame({"photo": [f"photos/img/{i % 3}.jpg" for i in range(700)]})
    whole = trained.predict(rows, id="")
    monkeypatch.setattr("mtl_cli.trained._CELLS", 600 * 8 * 8)
    assert trained.predict(rows, id="").equals(whole)
    assert decoded == [700, 512, 188]  # whole batches


def test_image_files_that_changed_are_told_and_refused(cli, listed, capsys):
    assert cli(*RUN, "data.image.on_bad=skip").code == 0
    assert run(evaluate.evaluate, ["run", "--out", "m.json"]) == 0
    assert "changed since" not in capsys.readouterr().err
    image = Path("photos/img/1.jpg")
    before = image.read_bytes()
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(image)
    assert run(evaluate.evaluate, ["run", "--out", "m.json", "--overwrite"]) == 0
    told = "photos/list.csv, column 'photo': image files changed since the training (other sizes): the numbers are not "
    assert told in capsys.readouterr().err
    refused = cli("resume=run", "trainer.max_epochs=2")
    assert refused.code == 2
    assert "resume: run: the data have changed since the run began (fingerprint " in refused.err
    assert "Put the image files of column 'photo' back as they were, or start a new run." in refused.err
    image.write_bytes(before)  # at another time: a copy would have another one, too
    assert cli("resume=run", "trainer.max_epochs=2").code == 0
