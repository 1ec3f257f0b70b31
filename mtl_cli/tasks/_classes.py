"""Class labels: one spelling for each class, wherever it was read from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from mtl_cli.errors import DataError, Problem, did_you_mean
from mtl_cli.types import Column


def label_texts(values: pl.Series) -> pl.Series:
    """Labels as text. Numbers are spelled one way (``1``, ``1.0`` and ``1.00`` are one class), text stays as it is.

    Codes with leading zeros (``007``) are text: they are no numbers that happen to be padded.

    Example:
        >>> label_texts(pl.Series([1.0, None, 0.0])).to_list()
        ['1', None, '0']
        >>> label_texts(pl.Series(["1.0", "0", "2.5"])).to_list()
        ['1', '0', '2.5']
        >>> label_texts(pl.Series(["007", "7"])).to_list()
        ['007', '7']
    """
    if values.dtype == pl.String:
        known = values.drop_nulls()
        padded = known.str.contains(r"^[+-]?0\d").any()
        numbers = known.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$").all()
        if padded or not numbers or len(known) == 0:
            return values
        if not known.str.contains("[eE]").any():  # on the text: a float holds 15 digits, an id may have more
            return _plain_numbers(values)
        values = values.cast(pl.Float64)
    if values.dtype.is_float():
        return pl.Series(
            values.name, [None if v is None or v != v else _float_text(v) for v in values.to_list()], pl.String
        )
    return values.cast(pl.String)


def sort_classes(labels: Sequence[str]) -> list[str]:
    """Distinct labels in their natural order: as numbers if all are numbers, else as text."""
    distinct = sorted(set(labels))  # first as text, so that 007 and 7 come in one order in every process
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def class_codes(column: Column, classes: Sequence[str]) -> np.ndarray:
    """Positions of the labels in ``classes`` as (N,) float32, NaN where missing.

    Raises:
        DataError: Labels that are not among the classes, each with the place of its first row.
    """
    texts = label_texts(column.values)
    known = label_texts(pl.Series(list(classes), dtype=pl.String))
    codes = texts.replace_strict(known, pl.Series(range(len(known)), dtype=pl.Int64), default=None)
    strangers = texts.is_not_null() & codes.is_null()
    if strangers.any():
        rows = strangers.arg_true().to_list()
        first = {texts[r]: r for r in reversed(rows)}
        problems = [
            Problem(
                column.where(row),
                f"class {label!r} is not among the classes {_shown(classes)}, which are those of the training rows",
                f"{did_you_mean(str(label), classes)} Correct the cell, list the task's `classes`, "
                "or name the value in its `missing_label`.",
            )
            for label, row in sorted(first.items(), key=lambda item: item[1])[:5]
        ]
        raise DataError(problems)
    return codes.cast(pl.Float32).fill_null(float("nan")).to_numpy().copy()


def fit_classes(column: Column, train: np.ndarray, declared: Sequence[str] | None) -> list[str]:
    """The classes: as declared, or those of the training rows in natural order."""
    if declared is not None:
        return list(declared)
    texts = label_texts(column.values)
    return sort_classes([t for t in texts.gather(train).unique().to_list() if t is not None])


def describe_classes(targets: np.ndarray, classes: Sequence[str]) -> str:
    """The share of each class, the most frequent ones first when there are many."""
    counts = np.bincount(targets.astype(np.int64), minlength=len(classes))
    order = range(len(classes)) if len(classes) <= 5 else np.argsort(-counts, kind="stable")[:4]
    text = ", ".join(f"{classes[i]}: {counts[i] / len(targets):.0%}" for i in order)
    return text if len(classes) <= 5 else f"{text}, {len(classes) - 4} more"


def _plain_numbers(values: pl.Series) -> pl.Series:
    """Numbers without an exponent in their shortest form, digit for digit: no plus, no zeros that say nothing."""
    text = values.str.strip_prefix("+").str.replace(r"^(-?)\.", "${1}0.")
    text = text.str.replace(r"\.0*$", "").str.replace(r"(\.\d*[1-9])0+$", "${1}")
    return text.str.replace(r"^-0$", "0")


def _float_text(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.15g}"


def _shown(classes: Sequence[str]) -> str:
    return ", ".join(classes[:12]) + (f" and {len(classes) - 12} more" if len(classes) > 12 else "")
