"""The likelihood of a diffusion model: the variational bound in discrete and continuous time, and the ODE's estimate.

Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630). With y_0 and y_1 the data under the least and the
most noise of the schedule,

    log p(x) >= E[log p(x | y_0)]  -  KL(q(y_1 | x) || p(y_1))  -  diffusion                         (eq. 11)

    T steps    diffusion = T/2 E_i (SNR(s) / SNR(t) - 1) ||eps - eps_hat||^2,  s = (i - 1)/T, t = i/T       (eq. 13, 14)
    T = inf    diffusion = 1/2 E_t (-d lambda / dt) ||eps - eps_hat||^2                                (eq. 17)

in nats, summed over dimensions, of the data as the batch holds them. Images have a discretised Gaussian decoder around
y_0 with the exact normal CDF; vectors the same Gaussian undiscretised, p(x | y_0) = N(x; y_0, sigma_0^2).

The probability-flow ODE gives log p(y_0) instead of the last two terms; with the same decoder,

    log p(x) ~ log p_ODE(y_0) + log p(x | y_0) - log q(y_0 | x)

an estimate: its density is not the one the bound is of, and solver and trace estimate err on either side.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array, Key, LogProb
from genmap_jax.objectives.denoising import noise_error
from genmap_jax.samplers import ode
from genmap_jax.samplers.denoising import normal, unit_flow
from genmap_jax.samplers.log_snr import Schedule

Denoise = Callable[..., Array]


# ---- the three terms -------------------------------------------------------------------------------------------------


def discretised_gaussian(v: Array, mean: Array, sigma: Array | float, levels: int) -> Array:
    """log P(v) of integers 0..levels-1 under a Gaussian rounded to the nearest point of `pixels.to_grid`, elementwise.

    mean and sigma in units of the grid [-1, 1]; end values absorb the tails, so the pmf sums to one. The normal CDF is
    exact (Ho et al. 2020's code approximates it by a tanh, 1e-3 nats off for a pixel).
    """
    half = 1.0 / (levels - 1)
    v = v.astype(mean.dtype)
    centre = v * (2.0 * half) - 1.0
    low = jnp.where(v == 0, -jnp.inf, (centre - half - mean) / sigma)
    high = jnp.where(v == levels - 1, jnp.inf, (centre + half - mean) / sigma)
    low, high = jnp.where(low > 0, -high, low), jnp.where(low > 0, -low, high)  # the left tail has the digits
    upper, lower = jax.scipy.special.log_ndtr(high), jax.scipy.special.log_ndtr(low)
    return upper + jnp.log1p(-jnp.exp(lower - upper))


def reconstruction(data: Array, x: Array, noise: Array, sigma_0: float, levels: int | None) -> Array:
    """log p(x | y_0) at y_0 = x + sigma_0 noise. data: as the batch holds it; levels: None for vectors. [B]"""
    if levels is None:
        terms = -0.5 * jnp.square(noise) - math.log(sigma_0) - 0.5 * math.log(2.0 * math.pi)
    else:
        terms = discretised_gaussian(data, x + sigma_0 * noise, sigma_0, levels)
    return terms.reshape(x.shape[0], -1).sum(-1)


def prior_kl(x: Array, sigma_1: float, data_std: float) -> Array:
    """KL(N(x, sigma_1^2) || N(0, data_std^2 + sigma_1^2)). x [B, ...] -> [B]. At data_std = 1, VDM's prior."""
    total = data_std**2 + sigma_1**2
    ratio = sigma_1**2 / total
    return 0.5 * (jnp.square(x) / total + ratio - 1.0 - math.log(ratio)).reshape(x.shape[0], -1).sum(-1)


def diffusion_discrete(
    denoise: Denoise, schedule: Schedule, x: Array, keys: Key, i: Array, steps: int, cond: Array | None = None
) -> Array:
    """Term number i [B], from 1 to `steps`, of the sum over steps, with one draw of the noise. Eq. 13. [B]"""
    t, s = i / steps, (i - 1) / steps
    upper, lower = schedule.log_snr(s), schedule.log_snr(t)
    error = noise_error(denoise, x, jnp.exp(-0.5 * lower), _noise(keys, i, x), cond)
    return 0.5 * jnp.expm1(upper - lower) * error


def diffusion_continuous(
    denoise: Denoise, schedule: Schedule, x: Array, keys: Key, t: Array, cond: Array | None = None
) -> Array:
    """The integrand of eq. 17 at times t [B]; its mean over uniform t is the term. [B]"""
    error = noise_error(denoise, x, schedule.sigma(t), normal(keys, 0, x.shape[1:]), cond)
    return 0.5 * schedule.rate(t) * error


# ---- the bound and the estimate --------------------------------------------------------------------------------------


def bound(
    denoise: Denoise,
    schedule: Schedule,
    data: Array,
    x: Array,
    keys: Key,
    *,
    data_std: float,
    levels: int | None,
    steps: int | None,
    draws: int,
    cond: Array | None = None,
) -> LogProb:
    """The lower bound on log p(data), an unbiased estimate of it, [B].

    data: as the batch holds it; x: the same as real numbers, [B, ...].
    steps: T. None: continuous time, by `draws` draws of time, one in each of `draws` equal parts of [0, 1]; stderr is
        that of independent draws, which is more. With T steps every term is computed, with one draw of the noise.
    levels: grey values, None for vectors.
    """
    at = lambda k: jax.vmap(lambda key: jax.random.fold_in(key, k))(keys)  # noqa: E731

    def one(k):
        if steps is not None:
            return diffusion_discrete(denoise, schedule, x, keys, jnp.full(x.shape[0], k + 1.0), steps, cond)
        u = jax.vmap(jax.random.uniform)(at(2 * k))
        return diffusion_continuous(denoise, schedule, x, at(2 * k + 1), (k + u) / draws, cond)

    count = steps or draws
    terms = jax.lax.map(one, jnp.arange(count))  # [K, B]
    diffusion = terms.sum(0) if steps is not None else terms.mean(0)
    stderr = jnp.std(terms, axis=0, ddof=1) / math.sqrt(count) if steps is None and count > 1 else None
    sigma_0 = schedule.sigma_min
    recon = reconstruction(data, x, normal(at(2 * count), 0, x.shape[1:]), sigma_0, levels)
    return LogProb(recon - prior_kl(x, schedule.sigma_max, data_std) - diffusion, "lower_bound", stderr)


def ode_estimate(
    denoise: Denoise,
    schedule: Schedule,
    data: Array,
    x: Array,
    keys: Key,
    *,
    data_std: float,
    levels: int | None,
    probes: int,
    tol: float,
    cond: Array | None = None,
) -> LogProb:
    """log p(data) by the probability-flow ODE, [B]. probes: of Hutchinson's trace estimate; 0 takes the exact trace."""
    for_noise, for_probes = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    noise, sigma_0 = normal(for_noise, 0, x.shape[1:]), schedule.sigma_min
    y = x + sigma_0 * noise
    nats, stderr = flow_log_prob(
        denoise, y, sigma_0, schedule.sigma_max, data_std, for_probes, probes=probes, tol=tol, cond=cond
    )
    encoder = reconstruction(x, x, noise, sigma_0, None)  # the same Gaussian, the other way round
    return LogProb(nats + reconstruction(data, x, noise, sigma_0, levels) - encoder, "estimate", stderr)


def flow_log_prob(
    denoise: Denoise,
    y: Array,
    sigma_0: float,
    sigma_1: float,
    data_std: float,
    keys: Key | None = None,
    *,
    probes: int = 0,
    tol: float = 1e-5,
    cond: Array | None = None,
) -> tuple[Array, Array | None]:
    """log-density of y = x + sigma_0 noise under the ODE begun from N(0, data_std^2 + sigma_1^2). [B, ...] -> [B].

    Song et al. 2021 (arXiv:2011.13456), eq. 39; probes, keys and the standard error as of `samplers.ode.log_prob`.
    """
    size = lambda sigma: math.sqrt(1.0 + sigma**2)  # noqa: E731
    w = (y / size(sigma_0)).reshape(y.shape[0], -1)
    velocity = ode.flat(unit_flow(denoise, cond), y.shape[1:])
    ends = math.log(sigma_0), math.log(sigma_1)
    w, change, stderr = ode.transport(velocity, w, *ends, keys, probes=probes, tol=tol)
    prior = jax.scipy.stats.norm.logpdf(w, scale=math.sqrt(data_std**2 + sigma_1**2) / size(sigma_1)).sum(-1)
    return prior + change - w.shape[-1] * math.log(size(sigma_0)), stderr


def _noise(keys: Key, i: Array, x: Array) -> Array:
    return jax.vmap(lambda key, i: jax.random.normal(jax.random.fold_in(key, i), x.shape[1:]))(keys, i.astype(int))
