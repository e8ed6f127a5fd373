"""The probability-flow ODE: deterministic sampling and log-likelihood, by a compiled adaptive solver.

Song et al. 2021 (arXiv:2011.13456), section 4.3 and appendix D. The ODE  dx/dt = f(t) x - g(t)^2 score(x, t) / 2
carries x_t through the same marginals as the SDE, so along it

    log p_eps(x_eps) = log p_T(x_T) + integral from eps to T of div(dx/dt) dt                                  (eq. 39)

Every example has its own time, step and error control inside one `while_loop`: its result does not depend on which
examples share the batch, and the loop runs as long as the slowest needs.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.samplers.sde import SDE, Field, denoised, expand

Array = jax.Array

# Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae", table 2: the last row of A is also the solution.
C = np.array([1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0])
A = np.array(
    [
        [1 / 5, 0, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    ]
)
ERROR = np.array([71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])


def dopri5_step(f: Field, t: Array, y: Array, k: Array, h: Array) -> tuple[Array, Array, Array]:
    """One step of size h [B] from t [B], y [B, M], k = f(y, t): the new y (order 5), its error estimate, the new k."""
    c, a, error = (jnp.asarray(table, y.dtype) for table in (C, A, ERROR))
    combine = lambda weights, ks: expand(h, y) * jnp.tensordot(weights, ks, axes=1)  # noqa: E731

    def stage(i, carry):  # a loop, so that f is compiled once and not six times
        ks, _ = carry
        new = y + combine(a[i], ks)
        return ks.at[i + 1].set(f(new, t + c[i] * h)), new

    ks, new = jax.lax.fori_loop(0, 6, stage, (jnp.zeros((7, *y.shape), y.dtype).at[0].set(k), y))
    return new, combine(error, ks), ks[-1]


def dopri5(
    f: Field, y: Array, t0: float, t1: float, *, rtol: float = 1e-5, atol: float = 1e-5, max_steps: int = 1000
) -> tuple[Array, Array]:
    """Solve dy/dt = f(y, t) from t0 to t1 (either order) with adaptive steps, each example on its own.

    y [B, M] -> y(t1) [B, M], NaN for an example that is not there after `max_steps` tries; and the tries of each,
    int32 [B], six evaluations of f each. A step is accepted if the root mean square of error / (atol + rtol |y|) is at
    most 1.
    """
    sign, span = math.copysign(1.0, t1 - t0), abs(t1 - t0)
    t = jnp.full(y.shape[0], t0, y.dtype)
    h = jnp.full(y.shape[0], 1e-4 * span, y.dtype)

    def unfinished(carry):
        i, t, *_ = carry
        return (i < max_steps) & jnp.any(t != t1)

    def body(carry):
        i, t, h, y, k, tries = carry
        left = jnp.abs(t1 - t)
        last = h >= left
        step = jnp.where(last, left, h)
        y_new, error, k_new = dopri5_step(f, t, y, k, sign * step)
        scale = atol + rtol * jnp.maximum(jnp.abs(y), jnp.abs(y_new))
        error = jnp.sqrt(jnp.mean((error / scale) ** 2, axis=-1))
        error = jnp.where(jnp.isnan(error), jnp.inf, error)  # too bold a step: try a smaller one
        accept = (error <= 1.0) & (left > 0)
        factor = jnp.clip(0.9 * jnp.maximum(error, 1e-10) ** -0.2, 0.2, 8.0)
        tries = tries + (left > 0)
        t = jnp.where(accept, jnp.where(last, t1, t + sign * step), t)
        y, k = jnp.where(expand(accept, y), y_new, y), jnp.where(expand(accept, k), k_new, k)
        return i + 1, t, step * factor, y, k, tries

    start = 0, t, h, y, f(y, t), jnp.zeros(y.shape[0], jnp.int32)
    _, t, _, y, _, tries = jax.lax.while_loop(unfinished, body, start)
    return jnp.where(expand(t == t1, y), y, jnp.nan), tries


def probability_flow(sde: SDE, score: Field) -> Field:
    """The velocity f(t) x - g(t)^2 score(x, t) / 2. Eq. 13."""
    return lambda x, t: expand(sde.drift(t), x) * x - 0.5 * expand(sde.diffusion(t) ** 2, x) * score(x, t)


def sample(sde: SDE, score: Field, x: Array, *, tol: float = 1e-5) -> Array:
    """x_T [B, ...] -> x_0 [B, ...]: the ODE down to eps_sample, then denoised. A function of x_T alone."""
    velocity = flat(probability_flow(sde, score), x.shape[1:])
    y, _ = dopri5(velocity, x.reshape(x.shape[0], -1), sde.T, sde.eps_sample, rtol=tol, atol=tol)
    return denoised(sde, score, y.reshape(x.shape))


def log_prob(
    sde: SDE, score: Field, x: Array, keys: Array | None = None, *, probes: int = 0, tol: float = 1e-5
) -> tuple[Array, Array | None]:
    """log p_eps(x) in nats, and its standard error over probes. x [B, ...] -> [B], [B] or None. Eq. 39.

    probes: 0 takes the exact divergence, which costs as many Jacobian products as there are dimensions; else it is
        estimated by the mean over that many Rademacher probes per example (Hutchinson 1990), fixed along the path and
        drawn from `keys` [B]. One probe has no standard error.
    tol: relative and absolute tolerance of the solver. Unsolvable examples are NaN.
    """
    velocity = flat(probability_flow(sde, score), x.shape[1:])
    y, change, stderr = transport(velocity, x.reshape(x.shape[0], -1), sde.eps, sde.T, keys, probes=probes, tol=tol)
    return jax.scipy.stats.norm.logpdf(y, scale=sde.prior_std()).sum(-1) + change, stderr


def transport(
    velocity: Field, x: Array, t0: float, t1: float, keys: Array | None = None, *, probes: int = 0, tol: float = 1e-5
) -> tuple[Array, Array, Array | None]:
    """Carry x [B, D] along a flow from t0 to t1, and its log-density with it: log p_t0(x) = log p_t1(y) + change.

    probes, keys, tol as of `log_prob`. Returns y [B, D], change [B], and its standard error [B] or None.
    """
    batch, dims = x.shape
    if probes:
        signs = jax.vmap(lambda key: jax.random.rademacher(key, (probes, dims), x.dtype))(keys)
        vectors = jnp.swapaxes(signs, 0, 1)  # [K, B, D]
    else:
        vectors = jnp.broadcast_to(jnp.eye(dims, dtype=x.dtype)[:, None, :], (dims, batch, dims))

    def augmented(y, t):  # y [B, D + 1 or K]: x and, per probe, the integral so far
        dx, jvp = jax.linearize(lambda x: velocity(x, t), y[:, :dims])
        div = jnp.sum(vectors * jax.vmap(jvp)(vectors), axis=-1).T  # [B, D or K]
        return jnp.concatenate([dx, div if probes else div.sum(-1, keepdims=True)], axis=-1)

    y = jnp.concatenate([x, jnp.zeros((batch, max(probes, 1)), x.dtype)], axis=-1)
    y, _ = dopri5(augmented, y, t0, t1, rtol=tol, atol=tol)
    change = y[:, dims:]
    stderr = jnp.std(change, axis=-1, ddof=1) / math.sqrt(probes) if probes > 1 else None
    return y[:, :dims], change.mean(-1), stderr


def flat(field: Callable, shape: tuple[int, ...]) -> Field:
    """A field on [B, *shape] as one on [B, D]."""
    return lambda y, t: field(y.reshape(-1, *shape), t).reshape(y.shape)
