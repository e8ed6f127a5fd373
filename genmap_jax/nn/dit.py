"""The diffusion transformer DiT: patches as tokens, the noise level and class as scales, shifts and gates.

Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (arXiv:2212.09748), with adaLN-Zero: every block's two
branches are normalised without learned gains, then scaled and shifted by the condition, and their outputs gated by it;
gates and the last layer start at zero.

Everything is computed in the type of the input, float32 or bfloat16; parameters and statistics are float32.

Differs from the paper: classes are embedded with the noise level, before the two dense layers, not after; no learned
variance.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.nn.attention import attention
from genmap_jax.nn.blocks import block, through_equal
from genmap_jax.nn.unet import dense, zeros

Array = jax.Array

glorot = nn.initializers.glorot_uniform()


def positions(height: int, width: int, features: int) -> Array:
    """Fixed position embeddings of a grid of patches: sines and cosines of the column, then of the row.

    [height * width, features].
    """
    frequencies = 10_000.0 ** -(jnp.arange(features // 4) / (features // 4))

    def waves(index):  # [N] -> [N, features / 2]
        angles = index[:, None] * frequencies[None, :]
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    row, column = jnp.divmod(jnp.arange(height * width), width)
    return jnp.concatenate([waves(column), waves(row)], axis=-1)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """x [B, N, D] normalised over D, scaled and shifted for each example, [B, D]."""
    return normalised(x) * (1.0 + scale[:, None]) + shift[:, None]


def normalised(x: Array) -> Array:
    """Layer normalisation over the last axis, without gains and biases, in float32 at least. [..., D] -> [..., D]"""
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = y - y.mean(axis=-1, keepdims=True)  # by hand: the gradient of linen's LayerNorm doubled the time of a CPU step
    return (y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)


class Block(nn.Module):
    """A transformer block, whose two branches the embedding scales, shifts and gates."""

    heads: int
    """Attention heads."""

    @nn.compact
    def __call__(self, x, emb):  # [B, N, D], [B, D] -> [B, N, D]
        batch, tokens, features = x.shape
        condition = dense(nn.silu(emb), 6 * features, zeros, "condition")
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(condition, 6, axis=-1)

        h = dense(modulate(x, shift_1, scale_1), 3 * features, glorot, "qkv")
        q, k, v = jnp.moveaxis(h.reshape(batch, tokens, 3, self.heads, -1), 2, 0)
        h = attention(q, k, v).reshape(x.shape)
        x = x + gate_1[:, None] * dense(h, features, glorot, "out")

        h = dense(modulate(x, shift_2, scale_2), 4 * features, glorot, "up")
        h = dense(nn.gelu(h, approximate=True), features, glorot, "down")
        return x + gate_2[:, None] * h


class DiT(nn.Module):
    """x [B, H, W, C], emb [B, E] -> [B, H, W, features]. H and W must divide by `patch`, width by heads and by 4."""

    features: int
    """Output channels."""
    width: int = 384
    """Width of a token."""
    blocks: int = 12
    """Transformer blocks."""
    heads: int = 6
    """Attention heads of a block."""
    patch: int = 2
    """Side of a patch, in pixels."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every block, to save memory."""
    scan: bool = False
    """Whether one block is compiled and looped over. Parameters and results are the same."""

    @nn.compact
    def __call__(self, x, emb):
        batch, height, width, _ = x.shape
        rows, columns, p = height // self.patch, width // self.patch, self.patch
        emb = dense(emb, self.width, nn.initializers.normal(0.02), "emb_1")
        emb = dense(nn.silu(emb), self.width, nn.initializers.normal(0.02), "emb_2")

        x = x.reshape(batch, rows, p, columns, p, -1).swapaxes(2, 3).reshape(batch, rows * columns, -1)
        x = dense(x, self.width, glorot, "embed")
        x = x + positions(rows, columns, self.width).astype(x.dtype)[None]
        names = [f"block_{i}" for i in range(self.blocks)]
        if self.scan and not self.is_initializing():
            params = self.variables["params"]
            run = lambda own, x: (Block(self.heads, parent=None).apply({"params": own}, x, emb), None)  # noqa: E731
            x, _ = through_equal(run, [params[name] for name in names], x, self.remat)
        else:
            for name in names:
                x = block(self, self.remat, lambda x, emb, name=name: Block(self.heads, name=name)(x, emb), x, emb)

        shift, scale = jnp.split(dense(nn.silu(emb), 2 * self.width, zeros, "last_condition"), 2, -1)
        x = dense(modulate(x, shift, scale), p * p * self.features, zeros, "last")
        x = x.reshape(batch, rows, columns, p, p, self.features).swapaxes(2, 3)
        return x.reshape(batch, height, width, self.features)
