"""Monotone rational-quadratic splines: elementwise bijections of the real line with analytic inverse.

Durkan et al. 2019, "Neural Spline Flows" (arXiv:1906.04032), section 3.1; Gregory & Delbourgo 1982. A box [-B, B] is
cut into K bins; in each a ratio of two quadratics joins the knots with given slopes. Outside of the box the map is the
identity, and the slopes at the ends are one, so the map is continuously differentiable everywhere.

Three things keep the numbers good (tests/test_flow_splines.py):
* bins have a smallest width and height, `SMALLEST` of an equal share, which bounds the slopes. The error of x is that
  of its last float32 digit, and y = f(x) has that error times the slope: with slopes of 10^4, which other codebases
  allow, going back and forth moves points by 10^-2.
* the root of the quadratic of the inverse is taken in the form without cancellation, its discriminant is never
  negative.
* a point outside of the box is replaced by zero before it enters the formula: the branch that `where` does not select
  would otherwise send NaN through the gradient.
"""

import math

import jax
import jax.numpy as jnp

Array = jax.Array

SMALLEST = 0.3
"""Smallest width and height of a bin, as a fraction of the box's K-th part."""
SMALLEST_SLOPE = 1 / 20
LARGEST_SLOPE = 20.0
"""Bounds of the slopes at the knots."""
TINY = 1e-20
"""Smallest discriminant: the gradient of a square root at zero is infinite."""


def knots(raw: Array, bins: int, box: float) -> tuple[Array, Array, Array]:
    """Unconstrained numbers -> knots (x, y) and slopes, each [..., K + 1]. raw [..., 3 K - 1]; zeros give the identity.

    The first K are logits of the widths, the next K of the heights, the last K - 1 are log-slopes of the inner knots.
    """
    widths, heights, slopes = jnp.split(raw, (bins, 2 * bins), axis=-1)

    def positions(logits):
        sizes = 2.0 * box * (SMALLEST / bins + (1.0 - SMALLEST) * jax.nn.softmax(logits, axis=-1))
        inner = jnp.cumsum(sizes, axis=-1)[..., :-1] - box
        ends = jnp.full_like(inner[..., :1], box)
        return jnp.concatenate([-ends, inner, ends], axis=-1)

    # log-slopes pass a soft clip, so that neither bound has a gradient of exactly zero
    low, high = math.log(SMALLEST_SLOPE), math.log(LARGEST_SLOPE)
    inner = jnp.exp(jnp.where(slopes > 0, high * jnp.tanh(slopes / high), -low * jnp.tanh(slopes / -low)))
    ones = jnp.ones_like(inner[..., :1])
    return positions(widths), positions(heights), jnp.concatenate([ones, inner, ones], axis=-1)


def forward(x: Array, at: Array, to: Array, slopes: Array) -> tuple[Array, Array]:
    """y = f(x) and log f'(x), elementwise: eq. 4 and 5. x [...]; knots `at` -> `to` and slopes [..., K + 1]."""
    inside = (x >= at[..., 0]) & (x <= at[..., -1])
    safe = jnp.where(inside, x, 0.0)
    x0, width, y0, height, d0, d1 = _bin(safe, at, at, to, slopes)
    s, t = height / width, jnp.clip((safe - x0) / width, 0.0, 1.0)
    across = t * (1.0 - t)
    bottom = s + (d1 + d0 - 2.0 * s) * across
    y = y0 + height * (s * t * t + d0 * across) / bottom
    return jnp.where(inside, y, x), jnp.where(inside, _log_slope(s, t, d0, d1), 0.0)


def inverse(y: Array, at: Array, to: Array, slopes: Array) -> tuple[Array, Array]:
    """x = f^-1(y) and log of its slope, -log f'(x), elementwise: eq. 6 to 8. Shapes as of `forward`."""
    inside = (y >= to[..., 0]) & (y <= to[..., -1])
    safe = jnp.where(inside, y, 0.0)
    x0, width, y0, height, d0, d1 = _bin(safe, to, at, to, slopes)
    s, v = height / width, jnp.clip((safe - y0) / height, 0.0, 1.0)  # in units of the bin, all terms are of one size
    curve = (d1 + d0 - 2.0 * s) * v
    a, b, c = (s - d0) + curve, d0 - curve, -s * v
    root = jnp.sqrt(jnp.maximum(b * b - 4.0 * a * c, TINY))
    # Two forms of one root, neither of which subtracts like numbers; b < 0 only where a > s.
    t = jnp.where(b < 0, (root - b) / jnp.where(b < 0, 2.0 * a, 1.0), -2.0 * c / jnp.where(b < 0, 1.0, b + root))
    x = x0 + width * jnp.clip(t, 0.0, 1.0)
    t = (x - x0) / width  # as `forward` will see it; one step of Newton's method takes the last digit right
    bottom = s + (d1 + d0 - 2.0 * s) * t * (1.0 - t)
    reached = (s * t * t + d0 * t * (1.0 - t)) / bottom
    x = x + (v - reached) * height * jnp.exp(-_log_slope(s, t, d0, d1))
    log_slope = _log_slope(s, jnp.clip((x - x0) / width, 0.0, 1.0), d0, d1)
    return jnp.where(inside, x, y), jnp.where(inside, -log_slope, 0.0)


def _bin(v: Array, where: Array, at: Array, to: Array, slopes: Array) -> tuple[Array, ...]:
    """(x0, width, y0, height, slope at x0, slope at x1) of the bin in which v lies, by the knots `where`; all [...]."""
    k = jnp.sum(v[..., None] >= where[..., 1:-1], axis=-1, keepdims=True)
    take = lambda values, k: jnp.take_along_axis(values, k, axis=-1)[..., 0]  # noqa: E731
    x0, x1, y0, y1, d0, d1 = (take(values, k + i) for values in (at, to, slopes) for i in (0, 1))
    return x0, x1 - x0, y0, y1 - y0, d0, d1


def _log_slope(s: Array, t: Array, d0: Array, d1: Array) -> Array:
    """log f' at the fraction t of a bin with mean slope s and slopes d0, d1 at its ends: eq. 5."""
    across = t * (1.0 - t)
    top = d1 * t * t + 2.0 * s * across + d0 * (1.0 - t) ** 2
    return 2.0 * jnp.log(s) + jnp.log(top) - 2.0 * jnp.log(s + (d1 + d0 - 2.0 * s) * across)
