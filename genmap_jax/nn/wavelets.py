"""Resampling and filtering of images by orthogonal wavelets: moves of the plane, and gains of frequency bands.

Both are linear in the image, and so are their gradients of any order. Outside of its pixels an image is mirrored. Used
by `nn.augment`; Karras et al. 2020 (https://arxiv.org/abs/2006.06676), appendix B.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# ---- moves of the plane ----------------------------------------------------------------------------------------------

SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
"""Low-pass filter of the symlet with six vanishing moments (Daubechies 1992, table 6.3); orthogonal: see `warp`."""


def warp(x: Array, matrix: Array) -> Array:
    """The image whose pixel at u is that of x at `matrix` u. x [H, W, C], matrix [3, 3] -> [H, W, C]

    x is brought to twice its resolution by an orthogonal wavelet filter, read there with linear interpolation and
    brought back by the transposed filter, which suppresses aliasing (Karras et al. 2020, appendix B.2). Because the
    filter is orthogonal, the identity is exact, and so are shifts by whole pixels away from the border.
    """
    H, W, C = x.shape
    (up_h, down_h, delay), (up_w, down_w, _) = _doubling(H), _doubling(W)
    fine = separable(up_h, up_w, x)
    rows, columns = ((jnp.arange(2 * n + 10) - delay) / 2.0 for n in (H, W))  # where the fine pixels are
    grid = jnp.stack(jnp.broadcast_arrays(rows[:, None], columns[None], jnp.ones((1, 1))))  # [3, 2 H + 10, 2 W + 10]
    middle = jnp.array([(H - 1) / 2, (W - 1) / 2, 0.0]).reshape(3, 1, 1)
    source = jnp.einsum("ij,jhw->ihw", matrix, grid - middle, precision="highest") + middle

    def neighbours(u: Array, side: int) -> tuple[Array, Array]:  # index of the fine pixel before u, and the way from it
        u = jnp.where((u < -delay / 2.0 - 0.01) | (u > side - 1 + (11 - delay) / 2.0 + 0.01), mirror(u, side), u)
        f = 2.0 * u + delay
        before = jnp.clip(jnp.floor(f), 0, 2 * side + 8)
        return before.astype(jnp.int32), f - before

    (r, dr), (c, dc) = neighbours(source[0], H), neighbours(source[1], W)
    dr, dc = dr[..., None], dc[..., None]
    # One gather of all four neighbours: by the TPU's compiler a gather costs by its indices, however much each brings.
    squares = jnp.concatenate([fine[:-1, :-1], fine[:-1, 1:], fine[1:, :-1], fine[1:, 1:]], axis=-1)
    above, above_right, below, below_right = jnp.split(squares[r, c], 4, axis=-1)
    upper = (1.0 - dc) * above + dc * above_right
    lower = (1.0 - dc) * below + dc * below_right
    return separable(down_h, down_w, (1.0 - dr) * upper + dr * lower)


def _doubling(side: int) -> tuple[np.ndarray, np.ndarray, float]:
    """To twice the resolution and back: up [2 side + 10, side], down [side, 2 side + 10] with down @ up = 1, delay.

    Fine pixel f lies at (f - delay) / 2, so that a linear ramp stays one.
    """
    h = np.array(SYM6)
    down = np.zeros((side, 2 * side + 10))
    for i in range(side):
        down[i, 2 * i : 2 * i + 12] = h
    up = np.zeros((2 * side + 10, side))
    for i in range(-6, side + 6):
        for k in range(12):
            if 0 <= 2 * i + k < len(up):
                up[2 * i + k, int(mirror(np.array(i), side))] += h[k]
    scale = math.sqrt(2.0)  # constants stay constant
    return (scale * up).astype(np.float32), (down / scale).astype(np.float32), float(np.arange(12) @ h / h.sum())


# ---- frequency bands -------------------------------------------------------------------------------------------------


def filter_bands(x: Array, matrix: Array) -> Array:
    """Amplifies the bands [0, pi/8], [pi/8, pi/4], [pi/4, pi/2] and [pi/2, pi] of x by the diagonal of `matrix` [4, 4].

    x [H, W, C] -> the same, mirrored outside. One filter, along the rows and along the columns.
    """
    gains = jnp.diagonal(matrix)
    rows, columns = (jnp.tensordot(gains, _band_matrices(side), 1, precision="highest") for side in x.shape[:2])
    return separable(rows, columns, x)


def filter_bank() -> np.ndarray:
    """The filters of the four bands, whose sum is the unit impulse, from the second Daubechies wavelet: [4, 43].

    With the half-band filters L(z) = H(z) H(1/z) / 2 and U(z) = L(-z), L + U = 1, the bands are, from the lowest,
    L(z^4) L(z^2) L(z), U(z^4) L(z^2) L(z), U(z^2) L(z) and U(z) (Karras et al. 2020, appendix B.3).
    """
    r = math.sqrt(3.0)
    h = np.array([1 + r, 3 + r, 3 - r, 1 - r]) / (4.0 * math.sqrt(2.0))
    low = np.convolve(h, h[::-1]) / 2.0  # 7 taps
    impulse = np.eye(7)[3]
    bank = impulse[None]
    for _ in range(3):  # split the lowest band, after all others were stretched to half of their frequency
        wide = np.zeros((len(bank), 2 * bank.shape[1] - 1))
        wide[:, ::2] = bank
        bands = [np.convolve(row, low) for row in wide]
        upper = np.zeros_like(bands[0])
        upper[len(upper) // 2 - 3 : len(upper) // 2 + 4] = impulse - low
        bank = np.stack([*bands, upper])
    return bank[:, bank.shape[1] // 2 - 21 : bank.shape[1] // 2 + 22]


def _band_matrices(side: int) -> np.ndarray:
    """The filters as matrices on a line of pixels that is mirrored at its ends: [4, side, side]."""
    bank, out = filter_bank(), np.zeros((4, side, side))
    for i in range(side):
        for k in range(43):
            out[:, i, int(mirror(np.array(i + k - 21), side))] += bank[:, k]
    return out.astype(np.float32)


# ---- shared ----------------------------------------------------------------------------------------------------------


def separable(rows: Array | np.ndarray, columns: Array | np.ndarray, x: Array) -> Array:
    """rows [h, H] x columns' [w, W], for every channel. [H, W, C] -> [h, w, C]"""
    return jnp.einsum("hi,wj,ijc->hwc", rows, columns, x, precision="highest")


def mirror(u, side: int):
    """Positions outside of 0..side - 1, mirrored at the first and the last pixel as often as needed."""
    last = max(side - 1, 1)
    return (last - abs(u % (2 * last) - last)) if side > 1 else 0 * u
