"""Resampling of images by short filters: zeros between the pixels, a filter, every n-th pixel of the result.

`upfirdn` is the general form, along one axis and in polyphase, so that no zero is multiplied. StyleGAN2 (Karras et al.
2020, arXiv:1912.04958, appendix B; Zhang 2019, arXiv:1904.11486) changes the resolution with the binomial filter [1, 3,
3, 1], along rows and columns, and treats what lies outside of an image as zeros.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

BINOMIAL = (0.125, 0.375, 0.375, 0.125)
DIMS = ("NHWC", "HWIO", "NHWC")


def upfirdn(
    x: Array, taps: Sequence[float] | np.ndarray, axis: int, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Array:
    """Puts up - 1 zeros after each entry, pads with zeros, convolves with `taps`, and keeps every `down`-th entry.

    A true convolution: an impulse becomes the taps in their order. pad: zeros in front and behind, counted at the
    higher resolution; negative numbers cut entries off. n entries become (n up + sum(pad) - len(taps)) // down + 1.
    Raises ValueError if none are left.
    """
    n, last = x.shape[axis], len(taps) - 1
    size = (n * up + sum(pad) - last - 1) // down + 1
    if size < 1:
        raise ValueError(
            f"pad={pad}: {n} entries and {last + 1} taps leave no output; pad more or use a shorter filter"
        )
    # Outputs r, r + period, r + 2 period, ... see the same taps, at inputs that are `stride` apart.
    period, stride = up // math.gcd(up, down), down // math.gcd(up, down)
    count = -(-size // period)
    reach = (count - 1) * stride + 1
    seen = []  # for each phase, the taps that do not fall on zeros between, with the index of their first input
    for r in range(period):
        at = [r * down + last - pad[0] - k for k in range(last + 1)]
        seen.append([(float(tap), i // up) for tap, i in zip(taps, at, strict=True) if i % up == 0])
    starts = [start for phase in seen for _, start in phase]
    front, behind = max(0, -min(starts)), max(0, max(starts) + reach - n)
    padded = jnp.pad(x, [(front, behind) if i == axis else (0, 0) for i in range(x.ndim)])
    view = lambda start: jax.lax.slice_in_dim(padded, front + start, front + start + reach, stride, axis)  # noqa: E731
    zero = jnp.zeros_like(view(starts[0]))
    phases = [sum((tap * view(start) for tap, start in phase), zero) for phase in seen]
    y = jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], count * period, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(y, 0, size, axis=axis)


def both(x: Array, taps: Sequence[float] | np.ndarray, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)):
    """`upfirdn` along rows and columns. [B, H, W, C] -> [B, H', W', C]"""
    return upfirdn(upfirdn(x, taps, 1, up, down, pad), taps, 2, up, down, pad)


def double(x: Array) -> Array:
    """Twice the resolution. [B, H, W, C] -> [B, 2 H, 2 W, C]"""
    return both(x, 2.0 * np.array(BINOMIAL), up=2, pad=(2, 1))


def halve(x: Array) -> Array:
    """Half the resolution. [B, H, W, C] -> [B, H / 2, W / 2, C]"""
    return both(x, BINOMIAL, down=2, pad=(1, 1))


def conv(x: Array, kernel: Array) -> Array:
    """Convolution of stride 1 that keeps the resolution. x [B, H, W, C], kernel [k, k, C, D], k odd -> [B, H, W, D]"""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=DIMS)


def conv_double(x: Array, kernel: Array) -> Array:
    """Zeros between the pixels, a 3x3 convolution, and the binomial filter. [B, H, W, C] -> [B, 2 H, 2 W, D]"""
    fine = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(2, 2), (2, 2)], lhs_dilation=(2, 2), dimension_numbers=DIMS
    )
    return both(fine, 2.0 * np.array(BINOMIAL), pad=(1, 1))


def conv_halve(x: Array, kernel: Array) -> Array:
    """The binomial filter and a 3x3 convolution of stride 2. [B, H, W, C] -> [B, H / 2, W / 2, D]"""
    smooth = both(x, BINOMIAL, pad=(2, 2))
    return jax.lax.conv_general_dilated(smooth, kernel, (2, 2), "VALID", dimension_numbers=DIMS)
