"""Denoising score matching: the regression whose minimiser is the score of the noised data.

Vincent 2011; over a continuum of noise levels Song et al. 2021 (arXiv:2011.13456), eq. 7:

    E_t E_{x_0, x_t} lambda(t) || score(x_t, t) - grad log p(x_t | x_0) ||^2,    grad log p(x_t | x_0) = -noise / std(t)

With score = -eps_hat / std the term is lambda / std^2 ||eps_hat - noise||^2. Terms are means over dimensions.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp

from genmap_jax.algorithm import Array, Batch, Key, Params
from genmap_jax.keys import fold, normal, uniform
from genmap_jax.processes import Field
from genmap_jax.processes.sde import SDE, log_snr, perturb

Weighting = Literal["noise", "likelihood"]


def terms(sde: SDE, eps_hat: Field, x0: Array, t: Array, noise: Array) -> Array:
    """Mean over dimensions of (eps_hat - noise)^2 at given times: lambda = std^2. x0, noise [B, ...], t [B] -> [B]."""
    error = eps_hat(perturb(sde, x0, t, noise), t) - noise
    return jnp.mean(error.reshape(x0.shape[0], -1) ** 2, axis=-1)


def sample_time(sde: SDE, keys: Key, weighting: Weighting) -> tuple[Array, Array]:
    """Times t [B] in [t_min, T], and the weight [B] that makes `terms` there estimate its mean over uniform times.

    "noise": lambda = std^2, t uniform, weight 1. "likelihood": lambda = g^2, which bounds the likelihood; importance
    sampling with density proportional to g^2 / std^2 leaves a constant weight (Song et al. 2021b, arXiv:2101.09258),
    and for a linear SDE that density is the uniform one of the log SNR.
    """
    u = uniform(keys)
    if weighting == "noise":
        return sde.t_min + (sde.T - sde.t_min) * u, jnp.ones_like(u)
    highest, lowest = log_snr(sde, jnp.asarray(sde.t_min)), log_snr(sde, jnp.asarray(sde.T))
    t = jnp.clip(sde.time(highest + (lowest - highest) * u), sde.t_min, sde.T)
    return t, jnp.broadcast_to((highest - lowest) / (sde.T - sde.t_min), u.shape)


def denoising_score_matching(
    sde: SDE,
    eps_hat: Callable[[Params, Array, Array], Array],
    data: Callable[[Key, Batch], Array],
    weighting: Weighting,
) -> Callable[[Params, Key, Batch], dict[str, Array]]:
    """The loss for `minimise`. data: (keys [B], batch) -> x_0 [B, ...], dequantised where the batch holds integers."""

    def loss(params, keys, batch):
        for_data, for_time, for_noise = (fold(keys, i) for i in range(3))
        x0 = data(for_data, batch)
        t, weight = sample_time(sde, for_time, weighting)
        noise = normal(for_noise, x0.shape[1:])
        error = terms(sde, lambda x, t: eps_hat(params, x, t), x0, t, noise)
        return {"loss": weight * error, "eps_mse": error}

    return loss
