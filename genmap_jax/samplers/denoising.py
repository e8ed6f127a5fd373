"""Samplers of diffusion models: free functions on one contract, `denoise(y, sigma [B], cond) -> x_hat`.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv:2206.00364). States are
y = x + sigma noise, so none of them knows which process, schedule or prediction a model was trained with: in these
units the probability-flow ODE of all of them is (eq. 3)

    dy / d sigma = (y - denoise(y, sigma)) / sigma

and the Euler method on it is DDIM. A solver is made by `ddim`, `heun` or `dpmpp_2m` as one step (i, (y, x_hat)) -> (y,
x_hat) from noise level sigmas[i] to sigmas[i + 1]; `run` makes all steps in one compiled loop. Where sigmas end in 0,
the last step returns the denoised state.

    sigmas = grid(schedule, 20)
    y = start((data_std**2 + sigmas[0] ** 2) ** 0.5, keys, shape)
    x = run(heun(denoise, sigmas), y, 20)

`draw` does the same by the name of the solver: what diffusion and score models sample with.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.keys import fold, normal
from genmap_jax.processes import Array, Denoise
from genmap_jax.processes.log_snr import Schedule
from genmap_jax.samplers import ode
from genmap_jax.samplers.trajectory import loop_frames

Carry = tuple[Array, Array]  # the state y, and the last x_hat
Step = Callable[[Array, Carry], Carry]
Name = Literal["ancestral", "ddim", "euler", "heun", "dpmpp_2m", "ode"]


def grid(schedule: Schedule, steps: int) -> np.ndarray:
    """Noise levels for `steps` steps, float64 [steps + 1]: as many evenly spaced times of the schedule, then 0.

    As many steps are made as asked; the last is the denoising of sigma_min. Raises ValueError for less than one step.
    """
    times = np.linspace(1.0, 0.0, steps)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        sigmas = np.asarray(schedule.sigma(jnp.asarray(times)), np.float64)
    return checked(np.append(sigmas, 0.0), "sample_steps", order=1)


def checked(sigmas: np.ndarray, name: str = "sigmas", order: int = 1) -> np.ndarray:
    """The noise levels in float64. Raises ValueError unless they fall strictly, to 0 at least, in `order` steps."""
    sigmas = np.asarray(sigmas, np.float64)
    if len(sigmas) < order + 1:
        raise ValueError(f"{name}: {len(sigmas) - 1} step(s); a solver of order {order} needs at least {order}")
    if not (np.all(np.diff(sigmas) < 0) and sigmas[-1] >= 0):
        raise ValueError(f"{name}: noise levels must fall strictly and end at 0 or above; sort them, without repeats")
    return sigmas


def start(std: float, keys: Array, shape: tuple[int, ...]) -> Array:
    """The state at the most noise, where samplers begin: N(0, std^2), which stands for the noised data.

    keys [B] -> [B, *shape].
    """
    return std * normal(fold(keys, 0), shape)


def levels(name: "Name", schedule: Schedule, steps: int) -> np.ndarray:
    """The noise levels that `draw` wants: those of `grid`; for "ode", whose steps are its own, the two ends and 0."""
    return grid(schedule, 2 if name == "ode" else steps)


def run(step: Step, y: Array, steps: int) -> Array:
    """All steps in one loop. y: the state at sigmas[0], [B, ...] -> the state at sigmas[-1]."""
    return jax.lax.fori_loop(0, steps, step, (y, jnp.zeros_like(y)))[0]


# ---- solvers ---------------------------------------------------------------------------------------------------------


def ddim(denoise: Denoise, sigmas: np.ndarray, keys: Array | None = None, *, eta: float = 0.0, cond=None) -> Step:
    """From Euler steps of the ODE (eta = 0) to ancestral sampling (eta = 1). Song et al. 2021, arXiv:2010.02502, eq.
    12.

    With eta = 1 a step draws from q(y_s | y_t, x = x_hat), as DDPM with its smaller variance. keys [B]: noise, unless
    eta = 0.
    """
    levels = jnp.asarray(checked(sigmas))
    if eta and keys is None:
        raise ValueError(f"eta={eta} draws noise: give keys, or eta=0")

    def step(i, carry):
        y, _ = carry
        t, s = levels[i].astype(y.dtype), levels[i + 1].astype(y.dtype)
        x_hat = denoise(y, jnp.broadcast_to(t, y.shape[:1]), cond)
        variance = (eta * s / t) ** 2 * (t**2 - s**2)
        kept = jnp.sqrt(jnp.maximum(s**2 - variance, 0.0))  # over a long step at eta = 1, rounding falls below 0
        y = x_hat + kept / t * (y - x_hat)
        return (y + jnp.sqrt(variance) * _noise(keys, i, y) if eta else y), x_hat

    return step


def euler(denoise: Denoise, sigmas: np.ndarray, *, cond=None) -> Step:
    """Euler steps of the probability-flow ODE: first order, one evaluation."""
    return ddim(denoise, sigmas, cond=cond)


def ancestral(denoise: Denoise, sigmas: np.ndarray, keys: Array, *, cond=None) -> Step:
    """Steps of the reverse process (Ho et al. 2020, algorithm 2): stochastic, one evaluation."""
    return ddim(denoise, sigmas, keys, eta=1.0, cond=cond)


def heun(
    denoise: Denoise,
    sigmas: np.ndarray,
    keys: Array | None = None,
    *,
    churn: float = 0.0,
    churn_range: tuple[float, float] = (0.0, float("inf")),
    churn_noise: float = 1.0,
    cond=None,
) -> Step:
    """Heun's second-order method, two evaluations (one in a step to 0). Karras et al. 2022, algorithms 1 and 2.

    churn: S_churn, noise added and removed again within `churn_range` of sigma, scaled by `churn_noise`; 0 is the ODE.
    keys [B]: of that noise.
    """
    sigmas = checked(sigmas)
    within = (sigmas[:-1] >= churn_range[0]) & (sigmas[:-1] <= churn_range[1])
    gammas = jnp.asarray(np.where(within, min(churn / (len(sigmas) - 1), 2**0.5 - 1), 0.0))
    levels = jnp.asarray(sigmas)
    if churn and keys is None:
        raise ValueError(f"churn={churn} draws noise: give keys, or churn=0")

    def slope(y, sigma):
        x_hat = denoise(y, jnp.broadcast_to(sigma, y.shape[:1]), cond)
        return (y - x_hat) / sigma, x_hat

    def step(i, carry):
        y, _ = carry
        t, s = levels[i].astype(y.dtype), levels[i + 1].astype(y.dtype)
        if churn:
            gamma = gammas[i].astype(y.dtype)
            y = y + t * jnp.sqrt(gamma * (2.0 + gamma)) * churn_noise * _noise(keys, i, y)
            t = t * (1.0 + gamma)
        first, x_hat = slope(y, t)
        ahead = y + (s - t) * first
        # In a step to 0 the slope there is 0 / 0: the step stays Euler's, which is exact once x_hat no longer moves.
        second = jax.lax.cond(s > 0, lambda: slope(ahead, jnp.where(s > 0, s, 1.0))[0], lambda: first)
        return y + (s - t) * 0.5 * (first + second), x_hat

    return step


def dpmpp_2m(denoise: Denoise, sigmas: np.ndarray, *, cond=None) -> Step:
    """DPM-Solver++(2M): second order with one evaluation, from the last two x_hat. Lu et al. 2022 (arXiv:2211.01095).

    Algorithm 2 in units of y: with h the step of -log sigma, exact if x_hat were linear in it. The first step, and one
    to 0, are of first order. Two steps at least.
    """
    sigmas = checked(sigmas, order=2)
    with np.errstate(divide="ignore"):
        h = -np.diff(np.log(sigmas))  # the last is infinite where sigmas end in 0
    ratio = np.concatenate([[0.0], 0.5 * h[1:] / h[:-1]])  # 1 / (2 r) of the paper
    ratio[~np.isfinite(ratio)] = 0.0
    levels, ratios, grown = jnp.asarray(sigmas), jnp.asarray(ratio), jnp.asarray(-np.expm1(-h))

    def step(i, carry):
        y, before = carry
        t, s = levels[i].astype(y.dtype), levels[i + 1].astype(y.dtype)
        x_hat = denoise(y, jnp.broadcast_to(t, y.shape[:1]), cond)
        corrected = x_hat + ratios[i].astype(y.dtype) * (x_hat - before)
        return s / t * y + grown[i].astype(y.dtype) * corrected, x_hat

    return step


def _noise(keys: Array | None, i: Array, y: Array) -> Array:
    """The noise of step i, like y: that of `start` is number 0. Solvers have made sure that there are keys."""
    assert keys is not None
    return normal(fold(keys, i + 1), y.shape[1:]).astype(y.dtype)


# ---- sampling by name ------------------------------------------------------------------------------------------------


def draw(
    name: Name,
    denoise: Denoise,
    y: Array,
    sigmas: np.ndarray,
    keys: Array,
    frames: int = 1,
    *,
    eta: float = 0.0,
    churn: float = 0.0,
    tol: float = 1e-5,
    cond=None,
) -> Array:
    """Samples by the solver of this name, and the means x_hat on the way to them. [B, ...] -> [frames, B, ...].

    y: the state at sigmas[0]; sigmas as of `levels`, ending in 0; keys [B]: of the noise of stochastic solvers. The
    last frame is the samples; "ode", whose steps are its own, has no other. Options as of the solvers.
    """
    if name == "ode":
        return ode.sample(denoise, y, float(sigmas[0]), float(sigmas[-2]), tol=tol, cond=cond)[0][None]
    step = {
        "ancestral": lambda: ancestral(denoise, sigmas, keys, cond=cond),
        "ddim": lambda: ddim(denoise, sigmas, keys, eta=eta, cond=cond),
        "euler": lambda: euler(denoise, sigmas, cond=cond),
        "heun": lambda: heun(denoise, sigmas, keys, churn=churn, cond=cond),
        "dpmpp_2m": lambda: dpmpp_2m(denoise, sigmas, cond=cond),
    }[name]()
    y, x_hat = loop_frames(step, (y, jnp.zeros_like(y)), len(sigmas) - 1, frames)
    return x_hat.at[-1].set(y[-1])


def evaluations(name: Name, steps: int) -> int | None:
    """How often `draw` asks the denoiser, one after another; None where an adaptive solver decides."""
    return {"ode": None, "heun": 2 * steps - 1}.get(name, steps)


def least_steps(name: Name) -> int:
    """The fewest steps the solver can make."""
    return 2 if name == "dpmpp_2m" else 1
