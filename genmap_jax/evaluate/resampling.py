"""What a metric says about chance: an interval over resampled examples, and its value between real and real."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from genmap_jax.evaluate.checks import refuse_unequal


def bootstrap(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    common_stderr: float = 0.0,
    repeats: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval (low, high) of `statistic(*arrays)` by resampling the examples of each array with replacement.

    arrays [N, ...], [M, ...], ...: resampled along the first axis, independently of each other. Percentile interval,
    moved to the statistic: value + (quantiles - mean over the resamples). A resample holds an example more than once
    and only 63 % of all, so a statistic that is biased at finite N (a Fréchet distance, say) is biased once more in
    it; the plain quantiles may all lie above the value. Their spread is right, their place is not. The interval
    therefore is about the expectation at this N, and no bias is removed. Not for metrics of neighbours, to which copies
    are neighbours (`halves`), nor for distances between nearly equal laws, of which it is too wide (`jackknife`).
    common_stderr: standard error of what all examples have in common, which resampling them does not see; it is added
        in quadrature.
    Raises ValueError on a level outside (0, 1) or fewer than 2 examples.
    """
    arrays = _checked(arrays, level, 2)
    rng = np.random.default_rng(seed)
    world = np.array([statistic(*(x[rng.integers(len(x), size=len(x))] for x in arrays)) for _ in range(repeats)])
    below, above = np.abs(np.quantile(world, [(1 - level) / 2, (1 + level) / 2]) - world.mean())
    value, common = float(statistic(*arrays)), NormalDist().inv_cdf((1 + level) / 2) * common_stderr
    return value - math.hypot(below, common), value + math.hypot(above, common)


def halves(
    statistic: Callable[..., np.ndarray], *arrays: np.ndarray, repeats: int = 100, seed: int = 0, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals (low, high) of `statistic(*arrays)`, an array of numbers, that see no example twice.

    arrays [N, ...], [M, ...], ...: a random half of each, independently, without replacement. The variance of a
    statistic between halves of a set is that between sets (its linear part: s^2 / (N / 2) - s^2 / N = s^2 / N), so the
    interval is normal with the standard deviation over halves (the delete-half jackknife, Shao & Wu 1989). It is about
    the expectation at this N, as `bootstrap`'s is. For metrics of neighbours, to which copies are neighbours.
    Raises ValueError on fewer than 4 examples.
    """
    arrays = _checked(arrays, level, 4)
    rng = np.random.default_rng(seed)
    half = lambda x: x[rng.permutation(len(x))[: len(x) // 2]]  # noqa: E731
    spread = np.std([statistic(*map(half, arrays)) for _ in range(repeats)], axis=0, ddof=1)
    value, reach = np.asarray(statistic(*arrays)), NormalDist().inv_cdf((1 + level) / 2) * spread
    return value - reach, value + reach


def jackknife(
    statistic: Callable[..., float], *arrays: np.ndarray, null_sd: float, groups: int = 50, level: float = 0.95
) -> tuple[float, float]:
    """Interval (low, high) of a squared distance `statistic(*arrays)` between sets of exchangeable examples.

    arrays [N, ...], all of one N: each of `groups` parts of the rows is left out in turn, of all arrays at once.
    null_sd: standard deviation of the statistic between equal laws at this N, of `null_floor`.
    A squared distance is least at equality, so its error is part linear in the examples, part quadratic, and between
    equal laws all quadratic. The jackknife counts the variance of the quadratic part twice (Efron & Stein 1981), and a
    bootstrap three times. So the variance between equal laws is taken off once, and is the least that remains. The
    interval is normal, and about the expectation at this N.
    Raises ValueError on fewer than 4 examples or numbers of them that differ.
    """
    arrays = _checked(arrays, level, 4)
    refuse_unequal({f"array {i}": len(x) for i, x in enumerate(arrays)})
    parts = np.array_split(np.arange(len(arrays[0])), min(groups, len(arrays[0])))
    without = [statistic(*(np.delete(x, part, axis=0) for x in arrays)) for part in parts]
    variance = (len(parts) - 1) * float(np.var(without))
    value, reach = float(statistic(*arrays)), NormalDist().inv_cdf((1 + level) / 2)
    reach *= math.sqrt(max(variance - null_sd**2, null_sd**2))
    return value - reach, value + reach


def proportion(each: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval (low, high) of the probability of what is true of each of independent examples, bool [N] (Wilson 1927).

    Of a share of 0 or 1 a bootstrap has no width, since every resample is the same; this one has.
    """
    from scipy.stats import binomtest

    interval = binomtest(int(np.sum(each)), len(each)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def null_floor(
    statistic: Callable[..., float | np.ndarray], pool: np.ndarray, *, n: int, repeats: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of `statistic(real=a, generated=b)` over disjoint random parts a, b of a real pool.

    pool [P, ...], P >= 2 n: the parts have n examples each. A statistic may be one number or an array of several, and
    so are the results. A value within a few standard deviations of the mean cannot be told from real data at this n.
    The parts of different repeats overlap: more repeats do not average out what is particular to the pool.
    Raises ValueError on a pool that is too small or fewer than 2 repeats.
    """
    pool = np.asarray(pool)
    if len(pool) < 2 * n:
        raise ValueError(f"pool has {len(pool)} examples: two parts of n = {n} need {2 * n}; give a smaller n")
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}: a standard deviation needs at least 2")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        order = rng.permutation(len(pool))[: 2 * n]
        values.append(np.asarray(statistic(real=pool[order[:n]], generated=pool[order[n:]])))
    return np.mean(values, axis=0), np.std(values, axis=0, ddof=1)


def _checked(arrays: tuple[np.ndarray, ...], level: float, at_least: int) -> tuple[np.ndarray, ...]:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}: give a probability between 0 and 1, such as 0.95")
    arrays = tuple(np.asarray(x) for x in arrays)
    for i, x in enumerate(arrays):
        if x.ndim == 0 or len(x) < at_least:
            raise ValueError(f"array {i} has shape {x.shape}: give at least {at_least} examples along the first axis")
    return arrays
