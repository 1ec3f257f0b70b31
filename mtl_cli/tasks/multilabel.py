"""Any number of several labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional

from mtl_cli.errors import ConfigError, DataError, Problem, first_few, shown_cell
from mtl_cli.registry import KINDS
from mtl_cli.tasks._classes import (
    KindWithClasses,
    find_codes,
    label_texts,
    no_labels,
    refuse_spellings,
    sort_classes,
    unknown_classes,
)
from mtl_cli.tasks._scores import multilabel_scores
from mtl_cli.tasks.base import percent
from mtl_cli.types import ClassNames, Column


@KINDS.register("multilabel")
class Multilabel(KindWithClasses):
    """Any number of T labels at once (genres, defects, tags), with a logistic loss for each.

    The target is one column of lists; or one of text with ``delimiter`` between labels; or several columns of 0 and 1
    (``target: [comedy, drama]``), whose names are the labels. A missing cell is no label; an empty list is a row
    without any of the labels. With several columns, single cells may be missing: the loss of a row is the mean over
    those known.

    Args:
        classes: The labels, in the order to show them; taken from the training rows if null. Not with several columns.
        delimiter: What stands between the labels of a text cell; blanks around labels do not count.

    Shape:
        C = T = number of labels: the log-odds of each. Targets are 1 and 0, and -1 where a single label is not known.

    Raises:
        ConfigError: ``classes`` repeats a label or holds fewer than two, or ``delimiter`` is empty.

    Example:
        >>> kind = Multilabel(classes=["comedy", "drama"])
        >>> kind.encode(Column("genres", pl.Series(["drama;comedy", "drama", None]), str)).tolist()
        [[1.0, 1.0], [0.0, 1.0], [nan, nan]]
    """

    formula: ClassVar[str] = "sigmoid(outputs): the chance of each label; those above 0.5 are predicted"
    metrics: ClassVar[Mapping[str, bool | None]] = {
        "auroc": True,
        "average_precision": True,
        "f1_micro": True,
        "f1_macro": True,
        "log_loss": False,
    }
    several_columns: ClassVar[bool] = True

    def __init__(self, *, classes: ClassNames | None = None, delimiter: str = ";") -> None:
        super().__init__(classes)
        if classes is not None and (len(set(self.classes)) != len(classes) or len(classes) < 2):
            raise ConfigError(
                Problem("kind.multilabel.classes", f"must be two or more different labels, got {classes}")
            )
        if not delimiter:
            raise ConfigError(Problem("kind.multilabel.delimiter", "must not be empty"))
        self._delimiter = delimiter

    @property
    def num_outputs(self) -> int:
        return len(self.classes)

    @property
    def num_targets(self) -> int:
        return len(self.classes)

    def _classes_of(self, column: Column, train: np.ndarray) -> list[str]:
        """The labels: as declared, the names of the columns, or those of the training rows in natural order."""
        where = f"column '{column.name}'"
        if isinstance(column.values.dtype, pl.Struct):
            if self._declared is not None:
                hint = "With several columns their names are the labels."
                raise DataError(Problem(where, "`classes` cannot be given with several columns", hint))
            return [field.name for field in column.values.dtype.fields]
        if self._declared is not None:
            return list(self._declared)
        if column.values.gather(train).null_count() == len(train):
            raise DataError(no_labels(column))
        rows, labels = _pairs(self._lists(column), column)
        trained = np.isin(rows, train)
        rows, labels = rows[trained], labels.filter(pl.Series(trained))
        classes = sort_classes(labels.unique().to_list())
        if len(classes) < 2:
            shown = ", ".join(classes) or "none"
            what = f"a multilabel task needs two or more labels in the training rows, got {len(classes)} ({shown})"
            raise DataError(Problem(where, what, "List the task's `classes`, or use kind: binary."))
        refuse_spellings(column, classes, labels, rows)
        text = column.values.gather(train)
        if text.dtype == pl.String and not text.str.contains(self._delimiter, literal=True).any():
            what = f"no training row holds the delimiter {self._delimiter!r}, got {text.drop_nulls()[0]!r}"
            hint = "Write the task's `delimiter`, or use kind: multiclass if a row has one label."
            raise DataError(Problem(where, what, hint))
        return classes

    def encode(self, column: Column) -> np.ndarray:
        if isinstance(column.values.dtype, pl.Struct):
            return self._from_columns(column)
        lists = self._lists(column)
        rows, labels = _pairs(lists, column)
        codes = find_codes(labels, self.classes)
        pairs = pl.DataFrame({"label": labels, "row": rows}).filter(codes.is_null())
        strangers = pairs.unique("label", keep="first", maintain_order=True)
        if len(strangers):
            first = dict(strangers.iter_rows())
            raise DataError(unknown_classes(column, first, self.classes, self._origin(), "label"))
        targets = np.zeros((len(lists), len(self.classes)), np.float32)
        targets[rows, codes.to_numpy()] = 1.0
        # Nothing but missing labels is no label, unlike an empty list.
        unlabelled = (lists.list.len() > 0) & (lists.list.drop_nulls().list.len() == 0)
        targets[unlabelled.fill_null(True).to_numpy()] = np.nan
        return targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        rows = functional.binary_cross_entropy_with_logits(outputs, targets.clamp(min=0), reduction="none")
        known = targets >= 0
        return rows.masked_fill(~known, 0.0).sum(-2) / known.sum(-2).clamp(min=1)

    def loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        known = targets >= 0
        slope = torch.sigmoid(outputs).sub_(targets).masked_fill_(~known, 0.0)
        return self.loss(outputs, targets), slope.div_(known.sum(-2, keepdim=True).clamp(min=1))

    def affirms(self, targets: np.ndarray) -> np.ndarray:
        affirmed: np.ndarray = (targets == 1).any(1)
        return affirmed

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        probability = torch.sigmoid(outputs.double()).cpu().numpy()
        names = np.asarray(self.classes, dtype=object)
        chosen = [self._delimiter.join(names[row]) for row in probability > 0.5]
        return {"pred": np.asarray(chosen, dtype=object), "prob": probability}

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, float | None]:
        return multilabel_scores(targets.cpu().numpy(), torch.sigmoid(outputs.double()).cpu().numpy())

    def describe(self, targets: np.ndarray) -> str:
        counts = (targets == 1).sum(0)
        shares = counts / np.maximum((targets >= 0).sum(0), 1)
        order = np.argsort(-counts, kind="stable")
        text = ", ".join(f"{self.classes[i]}: {percent(shares[i])}" for i in order[:4])
        return f"{text}, {len(order) - 4} more" if len(order) > 4 else text

    def unseen(self, targets: np.ndarray) -> list[str]:
        labelled = ~np.isnan(targets[:, 0])
        never = (targets[labelled] == 1).sum(0) == 0
        return [self.classes[i] for i in np.flatnonzero(never)] if labelled.any() else []

    def meaning(self) -> Hashable:
        return (type(self), *self.classes)

    def group_key(self) -> Hashable:
        return ()

    def _lists(self, column: Column) -> pl.Series:
        """The labels of every row as a list, null where the cell is missing."""
        values = column.values
        if isinstance(values.dtype, pl.Array):
            return values.arr.to_list()
        if isinstance(values.dtype, pl.List):
            return values
        # An empty text that is no missing cell is a row without any label; a delimiter at the end adds none.
        texts = values.cast(pl.String).str.split(self._delimiter)
        return texts.list.eval(pl.element().str.strip_chars()).list.eval(pl.element().filter(pl.element() != ""))

    def _from_columns(self, column: Column) -> np.ndarray:
        names = [field.name for field in column.values.dtype.fields]  # type: ignore[attr-defined]
        if names != self.classes:
            what = f"must be the columns {', '.join(self.classes)}, got {', '.join(names)}"
            raise DataError(Problem(f"column '{column.name}'", what))
        frame = column.values.struct.unnest()
        targets = np.empty((len(frame), len(names)), np.float32)
        wrong: list[tuple[int, str]] = []
        for place, name in enumerate(names):
            texts = label_texts(frame[name]).str.to_lowercase()
            codes = texts.replace_strict({"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}, default=None)
            wrong += [(row, name) for row in (texts.is_not_null() & codes.is_null()).arg_true().to_list()]
            targets[:, place] = codes.cast(pl.Float32).fill_null(-1.0).to_numpy()
        if wrong:
            hint = "Correct the cell, or name the value in the task's `missing_label`."

            def problem(cell: tuple[int, str]) -> Problem:
                row, name = cell
                return Problem(
                    column.where(row), f"label '{name}' must be 0 or 1, got {shown_cell(frame[name][row])}", hint
                )

            raise DataError(first_few(wrong, problem, column.head))
        targets[(targets < 0).all(1)] = np.nan
        return targets


def _pairs(lists: pl.Series, column: Column) -> tuple[np.ndarray, pl.Series]:
    """Every label of every row: the row, and the label as text."""
    counts = lists.list.len().fill_null(0).to_numpy()
    rows = np.repeat(np.arange(len(lists)), counts)
    single = lists.filter(pl.Series(counts > 0)).explode()
    if single.dtype.is_nested():
        raise DataError(Problem(column.head, f"must hold lists of labels, got type {column.values.dtype}"))
    labels = label_texts(single)
    known = labels.is_not_null()
    return rows[known.to_numpy()], labels.filter(known)
