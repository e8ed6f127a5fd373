"""Softmax attention over what a mask allows; and over a window, in time and memory that grow with the window.

N counts strings and groups of heads (grouped-query attention): h heads of queries share the keys and values of one N.
Scores and softmax are float32, whatever the dtype of the rest.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def products(q: Array, k: Array) -> Array:
    """q [N, h, T, d] and k [N, S, d] -> q k / sqrt(d), float32 [N, h, T, S]."""
    return jnp.einsum("nhtd,nsd->nhts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5


def attend(scores: Array, v: Array, past: Array) -> Array:
    """Means of v [N, S, d] with softmax weights, over what `past` [N or 1, T, S] allows. -> [N, h, T, d]"""
    weights = jax.nn.softmax(jnp.where(past[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("nhts,nsd->nhtd", weights.astype(v.dtype), v)


def attend_in_blocks(q: Array, k: Array, v: Array, window: int, segments: Array | None) -> Array:
    """Attention to the last `window` tokens, in time and memory T w instead of T^2.

    A block of `window` queries sees its own keys and those of the block before. q [N, h, T, d]; k, v [N, T, d];
    segments [N, T] or None. The last block is filled up with zeros, which come after all real queries.
    """
    (n, heads, tokens, d), blocks = q.shape, -(-q.shape[2] // window)

    def split(x, axis):
        padding = [(0, 0)] * x.ndim
        padding[axis] = (0, blocks * window - tokens)
        return jnp.pad(x, padding).reshape(*x.shape[:axis], blocks, window, *x.shape[axis + 1 :])

    def with_block_before(x):  # [N, T, ...] -> [N, blocks, 2 w, ...]
        x = split(x, 1)
        return jnp.concatenate([jnp.pad(x, [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2))[:, :-1], x], axis=2)

    at, place = jnp.arange(window)[:, None], jnp.arange(2 * window)[None, :] - window  # relative to the block
    past = ((place <= at) & (at - place < window))[None]
    past &= (place >= 0)[None] | (jnp.arange(blocks) > 0)[:, None, None]  # [blocks, w, 2 w]: none before the first
    past = jnp.broadcast_to(past[None], (n, blocks, window, 2 * window))
    if segments is not None:
        past &= split(segments, 1)[..., :, None] == with_block_before(segments)[..., None, :]
    q = jnp.moveaxis(split(q, 2), 2, 1).reshape(n * blocks, heads, window, d)
    k, v = (with_block_before(x).reshape(n * blocks, 2 * window, d) for x in (k, v))
    y = attend(products(q, k), v, past.reshape(n * blocks, window, 2 * window))
    y = jnp.moveaxis(y.reshape(n, blocks, heads, window, d), 1, 2)
    return y.reshape(n, heads, blocks * window, d)[:, :, :tokens]
