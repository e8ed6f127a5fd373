"""The causal transformer: attention with a cache of keys and values, blocks, and the network from tokens to logits."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import keys as per_example
from genmap_jax.algorithm import Array, Params
from genmap_jax.keys import fold
from genmap_jax.nn import rope
from genmap_jax.nn.attention import (
    attend,
    attend_in_blocks,
    can_fuse,
    causal_mask,
    fused_attention,
    ring_indices,
    scaled_scores,
)
from genmap_jax.nn.blocks import through_equal
from genmap_jax.nn.products import einsum_float32
from genmap_jax.tractable.gpt.config import Config

Cache = Any
"""Per layer, the keys and the values of the past, each [B G, S, d] for G heads of them: S is cfg.length, or the window,
a ring buffer. Heads come before time, so that a head reads its past contiguously; and in one axis with the batch,
because XLA copies a [1, G, S, d] cache for every token."""


def _dense(cfg: Config, features: int, name: str) -> nn.Dense:
    bias = cfg.bias == "all" or (cfg.bias == "qkv" and name == "qkv")
    residual = name in ("out", "down")  # its output is added to the residual stream
    if cfg.init == "zero":
        uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        kernel = nn.initializers.zeros if residual else uniform
    else:
        kernel = nn.initializers.normal(0.02 / (2 * cfg.layers) ** 0.5 if residual else 0.02)
    return nn.Dense(features, use_bias=bias, dtype=cfg.dtype, kernel_init=kernel, name=name)


def _norm(cfg: Config, name: str) -> nn.Module:
    return (nn.LayerNorm if cfg.norm == "layer" else nn.RMSNorm)(epsilon=cfg.norm_eps, dtype=cfg.dtype, name=name)


class At(NamedTuple):
    """Positions, document ids and prefill length of the T tokens of a call."""

    positions: Array
    """int32 [T], or [B, T] in packed strings, where positions start anew with every document."""
    segments: Array | None = None
    """int32 [B, T]: the document id of each token of packed strings, whose attention is masked across documents."""
    real: Array | None = None
    """The prefill length: only this many of the T tokens are real, the rest is padding."""
    dropout: Array | None = None
    """Keys [B], in training with dropout."""


class Attention(nn.Module):
    """Causal self-attention of T tokens over themselves or, with a cache, of one token over all before it.

    A cache and T > 1 is a prefill: the cache was empty, and the last tokens that fit are written to it.
    """

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, cache: tuple[Array, Array] | None, at: At):  # [B, T, D]
        cfg = self.cfg
        batch, tokens, groups, d = *x.shape[:2], cfg.groups, cfg.head_size
        qkv = _dense(cfg, (cfg.heads + 2 * groups) * d, "qkv")(x).reshape(batch, tokens, -1, d)
        q, k, v = jnp.split(qkv, [cfg.heads, cfg.heads + groups], axis=2)  # [B, T, heads, d]
        if cfg.qk_norm:
            q = nn.RMSNorm(epsilon=cfg.norm_eps, dtype=cfg.dtype, name="q_norm")(q)
            k = nn.RMSNorm(epsilon=cfg.norm_eps, dtype=cfg.dtype, name="k_norm")(k)
        queries, k = apply_rope(cfg, q, k, at.positions)
        if cache is None and cfg.chunk is None and at.segments is None and can_fuse(cfg.dtype, d):
            y = fused_attention(queries[0], k, v, cfg.window).reshape(batch, tokens, -1)
            return _dense(cfg, cfg.width, "out")(y), None
        by_heads = lambda x: jnp.transpose(x, (0, 2, 1, 3))  # noqa: E731
        queries = [by_heads(q).reshape(batch * groups, -1, tokens, d) for q in queries]  # N = B G, heads of a group
        k, v = (by_heads(x).reshape(batch * groups, tokens, d) for x in (k, v))

        query_index = key_index = jnp.arange(tokens)  # in the string
        key_positions = at.positions
        if cache is not None and tokens == 1:
            room = cache[0].shape[1]
            query_index = at.positions
            key_index = key_positions = ring_indices(query_index, room)
            write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, query_index[0] % room, axis=1)  # noqa: E731
            k, v = cache = write(cache[0], k), write(cache[1], v)
        elif cache is not None:
            assert at.real is not None  # a cache and T > 1 is a prefill
            kept = jnp.clip(ring_indices(at.real - 1, cache[0].shape[1]), 0, tokens - 1)
            cache = k[:, kept], v[:, kept]

        segments = None if at.segments is None else jnp.repeat(at.segments, groups, axis=0)  # [N, T]
        if cfg.window is not None and cfg.chunk is None and tokens >= 2 * cfg.window:
            y = attend_in_blocks(queries[0], k, v, cfg.window, segments)
        else:
            mask = causal_mask(query_index, key_index, cfg.window)[None]
            if segments is not None:
                mask &= segments[:, :, None] == segments[:, None, :]
            if cfg.chunk is None:
                scores = scaled_scores(queries[0], k)
            else:
                apart = rope.chunks_apart(at.positions[..., :, None], key_positions[..., None, :], cfg.chunk)
                apart = jnp.repeat(apart, groups, axis=0)[:, None] if apart.ndim == 3 else apart[None, None]
                same, before, earlier = (scaled_scores(q, k) for q in queries)
                scores = jnp.where(apart == 0, same, jnp.where(apart == 1, before, earlier))
            y = attend(scores, v, mask)
        y = by_heads(y.reshape(batch, cfg.heads, tokens, d)).reshape(batch, tokens, -1)
        return _dense(cfg, cfg.width, "out")(y), cache


def apply_rope(cfg: Config, q: Array, k: Array, positions: Array) -> tuple[list[Array], Array]:
    """Rotary positions of queries and keys [B, T, heads, d]; with dual chunk attention three rotations of the queries.

    Returns (list of queries, keys). Learned positions leave both as they are.
    """
    if cfg.positions == "learned":
        return [q], k
    positions = positions[..., None]  # the same for all heads
    rotate = lambda x, to: rope.rotate(x, to, cfg.theta, cfg.scaling)  # noqa: E731
    if cfg.chunk is None:
        return [rotate(q, positions)], rotate(k, positions)
    assert cfg.trained is not None  # `check`: chunks come with the length of the training
    keys, *queries = rope.chunk_positions(positions, cfg.chunk, cfg.trained)
    return [rotate(q, to) for to in queries], rotate(k, keys)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). [B, T, D] -> [B, T, D] and the cache."""

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, cache: tuple[Array, Array] | None, at: At):
        cfg = self.cfg
        hidden = cfg.hidden or 4 * cfg.width
        y, cache = Attention(cfg, name="attention")(_norm(cfg, "attention_norm")(x), cache, at)
        x = x + dropout(cfg, y, at.dropout, 0)
        y = _norm(cfg, "mlp_norm")(x)
        up = _dense(cfg, hidden, "up")(y)
        if cfg.mlp == "swiglu":
            up = nn.silu(_dense(cfg, hidden, "gate")(y)) * up
        else:
            up = nn.gelu(up, approximate=True) if cfg.mlp == "gelu" else nn.relu(up) ** 2
        return x + dropout(cfg, _dense(cfg, cfg.width, "down")(up), at.dropout, 1), cache


def dropout(cfg: Config, x: Array, keys: Array | None, draw: int) -> Array:
    """`keys.dropout` of x [B, ...], by a number of its own for each use of the same keys [B]; without keys, x."""
    return x if keys is None else per_example.dropout(fold(keys, draw), x, cfg.dropout)


class GPT(nn.Module):
    """Tokens -> logits: whole strings (`__call__`), one position (`step`), or a prompt into a cache (`prefill`)."""

    cfg: Config

    def setup(self):
        cfg, normal = self.cfg, nn.initializers.normal
        init = normal(1.0 if cfg.init == "zero" else 0.02)
        self.start = self.param("start", init, (cfg.width,))
        self.embedding = self.param("embedding", init, (cfg.vocab, cfg.width))
        if cfg.classes is not None:
            self.label = self.param("label", init, (cfg.classes, cfg.width))
        if cfg.positions == "learned":
            self.positions = self.param("positions", normal(0.02), (cfg.length, cfg.width))
        self.blocks = [Block(cfg.of_layer(i), name=f"block_{i}") for i in range(cfg.layers)]
        self.final_norm = _norm(cfg, "final_norm")
        if not cfg.tied:
            self.head = self.param("head", normal(0.001 if cfg.init == "zero" else 0.02), (cfg.vocab, cfg.width))
        if cfg.residual_scales:
            self.residual = self.param("residual", nn.initializers.ones, (cfg.layers,))
            self.skip = self.param("skip", nn.initializers.zeros, (cfg.layers,))

    def __call__(
        self, tokens: Array, label: Array | None = None, segments: Array | None = None, keys: Array | None = None
    ) -> Array:
        """[B, L] -> [B, L, V]. keys: [B], for dropout."""
        at = At(jnp.arange(tokens.shape[1]), dropout=keys)
        if segments is not None:
            first = _first(segments)
            began = jax.lax.cummax(jnp.where(first, jnp.arange(tokens.shape[1])[None], 0), axis=1)
            at = at._replace(positions=jnp.arange(tokens.shape[1])[None] - began, segments=segments)
        return self.trunk(self.embed(tokens, label, segments), at)[0]

    def embed(self, tokens: Array, label: Array | None = None, segments: Array | None = None) -> Array:
        """The input of the blocks: the start vector, then the embeddings of all tokens but the last.

        [B, L] -> [B, L, D]. In packed strings every document begins with the start vector.
        """
        x = self.embedding[jnp.roll(tokens, 1, axis=1)]
        first = (jnp.arange(tokens.shape[1]) == 0)[None] if segments is None else _first(segments)
        return jnp.where(first[..., None], self.start[None, None], x) + self.condition(label)

    def condition(self, label: Array | None) -> Array:
        """The vector that every input of a string gets by its label [B]: [B, 1, D], or zeros [1, 1, 1] without one."""
        return jnp.zeros((1, 1, 1)) if label is None else self.label[label][:, None]

    def step(self, cache: Cache, token: Array, t: Array, label: Array | None = None) -> tuple[Array, Cache]:
        """Token [B] at position t - 1 -> logits [B, V] at position t; the contract of `samplers.decoding`."""
        x = jnp.where(t == 0, self.start[None], self.embedding[token])[:, None] + self.condition(label)
        logits, cache = self.trunk(x, At(jnp.asarray(t)[None]), cache)
        return logits[:, 0], cache

    def prefill(self, cache: Cache, prompt: Array, count: Array, label: Array | None = None) -> Cache:
        """Write the first `count` tokens of prompt [B, P] into an empty cache, all at once."""
        at = At(jnp.arange(prompt.shape[1]), real=count)
        return self.trunk(self.embed(prompt, label), at, cache)[1]

    def trunk(self, x: Array, at: At | None = None, cache: Cache | None = None) -> tuple[Array, Cache]:
        """Input vectors [B, T, D] -> logits [B, T, V] float32, and the cache with them in."""
        cfg = self.cfg
        at = At(jnp.arange(x.shape[1])) if at is None else at
        if cfg.positions == "learned":
            vectors = self.positions[at.positions]
            x = x + (vectors if vectors.ndim == 3 else vectors[None])
        x = dropout(cfg, x.astype(cfg.dtype), at.dropout, cfg.layers)
        if self.is_initializing():
            for block in self.blocks:
                x, _ = block(x, None, at)
        else:
            x, cache = _through_blocks(cfg, self.variables["params"], x, cache, at)
        head = (self.embedding if cfg.tied else self.head).astype(cfg.dtype)
        logits = _scores(self.final_norm(x), head)
        return (logits if cfg.softcap is None else cfg.softcap * jnp.tanh(logits / cfg.softcap)), cache


def _scores(x: Array, head: Array) -> Array:
    """Products of x [B, T, D] with every row of head [V, D]: float32 [B, T, V].

    With 50,257 tokens a GPU's tensor cores meet results whose rows are not multiples of 16 bytes: an update of GPT-2
    took 1.22 times as long on an H200. So rows are added and cut off again, which would not pay for one position.
    """
    if x.dtype != jnp.bfloat16 or x.shape[1] == 1:
        return einsum_float32("btd,vd->btv", x, head)
    padded = jnp.pad(head, ((0, -len(head) % 8), (0, 0)))
    return einsum_float32("btd,vd->btv", x, padded)[..., : len(head)]


def _through_blocks(cfg: Config, params: Params, x: Array, cache: Cache | None, at: At) -> tuple[Array, Cache | None]:
    """All blocks, as a pure function of the parameters: a loop in Python, or one compiled block scanned over."""
    embedded = x
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}

    def layer(i):
        def run(x, block, scales, keys, cache=None):
            if scales is not None:
                x = (scales[0] * x + scales[1] * embedded).astype(x.dtype)
            return Block(cfg.of_layer(i), parent=None).apply({"params": block}, x, cache, at._replace(dropout=keys))

        return jax.checkpoint(run, policy=policies[cfg.remat]) if cfg.remat != "none" and cache is None else run

    blocks = [params[f"block_{i}"] for i in range(cfg.layers)]
    none = [None] * cfg.layers
    scales = jnp.stack([params["residual"], params["skip"]], axis=1) if cfg.residual_scales else none
    keys = none if at.dropout is None else [fold(at.dropout, i) for i in range(cfg.layers)]  # [B] each
    each = list(zip(blocks, scales, keys, strict=True))
    if cfg.scan and cache is None:
        return through_equal(lambda own, x: layer(0)(x, *own), each, x)[0], None
    new = []
    for i, own in enumerate(each):
        x, kept = layer(i)(x, *own, None if cache is None else cache[i])
        new.append(kept)
    return x, None if cache is None else new


def _first(segments: Array) -> Array:
    """Whether each token begins a document. [B, L]"""
    changed = segments[:, 1:] != segments[:, :-1]
    return jnp.concatenate([jnp.ones_like(changed[:, :1]), changed], axis=1)
