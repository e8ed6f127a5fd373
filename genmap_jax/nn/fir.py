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

from genmap_jax import parallel

Array = jax.Array

BINOMIAL = (0.125, 0.375, 0.375, 0.125)
DIMS = ("NHWC", "HWIO", "NHWC")
SHORT = 64
"""Lines of up to so many entries are filtered by a product with a matrix, one operation that is quick to compile and to
differentiate. In longer ones most of the matrix is zeros, and shifted lines are added."""


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
    if n <= SHORT:
        matrix = _matrix(n, size, taps, up, down, pad[0]).astype(x.dtype)
        return jnp.moveaxis(jnp.tensordot(x, matrix, ((axis,), (1,)), precision="highest"), -1, axis)
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


def _matrix(n: int, size: int, taps: Sequence[float] | np.ndarray, up: int, down: int, front: int) -> np.ndarray:
    """`upfirdn` of n entries, `front` zeros in front, as a matrix [size, n]."""
    matrix = np.zeros((size, n), np.float32)
    for j in range(size):
        for k, tap in enumerate(taps):
            i, between = divmod(j * down + len(taps) - 1 - front - k, up)
            if not between and 0 <= i < n:
                matrix[j, i] += tap
    return matrix


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
# On a CPU as products with windows of pixels: XLA's own convolutions are up to fifty times slower there inside of
# `lax.cond`, where lazy penalties are, and so are gradients of its transposed ones.


def conv(x: Array, kernel: Array) -> Array:
    """Convolution of stride 1 that keeps the resolution. x [B, H, W, C], kernel [k, k, C, D], k odd -> [B, H, W, D]"""
    return correlate(x, kernel, pad=kernel.shape[0] // 2)


def conv_halve(x: Array, kernel: Array) -> Array:
    """The binomial filter and a 3x3 convolution of stride 2. [B, H, W, C] -> [B, H / 2, W / 2, D]"""
    return correlate(both(x, BINOMIAL, pad=(2, 2)), kernel, stride=2)


def conv_double(x: Array, kernel: Array) -> Array:
    """Zeros between the pixels, a 3x3 convolution, and the binomial filter. [B, H, W, C] -> [B, 2 H, 2 W, D]"""
    return both(transposed(x, kernel), 2.0 * np.array(BINOMIAL), pad=(1, 1))


def transposed(x: Array, kernel: Array) -> Array:
    """Zeros between the pixels, and a convolution with zeros around.

    x [B, H, W, C], kernel [k, k, C, D], k 3 or 4 -> [B, 2 H + k - 2, 2 W + k - 2, D]
    """
    return (_transposed_by_products if parallel.platform() == "cpu" else _transposed_by_xla)(x, kernel)


def correlate(x: Array, kernel: Array, stride: int = 1, pad: int = 0) -> Array:
    """What networks call a convolution, with zeros outside. x [B, H, W, C], kernel [k, k, C, D] -> [B, H', W', D] with
    H' = (H + 2 pad - k) // stride + 1."""
    return (_by_products if parallel.platform() == "cpu" else _by_xla)(x, kernel, stride, pad)


def correlate_wide(x: Array, kernel: Array) -> Array:
    """`correlate` with a large kernel. x [B, H, W, C], kernel [k, k, C, D] -> [B, H - k + 1, W - k + 1, D]"""
    return _wide_by_products(x, kernel) if parallel.platform() == "cpu" else _by_xla(x, kernel, 1, 0)


def _by_xla(x: Array, kernel: Array, stride: int, pad: int) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, [(pad, pad)] * 2, dimension_numbers=DIMS)


def _by_products(x: Array, kernel: Array, stride: int, pad: int) -> Array:
    k = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ((side - k) // stride * stride + 1 for side in x.shape[1:3])
    taps = [(a, b) for a in range(k) for b in range(k)]
    windows = jnp.concatenate([x[:, a : a + rows : stride, b : b + columns : stride] for a, b in taps], axis=-1)
    return windows @ kernel.reshape(-1, kernel.shape[-1])


def _wide_by_products(x: Array, kernel: Array) -> Array:
    """With windows along columns, then along rows; if outputs are fewer than inputs, their products are added along the
    rows instead."""
    k, _, C, D = kernel.shape
    rows, columns = (side - k + 1 for side in x.shape[1:3])
    x = jnp.concatenate([x[:, :, b : b + columns] for b in range(k)], axis=-1)
    if D < C:
        y = jnp.einsum("bhwc,acd->bhwad", x, kernel.reshape(k, k * C, D))
        return jnp.asarray(sum(y[:, a : a + rows, :, a] for a in range(k)))
    return jnp.concatenate([x[:, a : a + rows] for a in range(k)], axis=-1) @ kernel.reshape(-1, D)


def _transposed_by_xla(x: Array, kernel: Array) -> Array:
    pad = [(side - 1, side - 1) for side in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), pad, lhs_dilation=(2, 2), dimension_numbers=DIMS)


def _transposed_by_products(x: Array, kernel: Array) -> Array:
    """A pixel becomes k x k of them, which overlap those of its neighbours."""
    k = kernel.shape[0]
    y = jnp.einsum("bhwc,ijcd->bhwijd", x, kernel[::-1, ::-1])
    y = _overlap([y[:, :, :, i] for i in range(k)], 1)
    return _overlap([y[:, :, :, j] for j in range(k)], 2)


def _overlap(parts: list[Array], axis: int) -> Array:
    """Entry i of n of part j adds to entry 2 i + j, of 2 n + k - 2. Of k = 3 or 4 parts."""
    first, n = parts[0], parts[0].shape[axis]
    moved = lambda x, by: jnp.pad(x, [(by, 1 - by) if i == axis else (0, 0) for i in range(x.ndim)])  # noqa: E731
    even, odd = (sum(moved(part, j) for j, part in enumerate(parts[side::2])) for side in (0, 1))
    shape = (*first.shape[:axis], 2 * n + 2, *first.shape[axis + 1 :])
    both = jnp.stack([even, odd], axis + 1).reshape(shape)
    return jax.lax.slice_in_dim(both, 0, 2 * n + len(parts) - 2, axis=axis)
