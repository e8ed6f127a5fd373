"""Resampling by short filters, against SciPy."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from variants import chosen

from genmap_jax.nn import fir

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1, 9, 8, 2)).astype(np.float32)
ROWS, COLUMNS = RNG.normal(size=(2, 4))  # asymmetric: a flip shows


CASES = itertools.product((1, 2, 3), (1, 2, 3), [(0, 0), (5, 1), (-1, 3), (-2, -1)])


@pytest.mark.parametrize("short", [0, fir.SHORT])
@pytest.mark.parametrize(
    ("up", "down", "pad"), chosen(CASES, [(2, 1, (5, 1)), (1, 2, (-1, 3)), (3, 2, (-2, -1)), (2, 3, (0, 0))])
)
def test_upfirdn_is_zeros_padding_convolution_and_every_nth(up, down, pad, short, monkeypatch):
    """Against an image with zeros between its pixels, padded or cut, `scipy.signal.convolve2d`, and a stride: 1e-6."""
    monkeypatch.setattr(fir, "SHORT", short)  # both forms: shifted lines, and a product with a matrix
    y = jax.jit(lambda x: fir.upfirdn(fir.upfirdn(x, ROWS, 1, up, down, pad), COLUMNS, 2, up, down, pad))(X)
    for c in range(2):
        wide = np.zeros((9 * up, 8 * up))
        wide[::up, ::up] = X[0, :, :, c]
        wide = np.pad(wide, (max(pad[0], 0), max(pad[1], 0)))
        cut = [slice(max(-pad[0], 0), n - max(-pad[1], 0)) for n in wide.shape]
        full = scipy.signal.convolve2d(wide[cut[0], cut[1]], np.outer(ROWS, COLUMNS), mode="valid")
        expected = full[::down, ::down]
        assert y.shape[1:3] == expected.shape
        np.testing.assert_allclose(y[0, :, :, c], expected, atol=2e-6)


def test_doubling_is_scipys_upfirdn():
    """[1, 3, 3, 1] / 4 along both axes, cut at offset (1, 1): 1e-6. Halving is its transpose, over 4."""
    x = RNG.normal(size=(1, 9, 7, 1)).astype(np.float32)
    taps = np.array([1, 3, 3, 1]) / 4
    twice = scipy.signal.upfirdn(taps, scipy.signal.upfirdn(taps, x[0, :, :, 0], 2, axis=0), 2, axis=1)
    assert twice.shape == (20, 16)
    np.testing.assert_allclose(fir.double(jnp.asarray(x))[0, :, :, 0], twice[1:19, 1:15], atol=1e-6)
    fine = RNG.normal(size=(1, 18, 14, 1)).astype(np.float32)
    transposed = jax.linear_transpose(fir.double, jnp.asarray(x))(jnp.asarray(fine))[0]
    np.testing.assert_allclose(fir.halve(jnp.asarray(fine)), transposed / 4, atol=1e-6)


def test_constants_stay_inside_and_images_end_in_zeros():
    ones = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(fir.double(ones)[0, 1:-1, 1:-1], 1.0, atol=1e-6)
    np.testing.assert_allclose(fir.halve(ones)[0, 1:-1, 1:-1], 1.0, atol=1e-6)
    np.testing.assert_allclose(fir.double(ones)[0, 0, 5], 0.75, atol=1e-6)


def test_convolutions_that_resample_are_their_parts():
    """Zeros between, a 3x3 correlation on all that they touch, the filter; and the filter, then every second: 1e-5."""
    x = RNG.normal(size=(1, 4, 6, 1)).astype(np.float32)
    kernel = RNG.normal(size=(3, 3, 1, 1)).astype(np.float32)
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1])
    wide = np.zeros((7, 11))
    wide[::2, ::2] = x[0, :, :, 0]
    fine = scipy.signal.correlate2d(wide, kernel[:, :, 0, 0], mode="full")
    up = scipy.signal.convolve2d(np.pad(fine, 1), taps / 16, mode="valid")
    np.testing.assert_allclose(fir.conv_double(jnp.asarray(x), jnp.asarray(kernel))[0, :, :, 0], up, atol=1e-5)
    smooth = scipy.signal.convolve2d(np.pad(x[0, :, :, 0], 2), taps / 64, mode="valid")
    down = scipy.signal.correlate2d(smooth, kernel[:, :, 0, 0], mode="valid")[::2, ::2]
    np.testing.assert_allclose(fir.conv_halve(jnp.asarray(x), jnp.asarray(kernel))[0, :, :, 0], down, atol=1e-5)


def test_products_with_windows_are_xlas_convolutions():
    """Values and gradients of both forms, of any stride, of transposed ones and of large kernels: 1e-4."""
    x = jnp.asarray(RNG.normal(size=(2, 7, 9, 3)), jnp.float32)
    by = lambda f, stride, pad: partial(f, stride=stride, pad=pad)  # noqa: E731
    transposed = fir._transposed_by_xla, fir._transposed_by_products
    wide = by(fir._by_xla, 1, 0), fir._wide_by_products
    cases = [(3, 4, [by(f, s, p) for f in (fir._by_xla, fir._by_products)]) for s, p in ((1, 1), (2, 0))]
    cases += [(3, 4, transposed), (4, 4, transposed), (5, 4, wide), (5, 2, wide)]
    for size, outputs, (xla, products) in cases:
        kernel = jnp.asarray(RNG.normal(size=(size, size, 3, outputs)), jnp.float32)
        values = [
            jax.jit(jax.value_and_grad(lambda x, k, f=f: (f(x, k) ** 2).sum(), (0, 1)))(x, kernel)
            for f in (products, xla)
        ]
        chex.assert_trees_all_close(*values, rtol=1e-4, atol=1e-3)


def test_a_filter_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="pad=.-4, 0."):
        fir.upfirdn(jnp.ones((1, 6, 6, 1)), ROWS, 1, pad=(-4, 0))
