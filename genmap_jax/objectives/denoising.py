"""The weighted denoising loss: every diffusion and flow-matching loss is this one, with its own weight and schedule.

Kingma & Gao 2023 (arXiv:2303.00848), eq. 6: with lambda the log SNR at uniform time t,

    loss = E_t [ weight(t) || eps - eps_hat ||^2 ],      eps - eps_hat = (x_hat - x) / sigma

and at weight -1/2 d lambda / dt it is the diffusion term of the VLB. A weight is of the *noise* error whatever the
network predicts: one of the data or of v is another weight (see `of_prediction`), which is where min-SNR has gone wrong
before.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.algorithm import Array, Batch, Key, Params
from genmap_jax.keys import normal, split
from genmap_jax.processes import Denoise, expand, predictions
from genmap_jax.processes.log_snr import Schedule, for_variance

Weighting = Literal["vlb", "simple", "min_snr", "edm", "sigmoid", "output", "uncertainty"]
SNR_CAP = 5.0
"""gamma of min-SNR: the largest SNR by which the error of the data is weighted."""
SIGMOID_BIAS = 2.0
"""The log SNR above which the sigmoid weighting falls."""


def weight(name: Weighting, log_snr: Array, rate: Array, prediction: predictions.Name, data_std: float = 1.0) -> Array:
    """Weight of the squared error of the noise, elementwise, at uniform times of a schedule of this log SNR and rate.

    vlb: -1/2 d lambda / dt, the bound. simple: 1 (Ho et al. 2020). min_snr: min(SNR, 5) times the error of the data
    (Hang et al. 2023, arXiv:2303.09556). edm: that of F (Karras et al. 2022, eq. 8). sigmoid: the bound, less and less
    above a log SNR of 2 (Kingma & Gao 2023). output: mean squared error of what the network predicts. uncertainty: edm,
    which `weighted_denoising` then divides by the error learned for each noise level.
    """
    snr = jnp.exp(log_snr)
    if name == "vlb":
        return 0.5 * rate
    if name == "simple":
        return jnp.ones_like(snr)
    if name == "min_snr":
        return jnp.minimum(snr, SNR_CAP) / snr
    if name in ("edm", "uncertainty"):
        return 1.0 / of_prediction("F", jnp.exp(-0.5 * log_snr), data_std)
    if name == "sigmoid":
        return 0.5 * rate * jax.nn.sigmoid(SIGMOID_BIAS - log_snr)
    return 1.0 / of_prediction(prediction, jnp.exp(-0.5 * log_snr), data_std)


def of_prediction(prediction: predictions.Name, sigma: Array, data_std: float = 1.0) -> Array:
    """The factor from a weight on the squared error of the noise to one on the squared error of `prediction`."""
    return (predictions.coefficients(prediction, sigma, data_std).c_out / sigma) ** 2


def noise_error(denoise: Denoise, x: Array, sigma: Array, noise: Array, cond: Array | None = None) -> Array:
    """|| eps - eps_hat ||^2, summed over dimensions. x, noise [B, ...], sigma [B] -> [B]"""
    x_hat = denoise(x + expand(sigma, x) * noise, sigma, cond)
    return jnp.square((x_hat - x) / expand(sigma, x)).reshape(x.shape[0], -1).sum(-1)


def even_times(key: Key, size: int, axis_name: str | None = None) -> Array:
    """Uniform times in [0, 1), evenly spaced over the global batch from one random offset: low-discrepancy. [size]

    Kingma et al. 2021, appendix I.1: each is uniform, and the mean over the batch has a smaller variance.
    """
    count = parallel.total(size, axis_name)
    first = parallel.first_example(size, axis_name)
    return (jax.random.uniform(key) + (first + jnp.arange(size)) / count) % 1.0


def weighted_denoising(
    schedule: Callable[[Params], Schedule],
    denoise: Callable[[Params], Denoise],
    data: Callable[[Batch], Array],
    cond: Callable[[Key, Batch], Array | None],
    weighting: Weighting,
    prediction: predictions.Name,
    data_std: float,
    uncertainty: Callable[[Params, Array], Array] | None = None,
) -> Callable[[Params, Key, Batch], dict[str, Array]]:
    """The loss for `minimise`, per dimension. The batch also holds "t" [B], uniform times; see `even_times`.

    schedule, denoise: functions of the parameters. data: gives x [B, ...] of a batch. cond: (keys [B], batch) -> labels
        [B], some of them dropped, or None.
    A learned schedule minimises the variance of the "vlb" weighting's estimate.
    uncertainty: u [B] at log SNR [B], of the parameters: the loss is exp(-u) term + u (Karras et al. 2024,
        arXiv:2312.02696, eq. 21), least where exp(u) is the mean term, so all noise levels pull alike. None: u = 0.
    """

    def loss(params, keys, batch):
        for_noise, for_cond = split(keys)
        x, now = data(batch), schedule(params)
        noise = normal(for_noise, x.shape[1:])
        log_snr, rate, gauge = for_variance(now.log_snr(batch["t"]), now.rate(batch["t"]))
        error = noise_error(denoise(params), x, jnp.exp(-0.5 * log_snr), noise, cond(for_cond, batch)) / x[0].size
        term = weight(weighting, log_snr, rate, prediction, data_std) * error
        if uncertainty is not None:
            u = uncertainty(params, log_snr)
            return {"loss": jnp.exp(-u) * term + u, "eps_mse": error}
        return {"loss": term + jax.lax.stop_gradient(2.0 * len(term) * term) * gauge, "eps_mse": error}

    return loss
