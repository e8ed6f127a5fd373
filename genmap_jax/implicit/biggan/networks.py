"""The networks of BigGAN: residual blocks normalised by class and latent, self-attention, projection.

A latent is cut into parts. The first makes the lowest feature map; each of the others joins the embedding of the label
to a code from which all normalisations of one block get their gains and biases. All matrices start orthogonal.

Differs from the paper: at 64 pixels and below D has the generator's channels in reverse, where the authors' code has
half as many.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.implicit.biggan.config import Config
from genmap_jax.nn import unet
from genmap_jax.nn.batch_norm import BatchNorm
from genmap_jax.nn.blocks import block
from genmap_jax.nn.products import einsum_float32, widened
from genmap_jax.nn.unet import downsample, upsample

Array = jax.Array

orthogonal = nn.initializers.orthogonal()
NARROW = 4  # channels of a block over those of its bottleneck, in BigGAN-deep

conv = partial(unet.conv, init=orthogonal)
"""A convolution of stride 1 that keeps the resolution, as a layer of the calling module."""


class Attention(nn.Module):
    """Self-attention over positions, whose keys and values are pooled 2x2 (Zhang et al. 2019, arXiv:1805.08318).

    [B, H, W, C] -> the same; the identity at first.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        B, H, W, C = x.shape
        queries, keys, values = (conv(x, max(1, C // n), 1, bias=False) for n in (8, 8, 2))
        keys, values = (nn.max_pool(h, (2, 2), (2, 2)) for h in (keys, values))
        flat = lambda h: h.reshape(B, -1, h.shape[-1])  # noqa: E731
        scores = einsum_float32("bid,bjd->bij", flat(queries), flat(keys))
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        y = jnp.einsum("bij,bjd->bid", weights, flat(values)).reshape(B, H, W, -1)
        return x + self.param("gain", nn.initializers.zeros, ()).astype(x.dtype) * conv(y, C, 1, bias=False)


# ---- the generator ---------------------------------------------------------------------------------------------------


class Norm(nn.Module):
    """Batch normalisation whose gain, 1 + A c, and bias, B c, are those of each example's code c, then a ReLU.

    x [B, H, W, C], code [B, K], label [B] or None -> [B, H, W, C]. Without a shared embedding the label adds to both
    from a table. Statistics are over all devices of `axis_name`.
    """

    cfg: Config
    axis_name: str | None
    decay: float

    @nn.compact
    def __call__(self, x: Array, code: Array, label: Array | None, train: bool) -> Array:
        C = x.shape[-1]
        y = BatchNorm(None, self.axis_name, self.decay, affine=False)(x.astype(jnp.float32), None, train)
        change = jnp.zeros((1, 2 * C))  # of the gain from 1, and of the bias from 0
        if code.shape[1]:
            dense = lambda name: nn.Dense(C, use_bias=False, kernel_init=orthogonal, name=name)  # noqa: E731
            change = jnp.concatenate([dense("gain")(code), dense("bias")(code)], axis=1)
        if self.cfg.classes is not None and not self.cfg.shared_embedding:
            change = change + self.param("label", nn.initializers.zeros, (self.cfg.classes, 2 * C))[label]
        gain, bias = jnp.split(change[:, None, None], 2, axis=-1)
        return nn.relu(y * (1.0 + gain) + bias).astype(x.dtype)


class Up(nn.Module):
    """Residual block that doubles the resolution. [B, H, W, C] -> [B, 2 H, 2 W, features]"""

    features: int
    norm: Callable[[], Norm]

    @nn.compact
    def __call__(self, x: Array, *inputs) -> Array:
        y = conv(upsample(self.norm()(x, *inputs)), self.features)
        y = conv(self.norm()(y, *inputs), self.features)
        return y + upsample(conv(x, self.features, 1))  # a product of channels commutes with repetition


class DeepUp(nn.Module):
    """Bottleneck block whose skip connection drops channels. [B, H, W, C] -> [B, H', W', features]; H' = 2 H or H"""

    features: int
    resize: bool
    norm: Callable[[], Norm]

    @nn.compact
    def __call__(self, x: Array, *inputs) -> Array:
        change, narrow = (upsample if self.resize else lambda x: x), x.shape[-1] // NARROW
        y = conv(self.norm()(x, *inputs), narrow, 1)
        y = conv(change(self.norm()(y, *inputs)), narrow)
        y = conv(self.norm()(y, *inputs), narrow)
        y = conv(self.norm()(y, *inputs), self.features, 1)
        return y + change(x[..., : self.features])


class Generator(nn.Module):
    """z [B, latent], label [B] or None -> images [B, H, W, C], before their tanh.

    train: whether to normalise by the batch, over all devices of `axis_name`, or by running statistics, which move
    towards the batch by 1 - `decay`.
    """

    cfg: Config
    axis_name: str | None = None
    decay: float = 0.9

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, train: bool = False) -> Array:
        cfg, depth = self.cfg, self.cfg.depth
        (H, W, C), widths = cfg.space.shape, [cfg.width * n for n in cfg.channels]
        shared = []
        if cfg.classes is not None and cfg.shared_embedding:
            shared = [self.param("label", orthogonal, (cfg.classes, cfg.embedding))[label]]
        if cfg.deep:
            first, parts = jnp.concatenate([*shared, z], axis=1), [z if cfg.hierarchical else z[:, :0]] * depth
        elif cfg.hierarchical:
            first, *parts = jnp.split(z, depth + 1, axis=1)
        else:
            first, parts = z, [z[:, :0]] * depth

        def run(layer, x: Array, code: Array) -> Array:
            return block(self, cfg.remat, lambda *inputs: layer()(*inputs, train), x, code, label)

        norm = partial(Norm, cfg, self.axis_name, self.decay)
        h, w = H >> depth, W >> depth
        x = nn.Dense(h * w * widths[0], kernel_init=orthogonal)(first).reshape(-1, h, w, widths[0]).astype(cfg.dtype)
        for part, width in zip(parts, widths[1:], strict=True):
            code = jnp.concatenate([*shared, part], axis=1)
            if cfg.deep:
                x = run(partial(DeepUp, x.shape[-1], False, norm), x, code)
                x = run(partial(DeepUp, width, True, norm), x, code)
            else:
                x = run(partial(Up, width, norm), x, code)
            if x.shape[1] == cfg.attention:
                x = block(self, cfg.remat, lambda x: Attention()(x), x)
        x = BatchNorm(None, self.axis_name, self.decay)(x.astype(jnp.float32), None, train)
        return widened(conv(nn.relu(x).astype(cfg.dtype), C))


# ---- the discriminator -----------------------------------------------------------------------------------------------


class Down(nn.Module):
    """Residual block that may halve the resolution. [B, H, W, C] -> [B, H', W', features]

    first: an image has no ReLU before it.
    """

    features: int
    resize: bool
    first: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        change = downsample if self.resize else lambda x: x
        y = conv(x if self.first else nn.relu(x), self.features)
        y = change(conv(nn.relu(y), self.features))
        if self.resize or x.shape[-1] != self.features:
            x = conv(change(x), self.features, 1)  # a product of channels commutes with the mean
        return y + x


class DeepDown(nn.Module):
    """Bottleneck block whose skip connection appends channels. [B, H, W, C] -> [B, H', W', features]"""

    features: int
    resize: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        change, narrow = (downsample if self.resize else lambda x: x), self.features // NARROW
        y = conv(nn.relu(x), narrow, 1)
        y = conv(nn.relu(y), narrow)
        y = conv(nn.relu(y), narrow)
        y = conv(change(nn.relu(y)), self.features, 1)
        x = change(x)
        if new := self.features - x.shape[-1]:
            x = jnp.concatenate([x, conv(x, new, 1)], axis=-1)
        return y + x


class Discriminator(nn.Module):
    """x [B, H, W, C], label [B] or None -> logits [B] = w h + b + <e_y, h>, with h the features summed over positions.

    Projection: Miyato & Koyama 2018 (arXiv:1802.05637), eq. 3.
    """

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> Array:
        cfg, depth = self.cfg, self.cfg.depth
        x, widths = x.astype(cfg.dtype), [cfg.width * n for n in reversed(cfg.channels)]

        def run(layer, x: Array) -> Array:
            return block(self, cfg.remat, lambda x: layer()(x), x)

        x = conv(x, widths[0]) if cfg.deep else run(partial(Down, widths[0], resize=True, first=True), x)
        for i, width in enumerate(widths[1:]):
            if cfg.deep:
                x = run(partial(DeepDown, width, resize=True), x)
                x = run(partial(DeepDown, width, resize=False), x)
            if x.shape[1] == cfg.attention:
                x = run(Attention, x)
            if not cfg.deep:
                x = run(partial(Down, width, resize=i < depth - 1), x)
        h = nn.relu(x).astype(jnp.float32).sum((1, 2))
        logits = nn.Dense(1, kernel_init=orthogonal)(h)[:, 0]
        if cfg.classes is None:
            return logits
        return logits + (nn.Embed(cfg.classes, h.shape[1], embedding_init=orthogonal)(label) * h).sum(1)
