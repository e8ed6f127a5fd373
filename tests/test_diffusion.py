"""The diffusion family: its parts put together, guidance on it, its training against exact answers, bad input.

The mathematics of schedules, samplers and bounds has exact answers of its own in tests/test_denoising.py.
"""

import dataclasses
import functools
import importlib.util
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_denoising import GAUSSIAN, keys_of
from variants import chosen

from genmap_jax.approximate import diffusion
from genmap_jax.keys import example_keys
from genmap_jax.optim import Optim
from genmap_jax.processes.log_snr import fixed
from genmap_jax.samplers import denoising, guidance, ode
from genmap_jax.spaces import Space, images, vectors

FOLDER = Path(__file__).parents[1] / "experiments"
TINY = {"width": 16, "blocks": 1, "sample_steps": 4}


def fresh(algorithm):
    """The state before training; the values of the first batch do not matter."""
    return jax.jit(algorithm.init)(jax.random.key(0), {name: space.zeros(2) for name, space in algorithm.reads.items()})


def perturbed(cfg, seed=0):
    """Parameters off their zeros."""
    params = fresh(diffusion.algorithm(cfg, batch_size=2)).params
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape).astype(np.float32), params)


# ---- guidance and inpainting -----------------------------------------------------------------------------------------


def isotropic(mean, v):
    """The exact denoiser of N(mean, v I)."""
    return lambda y, sigma, cond=None: mean + v / (v + sigma[:, None] ** 2) * (y - mean)


@pytest.mark.slow
def test_guidance_one_is_conditional_and_zero_unconditional_exactly():
    cfg = diffusion.Config(vectors(3), **TINY, classes=4)
    denoise = diffusion.denoiser(cfg, perturbed(cfg))
    y, sigma, label = jax.random.normal(jax.random.key(1), (5, 3)), jnp.linspace(0.1, 5.0, 5), jnp.arange(5) % 4
    weak = guidance.unconditional(denoise, 4)
    at = lambda w, **o: guidance.guided(denoise, weak, w, **o)(y, sigma, label)  # noqa: E731
    strong, none = denoise(y, sigma, label), denoise(y, sigma, jnp.full(5, 4))
    np.testing.assert_array_equal(at(1.0), strong)
    np.testing.assert_array_equal(at(0.0), none)
    assert jnp.abs(strong - none).max() > 0.01
    inside = at(3.0, interval=(0.5, 3.0))
    np.testing.assert_array_equal(inside[jnp.array([0, 3, 4])], strong[jnp.array([0, 3, 4])])
    np.testing.assert_allclose(inside[1:3], (3 * strong - 2 * none)[1:3], rtol=1e-5, atol=1e-6)
    spread = lambda x: jnp.std(x, axis=1)  # noqa: E731
    np.testing.assert_allclose(spread(at(3.0, rescale=1.0)), spread(strong), rtol=1e-4)
    np.testing.assert_allclose(at(3.0, rescale=0.5), (at(3.0) + at(3.0, rescale=1.0)) / 2, rtol=1e-5, atol=1e-6)


def test_guidance_moves_the_mean_of_two_gaussians_in_closed_form():
    """Strong and weak model N(+-m, v) of one covariance: guided by w, the ODE ends at mean m (2 w - 1), 1e-3; so does
    autoguidance, where the weak model is another network: the formula does not know."""
    m, v, w = jnp.array([[1.0, -0.5]]), 0.25, 2.5
    sigmas = denoising.grid(fixed("karras", 12.0, -9.0), 200)
    denoise = guidance.guided(isotropic(m, v), isotropic(-m, v), w)
    y = 80.0 * jax.random.normal(jax.random.key(0), (4, 2))
    x = jax.jit(lambda y: denoising.run(denoising.heun(denoise, sigmas), y, 200))(y)
    own = (2 * w - 1) * m  # the guided denoiser is the exact one of N(own, v)
    truth = own + math.sqrt(v / (v + float(sigmas[0]) ** 2)) * (y - own)
    np.testing.assert_allclose(x, truth, atol=2e-3)


def test_rescaled_guidance_of_data_without_spread_is_finite():
    """One dimension has no spread to bring back: 0 / 0 otherwise."""
    strong, weak = (lambda y, sigma, cond=None, a=a: a * y for a in (0.5, 0.25))
    y = jnp.array([[1.0], [-2.0]])
    plain, rescaled = (guidance.guided(strong, weak, 2.0, rescale=share) for share in (0.0, 0.7))
    np.testing.assert_allclose(rescaled(y, jnp.ones(2)), plain(y, jnp.ones(2)), rtol=1e-6)


def test_labels_are_dropped_at_the_configured_rate():
    """The null label reaches the network in a share of 0.3 of the examples: within 4 binomial s.e."""
    cfg = diffusion.Config(vectors(1), **TINY, classes=4, label_drop=0.3, prediction="x0", weighting="output")
    params = fresh(diffusion.algorithm(cfg, batch_size=2)).params
    table = jnp.zeros_like(params["network"]["Embed_0"]["embedding"]).at[4].set(jnp.inf)  # only "none" leaves a trace
    params["network"]["Embed_0"]["embedding"] = table
    n = 4000
    batch = {"x": jnp.ones((n, 1)), "label": jnp.arange(n) % 4, "t": jnp.full(n, 0.5)}
    loss = jax.jit(diffusion.training_loss(cfg))(params, keys_of(0, n), batch)["loss"]
    share = float((~jnp.isfinite(loss)).mean())
    assert abs(share - 0.3) < 4 * math.sqrt(0.21 / n)


def test_inpainting_keeps_what_is_known_and_fills_in_the_rest():
    """Known coordinates exactly; of a Gaussian of independent coordinates the others keep their law (4 s.e.); of a
    correlated one they move towards the conditional mean."""
    n, rho = 4000, 0.8
    covariance = jnp.array([[1.0, rho], [rho, 1.0]])
    values, axes = jnp.linalg.eigh(covariance)

    def denoise(y, sigma, cond=None):
        return ((y @ axes) * (values[None] / (values[None] + sigma[:, None] ** 2))) @ axes.T

    known, mask = jnp.array([[1.0, 0.0]]), jnp.array([[True, False]])
    sigmas = denoising.grid(fixed("karras", 9.0, -6.0), 100)

    def fill(denoise):
        step = denoising.ancestral(guidance.inpainting(denoise, known, mask), sigmas, keys_of(1, n))
        start = denoising.start(math.hypot(1.0, sigmas[0]), keys_of(0, n), (2,))
        return np.asarray(jax.jit(lambda y: denoising.run(step, y, 100))(start))

    x = fill(isotropic(jnp.zeros((1, 2)), 1.0))
    assert np.all(x[:, 0] == 1.0)
    assert abs(x[:, 1].mean()) < 4 / math.sqrt(n) and abs(x[:, 1].std() - 1) < 0.05
    x = fill(denoise)
    assert np.all(x[:, 0] == 1.0) and 0.5 * rho < x[:, 1].mean() < 1.05 * rho


# ---- likelihood ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood, steps", chosen([("bound", None), ("bound", 3), ("ode", None)], [("bound", 3)]))
def test_likelihood_is_of_the_label_it_is_given(likelihood, steps):
    """Regression (improved-diffusion 126: the label did not reach the bound): other labels, other values."""
    options = {"likelihood": likelihood, "bound_steps": steps, "bound_draws": 4, "log_snr_max": 6.0}
    cfg = diffusion.Config(vectors(2), **TINY, classes=3, **options)
    algorithm = diffusion.algorithm(cfg, batch_size=4)
    state = fresh(algorithm)
    state = state.replace(params=perturbed(cfg))
    log_prob = jax.jit(algorithm.log_prob)
    at = lambda label: log_prob(state, {"x": jnp.ones((4, 2)), "label": jnp.full(4, label)}, jax.random.key(1)).nats  # noqa: E731
    assert jnp.all(jnp.abs(at(0) - at(1)) > 1e-4)


@pytest.mark.slow
def test_untrained_model_of_images_is_a_distribution_of_integers():
    """F = 0 is the exact denoiser of N(0, data_std^2): bound and ODE of 2 pixels sum to at most 1, and nearly to it.

    Over all 5 x 5 images. The bound loses at most a few percent; the ODE's estimate is within 3 % of one.
    """
    levels, shape = 5, (2, 1, 1)
    cfg = diffusion.Config(
        images(*shape, levels), **TINY, **diffusion.EDM, data_std=0.5, log_snr_max=4.0, log_snr_min=-8.0
    )
    values = np.stack(np.meshgrid(np.arange(levels), np.arange(levels)), -1).reshape(-1, 2)
    many = np.repeat(values, 200, axis=0).astype(np.uint8).reshape(-1, *shape)
    for likelihood in ("bound", "ode"):
        algorithm = diffusion.algorithm(dataclasses.replace(cfg, likelihood=likelihood, bound_draws=8), batch_size=2)
        state = fresh(algorithm)
        nats = jax.jit(algorithm.log_prob)(state, {"image": many}, jax.random.key(1)).nats
        total = np.exp(np.asarray(nats, np.float64).reshape(25, 200).mean(1)).sum()
        assert 0.7 < total < 1.02, (likelihood, total)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("preset, tol", [("VDM", 0.1), ("FLOW_MATCHING", 0.05), ("EDM2", 0.05)])
def test_training_finds_a_gaussian(preset, tol):
    """Three correlated dimensions, 500 updates: ODE likelihood within `tol` nats of the exact density, samples fit.

    For flow matching this is its theorem: the learned marginal velocity is the known one of Gaussian data.
    """
    cfg = diffusion.Config(
        vectors(3),
        **getattr(diffusion, preset),
        **{"log_snr_max": 7.0, "log_snr_min": -6.0, "width": 64, "blocks": 1, "sample_steps": 50},
        **{"likelihood": "ode", "tol": 1e-3, "optim": Optim(lr=5e-3, decay=500 * 512)},
    )
    algorithm = diffusion.algorithm(cfg, batch_size=512)
    state, step = fresh(algorithm), jax.jit(algorithm.step, donate_argnums=0)
    data = GAUSSIAN.sample(0, 500 * 512).astype(np.float32).reshape(500, 512, 3)
    for i in range(500):
        state, _ = step(state, {"x": data[i]}, jax.random.key(i))
    x = GAUSSIAN.sample(1, 256).astype(np.float32)
    nats = jax.jit(algorithm.log_prob)(state, {"x": x}, jax.random.key(0)).nats
    assert abs((nats - GAUSSIAN.log_prob(x)).mean()) < tol
    samples = jax.jit(algorithm.sample, static_argnums=2)(state, jax.random.key(1), 2000)
    np.testing.assert_allclose(samples.mean(0), GAUSSIAN.mean, atol=0.12)
    np.testing.assert_allclose(np.cov(samples.T), GAUSSIAN.covariance, atol=0.2)


def test_sampler_of_the_algorithm_is_the_free_function():
    """Same key: `sample` is start, grid, solver and denoiser put together; labels given are the labels used."""
    cfg = diffusion.Config(vectors(2), **TINY, **diffusion.EDM, classes=3, guidance=2.0)
    algorithm = diffusion.algorithm(cfg, batch_size=2)
    params = perturbed(cfg)
    state = fresh(algorithm).replace(params=params)
    label = jnp.array([0, 1, 2, 1])
    drawn = jax.jit(algorithm.sample, static_argnums=2)(state, jax.random.key(5), 4, {"label": label})
    keys = example_keys(jax.random.split(jax.random.key(5), 3)[0], 4)
    sigmas = diffusion.sigmas_of(cfg)
    denoise = diffusion.denoiser(cfg, params)
    guided = guidance.guided(denoise, guidance.unconditional(denoise, 3), 2.0)
    start = denoising.start(math.hypot(cfg.data_std, sigmas[0]), keys, (2,))
    by_hand = jax.jit(lambda y: denoising.run(denoising.heun(guided, sigmas, cond=label), y, 4))(start)
    np.testing.assert_allclose(drawn, by_hand, rtol=1e-4, atol=1e-5)
    assert algorithm.evaluations == 2 * (2 * 4 - 1)


@pytest.mark.slow
def test_quality_is_measured_at_the_evaluations_asked(monkeypatch, tmp_path):
    """experiments/sampler_steps.py: three draws of every sampler at every number, and a picture."""
    spec = importlib.util.spec_from_file_location("sampler_steps", FOLDER / "sampler_steps.py")
    sampler_steps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sampler_steps)
    monkeypatch.setattr(sampler_steps, "EVALUATIONS", (4, 8))
    monkeypatch.setattr(sampler_steps, "SAMPLERS", {k: sampler_steps.SAMPLERS[k] for k in ("Euler", "Heun")})
    cfg = diffusion.Config(vectors(2), **TINY, **diffusion.EDM)
    state = fresh(diffusion.algorithm(cfg, batch_size=2))
    results = sampler_steps.measure(diffusion.FAMILY, cfg, state, np.random.default_rng(0).standard_normal((50, 2)), 1)
    assert {name: {n: len(v) for n, v in row.items()} for name, row in results.items()} == {
        "Euler": {4: 3, 8: 3},
        "Heun": {4: 3, 8: 3},
    }
    sampler_steps.draw(results, 1e-3, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 1000


def test_ode_sampler_of_a_fresh_model():
    """F = 0 is the exact denoiser of N(0, data_std^2): samples have its spread, within 4 s.e."""
    cfg = diffusion.Config(vectors(2), **TINY, **diffusion.EDM | {"sampler": "ode"}, data_std=1.5)
    algorithm = diffusion.algorithm(cfg, batch_size=2)
    state = fresh(algorithm)
    x = jax.jit(algorithm.sample, static_argnums=2)(state, jax.random.key(1), 2000)
    np.testing.assert_allclose(x.std(0), 1.5, atol=4 * 1.5 / math.sqrt(4000))
    assert algorithm.trajectory is None and algorithm.evaluations is None


@pytest.mark.parametrize(
    "field, change",
    [
        ("schedule", {"schedule": "cosinus"}),
        ("prediction", {"prediction": "noise"}),
        ("weighting", {"schedule": "learned", "weighting": "simple"}),
        ("log_snr_min", {"log_snr_min": 20.0}),
        ("space.shape", {"space": Space((8, 8), 17)}),
        ("space.levels", {"space": images(8, 8, 1, 1)}),
        ("network", {"space": vectors(2), "network": "dit"}),
        ("channel_mult", {"space": images(6, 6, 1), "network": "adm", "channel_mult": (1, 2, 2)}),
        ("patch", {"space": images(7, 7, 1), "network": "dit"}),
        ("width", {"network": "dit", "width": 100}),
        ("sample_steps", {"sample_steps": 0}),
        ("sample_steps", {"sampler": "dpmpp_2m", "sample_steps": 1}),
        ("eta", {"eta": 2.0}),
        ("guidance", {"guidance": 2.0}),
        ("guidance", {"guidance": 2.0, "classes": 10, "label_drop": 0.0}),
        ("label_drop", {"label_drop": 1.0}),
        ("data_std", {"data_std": 0.0}),
        ("bound_steps", {"bound_steps": 0}),
        ("power_ema", {"power_ema": (0.5,)}),
    ],
)
def test_bad_configurations_name_the_field(field, change):
    with pytest.raises(ValueError, match=f"{field}="):
        diffusion.algorithm(diffusion.Config(**{"space": images(8, 8, 1), **change}), batch_size=2)


def test_labels_are_checked_before_compilation():
    plain = diffusion.algorithm(diffusion.Config(vectors(2), **TINY), batch_size=2)
    with pytest.raises(ValueError, match="unconditional"):
        plain.sample(None, jax.random.key(0), 2, {"label": jnp.array([0, 1])})
    labelled = diffusion.algorithm(diffusion.Config(vectors(2), **TINY, classes=3), batch_size=2)
    for label in (-1, 3):  # 3 stands for "none" inside the model, and only there
        with pytest.raises(ValueError, match=r"0\.\.2"):
            labelled.sample(None, jax.random.key(0), 2, {"label": np.array([0, label])})
    with pytest.raises(ValueError, match="cond=None"):
        labelled.sample(None, jax.random.key(0), 2)


def test_ode_of_a_linear_field_is_exact():
    """The denoiser of N(0, v), wherever it came from: its ODE density is N(0, v + sigma_0^2), 1e-3, in float32."""
    x = np.array([[0.5, -1.0], [2.0, 0.1]])
    v, sigma_0 = 0.4, 0.05
    denoise = isotropic(0.0, v)
    run = jax.jit(
        functools.partial(ode.log_prob, denoise, sigma_0=sigma_0, sigma_1=50.0, prior_std=math.hypot(v**0.5, 50.0))
    )
    nats, _ = run(jnp.asarray(x, jnp.float32))
    truth = jax.scipy.stats.norm.logpdf(x, scale=math.sqrt(v + sigma_0**2)).sum(-1)
    np.testing.assert_allclose(nats, truth, atol=1e-3)
