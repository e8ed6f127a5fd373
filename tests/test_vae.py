"""The VAE's bound, decoder, sampler and training against closed forms, enumeration and quadrature."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import chi2, multivariate_normal

from genmap_jax.approximate import vae
from genmap_jax.keys import example_keys
from genmap_jax.likelihoods import discretised_logistic
from genmap_jax.objectives import elbo
from genmap_jax.optim import Optim
from genmap_jax.spaces import Space, images, vectors
from genmap_jax.units import bits_per_dim

KEY = jax.random.key(0)

# ---- the discretised logistic ----------------------------------------------------------------------------------------


def exact_log_pmf(v, mean, log_scale, levels):
    """The definition, in float64: differences of the logistic CDF taken in the tail where they lose no digits."""
    a, b = (v + 0.5 - mean) / np.exp(log_scale), (v - 0.5 - mean) / np.exp(log_scale)
    a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)  # mirror to the lower tail
    log_sigmoid = lambda t: -np.logaddexp(0.0, -t)  # noqa: E731
    inside = log_sigmoid(a) + np.log1p(-np.exp(log_sigmoid(b) - log_sigmoid(a)))
    first, last = log_sigmoid((0.5 - mean) / np.exp(log_scale)), log_sigmoid((mean - levels + 1.5) / np.exp(log_scale))
    return np.where(v == 0, first, np.where(v == levels - 1, last, inside))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_pmf_sums_to_one_and_single_values_are_exact(levels):
    rng = np.random.default_rng(0)
    mean = rng.uniform(-0.5, levels - 0.5, (200, 1)).astype(np.float32)
    log_scale = rng.uniform(-9.0, 1.0 + math.log(128.0), (200, 1)).astype(np.float32)
    v = np.arange(levels)[None, :]
    ours = np.asarray(discretised_logistic(*map(jnp.asarray, (v, mean, log_scale)), levels), np.float64)
    assert np.abs(np.exp(ours).sum(1) - 1.0).max() <= 5e-6
    truth = exact_log_pmf(v, mean.astype(np.float64), log_scale.astype(np.float64), levels)
    assert np.abs((ours - truth) / np.maximum(1.0, np.abs(truth))).max() <= 1e-5  # to thousands of nats
    assert np.abs(ours - truth)[truth > -50.0].max() <= 1e-4  # nats, wherever there is any mass
    grads = jax.grad(lambda m, s: discretised_logistic(jnp.asarray(v), m, s, levels).sum(), argnums=(0, 1))
    assert all(bool(jnp.isfinite(g).all()) for g in grads(jnp.asarray(mean), jnp.asarray(log_scale)))


def test_a_uniform_source_costs_log2_levels():
    """Two levels at any scale, and 256 under wide decoders whose means z spreads evenly over the range."""
    for log_scale in (-2.0, 0.0, 3.0):
        nats = discretised_logistic(jnp.arange(2), jnp.float32(0.5), jnp.float32(log_scale), 2)
        assert bits_per_dim(np.asarray(nats), 1) == pytest.approx([1.0, 1.0], abs=1e-6)
    means = jnp.linspace(-0.5, 255.5, 1000)[:, None]
    nats = discretised_logistic(jnp.arange(256)[None, :], means, jnp.float32(math.log(2.0)), 256)
    marginal = jax.nn.logsumexp(nats, axis=0) - math.log(1000)
    assert bits_per_dim(float(marginal.mean()), 1) == pytest.approx(8.0, abs=0.02)


# ---- the terms of the bound ------------------------------------------------------------------------------------------


def test_kl_equals_monte_carlo():
    rng = np.random.default_rng(1)
    mu, logvar = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    z = mu + np.exp(0.5 * logvar) * rng.normal(size=(400_000, 5, 3))
    log_ratio = -0.5 * (logvar + (z - mu) ** 2 / np.exp(logvar) - z**2).sum(-1)
    kl = np.asarray(elbo.gaussian_kl(jnp.asarray(mu, jnp.float32), jnp.asarray(logvar, jnp.float32)))
    assert (np.abs(log_ratio.mean(0) - kl) < 4 * log_ratio.std(0) / math.sqrt(len(z))).all()
    assert float(elbo.gaussian_kl(jnp.zeros((1, 3)), jnp.zeros((1, 3)))[0]) == 0.0


LINEAR = vae.Config(space=vectors(6), latent=2, hidden=(), scale="global")


def linear_model(inflate=1.0, shift=0.0):
    """Parameters with a known exact posterior (orthogonal loadings make it diagonal), then moved off it by choice.

    Returns (params, mean and covariance of the marginal p(x)).
    """
    rng = np.random.default_rng(2)
    loadings = np.linalg.qr(rng.normal(size=(6, 2)))[0] * [1.7, 0.8]  # [D, Z]
    bias, sigma = rng.normal(size=6), 0.6
    precision = np.eye(2) + loadings.T @ loadings / sigma**2
    to_z = np.linalg.solve(precision, loadings.T) / sigma**2  # E[z | x] = to_z (x - bias)
    var = inflate / np.diag(precision)
    params = {
        "log_scale": np.log(sigma),
        "decoder": {"Dense_0": {"kernel": loadings.T, "bias": bias}},
        "encoder": {
            "Dense_0": {
                "kernel": np.concatenate([to_z, np.zeros((2, 6))]).T,
                "bias": np.concatenate([shift - to_z @ bias, np.log(var)]),
            }
        },
    }
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    return params, bias, loadings @ loadings.T + sigma**2 * np.eye(6)


def test_with_the_exact_posterior_every_log_weight_is_log_p():
    params, mean, cov = linear_model()
    x = np.random.default_rng(3).multivariate_normal(mean, cov, 20).astype(np.float32)
    log_w = vae.log_weights(LINEAR, params, example_keys(KEY, 20), jnp.asarray(x), 50)
    truth = multivariate_normal(mean, cov).logpdf(x)
    assert np.abs(np.asarray(log_w) - truth).max() < 1e-4
    bound = elbo.importance_bound(log_w)
    assert bound.kind == "lower_bound" and float(bound.stderr.max()) < 1e-5
    assert np.abs(np.asarray(bound.nats) - truth).max() < 1e-4


def test_the_bound_rises_with_samples_to_log_p():
    params, mean, cov = linear_model(inflate=1.5, shift=0.1)
    n, most = 200, 1024
    x = np.random.default_rng(4).multivariate_normal(mean, cov, n).astype(np.float32)
    log_w = jax.jit(lambda p, k, x: vae.log_weights(LINEAR, p, k, x, most))(params, example_keys(KEY, n), x)
    truth = multivariate_normal(mean, cov).logpdf(x)
    gaps = []  # log p - L_K, one per example, the same draws at every K
    for k in 4 ** np.arange(6):
        bounds = jax.jit(jax.vmap(elbo.importance_bound))(log_w.reshape(most // k, k, n)).nats
        gaps.append(truth - np.asarray(bounds, np.float64).mean(0))
    falls = -np.diff(gaps, axis=0)
    assert (falls.mean(1) >= -2 * falls.std(1) / math.sqrt(n)).all()
    assert np.mean(gaps[0]) > 0.1 and abs(np.mean(gaps[-1])) < 5e-3
    # K = 1 is the ELBO of `elbo_terms`, whose KL is analytic.
    recon, kl = vae.elbo_terms(LINEAR, params, example_keys(KEY, n), jnp.asarray(x))
    difference = np.asarray(recon - kl) - (truth - gaps[0])
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(n)


def test_stderr_of_the_bound_is_its_spread():
    log_w = 0.7 * jax.random.normal(KEY, (100, 2000))
    bound = elbo.importance_bound(log_w)
    assert float(jnp.sqrt(jnp.square(bound.stderr).mean()) / bound.nats.std()) == pytest.approx(1.0, abs=0.1)
    assert elbo.importance_bound(log_w[:1]).stderr is None


# ---- the whole model on images small enough to enumerate -------------------------------------------------------------

TINY = vae.Config(space=images(1, 2, 1, levels=3), latent=1, hidden=(8,), importance_samples=2000)
IMAGES = np.array(list(itertools.product(range(3), repeat=2)), np.uint8).reshape(9, 1, 2, 1)


@pytest.fixture(scope="module")
def tiny():
    """A random decoder and an untrained encoder; exact log p of all nine images by quadrature over z."""
    algorithm = vae.algorithm(TINY, batch_size=9)
    state = jax.jit(algorithm.init)(jax.random.key(5), {"image": IMAGES})
    scaled = {  # a decoder that depends on z, and a posterior near enough the prior to bound the weights
        "decoder": jax.tree.map(lambda p: 2.0 * p, state.params["decoder"]),
        "encoder": jax.tree.map(lambda p: 0.3 * p, state.params["encoder"]),
    }
    state = state.replace(params=scaled)
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    z = jnp.asarray(nodes, jnp.float32)[:, None]
    likelihood = jax.jit(lambda x: vae.log_likelihood(TINY, state.params, jnp.broadcast_to(x, (120, *x.shape)), z))
    conditional = [likelihood(x) for x in jnp.asarray(IMAGES)]
    return algorithm, state, np.log(np.exp(np.asarray(conditional, np.float64)) @ (weights / weights.sum()))


def test_probabilities_of_all_images_sum_to_one_and_the_bound_reaches_them(tiny):
    algorithm, state, log_p = tiny
    assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-5)
    assert np.exp(log_p).max() / np.exp(log_p).min() > 2  # not a trivial model
    bound = jax.jit(algorithm.log_prob)(state, {"image": jnp.asarray(IMAGES)}, KEY)
    assert (np.abs(np.asarray(bound.nats) - log_p) < 4 * np.asarray(bound.stderr)).all()
    assert (np.asarray(bound.stderr) < 0.05).all()
    keys = example_keys(KEY, 1000 * 9)
    terms = jax.jit(lambda *inputs: vae.elbo_terms(TINY, *inputs))
    recon, kl = terms(state.params, keys, jnp.tile(jnp.asarray(IMAGES), (1000, 1, 1, 1)))
    evidence = np.asarray(recon - kl).reshape(1000, 9)
    assert (evidence.mean(0) < log_p + 4 * evidence.std(0) / math.sqrt(1000)).all()


def test_samples_have_the_frequencies_of_the_density(tiny):
    algorithm, state, log_p = tiny
    n = 50_000
    x = TINY.space.as_batch(jax.jit(algorithm.sample, static_argnums=2)(state, KEY, n))
    assert x.dtype == np.uint8 and x.shape == (n, 1, 2, 1)
    counts = np.bincount(x.reshape(n, 2) @ np.array([3, 1]), minlength=9)
    expected = n * np.exp(log_p)
    assert ((counts - expected) ** 2 / expected).sum() < chi2(8).ppf(0.9999)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_examples_do_not_see_each_other(network):
    cfg = vae.Config(space=images(4, 4, 1, levels=4), latent=2, network=network, hidden=(4, 4), blocks=1)
    x = jax.random.randint(KEY, (6, 4, 4, 1), 0, 4).astype(jnp.uint8)
    params = jax.jit(vae.algorithm(cfg, batch_size=6).init)(KEY, {"image": x}).params
    keys, order = example_keys(KEY, 6), jnp.array([3, 1, 5, 0, 2, 4])

    @jax.jit
    def terms(keys, x):
        return *vae.elbo_terms(cfg, params, keys, x), vae.log_weights(cfg, params, keys, x, 3).T

    for straight, permuted in zip(terms(keys, x), terms(keys[order], x[order]), strict=True):
        assert np.asarray(permuted) == pytest.approx(np.asarray(straight[order]), rel=1e-5)
        assert len(set(np.asarray(straight).ravel().tolist())) == straight.size  # nor share a draw


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_reaches_probabilistic_pca():
    """A linear VAE has the maximum of pPCA (Tipping & Bishop 1999), and no gap left there (Lucas et al. 2019)."""
    n, dims, latent, steps, batch = 20_000, 8, 3, 8000, 500
    rng = np.random.default_rng(6)
    loadings = np.linalg.qr(rng.normal(size=(dims, latent)))[0] * [2.0, 1.4, 1.0]
    x = rng.normal(size=(n, latent)) @ loadings.T + 0.5 * rng.normal(size=(n, dims)) + rng.normal(size=dims)

    eigenvalues, axes = np.linalg.eigh(np.cov(x.T, bias=True))
    sigma2 = eigenvalues[: dims - latent].mean()
    spectrum = np.concatenate([np.full(dims - latent, sigma2), eigenvalues[dims - latent :]])
    best = -0.5 * (dims * math.log(2 * math.pi) + np.log(spectrum).sum() + dims)

    optim = Optim(lr=1e-2, decay=steps * batch, clip=0.0)
    cfg = vae.Config(space=vectors(dims), latent=latent, hidden=(), scale="global", optim=optim)
    algorithm = vae.algorithm(cfg, batch_size=batch)
    data = jnp.asarray(x, jnp.float32)

    @jax.jit
    def train(state):
        def one(state, i):
            rows = jax.lax.dynamic_slice_in_dim(data, i * batch % n, batch)
            return algorithm.step(state, {"x": rows}, jax.random.fold_in(KEY, i))[0], None

        return jax.lax.scan(one, state, jnp.arange(steps))[0]

    params = train(algorithm.init(KEY, {"x": data[:batch]})).params
    learned = np.asarray(params["decoder"]["Dense_0"]["kernel"], np.float64).T

    # The expectation over q of a linear decoder in closed form: no sampling noise, so the gap cannot be positive.
    mu, logvar = (np.asarray(t, np.float64) for t in vae.encode(cfg, params, data))
    precision = np.exp(-2.0 * float(params["log_scale"]))
    at_mean = np.asarray(vae.log_likelihood(cfg, params, data, jnp.asarray(mu, jnp.float32)), np.float64)
    spread = 0.5 * precision * (np.exp(logvar) * np.square(learned).sum(0)).sum(-1)
    kl = np.asarray(elbo.gaussian_kl(*map(jnp.asarray, (mu, logvar))))
    bound = at_mean - spread - kl
    assert -1e-3 < bound.mean() - best < 1e-5

    recon, sampled_kl = vae.elbo_terms(cfg, params, example_keys(KEY, n), data)
    noise = np.asarray(recon - sampled_kl, np.float64) - bound
    assert abs(noise.mean()) < 4 * noise.std() / math.sqrt(n)
    assert math.exp(2 * float(params["log_scale"])) == pytest.approx(sigma2, rel=0.01)
    assert np.degrees(subspace_angles(learned, axes[:, dims - latent :]).max()) < 1.0


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": Space((8, 8))}, "shape=.*H, W, C"),
        ({"space": images(8, 8, 1, levels=1)}, "levels=1"),
        ({"scale": "pixel"}, "scale='pixel'.*'global', 'output'"),
        ({"latent": 0}, "latent=0"),
        ({"network": "conv", "hidden": ()}, "network='conv'.*hidden"),
        ({"network": "conv", "hidden": (4, 4, 4, 4, 4)}, "hidden=.*divide by 16"),
        ({"importance_samples": 0}, "importance_samples=0"),
    ],
)
def test_wrong_configurations_name_the_field(changes, message):
    cfg = dataclasses.replace(vae.Config(space=images(8, 8, 1, levels=17)), **changes)
    with pytest.raises(ValueError, match=message):
        vae.algorithm(cfg, batch_size=8)


def test_wrong_shapes_name_the_argument():
    """While tracing, before anything is computed."""
    cfg = vae.Config(space=vectors(3), latent=2, hidden=())
    params = jax.eval_shape(vae.algorithm(cfg, batch_size=1).init, KEY, {"x": jnp.zeros((1, 3))}).params
    for function, shape, words in [
        (vae.encode, (5, 4), r"x has shape \(5, 4\), but \(any, 3\) is needed"),
        (vae.decode, (5, 3), r"z has shape \(5, 3\), but \(any, 2\) is needed"),
    ]:
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(lambda p, x: function(cfg, p, x), params, jnp.zeros(shape))  # noqa: B023
