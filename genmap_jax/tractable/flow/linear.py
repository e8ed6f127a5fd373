"""Linear bijections of the last axis: actnorm, LU-parametrised matrices (1x1 convolutions), fixed permutations.

The last axis holds the features of vectors [B, D] or the channels of images [B, H, W, C]; the same map acts at every
position of an image, so a log-determinant counts once for each position. Kingma & Dhariwal 2018, "Glow"
(arXiv:1807.03039), sections 3.1 and 3.2.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.algorithm import Array
from genmap_jax.tractable.flow.bijection import Bijection

SMALLEST_STD = 1e-6
"""Features that never vary are divided by this much, not by zero."""


def actnorm() -> Bijection:
    """y = (x - shift) exp(-log_std), a scale and a shift of every feature that start from the first batch.

    After `init` the features of that batch have mean 0 and standard deviation 1. Initialisation is a function and not a
    flag in the state, so it cannot happen again after a restart.
    """

    def init(key, x, cond):
        flat = x.reshape(-1, x.shape[-1])
        return {"shift": flat.mean(0), "log_std": jnp.log(jnp.maximum(flat.std(0), SMALLEST_STD))}

    def forward(params, x, cond):
        return (x - _row(params["shift"], x)) * jnp.exp(-_row(params["log_std"], x)), _everywhere(
            -params["log_std"].sum(), x
        )

    def inverse(params, y, cond):
        return y * jnp.exp(_row(params["log_std"], y)) + _row(params["shift"], y), _everywhere(
            params["log_std"].sum(), y
        )

    return Bijection(init, forward, inverse)


def lu() -> Bijection:
    """y = W x with W = L (U + diag(exp(log_diagonal))): L unit lower, U strictly upper triangular; starts as identity.

    Of images, an invertible 1x1 convolution. log |det W| is the sum of log_diagonal, the inverse two triangular solves.
    Glow (eq. 10) also has a fixed permutation in front and begins with a random rotation: put `permutation` or
    `rotation` before this map.
    """

    def init(key, x, cond):
        d = x.shape[-1]
        return {"lower": jnp.zeros((d, d)), "upper": jnp.zeros((d, d)), "log_diagonal": jnp.zeros(d)}

    def factors(params):
        d = len(params["log_diagonal"])
        lower = jnp.tril(params["lower"], -1) + jnp.eye(d)
        upper = jnp.triu(params["upper"], 1) + jnp.diag(jnp.exp(params["log_diagonal"]))
        return lower, upper

    def forward(params, x, cond):
        lower, upper = factors(params)
        return x @ (lower @ upper).T, _everywhere(params["log_diagonal"].sum(), x)

    def inverse(params, y, cond):
        lower, upper = factors(params)
        columns = y.reshape(-1, y.shape[-1]).T
        columns = jax.scipy.linalg.solve_triangular(lower, columns, lower=True, unit_diagonal=True)
        columns = jax.scipy.linalg.solve_triangular(upper, columns)
        return columns.T.reshape(y.shape), _everywhere(-params["log_diagonal"].sum(), y)

    return Bijection(init, forward, inverse)


def permutation(order: Sequence[int] | np.ndarray) -> Bijection:
    """y[..., i] = x[..., order[i]]: features in another, fixed order."""
    there = np.asarray(order)
    back = np.argsort(there)
    return Bijection(
        init=lambda key, x, cond: {},
        forward=lambda params, x, cond: (
            jnp.take(x, jnp.asarray(there, jnp.int32), axis=-1),
            jnp.zeros(len(x), x.dtype),
        ),
        inverse=lambda params, y, cond: (
            jnp.take(y, jnp.asarray(back, jnp.int32), axis=-1),
            jnp.zeros(len(y), y.dtype),
        ),
    )


def rotation(features: int, seed: int = 0) -> Bijection:
    """y = Q x with a fixed random orthogonal Q, drawn once from `seed`: mixes all features, keeps volumes."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(features, features)))[0]
    return Bijection(
        init=lambda key, x, cond: {},
        forward=lambda params, x, cond: (x @ jnp.asarray(q.T, x.dtype), jnp.zeros(len(x), x.dtype)),
        inverse=lambda params, y, cond: (y @ jnp.asarray(q, y.dtype), jnp.zeros(len(y), y.dtype)),
    )


def _row(values: Array, x: Array) -> Array:
    """One value for each feature, [D] -> an array that broadcasts against x [..., D]."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _everywhere(logdet: Array, x: Array) -> Array:
    """The log-determinant of one position as that of all positions of an example: [] -> [B]."""
    return jnp.broadcast_to(logdet * math.prod(x.shape[1:-1]), (len(x),))
