"""The exact densities are exact: normalised, with the stored entropy, the right score, and samples of their own law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax.data.toy import DENSITIES

KEY = jax.random.key(0)
# Computed independently, in float64, before this code was written.
ENTROPY = {
    "gaussians8": 1.698061,
    "gaussians25": 1.451580,
    "moons": 1.007585,
    "rings": 3.534527,
    "pinwheel": 1.227425,
    "checkerboard": 3.465736,
}
NOISED = [name for name, p in DENSITIES.items() if p.log_prob_noised is not None]
each_density = pytest.mark.parametrize("name", chosen(DENSITIES, ["gaussians8", "moons"]))


def grid(window, n):
    """Midpoints of n x n cells: [n * n, 2], and the area of a cell. Spectrally accurate for smooth densities."""
    low, high = window
    side = low + (np.arange(n) + 0.5) * (high - low) / n
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), ((high - low) / n) ** 2


def draw(p, n):
    with jax.enable_x64(False):
        return jax.jit(p.sample, static_argnums=1)(KEY, n)


def on_grid(f, x):
    """f over many points, a part at a time."""
    f = jax.jit(f)
    return np.concatenate([np.asarray(f(jnp.asarray(part))) for part in np.array_split(x, 20)])


@each_density
def test_density_is_normalised_and_has_the_stored_entropy(name):
    p = DENSITIES[name]
    x, area = grid(p.window, 400)  # 400 is a multiple of 4: the cells of the checkerboard are whole
    with jax.enable_x64(True):
        log_p = on_grid(p.log_prob, x)
    assert log_p.dtype == np.float64
    weight = np.exp(log_p) * area
    assert weight.sum() == pytest.approx(1, abs=1e-8)
    entropy = -np.sum(weight[weight > 0] * log_p[weight > 0])
    assert entropy == pytest.approx(p.entropy, abs=1e-6)
    assert entropy == pytest.approx(ENTROPY[name], abs=1e-5)


@each_density
def test_score_is_the_gradient_of_the_log_density(name):
    p = DENSITIES[name]
    with jax.enable_x64(True):
        x, h = draw(p, 200).astype(jnp.float64), 1e-5
        log_prob = jax.jit(p.log_prob)
        central = [(log_prob(x + h * e[None]) - log_prob(x - h * e[None])) / (2 * h) for e in np.eye(2)]
        np.testing.assert_allclose(jax.jit(p.score)(x), np.stack(central, axis=-1), rtol=1e-5, atol=1e-5)


@each_density
def test_score_is_finite_everywhere_in_float32(name):
    p = DENSITIES[name]
    low, high = p.window
    odd = jnp.array([[0.0, 0.0], [1e-20, 0.0], [low, high], [50.0, -50.0], [2.0, 2.0]])
    x = jnp.concatenate([odd, draw(p, 1000)])
    score = jax.jit(p.score)(x)
    assert score.dtype == jnp.float32 and score.shape == x.shape
    assert jnp.isfinite(score).all()


@each_density
def test_mean_log_density_of_samples_is_minus_the_entropy(name):
    p = DENSITIES[name]
    log_p = np.asarray(jax.jit(p.log_prob)(draw(p, 20_000)), np.float64)
    assert log_p.mean() == pytest.approx(-p.entropy, abs=4 * log_p.std() / np.sqrt(len(log_p)) + 1e-5)


@each_density
def test_samples_follow_the_density(name):
    """Chi-squared over a 16 x 16 histogram of 100,000 samples against integrals of the density."""
    p, bins, fine, n = DENSITIES[name], 16, 30, 100_000
    points, area = grid(p.window, bins * fine)
    mass = np.exp(on_grid(p.log_prob, points.astype(np.float32)).astype(np.float64)) * area
    mass = mass.reshape(bins, fine, bins, fine).sum((1, 3))  # rows are y
    x = np.asarray(draw(p, n))
    observed, _, _ = np.histogram2d(x[:, 1], x[:, 0], bins=bins, range=[p.window] * 2)
    assert observed.sum() == n  # nothing outside the window
    keep = mass * n > 5
    expected = np.append(mass[keep], 1 - mass[keep].sum()) * n
    observed = np.append(observed[keep], n - observed[keep].sum())
    expected, observed = expected[expected > 5], observed[expected > 5]
    chi2, dof = np.sum((observed - expected) ** 2 / expected), len(expected) - 1
    assert abs(chi2 - dof) < 5 * np.sqrt(2 * dof)


@pytest.mark.parametrize("name", NOISED)
@pytest.mark.parametrize("sigma", [0.3, 1.5])
def test_noised_density_is_the_convolution_with_a_gaussian(name, sigma):
    """By quadrature of p(y) N(x; y, sigma^2 I), and for the score of p(y) N(x; y, sigma^2 I) (y - x) / sigma^2."""
    p = DENSITIES[name]
    y, area = grid(p.window, 300)
    x = np.array([[0.1, -0.2], [1.0, 0.8], [-1.7, 0.4], [3.0, 3.0]])
    with jax.enable_x64(True):
        weight = np.exp(on_grid(p.log_prob, y)) * area
        difference = y[None] - x[:, None]  # [4, N, 2]
        kernel = weight * np.exp(-np.square(difference).sum(-1) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
        score = (kernel[..., None] * difference).sum(1) / sigma**2 / kernel.sum(1)[:, None]
        np.testing.assert_allclose(
            jax.jit(p.log_prob_noised)(jnp.asarray(x), sigma), np.log(kernel.sum(1)), rtol=0, atol=1e-6
        )
        np.testing.assert_allclose(jax.jit(p.score)(jnp.asarray(x), sigma), score, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NOISED)
def test_no_noise_is_the_density_itself_and_sigma_may_differ_per_example(name):
    p = DENSITIES[name]
    x, log_prob_noised = draw(p, 3), jax.jit(p.log_prob_noised)
    np.testing.assert_allclose(log_prob_noised(x, 0.0), jax.jit(p.log_prob)(x), rtol=1e-6)
    sigma = jnp.array([0.1, 1.0, 3.0])
    one_by_one = [log_prob_noised(x, s)[i] for i, s in enumerate(sigma)]
    np.testing.assert_allclose(log_prob_noised(x, sigma), np.stack(one_by_one), rtol=1e-6)


def test_score_under_noise_without_a_closed_form_says_which_have_one():
    with pytest.raises(ValueError, match="gaussians8"):
        DENSITIES["rings"].score(jnp.zeros((1, 2)), 0.5)


def test_moons_nodes_are_enough():
    """400 Gauss-Legendre nodes give the same density, in all of the window."""
    p = DENSITIES["moons"]
    x, _ = grid(p.window, 25)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = np.pi * (nodes + 1) / 2
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    centres = np.concatenate([arc + [-0.5, -0.25], -arc + [0.5, 0.25]])
    squares = np.square(x[:, None] - centres).sum(-1)
    least = squares.min(1, keepdims=True)
    mixture = np.exp(-(squares - least) / 0.02) @ np.concatenate([weights, weights]) / 4
    with jax.enable_x64(True):
        log_p = p.log_prob(jnp.asarray(x))
    np.testing.assert_allclose(log_p, np.log(mixture) - least[:, 0] / 0.02 - np.log(0.02 * np.pi), rtol=0, atol=1e-9)


@each_density
def test_any_batch_shape_gives_the_same_values(name):
    p = DENSITIES[name]
    x = draw(p, 12)
    both = jax.jit(lambda x: (p.log_prob(x), p.score(x)))
    log_p, score = both(x)
    assert x.shape == score.shape == (12, 2) and log_p.shape == (12,)
    np.testing.assert_allclose(both(x.reshape(3, 4, 2))[0], log_p.reshape(3, 4), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(p.score))(x), score, rtol=1e-4, atol=1e-4)
