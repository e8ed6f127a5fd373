"""Perceptual path length (Karras et al. 2019, section 4.1), and the paths between latents that it walks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
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
    Returns the mean of the values within the 1st and 99th percentile, and all values [n]; unit: squared features.
    A walk in float32 knows t to 6e-8, hence a step of 1e-4 to 1e-3 of its length, more or less at random.
    Raises ValueError if features are NaN or infinite, or not one per path.
    """
    t = np.random.default_rng(seed).uniform(size=n)
    here, there = checked(1, here=features(walk(t)), there=features(walk(t + eps)))
    if len(here) != n:
        raise ValueError(f"features has {len(here)} rows for n = {n} paths: walk and features must keep the first axis")
    values = np.square(there - here).sum(1) / eps**2
    low = np.percentile(values, 1, method="lower")
    high = np.percentile(values, 99, method="higher")
    return float(values[(low <= values) & (values <= high)].mean()), values


def lerp(a: jax.Array, b: jax.Array, t: jax.Array | float) -> jax.Array:
    """Straight path, a at t = 0 and b at t = 1. a, b [n, d], t [n] or a scalar -> [n, d]."""
    t = jnp.broadcast_to(t, a.shape[:1])[:, None]
    return (1 - t) * a + t * b


def slerp(a: jax.Array, b: jax.Array, t: jax.Array | float) -> jax.Array:
    """Path along the great arc between the directions of a and b (Shoemake 1985). a, b [n, d], t [n] or a scalar.

    sin((1 - t) w) / sin w a + sin(t w) / sin w b with w the angle between them: a at t = 0, b at t = 1, and of constant
    length where |a| = |b|, as nearly all normal latents are in high dimension. Straight where there is no angle.
    """
    t = jnp.broadcast_to(t, a.shape[:1])[:, None]
    u, v = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    # Kahan's angle: the arc cosine of u.v loses half the digits where u and v are nearly parallel.
    w = 2 * jnp.arctan2(jnp.linalg.norm(u - v, axis=-1, keepdims=True), jnp.linalg.norm(u + v, axis=-1, keepdims=True))
    straight = jnp.sin(w) < 1e-6
    w = jnp.where(straight, 1.0, w)  # no 0 / 0, not even where it is not chosen: a check for NaN would stop at it
    return jnp.where(straight, (1 - t) * a + t * b, (jnp.sin((1 - t) * w) * a + jnp.sin(t * w) * b) / jnp.sin(w))
