"""The U-Net of ADM (Dhariwal & Nichol 2021, "Diffusion Models Beat GANs", arXiv:2105.05233), for diffusion.

Beside DDPM++ (nn/unet.py): the noise level scales and shifts after a normalisation, skip connections are not rescaled,
attention has heads of a set width and follows every block at its resolutions, on the way up too. The last layer of
every branch, and of the network, starts at zero.

Differs from the paper: no dropout; a quarter of `width` groups in every normalisation, at most 32.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.nn.attention import attention
from genmap_jax.nn.blocks import block
from genmap_jax.nn.unet import conv, dense, downsample, lecun, upsample, zeros

Array = jax.Array


class Residual(nn.Module):
    """Residual block that may also change the resolution, of both of its branches."""

    features: int
    """Output channels."""
    groups: int
    """Groups of every normalisation."""
    resample: Literal["down", "up"] | None = None
    """Halve the height and width, double them, or keep them."""

    @nn.compact
    def __call__(self, x, emb):  # [B, H, W, C], [B, E] -> [B, H', W', features]
        resize = {"down": downsample, "up": upsample, None: lambda x: x}[self.resample]
        h = conv(resize(nn.silu(normalise(x, self.groups))), self.features)
        scale, shift = jnp.split(dense(nn.silu(emb), 2 * self.features, lecun)[:, None, None, :], 2, axis=-1)
        h = normalise(h, self.groups) * (1.0 + scale) + shift
        h = conv(nn.silu(h), self.features, init=zeros)
        x = resize(x)
        return (x if x.shape[-1] == self.features else conv(x, self.features, 1)) + h


class Attention(nn.Module):
    """Self-attention over positions, with heads of `head_width` channels."""

    groups: int
    """Groups of the normalisation."""
    head_width: int
    """Channels of a head."""

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, H, W, C]
        batch, height, width, channels = x.shape
        heads = max(1, channels // self.head_width)
        qkv = dense(normalise(x, self.groups), 3 * channels, lecun)
        q, k, v = jnp.moveaxis(qkv.reshape(batch, height * width, 3, heads, -1), 2, 0)
        h = attention(q, k, v).reshape(x.shape)
        return x + dense(h, channels, zeros)


def normalise(x: Array, groups: int) -> Array:
    """Group normalisation, with statistics in float32. The fast variance would cancel digits."""
    return nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False, dtype=x.dtype)(x)


class ADM(nn.Module):
    """x [B, H, W, C], emb [B, E] -> [B, H, W, features]. H and W must divide by 2^(len(channel_mult) - 1).

    emb: the embedding of the noise level, plus that of the class where there is one; it passes through two dense
        layers here.
    """

    features: int
    """Output channels."""
    width: int = 128
    """Channels at the finest resolution; a multiple of 4."""
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    """Channels at each resolution, finest first, in units of width."""
    blocks: int = 3
    """Residual blocks per resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16, 8)
    """Heights of the feature maps that have self-attention; the middle always has."""
    head_width: int = 64
    """Channels of an attention head."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every block, to save memory."""

    @nn.compact
    def __call__(self, x, emb):
        groups = math.gcd(32, self.width // 4)
        emb = dense(emb, 4 * self.width, lecun)
        emb = dense(nn.silu(emb), 4 * self.width, lecun)

        def residual(x, features, resample=None):
            return block(self, self.remat, lambda x, emb: Residual(features, groups, resample)(x, emb), x, emb)

        def attend(x):
            return block(self, self.remat, lambda x: Attention(groups, self.head_width)(x), x)

        def stage(x, features):
            x = residual(x, features)
            return attend(x) if x.shape[1] in self.attention else x

        x = conv(x, self.width)
        skips = [x]
        for i, mult in enumerate(self.channel_mult):
            if i > 0:
                x = residual(x, x.shape[-1], "down")
                skips.append(x)
            for _ in range(self.blocks):
                x = stage(x, mult * self.width)
                skips.append(x)

        x = residual(x, x.shape[-1])
        x = attend(x)
        x = residual(x, x.shape[-1])

        for i, mult in reversed(list(enumerate(self.channel_mult))):
            for _ in range(self.blocks + 1):
                x = stage(jnp.concatenate([x, skips.pop()], axis=-1), mult * self.width)
            if i > 0:
                x = residual(x, x.shape[-1], "up")
        return conv(nn.silu(normalise(x, groups)), self.features, init=zeros)
