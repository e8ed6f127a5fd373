"""Between the integers a batch holds and the real numbers a network sees. `levels` is the number of grey values.

Two conventions, one per kind of model:
* discrete decoders (VAE) see the grid  x = 2 v / (levels - 1) - 1  in [-1, 1];
* densities (EBM, score, flow) see uniformly dequantised values  x = 2 (v + u) / levels - 1  in [-1, 1), u ~ U[0, 1).
"""

import math

import jax
import jax.numpy as jnp

Array = jax.Array


def to_grid(v: Array, levels: int) -> Array:
    """Integers 0..levels-1 -> float32 in [-1, 1], both ends reached."""
    return v.astype(jnp.float32) * (2.0 / (levels - 1)) - 1.0


def from_grid(x: Array, levels: int) -> Array:
    """Nearest integer of `to_grid`, clipped to 0..levels-1, as uint8."""
    return jnp.clip(jnp.round((x + 1.0) * ((levels - 1) / 2.0)), 0, levels - 1).astype(jnp.uint8)


def dequantise(v: Array, keys: Array, levels: int) -> Array:
    """Integers [B,...] -> float32 in [-1, 1), with one uniform draw per pixel. `keys`: [B], one per example."""
    u = jax.vmap(lambda key: jax.random.uniform(key, v.shape[1:]))(keys)
    return (v.astype(jnp.float32) + u) * (2.0 / levels) - 1.0


def requantise(x: Array, levels: int) -> Array:
    """The cell of `dequantise` that holds x, as uint8; values outside [-1, 1) go to the end cells."""
    return jnp.clip(jnp.floor((x + 1.0) * (levels / 2.0)), 0, levels - 1).astype(jnp.uint8)


def log_cell(dims: int, levels: int) -> float:
    """Log-volume of a cell, in nats: log P(v) >= E_u[log p(x)] + log_cell (Theis et al. 2016, eq. 3)."""
    return dims * math.log(2.0 / levels)
