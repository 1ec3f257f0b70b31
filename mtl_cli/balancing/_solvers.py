"""The small problems inside the gradient methods, exactly and fast, in terms of the Gramian (k, k).

They run in NumPy: on matrices this small its operations cost a fraction of PyTorch's. Gramians may be singular and
their rows of any length; a ridge far below the accuracy of the gradients decides between equal solutions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]  # of float64
RIDGE = 1e-12  # of the diagonal, in problems that a singular Gramian leaves well defined
STATIONARY = 1e-8  # of the diagonal, where a singular Gramian would send the weights to infinity
NOISE = float(np.finfo(np.float32).eps)  # of the Gramian's entries: gradients are float32


def nonnegative_qp(matrix: Array, linear: Array, *, start_inside: bool = False) -> Array:
    """Minimises z'Mz/2 + q'z over z >= 0 for every row q at once, by block principal pivoting (Kim & Park 2011).

    Args:
        matrix: M (k, k), positive definite.
        linear: (n, k), the rows q.
        start_inside: Try z > 0 everywhere first, instead of z = 0.

    Returns:
        (n, k), the rows z.
    """
    n, k = linear.shape
    passive = np.full((n, k), start_inside)  # where z is not held at 0
    fewest, chances = np.full(n, k + 1), np.full(n, 3)
    identity, position = np.eye(k), np.arange(k)
    tolerance = -1e-13 * np.abs(linear).max(1, keepdims=True)
    z, slope = np.zeros((n, k)), linear
    for turn in range(100 + 10 * k):  # far more than it ever needs; what is left after them is cut off below
        if turn or start_inside:
            inside = passive[:, :, None] & passive[:, None, :]
            z = np.linalg.solve(np.where(inside, matrix, identity), np.where(passive, -linear, 0.0)[..., None])[..., 0]
            slope = z @ matrix + linear
        wrong = np.where(passive, z < 0, slope < tolerance)
        if not wrong.any():
            break
        count = wrong.sum(1)
        better = count < fewest
        fewest, chances = np.minimum(count, fewest), np.where(better, 3, chances - 1)
        last = position == np.where(wrong, position, -1).max(1, keepdims=True)  # one at a time always ends
        passive ^= wrong & (last | (better | (chances >= 0))[:, None])
    result: Array = np.maximum(z, 0.0)
    return result


def min_norm_point(gramian: Array) -> Array:
    """Weights in the simplex of the shortest convex combination of vectors with this Gramian (not all zero)."""
    lifted = _lifted(gramian)
    z = nonnegative_qp(lifted, np.full((1, len(gramian)), -1.0), start_inside=True)[0]
    result: Array = z / z.sum()
    return result


def conflict_averse_point(gramian: Array, radius: float) -> Array:
    """Minimises g_w . g_0 + radius ||g_w|| over w in the simplex; g_0 is the mean, g_w the combination by w.

    For the right t it is the shortest of the combinations g_w + t g_0, namely where ||g_w|| = radius t, and between
    two changes of the set of positive weights w is linear in t.
    """
    products = gramian.mean(1)  # g_i . g_0
    square = max(float(products.mean()), 0.0)
    if radius <= 1e-12 * np.sqrt(square):  # nothing but the first term
        vertex: Array = (np.arange(len(gramian)) == products.argmin()).astype(float)
        return vertex
    low, high = 0.0, float(np.sqrt(gramian.diagonal().max())) / radius
    t = min(float(np.sqrt(square)) / radius, high)
    lifted = _lifted(gramian)
    for _ in range(100):
        w = min_norm_point(gramian + t * (products[:, None] + products) + t * t * square)
        inside = np.flatnonzero(w)
        inner = gramian[inside[:, None], inside]
        sides = np.stack([np.ones(len(inside)), products[inside]], 1)
        solved = np.linalg.solve(lifted[inside[:, None], inside], sides)
        start = solved[:, 0] / solved[:, 0].sum()  # w = start + t * change, while the same weights are positive
        change = start * solved[:, 1].sum() - solved[:, 1]
        now = start + t * change
        if now @ inner @ now > (radius * t) ** 2:
            low = t
        else:
            high = t
        roots = _roots(change @ inner @ change - radius**2, 2 * (start @ inner @ change), start @ inner @ start)
        new = min(roots, key=lambda root: abs(root - t), default=0.0)
        if abs(new - t) <= 1e-9 * t or high - low <= 1e-12 * high:
            break
        t = new if low < new < high else (low + high) / 2
    return w


def around_the_mean(gramian: Array, point: Array, radius: float) -> Array:
    """Weights of g_0 + radius g_w / ||g_w|| for the weights w; 0 if g_w is zero, where no common descent is left."""
    mean = np.full(len(point), 1 / len(point))
    if radius == 0:
        return mean
    square = float(point @ gramian @ point)
    if square <= NOISE**2 * float(gramian.diagonal().max()):
        return np.zeros(len(point))
    result: Array = mean + radius / np.sqrt(square) * point
    return result


def fair_weights(gramian: Array, alpha: float) -> Array:
    """The x > 0 with M x = x^(-1/alpha), by Newton's method on the convex function that it makes stationary."""
    squares = gramian.diagonal()
    unit = squares ** (-alpha / (1 + alpha))  # the solution for orthogonal gradients; x = unit * y
    matrix = gramian * np.outer(unit, unit)
    diagonal = matrix.diagonal().copy()
    matrix = matrix + np.diag(STATIONARY * diagonal)
    power = 1 - 1 / alpha

    def value(y: Array) -> float:
        barrier = np.log(y) if alpha == 1 else y**power / power
        return float(y @ matrix @ y / 2 - diagonal @ barrier)

    y = np.ones(len(squares))
    for _ in range(200):
        slope = matrix @ y - diagonal * y ** (-1 / alpha)
        step = -np.linalg.solve(matrix + np.diag(diagonal / alpha * y ** (-1 / alpha - 1)), slope)
        decrement = float(-slope @ step)
        shrink = float((-step / y).max())
        length = min(1.0, 0.95 / shrink) if shrink > 0 else 1.0
        best = value(y)
        while length > 1e-6 and value(y + length * step) > best - 1e-4 * length * decrement + 1e-14 * abs(best):
            length /= 2
        y = y + length * step
        if decrement <= 1e-12 * float(diagonal.sum()) or length <= 1e-6:  # the step was the last one that matters
            break
    return unit * y


def dual_cone(gramian: Array, norm_eps: float, reg_eps: float) -> Array:
    """The Gramian at trace 1 with a ridge, or the ridge alone if the trace was below ``norm_eps``."""
    trace = float(gramian.trace())
    ridge = max(reg_eps, RIDGE) * np.eye(len(gramian))
    return _definite(gramian / trace + ridge) if trace >= norm_eps else ridge


def project_to_simplex(values: Array) -> Array:
    """The nearest point of the simplex."""
    values = values - values.max()  # the same nearest point; beside large numbers the 1 below would be lost
    ordered = np.sort(values)[::-1]
    excess = (ordered.cumsum() - 1) / np.arange(1, len(values) + 1)
    last = int(np.flatnonzero(ordered > excess)[-1])
    result: Array = np.maximum(values - excess[last], 0.0)
    return result


def cosines(gramian: Array) -> tuple[Array, Array]:
    """Cosines (k, k) between the vectors of a Gramian, and their lengths (k,), none of them zero."""
    lengths = np.sqrt(gramian.diagonal())
    return gramian / np.outer(lengths, lengths), lengths


def pseudo_inverse(matrix: Array) -> Array:
    """Of a symmetric matrix whose entries are known to the accuracy of float32."""
    result: Array = np.linalg.pinv(matrix, rcond=len(matrix) * NOISE, hermitian=True)
    return result


def equal_projections(between: Array) -> Array:
    """The weights w of unit vectors with cosines C whose sum projects on all of them alike, C w = 1; else 0.

    Opposed vectors allow none. What the pseudo-inverse gives then is rounding, and its direction means nothing. Where
    there is a solution the sum of its weights is well above 0: no eigenvalue of C is above k.
    """
    weights = pseudo_inverse(between) @ np.ones(len(between))
    result: Array = weights if weights.sum() > len(between) * NOISE else np.zeros(len(between))
    return result


def _lifted(gramian: Array) -> Array:
    """The Gramian of the vectors with a coordinate more, the same for all: 0 is then no convex combination of them."""
    squares = np.maximum(gramian.diagonal(), 0.0)  # that of a sum which nearly cancels may round below
    gramian = gramian + np.diag(squares - gramian.diagonal())
    height = max(float(squares.min()), 1e-16 * float(squares.max()))
    return _definite(gramian + height + np.diag(RIDGE * squares))


def _definite(matrix: Array) -> Array:
    """A Gramian with a ridge, positive definite: of nearly parallel gradients float32 rounds some to less than that."""
    lengths = np.sqrt(matrix.diagonal())
    lowest = float(np.linalg.eigvalsh(matrix / np.outer(lengths, lengths))[0])
    if lowest > RIDGE / 10:
        return matrix
    return matrix + np.diag((RIDGE * max(1.0, -lowest) - lowest) * matrix.diagonal())


def _roots(a: float, b: float, c: float) -> list[float]:
    """Positive solutions of a t^2 + b t + c = 0."""
    if a == 0:
        return [-c / b] if b * c < 0 else []
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return []
    q = -(b + float(np.copysign(np.sqrt(discriminant), b))) / 2
    return [root for root in (q / a, c / q if q else 0.0) if root > 0]
