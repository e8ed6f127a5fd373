"""Diffusions that turn data into noise, the adapters between what networks predict, and sampling by the reverse SDE.

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv:2011.13456).

    dx = f(t) x dt + g(t) dw,      x_t | x_0 ~ N(alpha(t) x_0, std(t)^2 I)

Times t are scalars or [B]; states x are [B, ...]; a score or a noise prediction maps (x [B, ...], t [B]) to [B, ...].
The three SDEs differ only in functions of t. Two identities of every linear SDE keep the rest of the code free of
cases: a step from s to t multiplies by a = alpha(t) / alpha(s) and adds variance std(t)^2 - a^2 std(s)^2; and
g^2 / std^2 = d/dt log(std^2 / alpha^2), so integrals weighted by g^2 / std^2 are flat in the log noise-to-signal ratio.

Differs from the paper:
* VE: std(t)^2 = sigma(t)^2 - sigma(0)^2, the exact variance around x_0, where the paper's code drops sigma(0)^2.
* Predictor: the exact transition of the forward SDE in place of its first order in the step; for VE they are the same.
* Corrector: the ratio of norms ||z|| / ||s|| that sets the step is replaced by its order of magnitude, std(t). The
  paper averages norms over the batch, which ties examples together (and devices: results would depend on their
  number), while a ratio per example is not a Langevin step: its size would depend on the state, and explode at modes.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Field = Callable[[Array, Array], Array]  # (x [B, ...], t [B]) -> [B, ...]: a score or a noise prediction


# ---- three SDEs, as functions of t in [0, T] -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class VP:
    """Variance preserving: the continuous DDPM. Eq. 11 and 29."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    T: float = 1.0
    eps: float = 1e-5
    """Smallest time of training and of the likelihood."""
    eps_sample: float = 1e-3
    """Where samplers stop (appendix C of the paper)."""

    def beta(self, t: Array) -> Array:
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

    def time(self, log_nsr: Array) -> Array:
        """The time whose log noise-to-signal ratio log(std^2 / alpha^2) is `log_nsr`."""
        return self._time_of_integral(jax.nn.softplus(log_nsr))

    def _time_of_integral(self, b: Array) -> Array:
        return 2.0 * b / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * b))


@dataclasses.dataclass(frozen=True)
class SubVP(VP):
    """Drift of VP, variance below it at every time. Eq. 12 and 29."""

    def diffusion(self, t: Array) -> Array:
        return jnp.sqrt(-self.beta(t) * jnp.expm1(-2.0 * self.beta_integral(t)))

    def marginal(self, t: Array) -> tuple[Array, Array]:
        b = self.beta_integral(t)
        return jnp.exp(-0.5 * b), -jnp.expm1(-b)

    def time(self, log_nsr: Array) -> Array:
        return self._time_of_integral(2.0 * jnp.arcsinh(0.5 * jnp.exp(0.5 * log_nsr)))  # std / alpha = 2 sinh(B / 2)


@dataclasses.dataclass(frozen=True)
class VE:
    """Variance exploding: the continuous NCSN, sigma(t) = sigma_min (sigma_max / sigma_min)^t. Eq. 9 and 29."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    """At least the largest distance between two data points (Song & Ermon 2020)."""
    T: float = 1.0
    eps: float = 1e-5
    eps_sample: float = 1e-5

    def drift(self, t: Array) -> Array:
        return jnp.zeros_like(t)

    def diffusion(self, t: Array) -> Array:
        return self.sigma_min * jnp.exp(t * self._rate()) * (2.0 * self._rate()) ** 0.5

    def marginal(self, t: Array) -> tuple[Array, Array]:
        return jnp.ones_like(t), self.sigma_min * jnp.sqrt(jnp.expm1(2.0 * t * self._rate()))

    def prior_std(self) -> float:
        return self.sigma_max

    def time(self, log_nsr: Array) -> Array:
        return jnp.log1p(jnp.exp(log_nsr) / self.sigma_min**2) / (2.0 * self._rate())

    def _rate(self) -> Array:
        return jnp.log(self.sigma_max / self.sigma_min)


SDE = VP | SubVP | VE


def log_nsr(sde: SDE, t: Array) -> Array:
    """Log noise-to-signal ratio log(std^2 / alpha^2), increasing in t."""
    alpha, std = sde.marginal(t)
    return 2.0 * (jnp.log(std) - jnp.log(alpha))


def expand(t: Array, x: Array) -> Array:
    """t [B] or a scalar -> an array that broadcasts against x [B, ...]."""
    return jnp.reshape(t, jnp.shape(t) + (1,) * (x.ndim - jnp.ndim(t)))


def perturb(sde: SDE, x0: Array, t: Array, noise: Array) -> Array:
    """x_t = alpha(t) x_0 + std(t) noise."""
    alpha, std = sde.marginal(t)
    return expand(alpha, x0) * x0 + expand(std, x0) * noise


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


def as_denoiser(sde: SDE, score: Field) -> Callable[..., Array]:
    """The project's denoiser contract `denoise(x, sigma, cond) -> x_hat` for x = x_0 + sigma noise, from a score.

    The noise level picks the time of equal noise-to-signal ratio, and x is scaled by alpha to look like x_t.
    """

    def denoise(x, sigma, cond=None):
        if cond is not None:
            raise ValueError("a score (x, t) is unconditional: call denoise with cond=None")
        t = sde.time(2.0 * jnp.log(jnp.broadcast_to(sigma, x.shape[:1])))
        return tweedie(sde, score)(expand(sde.marginal(t)[0], x) * x, t)

    return denoise


# ---- the reverse SDE -------------------------------------------------------------------------------------------------


def prior_sample(sde: SDE, keys: Array, shape: tuple[int, ...]) -> Array:
    """x_T of the reverse process. keys [B] -> [B, *shape]"""
    return sde.prior_std() * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def predictor_corrector(
    sde: SDE, score: Field, x: Array, keys: Array, *, steps: int, corrector_steps: int = 1, snr: float = 0.16
) -> Array:
    """Samples x_0 from x_T: reverse-diffusion predictor, Langevin corrector, final denoising. Algorithms 2 and 3.

    x: x_T [B, ...], see `prior_sample`; keys [B] drive the noise of each example.
    steps: predictor steps, on times linear from T to eps_sample.
    corrector_steps: Langevin steps after each predictor step: steps * (1 + corrector_steps) + 1 scores in all.
    snr: signal-to-noise ratio r of the Langevin step 2 a^2 (r std)^2.
    """
    step = predictor_corrector_step(sde, score, keys, steps=steps, corrector_steps=corrector_steps, snr=snr)
    return denoised(sde, score, jax.lax.fori_loop(0, steps, step, x))


def predictor_corrector_step(
    sde: SDE, score: Field, keys: Array, *, steps: int, corrector_steps: int = 1, snr: float = 0.16
) -> Callable[[Array, Array], Array]:
    """Step i of `predictor_corrector` as a function (i, x [B, ...]) -> x."""
    times = jnp.linspace(sde.T, sde.eps_sample, steps + 1)

    def body(i, x):
        draw = lambda k: _normal(keys, i * (1 + corrector_steps) + k, x.shape[1:])  # noqa: E731
        at = lambda t: jnp.broadcast_to(t, x.shape[:1])  # noqa: E731
        t, s = times[i], times[i + 1]  # from t down to s
        (alpha_t, std_t), (alpha_s, std_s) = sde.marginal(t), sde.marginal(s)
        a = alpha_t / alpha_s
        variance = std_t**2 - (a * std_s) ** 2
        x = (2.0 - a) * x + variance * score(x, at(t)) + jnp.sqrt(variance) * draw(0)  # eq. 46 of the appendix
        step = 2.0 * (a * snr * std_s) ** 2
        for k in range(corrector_steps):
            x = x + step * score(x, at(s)) + jnp.sqrt(2.0 * step) * draw(1 + k)
        return x

    return body


def denoised(sde: SDE, score: Field, x: Array) -> Array:
    """What a sampler ends with: the mean of x_0 given x at eps_sample, since the last noise is not data. [B, ...]"""
    return tweedie(sde, score)(x, jnp.full(x.shape[0], sde.eps_sample, x.dtype))


def _normal(keys: Array, i: Array, shape: tuple[int, ...]) -> Array:
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), shape))(keys)
