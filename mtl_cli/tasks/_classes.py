"""Class labels: one spelling for each class, wherever it was read from."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from mtl_cli.errors import DataError, Problem, did_you_mean, first_few, listed, other_form
from mtl_cli.spelling import Spellings, meanings, shortest
from mtl_cli.tasks.base import Kind, percent
from mtl_cli.types import Column

_NAMED = 1000  # unknown classes that are named: more of them nobody lists by hand

#: Where the classes come from, in the words of messages.
FOUND = "which are those of the training rows"
DECLARED = "which are the task's `classes`"
TRAINED = "which are those that it was trained on"


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
    if values.dtype.is_decimal():
        values = values.cast(pl.String)
    if len(values) == 0 or not (values.dtype == pl.String or values.dtype.is_float()):
        return values.cast(pl.String)
    distinct = values.unique()  # classes are few, rows are many
    texts = _one_spelling(distinct)
    return values if texts is distinct else values.replace_strict(distinct, texts, return_dtype=pl.String)


def _one_spelling(values: pl.Series) -> pl.Series:
    """Text or floats as text; the values themselves if they stay as they are."""
    if values.dtype == pl.String:
        known = values.drop_nulls()
        padded = known.str.contains(r"^[+-]?0\d").any()
        numbers = known.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$").all()
        if padded or not numbers or len(known) == 0:
            return values
        if not known.str.contains("[eE]").any():  # on the text: a float holds 15 digits, an id may have more
            plain = shortest(values)
            return values if plain.equals(values) else plain
        values = values.cast(pl.Float64)
    floats = values.fill_nan(None).to_list()
    if values.dtype == pl.Float32:  # 0.1 of 32 bits is the 0.1 of other files, not 0.100000001490116
        floats = [v if v is None or v.is_integer() else float(str(np.float32(v))) for v in floats]
    return pl.Series([None if v is None else _float_text(v) for v in floats], dtype=pl.String)


def _texts(column: Column) -> pl.Series:
    """The labels of a column with one in each cell, as text."""
    if column.values.dtype.is_nested():
        what = f"must hold one label in each cell, got type {column.values.dtype}"
        hint = "Take kind: multilabel for any number of labels, kind: tagging for one of each token."
        raise DataError(Problem(column.head, what, hint))
    return label_texts(column.values)


def sort_classes(labels: Sequence[str]) -> list[str]:
    """Distinct labels in their natural order: as numbers if all are numbers, else as text."""
    distinct = sorted(set(labels))  # first as text, so that 007 and 7 come in one order in every process
    return sorted(distinct, key=float) if all(map(is_number, distinct)) else distinct


def is_number(label: str) -> bool:
    """Whether a label is a plain number, which has a place among others: not ``nan``, nor Python's ``1_0``.

    Example:
        >>> [is_number(label) for label in ("-1.5", "1e3", "nan", "1_0", "low")]
        [True, True, False, False, False]
    """
    try:
        return math.isfinite(float(label)) and "_" not in label
    except ValueError:
        return False


def class_codes(column: Column, classes: Sequence[str], origin: str = FOUND) -> np.ndarray:
    """Positions of the labels in ``classes`` as (N,) float32, NaN where missing.

    A label may be spelt otherwise than its class, see ``Spellings``.

    Args:
        column: The labels.
        classes: The classes.
        origin: Where these come from, for messages.

    Raises:
        DataError: Labels that are not among the classes, with the places of the first ones; or lists.
    """
    texts = _texts(column)
    codes = find_codes(texts, classes)
    strangers = texts.is_not_null() & codes.is_null()
    if strangers.any():
        rows = strangers.arg_true().to_list()
        first = {texts[r]: r for r in reversed(rows)}
        first = dict(sorted(first.items(), key=lambda item: item[1]))
        raise DataError(unknown_classes(column, first, classes, origin))
    return codes.cast(pl.Float32).fill_null(float("nan")).to_numpy().copy()


def find_codes(labels: pl.Series, classes: Sequence[str]) -> pl.Series:
    """Positions of labels in ``classes``, null where a label is missing or none of them; spelt as ``Spellings`` has it.

    Example:
        >>> find_codes(pl.Series(["2", "2.50", "x"]), ["2.0", "2.5"]).to_list()
        [0, 1, None]
    """
    known = label_texts(pl.Series(list(classes), dtype=pl.String))
    places = {text: place for place, text in enumerate(known.to_list())}
    others = [text for text in labels.unique().drop_nulls().to_list() if text not in places]
    places |= {text: places[value] for text, value in Spellings(list(places)).find(others).items()}
    return labels.replace_strict(list(places), list(places.values()), default=None, return_dtype=pl.Int64)


def unknown_classes(
    column: Column, first: Mapping[str, int], classes: Sequence[str], origin: str, word: str = "class"
) -> list[Problem]:
    """Labels that are not among the classes: the first ones with their places, then all of them, to be listed at once.

    Args:
        column: The labels.
        first: Each unknown label, and its first row.
        classes: The classes.
        origin: Where these come from.
        word: What the task calls a label.
    """
    names = listed([repr(label) for label in first], _NAMED)
    way_out = "or empty it: a row without a label does not count for the task"
    if origin != TRAINED:
        way_out = f"{'add it to' if origin == DECLARED else 'list'} the task's `classes`"
        way_out += ", or name the value in its `missing_label`"

    def problem(label: str) -> Problem:
        what = f"{word} {label!r} is not among the classes {listed(classes, 12)}, {origin}"
        hint = f"Correct the cell, {way_out}."
        return Problem(column.where(first[label]), what, f"{did_you_mean(label, classes)} {hint}")

    return first_few(list(first), problem, column.head, f"{len(first)} labels are not among the classes: {names}")


def no_labels(column: Column) -> Problem:
    """That no training row has a label, and no classes are declared."""
    hint = "Correct its `target`, `missing_label` or `mask_by`, split the rows otherwise, or list the task's `classes`."
    return Problem(f"column '{column.name}'", "no training row has a label for it", hint)


def fit_classes(column: Column, train: np.ndarray, declared: Sequence[str] | None) -> list[str]:
    """The classes: as declared, or those of the training rows in natural order.

    Raises:
        DataError: Cells hold lists; or, with no classes declared, no training row has a label, or two labels of the
            training rows look like two spellings of one class (``1`` and ``True``, ``Yes`` and ``yes``).
    """
    if declared is not None:
        return list(declared)
    texts = _texts(column).gather(train)
    found = sort_classes([t for t in texts.unique().to_list() if t is not None])
    if not found:
        raise DataError(no_labels(column))
    refuse_spellings(column, found, texts, train)
    return found


def refuse_spellings(column: Column, classes: Sequence[str], labels: pl.Series, rows: np.ndarray) -> None:
    """Refuses classes two of which look like two spellings of one.

    Args:
        column: The labels, for messages.
        classes: The classes found.
        labels: The labels that they were found among, as text.
        rows: The row of each.

    Raises:
        DataError: Lists those that do, with their first rows.
    """
    first_with: dict[str, str] = {}
    problems = []
    for label, meaning in meanings(classes).items():
        other = first_with.setdefault(meaning, label)
        if other != label:
            first, second = (int(rows[(labels == text).arg_true()[0]]) for text in (other, label))
            form = other_form(label, other)
            what = f"holds {label!r}{form}, which may be the class {other!r} of {column.where(first)}"
            hint = "Write one of them everywhere, or list the task's `classes` if they are different."
            problems.append(Problem(column.where(second), what, hint))
    if problems:
        raise DataError(first_few(problems, lambda problem: problem, column.head))


class KindWithClasses(Kind):
    """What the kinds have in common whose labels are classes: declared, found in the training rows, or of a model.

    Args:
        classes: The declared classes, or None.
    """

    classes: list[str]

    def __init__(self, classes: Sequence[str | float] | None) -> None:
        self._declared = None if classes is None else label_texts(pl.Series([str(c) for c in classes])).to_list()
        self.classes = list(self._declared or [])
        self._found: list[str] | None = None  # by find_classes
        self._trained = False  # its classes are those of a model, and no others

    def find_classes(self, column: Column, rows: np.ndarray) -> None:
        self._found = self._classes_of(column, rows)

    def fit(self, column: Column, train: np.ndarray) -> None:
        self.classes = self._classes_of(column, train) if self._found is None else self._found

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.classes, self._trained = list(state["classes"]), True

    def _origin(self) -> str:
        """Where the classes come from, for messages."""
        found = FOUND if self._declared is None else DECLARED
        return TRAINED if self._trained else found

    @abstractmethod
    def _classes_of(self, column: Column, train: np.ndarray) -> list[str]:
        """The classes, declared or found."""


class ClassKind(KindWithClasses):
    """What the kinds have in common whose label is one of several classes.

    Args:
        classes: The declared classes, or None.
        class_weight: What each class counts, ``balanced``, or None.
    """

    def __init__(
        self, classes: Sequence[str | float] | None = None, class_weight: dict[str, float] | str | None = None
    ) -> None:
        super().__init__(classes)
        self._class_weight = class_weight
        self._weights: np.ndarray | None = None  # (C,), known after fit

    def fit(self, column: Column, train: np.ndarray) -> None:
        super().fit(column, train)
        if self._class_weight is None:
            return
        if isinstance(self._class_weight, str):
            self._weights = self._balanced(self.encode(column)[train])
        else:
            self._weights = self._given(self._class_weight, column)

    def encode(self, column: Column) -> np.ndarray:
        return class_codes(column, self.classes, self._origin())

    def row_weights(self, targets: np.ndarray) -> np.ndarray | None:
        if self._weights is None:
            return None
        weights: np.ndarray = self._weights[np.nan_to_num(targets).astype(np.int64)]
        return weights

    def describe(self, targets: np.ndarray) -> str:
        return describe_classes(targets, self.classes)

    def unseen(self, targets: np.ndarray) -> list[str]:
        codes = targets[~np.isnan(targets)].astype(np.int64)
        counts = np.bincount(codes, minlength=len(self.classes))
        return [self.classes[i] for i in np.flatnonzero(counts == 0)] if len(codes) else []

    def state(self) -> dict[str, Any]:
        return {**super().state(), "class_weight": None if self._weights is None else self._weights.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._weights = None if state["class_weight"] is None else np.array(state["class_weight"])

    def _balanced(self, codes: np.ndarray) -> np.ndarray:
        """Weights n / (C n_c), so that all classes count the same; 1 for a class without a training row."""
        counts = np.bincount(codes[~np.isnan(codes)].astype(np.int64), minlength=len(self.classes))
        weights = np.ones(len(counts))
        weights[counts > 0] = counts.sum() / (len(counts) * counts[counts > 0])
        return weights

    def _given(self, weights: Mapping[str, float], column: Column) -> np.ndarray:
        names = label_texts(pl.Series(list(weights), dtype=pl.String)).to_list()
        unknown = [name for name in names if name not in self.classes]
        if unknown:
            where = f"column '{column.name}'"
            raise DataError(
                [
                    Problem(where, f"class_weight names '{name}', which is no class", did_you_mean(name, self.classes))
                    for name in unknown
                ]
            )
        found = np.ones(len(self.classes))
        found[[self.classes.index(name) for name in names]] = list(weights.values())
        return found


def describe_classes(targets: np.ndarray, classes: Sequence[str]) -> str:
    """The share of each class, the most frequent ones first when there are many."""
    counts = np.bincount(targets.astype(np.int64), minlength=len(classes))
    order = range(len(classes)) if len(classes) <= 5 else np.argsort(-counts, kind="stable")[:4]
    text = ", ".join(f"{classes[i]}: {percent(counts[i] / len(targets))}" for i in order)
    return text if len(classes) <= 5 else f"{text}, {len(classes) - 4} more"


def _float_text(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.15g}"
