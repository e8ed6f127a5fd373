"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017; on Inception features, FID).

    FD = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

Whatever F1, F2 with S = F^T F, the eigenvalues of S1 S2 are the squared singular values of F1 F2^T, so the last trace
is the nuclear norm ||F1 F2^T||_*. A triangular factor of the centred features gives F: no covariance is formed, no
eigenvalue near zero is rooted, and rank-deficient sets lose no digits. All in float64, whatever the features are.
"""

import dataclasses
import warnings

import numpy as np

from genmap_jax.evaluate.checks import checked, refuse_unequal


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and scatter of n examples in D dimensions, in float64."""

    n: int
    mean: np.ndarray  # [D]
    factor: np.ndarray  # [R, D], R <= D; factor^T factor is the scatter, sum_i (x_i - mean)(x_i - mean)^T

    @property
    def covariance(self) -> np.ndarray:
        """[D, D], unbiased."""
        return self.factor.T @ self.factor / (self.n - 1)


def moments(features: np.ndarray) -> Moments:
    """features [N, ...] -> their moments. For a set seen in batches: functools.reduce(merge, map(moments, batches))."""
    (x,) = checked(1, features=features)
    mean = x.mean(0)
    return Moments(len(x), mean, _triangle(x - mean))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets together, in any order (Chan, Golub & LeVeque 1979, in square-root form).

    The scatters add up, plus (n_a n_b / n) (m_a - m_b)(m_a - m_b)^T: one more row for the factor.
    """
    n, shift = a.n + b.n, b.mean - a.mean
    rows = np.concatenate([a.factor, b.factor, np.sqrt(a.n * b.n / n) * shift[None]])
    return Moments(n, a.mean + b.n / n * shift, _triangle(rows))


def frechet_distance(
    *, real: np.ndarray | Moments, generated: np.ndarray | Moments, allow_unequal: bool = False
) -> float:
    """Fréchet distance (squared, in the squared unit of the features) between Gaussian fits with unbiased covariances.

    real, generated: features [N, ...], or their `Moments`. The value is biased upward by about 1 / N: compare values
    at equal N only, and read them beside the value between two halves of the real data.
    Warns when N <= D: a covariance is then singular and the bias is most of the value.
    Raises ValueError on NaN or infinity, fewer than 2 examples, feature dimensions that differ, or unequal N unless
    `allow_unequal`.
    """
    a = real if isinstance(real, Moments) else moments(*checked(2, real=real))
    b = generated if isinstance(generated, Moments) else moments(*checked(2, generated=generated))
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"feature dimensions differ: real {a.mean.shape}, generated {b.mean.shape}")
    if min(a.n, b.n) < 2:
        raise ValueError(f"real has {a.n} and generated {b.n} examples: give at least 2 of each")
    if not allow_unequal:
        refuse_unequal({"real": a.n, "generated": b.n})
    if min(a.n, b.n) <= len(a.mean):
        warnings.warn(
            f"{min(a.n, b.n)} examples in {len(a.mean)} dimensions leave a covariance singular and the Fréchet "
            "distance mostly bias: use kernel_distance, which is unbiased, or fewer feature dimensions",
            stacklevel=2,
        )
    first, second = a.factor / np.sqrt(a.n - 1), b.factor / np.sqrt(b.n - 1)
    overlap = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return float(np.square(a.mean - b.mean).sum() + np.square(first).sum() + np.square(second).sum() - 2.0 * overlap)


def _triangle(rows: np.ndarray) -> np.ndarray:
    """R with R^T R = rows^T rows: [N, D] -> [min(N, D), D]."""
    return np.asarray(np.linalg.qr(rows, mode="r"))
