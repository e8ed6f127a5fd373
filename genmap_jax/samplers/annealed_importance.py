"""Annealed importance sampling (Neal 2001, https://arxiv.org/abs/physics/9803008): the partition function of an energy.

The path leads from a Gaussian N(mu, s^2 I), whose Z is known, to the model by raising beta from 0 to 1 in

    E_beta(x) = |x - mu|^2 / (2 s^2) + beta f(x),

with one Metropolis-adjusted Langevin move per temperature. The moves leave E_beta exactly invariant, so that the mean
weight is unbiased for Z; unadjusted moves would not. The logarithm of an unbiased estimate is, by Jensen's
inequality, low on average (a stochastic lower bound): log Z is under-estimated, and log p(x) = -E(x) - log Z is
*over*-estimated. The bias is about stderr^2 / 2 as long as the effective sample size is large. When it is a few
chains only, neither number can be trusted: raise the number of temperatures.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import parallel
from genmap_jax.samplers import langevin

Array = jax.Array


class Estimate(NamedTuple):
    """log_z: nats. stderr: of log_z, nats. ess: effective sample size, between 1 and the number of chains."""

    log_z: Array
    stderr: Array
    ess: Array


def annealed_importance(
    f: Callable[[Array], Array],
    key: Array,
    shape: tuple[int, ...],
    *,
    mu: float = 0.0,
    s: float = 1.0,
    chains: int = 256,
    temperatures: int = 1000,
    power: float = 3.0,
) -> Estimate:
    """log of Z = integral of exp(-|x - mu|^2 / (2 s^2) - f(x)) over x of `shape`.

    f: [N, *shape] -> [N].
    power: temperatures are beta_k = (k / temperatures)^power; above 1 spends them where the Gaussian starts to bend.
    A pilot run with chains of its own finds one step size per temperature; the run that counts keeps them, since
    a kernel that adapts to its own chains would not leave E_beta invariant.
    """
    pilot, run = jax.random.split(key)
    evaluate = langevin.value_and_grad(f)
    betas = jnp.linspace(0.0, 1.0, temperatures + 1) ** power
    dims = int(np.prod(shape))

    def anneal(key, chains, eps, adapt):
        """Log-weights [N], and the step sizes [K] used: those given, or found on the way if `adapt`."""
        keys = parallel.example_keys(key, chains)

        def body(carry, inputs):
            (x, f, df), log_w, tuned = carry
            k, before, beta, eps = inputs
            eps = tuned if adapt else eps
            log_w = log_w - (beta - before) * f  # Neal's order: weigh where the chain is, then move at the new beta
            temper = lambda x, f, df: (  # noqa: E731
                x,
                0.5 * jnp.sum(((x - mu) / s) ** 2, axis=tuple(range(1, x.ndim))) + beta * f,
                (x - mu) / s**2 + beta * df,
            )
            noise, log_u = langevin.draw(keys, k, shape)
            here = temper(x, f, df)
            x_new = langevin.move(x, here[2], noise, eps)
            new = x_new, *evaluate(x_new)
            log_ratio = langevin.log_acceptance(here, temper(*new), eps)
            point = langevin.select(log_u < log_ratio, new, (x, f, df))
            rate = jnp.mean(jnp.exp(jnp.minimum(log_ratio, 0.0)))
            return (point, log_w, tuned * jnp.exp(0.2 * (rate - 0.574))), eps  # 0.574: Roberts & Rosenthal (1998)

        x = mu + s * langevin.draw(keys, jnp.asarray(temperatures), shape)[0]
        first = jnp.asarray(1.65 * s * dims ** (-1 / 6))
        carry = (x, *evaluate(x)), jnp.zeros(chains), first
        inputs = jnp.arange(temperatures), betas[:-1], betas[1:], eps
        (_, log_w, _), eps = jax.lax.scan(body, carry, inputs)
        return log_w, eps

    _, eps = anneal(pilot, max(16, chains // 8), jnp.zeros(temperatures), adapt=True)
    log_w, _ = anneal(run, chains, eps, adapt=False)

    log_mean = jax.nn.logsumexp(log_w) - jnp.log(chains)
    w = jnp.exp(log_w - log_mean)  # mean 1
    ess = chains / jnp.mean(w**2)
    stderr = jnp.std(w, ddof=1) / jnp.sqrt(chains)  # of log(mean w), by the delta method
    return Estimate(0.5 * dims * jnp.log(2 * jnp.pi * s**2) + log_mean, stderr, ess)
