"""Energy distance between two sets of samples: a metric on distributions that every family can be given.

    E^2(P, Q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|  >= 0

is zero only if P = Q (Székely & Rizzo 2013, "Energy statistics", section 2).
"""

import dataclasses

import numpy as np
from scipy.spatial.distance import cdist

from genmap_jax.evaluate.checks import checked

ENTRIES = 2**22
"""Largest block of pairwise distances held at once (32 MB)."""


@dataclasses.dataclass(frozen=True)
class Distance:
    value: float
    """Unbiased, so it may be negative. In the unit of the features (the squared form is linear in distances)."""
    stderr: float


def energy_distance(*, real: np.ndarray, generated: np.ndarray) -> Distance:
    """Squared energy distance by its unbiased U-statistic, in float64, with a jackknife standard error.

    real [N, ...], generated [M, ...]: examples along the first axis, equal feature shapes, N, M >= 3. Computes
    (N + M)^2 distances, in blocks. The jackknife leaves out one example at a time; at equal distributions, where the
    statistic is degenerate, it errs on the large side (Efron & Stein 1981).
    Raises ValueError on too few examples, NaN or infinity, or feature shapes that differ.
    """
    if np.shape(real)[1:] != np.shape(generated)[1:]:
        raise ValueError(f"feature shapes differ: real {np.shape(real)[1:]}, generated {np.shape(generated)[1:]}")
    x, y = checked(3, real=real, generated=generated)
    n, m = len(x), len(y)
    xx, _ = _sums(x, x)  # distances from each example to a whole set
    yy, _ = _sums(y, y)
    xy, yx = _sums(x, y)

    def statistic(cross, n, m, within_x, within_y):
        return 2.0 * cross / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))

    value = statistic(xy.sum(), n, m, xx.sum(), yy.sum())
    without_x = statistic(xy.sum() - xy, n - 1, m, xx.sum() - 2.0 * xx, yy.sum())  # [N], one example left out in each
    without_y = statistic(xy.sum() - yx, n, m - 1, xx.sum(), yy.sum() - 2.0 * yy)
    variance = (n - 1) * without_x.var() + (m - 1) * without_y.var()
    return Distance(float(value), float(np.sqrt(variance)))


def null_floor(*, real: np.ndarray, seed: int = 0) -> Distance:
    """What `energy_distance` reads between two random halves of the real data: differences below it mean nothing."""
    order = np.random.default_rng(seed).permutation(len(real))
    half = len(real) // 2
    real = np.asarray(real)
    return energy_distance(real=real[order[:half]], generated=real[order[half : 2 * half]])


def _sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column sums of the matrix of Euclidean distances, block by block. [N, D], [M, D] -> [N], [M]."""
    rows, columns, block = np.empty(len(x)), np.zeros(len(y)), max(1, ENTRIES // len(y))
    for start in range(0, len(x), block):
        distances = cdist(x[start : start + block], y)
        rows[start : start + block] = distances.sum(1)
        columns += distances.sum(0)
    return rows, columns
