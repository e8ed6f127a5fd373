"""Annealed importance sampling (Neal 2001, https://arxiv.org/abs/physics/9803008): the partition function of an energy.

The path leads from a Gaussian N(mu, s^2 I), whose Z is known, to the model by raising beta from 0 to 1 in

    E_beta(x) = |x - mu|^2 / (2 s^2) + beta f(x),

with one Metropolis-adjusted Langevin move per temperature. The moves leave E_beta exactly invariant, so that the mean
weight is unbiased for Z; unadjusted moves would not. The logarithm of an unbiased estimate is, by Jensen's
inequality, low on average (a stochastic lower bound): log Z is under-estimated, and log p(x) = -E(x) - log Z is
*over*-estimated. The bias is about stderr^2 / 2 as long as the effective sample size is large. When it is a few
chains only, neither number can be trusted: raise the number of temperatures. The standard error, of log Z itself, is
the larger of two, which agree where the weights are even: the jackknife's, and that of normal log-weights of the same
spread (Fenton 1960), which allows for large weights so rare that no chain had one.

Where exact samples of the model are at hand (of a posterior: by simulating the data), the same path walked backwards
from them bounds log Z from above (bidirectional Monte Carlo, Grosse et al. 2015, https://arxiv.org/abs/1511.02543).
The gap between the two bounds is what the annealing still costs; with more temperatures it closes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.keys import example_keys
from genmap_jax.samplers import langevin

Array = jax.Array


class Estimate(NamedTuple):
    """log_z: nats. stderr: of log_z, nats. ess: effective sample size, between 1 and the number of chains.
    lower: mean log-weight, nats; its expectation bounds log Z from below. lower_stderr: of it.
    """

    log_z: Array
    stderr: Array
    ess: Array
    lower: Array
    lower_stderr: Array


class UpperBound(NamedTuple):
    """upper: nats; its expectation bounds log Z from above. stderr: of it."""

    upper: Array
    stderr: Array


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
    Pilot chains, which go along and are not weighed, find one step size per temperature: a kernel that adapts to its
    own chains would not leave E_beta invariant.
    """
    pilot, run = jax.random.split(key)
    path = _Path(f, shape, mu, s, temperatures, power)
    pilots = max(16, chains // 8)
    log_w = path.up(jnp.concatenate([example_keys(pilot, pilots), example_keys(run, chains)]), pilots)[0][pilots:]

    log_mean = jax.nn.logsumexp(log_w) - jnp.log(chains)
    share = jnp.exp(log_w - log_mean) / chains  # sums to 1
    ess = 1.0 / jnp.sum(share**2)
    without = jnp.log1p(-jnp.minimum(share, 1.0 - 1e-6))  # log of the sum without each chain in turn, over the sum
    jackknife = (chains - 1.0) * jnp.var(without)
    normal = jnp.log1p(jnp.expm1(jnp.minimum(jnp.var(log_w, ddof=1), 80.0)) / chains)
    stderr = jnp.sqrt(jnp.maximum(jackknife, normal))  # of log_mean
    log_z0 = path.log_z0
    return Estimate(log_z0 + log_mean, stderr, ess, log_z0 + log_w.mean(), _stderr(log_w))


def reverse_annealed_importance(
    f: Callable[[Array], Array],
    key: Array,
    samples: Array,
    *,
    mu: float = 0.0,
    s: float = 1.0,
    temperatures: int = 1000,
    power: float = 3.0,
) -> UpperBound:
    """Upper bound on the log Z of `annealed_importance`, from exact samples [N, *shape] of the model at beta = 1.

    Samples that are only nearly exact, such as those of a Markov chain, make it an estimate and no bound.
    """
    pilot, run = jax.random.split(key)
    path = _Path(f, samples.shape[1:], mu, s, temperatures, power)
    pilots = max(16, len(samples) // 8)
    _, steps = path.up(example_keys(pilot, pilots), pilots)
    log_w = path.down(example_keys(run, len(samples)), samples, steps)
    return UpperBound(path.log_z0 + log_w.mean(), _stderr(log_w))


class _Path:
    """The annealing path: one Metropolis-adjusted Langevin move per temperature, up to the model or down from it."""

    def __init__(self, f, shape, mu, s, temperatures, power):
        self.evaluate, self.shape, self.mu, self.s = langevin.value_and_grad(f), shape, mu, s
        self.betas = jnp.linspace(0.0, 1.0, temperatures + 1) ** power
        self.dims = int(np.prod(shape))
        self.log_z0 = 0.5 * self.dims * jnp.log(2 * jnp.pi * s**2)

    def move(self, point, keys, k, beta, eps):
        """One move that leaves E_beta invariant. Returns the new (x, f, grad f) and the acceptance of each chain."""
        mu, s = self.mu, self.s
        temper = lambda x, f, df: (  # noqa: E731
            x,
            0.5 * jnp.sum(((x - mu) / s) ** 2, axis=tuple(range(1, x.ndim))) + beta * f,
            (x - mu) / s**2 + beta * df,
        )
        noise, log_u = langevin.randomness(keys, k, self.shape)
        here = temper(*point)
        x = langevin.move(point[0], here[2], noise, eps)
        new = x, *self.evaluate(x)
        log_ratio = langevin.log_acceptance(here, temper(*new), eps)
        return langevin.select(log_u < log_ratio, new, point), jnp.exp(jnp.minimum(log_ratio, 0.0))

    def up(self, keys, pilots):
        """Log-weights [N] of chains from the Gaussian, and the step size of each temperature, which the first `pilots`
        chains find on the way."""
        temperatures = len(self.betas) - 1

        def body(carry, inputs):
            point, log_w, step = carry
            k, before, beta = inputs
            log_w = log_w - (beta - before) * point[1]  # Neal's order: weigh where the chain is, then move at new beta
            point, rate = self.move(point, keys, k, beta, step)
            better = step * jnp.exp(0.2 * (rate[:pilots].mean() - 0.574))  # 0.574: Roberts & Rosenthal (1998)
            return (point, log_w, better), step

        x = self.mu + self.s * langevin.randomness(keys, jnp.asarray(temperatures), self.shape)[0]
        first = jnp.asarray(1.65 * self.s * self.dims ** (-1 / 6))
        carry = (x, *self.evaluate(x)), jnp.zeros(len(x)), first
        (_, log_w, _), steps = jax.lax.scan(body, carry, (jnp.arange(temperatures), self.betas[:-1], self.betas[1:]))
        return log_w, steps

    def down(self, keys, samples, steps):
        """Log-weights [N] of the reversed path: move at beta first, then weigh, from beta = 1 to 0."""

        def body(carry, inputs):
            point, log_w = carry
            k, before, beta, step = inputs
            point, _ = self.move(point, keys, k, beta, step)
            return (point, log_w - (beta - before) * point[1]), None

        inputs = jnp.arange(len(self.betas) - 1), self.betas[:-1], self.betas[1:], steps
        carry = (samples, *self.evaluate(samples)), jnp.zeros(len(samples))
        return jax.lax.scan(body, carry, inputs, reverse=True)[0][1]


def _stderr(log_w: Array) -> Array:
    return jnp.std(log_w, ddof=1) / jnp.sqrt(len(log_w))
