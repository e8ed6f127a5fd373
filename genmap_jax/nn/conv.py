"""Two-dimensional convolutions, as networks call them: correlations with a kernel, and their transposes.

On accelerators they are XLA's, and so are their derivatives. On a CPU some derivatives are written out here. Those that
XLA derives run there at full speed outside of `lax.cond` and of loops only, and up to fifty times slower inside, where
lazy penalties are; and that of a transposed convolution with regard to its kernel nowhere. Convolutions of wide layers
with 3x3 kernels, and their derivatives, are computed with fewer products there, as libraries for GPUs do too: about
twice as quick, and no less exact.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genmap_jax import parallel

Array = jax.Array

DIMS = ("NHWC", "HWIO", "NHWC")
Pad = tuple[tuple[int, int], ...]
"""Rows of zeros above and below, columns of zeros to the left and to the right."""


def correlate(x: Array, kernel: Array, stride: int = 1, pad: int | Pad = 0) -> Array:
    """What networks call a convolution, with zeros outside. x [B, H, W, C], kernel [h, w, C, D] -> [B, H', W', D] with
    H' = (H + zeros - h) // stride + 1. pad: zeros on every side, or on each. Forward-mode differentiation is not
    supported on CPUs."""
    pad = _on_each_side(pad)
    if parallel.platform() != "cpu" or _is_product(kernel, stride, pad):
        return correlate_plainly(x, kernel, stride, pad)
    if x.shape[-1] <= FEW and stride == 1:
        return _by_windows(x, kernel, pad)
    return _correlate(_Geometry(stride, pad, x.shape[1:3], kernel.shape[:2]), x, kernel)


def correlate_plainly(x: Array, kernel: Array, stride: int = 1, pad: int | Pad = 0) -> Array:
    """`correlate` with the derivatives that XLA derives everywhere: as quick or quicker on a CPU too, with stride 1 and
    outside of branches and loops."""
    pad = _on_each_side(pad)
    if _is_product(kernel, stride, pad):
        return x @ kernel[0, 0]
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=DIMS)


def transposed(x: Array, kernel: Array, pad: int | Pad) -> Array:
    """A zero between any two pixels, and `correlate` of stride 1. x [B, H, W, C], kernel [h, w, C, D] -> [B, H', W', D]
    with H' = 2 H - 1 + zeros - (h - 1)."""
    pad = _on_each_side(pad)
    if parallel.platform() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), pad, lhs_dilation=(2, 2), dimension_numbers=DIMS)
    window = kernel.shape[:2]
    within = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(window, pad, strict=True))
    sides = tuple(2 * n - 1 + sum(zeros) - (k - 1) for n, k, zeros in zip(x.shape[1:3], window, pad, strict=True))
    return _to_input(_Geometry(2, within, sides, window), x, _turned(kernel))


def _is_product(kernel: Array, stride: int, pad: Pad) -> bool:
    """Whether every pixel is multiplied by one matrix; XLA's own 1x1 convolution is slow on CPUs."""
    return kernel.shape[:2] == (1, 1) and stride == 1 and not any(map(any, pad))


def _on_each_side(pad: int | Pad) -> Pad:
    return ((pad, pad), (pad, pad)) if isinstance(pad, int) else pad


# ---- on a CPU --------------------------------------------------------------------------------------------------------

FEW = 4
"""So many input channels or fewer, as those of pixels, are convolved by a product with their windows."""


def _by_windows(x: Array, kernel: Array, pad: Pad) -> Array:
    (h, w), (H, W) = kernel.shape[:2], (n + sum(zeros) for n, zeros in zip(x.shape[1:3], pad, strict=True))
    x = _padded(x, pad)
    x = jnp.concatenate([x[:, :, j : j + W - w + 1] for j in range(w)], axis=-1)
    x = jnp.concatenate([x[:, i : i + H - h + 1] for i in range(h)], axis=-1)
    return x @ kernel.reshape(-1, kernel.shape[-1])


def _padded(x: Array, pad: Pad) -> Array:
    """Zeros around an image, or, where their number is negative, the image cut."""
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in ((0, 0), *pad, (0, 0))])


# A correlation y = x * k is linear in x and in k. Its transposes with regard to either, and their transposes, are three
# functions in all, each bilinear and each with the other two for its derivatives, however often it is differentiated.


class _Geometry(NamedTuple):
    """Of a correlation: its stride and zeros, the sides of what goes in, and those of the kernel."""

    stride: int
    pad: Pad
    sides: tuple[int, ...]
    window: tuple[int, ...]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _correlate(at: _Geometry, x: Array, kernel: Array) -> Array:
    if _is_minimal(at, x.dtype, *kernel.shape[2:]):
        return _minimally(x, kernel, at.pad)
    return correlate_plainly(x, kernel, at.stride, at.pad)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_input(at: _Geometry, y: Array, kernel: Array) -> Array:
    """The transpose with regard to x: y [B, H', W', D], kernel [h, w, C, D] -> [B, H, W, C]"""
    s = at.stride
    pad = [
        (k - 1 - low, n + low - (s * (m - 1) + 1))
        for n, m, k, (low, _) in zip(at.sides, y.shape[1:3], at.window, at.pad, strict=True)
    ]
    if _is_minimal(at, y.dtype, *kernel.shape[2:]):
        return _minimally(y, _turned(kernel), tuple(pad))
    return jax.lax.conv_general_dilated(y, _turned(kernel), (1, 1), pad, lhs_dilation=(s, s), dimension_numbers=DIMS)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_kernel(at: _Geometry, x: Array, y: Array) -> Array:
    """The transpose with regard to the kernel: x [B, H, W, C], y [B, H', W', D] -> [h, w, C, D]"""
    if _is_minimal(at, x.dtype, x.shape[-1], y.shape[-1]):
        return _minimally_to_kernel(x, y, at.pad)
    if at.stride == 1:  # a correlation of x with y, over examples in the place of channels
        x, y = x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3)
        return correlate_plainly(x, y, pad=at.pad).transpose(1, 2, 0, 3)
    (h, w), s, (rows, columns) = at.window, at.stride, y.shape[1:3]
    x = _padded(x, at.pad)
    seen = lambda i, j: x[:, i : i + s * (rows - 1) + 1 : s, j : j + s * (columns - 1) + 1 : s]  # noqa: E731
    taps = [_over_pixels(seen(i, j), y) for i in range(h) for j in range(w)]
    return jnp.stack(taps).reshape(h, w, x.shape[-1], y.shape[-1])


def _over_pixels(x: Array, y: Array) -> Array:
    """Products summed over pixels. [B, H, W, C] and [B, H, W, D] -> [C, D]"""
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])


def _turned(kernel: Array) -> Array:
    """Rows and columns backwards, inputs and outputs exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


_correlate.defvjp(
    lambda at, x, kernel: (_correlate(at, x, kernel), (x, kernel)),
    lambda at, saved, y: (_to_input(at, y, saved[1]), _to_kernel(at, saved[0], y)),
)
_to_input.defvjp(
    lambda at, y, kernel: (_to_input(at, y, kernel), (y, kernel)),
    lambda at, saved, x: (_correlate(at, x, saved[1]), _to_kernel(at, x, saved[0])),
)
_to_kernel.defvjp(
    lambda at, x, y: (_to_kernel(at, x, y), (x, y)),
    lambda at, saved, kernel: (_to_input(at, saved[1], kernel), _correlate(at, saved[0], kernel)),
)


# ---- 3x3 kernels on a CPU --------------------------------------------------------------------------------------------

# Two neighbouring outputs y of three weights k need four products in place of six, and along both axes 16 in place of
# 36 (Winograd 1980; Lavin & Gray 2015, arXiv:1509.09308, section 4.1):
#
#     y_0 = m_0 + m_1 + m_2      m_0 = (x_0 - x_2) k_0      m_1 = (x_1 + x_2) (k_0 + k_1 + k_2) / 2
#     y_1 = m_1 - m_2 - m_3      m_3 = (x_1 - x_3) k_2      m_2 = (x_2 - x_1) (k_0 - k_1 + k_2) / 2
#
# In a layer, each m is a matrix product over channels. The derivatives that JAX would derive of these lines are slower
# than XLA's convolutions; the three functions above, which are each other's, have this form too.

WIDE = 128
"""Of fewer channels than these, the additions cost about what the products save, and longer to compile."""


def _is_minimal(at: _Geometry, dtype: jnp.dtype, *channels: int) -> bool:
    """Not in bfloat16, which would round the sums before they are multiplied."""
    return at.stride == 1 and at.window == (3, 3) and min(channels) >= WIDE and dtype != jnp.bfloat16


def _minimally(x: Array, kernel: Array, pad: Pad) -> Array:
    """A correlation with 3x3 kernels."""
    inputs = _on_grid(_of_inputs, _tiles(x, pad))
    kernels = _on_grid(_of_kernels, [[kernel[i, j] for j in range(3)] for i in range(3)])
    products = [list(map(jnp.matmul, *rows)) for rows in zip(inputs, kernels, strict=True)]
    y = jnp.stack([jnp.stack(row, 3) for row in _on_grid(_to_outputs, products)], 2)  # [B, h, 2, w, 2, D]
    y = y.reshape(len(y), 2 * y.shape[1], 2 * y.shape[3], -1)
    rows, columns = (n + sum(zeros) - 2 for n, zeros in zip(x.shape[1:3], pad, strict=True))
    return y[:, :rows, :columns]


def _minimally_to_kernel(x: Array, y: Array, pad: Pad) -> Array:
    """Its transpose with regard to the kernel."""
    y = _padded(y, ((0, y.shape[1] % 2), (0, y.shape[2] % 2)))
    outputs = _on_grid(_of_outputs, [[y[:, i::2, j::2] for j in range(2)] for i in range(2)])
    inputs = _on_grid(_of_inputs, _tiles(x, pad))
    products = [list(map(_over_pixels, *rows)) for rows in zip(inputs, outputs, strict=True)]
    return jnp.stack([jnp.stack(row) for row in _on_grid(_to_kernels, products)])


Grid = list[list[Array]]


def _tiles(x: Array, pad: Pad) -> Grid:
    """4x4 pixels that begin at every second row and column, of a padded image with even sides: [B, h, w, C] each."""
    (top, bottom), (left, right) = pad
    x = _padded(x, ((top, bottom + (x.shape[1] + top + bottom) % 2), (left, right + (x.shape[2] + left + right) % 2)))
    rows, columns = (n - 3 for n in x.shape[1:3])
    return [[x[:, i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)]


def _on_grid(f: Callable, rows: Grid) -> Grid:
    """f of every row, and then of every column of what this gives."""
    columns = [f(*column) for column in zip(*(f(*row) for row in rows), strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _of_inputs(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    return a - c, b + c, c - b, b - d


def _of_kernels(a: Array, b: Array, c: Array) -> tuple[Array, ...]:
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _to_kernels(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    """The transpose of `_of_kernels`."""
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d


def _to_outputs(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    return a + b + c, b - c - d


def _of_outputs(a: Array, b: Array) -> tuple[Array, ...]:
    """The transpose of `_to_outputs`."""
    return a, a + b, a - b, -b
