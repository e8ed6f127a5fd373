"""Distances between two sets of samples, with their standard errors: maximum mean discrepancies of a kernel k,

    MMD^2(P, Q) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)        (Gretton et al. 2012),

of which the energy distance, k(x, y) = -|x - y|, is the one that every family can be given: it needs no features.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.distance import cdist

from genmap_jax.evaluate.checks import checked

ENTRIES = 2**22
"""Largest block of pairwise numbers held at once (32 MB)."""


@dataclasses.dataclass(frozen=True)
class Distance:
    """A squared distance between two sets, and how far chance moves it."""

    value: float
    """The estimate, in the unit of the kernel; one that is unbiased may be negative."""
    stderr: float
    """Standard error by the jackknife over examples."""


def energy_distance(*, real: np.ndarray, generated: np.ndarray) -> Distance:
    """Squared energy distance by its unbiased U-statistic, in float64, with a jackknife standard error.

        E^2(P, Q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|  >= 0

    is zero only if P = Q (Székely & Rizzo 2013, "Energy statistics", section 2); in the unit of the examples.
    real [N, ...], generated [M, ...]: examples along the first axis, equal feature shapes, N, M >= 3. Computes
    (N + M)^2 distances, in blocks.
    Raises ValueError on too few examples, NaN or infinity, or feature shapes that differ.
    """
    if np.shape(real)[1:] != np.shape(generated)[1:]:
        raise ValueError(f"feature shapes differ: real {np.shape(real)[1:]}, generated {np.shape(generated)[1:]}")
    x, y = checked(3, real=real, generated=generated)
    return discrepancy(x, y, lambda a, b: -cdist(a, b), unbiased=True)


def null_floor(*, real: np.ndarray, seed: int = 0) -> Distance:
    """What `energy_distance` reads between two random halves of the real data: differences below it mean nothing."""
    order = np.random.default_rng(seed).permutation(len(real))
    half = len(real) // 2
    real = np.asarray(real)
    return energy_distance(real=real[order[:half]], generated=real[order[half : 2 * half]])


def discrepancy(x: np.ndarray, y: np.ndarray, kernel: Callable, *, unbiased: bool) -> Distance:
    """MMD^2 between the rows of x [N, D] and y [M, D]. kernel: rows [n, D], [m, D] -> symmetric values [n, m].

    unbiased: the U-statistic, which leaves out the pairs of an example with itself; the V-statistic keeps them and is
        biased upward by about 1 / N.
    The jackknife leaves out one example at a time; at equal distributions, where the statistic is degenerate, it errs
    on the large side (Efron & Stein 1981).
    """
    n, m = len(x), len(y)
    xx, _, x_self = _sums(kernel, x, x)
    yy, _, y_self = _sums(kernel, y, y)
    xy, yx, _ = _sums(kernel, x, y)
    if unbiased:
        xx, yy = xx - x_self, yy - y_self
        x_self, y_self = np.zeros(n), np.zeros(m)

    def statistic(cross, n, m, within_x, within_y):
        pairs = lambda n: n * (n - 1) if unbiased else n**2  # noqa: E731
        return within_x / pairs(n) + within_y / pairs(m) - 2.0 * cross / (n * m)

    value = statistic(xy.sum(), n, m, xx.sum(), yy.sum())
    without_x = statistic(xy.sum() - xy, n - 1, m, xx.sum() - 2.0 * xx + x_self, yy.sum())  # [N]
    without_y = statistic(xy.sum() - yx, n, m - 1, xx.sum(), yy.sum() - 2.0 * yy + y_self)  # [M]
    variance = (n - 1) * without_x.var() + (m - 1) * without_y.var()
    return Distance(float(value), float(np.sqrt(variance)))


def distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows of x, their Euclidean distances to all of y), block by block. [N, D], [M, D].

    Exact zeros between copies, which a product of matrices would lose.
    """
    for rows in _blocks(len(x), len(y)):
        yield rows, cdist(x[rows], y)


def _sums(kernel: Callable, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row sums [N], column sums [M] and diagonal of the kernel matrix, block by block. x [N, D], y [M, D]."""
    row_sums, columns, diagonal = [], np.zeros(len(y)), []
    for rows in _blocks(len(x), len(y)):
        block = kernel(x[rows], y)
        row_sums.append(block.sum(1))
        columns += block.sum(0)
        diagonal.append(block.diagonal(rows.start))
    return np.concatenate(row_sums), columns, np.concatenate(diagonal)


def _blocks(n: int, m: int) -> Iterator[slice]:
    """Slices of n rows, each of at most `ENTRIES` numbers when a row has m."""
    size = max(1, ENTRIES // m)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
