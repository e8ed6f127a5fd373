"""Continuous flow: an exact density from an ordinary differential equation. Neural ODE, FFJORD, RNODE.

Chen et al. 2018, "Neural Ordinary Differential Equations" (arXiv:1806.07366); Grathwohl et al. 2019, "FFJORD"
(arXiv:1810.01367); Finlay et al. 2020, "How to train your neural ODE" (arXiv:2002.02798).

    dx/dt = v(x, t),  data at t = 0, N(0, I) at t = 1,      log p(x_0) = log N(x_1; 0, I) + integral of div v dt

Training takes a fixed number of Runge-Kutta steps and differentiates through them, or solves the adjoint equation
backwards on the same steps, whose memory does not grow with their number. On the same few times in every step of
training the velocity would learn to have a large divergence at those times and nowhere else, and the likelihood would
be an artefact of the solver; so every example has a clock of its own,

    t(s) = s + w s (1 - s),   dx/ds = v(x, t(s)) t'(s),   w uniform in [-0.9, 0.9],

which changes where the steps look and not what they integrate. Likelihoods and samples come from the adaptive solver of
`samplers.ode` or from fixed steps. The divergence is exact or estimated by Hutchinson's probes; one may train with the
estimate and evaluate exactly, from one checkpoint.

Training without solving anything is flow matching: `approximate.diffusion` with the preset FLOW_MATCHING, whose
`likelihood="ode"` is the density of the same kind of flow. It is not written a second time here.

Differs from the papers: a residual network modulated by sinusoids of t; classical Runge-Kutta of order 4, on random
clocks, in training.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import keys as per_example
from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Batch,
    Cond,
    Family,
    Key,
    LogProb,
    Params,
    State,
    averaged,
    check_cond,
    check_parts,
    init_state,
    log_prob_in_parts,
    minimise,
    reads_of,
)
from genmap_jax.keys import example_keys
from genmap_jax.nn.mlp import MLP
from genmap_jax.nn.products import in_type, widened
from genmap_jax.nn.unet import sinusoidal
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Count, Natural, NotNegative, Positive, check_options
from genmap_jax.samplers import ode
from genmap_jax.samplers.interpolation import slerp
from genmap_jax.spaces import Space
from genmap_jax.tractable.flow.bijection import log_normal
from genmap_jax.tractable.flow.density import one_hot
from genmap_jax.units import bits_per_dim

EMBEDDING = 32
"""Width of the embedding of time."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What a continuous flow is made of."""

    space: Space
    """Space of one example: vectors."""
    width: Count = 64
    """Hidden units of the velocity."""
    blocks: Natural = 2
    """Residual blocks of the velocity."""
    steps: Count = 16
    """Runge-Kutta steps of training, and of the solver "fixed"."""
    gradient: Literal["backprop", "adjoint"] = "backprop"
    """How training differentiates the solution: through its steps, each of which is computed a second time, or by the
    adjoint equation solved backwards, in memory that does not grow with the number of steps."""
    training_divergence: Literal["exact", "hutchinson"] = "exact"
    """The divergence in training: exact costs as many products with the Jacobian as there are dimensions, hutchinson
    one for each probe."""
    kinetic: NotNegative = 0.0
    """Weight of the mean of |v|^2 along the path, per dimension, in nats (RNODE: 0.01): straight paths; 0 is none."""
    jacobian: NotNegative = 0.0
    """Weight of the mean of |J e|^2 over probes e along the path, per dimension (RNODE: 0.01): a smooth velocity; 0 is
    none."""
    classes: Count | None = None
    """The number of classes of a conditional flow, which reads the label of a batch; None is unconditional."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of the velocity have this type in training. Parameters, normalisations, the state of the
    solver and the loss are always float32, and so is all that is computed after training: an adaptive solver would take
    the rounding of the velocity for an error of its steps."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim()
    """How parameters are updated."""
    ema_halflife: Positive | None = None
    """Half-life of the average of the parameters in examples; None is no average."""
    solver: Literal["adaptive", "fixed"] = "adaptive"
    """The solver of likelihoods and samples: Dormand and Prince's with error control, or as in training."""
    divergence: Literal["exact", "hutchinson"] = "exact"
    """The divergence of likelihoods."""
    probes: Count = 1
    """Probes per example of "hutchinson", which are averaged."""
    tol: Positive = 1e-5
    """Relative and absolute tolerance of the adaptive solver."""


class Velocity(nn.Module):
    """v(x, t), zero at first."""

    cfg: Config

    @nn.compact
    def __call__(self, x, t, cond):  # [B, D], [B], [B, C] or None -> [B, D]
        emb = sinusoidal(10.0 * t, EMBEDDING, 100.0)
        emb = emb if cond is None else jnp.concatenate([emb, cond], axis=-1)
        net = MLP(self.cfg.width, self.cfg.blocks, self.cfg.space.shape)
        return widened(net(*in_type(self.cfg.dtype, x, emb)))


def velocity(cfg: Config, params: Params, x: Array, t: Array, cond: Array | None = None) -> Array:
    """v(x, t), given a condition [B, C] or None. x [B, D], t [B] -> [B, D]"""
    cfg.space.expect(x=x)
    return Velocity(cfg).apply({"params": params}, x, t, cond)  # type: ignore[return-value]


# ---- along the path --------------------------------------------------------------------------------------------------


def dynamics(
    cfg: Config, params: Params, probes: Array | None, cond: Array | None = None, clocks: Array | None = None
) -> Callable[[tuple, Array], tuple]:
    """Derivative by s of (x [B, D], log-density [B], kinetic energy [B], squared Jacobian product [B]).

    probes: [K, B, D], random vectors of mean zero and unit covariance: the divergence is the *mean* over them of
        e (J e), unbiased (Hutchinson 1990). None: the exact divergence, one product for every dimension.
    clocks: w of t(s) [B]; None: s is the time t.
    """

    def derivative(state, s):
        x, *_ = state
        at = jnp.full(len(x), s, x.dtype) if clocks is None else s + clocks * s * (1.0 - s)
        dx, product = jax.linearize(lambda x: velocity(cfg, params, x, at, cond), x)
        if probes is None:
            basis = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype)[:, None, :], (x.shape[-1], *x.shape))
            products = jax.vmap(product)(basis)  # row k: the k-th column of every Jacobian
            divergence = (basis * products).sum((0, 2))
            rows = jnp.square(products).sum((0, 2)) / x.shape[-1]
        else:
            products = jax.vmap(product)(probes)
            divergence = (probes * products).sum(2).mean(0)
            rows = jnp.square(products).sum(2).mean(0)
        rates = dx, divergence, jnp.square(dx).sum(-1), rows
        if clocks is None:
            return rates
        speed = 1.0 + clocks * (1.0 - 2.0 * s)
        return dx * speed[:, None], *(rate * speed for rate in rates[1:])

    return derivative


def rk4_step(f: Callable, y, t: Array, h: Array | float):
    """One step of the classical Runge-Kutta method of order 4; y is a pytree."""
    shifted = lambda y, k, s: jax.tree.map(lambda a, b: a + s * b, y, k)  # noqa: E731
    k1 = f(y, t)
    k2 = f(shifted(y, k1, 0.5 * h), t + 0.5 * h)
    k3 = f(shifted(y, k2, 0.5 * h), t + 0.5 * h)
    k4 = f(shifted(y, k3, h), t + h)
    return jax.tree.map(lambda y, a, b, c, d: y + h / 6.0 * (a + 2.0 * b + 2.0 * c + d), y, k1, k2, k3, k4)


def solve(f: Callable, y, t0: float, t1: float, steps: int):
    """dy/dt = f(y, t) from t0 to t1 in fixed steps; back-propagation keeps the state of each step alone."""
    h = (t1 - t0) / steps
    one = jax.checkpoint(lambda y, t: (rk4_step(f, y, t, h), None))
    return jax.lax.scan(one, y, t0 + h * jnp.arange(steps))[0]


def solve_with_adjoint(f: Callable, params: Params, y, t0: float, t1: float, steps: int):
    """`solve` for f(params, y, t), whose gradient solves the adjoint equation backwards on the same steps.

    Chen et al. 2018, algorithm 1: y itself is integrated back, so nothing is kept. The gradient is that of the
    equation, not of its discretisation: it differs from back-propagation by the error of the solver.
    """

    @jax.custom_vjp
    def run(params, y):
        return solve(lambda y, t: f(params, y, t), y, t0, t1, steps)

    def forward(params, y):
        y = run(params, y)
        return y, (params, y)

    def backward(kept, dy):
        params, y = kept

        def back(state, t):
            y, a, _ = state
            value, pull = jax.vjp(lambda p, y: f(p, y, t), params, y)
            dp, da = pull(a)
            minus = lambda tree: jax.tree.map(jnp.negative, tree)  # noqa: E731
            return value, minus(da), minus(dp)

        _, dy, dparams = solve(back, (y, dy, jax.tree.map(jnp.zeros_like, params)), t1, t0, steps)
        return dparams, dy

    run.defvjp(forward, backward)
    return run(params, y)


def path(
    cfg: Config,
    params: Params,
    x: Array,
    probes: Array | None,
    cond: Array | None = None,
    clocks: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """From data to latents in fixed steps: (z [B, D], log |det dz/dx| [B], kinetic [B], Jacobian [B])."""
    zeros = jnp.zeros(len(x), x.dtype)
    start = x, zeros, zeros, zeros
    if cfg.gradient == "adjoint":
        return solve_with_adjoint(
            lambda params, y, s: dynamics(cfg, params, probes, cond, clocks)(y, s), params, start, 0.0, 1.0, cfg.steps
        )
    return solve(dynamics(cfg, params, probes, cond, clocks), start, 0.0, 1.0, cfg.steps)


def log_density(
    cfg: Config, params: Params, keys: Key, x: Array, cond: Array | None = None
) -> tuple[Array, Array | None]:
    """log p(x) as evaluated, in nats [B], and its standard error over probes or None. x [B, D], keys [B]."""
    cfg.space.expect(x=x)
    probes = cfg.probes if cfg.divergence == "hutchinson" else 0
    if cfg.solver == "adaptive":
        field = lambda x, t: velocity(cfg, params, x, t, cond)  # noqa: E731
        z, change, stderr = ode.transport(field, x, 0.0, 1.0, keys, probes=probes, tol=cfg.tol)
        return log_normal(z) + change, stderr
    z, change, _, _ = path(cfg, params, x, ode.rademacher(keys, probes, x.shape[-1]) if probes else None, cond)
    return log_normal(z) + change, None


def generate(cfg: Config, params: Params, z: Array, cond: Array | None = None) -> Array:
    """From latents to data. z [B, D] -> [B, D]; NaN where the adaptive solver does not get there."""
    if cfg.solver == "adaptive":
        field = lambda x, t: velocity(cfg, params, x, t, cond)  # noqa: E731
        return ode.dopri5(field, z, 1.0, 0.0, rtol=cfg.tol, atol=cfg.tol)[0]
    return solve(lambda x, t: velocity(cfg, params, x, jnp.full(len(x), t), cond), z, 1.0, 0.0, cfg.steps)


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    if cfg.space.image:
        raise ValueError(f"space.shape={cfg.space.shape}: this flow is of vectors; for images take glow or diffusion")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a continuous flow to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    tx, exact = optimizer(cfg.optim, batch_size), dataclasses.replace(cfg, dtype="float32")
    reads = reads_of(cfg.space, cfg.classes)
    dims = cfg.space.dims

    def init(key: Key, batch: Batch) -> State:
        x, cond = cfg.space.zeros(1), None if cfg.classes is None else jnp.zeros((1, cfg.classes))
        return init_state(Velocity(cfg).init(key, x, jnp.zeros(1), cond)["params"], tx, cfg.ema_halflife)

    def loss(params: Params, keys: Key, batch: Batch) -> dict[str, Array]:
        x = batch[cfg.space.field]
        probe_keys, clock_keys = per_example.split(keys)
        probes = ode.rademacher(probe_keys, 1, dims) if cfg.training_divergence == "hutchinson" else None
        clocks = 1.8 * per_example.uniform(clock_keys) - 0.9
        z, change, kinetic, jacobian = path(cfg, params, x, probes, one_hot(batch, cfg.classes), clocks)
        nats = log_normal(z) + change
        penalty = cfg.kinetic * kinetic + cfg.jacobian * jacobian
        return {"loss": (penalty - nats) / dims, "bits_per_dim": bits_per_dim(nats, dims), "kinetic": kinetic}

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        check_cond(reads, n, cond)
        z = per_example.normal(example_keys(key, n), (dims,))
        return generate(exact, averaged(state), z, one_hot(cond, cfg.classes))

    def walk(state: State, key: Key, t: Array, cond: Cond | None = None) -> Array:
        check_cond(reads, len(t), cond)
        a, b = (per_example.normal(example_keys(k, len(t)), (dims,)) for k in jax.random.split(key))
        return generate(exact, averaged(state), slerp(a, b, t), one_hot(cond, cfg.classes))

    def log_prob(state: State, batch: Batch, key: Key) -> LogProb:
        def of_part(keys: Key, batch: Batch) -> LogProb:
            x, cond = batch[cfg.space.field], one_hot(batch, cfg.classes)
            nats, stderr = log_density(exact, averaged(state), keys, x, cond)
            return LogProb(nats, "estimate", stderr)

        return log_prob_in_parts(of_part, reads, batch, key, cfg.accumulate)

    return Algorithm(
        reads=reads,
        init=init,
        step=minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name, accumulate=cfg.accumulate),
        sample=sample,
        log_prob=log_prob,
        evaluations=4 * cfg.steps if cfg.solver == "fixed" else None,
        walk=walk,
    )


FAMILY = Family(
    name="Continuous flow",
    continent="tractable",
    objective="exact likelihood",
    citation="Grathwohl et al. 2019, https://arxiv.org/abs/1810.01367",
    algorithm=algorithm,
    sampling=("solver", "divergence", "probes", "tol"),
)
