"""Precision, recall, density and coverage: do samples fall where data are, and data where samples are?

The manifold of a set is the union of balls around its examples that reach to their k-th nearest neighbour in the set.
"""

import dataclasses

import numpy as np

from genmap_jax.evaluate.checks import checked
from genmap_jax.evaluate.distance import distances


@dataclasses.dataclass(frozen=True)
class Prdc:
    """One term per example; the metric is the mean. The terms of a set depend on each other through the balls."""

    precision: np.ndarray  # [M] bool: the sample lies in a ball of a real example
    recall: np.ndarray  # [N] bool: the real example lies in a ball of a sample
    density: np.ndarray  # [M] float: the number of real balls the sample lies in, over k; not bounded by 1
    coverage: np.ndarray  # [N] bool: the ball of the real example holds a sample


def prdc(
    *, real: np.ndarray, generated: np.ndarray, k: int = 5, closed: bool = False, allow_unequal: bool = False
) -> Prdc:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    real [N, ...], generated [M, ...]: features; N, M > k. `closed` says whether a ball holds its boundary: open balls
    (<) with k = 5 are Naeem's convention and package, closed balls (<=) with k = 3 those of StyleGAN and
    torch-fidelity. They differ where distances are equal, as among copies of one example: open balls of radius zero
    are empty. All four depend on N and on the feature dimension; see `expected_coverage`.
    Raises ValueError on too few examples for k, NaN or infinity, feature dimensions that differ, or unequal N and M
    unless `allow_unequal`.
    """
    x, y = checked(k + 1, equal_size=not allow_unequal, real=real, generated=generated)
    within = np.less_equal if closed else np.less
    real_radii, radii = _radii(x, k), _radii(y, k)
    balls, recall, coverage = np.zeros(len(y)), np.empty(len(x), bool), np.empty(len(x), bool)
    for rows, apart in distances(x, y):
        in_real = within(apart, real_radii[rows, None])
        balls += in_real.sum(0)
        coverage[rows] = in_real.any(1)
        recall[rows] = within(apart, radii).any(1)
    return Prdc(precision=balls > 0, recall=recall, density=balls / k, coverage=coverage)


def expected_coverage(n: int, k: int) -> float:
    """Mean coverage of n real examples by n samples of the same continuous distribution (Naeem et al. 2020).

    Of the 2n - 1 other points all orders by distance are equally likely; a ball is empty if the k nearest are real.
    """
    i = np.arange(k)
    return float(1.0 - np.prod((n - 1 - i) / (2 * n - 1 - i)))


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Distance from each example to its k-th nearest neighbour; place 0 is the example itself. [N, D] -> [N]."""
    return np.concatenate([np.partition(apart, k, axis=1)[:, k] for _, apart in distances(x, x)])
