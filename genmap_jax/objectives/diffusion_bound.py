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

an estimate: its density is not the one the bound is of, and the errors of solver and divergence have either sign.
"""

import math

import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array, Key, LogProb
from genmap_jax.keys import fold, normal, split, uniform
from genmap_jax.likelihoods import discretised_gaussian
from genmap_jax.objectives.denoising import noise_error
from genmap_jax.processes import Denoise
from genmap_jax.processes.log_snr import Schedule
from genmap_jax.samplers import ode

# ---- the three terms -------------------------------------------------------------------------------------------------


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
    noise = normal(fold(keys, i.astype(int)), x.shape[1:])
    error = noise_error(denoise, x, jnp.exp(-0.5 * lower), noise, cond)
    return 0.5 * jnp.expm1(upper - lower) * error


def diffusion_continuous(
    denoise: Denoise, schedule: Schedule, x: Array, keys: Key, t: Array, cond: Array | None = None
) -> Array:
    """The integrand of eq. 17 at times t [B]; its mean over uniform t is the term. [B]"""
    error = noise_error(denoise, x, schedule.sigma(t), normal(fold(keys, 0), x.shape[1:]), cond)
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

    def one(k):
        if steps is not None:
            return diffusion_discrete(denoise, schedule, x, keys, jnp.full(x.shape[0], k + 1.0), steps, cond)
        u = uniform(fold(keys, 2 * k))
        return diffusion_continuous(denoise, schedule, x, fold(keys, 2 * k + 1), (k + u) / draws, cond)

    count = steps or draws
    terms = jax.lax.map(one, jnp.arange(count))  # [K, B]
    diffusion = terms.sum(0) if steps is not None else terms.mean(0)
    stderr = jnp.std(terms, axis=0, ddof=1) / math.sqrt(count) if steps is None and count > 1 else None
    sigma_0 = schedule.sigma_min
    recon = reconstruction(data, x, normal(fold(fold(keys, 2 * count), 0), x.shape[1:]), sigma_0, levels)
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
    """log p(data) by the probability-flow ODE, [B].

    probes: of Hutchinson's estimate of the divergence;
    0 takes the exact divergence."""
    for_noise, for_probes = split(keys)
    noise, sigma_0, sigma_1 = normal(fold(for_noise, 0), x.shape[1:]), schedule.sigma_min, schedule.sigma_max
    prior_std = math.sqrt(data_std**2 + sigma_1**2)
    nats, stderr = ode.log_prob(
        denoise, x + sigma_0 * noise, sigma_0, sigma_1, prior_std, for_probes, probes=probes, tol=tol, cond=cond
    )
    encoder = reconstruction(x, x, noise, sigma_0, None)  # the same Gaussian, the other way round
    return LogProb(nats + reconstruction(data, x, noise, sigma_0, levels) - encoder, "estimate", stderr)
