"""The small problems inside gradient methods: optimal, for any Gramian."""

import numpy as np
import pytest
from scipy.optimize import minimize, nnls

from mtl_cli.balancing._solvers import (
    conflict_averse_point,
    cosines,
    fair_weights,
    min_norm_point,
    nonnegative_qp,
    project_to_simplex,
)

SIZES = [1, 2, 3, 8, 20]


def _gradients(k, seed, width=None):
    return np.random.default_rng(seed).normal(size=(k, width or k + 4))


def _gramian(k, seed, width=None):
    gradients = _gradients(k, seed, width)
    return gradients @ gradients.T


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("inside", [False, True])
def test_nonnegative_qp_is_that_of_scipy(k, inside):
    gradients, linear = _gradients(k, k), np.random.default_rng(1).normal(size=(5, k))
    matrix = gradients @ gradients.T
    found = nonnegative_qp(matrix, linear, start_inside=inside)
    # |A'z - b|^2 / 2 with A' A'' = M and A b = -q has the same minimum
    root = np.linalg.cholesky(matrix)
    expected = np.stack([nnls(root.T, -np.linalg.solve(root, q))[0] for q in linear])
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("width", [None, 2])  # 2: linearly dependent, the hull contains 0
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_min_norm_point_is_optimal(k, width, seed):
    gramian = _gramian(k, seed, width)
    w = min_norm_point(gramian)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1)
    slopes = gramian @ w  # no vertex is on the near side of the point
    assert slopes.min() >= w @ slopes - 1e-9 * gramian.diagonal().max()


def test_min_norm_point_of_opposed_gradients_is_zero():
    gradients = np.array([[1.0, 0.0], [-2.0, 0.0], [5.0, 1.0]])
    w = min_norm_point(gradients @ gradients.T)
    np.testing.assert_allclose(w @ gradients, 0, atol=1e-9)


# Of gradients along one line, as float32 has their products: some g_i + t g_0 nearly cancel, and round below 0.
ON_A_LINE = {
    "all alike": [
        [1251.963134765625, -349.6468811035156, 382.5923156738281],
        [-349.6468811035156, 97.64898681640625, -106.84996032714844],
        [382.5923156738281, -106.84996032714844, 116.91789245605469],
    ],
    "nearly opposed": [[966.455322265625, -955.839599609375], [-955.839599609375, 945.34033203125]],
    "short": [
        [4.835684299468994, -1.2163538932800293, -2.0239381790161133],
        [-1.2163538932800293, 0.305958092212677, 0.5090954303741455],
        [-2.0239381790161133, 0.5090954303741455, 0.8471035957336426],
    ],
}


def _checked_conflict_averse_point(gramian, radius):
    """The point, which has to be weights that sum to 1, and what it minimises."""

    def value(w):
        return w @ gramian.mean(1) + radius * np.sqrt(max(w @ gramian @ w, 0.0))

    w = conflict_averse_point(gramian, radius)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1)
    return w, value


@pytest.mark.parametrize("c", [0.4, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("gramian", ON_A_LINE.values(), ids=ON_A_LINE)
def test_conflict_averse_point_of_gradients_along_a_line_is_optimal(gramian, c):
    gramian = np.array(gramian)
    radius = c * np.sqrt(gramian.mean())

    w, goal = _checked_conflict_averse_point(gramian, radius)
    assert goal(w) <= min(0.0, *map(goal, np.eye(len(w)))) + 1e-3 * gramian.max()  # an end of the line, or 0 within


def test_min_norm_point_of_very_different_lengths_is_near_the_shortest():
    gradients = np.array([[1e8, -2e8, 0.0], [-1e-8, 2e-8, 1e-8], [1.0, 1.0, 1.0]])
    w = min_norm_point(gradients @ gradients.T)
    assert w[1] == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("radius", [0.01, 0.4, 1.0, 10.0])
@pytest.mark.parametrize("k", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_conflict_averse_point_is_that_of_scipy(radius, k, seed):
    gramian = _gramian(k, seed)
    radius = radius * np.sqrt(gramian.mean())

    w, value = _checked_conflict_averse_point(gramian, radius)
    start, whole = np.ones(k) / k, {"type": "eq", "fun": lambda w: w.sum() - 1}
    other = minimize(value, start, bounds=[(0, 1)] * k, constraints=whole, method="SLSQP", options={"ftol": 1e-12})
    assert value(w) <= other.fun + 1e-9 * abs(other.fun)


def test_points_are_found_where_float32_leaves_a_gramian_indefinite():
    """Three gradients that are nearly the same: what remains of their differences is rounding."""
    above = 1e-5 * np.array(
        [[0, 1.69106966, 1.10221504], [1.69106966, 3.38213931, 2.79328470], [1.10221504, 2.79328470, 2.20443009]]
    )
    gramian = 195.0 * (1 + above)
    assert np.linalg.eigvalsh(gramian)[0] < 0
    for w in (min_norm_point(gramian), conflict_averse_point(gramian, 0.5 * np.sqrt(gramian.mean()))):
        assert w.min() >= 0
        assert w.sum() == pytest.approx(1)
        assert w @ gramian @ w == pytest.approx(195, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_fair_weights_solve_their_equation(alpha, k, seed):
    gramian = _gramian(k, seed)
    x = fair_weights(gramian, alpha)
    assert x.min() > 0
    np.testing.assert_allclose(gramian @ x, x ** (-1 / alpha), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fair_weights_are_finite_where_gradients_cancel(alpha):
    gradients = np.array([[1.0, 2.0], [-1.0, -2.0]])
    x = fair_weights(gradients @ gradients.T, alpha)
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x @ gradients, 0, atol=1e-3)


def test_fair_weights_of_very_different_lengths():
    gradients = np.array([[1e8, -2e8, 0.0], [-1e-8, 2e-8, 1e-8], [1.0, 1.0, 1.0]])
    gramian = gradients @ gradients.T
    x = fair_weights(gramian, 1.0)
    np.testing.assert_allclose(gramian @ x * x, 1, rtol=1e-5)


@pytest.mark.parametrize("k", SIZES)
def test_projection_on_the_simplex_is_the_nearest_point(k):
    values = np.random.default_rng(k).normal(size=k)
    point = project_to_simplex(values)
    assert point.min() >= 0
    assert point.sum() == pytest.approx(1)
    away = values - point  # the same for all positive weights, and less for the others
    assert away[point > 0].max() - away[point > 0].min() < 1e-12
    assert away.max() <= away[point > 0].min() + 1e-12


def test_projection_on_the_simplex_of_large_numbers():
    """As MoDo has them where gradients have lengths of 1e10."""
    assert project_to_simplex(np.array([-1e18, -3e18, -1e18])).tolist() == [0.5, 0.0, 0.5]


def test_cosines_and_lengths_are_those_of_the_vectors():
    between, lengths = cosines(np.array([[9.0, 6.0], [6.0, 16.0]]))
    np.testing.assert_allclose(between, [[1, 0.5], [0.5, 1]])
    np.testing.assert_allclose(lengths, [3, 4])
