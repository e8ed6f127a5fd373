"""The energy-based model: exact chains, an exact partition function, the gradient of the likelihood, a density."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from variants import chosen

from genmap_jax.algorithm import averaged
from genmap_jax.approximate import ebm
from genmap_jax.data import toy
from genmap_jax.evaluate.resampling import bootstrap
from genmap_jax.keys import example_keys
from genmap_jax.objectives import contrastive_divergence as cd
from genmap_jax.optim import Optim
from genmap_jax.samplers import langevin
from genmap_jax.samplers.annealed_importance import annealed_importance, reverse_annealed_importance
from genmap_jax.spaces import Space, images, vectors

# ---- chains ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", chosen([0.3, 0.5], [0.5]))
def test_stationary_variance_on_a_standard_normal(eps):
    """ULA has variance 1 / (1 - eps^2 / 4), MALA 1, both to 1 % (four standard errors): started far from either."""
    chains, dims, steps = 20_000, 16, round(14 / eps**2)
    energy = lambda x: 0.5 * jnp.sum(x**2, axis=1)  # noqa: E731
    keys = example_keys(jax.random.key(0), chains)
    x = 1.5 * jax.random.normal(jax.random.key(1), (chains, dims))
    unadjusted = jax.jit(lambda x: langevin.ula(energy, x, keys, eps, steps))(x)
    adjusted, accepted = jax.jit(lambda x: langevin.mala(energy, x, keys, eps, steps))(x)
    assert abs(unadjusted.var() * (1 - eps**2 / 4) - 1) < 0.01
    assert abs(adjusted.var() - 1) < 0.01
    assert 0.5 < accepted.mean() < 0.999


def test_acceptance_is_the_metropolis_hastings_ratio():
    """log_acceptance = log p(x') q(x|x') / p(x) q(x'|x), written with normal densities, for a non-linear energy."""
    eps, (x, x_new) = 0.7, jax.random.normal(jax.random.key(0), (2, 5, 3))
    energy = lambda x: jnp.sum(x**4 - jnp.sin(3 * x), axis=1)  # noqa: E731
    here, there = ((x, *langevin.value_and_grad(energy)(x)) for x in (x, x_new))

    def log_q(to, x):
        mean = x - eps**2 / 2 * (4 * x**3 - 3 * jnp.cos(3 * x))
        return jnp.sum(jax.scipy.stats.norm.logpdf(to, mean, eps), axis=1)

    expected = energy(x) - energy(x_new) + log_q(x, x_new) - log_q(x_new, x)
    np.testing.assert_allclose(langevin.log_acceptance(here, there, eps), expected, rtol=1e-4, atol=1e-3)


# ---- partition function ----------------------------------------------------------------------------------------------


def quadratic(a: float, b: float, mu: float, s: float, dims: int):
    """f(x) = a |x - b|^2 / 2, and the exact log-integral of exp(-|x - mu|^2 / (2 s^2) - f(x))."""
    f = lambda x: 0.5 * a * jnp.sum((x - b) ** 2, axis=1)  # noqa: E731
    precision, spread = a + 1 / s**2, a * (mu - b) ** 2 / (1 + a * s**2)
    return f, 0.5 * dims * (np.log(2 * np.pi / precision) - spread)


def test_annealed_importance_on_a_gaussian():
    """log Z within 0.02 and within four of its own standard errors; the weights are nearly even."""
    f, exact = quadratic(a=3.0, b=1.0, mu=-0.5, s=1.5, dims=5)
    z = annealed_importance(f, jax.random.key(0), (5,), mu=-0.5, s=1.5, chains=2000, temperatures=400)
    assert abs(z.log_z - exact) < min(0.02, 4 * z.stderr)
    assert 1000 < z.ess <= 2000


@pytest.mark.slow
def test_annealed_importance_needs_exact_moves():
    """A double well with two separate modes, against quadrature: within 0.015."""
    s = 1.5
    well = lambda x: 3 * (x[:, 0] ** 2 - 1) ** 2 + 0.5 * (x[:, 1] - x[:, 0]) ** 2  # noqa: E731
    f = lambda x: well(x) - jnp.sum(x**2, axis=1) / (2 * s**2)  # noqa: E731
    points, area = grid(-6, 6, 601)
    exact = np.log(np.sum(np.exp(-np.asarray(well(points), np.float64))) * area)
    z = annealed_importance(f, jax.random.key(0), (2,), s=s, chains=4000, temperatures=400)
    assert abs(z.log_z - exact) < min(0.015, 4 * z.stderr)


def test_annealed_importance_errs_on_the_low_side():
    """With few temperatures log Z is a stochastic lower bound, and Z itself stays unbiased: 400 runs."""
    f, exact = quadratic(a=3.0, b=1.0, mu=0.0, s=1.0, dims=2)
    run = lambda key: annealed_importance(f, key, (2,), chains=8, temperatures=6)  # noqa: E731
    log_z = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 400)).log_z, np.float64) - exact
    assert log_z.mean() < -4 * log_z.std() / 20
    assert abs(np.exp(log_z).mean() - 1) < 4 * np.exp(log_z).std() / 20


def test_standard_error_of_log_z_is_the_spread_over_runs():
    """At most a third more than the spread of log Z where weights are even; enough where a few chains rule."""

    def runs(dims, temperatures):
        f, exact = quadratic(a=3.0, b=1.0, mu=0.0, s=1.0, dims=dims)
        run = lambda key: annealed_importance(f, key, (dims,), chains=32, temperatures=temperatures)  # noqa: E731
        z = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 400))
        return np.asarray(z.log_z, np.float64) - exact, np.asarray(z.stderr, np.float64), np.asarray(z.ess)

    error, stderr, ess = runs(2, 40)
    assert np.median(ess) > 16 and 0.85 < np.sqrt(np.mean(stderr**2)) / error.std() < 1.33
    error, stderr, ess = runs(8, 16)  # the delta method's holds it in 0.59
    assert np.median(ess) < 5 and np.mean(np.abs(error) < 1.96 * stderr) > 0.9


# ---- likelihood ------------------------------------------------------------------------------------------------------


def trained_like(cfg, shape):
    """A model whose network is not zero: (algorithm, state)."""
    algorithm = ebm.algorithm(cfg, batch_size=4)
    state = algorithm.init(jax.random.key(0), {cfg.space.field: jnp.zeros((4, *shape), cfg.space.dtype)})
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [p + 0.7 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return algorithm, state.replace(params=jax.tree.unflatten(tree, moved))


def log_integral(cfg, params, low, high):
    """log of the integral of exp(-E) over [low, high], and the mean energy there, of an EBM of one number: float64."""
    points = low + (np.arange(20_000) + 0.5) * (high - low) / 20_000
    at = jnp.asarray(points, jnp.float32).reshape(-1, *cfg.space.shape)
    energy = np.asarray(ebm.energy(cfg, params, at), np.float64)
    return np.log(np.mean(np.exp(-energy)) * (high - low)), energy.mean()


def over_keys(algorithm, state, batch, repeats=20):
    """What `log_prob` says under as many keys, each with its own estimate of log Z: nats are [repeats, B]."""
    run = lambda key: algorithm.log_prob(state, batch, key)  # noqa: E731
    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), repeats))


def test_upper_bound_of_dequantised_values_is_none_of_the_integers():
    """One pixel of four grey values, by quadrature: dequantisation errs low and log Z errs the other way, so `upper` is
    at least the log-density of dequantised values, but may lie below log P(v). Its kind says so."""
    cfg = ebm.Config(space=images(1, 1, 1, levels=4), width=8, depth=1, s=0.15, ais_chains=64, ais_temperatures=60)
    algorithm, state = trained_like(cfg, (1, 1, 1))
    log_z, _ = log_integral(cfg, state.params, -3, 3)
    batch = {"image": jnp.repeat(jnp.arange(4, dtype=jnp.uint8), 500).reshape(-1, 1, 1, 1)}
    found = over_keys(algorithm, state, batch)
    nats, upper = (np.asarray(x.nats).reshape(20, 4, 500).mean(2) for x in (found, found.upper))
    assert (found.kind, found.upper.kind) == ("estimate", "dequantised_upper_bound")
    for v in range(4):
        mass, energy = log_integral(cfg, state.params, v / 2 - 1, v / 2 - 0.5)
        exact, dequantised = mass - log_z, math.log(0.5) - energy - log_z
        error = 4 * upper[:, v].std() / math.sqrt(20)
        assert upper[:, v].mean() > max(dequantised - error, nats[:, v].mean())
        assert upper[:, v].mean() < exact - 0.1, (v, upper[:, v].mean(), exact, dequantised)


def test_upper_bound_of_vectors_is_one_of_the_log_probability():
    """In one dimension, by quadrature: in expectation over 20 estimates of log Z, to four standard errors."""
    cfg = ebm.Config(space=vectors(1), width=8, depth=1, s=0.3, ais_chains=64, ais_temperatures=5)
    algorithm, state = trained_like(cfg, (1,))
    log_z, _ = log_integral(cfg, state.params, -3, 3)
    x = jnp.linspace(-1, 1, 5)[:, None]
    found = over_keys(algorithm, state, {"x": x})
    gap = np.asarray(found.upper.nats) + np.asarray(ebm.energy(cfg, state.params, x), np.float64) + log_z
    assert found.upper.kind == "upper_bound"
    assert (gap.mean(0) > 4 * gap.std(0) / math.sqrt(20)).all()
    np.testing.assert_allclose(gap.std(), found.upper.common_stderr.mean(), rtol=0.5)


def test_intervals_hold_the_error_of_log_z():
    """E log p of a law under a model in one dimension, by quadrature, in 95 % of 200 data sets of 60, to four errors.

    Every data set has its own estimate of log Z. Without its error the interval holds the truth far too seldom.
    """
    cfg = ebm.Config(space=vectors(1), width=8, depth=1, s=0.6, ais_chains=24, ais_temperatures=8)
    algorithm, state = trained_like(cfg, (1,))
    log_z, _ = log_integral(cfg, state.params, -6, 6)
    law = scipy.stats.norm(0.2, 0.1)
    points = np.linspace(-0.5, 0.9, 2001)
    energy = np.asarray(ebm.energy(cfg, state.params, jnp.asarray(points, jnp.float32)[:, None]), np.float64)
    exact = -np.trapezoid(law.pdf(points) * energy, points) - log_z
    data = law.rvs((200, 60, 1), random_state=0).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 200)
    found = jax.jit(jax.vmap(lambda key, x: algorithm.log_prob(state, {"x": x}, key)))(keys, data)
    held = {True: 0, False: 0}
    for nats, common in zip(np.asarray(found.nats), np.asarray(found.common_stderr)[:, 0], strict=True):
        for shared in held:
            low, high = bootstrap(np.mean, nats, common_stderr=float(common) if shared else 0.0)
            held[shared] += low <= exact <= high
    assert abs(held[True] / 200 - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 200), held
    assert held[False] / 200 < 0.8, held


# ---- learning --------------------------------------------------------------------------------------------------------


def test_replay_buffer():
    """Starts are chains of the same place or fresh draws, at the stated rate; ends go where starts came from."""
    places, chains, reinit = 4000, 5, 0.05
    buffer = jnp.arange(places * chains, dtype=jnp.float32).reshape(places, chains, 1)
    fresh = jnp.full((places, 1), -1.0)
    keys = example_keys(jax.random.key(0), places)
    x, which = cd.start(buffer, fresh, keys, reinit)
    restarted = np.asarray(x[:, 0] == -1)
    assert abs(restarted.mean() - reinit) < 4 * np.sqrt(reinit * (1 - reinit) / places)
    np.testing.assert_array_equal(x[~restarted, 0], (np.arange(places) * chains + which)[~restarted])
    assert np.all(abs(np.bincount(which, minlength=chains) - places / chains) < 4 * np.sqrt(places * 0.2 * 0.8))

    after = cd.put_back(buffer, x + 0.5, which)
    hit = np.arange(chains)[None] == np.asarray(which)[:, None]
    np.testing.assert_array_equal(after[hit], x + 0.5)
    np.testing.assert_array_equal(after[~hit], buffer[~hit])


def test_update_is_the_difference_of_mean_energy_gradients():
    """SGD moves by -lr (grad mean E(data) - grad mean E(chains)): the chains, read from the buffer, are constants."""
    size, lr = 32, 0.1
    cfg = ebm.Config(space=vectors(2), width=8, depth=2, eps=0.5, chain_steps=5, optim=Optim("sgd", lr, clip=0.0))
    algorithm = ebm.algorithm(cfg, batch_size=size)
    x = jax.random.normal(jax.random.key(1), (size, 2))
    state = algorithm.init(jax.random.key(0), {"x": x})
    state = state.replace(params=jax.tree.map(lambda p: p + 0.5, state.params))  # the last layer starts at zero
    after, metrics = jax.jit(algorithm.step)(state, {"x": x}, jax.random.key(2))

    mean_energy = lambda params, x: ebm.energy(cfg, params, x).mean()  # noqa: E731
    data, model = (jax.grad(mean_energy)(state.params, x) for x in (x, after.buffer[:, 0]))
    expected = jax.tree.map(lambda p, d, m: p - lr * (d - m), state.params, data, model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.params, expected)
    gap = mean_energy(state.params, x) - mean_energy(state.params, after.buffer[:, 0])
    np.testing.assert_allclose(metrics["energy_gap"], gap, rtol=1e-5)


@pytest.mark.slow
def test_untrained_model_is_the_reference_in_nats_of_the_integers():
    """Before training: log-density of N(mu, s^2) without error, and probabilities of integers that sum to 1."""
    cfg = ebm.Config(space=vectors(3), width=4, depth=1, mu=0.3, s=0.8, ais_chains=8, ais_temperatures=3)
    algorithm = ebm.algorithm(cfg, batch_size=1)
    x = jax.random.normal(jax.random.key(0), (7, 3))
    initial = lambda batch: jax.jit(algorithm.init)(jax.random.key(1), batch)  # noqa: E731
    value = jax.jit(algorithm.log_prob)(initial({"x": x}), {"x": x}, jax.random.key(2))
    np.testing.assert_allclose(value.nats, jax.scipy.stats.norm.logpdf(x, 0.3, 0.8).sum(1), atol=1e-4)
    np.testing.assert_allclose(value.common_stderr, 0, atol=1e-5)

    algorithm = ebm.algorithm(dataclasses.replace(cfg, space=images(1, 1, 1, levels=5), mu=0.1, s=0.2), batch_size=1)
    integers = {"image": jnp.tile(jnp.arange(5, dtype=jnp.uint8), 20_000).reshape(-1, 1, 1, 1)}
    value = jax.jit(algorithm.log_prob)(initial(integers), integers, jax.random.key(2))
    assert abs(5 * np.exp(value.nats).mean() - 1) < 0.02  # its standard error is 0.004


@pytest.mark.slow
def test_density_of_eight_gaussians():
    """Trained by our step, two seeds: KL(data || model) <= 0.1 by quadrature; all modes sampled; AIS = quadrature."""
    size, steps = 256, 2100
    cfg = ebm.Config(
        space=vectors(2),
        width=128,
        depth=2,
        frequencies=2,
        s=1.5,
        eps=0.12,
        chain_steps=20,
        reinit=0.05,
        sample_steps=500,
        ais_temperatures=500,
        optim=Optim(lr=1e-3, decay=size * steps, final=0.01),
        ema_halflife=200 * size,
    )
    algorithm = ebm.algorithm(cfg, batch_size=size)
    density = toy.DENSITIES["gaussians8"]

    def update(state, key):
        key_data, key_step = jax.random.split(key)
        return algorithm.step(state, {"x": density.sample(key_data, size)}, key_step)[0]

    update = jax.jit(jax.vmap(update), donate_argnums=0)
    init = jax.jit(jax.vmap(lambda key: algorithm.init(key, {"x": jnp.zeros((size, 2))})))
    states = init(jax.random.split(jax.random.key(0), 2))
    for i in range(steps):
        states = update(states, jax.random.split(jax.random.fold_in(jax.random.key(1), i), 2))

    points, area = grid(-5, 5, 401)
    log_p = np.asarray(density.log_prob(points), np.float64)
    centres = 2 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    for seed in range(2):
        state = jax.tree.map(lambda leaf: leaf[seed], states)  # noqa: B023
        log_q = -np.asarray(ebm.energy(cfg, averaged(state), points), np.float64)
        log_z = np.log(np.sum(np.exp(log_q)) * area)
        kl = np.sum(np.exp(log_p) * (log_p - log_q + log_z)) * area
        assert -1e-3 < kl <= 0.1

        z = jax.jit(lambda s: ebm.log_partition(cfg, averaged(s), jax.random.key(2)))(state)
        assert abs(z.log_z - log_z) < 0.01 + 4 * z.stderr
        value = jax.jit(algorithm.log_prob)(state, {"x": points[::97]}, jax.random.key(3))
        np.testing.assert_allclose(value.nats, log_q[::97] - log_z, atol=0.01 + 4 * float(value.common_stderr[0]))
        assert np.all(value.upper.nats >= value.nats)  # Jensen, and on these chains always
        assert 0 < np.mean(value.upper.nats - (log_q[::97] - log_z)) < 0.5

        x = np.asarray(jax.jit(algorithm.sample, static_argnums=2)(state, jax.random.key(4), 2000))
        distance = ((x[:, None] - centres[None]) ** 2).sum(-1)
        share = np.bincount(distance.argmin(1), minlength=8) / len(x)
        assert np.all(abs(share - 1 / 8) < 0.05)
        assert abs(np.sqrt(distance.min(1).mean() / 2) - 0.2) < 0.05


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": Space((2, 3))}, "space.shape"),
        ({"network": "conv", "space": images(9, 8, 1)}, "network='conv'"),
        ({"network": "unet"}, "network='unet'.*'mlp', 'conv'"),
        ({"eps": 0.0}, "eps=0.0"),
        ({"reinit": 1.5}, "reinit=1.5"),
        ({"chains_per_example": 0}, "chains_per_example=0"),
        ({"ais_chains": 1}, "ais_chains=1"),
    ],
)
def test_bad_configurations_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        ebm.algorithm(dataclasses.replace(ebm.Config(space=vectors(2)), **changes), batch_size=4)


def grid(low: float, high: float, n: int):
    """A square grid: points [n^2, 2] and the area of a cell."""
    side = np.linspace(low, high, n)
    points = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    return jnp.asarray(points, jnp.float32), (side[1] - side[0]) ** 2


@pytest.mark.slow
def test_bounds_of_a_fifty_dimensional_gaussian():
    """E15 and E16: K=1000 is within 0.1 nat with ESS > 100; mean log-weights bound from both sides, and close in."""
    sd = 0.5 + jnp.arange(50) / 50  # the target N(0, diag(sd^2)), from N(0, I)
    f = lambda x: 0.5 * jnp.sum((x / sd[None]) ** 2 - x**2, -1)  # noqa: E731
    truth = 0.5 * 50 * jnp.log(2 * jnp.pi) + jnp.log(sd).sum()
    exact = sd[None] * jax.random.normal(jax.random.key(1), (200, 50))
    gaps = []
    for temperatures in (10, 100, 1000):
        how = {"temperatures": temperatures, "power": 1.0}
        z = annealed_importance(f, jax.random.key(0), (50,), chains=200, **how)
        top = reverse_annealed_importance(f, jax.random.key(2), exact, **how)
        assert z.lower - 3 * z.lower_stderr < truth < top.upper + 3 * top.stderr
        gaps.append(float(top.upper - z.lower))
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2] > 0
    assert abs(z.log_z - truth) < 0.1 and z.ess > 100


@pytest.mark.slow
def test_bounds_hold_the_marginal_likelihood_of_a_linear_decoder():
    """E21: log p(x) of probabilistic PCA, one x: within 0.05 nat of the closed form, and between the two bounds."""
    rng = np.random.default_rng(0)
    w, sigma, x = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32), 0.7, jnp.asarray(rng.normal(size=8), jnp.float32)
    f = lambda z: (  # noqa: E731  -log p(x | z)
        0.5 * jnp.sum(((x[None] - z @ w.T) / sigma) ** 2, -1) + 8 * jnp.log(sigma * jnp.sqrt(2 * jnp.pi))
    )
    law = scipy.stats.multivariate_normal(np.zeros(8), np.asarray(w @ w.T) + sigma**2 * np.eye(8))
    truth = law.logpdf(np.asarray(x, np.float64))
    precision = np.eye(3) + np.asarray(w.T @ w, np.float64) / sigma**2
    posterior = rng.multivariate_normal(
        np.linalg.solve(precision, np.asarray(w.T @ x)) / sigma**2, np.linalg.inv(precision), size=500
    )
    prior = 1.5 * math.log(2 * math.pi)  # Z of |z|^2 / 2 is not 1
    z = annealed_importance(f, jax.random.key(0), (3,), chains=500, temperatures=500)
    top = reverse_annealed_importance(f, jax.random.key(1), jnp.asarray(posterior, jnp.float32), temperatures=500)
    assert abs(float(z.log_z) - prior - truth) < 0.05
    assert z.lower - 3 * z.lower_stderr < truth + prior < top.upper + 3 * top.stderr
    assert 0 < top.upper - z.lower < 0.2
