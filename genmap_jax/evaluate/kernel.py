"""Maximum mean discrepancies between two sets of features (Gretton et al. 2012), with their standard errors.

    MMD^2(P, Q) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)

With a kernel that tells all distributions apart it is zero only if P = Q. The U-statistic leaves out the pairs of an
example with itself and is unbiased; the V-statistic keeps them and is biased upward by about 1 / N.
"""

from collections.abc import Callable

import numpy as np

from genmap_jax.evaluate.checks import checked
from genmap_jax.evaluate.distance import ENTRIES, Distance


def kernel_distance(*, real: np.ndarray, generated: np.ndarray) -> Distance:
    """Kernel distance (Bińkowski et al. 2018; on Inception features, KID): MMD^2 with k(x, y) = (x.y / D + 1)^3.

    real [N, ...], generated [M, ...]: features, N, M >= 3. Unbiased at any N and M, so it may be negative. One
    U-statistic over all pairs: the same expectation as the usual mean over random subsets, and a smaller variance.
    The standard error is a jackknife over examples, on the large side at equal distributions. The cubic kernel sees
    moments up to the third only.
    Raises ValueError on too few examples, NaN or infinity, or feature dimensions that differ.
    """
    x, y = checked(3, real=real, generated=generated)

    def kernel(a, b):
        inner = a @ b.T / a.shape[1] + 1.0
        return inner * inner * inner  # a power is many times slower

    return _discrepancy(x, y, kernel, unbiased=True)


def cmmd(
    *,
    real: np.ndarray,
    generated: np.ndarray,
    sigma: float = 10.0,
    scale: float = 1000.0,
    unbiased: bool = False,
) -> Distance:
    """scale * MMD^2 with k(x, y) = exp(-|x - y|^2 / (2 sigma^2)) (Jayasumana et al. 2024, CMMD on CLIP embeddings).

    real [N, ...], generated [M, ...]: features as the kernel shall see them; CMMD takes embeddings of unit length,
    which are the caller's to normalise. The published convention is the V-statistic, which reads above zero between
    equal distributions; `unbiased` gives the U-statistic. The standard error is a jackknife over examples.
    Raises ValueError on fewer than 3 examples, NaN or infinity, feature dimensions that differ, or unequal N and M
    unless `unbiased`.
    """
    x, y = checked(3, real=real, generated=generated)
    if not unbiased and len(x) != len(y):
        raise ValueError(
            f"numbers of examples differ: real {len(x)}, generated {len(y)}; take equal numbers, or unbiased=True"
        )
    center = x.mean(0)  # the kernel does not see it; a smaller |x|^2 leaves more digits to |x - y|^2

    def kernel(a, b):
        a, b = a - center, b - center
        squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2.0 * a @ b.T
        return np.exp(-squared / (2.0 * sigma**2))

    result = _discrepancy(x, y, kernel, unbiased=unbiased)
    return Distance(scale * result.value, scale * result.stderr)


def _discrepancy(x: np.ndarray, y: np.ndarray, kernel: Callable, *, unbiased: bool) -> Distance:
    """MMD^2 and its jackknife error, which leaves out one example at a time (Efron & Stein 1981). [N, D], [M, D]."""
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


def _sums(kernel: Callable, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row sums [N], column sums [M] and diagonal of the kernel matrix, block by block. x [N, D], y [M, D]."""
    rows, columns, diagonal, size = [], np.zeros(len(y)), [], max(1, ENTRIES // len(y))
    for start in range(0, len(x), size):
        block = kernel(x[start : start + size], y)
        rows.append(block.sum(1))
        columns += block.sum(0)
        diagonal.append(block.diagonal(start))
    return np.concatenate(rows), columns, np.concatenate(diagonal)
