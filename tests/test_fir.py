"""Resampling by short filters, against SciPy."""

import itertools

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


@pytest.mark.parametrize("few", [0, fir.FEW])
@pytest.mark.parametrize(
    ("up", "down", "pad"), chosen(CASES, [(2, 1, (5, 1)), (1, 2, (-1, 3)), (3, 2, (-2, -1)), (2, 3, (0, 0))])
)
def test_upfirdn_is_zeros_padding_convolution_and_every_nth(up, down, pad, few, monkeypatch):
    """Against an image with zeros between its pixels, padded or cut, `scipy.signal.convolve2d`, and a stride: 1e-6."""
    monkeypatch.setattr(fir, "FEW", few)  # both forms: a product with a matrix, and shifted lines
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


@pytest.mark.parametrize("pad", [(0, 0), (5, 1), (-1, 3), (-2, -1)])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2)])
def test_the_gradient_is_the_transposed_matrix(up, down, pad):
    """That of sum(c y) with regard to x is M^T c, with M the columns that impulses become; and once more: 1e-5."""
    resample = lambda x: fir.upfirdn(x, ROWS, 1, up, down, pad)  # noqa: E731
    x = jnp.asarray(X[:1, :, :1, :1])
    matrix = jax.vmap(resample)(jnp.eye(9)[:, None, :, None, None])[:, 0, :, 0, 0].T
    c = jnp.asarray(RNG.normal(size=(1, len(matrix), 1, 1)), jnp.float32)
    back = lambda x, c: jax.grad(lambda x: (resample(x) * c).sum())(x)  # noqa: E731
    np.testing.assert_allclose(back(x, c)[0, :, 0, 0], matrix.T @ c[0, :, 0, 0], atol=1e-5)
    again = jax.grad(lambda c: (back(x, c) * x).sum())(c)
    np.testing.assert_allclose(again[0, :, 0, 0], matrix @ x[0, :, 0, 0], atol=1e-5)


def test_doubling_is_scipys_upfirdn():
    """[1, 3, 3, 1] / 4 along both axes, cut at offset (1, 1): 1e-6. Halving is its transpose, over 4."""
    x = RNG.normal(size=(1, 9, 7, 1)).astype(np.float32)
    taps = np.array([1, 3, 3, 1]) / 4
    twice = scipy.signal.upfirdn(taps, scipy.signal.upfirdn(taps, x[0, :, :, 0], 2, axis=0), 2, axis=1)
    assert twice.shape == (20, 16)
    np.testing.assert_allclose(fir.double(jnp.asarray(x))[0, :, :, 0], twice[1:19, 1:15], atol=1e-6)
    fine = RNG.normal(size=(1, 18, 14, 1)).astype(np.float32)
    transposed = jax.vjp(fir.double, jnp.asarray(x))[1](jnp.asarray(fine))[0]
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


def test_a_filter_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="pad=.-4, 0."):
        fir.upfirdn(jnp.ones((1, 6, 6, 1)), ROWS, 1, pad=(-4, 0))
