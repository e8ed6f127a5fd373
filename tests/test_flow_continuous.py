"""Continuous flows: a linear field in closed form, both solvers, both gradients, Hutchinson's estimate of the trace.

Numbers 7 and 8 of the proofs of normalizing flows. The network is replaced by a known field where the answer is known.
"""

import dataclasses
import math

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from genmap_jax.samplers import ode
from genmap_jax.spaces import vectors
from genmap_jax.tractable.flow import continuous
from genmap_jax.tractable.flow.bijection import log_normal

A = np.random.default_rng(0).normal(size=(4, 4)) / 2
CFG = continuous.Config(space=vectors(4), width=16, blocks=1, steps=16)


@pytest.fixture
def linear_field(monkeypatch):
    """dx/dt = A x, with the matrix as the parameter."""
    monkeypatch.setattr(continuous, "velocity", lambda cfg, params, x, t, cond=None: x @ params.T)
    return jnp.asarray(A, jnp.float32)


def random_flow(scale=0.3):
    x = jax.random.normal(jax.random.key(0), (8, 4))
    params = continuous.Velocity(CFG).init(jax.random.key(1), x, jnp.zeros(8), None)["params"]
    rng = np.random.default_rng(1)
    return x, jax.tree.map(lambda p: p + jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), params)


@pytest.mark.parametrize("solver", ["adaptive", "fixed"])
def test_linear_field_is_the_matrix_exponential(linear_field, solver):
    """The map equals expm(A) and the log-determinant tr(A), within 1e-5, in both directions."""
    cfg = dataclasses.replace(CFG, solver=solver, tol=1e-6, steps=32)
    x = jax.random.normal(jax.random.key(0), (5, 4))
    z = np.asarray(x) @ scipy.linalg.expm(A).T
    exact = log_normal(jnp.asarray(z)) + np.trace(A)
    got, _ = continuous.log_density(cfg, linear_field, jax.random.split(jax.random.key(1), 5), x)
    np.testing.assert_allclose(got, exact, atol=2e-5)
    np.testing.assert_allclose(continuous.generate(cfg, linear_field, jnp.asarray(z, jnp.float32)), x, atol=2e-5)


def test_error_falls_with_the_fourth_power_of_the_step(linear_field):
    """Halving the step of Runge-Kutta divides its error by 2^4, in float64."""
    with jax.enable_x64(True):
        matrix, x = jnp.asarray(A), jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)))
        z = x @ scipy.linalg.expm(A).T
        error = [
            float(jnp.abs(continuous.path(dataclasses.replace(CFG, steps=n), matrix, x, None)[0] - z).max())
            for n in (4, 8, 16)
        ]
    np.testing.assert_allclose(np.log2(np.divide(error[:-1], error[1:])), 4.0, atol=0.3)


def test_any_clock_gives_the_same_flow(linear_field):
    """The map and tr(A) within 1e-4, whatever the clock, and kinetic energy as with none."""
    cfg, x = dataclasses.replace(CFG, steps=32), jax.random.normal(jax.random.key(0), (5, 4))
    clocks = jnp.array([-0.9, -0.3, 0.0, 0.5, 0.9])
    z, change, kinetic, rows = continuous.path(cfg, linear_field, x, None, None, clocks)
    np.testing.assert_allclose(z, np.asarray(x) @ scipy.linalg.expm(A).T, atol=1e-4)
    np.testing.assert_allclose(change, np.trace(A), atol=1e-4)
    plain = continuous.path(cfg, linear_field, x, None)
    np.testing.assert_allclose(kinetic, plain[2], rtol=1e-3)
    np.testing.assert_allclose(rows, plain[3], rtol=1e-4)


def test_training_sees_through_a_velocity_that_knows_the_steps(monkeypatch):
    """v = 5 x cos(2 pi 32 t) has divergence 20 in four dimensions at all times of 16 steps, and an integral of zero."""
    monkeypatch.setattr(
        continuous, "velocity", lambda cfg, p, x, t, cond=None: 5 * x * jnp.cos(64 * jnp.pi * t)[:, None]
    )
    x, clocks = 0.1 * jnp.ones((4096, 4)), 1.8 * jax.random.uniform(jax.random.key(0), (4096,)) - 0.9
    deceived = continuous.path(CFG, {}, x, None)[1]
    np.testing.assert_allclose(deceived, 20.0, rtol=1e-4)
    seen = continuous.path(CFG, {}, x, None, None, clocks)[1]
    assert abs(float(seen.mean())) < 1.0


@pytest.mark.slow
def test_adaptive_and_fixed_agree_on_a_network():
    x, params = random_flow()
    keys = jax.random.split(jax.random.key(2), 8)
    fixed, _ = continuous.log_density(dataclasses.replace(CFG, solver="fixed", steps=64), params, keys, x)
    adaptive, _ = continuous.log_density(dataclasses.replace(CFG, tol=1e-6), params, keys, x)
    np.testing.assert_allclose(fixed, adaptive, atol=1e-4)


@pytest.mark.slow
def test_there_and_back():
    x, params = random_flow()
    for cfg in (dataclasses.replace(CFG, tol=1e-6), dataclasses.replace(CFG, solver="fixed", steps=64)):
        z, *_ = continuous.path(dataclasses.replace(CFG, steps=64), params, x, None)
        np.testing.assert_allclose(continuous.generate(cfg, params, z), x, atol=1e-4)


@pytest.mark.slow
def test_a_conditional_flow_is_a_density_for_every_label():
    """With another label the latents are others, and the log-determinant stays that of the Jacobian within 1e-4."""
    cfg = dataclasses.replace(CFG, classes=3)
    x, cond = jax.random.normal(jax.random.key(0), (2, 4)), jnp.eye(3)[:2]
    params = continuous.Velocity(cfg).init(jax.random.key(1), x, jnp.zeros(2), cond)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), params)
    to_latents = jax.jit(lambda x, cond: continuous.path(cfg, params, x, None, cond)[:2])
    z, change = to_latents(x, cond)
    assert float(jnp.abs(to_latents(x, cond[::-1])[0] - z).max()) > 1e-2
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda x, c: to_latents(x[None], c[None])[0][0])))(x, cond)
    np.testing.assert_allclose(change, jnp.linalg.slogdet(jacobian)[1], atol=1e-4)


@pytest.mark.slow
def test_adjoint_gradients_are_those_of_back_propagation():
    """Within 1e-4 of the largest gradient, of the log-density by parameters and by data, at 64 steps."""
    x, params = random_flow()

    def loss(params, x, gradient):
        z, change, kinetic, rows = continuous.path(
            dataclasses.replace(CFG, gradient=gradient, steps=64), params, x, None
        )
        return (log_normal(z) + change + 0.1 * kinetic + 0.1 * rows).mean()

    a, b = (jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(params, x, g) for g in ("backprop", "adjoint"))
    a, b = (jax.flatten_util.ravel_pytree(tree)[0] for tree in (a, b))
    assert float(jnp.abs(a).max()) > 1e-2
    np.testing.assert_allclose(b, a, atol=1e-4 * float(jnp.abs(a).max()))


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_probes_are_averaged(linear_field, law):
    """The mean of 4,096 probes is within three standard errors of the exact trace (a sum over probes would be 4,096
    times as large); with k probes in one estimate its variance is that of one, divided by k."""
    draw = {
        "rademacher": lambda key, shape: jax.random.rademacher(key, shape, jnp.float32),
        "gaussian": jax.random.normal,
    }
    x = jnp.ones((1, 4))

    def estimates(probes, count):
        vectors = draw[law](jax.random.key(3), (count, probes, 1, 4))
        one = lambda e: continuous.dynamics(CFG, linear_field, e)((x, None, None, None), 0.0)[1][0]  # noqa: E731
        return np.asarray(jax.vmap(one)(vectors))

    single, four = estimates(1, 4096), estimates(4, 4096)
    for found in (single, four):
        assert abs(found.mean() - np.trace(A)) <= 3 * found.std() / math.sqrt(4096)
    np.testing.assert_allclose(four.var() / single.var(), 0.25, rtol=0.15)


def test_rademacher_probes_have_no_variance_for_a_diagonal_jacobian(monkeypatch):
    monkeypatch.setattr(continuous, "velocity", lambda cfg, params, x, t, cond=None: x * params[None])
    diagonal = jnp.array([0.5, -1.0, 2.0, 0.1])
    probes = ode.rademacher(jax.random.split(jax.random.key(0), 64), 1, 4)
    _, divergence, _, _ = continuous.dynamics(CFG, diagonal, probes)((jnp.ones((64, 4)), None, None, None), 0.0)
    np.testing.assert_allclose(divergence, diagonal.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"steps": 0}, "steps=0"), ({"tol": 0.0}, "tol=0"), ({"kinetic": -1.0}, "kinetic=-1")],
)
def test_refusals_name_the_field(changes, named):
    with pytest.raises(ValueError, match=named):
        continuous.algorithm(dataclasses.replace(CFG, **changes), batch_size=8)
