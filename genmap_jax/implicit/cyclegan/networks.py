"""Generators and discriminators of image translation: ResNet, U-Net, PatchGAN, and CUT's heads.

All take and give images [B, H, W, C] with values in [-1, 1], and normalise each channel of each image by its own mean
and variance (Ulyanov et al. 2016, arXiv:1607.08022), so that no example depends on the batch around it. Layers
compute in the type of their input, float32 or bfloat16; parameters and statistics are float32.

Differs from the papers: pix2pix normalises by the batch, which with its batch size of 1 is the same but for a gain and
a bias; CUT resamples with antialiasing filters, and its initial weights have a variance by layer.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import keys as per_example
from genmap_jax.implicit.cyclegan.config import Config
from genmap_jax.nn.blocks import block
from genmap_jax.nn.conv import correlate, transposed
from genmap_jax.nn.products import in_type, widened

Array = jax.Array

SLOPE = 0.2  # of leaky ReLUs below zero
WIDEST = 8  # networks have at most so many times as many channels as at the full resolution
EPSILON = 1e-5  # of the instance norm


def instance_norm(x: Array) -> Array:
    """Zero mean and unit variance of every channel of every image. [B, H, W, C] -> the same

    In two passes, so that a large mean costs the variance no digits.
    """
    y = widened(x)
    y = y - y.mean((1, 2), keepdims=True)
    return (y * jax.lax.rsqrt(jnp.square(y).mean((1, 2), keepdims=True) + EPSILON)).astype(x.dtype)


def generator(cfg: Config) -> nn.Module:
    """The network of a generator, (x [B, H, W, C], keys [B]) -> the same and a list of features [B, h, w, c].

    keys: one per example, of dropout, which a resnet has not. features: of the layers that CUT compares; a unet has
    none.
    """
    return Resnet(cfg) if cfg.generator == "resnet" else UNet(cfg)


class Conv(nn.Module):
    """Convolution of images that are continued by their mirror image, so that no border shows.

    [B, H, W, C] -> [B, H, W, features]
    """

    features: int
    size: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        margin = self.size // 2
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).reshape(1, 1, 1, -1)
        x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
        return correlate(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


class Up(nn.Module):
    """Transposed convolution of stride 2, 3x3 or 4x4. [B, H, W, C] -> [B, 2 H, 2 W, features]"""

    features: int
    size: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).reshape(1, 1, 1, -1)
        side = (self.size - 2, 2)
        return transposed(x, kernel.astype(x.dtype), (side, side)) + bias.astype(x.dtype)


class Resnet(nn.Module):
    """CycleGAN's generator (Zhu et al. 2017, appendix 7.2, after Johnson et al. 2016, arXiv:1603.08155).

    Features: the input, what both strided convolutions and the first and the middle block give (Park et al. 2020,
    section 4).
    """

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, keys: Array) -> tuple[Array, list[Array]]:
        cfg, init = self.cfg, nn.initializers.normal(self.cfg.init_std)
        (x,) = in_type(cfg.dtype, x)
        features = [x]
        normal = lambda x: nn.relu(instance_norm(x))  # noqa: E731
        x = normal(Conv(cfg.width, 7, init)(x))
        for widening in (2, 4):
            x = nn.Conv(widening * cfg.width, (3, 3), strides=2, padding=1, kernel_init=init, dtype=x.dtype)(x)
            features.append(x)
            x = normal(x)

        def residual(x: Array) -> Array:
            h = normal(Conv(4 * cfg.width, 3, init)(x))
            return x + instance_norm(Conv(4 * cfg.width, 3, init)(h))

        for i in range(cfg.blocks):
            x = block(self, cfg.remat, residual, x)
            if i in (0, (cfg.blocks - 1) // 2):
                features.append(x)
        for widening in (2, 1):
            x = normal(Up(widening * cfg.width, 3, init)(x))
        return jnp.tanh(widened(Conv(cfg.space.shape[-1], 7, init)(x))), features


class UNet(nn.Module):
    """The generator of pix2pix (Isola et al. 2017, appendix 6.1.1): an encoder, and a decoder that is given every
    layer of it again. Dropout in its coarse layers is the noise; `keys` [B] are one per example."""

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, keys: Array) -> tuple[Array, list[Array]]:
        cfg, init = self.cfg, nn.initializers.normal(self.cfg.init_std)
        widths = [cfg.width * min(2**i, WIDEST) for i in range(cfg.depth)]
        (x,) = in_type(cfg.dtype, x)
        skips: list[Array] = []
        for i, width in enumerate(widths):
            x = nn.leaky_relu(x, SLOPE) if i else x
            x = nn.Conv(width, (4, 4), strides=2, padding=1, kernel_init=init, dtype=x.dtype)(x)
            if 0 < i < cfg.depth - 1:  # neither the pixels nor the innermost layer, where one pixel may be all there is
                x = instance_norm(x)
            skips.append(x)
        skips.pop()
        for i, width in enumerate(widths[-2::-1]):
            x = instance_norm(Up(width, 4, init)(nn.relu(x)))
            if cfg.dropout and 1 <= i <= 3:
                x = per_example.dropout(per_example.fold(keys, i), x, cfg.dropout)
            x = jnp.concatenate([x, skips.pop()], axis=-1)
        return jnp.tanh(widened(Up(cfg.space.shape[-1], 4, init)(nn.relu(x)))), []


class PatchGAN(nn.Module):
    """A discriminator of patches: a logit for each (Isola et al. 2017, appendix 6.1.2). [B, H, W, C'] -> [B, h, w]

    C' is C, or 2 C where it is shown the source beside the translation.
    """

    cfg: Config

    @nn.compact
    def __call__(self, x: Array) -> Array:
        cfg, init = self.cfg, nn.initializers.normal(self.cfg.init_std)
        (x,) = in_type(cfg.dtype, x)
        conv = partial(nn.Conv, kernel_size=(4, 4), padding=1, kernel_init=init, dtype=x.dtype)
        for i in range(cfg.patch_layers + 1):
            strides = 2 if i < cfg.patch_layers else 1
            width = cfg.width * min(2**i, WIDEST)
            x = conv(width, strides=strides)(x)
            x = nn.leaky_relu(instance_norm(x) if i else x, SLOPE)
        return widened(conv(1)(x))[..., 0]


class Heads(nn.Module):
    """CUT's heads: a patch of every layer as a unit vector. Features [B, P, C] of each layer -> [B, P, embedding]."""

    cfg: Config

    @nn.compact
    def __call__(self, features: list[Array]) -> list[Array]:
        width, init = self.cfg.embedding, nn.initializers.normal(self.cfg.init_std)
        out = []
        for x in in_type(self.cfg.dtype, *features):
            h = nn.relu(nn.Dense(width, kernel_init=init, dtype=x.dtype)(x))
            h = widened(nn.Dense(width, kernel_init=init, dtype=x.dtype)(h))
            out.append(h * jax.lax.rsqrt(jnp.square(h).sum(-1, keepdims=True) + 1e-12))
        return out
