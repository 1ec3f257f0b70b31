"""Folders of images: what is a class, what is not, and where each row comes from."""

from pathlib import Path

import pytest

from mtl_cli.errors import DataError
from mtl_cli.registry import SOURCES


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Makes files, whose content no source looks at."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(name.encode())

    return make


def _read(**options):
    return SOURCES.build("image_folder", **options).read()


def test_folder_is_the_class_and_the_path_names_the_row(tree):
    tree("p/b/2.png", "p/a/1.JPG", "p/a/deep/0.png", "p/a/notes.txt", "p/loose.png")
    table = _read(path="p")
    assert table.frame.rows() == [
        ("a/1.JPG", "a", "a/1.JPG"), ("a/deep/0.png", "a", "a/deep/0.png"), ("b/2.png", "b", "b/2.png"),
        ("loose.png", None, "loose.png"),
    ]  # fmt: skip
    assert table.where("label", 1) == "p, column 'label', row 2 (a/deep/0.png)"
    assert table.resolve_paths("image").to_list()[0] == "p/a/1.JPG"
    assert table.types == {"image": "image", "file": "name"}
    pieces = list(SOURCES.build("image_folder", path="p").chunks(2))
    assert [piece.where("label", 0) for piece in pieces] == [
        "p, column 'label', row 1 (a/1.JPG)", "p, column 'label', row 3 (b/2.png)",
    ]  # fmt: skip
    assert pieces[1].resolve_paths("image").to_list() == ["p/b/2.png", "p/loose.png"]


def test_linked_folders_are_classes_and_circles_are_no_end(tree, tmp_path):
    tree("elsewhere/1.png", "p/dog/2.png")
    Path("p/cat").symlink_to(tmp_path / "elsewhere")
    Path("p/dog/up").symlink_to(tmp_path / "p")
    assert _read(path="p").frame["image"].to_list() == ["cat/1.png", "dog/2.png"]


def test_hidden_folders_and_folders_without_images_are_told(tree):  # DAT-20
    tree("p/.ipynb_checkpoints/x.png", "p/a/1.png", "p/b/1.png", "p/__MACOSX/._1.png", "p/empty/notes.txt")
    table = _read(path="p")
    assert table.frame["label"].to_list() == ["a", "b"]
    assert table.notes == (
        "p: left out, as no class with images: .ipynb_checkpoints, __MACOSX, empty.",
        "p: 1 file left out, as no images: 1 .txt.",
    )


def test_files_that_are_no_images_are_counted_and_those_of_the_system_are_not(tree):
    tree("p/a/1.jfif", "p/a/2.avif", "p/a/3.AVIF", "p/a/x", "p/b/1.png", "p/b/.DS_Store", "p/b/Thumbs.db", "p/c/4.heic")
    Path("p/b/2.png").symlink_to("nowhere.png")
    table = _read(path="p", folders=["a", "b"])
    assert table.frame["image"].to_list() == ["a/1.jfif", "b/1.png"]
    assert table.notes[-1] == "p: 4 files left out, as no images: 2 .avif, 1 .png, 1 without suffix."
    assert _read(path="p").notes[-1].startswith("p: 5 files left out")
    with pytest.raises(DataError, match=r"^p/c: holds no images, got 1 \.heic\. Known: \.png"):
        _read(path="p/c")


def test_folder_of_a_split_is_never_a_class_in_silence(tree):  # DAT-20
    tree("p/a/1.png", "p/b/1.png", "p/test/1.png")
    with pytest.raises(DataError) as caught:
        _read(path="p")
    assert str(caught.value) == (
        "p: holds a folder 'test', which may be a class or a split, beside a, b. Name the classes: data.folders=[a,b]."
    )
    assert _read(path="p", folders=["a", "b"]).frame["label"].to_list() == ["a", "b"]
    assert _read(path="p", folders=["a", "b", "test"]).frame.height == 3
    assert _read(path="p", folders=["a", "bb"]).notes[0] == "p: no images of 'bb'. Did you mean 'b'?"
    tree("q/train/a/1.png", "q/val/a/1.png")
    with pytest.raises(DataError, match=r"^q: holds folders of splits \(train, val\). Write data.train=q/train"):
        _read(path="q")
    table = _read(train="q/train", val="q/val")
    assert table.given_split.to_list() == ["train", "val"]
    assert table.resolve_paths("image").to_list() == ["q/train/a/1.png", "q/val/a/1.png"]


def test_folder_in_another_unicode_form_is_the_class_that_is_named(tree):
    tree("p/cafe\u0301/1.png", "p/the/1.png")
    table = _read(path="p", folders=["caf\u00e9"])
    assert table.frame["image"].to_list() == ["cafe\u0301/1.png"]
    assert table.notes == ("p: left out, as no class with images: the.",)


def test_absent_and_empty_folders_are_named(tree, tmp_path):
    tree("photos/a.txt")
    with pytest.raises(DataError) as caught:
        _read(path=["photo", "photos", "photos/a.txt"])
    kinds = ".png, .jpg, .jpeg, .jpe, .jfif, .bmp, .gif, .tif, .tiff, .webp, .ppm, .pgm, .pbm, .pnm"
    assert str(caught.value) == (
        f"photo: no such folder, looked for {tmp_path}/photo. Did you mean 'photos'?\n"
        f"photos: holds no images, got 1 .txt. Known: {kinds}. Classes are folders in it.\n"
        f"photos/a.txt: is a file, looked at {tmp_path}/photos/a.txt. Name the folder that it is in."
    )


def test_another_image_of_the_same_size_is_another_data_set(tree):
    tree("p/a/1.png", "p/b/1.png")
    before = _read(path="p").fingerprint
    assert before == _read(path="p").fingerprint
    Path("p/a/1.png").write_bytes(b"p/a/2.png")
    assert _read(path="p").fingerprint != before


def test_further_rows_are_all_images_whichever_folders_were_classes_and_splits(tree):
    tree("p/2.png", "p/zebra/1.png", "p/test/1.png", "q/test/1.png")
    load, options = SOURCES.load("image_folder").further_rows, {"train": "train", "val": "val", "folders": ["cat"]}
    assert load("p", options).read().frame["file"].to_list() == ["2.png", "test/1.png", "zebra/1.png"]
    assert load("q", {**options, "folders": None}).read().frame.height == 1
