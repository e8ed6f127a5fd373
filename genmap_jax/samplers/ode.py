"""The probability-flow ODE: deterministic sampling and log-likelihood of any denoiser, by a compiled adaptive solver.

Song et al. 2021 (arXiv:2011.13456), section 4.3 and appendix D; Karras et al. 2022 (arXiv:2206.00364), eq. 3. States
are y = x + sigma noise. The ODE

    dy / d sigma = (y - denoise(y, sigma)) / sigma

carries y through the same marginals as the noise process, whatever it is, so along it

    log p(y_0) = log p(y_1) + integral from sigma_0 to sigma_1 of div(dy / d sigma) d sigma                    (eq. 39)

Every example has its own time, step and error control inside one `while_loop`: its result does not depend on which
examples share the batch, and the loop runs as long as the slowest needs.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.processes import Array, Denoise, Field, expand

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

PRODUCTS = 8
"""Jacobian products computed at a time: more need more memory, and on CPUs miss the cache."""


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
    f: Field,
    y: Array,
    t0: float,
    t1: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    first: float = 1e-4,
    max_steps: int = 1000,
) -> tuple[Array, Array]:
    """Solve dy/dt = f(y, t) from t0 to t1 (either order) with adaptive steps, each example on its own.

    All is computed in the precision of y; values of f are brought to it.
    y [B, M] -> y(t1) [B, M], NaN for an example that is not there after `max_steps` tries; and the tries of each,
    int32 [B], six evaluations of f each. A step is accepted if the root mean square of error / (atol + rtol |y|) is at
    most 1; the first that is tried is `first` of the way.
    """
    field, f = f, lambda y, t: field(y, t).astype(y.dtype)
    sign, span = math.copysign(1.0, t1 - t0), abs(t1 - t0)
    t = jnp.full(y.shape[0], t0, y.dtype)
    h = jnp.full(y.shape[0], first * span, y.dtype)

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


def probability_flow(denoise: Denoise, cond=None) -> Field:
    """The probability-flow ODE in log sigma, of w = y / sqrt(1 + sigma^2), whose size hardly changes along the way.

    dw / d log sigma = (y / (1 + sigma^2) - x_hat) / sqrt(1 + sigma^2). (w [B, ...], log_sigma [B]) -> [B, ...].
    """

    def velocity(w, log_sigma):
        sigma = jnp.exp(log_sigma)
        scale = expand(jnp.sqrt(1.0 + sigma**2), w)
        return w / scale**2 - denoise(scale * w, sigma, cond) / scale

    return velocity


def sample(
    denoise: Denoise, y: Array, sigma_max: float, sigma_min: float, *, tol: float = 1e-5, cond=None
) -> tuple[Array, Array]:
    """Down the ODE, then denoised: y at sigma_max [B, ...] -> x [B, ...], a function of y alone; and tries [B].

    Six evaluations in a try; every example has its own step sizes; NaN where 1,000 tries do not suffice.
    """
    scale = lambda log_sigma: jnp.sqrt(1.0 + jnp.exp(2.0 * log_sigma))  # noqa: E731
    velocity = flat(probability_flow(denoise, cond), y.shape[1:])
    first, last = float(np.log(sigma_max)), float(np.log(sigma_min))
    w, tries = dopri5(velocity, (y / scale(first)).reshape(y.shape[0], -1), first, last, rtol=tol, atol=tol)
    y = (w * scale(last)).reshape(y.shape)
    return denoise(y, jnp.full(y.shape[0], sigma_min, y.dtype), cond).astype(y.dtype), tries


def log_prob(
    denoise: Denoise,
    y: Array,
    sigma_0: float,
    sigma_1: float,
    prior_std: float,
    keys: Array | None = None,
    *,
    probes: int = 0,
    tol: float = 1e-5,
    spacing: float | None = None,
    cond=None,
) -> tuple[Array, Array | None]:
    """log-density in nats of y at noise sigma_0, under the ODE that starts from N(0, prior_std^2) at sigma_1. Eq. 39.

    y [B, ...] -> [B], and its standard error over probes [B] or None.

    probes: 0 takes the exact divergence, which costs as many Jacobian products as there are dimensions; else it is
        estimated by the mean over that many Rademacher probes per example (Hutchinson 1990), fixed along the path and
        drawn from `keys` [B]. One probe has no standard error.
    tol: relative and absolute tolerance of the solver. Unsolvable examples are NaN.
    spacing: None integrates the divergence with the state, under the solver's error control: six divergences in each
        of its steps. A number takes the trapezoidal rule over noise levels at most so far apart in log sigma. There the
        divergence is smooth and levels off at both ends, where that rule converges exponentially: for Gaussian data the
        error falls as exp(-pi^2 / spacing). Where an end is not level, it is spacing^2 / 12 times the slope there.
    """
    size = lambda sigma: math.sqrt(1.0 + sigma**2)  # noqa: E731
    w = (y / size(sigma_0)).reshape(y.shape[0], -1)
    velocity = flat(probability_flow(denoise, cond), y.shape[1:])
    ends = math.log(sigma_0), math.log(sigma_1)
    w, change, stderr = transport(velocity, w, *ends, keys, probes=probes, tol=tol, spacing=spacing)
    prior = jax.scipy.stats.norm.logpdf(w, scale=prior_std / size(sigma_1)).sum(-1)
    return prior + change - w.shape[-1] * math.log(size(sigma_0)), stderr


def transport(
    velocity: Field,
    x: Array,
    t0: float,
    t1: float,
    keys: Array | None = None,
    *,
    probes: int = 0,
    tol: float = 1e-5,
    spacing: float | None = None,
) -> tuple[Array, Array, Array | None]:
    """Carry x [B, D] along a flow from t0 to t1, and its log-density with it: log p_t0(x) = log p_t1(y) + change.

    probes, keys, tol, spacing as of `log_prob`, whose t is log sigma. Returns y [B, D], change [B], and its standard
    error [B] or None.
    """
    batch, dims = x.shape
    if probes:
        assert keys is not None  # of which probes are drawn
        vectors = rademacher(keys, probes, dims).astype(x.dtype)
    else:
        vectors = jnp.broadcast_to(jnp.eye(dims, dtype=x.dtype)[:, None, :], (dims, batch, dims))

    def with_divergence(x, t):  # dx/dt, and the divergence of the velocity: [B, 1], or an estimate per probe [B, K]
        dx, jvp = jax.linearize(lambda x: velocity(x, t), x)
        products = jax.lax.map(jvp, vectors, batch_size=PRODUCTS)
        div = jnp.sum(vectors * products, axis=-1).T  # [B, D or K]
        return dx, div if probes else div.sum(-1, keepdims=True)

    if spacing is None:

        def augmented(y, t):  # y [B, D + 1 or K]: x and, per probe, the integral so far
            return jnp.concatenate(with_divergence(y[:, :dims], t), axis=-1)

        y = jnp.concatenate([x, jnp.zeros((batch, max(probes, 1)), x.dtype)], axis=-1)
        y, _ = dopri5(augmented, y, t0, t1, rtol=tol, atol=tol)
        y, change = y[:, :dims], y[:, dims:]
    else:
        stretches = math.ceil(abs(t1 - t0) / spacing)
        width = (t1 - t0) / stretches
        at = lambda t: jnp.full(batch, t, x.dtype)  # noqa: E731

        def stretch(y, t):  # from t to the next node, in units of the width
            f = lambda y, s: width * velocity(y, t + width * s)  # noqa: E731
            y, _ = dopri5(f, y, 0.0, 1.0, rtol=tol, atol=tol, first=1.0)
            return y, with_divergence(y, at(t + width))[1]

        y, div = jax.lax.scan(stretch, x, jnp.asarray(t0 + width * np.arange(stretches), x.dtype))
        change = width * (0.5 * with_divergence(x, at(t0))[1] + div.sum(0) - 0.5 * div[-1])
    stderr = jnp.std(change, axis=-1, ddof=1) / math.sqrt(probes) if probes > 1 else None
    return y, change.mean(-1), stderr


def rademacher(keys: Array, probes: int, dims: int) -> Array:
    """Random signs for every example, float32. keys [B] -> [K, B, D]"""
    return jnp.swapaxes(jax.vmap(lambda key: jax.random.rademacher(key, (probes, dims), jnp.float32))(keys), 0, 1)


def flat(field: Callable, shape: tuple[int, ...]) -> Field:
    """A field on [B, *shape] as one on [B, D]."""
    return lambda y, t: field(y.reshape(-1, *shape), t).reshape(y.shape)
