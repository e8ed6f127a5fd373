"""Path-length regularisation: a step in W is to change the image by the same amount everywhere and in all directions.

    E_w,y (|J_w^T y| - a)^2,   y ~ N(0, I) / sqrt(H W),   a the running mean of |J_w^T y|

Karras et al. 2020 (https://arxiv.org/abs/1912.04958), section 3.2 and appendix C. The product with the transposed
Jacobian is one backward pass.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.keys import normal

Array = jax.Array

DECAY = 0.99  # of the running mean, per use


def path_lengths(synthesise: Callable[[Array], Array], ws: Array, keys: Array) -> Array:
    """|J_w^T y| of each example, the root of the mean over layers. ws [B, layers, D], keys [B] -> [B]

    synthesise: ws -> images [B, H, W, C], each from its own styles alone.
    """
    images, pullback = jax.vjp(synthesise, ws)
    y = normal(keys, images.shape[1:]) / (images.shape[1] * images.shape[2]) ** 0.5
    (slope,) = pullback(y.astype(images.dtype))
    return jnp.sqrt((slope**2).sum(2).mean(1))


def path_length_penalty(lengths: Array, mean: Array, axis_name: str | None) -> tuple[Array, Array]:
    """(lengths - a)^2 [B] with a the running mean that this batch has moved already, and that mean.

    The gradient passes through a as well, over the batch of all devices, as in the authors' code.
    """
    mean = mean + (1.0 - DECAY) * (parallel.mean(lengths.mean(), axis_name) - mean)
    return (lengths - mean) ** 2, mean
