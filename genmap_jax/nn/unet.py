"""The U-Net of DDPM++ (Song et al. 2021, arXiv:2011.13456, appendix H; Ho et al. 2020), for score and diffusion.

Residual blocks with group normalisation and SiLU, each told the noise level; skip connections rescaled by 1 / sqrt 2;
resolution changed inside BigGAN-style residual blocks by average pooling and nearest-neighbour repetition;
self-attention at chosen resolutions. The last layer of every branch, and of the network, starts at zero.

Everything is computed in the type of the input, float32 or bfloat16; parameters and statistics are float32.

Differs from the paper: no dropout (0.1 there).
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.nn.attention import attention
from genmap_jax.nn.blocks import block

Array = jax.Array

zeros = nn.initializers.zeros
lecun = nn.initializers.lecun_normal()  # linen's own default
spread = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")  # the initialisation of DDPM


def sinusoidal(t: Array, width: int, period: float = 10_000.0) -> Array:
    """Sines and cosines of t [B] at width / 2 frequencies from 1 to 1 / period: [B, width]. Vaswani et al. 2017."""
    frequencies = jnp.exp(-math.log(period) * jnp.linspace(0.0, 1.0, width // 2, dtype=t.dtype))
    angles = t[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def conv(x: Array, features: int, size: int = 3, init=spread, bias: bool = True) -> Array:
    """A convolution of stride 1 that keeps height and width, in the type of x, as a layer of the calling module."""
    return nn.Conv(features, (size, size), use_bias=bias, kernel_init=init, dtype=x.dtype)(x)


def dense(x: Array, features: int, init=spread, name: str | None = None) -> Array:
    """A dense layer in the type of x, as a layer of the calling module. [..., C] -> [..., features]"""
    return nn.Dense(features, kernel_init=init, dtype=x.dtype, name=name)(x)


def normalise(x: Array) -> Array:
    """Group normalisation in groups of at least four channels. The fast variance would cancel digits.

    Statistics are float32 at least, whatever the type of x.
    """
    groups = math.gcd(32, max(x.shape[-1] // 4, 1))
    return nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False, dtype=x.dtype)(x)


def downsample(x: Array) -> Array:
    """Half the height and width, by averaging. [B, H, W, C] -> [B, H / 2, W / 2, C]."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def upsample(x: Array) -> Array:
    """Twice the height and width, by repetition. [B, H, W, C] -> [B, 2 H, 2 W, C]."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class Residual(nn.Module):
    """Residual block that may also change the resolution, of both of its branches."""

    features: int
    """Output channels."""
    resample: Literal["down", "up"] | None = None
    """Halve the height and width, double them, or keep them."""

    @nn.compact
    def __call__(self, x, emb):  # [B, H, W, C], [B, E] -> [B, H', W', features]
        resize = {"down": downsample, "up": upsample, None: lambda x: x}[self.resample]
        h = conv(resize(nn.silu(normalise(x))), self.features)
        h = h + dense(nn.silu(emb), self.features)[:, None, None, :]
        h = conv(nn.silu(normalise(h)), self.features, init=zeros)
        x = resize(x)
        if self.resample or x.shape[-1] != self.features:
            x = conv(x, self.features, 1)
        return (x + h) * 0.5**0.5


class Attention(nn.Module):
    """Single-head self-attention over positions."""

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, H, W, C]
        batch, height, width, channels = x.shape
        qkv = dense(normalise(x), 3 * channels).reshape(batch, height * width, 3, channels)
        h = attention(qkv[:, :, 0:1], qkv[:, :, 1:2], qkv[:, :, 2:3]).reshape(x.shape)
        return (x + dense(h, channels, zeros)) * 0.5**0.5


class UNet(nn.Module):
    """x [B, H, W, C], emb [B, E] -> [B, H, W, features]. H and W must divide by 2^(len(channel_mult) - 1).

    emb: the embedding of the noise level, plus that of the class where there is one; it passes through two dense
        layers here.
    """

    features: int
    """Output channels."""
    width: int = 128
    """Channels at the finest resolution."""
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    """Channels at each resolution, finest first, in units of width."""
    blocks: int = 4
    """Residual blocks per resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Heights of the feature maps that have self-attention; the coarsest always has."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every block, to save memory."""

    @nn.compact
    def __call__(self, x, emb):
        emb = dense(emb, 4 * self.width)
        emb = dense(nn.silu(emb), 4 * self.width)

        def residual(x, features, resample=None):
            return block(self, self.remat, lambda x, emb: Residual(features, resample)(x, emb), x, emb)

        def attend(x):
            return block(self, self.remat, lambda x: Attention()(x), x)

        x = conv(x, self.width)
        skips = [x]
        for i, mult in enumerate(self.channel_mult):
            if i > 0:
                x = residual(x, x.shape[-1], "down")
                skips.append(x)
            for _ in range(self.blocks):
                x = residual(x, mult * self.width)
                if x.shape[1] in self.attention:
                    x = attend(x)
                skips.append(x)

        x = residual(x, x.shape[-1])
        x = attend(x)
        x = residual(x, x.shape[-1])

        for i, mult in reversed(list(enumerate(self.channel_mult))):
            for _ in range(self.blocks + 1):
                x = residual(jnp.concatenate([x, skips.pop()], axis=-1), mult * self.width)
            if x.shape[1] in self.attention:
                x = attend(x)
            if i > 0:
                x = residual(x, x.shape[-1], "up")
        return conv(nn.silu(normalise(x)), self.features, init=zeros)
