"""Paths between latents: linear and spherical interpolation."""

import jax
import jax.numpy as jnp


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
