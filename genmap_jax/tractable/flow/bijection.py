"""Bijections as records of pure functions, and how they compose: what the flows of this folder are written in.

A flow is an invertible map f from data x to latents z = f(x) of a known law. By the change of variables

    log p(x) = log N(f(x); 0, I) + log |det df/dx|                                                            (1)

Rezende & Mohamed 2015 (arXiv:1505.05770), Dinh et al. 2017 (arXiv:1605.08803). Everywhere in this folder `forward` goes
from data to latents, the direction of the density, and `inverse` from latents to data, the direction of sampling.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.algorithm import Array, Key, Params
from genmap_jax.likelihoods import gaussian


class Bijection(NamedTuple):
    """An invertible map with its log-determinant. All functions are pure.

    init: (key, x, cond) -> parameters. x [B, ...] are examples as they reach this map: a layer may initialise itself
        from them, and all layers may take shapes from them.
    forward: (params, x, cond) -> (y, log |det dy/dx|). From data towards latents. The log-determinant is [B], in nats.
    inverse: (params, y, cond) -> (x, log |det dx/dy|). The negative log-determinant of `forward` at the same point.

    x and y are arrays [B, ...]; a map that splits dimensions off has a tuple of arrays as y. cond is None or float
    [B, C], the same for every map of a composition.
    """

    init: Callable[[Key, Array, Array | None], Params]
    forward: Callable[[Params, Any, Array | None], tuple[Any, Array]]
    inverse: Callable[[Params, Any, Array | None], tuple[Any, Array]]


def chain(bijections: Sequence[Bijection]) -> Bijection:
    """The composition, first to last from data to latents. Its parameters are a list with those of each map."""

    def init(key, x, cond):
        params = []
        for i, bijection in enumerate(bijections):
            params.append(bijection.init(jax.random.fold_in(key, i), x, cond))
            x, _ = bijection.forward(params[-1], x, cond)  # the next map is initialised with what reaches it
        return params

    def forward(params, x, cond):
        total = jnp.zeros(len(x), x.dtype)
        for bijection, p in zip(bijections, params, strict=True):
            x, logdet = bijection.forward(p, x, cond)
            total = total + logdet
        return x, total

    def inverse(params, y, cond):
        total = jnp.zeros((), jnp.float32)
        for bijection, p in zip(reversed(bijections), reversed(params), strict=True):
            y, logdet = bijection.inverse(p, y, cond)
            total = total + logdet
        return y, total

    return Bijection(init, forward, inverse)


def inverted(bijection: Bijection) -> Bijection:
    """The same map used backwards: an inverse autoregressive flow is an inverted autoregressive flow."""
    return Bijection(bijection.init, bijection.inverse, bijection.forward)


def repeat(block: Bijection, n: int, *, reversible: bool = False) -> Bijection:
    """n maps of the same form after one another, compiled once: parameters are those of `block` with a first axis [n].

    reversible: back-propagation does not store what passes between the maps, but recomputes it from the last output by
        `inverse`, map by map, in a loop. Memory is flat in n; a step costs about one more inverse. Gradients are those
        of ordinary back-propagation up to the rounding of the inverse (Gomez et al. 2017, arXiv:1707.04585; Kingma &
        Dhariwal 2018, section 3). x and y have the same shape.
    """
    # XLA for CPUs: gradients of convolutions in a loop are 30 times slower.
    unroll = n if parallel.platform() == "cpu" else 1

    def init(key, x, cond):
        params = chain([block] * n).init(key, x, cond)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)

    def through(apply, params, x, cond, reverse):
        def one(carry, p):
            x, total = carry
            x, logdet = apply(p, x, cond)
            return (x, total + logdet), None

        start = x, jnp.zeros(len(x), x.dtype)
        (x, total), _ = jax.lax.scan(one, start, params, reverse=reverse, unroll=unroll)
        return x, total

    def forward(params, x, cond):
        return through(block.forward, params, x, cond, reverse=False)

    def inverse(params, y, cond):
        return through(block.inverse, params, y, cond, reverse=True)

    if not reversible:
        return Bijection(init, forward, inverse)

    def forward_keeping_the_output(params, x, cond):
        y, total = forward(params, x, cond)
        return (y, total), (params, y, cond)

    def backward(kept, cotangents):
        params, y, cond = kept
        dy, dtotal = cotangents

        def one(carry, p):
            y, dy, dcond = carry
            x, _ = block.inverse(p, y, cond)
            _, gradients = jax.vjp(block.forward, p, x, cond)
            dp, dx, dc = gradients((dy, dtotal))
            return (x, dx, jax.tree.map(jnp.add, dcond, dc)), dp

        start = y, dy, jax.tree.map(jnp.zeros_like, cond)
        # Never unrolled: all inverses could then be computed first, and all of their results kept.
        (_, dx, dcond), dparams = jax.lax.scan(one, start, params, reverse=True)
        return dparams, dx, dcond

    saving = jax.custom_vjp(forward)
    saving.defvjp(forward_keeping_the_output, backward)
    return Bijection(init, saving, inverse)


def log_density(bijection: Bijection, params: Params, x: Array, cond: Array | None = None) -> Array:
    """log p(x) of the flow whose latents are independent standard normals, in nats: eq. 1. x [B, ...] -> [B]."""
    z, logdet = bijection.forward(params, x, cond)
    return sum((log_normal(part) for part in jax.tree.leaves(z)), logdet)


def log_normal(z: Array) -> Array:
    """log N(z; 0, I) in nats. z [B, ...] -> [B]."""
    return gaussian(z, jnp.zeros((), z.dtype), jnp.zeros((), z.dtype)).reshape(len(z), -1).sum(-1)
