"""Score model: SDE algebra, solver, likelihood, samplers and the objective, against closed forms and quadrature.

The yardstick is an isotropic Gaussian mixture: noised by a linear SDE it stays one: density and score are exact.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax.implicit import score as family
from genmap_jax.keys import example_keys
from genmap_jax.nn.unet import UNet
from genmap_jax.objectives import denoising_score_matching as dsm
from genmap_jax.optim import Optim
from genmap_jax.processes.sde import VE, VP, SubVP, as_denoiser, log_snr, scale, schedule, score_from_eps, tweedie
from genmap_jax.samplers import denoising, ode
from genmap_jax.samplers.predictor_corrector import predictor_corrector, prior_sample
from genmap_jax.spaces import Space, images, vectors

NAMES = {VP: "vp", SubVP: "subvp", VE: "ve"}
SDES = pytest.mark.parametrize("sde", chosen([VP(), SubVP(), VE()], [VP()]), ids=["vp", "subvp", "ve"])


class Mixture(NamedTuple):
    weights: np.ndarray  # [K]
    means: np.ndarray  # [K, D]
    std: float

    def log_prob(self, sde, x, t):
        """log p_t(x) of one point x [D]."""
        alpha, std = sde.marginal(t)
        variance = (alpha * self.std) ** 2 + std**2
        square = jnp.sum((x[None, :] - alpha * self.means) ** 2, axis=-1)
        dims = self.means.shape[1]
        log_terms = jnp.log(self.weights) - 0.5 * square / variance - 0.5 * dims * jnp.log(2 * math.pi * variance)
        return jax.nn.logsumexp(log_terms)

    def score(self, sde):
        return jax.vmap(jax.grad(lambda x, t: self.log_prob(sde, x, t)))

    def eps_hat(self, sde):
        return lambda x, t: -sde.marginal(t)[1][:, None] * self.score(sde)(x, t)

    def sample(self, rng, n):
        k = rng.choice(len(self.weights), n, p=self.weights)
        return self.means[k] + self.std * rng.standard_normal((n, self.means.shape[1]))


ANGLES = np.arange(8) * math.pi / 4
EIGHT = Mixture(np.full(8, 1 / 8), 2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1), 0.2)
FOUR = Mixture(np.array([0.4, 0.3, 0.2, 0.1]), np.array([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]]), 0.25)
LINE = Mixture(np.array([0.3, 0.7]), np.array([[-1.0], [0.8]]), 0.3)


def keys_of(seed, n):
    return example_keys(jax.random.key(seed), n)


# ---- SDEs ------------------------------------------------------------------------------------------------------------


@SDES
def test_marginal_solves_its_moment_equations(sde, x64):
    """d alpha = f alpha dt,  d std^2 = (2 f std^2 + g^2) dt: exact algebra, and VE starts from no noise at all."""
    t = jnp.array([1e-5, 1e-3, 0.1, 0.5, 1.0])
    (alpha, std), (d_alpha, d_std) = jax.jvp(sde.marginal, (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(d_alpha, sde.drift(t) * alpha, rtol=1e-10)
    np.testing.assert_allclose(2 * std * d_std, 2 * sde.drift(t) * std**2 + sde.diffusion(t) ** 2, rtol=1e-8)
    assert sde.marginal(jnp.array(0.0)) == (1.0, 0.0)
    if isinstance(sde, VE):
        np.testing.assert_allclose(std**2 + sde.sigma_min**2, (0.01 * 5000**t) ** 2, rtol=1e-12)


@SDES
def test_marginal_by_simulation(sde):
    """Mean and std of 40,000 simulated paths at t = 1/2: within 2 % (standard error 0.35 %)."""
    steps, h = 400, 0.5 / 400

    def body(i, x):
        t = (i + 0.5) * h
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), x.shape)
        return x + sde.drift(t) * x * h + sde.diffusion(t) * math.sqrt(h) * noise

    x = jax.jit(lambda x: jax.lax.fori_loop(0, steps, body, x))(jnp.full(40_000, 3.0))
    alpha, std = sde.marginal(jnp.array(0.5))
    np.testing.assert_allclose(x.std(), std, rtol=0.02)
    np.testing.assert_allclose(x.mean(), 3.0 * alpha, atol=4 * std / 200)


@SDES
def test_time_inverts_log_snr_whose_rate_is_g2_over_std2(sde, x64):
    t = jnp.array([1e-5, 1e-3, 0.1, 0.5, 1.0])
    value, rate = jax.jvp(lambda t: log_snr(sde, t), (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(sde.time(value), t, rtol=1e-9)
    np.testing.assert_allclose(-rate, (sde.diffusion(t) / sde.marginal(t)[1]) ** 2, rtol=1e-8)


@SDES
def test_schedule_is_the_sde_in_the_common_description(sde, x64):
    """At even times from t_sample to T: log SNR and its rate are the SDE's (1e-7); sigma times alpha is std (1e-6)."""
    t = jnp.linspace(0.0, 1.0, 7)
    times = sde.t_sample + (sde.T - sde.t_sample) * t
    ours = schedule(sde, sde.t_sample)
    np.testing.assert_allclose(ours.log_snr(t), log_snr(sde, times), rtol=1e-7, atol=1e-7)
    rate = (sde.T - sde.t_sample) * (sde.diffusion(times) / sde.marginal(times)[1]) ** 2
    np.testing.assert_allclose(ours.rate(t), rate, rtol=1e-7)
    for sigma, alpha, std in zip(ours.sigma(t), *sde.marginal(times), strict=True):
        np.testing.assert_allclose(scale(sde, float(sigma)), alpha, rtol=1e-6)
        np.testing.assert_allclose(sigma * alpha, std, rtol=1e-6)


# ---- adapters --------------------------------------------------------------------------------------------------------


@SDES
def test_tweedie_and_denoiser_are_the_posterior_mean(sde, x64):
    """E[x_0 | x_t] of a mixture, by Bayes' rule: 1e-6, in SDE time and for the contract x = x_0 + sigma noise."""
    sigma = np.array([0.05, 0.3, 1.0, 4.0])
    x = FOUR.sample(np.random.default_rng(0), 4) + sigma[:, None]
    total = FOUR.std**2 + sigma**2
    square = ((x[:, None] - FOUR.means) ** 2).sum(-1)
    posterior = np.array(jax.nn.softmax(np.log(FOUR.weights)[None, :] - 0.5 * square / total[:, None], axis=-1))
    shrink = (FOUR.std**2 / total)[:, None, None]
    truth = (posterior[:, :, None] * (FOUR.means + shrink * (x[:, None] - FOUR.means))).sum(1)

    np.testing.assert_allclose(as_denoiser(sde, FOUR.score(sde))(x, sigma), truth, atol=1e-6)
    t = sde.time(-2 * jnp.log(sigma))
    alpha = sde.marginal(t)[0][:, None]
    np.testing.assert_allclose(tweedie(sde, FOUR.score(sde))(alpha * x, t), truth, atol=1e-6)


# ---- the solver ------------------------------------------------------------------------------------------------------


def test_dopri5_has_order_five(x64):
    """dy/dt = y cos t, y = exp(sin t): error slopes between step sizes 5 (global) and 5 (embedded local estimate)."""
    f = lambda y, t: y * jnp.cos(t)[:, None]  # noqa: E731
    step = jax.jit(lambda t, y, k, h: ode.dopri5_step(f, t, y, k, h))
    errors, estimates, sizes = [], [], 3.0 / np.array([16, 32, 64, 128])
    for h in sizes:
        t, y = jnp.zeros(1), jnp.ones((1, 1))
        k = f(y, t)
        for i in range(round(3.0 / h)):
            y, estimate, k = step(t, y, k, jnp.full(1, h))
            if i == 0:
                estimates.append(abs(float(estimate[0, 0])))
            t = t + h
        errors.append(abs(float(y[0, 0]) - math.exp(math.sin(3.0))))
    slope = lambda e: np.polyfit(np.log(sizes), np.log(e), 1)[0]  # noqa: E731
    assert 4.8 < slope(errors) < 5.4
    assert 4.8 < slope(estimates) < 5.4


@pytest.mark.parametrize("direction", [1, -1])
def test_dopri5_controls_the_error_of_each_example(direction, x64):
    """Rates from 0.1 to 300 in one batch: each as accurate as asked, with its own steps, alone or in company."""
    rates = jnp.array([0.1, 3.0, 300.0])[:, None]
    f = lambda r: lambda y, t: -direction * r * (y - jnp.sin(t)[:, None])  # noqa: E731
    times = (0.0, 2.0) if direction == 1 else (2.0, 0.0)
    y, tries = ode.dopri5(f(rates), jnp.ones((3, 1)), *times, rtol=1e-8, atol=1e-8)
    r, (t0, t1) = np.array(rates[:, 0]), times
    particular = lambda t: (r**2 * np.sin(t) - direction * r * np.cos(t)) / (r**2 + 1)  # noqa: E731
    exact = particular(t1) + (1 - particular(t0)) * np.exp(-r * 2.0)
    np.testing.assert_allclose(y[:, 0], exact, atol=1e-7)
    assert tries[0] < tries[1] < tries[2]
    for i in range(3):
        alone, alone_tries = ode.dopri5(f(rates[i : i + 1]), jnp.ones((1, 1)), *times, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(alone[0], y[i], rtol=1e-12)
        assert alone_tries[0] == tries[i]


def test_dopri5_admits_defeat():
    """Not there after max_steps: NaN, never a half-finished value; the other examples are untouched."""
    y, _ = ode.dopri5(lambda y, t: jnp.array([[1e6], [0.0]]) * y, -jnp.ones((2, 1)), 0.0, 1.0, max_steps=30)
    assert jnp.isnan(y[0, 0]) and y[1, 0] == -1.0


# ---- likelihood ------------------------------------------------------------------------------------------------------


def log_density(sde, score, x, keys=None, **options):
    """What the family does with its score: log p(x) at time t_min, in nats."""
    config = family.Config(vectors(x.shape[1]), **{"sde": NAMES[type(sde)], "sigma_max": 50.0, "tol": 1e-5, **options})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "score", lambda cfg, params, x, t: score(x, t))
        return jax.jit(lambda x: family.log_density(config, None, x, keys))(x)


@SDES
def test_likelihood_of_a_mixture(sde, x64):
    """Exact score of 8 Gaussians: mean |log p_ODE - log p_t_min| <= 1e-3 nats (what is left of it is the prior's)."""
    x = jnp.asarray(EIGHT.sample(np.random.default_rng(0), 128))
    truth = jax.vmap(lambda x: EIGHT.log_prob(sde, x, sde.t_min))(x)
    nats, stderr = log_density(sde, EIGHT.score(sde), x, divergence="exact", spacing=0.25)
    assert stderr is None
    assert jnp.abs(nats - truth).mean() <= 1e-3


def test_likelihood_of_a_mixture_in_float32():
    """The same at the precision models run in: 2e-3 nats."""
    sde = VP()
    x = jnp.asarray(EIGHT.sample(np.random.default_rng(0), 128), jnp.float32)
    truth = jax.vmap(lambda x: EIGHT.log_prob(sde, x, sde.t_min))(x)
    nats, _ = log_density(sde, EIGHT.score(sde), x, divergence="exact", spacing=0.25)
    assert jnp.abs(nats - truth).mean() <= 2e-3


@pytest.mark.slow
def test_hutchinson_is_an_unbiased_mean_over_probes():
    """256 repetitions at one point, D = 8: bias within 3 SE; 16 probes have 1/4 the spread of one; stderr says so."""
    sde, rng = VP(), np.random.default_rng(0)
    mixture = Mixture(np.full(5, 0.2), rng.standard_normal((5, 8)), 0.5)
    x = jnp.asarray(np.repeat(mixture.sample(rng, 1), 256, axis=0), jnp.float32)

    run = functools.partial(log_density, sde, mixture.score(sde), tol=1e-3)
    exact = run(x[:1], divergence="exact")[0][0]
    one, no_stderr = run(x, keys_of(1, 256), probes=1)
    sixteen, stderr = run(x, keys_of(1, 256), probes=16)
    assert no_stderr is None
    assert one.std() > 0.1
    for nats in (one, sixteen):
        assert abs(nats.mean() - exact) < 3 * nats.std() / 16.0
    np.testing.assert_allclose(sixteen.std() / one.std(), 0.25, rtol=0.2)
    np.testing.assert_allclose(jnp.sqrt((stderr**2).mean()), sixteen.std(), rtol=0.2)


@pytest.mark.parametrize("sde, shape", chosen([("vp", (2, 1, 1)), ("subvp", (2,)), ("ve", (2,))], [("subvp", (2,))]))
def test_untrained_model_is_the_standard_normal(sde, shape):
    """The network starts at zero, so eps_hat is that of N(0, I): log_prob in closed form, in units of the batch."""
    levels = 64
    space = images(*shape, levels) if len(shape) == 3 else vectors(*shape)
    cfg = family.Config(space, sde=sde, width=8, blocks=1, divergence="exact")
    algorithm = family.algorithm(cfg, batch_size=2)
    values = jnp.array([[0, 63], [20, 40]])
    x = (2 * values + 1) / levels - 1.0  # centres of the cells
    batch = {"image": values.astype(jnp.uint8).reshape(2, *shape)} if len(shape) == 3 else {"x": x}
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    out = jax.jit(algorithm.log_prob)(state, batch, jax.random.key(1))
    truth = jax.scipy.stats.norm.logpdf(x).sum(-1) + (2 * math.log(2 / levels) if len(shape) == 3 else 0.0)
    assert out.kind == "estimate"
    np.testing.assert_allclose(out.nats, truth, atol=0.03 if len(shape) == 3 else 2e-3)  # 0.03: place within the cell


# ---- samplers --------------------------------------------------------------------------------------------------------


def by_ode(sde, score, x, tol=1e-5):
    """x_T -> x_0 by the probability-flow ODE."""
    ends = schedule(sde, sde.t_sample)
    y = x / scale(sde, ends.sigma_max)
    return ode.sample(as_denoiser(sde, score), y, ends.sigma_max, ends.sigma_min, tol=tol)[0]


@SDES
def test_ode_sampling_of_a_gaussian_is_affine(sde, x64):
    """The flow of N(m, s^2) keeps standardised coordinates: closed form to 1e-5, then denoised."""
    one = Mixture(np.ones(1), np.array([[0.5, -1.0]]), 0.3)
    x = prior_sample(sde, keys_of(0, 6), (2,)).astype(jnp.float64)
    out = jax.jit(functools.partial(by_ode, sde, one.score(sde), tol=1e-8))(x)
    (a_T, s_T), (a, s) = sde.marginal(jnp.array(sde.T)), sde.marginal(jnp.array(sde.t_sample))
    spread = lambda a, s: jnp.sqrt((a * one.std) ** 2 + s**2)  # noqa: E731
    z = (x - a_T * one.means) / spread(a_T, s_T)
    truth = one.means + a * one.std**2 / spread(a, s) * z  # posterior mean of x_0 given x_eps = a m + spread z
    np.testing.assert_allclose(out, truth, atol=1e-5)


@pytest.mark.slow
@SDES
def test_predictor_corrector_samples_a_mixture(sde):
    """4,000 draws: mode weights within 3.5 SE, standard deviation in the modes within 5 %."""
    n = 4000
    x = prior_sample(sde, keys_of(0, n), (2,))
    x = jax.jit(lambda x: predictor_corrector(sde, FOUR.score(sde), x, keys_of(1, n), steps=500)[-1])(x)
    looks_like_four(np.array(x))


def looks_like_four(x):
    """Mode weights within 3.5 standard errors, standard deviation in the modes within 5 %."""
    n = len(x)
    nearest = ((x[:, None] - FOUR.means) ** 2).sum(-1).argmin(-1)
    share = np.bincount(nearest, minlength=4) / n
    assert np.all(np.abs(share - FOUR.weights) < 3.5 * np.sqrt(FOUR.weights * (1 - FOUR.weights) / n))
    deviation = np.sqrt(((x - FOUR.means[nearest]) ** 2).mean())
    np.testing.assert_allclose(deviation, FOUR.std, rtol=0.05)


@SDES
@pytest.mark.parametrize(
    "name, steps", [("euler", 200), ("heun", 60), ("dpmpp_2m", 250), ("ancestral", 400), ("ode", 2)]
)
def test_every_sampler_of_diffusion_samples_a_score(sde, name, steps):
    """Through `as_denoiser`, on noise levels at even times of the SDE: 4,000 draws of the same mixture."""
    sigmas = denoising.grid(schedule(sde, sde.t_sample), steps)
    y = prior_sample(sde, keys_of(0, 4000), (2,)) / scale(sde, float(sigmas[0]))
    draw = functools.partial(denoising.draw, name, as_denoiser(sde, FOUR.score(sde)), tol=1e-3)
    x = jax.jit(lambda y: draw(y, sigmas, keys_of(1, 4000))[-1])(y)
    looks_like_four(np.array(x))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("vp", 2), ("subvp", 3), ("ve", 3)])
def test_few_steps_end_in_finite_samples(name, steps):
    """Two or three steps from T to t_sample, over four orders of magnitude of noise, of a fresh model."""
    cfg = family.Config(vectors(2), sde=name, width=8, blocks=1, sample_steps=steps, eta=0.5, churn=1.0)
    init = family.algorithm(cfg, batch_size=2).init
    state = jax.jit(init)(jax.random.key(0), {"x": jnp.zeros((2, 2))})
    for sampler in ("pc", "ancestral", "ddim", "euler", "heun", "dpmpp_2m"):
        algorithm = family.algorithm(dataclasses.replace(cfg, sampler=sampler), batch_size=2)
        frames = algorithm.trajectory(state, jax.random.key(1), 16, None, 2)
        assert frames.shape == (2, 16, 2) and jnp.all(jnp.isfinite(frames))
        assert algorithm.evaluations == {"pc": 2 * steps + 1, "heun": 2 * steps - 1}.get(sampler, steps)


@SDES
def test_samplers_end_in_the_tweedie_mean(sde):
    """All data in one point: whatever the noise did, the last denoising lands on it exactly."""
    point = jnp.array([0.3, -0.7])

    def score(x, t):
        alpha, std = sde.marginal(t)
        return -(x - alpha[:, None] * point[None, :]) / std[:, None] ** 2

    x = prior_sample(sde, keys_of(0, 3), (2,))
    truth = jnp.broadcast_to(point, (3, 2))
    np.testing.assert_allclose(predictor_corrector(sde, score, x, keys_of(1, 3), steps=5)[-1], truth, atol=1e-5)
    np.testing.assert_allclose(by_ode(sde, score, x), truth, atol=1e-5)


@pytest.mark.slow
def test_examples_do_not_see_each_other():
    """No statistic of the batch in the corrector: three samples alone are the first three of eight."""
    sde = VP()
    x = prior_sample(sde, keys_of(0, 8), (2,))
    run = lambda n: predictor_corrector(sde, FOUR.score(sde), x[:n], keys_of(1, n), steps=20)[-1]  # noqa: E731
    np.testing.assert_allclose(run(3), run(8)[:3], rtol=1e-4, atol=1e-5)


# ---- the objective ---------------------------------------------------------------------------------------------------


def quadrature_loss(sde, t):
    """E (eps_hat - noise)^2 of the exact score of LINE at time t: 1 - std^2 E[score^2], on a grid."""
    alpha, std = sde.marginal(jnp.asarray(t))
    width = jnp.sqrt((alpha * LINE.std) ** 2 + std**2)
    x = jnp.linspace(-alpha - 8 * width, alpha + 8 * width, 4001)[:, None]
    t = jnp.full(4001, t)
    p = jnp.exp(jax.vmap(lambda x, t: LINE.log_prob(sde, x, t))(x, t))
    square = LINE.score(sde)(x, t)[:, 0] ** 2
    return 1 - std**2 * jnp.trapezoid(p * square, x[:, 0])


@SDES
def test_loss_of_the_exact_score_equals_quadrature_and_is_stationary(sde, x64):
    """At 5 times: within 1 % (plus 4 SE), and the gradient in a few directions of function space is 0 within 4 SE."""
    rng, n = np.random.default_rng(0), 100_000
    x0, noise = jnp.asarray(LINE.sample(rng, n)), jnp.asarray(rng.standard_normal((n, 1)))
    directions = (lambda x: jnp.ones_like(x), lambda x: x, lambda x: jnp.sin(3 * x))

    @jax.jit
    def measured(time):
        exact, t = LINE.eps_hat(sde), jnp.full(n, time)

        def loss(delta):
            moved = lambda x, t: exact(x, t) + sum(d * g(x) for d, g in zip(delta, directions, strict=True))  # noqa: E731
            return dsm.terms(sde, moved, x0, t, noise)

        return loss(jnp.zeros(3)), jax.jacfwd(loss)(jnp.zeros(3)), quadrature_loss(sde, time)

    for value in (4.0, 2.0, 0.0, -2.0, -4.0):  # log SNR
        terms, slopes, expected = measured(sde.time(jnp.asarray(value)))  # [n], [n, 3]
        np.testing.assert_allclose(terms.mean(), expected, rtol=0.01, atol=4 * terms.std() / n**0.5)
        assert jnp.all(jnp.abs(slopes.mean(0)) < 4 * slopes.std(0) / n**0.5)


@SDES
@pytest.mark.parametrize("weighting", ["noise", "likelihood"])
def test_time_sampling_estimates_the_weighted_loss(sde, weighting, x64):
    """Weight times loss over sampled times equals the mean over uniform times of lambda / std^2 times loss: 1 %."""
    curve = jax.jit(jax.vmap(lambda t: quadrature_loss(sde, t)))
    grid = jnp.geomspace(sde.t_min, sde.T, 2000)
    over = 1.0 if weighting == "noise" else (sde.diffusion(grid) / sde.marginal(grid)[1]) ** 2
    truth = jnp.trapezoid(over * curve(grid), grid) / (sde.T - sde.t_min)
    t, weight = dsm.sample_time(sde, keys_of(0, 40_000), weighting)
    assert t.min() >= sde.t_min and t.max() <= sde.T
    np.testing.assert_allclose((weight * jnp.interp(t, grid, curve(grid))).mean(), truth, rtol=0.02)


@pytest.mark.slow
def test_training_finds_a_correlated_gaussian():
    """The whole path on 2-D data: 400 updates bring the ODE likelihood within 0.05 nats; samples fit."""
    mean, factor = np.array([0.5, -0.5]), np.array([[0.8, 0.0], [0.6, 0.4]])
    cfg = family.Config(
        vectors(2),
        **{"width": 64, "blocks": 1, "sample_steps": 100, "divergence": "exact", "tol": 1e-4},
        optim=Optim(lr=5e-3, decay=400 * 512),
    )
    algorithm = family.algorithm(cfg, batch_size=512)
    state = jax.jit(algorithm.init)(jax.random.key(0), {"x": np.zeros((512, 2), np.float32)})
    step = jax.jit(algorithm.step, donate_argnums=0)
    rng = np.random.default_rng(0)
    draw = lambda n: (mean + rng.standard_normal((n, 2)) @ factor.T).astype(np.float32)  # noqa: E731
    for i in range(400):
        state, _ = step(state, {"x": draw(512)}, jax.random.key(i))
    x = draw(256)
    white = np.linalg.solve(factor, (x - mean).T)
    truth = -0.5 * (white**2).sum(0) - np.log(2 * math.pi * np.linalg.det(factor))
    nats = jax.jit(algorithm.log_prob)(state, {"x": x}, jax.random.key(0)).nats
    assert abs((nats - truth).mean()) < 0.05
    samples = jax.jit(algorithm.sample, static_argnums=2)(state, jax.random.key(1), 2000)
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(samples.T), factor @ factor.T, atol=0.1)


# ---- network and configuration ---------------------------------------------------------------------------------------


def test_unet_is_ddpmpp():
    """61.8 million parameters in the CIFAR-10 configuration, as the paper's DDPM++ cont."""
    shapes = jax.eval_shape(UNet(3).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 128)))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert 61.75e6 < count < 61.85e6


@pytest.mark.slow
def test_unet_tiny():
    """Shape, and a finite gradient that reaches input and embedding of every example."""
    net = UNet(3, width=4, channel_mult=(1, 2), blocks=1, attention=())
    x, emb = jax.random.normal(jax.random.key(1), (2, 4, 4, 1)), jax.random.normal(jax.random.key(2), (2, 5))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, emb)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), shapes)

    @jax.jit
    def out_and_grads(params):
        out, pullback = jax.vjp(lambda x, emb: net.apply(params, x, emb), x, emb)
        return out, pullback(out)

    out, grads = out_and_grads(params)
    assert out.shape == (2, 4, 4, 3) and jnp.all(jnp.isfinite(out))
    for grad in grads:
        assert jnp.all(jnp.isfinite(grad)) and jnp.all(jnp.abs(grad).reshape(2, -1).max(-1) > 0)


def test_score_is_minus_noise_over_std():
    cfg = family.Config(vectors(2), width=8, blocks=1, sde="subvp")
    params = jax.jit(family.algorithm(cfg, batch_size=2).init)(jax.random.key(0), {"x": jnp.zeros((2, 2))}).params
    params = jax.tree.map(lambda p: p + 0.1, params)
    x, t = jnp.ones((3, 2)), jnp.array([0.1, 0.5, 0.9])
    noise = jax.jit(functools.partial(family.eps_hat, cfg))(params, x, t)
    std = family.make_sde(cfg).marginal(t)[1][:, None]
    np.testing.assert_allclose(jax.jit(functools.partial(family.score, cfg))(params, x, t), -noise / std, rtol=1e-5)
    np.testing.assert_allclose(score_from_eps(SubVP(), lambda x, t: noise)(x, t), -noise / std, rtol=1e-5)


@pytest.mark.parametrize(
    "field, change",
    [
        ("sde", {"sde": "vpp"}),
        ("space.shape", {"space": Space((8, 8), 17)}),
        ("space.levels", {"space": images(8, 8, 1, 1)}),
        ("network", {"space": vectors(2), "network": "conv"}),
        ("channel_mult", {"space": images(6, 6, 1), "network": "conv", "channel_mult": (1, 2, 2)}),
        ("sampler", {"sampler": "adaptive"}),
        ("eta", {"eta": 2.0}),
        ("spacing", {"spacing": 2.0}),
        ("probes", {"probes": 0}),
        ("sample_steps", {"sample_steps": 0}),
    ],
)
def test_bad_configurations_name_the_field(field, change):
    with pytest.raises(ValueError, match=f"^{field}="):
        family.algorithm(family.Config(**{"space": images(8, 8, 1), **change}), batch_size=2)
