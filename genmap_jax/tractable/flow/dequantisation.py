"""From the density of real numbers to the probability of integers: uniform and variational dequantisation.

Integers v of an image are hidden in unit cells: x = 2 (v + u) / levels - 1 with noise u in [0, 1)^D. For any law q(u |
v)

    log P(v) >= E_q[ log p(x) + log_cell - log q(u | v) ],                                                    (1)

log_cell = log volume of a cell in units of x (Theis et al. 2016, arXiv:1511.01844, eq. 3; Ho et al. 2019, "Flow++",
arXiv:1902.00275, eq. 12). q is uniform, or a flow of its own (variational): then the gap is KL(q || p(u | v)), zero
when q is the exact posterior. With K draws of u the mean of the K ratios inside of the logarithm is a tighter bound
(Burda et al. 2016), which every family of this project computes in `objectives.elbo.importance_bound`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from genmap_jax import keys as per_example
from genmap_jax.algorithm import Array, Key, Params
from genmap_jax.spaces import Space
from genmap_jax.tractable.flow.bijection import Bijection, log_normal


class Dequantised(NamedTuple):
    """Real numbers that stand for integers."""

    x: Array
    """[B, *shape], from -1 to 1 for images."""
    log_ratio: Array
    """What log p(x) lacks of a bound on log P(v): log_cell - log q(u | v) in nats, [B]."""


def uniform(space: Space, v: Array, keys: Key) -> Dequantised:
    """u uniform in the cell. v [B, *shape] as a batch holds it, keys [B]. Vectors pass as they are."""
    return Dequantised(space.dequantise(v, keys), jnp.full(len(v), space.log_cell, jnp.float32))


def variational(space: Space, noise: Bijection, params: Params, v: Array, keys: Key) -> Dequantised:
    """u = sigmoid(t), with t the inverse of standard normal noise under the bijection `noise`, given v as its
    condition.

    v [B, H, W, C] as a batch holds it, keys [B].
    """
    eps = per_example.normal(keys, v.shape[1:])
    t, logdet = noise.inverse(params, eps, space.to_grid(v))
    log_slope = (jax.nn.log_sigmoid(t) + jax.nn.log_sigmoid(-t)).reshape(len(v), -1).sum(-1)  # log |du / dt|
    log_q = log_normal(eps) - logdet - log_slope
    x = (v.astype(jnp.float32) + jax.nn.sigmoid(t)) * (2.0 / space.grey_levels) - 1.0
    return Dequantised(x, space.log_cell - log_q)
