"""A residual MLP conditioned on the noise level: the small backbone of score and diffusion models.

Everything is computed in the type of the input, float32 or bfloat16; parameters and statistics are float32.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from genmap_jax.nn.blocks import block
from genmap_jax.nn.unet import dense, lecun, zeros


class MLP(nn.Module):
    """Residual MLP, every block modulated by the noise level (FiLM, Perez et al. 2018) and starting as the identity."""

    width: int
    """Hidden units."""
    blocks: int
    """Residual blocks."""
    shape: tuple[int, ...]
    """Shape of one output."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every block, to save memory."""

    @nn.compact
    def __call__(self, x, emb):  # [B, ...], [B, E] -> [B, *shape]
        norm = lambda x: nn.LayerNorm(use_fast_variance=False, dtype=x.dtype)(x)  # noqa: E731
        emb = nn.silu(dense(emb, self.width, lecun))
        h = dense(x.reshape(x.shape[0], -1), self.width, lecun)

        def residual(h, emb):
            scale, shift = jnp.split(dense(emb, 2 * self.width, lecun), 2, axis=-1)
            r = nn.silu(dense(norm(h) * (1.0 + scale) + shift, self.width, lecun))
            return h + dense(r, self.width, zeros)

        for _ in range(self.blocks):
            h = block(self, self.remat, residual, h, emb)
        return dense(norm(h), math.prod(self.shape), zeros).reshape(-1, *self.shape)
