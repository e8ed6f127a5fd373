"""Softmax attention under a mask; causal masks, whole or by windows; the positions of a ring buffer of keys and values.

N counts strings and groups of heads (grouped-query attention): h heads of queries share the keys and values of one N.
Scores and softmax are float32, whatever the dtype of the rest. `fused_attention` is the same by cuDNN, for GPUs.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.nn.products import einsum_float32

Array = jax.Array
LARGEST_HEAD = 128  # channels that cuDNN's attention takes on all of its GPUs


def can_fuse(dtype: str, head_size: int) -> bool:
    """Whether `fused_attention` takes such queries here: on a GPU, in bfloat16, in heads of 8, 16, ... 128 channels."""
    return parallel.platform() == "gpu" and dtype == "bfloat16" and head_size % 8 == 0 and head_size <= LARGEST_HEAD


def fused_attention(
    q: Array, k: Array, v: Array, window: int | None = None, implementation: Literal["cudnn", "xla"] = "cudnn"
) -> Array:
    """Causal attention that never holds the scores of all pairs (Dao et al. 2022, arXiv:2205.14135), in one kernel.

    q [B, T, H, d]; k, v [B, T, G, d], each of the G heads for H / G heads of queries -> [B, T, H, d]. A query sees its
    own key and those before it, and of these the last `window`. implementation: "xla" is for machines without cuDNN.
    """
    reach = None if window is None else (window - 1, 0)
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, local_window_size=reach, implementation=implementation)


def attention(q: Array, k: Array, v: Array) -> Array:
    """Softmax attention of all to all, [B, T, heads, d] each -> [B, T, heads, d]; by cuDNN where that can."""
    if can_fuse(str(q.dtype), q.shape[-1]):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    return jax.nn.dot_product_attention(q, k, v)


def scaled_scores(q: Array, k: Array) -> Array:
    """q [N, h, T, d] and k [N, S, d] -> q k / sqrt(d), float32 [N, h, T, S]."""
    return einsum_float32("nhtd,nsd->nhts", q, k) * q.shape[-1] ** -0.5


def attend(scores: Array, v: Array, mask: Array) -> Array:
    """Means of v [N, S, d] with softmax weights, over what the mask [N or 1, T, S] allows. -> [N, h, T, d]"""
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("nhts,nsd->nhtd", weights.astype(v.dtype), v)


def causal_mask(queries: Array, keys: Array, window: int | None = None) -> Array:
    """Which keys [S] each query [T] may see, by their indices in the string: bool [T, S].

    Those up to its own, and of these the last `window`. Keys of negative index do not exist.
    """
    mask = (keys[None, :] <= queries[:, None]) & (keys[None, :] >= 0)
    return mask if window is None else mask & (queries[:, None] - keys[None, :] < window)


def ring_indices(newest: Array, size: int) -> Array:
    """The index in the string that each slot of a ring buffer holds, [size]: index i lies in slot i mod `size`.

    newest: the last index written, [] or [1]. Slots not written yet have negative indices.
    """
    return newest - (newest - jnp.arange(size)) % size


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

    queries, keys = jnp.arange(window)[:, None], jnp.arange(2 * window)[None, :] - window  # relative to the block
    mask = ((keys <= queries) & (queries - keys < window))[None]
    mask &= (keys >= 0)[None] | (jnp.arange(blocks) > 0)[:, None, None]  # [blocks, w, 2 w]: none before the first
    mask = jnp.broadcast_to(mask[None], (n, blocks, window, 2 * window))
    if segments is not None:
        mask &= split(segments, 1)[..., :, None] == with_block_before(segments)[..., None, :]
    q = jnp.moveaxis(split(q, 2), 2, 1).reshape(n * blocks, heads, window, d)
    k, v = (with_block_before(x).reshape(n * blocks, 2 * window, d) for x in (k, v))
    y = attend(scaled_scores(q, k), v, mask.reshape(n * blocks, window, 2 * window))
    y = jnp.moveaxis(y.reshape(n, blocks, heads, window, d), 1, 2)
    return y.reshape(n, heads, blocks * window, d)[:, :, :tokens]
