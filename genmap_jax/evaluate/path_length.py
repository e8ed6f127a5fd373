"""Perceptual path length (Karras et al. 2019, section 4.1)."""

from collections.abc import Callable

import numpy as np

from genmap_jax.evaluate.checks import checked


def perceptual_path_length(
    walk: Callable[[np.ndarray], np.ndarray],
    features: Callable[[np.ndarray], np.ndarray],
    *,
    n: int,
    seed: int = 0,
    eps: float = 1e-4,
) -> tuple[float, np.ndarray]:
    """Mean squared feature distance per squared step, E |f(walk(t + eps)) - f(walk(t))|^2 / eps^2, t uniform on [0, 1].

    walk: positions t [n], one on each of n fixed latent paths -> images [n, ...]; features: images -> [n, ...].
    Returns the `trimmed_mean` of the values, and all of them [n]; unit: squared features.
    A walk in float32 knows t to 6e-8, hence a step of 1e-4 to 1e-3 of its length, more or less at random.
    Raises ValueError if features are NaN or infinite, or not one per path.
    """
    t = np.random.default_rng(seed).uniform(size=n)
    here, there = checked(1, here=features(walk(t)), there=features(walk(t + eps)))
    if len(here) != n:
        raise ValueError(f"features has {len(here)} rows for n = {n} paths: walk and features must keep the first axis")
    values = np.square(there - here).sum(1) / eps**2
    return trimmed_mean(values), values


def trimmed_mean(values: np.ndarray) -> float:
    """Mean of the values [n] within the 1st and 99th percentile, both included."""
    low = np.percentile(values, 1, method="lower")
    high = np.percentile(values, 99, method="higher")
    return float(values[(low <= values) & (values <= high)].mean())
