"""Noise by stochastic differential equations: VP, sub-VP and VE, and the adapters between score, noise and denoiser.

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv:2011.13456).

    dx = f(t) x dt + g(t) dw,      x_t | x_0 ~ N(alpha(t) x_0, std(t)^2 I)

Times t are scalars or [B]; states x are [B, ...]; a score or a noise prediction maps (x [B, ...], t [B]) to [B, ...].
The three SDEs differ only in functions of t. In the project's common description, y = x_t / alpha(t) is x_0 + sigma
noise with log SNR = log(alpha^2 / std^2): `log_snr` and `schedule` give an SDE's place there, `as_denoiser` takes its
model there. Two identities of every linear SDE keep the rest of the code free of cases: a step from s to t multiplies
by a = alpha(t) / alpha(s) and adds variance std(t)^2 - a^2 std(s)^2; and g^2 / std^2 = -d/dt log SNR, so integrals
weighted by g^2 / std^2 are flat in the log SNR.

Differs from the paper: for VE, std(t)^2 = sigma(t)^2 - sigma(0)^2, the exact variance around x_0, where the paper's
code drops sigma(0)^2.
"""

import dataclasses

import jax
import jax.numpy as jnp

from genmap_jax.processes import Array, Denoise, Field, expand
from genmap_jax.processes.log_snr import Schedule

# ---- three SDEs, as functions of t in [0, T] -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class VP:
    """Variance preserving: the continuous DDPM. Eq. 11 and 29."""

    beta_min: float = 0.1
    """The noise rate at t = 0."""
    beta_max: float = 20.0
    """The noise rate at t = 1."""
    T: float = 1.0
    """The time at which nothing but noise is left."""
    t_min: float = 1e-5
    """The smallest time of training and of the likelihood."""
    t_sample: float = 1e-3
    """The time at which samplers stop (appendix C of the paper)."""

    def beta(self, t: Array) -> Array:
        """The noise rate at time t."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def beta_integral(self, t: Array) -> Array:
        """Integral of beta from 0 to t."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def drift(self, t: Array) -> Array:
        """f(t) of the drift f(t) x."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: Array) -> Array:
        """g(t)."""
        return jnp.sqrt(self.beta(t))

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """alpha(t), std(t) of x_t given x_0."""
        b = self.beta_integral(t)
        return jnp.exp(-0.5 * b), jnp.sqrt(-jnp.expm1(-b))

    def prior_std(self) -> float:
        """Standard deviation of the centred Gaussian that stands for x_T."""
        return 1.0

    def time(self, log_snr: Array) -> Array:
        """The time of this log SNR; the inverse of `log_snr`."""
        return self._time_of_integral(jax.nn.softplus(-log_snr))

    def _time_of_integral(self, b: Array) -> Array:
        return 2.0 * b / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * b))


@dataclasses.dataclass(frozen=True)
class SubVP(VP):
    """Drift of VP, variance below it at every time. Eq. 12 and 29."""

    def diffusion(self, t: Array) -> Array:
        """g(t)."""
        return jnp.sqrt(-self.beta(t) * jnp.expm1(-2.0 * self.beta_integral(t)))

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """alpha(t), std(t) of x_t given x_0."""
        b = self.beta_integral(t)
        return jnp.exp(-0.5 * b), -jnp.expm1(-b)

    def time(self, log_snr: Array) -> Array:
        """The time of this log SNR."""
        return self._time_of_integral(2.0 * jnp.arcsinh(0.5 * jnp.exp(-0.5 * log_snr)))  # std / alpha = 2 sinh(B / 2)


@dataclasses.dataclass(frozen=True)
class VE:
    """Variance exploding: the continuous NCSN, sigma(t) = sigma_min (sigma_max / sigma_min)^t. Eq. 9 and 29."""

    sigma_min: float = 0.01
    """The noise level at t = 0."""
    sigma_max: float = 50.0
    """The noise level at t = 1: at least the largest distance between two data points (Song & Ermon 2020)."""
    T: float = 1.0
    """The time at which nothing but noise is left."""
    t_min: float = 1e-5
    """The smallest time of training and of the likelihood."""
    t_sample: float = 1e-5
    """The time at which samplers stop."""

    def drift(self, t: Array) -> Array:
        """f(t) of the drift f(t) x: none."""
        return jnp.zeros_like(t)

    def diffusion(self, t: Array) -> Array:
        """g(t)."""
        return self.sigma_min * jnp.exp(t * self._rate()) * (2.0 * self._rate()) ** 0.5

    def marginal(self, t: Array) -> tuple[Array, Array]:
        """alpha(t), std(t) of x_t given x_0."""
        return jnp.ones_like(t), self.sigma_min * jnp.sqrt(jnp.expm1(2.0 * t * self._rate()))

    def prior_std(self) -> float:
        """Standard deviation of the centred Gaussian that stands for x_T."""
        return self.sigma_max

    def time(self, log_snr: Array) -> Array:
        """The time of this log SNR."""
        return jnp.log1p(jnp.exp(-log_snr) / self.sigma_min**2) / (2.0 * self._rate())

    def _rate(self) -> Array:
        return jnp.log(self.sigma_max / self.sigma_min)


SDE = VP | SubVP | VE


def perturb(sde: SDE, x0: Array, t: Array, noise: Array) -> Array:
    """x_t = alpha(t) x_0 + std(t) noise. x0, noise [B, ...], t [B] -> [B, ...]."""
    alpha, std = sde.marginal(t)
    return expand(alpha, x0) * x0 + expand(std, x0) * noise


# ---- an SDE in the common description, y = x + sigma noise -----------------------------------------------------------


def log_snr(sde: SDE, t: Array) -> Array:
    """The log signal-to-noise ratio log(alpha^2 / std^2), falling in t."""
    alpha, std = sde.marginal(t)
    return 2.0 * (jnp.log(alpha) - jnp.log(std))


def schedule(sde: SDE, t_min: float) -> Schedule:
    """The SDE from `t_min` to T as a noise schedule, whose evenly spaced times are those of the SDE."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        highest, lowest = (float(log_snr(sde, jnp.asarray(t, jnp.float64))) for t in (t_min, sde.T))
    return Schedule(lambda t: log_snr(sde, t_min + (sde.T - t_min) * t), highest, lowest)


def scale(sde: SDE, sigma: float) -> float:
    """alpha at the time of this noise level: x_t = alpha y."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        t = sde.time(-2.0 * jnp.log(jnp.asarray(sigma, jnp.float64)))
        return float(sde.marginal(t)[0])


def as_denoiser(sde: SDE, score: Field) -> Denoise:
    """The project's denoiser contract `denoise(y, sigma, cond) -> x_hat` for y = x_0 + sigma noise, from a score.

    The noise level picks the time of equal signal-to-noise ratio, and y is scaled by alpha to look like x_t. Raises
    ValueError on a condition: a score (x, t) is unconditional.
    """

    def denoise(y, sigma, cond=None):
        if cond is not None:
            raise ValueError("a score (x, t) is unconditional: call denoise with cond=None")
        t = sde.time(-2.0 * jnp.log(jnp.broadcast_to(sigma, y.shape[:1])))
        return tweedie(sde, score)(expand(sde.marginal(t)[0], y) * y, t)

    return denoise


# ---- adapters --------------------------------------------------------------------------------------------------------


def score_from_eps(sde: SDE, eps_hat: Field) -> Field:
    """A prediction of the noise in x_t -> the score: s = -eps_hat / std(t)."""
    return lambda x, t: -eps_hat(x, t) / expand(sde.marginal(t)[1], x)


def tweedie(sde: SDE, score: Field) -> Field:
    """The mean of x_0 given x_t: (x + std^2 s) / alpha (Efron 2011)."""

    def mean(x, t):
        alpha, std = sde.marginal(t)
        return (x + expand(std**2, x) * score(x, t)) / expand(alpha, x)

    return mean
