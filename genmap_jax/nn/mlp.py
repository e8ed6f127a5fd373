"""A residual MLP conditioned on the noise level: the small backbone of score and diffusion models."""

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
        emb = nn.silu(nn.Dense(self.width)(emb))
        h = nn.Dense(self.width)(x.reshape(x.shape[0], -1))
        for _ in range(self.blocks):
            scale, shift = jnp.split(nn.Dense(2 * self.width)(emb), 2, axis=-1)
            r = nn.silu(nn.Dense(self.width)(nn.LayerNorm(use_fast_variance=False)(h) * (1.0 + scale) + shift))
            h = h + nn.Dense(self.width, kernel_init=nn.initializers.zeros)(r)
        h = nn.LayerNorm(use_fast_variance=False)(h)
        return nn.Dense(math.prod(self.shape), kernel_init=nn.initializers.zeros)(h).reshape(-1, *self.shape)
