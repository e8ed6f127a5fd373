"""Resampling of images by short filters: zeros between the pixels, a filter, every n-th pixel of the result.

`upfirdn` is the general form, along one axis and in polyphase, so that no zero is multiplied. StyleGAN2 (Karras et al.
2020, arXiv:1912.04958, appendix B; Zhang 2019, arXiv:1904.11486) changes the resolution with the binomial filter [1, 3,
3, 1], along rows and columns, and treats what lies outside of an image as zeros.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.nn.conv import correlate, transposed
from genmap_jax.nn.products import widened

Array = jax.Array

BINOMIAL = (0.125, 0.375, 0.375, 0.125)
SHORT = 64
"""Lines of up to so many entries are filtered by a product with a matrix, one operation that is quick to compile. In
longer ones most of the matrix is zeros, and shifted lines are added."""
FEW = 4
"""Filters of up to so many taps are always applied by adding shifted lines, which is quicker to run."""


def upfirdn(
    x: Array, taps: Sequence[float] | np.ndarray, axis: int, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Array:
    """Puts up - 1 zeros after each entry, pads with zeros, convolves with `taps`, and keeps every `down`-th entry.

    A true convolution: an impulse becomes the taps in their order. pad: zeros in front and behind, counted at the
    higher resolution; negative numbers cut entries off. n entries become (n up + sum(pad) - len(taps)) // down + 1.
    Its gradient is another one; forward-mode differentiation is not supported. Raises ValueError if no entries are
    left.
    """
    resampling = _Resampling(x.shape[axis], tuple(float(tap) for tap in taps), axis, up, down, pad)
    if resampling.size < 1:
        raise ValueError(
            f"pad={pad}: {x.shape[axis]} entries and {len(taps)} taps leave no output; pad more or use a shorter filter"
        )
    return _resample(resampling, x)


class _Resampling(NamedTuple):
    """`upfirdn` of n entries, with its other arguments."""

    n: int
    taps: tuple[float, ...]
    axis: int
    up: int
    down: int
    pad: tuple[int, int]

    @property
    def size(self) -> int:
        """So many entries are made."""
        return (self.n * self.up + sum(self.pad) - len(self.taps)) // self.down + 1

    def transposed(self) -> "_Resampling":
        """Takes as many entries as this one makes, and makes as many as this one takes."""
        front = len(self.taps) - 1 - self.pad[0]
        behind = (self.n - 1) * self.up + len(self.taps) - self.size * self.down - front
        return _Resampling(self.size, self.taps[::-1], self.axis, self.down, self.up, (front, behind))

    def matrix(self) -> np.ndarray:
        """It as a matrix [size, n]."""
        matrix = np.zeros((self.size, self.n), np.float32)
        for j in range(len(matrix)):
            for k, tap in enumerate(self.taps):
                i, between = divmod(j * self.down + len(self.taps) - 1 - self.pad[0] - k, self.up)
                if not between and 0 <= i < self.n:
                    matrix[j, i] += tap
        return matrix


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _resample(how: _Resampling, x: Array) -> Array:
    """`upfirdn`, accumulated in float32."""
    n, taps, axis, up, down, pad = how
    last = len(taps) - 1
    if n <= SHORT and len(taps) > FEW:
        matrix = how.matrix().astype(x.dtype)
        return jnp.moveaxis(jnp.tensordot(x, matrix, ((axis,), (1,)), precision="highest"), -1, axis)
    # Outputs r, r + period, r + 2 period, ... see the same taps, at inputs that are `stride` apart.
    period, stride = up // math.gcd(up, down), down // math.gcd(up, down)
    count = -(-how.size // period)
    reach = (count - 1) * stride + 1
    seen = []  # for each phase, the taps that do not fall on zeros between, with the index of their first input
    for r in range(period):
        at = [r * down + last - pad[0] - k for k in range(last + 1)]
        seen.append([(tap, i // up) for tap, i in zip(taps, at, strict=True) if i % up == 0])
    starts = [start for phase in seen for _, start in phase]
    front, behind = max(0, -min(starts)), max(0, max(starts) + reach - n)
    padded = jnp.pad(widened(x), [(front, behind) if i == axis else (0, 0) for i in range(x.ndim)])
    view = lambda start: jax.lax.slice_in_dim(padded, front + start, front + start + reach, stride, axis)  # noqa: E731
    zero = jnp.zeros_like(view(starts[0]))
    phases = [sum((tap * view(start) for tap, start in phase), zero).astype(x.dtype) for phase in seen]
    if period == 1:
        return phases[0]
    y = jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], count * period, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(y, 0, how.size, axis=axis)


# Its transpose is a resampling too. Derived by JAX, it would add padded arrays, at several times the cost.
_resample.defvjp(lambda how, x: (_resample(how, x), None), lambda how, _, y: (_resample(how.transposed(), y),))


def both(x: Array, taps: Sequence[float] | np.ndarray, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)):
    """`upfirdn` along rows and columns. [B, H, W, C] -> [B, H', W', C]"""
    return upfirdn(upfirdn(x, taps, 1, up, down, pad), taps, 2, up, down, pad)


def double(x: Array) -> Array:
    """Twice the resolution. [B, H, W, C] -> [B, 2 H, 2 W, C]"""
    return both(x, 2.0 * np.array(BINOMIAL), up=2, pad=(2, 1))


def halve(x: Array) -> Array:
    """Half the resolution. [B, H, W, C] -> [B, H / 2, W / 2, C]"""
    return both(x, BINOMIAL, down=2, pad=(1, 1))


# ---- convolutions ----------------------------------------------------------------------------------------------------


def conv(x: Array, kernel: Array) -> Array:
    """Convolution of stride 1 that keeps the resolution. x [B, H, W, C], kernel [k, k, C, D], k odd -> [B, H, W, D]"""
    return correlate(x, kernel, pad=kernel.shape[0] // 2)


def conv_halve(x: Array, kernel: Array) -> Array:
    """The binomial filter and a 3x3 convolution of stride 2. [B, H, W, C] -> [B, H / 2, W / 2, D]"""
    return correlate(both(x, BINOMIAL, pad=(2, 2)), kernel, stride=2)


def conv_double(x: Array, kernel: Array) -> Array:
    """Zeros between the pixels, a 3x3 convolution, and the binomial filter. [B, H, W, C] -> [B, 2 H, 2 W, D]"""
    return both(transposed(x, kernel, pad=2), 2.0 * np.array(BINOMIAL), pad=(1, 1))
