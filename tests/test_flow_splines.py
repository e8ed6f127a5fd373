"""Rational-quadratic splines: numbers at any raw parameters, at knots, at the ends of the box and outside of it.

Number 4 of the proofs of normalizing flows, and what other codebases report: backward errors of 1e-2 for large
parameters, exceptions (negative discriminants), NaN gradients through the branch that `where` does not take.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax.tractable.flow import splines

BINS, BOX = 8, 3.0


def random_knots(scale, n=100_000, seed=0):
    raw = scale * jax.random.normal(jax.random.key(seed), (n, 3 * BINS - 1))
    return splines.knots(raw, BINS, BOX)


@pytest.mark.parametrize(
    ("scale", "bar"),
    chosen([(0.3, 2e-6), (1.0, 1e-5), (3.0, 1e-5), (10.0, 1e-4), (50.0, 1e-4)], [(3.0, 1e-5), (10.0, 1e-4)]),
)
def test_there_and_back(scale, bar):
    """max |f(f^-1(y)) - y| over 100,000 random splines with y uniform in the box; the log-slopes cancel."""
    knots = random_knots(scale)
    y = jax.random.uniform(jax.random.key(1), (100_000,), minval=-BOX, maxval=BOX)
    x, back = jax.jit(splines.inverse)(y, *knots)
    again, there = jax.jit(splines.forward)(x, *knots)
    assert float(jnp.abs(again - y).max()) <= bar
    assert float(jnp.abs(there + back).max()) <= 1e3 * bar


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_in_float64_to_rounding(scale):
    """The same in float64 within 1e-11: what is left in float32 is rounding."""
    with jax.enable_x64(True):
        raw = scale * jax.random.normal(jax.random.key(0), (10_000, 3 * BINS - 1), jnp.float64)
        knots = splines.knots(raw, BINS, BOX)
        y = jax.random.uniform(jax.random.key(1), (10_000,), jnp.float64, -BOX, BOX)
        x, _ = splines.inverse(y, *knots)
        assert x.dtype == jnp.float64
        assert float(jnp.abs(splines.forward(x, *knots)[0] - y).max()) <= 1e-11


def test_slope_is_the_derivative():
    """log f' against autodiff, within 1e-4, for splines of moderate parameters."""
    knots = random_knots(1.0, n=2000)
    x = jax.random.uniform(jax.random.key(2), (2000,), minval=-4.0, maxval=4.0)
    one = lambda x, *knots: splines.forward(x, *knots)[0]  # noqa: E731
    np.testing.assert_allclose(splines.forward(x, *knots)[1], jnp.log(jax.vmap(jax.grad(one))(x, *knots)), atol=1e-4)


def test_zeros_are_the_identity():
    x = jnp.linspace(-5.0, 5.0, 1001)
    y, log_slope = splines.forward(x, *splines.knots(jnp.zeros((1001, 3 * BINS - 1)), BINS, BOX))
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_slope, 0.0, atol=1e-5)


@pytest.mark.parametrize("scale", chosen([1.0, 10.0, 50.0, 1000.0], [1000.0]))
@pytest.mark.parametrize("direction", [splines.forward, splines.inverse])
def test_never_nan_in_value_or_gradient(direction, scale):
    """At every knot, at both ends, one ulp beside them, far outside and at infinity's edge; with huge parameters."""
    raw = scale * jax.random.normal(jax.random.key(3), (64, 1, 3 * BINS - 1))

    def terms(raw, v):
        at, to, slopes = splines.knots(raw, BINS, BOX)
        out, log_slope = direction(v, *(jnp.broadcast_to(k, (*v.shape, BINS + 1)) for k in (at, to, slopes)))
        return (jnp.tanh(out) + log_slope).sum(), (out, log_slope)

    at, to, _ = splines.knots(raw, BINS, BOX)
    knots = (at if direction is splines.forward else to)[:, 0]
    edges = jnp.broadcast_to(
        jnp.array([-BOX, BOX, np.nextafter(np.float32(BOX), 9), np.nextafter(np.float32(BOX), 0), 1e3, -1e30, 1e30]),
        (64, 7),
    )
    v = jnp.concatenate([knots, edges], axis=1)
    grads, (out, log_slope) = jax.grad(terms, argnums=(0, 1), has_aux=True)(raw, v)
    for value in (out, log_slope, *grads):
        assert bool(jnp.isfinite(value).all())
    outside = jnp.abs(v) > BOX
    np.testing.assert_array_equal(jnp.where(outside, out, 0), jnp.where(outside, v, 0))


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_density_of_a_line_integrates_to_one(scale):
    """The mass of N(f(x); 0, 1) f'(x) over the line is 1 within 1e-5, in each bin by its own Gauss-Legendre nodes."""
    at, to, slopes = random_knots(scale, n=50)
    nodes, weights = np.polynomial.legendre.leggauss(80)
    cuts = np.concatenate([np.full((50, 1), -9.0), np.asarray(at), np.full((50, 1), 9.0)], axis=1)  # [50, K + 3]
    half = np.diff(cuts)[..., None] / 2
    x = jnp.asarray(cuts[:, :-1, None] + half * (1 + nodes), jnp.float32).reshape(50, -1)
    knots = (jnp.broadcast_to(k[:, None], (*x.shape, BINS + 1)) for k in (at, to, slopes))
    z, log_slope = splines.forward(x, *knots)
    density = np.exp(np.asarray(-0.5 * z * z + log_slope, np.float64)) / np.sqrt(2 * np.pi)
    mass = (density.reshape(50, -1, 80) * half * weights).sum((1, 2))
    np.testing.assert_allclose(mass, 1.0, atol=1e-5)


def test_slopes_are_continuous_across_the_ends():
    """The slope is one at both ends of the box, from inside as from outside."""
    at, to, slopes = random_knots(2.0, n=100)
    for end in (-BOX, BOX):
        _, log_slope = splines.forward(jnp.full(100, 0.999999 * end), at, to, slopes)
        np.testing.assert_allclose(log_slope, 0.0, atol=1e-2)
