"""PixelCNN: what a pixel sees, probabilities that sum to one, three samplers that agree, learning a known source."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_expit, logsumexp
from scipy.stats import chi2
from variants import chosen

from genmap_jax.algorithm import init_state, like_batch
from genmap_jax.keys import example_keys, uniform
from genmap_jax.likelihoods import mixture_of_logistics
from genmap_jax.nn.reparametrise import weight_norm
from genmap_jax.optim import Optim
from genmap_jax.spaces import images, vectors
from genmap_jax.tractable import pixelcnn
from genmap_jax.tractable.pixelcnn import head, network
from genmap_jax.units import bits_per_dim

KEY = jax.random.key(0)
TINY = {"filters": 6, "blocks": 1, "scales": 2, "mixtures": 2, "dropout": 0.0}


def config(*shape, levels=4, **changes):
    return pixelcnn.Config(space=images(*shape, levels=levels), **(TINY | changes))


def random_images(cfg, n, seed=0):
    return np.random.default_rng(seed).integers(0, cfg.space.levels, (n, *cfg.space.shape)).astype(np.uint8)


@functools.cache
def perturbed(cfg, scale=0.3, seed=1):
    """Random parameters, without the seconds that compiling an initialisation takes: kernels of any length, gains about
    1, and all others about 0, among them tables that start at zero and would hide mistakes."""
    label = None if cfg.classes is None else jnp.zeros(2, jnp.int32)
    shapes = jax.eval_shape(functools.partial(pixelcnn.init_params, cfg), KEY, cfg.space.zeros(2), label)
    rng = np.random.default_rng(seed)

    def draw(path, p):
        name = path[-1].key
        return (name == "gain") + (1.0 if name == "kernel" else scale) * rng.standard_normal(p.shape)

    return jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), jax.tree.map_with_path(draw, shapes))


# ---- what a pixel sees -----------------------------------------------------------------------------------------------


def seen_pixels(cfg):
    """Which pixels the outputs of each pixel depend on, by the Jacobian: bool [H W of outputs, H W of inputs]."""
    height, width, _ = cfg.space.shape
    params = weight_norm(perturbed(cfg))
    x = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (1, *cfg.space.shape)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(3).normal(size=head.outputs(cfg)), jnp.float32)

    @jax.jit
    def jacobian(x):
        out, pull = jax.vjp(lambda x: pixelcnn.PixelCNN(cfg).apply({"params": params}, x), x)
        one = lambda t: pull((jax.nn.one_hot(t, height * width)[:, None] * weights[None]).reshape(out.shape))[0]  # noqa: E731
        return jax.vmap(one)(jnp.arange(height * width))

    return np.abs(np.asarray(jacobian(x))).reshape(height * width, height * width, -1).max(-1) != 0.0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="strides"),
        pytest.param({"scales": 1, "attention": (0,)}, id="attention", marks=pytest.mark.slow),
        pytest.param({"scales": 3, "blocks": 2, "attention": (1, 2)}, id="8x8", marks=pytest.mark.slow),
    ],
)
def test_the_jacobian_is_exactly_zero_for_the_future_and_nowhere_zero_for_the_past(changes):
    side = 8 if changes.get("blocks") else 6  # one block reaches no further
    cfg = config(side, side, 3, head="categorical", **changes)
    np.testing.assert_array_equal(seen_pixels(cfg), np.tri(side * side, k=-1, dtype=bool))


@pytest.mark.slow
def test_without_long_skips_the_nearest_pixels_are_lost():
    """What two pixels of one coarse pixel know of each other passes by the skips alone. The future stays unseen."""
    seen = seen_pixels(config(8, 8, 1, skips=False))
    assert not (seen & ~np.tri(64, k=-1, dtype=bool)).any()
    assert not seen[1, 0] and seen[2, 0] and seen[63].sum() > 40


@pytest.mark.slow
def test_masked_convolutions_with_strides_see_no_future():
    """A masked convolution may write to the column before its pixel only where it is not transposed."""
    seen = seen_pixels(config(8, 8, 1, network="masked", scales=3, attention=(1,)))
    assert not (seen & ~np.tri(64, k=-1, dtype=bool)).any() and seen[63].sum() > 40


def test_masked_convolutions_have_a_blind_spot():
    """However deep: of the row above, nothing further right than the first window reaches. Two streams see all."""
    seen = seen_pixels(config(8, 8, 1, **pixelcnn.GATED | {"filters": 4, "blocks": 2}))
    assert not (seen & ~np.tri(64, k=-1, dtype=bool)).any()
    at, above = 3 * 8 + 1, 2 * 8
    assert seen[at, above : above + 5].all() and not seen[at, above + 5 : above + 8].any()


@pytest.mark.parametrize("kind", ["logistic", "categorical"])
def test_a_channel_is_told_of_the_channels_before_it_and_of_no_others(kind):
    cfg = config(2, 2, 3, levels=5, head=kind)
    params, rng = perturbed(cfg), np.random.default_rng(4)
    out = jnp.asarray(rng.normal(size=(7, head.outputs(cfg))), jnp.float32)
    v = rng.integers(0, 5, (7, 3)).astype(np.int32)
    log_prob = jax.jit(functools.partial(head.log_prob, cfg))
    log_pmf = jax.jit(functools.partial(head.log_pmf, cfg), static_argnums=3)
    terms = np.asarray(log_prob(params, out, v))
    for changed in range(3):
        moved = np.asarray(log_prob(params, out, (v + (np.arange(3) == changed)) % 5))
        np.testing.assert_array_equal(moved[:, :changed], terms[:, :changed])
        assert (moved[:, changed:] != terms[:, changed:]).all()
    for c in range(3):
        pmf = np.asarray(log_pmf(params, out, v, c))
        np.testing.assert_allclose(np.take_along_axis(pmf, v[:, c : c + 1], 1)[:, 0], terms[:, c], atol=1e-5)
        np.testing.assert_allclose(np.exp(pmf).sum(-1), 1.0, atol=1e-5)


def test_the_derivative_of_a_channel_by_those_after_it_is_zero():
    """Of log p(R), log p(G | R), log p(B | R, G) by R, G, B."""
    cfg, rng = config(2, 2, 3, levels=5), np.random.default_rng(4)
    out, v = (jnp.asarray(rng.normal(size=(7, n)), jnp.float32) for n in (head.outputs(cfg), 3))
    derivative = jax.jit(jax.vmap(jax.jacfwd(lambda v, out: head.log_prob(cfg, {}, out, v))))(v + 2.0, out)
    assert (np.asarray(derivative) != 0.0).tolist() == [np.tri(3, dtype=bool).tolist()] * 7


# ---- the mixture of logistics ----------------------------------------------------------------------------------------


def exact_bins(v, mean, log_scale, levels):
    """log of differences of the logistic CDF in float64, taken in the tail where they lose no digits."""
    a, b = (v + 0.5 - mean) / np.exp(log_scale), (v - 0.5 - mean) / np.exp(log_scale)
    upper = a + b > 0
    a, b = np.where(upper, -b, a), np.where(upper, -a, b)
    inside = log_expit(a) + np.log1p(-np.exp(log_expit(b) - log_expit(a)))
    first, last = log_expit((0.5 - mean) / np.exp(log_scale)), log_expit((mean - levels + 1.5) / np.exp(log_scale))
    return np.where(v == 0, first, np.where(v == levels - 1, last, inside))


compiled_mixture = jax.jit(mixture_of_logistics, static_argnums=5)


def mixtures(n=200, K=10, seed=5):
    """Means over the range of 256 grey values and log-scales -9..1 where that range is [-1, 1]; in grey levels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 1, K)).astype(np.float32)
    mean = rng.uniform(-0.5, 255.5, (n, 1, 1, K)).astype(np.float32)
    log_scale = (rng.uniform(-9.0, 1.0, (n, 1, 1, K)) + math.log(127.5)).astype(np.float32)
    return logits, mean, log_scale


def test_the_mixture_sums_to_one_and_every_value_is_exact():
    logits, mean, log_scale = mixtures()
    v = np.arange(256)[None, :, None]
    none = jnp.zeros((200, 1, 0, 10))
    ours = compiled_mixture(jnp.asarray(v), logits, mean, log_scale, none, 256)
    ours = np.asarray(ours, np.float64)[..., 0]
    assert np.abs(np.exp(ours).sum(1) - 1.0).max() <= 5e-6
    logits, mean, log_scale = (x.astype(np.float64) for x in (logits, mean, log_scale))
    bins = exact_bins(v[..., None], mean, log_scale, 256)[:, :, 0]
    truth = logsumexp(logits - logsumexp(logits, -1, keepdims=True) + bins, axis=-1)
    # Up to thousands of nats, of which float32 cannot hold 1e-4: beyond 50 nats the error is relative.
    assert (np.abs(ours - truth) / np.maximum(1.0, np.abs(truth) / 50.0)).max() <= 1e-4


def test_channels_of_a_mixture_share_its_component():
    """Three channels beside the definition in float64: a component is drawn for the pixel, not for the channel."""
    rng = np.random.default_rng(6)
    K, levels, n = 4, 9, 50
    logits, mean = rng.normal(size=(n, K)), rng.uniform(0, 8, (n, 3, K))
    log_scale, coupling = rng.uniform(-1, 1, (n, 3, K)), rng.uniform(-1, 1, (n, 3, K))
    v = rng.integers(0, levels, (n, 3))
    x = v[:, :, None] - 4.0
    moved = mean.copy()
    moved[:, 1] += coupling[:, 0] * x[:, 0]
    moved[:, 2] += coupling[:, 1] * x[:, 0] + coupling[:, 2] * x[:, 1]
    bins = exact_bins(v[:, :, None], moved, log_scale, levels).sum(1)
    truth = logsumexp(logits + bins, axis=-1) - logsumexp(logits, axis=-1)
    parts = [jnp.asarray(part, jnp.float32) for part in (logits, mean, log_scale, coupling)]
    ours = compiled_mixture(jnp.asarray(v), *parts, levels)
    assert ours.shape == (n, 3)
    np.testing.assert_allclose(ours.sum(-1), truth, atol=1e-4)


def test_bins_of_little_mass_are_exact_where_the_code_of_the_paper_takes_a_density():
    """Regression on others: where a difference of sigmoids is below 1e-5 it is replaced by the density in the middle of
    the bin, which misses single values by more than 2 nats. Ours does not, and has finite gradients."""
    log_scale, mean = math.log(127.5) - 7.0, 100.0
    v = np.arange(1, 255)
    truth = exact_bins(v, mean, log_scale, 256)
    t = (v - mean) / math.exp(log_scale)
    published = np.where(truth > math.log(1e-5), truth, t - log_scale - 2.0 * np.logaddexp(0.0, t))
    assert np.abs(published - truth).max() > 2.0
    as_pixel = lambda x: jnp.full((len(v), 1, 1), x, jnp.float32)  # noqa: E731

    def ours(mean, log_scale):
        none = jnp.zeros((len(v), 0, 1))
        nats = mixture_of_logistics(jnp.asarray(v)[:, None], jnp.zeros((len(v), 1)), mean, log_scale, none, 256)[:, 0]
        return nats.sum(), nats

    both = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True))
    (_, nats), gradients = both(as_pixel(mean), as_pixel(log_scale))
    np.testing.assert_allclose(nats, truth, rtol=2e-6, atol=1e-4)
    for gradient in gradients:
        assert bool(jnp.isfinite(gradient).all()) and (jnp.abs(gradient) > 0).mean() > 0.9


def test_the_discrete_likelihood_is_at_least_that_of_the_dequantised_density():
    """log of the mass of a bin >= mean of the log-density over the bin (Jensen; Theis et al. 2016, eq. 3)."""
    logits, mean, log_scale = mixtures(n=50, seed=7)
    v = np.arange(256)[None, :, None]
    mass = compiled_mixture(jnp.asarray(v), logits, mean, log_scale, jnp.zeros((50, 1, 0, 10)), 256)[..., 0]
    nodes, weights = np.polynomial.legendre.leggauss(16)
    logits, mean, log_scale = (x.astype(np.float64)[..., None] for x in (logits[:, :, None], mean, log_scale))
    t = (v[..., None, None] + nodes / 2.0 - mean) / np.exp(log_scale)  # [n, 256, 1, K, nodes]
    density = logits - logsumexp(logits, 3, keepdims=True) + t - log_scale - 2.0 * np.logaddexp(0.0, t)
    dequantised = (logsumexp(density, axis=3)[:, :, 0] * weights / 2.0).sum(-1)
    assert (np.asarray(mass) >= dequantised - 1e-4 * np.maximum(1.0, np.abs(dequantised) / 50.0)).all()
    assert (np.asarray(mass) - dequantised).max() > 0.1


# ---- whole images ----------------------------------------------------------------------------------------------------

# Where any network and any sampler would show the same: those that compile fastest.
smallest = functools.partial(config, **pixelcnn.GATED | {"filters": 6, "blocks": 1}, sampler="naive")
SMALL = {
    "bernoulli": config(2, 2, 1, levels=2, scales=1, head="bernoulli"),
    "logistic": config(2, 2, 1, levels=4),
    "categorical": config(2, 2, 1, levels=4, head="categorical", attention=(0,)),
    "colour": config(1, 2, 3, levels=2, scales=1, head="bernoulli", sampler="naive"),
    "masked": smallest(2, 2, 1, levels=4),
}


def every_image(cfg):
    values = itertools.product(range(cfg.space.levels), repeat=cfg.space.dims)
    return np.array(list(values), np.uint8).reshape(-1, *cfg.space.shape)


@functools.cache
def law(cfg, scale=1.0):
    """The probability of every image, float64."""
    log_prob = jax.jit(functools.partial(pixelcnn.log_prob, cfg))
    return np.exp(np.asarray(log_prob(perturbed(cfg, scale), every_image(cfg)), np.float64))


@pytest.mark.parametrize("name", chosen(SMALL, ("bernoulli", "logistic", "colour")))
def test_probabilities_of_all_images_sum_to_one(name):
    p = law(SMALL[name])
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    assert p.max() / p.min() > 5.0  # not a trivial model


def frequencies(cfg, drawn):
    """How often every image was drawn, in the order of `every_image`."""
    digits = cfg.space.as_batch(drawn).reshape(len(drawn), -1).astype(int)
    return np.bincount(digits @ cfg.space.levels ** np.arange(cfg.space.dims)[::-1], minlength=len(every_image(cfg)))


def assert_law(counts, p):
    """Chi-square at p = 1e-4, over images that are expected at least five times; the rest is one class."""
    expected = counts.sum() * p / p.sum()
    often = expected >= 5.0
    counts, expected = (np.append(x[often], x[~often].sum()) for x in (counts, expected))
    keep = expected > 0
    assert counts[~keep].sum() == 0
    counts, expected = counts[keep], expected[keep]
    assert ((counts - expected) ** 2 / expected).sum() < chi2(len(counts) - 1).ppf(1 - 1e-4)


def drawn(cfg, params, n, label=None, known=None, seed=9):
    draw = jax.jit(lambda keys, label, known: pixelcnn.generate(cfg, params, keys=keys, label=label, known=known))
    return draw(example_keys(jax.random.key(seed), n), label, known)


@pytest.mark.parametrize("name", chosen(("colour", "logistic"), ("colour",)))
def test_samples_have_the_frequencies_of_the_density(name):
    cfg = SMALL[name]
    assert_law(frequencies(cfg, drawn(cfg, perturbed(cfg, 1.0), 10_000)[0]), law(cfg))


def test_temperature_sharpens_every_channel():
    """The law at temperature 1/2 of a model of one pixel is its squared pmf, normalised."""
    cfg = smallest(1, 1, 1, levels=9, temperature=0.5)
    p = law(cfg) ** 2
    assert_law(frequencies(cfg, drawn(cfg, perturbed(cfg, 1.0), 10_000)[0]), p)


def test_completions_have_the_law_given_the_known_pixels():
    """The first pixel is known: one candidate is exact. The last is known: one candidate is not, many are."""
    cfg = smallest(1, 2, 1, levels=4)
    params, everything, n = perturbed(cfg, 3.0), every_image(cfg), 2000
    complete = {
        count: jax.jit(functools.partial(pixelcnn.complete, dataclasses.replace(cfg, candidates=count)))
        for count in (1, 16)
    }

    def given(first, last, candidates):
        known = np.array([[[[first], [last]]]]).repeat(n, axis=0)
        images = complete[candidates](params, example_keys(jax.random.key(11), n), known)
        fixed = known[0] >= 0
        assert (np.asarray(images)[:, fixed] == known[:, fixed]).all()
        match = (everything[:, fixed] == known[0][fixed]).all(-1)
        return frequencies(cfg, images), np.where(match, law(cfg, 3.0), 0.0)

    assert_law(*given(1, -1, 1))
    assert_law(*given(-1, 2, 16))
    with pytest.raises(AssertionError):
        assert_law(*given(-1, 2, 1))


# ---- three samplers --------------------------------------------------------------------------------------------------


def agreement(cfg, n, known=None, label=None):
    """Images of the three samplers under one noise, and the number of sweeps of the fixed-point iteration."""
    params = perturbed(cfg, 0.1)
    noise = uniform(example_keys(KEY, n), cfg.space.shape)
    found = {}
    for sampler in ("naive", "cached", "fixed_point"):
        chosen = dataclasses.replace(cfg, sampler=sampler)
        draw = jax.jit(
            lambda noise, label, known, cfg=chosen: pixelcnn.generate(
                cfg, params, noise=noise, label=label, known=known
            )
        )
        found[sampler], count = draw(noise, label, known)
    np.testing.assert_array_equal(found["cached"], found["naive"])
    np.testing.assert_array_equal(found["fixed_point"], found["naive"])
    pixels = cfg.space.shape[0] * cfg.space.shape[1]
    assert 1 < int(count) <= pixels
    assert len(np.unique(found["naive"])) > 3 and len(np.unique(np.asarray(found["naive"]), axis=0)) == n
    return found["naive"], int(count)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"head": "categorical"}, id="strides"),
        pytest.param({"network": "masked", "attention": (0, 1)}, id="masked strides", marks=pytest.mark.slow),
        pytest.param({"scales": 1, "attention": (0,), "skips": False}, id="attention", marks=pytest.mark.slow),
    ],
)
def test_three_samplers_draw_the_same_64_images(changes):
    agreement(config(8, 8, 1, levels=17, **changes), 64)


@pytest.mark.slow
def test_three_samplers_draw_the_same_images_of_32x32():
    """In colour, with guidance, and a hole to fill."""
    cfg = config(32, 32, 3, levels=256, scales=3, classes=10, label_drop=0.1, guidance=2.0)
    known = random_images(cfg, 4).astype(np.int32)
    known[:, 8:24, 8:24] = -1
    drawn, sweeps = agreement(cfg, 4, label=jnp.arange(4))
    assert sweeps < 1024
    print(f"{sweeps} sweeps for 1024 pixels")
    filled, _ = agreement(cfg, 4, known, jnp.arange(4))
    np.testing.assert_array_equal(np.asarray(filled)[known >= 0], known[known >= 0])


def test_guidance_moves_from_the_unconditional_to_the_conditional_model():
    """At weight 0 the unconditional model; at 2 the law of one pixel is p(v | label)^2 / p(v), normalised."""
    cfg = smallest(1, 1, 1, levels=9, classes=3, label_drop=0.1)
    params, n = perturbed(cfg, 1.0), 10_000
    pmf = jax.jit(functools.partial(pixelcnn.log_prob, cfg))
    each = lambda label: np.exp(np.asarray(pmf(params, every_image(cfg), jnp.full(9, label)), np.float64))  # noqa: E731
    label = jnp.ones(n, jnp.int32)
    for weight, p in {0.0: each(3), 2.0: each(1) ** 2 / each(3)}.items():
        guided = dataclasses.replace(cfg, guidance=weight)
        assert_law(frequencies(cfg, drawn(guided, params, n, label)[0]), p)
    assert np.abs(each(1) - each(3)).max() > 0.02


# ---- initialisation and weight normalisation -------------------------------------------------------------------------


def layer_outputs(cfg, params, x, label=None):
    """What every weight-normalised layer puts out, by its path."""
    keep = lambda module, method: isinstance(module, network.WeightNorm) and method == "__call__"  # noqa: E731
    _, kept = pixelcnn.PixelCNN(cfg).apply(
        {"params": weight_norm(params)}, cfg.space.to_grid(x), label, capture_intermediates=keep
    )
    return {tuple(p.key for p in path[:-2]): y for path, y in jax.tree.leaves_with_path(kept["intermediates"])}


@pytest.mark.parametrize("streams", chosen(("masked", "two_stream"), ("masked",)))
def test_after_initialisation_every_layer_is_standardised_on_the_first_batch(streams):
    """Those of windows, strides and transposed convolutions, with the labels of that batch."""
    cfg = config(8, 8, 1, levels=256, network=streams, attention=(1,), classes=3)
    batch = random_images(cfg, 32), np.arange(32, dtype=np.int32) % 3

    @jax.jit
    def initialised(images, label):
        params = pixelcnn.init_params(cfg, KEY, images, label)
        return params, layer_outputs(cfg, params, images, label)

    params, layers = initialised(*batch)
    gains = [path for path, _ in jax.tree.leaves_with_path(params) if path[-1].key == "gain"]
    assert len(layers) == len(gains) > 15
    for path, y in layers.items():
        scale = 0.1 if path[-1] == "second" else 1.0
        y = np.asarray(y, np.float64) / scale
        assert np.abs(y.mean((0, 1, 2))).max() <= 1e-5, path
        assert np.abs(y.var((0, 1, 2)) - 1.0).max() <= 1e-5, path


def test_without_data_a_layer_starts_with_its_scale_and_no_bias():
    layer = network.Conv(config(4, 4, 1, data_init=False), 3, scale=0.1)
    start = jax.jit(layer.init)(KEY, jnp.ones((1, 2, 2, 5)))["params"]
    assert (start["gain"] == 0.1).all() and (start["bias"] == 0.0).all()


def test_every_layer_is_normalised_over_its_inputs_transposed_convolutions_too():
    """Regression on others, whose transposed convolutions are normalised over their outputs: the kernel of one output
    may have any length without changing what the layer puts out."""
    cfg = config(8, 8, 1)
    params, x = perturbed(cfg), random_images(cfg, 3)
    shapes = {path: p for path, p in jax.tree.leaves_with_path(weight_norm(params)) if path[-1].key == "kernel"}
    for kernel in shapes.values():
        np.testing.assert_allclose(np.square(kernel).sum((0, 1, 2)), 1.0, rtol=1e-5)
    assert {kernel.shape[:2] for kernel in shapes.values()} == {(1, 1), (1, 3), (2, 1), (2, 2), (2, 3)}
    lengths = np.random.default_rng(8).uniform(0.3, 3.0, cfg.filters).astype(np.float32)
    longer = jax.tree.map(lambda p: p, params)
    for stream in ("down", "right"):
        longer[stream]["up_0"] = params[stream]["up_0"] | {
            "kernel": params[stream]["up_0"]["kernel"] * lengths[None, None, None]
        }
    log_prob = jax.jit(functools.partial(pixelcnn.channel_log_prob, cfg))
    np.testing.assert_allclose(log_prob(longer, x), log_prob(params, x), atol=1e-5)


def test_masked_taps_start_at_zero_and_stay_there():
    """What is masked has no gradient, so it takes no part in the norm of a kernel."""
    layer, x = network.Conv(config(4, 4, 1), 3, network.MASKED), jax.random.normal(KEY, (2, 4, 4, 5))

    @jax.jit
    def start_and_gradient(x):
        params = layer.init(KEY, x)["params"]
        loss = lambda p: jnp.square(layer.apply({"params": weight_norm(p)}, x)[:, 1:]).sum()  # noqa: E731
        return params["kernel"], jax.grad(loss)(params)["kernel"]

    for kernel in start_and_gradient(x):
        assert (kernel[1, 2] == 0.0).all() and (kernel[1, 1] != 0.0).all()


# ---- training --------------------------------------------------------------------------------------------------------


def test_dropout_is_of_each_example_and_of_training_alone():
    cfg = smallest(4, 4, 1, dropout=0.5)
    x, params = random_images(cfg, 6), perturbed(cfg)
    log_prob = jax.jit(functools.partial(pixelcnn.log_prob, cfg))
    keys, order = example_keys(KEY, 6), np.array([3, 1, 5, 0, 2, 4])
    dropped = log_prob(params, x, None, keys)
    np.testing.assert_allclose(log_prob(params, x[order], None, keys[order]), dropped[order], rtol=1e-5)
    same = np.repeat(x[:1], 6, axis=0)
    assert len(np.unique(log_prob(params, same, None, keys))) == 6
    assert np.ptp(log_prob(params, same)) < 1e-4
    assert float(jnp.abs(log_prob(params, x) - dropped).min()) > 0.0


@pytest.mark.slow
def test_rematerialisation_and_micro_batches_change_nothing():
    cfg = config(4, 4, 1, classes=3, dropout=0.5, optim=Optim(name="sgd", lr=0.1))
    batch = {"image": random_images(cfg, 8), "label": np.arange(8, dtype=np.int32) % 3}
    states = []
    for changes in ({}, {"remat": True}, {"accumulate": 2}):
        algorithm = pixelcnn.algorithm(dataclasses.replace(cfg, **changes), batch_size=8)
        states.append(jax.jit(algorithm.step)(jax.jit(algorithm.init)(KEY, batch), batch, KEY)[0].params)
    for other in states[1:]:
        for a, b in zip(jax.tree.leaves(states[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_samples():
    cfg = config(8, 8, 1, levels=17, dtype="bfloat16")
    params, x = perturbed(cfg, 0.1), random_images(cfg, 8)
    exact = pixelcnn.log_prob(dataclasses.replace(cfg, dtype="float32"), params, x)
    np.testing.assert_allclose(pixelcnn.log_prob(cfg, params, x), exact, rtol=2e-2)
    assert np.isfinite(drawn(cfg, params, 4)[0]).all()


SIDE = 8


def mesh_law(left, above, beside):
    """P(pixel = 1) of a Markov mesh, by the pixel to the left, the one above and the one above to the right."""
    return 1.0 / (1.0 + np.exp(-(1.6 * (2 * left - 1) + 1.2 * (2 * above - 1) - 0.9 * (2 * beside - 1) + 0.2)))


def mesh_entropy():
    """Exact entropy of an 8x8 image in nats, over all states of the last eight pixels; outside is 0."""
    state = np.zeros(2**SIDE)  # bit 0 is the newest pixel
    state[0], entropy, which = 1.0, 0.0, np.arange(2**SIDE)
    bit = lambda i: (which >> i) & 1  # noqa: E731
    for row, col in itertools.product(range(SIDE), range(SIDE)):
        left = bit(0) if col else 0 * which
        above = bit(SIDE - 1) if row else 0 * which
        beside = bit(SIDE - 2) if row and col < SIDE - 1 else 0 * which
        p = mesh_law(left, above, beside)
        entropy -= (state * (p * np.log(p) + (1 - p) * np.log1p(-p))).sum()
        after = np.zeros_like(state)
        for value, share in ((0, 1 - p), (1, p)):
            np.add.at(after, ((which << 1) | value) % 2**SIDE, state * share)
        state = after
    return entropy


def mesh_images(n, rng):
    x = np.zeros((n, SIDE + 1, SIDE + 2), int)  # zeros around
    for row, col in itertools.product(range(1, SIDE + 1), range(1, SIDE + 1)):
        p = mesh_law(x[:, row, col - 1], x[:, row - 1, col], x[:, row - 1, col + 1])
        x[:, row, col] = rng.random(n) < p
    return x[:, 1:, 1:-1, None].astype(np.uint8)


@pytest.mark.slow
def test_learns_a_markov_mesh_to_its_entropy_and_not_below():
    rng, batch, steps = np.random.default_rng(12), 64, 1500
    optim = Optim(lr=3e-3, decay=batch * steps, final=0.01)
    cfg = config(SIDE, SIDE, 1, levels=2, head="bernoulli", filters=16, scales=1, blocks=1, optim=optim)
    algorithm = pixelcnn.algorithm(cfg, batch_size=batch)
    state, step = jax.jit(algorithm.init)(KEY, {"image": mesh_images(batch, rng)}), jax.jit(algorithm.step)
    for i in range(steps):
        state, _ = step(state, {"image": mesh_images(batch, rng)}, jax.random.fold_in(KEY, i))
    x = mesh_images(20_000, rng)
    log_prob = jax.jit(algorithm.log_prob)
    nats = np.concatenate([log_prob(state, {"image": part}, KEY).nats for part in np.split(x, 20)])
    gap = bits_per_dim(nats.mean(), 64) - bits_per_dim(-mesh_entropy(), 64)
    error = bits_per_dim(-nats.std() / math.sqrt(len(x)), 64)
    assert -3 * error < gap < 0.01


@pytest.mark.slow
def test_the_network_of_the_paper_has_its_size():
    """53.7 million parameters on CIFAR-10, with 5 blocks a scale, 160 filters and 10 mixtures."""
    cfg = pixelcnn.Config(space=images(32, 32, 3))
    shapes = jax.eval_shape(functools.partial(pixelcnn.init_params, cfg), KEY, cfg.space.zeros(1))
    assert sum(p.size for p in jax.tree.leaves(shapes)) / 1e6 == pytest.approx(53.7, abs=0.05)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": vectors(3)}, "space.shape.*H, W, C"),
        ({"space": images(6, 8, 1), "scales": 3}, "scales=3.*divide by 4"),
        ({"head": "bernoulli"}, "head='bernoulli'.*levels=4"),
        ({"head": "gaussian"}, "head='gaussian'"),
        ({"mixtures": 0}, "mixtures=0"),
        ({"attention": (2,)}, "attention.*0..1"),
        ({"attention": (0, 0)}, "attention"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"label_drop": 0.1}, "label_drop=0.1.*set classes"),
        ({"guidance": 2.0, "classes": 3}, "guidance=2.0.*label_drop"),
        ({"sampler": "fast"}, "sampler='fast'"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_wrong_configurations_name_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        pixelcnn.algorithm(dataclasses.replace(config(8, 8, 1), **changes), batch_size=8)


def test_wrong_arguments_are_refused_before_anything_is_computed():
    cfg = config(4, 4, 1, classes=3)
    algorithm = pixelcnn.algorithm(cfg, batch_size=4)
    params = jax.eval_shape(algorithm.init, KEY, like_batch(algorithm.reads, 4)).params
    x, label = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32)
    call = lambda x, label: jax.eval_shape(lambda p: pixelcnn.log_prob(cfg, p, x, label), params)  # noqa: E731
    call(x, label)
    for bad, words in [
        ((np.zeros((2, 4, 5, 1), np.uint8), label), r"image has shape \(2, 4, 5, 1\)"),
        ((np.zeros((2, 4, 4, 3), np.uint8), label), r"image has shape \(2, 4, 4, 3\)"),
        ((x + np.uint8(4), label), r"image holds 4.*0..3"),
        ((x.astype(np.float32), label), "image is float32"),
        ((x, label + 3), r"label holds values outside 0..2"),
        ((x, None), "give a label for each"),
    ]:
        with pytest.raises(ValueError, match=words):
            call(*bad)
    keys = jax.random.split(KEY, 2)
    for known, words in [
        (np.zeros((2, 4, 4, 3), np.int32), r"known has shape \(2, 4, 4, 3\), but \(2, 4, 4, 1\)"),
        (np.zeros((3, 4, 4, 1), np.int32), "known has shape"),
        (x, "known is uint8: give signed"),
        (np.full(x.shape, 4, np.int32), "known holds 4.*0..3"),
    ]:
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(lambda p: pixelcnn.complete(cfg, p, keys, known, label), params)  # noqa: B023
    with pytest.raises(ValueError, match="exactly one of keys"):
        pixelcnn.generate(cfg, params, label=label)


def test_known_pixels_come_through_the_conditions():
    """`Algorithm.sample` takes them beside what the model is conditioned on."""
    cfg = smallest(4, 4, 1, classes=3)
    algorithm, state = pixelcnn.algorithm(cfg, batch_size=4), init_state(perturbed(cfg), optax.identity())
    known = random_images(cfg, 5, seed=3).astype(np.int32)
    known[:, 2:] = -1
    cond = {"label": np.arange(5, dtype=np.int32) % 3}
    sample = jax.jit(algorithm.sample, static_argnums=2)
    free = sample(state, KEY, 5, cond | {"known": np.full_like(known, -1)})
    given = sample(state, KEY, 5, cond | {"known": known})
    np.testing.assert_array_equal(np.asarray(given)[:, :2], known[:, :2])
    assert (np.asarray(free)[:, :2] != known[:, :2]).any() and np.isfinite(free).all()
    with pytest.raises(ValueError, match="cond"):
        algorithm.sample(state, KEY, 5, {"known": known})
