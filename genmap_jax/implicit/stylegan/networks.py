"""The networks of StyleGAN2, configuration F: mapping, synthesis with skips to colours, residual discriminator.

Every weight is stored with unit variance and scaled by 1 / sqrt(fan-in) when used (equalised learning rate, Karras et
al. 2018, arXiv:1710.10196): Adam then moves all layers at one speed, and the mapping network, whose weights are stored
a hundred times as large, at a hundredth of it.

    z, y --Mapping--> w --affine--> a style for every convolution of Synthesis: a scale of each input channel

Differs from the paper: nothing that is trained. Differs from the authors' code: no clamp of activations at 256, which
float16 needed and bfloat16 does not; the kernels of demodulated convolutions are scaled too, which demodulation undoes.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.implicit.stylegan.config import Config
from genmap_jax.nn import fir
from genmap_jax.nn.blocks import block

Array = jax.Array

EPSILON = 1e-8  # in every square root below
MAPPING_RATE = 0.01  # learning rate of the mapping networks, relative to the others


def act(x: Array) -> Array:
    """Leaky ReLU with slope 0.2 and a gain of sqrt 2, which keeps the variance, about."""
    return nn.leaky_relu(x, 0.2) * math.sqrt(2.0)


def normalise(x: Array) -> Array:
    """Each row divided by the root of its mean square. [B, D]"""
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + EPSILON)


class Dense(nn.Module):
    """Fully connected layer with an equalised learning rate. [B, C] -> [B, features]"""

    features: int
    start: float | tuple[float, ...] = 0.0  # of the bias
    rate: float = 1.0  # learning rate of this layer, relative to the others
    spread: float = 1.0  # of the stored weights at the start

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        start = jnp.broadcast_to(jnp.array(self.start, jnp.float32), shape[1:]) / self.rate
        kernel = self.param("kernel", nn.initializers.normal(self.spread / self.rate), shape)
        bias = self.param("bias", lambda key: start)
        return x @ (kernel * (self.rate / shape[0] ** 0.5)) + (bias * self.rate)[None]


def scaled_kernel(module: nn.Module, size: int, into: int, out: int) -> Array:
    """The kernel [size, size, into, out] of a convolution with an equalised learning rate, as it is used."""
    shape = (size, size, into, out)
    return module.param("kernel", nn.initializers.normal(1.0), shape) / math.sqrt(math.prod(shape[:-1]))


class Mapping(nn.Module):
    """z [B, latent] or None, label [B] or None -> w [B, latent]. Of both inputs, only the direction counts."""

    cfg: Config
    depth: int

    @nn.compact
    def __call__(self, z: Array | None, label: Array | None = None) -> Array:
        cfg, inputs = self.cfg, [] if z is None else [normalise(z)]
        if cfg.classes is not None:
            inputs.append(normalise(Dense(cfg.latent, name="label")(jax.nn.one_hot(label, cfg.classes))))
        w = jnp.concatenate(inputs, axis=1)
        for _ in range(self.depth):
            w = act(Dense(cfg.latent, rate=MAPPING_RATE)(w))
        return w


# ---- the generator ---------------------------------------------------------------------------------------------------


Convolution = Callable[[Array, Array], Array]
"""(x [B, H, W, C], kernel [k, k, C, D]) -> [B, H', W', D], linear in both."""


def modulated_conv(
    x: Array, style: Array, kernel: Array, demodulate: bool = True, conv: Convolution = fir.conv
) -> Array:
    """Convolution whose kernel has its input channels scaled by each example's style, then unit norm per output.

    x [B, H, W, C], style [B, C], kernel [k, k, C, D] -> [B, H', W', D], as `conv` has it.

        y = sum_i w_i s_i x_i / sqrt(sum_i w_i^2 s_i^2 + 1e-8)          Karras et al. 2020, eq. 1 and 3

    As everything is linear, the inputs are scaled in place of the kernel, and the outputs divided: one convolution for
    the batch in place of one per example.
    """
    y = conv(x * _over_pixels(style, x), kernel.astype(x.dtype))
    if not demodulate:
        return y
    norm = jnp.square(style) @ jnp.square(kernel).sum((0, 1)) + EPSILON  # [B, D], float32
    return y * _over_pixels(jax.lax.rsqrt(norm), y)


def _over_pixels(channels: Array, x: Array) -> Array:
    return channels[:, None, None].astype(x.dtype)


class StyledConv(nn.Module):
    """One layer of the synthesis network: modulated convolution, noise, bias, leaky ReLU.

    x [B, H, W, C], w [B, latent], noise [B, H', W', 1] or None -> [B, H', W', features]; H' = 2 H with `up`.
    """

    features: int
    up: bool = False

    @nn.compact
    def __call__(self, x: Array, w: Array, noise: Array | None) -> Array:
        style = Dense(x.shape[-1], start=1.0, name="affine")(w)
        conv = fir.conv_double if self.up else fir.conv
        x = modulated_conv(x, style, scaled_kernel(self, 3, x.shape[-1], self.features), conv=conv)
        if noise is not None:
            strength = self.param("strength", nn.initializers.zeros, ())
            x = x + (strength * noise).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return act(x + bias[None, None, None].astype(x.dtype))


class ToColours(nn.Module):
    """Modulated 1x1 convolution to colours, not demodulated. x [B, H, W, C], w [B, latent] -> float32 [B, H, W, out]"""

    features: int

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        style = Dense(x.shape[-1], start=1.0, name="affine")(w)
        x = modulated_conv(x, style, scaled_kernel(self, 1, x.shape[-1], self.features), demodulate=False)
        return x.astype(jnp.float32) + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]


class Synthesis(nn.Module):
    """ws [B, layers, latent], noise of each convolution or None -> images [B, H, W, C].

    Layer i of a resolution has style 2 i or 2 i + 1 of it; its colours share the style of the layer that follows.
    """

    cfg: Config

    @nn.compact
    def __call__(self, ws: Array, noise: tuple[Array, ...] | None) -> Array:
        cfg, out = self.cfg, self.cfg.space.shape[2]
        noises = noise or (None,) * (cfg.layers - 1)
        basis = self.param("basis", nn.initializers.normal(1.0), (4, 4, cfg.width(4)))
        x = jnp.broadcast_to(basis[None], (len(ws), *basis.shape)).astype(cfg.dtype)
        x = StyledConv(cfg.width(4))(x, ws[:, 0], noises[0])
        colours = ToColours(out)(x, ws[:, 1])

        def resolution(x: Array, colours: Array, ws: Array, noises: tuple[Array | None, ...]):
            width = cfg.width(2 * x.shape[1])
            x = StyledConv(width, up=True)(x, ws[:, 0], noises[0])
            x = StyledConv(width)(x, ws[:, 1], noises[1])
            return x, fir.double(colours) + ToColours(out)(x, ws[:, 2])

        for i in range(1, cfg.layers - 1, 2):
            x, colours = block(self, cfg.remat, resolution, x, colours, ws[:, i : i + 3], noises[i : i + 2])
        return colours


def noise_shapes(cfg: Config) -> list[tuple[int, int, int]]:
    """Shape of the noise of each convolution of `Synthesis`: (4, 4, 1), (8, 8, 1), (8, 8, 1), ..."""
    sides = [4 << ((i + 1) // 2) for i in range(cfg.layers - 1)]
    return [(side, side, 1) for side in sides]


# ---- the discriminator -----------------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution with an equalised learning rate, which may halve the resolution. [B, H, W, C] -> [B, H', W', D]"""

    features: int
    size: int = 3
    down: bool = False
    bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = scaled_kernel(self, self.size, x.shape[-1], self.features).astype(x.dtype)
        if self.down and self.size == 1:  # the filter commutes with a product of channels
            x = fir.conv(fir.halve(x), kernel)
        else:
            x = (fir.conv_halve if self.down else fir.conv)(x, kernel)
        if self.bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None].astype(x.dtype)
        return x


class Discriminator(nn.Module):
    """x [B, H, W, C], label [B] or None -> logits [B].

    A label enters by projection, the inner product of the last features with its own w (Miyato & Koyama 2018; ADA's
    code). axis_name: of the devices that share the batch, for `append_deviation`.
    """

    cfg: Config
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> Array:
        cfg = self.cfg

        def halved(x: Array) -> Array:
            width = cfg.width(x.shape[1] // 2)
            y = act(Conv(x.shape[-1])(x))
            y = act(Conv(width, down=True)(y))
            return (y + Conv(width, 1, down=True, bias=False)(x)) * math.sqrt(0.5) if cfg.residual else y

        x = act(Conv(cfg.width(cfg.resolution), 1)(x.astype(cfg.dtype)))
        while x.shape[1] > 4:
            x = block(self, cfg.remat, halved, x)
        x = append_deviation(x.astype(jnp.float32), cfg.group, self.axis_name)
        x = act(Conv(cfg.width(4))(x))
        x = act(Dense(cfg.width(4))(x.reshape(len(x), -1)))
        if cfg.classes is None:
            return Dense(1)(x)[:, 0]
        code = Mapping(cfg, cfg.label_depth, name="mapping")(None, label)
        return (Dense(cfg.latent)(x) * code).sum(1) / math.sqrt(cfg.latent)


def append_deviation(x: Array, group: int, axis_name: str | None = None) -> Array:
    """Appends a channel that says how much the images of a group differ. [B, H, W, C] -> [B, H, W, C + 1]

    The standard deviation of every feature over a group, averaged over all features (Karras et al. 2018, section 3).
    Of N images on all devices, group m has those whose number is m modulo N / group, so no group depends on how the
    batch is spread. Raises ValueError if N does not divide into groups.
    """
    whole = parallel.gather(x, axis_name)
    if len(whole) % group:
        raise ValueError(f"{len(whole)} images do not divide into groups of group={group}: give a multiple")
    groups = whole.reshape(group, len(whole) // group, -1)
    centred = groups - groups.mean(0, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean(0) + EPSILON).mean(1)  # [N / group]
    mine = (parallel.first_example(len(x), axis_name) + jnp.arange(len(x))) % len(deviation)
    channel = jnp.broadcast_to(deviation[mine][:, None, None, None], (*x.shape[:-1], 1))
    return jnp.concatenate([x, channel], axis=-1)
