"""A residual MLP conditioned on the noise level: the small backbone of score and diffusion models.

Everything is computed in the type of the input, float32 or bfloat16; parameters and statistics are float32.
"""

import math

import flax.linen as nn
import jax.numpy as jnp


class MLP(nn.Module):
    """Residual MLP, every block modulated by the noise level (FiLM, Perez et al. 2018) and starting as the identity."""

    width: int
    """Hidden units."""
    blocks: int
    """Residual blocks."""
    shape: tuple[int, ...]
    """Shape of one output."""

    @nn.compact
    def __call__(self, x, emb):  # [B, ...], [B, E] -> [B, *shape]
        dense = lambda x, features, **how: nn.Dense(features, dtype=x.dtype, **how)(x)  # noqa: E731
        norm = lambda x: nn.LayerNorm(use_fast_variance=False, dtype=x.dtype)(x)  # noqa: E731
        zeros = nn.initializers.zeros
        emb = nn.silu(dense(emb, self.width))
        h = dense(x.reshape(x.shape[0], -1), self.width)
        for _ in range(self.blocks):
            scale, shift = jnp.split(dense(emb, 2 * self.width), 2, axis=-1)
            r = nn.silu(dense(norm(h) * (1.0 + scale) + shift, self.width))
            h = h + dense(r, self.width, kernel_init=zeros)
        return dense(norm(h), math.prod(self.shape), kernel_init=zeros).reshape(-1, *self.shape)
