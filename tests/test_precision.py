"""bfloat16 activations and products with float32 parameters and likelihoods; updates made in parts."""

import dataclasses
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import BATCH, FAMILIES, SGD
from variants import chosen

from genmap_jax import data
from genmap_jax.algorithm import Algorithm, in_parts
from genmap_jax.approximate import diffusion, ebm, vae
from genmap_jax.implicit import biggan, cyclegan, gan, score, stylegan
from genmap_jax.optim import Optim
from genmap_jax.run import config as configs
from genmap_jax.run import loop
from genmap_jax.spaces import images, vectors
from genmap_jax.tractable.flow import continuous, coupling, tarflow
from genmap_jax.tractable.flow import images as flow_images
from genmap_jax.tractable.flow.bijection import chain, repeat
from genmap_jax.tractable.flow.linear import rotation

SPACE = images(8, 8, 1, levels=17)
SMALL = {"width": 16, "blocks": 1, "channel_mult": (1, 2), "attention": (4,)}
RNG = np.random.default_rng(1)
IMAGES, SIGMA = jnp.asarray(RNG.normal(size=(4, 8, 8, 1)), jnp.float32), jnp.asarray([0.1, 0.5, 1.0, 3.0])
GREY, FEATURES = jnp.asarray(RNG.integers(0, 17, (4, 8, 8, 1)), jnp.uint8), IMAGES.reshape(4, -1)
LABEL, CODE, KEYS = jnp.asarray([0, 1, 2, 0]), jnp.eye(4, 3), jax.random.split(jax.random.key(0), 4)
GAN = gan.Config(SPACE, classes=3, latent=4, width=16, depth=1)
BIG, STYLE = FAMILIES["biggan"].config, FAMILIES["stylegan"].config
CYCLE = cyclegan.Config(SPACE, width=8, depth=2, blocks=1, patch_layers=1, init_std=0.2)


# Each is a function of the dtype -> (parameters at random, none zero so that every layer counts; parameters -> output).


def module(build, *inputs):
    """A linen module, built of a dtype; of several outputs the first."""

    def at(dtype):
        net = build(dtype)
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs))["params"]
        output = lambda params: net.apply({"params": params}, *inputs, mutable=["batch_stats"])[0]  # noqa: E731
        return perturbed(shapes), lambda params: jax.tree.leaves(output(params))[0]

    return at


def configured(kind, cfg, *inputs, **changes):
    """A linen module whose configuration has the dtype."""
    return module(lambda dtype: kind(dataclasses.replace(cfg, dtype=dtype, **changes)), *inputs)


def model(family, output, **changes):
    """A model of images by its configuration. output: (configuration, parameters) -> what it makes."""

    def at(dtype):
        cfg = family.Config(SPACE, dtype=dtype, **changes)
        init = family.algorithm(cfg, batch_size=1).init
        shapes = jax.eval_shape(init, jax.random.key(0), {"image": GREY[:1]}).params
        return perturbed(shapes), lambda params: output(cfg, params)

    return at


def perturbed(shapes):
    rng = np.random.default_rng(0)

    def draw(path, x):
        return (path[-1].key == "scale") + rng.standard_normal(x.shape) / max(1, math.prod(x.shape[:-1])) ** 0.5

    return jax.tree.map_with_path(lambda path, x: jnp.asarray(draw(path, x), x.dtype), shapes)


denoiser = partial(model, diffusion, lambda cfg, params: diffusion.denoiser(cfg, params)(IMAGES, SIGMA))
score_denoiser = partial(model, score, lambda cfg, params: score.denoiser(cfg, params)(IMAGES, SIGMA))
tilt = partial(model, ebm, lambda cfg, params: ebm.tilt(cfg, params, IMAGES))
vae_config = partial(vae.Config, SPACE, latent=3)
generator = partial(configured, gan.Generator, GAN, FEATURES[:, :4], LABEL, True)
discriminator = partial(configured, gan.Discriminator, GAN, IMAGES, LABEL)

# name -> network, and how many products of its gradient are float32: those of attention, of a last layer, and in BigGAN
# and StyleGAN2 of all that has no pixels, and colours and D's coarsest layers in StyleGAN2.
NETWORKS = {
    "mlp": (denoiser(width=16, blocks=1), 0),
    "unet": (denoiser(network="unet", **SMALL), 6),
    "adm": (denoiser(network="adm", **SMALL, head_width=8), 8),
    "dit": (denoiser(network="dit", width=16, blocks=1, head_width=8), 2),
    "score_mlp": (score_denoiser(width=16, blocks=1), 0),
    "score_conv": (score_denoiser(network="conv", **SMALL), 6),
    "vae": (configured(vae.VAE, vae_config(hidden=(16,)), GREY), 0),
    "vae_conv": (configured(vae.VAE, vae_config(network="conv", hidden=(8, 8), blocks=1), GREY), 0),
    "ebm": (tilt(width=16, depth=1, frequencies=2), 3),
    "ebm_conv": (tilt(network="conv", width=4, depth=1), 3),
    "spline_flow": (module(lambda dtype: coupling.ResidualNetwork(16, 1, 6, dtype), FEATURES, CODE), 0),
    "maf": (module(lambda dtype: coupling.MADE(16, 1, 2, dtype), FEATURES[:, :5], CODE), 0),
    "glow": (module(lambda dtype: flow_images.ConvNetwork(16, 2, dtype), IMAGES, CODE), 0),
    "glow_prior": (module(lambda dtype: flow_images.ConvPrior(2, dtype), IMAGES, CODE), 0),
    "tarflow": (
        module(lambda dtype: tarflow.Transformer(16, 1, 2, 16, dtype), IMAGES.reshape(4, 16, 4), CODE),
        0,
    ),
    "continuous_flow": (
        configured(continuous.Velocity, continuous.Config(vectors(5), width=8, blocks=1), FEATURES[:, :5], SIGMA, CODE),
        0,
    ),
    **{f"gan_{name}_g": (generator(network=name), 0) for name in ("mlp", "conv", "dcgan", "r3gan")},
    **{f"gan_{name}_d": (discriminator(network=name), 3) for name in ("mlp", "conv", "dcgan", "r3gan")},
    "cyclegan_resnet": (configured(cyclegan.Resnet, CYCLE, jnp.tile(IMAGES, (1, 2, 2, 1)), KEYS), 0),
    "cyclegan_unet": (configured(cyclegan.UNet, CYCLE, IMAGES, KEYS), 0),
    "cyclegan_d": (configured(cyclegan.PatchGAN, CYCLE, IMAGES), 0),
    "cut": (configured(cyclegan.Heads, CYCLE, [IMAGES.reshape(4, 16, 4)]), 0),
    "biggan_g": (configured(biggan.Generator, BIG, FEATURES[:, :6], LABEL, True), 26),
    "biggan_d": (configured(biggan.Discriminator, BIG, IMAGES, LABEL), 3),
    "stylegan_g": (
        configured(stylegan.Synthesis, STYLE, jnp.tile(FEATURES[:, None, :8], (1, STYLE.layers, 1)), None),
        23,
    ),
    "stylegan_d": (configured(stylegan.Discriminator, STYLE, IMAGES, LABEL), 17),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_halves_is_near_the_same_in_float32(name):
    """Its outputs, float32, differ by at most 2 % of their size, and by something; parameters are float32."""
    (params, whole), (half_params, half) = (NETWORKS[name][0](dtype) for dtype in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(half_params)} == {jnp.dtype("float32")}
    wanted, found = (jax.jit(output)(params) for output in (whole, half))
    assert found.dtype == jnp.float32
    assert 0.0 < jnp.sqrt(jnp.square(found - wanted).mean() / jnp.square(wanted).mean()) < 0.02


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_multiply_halves_and_nothing_else(name):
    """In the gradient every convolution, and every product but the few that are told, has operands in bfloat16 only."""
    network, most = NETWORKS[name]
    params, output = network("bfloat16")
    lowered = jax.jit(jax.grad(lambda params: jnp.square(output(params)).sum())).lower(params).as_text()
    kinds = re.findall(r"(dot_general|convolution)\b.* : \(tensor<\S+x(\w+)>, tensor<\S+x(\w+)>\)", lowered)
    wide = [kind for kind, *operands in kinds if set(operands) != {"bf16"}]
    assert len(kinds) - len(wide) >= 2
    assert "convolution" not in wide and len(wide) <= most


def build(name: str, **changes) -> Algorithm:
    """A family's smallest form in another type or in parts, trained by SGD without dropout."""
    case, plain = FAMILIES[name], {"optim": SGD, "prior_optim": SGD, "dropout": 0.0}
    if name == "latent_diffusion":  # these are fields of its two models
        changes = {f"{part}.{field}": value for part in ("autoencoder", "prior") for field, value in changes.items()}
    changes |= {field: value for field, value in plain.items() if hasattr(case.config, field)}
    return case.family.algorithm(configs.replace(case.config, changes), batch_size=BATCH)


QUICK = ("gpt_images", "diffusion", "score", "vae", "ebm", "latent_diffusion", "spline_flow", "tarflow")
WITH_DENSITY = (*QUICK, "continuous_flow", "pixelcnn", "glow")


@pytest.mark.parametrize("name", chosen(WITH_DENSITY, (*QUICK, "continuous_flow")))
def test_likelihoods_are_float32_whatever_training_was(name):
    """Bit for bit, of parameters none of which are zero."""
    batch = FAMILIES[name].batch()
    state = jax.jit(build(name).init)(jax.random.key(0), batch)
    params = jax.tree.map(lambda p, change: p + 0.3 * change, state.params, perturbed(state.params))
    state = dataclasses.replace(state, params=params, ema=None)
    nats = [
        jax.jit(build(name, dtype=dtype).log_prob)(state, batch, jax.random.key(1)).nats
        for dtype in ("float32", "bfloat16")
    ]
    assert np.isfinite(nats).all()
    np.testing.assert_array_equal(*nats)


def layers(dtype: str, reversible: bool):
    """Rotations and couplings of vectors [B, 6], whose conditioners are far from their initialisation."""
    network = lambda n: coupling.ResidualNetwork(16, 1, n, dtype)  # noqa: E731
    flow = repeat(chain([rotation(6), coupling.coupling(coupling.affine(), network)]), 4, reversible=reversible)
    return flow, perturbed(jax.eval_shape(lambda: flow.init(jax.random.key(0), FEATURES[:, :6], None)))


def test_a_coupling_of_halves_is_inverted_exactly():
    """To 1e-5: both directions evaluate the same network at the same point, the half that passes unchanged."""
    network = lambda n: coupling.ResidualNetwork(16, 1, n, "bfloat16")  # noqa: E731
    layer, x = coupling.coupling(coupling.affine(), network), FEATURES[:, :6]
    params = perturbed(jax.eval_shape(lambda: layer.init(jax.random.key(0), x, None)))
    y, logdet = layer.forward(params, x, None)
    back, minus = layer.inverse(params, y, None)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(minus, -logdet, atol=1e-5)


def test_gradients_through_inverses_of_halves_are_near_those_of_backpropagation():
    """To 2 % of their size: an input that the inverse recomputes may round to the next bfloat16."""

    def gradient(reversible):
        flow, params = layers("bfloat16", reversible)
        return jax.grad(lambda params: sum(jnp.sum(out) for out in flow.forward(params, FEATURES[:, :6], None)))(params)

    near = lambda a, b: jnp.linalg.norm(a - b) <= 0.02 * jnp.linalg.norm(b)  # noqa: E731
    assert jax.tree.all(jax.tree.map(near, gradient(True), gradient(False)))


def test_a_cache_of_halves_decodes_what_the_whole_transformer_decodes():
    """Patches to 2 % of their size, and back to the latents."""
    cfg = dataclasses.replace(FAMILIES["tarflow"].config, dtype="bfloat16")
    z, label = jnp.asarray(RNG.normal(size=(4, 4, 16)), jnp.float32), jnp.eye(4, 10)
    params = perturbed(jax.eval_shape(lambda: tarflow.transformer_flow(cfg).init(jax.random.key(0), z, label)))
    ways = ("cached", "sequential", "jacobi")
    flows = {way: tarflow.transformer_flow(dataclasses.replace(cfg, decoding=way)) for way in ways}
    cached, *others = (jax.jit(flow.inverse)(params, z, label)[0] for flow in flows.values())
    near = lambda a, b: jnp.linalg.norm(a - b) <= 0.02 * jnp.linalg.norm(b)  # noqa: E731
    assert all(near(cached, other) for other in others)
    assert near(flows["cached"].forward(params, cached, label)[0], z)


@pytest.mark.parametrize("parts", [3, 5, 29])
def test_parts_come_back_in_order(parts):
    """Also where they do not divide the examples: an evaluation may be of any number."""
    x, keys = jnp.arange(12.0), jax.random.split(jax.random.key(0), 12)
    found, again = in_parts(lambda both: (both[0] ** 2, jax.random.key_data(both[1])), (x, keys), parts)
    np.testing.assert_array_equal(found, x**2)
    np.testing.assert_array_equal(again, jax.random.key_data(keys))


@pytest.mark.parametrize("name", chosen((*WITH_DENSITY, "cyclegan"), QUICK))
def test_an_update_in_parts_is_that_of_the_batch(name):
    """The state, chains and pools too, to 1e-6 after one SGD step, and the likelihood to 1e-5 of its size."""
    batch, states, nats = FAMILIES[name].batch(), [], []
    for parts in (1, 4):
        algorithm = build(name, accumulate=parts)
        state = jax.jit(algorithm.init)(jax.random.key(0), batch)
        if algorithm.log_prob is not None:
            nats.append(jax.jit(algorithm.log_prob)(state, batch, jax.random.key(2)).nats)
        states.append(jax.jit(algorithm.step)(state, batch, jax.random.key(1))[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *states)
    if nats:
        np.testing.assert_allclose(*nats, rtol=1e-5)


@pytest.mark.parametrize("name", [*WITH_DENSITY, "cyclegan"])
def test_parts_must_divide_the_batch(name):
    with pytest.raises(ValueError, match=f"batch_size={BATCH} does not divide into accumulate=3 parts"):
        build(name, accumulate=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt_images", "diffusion", "score", "vae", "glow", "tarflow"])
def test_training_in_halves_reaches_the_same_loss(name):
    """After 200 updates on digits, by the mean of the last 50: within 1 %, or within 0.01."""
    case, losses = FAMILIES[name], []
    for dtype in ("float32", "bfloat16"):
        size = {"vae": {"hidden": (64, 64)}, "glow": {"width": 8}}.get(name, {"width": 64})
        config = dataclasses.replace(case.config, **size, dtype=dtype, optim=Optim(lr=3e-3))
        algorithm = loop.keyed_by_step(case.family.algorithm(config, batch_size=64))
        source = data.load("digits", "train", reads=algorithm.reads)
        state = jax.jit(algorithm.init)(jax.random.key(0), data.batch(source, 0, 0, 64))
        step, course = jax.jit(algorithm.step), []
        for i in range(200):
            state, metrics = step(state, data.batch(source, 0, i, 64), jax.random.key(1))
            course.append(metrics["loss"])
        losses.append(float(jnp.stack(course[-50:]).mean()))
    assert losses[0] < 0.9 * float(jnp.stack(course[:10]).mean())
    assert losses[1] == pytest.approx(losses[0], rel=0.01, abs=0.01)
