"""Noise schedules: the log signal-to-noise ratio as a function of time, the one description of all noise processes.

Kingma et al. 2021, "Variational Diffusion Models" (arXiv:2107.00630); Kingma & Gao 2023 (arXiv:2303.00848), where every
schedule in use is a decreasing lambda(t) = log SNR on [0, 1], and is a distribution of noise levels: t is uniform.

The project speaks of noised data as

    y = x + sigma noise,      sigma = exp(-lambda / 2)

whatever the process: variance preserving, z = alpha x + std noise, is z = alpha y with alpha^2 = 1 / (1 + sigma^2);
straight paths (flow matching), z = (1 - s) x + s noise, are z = (1 - s) y with s = sigma / (1 + sigma); the processes
of score-based models are in sde.py, each with its lambda.

Every schedule here is pinned: lambda(0) and lambda(1) are the two named numbers, also where the middle is learned. (In
VDM's code the learned ends move unseen, while the bound's prior and reconstruction terms depend on them.)
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.processes import Array

Name = Literal["linear", "ddpm", "cosine", "flow", "lognormal", "karras"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """lambda(t) for t in [0, 1], falling from `highest` to `lowest`. Elementwise in t; float32 or float64.

    course: a function of t; lambda moves between its two ends as `course` moves between its own. See `fixed` and
        `Learned`.
    """

    course: Callable[[Array], Array]
    highest: float
    """lambda(0), where the data have the least noise."""
    lowest: float
    """lambda(1), where the data have the most noise."""

    def log_snr(self, t: Array) -> Array:
        """lambda(t)."""
        start, end = self.course(jnp.zeros_like(t)), self.course(jnp.ones_like(t))
        done = (self.course(t) - start) / (end - start)
        return (1.0 - done) * self.highest + done * self.lowest

    def sigma(self, t: Array) -> Array:
        """Standard deviation of the noise in y = x + sigma noise."""
        return jnp.exp(-0.5 * self.log_snr(t))

    def rate(self, t: Array) -> Array:
        """-d lambda / dt, positive."""
        return -jax.jvp(self.log_snr, (t,), (jnp.ones_like(t),))[1]

    @property
    def sigma_min(self) -> float:
        """The least noise, at t = 0."""
        return float(np.exp(-0.5 * self.highest))

    @property
    def sigma_max(self) -> float:
        """The most noise, at t = 1."""
        return float(np.exp(-0.5 * self.lowest))


def checked(schedule: Schedule) -> Schedule:
    """The schedule itself. Raises ValueError if it does not fall strictly, before anything is compiled."""
    log_snr = np.asarray(schedule.log_snr(jnp.linspace(0.0, 1.0, 257)))
    if not np.all(np.diff(log_snr) < 0):
        raise ValueError("schedule: log_snr must fall strictly with time; give a strictly monotone course")
    return schedule


# ---- fixed schedules: straight lines in some coordinate of the noise level -------------------------------------------

BETA = (0.1, 20.0)
"""Noise rates of "ddpm" at both ends of time: Ho et al. 2020, in Song et al.'s continuous form."""
LOG_SIGMA = (-1.2, 1.2)
"""Mean and standard deviation of log sigma of "lognormal", as EDM has them."""
RHO = 7.0
"""The exponent of "karras": evenly spaced are the values of sigma^(1/7)."""


def _ddpm_time(log_snr):
    b = jnp.logaddexp(0.0, -log_snr)  # the integral of beta, of which the SNR is 1 / (e^b - 1)
    slope = BETA[1] - BETA[0]
    return (jnp.sqrt(BETA[0] ** 2 + 2.0 * slope * b) - BETA[0]) / slope


def _ddpm_log_snr(t):
    return -jnp.log(jnp.expm1(BETA[0] * t + 0.5 * (BETA[1] - BETA[0]) * t**2))


_normal_cdf, _normal_quantile = jax.scipy.special.ndtr, jax.scipy.special.ndtri


def _lognormal(mean: float, std: float) -> tuple[Callable, Callable]:
    return (
        lambda log_snr: _normal_cdf((-0.5 * log_snr - mean) / std),
        lambda u: -2.0 * (mean + std * _normal_quantile(u)),
    )


# name: (log SNR -> coordinate, its inverse). Kingma & Gao 2023, table 1; "karras" is eq. 5 of arXiv:2206.00364.
COORDINATES: dict[str, tuple[Callable, Callable]] = {
    "linear": (lambda log_snr: log_snr, lambda u: u),
    "ddpm": (_ddpm_time, _ddpm_log_snr),
    "cosine": (lambda log_snr: jnp.arctan(jnp.exp(-0.5 * log_snr)), lambda u: -2.0 * jnp.log(jnp.tan(u))),
    "flow": (lambda log_snr: jax.nn.sigmoid(-0.5 * log_snr), lambda u: 2.0 * (jnp.log1p(-u) - jnp.log(u))),
    "lognormal": _lognormal(*LOG_SIGMA),
    "karras": (lambda log_snr: jnp.exp(-0.5 * log_snr / RHO), lambda u: -2.0 * RHO * jnp.log(u)),
}


def fixed(name: Name, highest: float, lowest: float, log_sigma: tuple[float, float] = LOG_SIGMA) -> Schedule:
    """A schedule by name: a noise level whose coordinate moves evenly in time, cut to [lowest, highest].

    linear: log SNR (VDM). ddpm: time of a VP process whose noise rate grows linearly (Ho et al. 2020). cosine: the
    angle of noise to signal (Nichol & Dhariwal 2021). flow: the position on a straight path from data to noise (flow
    matching). lognormal: the quantile of log sigma under a normal law of mean and standard deviation `log_sigma`, how
    EDM draws noise levels to train on. karras: sigma^(1/7), how EDM steps through them to sample.

    Raises ValueError for an unknown name, ends in the wrong order, or a standard deviation that is not positive.
    """
    if name not in COORDINATES:
        raise ValueError(f"schedule={name!r}: choose one of {', '.join(map(repr, COORDINATES))}")
    if not lowest < highest:
        raise ValueError(f"log_snr_min={lowest} must be less than log_snr_max={highest}: swap them")
    if not log_sigma[1] > 0:
        raise ValueError(f"log_sigma={log_sigma}: its second number is a standard deviation; make it positive")
    to, back = _lognormal(*log_sigma) if name == "lognormal" else COORDINATES[name]
    first, last = to(jnp.asarray(highest)), to(jnp.asarray(lowest))
    return Schedule(lambda t: back((1.0 - t) * first.astype(t.dtype) + t * last.astype(t.dtype)), highest, lowest)


# ---- the learned schedule --------------------------------------------------------------------------------------------


class Learned(nn.Module):
    """A monotone network t -> course(t), elementwise: a line plus a wide hidden layer, all weights positive.

    Kingma et al. 2021, appendix H; without its output scale and shift, which the pinning would undo.
    """

    width: int = 64

    @nn.compact
    def __call__(self, t):
        positive = lambda name, shape, mean: jnp.abs(  # noqa: E731
            self.param(name, lambda key: mean + 0.01 * jax.random.normal(key, shape))
        )
        line = positive("slope", (), 1.0) * t
        centres = self.param("centres", lambda key: jax.random.uniform(key, (self.width,), minval=-6.0, maxval=6.0))
        steep = positive("steep", (self.width,), 4.0)
        heights = positive("heights", (self.width,), 0.0)
        steep, centres, heights = (w.reshape((1,) * t.ndim + (-1,)) for w in (steep, centres, heights))
        return line + (heights * jax.nn.sigmoid(steep * (2.0 * t[..., None] - 1.0) - centres)).mean(-1)


def learned(params: Any, highest: float, lowest: float) -> Schedule:
    """The schedule a `Learned` network describes; params as from `Learned().init`."""
    return Schedule(lambda t: cast(Array, Learned().apply({"params": params}, t)), highest, lowest)


@jax.custom_vjp
def for_variance(log_snr: Array, rate: Array) -> tuple[Array, Array, Array]:
    """log SNR and rate [B], unchanged, and a gauge, zeros [B]: its gradient makes the learned schedule minimise the
    variance of the bound's estimate.

    The bound does not depend on the course of the schedule, only the variance of its estimate does (Kingma et al. 2021,
    section 5.1 and appendix I.2). So schedule parameters follow the gradient of term^2, not of the term: where B terms
    are to be averaged, add stop_gradient(2 B term) * gauge to each, and what flows back to the schedule is multiplied
    by 2 term, in one pass. (Both cotangents hold the 1 / B of the mean: hence the B.)
    """
    return log_snr, rate, jnp.zeros_like(log_snr)


for_variance.defvjp(
    lambda log_snr, rate: ((log_snr, rate, jnp.zeros_like(log_snr)), None),
    lambda _, g: (g[0] * g[2], g[1] * g[2]),
)
