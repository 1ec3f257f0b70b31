"""The data sets that come with scikit-learn: real data on every machine, without a download."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl

from mtl_cli.data.sources.base import Source
from mtl_cli.data.sources.table import TableSource
from mtl_cli.data.table import Part, Table
from mtl_cli.registry import SOURCES

_INK = 4  # of 16: what is darker counts as written, what is lighter as the blur of the scanner


@SOURCES.register("sklearn")
class SklearnSource(Source):
    """Data sets embedded in scikit-learn.

    Columns:

    * ``digits`` (1,797 scanned digits): ``pixels`` (64 numbers 0..16, the 8x8 image row by row), ``digit`` (0..9),
      and three more that are computed from these: ``even`` (1 if the digit is even), ``ink`` (mean of the pixels,
      0..16), ``width`` (number of the 8 image columns that hold a pixel of at least 4).
    * ``iris`` (150): 4 lengths in cm, and ``species`` (text).
    * ``wine`` (178): 13 measurements, and ``cultivar`` (0..2).
    * ``breast_cancer`` (569): 30 measurements, and ``diagnosis`` (``malignant`` or ``benign``).
    * ``diabetes`` (442): 10 measurements, standardised by its publishers, and ``progression`` (25..346).
    * ``linnerud`` (20): ``Chins``, ``Situps``, ``Jumps``, and the three targets ``Weight``, ``Waist``, ``Pulse``.

    Feature columns are named as in scikit-learn (``sepal length (cm)``).

    Args:
        dataset: Which one.

    Example:
        >>> SklearnSource(dataset="digits").read().frame.columns
        ['pixels', 'digit', 'even', 'ink', 'width']
    """

    def __init__(
        self, *, dataset: Literal["digits", "iris", "wine", "breast_cancer", "diabetes", "linnerud"] = "digits"
    ) -> None:
        self._dataset = dataset

    @classmethod
    def further_rows(cls, path: str, options: Mapping[str, Any]) -> Source:
        """Rows in a table's file."""
        del options
        return TableSource(path=path)

    def read(self) -> Table:
        """Reads the data set from the installed scikit-learn."""
        import sklearn  # imported late: it takes a second, and most runs read files
        import sklearn.datasets

        bunch = getattr(sklearn.datasets, f"load_{self._dataset}")()
        frame = _digits(bunch) if self._dataset == "digits" else _measurements(self._dataset, bunch)
        key = f"sklearn:{self._dataset}:{sklearn.__version__}"
        return Table(
            frame,
            (Part(self._dataset, 0, frame.height, lines=False),),
            fingerprint=hashlib.sha256(key.encode()).hexdigest(),
        )


def _digits(bunch: Any) -> pl.DataFrame:
    pixels = bunch.data.astype(np.float32)
    inked = (pixels.reshape(-1, 8, 8) >= _INK).any(axis=1)
    return pl.DataFrame(
        {
            "pixels": pl.Series(pixels, dtype=pl.Array(pl.Float32, 64)),
            "digit": bunch.target.astype(np.int64),
            "even": (bunch.target % 2 == 0).astype(np.int8),
            "ink": pixels.mean(axis=1, dtype=np.float64),
            "width": inked.sum(axis=1).astype(np.int64),
        }
    )


def _measurements(dataset: str, bunch: Any) -> pl.DataFrame:
    columns = {str(name): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    if dataset == "linnerud":
        return pl.DataFrame({**columns, **{str(n): bunch.target[:, i] for i, n in enumerate(bunch.target_names)}})
    name = {"iris": "species", "wine": "cultivar", "breast_cancer": "diagnosis", "diabetes": "progression"}[dataset]
    target = bunch.target
    if dataset in ("iris", "breast_cancer"):
        target = [str(bunch.target_names[i]) for i in target]
    return pl.DataFrame({**columns, name: target})
