"""Generators and discriminators: fully connected, plain residual, DCGAN / SNGAN, and R3GAN.

All generators take z [B, latent] and labels [B] or None and give x [B, *space.shape], images in the convention of
`spaces.dequantise`; all discriminators end in one `Head`. Only DCGAN's generator mixes examples (batch normalisation).

Convolutions that are slow on a CPU are written in an equal, faster form: 4x4 ones of stride 2, plain and transposed, as
2x2 ones of stride 1 on rearranged pixels (Shi et al. 2016, arXiv:1609.05158), which are products with windows of
pixels; grouped ones as one product for each position of the kernel.

Layers compute in the type of their input, float32 or bfloat16; parameters, statistics and logits are float32.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.implicit.gan.config import Config
from genmap_jax.nn.batch_norm import BatchNorm
from genmap_jax.nn.blocks import block
from genmap_jax.nn.conv import DIMS
from genmap_jax.nn.products import in_type, widened

Array = jax.Array

SLOPE = 0.2  # of the leaky ReLU below zero: D must pass a gradient to G everywhere
GROUP = 16  # channels of a group of R3GAN's convolutions


def he_initializer(gain: float = 1.0) -> nn.initializers.Initializer:
    """He et al.'s (2015) initialisation, which keeps the variance through a leaky ReLU, times gain."""
    return nn.initializers.variance_scaling(gain**2 * 2.0 / (1.0 + SLOPE**2), "fan_in", "truncated_normal")


def act(x: Array) -> Array:
    """Leaky ReLU."""
    return nn.leaky_relu(x, SLOPE)


def pair(kind: Callable[[int], nn.Module], size: int):
    """Two blocks after one another, as `nn.blocks.block` runs them."""
    return lambda x: kind(size)(kind(size)(x))


class Generator(nn.Module):
    """z [B, latent], label [B] or None -> x [B, *space.shape], before `Config.squash`.

    train: whether DCGAN normalises by the batch, over all devices of `axis_name`, or by running statistics.
    """

    cfg: Config
    axis_name: str | None = None

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, train: bool = False) -> Array:
        cfg = self.cfg
        if cfg.classes is not None and cfg.condition_g == "concat":
            code = nn.Embed(cfg.classes, cfg.latent, embedding_init=nn.initializers.normal(1.0))(label)
            z = jnp.concatenate([z, code], axis=1)
        (z,) = in_type(cfg.dtype, z)
        dense, conv = partial(nn.Dense, dtype=z.dtype), partial(nn.Conv, kernel_size=(3, 3), dtype=z.dtype)
        if cfg.network == "mlp":
            x = dense(math.prod(cfg.space.shape))(Hidden(cfg.width, cfg.depth)(z))
            return widened(x).reshape(-1, *cfg.space.shape)
        H, W, C = cfg.space.shape
        h, w = H >> cfg.depth, W >> cfg.depth
        if cfg.network == "conv":
            x = dense(h * w * cfg.width)(z).reshape(-1, h, w, cfg.width)
            for _ in range(cfg.depth):
                x = block(self, cfg.remat, pair(Block, cfg.width), x)
                x = x.repeat(2, axis=1).repeat(2, axis=2)  # nearest; the next 3x3 convolution smooths
            x = block(self, cfg.remat, lambda x: Block(cfg.width)(x), x)
            return widened(conv(C)(act(x)))
        if cfg.network == "dcgan":
            classes = cfg.classes if cfg.condition_g == "batch_norm" else None

            def normal(x: Array) -> Array:
                return nn.relu(BatchNorm(classes, self.axis_name)(widened(x), label, train)).astype(x.dtype)

            x = normal(dense(h * w * cfg.width)(z).reshape(-1, h, w, cfg.width))
            for i in range(cfg.depth):
                x = normal(Up(cfg.width >> (i + 1))(x))
            return widened(conv(C)(x))
        basis = self.param("basis", nn.initializers.normal(1.0), (h, w, cfg.width))
        x = basis[None].astype(z.dtype) * dense(cfg.width, use_bias=False)(z)[:, None, None]
        for i in range(cfg.depth + 1):
            x = smooth_up(x) if i else x
            x = block(self, cfg.remat, pair(Bottleneck, cfg.depth), x)
        return widened(dense(C, use_bias=False)(x))


class Discriminator(nn.Module):
    """x [B, *space.shape], label [B] or None -> logits [B], and an auxiliary classifier's [B, K] or None."""

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> tuple[Array, Array | None]:
        cfg = self.cfg
        if cfg.classes is not None and cfg.condition_d == "concat":
            x = append_code(x, jax.nn.one_hot(label, cfg.classes))
        (x,) = in_type(cfg.dtype, x)
        dense = partial(nn.Dense, dtype=x.dtype)
        conv = partial(nn.Conv, kernel_size=(3, 3), kernel_init=he_initializer(), dtype=x.dtype)
        if cfg.network == "mlp":
            return Head(cfg)(widened(Hidden(cfg.width, cfg.depth)(x)), label)
        if cfg.network == "conv":
            x = conv(cfg.width)(x)
            for _ in range(cfg.depth):
                x = downsample(block(self, cfg.remat, pair(Block, cfg.width), x))
            x = act(block(self, cfg.remat, lambda x: Block(cfg.width)(x), x))
        elif cfg.network == "dcgan":
            for i in range(cfg.depth):
                width = cfg.width >> (cfg.depth - i)
                x = act(conv(width)(x))
                x = act(Down(width)(x))
            x = act(conv(cfg.width)(x))
        else:
            x = dense(cfg.width, use_bias=False)(x)
            for i in range(cfg.depth + 1):
                x = smooth_down(x) if i else x
                x = block(self, cfg.remat, pair(Bottleneck, cfg.depth), x)
            basis = self.param("basis", nn.initializers.normal(1 / math.sqrt(math.prod(x.shape[1:3]))), x.shape[1:])
            x = dense(cfg.width, use_bias=False)((x * basis[None].astype(x.dtype)).sum((1, 2)))
        return Head(cfg)(widened(x).reshape(x.shape[0], -1), label)


class Head(nn.Module):
    """Features h [B, F] -> logits [B] = w h + b (+ <e_y, h>), and logits of classes [B, K] or None.

    Projection is the inner product with an embedding of the label (Miyato & Koyama 2018, arXiv:1802.05637, eq. 3); the
    auxiliary classifier is AC-GAN's (Odena et al. 2017, arXiv:1610.09585).
    """

    cfg: Config

    @nn.compact
    def __call__(self, h: Array, label: Array | None) -> tuple[Array, Array | None]:
        cfg = self.cfg
        logits = nn.Dense(1)(h)[:, 0]
        if cfg.classes is None or cfg.condition_d == "concat":
            return logits, None
        if cfg.condition_d == "projection":
            init = nn.initializers.normal(1.0 / math.sqrt(h.shape[1]))
            return logits + (nn.Embed(cfg.classes, h.shape[1], embedding_init=init)(label) * h).sum(1), None
        return logits, nn.Dense(cfg.classes)(h)


# ---- fully connected -------------------------------------------------------------------------------------------------


class Hidden(nn.Module):
    """Plain hidden layers. [B, ...] -> [B, width]"""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = act(nn.Dense(self.width, kernel_init=he_initializer(), dtype=x.dtype)(x))
        return x


def append_code(x: Array, code: Array) -> Array:
    """Appends a code [B, K] to vectors [B, D], or to every pixel of images [B, H, W, C] (Mirza & Osindero 2014)."""
    code = code.reshape(-1, *[1] * (x.ndim - 2), code.shape[-1])
    return jnp.concatenate([x, jnp.broadcast_to(code, (*x.shape[:-1], code.shape[-1]))], axis=-1)


# ---- plain residual --------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Residual block that starts as the identity, which replaces normalisation (Zhang et al. 2019, arXiv:1901.09321).

    [B, H, W, width] -> the same
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = partial(nn.Conv, self.width, (3, 3), dtype=x.dtype)
        h = conv(kernel_init=he_initializer())(act(x))
        return x + conv(kernel_init=nn.initializers.zeros)(act(h))


def downsample(x: Array) -> Array:
    """Means of 2x2 pixels. [B, H, W, C] -> [B, H/2, W/2, C]"""
    B, H, W, C = x.shape
    return x.reshape(B, H // 2, 2, W // 2, 2, C).mean(axis=(2, 4))


# ---- DCGAN, SNGAN: Radford et al. 2016, Miyato et al. 2018 (arXiv:1802.05957) table 3 --------------------------------


class Up(nn.Module):
    """4x4 transposed convolution of stride 2, padding 1. [B, H, W, C] -> [B, 2H, 2W, width]

    Each of the four pixels that an input pixel becomes depends on 2x2 inputs: a 2x2 convolution to four times the
    channels. With K the kernel [2, 2, C, (2, 2, width)], the tap a of output parity p is K[1 - a // 2, ..., p = a % 2].
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        B, H, W, _ = x.shape
        x = windows(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        x = nn.Dense(4 * self.width, use_bias=False, kernel_init=he_initializer(), dtype=x.dtype)(x)
        x = x.reshape(B, H + 1, W + 1, 2, 2, self.width).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(B, 2 * H + 2, 2 * W + 2, self.width)[:, 1:-1, 1:-1]


class Down(nn.Module):
    """4x4 convolution of stride 2, padding 1. [B, H, W, C] -> [B, H/2, W/2, width]"""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        B, H, W, C = x.shape
        x = x.reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, H // 2, W // 2, 4 * C)
        return nn.Dense(self.width, kernel_init=he_initializer(), dtype=x.dtype)(windows(x))


def windows(x: Array) -> Array:
    """The 2x2 windows of x, row by row: a 2x2 convolution is a product with them. [B, H, W, C] -> [B, H-1, W-1, 4 C]"""
    return jnp.concatenate([x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]], axis=-1)


# ---- R3GAN: Huang et al. 2024 (arXiv:2501.05441) ---------------------------------------------------------------------


class Bottleneck(nn.Module):
    """Inverted bottleneck with a grouped convolution, and nothing that normalises. [B, H, W, C] -> the same

    1x1 to 2 C channels, 3x3 in groups, 1x1 back. The last kernel starts at zero; the scale of the others falls with the
    number of blocks, so that all blocks together start to move as one layer would (Zhang et al. 2019).
    """

    depth: int  # how often the network halves the resolution; there are two blocks at each

    @nn.compact
    def __call__(self, x: Array) -> Array:
        C, dense = x.shape[-1], partial(nn.Dense, dtype=x.dtype)
        init = he_initializer((2 * (self.depth + 1)) ** -0.25)
        h = act(dense(2 * C, kernel_init=init)(x))
        kernel = self.param("kernel", init, (3, 3, GROUP, 2 * C)).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (2 * C,)).astype(x.dtype)
        h = act(grouped_conv(h, kernel) + bias.reshape(1, 1, 1, -1))
        return x + dense(C, use_bias=False, kernel_init=nn.initializers.zeros)(h)


def grouped_conv(x: Array, kernel: Array) -> Array:
    """3x3 convolution in groups, zeros outside. x [B, H, W, g i], kernel [3, 3, i, g o] -> [B, H, W, g o]

    On a CPU as nine products of shifted images, one for each position of the kernel: up to twenty times faster than
    XLA's own.
    """
    if parallel.platform() != "cpu":
        conv, groups = jax.lax.conv_general_dilated, x.shape[-1] // kernel.shape[2]
        return conv(x, kernel, (1, 1), "SAME", dimension_numbers=DIMS, feature_group_count=groups)
    B, H, W, C = x.shape
    i, out = kernel.shape[2:]
    kernel = kernel.reshape(3, 3, i, C // i, out * i // C)
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(B, H + 2, W + 2, C // i, i)
    taps = (jnp.einsum("bhwgi,igo->bhwgo", x[:, a : a + H, b : b + W], kernel[a, b]) for a, b in _TAPS)
    return jnp.asarray(sum(taps)).reshape(B, H, W, out)


_TAPS = [(a, b) for a in range(3) for b in range(3)]


def smooth_up(x: Array) -> Array:
    """Twice the resolution by linear interpolation, the filter [1, 2, 1] / 2. [B, H, W, C] -> [B, 2H, 2W, C]"""
    B, H, W, C = x.shape
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    x = jnp.stack([x[:, :-1], 0.5 * (x[:, :-1] + x[:, 1:])], axis=2).reshape(B, 2 * H, W + 1, C)
    return jnp.stack([x[:, :, :-1], 0.5 * (x[:, :, :-1] + x[:, :, 1:])], axis=3).reshape(B, 2 * H, 2 * W, C)


def smooth_down(x: Array) -> Array:
    """Half the resolution after the filter [1, 2, 1] / 4. [B, H, W, C] -> [B, H/2, W/2, C]"""
    x = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)), mode="edge")
    x = 0.25 * x[:, :-1:2] + 0.5 * x[:, 1::2] + 0.25 * x[:, 2::2]
    return 0.25 * x[:, :, :-1:2] + 0.5 * x[:, :, 1::2] + 0.25 * x[:, :, 2::2]
