"""Metrics of a whole split, by scikit-learn, which is imported at the first evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np


def defined(metric: Callable[..., Any], *args: Any, **kwargs: Any) -> float | None:
    """The metric's value, or None where it is not defined for these labels.

    scikit-learn says 'not defined' in three ways, by the metric: an exception, a warning or NaN.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            value = float(metric(*args, **kwargs))
        except (ValueError, UserWarning, RuntimeWarning):
            return None
    return value if math.isfinite(value) else None


def regression_scores(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float | None]:
    """R2, root mean squared error and mean absolute error."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    constant = len(truth) < 2 or np.ptp(truth) == 0  # scikit-learn gives 0 or 1 here, which says nothing
    return {
        "r2": None if constant else defined(r2_score, truth, prediction),
        "rmse": defined(root_mean_squared_error, truth, prediction),
        "mae": defined(mean_absolute_error, truth, prediction),
    }


def binary_scores(truth: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    """Metrics of labels 0/1 and the probability of 1; a class is predicted at 0.5."""
    from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, roc_auc_score

    truth, predicted = truth.astype(np.int64), (probability > 0.5).astype(np.int64)
    both = len(np.unique(truth)) == 2
    return {
        "auroc": defined(roc_auc_score, truth, probability) if both else None,
        "average_precision": defined(average_precision_score, truth, probability) if both else None,
        "accuracy": defined(accuracy_score, truth, predicted),
        "f1": defined(f1_score, truth, predicted, zero_division=0.0) if both else None,
        "log_loss": defined(log_loss, truth, np.clip(probability, 1e-15, 1 - 1e-15), labels=[0, 1]),
    }


def multiclass_scores(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Metrics of class positions (n,) and probabilities (n, C); F1 is averaged over the classes that occur."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    truth, predicted = truth.astype(np.int64), probabilities.argmax(1)
    clipped = np.clip(probabilities, 1e-15, None)
    return {
        "accuracy": defined(accuracy_score, truth, predicted),
        "f1_macro": defined(f1_score, truth, predicted, average="macro", labels=np.unique(truth), zero_division=0.0),
        "log_loss": defined(
            log_loss, truth, clipped / clipped.sum(1, keepdims=True), labels=np.arange(probabilities.shape[1])
        ),
    }


def ordinal_scores(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float | None]:
    """Metrics of class positions; the error of ``mae`` is counted in steps of the scale."""
    from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

    truth, predicted = truth.astype(np.int64), predicted.astype(np.int64)
    kappa = {"weights": "quadratic", "labels": np.arange(num_classes)}
    constant = len(np.unique(np.concatenate([truth, predicted]))) < 2
    return {
        "qwk": None if constant else defined(cohen_kappa_score, truth, predicted, **kappa),
        "mae": defined(mean_absolute_error, truth, predicted),
        "accuracy": defined(accuracy_score, truth, predicted),
    }
