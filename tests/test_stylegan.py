"""StyleGAN2: its layers and constants, lazy penalties, styles, and what a step does."""

import dataclasses
import functools
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats
from variants import chosen

from genmap_jax.algorithm import ema_update
from genmap_jax.implicit import stylegan
from genmap_jax.implicit.stylegan import game, networks
from genmap_jax.keys import example_keys
from genmap_jax.nn import fir
from genmap_jax.objectives import adversarial
from genmap_jax.objectives.path_length import path_length_penalty, path_lengths
from genmap_jax.optim import Optim
from genmap_jax.parallel import AXIS
from genmap_jax.spaces import dither, images

KEY = jax.random.key(0)
TINY = stylegan.Config(
    images(8, 8, 1, levels=17), latent=8, mapping_depth=2, channels=8, capacity=64, label_depth=2, r1=0.5
)


def millions(tree) -> float:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) / 1e6


@functools.cache
def tiny(classes=None):
    """(configuration, G's and D's parameters), none of them zero, and all layers as strong as they start."""
    cfg, rng = dataclasses.replace(TINY, classes=classes), np.random.default_rng(0)
    state = jax.eval_shape(stylegan.algorithm(cfg, batch_size=8).init, KEY, {})

    def draw(path, p):
        rate = networks.MAPPING_RATE if "['mapping']['Dense" in jax.tree_util.keystr(path) else 1.0
        return jnp.asarray(rng.normal(size=p.shape) / rate, p.dtype)

    return cfg, *jax.tree.map_with_path(draw, (state.params_g, state.params_d))


# ---- sizes and constants ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "changes", "of_g", "of_d"),
    [
        (images(32, 32, 3), {"classes": 10, "mapping_depth": 2, "residual": False}, 20.2, 23.1),  # ADA's, CIFAR-10
        (images(1024, 1024, 3), {}, 30.37, 29.01),  # config F, FFHQ
    ],
)
def test_networks_have_the_papers_parameters(space, changes, of_g, of_d):
    """In millions, to the digits that are known."""
    cfg = stylegan.Config(space, **changes)
    state = jax.eval_shape(stylegan.algorithm(cfg, batch_size=8).init, KEY, {})
    digits = 1 if of_g == 20.2 else 2
    assert round(millions(state.params_g), digits) == of_g
    assert round(millions(state.params_d), digits) == of_d


def test_weights_start_and_are_used_at_the_papers_scales():
    """Stored: N(0, 1), N(0, 100^2) in mapping networks, styles start at 1. Used: outputs keep the unit variance."""
    x = jax.random.normal(KEY, (64, 512))
    for layer, stored, start in (
        (networks.Dense(512), 1.0, 0.0),
        (networks.Dense(512, rate=networks.MAPPING_RATE), 100.0, 0.0),
        (networks.Dense(512, start=1.0), 1.0, 1.0),
    ):
        params = layer.init(jax.random.key(1), x)
        assert abs(params["params"]["kernel"].std() / stored - 1.0) < 0.01
        y = layer.apply(params, x)
        assert abs(y.mean() - start) < 0.02 and abs(y.std() - 1.0) < 0.02
    conv = networks.Conv(512)
    params = conv.init(jax.random.key(1), x.reshape(1, 8, 8, 512))
    assert abs(params["params"]["kernel"].std() - 1.0) < 0.01
    y = conv.apply(params, jax.random.normal(KEY, (1, 8, 8, 512)))[:, 1:-1, 1:-1]
    assert abs(y.std() - 1.0) < 0.03
    np.testing.assert_allclose(
        networks.act(jnp.array([2.0, -2.0])), [2.0 * math.sqrt(2), -0.4 * math.sqrt(2)], rtol=1e-6
    )


@pytest.mark.parametrize("rate", [1.0, networks.MAPPING_RATE])
def test_an_update_of_adam_moves_every_layer_by_its_rate(rate):
    """Adam moves stored weights by the learning rate; those used move by rate / sqrt(fan-in) of it, biases by rate."""
    for fan_in in (16, 256):
        layer, x = networks.Dense(4, rate=rate), jnp.eye(fan_in)
        params = layer.init(KEY, x)
        moved = jax.tree.map(lambda p: p + 1e-2, params)
        change = layer.apply(moved, x) - layer.apply(params, x)
        np.testing.assert_allclose(change, 1e-2 * rate * (1.0 / math.sqrt(fan_in) + 1.0), rtol=1e-3)


def test_averages_and_weights_of_the_papers():
    """EMA 0.997784 for batch 64 and 20,000 images; R1's heuristic 0.0002 resolution^2 / batch."""
    decay = ema_update(jnp.ones(()), jnp.zeros(()), jnp.int32(10**6), 64, 20_000.0)
    np.testing.assert_allclose(decay, 0.997784, atol=1e-6)
    assert stylegan.r1_heuristic(256, 64) == pytest.approx(0.2048)
    assert game.MEAN_DECAY == 0.995


def test_each_convolution_has_a_style_and_noise_of_its_own():
    """18 styles at 1024 pixels, 4 at 8; the noise has the sides of the feature maps."""
    assert stylegan.Config(images(1024, 1024, 3)).layers == 18
    assert TINY.layers == 4 and networks.noise_shapes(TINY) == [(4, 4, 1), (8, 8, 1), (8, 8, 1)]


# ---- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [True, False])
def test_modulated_convolution_is_a_convolution_per_example(demodulate, up):
    """G1: each example with a kernel of its own, s_i w_i over its norm, by SciPy in float64: 1e-5."""
    rng = np.random.default_rng(0)
    x, style = rng.normal(size=(3, 4, 5, 2)), np.exp(rng.normal(size=(3, 2)))
    kernel = rng.normal(size=(3, 3, 2, 4))
    conv = fir.conv_double if up else fir.conv
    y = networks.modulated_conv(*(jnp.asarray(a, jnp.float32) for a in (x, style, kernel)), demodulate, conv)
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
    for b in range(3):
        own = kernel * style[b][None, None, :, None]
        if demodulate:
            own = own / np.sqrt((own**2).sum((0, 1, 2)) + 1e-8)
        for o in range(4):
            if up:
                wide = np.zeros((2, 7, 9))
                wide[:, ::2, ::2] = x[b].transpose(2, 0, 1)
                fine = sum(scipy.signal.correlate2d(wide[i], own[:, :, i, o], mode="full") for i in range(2))
                expected = scipy.signal.convolve2d(np.pad(fine, 1), taps, mode="valid")
            else:
                expected = sum(scipy.signal.correlate2d(x[b, :, :, i], own[:, :, i, o], mode="same") for i in range(2))
            np.testing.assert_allclose(y[b, :, :, o], expected, atol=1e-5)


def test_demodulation_keeps_the_unit_variance_under_wild_styles():
    """G2: standard deviation within 0.98 and 1.02, with styles over three orders of magnitude."""
    x, kernel = jax.random.normal(KEY, (8, 24, 24, 32)), jax.random.normal(jax.random.key(1), (3, 3, 32, 32))
    style = jnp.exp(1.5 * jax.random.normal(jax.random.key(2), (8, 32)))
    y = networks.modulated_conv(x, style, kernel)[:, 1:-1, 1:-1]
    assert 0.98 < y.std() < 1.02
    assert networks.modulated_conv(x, style, kernel, demodulate=False).std() > 10.0
    one = jnp.ones((1, 1, 1, 1))  # 1e-8 is added to the squared norm, not to the norm: s / sqrt(s^2 + 1e-8)
    np.testing.assert_allclose(networks.modulated_conv(one, jnp.full((1, 1), 1e-4), one), math.sqrt(0.5), rtol=1e-4)


def test_groups_of_the_deviation_are_strided():
    """G11: x_i = i^2 in groups of 4 of 8 gives 14.0 and 18.3303 in turn."""
    x = (jnp.arange(8.0) ** 2)[:, None, None, None] * jnp.ones((1, 2, 2, 3))
    y = networks.append_deviation(x, 4)
    np.testing.assert_array_equal(y[..., :3], x)
    np.testing.assert_allclose(
        y[..., 3], jnp.tile(jnp.array([14.0, 18.3303]), 4)[:, None, None] * jnp.ones((1, 2, 2)), rtol=1e-5
    )
    with pytest.raises(ValueError, match="group=3"):
        networks.append_deviation(x, 3)


@pytest.mark.parametrize("devices", chosen([2, 8], [2]))
def test_deviation_and_its_gradients_do_not_depend_on_devices(devices):
    """Values, first gradients and R1's second ones, with groups that span devices: 1e-5."""
    x, w = jax.random.normal(KEY, (8, 2, 2, 3)), jax.random.normal(jax.random.key(1), (4,))

    def run(w, x, axis_name=None):
        critic = lambda x, w: (networks.append_deviation(x, 4, axis_name) ** 2 @ w).sum((1, 2))  # noqa: E731
        r1 = lambda w: adversarial.zero_centred_gradient_penalty(lambda x: critic(x, w), x).mean()  # noqa: E731
        value, gradient = jax.value_and_grad(r1)(w)
        mean = lambda v: v if axis_name is None else jax.lax.pmean(v, axis_name)  # noqa: E731
        return mean((value, gradient)), critic(x, w)

    whole, logits = jax.jit(run)(w, x)
    split_up = jax.pmap(partial(run, axis_name=AXIS), AXIS, in_axes=(None, 0), out_axes=(None, 0))
    whole_n, logits_n = split_up(w, x.reshape(devices, 8 // devices, 2, 2, 3))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), whole_n, whole)
    np.testing.assert_allclose(logits_n.reshape(8), logits, rtol=1e-5)


def test_noise_is_of_the_examples_own_and_has_a_learnt_strength():
    cfg, params_g, _ = tiny()
    noise = stylegan.draw_noise(cfg, example_keys(KEY, 3))
    assert [n.shape[1:] for n in noise] == networks.noise_shapes(cfg)
    np.testing.assert_array_equal(noise[2][:2], stylegan.draw_noise(cfg, example_keys(KEY, 2))[2])
    assert abs(jnp.corrcoef(noise[1].ravel(), noise[2].ravel())[0, 1]) < 0.3  # layers do not share it
    ws = jax.random.normal(KEY, (3, cfg.layers, cfg.latent))
    run = jax.jit(partial(stylegan.synthesise, cfg))
    other = stylegan.draw_noise(cfg, example_keys(jax.random.key(1), 3))
    assert (run(params_g, ws, noise) != run(params_g, ws, other)).any((1, 2, 3)).all()
    silent = jax.tree.map_with_path(lambda path, p: 0.0 * p if path[-1].key == "strength" else p, params_g)
    np.testing.assert_array_equal(run(silent, ws, noise), run(silent, ws, other))
    without = dataclasses.replace(cfg, noise=False)
    shapes = jax.eval_shape(stylegan.algorithm(without, batch_size=8).init, KEY, {})
    assert "strength" not in str(shapes.params_g) and stylegan.draw_noise(without, example_keys(KEY, 3)) is None


def test_only_the_direction_of_a_latent_counts():
    cfg, params_g, _ = tiny(3)
    z, label = jax.random.normal(KEY, (4, cfg.latent)), jnp.array([0, 1, 2, 0])
    style = jax.jit(partial(stylegan.style, cfg))
    w = style(params_g, z, label)
    assert abs(w).max() > 1e-3
    np.testing.assert_allclose(w, style(params_g, 7.0 * z, label), atol=1e-5)
    assert (w != style(params_g, z, (label + 1) % 3)).any(1).all()


def test_labels_enter_the_discriminator_by_projection():
    """G9: D(x, y) = <h(x), code(y)> / sqrt(latent): 1e-6. Another label gives other logits."""
    cfg, _, params_d = tiny(3)
    x, label = jax.random.normal(KEY, (4, 8, 8, 1)), jnp.array([0, 1, 2, 0])

    @jax.jit
    def judge(label):
        D = networks.Discriminator(cfg)
        logits, seen = D.apply({"params": params_d}, x, label, capture_intermediates=True)
        return logits, *(seen["intermediates"][name]["__call__"][0] for name in ("Dense_1", "mapping"))

    logits, h, code = judge(label)
    others, same, other = judge((label + 1) % 3)
    np.testing.assert_array_equal(h, same)
    for found, y in ((logits, code), (others, other)):
        np.testing.assert_allclose(found, (h * y).sum(1) / math.sqrt(8), rtol=1e-5, atol=1e-6)
    assert (logits != others).all()


# ---- styles ----------------------------------------------------------------------------------------------------------


def test_styles_are_mixed_from_a_uniform_layer_on():
    """G16: none in 10 %, else uniform on 1..L-1; chi-square p > 0.01. Layers from there on are the second latent's."""
    layers, N = 6, 20_000
    first = np.asarray(game.mixing_layers(example_keys(KEY, N), layers, 0.9))
    counts = np.bincount(first, minlength=layers + 1)[1:]
    expected = N * np.array([0.9 / 5] * 5 + [0.1])
    assert counts.sum() == N and scipy.stats.chisquare(counts, expected).pvalue > 0.01
    w, other = jnp.zeros((7, 2)), jnp.ones((7, 2))
    ws = stylegan.mix(w, other, jnp.arange(7), layers)
    np.testing.assert_array_equal(ws[:, :, 0], np.arange(layers)[None] >= np.arange(7)[:, None])


def test_truncation_is_exact_at_both_ends_and_stops_at_its_layer():
    """G17: psi = 0 gives the mean for all latents, psi = 1 the style itself, exactly; a cutoff spares fine layers."""
    w, mean = jax.random.normal(KEY, (5, 8)), jax.random.normal(jax.random.key(1), (8,))
    at = lambda **changes: stylegan.truncate(dataclasses.replace(TINY, **changes), w, mean)  # noqa: E731
    every = jnp.repeat(w[:, None], 4, axis=1)
    np.testing.assert_array_equal(at(truncation=1.0), every)
    np.testing.assert_array_equal(at(truncation=0.0), jnp.broadcast_to(mean[None, None], (5, 4, 8)))
    np.testing.assert_allclose(at(truncation=0.3), mean[None, None] + 0.3 * (every - mean[None, None]), atol=1e-6)
    some = at(truncation=0.0, truncation_layers=2)
    np.testing.assert_array_equal(some[:, 2:], every[:, 2:])
    np.testing.assert_array_equal(some[:, :2], jnp.broadcast_to(mean[None, None], (5, 2, 8)))


def test_truncation_changes_samples_by_the_mean_of_training():
    """At psi = 0 and without noise all samples are one image, that of the mean."""
    cfg, params_g, _ = tiny()
    algorithm = stylegan.algorithm(dataclasses.replace(cfg, truncation=0.0, noise=False), batch_size=8)
    state = jax.eval_shape(algorithm.init, KEY, {}).replace(ema_g=params_g, w_mean=jnp.ones(8))
    still = jax.jit(lambda params_g, w: algorithm.sample(state.replace(ema_g=params_g, w_mean=w), KEY, 3))
    one, other = still(params_g, jnp.ones(8)), still(params_g, -jnp.ones(8))
    np.testing.assert_array_equal(one, np.repeat(one[:1], 3, axis=0))
    assert (one != other).any()


# ---- path length -----------------------------------------------------------------------------------------------------


def test_path_length_of_a_linear_generator():
    """|A^T y|, y of variance 1 / (H W), root of the mean over L layers: 1e-5; its mean square is |A|^2 / (H W L)."""
    A, ws = jax.random.normal(KEY, (6, 3, 5, 4, 2)), jax.random.normal(jax.random.key(1), (4000, 6, 3))
    synthesise = lambda ws: jnp.einsum("ldhwc,bld->bhwc", A, ws)  # noqa: E731
    lengths = path_lengths(synthesise, ws, example_keys(KEY, 4000))
    y = jnp.stack([jax.random.normal(k, (5, 4, 2)) for k in example_keys(KEY, 2)]) / math.sqrt(20.0)
    slope = jnp.einsum("ldhwc,bhwc->bld", A, y)
    np.testing.assert_allclose(lengths[:2], jnp.sqrt((slope**2).sum(2).mean(1)), rtol=1e-5)
    np.testing.assert_allclose((lengths**2).mean(), (A**2).sum() / 20.0 / 6.0, rtol=0.05)


def test_the_mean_of_path_lengths_moves_first_and_passes_the_gradient():
    """a' = a + 0.01 (mean - a); d penalty / d length through a' too; the same on 8 devices."""
    lengths, a = jnp.arange(1.0, 9.0), jnp.float32(2.0)

    def run(lengths, axis_name=None):
        value = lambda lengths: path_length_penalty(lengths, a, axis_name)[0].mean()  # noqa: E731
        return jax.grad(value)(lengths), path_length_penalty(lengths, a, axis_name)[1]

    gradient, mean = run(lengths)
    np.testing.assert_allclose(mean, 2.0 + 0.01 * (4.5 - 2.0), rtol=1e-6)
    rest = lengths - mean
    np.testing.assert_allclose(gradient, 2.0 * (rest - 0.01 * rest.mean()) / 8.0, rtol=1e-5)
    of_8, mean_8 = jax.pmap(partial(run, axis_name=AXIS), AXIS, out_axes=(0, None))(lengths.reshape(8, 1))
    np.testing.assert_allclose(of_8.ravel() / 8, gradient, rtol=1e-5)
    np.testing.assert_allclose(mean_8, mean, rtol=1e-6)


# ---- the step --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1])
def test_step_is_the_papers(at):
    """G, its path lengths at every second step, D against the new G, R1 at every third: SGD written out, 1e-5.

    Learning rates are corrected by k / (k + 1), and lazy penalties weigh k times as much, on half a batch of latents.
    """
    lr, B = 0.05, 8
    cfg = dataclasses.replace(TINY, r1=0.5, r1_every=3, path_every=2, group=2, noise=True, ema_halflife=None)
    cfg = dataclasses.replace(cfg, optim=Optim(name="sgd", lr=lr, clip=0.0))
    algorithm = stylegan.algorithm(cfg, batch_size=B)
    x = np.random.default_rng(0).integers(0, 17, (B, 8, 8, 1)).astype(np.uint8)
    state = jax.jit(algorithm.init)(KEY, {})
    state = state.replace(step=jnp.int32(at), params_g=tiny()[1], path_mean=jnp.float32(0.7))
    key = jax.random.key(5)
    new, metrics = jax.jit(algorithm.step)(state, {"image": x}, key)

    key_x, key_g, key_path, key_d, _ = jax.random.split(key, 5)
    keys_x, keys_g, keys_d = (example_keys(k, B) for k in (key_x, key_g, key_d))
    real = cfg.space.dequantise(jnp.asarray(x), keys_x)
    split = lambda keys, n: [jax.vmap(lambda k, i=i: jax.random.split(k, n)[i])(keys) for i in range(n)]  # noqa: E731

    def styles(params_g, keys):
        key_z, key_other, key_layer = split(keys, 3)
        w, other = (stylegan.style(cfg, params_g, stylegan.latents(k, 8)) for k in (key_z, key_other))
        return stylegan.mix(w, other, game.mixing_layers(key_layer, 4, 0.9), 4), w

    def fake(params_g, keys):
        key_w, key_noise, key_u = split(split(keys, 2)[0], 3)
        ws, w = styles(params_g, key_w)
        return dither(stylegan.synthesise(cfg, params_g, ws, stylegan.draw_noise(cfg, key_noise)), key_u, 17), w

    D = partial(stylegan.discriminate, cfg)
    softplus = jax.nn.softplus

    @jax.jit
    def by_hand(params_g, params_d):
        down = lambda p, g, c: jax.tree.map(lambda p, g: p - lr * c * g, p, g)  # noqa: E731
        loss_g = lambda pg: softplus(-D(params_d, fake(pg, keys_g)[0])).mean()  # noqa: E731
        w = fake(params_g, keys_g)[1]
        params_g = down(params_g, jax.grad(loss_g)(params_g), 2 / 3)

        def paths(pg):
            key_w, key_noise, key_y = split(example_keys(key_path, B // 2), 3)
            ws, noise = styles(pg, key_w)[0], stylegan.draw_noise(cfg, key_noise)
            y = jnp.stack([jax.random.normal(k, (8, 8, 1)) for k in key_y]) / 8.0
            slope = jax.grad(lambda ws: (stylegan.synthesise(cfg, pg, ws, noise) * y).sum())(ws)
            lengths = jnp.sqrt((slope**2).sum(2).mean(1))
            mean = 0.7 + 0.01 * (lengths.mean() - 0.7)
            return 2 * 2.0 * ((lengths - mean) ** 2).mean(), mean

        mean = jnp.float32(0.7)
        if at % 2 == 0:
            gradient, mean = jax.grad(paths, has_aux=True)(params_g)
            params_g = down(params_g, gradient, 2 / 3)

        x_fake = fake(params_g, keys_d)[0]
        loss_d = lambda pd: (softplus(-D(pd, real)) + softplus(D(pd, x_fake))).mean()  # noqa: E731
        params_d = down(params_d, jax.grad(loss_d)(params_d), 3 / 4)
        slopes = lambda pd: (jax.grad(lambda x: D(pd, x).sum())(real) ** 2).sum((1, 2, 3)).mean()  # noqa: E731
        r1 = slopes(params_d)
        if at % 3 == 0:
            params_d = down(params_d, jax.grad(lambda pd: 3 * 0.25 * slopes(pd))(params_d), 3 / 4)
        return params_g, params_d, w.mean(0), mean, r1

    params_g, params_d, w, mean, r1 = by_hand(state.params_g, state.params_d)
    chex.assert_trees_all_close((new.params_g, new.params_d), (params_g, params_d), atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(new.w_mean, 0.005 * w, atol=1e-6)
    np.testing.assert_allclose(new.path_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(metrics["r1"], 3 * r1 if at == 0 else 0.0, rtol=1e-4)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "batch", "said"),
    [
        ({"space": images(28, 28, 1)}, 8, "space.shape=.28, 28, 1.: .*pad or resize"),
        ({"space": images(16, 32, 3)}, 8, "space.shape=.16, 32, 3."),
        ({}, 6, "batch_size=6 .* group=4"),
        ({}, 2, "batch_size=2 .* group=4"),
        ({"group": 1}, 3, "batch_size=3: path_length=2.0"),
        ({"truncation": 1.5}, 8, "truncation=1.5"),
        ({"truncation": -0.1}, 8, "truncation=-0.1"),
        ({"truncation_layers": 5}, 8, "truncation_layers=5: there are 4 layers"),
        ({"mixing": 2.0}, 8, "mixing=2.0"),
        ({"augment": ("shear",)}, 8, "'shear' is unknown"),
        ({"ada_target": 0.6}, 8, "ada_target=0.6"),
        ({"loss": "wasserstein", "r1": 0.0}, 8, "loss='wasserstein'"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(changes, batch, said):
    with pytest.raises(ValueError, match=said):
        stylegan.algorithm(dataclasses.replace(TINY, **changes), batch_size=batch)
