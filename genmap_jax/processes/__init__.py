"""Noise: the processes that turn data into noise, in one description, and what networks may predict of it.

All noised data of the project are described by one number, the log signal-to-noise ratio lambda:

    y = x + sigma noise,      sigma = exp(-lambda / 2)

    log_snr.py      noise schedules: lambda as a function of time, fixed or learned
    sde.py          the stochastic differential equations of score-based models, each with its lambda
    predictions.py  what a network predicts (noise, data, v, F, velocity), as a denoiser

The contract between them, the losses and the samplers is the denoiser: the mean of x given y.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Denoise = Callable[..., Array]
"""(y [B, ...], sigma [B], cond=None) -> x_hat [B, ...], the mean of x given y. cond: int32 labels [B] or None."""
Field = Callable[[Array, Array], Array]
"""(x [B, ...], t [B]) -> [B, ...]: a score, a prediction of noise, or a velocity."""


def expand(t: Array, x: Array) -> Array:
    """t [B] or a scalar -> an array that broadcasts against x [B, ...]."""
    return jnp.reshape(t, jnp.shape(t) + (1,) * (x.ndim - jnp.ndim(t)))
