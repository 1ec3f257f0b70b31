"""Ranking metrics against values worked out by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from mtl_cli.tasks.ranking import ranking_scores


def _one(scores, labels, k=2, groups=None):
    groups = np.zeros(len(scores), np.int64) if groups is None else np.array(groups)
    return ranking_scores(np.array(scores, float), np.array(labels, float), groups, k)


def test_place_of_the_positive_decides():
    assert _one([3, 2, 1], [1, 0, 0]) == {"ndcg@2": 1.0, "hr@2": 1.0}
    assert _one([2, 3, 1], [1, 0, 0]) == {"ndcg@2": pytest.approx(1 / np.log2(3)), "hr@2": 1.0}
    assert _one([1, 3, 2], [1, 0, 0]) == {"ndcg@2": 0.0, "hr@2": 0.0}


def test_equal_scores_count_against_the_positive():
    assert _one([1, 1, 1], [1, 0, 0]) == {"ndcg@2": 0.0, "hr@2": 0.0}
    assert _one([1, 1, 0], [1, 0, 0])["ndcg@2"] == pytest.approx(1 / np.log2(3))


def test_lists_without_a_positive_and_rows_without_a_list_are_left_out():
    found = _one([3, 2, 1, 5, 4, 9], [1, 0, 0, 0, 0, 0], groups=[4, 4, 4, 7, 7, -1])
    assert found == {"ndcg@2": 1.0, "hr@2": 1.0}
    assert _one([3.0, 2.0], [0, 0]) == {"ndcg@2": None, "hr@2": None}
    assert _one([3.0], [1], groups=[-1]) == {"ndcg@2": None, "hr@2": None}


@pytest.mark.parametrize("k", [1, 3, 10])
def test_several_lists_and_positives_agree_with_scikit_learn(k):
    draw = np.random.default_rng(0)
    scores, labels = draw.normal(size=(20, 8)), (draw.random((20, 8)) < 0.3).astype(float)
    labels[:, 0] = 1  # at least one of each list
    order = draw.permutation(160)
    found = ranking_scores(scores.ravel()[order], labels.ravel()[order], np.repeat(np.arange(20), 8)[order], k)
    assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score(labels, scores, k=k))
    best = np.argsort(-scores, 1)[:, :k]
    assert found[f"hr@{k}"] == np.take_along_axis(labels, best, 1).any(1).mean()
