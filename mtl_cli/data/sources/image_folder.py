"""A folder of images for each class."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from mtl_cli.data.images import SUFFIXES
from mtl_cli.data.sources._files import File, Fingerprint, check_paths, existing_folder, read_files
from mtl_cli.data.sources.base import Source
from mtl_cli.data.table import Table
from mtl_cli.errors import DataError, Problem, did_you_mean, listed
from mtl_cli.registry import SOURCES

_LITTER = ("thumbs.db", "desktop.ini")  # of Windows; what other systems leave begins with a dot or underscores
_SHOWN = 5  # kinds of files that are left out
_SPLIT = re.compile(r"train(ing)?|val(id(ation)?)?|dev|test(ing)?", re.IGNORECASE)


@SOURCES.register("image_folder")
class ImageFolderSource(Source):
    """Image files, each class in a folder of its own: ``photos/cat/7.jpg``.

    The columns are ``image`` (the input), ``label`` (the folder's name) and ``file`` (the path below the folder; no
    input, but good for ``data.id``). Images may lie deeper in the folder of their class; images beside the folders have
    no label. A folder without images is left out with a note, and so are other files. What begins with a dot or two
    underscores is not looked at, nor is what Windows leaves in folders (``Thumbs.db``, ``desktop.ini``). Rows are in
    the order of their paths. Reading images needs Pillow (the extra ``images``).

    Args:
        path: One folder or several, relative to the current one; the split comes from ``data.split``.
        train: Folders whose images are the training rows.
        val: Folders whose images are the validation rows.
        test: Folders whose images are the test rows.
        folders: Which folders in them are classes; null: all with images.

    Raises:
        ConfigError: The options contradict each other.
    """

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        folders: list[str] | None = None,
    ) -> None:
        self._folders = check_paths({"path": path, "train": train, "val": val, "test": test})
        self._classes = folders
        self._labelled = True

    @classmethod
    def further_rows(cls, path: str, options: Mapping[str, Any]) -> Source:
        """All images: which folders are classes, and whether one may be a split, is no question of rows to predict."""
        del options
        source = cls(path=path)
        source._labelled = False
        return source

    def read(self) -> Table:
        """Lists all images, in the order train, val, test and as listed. They are opened later.

        Raises:
            DataError: Absent folders, folders without images, or a folder that may be a split.
        """
        notes: list[str] = []
        table = read_files(self._folders, lambda name, split, add: [self._list(name, split, add, notes)])
        return replace(table, notes=tuple(notes), types={"image": "image", "file": "name"})

    def _list(self, name: str, split: str | None, fingerprint: Fingerprint, notes: list[str]) -> File:
        folder = existing_folder(name)
        paths, others = _files(folder)
        inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        filled = {path.parts[0] for path in paths if len(path.parts) > 1}
        if self._classes is not None:
            there, wanted = {_form(one) for one in filled}, {_form(one) for one in self._classes}
            absent = [one for one in self._classes if _form(one) not in there]
            notes += [f"{name}: no images of '{one}'. {did_you_mean(one, filled)}" for one in absent]
            paths, others = (
                [path for path in some if len(path.parts) == 1 or _form(path.parts[0]) in wanted]
                for some in (paths, others)
            )
        elif self._labelled:
            _check_splits(name, filled)
        if not paths:
            got = f", got {_kinds(others)}" if others else ""
            known = f"Known: {', '.join(SUFFIXES)}. Classes are folders in it."
            raise DataError(Problem(name, f"holds no images{got}", known))
        left_out = [one for one in inside if one not in {path.parts[0] for path in paths}]
        if left_out:
            notes.append(f"{name}: left out, as no class with images: {', '.join(left_out)}.")
        if others:
            plural = "" if len(others) == 1 else "s"
            notes.append(f"{name}: {len(others)} file{plural} left out, as no images: {_kinds(others)}.")
        for path in paths:
            content = (folder / path).read_bytes()
            fingerprint(f"{path.as_posix()} {len(content)}\n".encode())
            fingerprint(content)
        texts = [path.as_posix() for path in paths]
        labels = [path.parts[0] if len(path.parts) > 1 else None for path in paths]
        frame = pl.DataFrame(
            {"image": texts, "label": labels, "file": texts}, dict.fromkeys(("image", "label", "file"), pl.String)
        )
        return File(name, split, frame, lines=False, folder=str(folder), places=texts)


def _form(name: str) -> str:
    """A name in one Unicode form: macOS has letters and accents apart, a configuration hardly."""
    return unicodedata.normalize("NFC", name)


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Paths below a folder of all images in it that are not hidden, and of all other files, both in order."""
    images, others, seen = list[Path](), list[Path](), set[Path]()
    for here, inside, files in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        if real in seen:  # a link to a folder above it
            inside.clear()
            continue
        seen.add(real)
        inside[:] = [name for name in inside if not name.startswith((".", "__"))]
        for name in files:
            if not name.startswith((".", "__")) and name.lower() not in _LITTER:
                path = Path(here, name)
                is_image = path.suffix.lower() in SUFFIXES and path.is_file()
                (images if is_image else others).append(path.relative_to(folder))
    return sorted(images), sorted(others)


def _kinds(files: Sequence[Path]) -> str:
    """How many files there are of each suffix, the most frequent ones first: ``14 .avif, 12 .txt``."""
    counts = Counter(path.suffix.lower() or "without suffix" for path in files)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return listed([f"{count} {suffix}" for suffix, count in ordered], _SHOWN)


def _check_splits(name: str, folders: set[str]) -> None:
    """A folder called `test` beside the classes is hardly a class, and never made one in silence."""
    splits = sorted(one for one in folders if _SPLIT.fullmatch(one))
    if not splits:
        return
    classes = sorted(folders - set(splits))
    if not classes:
        train = next((one for one in splits if one.lower().startswith("train")), splits[0])
        what, hint = (
            f"holds folders of splits ({', '.join(splits)})",
            f"Write data.train={name}/{train} and so on.",
        )
        raise DataError(Problem(name, what, hint))
    what = f"holds a folder '{splits[0]}', which may be a class or a split, beside {', '.join(classes[:10])}"
    raise DataError(Problem(name, what, f"Name the classes: data.folders=[{','.join(classes[:10])}]."))
