"""What a metric says about chance: an interval over resampled examples, and its value between real and real."""

from collections.abc import Callable

import numpy as np


def bootstrap(
    statistic: Callable[..., float], *arrays: np.ndarray, repeats: int = 200, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Interval (low, high) of `statistic(*arrays)` by resampling the examples of each array with replacement.

    arrays [N, ...], [M, ...], ...: resampled along the first axis, independently of each other. Percentile interval,
    moved to the statistic: value + (quantiles - mean over the resamples). A resample holds an example more than once
    and only 63 % of all, so a statistic that is biased at finite N (a Fréchet distance, say) is biased once more in
    it; the plain quantiles may all lie above the value. Their spread is right, their place is not. The interval
    therefore is about the expectation at this N, and no bias is removed. Metrics of neighbours see copies as
    neighbours: resample their terms per example instead of the features.
    Raises ValueError on a level outside (0, 1) or fewer than 2 examples.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}: give a probability between 0 and 1, such as 0.95")
    arrays = tuple(np.asarray(x) for x in arrays)
    for i, x in enumerate(arrays):
        if x.ndim == 0 or len(x) < 2:
            raise ValueError(f"array {i} has shape {x.shape}: give at least 2 examples along the first axis")
    rng = np.random.default_rng(seed)
    world = np.array([statistic(*(x[rng.integers(len(x), size=len(x))] for x in arrays)) for _ in range(repeats)])
    low, high = statistic(*arrays) + np.quantile(world, [(1 - level) / 2, (1 + level) / 2]) - world.mean()
    return float(low), float(high)


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
