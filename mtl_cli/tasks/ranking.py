"""Ranking metrics: how far up the positives stand among the candidates of their list."""

from __future__ import annotations

import numpy as np


def ranking_metrics(k: int) -> dict[str, bool]:
    """Names of the metrics of the first ``k`` places, the primary one first; higher is better for all.

    Example:
        >>> ranking_metrics(10)
        {'ndcg@10': True, 'hr@10': True}
    """
    return {f"ndcg@{k}": True, f"hr@{k}": True}


def ranking_scores(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int) -> dict[str, float | None]:
    """Hit rate and normalised discounted cumulative gain of the first k places, means over the lists.

    ``hr@k``: 1 if a positive stands among the first k of its list, else 0. ``ndcg@k``: sum of 1 / log2(1 + place) over
    the positives among the first k, divided by the sum for the best order. Of equal scores, negatives stand first: a
    model that tells nothing apart gets 0. Lists without a positive are left out; None if there is no other.

    Args:
        scores: (n,) higher is further up.
        labels: (n,) 0 or 1.
        groups: (n,) int64, the list of each row; rows with -1 are in none.
        k: Places that count.

    Example:
        >>> scores, labels = np.array([0.9, 0.8, 0.1, 0.5]), np.array([0.0, 1.0, 0.0, 0.0])
        >>> found = ranking_scores(scores, labels, np.zeros(4, np.int64), 2)
        >>> round(found["ndcg@2"], 4), found["hr@2"]
        (0.6309, 1.0)
    """
    listed = groups >= 0
    scores, labels, groups = scores[listed], labels[listed], groups[listed]
    order = np.lexsort((labels, -scores, groups))
    positive, ordered = labels[order] > 0, groups[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, int)
    sizes = np.diff(np.append(starts, len(ordered)))
    places = np.arange(len(ordered)) - np.repeat(starts, sizes) + 1
    lists = np.repeat(np.arange(len(starts)), sizes)
    gains = np.where(positive & (places <= k), 1.0 / np.log2(places + 1.0), 0.0)
    positives = np.bincount(lists, positive, len(starts)).astype(np.int64)
    known = positives > 0
    if not known.any():
        return dict.fromkeys(ranking_metrics(k))
    best = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0))])[np.minimum(positives, k)]
    gained = np.bincount(lists, gains, len(starts))
    return {
        f"ndcg@{k}": float((gained[known] / best[known]).mean()),
        f"hr@{k}": float((gained[known] > 0).mean()),
    }
