"""Projection: the style and the noise from which a trained generator draws a given image.

Karras et al. 2020 (https://arxiv.org/abs/1912.04958), appendix D: Adam on w and on the noise maps, from the mean of w,
with noise on w that dies out, a learning rate that warms up and cools down, and a penalty that keeps the noise maps
white, so that they do not draw the image themselves.

Differs from the paper: the distance is an argument, `pyramid_distance` unless another is given, since LPIPS needs the
weights of a VGG network; several images are projected at once, independently.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genmap_jax.algorithm import Params
from genmap_jax.implicit.stylegan.config import Config
from genmap_jax.implicit.stylegan.game import draw_noise, latents, style, synthesise
from genmap_jax.keys import example_keys
from genmap_jax.nn import fir
from genmap_jax.options import Count, NotNegative, Positive, Share, check_options
from genmap_jax.shapes import expect

Array = jax.Array
Distance = Callable[[Array, Array], Array]
"""(images [B, H, W, C], images) -> [B], differentiable."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """How an image is looked for. The defaults are the paper's."""

    steps: Count = 1000
    """Number of updates."""
    lr: Positive = 0.1
    """Largest learning rate of Adam."""
    warmup: Share = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    cooldown: Share = 0.25
    """Share of the steps, at the end, in which it falls to 0 along a cosine."""
    noise: NotNegative = 0.05
    """Standard deviation of the noise on w at the start, in units of the deviation of w."""
    noise_until: Share = 0.75
    """Share of the steps after which there is no noise on w."""
    whiteness: NotNegative = 1e5
    """Weight of the penalty on correlations within noise maps."""
    mean_latents: Count = 10_000
    """Number of latents from which the mean and the deviation of w are taken."""


def project(
    cfg: Config,
    params_g: Params,
    targets: Array,
    key: Array,
    label: Array | None = None,
    how: Projection = Projection(),
    distance: Distance | None = None,
) -> tuple[Array, tuple[Array, ...] | None, Array]:
    """Styles [B, latent] and noise whose images are near `targets` [B, H, W, C], and the distances after each step.

    params_g: of the generator, as `game.averaged` gives them. targets: in [-1, 1], as `Space.to_grid` gives them.
    label: [B] of a conditional generator. -> (w [B, latent], noise as `draw_noise`, distances [steps, B]); they are
    drawn by `synthesise` with w repeated for every layer. Raises ValueError where shapes or options do not fit.
    """
    expect((None, *cfg.space.shape), targets=targets)
    check_options(how)
    distance = distance or pyramid_distance
    key_z, key_noise, key_steps = jax.random.split(key, 3)
    mean, deviation = statistics_of_styles(cfg, params_g, key_z, how.mean_latents, label)
    w = jnp.broadcast_to(mean, (len(targets), cfg.latent))
    found: Any = {"w": w, "noise": draw_noise(cfg, example_keys(key_noise, len(targets)))}
    adam = optax.adam(lambda t: how.lr * _rate(how, t / how.steps))

    @jax.jit
    def step(params_g, targets, found, opt, t):
        at = t / how.steps
        spread = how.noise * deviation * jnp.maximum(0.0, 1.0 - at / max(how.noise_until, 1e-9)) ** 2
        jitter = spread * jax.random.normal(jax.random.fold_in(key_steps, t), w.shape)

        def loss(found):
            ws = jnp.repeat((found["w"] + jitter)[:, None], cfg.layers, axis=1)
            distances = distance(synthesise(cfg, params_g, ws, found["noise"]), targets)
            maps = found["noise"] or ()
            return (distances + how.whiteness * sum((correlation(n) for n in maps), jnp.zeros(len(w)))).sum(), distances

        (_, distances), gradient = jax.value_and_grad(loss, has_aux=True)(found)
        updates, opt = adam.update(gradient, opt)
        found = optax.apply_updates(found, updates)
        return found | {"noise": jax.tree.map(_standardised, found["noise"])}, opt, distances

    opt, history = adam.init(found), []
    for t in range(how.steps):  # on the host: XLA runs convolutions in a loop slower on a CPU
        found, opt, distances = step(params_g, targets, found, opt, t)
        history.append(distances)
    return found["w"], found["noise"], jnp.stack(history)


def statistics_of_styles(
    cfg: Config, params_g: Params, key: Array, count: int, label: Array | None = None
) -> tuple[Array, Array]:
    """Mean of w, [1, latent] or one for each label [B, latent], and its deviation, root of E |w - mean|^2, a number."""
    z = latents(example_keys(key, count), cfg.latent)
    if label is None:
        ws = style(cfg, params_g, z)[None]
    else:
        ws = jnp.stack([style(cfg, params_g, z, jnp.full(count, y, jnp.int32)) for y in label])
    mean = ws.mean(1)
    return mean, jnp.sqrt(jnp.square(ws - mean[:, None]).sum(2).mean())


def pyramid_distance(a: Array, b: Array) -> Array:
    """Mean squared difference of pixels, averaged over the resolutions down to 8x8. [B, H, W, C] -> [B]"""
    levels = []
    while True:
        levels.append(jnp.square(a - b).mean((1, 2, 3)))
        if a.shape[1] <= 8:
            return jnp.stack(levels).mean(0)
        a, b = fir.halve(a), fir.halve(b)


def correlation(noise: Array) -> Array:
    """Squared correlations of noise maps with themselves one pixel away, summed over resolutions. [B, H, W, 1] -> [B]

    Zero in expectation for white noise. Karras et al. 2020, appendix D.
    """
    total = jnp.zeros(len(noise))
    if noise.shape[1] < 8:
        return total
    while True:
        for axis in (1, 2):
            total += jnp.square((noise * jnp.roll(noise, 1, axis)).mean((1, 2, 3)))
        if noise.shape[1] <= 8:
            return total
        B, H, W, _ = noise.shape
        noise = 2.0 * noise.reshape(B, H // 2, 2, W // 2, 2, 1).mean((2, 4))  # of unit variance again


def _standardised(noise: Array) -> Array:
    noise = noise - noise.mean((1, 2, 3), keepdims=True)
    return noise * jax.lax.rsqrt(jnp.square(noise).mean((1, 2, 3), keepdims=True))


def _rate(how: Projection, at: Array) -> Array:
    """Learning rate at a share of the steps, in units of the largest."""
    down = jnp.minimum(1.0, (1.0 - at) / max(how.cooldown, 1e-9))
    return (0.5 - 0.5 * jnp.cos(math.pi * down)) * jnp.minimum(1.0, at / max(how.warmup, 1e-9))
