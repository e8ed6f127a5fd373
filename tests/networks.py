"""Every network at a size that compiles in seconds, with random parameters: for tests of how it is computed."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from families import FAMILIES

from genmap_jax.approximate import diffusion, ebm, vae
from genmap_jax.implicit import biggan, cyclegan, gan, score, stylegan
from genmap_jax.spaces import images, vectors
from genmap_jax.tractable.flow import continuous, coupling, tarflow
from genmap_jax.tractable.flow import images as flow_images

SPACE = images(8, 8, 1, levels=17)
SMALL = {"width": 16, "blocks": 1, "channel_mult": (1, 2), "attention": (4,)}
RNG = np.random.default_rng(1)
IMAGES, SIGMA = jnp.asarray(RNG.normal(size=(4, 8, 8, 1)), jnp.float32), jnp.asarray([0.1, 0.5, 1.0, 3.0])
GREY, FEATURES = jnp.asarray(RNG.integers(0, 17, (4, 8, 8, 1)), jnp.uint8), IMAGES.reshape(4, -1)
LABEL, CODE, KEYS = jnp.asarray([0, 1, 2, 0]), jnp.eye(4, 3), jax.random.split(jax.random.key(0), 4)
GAN = gan.Config(SPACE, classes=3, latent=4, width=16, depth=1)
BIG, STYLE = (dataclasses.replace(FAMILIES[name].config, remat=False) for name in ("biggan", "stylegan"))
CYCLE = cyclegan.Config(SPACE, width=8, depth=2, blocks=1, patch_layers=1, init_std=0.2)


# Each is a function of fields such as dtype and remat -> (parameters at random, none zero so that every layer counts;
# parameters -> output).


def module(build, *inputs):
    """A linen module, built of such fields; of several outputs the first."""

    def at(**fields):
        net = build(**fields)
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs))["params"]
        output = lambda params: net.apply({"params": params}, *inputs, mutable=["batch_stats"])[0]  # noqa: E731
        return perturbed(shapes), lambda params: jax.tree.leaves(output(params))[0]

    return at


def configured(kind, cfg, *inputs, **changes):
    """A linen module whose configuration has the fields."""
    return module(lambda **fields: kind(dataclasses.replace(cfg, **changes, **fields)), *inputs)


def model(family, output, **changes):
    """A model of images by its configuration. output: (configuration, parameters) -> what it makes."""

    def at(**fields):
        cfg = family.Config(SPACE, **changes, **fields)
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
    "spline_flow": (module(partial(coupling.ResidualNetwork, 16, 1, 6), FEATURES, CODE), 0),
    "maf": (module(partial(coupling.MADE, 16, 1, 2), FEATURES[:, :5], CODE), 0),
    "glow": (module(partial(flow_images.ConvNetwork, 16, 2), IMAGES, CODE), 0),
    "glow_prior": (module(partial(flow_images.ConvPrior, 2), IMAGES, CODE), 0),
    "tarflow": (
        module(partial(tarflow.Transformer, 16, 1, 2, 16), IMAGES.reshape(4, 16, 4), CODE),
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
