"""Schedules, predictions, weights, samplers, guidance and bounds of diffusion, on denoisers that are known exactly.

The yardsticks: a correlated Gaussian off the origin, whose denoiser, ODE map and density are affine or quadratic; and
the eight Gaussians of the toy densities, whose score is known at every noise level.
"""

import functools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax.data import toy
from genmap_jax.keys import example_keys, fold, normal
from genmap_jax.likelihoods import discretised_gaussian
from genmap_jax.nn.unet import sinusoidal
from genmap_jax.objectives import denoising as losses
from genmap_jax.objectives import diffusion_bound as bounds
from genmap_jax.processes import log_snr, predictions
from genmap_jax.processes.log_snr import COORDINATES, Learned, fixed, learned
from genmap_jax.samplers import denoising, ode

HIGH, LOW = 10.0, -10.0
NAMES = list(COORDINATES)


def keys_of(seed, n):
    return example_keys(jax.random.key(seed), n)


class Gaussian:
    """N(mean, covariance) in three dimensions, and everything about x + sigma noise. The covariance is full."""

    mean = np.array([0.5, -1.0, 0.25])
    stds = np.array([1.2, 0.6, 0.3])
    axes = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]  # columns: principal axes
    covariance = axes @ np.diag(stds**2) @ axes.T
    entropy = 0.5 * 3 * (1 + math.log(2 * math.pi)) + np.log(stds).sum()

    def scaled(self, x, factors):
        """x [B, 3] off the mean, its principal components times factors ([3] or [B, 3]), back."""
        z = (x - jnp.asarray(self.mean, x.dtype)[None]) @ jnp.asarray(self.axes, x.dtype)
        return jnp.asarray(self.mean, x.dtype)[None] + (z * factors) @ jnp.asarray(self.axes.T, x.dtype)

    def denoise(self, y, sigma, cond=None):
        v = jnp.asarray(self.stds**2, y.dtype)[None]
        return self.scaled(y, v / (v + jnp.square(sigma)[:, None]))

    def flow(self, y, sigma, to):
        """The probability-flow ODE from one level to another: every component keeps its place in its distribution."""
        v = self.stds**2
        return self.scaled(y, jnp.asarray(np.sqrt((v + to**2) / (v + sigma**2)), y.dtype)[None])

    def log_prob(self, y, sigma=0.0):
        z = (np.asarray(y, np.float64) - self.mean) @ self.axes
        v = self.stds**2 + sigma**2
        return -0.5 * (z**2 / v + np.log(2 * math.pi * v)).sum(-1)

    def sample(self, seed, n):
        return self.mean + (np.random.default_rng(seed).standard_normal((n, 3)) * self.stds) @ self.axes.T


GAUSSIAN = Gaussian()
EIGHT = toy.DENSITIES["gaussians8"]


def denoise_eight(y, sigma, cond=None):
    """Tweedie: x_hat = y + sigma^2 score."""
    return y + jnp.square(sigma)[:, None] * EIGHT.score(y, sigma)


# ---- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_schedules_are_pinned_and_fall(name):
    """lambda(0), lambda(1) as configured to 1e-5 in float32; the rate is minus its slope by differences, 1e-6."""
    schedule = fixed(name, 13.3, -5.0)
    np.testing.assert_allclose(schedule.log_snr(jnp.array([0.0, 1.0])), [13.3, -5.0], atol=1e-5)
    with jax.enable_x64(True):
        t = jnp.linspace(0.01, 0.99, 50)
        slope = (schedule.log_snr(t + 1e-6) - schedule.log_snr(t - 1e-6)) / 2e-6
        np.testing.assert_allclose(schedule.rate(t), -slope, rtol=1e-6)
        assert np.all(np.diff(schedule.log_snr(t)) < 0)


def test_schedules_are_what_their_papers_say(x64):
    """Up to the cut at the ends, which is affine in time: SNR of each process at interior times, 1e-9."""
    t = jnp.linspace(0.05, 0.95, 7)

    def same_course(name, expected):  # the cut turns u into a + b t: recover a, b from two points
        level = fixed(name, 12.0, -9.0).log_snr(t)
        u = jax.vmap(lambda v: COORDINATES[name][0](v))(level)
        np.testing.assert_allclose(np.diff(u, 2), 0.0, atol=1e-9)
        np.testing.assert_allclose(level, expected(u), atol=1e-7)

    beta = lambda u: 0.1 * u + 0.5 * 19.9 * u**2  # noqa: E731
    same_course("ddpm", lambda u: jnp.log(jnp.exp(-beta(u)) / (1 - jnp.exp(-beta(u)))))
    same_course("cosine", lambda u: 2 * jnp.log(jnp.cos(u) / jnp.sin(u)))
    same_course("flow", lambda u: 2 * jnp.log((1 - u) / u))
    same_course("karras", lambda u: -2 * jnp.log(u**7.0))
    # EDM's noise levels: log sigma under uniform times has the moments of N(-1.2, 1.2^2), or of those asked for
    for schedule, moments in (
        (fixed("lognormal", 13.0, -9.0), [-1.2, 1.2]),
        (fixed("lognormal", 13.0, -9.0, (-0.4, 0.9)), [-0.4, 0.9]),
    ):
        sigma = schedule.sigma((jnp.arange(20_000) + 0.5) / 20_000)
        np.testing.assert_allclose([jnp.log(sigma).mean(), jnp.log(sigma).std()], moments, atol=2e-3)
    # and the grid it samples with: its paper's eq. 5
    i = np.arange(18)
    paper = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    ends = -2 * math.log(0.002), -2 * math.log(80)
    np.testing.assert_allclose(denoising.grid(fixed("karras", *ends), 18), np.append(paper, 0.0), rtol=1e-9)


def test_learned_schedule_keeps_its_ends_whatever_its_weights():
    """After a unit perturbation of everything: ends to 1e-5, strictly falling. (VDM's own net moves them by 2.6.)"""
    params = jax.jit(Learned().init)(jax.random.key(0), jnp.zeros(2))["params"]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        moved = jax.tree.map(lambda p, rng=rng: p + rng.standard_normal(p.shape).astype(np.float32), params)
        schedule = learned(moved, 13.3, -5.0)
        np.testing.assert_allclose(schedule.log_snr(jnp.array([0.0, 1.0])), [13.3, -5.0], atol=1e-5)
        level = schedule.log_snr(jnp.linspace(0.0, 1.0, 501))
        assert np.all(np.diff(level) < 0)
        assert np.abs(level - np.linspace(13.3, -5.0, 501)).max() > 0.1, "the perturbation must bend it"


def test_schedule_parameters_follow_the_gradient_of_the_squared_term():
    """In one backward pass: network gradients of the term, schedule gradients of its square (1 %)."""
    rng = np.random.default_rng(0)
    x, noise = (jnp.asarray(rng.standard_normal((8, 3)), jnp.float32) for _ in range(2))
    t = jnp.linspace(0.1, 0.9, 8)
    params = {"schedule": Learned().init(jax.random.key(0), t)["params"], "shrink": jnp.array(0.3)}

    def terms(params, level, rate):
        denoise = lambda y, sigma, cond: params["shrink"] * y / (1 + sigma[:, None] ** 2)  # noqa: E731
        return 0.5 * rate * losses.noise_error(denoise, x, jnp.exp(-0.5 * level), noise)

    def surrogate(params):
        now = learned(params["schedule"], 5.0, -5.0)
        level, rate, gauge = log_snr.for_variance(now.log_snr(t), now.rate(t))
        term = terms(params, level, rate)
        return (term + jax.lax.stop_gradient(2 * 8 * term) * gauge).mean()

    def plain(params, power):
        now = learned(params["schedule"], 5.0, -5.0)
        return (terms(params, now.log_snr(t), now.rate(t)) ** power).mean()

    value, found = jax.jit(jax.value_and_grad(surrogate))(params)
    (first, of_first), (_, of_square) = (
        jax.jit(jax.value_and_grad(plain), static_argnums=1)(params, power) for power in (1, 2)
    )
    np.testing.assert_allclose(value, first, rtol=1e-6)
    np.testing.assert_allclose(found["shrink"], of_first["shrink"], rtol=1e-5)
    truth = of_square["schedule"]
    for name in truth:
        np.testing.assert_allclose(found["schedule"][name], truth[name], rtol=1e-2, atol=1e-3)


# ---- predictions and weights -----------------------------------------------------------------------------------------

PREDICTIONS = ["eps", "x0", "v", "F", "velocity"]


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_are_what_they_say(name, x64):
    """At the true x: eps is the noise, v = alpha eps - std x, velocity = eps - x, and so on (1e-9); and back to x."""
    rng = np.random.default_rng(0)
    x, eps = rng.standard_normal((2, 5, 3))
    sigma = np.array([1e-3, 0.1, 1.0, 5.0, 80.0])
    y = x + sigma[:, None] * eps
    alpha = 1 / np.sqrt(1 + sigma**2)[:, None]
    half = np.sqrt(sigma**2 + 0.25)[:, None]
    truth = {
        "eps": eps,
        "x0": x,
        "v": alpha * eps - sigma[:, None] * alpha * x,
        "F": (x - 0.25 / half**2 * y) * half / (0.5 * sigma[:, None]),
        "velocity": eps - x,
    }[name]
    found = predictions.from_data(name, jnp.asarray(x), jnp.asarray(y), jnp.asarray(sigma), 0.5)
    np.testing.assert_allclose(found, truth, atol=1e-9)
    network = lambda scaled, log_sigma, cond: found  # noqa: E731
    denoise = predictions.denoiser(name, network, 0.5)
    np.testing.assert_allclose(denoise(jnp.asarray(y), jnp.asarray(sigma)), x, atol=1e-9)


def test_predictions_convert_into_each_other(x64):
    """Every pair, there and back through x_hat, at noise from 0.01 to 50: 1e-6 relative."""
    rng = np.random.default_rng(0)
    y, out = (jnp.asarray(a) for a in rng.standard_normal((2, 4, 3)))
    sigma = jnp.array([0.01, 0.3, 2.0, 50.0])
    for a in PREDICTIONS:
        for b in PREDICTIONS:
            other = predictions.from_data(b, predictions.to_data(a, out, y, sigma, 0.7), y, sigma, 0.7)
            back = predictions.from_data(a, predictions.to_data(b, other, y, sigma, 0.7), y, sigma, 0.7)
            np.testing.assert_allclose(back, out, rtol=1e-6, atol=1e-9)


def test_v_is_minus_F_of_unit_variance_data(x64):
    y, x, sigma = jnp.ones((3, 2)), jnp.full((3, 2), 0.3), jnp.array([0.1, 1.0, 9.0])
    v, F = (predictions.from_data(name, x, y, sigma, 1.0) for name in ("v", "F"))
    np.testing.assert_allclose(v, -F, rtol=1e-12)


def test_preconditioning_has_unit_variance():
    """Data N(0, s^2): network input and target of F have variance 1 at every noise level, 1 % (s.e. 0.2 %)."""
    rng, s = np.random.default_rng(0), 0.5
    x, eps = s * rng.standard_normal((200_000, 1)), rng.standard_normal((200_000, 1))
    for level in (0.002, 0.1, 0.5, 3.0, 80.0):
        sigma = jnp.full(len(x), level)
        y = x + level * eps
        c = predictions.coefficients("F", sigma, s)
        target = predictions.from_data("F", jnp.asarray(x), jnp.asarray(y), sigma, s)
        np.testing.assert_allclose(np.var(np.asarray(c.c_in)[:, None] * y), 1.0, rtol=0.01)
        np.testing.assert_allclose(np.var(target), 1.0, rtol=0.01)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_loss_of_a_prediction_is_the_weighted_loss_of_the_noise(name, x64):
    """||out - target||^2 times the weight turned by `of_prediction` is the weighted noise error, at every SNR: 1e-9."""
    rng = np.random.default_rng(0)
    x, eps, out = (jnp.asarray(a) for a in rng.standard_normal((3, 6, 4)))
    level = jnp.array([-8.0, -3.0, 0.0, 1.0, 4.0, 9.0])
    sigma = jnp.exp(-0.5 * level)
    y = x + sigma[:, None] * eps
    denoise = lambda y, sigma, cond: predictions.to_data(name, out, y, sigma, 0.5)  # noqa: E731
    own = jnp.square(out - predictions.from_data(name, x, y, sigma, 0.5)).sum(-1)
    weight = losses.weight("sigmoid", level, jnp.ones(6), name, 0.5)
    np.testing.assert_allclose(
        weight * losses.of_prediction(name, sigma, 0.5) * own,
        weight * losses.noise_error(denoise, x, sigma, eps),
        rtol=1e-9,
    )
    output = losses.weight("output", level, jnp.ones(6), name, 0.5)
    np.testing.assert_allclose(output * losses.noise_error(denoise, x, sigma, eps), own, rtol=1e-9)


def test_min_snr_is_right_for_each_target(x64):
    """Regression (diffusers 5654, 6307, 9451): of v it is min(SNR, 5) / (SNR + 1), not min(SNR + 1, 5) / ..."""
    level = jnp.linspace(-8.0, 8.0, 9)
    snr, sigma = jnp.exp(level), jnp.exp(-0.5 * level)
    of_noise = losses.weight("min_snr", level, jnp.ones(9), "eps")
    capped = np.minimum(snr, 5.0)
    for name, truth in {"eps": capped / snr, "x0": capped, "v": capped / (snr + 1)}.items():
        np.testing.assert_allclose(of_noise * losses.of_prediction(name, sigma), truth, rtol=1e-9)


def test_edm_and_simple_weights_are_their_papers(x64):
    level = jnp.linspace(-8.0, 8.0, 9)
    sigma = np.exp(-0.5 * np.asarray(level))
    edm = losses.weight("edm", level, jnp.ones(9), "eps", 0.5) * losses.of_prediction("x0", sigma, 0.5)
    np.testing.assert_allclose(edm, (sigma**2 + 0.25) / (0.5 * sigma) ** 2, rtol=1e-9)  # eq. 8, of the data
    np.testing.assert_allclose(losses.weight("simple", level, jnp.ones(9), "v"), 1.0)


def test_learned_uncertainty_levels_the_loss(x64):
    """exp(-u) edm + u: d/du is 1 - exp(-u) edm, so exp(u) ends at the mean edm loss; the network's gradient is edm's
    divided by exp(u). 1e-9."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)))
    batch, params = {"x": x, "t": jnp.linspace(0.1, 0.9, 6)}, {"scale": jnp.asarray(0.3), "u": jnp.asarray(0.7)}

    def gradient(weighting, uncertainty=None):
        denoise = lambda params: lambda y, sigma, cond: params["scale"] * y  # noqa: E731
        loss = losses.weighted_denoising(
            lambda params: fixed("lognormal", 8.0, -7.0), denoise, lambda batch: batch["x"],
            lambda keys, batch: None, weighting, "F", 1.0, uncertainty,
        )  # fmt: skip
        return jax.value_and_grad(lambda params: loss(params, keys_of(0, 6), batch)["loss"].mean())(params)

    edm, of_edm = gradient("edm")
    value, found = gradient("uncertainty", lambda params, level: jnp.full(6, params["u"]))
    np.testing.assert_allclose(value, jnp.exp(-0.7) * edm + 0.7, rtol=1e-9)
    np.testing.assert_allclose(found["u"], 1.0 - jnp.exp(-0.7) * edm, rtol=1e-9)
    np.testing.assert_allclose(found["scale"], jnp.exp(-0.7) * of_edm["scale"], rtol=1e-9)


def test_even_times_are_uniform_and_cover_the_batch():
    """One in each of 64 equal parts; over keys the first one is uniform; a mean over them varies five times less."""
    t = np.sort(losses.even_times(jax.random.key(0), 64))
    np.testing.assert_allclose(np.diff(t), 1 / 64, atol=1e-6)
    many = jax.vmap(lambda key: losses.even_times(key, 64))(jax.random.split(jax.random.key(1), 2000))
    share, _ = np.histogram(many[:, 0], bins=10, range=(0, 1))
    assert np.all(np.abs(share / 2000 - 0.1) < 4 * math.sqrt(0.09 / 2000))
    even, independent = (
        jnp.exp(3 * many).mean(1),
        jnp.exp(3 * jax.random.uniform(jax.random.key(2), many.shape)).mean(1),
    )
    assert even.std() < 0.2 * independent.std()


# ---- the posterior ---------------------------------------------------------------------------------------------------


def test_ancestral_step_is_gaussian_conditioning(x64):
    """q(y_s | y_t, x): mean and variance of our step are those of conditioning the normal of (y_s, y_t): 1e-10."""
    for t, s in [(3.0, 2.5), (0.5, 0.01), (80.0, 0.002)]:
        joint = np.array([[s**2, s**2], [s**2, t**2]])  # y_t = y_s + independent noise
        gain, x, y_t = joint[0, 1] / joint[1, 1], 0.7, 1.9
        mean, variance = x + gain * (y_t - x), joint[0, 0] - gain * joint[0, 1]
        denoise = lambda y, sigma, cond, x=x: jnp.full_like(y, x)  # noqa: E731
        step = denoising.ancestral(denoise, [t, s], keys_of(0, 2))
        out, _ = step(0, (jnp.full((2, 1), y_t), jnp.zeros((2, 1))))
        noise = normal(fold(keys_of(0, 2), 1), (1,))
        np.testing.assert_allclose(out, mean + math.sqrt(variance) * noise, rtol=1e-10)


def test_ancestral_sampling_of_the_exact_denoiser_gives_back_the_data():
    """Mean and covariance of 20,000 draws within 4 standard errors of the Gaussian's (plus 1 % for 200 steps)."""
    n = 20_000
    sigmas = denoising.grid(fixed("linear", HIGH, LOW), 200)
    y = denoising.start(math.hypot(1.0, sigmas[0]), keys_of(0, n), (3,))
    run = jax.jit(lambda y: denoising.run(denoising.ancestral(GAUSSIAN.denoise, sigmas, keys_of(1, n)), y, 200))
    x = np.asarray(run(y), np.float64)
    np.testing.assert_allclose(x.mean(0), GAUSSIAN.mean, atol=4 * 1.2 / math.sqrt(n) + 0.005)
    np.testing.assert_allclose(np.cov(x.T), GAUSSIAN.covariance, atol=4 * 1.2**2 * math.sqrt(2 / n) + 0.015)


# ---- solvers ---------------------------------------------------------------------------------------------------------

SOLVERS = {"euler": denoising.euler, "heun": denoising.heun, "dpmpp_2m": denoising.dpmpp_2m}
FROM, TO = -2 * math.log(0.02), -2 * math.log(80.0)
KARRAS = fixed("karras", FROM, TO)


def solve(solver, denoise, y, steps):
    sigmas = denoising.grid(KARRAS, steps + 1)[:-1]  # to sigma_min: the last step to 0 would hide the order
    return jax.jit(lambda y: denoising.run(SOLVERS[solver](denoise, sigmas), y, steps))(y)


def order(solver, denoise, y, truth, counts):
    errors = [float(jnp.abs(solve(solver, denoise, y, n) - truth).max()) for n in counts]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize("solver, least, most", [("euler", 0.9, 1.1), ("heun", 1.9, 2.2), ("dpmpp_2m", 1.9, 2.2)])
def test_order_of_solvers(solver, least, most, x64):
    """Against the closed-form ODE map of the Gaussian and, on 8 Gaussians, 16,384 steps; from sigma 80 to 0.02.

    Heun's step with the slope of the old noise level (diffusers 1512) has order 1 and fails here.
    """
    y = 80.0 * jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)))
    assert least < order(solver, GAUSSIAN.denoise, y, GAUSSIAN.flow(y, 80.0, 0.02), [64, 128, 256, 512]) < most
    y = 80.0 * jnp.asarray(np.random.default_rng(1).standard_normal((4, 2)))
    truth = solve("dpmpp_2m", denoise_eight, y, 2**14)
    assert least < order(solver, denoise_eight, y, truth, [128, 256, 512, 1024])


def test_adaptive_solver_is_the_closed_form_map(x64):
    """Gaussian, tolerance 1e-9: the ODE map to sigma_min, then denoised, to 1e-7."""
    y = 80.0 * jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)))
    x, tries = jax.jit(lambda y: ode.sample(GAUSSIAN.denoise, y, 80.0, 0.02, tol=1e-9))(y)
    truth = GAUSSIAN.denoise(GAUSSIAN.flow(y, 80.0, 0.02), jnp.full(4, 0.02))
    np.testing.assert_allclose(x, truth, atol=1e-7)
    assert np.all(tries > 5)


def test_churn_keeps_the_distribution():
    """Heun with churn 40 in [0.05, 50]: 20,000 draws keep mean and covariance; noise of its own for every example."""
    n = 20_000
    sigmas = denoising.grid(KARRAS, 60)
    step = denoising.heun(GAUSSIAN.denoise, sigmas, keys_of(1, n), churn=40.0, churn_range=(0.05, 50.0))
    y = denoising.start(math.hypot(1.0, 80.0), keys_of(0, n), (3,))
    x = np.asarray(jax.jit(lambda y: denoising.run(step, y, 60))(y), np.float64)
    plain = denoising.heun(GAUSSIAN.denoise, sigmas)
    assert np.abs(x - jax.jit(lambda y: denoising.run(plain, y, 60))(y)).max() > 0.5
    np.testing.assert_allclose(x.mean(0), GAUSSIAN.mean, atol=4 * 1.2 / math.sqrt(n) + 0.005)
    np.testing.assert_allclose(np.cov(x.T), GAUSSIAN.covariance, atol=4 * 1.2**2 * math.sqrt(2 / n) + 0.02)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
def test_asked_steps_are_run_down_to_zero_without_nan(solver):
    """Regression (diffusers 4122, 9261, 9007, 12771, 5689): N asked, N run, levels fall, nothing is log(0) or 0/0."""
    for schedule in (fixed(name, HIGH, LOW) for name in ("linear", "karras")):
        for steps in (2, 5):
            sigmas = denoising.grid(schedule, steps)
            assert len(sigmas) == steps + 1 and sigmas[-1] == 0 and np.all(np.diff(sigmas) < 0)
            seen = []

            def denoise(y, sigma, cond=None, seen=seen):
                jax.debug.callback(lambda s: seen.append(float(s)), sigma[0])
                return jnp.full_like(y, 0.25)

            step = SOLVERS[solver](denoise, sigmas)
            x = denoising.run(step, jnp.ones((1, 2)), steps)
            jax.effects_barrier()
            assert len(seen) == (2 * steps - 1 if solver == "heun" else steps)
            np.testing.assert_allclose(sorted(set(seen), reverse=True), sigmas[:-1], rtol=1e-5)
            np.testing.assert_allclose(x, 0.25, atol=1e-6)  # all data in one point: the last step lands on it


ENDS = {"vdm": (13.3, -5.0), "edm": (12.4, -8.8), "narrow": (1.0, -1.0)}
FEW = [(name, steps) for name in ("ancestral", "ddim", "euler", "heun", "dpmpp_2m") for steps in (1, 2, 3)]


@pytest.mark.parametrize("name, steps", chosen([case for case in FEW if case != ("dpmpp_2m", 1)], [("heun", 2)]))
def test_few_steps_stay_finite_on_every_schedule(name, steps):
    """One, two or three of them over the whole range of noise, of N(0, I) and of data in one point, with all noise."""
    keys, shape = keys_of(0, 4), (4, 2)
    normal_data = lambda y, sigma, cond=None: y / (1.0 + sigma**2)[:, None]  # noqa: E731
    point = lambda y, sigma, cond=None: jnp.full_like(y, 0.25)  # noqa: E731
    make = {
        "ancestral": lambda denoise, sigmas: denoising.ancestral(denoise, sigmas, keys),
        "ddim": lambda denoise, sigmas: denoising.ddim(denoise, sigmas, keys, eta=0.5),
        "euler": denoising.euler,
        "heun": lambda denoise, sigmas: denoising.heun(denoise, sigmas, keys, churn=40.0),
        "dpmpp_2m": denoising.dpmpp_2m,
    }[name]
    for schedule in NAMES:
        for ends in ENDS.values():
            sigmas = denoising.levels(name, fixed(schedule, *ends), steps)
            assert len(sigmas) == steps + 1
            start = denoising.start(float(np.hypot(1.0, sigmas[0])), keys, shape[1:])
            for denoise in (normal_data, point):
                carry, step = (start, jnp.zeros(shape)), make(denoise, sigmas)
                for i in range(steps):
                    carry = step(i, carry)
                    assert all(np.isfinite(x).all() for x in carry), (schedule, ends, i)
            np.testing.assert_allclose(carry[0], 0.25, atol=1e-4)  # the last step lands on the only point


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_an_adaptive_solver_has_the_same_ends_whatever_steps_are_asked(steps):
    """Its steps are its own: with one step asked it must not stop, and denoise, at the most noise."""
    schedule = fixed("karras", 9.0, -6.0)
    sigmas = denoising.levels("ode", schedule, steps)
    np.testing.assert_allclose(sigmas, [schedule.sigma_max, schedule.sigma_min, 0.0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samplers_keep_the_precision_of_the_state(dtype, x64):
    """With float64 switched on, whatever the precision of the denoiser's constants: no mixture, no warning."""
    keys, y = keys_of(0, 3), jnp.asarray(np.random.default_rng(0).standard_normal((3, 2)), dtype)
    wide = jnp.asarray([0.5, 0.5], jnp.float64)[None]  # as a network with float64 constants has it
    denoise = lambda y, sigma, cond=None: (y - wide) / (1.0 + jnp.square(sigma)[:, None]) + wide  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ode.sample(denoise, y, 10.0, 0.1, tol=1e-3)[0].dtype == dtype
        same = lambda y, sigma, cond=None: denoise(y, sigma).astype(y.dtype)  # noqa: E731
        for name in ("ancestral", "heun", "dpmpp_2m"):
            drawn = denoising.draw(name, same, y, np.array([10.0, 1.0, 0.0]), keys, churn=1.0)
            assert drawn.dtype == dtype
    assert sinusoidal(y[:, 0], 8).dtype == dtype


def test_bad_grids_say_so():
    for sigmas in ([1.0, 1.0, 0.5], [1.0, 2.0], [1.0, 0.5, -0.1]):
        with pytest.raises(ValueError, match="fall strictly"):
            denoising.euler(denoise_eight, sigmas)
    with pytest.raises(ValueError, match="order 2"):
        denoising.dpmpp_2m(denoise_eight, [1.0, 0.5])
    with pytest.raises(ValueError, match="^eta=1.0"):
        denoising.ddim(denoise_eight, [1.0, 0.5], eta=1.0)
    with pytest.raises(ValueError, match="^churn="):
        denoising.heun(denoise_eight, [1.0, 0.5], churn=1.0)
    with pytest.raises(ValueError, match="^log_snr_min="):
        fixed("linear", -5.0, 5.0)
    with pytest.raises(ValueError, match="^log_sigma="):
        fixed("lognormal", 5.0, -5.0, (-1.2, 0.0))
    with pytest.raises(ValueError, match="^schedule: "):
        log_snr.checked(log_snr.Schedule(lambda t: (t - 0.6) ** 2, 5.0, -5.0))
    with pytest.raises(ValueError, match="^schedule='cosinus'"):
        fixed("cosinus", 5.0, -5.0)


# ---- likelihood ------------------------------------------------------------------------------------------------------


def exact_terms(schedule, t):
    """E ||eps - eps_hat||^2 of the exact denoiser of the Gaussian at times t [K]: sum of v / (v + sigma^2)."""
    sigma2 = np.asarray(schedule.sigma(jnp.asarray(t))) ** 2
    v = GAUSSIAN.stds[None] ** 2
    return (v / (v + sigma2[:, None])).sum(-1)


@pytest.mark.slow
def test_bound_of_a_gaussian_tends_to_its_entropy_as_one_over_T(x64):
    """The gap to the entropy times T is constant: slope -1.00 +- 0.03; and in continuous time the gap is at most 2e-3.

    The terms' expectations are known, so the sum over T is exact; our estimate of one term is unbiased for it (4 s.e.).
    """
    schedule = fixed("linear", HIGH, LOW)
    sigma_0, sigma_1 = schedule.sigma_min, schedule.sigma_max
    second = GAUSSIAN.stds**2 + (GAUSSIAN.axes.T @ GAUSSIAN.mean) ** 2
    total = 1 + sigma_1**2
    prior = 0.5 * (second / total + sigma_1**2 / total - 1 - math.log(sigma_1**2 / total)).sum()
    recon = -3 * (math.log(sigma_0) + 0.5 * math.log(2 * math.pi) + 0.5)

    def gap(diffusion):
        return -(recon - prior - diffusion) - GAUSSIAN.entropy

    counts, gaps = np.array([100, 300, 1000]), []
    for steps in counts:
        i = np.arange(1, steps + 1)
        level = (
            np.asarray(schedule.log_snr(jnp.asarray(i / steps))),
            np.asarray(schedule.log_snr(jnp.asarray((i - 1) / steps))),
        )
        gaps.append(gap((0.5 * np.expm1(level[1] - level[0]) * exact_terms(schedule, i / steps)).sum()))
    assert abs(np.polyfit(np.log(counts), np.log(gaps), 1)[0] + 1) < 0.03
    t, w = np.polynomial.legendre.leggauss(400)
    t, w = (t + 1) / 2, w / 2
    continuous = (w * 0.5 * np.asarray(schedule.rate(jnp.asarray(t))) * exact_terms(schedule, t)).sum()
    assert 0 <= gap(continuous) < 2e-3

    n = 4000
    x = jnp.asarray(GAUSSIAN.sample(0, n))
    one = bounds.diffusion_discrete(GAUSSIAN.denoise, schedule, x, keys_of(0, n), jnp.full(n, 57.0), 100)
    truth = 0.5 * np.expm1(0.2) * exact_terms(schedule, np.array([0.57]))[0]
    np.testing.assert_allclose(one.mean(), truth, atol=4 * one.std() / math.sqrt(n))


@pytest.mark.parametrize("steps", [None, 50])
def test_bound_puts_its_terms_together(steps, x64):
    """Mean over data of reconstruction, prior and all diffusion terms: the closed forms, within 4 s.e."""
    schedule, n = fixed("cosine", HIGH, LOW), 4000
    x = jnp.asarray(GAUSSIAN.sample(0, n))
    run = jax.jit(
        lambda x: bounds.bound(
            GAUSSIAN.denoise, schedule, x, x, keys_of(0, n), data_std=1.0, levels=None, steps=steps, draws=20
        )
    )
    out = run(x)
    assert out.kind == "lower_bound" and (out.stderr is None) == (steps is not None)
    if steps is None:
        np.testing.assert_allclose(out.nats.mean(), -GAUSSIAN.entropy, atol=4 * out.nats.std() / math.sqrt(n) + 2e-3)
        return
    i = np.arange(1, steps + 1)
    jump = np.asarray(schedule.log_snr(jnp.asarray((i - 1) / steps)) - schedule.log_snr(jnp.asarray(i / steps)))
    diffusion = (0.5 * np.expm1(jump) * exact_terms(schedule, i / steps)).sum()
    recon = -3 * (math.log(schedule.sigma_min) + 0.5 * math.log(2 * math.pi) + 0.5)
    truth = recon - float(bounds.prior_kl(x, schedule.sigma_max, 1.0).mean()) - diffusion
    np.testing.assert_allclose(out.nats.mean(), truth, atol=4 * out.nats.std() / math.sqrt(n))
    which = jax.random.randint(jax.random.key(1), (n,), 1, steps + 1)  # one term at random, times T
    some = steps * bounds.diffusion_discrete(GAUSSIAN.denoise, schedule, x, keys_of(2, n), which, steps)
    np.testing.assert_allclose(some.mean(), diffusion, atol=4 * some.std() / math.sqrt(n))


@pytest.mark.slow
def test_bound_does_not_depend_on_the_course_of_the_schedule(x64):
    """T = inf, the same end points: linear, cosine, karras, learned within 3 s.e.; their variances differ by far."""
    n = 4000
    x = jnp.asarray(EIGHT.sample(jax.random.key(0), n), jnp.float64)
    params = Learned().init(jax.random.key(0), jnp.zeros(2))["params"]
    params = jax.tree.map(lambda p: p + np.random.default_rng(0).standard_normal(p.shape), params)
    schedules = [fixed(name, HIGH, -4.0) for name in ("linear", "cosine", "karras")] + [learned(params, HIGH, -4.0)]
    u = jax.random.uniform(jax.random.key(1), (n,), jnp.float64)
    run = lambda s: jax.jit(lambda: bounds.diffusion_continuous(denoise_eight, s, x, keys_of(2, n), u))()  # noqa: E731
    terms = [run(s) for s in schedules]
    means, errors = [t.mean() for t in terms], [t.std() / math.sqrt(n) for t in terms]
    for mean, error in zip(means[1:], errors[1:], strict=True):
        assert abs(mean - means[0]) < 3 * math.hypot(error, errors[0])
    print("standard deviations of linear, cosine, karras, learned:", [round(float(t.std()), 3) for t in terms])
    assert max(errors) > 2 * min(errors)


@pytest.mark.slow
def test_bound_is_below_the_exact_log_density():
    """Eight Gaussians, their exact denoiser, T = inf: minus the entropy, to 4 s.e. and the 2e-2 of sigma_0 = 0.02."""
    n, schedule = 4000, fixed("linear", 8.0, -4.0)
    x = EIGHT.sample(jax.random.key(0), n)
    out = jax.jit(
        lambda x: bounds.bound(
            denoise_eight, schedule, x, x, keys_of(0, n), data_std=1.43, levels=None, steps=None, draws=16
        )
    )(x)
    gap = -float(out.nats.mean()) - EIGHT.entropy
    assert -4 * float(out.nats.std()) / math.sqrt(n) < gap < 4 * float(out.nats.std()) / math.sqrt(n) + 0.02


@pytest.mark.parametrize("levels", [256, 17, 2])
@pytest.mark.parametrize("sigma", [1e-3, 0.03, 1.0])
def test_discretised_gaussian_is_a_distribution_with_the_exact_cdf(levels, sigma, x64):
    """The pmf sums to one (1e-6) at any mean; every log-probability equals that of the exact normal CDF (1e-6)."""
    from scipy.stats import norm

    mean = np.array([-1.3, -1.0, -0.21, 0.5, 0.999, 1.7])
    v = jnp.arange(levels)[:, None]
    log_p = np.asarray(discretised_gaussian(v, jnp.asarray(mean)[None], sigma, levels))
    np.testing.assert_allclose(np.exp(log_p).sum(0), 1.0, atol=1e-6)
    centres = 2 * np.asarray(v) / (levels - 1) - 1
    edges = [
        np.where(v == 0, -np.inf, centres - 1 / (levels - 1)),
        np.where(v == levels - 1, np.inf, centres + 1 / (levels - 1)),
    ]
    low, high = ((e - mean) / sigma for e in edges)
    exact = np.where(low > 0, norm.sf(low) - norm.sf(high), norm.cdf(high) - norm.cdf(low))
    seen = exact > 1e-200
    np.testing.assert_allclose(log_p[seen], np.log(exact[seen]), atol=1e-6)
    assert not np.isnan(log_p).any()


def test_prior_is_the_exact_divergence(x64):
    """Against torch-free quadrature of KL(N(x, s^2) || N(0, d^2 + s^2)) in one dimension, 1e-9."""
    x, s, d = 0.8, 2.0, 1.5
    grid = np.linspace(-30, 30, 200_001)
    p = np.exp(-0.5 * ((grid - x) / s) ** 2) / (s * math.sqrt(2 * math.pi))
    total = d**2 + s**2
    log_ratio = -0.5 * ((grid - x) / s) ** 2 - math.log(s) + 0.5 * grid**2 / total + 0.5 * math.log(total)
    np.testing.assert_allclose(bounds.prior_kl(jnp.array([[x]]), s, d)[0], np.trapezoid(p * log_ratio, grid), atol=1e-9)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def ode_nats(y, keys, probes, tol, spacing=None):
    options = {"probes": probes, "tol": tol, "spacing": spacing}
    return ode.log_prob(denoise_eight, y, 0.05, 80.0, math.hypot(1.43, 80.0), keys, **options)


@pytest.mark.parametrize("spacing", [None, 0.1])
def test_ode_likelihood_of_eight_gaussians(spacing, x64):
    """Exact denoiser and divergence: mean |error| against the exact density at sigma_0 at most 1e-3 nats."""
    y = EIGHT.sample(jax.random.key(0), 200).astype(jnp.float64)
    y = y + 0.05 * jax.random.normal(jax.random.key(1), y.shape, jnp.float64)
    nats, stderr = ode_nats(y, None, 0, 1e-6, spacing)
    assert stderr is None
    assert jnp.abs(nats - EIGHT.log_prob_noised(y, 0.05)).mean() < 1e-3


def test_hutchinson_is_a_mean_over_probes(x64):
    """Regression (probes summed, bayesflow 772): unbiased within 3 s.e. with 1 and 4 probes; 4 halve the spread."""
    y = jnp.asarray(np.repeat(np.array([[0.3, -0.4]]), 400, axis=0))
    exact = ode_nats(y[:1], None, 0, 1e-4)[0][0]
    one, four = (ode_nats(y, keys_of(1, 400), k, 1e-4)[0] for k in (1, 4))
    assert one.std() > 0.01
    for nats in (one, four):
        assert abs(nats.mean() - exact) < 3 * nats.std() / 20 + 1e-4
    np.testing.assert_allclose(four.std() / one.std(), 0.5, rtol=0.2)


@pytest.mark.slow
def test_trapezoidal_rule_converges_exponentially(x64):
    """Gaussian data: with spacing h in log sigma the error of log p falls as exp(-pi^2 / h). Against the exact density,
    1e-3 (the prior ignores the mean of the data); and from h = 1.8 to 0.9 to 0.45, 30 times and below 1e-6."""
    y, ends = jnp.asarray(GAUSSIAN.sample(0, 4)), (1e-4, 1e4)

    def nats(spacing):
        options = {"tol": 1e-10, "spacing": spacing}
        run = lambda y: ode.log_prob(GAUSSIAN.denoise, y, *ends, math.hypot(1.0, ends[1]), **options)[0]  # noqa: E731
        return jax.jit(run)(y)

    best = nats(0.2)
    np.testing.assert_allclose(best, GAUSSIAN.log_prob(y, ends[0]), atol=1e-3)
    coarse, middle, fine = (np.abs(nats(spacing) - best).max() for spacing in (1.8, 0.9, 0.45))
    assert middle < coarse / 30 and fine < 1e-6 and coarse > 1e-3


def test_ode_transport_runs_both_ways(x64):
    """There and back: the point returns (1e-5), and the two changes of log-density cancel (1e-5)."""
    field = ode.probability_flow(denoise_eight)
    w = EIGHT.sample(jax.random.key(0), 5).astype(jnp.float64)
    there, change, _ = jax.jit(lambda w: ode.transport(field, w, -3.0, 4.0, tol=1e-10))(w)
    back, other, _ = jax.jit(lambda w: ode.transport(field, w, 4.0, -3.0, tol=1e-10))(there)
    np.testing.assert_allclose(back, w, atol=1e-5)
    np.testing.assert_allclose(change + other, 0.0, atol=1e-5)


# ---- flow matching ---------------------------------------------------------------------------------------------------


def test_velocity_of_gaussian_data_is_known(x64):
    """The marginal velocity of straight paths, E[noise - x | z_s], is the exact denoiser's `velocity`: 1e-9.

    For N(0, v) it is (s - (1 - s) v) / ((1 - s)^2 v + s^2) z.
    """
    v, s, z = 0.36, np.array([0.1, 0.5, 0.9]), np.array([[0.7], [-1.0], [2.0]])
    sigma = jnp.asarray(s / (1 - s))
    y = jnp.asarray(z / (1 - s)[:, None])
    x_hat = v / (v + sigma[:, None] ** 2) * y
    truth = ((s - (1 - s) * v) / ((1 - s) ** 2 * v + s**2))[:, None] * z
    np.testing.assert_allclose(predictions.from_data("velocity", x_hat, y, sigma), truth, rtol=1e-9)


def test_flow_matching_on_a_variance_preserving_path_is_the_weighted_noise_loss(x64):
    """z = alpha x + std eps: the squared error of dz/dt is that of the noise times (std rate / 2)^2, rate = -d log SNR
    / dt: 1e-9 on the cosine path, whose derivatives are known."""
    t = jnp.array([0.2, 0.5, 0.8])
    schedule = fixed("cosine", -2.0 * math.log(math.tan(1e-3)), 2.0 * math.log(math.tan(1e-3)))
    angle = 1e-3 + t * (math.pi / 2 - 2e-3)
    alpha, std, speed = jnp.cos(angle), jnp.sin(angle), math.pi / 2 - 2e-3
    x, eps, x_hat = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 4)))
    y = x + schedule.sigma(t)[:, None] * eps
    eps_hat = (y - x_hat) / schedule.sigma(t)[:, None]
    velocity = lambda x, eps: speed * (-std[:, None] * x + alpha[:, None] * eps)  # noqa: E731
    error = jnp.square(velocity(x_hat, eps_hat) - velocity(x, eps)).sum(-1)
    of_noise = losses.noise_error(lambda y, sigma, cond: x_hat, x, schedule.sigma(t), eps)
    np.testing.assert_allclose(error, (0.5 * std * schedule.rate(t)) ** 2 * of_noise, rtol=1e-9)


def test_one_euler_step_of_a_straight_path_is_exact(x64):
    """Data in one point, coupled to noise by straight lines: one step of any size lands on it (1e-12)."""
    point = jnp.array([0.3, -2.0])
    denoise = lambda y, sigma, cond: jnp.broadcast_to(point, y.shape)  # noqa: E731
    y = point[None] + 80.0 * jax.random.normal(jax.random.key(0), (4, 2), jnp.float64)
    x = denoising.run(denoising.euler(denoise, [80.0, 0.0]), y, 1)
    np.testing.assert_allclose(x, jnp.broadcast_to(point, (4, 2)), atol=1e-12)


def test_euler_on_velocity_is_euler_on_sigma(x64):
    """A straight-path Euler step in s, z <- z + (s' - s) velocity, is our step in sigma: 1e-12 (any affine path is)."""
    y, s, s_next = jnp.array([[1.0, 2.0]]), 0.7, 0.6
    sigma, sigma_next = s / (1 - s), s_next / (1 - s_next)
    velocity = predictions.from_data("velocity", GAUSSIAN_2D(y, sigma), y, jnp.array([sigma]))
    z = (1 - s) * y + (s_next - s) * velocity
    ours = denoising.run(denoising.euler(lambda y, sig, c: GAUSSIAN_2D(y, sig[0]), [sigma, sigma_next]), y, 1)
    np.testing.assert_allclose(z / (1 - s_next), ours, rtol=1e-12)


def GAUSSIAN_2D(y, sigma):  # noqa: N802
    return 0.5 / (0.5 + sigma**2) * y


# ---- integers --------------------------------------------------------------------------------------------------------


def test_levels_denoiser_is_bayes_rule(x64):
    """Log-probabilities of the grey values as the prior: x_hat is the posterior mean (1e-9), and rounds at last."""
    levels, rng = 5, np.random.default_rng(0)
    logits = rng.standard_normal((3, 2, levels))
    sigma, y = np.array([0.05, 0.4, 3.0]), rng.uniform(-1, 1, (3, 2))
    denoise = predictions.levels_denoiser(lambda z, log_sigma, cond: jnp.asarray(logits), levels)
    values, truth = np.linspace(-1, 1, levels), np.zeros((3, 2))
    for b in range(3):
        for d in range(2):
            p = np.exp(logits[b, d]) * np.exp(-0.5 * ((y[b, d] - values) / sigma[b]) ** 2)
            truth[b, d] = (p * values).sum() / p.sum()
    np.testing.assert_allclose(denoise(jnp.asarray(y), jnp.asarray(sigma)), truth, atol=1e-9)
    nearest = values[np.abs(y[..., None] - values).argmin(-1)]
    np.testing.assert_allclose(denoise(jnp.asarray(y), jnp.full(3, 1e-3)), nearest, atol=1e-9)
