"""Image columns: arrays in the table or paths of files, to pixels that stay as small as they are stored."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from mtl_cli.data.table import Pieces, rows_in
from mtl_cli.errors import ConfigError, DataError, Problem
from mtl_cli.paths import expanded
from mtl_cli.schema import ImageOptions
from mtl_cli.types import Block, Column

SUFFIXES = (  # of what every Pillow reads: .avif only one that was built with it
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
VERSION = 2  # of how files become pixels
_MEASURED = 1000  # image files that mean and deviation are taken from
_SIZES_AT_ONCE = 1024  # of image files
_CELLS_AT_ONCE = 1 << 22  # of pixels in the table that are measured: in 64 bits they take 16 times their bytes
_GOLDEN = (5**0.5 - 1) / 2  # whose multiples are spread evenly over [0, 1) modulo 1
_OTHER_SCALE = 16  # times as far as in training, or a 16th of it: 255 and 1 are two scales, 255 and 200 are not
_SHOWN = 5  # unreadable images named one by one
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, IndexError, struct.error)  # by what Pillow says that a file is
_ORIENTATION = 0x112  # in the EXIF: how the camera was held
_PIXEL_KINDS = {"b": "truth values", "u": "whole numbers", "i": "whole numbers", "f": "floats"}  # by NumPy's kind
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


@dataclass(frozen=True)
class ImageInput:
    """An image column as it was in training.

    Args:
        name: The column.
        shape: (H, W, channels) of every image.
        mean: Of each channel over the training rows, in the units of the pixels.
        std: The same for the standard deviation; 1 where all pixels are equal.
        options: How files become images.
        version: Which way of ``decode`` they are read.
        files: Of image files what ``digest_of_sizes`` says; empty for arrays in the table, and of runs of before.
        pixels: What the pixels of the training rows are (``whole numbers``); empty of runs of before.
        largest: How far from 0 they reach.
    """

    name: str
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: ImageOptions
    version: int = 1  # of runs of before
    files: str = ""
    pixels: str = ""
    largest: float = 0.0
    type: str = "image"

    @property
    def block(self) -> Block:
        """What an encoder has to know."""
        return Block(self.name, "image", self.shape, mean=self.mean, std=self.std)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "options": vars(self.options)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> ImageInput:
        """The column that ``to_json`` described."""
        lists = {key: tuple(saved[key]) for key in ("shape", "mean", "std")}
        return cls(**{**saved, **lists, "options": ImageOptions(**saved["options"])})

    def measured_as(self, other: ImageInput) -> ImageInput:
        """This column in the pixels of a model that was trained on ``other``."""
        same = replace(self, mean=other.mean, std=other.std, version=other.version)
        return replace(same, pixels=other.pixels, largest=other.largest) if other.pixels else same


def fit_image_files(column: Column, train_rows: np.ndarray, options: ImageOptions) -> tuple[ImageInput, list[str]]:
    """Finds the size of images in files, and the mean and deviation of their pixels in (some of) the training rows.

    Where the options do not say it, images are colours if one of those measured has colours.

    Returns:
        The column, and notes.

    Raises:
        DataError: The column holds no images, or the first of them cannot be read.
        ConfigError: Pillow is not installed.
    """
    train = train_rows[column.values.is_not_null().to_numpy()[train_rows]]
    first = _read_first(column, train, options)
    found: dict[int, np.ndarray] = {}

    def keep(place: int, image: Decoded) -> None:
        found[place] = image.pixels

    _read_files(column, _spread(train, _MEASURED), first.shape[:2], options, options.channels, keep)
    images = [found[place] for place in sorted(found)]
    height, width, _ = first.shape
    shape = height, width, max(image.shape[2] for image in (first, *images))
    measured, notes = _measured(
        column, shape, lambda: (np.broadcast_to(image, (1, *shape)) for image in images), options
    )
    return replace(measured, files=digest_of_sizes(column, options)), notes


def digest_of_sizes(column: Column, options: ImageOptions) -> str:
    """sha256 (hex) over the bytes that each image file has, row by row: which files they are, wherever they lie.

    Contents are not read: that would take as long as a pass over the data. Times of change differ between copies.
    """
    paths = column.values.to_list()
    parts = [paths[first : first + _SIZES_AT_ONCE] for first in range(0, len(paths), _SIZES_AT_ONCE)]

    def sizes(cells: list[str | None]) -> bytes:
        return np.array([-1 if cell is None else _file_size(_path(cell, options)) for cell in cells], "<i8").tobytes()

    hasher = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # a file system far away answers several at a time
        for part in pool.map(sizes, parts):
            hasher.update(part)
    return hasher.hexdigest()


def _file_size(path: Path) -> int:
    """Bytes; -1 if there is no such file."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some rows, from all over them: classes and sources often stand one below the other.

    One from each of as many stretches of equal length, at another place in each, as rows may also take turns.

    Example:
        >>> _spread(np.arange(12), 4).tolist(), _spread(np.arange(3), 4).tolist()
        ([0, 4, 6, 11], [0, 1, 2])
    """
    count = min(len(rows), most)
    edges = np.arange(count + 1) * len(rows) // max(count, 1)
    inside = np.arange(count) * _GOLDEN % 1 * np.diff(edges)
    chosen: np.ndarray = rows[edges[:-1] + inside.astype(np.int64)]
    return chosen


def fit_image_arrays(pieces: Pieces, train_rows: np.ndarray, options: ImageOptions) -> tuple[ImageInput, list[str]]:
    """The same for arrays of pixels in the table, some rows at a time.

    How many at a time changes no more than the last digits of the deviation.

    Raises:
        DataError: The column holds no images, or pixels that are not finite.
    """
    first = next(pieces())[1]
    shape = _array_shape(first)
    count = max(_CELLS_AT_ONCE // max(math.prod(shape), 1), 1)

    def training() -> Iterator[np.ndarray]:
        for start, column in pieces():
            rows = rows_in(train_rows, start, len(column.values))
            for here in range(0, len(rows), count):
                some = column.values.gather(rows[here : here + count])
                pixels = some.drop_nulls().to_numpy().reshape(-1, *shape)
                _check_finite(column, pixels)
                yield pixels

    return _measured(first, shape, training, options)


def _measured(
    column: Column, shape: tuple[int, int, int], pieces: Callable[[], Iterable[np.ndarray]], options: ImageOptions
) -> tuple[ImageInput, list[str]]:
    """The column, its pixels (n, H, W, channels) in one or more parts measured; and the note that they say nothing."""
    pixels, total, kind, largest = 0, np.zeros(shape[2]), "", 0.0
    for part in pieces():
        pixels += part.size // shape[2]
        kind, largest = _kind_of(part), max(largest, _reach(part))
        total = total + part.sum((0, 1, 2), dtype=np.float64)
    mean, squares = total / max(pixels, 1), np.zeros(shape[2])
    for part in pieces():
        centred = part - mean
        squares = squares + (centred * centred).sum((0, 1, 2))
    std = np.sqrt(squares / max(pixels, 1))
    notes = []
    if pixels and not std.any():
        images = f"{pixels // (shape[0] * shape[1]):,} training images"
        notes.append(f"{column.head}: all pixels of {images} are the same: the column says nothing.")
    std = np.where(std > 0, std, 1.0)
    found = ImageInput(column.name, shape, tuple(mean.tolist()), tuple(std.tolist()), options, VERSION)
    return replace(found, pixels=kind, largest=largest), notes


def image_values(
    column: Column,
    image: ImageInput,
    unreadable: list[int] | None,
    greyed: list[int] | None = None,
    expected: Collection[int] | None = None,
) -> np.ndarray:
    """The pixels of all rows.

    Args:
        column: N cells: arrays, or paths of files.
        image: What the images have to be.
        unreadable: Gets the rows whose image is missing or damaged; None refuses them. They become black, as do the
            rows of sources that do not have the column.
        greyed: Gets the rows whose image has colours and is read as grey, which nobody asked for.
        expected: The only rows whose image may be missing or damaged; None: that of any may.

    Returns:
        (N, H, W, channels) uint8 or float32.

    Raises:
        DataError: An image is missing, damaged, of another size, or in pixels of another scale; names the first ones.
    """
    values = column.values
    absent = values.is_null().to_numpy()
    if values.dtype == pl.String:
        rows = np.flatnonzero(~absent)
        filled = np.zeros((len(rows), *image.shape), np.uint8)
        unasked = image.options.channels is None and image.shape[2] == 1

        def keep(place: int, found: Decoded) -> None:
            filled[place] = found.pixels
            if unasked and found.coloured and greyed is not None:
                greyed.append(int(rows[place]))

        bad = _read_files(column, rows, image.shape[:2], image.options, image.shape[2], keep, image.version)
    elif values.dtype == pl.Null:  # of sources that do not have the column
        filled, bad = np.zeros((0, *image.shape), np.uint8), {}
    else:
        if _array_shape(column) != image.shape:
            what = f"must hold images of {_size(image.shape)}, got {_size(_array_shape(column))}"
            raise DataError(Problem(column.head, what))
        filled, bad = values.drop_nulls().to_numpy().reshape(-1, *image.shape), {}
        _check_finite(column, filled)
    _check_scale(column, image, filled)
    for row in np.flatnonzero(column.missing).tolist():
        bad[row] = "is missing"
    allowed: Collection[int] = () if unreadable is None else bad if expected is None else expected
    if refused := {row: what for row, what in bad.items() if row not in allowed}:
        raise DataError(_damages(column, refused))
    if unreadable is not None:
        unreadable += sorted(bad)
    if not absent.any():
        return filled if filled.dtype == np.uint8 else np.ascontiguousarray(filled, np.float32)
    everything = np.zeros((len(values), *image.shape), np.uint8 if filled.dtype == np.uint8 else np.float32)
    everything[~absent] = filled
    return everything


def is_image(dtype: pl.DataType) -> bool:
    """Whether a column's cells are arrays of two or three axes of numbers."""
    if not isinstance(dtype, pl.Array):
        return False
    inner = dtype
    while isinstance(inner, pl.Array):
        inner = inner.inner  # type: ignore[assignment]
    return len(dtype.shape) in (2, 3) and (inner.is_numeric() or inner == pl.Boolean)


def _array_shape(column: Column) -> tuple[int, int, int]:
    dtype = column.values.dtype
    if not is_image(dtype):
        what = f"must hold images (arrays of numbers, or paths of files), got type {dtype}"
        raise DataError(Problem(column.head, what))
    height, width, *channels = dtype.shape  # type: ignore[attr-defined]
    return height, width, channels[0] if channels else 1


def _read_first(column: Column, rows: Sequence[int] | np.ndarray, options: ImageOptions) -> np.ndarray:
    """The first training image that can be read: it says the size of all."""
    bad = {}
    for row in rows:
        try:
            return decode(_path(column.values[int(row)], options), options, options.channels).pixels
        except _DAMAGED as error:
            bad[int(row)] = _damage(column, int(row), error, options)
            if options.on_bad == "error":
                break
    raise DataError(_damages(column, bad) if bad else Problem(column.head, "holds no image in the training rows"))


def _read_files(
    column: Column,
    rows: np.ndarray,
    size: tuple[int, ...],
    options: ImageOptions,
    channels: int | None,
    keep: Callable[[int, Decoded], None],
    version: int = VERSION,
) -> dict[int, str]:
    """Gives ``keep`` the image of each of some rows and its place among them; returns what is wrong with the others."""
    paths = column.values.gather(rows).to_list()
    bad: dict[int, str] = {}

    def read(place: int) -> None:
        row = int(rows[place])
        try:
            found = decode(_path(paths[place], options), options, channels, version)
        except _DAMAGED as error:
            bad[row] = _damage(column, row, error, options)
            return
        if found.pixels.shape[:2] != size:
            hint = "Bring it to that size, as a training with data.image.size does with all."
            own = " x ".join(map(str, found.pixels.shape[:2]))
            what = f"the image must be {size[0]} x {size[1]} as the first one, got {own} in '{paths[place]}'"
            raise DataError(Problem(column.where(row), what, hint))
        keep(place, found)

    with ThreadPoolExecutor() as pool:  # decoding is outside of Python's lock
        for _ in pool.map(read, range(len(rows))):
            pass
    return bad


class Decoded(NamedTuple):
    """An image of a file: (H, W, channels) uint8, and whether it is stored in colours."""

    pixels: np.ndarray
    coloured: bool


def decode(path: Path, options: ImageOptions, channels: int | None, version: int = VERSION) -> Decoded:
    """One image file, upright, in the size and channels asked for; None: as many channels as it has itself.

    Transparent pixels show a white ground, and of several frames or pages the first is read. Version 1 did not look
    at transparency, and cut colours of 16 bits to 8.

    Raises:
        ConfigError: Pillow is not installed.
        OSError: No such file, or it is damaged, of which Pillow says any of ``_DAMAGED``.
        ValueError: Its pixels are not of 8 bits, or more than Pillow takes for harmless.
    """
    try:
        from PIL import Image  # an extra: only image files need it
    except ImportError:
        what = "image files need Pillow, which is not installed"
        raise ConfigError(Problem("data.inputs", what, "pip install 'mtl-train[images]'.")) from None
    try:
        with Image.open(path) as opened:
            if opened.mode[0] in "IF" or (version > 1 and _is_deep(opened.tile)):
                raise ValueError(f"pixels of more than 8 bits, mode {opened.mode}")
            opened.load()
            # exif_transpose of Pillow also writes the other tags anew, which fails for odd ones.
            turn = _UPRIGHT.get(opened.getexif().get(_ORIENTATION, 1))
            image: Image.Image = opened if turn is None else opened.transpose(Image.Transpose[turn])
            coloured = image.mode not in ("L", "1", "LA")
            channels = channels or (3 if coloured else 1)
            if version > 1 and image.has_transparency_data:
                ground = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(ground, image.convert("RGBA"))
            image = image.convert("L" if channels == 1 else "RGB")
            if options.size is not None:
                image = image.resize((options.size[1], options.size[0]), Image.Resampling.BILINEAR)
            pixels: np.ndarray = np.asarray(image, np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(str(error)) from None
    return Decoded(pixels.reshape(image.height, image.width, channels), coloured)


def _is_deep(tiles: Iterable[tuple[Any, ...]]) -> bool:
    """Whether a file has colours of more than 8 bits, which Pillow would cut to 8: only how it decodes them tells it.

    Example:
        >>> [_is_deep([("zip", (0, 0, 1, 1), 0, raw)]) for raw in ("RGB;16B", "RGB", "BGR;16")]  # the last: of 5, 6, 5
        [True, False, False]
        >>> [_is_deep([("ppm_plain", (0, 0, 1, 1), 0, how)]) for how in ("1;I", ("RGB", 255), ("RGB", 1023))]
        [False, False, True]
    """
    return any(
        re.search(r";16[BLN]", str(how)) is not None
        or (codec.startswith("ppm") and isinstance(how, tuple) and how[1] > 255)
        for codec, _, _, how in tiles
    )


def _path(cell: Any, options: ImageOptions) -> Path:
    path = expanded(str(cell))
    return path if options.root is None else expanded(options.root) / path


def _damage(column: Column, row: int, error: Exception, options: ImageOptions) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f"there is no image file '{column.values[row]}', looked for {_path(column.values[row], options).absolute()}"
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the image '{column.values[row]}' cannot be read ({reason})"


def _damages(column: Column, bad: Mapping[int, str]) -> list[Problem]:
    hint = "Mend it, leave its row out, or train with data.image.on_bad=skip, which leaves out all such rows."
    shown = sorted(bad)[:_SHOWN]
    problems = [Problem(column.where(row), bad[row], hint) for row in shown]
    if len(bad) > _SHOWN:
        problems.append(Problem(column.head, f"{len(bad) - _SHOWN} more images cannot be read"))
    return problems


def _check_finite(column: Column, pixels: np.ndarray) -> None:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DataError(Problem(column.head, "holds pixels that are not finite (NaN or infinite)"))


def _check_scale(column: Column, image: ImageInput, pixels: np.ndarray) -> None:
    """Refuses floats from 0 to 1 of a model for whole numbers from 0 to 255, and the other way round.

    What is stored in another way is not on another scale for that: floats from 0 to 255 are read as bytes are. Numbers
    of one kind are not compared: images may be darker or brighter than all of the training.
    """
    kind = _kind_of(pixels)
    if not image.pixels or kind == image.pixels:
        return
    reach = _reach(pixels)
    least, most = sorted((reach, image.largest))
    if least and most >= _OTHER_SCALE * least:  # black is black on any scale
        here, there = f"{kind} up to {reach:g}", f"{image.pixels} up to {image.largest:g}"
        what = f"holds pixels on another scale than the model was trained on, got {here} instead of {there}"
        hint = "Bring them to that scale: 0 to 255 divided by 255 is 0 to 1."
        raise DataError(Problem(column.head, what, hint))


def _kind_of(pixels: np.ndarray) -> str:
    return _PIXEL_KINDS[pixels.dtype.kind]


def _reach(pixels: np.ndarray) -> float:
    """The largest distance from 0."""
    return max(float(pixels.max()), -float(pixels.min())) if pixels.size else 0.0


def _size(shape: Sequence[int]) -> str:
    height, width, channels = shape
    return f"{height} x {width} with {channels} channel{'s' * (channels != 1)}"
