"""What a report draws of a task's predictions, as plain JSON: confusion of classes, calibration, predicted and true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 10  # of the chances, for calibration
MOST_CLASSES = 30  # a larger confusion matrix cannot be read
MOST_POINTS = 300  # of predicted and true numbers


def class_curves(
    chances: np.ndarray, codes: np.ndarray, classes: Sequence[str], predicted: np.ndarray | None = None
) -> dict[str, Any]:
    """Confusion of what is predicted, and how often what is said to be so with some chance is so.

    Calibration is of the second class for two classes, else of the likeliest: a chance says nothing of another class,
    which a kind may predict all the same (the expected level of classes in an order).

    Args:
        chances: (n, C), of each class.
        codes: (n,), the true class.
        classes: Their names.
        predicted: (n,), the class that is predicted; None: the likeliest.

    Returns:
        ``confusion``: rows of true classes, each with the number of rows for each predicted class; left out for many
        classes. ``calibration``: of each bin that holds rows, the mean chance, the share that is true, and how many
        rows. ``calibration_error``: the mean distance of the two, by rows.

    Example:
        >>> found = class_curves(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]), ["no", "yes"])
        >>> found["confusion"], found["calibration"]
        ([[1, 0], [1, 1]], [[0.1, 0.0, 1], [0.4, 1.0, 1], [0.8, 1.0, 1]])
    """
    codes, likeliest = codes.astype(np.int64), chances.argmax(1)
    predicted = likeliest if predicted is None else predicted
    found: dict[str, Any] = {"classes": list(classes)}
    if len(classes) <= MOST_CLASSES:
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(confusion, (codes, predicted), 1)
        found["confusion"] = confusion.tolist()
    if len(classes) == 2:
        chance, right = chances[:, 1], codes == 1
    else:
        chance, right = chances.max(1), codes == likeliest
    bins = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    rows = [np.flatnonzero(bins == i) for i in range(BINS)]
    points = [(float(chance[own].mean()), float(right[own].mean()), len(own)) for own in rows if len(own)]
    found["calibration"] = [[round(x, 6), round(y, 6), n] for x, y, n in points]
    found["calibration_error"] = round(sum(n * abs(x - y) for x, y, n in points) / len(codes), 6)
    return found


def number_curves(predicted: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Pairs of true and predicted numbers: all, or evenly chosen by the rank of the true one.

    Example:
        >>> number_curves(np.array([2.0, 1.0]), np.array([3.0, 1.0]))
        {'points': [[1.0, 1.0], [3.0, 2.0]], 'rows': 2}
    """
    order = np.argsort(true, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_POINTS)).round().astype(np.int64))]
    return {"points": [[float(true[i]), float(predicted[i])] for i in chosen], "rows": len(true)}
