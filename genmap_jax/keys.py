"""Randomness of one example each: arrays of PRNG keys [B], so that results do not depend on the batch around them.

`key` is one PRNG key, `keys` is an array [B] of them, one per example.
"""

import jax
import jax.numpy as jnp

from genmap_jax import parallel

Array = jax.Array


def example_keys(key: Array, size: int, axis_name: str | None = None) -> Array:
    """One key per example of this device's part of the batch, a function of (key, global example index): [size].

    The same on any number of devices.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(parallel.first_example(size, axis_name) + jnp.arange(size))


def split(keys: Array, parts: int = 2) -> tuple[Array, ...]:
    """keys [B] -> `parts` independent arrays of keys [B]."""
    split_keys = jax.vmap(lambda key: jax.random.split(key, parts))(keys)  # [B, parts]
    # Slices, of which JAX's checker of keys knows that they are different keys.
    return tuple(jax.lax.index_in_dim(split_keys, i, axis=1, keepdims=False) for i in range(parts))


def fold(keys: Array, number: Array | int) -> Array:
    """keys [B] -> keys [B] of draw `number`, one number for all or one for each [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, 0 if jnp.ndim(number) else None))(keys, number)


def dropout(keys: Array, x: Array, share: float) -> Array:
    """Zeros in place of a random `share` of x [B, ...], the rest scaled up to the same mean (Srivastava et al. 2014).

    keys [B], one per example. share: at least 0 and less than 1.
    """
    return jnp.where(uniform(keys, x.shape[1:]) >= share, x / (1.0 - share), 0.0).astype(x.dtype)


def normal(keys: Array, shape: tuple[int, ...] = ()) -> Array:
    """Standard normal noise. keys [B] -> float32 [B, *shape]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def uniform(keys: Array, shape: tuple[int, ...] = ()) -> Array:
    """Uniform noise in [0, 1). keys [B] -> float32 [B, *shape]."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
