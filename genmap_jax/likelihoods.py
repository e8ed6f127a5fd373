"""Probabilities of data given the outputs of a network: pmfs of integers and densities of real numbers, elementwise."""

import math

import jax
import jax.numpy as jnp

Array = jax.Array


def gaussian(x: Array, mean: Array, log_scale: Array) -> Array:
    """log N(x; mean, exp(log_scale)^2), elementwise, in nats."""
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_scale)) - log_scale - 0.5 * math.log(2.0 * math.pi)


def discretised_logistic(v: Array, mean: Array, log_scale: Array, levels: int) -> Array:
    """log P(v) of integers 0..levels-1 under a logistic rounded to the nearest integer, end values absorbing the tails.

    Kingma et al. 2016 (arXiv:1606.04934), appendix; Salimans et al. 2017 (arXiv:1701.05517), eq. 2. All in units of one
    grey level and elementwise; `v` may be of any integer or float type. Uses the exact
    log(s(a) - s(b)) = log s(a) + log s(-b) + log(1 - e^(b-a)), without the mid-bin fallback of PixelCNN++, which misses
    single values by up to 2 nats. Grey-level units keep v + 1/2 exact, so small scales lose no digits.
    """
    v = v.astype(mean.dtype)
    inverse = jnp.exp(-log_scale)
    below = jax.nn.log_sigmoid((v + 0.5 - mean) * inverse)  # log P(V <= v)
    above = jax.nn.log_sigmoid((mean - (v - 0.5)) * inverse)  # log P(V >= v)
    inside = below + above + jnp.log(-jnp.expm1(-inverse))
    return jnp.where(v == 0, below, jnp.where(v == levels - 1, above, inside))


def mixture_of_logistics(v: Array, logits: Array, mean: Array, log_scale: Array, coupling: Array, levels: int) -> Array:
    """log P of every channel of a pixel given the channels before it, in nats; their sum is log P of the pixel.

        P(v) = sum_k pi_k prod_c P(v_c; mean_ck + sum_{d < c} coupling_dck (v_d - (levels - 1) / 2), scale_ck)

    Salimans et al. 2017 (arXiv:1701.05517), eq. 2 and 3: a component is of all channels at once, so a channel tells
    those after it which component the pixel is of. Every factor is a `discretised_logistic`, in its exact form. In
    units of one grey level.

    v: [..., C], 0..levels-1, of any integer or float type. logits: [..., K], of pi. mean, log_scale: [..., C, K].
    coupling: [..., C (C - 1) / 2, K], of the pairs (later, earlier) in the order (1, 0), (2, 0), (2, 1), (3, 0), ...
    Returns [..., C].
    """
    centred = (v.astype(mean.dtype) - (levels - 1) / 2.0)[..., None]
    joint = jax.nn.log_softmax(logits, axis=-1)  # of the component and the channels so far
    before: Array | float = 0.0
    terms = []
    for c in range(v.shape[-1]):
        shift = sum(coupling[..., c * (c - 1) // 2 + d, :] * centred[..., d, :] for d in range(c))
        joint += discretised_logistic(v[..., c, None], mean[..., c, :] + shift, log_scale[..., c, :], levels)
        so_far = jax.nn.logsumexp(joint, axis=-1)
        terms.append(so_far - before)
        before = so_far
    return jnp.stack(terms, axis=-1)


def discretised_gaussian(v: Array, mean: Array, sigma: Array | float, levels: int) -> Array:
    """log P(v) of integers 0..levels-1 under a Gaussian rounded to the nearest point of `spaces.to_grid`, elementwise.

    mean and sigma in units of the grid [-1, 1]; end values absorb the tails, so the pmf sums to one. The normal CDF is
    exact (Ho et al. 2020's code approximates it by a tanh, 1e-3 nats off for a pixel).
    """
    half = 1.0 / (levels - 1)
    v = v.astype(mean.dtype)
    centre = v * (2.0 * half) - 1.0
    low = jnp.where(v == 0, -jnp.inf, (centre - half - mean) / sigma)
    high = jnp.where(v == levels - 1, jnp.inf, (centre + half - mean) / sigma)
    low, high = jnp.where(low > 0, -high, low), jnp.where(low > 0, -low, high)  # the left tail has the digits
    upper, lower = jax.scipy.special.log_ndtr(high), jax.scipy.special.log_ndtr(low)
    return upper + jnp.log1p(-jnp.exp(lower - upper))
