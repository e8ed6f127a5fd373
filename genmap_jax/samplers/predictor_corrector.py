"""Predictor-corrector sampling: the reverse SDE of a score-based model, with Langevin steps at every noise level.

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv:2011.13456),
algorithms 2 and 3.

Differs from the paper:
* Predictor: the exact transition of the forward SDE in place of its first order in the step; for VE they are the same.
* Corrector: the ratio of norms ||z|| / ||s|| that sets the step is replaced by its order of magnitude, std(t). The
  paper averages norms over the batch, which ties examples together (and devices: results would depend on their
  number), while a ratio per example is not a Langevin step: its size would depend on the state, and explode at modes.
"""

from collections.abc import Callable

import jax.numpy as jnp

from genmap_jax.keys import fold, normal
from genmap_jax.processes import Array, Field
from genmap_jax.processes.sde import SDE, tweedie
from genmap_jax.samplers.trajectory import loop_frames


def prior_sample(sde: SDE, keys: Array, shape: tuple[int, ...]) -> Array:
    """x_T, where the reverse process starts. keys [B] -> [B, *shape]."""
    return sde.prior_std() * normal(keys, shape)


def predictor_corrector(
    sde: SDE,
    score: Field,
    x: Array,
    keys: Array,
    *,
    steps: int,
    corrector_steps: int = 1,
    snr: float = 0.16,
    frames: int = 1,
) -> Array:
    """Samples x_0 from x_T: reverse-diffusion predictor, Langevin corrector, final denoising. [B, ...] -> [frames, ...]

    The states after equal numbers of steps, of which all but the last still carry noise; the last is the sample.

    x: x_T [B, ...], see `prior_sample`; keys [B] drive the noise of each example.
    steps: predictor steps, on times linear from T to t_sample.
    corrector_steps: Langevin steps after each predictor step: steps * (1 + corrector_steps) + 1 scores in all.
    snr: signal-to-noise ratio r of the Langevin step 2 a^2 (r std)^2.
    """
    step = predictor_corrector_step(sde, score, keys, steps=steps, corrector_steps=corrector_steps, snr=snr)
    path = loop_frames(step, x, steps, frames)
    last = path[-1]
    end = jnp.full(last.shape[0], sde.t_sample, last.dtype)
    return path.at[-1].set(tweedie(sde, score)(last, end))  # the mean of x_0: the last noise is not data


def predictor_corrector_step(
    sde: SDE, score: Field, keys: Array, *, steps: int, corrector_steps: int = 1, snr: float = 0.16
) -> Callable[[Array, Array], Array]:
    """Step i of `predictor_corrector` as a function (i, x [B, ...]) -> x."""
    times = jnp.linspace(sde.T, sde.t_sample, steps + 1)

    def step(i, x):
        noise = lambda k: normal(fold(keys, i * (1 + corrector_steps) + k), x.shape[1:]).astype(x.dtype)  # noqa: E731
        at = lambda t: jnp.broadcast_to(t, x.shape[:1])  # noqa: E731
        t, s = times[i].astype(x.dtype), times[i + 1].astype(x.dtype)  # from t down to s
        (alpha_t, std_t), (alpha_s, std_s) = sde.marginal(t), sde.marginal(s)
        a = alpha_t / alpha_s
        variance = jnp.maximum(std_t**2 - (a * std_s) ** 2, 0.0)  # over a very short step, rounding falls below 0
        x = (2.0 - a) * x + variance * score(x, at(t)) + jnp.sqrt(variance) * noise(0)  # eq. 46 of the appendix
        size = 2.0 * (a * snr * std_s) ** 2
        for k in range(corrector_steps):
            x = x + size * score(x, at(s)) + jnp.sqrt(2.0 * size) * noise(1 + k)
        return x

    return step
