"""Kernel distance (KID) and CMMD: the maximum mean discrepancies in use between sets of features. See `distance`."""

import numpy as np

from genmap_jax.evaluate.checks import checked
from genmap_jax.evaluate.distance import Distance, discrepancy


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

    return discrepancy(x, y, kernel, unbiased=True)


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

    result = discrepancy(x, y, kernel, unbiased=unbiased)
    return Distance(scale * result.value, scale * result.stderr)
