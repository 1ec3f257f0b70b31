"""Metrics of a whole split.

Those of the most frequent kinds are written out here: scikit-learn's checks of its arguments take ten times as long as
the arithmetic, and its import a second. Tests hold them to its numbers. The others are scikit-learn's own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def defined(metric: Callable[..., Any], *args: Any, **kwargs: Any) -> float | None:
    """The metric's value, or None where it is not defined for these labels.

    scikit-learn says 'not defined' in three ways, by the metric: an exception, a warning or NaN. A warning of what a
    later version will do otherwise is none of them.
    """
    not_defined = (UserWarning, RuntimeWarning)
    with warnings.catch_warnings():
        for category in not_defined:
            warnings.simplefilter("error", category)
        try:
            value = float(metric(*args, **kwargs))
        except (ValueError, *not_defined):
            return None
    return value if math.isfinite(value) else None


def regression_scores(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float | None]:
    """R2, root mean squared error, mean absolute error and correlation."""
    if not np.isfinite(prediction).all():
        return dict.fromkeys(("r2", "rmse", "mae", "pearson"))
    constant = len(truth) < 2 or np.ptp(truth) == 0  # the formulas give 0 or 1 here, which says nothing
    with np.errstate(all="ignore"):  # what overflows is not finite
        error = truth - prediction
        squares = np.square(error)
        scores = {
            "r2": math.nan if constant else 1 - squares.sum() / np.square(truth - truth.mean()).sum(),
            "rmse": math.sqrt(squares.mean()),
            "mae": np.abs(error).mean(),
        }
    pearson = None if constant or len(truth) < 3 else defined(_correlation, truth, prediction)
    return {**{name: _finite(value) for name, value in scores.items()}, "pearson": pearson}


def count_scores(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float | None]:
    """Metrics of counts and expected counts; ``d2`` is the explained share of the Poisson deviance of the mean."""
    from sklearn.metrics import d2_tweedie_score, mean_absolute_error, mean_poisson_deviance, r2_score

    constant = len(truth) < 2 or np.ptp(truth) == 0
    positive = np.maximum(prediction, 1e-300)  # an expected count of 0 is an underflow
    return {
        "d2": None if constant else defined(d2_tweedie_score, truth, positive, power=1),
        "deviance": defined(mean_poisson_deviance, truth, positive),
        "r2": None if constant else defined(r2_score, truth, prediction),
        "mae": defined(mean_absolute_error, truth, prediction),
    }


def quantile_scores(truth: np.ndarray, levels: np.ndarray, quantiles: Sequence[float]) -> dict[str, float | None]:
    """Metrics of predicted quantiles (n, C).

    ``pinball`` is the mean over quantiles of the pinball loss, in the target's units; ``d2`` the mean share that is
    explained of what the quantiles of the labels themselves would lose; ``coverage`` the share of rows between the
    lowest and the highest quantile, None with one quantile.
    """
    from sklearn.metrics import d2_pinball_score, mean_pinball_loss

    constant = len(truth) < 2 or np.ptp(truth) == 0
    pairs = list(zip(quantiles, levels.T, strict=True))
    losses = [defined(mean_pinball_loss, truth, level, alpha=q) for q, level in pairs]
    shares = [None if constant else defined(d2_pinball_score, truth, level, alpha=q) for q, level in pairs]
    inside = (levels[:, 0] <= truth) & (truth <= levels[:, -1])
    finite = bool(np.isfinite(levels).all())
    return {
        "d2": _mean_of_all(shares),
        "pinball": _mean_of_all(losses),
        "coverage": float(inside.mean()) if finite and len(quantiles) > 1 else None,
    }


def binary_scores(truth: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    """Metrics of labels 0/1 and the probability of 1; a class is predicted at 0.5."""
    truth, predicted = truth.astype(np.int64), probability > 0.5
    positives, finite = int(truth.sum()), bool(np.isfinite(probability).all())
    both = 0 < positives < len(truth)
    area, precision = _curves(truth, probability) if both and finite else (None, None)
    clipped = np.clip(probability, 1e-15, 1 - 1e-15)
    hits = int(truth[predicted].sum())
    return {
        "auroc": area,
        "average_precision": precision,
        "accuracy": float((truth == predicted).mean()),
        "f1": 2 * hits / (positives + int(predicted.sum())) if both else None,
        "log_loss": float(-np.log(np.where(truth == 1, clipped, 1 - clipped)).mean()) if finite else None,
    }


def _curves(truth: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, and average precision (the sum under the steps of the precision-recall curve)."""
    order = np.argsort(score, kind="stable")[::-1]
    score, truth = score[order], truth[order]
    ends = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # rows with equal scores come all at once
    true = np.cumsum(truth, dtype=np.float64)[ends]
    false = 1 + ends - true
    precision = true / (true + false)
    recall, fallout = (np.append(0.0, rates / rates[-1]) for rates in (true, false))
    area = (np.diff(fallout) * (recall[1:] + recall[:-1]) / 2.0).sum()
    return float(area), float((np.diff(recall) * precision).sum())


def multiclass_scores(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Metrics of class positions (n,) and probabilities (n, C); F1 is averaged over the classes that occur."""
    truth, predicted = truth.astype(np.int64), probabilities.argmax(1)
    classes = probabilities.shape[1]
    labels, chosen, hits = (
        np.bincount(some, minlength=classes) for some in (truth, predicted, truth[truth == predicted])
    )
    occurs = labels > 0
    finite = bool(np.isfinite(probabilities).all())
    clipped = np.clip(probabilities, 1e-15, None)
    own = clipped[np.arange(len(truth)), truth] / clipped.sum(1)
    return {
        "accuracy": float((truth == predicted).mean()),
        "f1_macro": float((2 * hits[occurs] / (labels + chosen)[occurs]).mean()),
        "log_loss": float(-np.log(own).mean()) if finite else None,
    }


def multilabel_scores(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Metrics of labels (n, T), 1, 0 or -1 (not known), and the probability of each; a label is predicted at 0.5.

    ``auroc`` and ``average_precision`` are means over the labels that occur and do not always occur, ``f1_macro`` over
    the labels that occur; ``f1_micro`` and ``log_loss`` are over all cells.
    """
    known, own = truth >= 0, truth == 1
    chosen = (probabilities > 0.5) & known
    labelled, positives = known.sum(0), own.sum(0)
    hits, counted = (own & chosen).sum(0), positives + chosen.sum(0)
    occurs, varies = positives > 0, (positives > 0) & (positives < labelled)
    finite = bool(np.isfinite(probabilities[known]).all())
    areas = []
    for label in np.flatnonzero(varies) if finite else ():
        rows = known[:, label]
        areas.append(_curves(own[rows, label].astype(np.int64), probabilities[rows, label]))
    clipped = np.clip(probabilities[known], 1e-15, 1 - 1e-15)
    return {
        "auroc": _mean_of_all([area for area, _ in areas]),
        "average_precision": _mean_of_all([precision for _, precision in areas]),
        "f1_micro": float(2 * hits.sum() / counted.sum()) if occurs.any() else None,
        "f1_macro": float((2 * hits[occurs] / counted[occurs]).mean()) if occurs.any() else None,
        "log_loss": float(-np.log(np.where(own[known], clipped, 1 - clipped)).mean()) if finite else None,
    }


def ordinal_scores(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float | None]:
    """Metrics of class positions; the error of ``mae`` is counted in steps of the scale."""
    from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

    truth, predicted = truth.astype(np.int64), predicted.astype(np.int64)
    kappa = {"weights": "quadratic", "labels": np.arange(num_classes)}
    constant = len(np.unique(truth)) < 2  # by the labels alone: one wrong prediction must not make a score of it
    return {
        "qwk": None if constant else defined(cohen_kappa_score, truth, predicted, **kappa),
        "mae": defined(mean_absolute_error, truth, predicted),
        "accuracy": defined(accuracy_score, truth, predicted),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean, or None if there is no value or one is not defined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _correlation(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Pearson's; 0 for a constant prediction, which says nothing: a score that is left out of a mean would raise it."""
    if np.ptp(prediction) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(truth, prediction)[0, 1], -1.0, 1.0))
